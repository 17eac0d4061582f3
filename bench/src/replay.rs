//! `bench replay`: the whole log again, with decoding, chain and full apply.

use crate::report::Report;
use crate::BenchError;
use std::path::PathBuf;

/// How much is measured.
#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// Events in the log, at least.
    pub events: u64,
    /// Accounts.
    pub accounts: u32,
    /// Where the server keeps its data.
    pub dir: PathBuf,
}

/// Runs it.
pub async fn run(options: ReplayOptions) -> Result<Report, BenchError> {
    Ok(Report::new("replay", serde_json::json!({ "events": options.events })))
}
