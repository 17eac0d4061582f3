//! The writer for real: the pipeline as a task on the broker connection's own thread and runtime, so that a publish and its
//! acknowledgement cost no change of threads; the clock, the archive tail. It carries out effects in order and brings back
//! inputs. Must not: decide anything.
//!
//! Contract with the pipeline: publishes keep their order on one connection; reads go to the stream's leader
//! (`STREAM.MSG.GET`); the tail is FIFO, so that "synced n" means everything before n too.

mod link;

pub(crate) use link::{Link, LinkOptions, LinkRequest};

use crate::pipeline::{Effect, Input, Pipeline, Position, Reply, Request, StopReason, TailRefusal};
use crate::reader::{CommittedCommit, ReadError};
use crate::tail::{TAIL_SYNC_DELAY, Tail, TailError, TailSyncer};
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// Timers that are due so soon are waited for by looking at the clock.
const POLLED_MAX: Duration = Duration::from_micros(500);

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

/// Counts the commands inside the writer, so that its queue is bounded whatever waits for what.
pub(crate) struct Gate {
    inside: AtomicUsize,
    inside_max: usize,
}

impl Gate {
    pub(crate) fn new(inside_max: usize) -> Arc<Self> {
        Arc::new(Self { inside: AtomicUsize::new(0), inside_max })
    }

    /// A pass for `count` commands; `None` when there are too many inside.
    pub(crate) fn enter(self: &Arc<Self>, count: usize) -> Option<Pass> {
        if self.inside.fetch_add(count, Ordering::Relaxed) + count <= self.inside_max {
            return Some(Pass { gate: self.clone(), count });
        }
        self.inside.fetch_sub(count, Ordering::Relaxed);
        None
    }

    /// How many may be inside.
    pub(crate) fn inside_max(&self) -> usize {
        self.inside_max
    }
}

/// Held by commands until they are answered.
pub(crate) struct Pass {
    gate: Arc<Gate>,
    count: usize,
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.gate.inside.fetch_sub(self.count, Ordering::Relaxed);
    }
}

/// Who waits for a reply.
pub(crate) struct Ticket {
    pub(crate) reply: oneshot::Sender<Reply>,
    pub(crate) _pass: Pass,
}

/// What comes to the writer.
pub(crate) enum Message {
    Request(Request<Ticket>),
    Input(Input<Ticket>),
}

/// Everything that the writer's thread owns.
pub(crate) struct Writer {
    pub(crate) pipeline: Pipeline<Ticket>,
    pub(crate) queue: mpsc::UnboundedReceiver<Message>,
    pub(crate) link: mpsc::UnboundedSender<LinkRequest>,
    pub(crate) tail: Tail,
    pub(crate) syncer: TailSyncer,
    pub(crate) sync_mode: TailSyncMode,
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
    /// Kept for its memory.
    effects: Vec<Effect<Ticket>>,
    last_us: u64,
    sync: SyncPace,
    ended: bool,
}

/// Asking the sync thread wakes it; one sync serves everything that was written before it began.
struct SyncPace {
    /// The last time it was asked.
    asked: Option<Instant>,
    /// Something was written since, and it will be asked then.
    due: Option<Instant>,
}

/// Shorter than [`TAIL_SYNC_DELAY`], so that what is written between two askings is never older than that twice.
const SYNC_ASK_PERIOD: Duration = TAIL_SYNC_DELAY.checked_div(2).expect("not a division by zero");

impl Writer {
    /// Serves until the pipeline stops.
    pub(crate) async fn run(self, boot: Input<Ticket>) {
        let mut running = Running {
            writer: self,
            timers: BinaryHeap::new(),
            follow: VecDeque::from([boot]),
            effects: Vec::new(),
            last_us: 0,
            sync: SyncPace { asked: None, due: None },
            ended: false,
        };
        running.step_all(Vec::new());
        while !running.ended {
            running.turn().await;
        }
        running.close();
    }
}

