//! The writer's state machine: inputs in, effects out. One commit in flight, the next one prepared meanwhile; replies
//! leave in order, after the log's acknowledgement and the archive tail. Total: every input is allowed in every mode.
//! Must not: I/O, clocks, randomness, threads (the simulation drives this very code; `writer.rs` drives it for real).

mod batch;
mod gather;
mod input;
mod mutant;
pub mod opening;
mod recovery;
#[cfg(test)]
mod tests;

pub use batch::Sealed;
pub use gather::GATHER_US;
pub use input::{
    Answer, AnswerWith, Boot, Each, Effect, Input, Outcome, Placed, Position, Published, Query, ReadBack,
    Reply, Request, StopReason, TailRefusal,
};

#[cfg(feature = "mutants")]
pub use mutant::Mutant;

#[cfg(not(feature = "mutants"))]
use mutant::Mutant;

use batch::{CommitFields, Draft, OpenBatch, Unfit, Waiting};
use gather::Gathering;
use ledger::command::{ChangeWriter, Command, CommandBody};
use ledger::{Decided, Refusal, State};
use protocol::codec::encode;
use protocol::commit::Commit;
use protocol::event::{Actor, Event};
use protocol::id::{Hash32, IdempotencyKey};
use recovery::Flight;
use std::collections::VecDeque;

/// Commands (and reads) that may wait to be decided; one more is answered [`Reply::Overloaded`].
pub const QUEUE_REQUESTS_MAX: usize = 65_536;
/// While a commit is in flight the next one is prepared only when this many requests wait: with fewer, preparing would
/// split them over two commits and cost more than it saves (measured: 32 clients 50 k/s against 71 k/s).
pub const PREPARE_REQUESTS_MIN: usize = 512;
/// While the log is idle, what waits is sent after this many were decided; the rest is decided during that flight.
pub const LAUNCH_COMMANDS_MAX: usize = 1024;
/// Decided in one [`Input::Prepare`]: an acknowledgement waits no longer than these take.
pub const PREPARE_COMMANDS_MAX: usize = 256;
/// So many commands are looked ahead at before they are decided.
const LOOK_AHEAD_COMMANDS: usize = 256;
/// With fewer waiting it does not pay.
const LOOK_AHEAD_MIN: usize = 16;
/// Acknowledged commits that may wait for the archive tail; with more the writer publishes nothing.
pub const SETTLING_COMMITS_MAX: usize = 8;
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
    /// See [`LAUNCH_COMMANDS_MAX`].
    pub launch_commands_max: usize,
    /// See [`GATHER_US`]; 0 = never.
    pub gather_us: u64,
    /// The mistake to make.
    #[cfg(feature = "mutants")]
    pub mutant: Option<Mutant>,
}

impl PipelineOptions {
    /// The figures above.
    pub fn new(shard: u32) -> Self {
        Self {
            shard,
            queue_requests_max: QUEUE_REQUESTS_MAX,
            prepare_requests_min: PREPARE_REQUESTS_MIN,
            launch_commands_max: LAUNCH_COMMANDS_MAX,
            gather_us: GATHER_US,
            #[cfg(feature = "mutants")]
            mutant: None,
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
    boot_commands: VecDeque<Command>,
    queue: VecDeque<Queued<T>>,
    /// Commands and reads in it.
    queued: usize,
    /// One command's events; kept for its memory.
    events: Vec<Event>,
    draft: Draft<T>,
    prepared: Option<Sealed<T>>,
    flight: Option<Flight<T>>,
    /// Acknowledged, waiting for the tail; in order.
    settling: VecDeque<Sealed<T>>,
    tail_pause: Option<u64>,
    gathering: Gathering,
    ids: u64,
}

/// What waits to be decided.
enum Queued<T> {
    Command { ticket: T, command: Box<Command>, answer: AnswerWith },
    Batch(Box<OpenBatch<T>>),
    Read { ticket: T, query: Query },
}

/// What a command became that was looked at.
enum Verdict {
    /// Its events stand in the draft, applied.
    New { first_leaf: u64, count: u32 },
    /// Its key was used before, for the same.
    Repeated { commit: u64, first_leaf: u64, count: u32 },
    /// The ledger said no.
    Refused { refusal: Refusal, at_leaf: u64 },
    /// No commit could carry it.
    TooLarge(String),
    /// The draft has no room for its events; it must go into the next commit.
    Full,
    /// A bug.
    Broken(String),
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
            boot_commands: VecDeque::new(),
            queue: VecDeque::new(),
            queued: 0,
            events: Vec::new(),
            draft: Draft::default(),
            prepared: None,
            flight: None,
            settling: VecDeque::new(),
            tail_pause: None,
            gathering: Gathering::default(),
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
            Input::Prepare => self.prepare(now_us, out),
            Input::Shutdown => self.shutdown(now_us, out),
            Input::Abandon => self.stop(StopReason::Abandoned, out),
            Input::Stop(reason) => self.stop(*reason, out),
        }
    }

