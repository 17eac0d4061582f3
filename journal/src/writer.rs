//! The writer for real: the pipeline on its own OS thread, the broker on another thread's runtime, the clock, the archive
//! tail. It carries out effects in order and brings back inputs. Must not: decide anything.
//!
//! Contract with the pipeline: publishes keep their order on one connection; reads go to the stream's leader
//! (`STREAM.MSG.GET`); the tail is FIFO, so that "synced n" means everything before n too.

mod link;

pub(crate) use link::{Link, LinkOptions, LinkRequest};

use crate::pipeline::{Effect, Input, Pipeline, Position, Reply, Request, StopReason};
use crate::reader::{CommittedCommit, ReadError};
use crate::snapshot_store::SnapshotStore;
use crate::tail::{Tail, TailSyncer};
use bytes::Bytes;
use ledger::State;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// Messages taken from the queue before the machine steps.
const DRAIN_MESSAGES_MAX: usize = 8_192;

/// When an answer may leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TailSyncMode {
    /// When the archive tail was written; it is synced within 10 ms.
    Soon,
    /// When the archive tail was synced: two durable copies, at one more fsync of latency.
    Always,
}

/// A commit that has just become safe. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The log's position after it.
    pub position: Position,
    /// Leaf of its first event.
    pub first_leaf: u64,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Committed {
    /// Decodes commit and events (on the follower's time, not the writer's).
    pub fn decode(&self) -> Result<CommittedCommit, ReadError> {
        CommittedCommit::decode(self.position.commit, self.bytes.clone())
    }
}

/// Counts the requests inside the writer, so that its queue is bounded whatever waits for what.
pub(crate) struct Gate {
    inside: AtomicUsize,
    inside_max: usize,
}

impl Gate {
    pub(crate) fn new(inside_max: usize) -> Arc<Self> {
        Arc::new(Self { inside: AtomicUsize::new(0), inside_max })
    }

    /// A pass for one request; `None` when there are too many inside.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Pass> {
        if self.inside.fetch_add(1, Ordering::Relaxed) < self.inside_max {
            return Some(Pass(self.clone()));
        }
        self.inside.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

/// Held by a request until it is answered.
pub(crate) struct Pass(Arc<Gate>);

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who waits for a reply.
pub(crate) struct Ticket {
    pub(crate) reply: oneshot::Sender<Reply>,
    pub(crate) _pass: Pass,
}

/// What comes to the writer's thread.
pub(crate) enum Message {
    Request(Request<Ticket>),
    Input(Input<Ticket>),
}

/// Everything that the writer's thread owns.
pub(crate) struct Writer {
    pub(crate) pipeline: Pipeline<Ticket>,
    pub(crate) queue: Receiver<Message>,
    pub(crate) link: mpsc::UnboundedSender<LinkRequest>,
    pub(crate) tail: Tail,
    pub(crate) syncer: TailSyncer,
    pub(crate) sync_mode: TailSyncMode,
    pub(crate) snapshots: SnapshotStore,
    pub(crate) position: watch::Sender<Position>,
    pub(crate) commits: broadcast::Sender<Committed>,
    pub(crate) stopped: watch::Sender<Option<StopReason>>,
    pub(crate) led: Option<oneshot::Sender<u64>>,
    /// Held until the thread ends.
    pub(crate) lock: File,
}

/// The running loop's own notes.
struct Running {
    writer: Writer,
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    /// Inputs that an effect led to at once.
    follow: VecDeque<Input<Ticket>>,
    last_us: u64,
    snapshot: Option<JoinHandle<()>>,
    /// The newest state that came while a snapshot was still being written.
    snapshot_next: Option<State>,
    ended: bool,
}

impl Writer {
    /// Starts the thread; it ends when the pipeline stops.
    pub(crate) fn start(self, boot: Input<Ticket>) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("ledger-writer".into()).spawn(move || {
            let mut running = Running {
                writer: self,
                timers: BinaryHeap::new(),
                follow: VecDeque::from([boot]),
                last_us: 0,
                snapshot: None,
                snapshot_next: None,
                ended: false,
            };
            running.step_all(Vec::new());
            while !running.ended {
                running.turn();
            }
            running.close();
        })
    }
}

