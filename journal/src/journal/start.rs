//! Start-up: one coordinator per data folder, the stream compared with the archive tail and the high-water mark, a shorter
//! tail backfilled, the state rebuilt from a snapshot or from the beginning. Must not: go on when anything disagrees.

use super::JournalOptions;
use crate::pipeline::opening::{self, Known, Mismatch, StreamExtent};
use crate::pipeline::{Position, StopReason};
use crate::reader::{ArchiveReader, CommittedCommit, RawCheck, ReadError, Reader, ReaderOptions, Until};
use crate::segment::set_aside;
use crate::snapshot_store::{SnapshotError, SnapshotFile, SnapshotStore};
use crate::stream::{LEDGER_STREAM, StreamError};
use crate::tail::{ARCHIVE_FOLDER, HighWater, Tail, TailError, TailOptions, salvage};
use futures::StreamExt;
use ledger::State;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Why a journal did not open.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process serves this data folder.
    #[error(
        "{path} is locked: another coordinator serves this data folder; stop it first, or give this one its own --data"
    )]
    Locked {
        /// The lock's file.
        path: PathBuf,
    },
    /// The data folder.
    #[error("data folder {path}: {source}")]
    DataDir {
        /// Which.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// No thread or runtime.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// The broker would not have us.
    #[error(transparent)]
    Auth(#[from] crate::auth::AuthError),
    /// The streams are not as they must be.
    #[error(transparent)]
    Stream(#[from] crate::stream::StreamError),
    /// The link to the broker.
    #[error("cannot begin to write: {reason}")]
    Link {
        /// The client's words.
        reason: String,
    },
    /// The stream lost what it had acknowledged.
    #[error(
        "acknowledged data is missing: stream {stream} ends at commit {stream_last}, our archive knows commit {ours}; \
         refused. `counterfoil restore` rebuilds the stream from the archive; nothing was changed"
    )]
    Shorter {
        /// Its name.
        stream: String,
        /// Its last sequence.
        stream_last: u64,
        /// What the archive tail or the high-water mark knows.
        ours: u64,
    },
    /// The stream is another log, or was altered.
    #[error(
        "stream {stream} differs from our archive at commit {at}: it holds {found}, the archive {ours}; refused. Either \
         --data belongs to another network, or the stream was altered: `counterfoil restore` rebuilds it"
    )]
    Differs {
        /// Its name.
        stream: String,
        /// Where.
        at: u64,
        /// The stream's hash.
        found: String,
        /// The archive's hash.
        ours: String,
    },
    /// The stream has holes.
    #[error(
        "stream {stream} holds {messages} messages from {first} to {last}; a whole log begins at 1 without holes; refused. \
         `counterfoil restore` rebuilds it from the archive"
    )]
    Holes {
        /// Its name.
        stream: String,
        /// Messages in it.
        messages: u64,
        /// First sequence.
        first: u64,
        /// Last sequence.
        last: u64,
    },
    /// The stream is gone.
    #[error(
        "stream {stream} is missing ({reason}), our archive knows commit {ours}; refused. `counterfoil restore` rebuilds \
         the stream from the archive; nothing was changed"
    )]
    Vanished {
        /// Its name.
        stream: String,
        /// The server's words.
        reason: String,
        /// What the archive or the high-water mark knows.
        ours: u64,
    },
    /// Reading the log.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The archive tail.
    #[error(transparent)]
    Tail(#[from] TailError),
    /// The folder of snapshots.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The ledger does not accept the log.
    #[error(
        "commit {at} cannot be applied: {reason}; this program does not understand this log: use a newer one"
    )]
    NotApplied {
        /// Where.
        at: u64,
        /// The ledger's words.
        reason: String,
    },
    /// The writer stopped before its term began.
    #[error("the writer could not begin: {0}")]
    Stopped(StopReason),
    /// A thread ended without a word.
    #[error("a thread of the journal died; its panic stands in the log output")]
    Died,
}

/// What start-up hands to the writer.
pub(super) struct Recovered {
    pub(super) state: State,
    pub(super) tail: Tail,
    pub(super) mark: HighWater,
    /// Where the snapshot stood that the state was begun from.
    pub(super) snapshot: Position,
    /// The first commit that was read back from the stream and chained; the keeper reads those before it.
    pub(super) swept_from: u64,
}

