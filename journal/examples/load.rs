//! Load on one durable ledger: a real nats-server (fsync before every acknowledgement), one journal, and the same bytes
//! published raw to JetStream in the same run. `cargo run --release -p journal --example load -- [SECONDS] [ACCOUNTS]`.
//! Must not: be a test (it measures; the numbers depend on the machine).

use journal::auth::{Role, connect};
use journal::server::{NatsServer, NatsServerOptions, PortChoice, find_nats_server};
use journal::stream::{LEDGER_SUBJECT, init_streams};
use journal::{Journal, JournalOptions, LedgerClient, SubmitError};
use ledger::Command;
use ledger::command::{Admit, Capture, IssueGrant, MoveCredit, OpenAccount, PublishRateCard};
use protocol::amount::Amount;
use protocol::asset::{Asset, AssetId};
use protocol::event::grant::{Backing, GrantSource};
use protocol::event::job::Outcome;
use protocol::event::node::{NodeRegistered, OperatorRegistered};
use protocol::event::policy::{NetworkOpened, Settings};
use protocol::event::{Actor, GrantId};
use protocol::id::{
    AccountId, EvmAddress, Hash32, HoldId, IdempotencyKey, JobId, NodeId, OperatorId, SealingKey,
};
use protocol::rate::{ModelRate, ProofClass, RateCard, Unit};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const HOUR_US: u64 = 3_600_000_000;
const MODEL: &str = "small";
const NODE: NodeId = NodeId([3; 16]);
const BATCH: usize = 1_000;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the clients do.
#[derive(Clone, Copy, PartialEq)]
enum Mix {
    /// Credit moves between buckets of all accounts.
    Uniform,
    /// One bucket is in every move.
    Hot,
    /// Three commands of ten are holds (captured by the next batch's commands).
    Holds30,
    /// A hold, then its capture, one after the other.
    Pairs,
}

struct Phase {
    name: &'static str,
    mix: Mix,
    clients: usize,
    batch: usize,
}

const PHASES: &[Phase] = &[
    Phase { name: "8 k in flight, uniform", mix: Mix::Uniform, clients: 8, batch: BATCH },
    Phase { name: "8 k in flight, hot", mix: Mix::Hot, clients: 8, batch: BATCH },
    Phase { name: "8 k in flight, 30 % holds", mix: Mix::Holds30, clients: 8, batch: BATCH },
    Phase { name: "one client, 100 at a time", mix: Mix::Uniform, clients: 1, batch: 100 },
    Phase { name: "32 clients, one in flight", mix: Mix::Uniform, clients: 32, batch: 1 },
    Phase { name: "one at a time", mix: Mix::Uniform, clients: 1, batch: 1 },
    Phase { name: "hold and capture in sequence", mix: Mix::Pairs, clients: 1, batch: 1 },
];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let seconds: f64 = args.next().map_or(Ok(3.0), |text| text.parse())?;
    let accounts: u32 = args.next().map_or(Ok(10_000), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let server = start_server(&dir.path().join("a")).await?;
    let raw_server = start_server(&dir.path().join("b")).await?;
    let credentials = server.keys().credentials(Role::Writer).clone();
    let mut options = JournalOptions::new(server.url(), credentials, dir.path().join("data"));
    options.genesis = Some(genesis());
    let journal = Journal::open(options).await?;
    set_up(&journal.client(), accounts).await?;
    println!(
        "{:<30} {:>11} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8}  raw JetStream, same bytes",
        "phase", "commands/s", "p50 ms", "p99 ms", "p99.9", "refused", "commits/s", "B/cmd"
    );
    let stopwatch = Duration::from_secs_f64(seconds);
    for (k, phase) in PHASES.iter().enumerate() {
        if std::env::var("ONLY").is_ok_and(|only| !only.contains(&k.to_string())) {
            continue;
        }
        run_phase(&journal, &raw_server, phase, k as u64, accounts, stopwatch).await?;
    }
    journal.shutdown().await?;
    Ok(())
}