impl Running {
    /// Waits for something, unless there is something to prepare; takes everything that is there; steps.
    async fn turn(&mut self) {
        let mut requests = Vec::new();
        let mut next = if self.writer.pipeline.may_prepare() {
            // The connection's turn: what is to be published leaves, an acknowledgement comes in.
            tokio::task::yield_now().await;
            self.writer.queue.try_recv().ok()
        } else {
            self.wait().await
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
        self.look_at_timers();
        self.step_all(requests);
        if self.writer.pipeline.may_prepare() {
            self.step(Input::Prepare);
        }
    }

    /// The next message; `None` when a timer or the tail's sync is due first.
    async fn wait(&mut self) -> Option<Message> {
        while let Some(Reverse((_, timer))) = self.timers.peek()
            && !self.writer.pipeline.awaits(*timer)
        {
            self.timers.pop();
        }
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        if let Some(at) = timer.filter(|at| at.saturating_duration_since(Instant::now()) <= POLLED_MAX) {
            return self.poll_until(at).await;
        }
        let next = self.writer.queue.recv();
        let received = match timer.into_iter().chain(self.sync.due).min() {
            None => next.await,
            Some(at) => match tokio::time::timeout_at(at.into(), next).await {
                Ok(received) => received,
                Err(_) => return None,
            },
        };
        received.or(Some(Message::Input(Input::Shutdown)))
    }

    /// The runtime's clock ticks in milliseconds: what is shorter is waited for by looking.
    async fn poll_until(&mut self, at: Instant) -> Option<Message> {
        while Instant::now() < at {
            tokio::task::yield_now().await;
            if let Ok(message) = self.writer.queue.try_recv() {
                return Some(message);
            }
        }
        None
    }

    fn look_at_timers(&mut self) {
        let now = Instant::now();
        if self.sync.due.is_some_and(|due| due <= now) {
            self.ask_sync(now);
        }
        while let Some(Reverse((at, timer))) = self.timers.peek()
            && *at <= now
        {
            self.follow.push_back(Input::TimedOut { timer: *timer });
            self.timers.pop();
        }
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
        let mut effects = std::mem::take(&mut self.effects);
        self.writer.pipeline.step(self.last_us, input, &mut effects);
        for effect in effects.drain(..) {
            self.perform(effect);
        }
        self.effects = effects;
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
        let result = self.writer.tail.append(position, bytes).map_err(refusal);
        let written = result.is_ok();
        let soon = self.writer.sync_mode == TailSyncMode::Soon;
        // In `Always` mode the sync thread reports instead.
        if !written || soon {
            self.follow.push_back(Input::TailWritten { number, result });
        }
        if !written {
            return;
        }
        let now = Instant::now();
        let next = self.sync.asked.map_or(now, |asked| asked + SYNC_ASK_PERIOD);
        if !soon || next <= now {
            self.ask_sync(now);
        } else {
            self.sync.due = Some(next);
        }
    }

    fn ask_sync(&mut self, now: Instant) {
        self.sync = SyncPace { asked: Some(now), due: None };
        self.writer.syncer.ask(self.writer.tail.pending());
    }

    /// The tail is synced and marked before the lock goes.
    fn close(mut self) {
        if self.sync.due.is_some() {
            self.ask_sync(Instant::now());
        }
        let Writer { syncer, lock, .. } = self.writer;
        drop(syncer);
        drop(lock);
    }
}

/// A disk that refuses may take it later; a tail that holds other commits never will.
fn refusal(error: TailError) -> TailRefusal {
    let text = error.to_string();
    match error {
        TailError::Io { .. } | TailError::Segment(_) => TailRefusal::Retry(text),
        TailError::Foreign { .. }
        | TailError::Damaged { .. }
        | TailError::Gap { .. }
        | TailError::Differs { .. } => TailRefusal::Broken(text),
    }
}
