//! How fast and how small the pure core is, on one core: moved credit, holds with captures, bytes an account and a key,
//! the longest pause while the state grows, snapshots. `cargo run --release -p ledger --example ledger_speed -- [accounts]
//! [commands]`. The figures of a network are `counterfoil bench ledger`'s.

use ledger::command::*;
use ledger::{Command, CommandBody, Decided, State, apply, decide_into, end_commit, look_ahead, snapshot};
use protocol::amount::Amount;
use protocol::asset::{Asset, AssetId};
use protocol::event::grant::{Backing, GrantSource};
use protocol::event::job::Outcome;
use protocol::event::node::{NodeRegistered, OperatorRegistered};
use protocol::event::policy::{NetworkOpened, Settings};
use protocol::event::{Actor, Event, GrantId};
use protocol::id::*;
use protocol::rate::{ModelRate, ProofClass, RateCard, Unit};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Counts live bytes. One thread allocates, so a load and a store are enough; an atomic addition would wait for every
/// write before it, at every allocation, and what is measured would be that.
struct Counting;
static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code, reason = "an allocator is unsafe by its trait; it only counts and passes on")]
// SAFETY: every call is passed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE_BYTES.store(live_bytes().wrapping_add(layout.size()), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.store(live_bytes().wrapping_sub(layout.size()), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn live_bytes() -> usize {
    LIVE_BYTES.load(Ordering::Relaxed)
}

const MODEL: &str = "model";
const S: u64 = 1_000_000;
/// Commands a commit, as a loaded writer makes them.
const COMMIT_COMMANDS: usize = 2_048;

fn id(kind: u8, n: u64) -> [u8; 16] {
    let hash = blake3::hash(&[&[kind][..], &n.to_le_bytes()].concat());
    hash.as_bytes()[..16].try_into().expect("16 of 32 bytes")
}

struct Driver {
    state: State,
    events: Vec<Event>,
    now_us: u64,
    in_commit: usize,
    keys: u64,
    refused: u64,
    longest: Duration,
    longest_at: u64,
}

impl Driver {
    fn new() -> Driver {
        Driver {
            state: State::new(0),
            events: Vec::new(),
            now_us: 1_000 * S,
            in_commit: 0,
            keys: 0,
            refused: 0,
            longest: Duration::ZERO,
            longest_at: 0,
        }
    }

    fn command(&mut self, body: impl Into<CommandBody>) -> Command {
        self.keys += 1;
        Command::new(IdempotencyKey(id(0, self.keys)), Actor::Gateway, body)
    }

    /// Decides and applies; looks at the clock around it.
    fn run(&mut self, command: &Command) {
        let begin = Instant::now();
        self.step(command);
        let took = begin.elapsed();
        if took > self.longest {
            (self.longest, self.longest_at) = (took, self.keys);
        }
    }

    fn step(&mut self, command: &Command) {
        self.events.clear();
        match decide_into(&self.state, command, self.now_us, &mut self.events) {
            Ok(Decided::New) => {}
            Ok(Decided::Repeated { .. }) => panic!("a key came twice"),
            Err(refusal) => {
                assert!(self.refused < 1_000, "{refusal}");
                self.refused += 1;
                return;
            }
        }
        for event in &self.events {
            apply(&mut self.state, event).expect("what was decided can be applied");
        }
        self.in_commit += 1;
        if self.in_commit == COMMIT_COMMANDS {
            self.commit();
        }
    }

    fn commit(&mut self) {
        self.in_commit = 0;
        self.now_us += 1_000;
        let number = self.state.last_commit() + 1;
        end_commit(&mut self.state, number, Hash32([1; 32]), self.now_us).expect("the next commit");
    }

    fn must(&mut self, body: impl Into<CommandBody>) {
        let command = self.command(body);
        let refused = self.refused;
        self.step(&command);
        assert_eq!(self.refused, refused);
        self.commit();
    }
}

const ASSET: AssetId = AssetId(0);
const OPERATORS: u64 = 256;