async fn run_phase(
    journal: &Journal,
    raw_server: &NatsServer,
    phase: &Phase,
    number: u64,
    accounts: u32,
    stopwatch: Duration,
) -> Result<(), Failure> {
    let before = *journal.position().borrow();
    let bytes_before = raw_bytes(journal).await?;
    let begin = Instant::now();
    let clients = (0..phase.clients).map(|client| {
        let source = Source::new(number << 32 | client as u64, phase.mix, accounts);
        tokio::spawn(run_client(journal.client(), source, phase.batch, begin + stopwatch))
    });
    let (mut latencies, mut refused) = (Vec::new(), 0);
    for client in clients.collect::<Vec<_>>() {
        let (l, r) = client.await??;
        latencies.extend(l);
        refused += r;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let commits = journal.position().borrow().commit - before.commit;
    let commands = latencies.len() * phase.batch;
    let bytes = raw_bytes(journal).await? - bytes_before;
    let raw = raw_publish(raw_server, (bytes / commits.max(1)) as usize, stopwatch / 3).await?;
    latencies.sort_unstable();
    let at = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize] as f64 / 1_000.0;
    let raw_commands = raw * commands as f64 / commits.max(1) as f64;
    println!(
        "{:<30} {:>11.0} {:>8.3} {:>8.3} {:>8.3} {refused:>8} {:>9.0} {:>8.0}  {raw:.0} messages/s of {} B = {raw_commands:.0} commands/s; ratio {:.2}",
        phase.name,
        commands as f64 / seconds,
        at(0.5),
        at(0.99),
        at(0.999),
        commits as f64 / seconds,
        bytes as f64 / commands as f64,
        bytes / commits.max(1),
        commands as f64 / seconds / raw_commands,
    );
    Ok(())
}

/// Sends a batch, waits, sends the next; microseconds of each, and how many commands were refused.
async fn run_client(
    client: LedgerClient,
    mut source: Source,
    batch: usize,
    until: Instant,
) -> Result<(Vec<u32>, u64), SubmitError> {
    let (mut latencies, mut refused) = (Vec::with_capacity(1 << 16), 0);
    while Instant::now() < until {
        if batch == 1 {
            let command = source.next();
            let begin = Instant::now();
            let placed = client.submit_placed(command).await;
            latencies.push(begin.elapsed().as_micros() as u32);
            refused += u64::from(!accepted(placed)?);
        } else {
            let commands = (0..batch).map(|_| source.next()).collect();
            let begin = Instant::now();
            let results = client.submit_many(commands).await?;
            latencies.push(begin.elapsed().as_micros() as u32);
            for result in results {
                refused += u64::from(!accepted(result)?);
            }
        }
    }
    Ok((latencies, refused))
}

fn accepted<T>(result: Result<T, SubmitError>) -> Result<bool, SubmitError> {
    match result {
        Ok(_) => Ok(true),
        Err(SubmitError::Refused { .. }) => Ok(false),
        Err(other) => Err(other),
    }
}

/// One message of this size at a time, expected sequence and id as the writer sends them; messages per second.
async fn raw_publish(server: &NatsServer, bytes: usize, stopwatch: Duration) -> Result<f64, Failure> {
    let client = connect(&server.url(), server.keys().credentials(Role::Writer)).await?;
    let context = async_nats::jetstream::new(client);
    let mut last =
        context.get_stream(journal::stream::LEDGER_STREAM).await?.info().await?.state.last_sequence;
    let payload = bytes::Bytes::from(vec![0xa5; bytes.max(1)]);
    let (begin, first) = (Instant::now(), last);
    while begin.elapsed() < stopwatch {
        let message = async_nats::jetstream::message::PublishMessage::build()
            .payload(payload.clone())
            .expected_last_sequence(last)
            .message_id(format!("{last:064x}"));
        context.send_publish(LEDGER_SUBJECT, message).await?.await?;
        last += 1;
    }
    Ok((last - first) as f64 / begin.elapsed().as_secs_f64())
}

async fn raw_bytes(journal: &Journal) -> Result<u64, Failure> {
    Ok(journal.reader().info().await?.bytes)
}

/// Commands of one client.
struct Source {
    random: u64,
    mix: Mix,
    accounts: u32,
    /// A hold that waits for its capture.
    open: Option<JobId>,
}

impl Source {
    fn new(seed: u64, mix: Mix, accounts: u32) -> Self {
        Self { random: seed.wrapping_mul(0xD6E8_FEB8_6659_FD93), mix, accounts, open: None }
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn id(&mut self) -> [u8; 16] {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.random().to_be_bytes());
        id[8..].copy_from_slice(&self.random().to_be_bytes());
        id
    }

