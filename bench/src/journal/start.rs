//! A large log is opened again: from the newest snapshot and what was committed since. And what a million accounts take
//! in memory, ledger and journal together.

use super::JournalOptions;
use super::setup::{open_journal_with, submit_all};
use crate::growth::open_elsewhere;
use crate::load::{Load, Spread};
use crate::raw::start_server;
use crate::report::{Report, ResultLine};
use crate::{BenchError, Tried};

/// Commands of one batch while the log is filled.
const BATCH: usize = 4_000;

/// Fills, closes, opens again.
pub(super) async fn measure(options: &JournalOptions, report: &mut Report) -> Result<(), BenchError> {
    if options.start_accounts < 2 {
        return Ok(());
    }
    let dir = tempfile::tempdir_in(&options.dir).tried("make a folder")?;
    let mut server = start_server(&dir.path().join("broker")).await?;
    let data_dir = dir.path().join("data");
    let journal = open_journal_with(&server, data_dir.clone(), |_| {}).await?;
    let client = journal.client();
    let mut load = Load::new(options.start_accounts, 0);
    submit_all(&client, load.opening()).await?;
    let mut batch = Vec::with_capacity(BATCH);
    for number in 0..options.start_accounts {
        batch.extend(load.account(number));
        if batch.len() >= BATCH || number + 1 == options.start_accounts {
            submit_all(&client, std::mem::take(&mut batch)).await?;
        }
    }
    while client.position().borrow().leaf < options.start_events {
        submit_all(&client, load.batch(BATCH, 0, Spread::Uniform)).await?;
    }
    let leaves = client.position().borrow().leaf;
    journal.shutdown().await.tried("shut the journal down")?;
    let opened = open_elsewhere(&options.program, &server, &dir.path().join("broker"), &data_dir).await?;
    report.results.push(ResultLine::time_ms("start.snapshot_1m", opened.took_ms));
    opened.put("start", f64::from(options.start_accounts), report);
    let name = "start.events_in_log";
    report.results.push(ResultLine::new(name, leaves as f64, "events", crate::report::Better::Higher));
    server.stop().await.tried("stop nats-server")
}