fn open_network(driver: &mut Driver) {
    driver.must(NetworkOpened {
        origin: "speed.example/0".into(),
        preset: "speed".into(),
        preset_hash: Hash32([0; 32]),
        assets: vec![Asset { id: ASSET, symbol: "FOIL".into(), ledger_scale: 9, chain_scale: None }],
        settings: Settings {
            epoch_us: 100 * S,
            hold_grace_us: 10 * S,
            job_deadline_us_max: 600 * S,
            idempotency_us: 3_600 * S,
            settle_units_min: 0,
            voucher_us: S,
            authorisation_margin_epochs: 0,
            capture_tolerance_ppm: None,
        },
    });
    let rate = ModelRate {
        model: MODEL.into(),
        weights: Hash32([1; 32]),
        tokenizer: Hash32([2; 32]),
        template: Hash32([3; 32]),
        licence: "Apache-2.0".into(),
        proof_class: ProofClass::ReExecutable,
        asset: ASSET,
        unit: Unit::Token,
        price: Amount(50_000),
        per_units: 1_000_000,
        operator_share_ppm: 812_345,
        context_tokens: 100_000,
    };
    let card = RateCard { version: 1, effective_us: 0, headroom_ppm: 0, models: vec![rate] };
    driver.must(PublishRateCard { card });
    for n in 0..OPERATORS {
        let account = AccountId(id(9, n));
        let operator = OperatorId([id(8, n), id(8, n)].concat().try_into().expect("32 bytes"));
        driver.must(OpenAccount { account });
        let payout_address = EvmAddress(id(7, n).repeat(2)[..20].try_into().expect("20 bytes"));
        driver.must(OperatorRegistered { operator, account, payout_address });
        driver.must(NodeRegistered {
            node: NodeId(id(6, n)),
            operator,
            models: vec![MODEL.into()],
            slots: 4,
            sealing_key: SealingKey([0; 32]),
        });
    }
}

fn grant(driver: &mut Driver, n: u64, priority: u8, amount: i128) {
    let command = driver.command(IssueGrant {
        account: AccountId(id(1, n)),
        source: GrantSource::Earned,
        asset: ASSET,
        amount: Amount(amount),
        priority,
        scope: vec![],
        expires_us: None,
        backing: Backing::Treasury,
    });
    driver.run(&command);
}

/// Time on the clock, and time that this thread really had a core.
#[derive(Clone, Copy)]
struct Watch {
    wall: Instant,
    core: Duration,
}

impl Watch {
    fn start() -> Watch {
        Watch { wall: Instant::now(), core: core_time() }
    }

    fn stop(self) -> Took {
        Took { wall: self.wall.elapsed(), core: core_time().saturating_sub(self.core) }
    }
}

#[derive(Clone, Copy)]
struct Took {
    wall: Duration,
    core: Duration,
}

impl std::fmt::Display for Took {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0?} ({:.0?} on the core)", self.wall, self.core)
    }
}

/// As Linux counts it; zero elsewhere.
fn core_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = text.split_whitespace().next().and_then(|word| word.parse().ok());
    Duration::from_nanos(ns.unwrap_or(0))
}

fn per_second(count: usize, took: Took) -> String {
    let rate = |time: Duration| count as f64 / time.as_secs_f64().max(1e-9) / 1e6;
    format!("{:.2} M/s ({:.2} M/s of core time)", rate(took.wall), rate(took.core))
}

/// A small fixed sequence; quality does not matter.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

fn moves(driver: &mut Driver, accounts: u64, first: u32, count: usize, hot: bool) -> Took {
    let mut seed = 7;
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let from = if hot { 0 } else { next(&mut seed) % accounts };
        let to = (from + 1 + next(&mut seed) % (accounts - 1)) % accounts;
        let (from, to) = (GrantId(first + from as u32), GrantId(first + to as u32));
        all.push(driver.command(MoveCredit { from, to, amount: Amount(3) }));
    }
    let watch = Watch::start();
    for some in all.chunks(256) {
        look_ahead(&driver.state, some);
        some.iter().for_each(|command| driver.step(command));
    }
    watch.stop()
}

