//! Seeded random schedules: writers with crashes and take-overs on one simulated log that loses, delays and duplicates;
//! a checker that remembers every answer. Small on purpose: the whole simulation comes with its own crate.

use super::*;
use crate::reader::ChainCheck;
use std::collections::{BTreeMap, BTreeSet};

const SEEDS: u64 = 1_000;
const STEPS: u64 = 400;
const ACCOUNTS: u64 = 40;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// On its way: to the log or to a writer.
enum Travelling {
    Publish { attempt: u64, position: Position, bytes: Bytes },
    Read { attempt: u64, number: u64 },
    Input(Input<u64>),
}

struct Node {
    pipeline: Pipeline<u64>,
    travelling: Vec<Travelling>,
    timers: Vec<u64>,
    alive: bool,
}

struct World {
    random: Random,
    now_us: u64,
    log: Vec<Bytes>,
    nodes: Vec<Node>,
    /// Publishes of crashed writers that may still land.
    ghosts: Vec<Travelling>,
    /// Ticket to account and key.
    asked: BTreeMap<u64, (u64, u64)>,
    answered: BTreeSet<u64>,
    /// Every answer "done": account, commit, hash, leaf.
    done: Vec<(u64, u64, Hash32, u64)>,
    calm: bool,
    fenced: u64,
    unknown: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            random: Random(seed),
            now_us: 1_000_000,
            log: Vec::new(),
            nodes: Vec::new(),
            ghosts: Vec::new(),
            asked: BTreeMap::new(),
            answered: BTreeSet::new(),
            done: Vec::new(),
            calm: false,
            fenced: 0,
            unknown: 0,
        };
        world.start_node();
        world
    }

    /// A writer that read the whole log; others may be running.
    fn start_node(&mut self) {
        let mut state = State::new(0);
        let mut chain = ChainCheck::new(0, 1);
        for bytes in &self.log {
            chain.check(bytes.clone()).unwrap().apply_to(&mut state).unwrap();
        }
        let mut options = PipelineOptions::new(0);
        options.prepare_requests_min = 1 + self.random.below(4) as usize;
        let node = Node {
            pipeline: Pipeline::new(options),
            travelling: Vec::new(),
            timers: Vec::new(),
            alive: true,
        };
        self.nodes.push(node);
        let mut nonce = [0; 32];
        nonce[..8].copy_from_slice(&self.random.next().to_be_bytes());
        let boot = Boot { state, nonce: Hash32(nonce), genesis: Some(genesis()) };
        self.step_node(self.nodes.len() - 1, Input::Boot(Box::new(boot)));
    }

    fn step_node(&mut self, index: usize, input: Input<u64>) {
        // Clocks of two writers disagree, and jump back.
        let now_us = if self.calm { self.now_us } else { self.now_us - self.random.below(5_000) };
        let mut out = Vec::new();
        self.nodes[index].pipeline.step(now_us, input, &mut out);
        for effect in out {
            self.perform(index, effect);
        }
        if self.nodes[index].pipeline.may_prepare() && self.random.below(2) == 0 {
            self.step_node(index, Input::Prepare);
        }
    }

    fn perform(&mut self, index: usize, effect: Effect<u64>) {
        let node = &mut self.nodes[index];
        match effect {
            Effect::Publish { attempt, position, bytes } => {
                node.travelling.push(Travelling::Publish { attempt, position, bytes });
            }
            Effect::ReadBack { attempt, number } => {
                node.travelling.push(Travelling::Read { attempt, number })
            }
            Effect::TailAppend { position, .. } => {
                let failed = !self.calm && self.random.below(10) == 0;
                let result = if failed { Err(TailRefusal::Retry("disk full".to_owned())) } else { Ok(()) };
                let input = Input::TailWritten { number: position.commit, result };
                self.nodes[index].travelling.push(Travelling::Input(input));
            }
            Effect::Timer { timer, .. } => node.timers.push(timer),
            Effect::Committed { position, .. } => {
                let bytes = self.log.get(position.commit as usize - 1).expect("committed, not in the log");
                assert_eq!(Commit::hash(bytes), position.hash, "committed something else");
            }
            Effect::Reply { ticket, reply } => self.reply(ticket, reply),
            Effect::Stop(reason) => {
                assert!(matches!(reason, StopReason::Fenced { .. }), "{reason}");
                self.fenced += 1;
                node.alive = false;
            }
            Effect::Led { .. } | Effect::Warn(_) => {}
        }
    }

    /// The leaves that the log has now: no answer may speak of more.
    fn leaves(&self) -> u64 {
        self.log.last().map_or(0, |bytes| {
            let head = crate::tail::CommitHead::peek(bytes).unwrap();
            head.first_leaf + head.leaves
        })
    }

    fn reply(&mut self, ticket: u64, reply: Reply) {
        assert!(self.answered.insert(ticket), "ticket {ticket} was answered twice");
        let (account, _) = self.asked[&ticket];
        match reply {
            Reply::Done(outcome) => {
                self.done.push((account, outcome.commit, outcome.commit_hash, outcome.first_leaf));
            }
            Reply::Repeated { commit, first_leaf, count } => {
                assert_eq!(count, 1);
                assert!((commit as usize) <= self.log.len(), "repeated what is not committed");
                let hash = Commit::hash(&self.log[commit as usize - 1]);
                self.done.push((account, commit, hash, first_leaf));
            }
            Reply::Refused { at_leaf, .. } => {
                assert!(at_leaf <= self.leaves(), "refused on uncommitted state");
            }
            Reply::Answer(answer) => {
                let counted = *answer.0.downcast::<usize>().unwrap();
                assert!(counted <= self.accounts_in_log().len(), "read uncommitted state");
            }
            Reply::Unknown => self.unknown += 1,
            Reply::Placed(_) | Reply::Batch { .. } => panic!("nobody asked for that"),
            Reply::Stopped(_) | Reply::Overloaded | Reply::TooLarge(_) => {}
        }
    }

    fn accounts_in_log(&self) -> Vec<AccountId> {
        let mut chain = ChainCheck::new(0, 1);
        let commits = self.log.iter().map(|bytes| chain.check(bytes.clone()).expect("one whole chain"));
        let events = commits.flat_map(|commit| commit.events);
        let opened = events.filter_map(|event| match event.body {
            protocol::EventBody::AccountOpened(opened) => Some(opened.account),
            _ => None,
        });
        opened.collect()
    }

    /// The log: takes a publish only in its place.
    fn land(&mut self, position: Position, bytes: &Bytes) -> Published {
        if self.log.len() as u64 + 1 == position.commit {
            self.log.push(bytes.clone());
            return Published::Stored { sequence: position.commit };
        }
        Published::Ambiguous { reason: "wrong last sequence".into() }
    }

    fn deliver(&mut self, index: usize, pick: usize) {
        let item = self.nodes[index].travelling.remove(pick);
        let fate = if self.calm { 9 } else { self.random.below(10) };
        match item {
            Travelling::Input(input) => self.step_node(index, input),
            Travelling::Read { attempt, number } => {
                let result = match self.log.get(number as usize - 1) {
                    _ if fate == 0 => ReadBack::Failed { reason: "no responders".into() },
                    Some(bytes) => ReadBack::Found(bytes.clone()),
                    None => ReadBack::Absent { last_sequence: self.log.len() as u64 },
                };
                let answer = Travelling::Input(Input::ReadBack { attempt, result });
                self.nodes[index].travelling.push(answer);
            }
            // Lost on the way; only a timer tells.
            Travelling::Publish { .. } if fate == 0 => {}
            // Said to be lost, and lands later.
            Travelling::Publish { attempt, position, bytes } if fate == 1 => {
                self.ghosts.push(Travelling::Publish { attempt, position, bytes });
                let result = Published::Ambiguous { reason: "timed out".into() };
                let answer = Travelling::Input(Input::Published { attempt, result });
                self.nodes[index].travelling.push(answer);
            }
            Travelling::Publish { attempt, position, bytes } => {
                let result = self.land(position, &bytes);
                // The acknowledgement may be lost.
                if fate != 2 {
                    let answer = Travelling::Input(Input::Published { attempt, result });
                    self.nodes[index].travelling.push(answer);
                }
            }
        }
    }

    fn request(&mut self) {
        let Some(index) = self.pick_node() else { return };
        let count = 1 + self.random.below(6);
        let mut requests = Vec::new();
        for _ in 0..count {
            let ticket = self.asked.len() as u64;
            let account = self.random.below(ACCOUNTS);
            // One key an account, now and then another, which must be refused.
            let key = if self.random.below(5) == 0 { account + ACCOUNTS } else { account };
            self.asked.insert(ticket, (account, key));
            requests.push(if self.random.below(5) == 0 {
                Request::Read { ticket, query: accounts_query() }
            } else {
                super::request(ticket, open(key, account))
            });
        }
        self.step_node(index, Input::Requests(requests));
    }

    fn pick_node(&mut self) -> Option<usize> {
        let alive: Vec<usize> = (0..self.nodes.len()).filter(|index| self.nodes[*index].alive).collect();
        let pick = self.random.below(alive.len().max(1) as u64) as usize;
        alive.get(pick).copied()
    }

    /// Something, by chance.
    fn turn(&mut self) {
        self.now_us += 1 + self.random.below(1_000);
        match self.random.below(100) {
            0..25 if !self.calm => self.request(),
            25..28 if !self.calm => self.start_node(),
            28..29 if !self.calm => {
                if let Some(index) = self.pick_node() {
                    self.nodes[index].alive = false;
                    let lost = std::mem::take(&mut self.nodes[index].travelling);
                    self.ghosts.extend(lost);
                }
            }
            29..35 => {
                if !self.ghosts.is_empty() {
                    let pick = self.random.below(self.ghosts.len() as u64) as usize;
                    if let Travelling::Publish { position, bytes, .. } = self.ghosts.swap_remove(pick) {
                        self.land(position, &bytes);
                    }
                }
            }
            35..50 => {
                let Some(index) = self.pick_node() else { return };
                if !self.nodes[index].timers.is_empty() {
                    let pick = self.random.below(self.nodes[index].timers.len() as u64) as usize;
                    let timer = self.nodes[index].timers.remove(pick);
                    self.step_node(index, Input::TimedOut { timer });
                }
            }
            _ => {
                let Some(index) = self.pick_node() else { return };
                if !self.nodes[index].travelling.is_empty() {
                    let pick = self.random.below(self.nodes[index].travelling.len() as u64) as usize;
                    self.deliver(index, pick);
                }
            }
        }
    }

    /// Faults end; the last writer takes over and everything must come to an end.
    fn settle(&mut self) {
        self.calm = true;
        for node in &mut self.nodes {
            node.alive = false;
        }
        for index in 0..self.nodes.len() {
            let lost = std::mem::take(&mut self.nodes[index].travelling);
            self.ghosts.extend(lost);
        }
        self.start_node();
        let last = self.nodes.len() - 1;
        let requests = (0..ACCOUNTS).map(|account| {
            let ticket = 1_000_000 + account;
            self.asked.insert(ticket, (account, account));
            super::request(ticket, open(account, account))
        });
        let requests = requests.collect();
        self.step_node(last, Input::Requests(requests));
        for _ in 0..20_000 {
            self.turn();
            if (0..ACCOUNTS).all(|account| self.answered.contains(&(1_000_000 + account))) {
                return;
            }
            // A ghost may fence the last writer: then another one tries, as a supervisor would.
            if !self.nodes[last].alive {
                return;
            }
        }
        panic!("nothing moves any more");
    }

    fn check(&self) {
        let opened = self.accounts_in_log();
        let unique: BTreeSet<_> = opened.iter().collect();
        assert_eq!(unique.len(), opened.len(), "an account was opened twice");
        for (account, commit, hash, leaf) in &self.done {
            let bytes = self.log.get(*commit as usize - 1).expect("an acknowledged commit is missing");
            assert_eq!(Commit::hash(bytes), *hash, "an acknowledged commit changed");
            let number = *account;
            assert!(unique.contains(&super::account(number)), "an acknowledged account is missing");
            assert!(*leaf < self.leaves());
        }
    }
}

#[test]
fn no_schedule_loses_repeats_or_leaks() {
    let (mut fenced, mut done, mut unknown) = (0, 0, 0);
    for seed in 0..SEEDS {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..STEPS {
                world.turn();
            }
            world.settle();
            world.check();
            (world.fenced, world.done.len(), world.unknown)
        });
        let (f, d, u) = outcome.unwrap_or_else(|_| panic!("seed {seed}"));
        (fenced, done, unknown) = (fenced + f, done + d, unknown + u);
    }
    // The schedules must reach what they are there for.
    assert!(fenced > SEEDS / 4 && unknown > SEEDS / 4 && done > 10_000, "{fenced} {unknown} {done}");
}
