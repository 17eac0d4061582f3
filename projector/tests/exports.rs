//! Files for finance from the story's log: golden bytes, refusals, and what foreign programs say to them when they are
//! installed (COUNTERFOIL_HLEDGER, COUNTERFOIL_PYTHON with beancount). `UPDATE_GOLDEN=1` writes the golden files anew.

mod story;

use projector::export::batch::{BatchFiles, safe_checksum};
use projector::export::beancount::{self, Detail};
use projector::export::statement::AccountStatement;
use projector::export::{ExportError, Provenance, hledger, postings};
use protocol::amount::Amount;
use protocol::event::batch::Rail;
use protocol::event::{Event, EventBody};
use protocol::id::{AccountId, BatchId, EvmAddress, Hash32};
use std::path::Path;
use std::process::{Command, Output};

const SAFE: EvmAddress = EvmAddress([0x5a; 20]);

fn provenance() -> Provenance {
    Provenance {
        origin: "books.test/0".into(),
        size: story::log().len() as u64,
        root: Some(Hash32([0xaa; 32])),
        period: None,
    }
}

fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, golden, "{name}: UPDATE_GOLDEN=1 writes it anew; then read it");
}

/// The story with its batch closed for another rail.
fn with_rail(rail: Rail) -> Vec<Event> {
    let mut events = story::log();
    for event in &mut events {
        if let EventBody::BatchClosed(batch) = &mut event.body {
            batch.rail = rail;
        }
    }
    events
}

#[test]
fn files_are_the_golden_bytes() {
    let (events, safe, provenance) = (story::log(), with_rail(Rail::Safe), provenance());
    check("postings.csv", &postings::csv(&events, &provenance).unwrap());
    check("books.journal", &hledger::journal(&events, &provenance).unwrap());
    check("daily.beancount", &beancount::ledger(&events, &provenance, Detail::Daily).unwrap());
    check("full.beancount", &beancount::ledger(&events, &provenance, Detail::Full).unwrap());
    let batch = BatchFiles::find(&safe, story::BATCH, &provenance).unwrap();
    check("batch.csv", &batch.csv());
    check("batch.json", &batch.json());
    check("batch.safe.json", &batch.safe(SAFE).unwrap());
    check("batch.safe-airdrop.csv", &batch.safe_airdrop().unwrap());
    for (name, account) in [("operator", story::EARNER), ("customer", story::ALICE)] {
        let statement = AccountStatement::of(account, &with_operator_account(), &provenance).unwrap();
        check(&format!("{name}.csv"), &statement.csv());
        check(&format!("{name}.html"), &statement.html());
    }
}

/// The story, with the earner's account opened where Alice's first cap was set.
fn with_operator_account() -> Vec<Event> {
    let mut events = story::log();
    let at = events.iter().position(|event| event.body.kind() == "writer_changed").unwrap();
    let opened = protocol::event::account::AccountOpened { account: story::EARNER };
    events[at].body = EventBody::AccountOpened(opened);
    events
}

#[test]
fn a_batch_is_paid_on_its_own_rail_only() {
    let (events, provenance) = (story::log(), provenance());
    let batch = BatchFiles::find(&events, story::BATCH, &provenance).unwrap();
    for refused in [batch.safe(SAFE), batch.safe_airdrop()] {
        let error = refused.unwrap_err();
        assert!(
            matches!(error, ExportError::OtherRail { rail: "root_claims", asked: "safe", .. }),
            "{error}"
        );
    }
    let unknown = BatchFiles::find(&events, BatchId([9; 16]), &provenance).unwrap_err();
    assert!(matches!(unknown, ExportError::UnknownBatch(_)), "{unknown}");
    let stranger = AccountStatement::of(AccountId([0x77; 16]), &events, &provenance).unwrap_err();
    assert!(matches!(stranger, ExportError::UnknownAccount(_)), "{stranger}");
}

