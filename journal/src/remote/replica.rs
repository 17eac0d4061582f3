//! A state that follows the log: begins at a snapshot or at the beginning, checks the chain, applies commit by commit.
//! Gateways in other processes read from it, a standby takes over with it. Must not: write to the log, or run ahead of it.

use crate::pipeline::{Position, StopReason};
use crate::reader::{CommittedCommit, ReadError, Reader, Until};
use crate::snapshot_store::SnapshotStore;
use futures::StreamExt;
use ledger::State;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Reads that fail are begun anew at most so often.
const READ_AGAIN: Duration = Duration::from_millis(250);

/// Told of each commit before it is applied; an error ends the replica.
pub(crate) type Witness = Box<dyn FnMut(&CommittedCommit) -> Result<(), String> + Send>;

/// What a replica needs.
pub(crate) struct ReplicaOptions {
    /// Where the log is read. With a position of its own it wakes when that moves; without one it looks ten times a second.
    pub(crate) reader: Reader,
    /// Shard of the log.
    pub(crate) shard: u32,
    /// A data folder with snapshots to begin with.
    pub(crate) snapshots: Option<PathBuf>,
    /// Commits after this one are read even when the snapshot has them, for the witness.
    pub(crate) witnessed: Option<Position>,
    /// See [`Witness`].
    pub(crate) witness: Option<Witness>,
    /// Told why it ended, once it has.
    pub(crate) stopped: watch::Sender<Option<StopReason>>,
}

/// See the module. Following ends when it is dropped.
pub(crate) struct Replica {
    shard: u32,
    // Held for one commit's application or one question; never across an await.
    state: Arc<RwLock<State>>,
    position: watch::Receiver<Position>,
    stopped: watch::Receiver<Option<StopReason>>,
    task: JoinHandle<()>,
}

impl Replica {
    /// Finds where to begin and follows from there.
    pub(crate) async fn start(options: ReplicaOptions) -> Result<Replica, ReadError> {
        let ReplicaOptions { reader, shard, snapshots, witnessed, witness, stopped: stopped_tx } = options;
        let state = match snapshots {
            Some(dir) => newest_snapshot(&reader, &dir, shard).await?,
            None => State::new(shard),
        };
        let ours = Position::of(&state);
        let from = witnessed.filter(|witnessed| witnessed.commit < ours.commit).unwrap_or(ours);
        let (position_tx, position) = watch::channel(ours);
        let stopped = stopped_tx.subscribe();
        let state = Arc::new(RwLock::new(state));
        let follower = Follower { reader, state: state.clone(), position: position_tx, witness };
        let task = tokio::spawn(async move {
            if let Err(reason) = follower.follow(from).await {
                tracing::error!(target: "journal", "the replica of the log ends: {reason}");
                stopped_tx.send_replace(Some(StopReason::Broken(reason)));
            }
        });
        Ok(Replica { shard, state, position, stopped, task })
    }

    /// How far it is.
    pub(crate) fn position(&self) -> watch::Receiver<Position> {
        self.position.clone()
    }

    /// Why it ended, once it has.
    pub(crate) fn stopped(&self) -> watch::Receiver<Option<StopReason>> {
        self.stopped.clone()
    }

    /// Asks the state as it is.
    pub(crate) fn ask<T>(&self, f: impl FnOnce(&State) -> T) -> T {
        f(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stops following and gives the state away.
    pub(crate) async fn into_state(mut self) -> State {
        self.task.abort();
        // Afterwards the witness is gone too. The follower never waits inside a commit: the state is whole.
        let _ = (&mut self.task).await;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut state, State::new(self.shard))
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Follower {
    reader: Reader,
    state: Arc<RwLock<State>>,
    position: watch::Sender<Position>,
    witness: Option<Witness>,
}

impl Follower {
    /// Ends without an error when nobody will tell of new commits any more.
    async fn follow(mut self, mut from: Position) -> Result<(), String> {
        let mut again = tokio::time::interval(READ_AGAIN);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut commits = self.reader.after(from, Until::Forever);
            loop {
                match commits.next().await {
                    None => return Ok(()),
                    Some(Ok(commit)) => {
                        self.take(&commit)?;
                        from = commit.position();
                    }
                    Some(Err(error)) if is_passing(&error) => {
                        tracing::warn!(target: "journal", "following the log: {error}; trying again");
                        again.tick().await;
                        break;
                    }
                    Some(Err(error)) => return Err(error.to_string()),
                }
            }
        }
    }

    fn take(&mut self, commit: &CommittedCommit) -> Result<(), String> {
        if let Some(witness) = &mut self.witness {
            witness(commit)?;
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if commit.number > state.last_commit() {
            let applied = commit.apply_to(&mut state);
            applied.map_err(|e| {
                format!("commit {} cannot be applied: {e}; use a newer program", commit.number)
            })?;
        }
        drop(state);
        self.position.send_replace(commit.position());
        Ok(())
    }
}

/// No answer, or a follower of the stream's leader that is a little behind.
fn is_passing(error: &ReadError) -> bool {
    match error {
        ReadError::Unavailable { .. } => true,
        ReadError::Gap { expected, found } => found < expected,
        ReadError::Broken { .. } | ReadError::Codec { .. } | ReadError::Archive(_) => false,
    }
}

/// The newest snapshot that stands in this log's chain; without one, the beginning.
async fn newest_snapshot(reader: &Reader, dir: &std::path::Path, shard: u32) -> Result<State, ReadError> {
    let files = SnapshotStore::open(dir).and_then(|store| store.list()).unwrap_or_else(|error| {
        tracing::warn!(target: "journal", "{error}; reading the log from its beginning");
        Vec::new()
    });
    for file in files {
        let Ok(state) = file.read() else { continue };
        let ours = Position::of(&state);
        let found = reader.position_at(ours.commit).await?;
        if state.shard() == shard && found.is_some_and(|found| found.hash == ours.hash) {
            return Ok(state);
        }
    }
    Ok(State::new(shard))
}
