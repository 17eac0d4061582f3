//! Leading and standing by. A leader is a journal with its command door and its beat; a standby follows the log with a
//! warm state (and, in a data folder of its own, with its own archive tail), and begins a term when the leader is gone.
//! Must not: be what safety depends on: the log fences whoever comes too late.
//!
//! In the leader's own data folder the folder's lock says at once that the leader's process has ended. A process that
//! is there and does not move keeps the lock: it is killed when the lease has lapsed ([`StuckOwner`]).

mod owner;

use crate::auth::{self, AuthError, Credentials};
use crate::journal::{Journal, JournalOptions, StartError, lock_data_dir};
use crate::lease::{LEASE_LAPSE, Lease, LeaseError, LeaseKeeper, LeaseOptions, LeaseWatch};
use crate::pipeline::{Position, StopReason};
use crate::reader::{CommittedCommit, ReadError, Reader, ReaderOptions};
use crate::remote::replica::{Replica, ReplicaOptions, Witness};
use crate::remote::{CommandDoor, DoorOptions};
use crate::stream::LEDGER_STREAM;
use crate::tail::{Tail, TailOptions};
use owner::LockWait;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How often a standby looks at what it has heard.
const LOOK_PERIOD: Duration = Duration::from_millis(50);
/// A standby that did not run for so long itself begins to count anew.
const LOOK_GAP_MAX: Duration = Duration::from_millis(500);
/// How long the broker may take to say where the log ends.
const BROKER_WAIT: Duration = Duration::from_millis(500);

/// What to do with the process that holds the data folder's lock although its lease has lapsed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StuckOwner {
    /// `kill -9`: it is on this machine, silent, and would be fenced anyway.
    Kill,
    /// Leave it; wait until it ends.
    Leave,
}

/// What a standby needs.
#[derive(Clone, Debug)]
pub struct StandbyOptions {
    /// The journal that it will lead with.
    pub journal: JournalOptions,
    /// See [`LEASE_LAPSE`].
    pub lapse: Duration,
    /// Only where leader and standby share a data folder.
    pub stuck_owner: StuckOwner,
}

impl StandbyOptions {
    /// The usual figures.
    pub fn new(journal: JournalOptions) -> Self {
        Self { journal, lapse: LEASE_LAPSE, stuck_owner: StuckOwner::Kill }
    }
}

/// Why a standby or a leader cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum StandbyError {
    /// The broker would not have us.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The beat.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The log.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log cannot be followed.
    #[error("the log cannot be followed: {reason}")]
    Replica {
        /// Why not.
        reason: StopReason,
    },
    /// The journal.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The archive tail of our own.
    #[error(transparent)]
    Tail(#[from] crate::tail::TailError),
    /// Nobody can reach us.
    #[error("cannot listen for commands: {reason}")]
    Door {
        /// The client's words.
        reason: String,
    },
}

/// A journal that leads: gateways reach it, and its beat says so.
pub struct Leader {
    journal: Journal,
    _door: CommandDoor,
    _keeper: LeaseKeeper,
    guard: JoinHandle<()>,
}

impl Leader {
    /// Opens the door, then begins to beat.
    pub async fn start(
        journal: Journal,
        url: &str,
        credentials: &Credentials,
        shard: u32,
    ) -> Result<Leader, StandbyError> {
        let client = auth::connect(url, credentials).await?;
        let lease = Lease::new();
        let door = CommandDoor::start(DoorOptions {
            ledger: journal.client(),
            client: client.clone(),
            shard,
            epoch: journal.epoch(),
            lease: Some(lease.clone()),
        });
        let door = door.await.map_err(|e| StandbyError::Door { reason: e.to_string() })?;
        let (epoch, position) = (journal.epoch(), journal.position());
        let keeper = LeaseKeeper::start(LeaseOptions { client, shard, epoch, position, lease }).await?;
        let mut superseded = keeper.superseded();
        let abandon = journal.abandoner();
        let guard = tokio::spawn(async move {
            let later = superseded.wait_for(Option::is_some).await.map(|later| *later);
            if let Ok(Some(later)) = later {
                tracing::error!(target: "journal", epoch, later, "another writer's term began; this one ends");
                // Nothing of ours can be committed any more, and our state is old.
                abandon();
            }
        });
        Ok(Leader { journal, _door: door, _keeper: keeper, guard })
    }

    /// The journal.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Waits until the writer stops, and says why.
    pub async fn ended(&self) -> StopReason {
        let mut stopped = self.journal.stopped();
        let reason = stopped.wait_for(Option::is_some).await.map(|reason| reason.clone());
        reason.ok().flatten().unwrap_or_else(|| StopReason::Broken("the writer's thread died".to_owned()))
    }

    /// Finishes what was accepted and frees the data folder; a standby then takes over.
    pub async fn shutdown(self) -> Result<(), StopReason> {
        self.guard.abort();
        self.journal.shutdown().await
    }
}

/// See the module.
pub struct Standby;

