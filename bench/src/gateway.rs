//! The gateway with everything real but the model: HTTP in, admission committed by the ledger on a real nats-server, the
//! job sent over NATS to a worker that does no work, frames back, a signed receipt verified and charged. Latencies are what the
//! gateway adds, because the worker adds nothing. Load generator, worker, broker and gateway share the machine.

mod client;
mod network;
mod worker;

use crate::machine::resident_bytes;
use crate::samples::Samples;
use crate::{BenchError, Report, ResultLine, Source};
use client::Connection;
use network::Network;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use worker::Manner;

/// Tokens of an ordinary answer.
const TOKENS: u32 = 16;
/// Connections of the throughput part.
const CONNECTIONS: usize = 64;
/// Paced streams, and the time between two of their tokens.
const PACED: usize = 200;
const PACE_MS: u64 = 20;
const PACED_TOKENS: u32 = 200;
/// Streams that are left open for their memory.
const IDLE_STREAMS: usize = 1_000;
/// Deaths of a node, and clients that leave, which are timed.
const DEATHS: usize = 20;
const LEAVERS: usize = 50;

/// What to measure.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// Length of each timed part.
    pub part: Duration,
    /// GGUF file whose tokenizer counts.
    pub model: PathBuf,
    /// Where the broker keeps its data while it runs.
    pub dir: PathBuf,
}

/// Measures.
///
/// # Errors
/// [`BenchError`]: a part of the product or the machine said no.
pub async fn run(options: GatewayOptions) -> Result<Report, BenchError> {
    let network = Network::start(&options).await?;
    let settings = serde_json::json!({
        "part_s": options.part.as_secs_f64(), "tokens": TOKENS, "connections": CONNECTIONS, "paced": PACED, "pace_ms": PACE_MS,
        "deaths": DEATHS, "idle_streams": IDLE_STREAMS, "same_machine": ["load generator", "worker", "nats-server", "gateway"],
    });
    let mut report = Report::new("gateway", settings);
    let mut idle = idle(&network, options.part).await?;
    let published = |line: ResultLine, name, value| line.beside(name, value, Source::Published);
    report.results.push(published(
        ResultLine::time_ms("idle.p50", idle.quantile_ms(0.5)),
        "TensorZero, database off",
        0.35,
    ));
    report.results.push(published(
        ResultLine::time_ms("idle.p99", idle.quantile_ms(0.99)),
        "TensorZero, database off",
        0.94,
    ));
    let rate = streams(&network, options.part).await?;
    let line = ResultLine::rate("streams_per_second", rate);
    report.results.push(published(line, "LiteLLM, 33 pods of 4 cores", 3_000.0));
    let mut lag = paced(&network).await?;
    report.results.push(ResultLine::time_ms("paced_200.lag_p50", lag.quantile_ms(0.5)));
    report.results.push(ResultLine::time_ms("paced_200.lag_p99", lag.quantile_ms(0.99)));
    let mut cancels = cancels(&network).await?;
    report.results.push(ResultLine::time_ms("cancel.p50", cancels.quantile_ms(0.5)));
    report.results.push(ResultLine::time_ms("cancel.p99", cancels.quantile_ms(0.99)));
    report.results.push(ResultLine::bytes("idle_stream_bytes", idle_bytes(&network).await?));
    let mut deaths = deaths(&network).await?;
    report.results.push(ResultLine::time_ms("failover.p50", deaths.quantile_ms(0.5)));
    report.results.push(ResultLine::time_ms("failover.p99", deaths.quantile_ms(0.99)));
    network.stop().await?;
    Ok(report)
}

/// One client after the other: until the first text.
async fn idle(network: &Network, part: Duration) -> Result<Samples, BenchError> {
    network.manner(Manner::AtOnce);
    let mut connection = Connection::open(network).await?;
    let mut samples = Samples::default();
    for _ in 0..50 {
        connection.stream(TOKENS).await?.drain().await?;
    }
    let begun = Instant::now();
    while begun.elapsed() < part {
        let sent = Instant::now();
        let mut answer = connection.stream(TOKENS).await?;
        answer.until_tokens(1).await?;
        samples.push(sent.elapsed());
        answer.drain().await?;
    }
    Ok(samples)
}

