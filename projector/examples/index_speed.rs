//! How fast the index is built and answers, on a synthetic log of a million events (or as many as the first argument
//! says): `cargo run --release -p projector --example index_speed`. Three of four events are holds, dispatches and
//! charges of 10 000 accounts and 50 operators; the rest are grants.

use projector::index::{At, Index, LogCommit, Range};
use protocol::amount::Amount;
use protocol::asset::{Asset, AssetId};
use protocol::event::account::{AccountKind, AccountOpened, LedgerAccountsOpened, OpenedLedgerAccount};
use protocol::event::batch::{BatchClosed, Rail};
use protocol::event::grant::{Backing, GrantIssued, GrantSource};
use protocol::event::hold::{HoldPlaced, Slice};
use protocol::event::job::{JobDispatched, Outcome, UsageCaptured};
use protocol::event::policy::{NetworkOpened, Settings};
use protocol::event::*;
use protocol::id::*;
use std::time::{Duration, Instant};

const ACCOUNTS: u32 = 10_000;
const OPERATORS: u32 = 50;
const EVENTS_PER_COMMIT: usize = 40;
const EXPENSE: u32 = 0;
const HOLDS: u32 = 1;
const REVENUE: u32 = 2;
/// First customer's account.
const CUSTOMERS: u32 = 3;
/// First operator's.
const EARNERS: u32 = CUSTOMERS + ACCOUNTS;

struct Log {
    leaf: u64,
    commit: u64,
    previous: Hash32,
    jobs: u64,
    queue: Vec<Event>,
    random: u64,
}

