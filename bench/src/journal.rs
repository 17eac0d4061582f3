//! `bench journal`: the durable log on a real nats-server with `sync_interval: always`, from a client's command to its
//! answer. Server, writer and load share the machine.

mod cluster;
pub(crate) mod parts;
mod remote;
pub(crate) mod setup;
mod start;

pub use remote::{GatewayOptions, gateway};

use crate::report::{Better, Report, ResultLine, Source};
use crate::{BenchError, raw};
use parts::{Mix, Part};
use setup::Bench;
use std::path::PathBuf;
use std::time::Duration;

/// How much is measured.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// Accounts, each with one grant.
    pub accounts: u32,
    /// Length of each part.
    pub part: Duration,
    /// Where the servers keep their data: a real disk.
    pub dir: PathBuf,
    /// Accounts and events of the log that `start.snapshot_1m` opens.
    pub start_accounts: u32,
    /// See `start_accounts`.
    pub start_events: u64,
    /// Only these parts; none = all.
    pub only: Vec<JournalPart>,
    /// This program: gateways in processes of their own are started by it, as `bench gateway-load`.
    pub program: PathBuf,
}

/// A part of the measurement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JournalPart {
    /// Eight thousand commands in flight.
    Inflight,
    /// Little in flight: latencies.
    Small,
    /// With FEED, transparency log and snapshots; runs `Inflight` before.
    Followed,
    /// Gateways in processes of their own.
    Remote,
    /// Three servers.
    Cluster,
    /// Opening a large log again.
    Start,
}

impl JournalOptions {
    fn wants(&self, part: JournalPart) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

const TIGERBEETLE: &str = "TigerBeetle, 8189 a batch";

/// Runs it.
pub async fn run(options: JournalOptions) -> Result<Report, BenchError> {
    let settings = serde_json::json!({
        "accounts": options.accounts, "seconds_a_part": options.part.as_secs_f64(),
        "sync_interval": "always", "replicas": 1, "tail_sync": "within 10 ms",
        "load": "in the same process", "mixed": "30 % holds (admit, capture), 70 % transfers",
    });
    let mut report = Report::new("journal", settings);
    let bench = Bench::open(&options).await?;
    if options.wants(JournalPart::Inflight) || options.wants(JournalPart::Followed) {
        inflight(&bench, &options, &mut report).await?;
    }
    if options.wants(JournalPart::Small) {
        small(&bench, &options, &mut report).await?;
    }
    if options.wants(JournalPart::Followed) {
        followers(&bench, &options, &mut report).await?;
    }
    if options.wants(JournalPart::Remote) {
        remote::measure(&bench, &options, &mut report).await?;
    }
    bench.close().await?;
    if options.wants(JournalPart::Cluster) {
        cluster::measure(&options, &mut report).await?;
    }
    if options.wants(JournalPart::Start) {
        start::measure(&options, &mut report).await?;
    }
    Ok(report)
}

/// Much in flight: eight senders, batches of 1 000.
async fn inflight(bench: &Bench, options: &JournalOptions, report: &mut Report) -> Result<(), BenchError> {
    let mut uniform_commit_bytes = 0.0;
    for (mix, name, peer) in [
        (Mix::Uniform, "durable.inflight_8k.uniform", 260_000.0),
        (Mix::Hot, "durable.inflight_8k.hot", 320_000.0),
        (Mix::Holds30, "durable.inflight_8k.holds_30", 118_000.0),
    ] {
        let mut part = Part::run(bench, mix, 8, 1_000, options.part).await?;
        if mix == Mix::Uniform {
            uniform_commit_bytes = part.commit_bytes();
        }
        let limit = part.events_per_operation();
        let raw = raw_rate(bench, &part, options.part / 2).await? / limit;
        report.results.push(
            ResultLine::rate(name, part.operations_per_second())
                .against("raw JetStream, equal bytes, one in flight", raw)
                .beside(TIGERBEETLE, peer, Source::MeasuredElsewhere),
        );
        part.details(name, report);
    }
    report.results.push(ResultLine::bytes("commit.bytes", uniform_commit_bytes));
    Ok(())
}

async fn raw_rate(bench: &Bench, part: &Part, at_most: Duration) -> Result<f64, BenchError> {
    let size = part.commit_bytes().max(64.0) as usize;
    let mut samples = raw::publish(&bench.raw, size, at_most).await?;
    let mean_ms = samples.quantile_ms(0.5);
    Ok(part.events_per_commit() / (mean_ms / 1e3))
}

/// Little in flight: a hundred at a time, many single clients, one client.
async fn small(bench: &Bench, options: &JournalOptions, report: &mut Report) -> Result<(), BenchError> {
    let mut hundred = Part::run(bench, Mix::Uniform, 1, 100, options.part).await?;
    report.results.push(ResultLine::rate("durable.batch_100", hundred.operations_per_second()).beside(
        "TigerBeetle, 100 a batch",
        47_600.0,
        Source::MeasuredElsewhere,
    ));
    hundred.details("durable.batch_100", report);
    let mut many = Part::run(bench, Mix::Uniform, 32, 1, options.part).await?;
    report.results.push(ResultLine::rate("durable.clients_32", many.operations_per_second()).beside(
        "TigerBeetle, its Node client, 32 in flight",
        17_900.0,
        Source::MeasuredElsewhere,
    ));
    many.details("durable.clients_32", report);
    let mut one = Part::run(bench, Mix::Uniform, 1, 1, options.part).await?;
    let mut raw = raw::publish(&bench.raw, one.commit_bytes().max(64.0) as usize, options.part).await?;
    for (name, share, peer) in [("durable.single.p50", 0.5, 0.38), ("durable.single.p99", 0.99, 2.6)] {
        report.results.push(
            ResultLine::time_ms(name, one.latency.quantile_ms(share))
                .against("raw JetStream", raw.quantile_ms(share))
                .beside("TigerBeetle, its Node client", peer, Source::MeasuredElsewhere),
        );
    }
    let pairs = parts::pairs_sequential(bench, options.part).await?;
    report.results.push(ResultLine::rate("durable.hold_capture_sequential", pairs).beside(
        "TigerBeetle, its Node client",
        350.0,
        Source::MeasuredElsewhere,
    ));
    Ok(())
}

/// With everything on that follows the log: FEED, transparency log, snapshots.
async fn followers(bench: &Bench, options: &JournalOptions, report: &mut Report) -> Result<(), BenchError> {
    let bare = report.results.iter().find(|line| line.name == "durable.inflight_8k.uniform");
    let bare = bare.map_or(0.0, |line| line.value);
    let following = bench.follow().await?;
    let mut part = Part::run(bench, Mix::Uniform, 8, 1_000, options.part).await?;
    report.results.push(
        ResultLine::rate("durable.inflight_8k.followed", part.operations_per_second())
            .against("without FEED and transparency log", bare),
    );
    part.details("durable.inflight_8k.followed", report);
    let lag = following.lag(bench);
    report.results.push(ResultLine::new("followed.feed_lag", lag.feed, "events", Better::Lower));
    report.results.push(ResultLine::new("followed.tlog_lag", lag.tlog, "events", Better::Lower));
    let mixed = Part::run(bench, Mix::Holds30, 8, 1_000, options.part).await?;
    let on_disk = ResultLine::bytes("disk.bytes_per_event", mixed.bytes_per_event());
    report.results.push(on_disk.beside("TigerBeetle, a transfer", 1_780.0, Source::MeasuredElsewhere));
    following.end().await?;
    Ok(())
}
