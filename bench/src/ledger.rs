//! `bench ledger`: the pure rules in memory on one core, without encoding, log or network.

use crate::load::{Load, Spread, genesis, now_us};
use crate::machine::resident_bytes;
use crate::report::{Better, Report, ResultLine};
use crate::samples::Samples;
use crate::{BenchError, Tried};
use ledger::command::{Command, CommandBody};
use ledger::{Decided, State};
use protocol::event::{Actor, Event};
use protocol::id::{Hash32, IdempotencyKey};
use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct LedgerOptions {
    /// Accounts, each with one grant.
    pub accounts: u32,
    /// Transfers, and hold and capture pairs.
    pub operations: u32,
}

/// Commands that are made before the clock runs, as many as a writer has decoded when it decides.
const CHUNK: usize = 1_024;
/// Holds that are open at a time.
const OPEN_HOLDS: usize = 8_192;
/// Commands that are looked ahead, decided and timed together.
const STRETCH: usize = 256;
/// A commit ends after so many events.
const COMMIT_EVENTS: usize = 4_096;

/// A state with its commits.
struct World {
    state: State,
    events: Vec<Event>,
    in_commit: usize,
}

impl World {
    /// Decides and applies; the time it took is the caller's to measure.
    fn run(&mut self, command: &Command, now_us: u64) -> Result<(), BenchError> {
        self.events.clear();
        match ledger::decide_into(&self.state, command, now_us, &mut self.events) {
            Ok(Decided::New) => {}
            Ok(Decided::Repeated { .. }) => {
                return Err(BenchError::failed("a fresh command")("its key was used".into()));
            }
            Err(refusal) => {
                return Err(BenchError::Refused { what: "a command", refusal: refusal.to_string() });
            }
        }
        for event in &self.events {
            ledger::apply(&mut self.state, event).tried("apply what was decided")?;
        }
        self.in_commit += self.events.len();
        if self.in_commit >= COMMIT_EVENTS {
            self.end_commit()?;
        }
        Ok(())
    }

    fn end_commit(&mut self) -> Result<(), BenchError> {
        let (number, time_us) = (self.state.last_commit() + 1, self.state.last_time_us());
        self.in_commit = 0;
        ledger::end_commit(&mut self.state, number, Hash32([9; 32]), time_us).tried("end a commit")
    }
}

/// Runs it.
pub fn run(options: LedgerOptions) -> Result<Report, BenchError> {
    let settings = serde_json::json!({
        "accounts": options.accounts, "operations": options.operations, "threads": 1,
        "commit_events": COMMIT_EVENTS, "what": "decide + apply, i128 amounts, idempotency keys kept",
    });
    let mut report = Report::new("ledger", settings);
    let before = resident_bytes();
    let mut load = Load::new(options.accounts, 0);
    let mut world = open(&mut load, options.accounts)?;
    let keys = f64::from(options.accounts) * 2.0;
    let grown = resident_bytes().saturating_sub(before) as f64;
    let opening = grown / f64::from(options.accounts);

    let mut pauses = Samples::default();
    let before = resident_bytes();
    let transfers = transfers(&mut world, &mut load, options.operations, &mut pauses)?;
    // Of a transfer only its key stays.
    let key_bytes = resident_bytes().saturating_sub(before) as f64 / f64::from(options.operations);
    let bare = bare_transfers(options);
    let limit = "bare balance and key tables";
    report.results.push(ResultLine::rate("apply.transfer", transfers).against(limit, bare));
    let pairs = pairs(&mut world, &mut load, options.operations, &mut pauses)?;
    report.results.push(ResultLine::rate("apply.hold_capture", pairs).against(limit, bare));
    report.results.push(ResultLine::time_ms("apply.pause_longest", pauses.quantile_ms(1.0)));
    // The two keys of each opening are in the figure too: they are taken out.
    let bytes = opening - key_bytes * keys / f64::from(options.accounts);
    report.results.push(ResultLine::bytes("state.bytes_per_account", bytes));
    report.results.push(ResultLine::bytes("state.bytes_per_key", key_bytes));

    let started = Instant::now();
    let snapshot = ledger::snapshot::write(&world.state);
    report.results.push(ResultLine::time_ms("snapshot.write", started.elapsed().as_secs_f64() * 1e3));
    let started = Instant::now();
    let read = ledger::snapshot::read(&snapshot).tried("read the snapshot back")?;
    report.results.push(ResultLine::time_ms("snapshot.read", started.elapsed().as_secs_f64() * 1e3));
    let size = snapshot.len() as f64;
    report.results.push(ResultLine::new("snapshot.bytes", size, "bytes", Better::Lower));
    if read.hash() != world.state.hash() {
        return Err(BenchError::failed("compare the snapshot")("it reads back as another state".into()));
    }
    Ok(report)
}