    /// Acknowledged and in the archive tail.
    pub fn committed(&self) -> Position {
        self.committed
    }

    /// Whether [`Input::Prepare`] would do something: the driver sends it when it has nothing else to do, so that what
    /// is to be published leaves before the next commit is decided.
    pub fn may_prepare(&self) -> bool {
        matches!(self.mode, Mode::Active | Mode::Draining)
            && self.flight.is_some()
            && self.prepared.is_none()
            && self.queued > 0
            && self.queued + self.draft.len() >= self.options.prepare_requests_min
    }

    /// Whether a timer still matters.
    pub fn awaits(&self, timer: u64) -> bool {
        self.tail_pause == Some(timer)
            || self.gathering.awaits(timer)
            || self.flight.as_ref().is_some_and(|flight| flight.awaits(timer))
    }

    fn boot(&mut self, now_us: u64, boot: Boot, out: &mut Vec<Effect<T>>) {
        if self.mode != Mode::Standby {
            return;
        }
        let Boot { state, nonce, genesis } = boot;
        let nonce = if self.is(Mutant::NoNonce) { Hash32([0; 32]) } else { nonce };
        self.committed = Position::of(&state);
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
            let weight = request.weight();
            let reply = match &self.mode {
                Mode::Stopped(reason) => Some(Reply::Stopped(reason.clone())),
                Mode::Draining => Some(Reply::Stopped(StopReason::Closed)),
                Mode::Standby | Mode::Opening | Mode::Active => {
                    (self.queued + weight > self.options.queue_requests_max).then_some(Reply::Overloaded)
                }
            };
            if let Some(reply) = reply {
                out.push(Effect::Reply { ticket: request.into_ticket(), reply });
                continue;
            }
            self.queued += weight;
            self.queue.push_back(match request {
                Request::Command { ticket, command, answer } => Queued::Command { ticket, command, answer },
                Request::Batch { ticket, commands } => Queued::Batch(OpenBatch::new(ticket, commands)),
                Request::Read { ticket, query } => Queued::Read { ticket, query },
            });
        }
        self.gathering.look(self.queued);
        self.pump(now_us, out);
    }

    /// Does what the log's idleness asks for: publish what is prepared, or decide a part of what waits and publish that.
    fn pump(&mut self, now_us: u64, out: &mut Vec<Effect<T>>) {
        while self.flight.is_none() && self.settling.len() < SETTLING_COMMITS_MAX && self.gathering.is_over()
        {
            if let Some(sealed) = self.prepared.take() {
                return self.launch(sealed, out);
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
            // What was prepared in part goes at once; else a part of what waits.
            if self.draft.len() < self.options.prepare_requests_min {
                self.fill(now_us, self.options.launch_commands_max, out);
            }
            if self.draft.is_empty() {
                if self.queue.is_empty() {
                    return self.finish_draining(out);
                }
                continue;
            }
            let Some(sealed) = self.seal(now_us, out) else { return };
            self.launch(sealed, out);
        }
    }

    /// Decides a part of the next commit while one is in flight.
    fn prepare(&mut self, now_us: u64, out: &mut Vec<Effect<T>>) {
        if !self.may_prepare() {
            return;
        }
        self.fill(now_us, PREPARE_COMMANDS_MAX, out);
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
        let why = match self.decide(now_us, &command) {
            Verdict::New { .. } => None,
            // An earlier term's own genesis: it stands in the log already.
            Verdict::Repeated { .. } => return true,
            Verdict::Refused { refusal, .. } => {
                Some(format!("the ledger refused to begin this term: {refusal}"))
            }
            Verdict::Full => unreachable!("the first command of a draft fits, or fits into none"),
            Verdict::TooLarge(why) | Verdict::Broken(why) => Some(why),
        };
        if let Some(why) = why {
            self.stop(StopReason::Broken(why), out);
            return false;
        }
        let Some(sealed) = self.seal(now_us, out) else { return false };
        self.launch(sealed, out);
        false
    }

    /// Decides what waits, until the queue is empty, the draft is full, or `commands_max` were decided.
    fn fill(&mut self, now_us: u64, commands_max: usize, out: &mut Vec<Effect<T>>) {
        let (mut left, mut seen) = (commands_max, 0);
        while left > 0 && !self.draft.full {
            if seen == 0 {
                seen = left.min(LOOK_AHEAD_COMMANDS);
                self.look_ahead(seen);
            }
            let Some(queued) = self.queue.pop_front() else { return };
            let taken = match queued {
                Queued::Command { ticket, command, answer } => {
                    self.take_command(now_us, ticket, command, answer, out);
                    1
                }
                Queued::Batch(batch) => self.take_batch(now_us, batch, seen, out),
                Queued::Read { ticket, query } => {
                    self.queued -= 1;
                    let reply = Reply::Answer(query.ask(&self.state));
                    self.wait(Waiting::Other { ticket, reply }, out);
                    1
                }
            };
            (left, seen) = (left - taken, seen - taken);
            if matches!(self.mode, Mode::Stopped(_)) {
                return;
            }
        }
    }

    /// Has the ledger read what the next commands will need, so that they do not wait for memory one after the other.
    fn look_ahead(&self, commands_max: usize) {
        if self.queued < LOOK_AHEAD_MIN {
            return;
        }
        let commands = self.queue.iter().flat_map(|queued| match queued {
            Queued::Command { command, .. } => std::slice::from_ref(&**command),
            Queued::Batch(batch) => batch.rest(),
            Queued::Read { .. } => &[],
        });
        ledger::look_ahead(&self.state, commands.take(commands_max));
    }

    fn take_command(
        &mut self,
        now_us: u64,
        ticket: T,
        command: Box<Command>,
        answer: AnswerWith,
        out: &mut Vec<Effect<T>>,
    ) {
        let reply = match self.decide(now_us, &command) {
            Verdict::New { first_leaf, count } => {
                self.queued -= 1;
                let waiting = match answer {
                    AnswerWith::Events => {
                        Waiting::Done { ticket, first_leaf, events: std::mem::take(&mut self.events) }
                    }
                    AnswerWith::Place => Waiting::Placed { ticket, first_leaf, count },
                };
                return self.wait(waiting, out);
            }
            Verdict::Full => {
                self.draft.full = true;
                return self.queue.push_front(Queued::Command { ticket, command, answer });
            }
            Verdict::Broken(why) => {
                self.queue.push_front(Queued::Command { ticket, command, answer });
                return self.stop(StopReason::Broken(why), out);
            }
            Verdict::Repeated { commit, first_leaf, count } => Reply::Repeated { commit, first_leaf, count },
            Verdict::Refused { refusal, at_leaf } => Reply::Refused { refusal, at_leaf },
            Verdict::TooLarge(why) => Reply::TooLarge(why),
        };
        self.queued -= 1;
        self.wait(Waiting::Other { ticket, reply }, out);
    }

    /// Decides up to `commands_max` of a batch; says how many. What is left goes back to the queue's front.
    fn take_batch(
        &mut self,
        now_us: u64,
        mut batch: Box<OpenBatch<T>>,
        commands_max: usize,
        out: &mut Vec<Effect<T>>,
    ) -> usize {
        let mut taken = 0;
        while let Some(command) = batch.next() {
            if taken == commands_max {
                self.queue.push_front(Queued::Batch(batch));
                return taken;
            }
            let each = match self.decide(now_us, command) {
                Verdict::New { first_leaf, count } => {
                    // Hash and time follow when the commit is sealed.
                    let position = Position { commit: self.state.last_commit() + 1, ..Position::default() };
                    Each::Placed(Placed::new(&position, first_leaf, count))
                }
                Verdict::Repeated { commit, first_leaf, count } => {
                    Each::Repeated { commit, first_leaf, count }
                }
                Verdict::Refused { refusal, at_leaf } => Each::Refused { refusal, at_leaf },
                Verdict::TooLarge(why) => Each::TooLarge(why),
                Verdict::Full => {
                    self.draft.full = true;
                    self.queue.push_front(Queued::Batch(batch));
                    return taken;
                }
                Verdict::Broken(why) => {
                    self.queue.push_front(Queued::Batch(batch));
                    self.stop(StopReason::Broken(why), out);
                    return taken;
                }
            };
            self.queued -= 1;
            taken += 1;
            batch.results.push(each);
        }
        self.wait(Waiting::Batch(batch), out);
        taken
    }

    /// Decides one command; new events go into the draft and into the state, and stay in `events`.
    fn decide(&mut self, now_us: u64, command: &Command) -> Verdict {
        self.events.clear();
        let forgets = self.is(Mutant::ForgetIdempotency) && command.actor != Actor::Writer;
        let forgotten = forgets.then(|| self.under_new_key(command));
        let command = forgotten.as_ref().unwrap_or(command);
        match ledger::decide_into(&self.state, command, now_us, &mut self.events) {
            Ok(Decided::New) => {}
            Ok(Decided::Repeated { commit, first_leaf, count }) => {
                return Verdict::Repeated { commit, first_leaf, count };
            }
            Err(refusal) => return Verdict::Refused { refusal, at_leaf: self.state.next_leaf() },
        }
        let first_leaf = self.state.next_leaf();
        if self.draft.is_empty() {
            self.draft.first_leaf = first_leaf;
        }
        let backwards = self.is(Mutant::ApplyOutOfOrder);
        if backwards {
            self.events.reverse();
        }
        match self.draft.append(&self.events) {
            Ok(()) => {}
            Err(Unfit::Full) => return Verdict::Full,
            Err(Unfit::TooLarge(why)) => return Verdict::TooLarge(why),
        }
        if backwards {
            self.events.reverse();
        }
        for event in &self.events {
            if let Err(e) = ledger::apply(&mut self.state, event) {
                let why = format!("the ledger cannot apply an event it just decided (a bug): {e}");
                return Verdict::Broken(why);
            }
            self.draft.time_us = self.draft.time_us.max(event.header.time_us);
        }
        Verdict::New { first_leaf, count: self.events.len() as u32 }
    }

    /// Only for a mutant: the same command as if it had never been seen.
    fn under_new_key(&mut self, command: &Command) -> Command {
        let key = IdempotencyKey::internal("forgotten", &[&self.next_id().to_be_bytes()]);
        Command { key, ..command.clone() }
    }

    /// Closes the draft: number, time, chain hash. The speculative state moves to the next commit.
    fn seal(&mut self, now_us: u64, out: &mut Vec<Effect<T>>) -> Option<Sealed<T>> {
        let clamped_us = now_us.max(self.draft.time_us).max(self.state.last_time_us());
        let fields = CommitFields {
            shard: self.options.shard,
            writer_epoch: self.state.writer_epoch(),
            number: self.state.last_commit() + 1,
            time_us: if self.is(Mutant::ClockNotClamped) { now_us } else { clamped_us },
            previous: self.state.last_commit_hash(),
        };
        let first_leaf = self.draft.first_leaf;
        let leaf = first_leaf + self.draft.len() as u64;
        let (bytes, waiting) = self.draft.seal(&fields);
        let CommitFields { number, time_us, .. } = fields;
        let hash = Commit::hash(&bytes);
        let position = Position { commit: number, leaf, hash, time_us };
        if let Err(e) = ledger::end_commit(&mut self.state, number, hash, time_us) {
            let why = format!("the ledger cannot end the commit it just decided (a bug): {e}");
            self.prepared = Some(Sealed { position, first_leaf, bytes, waiting });
            self.stop(StopReason::Broken(why), out);
            return None;
        }
        // A batch that goes on in the next commit.
        let forgets = self.is(Mutant::BatchForgetsPlace);
        if let Some(Queued::Batch(batch)) = self.queue.front_mut()
            && !forgets
        {
            batch.place(&position);
        }
        Some(Sealed { position, first_leaf, bytes, waiting })
    }

    /// Attaches an answer to the last commit that it may depend on; with none outstanding it leaves at once.
    fn wait(&mut self, waiting: Waiting<T>, out: &mut Vec<Effect<T>>) {
        let at_once = match &waiting {
            Waiting::Other { reply: Reply::Refused { .. }, .. } => self.is(Mutant::RefusalAtOnce),
            Waiting::Other { reply: Reply::Repeated { .. }, .. } => self.is(Mutant::RepeatAtOnce),
            Waiting::Other { reply: Reply::Answer(_), .. } => self.is(Mutant::ReadAtOnce),
            _ => false,
        };
        if at_once {
            return out.push(waiting.leave(&self.committed));
        }
        let carrier = if !self.draft.is_empty() {
            return self.draft.wait(waiting);
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
        result: Result<(), TailRefusal>,
        out: &mut Vec<Effect<T>>,
    ) {
        match result {
            Ok(()) => {}
            // The tail takes commits in order: behind one that it refused a gap says nothing new.
            Err(TailRefusal::Broken(reason)) if !self.settles_first(number) => {
                return self.retry_tail(number, &reason, out);
            }
            Err(TailRefusal::Broken(reason)) => {
                let why = format!(
                    "{reason}; the archive was altered or is another log's: `counterfoil restore` puts them right"
                );
                return self.stop(StopReason::Broken(why), out);
            }
            Err(TailRefusal::Retry(reason)) => return self.retry_tail(number, &reason, out),
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
            let mut waiting = sealed.waiting;
            if self.is(Mutant::ReplyOutOfOrder) {
                waiting.reverse();
            }
            out.extend(waiting.into_iter().map(|waiting| waiting.leave(&sealed.position)));
        }
        self.pump(now_us, out);
    }

    fn settles_first(&self, number: u64) -> bool {
        self.settling.front().is_some_and(|sealed| sealed.position.commit == number)
    }

    fn retry_tail(&mut self, number: u64, reason: &str, out: &mut Vec<Effect<T>>) {
        let waiting = self.settling.iter().any(|sealed| sealed.position.commit == number);
        if waiting && self.tail_pause.is_none() {
            let timer = self.next_id();
            self.tail_pause = Some(timer);
            out.push(Effect::Warn(format!("the archive tail refused commit {number}: {reason}; retrying")));
            out.push(Effect::Timer { timer, after_us: TAIL_PAUSE_US });
        }
    }

    fn tail_append(&self, sealed: &Sealed<T>, out: &mut Vec<Effect<T>>) {
        out.push(Effect::TailAppend { position: sealed.position, bytes: sealed.bytes.clone() });
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
        self.gathering.end();
        self.pump(now_us, out);
    }

    /// With nothing left to do, a machine that drains stops.
    fn finish_draining(&mut self, out: &mut Vec<Effect<T>>) {
        let idle = self.queue.is_empty() && self.settling.is_empty() && self.flight.is_none();
        if self.mode != Mode::Draining || !idle {
            return;
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
                let unsent = self.is(Mutant::FlightAsStopped);
                out.push(if unsent { waiting.leave_unsent(&reason) } else { waiting.leave_unknown(&reason) });
            }
        }
        let prepared = self.prepared.take().map_or_else(Vec::new, |sealed| sealed.waiting);
        let draft = std::mem::take(&mut self.draft).waiting;
        out.extend(prepared.into_iter().chain(draft).map(|waiting| waiting.leave_unsent(&reason)));
        self.refuse_queue(&reason, out);
        // The speculative state is thrown away, so that nothing can be answered from it.
        self.state = State::new(self.options.shard);
        self.events = Vec::new();
    }

    fn refuse_queue(&mut self, reason: &StopReason, out: &mut Vec<Effect<T>>) {
        self.queued = 0;
        for queued in std::mem::take(&mut self.queue) {
            let ticket = match queued {
                Queued::Command { ticket, .. } | Queued::Read { ticket, .. } => ticket,
                Queued::Batch(batch) => {
                    out.push(batch.leave_unfinished(reason));
                    continue;
                }
            };
            out.push(Effect::Reply { ticket, reply: Reply::Stopped(reason.clone()) });
        }
    }

    fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }
}