/// Every second hold draws on two grants; every capture leaves a part of its hold.
fn pairs(driver: &mut Driver, accounts: u64, count: usize, salt: u64) -> Took {
    let mut seed = 11;
    let mut all = Vec::with_capacity(count * 2);
    for k in 0..count as u64 {
        let (job, operator) = (JobId(id(2, salt + k)), k % OPERATORS);
        let hold = HoldId(id(3, salt + k));
        let n = next(&mut seed) % accounts;
        let deadline_us = driver.now_us + 300 * S;
        all.push(driver.command(Admit {
            hold,
            job,
            account: AccountId(id(1, n)),
            model: MODEL.into(),
            input_units: 400,
            output_units_max: 1_000,
            deadline_us,
            node: NodeId(id(6, operator)),
            body: Hash32([5; 32]),
            spender: None,
        }));
        all.push(driver.command(Capture {
            job,
            attempt: 0,
            outcome: Outcome::Completed,
            input_units: 400,
            output_units_worker: 600,
            output_units_gateway: 601,
            receipt: Hash32([6; 32]),
            chain_head: Hash32([7; 32]),
            part: None,
        }));
    }
    let watch = Watch::start();
    for some in all.chunks(256) {
        look_ahead(&driver.state, some);
        some.iter().for_each(|command| driver.step(command));
    }
    watch.stop()
}

fn main() {
    let argument = |k: usize, default: u64| {
        std::env::args().nth(k).map_or(default, |text| text.parse().expect("a number"))
    };
    let (accounts, count) = (argument(1, 10_000), argument(2, 1_000_000) as usize);
    let mut driver = Driver::new();
    open_network(&mut driver);
    let (empty, keys_before) = (live_bytes(), driver.keys);
    let watch = Watch::start();
    for n in 0..accounts {
        let command = driver.command(OpenAccount { account: AccountId(id(1, n)) });
        driver.run(&command);
    }
    for n in 0..accounts {
        grant(&mut driver, n, 40, 1_000_000_000_000);
    }
    println!("{accounts} accounts with a grant each in {}", watch.stop());
    println!("longest pause while they were opened: {:?}, at command {}", driver.longest, driver.longest_at);
    let with_keys = live_bytes() - empty;
    // Let the keys be forgotten: what is left is the accounts.
    let keys = driver.keys - keys_before;
    driver.now_us += 3_700 * S;
    for _ in 0..=keys / 4_096 {
        driver.commit();
    }
    // Tables do not shrink when keys leave: a state read from its snapshot has what the accounts need.
    let bytes = snapshot::write(&driver.state);
    let before = live_bytes();
    let fresh = snapshot::read(&bytes).expect("what was written");
    let accounts_bytes = live_bytes() - before;
    drop((fresh, bytes));
    println!(
        "bytes an account with a grant: {}; bytes an idempotency key: {}",
        accounts_bytes / accounts as usize,
        with_keys.saturating_sub(accounts_bytes) / keys as usize
    );
    snapshots(&mut driver);
    let took = moves(&mut driver, accounts, 0, count, false);
    println!("moves between {accounts} accounts: {}", per_second(count, took));
    let took = moves(&mut driver, accounts, 0, count, true);
    println!("moves out of one hot account:  {}", per_second(count, took));
    for n in 0..accounts {
        grant(&mut driver, n, 10, 105);
    }
    let before = live_bytes();
    let took = pairs(&mut driver, accounts, count / 2, 0);
    println!("hold + capture: {} pairs", per_second(count / 2, took));
    println!("bytes a finished job with its two keys: {}", (live_bytes() - before) / (count / 2));
    println!(
        "refused: {}; longest pause: {:?}, at command {}",
        driver.refused, driver.longest, driver.longest_at
    );
    snapshots(&mut driver);
}

fn snapshots(driver: &mut Driver) {
    let watch = Watch::start();
    let fork = driver.state.fork();
    let forked = watch.stop();
    let watch = Watch::start();
    let bytes = snapshot::write(&fork);
    let wrote = watch.stop();
    let watch = Watch::start();
    let state = snapshot::read(&bytes).expect("what was written");
    let read = watch.stop();
    assert!(state == driver.state, "the snapshot is the state");
    println!(
        "forked in {forked}; snapshot of {} MB: written in {wrote}, read in {read}",
        bytes.len() / 1_000_000
    );
}
