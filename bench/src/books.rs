//! A whole log on disk for `bench audit` and `bench export`: holds and charges through the real journal, its archive, and the
//! transparency log's tiles with a signed checkpoint. Making it is not measured.

use crate::journal::setup::{open_journal_with, submit_all};
use crate::load::{Load, Spread};
use crate::raw::start_server;
use crate::{BenchError, Tried};
use journal::ArchiveReader;
use journal::transparency::{Signer, Transparency};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// How large the log is.
#[derive(Clone, Debug)]
pub struct BooksOptions {
    /// Events in the log, at least.
    pub events: u64,
    /// Accounts, each with one grant.
    pub accounts: u32,
    /// Where the server and the log keep their data while it runs.
    pub dir: PathBuf,
}

/// Of a hundred commands, so many are holds or their charges; the rest moves credit.
pub(crate) const HOLDS_PERCENT: u32 = 90;
/// Commands of one batch.
const BATCH_COMMANDS: usize = 4_000;
/// The log's name; the one of the load's network.
const ORIGIN: &str = "bench.example/bench/0";

/// The log and what belongs to it.
pub(crate) struct Books {
    dir: TempDir,
    pub(crate) events: u64,
    pub(crate) tlog: Transparency,
}

impl Books {
    /// Writes the log and stops the server.
    pub(crate) async fn write(options: &BooksOptions) -> Result<Books, BenchError> {
        let dir = tempfile::tempdir_in(&options.dir).tried("make a folder")?;
        let mut server = start_server(&dir.path().join("broker")).await?;
        let data = dir.path().join("data");
        let journal = open_journal_with(&server, data.clone(), |_| ()).await?;
        let client = journal.client();
        let mut load = Load::new(options.accounts, 0);
        submit_all(&client, load.opening()).await?;
        let mut batch = Vec::new();
        for number in 0..options.accounts {
            batch.extend(load.account(number));
            if batch.len() >= BATCH_COMMANDS || number + 1 == options.accounts {
                submit_all(&client, std::mem::take(&mut batch)).await?;
            }
        }
        while client.position().borrow().leaf < options.events {
            submit_all(&client, load.batch(BATCH_COMMANDS, HOLDS_PERCENT, Spread::Uniform)).await?;
        }
        let events = client.position().borrow().leaf;
        drop(client);
        journal.shutdown().await.tried("shut the journal down")?;
        server.stop().await.tried("stop nats-server")?;
        let tlog = tiles(&data)?;
        Ok(Books { dir, events, tlog })
    }

    /// The data directory, as `audit` and `export` take it.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The policy file, as if somebody else had handed it over.
    pub(crate) fn policy(&self) -> PathBuf {
        self.data().join("tlog/policy")
    }

    pub(crate) fn archive(&self) -> Result<ArchiveReader, BenchError> {
        ArchiveReader::open(&self.data()).tried("open the archive")
    }
}

fn tiles(data: &Path) -> Result<Transparency, BenchError> {
    let signer = Signer::load_or_create(&data.join("keys"), ORIGIN).tried("make a key")?;
    let mut tlog = Transparency::open(&data.join("tlog"), signer).tried("open the transparency log")?;
    for commit in ArchiveReader::open(data).tried("open the archive")?.commits(1) {
        let commit = commit.tried("read a commit")?.commit;
        let leaves: Vec<&[u8]> = commit.events.iter().map(|leaf| &leaf[..]).collect();
        tlog.append_commit(commit.first_leaf, &leaves).tried("append leaves")?;
    }
    tlog.checkpoint().tried("sign a checkpoint")?;
    Ok(tlog)
}

/// The most memory this process had resident since [`forget_peak`], in bytes; `None` where the system does not say.
pub(crate) fn peak_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024.0)
}

/// Lets the peak begin anew.
pub(crate) fn forget_peak() {
    // Not every system can: then the figure is that of the whole process, which is larger and still true.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
