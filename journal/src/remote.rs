//! The door to the ledger for gateways in other processes: the same calls as [`crate::LedgerClient`], carried by NATS
//! request and reply on `cmd.<shard>` in micro-batches; questions go to a replica that follows the log. Must not: decide.
//!
//! A question sees everything that this gateway was told before, and may miss what others were told in the last tenth of
//! a second.

mod batcher;
mod door;
pub mod message;
pub(crate) mod replica;

pub use batcher::{ASK_AGAIN, COMMANDS_EAGER, MESSAGES_IN_FLIGHT_MAX};
pub use door::{CommandDoor, DOOR_COMMANDS_MAX, DOOR_MESSAGES_MAX, DoorOptions};

use crate::auth::{self, AuthError, Credentials};
use crate::client::{ANSWER_WAIT, SubmitError};
use crate::lease::{LeaseError, LeaseWatch};
use crate::pipeline::{Outcome, Placed, Position, QUEUE_REQUESTS_MAX, StopReason};
use crate::reader::{CommittedCommit, Reader, ReaderOptions};
use crate::stream::LEDGER_STREAM;
use batcher::{Batcher, BatcherOptions, Job, Told};
use ledger::State;
use ledger::command::Command;
use message::{Asked, COMMAND_BYTES_MAX, MESSAGE_BYTES_MAX, MESSAGE_COMMANDS_MAX, Want};
use minicbor::bytes::ByteVec;
use protocol::codec::{decode_event, encode};
use protocol::event::Event;
use replica::{Replica, ReplicaOptions};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OnceCell, Semaphore, mpsc, oneshot, watch};

/// Bytes that one command takes in a message beside its own.
const COMMAND_HEAD_BYTES: usize = 8;
/// Jobs on their way to the batcher's task; each holds its own commands' permits.
const JOBS_MAX: usize = 1_024;

/// Why a remote door did not open.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The broker would not have us.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The leader's beat.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The inbox for answers.
    #[error("cannot listen for answers: {reason}")]
    Inbox {
        /// The client's words.
        reason: String,
    },
}

/// What [`RemoteLedger::connect`] needs.
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// The broker, `nats://host:port`; several, separated by commas, on a cluster.
    pub url: String,
    /// Of [`crate::auth::Role::Gateway`].
    pub credentials: Credentials,
    /// Shard of the log.
    pub shard: u32,
    /// A data folder with snapshots that the replica may begin with; without one it reads the whole log.
    pub snapshots: Option<PathBuf>,
    /// Commands that may wait for an answer; with more the caller is told "overloaded".
    pub commands_max: usize,
    /// How long an answer may take before the caller is told that it is unknown.
    pub answer_wait: Duration,
}

impl RemoteOptions {
    /// Shard 0 with the usual figures.
    pub fn new(url: String, credentials: Credentials) -> Self {
        Self {
            url,
            credentials,
            shard: 0,
            snapshots: None,
            commands_max: QUEUE_REQUESTS_MAX / 2,
            answer_wait: ANSWER_WAIT,
        }
    }
}

/// A client of a sequencer in another process. Cheap to clone; the connection ends with the last clone.
#[derive(Clone)]
pub struct RemoteLedger {
    inner: Arc<Inner>,
}

