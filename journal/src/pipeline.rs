//! The writer's state machine: inputs in, effects out. One commit in flight, the next one prepared meanwhile; replies
//! leave in order, after the log's acknowledgement and the archive tail. Total: every input is allowed in every mode.
//! Must not: I/O, clocks, randomness, threads (the simulation drives this very code; `writer.rs` drives it for real).

mod batch;
mod input;
mod recovery;
#[cfg(test)]
mod tests;

pub use batch::Sealed;
pub use input::{
    Answer, Boot, Effect, Input, Outcome, Position, Published, Query, ReadBack, Reply, Request, StopReason,
};

use batch::{Draft, Waiting};
use bytes::Bytes;
use ledger::command::{ChangeWriter, Command, CommandBody};
use ledger::{Decision, State};
use minicbor::bytes::ByteVec;
use protocol::codec::{encode, encode_event};
use protocol::commit::{COMMIT_BYTES_MAX, COMMIT_EVENTS_MAX, COMMIT_VERSION, Commit};
use protocol::event::{Actor, Event};
use protocol::id::IdempotencyKey;
use recovery::Flight;
use std::collections::VecDeque;

/// Requests that may wait to be decided; one more is answered [`Reply::Overloaded`].
pub const QUEUE_REQUESTS_MAX: usize = 65_536;
/// While a commit is in flight the next one is prepared only when this many requests wait: with fewer, preparing would
/// split them over two commits and cost more than it saves (measured: 32 clients 50 k/s against 71 k/s).
pub const PREPARE_REQUESTS_MIN: usize = 512;
/// Acknowledged commits that may wait for the archive tail; with more the writer publishes nothing.
pub const SETTLING_COMMITS_MAX: usize = 8;
/// Commits between two snapshots.
pub const SNAPSHOT_COMMITS: u64 = 10_000;
/// How long the tail rests after it refused a write, microseconds.
const TAIL_PAUSE_US: u64 = 250_000;

/// What a pipeline is told once.
#[derive(Clone, Debug)]
pub struct PipelineOptions {
    /// Shard of the log.
    pub shard: u32,
    /// See [`QUEUE_REQUESTS_MAX`].
    pub queue_requests_max: usize,
    /// See [`PREPARE_REQUESTS_MIN`].
    pub prepare_requests_min: usize,
    /// See [`SNAPSHOT_COMMITS`]; 0 = only at shutdown.
    pub snapshot_commits: u64,
}

impl PipelineOptions {
    /// The figures above.
    pub fn new(shard: u32) -> Self {
        Self {
            shard,
            queue_requests_max: QUEUE_REQUESTS_MAX,
            prepare_requests_min: PREPARE_REQUESTS_MIN,
            snapshot_commits: SNAPSHOT_COMMITS,
        }
    }
}

/// What the machine may do now.
#[derive(Clone, Debug, PartialEq)]
enum Mode {
    /// Nothing before `Boot`; requests wait.
    Standby,
    /// The first commits of the term (genesis, `WriterChanged`) are on their way; requests wait.
    Opening,
    /// Serving.
    Active,
    /// No new requests; what was accepted is finished.
    Draining,
    /// Nothing more, ever: the state in memory may be ahead of the log, so nobody is answered from it.
    Stopped(StopReason),
}

/// See the module. `T` is the caller's ticket: it comes in with a request and leaves with its reply.
pub struct Pipeline<T> {
    options: PipelineOptions,
    mode: Mode,
    /// Speculative: ahead of the log by the flight, the prepared commit and the draft.
    state: State,
    /// Acknowledged and in the archive tail.
    committed: Position,
    snapshot_at: u64,
    boot_commands: VecDeque<Command>,
    queue: VecDeque<Request<T>>,
    draft: Draft<T>,
    prepared: Option<Sealed<T>>,
    flight: Option<Flight<T>>,
    /// Acknowledged, waiting for the tail; in order.
    settling: VecDeque<Sealed<T>>,
    tail_pause: Option<u64>,
    ids: u64,
}

/// What became of a request that was looked at.
enum Taken<T> {
    /// It is answered, or waits with a commit.
    Yes,
    /// The draft has no room for its events; it must go into the next commit.
    Full(Request<T>),
    /// The machine stopped.
    Stopped,
}

