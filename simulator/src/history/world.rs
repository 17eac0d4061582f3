//! The world of one history: the queue of events on virtual time, and what each does to whom. Must not: choose faults.

use super::faults::Faults;
use super::{EVENTS_MAX, FAULTS_END_US, HISTORY_US_MAX};
use crate::checker::{Checker, Moment, Rot, Seen, Violation};
use crate::clients::{Client, Events, Wish};
use crate::log::Log;
use crate::mutants::Mistake;
use crate::random::Random;
use crate::tail::Tail;
use crate::writers::{Bounds, Writer};
use bytes::Bytes;
use journal::pipeline::opening::{Known, check_position};
use journal::pipeline::{
    Answer, AnswerWith, Effect, Input, Position, Published, Query, Reply, Request, StopReason,
};
use journal::reader::ChainCheck;
use journal::tail::CommitHead;
use ledger::{Command, State};
use protocol::id::Hash32;
use std::collections::{BTreeMap, BinaryHeap};

const CLIENTS: u64 = 5;
/// A client that hears nothing asks again after this.
const CLIENT_WAIT_US: u64 = 400_000;
/// How often somebody looks whether a writer leads.
const SUPERVISOR_US: u64 = 500_000;
/// How often a writer compares the stream with what was acknowledged.
const WATCHDOG_US: u64 = 700_000;
/// How long a writer takes to read the log before it boots, at most.
const BOOT_US_MAX: u64 = 4_000;

/// What happens.
pub(super) enum Happening {
    ToWriter {
        writer: usize,
        input: Input<u64>,
    },
    /// A request on its way; which writer takes it is seen on arrival.
    Request {
        client: usize,
        ticket: u64,
    },
    Ack {
        writer: usize,
        connection: u64,
        attempt: u64,
        result: Published,
    },
    Publish {
        writer: usize,
        attempt: u64,
        connection: u64,
        expected_last: u64,
        bytes: Bytes,
        heard: Heard,
    },
    ReadBack {
        writer: usize,
        attempt: u64,
        number: u64,
    },
    Watch {
        writer: usize,
        position: Position,
    },
    Watchdog {
        writer: usize,
    },
    Answered {
        client: usize,
        ticket: u64,
        certain: bool,
    },
    ClientTurn {
        client: usize,
    },
    ClientTired {
        client: usize,
        ticket: u64,
    },
    Supervise,
    Fault,
}

/// Whether the publisher hears of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    Yes,
    No,
}

struct Scheduled {
    at_us: u64,
    order: u64,
    what: Happening,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at_us, self.order) == (other.at_us, other.order)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    /// The earliest is the greatest: `BinaryHeap` gives the greatest.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at_us, other.order).cmp(&(self.at_us, self.order))
    }
}

/// Counts for people.
#[derive(Default, Clone, Copy)]
pub(super) struct Tally {
    pub(super) events: u64,
    pub(super) terms: u64,
    pub(super) fenced: u64,
}

pub(super) struct World {
    pub(super) random: Random,
    pub(super) faults: Faults,
    pub(super) mistake: Option<Mistake>,
    pub(super) now_us: u64,
    pub(super) log: Log,
    pub(super) tail: Tail,
    pub(super) writers: Vec<Writer>,
    pub(super) rot: Rot,
    pub(super) rot_at_us: u64,
    pub(super) halted: bool,
    pub(super) checker: Checker,
    pub(super) tally: Tally,
    pub(super) digest: u64,
    queue: BinaryHeap<Scheduled>,
    order: u64,
    clients: Vec<Client>,
    /// Ticket to its commands; none for a look.
    tickets: BTreeMap<u64, (usize, Vec<Command>)>,
    /// The log folded as it grows; checks the chain at every landing.
    folded: State,
    chain: ChainCheck,
    leaves: u64,
    bounds: Bounds,
}

