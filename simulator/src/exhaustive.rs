//! Every history within small bounds: the writer's own pipeline, at most two writers, two customers who fight over a balance
//! worth one, and so many faults, crashes and takeovers. Breadth first, so that what breaks a promise comes out as the
//! shortest history that does. Must not: chance; state that is not in the digest.
//!
//! A pipeline is a function of what it was told, so two histories that told every writer the same, and left the same log,
//! archive and messages on their way, are one state. Time stands still here: what depends on clocks is the simulation's.

use crate::checker::{Checker, Moment, Rot, Violation};
use crate::clients::{Client, Wish, account, admit, grant};
use crate::log::Log;
use crate::mutants::Mistake;
use crate::random::Random;
use crate::tail::Tail;
use crate::writers::{Bounds as Queues, Writer};
use bytes::Bytes;
use journal::pipeline::{AnswerWith, Effect, Input, Position, Published, Request, StopReason};
use journal::reader::ChainCheck;
use journal::tail::CommitHead;
use ledger::command::OpenAccount;
use ledger::{Command, CommandBody, State};
use protocol::event::Actor;
use protocol::id::{Hash32, IdempotencyKey, JobId};
use std::collections::hash_map::DefaultHasher;
use std::collections::{HashSet, VecDeque};
use std::hash::{Hash, Hasher};

/// The clock stands here.
const NOW_US: u64 = 5_000_000;
const QUEUES: Queues = Queues { queue_requests_max: 100, prepare_requests_min: 2, launch_commands_max: 4 };

/// How much may happen.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Writers that start after the first.
    pub takeovers: u8,
    /// Processes that die.
    pub crashes: u8,
    /// Messages that are lost, late, or whose acknowledgement is lost.
    pub faults: u8,
    /// Time-outs that fire.
    pub timeouts: u8,
    /// Commands of customers, at most three.
    pub commands: usize,
    /// States after which the search gives up, so that a broken variant ends.
    pub states_max: usize,
}

/// What a search found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// Steps from one to another.
    pub steps: usize,
    /// The longest history.
    pub depth: usize,
    /// Every state within the bounds was seen.
    pub complete: bool,
    /// The first broken promise, and the shortest history that leads there.
    pub broken: Option<(Violation, Vec<Step>)>,
}

/// One thing that happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Step {
    /// A customer's command reaches a writer.
    Send {
        /// Which command.
        command: u8,
        /// Which writer.
        writer: u8,
    },
    /// A publish reaches the log.
    Land(u8),
    /// Its acknowledgement, or its refusal, reaches the writer.
    Hear(u8),
    /// Fault: it does not; the writer learns that it does not know.
    LoseAnswer(u8),
    /// Fault: the publish never arrives.
    LosePublish(u8),
    /// Fault: the writer is told that nobody knows, and the publish is still on its way.
    Delay(u8),
    /// It arrives after all.
    LandLate(u8),
    /// The log answers a read.
    Read(u8),
    /// The writer's oldest timer fires.
    TimeOut(u8),
    /// Another process reads the log and begins a term.
    Start,
    /// A process dies.
    Crash(u8),
}

/// Searches everything within the bounds.
pub fn explore(bounds: Bounds, mistake: Option<Mistake>) -> Explored {
    let ground = Ground::new();
    let mut seen = HashSet::new();
    let mut waiting: VecDeque<Vec<Step>> = VecDeque::from([Vec::new()]);
    let mut explored = Explored { states: 0, steps: 0, depth: 0, complete: true, broken: None };
    while let Some(path) = waiting.pop_front() {
        let mut world = World::new(&ground, bounds, mistake);
        explored.steps += 1;
        if let Err(violation) = world.replay(&path) {
            explored.broken = Some((violation, path));
            explored.complete = false;
            return explored;
        }
        if !seen.insert(world.digest()) {
            continue;
        }
        explored.states = seen.len();
        explored.depth = explored.depth.max(path.len());
        if explored.states >= bounds.states_max {
            explored.complete = false;
            return explored;
        }
        let enabled = world.enabled();
        if !world.changed {
            waiting.extend(enabled.into_iter().map(|step| longer(&path, step)));
            continue;
        }
        if let Err(violation) = world.judge() {
            explored.broken = Some((violation, path));
            explored.complete = false;
            return explored;
        }
        waiting.extend(enabled.into_iter().map(|step| longer(&path, step)));
    }
    explored
}

