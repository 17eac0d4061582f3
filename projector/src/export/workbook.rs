//! Workbooks for people in finance: Summary, Lines, Reconciliation, Provenance. A figure that a spreadsheet's doubles cannot
//! hold (more than 15 digits) is a text with all its digits, never a rounded number.

use super::legs::Legs;
use super::period::corrections;
use super::statement::AccountStatement;
use super::{ExportError, Provenance};
use crate::fold::is_memorandum;
use crate::names::Names;
use crate::time::Clock;
use crate::trial_balance::trial_balance;
use protocol::amount::Amount;
use protocol::event::Event;
use rust_xlsxwriter::{DocProperties, ExcelDateTime, Format, Workbook, Worksheet, XlsxError};
use std::collections::BTreeMap;

/// Rows of a sheet, less its header.
const ROWS_MAX: u64 = 1_048_575;
/// Digits that a double holds exactly.
const DIGITS_MAX: usize = 15;
const FORMAT: &str = "workbook";

/// The whole workbook.
pub fn xlsx(events: &[Event], provenance: &Provenance) -> Result<Vec<u8>, ExportError> {
    let legs = Legs::of(events, provenance)?;
    let (rows, totals) = legs.control_totals();
    if rows > ROWS_MAX {
        return Err(ExportError::TooManyRows { rows, rows_max: ROWS_MAX, format: "a sheet" });
    }
    let mut book = Book::new(legs.books().time_us())?;
    let mut summary = book.sheet("Summary", &["account", "kind", "asset", "debits", "credits", "balance"])?;
    for line in trial_balance(legs.books()).lines {
        let Some(account) = legs.books().account(protocol::event::LedgerAccount(line.number)) else {
            continue;
        };
        let scale = legs.books().asset(account.opened.asset).map_or(0, |asset| asset.ledger_scale);
        let figure = |amount: Amount| Cell::Figure(amount.to_decimal_string(scale));
        summary.row(&[
            Cell::Text(line.account),
            Cell::Text(line.kind.name().to_owned()),
            Cell::Text(line.asset),
            figure(account.counters.debits_posted),
            figure(account.counters.credits_posted),
            figure(line.balance),
        ])?;
    }
    let mut lines =
        book.sheet("Lines", &["event", "time", "type", "job", "batch", "account", "asset", "amount"])?;
    let mut clock = Clock::default();
    for booked in legs.booked() {
        let header = &booked.event.header;
        for posting in &booked.event.postings {
            let words = legs.words(posting);
            lines.row(&[
                Cell::Figure(header.leaf.to_string()),
                Cell::Text(clock.rfc3339(header.time_us).to_owned()),
                Cell::Text(booked.event.body.kind().to_owned()),
                Cell::Text(booked.job.clone()),
                Cell::Text(booked.batch.clone()),
                Cell::Text(words.name.clone()),
                Cell::Text(words.asset.clone()),
                Cell::Figure(posting.amount.to_decimal_string(words.scale)),
            ])?;
        }
    }
    reconciliation(&mut book, &legs)?;
    let mut about = vec![("rows".to_owned(), rows.to_string())];
    about.extend(
        totals
            .into_iter()
            .map(|(asset, sum)| (format!("debits = credits, {asset} base units"), sum.0.to_string())),
    );
    about.extend(corrections(events, provenance).into_iter().map(|line| ("correction".to_owned(), line)));
    book.provenance(provenance, about)?;
    book.bytes()
}