#[test]
fn a_safe_file_pays_what_the_batch_says_in_token_units() {
    let (events, provenance) = (with_rail(Rail::Safe), provenance());
    let batch = BatchFiles::find(&events, story::BATCH, &provenance).unwrap();
    let file: serde_json::Value = serde_json::from_str(&batch.safe(SAFE).unwrap()).unwrap();
    let values: Vec<&str> = file["transactions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|transaction| transaction["contractInputsValues"]["value"].as_str().unwrap())
        .collect();
    // 540 and 136 vault units of 1e-6 at 18 digits.
    assert_eq!(values, ["540000000000000", "136000000000000"]);
    assert_eq!(file["meta"]["checksum"], safe_checksum(&file));
}

#[test]
fn figures_that_beancount_would_round_are_refused() {
    let mut events = story::log();
    let huge = 10_i128.pow(28);
    let grant = events.iter_mut().find(|event| !event.postings.is_empty()).unwrap();
    grant.postings[0].amount = Amount(huge);
    grant.postings[1].amount = Amount(-huge);
    let error = beancount::ledger(&events, &provenance(), Detail::Daily).unwrap_err();
    assert!(matches!(error, ExportError::TooManyDigits { leaf: 8 }), "{error}");
    assert!(hledger::journal(&events, &provenance()).is_ok(), "hledger keeps every digit");
}

#[test]
fn hledger_checks_the_books_with_their_memorandum_accounts() {
    let Some(program) = std::env::var_os("COUNTERFOIL_HLEDGER") else {
        eprintln!("skipped: hledger is not installed (COUNTERFOIL_HLEDGER is not set)");
        return;
    };
    let run = |text: &str| -> Output {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("books.journal");
        std::fs::write(&file, text).unwrap();
        let checks = ["check", "accounts", "commodities", "payees", "ordereddates"];
        Command::new(&program).arg("-f").arg(&file).args(checks).env("LC_ALL", "C.UTF-8").output().unwrap()
    };
    let journal = hledger::journal(&story::log(), &provenance()).unwrap();
    let fine = run(&journal);
    assert!(fine.status.success(), "{}", String::from_utf8_lossy(&fine.stderr));
    assert!(journal.contains("memorandum:credit_lines:FOIL  0.005000000 FOIL"), "{journal}");
    let altered = journal.replacen("0.005000000 FOIL", "0.005000001 FOIL", 1);
    assert!(!run(&altered).status.success(), "hledger accepted an altered leg");
}

#[test]
fn beancount_checks_the_books() {
    let Some(python) = std::env::var_os("COUNTERFOIL_PYTHON") else {
        eprintln!("skipped: no Python of the foreign tools (COUNTERFOIL_PYTHON is not set)");
        return;
    };
    let installed = Command::new(&python).args(["-c", "import beancount"]).output().unwrap();
    if !installed.status.success() {
        eprintln!("skipped: that Python has no beancount");
        return;
    }
    let script = "import sys\nfrom beancount import loader\nerrors = loader.load_file(sys.argv[1])[1]\n\
                  [print(e) for e in errors]\nsys.exit(1 if errors else 0)";
    let run = |text: &str| -> Output {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("books.beancount");
        std::fs::write(&file, text).unwrap();
        Command::new(&python).args(["-c", script]).arg(&file).output().unwrap()
    };
    for detail in [Detail::Daily, Detail::Full] {
        let ledger = beancount::ledger(&story::log(), &provenance(), detail).unwrap();
        let fine = run(&ledger);
        assert!(fine.status.success(), "{}", String::from_utf8_lossy(&fine.stdout));
        let leg = ledger.lines().find(|line| line.starts_with("  Assets:")).unwrap();
        let last = leg.rfind(" FOIL").unwrap() - 1;
        let digit = if leg.as_bytes()[last] == b'9' { '8' } else { char::from(leg.as_bytes()[last] + 1) };
        let altered = ledger.replacen(leg, &format!("{}{digit} FOIL", &leg[..last]), 1);
        assert!(!run(&altered).status.success(), "beancount accepted a leg that is one unit off");
    }
}

#[test]
fn duckdb_reads_the_postings_and_they_sum_to_zero() {
    let Some(python) = std::env::var_os("COUNTERFOIL_PYTHON") else {
        eprintln!("skipped: no Python of the foreign tools (COUNTERFOIL_PYTHON is not set)");
        return;
    };
    let installed = Command::new(&python).args(["-c", "import duckdb"]).output().unwrap();
    if !installed.status.success() {
        eprintln!("skipped: that Python has no duckdb");
        return;
    }
    // DuckDB would guess DOUBLE: the type of the amounts is said.
    let script = "import duckdb, sys\n\
        read = f\"read_csv('{sys.argv[1]}', header=true, comment='#', types={{'amount_base': 'HUGEINT'}})\"\n\
        rows = duckdb.sql(f'select count(*) from {read}').fetchall()[0][0]\n\
        off = duckdb.sql(f'select seq, asset from {read} group by all having sum(amount_base) <> 0').fetchall()\n\
        print(rows, off)\n\
        sys.exit(1 if off or rows == 0 else 0)";
    let run = |text: &str| -> Output {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("postings.csv");
        std::fs::write(&file, text).unwrap();
        Command::new(&python).args(["-c", script]).arg(&file).output().unwrap()
    };
    let csv = postings::csv(&story::log(), &provenance()).unwrap();
    let fine = run(&csv);
    let told = format!("{}{}", String::from_utf8_lossy(&fine.stdout), String::from_utf8_lossy(&fine.stderr));
    assert!(fine.status.success(), "{told}");
    let rows: usize = story::log().iter().map(|event| event.postings.len()).sum();
    assert!(told.starts_with(&rows.to_string()), "{told}");
    assert!(
        !run(&csv.replacen(",1000000,9", ",1000001,9", 1)).status.success(),
        "an altered row was accepted"
    );
}
