//! How fast a log is folded again, from the archive and from the live stream, each with a thread that decodes and one that
//! applies; and what the archive costs on the write path. `cargo run --release -p journal --example replay_speed --
//! [EVENTS] [ACCOUNTS] [moves|grants]`, one JSON line a result. Must not: be a test (it measures; the numbers depend on the machine).

use futures::StreamExt;
use journal::auth::{Role, connect};
use journal::pipeline::Position;
use journal::reader::CommittedCommit;
use journal::server::{NatsServer, NatsServerOptions, PortChoice, find_nats_server};
use journal::stream::init_streams;
use journal::tail::{HighWater, Tail, TailOptions};
use journal::{ArchiveReader, Journal, JournalOptions, LedgerClient, ReadError};
use ledger::command::{IssueGrant, MoveCredit, OpenAccount};
use ledger::{Command, CommandBody, State};
use protocol::amount::Amount;
use protocol::asset::{Asset, AssetId};
use protocol::event::grant::{Backing, GrantSource};
use protocol::event::policy::{NetworkOpened, Settings};
use protocol::event::{Actor, GrantId};
use protocol::id::{AccountId, Hash32, IdempotencyKey};
use std::path::Path;
use std::time::Instant;

const HOUR_US: u64 = 3_600_000_000;
const IN_FLIGHT: usize = 8_192;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let events: u64 = args.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let accounts: u32 = args.next().map_or(Ok(10_000), |text| text.parse())?;
    let mix = args.next().unwrap_or_else(|| "moves".to_owned());
    let dir = tempfile::tempdir()?;
    let data_dir = dir.path().join("data");
    let options = NatsServerOptions {
        binary: find_nats_server()?,
        data_dir: dir.path().join("broker"),
        port: PortChoice::Any,
    };
    let server = NatsServer::start(options).await?;
    init_streams(&connect(&server.url(), &server.keys().init_credentials()?).await?).await?;
    let credentials = server.keys().credentials(Role::Writer).clone();
    let mut options = JournalOptions::new(server.url(), credentials, data_dir.clone());
    options.genesis = Some(genesis());
    options.tail_file_bytes_max = 16 * 1024 * 1024;
    let journal = Journal::open(options.clone()).await?;
    fill(&journal.client(), events, accounts, &mix).await?;
    let last = *journal.position().borrow();
    journal.shutdown().await?;
    // Opened again, so that everything complete is sealed while it is not measured.
    let journal = Journal::open(options).await?;
    sealed(&data_dir).await?;
    let reader = journal.reader();
    for _ in 0..3 {
        let archive = ArchiveReader::open(&data_dir)?;
        fold("replay.archive", archive.commits_ahead(1))?;
        let reader = reader.clone();
        let live = move || fold("replay.live", reader.ahead(Position::default(), last.commit));
        tokio::task::spawn_blocking(live).await??;
        fold("replay.archive.one_thread", archive.commits(1))?;
        decode_only("decode.archive", archive.commits(1))?;
        apply_only(archive.commits(1).take(400).collect::<Result<_, _>>()?)?;
    }
    tail_cost(dir.path(), ArchiveReader::open(&data_dir)?.commits(1).take(2_000))?;
    journal.shutdown().await?;
    Ok(())
}

fn print(name: &str, value: f64, unit: &str) {
    println!("{{\"name\": \"{name}\", \"value\": {value:.1}, \"unit\": \"{unit}\"}}");
}

fn fold(
    name: &str,
    commits: impl Iterator<Item = Result<CommittedCommit, ReadError>>,
) -> Result<(), Failure> {
    let mut state = State::new(0);
    let begin = Instant::now();
    for commit in commits {
        commit?.apply_to(&mut state)?;
    }
    print(name, state.next_leaf() as f64 / begin.elapsed().as_secs_f64(), "events/s");
    Ok(())
}

fn decode_only(
    name: &str,
    commits: impl Iterator<Item = Result<CommittedCommit, ReadError>>,
) -> Result<(), Failure> {
    let begin = Instant::now();
    let mut events = 0;
    for commit in commits {
        events += commit?.events.len();
    }
    print(name, events as f64 / begin.elapsed().as_secs_f64(), "events/s");
    Ok(())
}