impl<T> Pipeline<T> {
    /// A machine that waits for [`Input::Boot`].
    pub fn new(options: PipelineOptions) -> Self {
        let state = State::new(options.shard);
        Self {
            options,
            mode: Mode::Standby,
            committed: Position::default(),
            state,
            snapshot_at: 0,
            boot_commands: VecDeque::new(),
            queue: VecDeque::new(),
            draft: Draft::default(),
            prepared: None,
            flight: None,
            settling: VecDeque::new(),
            tail_pause: None,
            ids: 0,
        }
    }

    /// Takes one input and appends what is to be done, in order.
    pub fn step(&mut self, now_us: u64, input: Input<T>, out: &mut Vec<Effect<T>>) {
        match input {
            Input::Boot(boot) => self.boot(now_us, *boot, out),
            Input::Requests(requests) => self.accept(now_us, requests, out),
            Input::Published { attempt, result } => self.published(now_us, attempt, result, out),
            Input::ReadBack { attempt, result } => self.read_back(now_us, attempt, result, out),
            Input::TailWritten { number, result } => self.tail_written(now_us, number, result, out),
            Input::TailLost { reason } => {
                self.stop(StopReason::Broken(format!("the archive tail lost writes: {reason}")), out);
            }
            Input::Watched { position, result } => self.watched(position, result, out),
            Input::TimedOut { timer } => self.timed_out(now_us, timer, out),
            Input::Shutdown => self.shutdown(now_us, out),
            Input::Abandon => self.stop(StopReason::Abandoned, out),
        }
    }

    /// Acknowledged and in the archive tail.
    pub fn committed(&self) -> Position {
        self.committed
    }

    fn boot(&mut self, now_us: u64, boot: Boot, out: &mut Vec<Effect<T>>) {
        if self.mode != Mode::Standby {
            return;
        }
        let Boot { state, nonce, genesis } = boot;
        self.committed = Position::of(&state);
        self.snapshot_at = state.last_commit();
        self.state = state;
        let writer = |key, body| Command::new(key, Actor::Writer, body);
        if self.committed.commit == 0 {
            let Some(genesis) = genesis else {
                let why =
                    "the log is empty and no network was given to open it with: set JournalOptions.genesis";
                return self.stop(StopReason::Broken(why.into()), out);
            };
            let key = IdempotencyKey::internal("open network", &[&encode(&genesis)]);
            self.boot_commands.push_back(writer(key, CommandBody::OpenNetwork(genesis)));
        }
        let key = IdempotencyKey::internal("change writer", &[nonce.as_bytes()]);
        self.boot_commands.push_back(writer(key, CommandBody::ChangeWriter(ChangeWriter { nonce })));
        self.mode = Mode::Opening;
        self.pump(now_us, out);
    }

    fn accept(&mut self, now_us: u64, requests: Vec<Request<T>>, out: &mut Vec<Effect<T>>) {
        for request in requests {
            let reply = match &self.mode {
                Mode::Stopped(reason) => Some(Reply::Stopped(reason.clone())),
                Mode::Draining => Some(Reply::Stopped(StopReason::Closed)),
                Mode::Standby | Mode::Opening | Mode::Active => {
                    (self.queue.len() >= self.options.queue_requests_max).then_some(Reply::Overloaded)
                }
            };
            match reply {
                Some(reply) => out.push(Effect::Reply { ticket: request.into_ticket(), reply }),
                None => self.queue.push_back(request),
            }
        }
        self.pump(now_us, out);
    }

    /// Does whatever can be done now: publish what is prepared, decide what waits, prepare the next commit.
    fn pump(&mut self, now_us: u64, out: &mut Vec<Effect<T>>) {
        while self.flight.is_none() && self.settling.len() < SETTLING_COMMITS_MAX {
            if let Some(sealed) = self.prepared.take() {
                self.launch(sealed, out);
                break;
            }
            match self.mode {
                Mode::Standby | Mode::Stopped(_) => return,
                Mode::Opening => {
                    if !self.open_next(now_us, out) {
                        return;
                    }
                    continue;
                }
                Mode::Active | Mode::Draining => {}
            }
            if self.snapshot_due() {
                self.snapshot(out);
            }
            self.fill(now_us, out);
            if self.draft.is_empty() {
                return self.finish_draining(out);
            }
            let Some(sealed) = self.seal(now_us, out) else { return };
            self.launch(sealed, out);
        }
        self.prepare(now_us, out);
    }