impl World {
    pub(super) fn new(seed: u64, mistake: Option<Mistake>) -> Self {
        let mut random = Random::new(seed);
        let faults = Faults::choose(&mut random);
        let bounds = Bounds {
            queue_requests_max: if random.chance(200) { 12 } else { 1_000 },
            prepare_requests_min: random.between(1, 12) as usize,
            launch_commands_max: random.between(2, 12) as usize,
        };
        let mut world = Self {
            log: Log::default(),
            tail: Tail::default(),
            random,
            faults,
            mistake,
            now_us: 1_000_000,
            writers: Vec::new(),
            rot: Rot::None,
            rot_at_us: 0,
            halted: false,
            checker: Checker::default(),
            tally: Tally::default(),
            digest: seed,
            queue: BinaryHeap::new(),
            order: 0,
            clients: (0..CLIENTS).map(Client::new).collect(),
            tickets: BTreeMap::new(),
            folded: State::new(0),
            chain: ChainCheck::new(0, 1),
            leaves: 0,
            bounds,
        };
        world.log.unfenced = mistake == Some(Mistake::DropFencing);
        world.tail.unfenced = mistake == Some(Mistake::TailNotFenced);
        world.at(0, Happening::Supervise);
        world.at(20_000, Happening::Fault);
        for client in 0..CLIENTS {
            world.at(10_000 + client * 500, Happening::ClientTurn { client: client as usize });
        }
        world
    }

    /// To its end, or to the first broken promise.
    pub(super) fn run(&mut self) -> Result<(), Violation> {
        while let Some(Scheduled { at_us, what, .. }) = self.queue.pop() {
            self.now_us = self.now_us.max(at_us);
            self.tally.events += 1;
            if self.tally.events > EVENTS_MAX || self.now_us > HISTORY_US_MAX {
                return self.ran_out();
            }
            self.happen(what)?;
            if self.finished() {
                break;
            }
        }
        self.judge()
    }

    fn finished(&self) -> bool {
        let done = self.clients.iter().all(|client| client.left == 0 && client.wish.is_none());
        (done || self.halted) && !self.faulty()
    }

    fn ran_out(&mut self) -> Result<(), Violation> {
        if self.halted || self.rot != Rot::None {
            return self.judge();
        }
        let waiting = self.clients.iter().filter(|client| client.wish.is_some()).count();
        let seen = format!("{waiting} clients wait at {} us after {} events", self.now_us, self.tally.events);
        Err(Violation { rule: "everything ends when faults end", seen })
    }

    fn judge(&mut self) -> Result<(), Violation> {
        let bytes = |log: &Log| log.whole().map(|message| message.bytes.clone()).collect::<Vec<_>>();
        let tail: Vec<Bytes> = self.tail.whole().cloned().collect();
        let log = bytes(&self.log);
        // A log that lost its end is rebuilt from the archive.
        let truth = if self.rot == Rot::Log && !log.starts_with(&tail) { tail } else { log };
        self.checker.finish(truth.iter())
    }

    pub(super) fn faulty(&self) -> bool {
        self.now_us < FAULTS_END_US
    }

    pub(super) fn at(&mut self, after_us: u64, what: Happening) {
        self.order += 1;
        self.queue.push(Scheduled { at_us: self.now_us + after_us, order: self.order, what });
    }