fn apply_only(commits: Vec<CommittedCommit>) -> Result<(), Failure> {
    let mut state = State::new(0);
    let begin = Instant::now();
    for commit in &commits {
        commit.apply_to(&mut state)?;
    }
    print("apply.alone", state.next_leaf() as f64 / begin.elapsed().as_secs_f64(), "events/s");
    Ok(())
}

/// What the archive costs on the write path: appending to the tail (before the reply), and the syncs beside it.
fn tail_cost(
    dir: &Path,
    commits: impl Iterator<Item = Result<CommittedCommit, ReadError>>,
) -> Result<(), Failure> {
    let data_dir = dir.join("tail-cost");
    let options = TailOptions { data_dir: data_dir.clone(), shard: 0, file_bytes_max: 64 << 20 };
    let mut tail = Tail::open(options)?;
    let mut mark = HighWater::open(&data_dir)?;
    let (mut append, mut sync, mut marks, mut bytes, mut events) = (0.0, Vec::new(), Vec::new(), 0, 0);
    let mut count = 0.0;
    for commit in commits {
        let commit = commit?;
        let begin = Instant::now();
        tail.append(commit.position(), &commit.bytes)?;
        append += begin.elapsed().as_secs_f64();
        count += 1.0;
        bytes += commit.bytes.len();
        events += commit.events.len();
        let begin = Instant::now();
        tail.pending().sync()?;
        sync.push(begin.elapsed().as_secs_f64() * 1e6);
        let begin = Instant::now();
        mark.write(tail.head())?;
        marks.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    print("tail.append", append / count * 1e6, "us/commit");
    print("tail.append.per_event", append / events as f64 * 1e9, "ns/event");
    print("tail.append.rate", bytes as f64 / append / 1e6, "MB/s");
    for (name, mut times) in [("tail.sync", sync), ("mark.write_and_sync", marks)] {
        times.sort_by(f64::total_cmp);
        print(&format!("{name}.p50"), times[times.len() / 2], "us");
        print(&format!("{name}.p99"), times[times.len() * 99 / 100], "us");
    }
    Ok(())
}

/// Waits until only the open tail file and one complete one are left.
async fn sealed(data_dir: &Path) -> Result<(), Failure> {
    let mut look = tokio::time::interval(std::time::Duration::from_millis(50));
    loop {
        look.tick().await;
        let mut tails = 0;
        for entry in std::fs::read_dir(data_dir.join(journal::tail::ARCHIVE_FOLDER))? {
            tails += u64::from(entry?.path().extension().is_some_and(|e| e == "cft"));
        }
        if tails <= 2 {
            return Ok(());
        }
    }
}

async fn fill(client: &LedgerClient, events: u64, accounts: u32, mix: &str) -> Result<(), Failure> {
    let opened =
        (0..accounts).map(|number| command(u64::from(number), OpenAccount { account: account(number) }));
    submit(client, opened).await?;
    let grant = |key: u64, number: u32| {
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
        command(1 << 40 | key, grant)
    };
    submit(client, (0..accounts).map(|number| grant(u64::from(number), number))).await?;
    if mix == "grants" {
        let more = (0..events).map(|number| grant(1 << 32 | number, (number % u64::from(accounts)) as u32));
        return submit(client, more).await;
    }
    let mut random = 42u64;
    let moved = (0..events).map(move |number| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let from = (random >> 33) as u32 % accounts;
        let to = (from + 1 + (random >> 11) as u32 % (accounts - 1)) % accounts;
        let amount = Amount(1 + i128::from(random % 1_000));
        command(2 << 32 | number, MoveCredit { from: GrantId(from), to: GrantId(to), amount })
    });
    submit(client, moved).await
}

async fn submit(client: &LedgerClient, commands: impl Iterator<Item = Command>) -> Result<(), Failure> {
    let mut outcomes = futures::stream::iter(commands)
        .map(|command| {
            let client = client.clone();
            async move { client.submit(command).await }
        })
        .buffer_unordered(IN_FLIGHT);
    while let Some(outcome) = outcomes.next().await {
        outcome?;
    }
    Ok(())
}

fn command(number: u64, body: impl Into<CommandBody>) -> Command {
    Command::new(IdempotencyKey::internal("replay", &[&number.to_be_bytes()]), Actor::Admin, body)
}

fn account(number: u32) -> AccountId {
    let mut id = [7; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    AccountId(id)
}

fn genesis() -> NetworkOpened {
    NetworkOpened {
        origin: "counterfoil.example/replay/0".into(),
        preset: "test".into(),
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