fn id(tag: u8, n: u64) -> [u8; 16] {
    let mut bytes = [tag; 16];
    // Spread like random ids, so that look-ups are not in order.
    bytes[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    bytes
}

impl Log {
    fn next_random(&mut self, bound: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % bound
    }

    fn push(&mut self, body: impl Into<EventBody>, booked: &[(u32, i128)], reserved: &[(u32, i128)]) {
        let legs = |legs: &[(u32, i128)]| {
            let leg =
                |(n, amount): &(u32, i128)| Posting { account: LedgerAccount(*n), amount: Amount(*amount) };
            legs.iter().map(leg).collect()
        };
        self.queue.push(Event {
            version: EVENT_VERSION,
            header: Header {
                shard: 0,
                leaf: self.leaf,
                commit: self.commit + 1,
                time_us: 1_790_000_000_000_000 + self.leaf * 737,
                actor: Actor::Gateway,
                key: IdempotencyKey(id(9, self.leaf)),
                command: 0,
            },
            body: body.into(),
            postings: legs(booked),
            pending: legs(reserved),
        });
        self.leaf += 1;
    }

    fn begin(&mut self) {
        let foil = Asset { id: AssetId(0), symbol: "FOIL".into(), ledger_scale: 9, chain_scale: Some(18) };
        let settings = Settings {
            epoch_us: 1,
            hold_grace_us: 1,
            job_deadline_us_max: 1,
            idempotency_us: 1,
            settle_units_min: 0,
            voucher_us: 1,
            authorisation_margin_epochs: 0,
            capture_tolerance_ppm: None,
        };
        let network = NetworkOpened {
            origin: "speed.test/0".into(),
            preset: "prepaid".into(),
            preset_hash: Hash32([0; 32]),
            assets: vec![foil],
            settings,
        };
        self.push(network, &[], &[]);
        let system = [AccountKind::PromoExpense, AccountKind::HoldsPending, AccountKind::PlatformRevenue];
        let mut opened: Vec<(AccountId, AccountKind)> =
            system.into_iter().map(|kind| (AccountId::SYSTEM, kind)).collect();
        opened.extend((0..ACCOUNTS).map(|n| (AccountId(id(1, n.into())), AccountKind::CustomerPromo)));
        opened.extend((0..OPERATORS).map(|n| (AccountId(id(2, n.into())), AccountKind::OperatorAccrued)));
        for (n, (owner, kind)) in opened.into_iter().enumerate() {
            let number = LedgerAccount(n as u32);
            let one = OpenedLedgerAccount { number, owner, kind, asset: AssetId(0) };
            self.push(AccountOpened { account: owner }, &[], &[]);
            self.push(LedgerAccountsOpened { opened: vec![one] }, &[], &[]);
        }
    }

    fn job(&mut self) {
        self.jobs += 1;
        let (job, hold) = (JobId(id(3, self.jobs)), HoldId(id(4, self.jobs)));
        let customer = self.next_random(ACCOUNTS.into()) as u32;
        let operator = self.next_random(OPERATORS.into()) as u32;
        let cost = 1_000_000 + self.next_random(9_000_000) as i128;
        let reserved = cost * 3;
        let (from, to) = (CUSTOMERS + customer, EARNERS + operator);
        self.grant_and_hold(customer, reserved);
        let (node, operator_id) = (NodeId(id(5, operator.into())), OperatorId([operator as u8; 32]));
        let body = Hash32([0; 32]);
        self.push(
            JobDispatched { job, attempt: 0, node, operator: operator_id, body, continues_at: 0 },
            &[],
            &[],
        );
        let share = cost * 8 / 10;
        let capture = UsageCaptured {
            hold,
            job,
            attempt: 0,
            node,
            operator: operator_id,
            outcome: Outcome::Completed,
            input_units: 500,
            output_units: 300,
            output_units_worker: 300,
            output_units_gateway: 300,
            cost: Amount(cost),
            slices: vec![Slice { grant: GrantId(customer), amount: Amount(cost) }].into(),
            operator_share: Amount(share),
            platform_share: Amount(cost - share),
            receipt: Hash32([0; 32]),
            chain_head: Hash32([0; 32]),
            part: None,
            beyond_hold: None,
        };
        let booked = [(from, cost), (to, -share), (REVENUE, share - cost)];
        self.push(capture, &booked, &[(from, -reserved), (HOLDS, reserved)]);
        if self.jobs.is_multiple_of(20_000) {
            self.batch();
        }
    }

    /// A grant, and a hold of all of it for the current job.
    fn grant_and_hold(&mut self, customer: u32, reserved: i128) {
        let (job, hold) = (JobId(id(3, self.jobs)), HoldId(id(4, self.jobs)));
        let (from, account) = (CUSTOMERS + customer, AccountId(id(1, customer.into())));
        self.push(
            GrantIssued {
                grant: GrantId(self.jobs as u32),
                account,
                source: GrantSource::Promo,
                asset: AssetId(0),
                amount: Amount(reserved),
                priority: 30,
                scope: vec![],
                expires_us: None,
                backing: Backing::Unbacked,
            },
            &[(EXPENSE, reserved), (from, -reserved)],
            &[],
        );
        self.push(
            HoldPlaced {
                hold,
                job,
                account,
                asset: AssetId(0),
                amount: Amount(reserved),
                slices: vec![Slice { grant: GrantId(customer), amount: Amount(reserved) }].into(),
                rate_card_version: 1,
                rate_card_hash: Hash32([0; 32]),
                model: "small".into(),
                input_units: 500,
                output_units_max: 1_000,
                deadline_us: 0,
                spender: None,
            },
            &[],
            &[(from, reserved), (HOLDS, -reserved)],
        );
    }

    fn batch(&mut self) {
        let vault = protocol::asset::VaultRef { chain_id: 1, vault: EvmAddress([0; 20]) };
        let closed = BatchClosed {
            short: None,
            batch: BatchId(id(6, self.jobs)),
            number: self.jobs,
            vault,
            asset: AssetId(0),
            cutoff_leaf: self.leaf,
            rail: Rail::RootClaims,
            charges: vec![],
            payouts: vec![],
        };
        self.push(closed, &[], &[]);
    }
}

/// Commits as they are made; the log is never whole in memory.
struct Commits {
    log: Log,
    events: u64,
    left: Vec<Event>,
}

impl Iterator for Commits {
    type Item = Result<LogCommit, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_empty() && self.log.leaf >= self.events {
            return None;
        }
        while self.left.len() < EVENTS_PER_COMMIT && self.log.leaf < self.events {
            self.log.job();
            self.left.append(&mut self.log.queue);
        }
        let rest = self.left.split_off(self.left.len().min(EVENTS_PER_COMMIT));
        let mut events = std::mem::replace(&mut self.left, rest);
        self.log.commit += 1;
        let number = self.log.commit;
        events.iter_mut().for_each(|event| event.header.commit = number);
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        let hash = Hash32(hash);
        let previous = std::mem::replace(&mut self.log.previous, hash);
        Some(Ok(LogCommit { number, hash, previous, events }))
    }
}