fn longer(path: &[Step], step: Step) -> Vec<Step> {
    let mut longer = Vec::with_capacity(path.len() + 1);
    longer.extend_from_slice(path);
    longer.push(step);
    longer
}

/// The log that every history begins on: a network, an account with credit for one job, nobody who leads.
struct Ground {
    messages: Vec<Bytes>,
    state: State,
    chain: ChainCheck,
}

impl Ground {
    fn new() -> Ground {
        let mut world = World::empty(
            Bounds { takeovers: 0, crashes: 0, faults: 0, timeouts: 0, commands: 3, states_max: 0 },
            None,
        );
        world.start(State::new(0), Position::default()).expect("nothing is broken yet");
        world.calm();
        let mut client = Client::new(0);
        client.choose(&mut Random::new(0), NOW_US);
        let Some(Wish::Many(mut commands)) = client.wish.take() else {
            unreachable!("the first wish of client 0 sets the network up")
        };
        let command = |name: &str, body: CommandBody| {
            Command::new(IdempotencyKey::internal("exhaustive", &[name.as_bytes()]), Actor::Admin, body)
        };
        commands.push(command("account", OpenAccount { account: account(0) }.into()));
        // A job holds 1100: enough for one, not for two.
        commands.push(command("credit", grant(account(0), 2_000).into()));
        world.submit(0, &commands).expect("nothing is broken yet");
        world.calm();
        let messages: Vec<Bytes> = world.log.whole().map(|message| message.bytes.clone()).collect();
        let mut state = State::new(0);
        let mut chain = ChainCheck::new(0, 1);
        for bytes in &messages {
            let commit = chain.check(bytes.clone()).expect("the ground is a log");
            commit.apply_to(&mut state).expect("the ground replays");
        }
        Ground { messages, state, chain }
    }
}

/// What customers send: two jobs on a balance worth one, and the first one again.
fn commands() -> Vec<Command> {
    let job = |number: u8| {
        let key = IdempotencyKey::internal("exhaustive job", &[&[number]]);
        Command::new(key, Actor::Gateway, CommandBody::from(admit(JobId([number; 16]), account(0), NOW_US)))
    };
    vec![job(1), job(2), job(1)]
}

/// A process, and what is on its way to and from it.
struct Process {
    writer: Writer,
    publish: Option<(u64, Position, Bytes)>,
    answer: Option<(u64, Published)>,
    read: Option<(u64, u64)>,
    timers: VecDeque<u64>,
    /// Everything that it was told, in order.
    told: DefaultHasher,
}

struct World {
    bounds: Bounds,
    mistake: Option<Mistake>,
    log: Log,
    tail: Tail,
    processes: Vec<Process>,
    late: Vec<(Position, Bytes)>,
    sent: Vec<Vec<bool>>,
    commands: Vec<Command>,
    checker: Checker,
    tickets: u64,
    asked: Vec<(u64, Vec<Command>)>,
    folded: State,
    chain: ChainCheck,
    /// The last step put something into the log, or an answer left: what is judged may have changed.
    changed: bool,
}

impl World {
    fn empty(bounds: Bounds, mistake: Option<Mistake>) -> World {
        let mut world = World {
            bounds,
            mistake,
            log: Log::default(),
            tail: Tail::default(),
            processes: Vec::new(),
            late: Vec::new(),
            sent: Vec::new(),
            commands: commands().into_iter().take(bounds.commands).collect(),
            checker: Checker::default(),
            tickets: 0,
            asked: Vec::new(),
            folded: State::new(0),
            chain: ChainCheck::new(0, 1),
            changed: true,
        };
        world.log.unfenced = mistake == Some(Mistake::DropFencing);
        world.tail.unfenced = mistake == Some(Mistake::TailNotFenced);
        world
    }

    fn new(ground: &Ground, bounds: Bounds, mistake: Option<Mistake>) -> World {
        let mut world = World::empty(bounds, mistake);
        let mut head = 0;
        world.tail.open(usize::MAX).expect("an empty tail is whole");
        for (number, bytes) in ground.messages.iter().enumerate() {
            world.log.publish(number as u64, bytes);
            let position = position_of(bytes);
            world.tail.append(usize::MAX, &mut head, position, bytes).expect("the ground's tail takes it");
        }
        (world.folded, world.chain) = (ground.state.clone(), ground.chain.clone());
        world.tail.mark = world.tail.head();
        world.start(ground.state.clone(), world.tail.head()).expect("a first writer breaks nothing");
        world
    }