    /// Prepares the next commit while one is in flight; not when a snapshot is due, which needs a state that is
    /// exactly the log's.
    fn prepare(&mut self, now_us: u64, out: &mut Vec<Effect<T>>) {
        let serving = matches!(self.mode, Mode::Active | Mode::Draining);
        let waiting = self.queue.len() >= self.options.prepare_requests_min;
        if !serving || !waiting || self.prepared.is_some() || self.flight.is_none() || self.snapshot_due() {
            return;
        }
        self.fill(now_us, out);
        if self.draft.full {
            self.prepared = self.seal(now_us, out);
        }
    }

    /// The term's next opening commit; false when there is nothing to do before an acknowledgement.
    fn open_next(&mut self, now_us: u64, out: &mut Vec<Effect<T>>) -> bool {
        let Some(command) = self.boot_commands.pop_front() else {
            if !self.settling.is_empty() {
                return false;
            }
            self.mode = Mode::Active;
            out.push(Effect::Led { epoch: self.state.writer_epoch() });
            return true;
        };
        let events = match ledger::decide(&self.state, &command, now_us) {
            Ok(Decision::New(events)) => events,
            // An earlier term's own genesis: it stands in the log already.
            Ok(Decision::Repeated { .. }) => return true,
            Err(refusal) => {
                let why = format!("the ledger refused to begin this term: {refusal}");
                self.stop(StopReason::Broken(why), out);
                return false;
            }
        };
        let fits = encode_all(&events).and_then(|encoded| self.apply_all(&events, encoded));
        if let Err(why) = fits {
            self.stop(StopReason::Broken(why), out);
            return false;
        }
        let Some(sealed) = self.seal(now_us, out) else { return false };
        self.launch(sealed, out);
        false
    }

    /// Decides what waits, until the queue is empty or the draft is full.
    fn fill(&mut self, now_us: u64, out: &mut Vec<Effect<T>>) {
        while !self.draft.full
            && let Some(request) = self.queue.pop_front()
        {
            match self.take(now_us, request, out) {
                Taken::Yes => {}
                Taken::Full(request) => {
                    self.queue.push_front(request);
                    self.draft.full = true;
                }
                Taken::Stopped => return,
            }
        }
    }

    fn take(&mut self, now_us: u64, request: Request<T>, out: &mut Vec<Effect<T>>) -> Taken<T> {
        let (ticket, command) = match request {
            Request::Command { ticket, command } => (ticket, command),
            Request::Read { ticket, query } => {
                let reply = Reply::Answer(query.ask(&self.state));
                self.wait(Waiting::Other { ticket, reply }, out);
                return Taken::Yes;
            }
        };
        let reply = match ledger::decide(&self.state, &command, now_us) {
            Ok(Decision::New(events)) => return self.take_events(ticket, command, events, out),
            Ok(Decision::Repeated { commit, first_leaf, count }) => {
                Reply::Repeated { commit, first_leaf, count }
            }
            Err(refusal) => Reply::Refused { refusal, at_leaf: self.state.next_leaf() },
        };
        self.wait(Waiting::Other { ticket, reply }, out);
        Taken::Yes
    }

