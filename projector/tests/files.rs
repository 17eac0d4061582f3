//! Files for finance with forms of their own: Parquet, workbooks, invoices, journals of three programs, banks' files. Golden
//! bytes, refusals, and what DuckDB, openpyxl and libxml2 (with the public schemas) say to them where they are installed
//! (COUNTERFOIL_BOOKS_PYTHON). `UPDATE_GOLDEN=1` writes the golden files anew.

mod story;

use projector::export::batch::BatchFiles;
use projector::export::fiat::{RATE_SCALE, Rates};
use projector::export::invoice::Invoice;
use projector::export::iso20022::{self, BankAccount};
use projector::export::period::Period;
use projector::export::statement::AccountStatement;
use projector::export::xero::XeroOptions;
use projector::export::{
    ExportError, Provenance, claims, cryptio, manifest, parquet, postings, quickbooks, workbook, xero,
};
use protocol::amount::Amount;
use protocol::event::batch::Rail;
use protocol::event::{Event, EventBody};
use protocol::id::{AccountId, Hash32};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

fn provenance() -> Provenance {
    let size = story::log().len() as u64;
    Provenance { origin: "books.test/0".into(), size, root: Some(Hash32([0xaa; 32])), period: None }
}

/// The story as told with the file's period, from a log that may go on behind it.
fn of_period(name: &str, mut events: Vec<Event>) -> (Vec<Event>, Provenance) {
    let mut period: Period = name.parse().unwrap();
    period.close_on(&mut events);
    let size = events.len() as u64;
    (events, Provenance { size, period: Some(period), ..provenance() })
}

fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, golden, "{name}: UPDATE_GOLDEN=1 writes it anew; then read it");
}

