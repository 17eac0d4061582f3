//! One part of `bench journal`: so many senders, so many commands a batch, for so long.

use super::setup::Bench;
use crate::load::{Load, Spread};
use crate::machine::cpu_seconds;
use crate::report::{Better, Report, ResultLine};
use crate::samples::Samples;
use crate::{BenchError, Tried};
use futures::future::try_join_all;
use journal::LedgerClient;
use journal::stream::LEDGER_STREAM;
use std::time::{Duration, Instant};

/// What is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mix {
    /// Transfers between accounts picked alike.
    Uniform,
    /// Transfers out of one account.
    Hot,
    /// 30 % holds and captures, 70 % transfers.
    Holds30,
}

/// What came of it.
pub(crate) struct Part {
    operations: u64,
    took: Duration,
    commits: u64,
    events: u64,
    log_bytes: u64,
    cpu_seconds: f64,
    /// Of each batch, from its submission to its answer.
    pub(crate) latency: Samples,
}

/// Before the clock runs.
const WARM_UP_BATCHES: usize = 3;

impl Part {
    pub(crate) async fn run(
        bench: &Bench,
        mix: Mix,
        senders: usize,
        batch: usize,
        length: Duration,
    ) -> Result<Part, BenchError> {
        let mut loads: Vec<Load> = (0..senders).map(|_| bench.load()).collect();
        for load in &mut loads {
            for _ in 0..WARM_UP_BATCHES {
                send(&bench.client, load, mix, batch).await?;
            }
        }
        let before = Marks::take(bench).await?;
        let started = Instant::now();
        let end = started + length;
        let running = loads.into_iter().map(|mut load| {
            let client = bench.client.clone();
            tokio::spawn(async move {
                let mut latency = Samples::default();
                while Instant::now() < end {
                    latency.push(send(&client, &mut load, mix, batch).await?);
                }
                Ok::<Samples, BenchError>(latency)
            })
        });
        let mut latency = Samples::default();
        for samples in try_join_all(running).await.tried("run the senders")? {
            latency.extend(samples?);
        }
        let took = started.elapsed();
        let after = Marks::take(bench).await?;
        Ok(Part {
            operations: (latency.len() * batch) as u64,
            took,
            commits: after.commits - before.commits,
            events: after.events - before.events,
            log_bytes: after.log_bytes - before.log_bytes,
            cpu_seconds: after.cpu_seconds - before.cpu_seconds,
            latency,
        })
    }

    pub(crate) fn operations_per_second(&self) -> f64 {
        self.operations as f64 / self.took.as_secs_f64()
    }

    pub(crate) fn commit_bytes(&self) -> f64 {
        self.log_bytes as f64 / self.commits.max(1) as f64
    }

    pub(crate) fn events_per_commit(&self) -> f64 {
        self.events as f64 / self.commits.max(1) as f64
    }

    pub(crate) fn events_per_operation(&self) -> f64 {
        self.events as f64 / self.operations.max(1) as f64
    }

    pub(crate) fn bytes_per_event(&self) -> f64 {
        self.log_bytes as f64 / self.events.max(1) as f64
    }

    /// The finer figures under the part's name.
    pub(crate) fn details(&mut self, name: &str, report: &mut Report) {
        for (suffix, share) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
            let value = self.latency.quantile_ms(share);
            report.results.push(ResultLine::time_ms(format!("{name}.{suffix}"), value));
        }
        // One fsync of the stream a commit, and at most one of the tail.
        let fsyncs = self.commits as f64 / self.operations.max(1) as f64;
        let lower = Better::Lower;
        report.results.push(ResultLine::new(format!("{name}.commits_per_operation"), fsyncs, "1/op", lower));
        report.results.push(ResultLine::bytes(format!("{name}.bytes_per_event"), self.bytes_per_event()));
        let micros = self.cpu_seconds * 1e6 / self.events.max(1) as f64;
        report.results.push(ResultLine::new(format!("{name}.cpu_us_per_event"), micros, "us", lower));
    }
}

/// One batch; how long its answer took.
async fn send(
    client: &LedgerClient,
    load: &mut Load,
    mix: Mix,
    batch: usize,
) -> Result<Duration, BenchError> {
    let commands = match mix {
        Mix::Uniform => load.batch(batch, 0, Spread::Uniform),
        Mix::Hot => load.batch(batch, 0, Spread::Hot),
        Mix::Holds30 => load.batch(batch, 30, Spread::Uniform),
    };
    let started = Instant::now();
    if let [_] = commands.as_slice() {
        for command in commands {
            client.submit_placed(command).await.tried("carry out a command")?;
        }
    } else {
        for outcome in client.submit_many(commands).await.tried("submit a batch")? {
            outcome.tried("carry out a command")?;
        }
    }
    Ok(started.elapsed())
}

/// Hold, then capture, each answered before the next; pairs per second.
pub(crate) async fn pairs_sequential(bench: &Bench, length: Duration) -> Result<f64, BenchError> {
    let mut load = bench.load();
    let started = Instant::now();
    let mut pairs = 0u64;
    while started.elapsed() < length {
        let admit = load.admit();
        bench.client.submit_placed(admit).await.tried("hold")?;
        if let Some(capture) = load.capture() {
            bench.client.submit_placed(capture).await.tried("capture")?;
            pairs += 1;
        }
    }
    Ok(pairs as f64 / started.elapsed().as_secs_f64())
}

/// Where the log and the clocks of the processors stand.
struct Marks {
    commits: u64,
    events: u64,
    log_bytes: u64,
    cpu_seconds: f64,
}

impl Marks {
    async fn take(bench: &Bench) -> Result<Marks, BenchError> {
        let position = *bench.client.position().borrow();
        let log_bytes = bench.stored_bytes(LEDGER_STREAM).await?;
        let server = bench.server.pid().map_or(0.0, cpu_seconds);
        let ours = cpu_seconds(std::process::id());
        let (commits, events) = (position.commit, position.leaf);
        Ok(Marks { commits, events, log_bytes, cpu_seconds: server + ours })
    }
}
