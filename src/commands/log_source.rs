//! Where read-only commands take the log from: a data directory with everything stopped, or a gateway.

use anyhow::{Context, Result, bail};
use journal::reader::ArchiveReader;
use projector::export::Provenance;
use projector::index::LogCommit;
use projector::{At, Books, time};
use protocol::codec;
use protocol::commit::Commit;
use protocol::event::{Event, EventBody};
use protocol::id::BatchId;
use protocol::proof::{RootBuilder, leaf_hash};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::exit_code::Failure;

/// Flags of `ledger` and `export`.
#[derive(clap::Args)]
pub struct LogSource {
    /// Data directory; works with everything stopped.
    #[arg(long, value_name = "DIR", required_unless_present = "url")]
    data: Option<PathBuf>,
    /// Gateway to read from instead.
    #[arg(long, value_name = "URL", conflicts_with = "data", requires = "key")]
    url: Option<String>,
    /// Auditor's key for --url.
    #[arg(long, env = "COUNTERFOIL_KEY", value_name = "KEY", hide_env_values = true)]
    key: Option<String>,
    /// As of this size (number of events), time (RFC 3339, UTC) or batch (`batch_...`: its cut-off); all of it by default.
    #[arg(long, value_name = "SIZE|TIME|BATCH")]
    at: Option<String>,
}

impl LogSource {
    /// The events, in order, up to `--at`.
    pub fn events(&self) -> Result<Vec<Event>> {
        let at = self.at()?;
        let mut events = Vec::new();
        let mut take = |commit: LogCommit| {
            for event in commit.events {
                let within = match at {
                    At::Size(size) => event.header.leaf < size,
                    At::Time(us) => event.header.time_us <= us,
                    At::Batch(_) | At::Newest => true,
                };
                if !within {
                    return false;
                }
                events.push(event);
            }
            true
        };
        match self.place()? {
            Place::Data(dir) => {
                for commit in archive_commits(&ArchiveReader::open(dir)?, 1) {
                    if !take(commit.map_err(anyhow::Error::msg)?) {
                        break;
                    }
                }
            }
            Place::Gateway(url) => self.fetch(url, &mut take)?,
        }
        if let At::Batch(batch) = at {
            cut_off(&mut events, batch)?;
        }
        Ok(events)
    }

    /// Every commit of a gateway's log.
    pub(super) fn fetch_commits(&self, url: &str) -> Result<Vec<LogCommit>> {
        let mut commits = Vec::new();
        self.fetch(url, &mut |commit| {
            commits.push(commit);
            true
        })?;
        Ok(commits)
    }

    /// The data directory, which must be there, or the gateway.
    pub(super) fn place(&self) -> Result<Place<'_>> {
        match (&self.data, &self.url) {
            (Some(dir), _) if dir.is_dir() => Ok(Place::Data(dir)),
            (Some(dir), _) => {
                let missing =
                    anyhow::anyhow!("{} is no directory; give the one that `up --data` had", dir.display());
                Err(missing.context(Failure::Inconclusive))
            }
            (None, Some(url)) => Ok(Place::Gateway(url)),
            (None, None) => bail!("give --data DIR or --url URL"),
        }
    }

    fn fetch(&self, url: &str, take: &mut dyn FnMut(LogCommit) -> bool) -> Result<()> {
        let key = self.key.as_deref().unwrap_or_default();
        let mut next = 1u64;
        let mut previous = None;
        loop {
            let page = format!("{url}/v1/audit/commits?from={next}");
            let answer = ureq::get(&page).header("authorization", format!("Bearer {key}")).call();
            let body = answer.with_context(|| page.clone()).context(Failure::Inconclusive)?.into_body();
            let before = next;
            for line in BufReader::new(body.into_reader()).lines() {
                let commit = CommitLine::parse(&line?)?;
                let decoded: Commit = codec::decode("commit", &commit.bytes)?;
                if decoded.number != next || previous.is_some_and(|hash| decoded.previous != hash) {
                    bail!("commit {}: does not follow the one before: not one unaltered log", decoded.number);
                }
                let hash = Commit::hash(&commit.bytes);
                previous = Some(hash);
                next += 1;
                let (number, previous) = (decoded.number, decoded.previous);
                let events = decoded.decode_events()?;
                if !take(LogCommit { number, hash, previous, events }) {
                    return Ok(());
                }
            }
            if next == before {
                return Ok(());
            }
        }
    }

    /// Up to where.
    pub(super) fn at(&self) -> Result<At> {
        let Some(text) = &self.at else { return Ok(At::Newest) };
        if let Ok(size) = text.parse() {
            return Ok(At::Size(size));
        }
        if let Ok(batch) = text.parse() {
            return Ok(At::Batch(batch));
        }
        let time = time::parse_rfc3339(text).map(At::Time);
        time.ok_or_else(|| {
            anyhow::anyhow!(
                "--at {text:?}: expected a number of events, a time such as 2026-11-21T10:00:00Z, or a batch_..."
            )
            .context(Failure::Usage)
        })
    }

    /// The books over the events.
    pub fn books(events: &[Event]) -> Result<Books> {
        let mut books = Books::new();
        for event in events {
            books.apply(event)?;
        }
        Ok(books)
    }

    /// What an exported file says about where it comes from. The root is recomputed from the events themselves.
    pub fn provenance(events: &[Event]) -> Result<Provenance> {
        let books = Self::books(events)?;
        let mut root = RootBuilder::new();
        for event in events {
            root.push(leaf_hash(&codec::encode(event)));
        }
        Ok(Provenance {
            origin: books.origin().to_owned(),
            size: books.size(),
            root: Some(root.root()),
            period: None,
        })
    }
}

/// Where the log is read.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// A data directory with everything stopped, or beside a running network.
    Data(&'a Path),
    /// A gateway's address.
    Gateway(&'a str),
}

/// Commits of the archive from a number on, as the index takes them.
pub(super) fn archive_commits(
    archive: &ArchiveReader,
    first: u64,
) -> impl Iterator<Item = Result<LogCommit, String>> + use<> {
    archive.commits(first).map(|commit| {
        let commit = commit.map_err(|e| e.to_string())?;
        let previous = commit.commit.previous;
        Ok(LogCommit { number: commit.number, hash: commit.hash, previous, events: commit.events })
    })
}

/// Leaves what was before the batch's cut-off.
fn cut_off(events: &mut Vec<Event>, batch: BatchId) -> Result<()> {
    let cutoff = events.iter().find_map(|event| match &event.body {
        EventBody::BatchClosed(closed) if closed.batch == batch => Some(closed.cutoff_leaf),
        _ => None,
    });
    let unknown = || anyhow::anyhow!("--at {batch}: the log has no such batch").context(Failure::Finding);
    events.truncate(cutoff.ok_or_else(unknown)? as usize);
    Ok(())
}

/// One line of `/v1/audit/commits`.
struct CommitLine {
    bytes: Vec<u8>,
}

impl CommitLine {
    fn parse(line: &str) -> Result<CommitLine> {
        #[derive(serde::Deserialize)]
        struct Wire {
            bytes: String,
        }
        let wire: Wire = serde_json::from_str(line).context("a line of /v1/audit/commits")?;
        Ok(CommitLine { bytes: data_encoding::BASE64.decode(wire.bytes.as_bytes())? })
    }
}