/// The reader of the foreign tools, or `None` with the reason said.
fn foreign(arguments: &[&str]) -> Option<Output> {
    let Some(python) = std::env::var_os("COUNTERFOIL_BOOKS_PYTHON") else {
        eprintln!("skipped: no Python of the readers (COUNTERFOIL_BOOKS_PYTHON is not set)");
        return None;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/foreign/finance_files.py");
    Some(Command::new(python).arg(script).args(arguments).output().unwrap())
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn rates() -> Rates {
    let rate = Amount::parse_decimal("125000", RATE_SCALE).unwrap();
    Rates { currency: "EUR".into(), by_asset: [("FOIL".to_owned(), rate)].into() }
}

fn xero_options() -> XeroOptions {
    XeroOptions { rates: rates(), codes: BTreeMap::new(), tax_rate: "Tax Exempt".into() }
}

/// The story in a currency, its batch closed for a bank's file: what a network that is paid in euros would write. Figures are
/// ten thousand times those of the story, and five digits stand behind the point.
fn in_euros() -> Vec<Event> {
    let mut events = story::log();
    for event in &mut events {
        match &mut event.body {
            EventBody::NetworkOpened(network) => {
                network.assets[0].symbol = "EUR".into();
                network.assets[0].ledger_scale = 5;
                network.assets[0].chain_scale = None;
            }
            EventBody::BatchClosed(batch) => {
                batch.rail = Rail::FiatFile;
                for payout in &mut batch.payouts {
                    payout.cumulative_units *= 10_000;
                    payout.added_units = payout.cumulative_units - 15_000;
                }
            }
            _ => {}
        }
    }
    events
}

fn debtor() -> BankAccount {
    BankAccount::parse("Counterfoil & Sons,DE89370400440532013000,DEUTDEFF", "debtor").unwrap()
}

#[test]
fn files_are_the_golden_bytes() {
    let (events, provenance) = (story::log(), provenance());
    check("cryptio.csv", &cryptio::csv(&events, &provenance, Some(&rates())).unwrap());
    check("xero.csv", &xero::csv(&events, &provenance, &xero_options()).unwrap());
    check("quickbooks.csv", &quickbooks::csv(&events, &provenance, &rates()).unwrap());
    let invoice = Invoice::of(story::ALICE, &events, &provenance).unwrap();
    check("invoice.json", &invoice.json());
    check("invoice.csv", &invoice.csv());
}

#[test]
fn journals_sum_to_zero_and_need_every_rate() {
    let (events, provenance) = (story::log(), provenance());
    let text = xero::csv(&events, &provenance, &xero_options()).unwrap();
    let cents = |amount: &str| Amount::parse_decimal(amount, 2).unwrap().0;
    let amounts: i128 = text.lines().skip(1).map(|row| cents(row.split(',').nth(5).unwrap())).sum();
    assert_eq!(amounts, 0, "{text}");
    let books = quickbooks::csv(&events, &provenance, &rates()).unwrap();
    let column = |n: usize| -> i128 {
        let cells = books.lines().skip(1).map(|row| row.split(',').nth(n).unwrap().to_owned());
        cells.filter(|cell| !cell.is_empty()).map(|cell| cents(&cell)).sum()
    };
    assert_eq!(column(3), column(4), "{books}");
    assert!(column(3) > 0, "{books}");
    let none = Rates { currency: "EUR".into(), by_asset: BTreeMap::new() };
    let error = quickbooks::csv(&events, &provenance, &none).unwrap_err();
    assert!(matches!(&error, ExportError::NoRate { asset } if asset == "FOIL"), "{error}");
}

#[test]
fn duckdb_reads_parquet_as_one_table_of_days() {
    let dir = tempfile::tempdir().unwrap();
    let (mut events, provenance) = (story::log(), provenance());
    // Three days, so that there is something to divide.
    let count = events.len() as u64;
    for event in &mut events {
        event.header.time_us += event.header.leaf * 3 / count * 86_400_000_000;
    }
    let place = |path: &str| dir.path().join(path);
    let one = place("postings.parquet");
    let mut bytes = Vec::new();
    parquet::file(&events, &provenance, &mut bytes).unwrap();
    std::fs::write(&one, &bytes).unwrap();
    std::fs::write(place("postings.csv"), postings::csv(&events, &provenance).unwrap()).unwrap();
    let paths = parquet::days(&events, &provenance, |path| {
        std::fs::create_dir_all(place(path).parent().unwrap())?;
        std::fs::File::create(place(path))
    });
    let paths = paths.unwrap();
    assert_eq!(paths.len(), 3, "{paths:?}");
    let rows: usize = events.iter().map(|event| event.postings.len()).sum();
    let debits: i128 = events.iter().flat_map(|e| &e.postings).map(|leg| leg.amount.0.max(0)).sum();
    let of_days = place("day=*/*.parquet");
    for path in [one.to_str().unwrap(), of_days.to_str().unwrap()] {
        let Some(output) = foreign(&["parquet", path]) else { return };
        assert_eq!(told(&output).trim(), format!("{rows} {debits}"), "{path}");
    }
    let csv = place("postings.csv");
    let same = foreign(&["same", csv.to_str().unwrap(), one.to_str().unwrap()]).unwrap();
    assert_eq!(told(&same).trim(), rows.to_string());
    // A row of the text that the table does not have must be noticed.
    let text = std::fs::read_to_string(&csv).unwrap().replacen(",1000000,9", ",1000001,9", 1);
    std::fs::write(&csv, text).unwrap();
    let other = foreign(&["same", csv.to_str().unwrap(), one.to_str().unwrap()]).unwrap();
    assert!(!other.status.success(), "{}", told(&other));
    let mut again = Vec::new();
    parquet::file(&events, &provenance, &mut again).unwrap();
    assert_eq!(again, bytes, "the same log is the same file");
}

#[test]
fn a_day_that_is_over_is_the_same_file_in_a_longer_log() {
    let write = |events: &[Event], provenance: &Provenance| {
        let files = std::sync::Mutex::new(BTreeMap::<String, tempfile::NamedTempFile>::new());
        let paths = parquet::days(events, provenance, |path| {
            let file = tempfile::NamedTempFile::new()?;
            let handle = file.reopen()?;
            files.lock().unwrap().insert(path.to_owned(), file);
            Ok(handle)
        });
        let first = paths.unwrap().remove(0);
        let file = files.into_inner().unwrap().remove(&first).unwrap();
        std::fs::read(file.path()).unwrap()
    };
    let mut events = story::log();
    let until = events.len() - 4;
    for event in &mut events[until..] {
        event.header.time_us += 86_400_000_000;
    }
    let shorter = Provenance { size: until as u64, root: None, ..provenance() };
    assert_eq!(write(&events[..until], &shorter), write(&events, &provenance()));
}

#[test]
fn openpyxl_reads_the_workbooks() {
    let (events, provenance) = (story::log(), provenance());
    let bytes = workbook::xlsx(&events, &provenance).unwrap();
    assert_eq!(workbook::xlsx(&events, &provenance).unwrap(), bytes, "the same log is the same file");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("books.xlsx");
    std::fs::write(&path, &bytes).unwrap();
    let Some(output) = foreign(&["workbook", path.to_str().unwrap()]) else { return };
    let rows: usize = events.iter().map(|event| event.postings.len()).sum();
    assert_eq!(told(&output).trim(), format!("{rows} books.test/0 {}", provenance.size));
    let statement = AccountStatement::of(story::ALICE, &events, &provenance).unwrap();
    std::fs::write(&path, workbook::statement(&statement).unwrap()).unwrap();
    let output = foreign(&["workbook", path.to_str().unwrap()]).unwrap();
    assert_eq!(told(&output).trim(), format!("{} books.test/0 {}", statement.lines().len(), provenance.size));
}

#[test]
fn banks_get_what_their_schemas_allow() {
    let (events, provenance) = (in_euros(), provenance());
    let payees = format!("# who is paid\n{},Earner GmbH,GB29NWBK60161331926819\n", story::EARNER);
    let payees = BankAccount::parse_payees(&payees).unwrap();
    let batch = BatchFiles::find(&events, story::BATCH, &provenance).unwrap();
    let payments = iso20022::payments(&batch, &debtor(), &payees).unwrap();
    check("batch.pain001.xml", &payments);
    // 5.40 for life, 0.015 of them before: 5.385 are new, of which banks move floor(5.40) - floor(0.01) hundredths.
    assert!(payments.contains("<InstdAmt Ccy=\"EUR\">5.39</InstdAmt>"), "{payments}");
    let statement = iso20022::statement(story::ALICE, "EUR", &events, &provenance).unwrap();
    check("statement.camt053.xml", &statement);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bank.xml");
    for text in [&payments, &statement] {
        std::fs::write(&path, text).unwrap();
        let Some(output) = foreign(&["xml", path.to_str().unwrap()]) else { return };
        assert!(output.status.success(), "{}", told(&output));
        std::fs::write(&path, text.replace("Ccy=\"EUR\"", "Ccy=\"FOIL\"")).unwrap();
        let output = foreign(&["xml", path.to_str().unwrap()]).unwrap();
        assert!(!output.status.success(), "the schema takes a token: it checks nothing");
    }
}

#[test]
fn banks_get_no_tokens_and_no_second_payment() {
    let (events, provenance) = (story::log(), provenance());
    let batch = BatchFiles::find(&events, story::BATCH, &provenance).unwrap();
    let error = iso20022::payments(&batch, &debtor(), &BTreeMap::new()).unwrap_err();
    assert!(
        matches!(error, ExportError::OtherRail { rail: "root_claims", asked: "fiat_file", .. }),
        "{error}"
    );
    let error = iso20022::statement(story::ALICE, "FOIL", &events, &provenance).unwrap_err();
    assert!(matches!(&error, ExportError::NotFiat { asset } if asset == "FOIL"), "{error}");
    let euros = in_euros();
    let batch = BatchFiles::find(&euros, story::BATCH, &provenance).unwrap();
    let error = iso20022::payments(&batch, &debtor(), &BTreeMap::new()).unwrap_err();
    assert!(matches!(&error, ExportError::NoBankAccount { .. }), "{error}");
    // A token that calls itself a currency is still a token.
    let mut tokens = in_euros();
    for event in &mut tokens {
        if let EventBody::NetworkOpened(network) = &mut event.body {
            network.assets[0].chain_scale = Some(6);
        }
    }
    let error = iso20022::statement(story::ALICE, "EUR", &tokens, &provenance).unwrap_err();
    assert!(matches!(error, ExportError::NotFiat { .. }), "{error}");
}

#[test]
fn claims_are_those_of_the_submitted_root() {
    let (mut events, provenance) = (story::log(), provenance());
    let claims_of = |events: &[Event]| {
        let batch = BatchFiles::find(events, story::BATCH, &provenance).unwrap();
        claims::json(&batch, events)
    };
    let error = claims_of(&events).unwrap_err();
    let ExportError::OtherRoot { computed, .. } = error else { panic!("{error}") };
    for event in &mut events {
        if let EventBody::BatchSubmitted(submitted) = &mut event.body {
            submitted.payout_root = computed;
        }
    }
    check("claims.json", &claims_of(&events).unwrap());
    let error = claims_of(&in_euros()).unwrap_err();
    assert!(matches!(error, ExportError::OtherRail { rail: "fiat_file", .. }), "{error}");
}

#[test]
fn a_closed_period_is_the_same_file_for_ever() {
    let mut longer = story::log();
    let charge = longer.iter().rposition(|event| event.body.kind() == "capture_reversed").unwrap();
    // The reversal, and what came after it, happened a month later.
    for event in &mut longer[charge..] {
        event.header.time_us += 31 * 86_400_000_000;
    }
    let shorter = longer[..=charge].to_vec();
    let september = |events: Vec<Event>| {
        let (events, provenance) = of_period("2026-09", events);
        (
            postings::csv(&events, &provenance).unwrap(),
            workbook::xlsx(&events, &provenance).unwrap(),
            provenance,
        )
    };
    let (then, now) = (september(shorter), september(longer.clone()));
    assert_eq!(then, now);
    assert!(then.0.contains("# period: 2026-09, closed\n"), "{}", then.0);
    let (events, provenance) = of_period("2026-10", longer);
    let october = postings::csv(&events, &provenance).unwrap();
    let wanted =
        format!("# correction: event {charge}, capture reversed, of event {} of 2026-09-21\n", charge - 1);
    assert!(october.contains(&wanted), "{october}");
    assert!(october.contains("# period: 2026-10, open"), "{october}");
    assert!(!october.contains("grant_issued"), "{october}");
    let invoice = Invoice::of(story::ALICE, &events, &provenance).unwrap().csv();
    assert!(invoice.contains("small,1,FOIL,-1,-20,-80,-0.000400001"), "{invoice}");
    let stranger = Invoice::of(AccountId([0x77; 16]), &events, &provenance).unwrap_err();
    assert!(matches!(stranger, ExportError::UnknownAccount(_)), "{stranger}");
    // Beside the file stands what locks it.
    let listed = manifest::with_file(None, "a.csv", b"x", "postings", &then.2).unwrap();
    assert!(manifest::contradicts(&listed, "a.csv", b"y"));
    assert!(!manifest::contradicts(&listed, "a.csv", b"x"));
    let open = manifest::with_file(None, "a.csv", b"x", "postings", &provenance).unwrap();
    assert!(!manifest::contradicts(&open, "a.csv", b"y"), "an open period may change");
}
