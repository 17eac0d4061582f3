//! The watchdog of the writer's books: folds the log on its own, from the beginning, and now and then compares its state
//! with the writer's, byte for byte. Where they differ, spending stops and says why: one of two readers of the same log is
//! wrong, and nobody knows which. Must not: hold the writer up by more than a thousandth of its time, or share its state.

use crate::background::Background;
use crate::client::LocalLedger;
use crate::pipeline::{Position, StopReason};
use crate::reader::{ArchiveFollower, CommittedCommit, ReadError};
use futures::stream::{BoxStream, StreamExt};
use ledger::State;
use protocol::id::Hash32;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Commits between two comparisons.
pub const WATCHDOG_COMMITS: u64 = 1_000;
/// Pause after a comparison, as a multiple of the time that it took of the writer's thread: at most a thousandth.
const REST_FACTOR: u32 = 1_000;

/// What a watchdog begins with.
#[derive(Clone, Debug)]
pub struct WatchdogOptions {
    /// See [`WATCHDOG_COMMITS`].
    pub commits: u64,
    /// A state that was folded from this log before; the empty one folds everything.
    pub begin: State,
}

impl WatchdogOptions {
    /// From the log's first commit, with the figures above.
    pub fn usual(shard: u32) -> Self {
        Self { commits: WATCHDOG_COMMITS, begin: State::new(shard) }
    }
}

/// What was compared so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Watched {
    /// Comparisons that found no difference.
    pub compared: u64,
    /// Leaves in the state that was compared last.
    pub leaf: u64,
}

/// A running watchdog; it ends with its journal.
pub(crate) struct Watchdog {
    background: Background,
    watched: watch::Receiver<Watched>,
}

impl Watchdog {
    pub(crate) fn start(
        ledger: LocalLedger,
        follower: ArchiveFollower,
        options: WatchdogOptions,
    ) -> std::io::Result<Watchdog> {
        let (told, watched) = watch::channel(Watched::default());
        let background = Background::start("ledger-watchdog", move || async move {
            match watch_over(&ledger, &follower, options, &told).await {
                Ok(()) => {}
                Err(Found::Difference(reason)) => {
                    tracing::error!(target: "journal", "{reason}");
                    ledger.stop_for(reason);
                }
                // The archive's own readers say what is wrong with it; here it only means that nobody compares any more.
                Err(Found::Read(error)) => {
                    tracing::error!(target: "journal", %error, "the watchdog cannot read the log; nothing is compared until the next start");
                }
            }
        })?;
        Ok(Watchdog { background, watched })
    }

    pub(crate) fn watched(&self) -> watch::Receiver<Watched> {
        self.watched.clone()
    }

    pub(crate) async fn end(self) {
        self.background.end().await;
    }
}

enum Found {
    Difference(StopReason),
    Read(ReadError),
}

/// The writer's state at some leaf.
struct Seen {
    commit: u64,
    leaf: u64,
    hash: Hash32,
    took: Duration,
}

/// Until the journal ends, or a difference is found.
async fn watch_over(
    ledger: &LocalLedger,
    follower: &ArchiveFollower,
    options: WatchdogOptions,
    told: &watch::Sender<Watched>,
) -> Result<(), Found> {
    let mut replica = Replica::new(follower, options.begin);
    let mut position = ledger.position();
    loop {
        let asked = ledger.read(|state| {
            let begin = Instant::now();
            let (commit, leaf, hash) = (state.last_commit(), state.next_leaf(), state.hash());
            Seen { commit, leaf, hash, took: begin.elapsed() }
        });
        let Ok(seen) = asked.await else { return Ok(()) };
        if !replica.fold_to(&seen).await? {
            return Ok(());
        }
        let ours = replica.state.hash();
        if ours != seen.hash {
            let (leaf, commit) = (seen.leaf, seen.commit);
            return Err(Found::Difference(StopReason::Diverged {
                commit,
                leaf,
                writer: seen.hash,
                log: ours,
            }));
        }
        told.send_modify(|watched| *watched = Watched { compared: watched.compared + 1, leaf: seen.leaf });
        // The other half lives as long as the journal.
        let _ = tokio::time::timeout(seen.took * REST_FACTOR, told.closed()).await;
        let next = seen.commit + options.commits.max(1);
        if position.wait_for(|position: &Position| position.commit >= next).await.is_err() {
            return Ok(());
        }
    }
}

/// A state of its own behind the log.
struct Replica {
    state: State,
    commits: BoxStream<'static, Result<CommittedCommit, ReadError>>,
    /// The commit that is being folded, and how many of its events are.
    open: Option<(CommittedCommit, usize)>,
}

impl Replica {
    fn new(follower: &ArchiveFollower, state: State) -> Self {
        let commits = follower.from_commit(state.last_commit() + 1);
        Self { state, commits, open: None }
    }

    /// Folds to where the writer stood, which may be in the middle of a commit, or at its last event before it was sealed.
    /// False when the log's reader ended with the journal.
    async fn fold_to(&mut self, seen: &Seen) -> Result<bool, Found> {
        loop {
            if let Some((commit, folded)) = &mut self.open {
                while *folded < commit.events.len() && self.state.next_leaf() < seen.leaf {
                    let applied = ledger::apply(&mut self.state, &commit.events[*folded]);
                    applied.map_err(|error| unfit(commit, error))?;
                    *folded += 1;
                }
                if *folded < commit.events.len() || commit.number > seen.commit {
                    return Ok(true);
                }
                let (number, hash, time_us) = (commit.number, commit.hash, commit.commit.time_us);
                let ended = ledger::end_commit(&mut self.state, number, hash, time_us);
                ended.map_err(|error| unfit(commit, error))?;
                self.open = None;
            }
            if self.state.next_leaf() >= seen.leaf && self.state.last_commit() >= seen.commit {
                return Ok(true);
            }
            match self.commits.next().await {
                Some(Ok(commit)) => self.open = Some((commit, 0)),
                Some(Err(error)) => return Err(Found::Read(error)),
                None => return Ok(false),
            }
        }
    }
}

/// The writer accepted what the log's reader does not.
fn unfit(commit: &CommittedCommit, error: ledger::ApplyError) -> Found {
    let at = commit.number;
    Found::Difference(StopReason::Broken(format!(
        "the books and the log differ: commit {at} was written, and cannot be applied to the state that the commits before \
         it give: {error}; keep the data directory as it is and follow the runbook's page \"books and log differ\""
    )))
}