impl Running {
    /// Waits for something, takes everything that is there, steps.
    fn turn(&mut self) {
        let first = match self.timers.peek() {
            None => self.writer.queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(Reverse((at, _))) => {
                self.writer.queue.recv_timeout(at.saturating_duration_since(Instant::now()))
            }
        };
        let mut requests = Vec::new();
        let mut next = match first {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Message::Input(Input::Shutdown)),
        };
        let mut taken = 0;
        while let Some(message) = next {
            match message {
                Message::Request(request) => requests.push(request),
                Message::Input(input) => self.follow.push_back(input),
            }
            taken += 1;
            next = if taken < DRAIN_MESSAGES_MAX { self.writer.queue.try_recv().ok() } else { None };
        }
        let now = Instant::now();
        while let Some(Reverse((at, timer))) = self.timers.peek()
            && *at <= now
        {
            self.follow.push_back(Input::TimedOut { timer: *timer });
            self.timers.pop();
        }
        self.step_all(requests);
    }

    /// Requests first: those that came while a commit was away belong into the next one.
    fn step_all(&mut self, requests: Vec<Request<Ticket>>) {
        if !requests.is_empty() {
            self.step(Input::Requests(requests));
        }
        while let Some(input) = self.follow.pop_front() {
            self.step(input);
        }
    }

    fn step(&mut self, input: Input<Ticket>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        self.last_us = self.last_us.max(now);
        let mut effects = Vec::new();
        self.writer.pipeline.step(self.last_us, input, &mut effects);
        for effect in effects {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect<Ticket>) {
        let writer = &mut self.writer;
        match effect {
            // A link that is gone answers nothing: the pipeline's timers see to that.
            Effect::Publish { attempt, position, bytes } => {
                let _ = writer.link.send(LinkRequest::Publish { attempt, position, bytes });
            }
            Effect::ReadBack { attempt, number } => {
                let _ = writer.link.send(LinkRequest::ReadBack { attempt, number });
            }
            Effect::TailAppend { position, bytes } => self.append(position, &bytes),
            Effect::Committed { position, first_leaf, bytes } => {
                writer.position.send_replace(position);
                // Nobody may follow.
                let _ = writer.commits.send(Committed { position, first_leaf, bytes });
            }
            // Who asked may have gone.
            Effect::Reply { ticket, reply } => drop(ticket.reply.send(reply)),
            Effect::Timer { timer, after_us } => {
                self.timers.push(Reverse((Instant::now() + Duration::from_micros(after_us), timer)));
            }
            Effect::Led { epoch } => {
                tracing::info!(target: "journal", epoch, "this writer's term began");
                if let Some(led) = writer.led.take() {
                    let _ = led.send(epoch);
                }
            }
            Effect::Snapshot(state) => self.write_snapshot(*state),
            Effect::Warn(text) => tracing::warn!(target: "journal", "{text}"),
            Effect::Stop(reason) => {
                match &reason {
                    StopReason::Closed => tracing::info!(target: "journal", "{reason}"),
                    other => tracing::error!(target: "journal", "the writer stops: {other}"),
                }
                writer.stopped.send_replace(Some(reason));
                self.ended = true;
            }
        }
    }

    fn append(&mut self, position: Position, bytes: &[u8]) {
        let number = position.commit;
        let result = self.writer.tail.append(position, bytes).map_err(|e| e.to_string());
        let written = result.is_ok();
        // In `Always` mode the sync thread reports instead.
        if !written || self.writer.sync_mode == TailSyncMode::Soon {
            self.follow.push_back(Input::TailWritten { number, result });
        }
        if written {
            self.writer.syncer.ask(self.writer.tail.pending());
        }
    }

    /// On a thread of its own; what comes while one is being written waits for the next occasion, or the end.
    fn write_snapshot(&mut self, state: State) {
        if self.snapshot.as_ref().is_some_and(|thread| !thread.is_finished()) {
            self.snapshot_next = Some(state);
            return;
        }
        self.snapshot_next = None;
        let store = self.writer.snapshots.clone();
        let write = move || write_snapshot(&store, &state);
        match std::thread::Builder::new().name("snapshot".into()).spawn(write) {
            Ok(thread) => self.snapshot = Some(thread),
            Err(error) => tracing::warn!(target: "journal", "no thread for a snapshot: {error}"),
        }
    }

    /// The tail is synced and marked, the snapshot finished, before the lock goes.
    fn close(self) {
        let Running { writer, snapshot, snapshot_next, .. } = self;
        let Writer { syncer, lock, snapshots, .. } = writer;
        drop(syncer);
        if let Some(thread) = snapshot {
            let _ = thread.join();
        }
        if let Some(state) = snapshot_next {
            write_snapshot(&snapshots, &state);
        }
        drop(lock);
    }
}

fn write_snapshot(store: &SnapshotStore, state: &State) {
    match store.write(state) {
        Ok(file) => {
            tracing::info!(target: "journal", commit = file.commit, content = %file.content, "snapshot written");
        }
        Err(error) => tracing::warn!(target: "journal", "{error}"),
    }
}