    fn next(&mut self) -> Command {
        let key = IdempotencyKey(self.id());
        if let Some(job) = self.open.take() {
            return Command::new(key, Actor::Gateway, capture(job));
        }
        let holds = match self.mix {
            Mix::Uniform | Mix::Hot => false,
            // 30 % holds and as many captures.
            Mix::Holds30 => self.random() % 70 < 30,
            Mix::Pairs => true,
        };
        let account = (self.random() % u64::from(self.accounts)) as u32;
        if holds {
            let job = JobId(self.id());
            self.open = Some(job);
            return Command::new(key, Actor::Gateway, admit(job, account));
        }
        let from = if self.mix == Mix::Hot { 0 } else { account };
        let to = (from + 1 + (self.random() % u64::from(self.accounts - 1)) as u32) % self.accounts;
        let (from, to) = if self.random().is_multiple_of(2) { (from, to) } else { (to, from) };
        let amount = Amount(1 + (self.random() % 1_000) as i128);
        Command::new(key, Actor::Admin, MoveCredit { from: GrantId(from), to: GrantId(to), amount })
    }
}

fn account(number: u32) -> AccountId {
    let mut id = [7; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    AccountId(id)
}

fn admit(job: JobId, number: u32) -> Admit {
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
    Admit {
        hold: HoldId(job.0),
        job,
        account: account(number),
        model: MODEL.into(),
        input_units: 100,
        output_units_max: 1_000,
        deadline_us: now_us + HOUR_US / 2,
        node: NODE,
        body: Hash32([4; 32]),
        spender: None,
    }
}

fn capture(job: JobId) -> Capture {
    Capture {
        job,
        attempt: 0,
        outcome: Outcome::Completed,
        input_units: 100,
        output_units_worker: 400,
        output_units_gateway: 400,
        receipt: Hash32([5; 32]),
        chain_head: Hash32([6; 32]),
        part: None,
    }
}

async fn start_server(dir: &Path) -> Result<NatsServer, Failure> {
    let options =
        NatsServerOptions { binary: find_nats_server()?, data_dir: dir.to_owned(), port: PortChoice::Any };
    let server = NatsServer::start(options).await?;
    init_streams(&connect(&server.url(), &server.keys().init_credentials()?).await?).await?;
    Ok(server)
}

/// A rate card, a node, accounts with one bucket each.
async fn set_up(client: &LedgerClient, accounts: u32) -> Result<(), Failure> {
    let operator = OperatorId([2; 32]);
    let node = NodeRegistered {
        node: NODE,
        operator,
        models: vec![MODEL.into()],
        slots: u32::MAX,
        sealing_key: SealingKey([1; 32]),
    };
    let payout_address = EvmAddress([9; 20]);
    let card = RateCard { version: 1, effective_us: 0, headroom_ppm: 0, models: vec![rate()] };
    let mut commands = vec![
        command(0, PublishRateCard { card }),
        command(1, OpenAccount { account: account(u32::MAX) }),
        command(2, OperatorRegistered { operator, account: account(u32::MAX), payout_address }),
        command(3, node),
    ];
    for number in 0..accounts {
        commands.push(command(10 + 2 * u64::from(number), OpenAccount { account: account(number) }));
        let grant = IssueGrant {
            account: account(number),
            source: GrantSource::Package,
            asset: AssetId(0),
            amount: Amount(10i128.pow(18)),
            priority: 5,
            scope: Vec::new(),
            expires_us: None,
            backing: Backing::Unbacked,
        };
        commands.push(command(11 + 2 * u64::from(number), grant));
    }
    for part in commands.chunks(BATCH) {
        for result in client.submit_many(part.to_vec()).await? {
            result?;
        }
    }
    Ok(())
}

fn command(number: u64, body: impl Into<ledger::CommandBody>) -> Command {
    Command::new(IdempotencyKey::internal("load", &[&number.to_be_bytes()]), Actor::Admin, body)
}

fn rate() -> ModelRate {
    ModelRate {
        model: MODEL.into(),
        weights: Hash32([1; 32]),
        tokenizer: Hash32([2; 32]),
        template: Hash32([3; 32]),
        licence: "Apache-2.0".into(),
        proof_class: ProofClass::ReExecutable,
        asset: AssetId(0),
        unit: Unit::Token,
        price: Amount(1_000),
        per_units: 1_000,
        operator_share_ppm: 800_000,
        context_tokens: 100_000,
    }
}

fn genesis() -> NetworkOpened {
    NetworkOpened {
        origin: "counterfoil.example/load/0".into(),
        preset: "load".into(),
        preset_hash: Hash32([1; 32]),
        assets: vec![Asset { id: AssetId(0), symbol: "CRED".into(), ledger_scale: 9, chain_scale: None }],
        settings: Settings {
            epoch_us: 6 * HOUR_US,
            hold_grace_us: 60_000_000,
            job_deadline_us_max: HOUR_US,
            idempotency_us: 24 * HOUR_US,
            settle_units_min: 0,
            voucher_us: HOUR_US,
            authorisation_margin_epochs: 2,
            capture_tolerance_ppm: None,
        },
    }
}
