//! `bench growth`: the same figures at one size after another: rules in memory, the durable log, opening it again in a fresh
//! process, and what it holds in memory then. What does not grow should be flat.

use crate::journal::JournalOptions;
use crate::journal::parts::{Mix, Part};
use crate::journal::setup::{Bench, open_journal_as};
use crate::ledger::{self, LedgerOptions};
use crate::machine::{peak_resident_bytes, resident_bytes};
use crate::report::{Better, Report, ResultLine};
use crate::{BenchError, Tried};
use journal::auth::Credentials;
use journal::server::NatsServer;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::process::Command;

/// How much is measured.
#[derive(Clone, Debug)]
pub struct GrowthOptions {
    /// Sizes: accounts, each with one grant.
    pub accounts: Vec<u32>,
    /// Least events of the log that is opened again; more transfers make up for fewer accounts.
    pub events: u64,
    /// Operations of each measurement in memory.
    pub operations: u32,
    /// Length of each durable part.
    pub part: Duration,
    /// Where the server keeps its data: a real disk.
    pub dir: PathBuf,
    /// This program: a process of its own opens the log, as `bench open-log`.
    pub program: PathBuf,
}

/// Senders and commands of one batch, as in `durable.inflight_8k`.
const SENDERS: usize = 8;
const BATCH: usize = 1_000;

/// Runs it, size by size.
pub async fn run(options: GrowthOptions) -> Result<Report, BenchError> {
    let settings = serde_json::json!({
        "accounts": options.accounts, "events": options.events, "operations": options.operations,
        "seconds_a_part": options.part.as_secs_f64(), "sync_interval": "always", "replicas": 1,
        "opened": "by a fresh process, from the newest snapshot",
    });
    let mut report = Report::new("growth", settings);
    for accounts in &options.accounts {
        in_memory(&options, *accounts, &mut report)?;
        durable(&options, *accounts, &mut report).await?;
    }
    Ok(report)
}

/// `10000` as `10k`.
fn label(accounts: u32) -> String {
    match accounts {
        n if n >= 1_000_000 && n % 1_000_000 == 0 => format!("{}m", n / 1_000_000),
        n if n >= 1_000 && n % 1_000 == 0 => format!("{}k", n / 1_000),
        n => n.to_string(),
    }
}

fn in_memory(options: &GrowthOptions, accounts: u32, report: &mut Report) -> Result<(), BenchError> {
    let own = ledger::run(LedgerOptions { accounts, operations: options.operations })?;
    for mut line in own.results {
        line.name = format!("growth.{}.{}", label(accounts), line.name);
        report.results.push(line);
    }
    Ok(())
}

async fn durable(options: &GrowthOptions, accounts: u32, report: &mut Report) -> Result<(), BenchError> {
    let name = |figure: &str| format!("growth.{}.{figure}", label(accounts));
    let setup = JournalOptions {
        accounts,
        part: options.part,
        dir: options.dir.clone(),
        start_accounts: 0,
        start_events: 0,
        program: options.program.clone(),
        only: Vec::new(),
    };
    let started = Instant::now();
    let bench = Bench::open(&setup).await?;
    let opening = 2.0 * f64::from(accounts) / started.elapsed().as_secs_f64();
    report.results.push(ResultLine::rate(name("fill"), opening));
    bench.transfer_until(options.events).await?;
    let leaves = bench.client.position().borrow().leaf;
    let (bench, opened) = bench.opened_elsewhere(&options.program).await?;
    report.results.push(ResultLine::new(name("start.events"), leaves as f64, "events", Better::Higher));
    opened.put(&name("start"), f64::from(accounts), report);
    for (mix, figure) in [(Mix::Uniform, "durable.uniform"), (Mix::Holds30, "durable.holds_30")] {
        let mut part = Part::run(&bench, mix, SENDERS, BATCH, options.part).await?;
        report.results.push(ResultLine::rate(name(figure), part.operations_per_second()));
        part.details(&name(figure), report);
    }
    bench.close().await
}

/// What a fresh process said of a log that it opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    /// From the call until it leads.
    pub(crate) took_ms: f64,
    /// Of the whole process, once it leads.
    pub(crate) resident_bytes: f64,
    /// The most on the way there.
    pub(crate) peak_bytes: f64,
    /// Of the newest snapshot's file.
    pub(crate) snapshot_bytes: f64,
}

impl Opened {
    /// As lines of a report.
    pub(crate) fn put(&self, name: &str, accounts: f64, report: &mut Report) {
        report.results.push(ResultLine::time_ms(format!("{name}.open"), self.took_ms));
        report.results.push(ResultLine::bytes(format!("{name}.resident_bytes"), self.resident_bytes));
        report.results.push(ResultLine::bytes(format!("{name}.peak_resident_bytes"), self.peak_bytes));
        let each = self.resident_bytes / accounts;
        report.results.push(ResultLine::bytes(format!("{name}.resident_bytes_per_account"), each));
        report.results.push(ResultLine::bytes(format!("{name}.snapshot_bytes"), self.snapshot_bytes));
    }
}

/// Lets a process of its own open a log that nobody has open.
pub(crate) async fn open_elsewhere(
    program: &Path,
    server: &NatsServer,
    broker: &Path,
    data_dir: &Path,
) -> Result<Opened, BenchError> {
    let output = Command::new(program)
        .args(["bench", "open-log", &server.url()])
        .args([&broker.join("keys/writer.creds"), data_dir])
        .output()
        .await
        .tried("start a process that opens the log")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let figures: Vec<f64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [took_ms, resident_bytes, peak_bytes] = figures[..] else {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(BenchError::failed("open the log in a process of its own")(format!("{said}{words}")));
    };
    let snapshots = std::fs::read_dir(data_dir.join("snapshots")).tried("list the snapshots")?;
    let sizes = snapshots.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
    Ok(Opened { took_ms, resident_bytes, peak_bytes, snapshot_bytes: sizes.max().unwrap_or(0) as f64 })
}

/// That process: opens, says how long it took and what it holds, ends.
pub async fn open_log(url: String, credentials: PathBuf, data_dir: PathBuf) -> Result<(), BenchError> {
    let credentials = Credentials::read(&credentials).tried("read the credentials")?;
    let started = Instant::now();
    let journal = open_journal_as(url, credentials, data_dir).await?;
    let took_ms = started.elapsed().as_secs_f64() * 1e3;
    println!("{took_ms} {} {}", resident_bytes(), peak_resident_bytes());
    journal.shutdown().await.tried("shut the journal down")
}
