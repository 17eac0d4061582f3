//! Files for finance: pure functions of a log prefix and parameters; the same input gives the same bytes. Every file
//! begins with where it comes from and what it must add up to.

pub mod batch;
pub mod beancount;
pub mod claims;
pub mod cryptio;
pub mod fiat;
pub mod hledger;
pub mod invoice;
pub mod iso20022;
pub mod legs;
pub mod manifest;
pub mod parquet;
pub mod period;
pub mod postings;
pub mod quickbooks;
pub mod statement;
pub mod workbook;
pub mod xero;

use crate::fold::{Books, FoldError};
use period::Period;
use protocol::amount::Amount;
use protocol::asset::Asset;
use protocol::event::Event;
use protocol::id::{AccountId, BatchId, Hash32, Word32};
use serde_json::{Value, json};
use std::fmt::Write;

/// What a file says about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Provenance {
    /// Origin of the log.
    pub origin: String,
    /// Leaves that are in.
    pub size: u64,
    /// Root of the transparency log at that size (SHA-256); `None` when no checkpoint covers exactly this size.
    pub root: Option<Hash32>,
    /// What the file is limited to; the whole prefix without it.
    pub period: Option<Period>,
}

/// Why a file could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The log does not add up.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// A batch that is not in the log, or not with its vault.
    #[error("{0}: the log has no such batch, or not its vault and asset")]
    UnknownBatch(BatchId),
    /// A payment file for a rail that the batch does not have.
    #[error(
        "{batch} is paid by {rail}: a file for {asked} would pay it a second time; export it as csv or json"
    )]
    OtherRail {
        /// Which batch.
        batch: BatchId,
        /// What it was closed for.
        rail: &'static str,
        /// What was asked.
        asked: &'static str,
    },
    /// Nothing that a chain could transfer.
    #[error("{0} has no token with at least 6 digits on a chain: a Safe cannot pay it")]
    NotOnChain(String),
    /// An account that was never opened.
    #[error("{0}: the log has not opened such an account")]
    UnknownAccount(AccountId),
    /// More digits than the format keeps.
    #[error("event {leaf}: a figure has more than 28 digits, which Beancount would round; use hledger")]
    TooManyDigits {
        /// Where.
        leaf: u64,
    },
    /// What the log says about a batch does not agree with itself.
    #[error(
        "{batch}: its payouts lead to root {computed}, submitted was {submitted}; run `counterfoil audit replay`"
    )]
    OtherRoot {
        /// Which batch.
        batch: BatchId,
        /// What follows from its payouts.
        computed: Word32,
        /// What the log says was submitted.
        submitted: Word32,
    },
    /// An asset whose worth in the currency of the books was not said.
    #[error(
        "no rate for {asset}: say what one is worth with --rate {asset}=DECIMAL (1 for the currency itself)"
    )]
    NoRate {
        /// Its symbol.
        asset: String,
    },
    /// A kind of account without a place in finance's chart of accounts.
    #[error("no account of the books for {kind}: give one with --account-code {kind}=CODE")]
    NoAccountCode {
        /// The kind.
        kind: &'static str,
    },
    /// More rows than the format or its reader takes.
    #[error(
        "{rows} rows, and {format} takes {rows_max}: limit the file with --period, or take postings as csv or parquet"
    )]
    TooManyRows {
        /// What came.
        rows: u64,
        /// What it takes.
        rows_max: u64,
        /// Which format.
        format: &'static str,
    },
    /// A bank's file of something that no bank holds.
    #[error(
        "{asset} is no currency of ISO 4217: a bank's file carries fiat legs only; tokens are paid by root claims or a Safe, and exported as csv"
    )]
    NotFiat {
        /// Its symbol.
        asset: String,
    },
    /// More decimals than ISO 20022 carries.
    #[error("event {leaf}: {amount} has more than 5 decimals, which ISO 20022 cannot carry; use csv")]
    TooFine {
        /// Where.
        leaf: u64,
        /// The figure.
        amount: String,
    },
    /// A payee whose bank account was not given.
    #[error("{payee}: no bank account; add a line `{payee},NAME,IBAN` to the file of --payees")]
    NoBankAccount {
        /// Account, as text.
        payee: String,
    },
    /// Bank accounts that are none.
    #[error("{place}: {reason}")]
    BankAccount {
        /// Line or flag.
        place: String,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// The file's own library said no.
    #[error("{format}: {reason}")]
    Format {
        /// Which.
        format: &'static str,
        /// Its words.
        reason: String,
    },
    /// The disk.
    #[error("writing the file: {0}")]
    Io(#[from] std::io::Error),
}

impl ExportError {
    fn format<E: std::fmt::Display>(format: &'static str) -> impl Fn(E) -> ExportError {
        move |error| ExportError::Format { format, reason: error.to_string() }
    }
}

impl Provenance {
    /// The same for JSON files and manifests.
    pub fn json(&self, export: &str) -> Value {
        let mut value = json!({"tool": "counterfoil", "version": env!("CARGO_PKG_VERSION"), "export": export,
            "origin": self.origin, "size": self.size, "root": self.root.map(|root| root.to_string())});
        if let Some(period) = &self.period {
            value["period"] = json!(period.name);
            value["closed"] = json!(period.is_closed);
        }
        value
    }

    /// Whether the file holds this event.
    pub fn holds(&self, event: &Event) -> bool {
        self.period.as_ref().is_none_or(|period| period.holds(event.header.time_us))
    }

    /// What it says about itself, name by name: for formats with properties instead of a header.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let root = self.root.map_or_else(|| "no checkpoint of this size".to_owned(), |r| r.to_string());
        let mut pairs = vec![
            ("tool", format!("counterfoil {}", env!("CARGO_PKG_VERSION"))),
            ("origin", self.origin.clone()),
            ("size", self.size.to_string()),
            ("root", root),
        ];
        if let Some(period) = &self.period {
            pairs.push(("period", period.name.clone()));
            let state = if period.is_closed { "closed" } else { "open, later events may still fall into it" };
            pairs.push(("period state", state.to_owned()));
        }
        pairs
    }
}