struct Inner {
    jobs: mpsc::Sender<Job>,
    /// One permit per command that waits.
    room: Arc<Semaphore>,
    commands_max: usize,
    answer_wait: Duration,
    reader: Reader,
    shard: u32,
    snapshots: Option<PathBuf>,
    /// Begun by the first question: who only submits does not pay for it.
    replica: OnceCell<Replica>,
    stopped: watch::Sender<Option<StopReason>>,
    /// What this gateway was told; questions wait for it.
    told: watch::Receiver<Position>,
    /// The same, and what the leader's beats say.
    known: watch::Receiver<Position>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    _lease: LeaseWatch,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl RemoteLedger {
    /// Connects. The sequencer need not be there yet.
    pub async fn connect(options: RemoteOptions) -> Result<RemoteLedger, ConnectError> {
        let client = auth::connect(&options.url, &options.credentials).await?;
        let lease = LeaseWatch::start(&client, options.shard).await?;
        let (told_tx, told) = watch::channel(Position::default());
        // The replica wakes for what we were told and for what the leader's beat says.
        let (known_tx, known) = watch::channel(Position::default());
        let reader_options = ReaderOptions {
            client: client.clone(),
            stream: LEDGER_STREAM.to_owned(),
            shard: options.shard,
            position: Some(known.clone()),
        };
        let (jobs, inbox) = mpsc::channel(JOBS_MAX);
        let batcher = Batcher::start(BatcherOptions {
            client,
            shard: options.shard,
            answer_wait: options.answer_wait,
            jobs: inbox,
            heard: lease.heard(),
            told: told_tx,
        });
        let batcher = batcher.await.map_err(|reason| ConnectError::Inbox { reason })?;
        let knowing = tokio::spawn(know(lease.heard(), told.clone(), known_tx));
        let inner = Inner {
            jobs,
            room: Arc::new(Semaphore::new(options.commands_max)),
            commands_max: options.commands_max,
            answer_wait: options.answer_wait,
            reader: Reader::new(reader_options),
            shard: options.shard,
            snapshots: options.snapshots,
            replica: OnceCell::new(),
            stopped: watch::channel(None).0,
            told,
            known,
            tasks: vec![batcher, knowing],
            _lease: lease,
        };
        Ok(RemoteLedger { inner: Arc::new(inner) })
    }

    /// Hands a command to the sequencer; returns once its events are committed, with them.
    pub async fn submit(&self, command: Command) -> Result<Outcome, SubmitError> {
        let told = self.one(command, Want::Events).await?;
        let events = match told.events {
            Some(events) => decode_events(&events),
            None => self.read_events(&told.placed).await,
        };
        let Placed { commit, commit_hash, first_leaf, time_us, repeated, .. } = told.placed;
        let events = events.map_err(|reason| SubmitError::Unreadable { commit, reason })?;
        Ok(Outcome { commit, commit_hash, first_leaf, time_us, events, repeated })
    }

    /// The same, without the events.
    pub async fn submit_placed(&self, command: Command) -> Result<Placed, SubmitError> {
        Ok(self.one(command, Want::Place).await?.placed)
    }

    /// Hands many commands over at once; they are decided in this order. Fails as a whole only when nothing happened.
    pub async fn submit_many(
        &self,
        commands: Vec<Command>,
    ) -> Result<Vec<Result<Placed, SubmitError>>, SubmitError> {
        let mut chunks = Chunks::default();
        for command in &commands {
            chunks.push(command, Want::Place)?;
        }
        let mut results = Vec::with_capacity(commands.len());
        for told in self.ask(chunks).await? {
            results.push(told.map(|told| told.placed));
        }
        Ok(results)
    }

    /// Asks the replica: it has everything that this gateway was told before. The first question begins it and waits until
    /// it has read the log.
    pub async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, SubmitError> {
        let told = self.inner.told.borrow().commit;
        self.reached(told).await?;
        Ok(self.replica().await?.ask(f))
    }

    /// Waits until the replica has a commit.
    pub async fn reached(&self, commit: u64) -> Result<Position, SubmitError> {
        let replica = self.replica().await?;
        let (mut position, mut stopped) = (replica.position(), replica.stopped());
        let wait = tokio::time::timeout(self.inner.answer_wait, async {
            tokio::select! {
                reached = position.wait_for(|position| position.commit >= commit) => reached.ok().map(|reached| *reached),
                _ = stopped.wait_for(Option::is_some) => None,
            }
        });
        let reached = wait.await.ok().flatten();
        reached.ok_or_else(|| {
            let stopped = replica.stopped().borrow().as_ref().map(ToString::to_string);
            let late = || format!("the replica does not reach commit {commit} in time");
            SubmitError::Stopped(stopped.unwrap_or_else(late))
        })
    }

    /// How far the log is, as this gateway was told and as the leader's beat says.
    pub fn position(&self) -> watch::Receiver<Position> {
        self.inner.known.clone()
    }

    /// Why the replica ended, once it has: the log is broken, or newer than this program.
    pub fn stopped(&self) -> watch::Receiver<Option<StopReason>> {
        self.inner.stopped.subscribe()
    }

    async fn replica(&self) -> Result<&Replica, SubmitError> {
        let begin = async || {
            let options = ReplicaOptions {
                reader: self.inner.reader.clone(),
                shard: self.inner.shard,
                snapshots: self.inner.snapshots.clone(),
                witnessed: None,
                witness: None,
                stopped: self.inner.stopped.clone(),
            };
            let ended = |reason: String| SubmitError::Stopped(reason);
            let last = self.inner.reader.last_commit().await.map_err(|e| ended(e.to_string()))?;
            let replica = Replica::start(options).await.map_err(|e| ended(e.to_string()))?;
            // As long as it takes: an answer from the middle of the log would be one from the past.
            let (mut position, mut stopped) = (replica.position(), replica.stopped());
            tokio::select! {
                reached = position.wait_for(|position| position.commit >= last) => {
                    reached.map(drop).map_err(|_| ended("the replica of the log died".to_owned()))?;
                }
                reason = stopped.wait_for(Option::is_some) => {
                    let reason = reason.ok().and_then(|reason| reason.as_ref().map(ToString::to_string));
                    return Err(ended(reason.unwrap_or_default()));
                }
            }
            Ok(replica)
        };
        self.inner.replica.get_or_try_init(begin).await
    }

    async fn one(&self, command: Command, want: Want) -> Result<Told, SubmitError> {
        let mut chunks = Chunks::default();
        chunks.push(&command, want)?;
        self.ask(chunks).await?.pop().unwrap_or(Err(SubmitError::Unknown))
    }

    async fn ask(&self, chunks: Chunks) -> Result<Vec<Result<Told, SubmitError>>, SubmitError> {
        let count = chunks.count();
        if count > self.inner.commands_max {
            let why = format!("{count} commands at once; at most {}", self.inner.commands_max);
            return Err(SubmitError::TooLarge(why));
        }
        let permits = self.inner.room.clone().try_acquire_many_owned(count as u32);
        let Ok(_permits) = permits else { return Err(SubmitError::Overloaded) };
        let mut answers = Vec::new();
        for chunk in chunks.into_jobs() {
            let (reply, answer) = oneshot::channel();
            let job = Job { commands: chunk.commands, bytes: chunk.bytes, reply };
            answers.push((job.commands.len(), answer));
            // The task ends with the last clone of this door only.
            let _ = self.inner.jobs.send(job).await;
        }
        let mut told = Vec::with_capacity(count);
        for (count, answer) in answers {
            match answer.await {
                Ok(answers) => told.extend(answers),
                Err(_) => told.extend((0..count).map(|_| Err(SubmitError::Unknown))),
            }
        }
        Ok(told)
    }

    /// The events of a command that the answer had no room for, or that was committed before.
    async fn read_events(&self, placed: &Placed) -> Result<Vec<Event>, String> {
        let bytes = self.inner.reader.read_one(placed.commit).await.map_err(|e| e.to_string())?;
        let bytes = bytes.ok_or("the log does not show that commit")?;
        let commit = CommittedCommit::decode(placed.commit, bytes).map_err(|e| e.to_string())?;
        let skip = placed.first_leaf.checked_sub(commit.commit.first_leaf);
        let skip = skip.ok_or("the commit begins after the command's first leaf")? as usize;
        let events: Vec<_> = commit.events.into_iter().skip(skip).take(placed.count as usize).collect();
        if events.len() != placed.count as usize {
            return Err(format!(
                "the commit holds {} of the command's {} events",
                events.len(),
                placed.count
            ));
        }
        Ok(events)
    }
}

fn decode_events(events: &[ByteVec]) -> Result<Vec<Event>, String> {
    events.iter().map(|bytes| decode_event(bytes).map_err(|e| e.to_string())).collect()
}

/// Commands cut into pieces of which each fits one message.
#[derive(Default)]
struct Chunks(Vec<Chunk>);

#[derive(Default)]
struct Chunk {
    commands: Vec<Asked>,
    bytes: usize,
}

impl Chunks {
    fn push(&mut self, command: &Command, want: Want) -> Result<(), SubmitError> {
        let command = encode(command);
        if command.len() > COMMAND_BYTES_MAX {
            let why = format!("the command has {} bytes; at most {COMMAND_BYTES_MAX}", command.len());
            return Err(SubmitError::TooLarge(why));
        }
        let bytes = command.len() + COMMAND_HEAD_BYTES;
        let room = |chunk: &Chunk| {
            chunk.commands.len() < MESSAGE_COMMANDS_MAX
                && chunk.bytes + bytes <= COMMAND_BYTES_MAX + COMMAND_HEAD_BYTES
        };
        if !self.0.last().is_some_and(room) {
            self.0.push(Chunk::default());
        }
        if let Some(chunk) = self.0.last_mut() {
            chunk.commands.push(Asked { want, command: command.into() });
            chunk.bytes += bytes;
        }
        Ok(())
    }

    fn count(&self) -> usize {
        self.0.iter().map(|chunk| chunk.commands.len()).sum()
    }

    fn into_jobs(self) -> Vec<Chunk> {
        self.0
    }
}

const _: () =
    assert!(COMMAND_BYTES_MAX + COMMAND_HEAD_BYTES + 64 <= MESSAGE_BYTES_MAX, "room for a message's head");

/// Brings together what answers and beats say of the log's position.
async fn know(
    mut heard: watch::Receiver<crate::lease::Heard>,
    mut told: watch::Receiver<Position>,
    known: watch::Sender<Position>,
) {
    loop {
        let beat = heard.borrow_and_update().beat.map(|beat| Position::from(beat.reached));
        let answer = *told.borrow_and_update();
        let newest = beat.filter(|beat| beat.commit > answer.commit).unwrap_or(answer);
        known.send_if_modified(|known| {
            let newer = newest.commit > known.commit;
            if newer {
                *known = newest;
            }
            newer
        });
        tokio::select! {
            changed = heard.changed() => if changed.is_err() { return },
            changed = told.changed() => if changed.is_err() { return },
        }
    }
}