fn commits(events: u64) -> Commits {
    let previous = Hash32([0; 32]);
    let mut log = Log { leaf: 0, commit: 0, previous, jobs: 0, queue: Vec::new(), random: 1 };
    log.begin();
    let left = std::mem::take(&mut log.queue);
    Commits { log, events, left }
}

fn time(name: &str, rounds: u32, mut ask: impl FnMut(u64) -> usize) {
    let mut times: Vec<Duration> = Vec::new();
    let mut size = 0;
    for round in 0..rounds {
        let start = Instant::now();
        size += ask(u64::from(round) * 7_919 + 13);
        times.push(start.elapsed());
    }
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1_000.0;
    println!(
        "{name:42} p50 {:8.3} ms  p99 {:8.3} ms  ({} lines a time)",
        at(50),
        at(99),
        size / rounds as usize
    );
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn main() {
    let events: u64 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let start = Instant::now();
    let count = commits(events).map(|commit| commit.map_or(0, |c| c.events.len())).sum::<usize>();
    let made = start.elapsed();
    let dir = tempfile::tempdir().expect("a folder for the index");
    let start = Instant::now();
    let (index, _) = Index::catch_up(dir.path(), |_| commits(events)).expect("a log that adds up");
    let built = start.elapsed().saturating_sub(made);
    let file = std::fs::metadata(dir.path().join("index.redb")).expect("the index").len();
    println!("events {count}, made in {:.2} s", made.as_secs_f64());
    println!("built in {:.2} s: {:.0} events/s", built.as_secs_f64(), count as f64 / built.as_secs_f64());
    println!("file {file} bytes: {:.1} bytes an event", file as f64 / count as f64);
    println!("most resident memory {} MB", resident_bytes() / 1_000_000);
    drop(index);
    let start = Instant::now();
    let index = Index::open(dir.path()).expect("the index just written");
    println!("{:42} {:8.3} ms", "open", start.elapsed().as_secs_f64() * 1_000.0);
    ask(&index);
}

fn ask(index: &Index) {
    let size = index.position().size;
    let some = |n: u64| At::Size(n * 104_729 % size);
    let customer = |n: u64| LedgerAccount(CUSTOMERS + (n % u64::from(ACCOUNTS)) as u32);
    time("balance at a size, one of 10 000", 2_000, |n| {
        index.balance(customer(n), some(n)).expect("a balance");
        1
    });
    time("balance at a size, the busiest account", 2_000, |n| {
        index.balance(LedgerAccount(HOLDS), some(n)).expect("a balance");
        1
    });
    let begin = 1_790_000_000_000_000;
    time("balance at a time", 2_000, |n| {
        let at = At::Time(begin + n * 104_729 * 737 % (size * 737));
        index.balance(customer(n), at).expect("a balance");
        1
    });
    let batches: Vec<BatchId> =
        (1..=index.position().size / 80_000).map(|n| BatchId(id(6, n * 20_000))).collect();
    if !batches.is_empty() {
        time("balance at a batch", 2_000, |n| {
            let at = At::Batch(batches[n as usize % batches.len()]);
            index.balance(customer(n), at).map_or(0, |_| 1)
        });
    }
    time("statement of one of 10 000, whole", 500, |n| {
        index.statement(customer(n), &Range::until(some(n))).expect("a statement").len()
    });
    time("statement, 1 000 newest, the busiest account", 100, |n| {
        let range = Range { lines_max: 1_000, ..Range::until(some(n)) };
        index.statement(LedgerAccount(EARNERS), &range).expect("a statement").len()
    });
    time("trial balance of 10 053 accounts", 20, |n| {
        index.trial_balance(some(n)).expect("a trial").lines.len()
    });
    time("open holds", 200, |n| index.holds(some(n)).expect("holds").len());
}