    fn replay(&mut self, path: &[Step]) -> Result<(), Violation> {
        path.iter().try_for_each(|step| {
            self.changed = false;
            self.perform(*step)
        })
    }

    /// Everything that waits happens, in order, without faults.
    fn calm(&mut self) {
        loop {
            let next = self
                .enabled()
                .into_iter()
                .find(|step| matches!(step, Step::Land(_) | Step::Hear(_) | Step::Read(_)));
            let Some(step) = next else { return };
            self.perform(step).expect("nothing is broken without faults");
        }
    }

    fn enabled(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (number, process) in self.processes.iter().enumerate() {
            let w = number as u8;
            if process.publish.is_some() {
                // What a dead process sent may still land.
                steps.push(Step::Land(w));
            }
            if !process.writer.alive {
                continue;
            }
            if process.publish.is_some() && self.bounds.faults > 0 {
                steps.extend([Step::LosePublish(w), Step::Delay(w)]);
            }
            if process.answer.is_some() {
                steps.push(Step::Hear(w));
                if self.bounds.faults > 0 {
                    steps.push(Step::LoseAnswer(w));
                }
            }
            if process.read.is_some() {
                steps.push(Step::Read(w));
            }
            if !process.timers.is_empty() && self.bounds.timeouts > 0 {
                steps.push(Step::TimeOut(w));
            }
            if self.bounds.crashes > 0 {
                steps.push(Step::Crash(w));
            }
            let unsent = (0..self.commands.len()).filter(|command| !self.sent[number][*command]);
            steps.extend(unsent.map(|command| Step::Send { command: command as u8, writer: w }));
        }
        steps.extend((0..self.late.len()).map(|copy| Step::LandLate(copy as u8)));
        if self.bounds.takeovers > 0 {
            steps.push(Step::Start);
        }
        steps
    }

    fn perform(&mut self, step: Step) -> Result<(), Violation> {
        match step {
            Step::Send { command, writer } => {
                self.sent[usize::from(writer)][usize::from(command)] = true;
                let command = self.commands[usize::from(command)].clone();
                self.submit(usize::from(writer), &[command])
            }
            Step::Land(w) => self.land(usize::from(w)),
            Step::Hear(w) => {
                let Some((attempt, result)) = self.processes[usize::from(w)].answer.take() else {
                    return Ok(());
                };
                self.tell(usize::from(w), Input::Published { attempt, result })
            }
            Step::LoseAnswer(w) => {
                self.bounds.faults -= 1;
                let Some((attempt, _)) = self.processes[usize::from(w)].answer.take() else { return Ok(()) };
                self.unknown(w, attempt)
            }
            Step::LosePublish(w) => {
                self.bounds.faults -= 1;
                let Some((attempt, ..)) = self.processes[usize::from(w)].publish.take() else {
                    return Ok(());
                };
                self.unknown(w, attempt)
            }
            Step::Delay(w) => {
                self.bounds.faults -= 1;
                let publish = self.processes[usize::from(w)].publish.take();
                let Some((attempt, position, bytes)) = publish else { return Ok(()) };
                self.late.push((position, bytes));
                self.unknown(w, attempt)
            }
            Step::LandLate(copy) => {
                let (position, bytes) = self.late.remove(usize::from(copy));
                match self.log.publish(position.commit - 1, &bytes) {
                    Published::Stored { .. } => self.stored(&bytes),
                    Published::Ambiguous { .. } => Ok(()),
                }
            }
            Step::Read(w) => {
                let Some((attempt, number)) = self.processes[usize::from(w)].read.take() else {
                    return Ok(());
                };
                let result = self.log.read(number);
                self.tell(usize::from(w), Input::ReadBack { attempt, result })
            }
            Step::TimeOut(w) => {
                self.bounds.timeouts -= 1;
                let Some(timer) = self.processes[usize::from(w)].timers.pop_front() else { return Ok(()) };
                self.tell(usize::from(w), Input::TimedOut { timer })
            }
            Step::Start => {
                self.bounds.takeovers -= 1;
                self.take_over()
            }
            Step::Crash(w) => {
                self.bounds.crashes -= 1;
                self.processes[usize::from(w)].writer.alive = false;
                Ok(())
            }
        }
    }

