//! Files for finance: pure functions of a log prefix and parameters; the same input gives the same bytes. Every file
//! begins with where it comes from and what it must add up to.

pub mod batch;
pub mod beancount;
pub mod hledger;
pub mod manifest;
pub mod postings;
pub mod statement;

use crate::fold::{Books, FoldError};
use protocol::amount::Amount;
use protocol::asset::Asset;
use protocol::event::Event;
use protocol::id::{AccountId, BatchId, Hash32};
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
}

impl Provenance {
    /// The same for JSON files and manifests.
    pub fn json(&self, export: &str) -> Value {
        json!({"tool": "counterfoil", "version": env!("CARGO_PKG_VERSION"), "export": export,
            "origin": self.origin, "size": self.size, "root": self.root.map(|root| root.to_string())})
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