    fn take_events(
        &mut self,
        ticket: T,
        command: Box<Command>,
        events: Vec<Event>,
        out: &mut Vec<Effect<T>>,
    ) -> Taken<T> {
        let encoded = match encode_all(&events) {
            Ok(encoded) => encoded,
            Err(why) => {
                self.wait(Waiting::Other { ticket, reply: Reply::TooLarge(why) }, out);
                return Taken::Yes;
            }
        };
        if !self.draft.fits(&encoded) {
            if !self.draft.is_empty() {
                return Taken::Full(Request::Command { ticket, command });
            }
            let why = format!(
                "the command makes {} events of {} bytes; one commit takes {COMMIT_EVENTS_MAX} events and \
                 {COMMIT_BYTES_MAX} bytes: ask for less at once",
                events.len(),
                encoded.iter().map(|e| e.len()).sum::<usize>()
            );
            self.wait(Waiting::Other { ticket, reply: Reply::TooLarge(why) }, out);
            return Taken::Yes;
        }
        let first_leaf = self.state.next_leaf();
        if let Err(why) = self.apply_all(&events, encoded) {
            self.queue.push_front(Request::Command { ticket, command });
            self.stop(StopReason::Broken(why), out);
            return Taken::Stopped;
        }
        self.wait(Waiting::Done { ticket, first_leaf, events }, out);
        Taken::Yes
    }

    /// Folds a command's events into the speculative state and the draft.
    fn apply_all(&mut self, events: &[Event], encoded: Vec<ByteVec>) -> Result<(), String> {
        if self.draft.is_empty() {
            self.draft.first_leaf = self.state.next_leaf();
        }
        for event in events {
            ledger::apply(&mut self.state, event)
                .map_err(|e| format!("the ledger cannot apply an event it just decided (a bug): {e}"))?;
            self.draft.time_us = self.draft.time_us.max(event.header.time_us);
        }
        self.draft.push(encoded);
        Ok(())
    }

    /// Closes the draft: number, time, chain hash. The speculative state moves to the next commit.
    fn seal(&mut self, now_us: u64, out: &mut Vec<Effect<T>>) -> Option<Sealed<T>> {
        let draft = std::mem::take(&mut self.draft);
        let leaves = draft.events.len() as u64;
        let commit = Commit {
            version: COMMIT_VERSION,
            shard: self.options.shard,
            writer_epoch: self.state.writer_epoch(),
            number: self.state.last_commit() + 1,
            first_leaf: draft.first_leaf,
            time_us: now_us.max(draft.time_us).max(self.state.last_time_us()),
            previous: self.state.last_commit_hash(),
            events: draft.events,
        };
        let bytes = Bytes::from(encode(&commit));
        let hash = Commit::hash(&bytes);
        if let Err(e) = ledger::end_commit(&mut self.state, commit.number, hash, commit.time_us) {
            let why = format!("the ledger cannot end the commit it just decided (a bug): {e}");
            self.refuse_waiting(draft.waiting, &StopReason::Broken(why.clone()), out);
            self.stop(StopReason::Broken(why), out);
            return None;
        }
        let position = Position {
            commit: commit.number,
            leaf: commit.first_leaf + leaves,
            hash,
            time_us: commit.time_us,
        };
        Some(Sealed { position, first_leaf: commit.first_leaf, bytes, waiting: draft.waiting })
    }

    /// Attaches an answer to the last commit that it may depend on; with none outstanding it leaves at once.
    fn wait(&mut self, waiting: Waiting<T>, out: &mut Vec<Effect<T>>) {
        let carrier = if !self.draft.is_empty() {
            &mut self.draft.waiting
        } else if let Some(sealed) = &mut self.prepared {
            &mut sealed.waiting
        } else if let Some(flight) = &mut self.flight {
            &mut flight.sealed.waiting
        } else if let Some(sealed) = self.settling.back_mut() {
            &mut sealed.waiting
        } else {
            return out.push(waiting.leave(&self.committed));
        };
        carrier.push(waiting);
    }

    /// The tail answered for a commit; synced n means all before it.
    fn tail_written(
        &mut self,
        now_us: u64,
        number: u64,
        result: Result<(), String>,
        out: &mut Vec<Effect<T>>,
    ) {
        if let Err(reason) = result {
            let waiting = self.settling.iter().any(|sealed| sealed.position.commit == number);
            if waiting && self.tail_pause.is_none() {
                let timer = self.next_id();
                self.tail_pause = Some(timer);
                out.push(Effect::Warn(format!(
                    "the archive tail refused commit {number}: {reason}; retrying"
                )));
                out.push(Effect::Timer { timer, after_us: TAIL_PAUSE_US });
            }
            return;
        }
        while let Some(sealed) = self.settling.front()
            && sealed.position.commit <= number
        {
            let Some(sealed) = self.settling.pop_front() else { break };
            self.committed = sealed.position;
            out.push(Effect::Committed {
                position: sealed.position,
                first_leaf: sealed.first_leaf,
                bytes: sealed.bytes,
            });
            out.extend(sealed.waiting.into_iter().map(|waiting| waiting.leave(&sealed.position)));
        }
        self.pump(now_us, out);
    }