    /// A publish reaches the log; its answer is on its way.
    fn land(&mut self, number: usize) -> Result<(), Violation> {
        let process = &mut self.processes[number];
        let Some((attempt, position, bytes)) = process.publish.take() else { return Ok(()) };
        let result = self.log.publish(position.commit - 1, &bytes);
        if matches!(result, Published::Stored { .. }) {
            self.stored(&bytes)?;
        }
        self.processes[number].answer = Some((attempt, result));
        Ok(())
    }

    fn unknown(&mut self, w: u8, attempt: u64) -> Result<(), Violation> {
        let result = Published::Ambiguous { reason: "lost".to_owned() };
        self.tell(usize::from(w), Input::Published { attempt, result })
    }

    /// A process takes the archive's lock, backfills it, and boots on the log as it is.
    fn take_over(&mut self) -> Result<(), Violation> {
        let number = self.processes.len();
        let Ok(head) = self.tail.open(number) else {
            return Err(Violation {
                rule: "nobody halts without rot",
                seen: "the tail has a hole".to_owned(),
            });
        };
        let mut state = State::new(0);
        let mut chain = ChainCheck::new(0, 1);
        let mut tail_head = head.commit;
        let messages: Vec<Bytes> = self.log.whole().map(|message| message.bytes.clone()).collect();
        for bytes in messages {
            let broken = |seen: String| Violation { rule: "the chain of commits never breaks", seen };
            let commit = chain.check(bytes.clone()).map_err(|e| broken(e.to_string()))?;
            commit.apply_to(&mut state).map_err(|e| broken(e.to_string()))?;
            let appended = self.tail.append(number, &mut tail_head, position_of(&bytes), &bytes);
            if let (Err(refusal), true) = (appended, commit.number > head.commit) {
                let seen = format!("the tail does not take {}: {refusal:?}", commit.number);
                return Err(Violation { rule: "nobody halts without rot", seen });
            }
        }
        self.tail.mark = self.tail.head();
        self.start(state, self.tail.head())
    }

    fn start(&mut self, state: State, tail: Position) -> Result<(), Violation> {
        let number = self.processes.len();
        if !self.tail.is_owner(number) && self.tail.open(number).is_err() {
            return Err(Violation {
                rule: "nobody halts without rot",
                seen: "the tail has a hole".to_owned(),
            });
        }
        let writer = Writer::new(QUEUES, self.mistake, NOW_US, tail);
        let (timers, told) = (VecDeque::new(), DefaultHasher::new());
        self.processes.push(Process { writer, publish: None, answer: None, read: None, timers, told });
        self.sent.push(vec![false; self.commands.len()]);
        self.tell(number, Writer::boot(state, Hash32([number as u8 + 1; 32])))
    }

    fn submit(&mut self, writer: usize, commands: &[Command]) -> Result<(), Violation> {
        self.checker.sent(commands);
        self.tickets += 1;
        let ticket = self.tickets;
        self.asked.push((ticket, commands.to_vec()));
        let request = match commands {
            [command] => {
                Request::Command { ticket, command: Box::new(command.clone()), answer: AnswerWith::Place }
            }
            _ => Request::Batch { ticket, commands: commands.to_vec() },
        };
        self.tell(writer, Input::Requests(vec![request]))
    }

