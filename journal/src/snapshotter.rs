//! Snapshots beside the writer: the newest whole snapshot and the archive's commits behind it, folded in a state of its own
//! that is dropped again; and the rebuild from commit 1 that must give the same bytes. Must not: touch the writer's state,
//! or hold it up.

mod difference;

use crate::pipeline::Position;
use crate::reader::{ArchiveReader, CommittedCommit, ReadError};
use crate::snapshot_store::{SnapshotError, SnapshotFile, SnapshotStore};
use ledger::State;
use protocol::id::Hash32;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Commits between two snapshots.
pub const SNAPSHOT_COMMITS: u64 = 10_000;
/// Events between two snapshots.
pub const SNAPSHOT_EVENTS: u64 = 1_000_000;
/// At shutdown a suffix of at most this many events is folded; a longer one waits for the next occasion.
pub const SHUTDOWN_EVENTS_MAX: u64 = 1_000_000;
/// After a snapshot the thread rests this many times as long as that took: at most a tenth of a core, whatever the load.
const REST_FACTOR: u32 = 9;

/// When snapshots are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotOptions {
    /// See [`SNAPSHOT_COMMITS`]; 0 = only at shutdown.
    pub commits: u64,
    /// See [`SNAPSHOT_EVENTS`]; 0 = only at shutdown.
    pub events: u64,
    /// See [`SHUTDOWN_EVENTS_MAX`]; 0 = none at shutdown.
    pub shutdown_events_max: u64,
}

impl SnapshotOptions {
    /// The figures above.
    pub fn usual() -> Self {
        Self { commits: SNAPSHOT_COMMITS, events: SNAPSHOT_EVENTS, shutdown_events_max: SHUTDOWN_EVENTS_MAX }
    }
}

/// Why a snapshot was not made, or a rebuild not finished.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// The snapshots' files.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The archive.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The ledger does not accept a commit.
    #[error(
        "commit {at} cannot be applied: {reason}; this program does not understand this log: use a newer one"
    )]
    NotApplied {
        /// Where.
        at: u64,
        /// The ledger's words.
        reason: String,
    },
    /// The archive ends before, or has another commit there.
    #[error(
        "the archive leads to commit {came} ({came_hash}), expected commit {expected} ({expected_hash}): they are two logs, or the archive is cut"
    )]
    NotThisLog {
        /// The commit that was asked for.
        expected: u64,
        /// Its hash.
        expected_hash: Hash32,
        /// Where the archive led.
        came: u64,
        /// That hash.
        came_hash: Hash32,
    },
}

/// Makes snapshots when they are due.
pub struct Snapshotter {
    store: SnapshotStore,
    data_dir: PathBuf,
    shard: u32,
    options: SnapshotOptions,
    /// Where the newest snapshot stands.
    last: Position,
    rest_until: Option<Instant>,
}

impl Snapshotter {
    /// `last`: where the newest snapshot stands that the start could use.
    pub fn new(
        data_dir: &Path,
        store: SnapshotStore,
        shard: u32,
        options: SnapshotOptions,
        last: Position,
    ) -> Self {
        Self { store, data_dir: data_dir.to_owned(), shard, options, last, rest_until: None }
    }

    /// Whether one should be made at `position` now.
    pub fn due(&self, position: Position) -> bool {
        let SnapshotOptions { commits, events, .. } = self.options;
        let far = |every: u64, from: u64, to: u64| every > 0 && to.saturating_sub(from) >= every;
        let resting = self.rest_until.is_some_and(|until| Instant::now() < until);
        !resting
            && (far(commits, self.last.commit, position.commit) || far(events, self.last.leaf, position.leaf))
    }

    /// Makes one at a committed position. The state lives only as long as this call.
    pub fn make(&mut self, to: Position) -> Result<SnapshotFile, FoldError> {
        let begin = Instant::now();
        let made = self.fold_to(to).and_then(|state| Ok(self.store.write(&state)?));
        let took = begin.elapsed();
        self.rest_until = Some(Instant::now() + took * REST_FACTOR);
        let file = made?;
        self.last = to;
        let took_ms = took.as_millis() as u64;
        tracing::info!(target: "journal", commit = file.commit, content = %file.content, took_ms, "snapshot written");
        Ok(file)
    }

    /// The one at the end, when it is cheap.
    pub fn make_last(&mut self, to: Position) -> Result<Option<SnapshotFile>, FoldError> {
        let events = to.leaf.saturating_sub(self.last.leaf);
        if to.commit <= self.last.commit || events > self.options.shutdown_events_max {
            return Ok(None);
        }
        self.make(to).map(Some)
    }

