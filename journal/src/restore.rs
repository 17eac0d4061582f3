//! `counterfoil restore`: rebuilds the stream `LEDGER_0` of an empty or damaged nats-server from segments, tail and whatever
//! survived in it, and proves the result. Must not: start servers, decide what was acknowledged, or write what does not chain.

mod copies;
mod plan;
mod proof;

pub use plan::{Plan, Step};
pub use proof::{Evidence, Proved};

use crate::pipeline::Position;
use crate::reader::{ReadError, Reader, ReaderOptions};
use crate::segment::{Copied, DirectoryStore, SegmentError, StoreLocation, copy_missing};
use crate::snapshotter::FoldError;
use crate::stream::{LEDGER_STREAM, LEDGER_SUBJECT, StreamError, init_streams};
use crate::tail::TailError;
use async_nats::jetstream;
use async_nats::jetstream::message::PublishMessage;
use copies::Copies;
use serde::Serialize;
use std::collections::VecDeque;
use std::future::IntoFuture;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Messages on their way to a stream that nobody else writes.
const IN_FLIGHT_MAX: usize = 256;
/// Bytes on their way.
const IN_FLIGHT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long the server may take to acknowledge one.
const ACK_WAIT: Duration = Duration::from_secs(30);

/// Why nothing, or not everything, was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The archive.
    #[error(transparent)]
    Archive(#[from] TailError),
    /// Reading the stream.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Making the stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The state.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// There is no archive.
    #[error(
        "{path} holds no archive: expected segment-*.cfs or tail-*.cft files there, or in its folder `archive`"
    )]
    NoArchive {
        /// Where we looked.
        path: PathBuf,
    },
    /// A commit is nowhere.
    #[error(
        "commit {number} is missing: archive: {archive}; stream: {stream}; but commit {known} is known to have been acknowledged. Nothing was \
         written; find another copy of the archive (a backup, another node's) and give it as --archive"
    )]
    Missing {
        /// The first that is missing.
        number: u64,
        /// Why the archive does not have it.
        archive: String,
        /// Why the stream does not have it.
        stream: String,
        /// The highest that is known.
        known: u64,
    },
    /// The stream holds what the archive does not know.
    #[error(
        "stream {stream} holds {count} messages that do not belong to the archive's log, the first at commit {first}: it is longer, or another \
         log. Nothing was written; --force moves the stream aside (its files are kept) and rebuilds it from the archive"
    )]
    OtherLog {
        /// Which.
        stream: String,
        /// How many.
        count: u64,
        /// The first of them.
        first: u64,
    },
    /// The stream's files must be moved first.
    #[error(
        "stream {stream} cannot be continued where it is ({reason}): stop its server, move the folder jetstream/<account>/streams/{stream} of its \
         store away, start it and restore again; or give --data, then this is done for you"
    )]
    NeedsMove {
        /// Which.
        stream: String,
        /// Why.
        reason: String,
    },
    /// A message did not get its place.
    #[error(
        "commit {number} was not stored: {reason}; the stream holds the commits before it. Run restore again"
    )]
    NotStored {
        /// Which.
        number: u64,
        /// The server's words.
        reason: String,
    },
    /// The result is not what was signed, or what the snapshot says.
    #[error("restored, but not proved: {0}; do not serve from it")]
    NotProved(String),
    /// A file.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
}

/// Where from and where to.
pub struct RestoreOptions {
    /// The folder with segments and tail, or a data folder that has it.
    pub archive: PathBuf,
    /// A connection that may create, write and read `LEDGER_0` ([`crate::auth::Keys::restore_credentials`]).
    pub client: async_nats::Client,
    /// Checkpoints, policy, snapshots, high-water mark to prove the result with.
    pub evidence: Evidence,
}

/// Brings every segment of a copy elsewhere into an archive's folder that lacks it; each is verified before it is stored. The
/// tail is not among them: what was not sealed is in the folder, in the stream, or lost with both.
pub fn fetch_segments(from: &StoreLocation, archive: &Path) -> Result<Copied, SegmentError> {
    copy_missing(&from.open()?, &(Arc::new(DirectoryStore::new(archive)) as _), &|| true)
}

/// What was done.
#[derive(Clone, Debug, Serialize)]
pub struct Restored {
    /// The stream's head.
    pub commits: u64,
    /// Its leaves.
    pub events: u64,
    /// Hash of its last commit.
    pub head: String,
    /// Commits that were written.
    pub republished_commits: u64,
    /// Events in them.
    pub republished_events: u64,
    /// Commits that only the stream still had.
    pub from_stream: u64,
    /// Seconds that writing took.
    pub seconds: f64,
    /// Commits written per second.
    pub commits_per_second: f64,
    /// Events written per second.
    pub events_per_second: f64,
    /// What the result was compared with.
    pub proved: Proved,
}

/// A restore in two steps: look, then do.
pub struct Restore {
    options: RestoreOptions,
    copies: Copies,
    reader: Reader,
}

impl Restore {
    /// Opens the archive.
    pub fn open(options: RestoreOptions) -> Result<Self, RestoreError> {
        let copies = Copies::open(&options.archive)?;
        let reader = Reader::new(ReaderOptions {
            client: options.client.clone(),
            stream: LEDGER_STREAM.to_owned(),
            shard: copies.shard(),
            position: None,
        });
        Ok(Self { options, copies, reader })
    }