    fn tell(&mut self, number: usize, input: Input<u64>) -> Result<(), Violation> {
        note(&mut self.processes[number].told, &input, &self.asked);
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let process = &mut self.processes[number];
            if !process.writer.alive {
                return Ok(());
            }
            let mut out = Vec::new();
            process.writer.pipeline.step(NOW_US, input, &mut out);
            for effect in out {
                self.effect(number, effect)?;
            }
            if self.processes[number].writer.pipeline.may_prepare() {
                next = Some(Input::Prepare);
            }
        }
        Ok(())
    }

    fn effect(&mut self, number: usize, effect: Effect<u64>) -> Result<(), Violation> {
        match effect {
            Effect::Publish { attempt, position, bytes } => {
                self.processes[number].publish = Some((attempt, position, bytes));
            }
            Effect::ReadBack { attempt, number: at } => self.processes[number].read = Some((attempt, at)),
            Effect::TailAppend { position, bytes } => {
                let process = &mut self.processes[number];
                let result = self.tail.append(number, &mut process.writer.tail_head, position, &bytes);
                return self.tell(number, Input::TailWritten { number: position.commit, result });
            }
            Effect::Timer { timer, .. } => self.processes[number].timers.push_back(timer),
            Effect::Led { epoch } => {
                if self.processes.iter().any(|other| other.writer.epoch == Some(epoch)) {
                    return Err(Violation { rule: "one writer a term", seen: format!("term {epoch} twice") });
                }
                self.processes[number].writer.epoch = Some(epoch);
            }
            Effect::Stop(reason) => return self.stopped(number, &reason),
            Effect::Reply { ticket, reply } => {
                let Some(at) = self.asked.iter().position(|(asked, _)| *asked == ticket) else {
                    return Err(Violation { rule: "one answer a request", seen: format!("ticket {ticket}") });
                };
                let (_, commands) = self.asked.remove(at);
                self.changed = true;
                let leaves = self.folded.next_leaf();
                let now = Moment { log: &self.log, leaves, tail: &self.tail, rotten: Rot::None };
                return self.checker.replied(&commands, &reply, &now);
            }
            Effect::Committed { .. } | Effect::Warn(_) => {}
        }
        Ok(())
    }

    fn stopped(&mut self, number: usize, reason: &StopReason) -> Result<(), Violation> {
        self.processes[number].writer.alive = false;
        match reason {
            StopReason::Fenced { .. } | StopReason::Closed | StopReason::Abandoned => Ok(()),
            StopReason::Broken(_) if !self.tail.is_owner(number) && !self.tail.unfenced => Ok(()),
            other => Err(Violation { rule: "nobody halts without rot", seen: other.to_string() }),
        }
    }

    fn stored(&mut self, bytes: &Bytes) -> Result<(), Violation> {
        self.changed = true;
        let broken = |seen: String| Violation { rule: "the chain of commits never breaks", seen };
        let commit = self.chain.check(bytes.clone()).map_err(|e| broken(e.to_string()))?;
        commit.apply_to(&mut self.folded).map_err(|e| broken(e.to_string()))
    }

    /// Every answer so far against the log as it is.
    fn judge(mut self) -> Result<(), Violation> {
        let truth: Vec<Bytes> = self.log.whole().map(|message| message.bytes.clone()).collect();
        self.checker.finish(truth.iter())
    }

    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let Bounds { takeovers, crashes, faults, timeouts, .. } = self.bounds;
        (takeovers, crashes, faults, timeouts).hash(&mut hasher);
        self.log.whole().for_each(|message| message.hash.0.hash(&mut hasher));
        self.tail.head().hash.0.hash(&mut hasher);
        self.sent.hash(&mut hasher);
        for process in &self.processes {
            (process.writer.alive, process.writer.epoch, process.told.finish()).hash(&mut hasher);
            (process.publish.is_some(), process.read, &process.timers).hash(&mut hasher);
            process
                .answer
                .as_ref()
                .map(|(attempt, result)| (attempt, format!("{result:?}")))
                .hash(&mut hasher);
        }
        let mut late: Vec<Hash32> = self.late.iter().map(|(position, _)| position.hash).collect();
        late.sort();
        late.iter().for_each(|hash| hash.0.hash(&mut hasher));
        hasher.finish()
    }
}

/// What a pipeline was told, for the digest: everything in it that may change what it does.
fn note(told: &mut DefaultHasher, input: &Input<u64>, asked: &[(u64, Vec<Command>)]) {
    match input {
        Input::Boot(boot) => (0, boot.state.last_commit_hash().0).hash(told),
        Input::Requests(_) => {
            // Tickets are numbered over all writers; what counts is what was asked.
            let keys = asked
                .last()
                .map(|(_, commands)| commands.iter().map(|c| c.key.to_string()).collect::<Vec<_>>());
            (1, keys).hash(told);
        }
        Input::Published { attempt, result } => (2, attempt, format!("{result:?}")).hash(told),
        Input::ReadBack { attempt, result } => (3, attempt, format!("{result:?}")).hash(told),
        Input::TimedOut { timer } => (4, timer).hash(told),
        Input::TailWritten { number, result } => (5, number, format!("{result:?}")).hash(told),
        Input::TailLost { .. }
        | Input::Watched { .. }
        | Input::Prepare
        | Input::Shutdown
        | Input::Abandon
        | Input::Stop(_) => 6.hash(told),
    }
}

fn position_of(bytes: &Bytes) -> Position {
    let hash = protocol::commit::Commit::hash(bytes);
    CommitHead::peek(bytes).map(|head| head.position(hash)).unwrap_or_default()
}