    fn fold_to(&self, to: Position) -> Result<State, FoldError> {
        let archive = ArchiveReader::open(&self.data_dir)?;
        let mut state = self.base(&archive, to)?;
        fold(&archive, &mut state, to.commit)?;
        let came = Position::of(&state);
        if (came.commit, came.hash, came.leaf) != (to.commit, to.hash, to.leaf) {
            return Err(FoldError::NotThisLog {
                expected: to.commit,
                expected_hash: to.hash,
                came: came.commit,
                came_hash: came.hash,
            });
        }
        Ok(state)
    }

    /// The newest whole snapshot of this log before `to`; the beginning without one.
    fn base(&self, archive: &ArchiveReader, to: Position) -> Result<State, FoldError> {
        for file in self.store.list()?.into_iter().filter(|file| file.commit <= to.commit) {
            match file.read() {
                Ok(state) if state.shard() == self.shard && stands(archive, &state) => return Ok(state),
                Ok(_) => {
                    let path = file.path.display();
                    tracing::warn!(target: "journal", "snapshot {path} is not of this log; skipped");
                }
                Err(error) => tracing::warn!(target: "journal", "{error}"),
            }
        }
        Ok(State::new(self.shard))
    }
}

/// Whether the archive has the very commit that a state stands at.
fn stands(archive: &ArchiveReader, state: &State) -> bool {
    let at = state.last_commit();
    let commit = archive.commits(at).next();
    at == 0 || matches!(commit, Some(Ok(commit)) if commit.hash == state.last_commit_hash())
}

/// Applies the archive's commits behind a state, up to `last` or to the end.
fn fold(archive: &ArchiveReader, state: &mut State, last: u64) -> Result<(), FoldError> {
    if state.last_commit() >= last {
        return Ok(());
    }
    for commit in archive.commits(state.last_commit() + 1) {
        let commit = commit?;
        apply(state, &commit)?;
        if commit.number >= last {
            break;
        }
    }
    Ok(())
}

fn apply(state: &mut State, commit: &CommittedCommit) -> Result<(), FoldError> {
    let applied = commit.apply_to(state);
    applied.map_err(|e| FoldError::NotApplied { at: commit.number, reason: e.to_string() })
}

/// What [`rebuild`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// The log's position when everything was applied.
    pub end: Position,
    /// BLAKE3 of the snapshot of that state.
    pub content: Hash32,
    /// The newest snapshot, and how it compares; `None` when there is none.
    pub compared: Option<Compared>,
}

/// A snapshot beside the rebuilt state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The snapshot.
    pub file: SnapshotFile,
    /// Where the two first differ; `None` = byte for byte the same.
    pub difference: Option<String>,
}

/// Replays a data folder's archive from commit 1 and compares with its newest snapshot. `progress` hears of every commit.
pub fn rebuild(data_dir: &Path, mut progress: impl FnMut(Position)) -> Result<Rebuilt, FoldError> {
    let archive = ArchiveReader::open(data_dir)?;
    let newest = SnapshotStore::open(data_dir)?.list()?.into_iter().next();
    let mut state = State::new(archive.shard());
    let mut compared = None;
    for commit in archive.commits_ahead(1) {
        let commit = commit?;
        apply(&mut state, &commit)?;
        progress(commit.position());
        if let Some(file) = newest.as_ref().filter(|file| file.commit == commit.number) {
            compared = Some(compare(file, &state)?);
        }
    }
    let end = Position::of(&state);
    if let (None, Some(file)) = (&compared, &newest) {
        let expected = (file.commit, file.content);
        return Err(FoldError::NotThisLog {
            expected: expected.0,
            expected_hash: expected.1,
            came: end.commit,
            came_hash: end.hash,
        });
    }
    let content = Hash32(*blake3::hash(&ledger::snapshot::write(&state)).as_bytes());
    Ok(Rebuilt { end, content, compared })
}

fn compare(file: &SnapshotFile, state: &State) -> Result<Compared, FoldError> {
    let difference = match file.read_bytes() {
        Ok(stored) => difference::first_difference(&stored, &ledger::snapshot::write(state)),
        Err(SnapshotError::Damaged { reason, .. }) => Some(format!("from its own name: {reason}")),
        Err(error) => return Err(error.into()),
    };
    Ok(Compared { file: file.clone(), difference })
}