/// Whole streams a second, each held, routed, relayed, verified and charged.
async fn streams(network: &Network, part: Duration) -> Result<f64, BenchError> {
    network.manner(Manner::AtOnce);
    let mut clients = JoinSet::new();
    let begun = Instant::now();
    for _ in 0..CONNECTIONS {
        let mut connection = Connection::open(network).await?;
        clients.spawn(async move {
            let mut count = 0u64;
            while begun.elapsed() < part {
                connection.stream(TOKENS).await?.drain().await?;
                count += 1;
            }
            Ok::<u64, BenchError>(count)
        });
    }
    let mut all = 0;
    while let Some(done) = clients.join_next().await {
        all += done.map_err(|e| BenchError::failed("a client")(e.to_string()))??;
    }
    Ok(all as f64 / begun.elapsed().as_secs_f64())
}

/// From a token's publication by the worker to its arrival at the client.
async fn paced(network: &Network) -> Result<Samples, BenchError> {
    network.manner(Manner::Paced(Duration::from_millis(PACE_MS)));
    let mut clients = JoinSet::new();
    for _ in 0..PACED {
        let mut connection = Connection::open(network).await?;
        let stamps = network.stamps.clone();
        clients.spawn(async move {
            let mut samples = Samples::default();
            let mut answer = connection.stream(PACED_TOKENS).await?;
            let mut seen = 0;
            while let Some(now) = answer.next_tokens().await? {
                let came = Instant::now();
                for number in seen..now {
                    samples.extend_one(stamps.of(&answer.job, number as usize), came);
                }
                seen = now;
            }
            Ok::<Samples, BenchError>(samples)
        });
    }
    let mut all = Samples::default();
    while let Some(done) = clients.join_next().await {
        all.extend(done.map_err(|e| BenchError::failed("a client")(e.to_string()))??);
    }
    Ok(all)
}

/// From a client's leaving to the worker's stop.
async fn cancels(network: &Network) -> Result<Samples, BenchError> {
    network.manner(Manner::Paced(Duration::from_millis(PACE_MS)));
    let mut samples = Samples::default();
    for _ in 0..LEAVERS {
        let mut connection = Connection::open(network).await?;
        let mut answer = connection.stream(PACED_TOKENS).await?;
        answer.until_tokens(3).await?;
        let job = answer.job.clone();
        let left = Instant::now();
        drop(connection);
        samples.push(network.cancelled(&job).await?.duration_since(left));
    }
    Ok(samples)
}

/// From a node's death before its first token to the first text, from another node.
async fn deaths(network: &Network) -> Result<Samples, BenchError> {
    let mut samples = Samples::default();
    for number in 0..DEATHS {
        let died = network.mortal(number as u8).await?;
        let mut connection = Connection::open(network).await?;
        let mut answer = connection.stream(TOKENS).await?;
        answer.until_tokens(1).await?;
        let came = Instant::now();
        answer.drain().await?;
        let died = died.await.map_err(|e| BenchError::failed("a mortal node")(e.to_string()))?;
        samples.push(came.saturating_duration_since(died));
    }
    Ok(samples)
}

/// Memory of a stream that waits for its next token: this process's, in which clients and worker are too.
async fn idle_bytes(network: &Network) -> Result<f64, BenchError> {
    network.manner(Manner::Silent);
    let mut connections = Vec::new();
    let before = resident_bytes();
    for _ in 0..IDLE_STREAMS {
        let mut connection = Connection::open(network).await?;
        connection.stream(TOKENS).await?.until_tokens(1).await?;
        connections.push(connection);
    }
    let grown = resident_bytes().saturating_sub(before);
    network.let_go();
    Ok(grown as f64 / IDLE_STREAMS as f64)
}
