//! Files for finance: pure functions of a log prefix and parameters; the same input gives the same bytes. Every file
//! begins with where it comes from and what it must add up to.

pub mod hledger;
pub mod postings;

use crate::fold::{Books, FoldError};
use protocol::event::Event;
use protocol::id::Hash32;
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
}

/// The lines every text file begins with, each behind `prefix`.
fn provenance_lines(prefix: &str, name: &str, provenance: &Provenance, extra: &[String]) -> String {
    let mut text = String::new();
    let root = provenance.root.map_or_else(|| "no checkpoint of this size".to_owned(), |r| r.to_string());
    let mut line = |content: String| writeln!(text, "{prefix} {content}").expect("writing to a string");
    line(format!("counterfoil export {name} {}", env!("CARGO_PKG_VERSION")));
    line(format!("origin: {}", provenance.origin));
    line(format!("size: {}", provenance.size));
    line(format!("root: {root}"));
    line("sign: + debit, - credit".to_owned());
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
        _ => (String::new(), String::new()),
    }
}