fn open(load: &mut Load, accounts: u32) -> Result<World, BenchError> {
    let mut world = World { state: State::new(0), events: Vec::new(), in_commit: 0 };
    let body = CommandBody::OpenNetwork(genesis());
    let first = Command::new(IdempotencyKey([0xff; 16]), Actor::Writer, body);
    world.run(&first, now_us())?;
    world.end_commit()?;
    for command in load.opening() {
        world.run(&command, now_us())?;
    }
    for number in 0..accounts {
        for command in load.account(number) {
            world.run(&command, now_us())?;
        }
    }
    world.end_commit()?;
    Ok(world)
}

/// Runs prepared commands, noting each commit-sized stretch as one possible pause.
fn timed(world: &mut World, commands: &[Command], pauses: &mut Samples) -> Result<Duration, BenchError> {
    let now_us = now_us();
    let mut all = Duration::ZERO;
    for stretch in commands.chunks(STRETCH) {
        let started = Instant::now();
        ledger::look_ahead(&world.state, stretch);
        for command in stretch {
            world.run(command, now_us)?;
        }
        let took = started.elapsed();
        pauses.push(took);
        all += took;
    }
    Ok(all)
}

fn transfers(
    world: &mut World,
    load: &mut Load,
    count: u32,
    pauses: &mut Samples,
) -> Result<f64, BenchError> {
    let mut all = Duration::ZERO;
    let mut done = 0;
    while done < count as usize {
        let commands: Vec<Command> = (0..CHUNK).map(|_| load.transfer(Spread::Uniform)).collect();
        all += timed(world, &commands, pauses)?;
        done += commands.len();
    }
    Ok(done as f64 / all.as_secs_f64())
}

fn pairs(world: &mut World, load: &mut Load, count: u32, pauses: &mut Samples) -> Result<f64, BenchError> {
    let mut all = Duration::ZERO;
    let mut done = 0;
    while done < count as usize {
        for _ in 0..OPEN_HOLDS / CHUNK {
            let commands: Vec<Command> = (0..CHUNK).map(|_| load.admit()).collect();
            all += timed(world, &commands, pauses)?;
        }
        for _ in 0..OPEN_HOLDS / CHUNK {
            let commands: Vec<Command> = (0..CHUNK).map_while(|_| load.capture()).collect();
            all += timed(world, &commands, pauses)?;
            done += commands.len();
        }
    }
    Ok(done as f64 / all.as_secs_f64())
}

/// The least that any ledger with exact amounts and idempotency keys does for a transfer: one key looked up and noted,
/// two balances checked and changed. No events, no rules.
fn bare_transfers(options: LedgerOptions) -> f64 {
    let mut balances = vec![1_000_000_000_000i128; options.accounts as usize];
    let mut keys: HashMap<u128, u64> = HashMap::new();
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let started = Instant::now();
    for leaf in 0..u64::from(options.operations) {
        let (a, b) = (next(), next());
        let key = u128::from(a) << 64 | u128::from(b);
        if keys.contains_key(&key) {
            continue;
        }
        let from = (a % u64::from(options.accounts)) as usize;
        let to = (b % u64::from(options.accounts)) as usize;
        let amount = i128::from(a % 1_000);
        if balances[from] >= amount {
            balances[from] -= amount;
            balances[to] += amount;
            keys.insert(key, leaf);
        }
    }
    let took = started.elapsed();
    black_box(&balances);
    f64::from(options.operations) / took.as_secs_f64()
}
