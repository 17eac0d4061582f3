//! Load on three servers: every commit stands on the disks of two of three before it is acknowledged. All on this machine.
//! `cargo run --release -p journal --example r3_load -- [SECONDS] [CLIENTS] [BATCH]`. Must not: be a test.

#[path = "../tests/cluster/mod.rs"]
mod cluster;
#[path = "../tests/harness/mod.rs"]
mod harness;
mod moves;

use cluster::ClusterHarness;
use journal::{Journal, LedgerClient, SubmitError};
use moves::{Failure, Moves, all_done, quantile, set_up};
use std::time::{Duration, Instant};

/// Of the issue: operations a second, and the 99th percentile, with 8 k in flight.
const BAR_PER_SECOND: f64 = 300_000.0;
const BAR_P99_US: u32 = 60_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |k: usize, usual: u64| arguments.get(k).map_or(Ok(usual), |text| text.parse());
    let (seconds, clients, batch) = (number(0, 5)?, number(1, 8)?, number(2, 1_000)?);
    let cluster = ClusterHarness::start().await;
    let journal = Journal::open(cluster.options("a")).await?;
    for part in set_up().chunks(1_000) {
        all_done(journal.client().submit_many(part.to_vec()).await?)?;
    }
    let before = *journal.position().borrow();
    let begin = Instant::now();
    let until = begin + Duration::from_secs(seconds);
    let tasks: Vec<_> = (0..clients)
        .map(|client| tokio::spawn(run_client(journal.client(), Moves::new(client), batch as usize, until)))
        .collect();
    let (mut commands, mut latencies) = (0, Vec::new());
    for task in tasks {
        let (count, times) = task.await??;
        commands += count;
        latencies.extend(times);
    }
    let rate = commands as f64 / begin.elapsed().as_secs_f64();
    let commits = journal.position().borrow().commit - before.commit;
    latencies.sort_unstable();
    let p99 = quantile(&latencies, 0.99);
    println!(
        "three servers, {clients} x {batch} in flight: {rate:.0} operations/s (bar {BAR_PER_SECOND:.0}, ratio {:.2}), \
         p50 {} us, p99 {p99} us (bar {BAR_P99_US}), {commits} commits",
        rate / BAR_PER_SECOND,
        quantile(&latencies, 0.5),
    );
    journal.shutdown().await?;
    Ok(())
}

/// The latency of a command is its batch's.
async fn run_client(
    ledger: LedgerClient,
    mut source: Moves,
    batch: usize,
    until: Instant,
) -> Result<(u64, Vec<u32>), SubmitError> {
    let (mut count, mut latencies) = (0, Vec::new());
    while Instant::now() < until {
        let commands = (0..batch).map(|_| source.next()).collect();
        let begin = Instant::now();
        count += all_done(ledger.submit_many(commands).await?)?;
        latencies.push(begin.elapsed().as_micros() as u32);
    }
    Ok((count, latencies))
}