/// Bytes of the stream that the start reads back; the keeper reads the rest beside the writer.
pub const SWEEP_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Takes the data folder's lock; it is free when the file is closed.
pub fn lock_data_dir(data_dir: &Path) -> Result<File, StartError> {
    let failed = |source| StartError::DataDir { path: data_dir.to_owned(), source };
    std::fs::create_dir_all(data_dir).map_err(failed)?;
    let path = data_dir.join("coordinator.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::Locked { path }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// A missing stream is another thing when we know what was in it.
pub(super) fn explain_missing(error: StreamError, data_dir: &Path) -> StartError {
    let StreamError::NoInformation { stream, reason } = error else { return error.into() };
    let mark = HighWater::open_existing(data_dir).map_or(0, |mark| mark.commit);
    let archived = ArchiveReader::open(data_dir).ok().and_then(|archive| archive.last_known().ok());
    let ours = mark.max(archived.unwrap_or(0));
    if stream == LEDGER_STREAM && ours > 0 {
        return StartError::Vanished { stream, reason, ours };
    }
    StreamError::NoInformation { stream, reason }.into()
}

/// Compares, replays, backfills.
pub(super) async fn recover(
    options: &JournalOptions,
    client: &async_nats::Client,
    snapshots: &SnapshotStore,
    warm: Option<Arc<State>>,
) -> Result<Recovered, StartError> {
    let shard = options.pipeline.shard;
    let reader = Reader::new(ReaderOptions {
        client: client.clone(),
        stream: LEDGER_STREAM.to_owned(),
        shard,
        position: None,
    });
    // Beside everything that waits for the broker; what a standby kept warm needs none.
    let loading = warm.is_none().then(|| load(snapshots));
    let mut mark = HighWater::open(&options.data_dir)?;
    let mut tail = open_tail(options, &reader, &mark).await?;
    let torn = tail.torn().map_or(0, |torn| torn.known);
    // Of a head in a rotten file we know only the number.
    let head = if tail.head_is_known() { tail.head() } else { Position::default() };
    let known = Known { tail: head, mark: mark.last(), torn: torn.max(tail.head().commit) };
    let stream = compare(&reader, known).await?;
    let last = stream.last_sequence;
    let swept_from = sweep(&reader, shard, &stream).await?;
    if !tail.head_is_known() {
        let head = reader.position_at(tail.head().commit).await?;
        tail.set_head(head.ok_or(ReadError::Gap { expected: tail.head().commit, found: last })?);
    }
    if let Some(torn) = tail.torn() {
        tracing::warn!(target: "journal", commit = torn.number, known = torn.known, "the archive's record {}; cut off, the stream has it", torn.reason);
        tail.cut_torn()?;
    }
    let mut state = match fitting(&reader, warm, shard, last).await? {
        Some(state) => state,
        None => {
            let loaded = loading.unwrap_or_else(|| load(snapshots)).await.map_err(|_| StartError::Died)?;
            newest_snapshot(&reader, loaded?, shard, last).await?
        }
    };
    let snapshot = Position::of(&state);
    let from = if tail.head().commit < state.last_commit() { tail.head() } else { Position::of(&state) };
    let backfill_from = tail.head().commit;
    let mut commits = reader.after(from, Until::Commit(last));
    while let Some(commit) = commits.next().await {
        let commit = commit?;
        if commit.number > state.last_commit() {
            apply(&mut state, &commit)?;
        }
        if commit.number > tail.head().commit {
            tail.append(commit.position(), &commit.bytes)?;
        }
    }
    if tail.head().commit > backfill_from {
        tracing::warn!(target: "journal", from = backfill_from, to = tail.head().commit, "the archive tail was shorter than the stream; backfilled");
    }
    tail.pending().sync()?;
    mark.write(tail.head())?;
    Ok(Recovered { state, tail, mark, snapshot, swept_from })
}

/// Opens the tail. A last file that is none of ours any more is moved aside once the stream is known to hold what was in it.
async fn open_tail(options: &JournalOptions, reader: &Reader, mark: &HighWater) -> Result<Tail, StartError> {
    let shard = options.pipeline.shard;
    let open = || {
        Tail::open(TailOptions {
            data_dir: options.data_dir.clone(),
            shard,
            file_bytes_max: options.tail_file_bytes_max,
        })
    };
    let (path, reason) = match open() {
        Err(TailError::Foreign { path, reason }) => (path, reason),
        other => return Ok(other?),
    };
    let held = salvage(&path, shard)?.into_iter().map(|(head, _)| head.number).max();
    let known = Known { tail: Position::default(), mark: mark.last(), torn: held.unwrap_or(0) };
    compare(reader, known).await?;
    let aside = set_aside(&options.data_dir.join(ARCHIVE_FOLDER), &path).map_err(TailError::from)?;
    tracing::warn!(target: "journal", "archive {}: {reason}; moved to {}, the stream has it", path.display(), aside.display());
    Ok(open()?)
}

/// The stream's counters, once it is known to hold everything that our files know, unaltered.
async fn compare(reader: &Reader, known: Known) -> Result<async_nats::jetstream::stream::State, StartError> {
    let info = reader.info().await?;
    let extent =
        StreamExtent { messages: info.messages, first: info.first_sequence, last: info.last_sequence };
    known.check_extent(extent).map_err(|mismatch| refused(mismatch, extent))?;
    for position in known.positions() {
        let found = reader.position_at(position.commit).await?.map(|found| found.hash);
        opening::check_position(position, found).map_err(|mismatch| refused(mismatch, extent))?;
    }
    Ok(info)
}

/// Reads the stream back: everything when it is small, else its end. Returns the first commit that was read. A server
/// that lost a block's middle may still report all its messages.
async fn sweep(
    reader: &Reader,
    shard: u32,
    stream: &async_nats::jetstream::stream::State,
) -> Result<u64, StartError> {
    let last = stream.last_sequence;
    if stream.bytes <= SWEEP_BYTES_MAX {
        let check = RawCheck::after(shard, Position::default());
        reader.sweep(check, 1, last, |_, _| {}).await?;
        return Ok(1);
    }
    let share = u128::from(last) * u128::from(SWEEP_BYTES_MAX) / u128::from(stream.bytes);
    let first = (last - share as u64).max(1);
    reader.sweep(RawCheck::anywhere(shard), first, last, |_, _| {}).await?;
    Ok(first)
}

/// A state that a standby kept warm, when it stands in this log's chain.
async fn fitting(
    reader: &Reader,
    warm: Option<Arc<State>>,
    shard: u32,
    last: u64,
) -> Result<Option<State>, StartError> {
    let Some(warm) = warm.filter(|warm| warm.shard() == shard && (1..=last).contains(&warm.last_commit()))
    else {
        return Ok(None);
    };
    let ours = Position::of(&warm);
    let found = reader.position_at(ours.commit).await?;
    Ok((found == Some(ours)).then(|| Arc::unwrap_or_clone(warm)))
}

fn refused(mismatch: Mismatch, extent: StreamExtent) -> StartError {
    let stream = LEDGER_STREAM.to_owned();
    match mismatch {
        Mismatch::Shorter { stream_last, ours } => StartError::Shorter { stream, stream_last, ours },
        Mismatch::Holes => {
            let StreamExtent { messages, first, last } = extent;
            StartError::Holes { stream, messages, first, last }
        }
        Mismatch::Differs { at, found, ours } => {
            let found = found.map_or_else(|| "nothing".to_owned(), |found| found.to_string());
            StartError::Differs { stream, at, found, ours: ours.to_string() }
        }
    }
}

/// A snapshot's state, and those that are older.
type Loaded = Option<(State, SnapshotFile, Vec<SnapshotFile>)>;

/// Reads the newest snapshot that can be read, on a thread of its own.
fn load(snapshots: &SnapshotStore) -> JoinHandle<Result<Loaded, SnapshotError>> {
    let snapshots = snapshots.clone();
    tokio::task::spawn_blocking(move || Ok(newest_readable(snapshots.list()?)))
}

fn newest_readable(files: Vec<SnapshotFile>) -> Loaded {
    let mut files = files.into_iter();
    while let Some(file) = files.next() {
        match file.read() {
            Ok(state) => return Some((state, file, files.collect())),
            Err(error) => tracing::warn!(target: "journal", "{error}"),
        }
    }
    None
}

/// The newest snapshot that stands in this log's chain; without one, the beginning.
async fn newest_snapshot(
    reader: &Reader,
    mut loaded: Loaded,
    shard: u32,
    last: u64,
) -> Result<State, StartError> {
    while let Some((state, file, older)) = loaded {
        let ours = Position::of(&state);
        let found = if ours.commit <= last { reader.position_at(ours.commit).await? } else { None };
        if found.is_some_and(|found| (found.hash, found.leaf) == (ours.hash, ours.leaf))
            && state.shard() == shard
        {
            tracing::info!(target: "journal", commit = ours.commit, "state from a snapshot");
            return Ok(state);
        }
        tracing::warn!(target: "journal", commit = ours.commit, "snapshot {} is not of this log; ignored", file.path.display());
        loaded = newest_readable(older);
    }
    Ok(State::new(shard))
}

fn apply(state: &mut State, commit: &CommittedCommit) -> Result<(), StartError> {
    commit.apply_to(state).map_err(|e| StartError::NotApplied { at: commit.number, reason: e.to_string() })
}