    /// Reads archive and stream whole, and says what is to be done. Writes nothing.
    pub async fn plan(&self) -> Result<Plan, RestoreError> {
        plan::plan(&self.copies, &self.reader, self.options.evidence.known()).await
    }

    /// Writes what is missing and proves the whole. For [`Step::MoveAside`] and [`Step::Refuse`] the stream must have been
    /// moved away first: what then stands there must be empty.
    pub async fn carry_out(&self, plan: &Plan) -> Result<Restored, RestoreError> {
        let first = match &plan.step {
            Step::Nothing => plan.head.commit + 1,
            Step::Append { first } => *first,
            Step::Create | Step::MoveAside { .. } | Step::Refuse { .. } => 1,
        };
        if first == 1 {
            init_streams(&self.options.client).await?;
            let last = self.reader.last_commit().await?;
            if last > 0 {
                let reason = format!("it holds commits up to {last} although it was to be empty");
                return Err(RestoreError::NeedsMove { stream: LEDGER_STREAM.to_owned(), reason });
            }
        }
        let begin = Instant::now();
        let written = self.republish(plan, first).await?;
        let seconds = begin.elapsed().as_secs_f64();
        let proved = proof::prove(&self.reader, plan.head, &self.options.evidence).await?;
        let per_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        Ok(Restored {
            commits: plan.head.commit,
            events: plan.head.leaf,
            head: plan.head.hash.to_string(),
            republished_commits: written.commits,
            republished_events: written.events,
            from_stream: plan.from_stream.len() as u64,
            seconds,
            commits_per_second: per_second(written.commits),
            events_per_second: per_second(written.events),
            proved,
        })
    }

    async fn republish(&self, plan: &Plan, first: u64) -> Result<Written, RestoreError> {
        let builder = jetstream::ContextBuilder::new().timeout(ACK_WAIT).ack_timeout(ACK_WAIT);
        let context = builder.max_ack_inflight(IN_FLIGHT_MAX).build(self.options.client.clone());
        let mut written = Written::default();
        let mut acks: VecDeque<(u64, usize, _)> = VecDeque::new();
        let mut in_flight = 0;
        let mut walk = self.copies.walk(&plan.from_stream);
        while let Some((position, bytes)) = walk.next_chained()? {
            if position.commit > plan.head.commit {
                break;
            }
            if position.commit < first {
                continue;
            }
            let length = bytes.len();
            let number = position.commit;
            while acks.len() >= IN_FLIGHT_MAX
                || (in_flight + length > IN_FLIGHT_BYTES_MAX && !acks.is_empty())
            {
                let Some((number, length, ack)) = acks.pop_front() else { break };
                stored(number, ack).await?;
                in_flight -= length;
            }
            let message = PublishMessage::build()
                .payload(bytes)
                .expected_last_sequence(number - 1)
                .message_id(position.hash.to_string());
            let sent = context.send_publish(LEDGER_SUBJECT, message).await;
            let sent = sent.map_err(|e| RestoreError::NotStored { number, reason: e.to_string() })?;
            acks.push_back((number, length, sent.into_future()));
            in_flight += length;
            written.commits += 1;
            written.events += position.leaf - walk.leaves_before();
        }
        for (number, _, ack) in acks {
            stored(number, ack).await?;
        }
        Ok(written)
    }
}

#[derive(Default)]
struct Written {
    commits: u64,
    events: u64,
}

type Ack = Result<jetstream::publish::PublishAck, jetstream::context::PublishError>;

async fn stored(number: u64, ack: impl Future<Output = Ack>) -> Result<(), RestoreError> {
    let not_stored = |reason: String| RestoreError::NotStored { number, reason };
    let ack = ack.await.map_err(|e| not_stored(e.to_string()))?;
    if ack.sequence != number {
        return Err(not_stored(format!("it got sequence {}: somebody else writes", ack.sequence)));
    }
    Ok(())
}

/// Moves the stream's files out of a stopped server's store, to `nats/aside/` of the data folder. `None` when there are
/// none. Nothing is deleted.
pub fn move_stream_aside(data_dir: &Path) -> Result<Option<PathBuf>, RestoreError> {
    let io = |path: &Path, source| RestoreError::Io { path: path.to_owned(), source };
    let accounts = data_dir.join("nats").join("store").join("jetstream");
    let entries = match std::fs::read_dir(&accounts) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io(&accounts, e)),
    };
    for entry in entries {
        let folder = entry.map_err(|e| io(&accounts, e))?.path().join("streams").join(LEDGER_STREAM);
        if !folder.is_dir() {
            continue;
        }
        let aside = data_dir.join("nats").join("aside");
        std::fs::create_dir_all(&aside).map_err(|e| io(&aside, e))?;
        let mut number = 1;
        let mut target = aside.join(format!("{LEDGER_STREAM}.{number}"));
        while target.exists() {
            number += 1;
            target = aside.join(format!("{LEDGER_STREAM}.{number}"));
        }
        std::fs::rename(&folder, &target).map_err(|e| io(&folder, e))?;
        return Ok(Some(target));
    }
    Ok(None)
}

/// A position that nothing says anything about.
fn nowhere(position: Position) -> bool {
    position.commit == 0
}