    fn tail_append(&self, sealed: &Sealed<T>, out: &mut Vec<Effect<T>>) {
        out.push(Effect::TailAppend { position: sealed.position, bytes: sealed.bytes.clone() });
    }

    fn snapshot_due(&self) -> bool {
        let every = self.options.snapshot_commits;
        every > 0 && self.state.last_commit().saturating_sub(self.snapshot_at) >= every
    }

    /// Only while nothing is speculative.
    fn snapshot(&mut self, out: &mut Vec<Effect<T>>) {
        let certain = self.draft.is_empty() && self.prepared.is_none() && self.flight.is_none();
        assert!(certain, "a snapshot of what is not in the log would outlive it");
        self.snapshot_at = self.state.last_commit();
        out.push(Effect::Snapshot(Box::new(self.state.clone())));
    }

    fn shutdown(&mut self, now_us: u64, out: &mut Vec<Effect<T>>) {
        match self.mode {
            Mode::Standby => return self.stop(StopReason::Closed, out),
            // Nothing was accepted before the term began.
            Mode::Opening => {
                self.boot_commands.clear();
                self.refuse_queue(&StopReason::Closed, out);
            }
            Mode::Active | Mode::Draining | Mode::Stopped(_) => {}
        }
        if !matches!(self.mode, Mode::Stopped(_)) {
            self.mode = Mode::Draining;
        }
        self.pump(now_us, out);
    }

    /// With nothing left to do, a machine that drains takes its last snapshot and stops.
    fn finish_draining(&mut self, out: &mut Vec<Effect<T>>) {
        let idle = self.queue.is_empty() && self.settling.is_empty() && self.flight.is_none();
        if self.mode != Mode::Draining || !idle {
            return;
        }
        if self.state.last_commit() > self.snapshot_at {
            self.snapshot(out);
        }
        self.stop(StopReason::Closed, out);
    }

    /// The end. What was published may stand in the log: unknown. What was not cannot: stopped.
    fn stop(&mut self, reason: StopReason, out: &mut Vec<Effect<T>>) {
        if matches!(self.mode, Mode::Stopped(_)) {
            return;
        }
        self.mode = Mode::Stopped(reason.clone());
        // First, so that who is answered can see why.
        out.push(Effect::Stop(reason.clone()));
        let flight = self.flight.take().map(|flight| flight.sealed);
        for sealed in std::mem::take(&mut self.settling).into_iter().chain(flight) {
            for waiting in sealed.waiting {
                out.push(waiting.leave_unknown(&reason));
            }
        }
        let prepared = self.prepared.take().map_or_else(Vec::new, |sealed| sealed.waiting);
        self.refuse_waiting(prepared, &reason, out);
        let draft = std::mem::take(&mut self.draft).waiting;
        self.refuse_waiting(draft, &reason, out);
        self.refuse_queue(&reason, out);
        // The speculative state is thrown away, so that nothing can be answered from it.
        self.state = State::new(self.options.shard);
    }

    fn refuse_waiting(&mut self, waiting: Vec<Waiting<T>>, reason: &StopReason, out: &mut Vec<Effect<T>>) {
        for ticket in waiting.into_iter().map(Waiting::into_ticket) {
            out.push(Effect::Reply { ticket, reply: Reply::Stopped(reason.clone()) });
        }
    }

    fn refuse_queue(&mut self, reason: &StopReason, out: &mut Vec<Effect<T>>) {
        for request in std::mem::take(&mut self.queue) {
            out.push(Effect::Reply { ticket: request.into_ticket(), reply: Reply::Stopped(reason.clone()) });
        }
    }

    fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }
}

fn encode_all(events: &[Event]) -> Result<Vec<ByteVec>, String> {
    let encoded = events.iter().map(|event| encode_event(event).map(ByteVec::from));
    encoded.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())
}