impl Standby {
    /// Stands by until it leads. Returns an error only where trying again cannot help.
    pub async fn run(options: StandbyOptions) -> Result<Leader, StandbyError> {
        let JournalOptions { url, credentials, pipeline, .. } = &options.journal;
        let client = auth::connect(url, credentials).await?;
        loop {
            let mut watch = Watch::start(&options, &client).await?;
            watch.until_gone().await?;
            let quiet = Instant::now();
            match take_over(&options, watch).await {
                Ok(journal) => {
                    let leader = Leader::start(journal, url, credentials, pipeline.shard).await?;
                    let took_ms = quiet.elapsed().as_millis() as u64;
                    tracing::info!(target: "journal", epoch = leader.journal.epoch(), took_ms, "took over");
                    return Ok(leader);
                }
                Err(StandbyError::Start(error)) if may_pass(&error) => {
                    tracing::warn!(target: "journal", "not taken over: {error}; standing by again");
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Lost races and a broker that is not there; everything else needs hands.
fn may_pass(error: &StartError) -> bool {
    matches!(
        error,
        StartError::Locked { .. }
            | StartError::Auth(_)
            | StartError::Stream(crate::stream::StreamError::NoInformation { .. })
            | StartError::Link { .. }
            | StartError::Read(ReadError::Unavailable { .. } | ReadError::Gap { .. })
            | StartError::Stopped(StopReason::Fenced { .. })
    )
}

/// One time of standing by.
struct Watch {
    client: async_nats::Client,
    reader: Reader,
    replica: Replica,
    lease: LeaseWatch,
    lapse: Duration,
    /// The leader's own data folder is ours too: its lock tells.
    shared: Option<LockWait>,
}

impl Watch {
    async fn start(options: &StandbyOptions, client: &async_nats::Client) -> Result<Watch, StandbyError> {
        let JournalOptions { data_dir, pipeline, tail_file_bytes_max, .. } = &options.journal;
        let shard = pipeline.shard;
        let lease = LeaseWatch::start(client, shard).await?;
        let reader_options =
            ReaderOptions { client: client.clone(), stream: LEDGER_STREAM.to_owned(), shard, position: None };
        let reader = Reader::new(reader_options);
        let (witnessed, witness, shared) = match lock_data_dir(data_dir) {
            Ok(lock) => {
                let tail =
                    TailOptions { data_dir: data_dir.clone(), shard, file_bytes_max: *tail_file_bytes_max };
                let (head, witness) = own_tail(Tail::open(tail)?, lock);
                (head, witness, None)
            }
            Err(StartError::Locked { path }) => (None, None, Some(LockWait::start(path))),
            Err(error) => return Err(error.into()),
        };
        let replica = Replica::start(ReplicaOptions {
            reader: reader.clone(),
            shard,
            snapshots: Some(data_dir.clone()),
            witnessed,
            witness,
            stopped: tokio::sync::watch::channel(None).0,
        });
        let replica = replica.await?;
        Ok(Watch { client: client.clone(), reader, replica, lease, lapse: options.lapse, shared })
    }

    /// Returns when the leader's process has ended, or its lease has lapsed.
    async fn until_gone(&mut self) -> Result<(), StandbyError> {
        let mut look = tokio::time::interval(LOOK_PERIOD);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut position, mut stopped) = (self.replica.position(), self.replica.stopped());
        let heard = self.lease.heard();
        let mut connects = self.connects();
        let (mut quiet_since, mut looked_at) = (Instant::now(), Instant::now());
        loop {
            tokio::select! {
                _ = look.tick() => {}
                () = LockWait::freed(&mut self.shared) => return Ok(()),
            }
            if let Some(reason) = stopped.borrow_and_update().clone() {
                return Err(StandbyError::Replica { reason });
            }
            let now = Instant::now();
            let connected = self.client.connection_state() == async_nats::connection::State::Connected;
            let slept = now.duration_since(looked_at) > LOOK_GAP_MAX;
            looked_at = now;
            // What cannot hear, or did not run, has not heard silence.
            if !connected || slept || connects != self.connects() || position.has_changed().unwrap_or(false) {
                position.borrow_and_update();
                connects = self.connects();
                quiet_since = now;
            }
            quiet_since = quiet_since.max(heard.borrow().at);
            if now.duration_since(quiet_since) >= self.lapse {
                if self.is_at_the_end().await {
                    return Ok(());
                }
                quiet_since = Instant::now() - self.lapse / 2;
            }
        }
    }

    /// The broker answers, and the log has nothing that we do not have: nobody writes.
    async fn is_at_the_end(&self) -> bool {
        let last = tokio::time::timeout(BROKER_WAIT, self.reader.last_commit()).await;
        let ours = self.replica.position().borrow().commit;
        matches!(last, Ok(Ok(last)) if last <= ours)
    }

    fn connects(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }
}

/// The archive tail of a folder that nobody else uses: it is kept beside the log, under the folder's lock.
fn own_tail(mut tail: Tail, lock: File) -> (Option<Position>, Option<Witness>) {
    let head = tail.head();
    // What was torn is looked at when the journal opens.
    let whole = tail.torn().is_none();
    let witness = move |commit: &CommittedCommit| {
        let _held = &lock;
        if whole && commit.number > tail.head().commit {
            tail.append(commit.position(), &commit.bytes).map_err(|e| e.to_string())?;
        }
        Ok(())
    };
    (whole.then_some(head), Some(Box::new(witness)))
}

async fn take_over(options: &StandbyOptions, watch: Watch) -> Result<Journal, StandbyError> {
    let Watch { replica, shared, .. } = watch;
    let mut journal = options.journal.clone();
    // The witness goes with it, and with the witness the lock of a folder of our own.
    journal.warm = Some(Arc::new(replica.into_state().await));
    if let Some(lock) = shared {
        lock.free(options.stuck_owner).await;
    }
    Ok(Journal::open(journal).await?)
}
