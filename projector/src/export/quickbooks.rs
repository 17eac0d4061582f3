//! QuickBooks Online journal entries: a month's summary in the currency of the books, account names `Parent:Sub`, debits and
//! credits in columns of their own.

use super::fiat::{Line, Rates, journals, two_digits};
use super::hledger::class;
use super::{ExportError, Provenance, cell};
use protocol::event::Event;
use std::fmt::Write;

/// The whole file.
pub fn csv(events: &[Event], provenance: &Provenance, rates: &Rates) -> Result<String, ExportError> {
    let mut text = "*JournalNo,*JournalDate,*AccountName,*Debits,*Credits,Description,Name\n".to_owned();
    for journal in journals(events, provenance, rates)? {
        let (year, month, day) = journal.day();
        for (line, minor) in &journal.lines {
            let (account, what) = match line {
                Line::Kind(kind, asset) => {
                    let words = kind.name().replace('_', " ");
                    (format!("{}:{}", sentence(class(*kind).0), sentence(&words)), format!("{words} {asset}"))
                }
                Line::Rounding => ("Expenses:Rounding".to_owned(), "rounding".to_owned()),
            };
            let amount = two_digits(minor.abs());
            let (debit, credit) = if *minor > 0 { (amount.as_str(), "") } else { ("", amount.as_str()) };
            writeln!(
                text,
                "CF-{},{month}/{day}/{year},{},{debit},{credit},{},",
                journal.month,
                cell(&account),
                cell(&format!("{what}, {} as of size {}", provenance.origin, provenance.size)),
            )
            .expect("writing to a string");
        }
    }
    Ok(text)
}

fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