    pub(super) fn note(&mut self, tag: u64, value: u64) {
        for word in [self.now_us, tag, value] {
            self.digest = (self.digest ^ word).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23);
        }
    }

    fn happen(&mut self, what: Happening) -> Result<(), Violation> {
        if let Some(writer) = self.busy(&what) {
            let wait_us = self.writers[writer].paused_until_us - self.now_us;
            self.at(wait_us, what);
            return Ok(());
        }
        match what {
            Happening::ToWriter { writer, input } => self.step(writer, input),
            Happening::Ack { writer, connection, attempt, result } => {
                let current = self.writers[writer].connection == connection;
                if !current {
                    return Ok(());
                }
                self.step(writer, Input::Published { attempt, result })
            }
            Happening::Publish { .. } => self.land(what),
            Happening::ReadBack { writer, attempt, number } => {
                let result = self.log.read(number);
                let wait_us = self.random.between(80, 500);
                self.at(wait_us, Happening::ToWriter { writer, input: Input::ReadBack { attempt, result } });
                Ok(())
            }
            Happening::Watch { writer, position } => {
                let result = self.log.read(position.commit);
                self.at(100, Happening::ToWriter { writer, input: Input::Watched { position, result } });
                Ok(())
            }
            Happening::Watchdog { writer } => {
                if self.writers[writer].alive {
                    let position = self.writers[writer].pipeline.committed();
                    self.at(100, Happening::Watch { writer, position });
                    self.at(WATCHDOG_US, Happening::Watchdog { writer });
                }
                Ok(())
            }
            Happening::Request { client, ticket } => self.arrive(client, ticket),
            Happening::Answered { client, ticket, certain } => {
                self.answered(client, ticket, certain);
                Ok(())
            }
            Happening::ClientTurn { client } => {
                self.client_turn(client);
                Ok(())
            }
            Happening::ClientTired { client, ticket } => {
                if self.clients[client].waits_for == Some(ticket) {
                    self.clients[client].waits_for = None;
                    self.client_turn(client);
                }
                Ok(())
            }
            Happening::Supervise => {
                let leads = self.writers.iter().any(|w| w.alive && w.paused_until_us <= self.now_us);
                self.at(SUPERVISOR_US, Happening::Supervise);
                if leads { Ok(()) } else { self.start_writer() }
            }
            Happening::Fault => self.fault(),
        }
    }

    /// The writer that this must wait for, because it is paused.
    fn busy(&self, what: &Happening) -> Option<usize> {
        let (Happening::ToWriter { writer, .. }
        | Happening::Ack { writer, .. }
        | Happening::Watchdog { writer }) = what
        else {
            return None;
        };
        (self.writers[*writer].paused_until_us > self.now_us).then_some(*writer)
    }

    /// A process takes the tail's lock, compares, reads the log, backfills the tail, and boots.
    pub(super) fn start_writer(&mut self) -> Result<(), Violation> {
        let number = self.writers.len();
        self.before_start();
        let opened = self.tail.open(number);
        let refused = match opened {
            Err(at) => Some(format!("the archive tail is damaged at {at}")),
            Ok(_) if self.mistake == Some(Mistake::SkipTailCheck) => None,
            Ok(head) => self.compare(head).err(),
        };
        if let Some(why) = refused {
            return self.halt(&why);
        }
        let (Some(state), Ok(head)) = (self.fold_log(), opened) else {
            return self.halt("the log does not replay");
        };
        self.note(1, number as u64);
        let mut writer = Writer::new(self.bounds, self.mistake, self.now_us, head);
        let missing: Vec<(Position, Bytes)> =
            self.log.whole().skip(head.commit as usize).map(position_of).collect();
        for (position, bytes) in missing {
            let full = std::mem::replace(&mut self.tail.full, false);
            let appended = self.tail.append(number, &mut writer.tail_head, position, &bytes);
            self.tail.full = full;
            if appended.is_err() {
                return self.halt("the archive tail does not take what the log has");
            }
        }
        self.tail.mark = self.tail.head();
        writer.clock_us = self.faults.clock(&mut self.random);
        self.writers.push(writer);
        let (mut nonce, id) = ([0; 32], self.random.id());
        nonce[..16].copy_from_slice(&id);
        let wait_us = self.random.below(BOOT_US_MAX);
        self.at(wait_us, Happening::ToWriter { writer: number, input: Writer::boot(state, Hash32(nonce)) });
        self.at(WATCHDOG_US, Happening::Watchdog { writer: number });
        Ok(())
    }

    fn compare(&self, tail: Position) -> Result<(), String> {
        let known = Known { tail, mark: self.tail.mark, torn: 0 };
        known.check_extent(self.log.extent()).map_err(|mismatch| format!("{mismatch:?}"))?;
        for position in known.positions() {
            let found = self.log.get(position.commit).map(|message| message.hash);
            check_position(position, found).map_err(|mismatch| format!("{mismatch:?}"))?;
        }
        Ok(())
    }

    fn fold_log(&self) -> Option<State> {
        if self.rot != Rot::Log {
            return Some(self.folded.clone());
        }
        let (mut state, mut chain) = (State::new(0), ChainCheck::new(0, 1));
        for message in self.log.whole() {
            chain.check(message.bytes.clone()).ok()?.apply_to(&mut state).ok()?;
        }
        Some(state)
    }

    /// Somebody refuses to go on: right when something rotted, wrong otherwise.
    fn halt(&mut self, why: &str) -> Result<(), Violation> {
        self.note(2, 0);
        if self.rot == Rot::None {
            return Err(Violation { rule: "nobody halts without rot", seen: why.to_owned() });
        }
        self.halted = true;
        Ok(())
    }

    pub(super) fn step(&mut self, writer: usize, input: Input<u64>) -> Result<(), Violation> {
        let mut input = Some(input);
        while let Some(next) = input.take() {
            if !self.writers[writer].alive {
                return Ok(());
            }
            let now_us = self.writers[writer].now_us(self.now_us);
            let mut out = Vec::new();
            self.writers[writer].pipeline.step(now_us, next, &mut out);
            for effect in out {
                self.perform(writer, effect)?;
            }
            // What comes in between two parts of a preparation comes first.
            if self.writers[writer].pipeline.may_prepare() {
                if self.random.chance(700) {
                    input = Some(Input::Prepare);
                } else {
                    self.at(30, Happening::ToWriter { writer, input: Input::Prepare });
                }
            }
        }
        Ok(())
    }

    fn perform(&mut self, writer: usize, effect: Effect<u64>) -> Result<(), Violation> {
        match effect {
            Effect::Publish { attempt, position, bytes } => {
                self.note(3, attempt);
                self.publish(writer, attempt, position, bytes);
            }
            Effect::ReadBack { attempt, number } => self.read_back(writer, attempt, number),
            Effect::TailAppend { position, bytes } => self.append(writer, position, &bytes),
            Effect::Committed { .. } | Effect::Warn(_) => {}
            Effect::Reply { ticket, reply } => return self.reply(writer, ticket, reply),
            Effect::Timer { timer, after_us } => {
                self.at(after_us, Happening::ToWriter { writer, input: Input::TimedOut { timer } });
            }
            Effect::Led { epoch } => return self.led(writer, epoch),
            Effect::Stop(reason) => return self.stopped(writer, &reason),
        }
        Ok(())
    }

    fn led(&mut self, writer: usize, epoch: u64) -> Result<(), Violation> {
        self.note(4, epoch);
        self.tally.terms += 1;
        if self.writers.iter().any(|other| other.epoch == Some(epoch)) {
            return Err(Violation { rule: "one writer a term", seen: format!("term {epoch} twice") });
        }
        self.writers[writer].epoch = Some(epoch);
        let after_rot = self.rot == Rot::Log && self.writers[writer].started_us > self.rot_at_us;
        if after_rot
            && (1..=self.checker.told)
                .any(|commit| self.log.get(commit).is_none_or(|m| self.tail.hash(commit) != Some(m.hash)))
        {
            let seen = format!("acknowledged up to {}", self.checker.told);
            return Err(Violation { rule: "nobody leads on a log that lost what was acknowledged", seen });
        }
        Ok(())
    }

    fn stopped(&mut self, writer: usize, reason: &StopReason) -> Result<(), Violation> {
        self.writers[writer].alive = false;
        self.note(5, writer as u64);
        match reason {
            StopReason::Fenced { .. } => self.tally.fenced += 1,
            StopReason::Closed | StopReason::Abandoned => {}
            // It lost the archive's lock: another one is about to lead.
            StopReason::Broken(_) if !self.tail.is_owner(writer) && !self.tail.unfenced => {}
            other => return self.halt(&other.to_string()),
        }
        Ok(())
    }

    fn append(&mut self, writer: usize, position: Position, bytes: &Bytes) {
        let number = position.commit;
        let head = &mut self.writers[writer].tail_head;
        let result = self.tail.append(writer, head, position, bytes);
        if self.tail.is_owner(writer) && self.random.chance(300) {
            self.tail.mark = self.tail.head();
        }
        let wait_us = self.faults.tail_us(&mut self.random);
        let at_us = (self.now_us + wait_us).max(self.writers[writer].tail_answer_us);
        self.writers[writer].tail_answer_us = at_us;
        let input = Input::TailWritten { number, result };
        self.at(at_us - self.now_us, Happening::ToWriter { writer, input });
    }

    fn publish(&mut self, writer: usize, attempt: u64, position: Position, bytes: Bytes) {
        let connection = self.writers[writer].connection;
        self.writers[writer].attempt = Some(attempt);
        let expected_last = position.commit.saturating_sub(1);
        let copy = |heard| Happening::Publish {
            writer,
            attempt,
            connection,
            expected_last,
            bytes: bytes.clone(),
            heard,
        };
        let faulty = self.faulty();
        if faulty && self.random.chance(self.faults.late_copy) {
            let wait_us = self.random.between(500, 30_000);
            self.at(wait_us, copy(Heard::No));
        }
        let wait_us = self.random.between(80, 600);
        if faulty && self.random.chance(self.faults.lost) {
            // The request is lost; half of the time the connection says so.
            self.connection_lost(writer, attempt);
        } else if faulty && self.random.chance(self.faults.lost) {
            self.at(wait_us, copy(Heard::No));
            self.connection_lost(writer, attempt);
        } else if faulty && self.random.chance(self.faults.lost) {
            // Given up by the client, and still on its way.
            let late_us = self.random.between(5_000, 80_000);
            self.at(late_us, copy(Heard::Yes));
            self.connection_lost(writer, attempt);
        } else {
            self.at(wait_us, copy(Heard::Yes));
        }
    }

    fn connection_lost(&mut self, writer: usize, attempt: u64) {
        if self.random.chance(600) {
            let result = Published::Ambiguous { reason: "the connection was lost".into() };
            let wait_us = self.random.between(500, 40_000);
            self.at(wait_us, Happening::ToWriter { writer, input: Input::Published { attempt, result } });
        }
    }

    fn read_back(&mut self, writer: usize, attempt: u64, number: u64) {
        let wait_us = self.random.between(80, 500);
        if self.faulty() && self.random.chance(self.faults.lost * 2) {
            if self.random.chance(700) {
                let result = journal::pipeline::ReadBack::Failed { reason: "no responders".into() };
                self.at(wait_us, Happening::ToWriter { writer, input: Input::ReadBack { attempt, result } });
            }
            return;
        }
        self.at(wait_us, Happening::ReadBack { writer, attempt, number });
    }

    /// A publish reaches the log.
    fn land(&mut self, what: Happening) -> Result<(), Violation> {
        let Happening::Publish { writer, attempt, connection, expected_last, bytes, heard } = what else {
            unreachable!("only publishes land");
        };
        let result = self.log.publish(expected_last, &bytes);
        if let Published::Stored { sequence } = result {
            self.note(6, sequence);
            self.stored(sequence, &bytes)?;
        }
        if heard == Heard::Yes {
            let mut wait_us = self.random.between(50, 500);
            // An acknowledgement that dawdles: it comes when nobody waits for it any more.
            if self.faulty() && self.random.chance(self.faults.lost) {
                wait_us += self.random.between(1_000, 20_000);
                self.connection_lost(writer, attempt);
            }
            self.at(wait_us, Happening::Ack { writer, connection, attempt, result });
        }
        Ok(())
    }

    fn stored(&mut self, sequence: u64, bytes: &Bytes) -> Result<(), Violation> {
        let head = CommitHead::peek(bytes);
        let number = head.as_ref().map_or(0, |head| head.number);
        if number != sequence {
            let seen = format!("commit {number} was stored as sequence {sequence}");
            return Err(Violation { rule: "a commit is stored under its own number", seen });
        }
        if self.rot == Rot::Log {
            return Ok(());
        }
        let rule = "the chain of commits never breaks";
        let broken = |e: String| Violation { rule, seen: e };
        let commit = self.chain.check(bytes.clone()).map_err(|e| broken(e.to_string()))?;
        commit.apply_to(&mut self.folded).map_err(|e| broken(e.to_string()))?;
        self.leaves = self.folded.next_leaf();
        Ok(())
    }

    /// A request reaches a writer: whichever the client believes in.
    fn arrive(&mut self, client: usize, ticket: u64) -> Result<(), Violation> {
        let alive: Vec<usize> = (0..self.writers.len()).filter(|w| self.writers[*w].alive).collect();
        let Some(wish) = self.clients[client].wish.clone() else { return Ok(()) };
        if alive.is_empty() || self.clients[client].waits_for != Some(ticket) {
            return Ok(());
        }
        // The newest one most of the time.
        let newest = self.random.chance(750);
        let pick = if newest { alive.len() - 1 } else { self.random.below(alive.len() as u64) as usize };
        let writer = alive[pick];
        if self.writers[writer].paused_until_us > self.now_us {
            let wait_us = self.writers[writer].paused_until_us - self.now_us;
            self.at(wait_us, Happening::Request { client, ticket });
            return Ok(());
        }
        let (request, commands) = match wish {
            Wish::One { command, events } => {
                let answer = if events == Events::Wanted { AnswerWith::Events } else { AnswerWith::Place };
                (Request::Command { ticket, command: command.clone(), answer }, vec![*command])
            }
            Wish::Many(commands) => (Request::Batch { ticket, commands: commands.clone() }, commands),
            Wish::Look => {
                let query = Query::new(|state| Answer(Box::new(Seen::of(state))));
                (Request::Read { ticket, query }, Vec::new())
            }
        };
        self.checker.sent(&commands);
        self.tickets.insert(ticket, (client, commands));
        let place = self.writers[writer].arrived.len() as u64;
        self.writers[writer].arrived.insert(ticket, place);
        self.step(writer, Input::Requests(vec![request]))
    }

    fn reply(&mut self, writer: usize, ticket: u64, reply: Reply) -> Result<(), Violation> {
        let Some((client, commands)) = self.tickets.remove(&ticket) else {
            return Err(Violation { rule: "one answer a request", seen: format!("ticket {ticket}") });
        };
        let certain = !matches!(reply, Reply::Unknown | Reply::Stopped(_) | Reply::Overloaded);
        self.note(7, ticket << 1 | u64::from(certain));
        let now = Moment { log: &self.log, leaves: self.leaves, tail: &self.tail, rotten: self.rot };
        match reply {
            Reply::Answer(answer) => match answer.0.downcast::<Seen>() {
                Ok(seen) => self.checker.looked(*seen, &now)?,
                Err(_) => unreachable!("looks return what they saw"),
            },
            other if !commands.is_empty() => self.checker.replied(&commands, &other, &now)?,
            _ => {}
        }
        if certain {
            self.in_order(writer, ticket)?;
        }
        let wait_us = self.random.between(20, 300);
        self.at(wait_us, Happening::Answered { client, ticket, certain });
        Ok(())
    }

    fn in_order(&mut self, writer: usize, ticket: u64) -> Result<(), Violation> {
        let writer = &mut self.writers[writer];
        let place = writer.arrived.get(&ticket).copied();
        let in_order = place > writer.answered || writer.answered.is_none();
        writer.answered = place;
        if in_order {
            return Ok(());
        }
        Err(Violation {
            rule: "answers leave in the order of their requests",
            seen: format!("ticket {ticket}"),
        })
    }

    fn answered(&mut self, client: usize, ticket: u64, certain: bool) {
        if self.clients[client].waits_for != Some(ticket) {
            return;
        }
        self.clients[client].waits_for = None;
        // Some give up on an answer that is not certain; most ask again with the same keys.
        if certain || self.faulty() && self.random.chance(200) {
            self.clients[client].wish = None;
        }
        let wait_us =
            if certain { self.random.between(100, 40_000) } else { self.random.between(5_000, 50_000) };
        self.at(wait_us, Happening::ClientTurn { client });
    }

    fn client_turn(&mut self, client: usize) {
        let now_us = self.now_us;
        let it = &mut self.clients[client];
        if it.waits_for.is_some() || it.wish.is_none() && it.left == 0 {
            return;
        }
        if it.wish.is_none() {
            it.choose(&mut self.random, now_us);
        }
        self.order += 1;
        let ticket = self.order;
        self.clients[client].waits_for = Some(ticket);
        let wait_us = self.random.between(20, 2_000);
        self.at(wait_us, Happening::Request { client, ticket });
        self.at(CLIENT_WAIT_US, Happening::ClientTired { client, ticket });
    }
}

fn position_of(message: &crate::log::Message) -> (Position, Bytes) {
    let position = CommitHead::peek(&message.bytes).map(|head| head.position(message.hash));
    (position.unwrap_or_default(), message.bytes.clone())
}
