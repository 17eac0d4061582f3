//! `bench replay`: the whole log again, with decoding, chain and full apply, from the archive's sealed segments and from
//! the live stream; a thread that decodes ahead and one that applies.

use crate::journal::setup::{open_journal_with, submit_all};
use crate::load::{Load, Spread};
use crate::raw::start_server;
use crate::report::{Better, Report, ResultLine};
use crate::{BenchError, Tried};
use journal::pipeline::Position;
use journal::reader::CommittedCommit;
use journal::{ArchiveReader, Journal, ReadError};
use ledger::State;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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

/// Size of the archive's files: small ones are sealed early.
const TAIL_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// How long sealing may take.
const SEALING_WAIT: Duration = Duration::from_secs(120);

/// Runs it.
pub async fn run(options: ReplayOptions) -> Result<Report, BenchError> {
    let settings = serde_json::json!({
        "events": options.events, "accounts": options.accounts, "threads": 2, "what": "transfers",
    });
    let mut report = Report::new("replay", settings);
    let dir = tempfile::tempdir_in(&options.dir).tried("make a folder")?;
    let mut server = start_server(&dir.path().join("broker")).await?;
    let data_dir = dir.path().join("data");
    let open = || open_journal_with(&server, data_dir.clone(), |o| o.tail_file_bytes_max = TAIL_FILE_BYTES);
    let journal = open().await?;
    fill(&journal, &options).await?;
    journal.shutdown().await.tried("shut the journal down")?;
    let started = Instant::now();
    let journal = open().await?;
    let opened_ms = started.elapsed().as_secs_f64() * 1e3;
    sealed(&data_dir).await?;
    let last = *journal.position().borrow();
    let archive = ArchiveReader::open(&data_dir).tried("open the archive")?;
    let decode = decode_rate(archive.commits(1))?;
    let limit = "decoding alone, one thread";
    let from_archive = fold_rate(archive.commits_ahead(1))?;
    report.results.push(ResultLine::rate("replay.archive", from_archive).against(limit, decode));
    let reader = journal.reader();
    let live = tokio::task::spawn_blocking(move || fold_rate(reader.ahead(Position::default(), last.commit)));
    let live = live.await.tried("run the reader")??;
    report.results.push(ResultLine::rate("replay.live", live).against(limit, decode));
    let alone = fold_rate(archive.commits(1))?;
    report.results.push(ResultLine::rate("replay.archive.one_thread", alone).against(limit, decode));
    let size = folder_bytes(&data_dir.join("archive")) as f64 / last.leaf as f64;
    report.results.push(ResultLine::new("archive.bytes_per_event", size, "bytes", Better::Lower));
    report.results.push(ResultLine::time_ms("start.snapshot", opened_ms));
    journal.shutdown().await.tried("shut the journal down")?;
    server.stop().await.tried("stop nats-server")?;
    Ok(report)
}

async fn fill(journal: &Journal, options: &ReplayOptions) -> Result<(), BenchError> {
    let client = journal.client();
    let mut load = Load::new(options.accounts, 0);
    submit_all(&client, load.opening()).await?;
    let mut batch = Vec::new();
    for number in 0..options.accounts {
        batch.extend(load.account(number));
        if batch.len() >= 2_000 || number + 1 == options.accounts {
            submit_all(&client, std::mem::take(&mut batch)).await?;
        }
    }
    while client.position().borrow().leaf < options.events {
        submit_all(&client, load.batch(4_000, 0, Spread::Uniform)).await?;
    }
    Ok(())
}

fn fold_rate(commits: impl Iterator<Item = Result<CommittedCommit, ReadError>>) -> Result<f64, BenchError> {
    let mut state = State::new(0);
    let begin = Instant::now();
    for commit in commits {
        commit.tried("read a commit")?.apply_to(&mut state).tried("apply a commit")?;
    }
    Ok(state.next_leaf() as f64 / begin.elapsed().as_secs_f64())
}

fn decode_rate(commits: impl Iterator<Item = Result<CommittedCommit, ReadError>>) -> Result<f64, BenchError> {
    let begin = Instant::now();
    let mut events = 0;
    for commit in commits {
        events += commit.tried("read a commit")?.events.len();
    }
    Ok(events as f64 / begin.elapsed().as_secs_f64())
}

/// Waits until only the newest tail files are unsealed.
async fn sealed(data_dir: &Path) -> Result<(), BenchError> {
    let looking = async {
        let mut look = tokio::time::interval(Duration::from_millis(50));
        loop {
            look.tick().await;
            let entries = std::fs::read_dir(data_dir.join(journal::tail::ARCHIVE_FOLDER));
            let tails = entries.into_iter().flatten().flatten();
            let tails = tails.filter(|entry| entry.path().extension().is_some_and(|e| e == "cft")).count();
            if tails <= 2 {
                return;
            }
        }
    };
    tokio::time::timeout(SEALING_WAIT, looking).await.tried("wait for the archive to be sealed")
}

fn folder_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
}