/// The sign of files that show both sides.
const DEBIT_CREDIT: &str = "+ debit, - credit";

/// The lines every text file begins with, each behind `prefix`.
fn provenance_lines(
    prefix: &str,
    (name, sign): (&str, &str),
    provenance: &Provenance,
    extra: &[String],
) -> String {
    let mut text = String::new();
    let root = provenance.root.map_or_else(|| "no checkpoint of this size".to_owned(), |r| r.to_string());
    let mut line = |content: String| writeln!(text, "{prefix} {content}").expect("writing to a string");
    line(format!("counterfoil export {name} {}", env!("CARGO_PKG_VERSION")));
    line(format!("origin: {}", provenance.origin));
    line(format!("size: {}", provenance.size));
    line(format!("root: {root}"));
    if let Some(period) = &provenance.period {
        let state = if period.is_closed { "closed" } else { "open, later events may still fall into it" };
        line(format!("period: {}, {state}", period.name));
    }
    line(format!("sign: {sign}"));
    for content in extra {
        line(content.clone());
    }
    text
}

/// Folds all events and gives the books they lead to, with the events that have booked legs.
fn booked(events: &[Event]) -> Result<Books, ExportError> {
    let mut books = Books::new();
    for event in events {
        books.apply(event)?;
    }
    Ok(books)
}

/// The job and batch an event speaks of, as text; empty when none.
fn subjects(event: &Event) -> (String, String) {
    use protocol::event::EventBody::*;
    match &event.body {
        HoldPlaced(e) => (e.job.to_string(), String::new()),
        JobDispatched(e) => (e.job.to_string(), String::new()),
        UsageCaptured(e) => (e.job.to_string(), String::new()),
        CaptureReversed(e) => (e.job.to_string(), String::new()),
        BatchClosed(e) => (String::new(), e.batch.to_string()),
        BatchSubmitted(e) => (String::new(), e.batch.to_string()),
        BatchConfirmed(e) => (String::new(), e.batch.to_string()),
        BatchFailed(e) => (String::new(), e.batch.to_string()),
        BatchReplaced(e) => (String::new(), e.batch.to_string()),
        _ => (String::new(), String::new()),
    }
}

/// All digits of the asset, so that nothing is left to a display style.
fn fixed(amount: Amount, asset: &Asset) -> String {
    let scale = usize::from(asset.ledger_scale);
    let digits = format!("{:0width$}", amount.0.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if amount.0 < 0 { "-" } else { "" };
    if scale == 0 { format!("{sign}{whole}.") } else { format!("{sign}{whole}.{fraction}") }
}

/// A text cell: quoted where RFC 4180 needs it, and never read as a formula.
fn cell(text: &str) -> String {
    let guarded =
        if text.starts_with(['=', '+', '-', '@', '\t']) { format!("'{text}") } else { text.to_owned() };
    if guarded.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", guarded.replace('"', "\"\""))
    } else {
        guarded
    }
}

/// JSON for people and machines: indented, keys in the order of the alphabet whatever the build's JSON library keeps.
fn json_text(mut value: Value) -> String {
    value.sort_all_objects();
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn cells_are_quoted_and_never_formulas() {
        assert_eq!(cell("a"), "a");
        assert_eq!(cell("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(cell("=1+1"), "'=1+1");
        assert_eq!(cell("@x"), "'@x");
    }
}