/// What stands against what, an asset a block: what is held, what is owed, what is the platform's own; they sum to zero.
fn reconciliation(book: &mut Book, legs: &Legs<'_>) -> Result<(), ExportError> {
    let mut sums: BTreeMap<(u32, &'static str, &'static str), i128> = BTreeMap::new();
    let mut notes: BTreeMap<(u32, &'static str), i128> = BTreeMap::new();
    for account in legs.books().accounts() {
        let (kind, asset) = (account.opened.kind, account.opened.asset.0);
        let balance = account.counters.balance().0;
        if is_memorandum(kind) {
            *notes.entry((asset, kind.name())).or_default() += balance;
        } else {
            *sums.entry((asset, super::hledger::class(kind).0, kind.name())).or_default() += balance;
        }
    }
    let mut sheet =
        book.sheet("Reconciliation", &["asset", "class", "kind", "balance (+ debit, - credit)"])?;
    for asset in legs.books().assets() {
        let figure = |amount: i128| Cell::Figure(Amount(amount).to_decimal_string(asset.ledger_scale));
        let mut total = 0;
        let mut line = |class: &str, kind: &str, amount: i128| {
            sheet.row(&[
                Cell::Text(asset.symbol.clone()),
                Cell::Text(class.to_owned()),
                Cell::Text(kind.to_owned()),
                figure(amount),
            ])
        };
        for ((_, class, kind), amount) in sums.iter().filter(|((number, _, _), _)| *number == asset.id.0) {
            line(class, kind, *amount)?;
            total += amount;
        }
        line("sum, must be 0", "", total)?;
        for ((_, kind), amount) in notes.iter().filter(|((number, _), _)| *number == asset.id.0) {
            line("memorandum", kind, *amount)?;
        }
    }
    Ok(())
}

/// An account's statement: quarters and payouts, lines, provenance.
pub fn statement(statement: &AccountStatement<'_>) -> Result<Vec<u8>, ExportError> {
    let lines = statement.lines();
    let rows = lines.len() as u64;
    if rows > ROWS_MAX {
        return Err(ExportError::TooManyRows { rows, rows_max: ROWS_MAX, format: "a sheet" });
    }
    let mut book = Book::new(statement.books().time_us())?;
    let mut summary = book
        .sheet("Summary", &["quarter", "asset", "charges", "gross", "platform fees", "earned", "paid out"])?;
    for ((quarter, asset), sums) in statement.quarters() {
        let known = statement.books().asset(protocol::asset::AssetId(*asset));
        let (symbol, scale) = known.map_or(("?".to_owned(), 0), |a| (a.symbol.clone(), a.ledger_scale));
        let figure = |amount: Amount| Cell::Figure(amount.to_decimal_string(scale));
        summary.row(&[
            Cell::Text(quarter.clone()),
            Cell::Text(symbol),
            Cell::Figure(sums.captures.to_string()),
            figure(sums.gross),
            figure(sums.fees),
            figure(sums.earned),
            figure(sums.paid),
        ])?;
    }
    let columns =
        ["event", "time", "type", "what", "account", "counter account", "asset", "amount", "balance"];
    let mut sheet = book.sheet("Lines", &columns)?;
    for line in lines {
        sheet.row(&[
            Cell::Figure(line.leaf.to_string()),
            Cell::Text(line.time.clone()),
            Cell::Text(line.kind.to_owned()),
            Cell::Text(line.text.to_owned()),
            Cell::Text(line.account.clone()),
            Cell::Text(line.counter.clone()),
            Cell::Text(line.asset.clone()),
            Cell::Figure(line.amount.clone()),
            Cell::Figure(line.balance.clone()),
        ])?;
    }
    let mut balances = book.sheet("Reconciliation", &["account", "balance (+ is more for the account)"])?;
    for account in statement.books().of_owner(statement.account()) {
        let balance = crate::statements::theirs(account.opened.kind, account.counters.balance());
        balances.row(&[
            Cell::Text(account.opened.kind.name().to_owned()),
            Cell::Text(statement.books().money(account.opened.asset, balance)),
        ])?;
    }
    let about =
        vec![("account".to_owned(), statement.account().to_string()), ("rows".to_owned(), rows.to_string())];
    book.provenance(statement.provenance(), about)?;
    book.bytes()
}

/// What stands in a cell.
enum Cell {
    /// Words; never a formula.
    Text(String),
    /// A decimal: a number where a double holds it, else its digits as text.
    Figure(String),
}

struct Book {
    workbook: Workbook,
    bold: Format,
}

impl Book {
    fn new(time_us: u64) -> Result<Book, ExportError> {
        let mut workbook = Workbook::new();
        // Of the log, not of the clock: the same prefix is the same file.
        let seconds = i64::try_from(time_us / 1_000_000).unwrap_or(0);
        let time = ExcelDateTime::from_timestamp(seconds).map_err(ExportError::format(FORMAT))?;
        workbook.set_properties(&DocProperties::new().set_author("counterfoil").set_creation_datetime(&time));
        Ok(Book { workbook, bold: Format::new().set_bold() })
    }

    fn sheet(&mut self, name: &str, columns: &[&str]) -> Result<Sheet<'_>, ExportError> {
        let sheet = self.workbook.add_worksheet();
        let begin = |sheet: &mut Worksheet, bold: &Format| -> Result<(), XlsxError> {
            sheet.set_name(name)?;
            sheet.set_freeze_panes(1, 0)?;
            for (column, title) in columns.iter().enumerate() {
                sheet.write_string_with_format(0, column as u16, *title, bold)?;
                sheet.set_column_width(column as u16, 22)?;
            }
            Ok(())
        };
        begin(sheet, &self.bold).map_err(ExportError::format(FORMAT))?;
        Ok(Sheet { sheet, next: 1 })
    }

    fn provenance(
        &mut self,
        provenance: &Provenance,
        about: Vec<(String, String)>,
    ) -> Result<(), ExportError> {
        let mut sheet = self.sheet("Provenance", &["what", "value"])?;
        let pairs = provenance.pairs().into_iter().map(|(name, value)| (name.to_owned(), value));
        for (name, value) in pairs.chain(about) {
            sheet.row(&[Cell::Text(name), Cell::Text(value)])?;
        }
        Ok(())
    }

    fn bytes(mut self) -> Result<Vec<u8>, ExportError> {
        self.workbook.save_to_buffer().map_err(ExportError::format(FORMAT))
    }
}

struct Sheet<'a> {
    sheet: &'a mut Worksheet,
    next: u32,
}

impl Sheet<'_> {
    fn row(&mut self, cells: &[Cell]) -> Result<(), ExportError> {
        for (column, cell) in cells.iter().enumerate() {
            let (row, column) = (self.next, column as u16);
            let written = match cell {
                Cell::Text(text) if text.is_empty() => continue,
                Cell::Text(text) => self.sheet.write_string(row, column, text),
                Cell::Figure(text) => match number(text) {
                    Some(number) => self.sheet.write_number(row, column, number),
                    None => self.sheet.write_string(row, column, text),
                },
            };
            written.map_err(ExportError::format(FORMAT))?;
        }
        self.next += 1;
        Ok(())
    }
}

/// The double of a decimal, when it has no more digits than a double holds.
fn number(text: &str) -> Option<f64> {
    let digits = text.bytes().filter(u8::is_ascii_digit).skip_while(|digit| *digit == b'0').count();
    (digits <= DIGITS_MAX).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn only_what_a_double_holds_is_a_number() {
        assert_eq!(number("0.000676"), Some(0.000676));
        assert_eq!(number("-123456789012345"), Some(-123_456_789_012_345.0));
        assert_eq!(number("123456.7890123456"), None);
        assert_eq!(number("1234567890123456"), None);
    }
}
