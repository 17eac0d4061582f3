//! `/metrics`, `/healthz` and `/readyz` on a loopback port: what this worker counted and does now, in the OpenMetrics text form.
//! Must not: listen where others could reach it; say anything of the contents of jobs.

use crate::error::WorkerError;
use crate::worker::WorkerHandle;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Longest head of a request.
const HEAD_BYTES_MAX: u64 = 8 * 1024;
/// How long one call may take.
const CALL_MS_MAX: u64 = 5_000;
/// Upper bounds of the time to the first token, milliseconds.
const FIRST_TOKEN_MS: [u64; 8] = [10, 25, 50, 100, 250, 1_000, 5_000, 30_000];

/// What the jobs of a worker came to.
#[derive(Debug, Default)]
pub struct Counters {
    /// Attempts with a receipt: the answer ended by itself or at its bound.
    pub(crate) finished: AtomicU64,
    /// Attempts with a receipt that the gateway had cancelled.
    pub(crate) cancelled: AtomicU64,
    /// Attempts without one.
    pub(crate) failed: AtomicU64,
    /// Offers refused.
    pub(crate) refused: AtomicU64,
    /// Tokens of the prompts taken.
    pub(crate) input_tokens: AtomicU64,
    /// Tokens made.
    pub(crate) output_tokens: AtomicU64,
    first_token: [AtomicU64; FIRST_TOKEN_MS.len()],
    first_token_count: AtomicU64,
    first_token_ms: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl Counters {
    /// From taking a job to its first token.
    pub(crate) fn note_first_token(&self, took: Duration) {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        for (bound, bucket) in FIRST_TOKEN_MS.iter().zip(&self.first_token) {
            if ms <= *bound {
                add(bucket, 1);
            }
        }
        add(&self.first_token_count, 1);
        add(&self.first_token_ms, ms);
    }

    fn write(&self, text: &mut String) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        head(text, "counterfoil_worker_jobs", "counter", "Attempts by how they ended");
        let ends = [
            ("finished", &self.finished),
            ("cancelled", &self.cancelled),
            ("failed", &self.failed),
            ("refused", &self.refused),
        ];
        for (outcome, counter) in ends {
            let _ = writeln!(text, "counterfoil_worker_jobs_total{{outcome=\"{outcome}\"}} {}", get(counter));
        }
        head(text, "counterfoil_worker_tokens", "counter", "Tokens of prompts taken and tokens made");
        for (direction, counter) in [("input", &self.input_tokens), ("output", &self.output_tokens)] {
            let _ = writeln!(
                text,
                "counterfoil_worker_tokens_total{{direction=\"{direction}\"}} {}",
                get(counter)
            );
        }
        head(
            text,
            "counterfoil_worker_first_token_seconds",
            "histogram",
            "From taking a job to its first token",
        );
        for (bound, bucket) in FIRST_TOKEN_MS.iter().zip(&self.first_token) {
            let le = *bound as f64 / 1e3;
            let _ = writeln!(
                text,
                "counterfoil_worker_first_token_seconds_bucket{{le=\"{le}\"}} {}",
                get(bucket)
            );
        }
        let count = get(&self.first_token_count);
        let _ = writeln!(text, "counterfoil_worker_first_token_seconds_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(text, "counterfoil_worker_first_token_seconds_count {count}");
        let _ = writeln!(
            text,
            "counterfoil_worker_first_token_seconds_sum {}",
            get(&self.first_token_ms) as f64 / 1e3
        );
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}.\n# TYPE {name} {kind}");
}

/// The text of `/metrics`.
pub(crate) fn render(handle: &WorkerHandle) -> String {
    let mut text = String::new();
    let status = handle.status();
    handle.shared.counters.write(&mut text);
    head(&mut text, "counterfoil_worker_inflight", "gauge", "Jobs that run now, by node");
    for node in &status.nodes {
        let _ = writeln!(text, "counterfoil_worker_inflight{{node=\"{}\"}} {}", node.node, node.inflight);
    }
    head(&mut text, "counterfoil_worker_slots", "gauge", "Jobs at once, by node");
    for node in &status.nodes {
        let _ = writeln!(text, "counterfoil_worker_slots{{node=\"{}\"}} {}", node.node, node.slots);
    }
    let gauges = [
        (
            "counterfoil_worker_receipts_unsent",
            "Receipts that the network has not acknowledged",
            status.receipts_unsent,
        ),
        ("counterfoil_worker_connected", "1 while the broker is connected", u64::from(status.connected)),
        ("counterfoil_worker_draining", "1 while no new jobs are taken", u64::from(status.draining)),
    ];
    for (name, help, value) in gauges {
        head(&mut text, name, "gauge", help);
        let _ = writeln!(text, "{name} {value}");
    }
    text + "# EOF\n"
}

/// Takes the port. Only loopback addresses: these calls have no key.
///
/// # Errors
/// [`WorkerError::Options`] for another address or one that is taken.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, WorkerError> {
    if !address.ip().is_loopback() {
        let text = format!(
            "metrics: expected a loopback address, as 127.0.0.1:9464, found {address}; put a proxy before it"
        );
        return Err(WorkerError::Options(text));
    }
    let bound = TcpListener::bind(address).await;
    bound.map_err(|e| {
        WorkerError::Options(format!("metrics: cannot listen on {address}: {e}; choose another port"))
    })
}

/// Answers for as long as the worker lives.
pub(crate) async fn serve(listener: TcpListener, handle: WorkerHandle) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        // One caller at a time is enough; a slow one is cut off.
        let answered =
            tokio::time::timeout(Duration::from_millis(CALL_MS_MAX), answer(stream, &handle)).await;
        if !matches!(answered, Ok(Ok(()))) {
            tracing::debug!(target: "worker", "a call of the metrics port broke off");
        }
    }
}

async fn answer(stream: TcpStream, handle: &WorkerHandle) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read.take(HEAD_BYTES_MAX)).lines();
    let request = lines.next_line().await?.unwrap_or_default();
    while lines.next_line().await?.is_some_and(|line| !line.is_empty()) {}
    let path = request.split(' ').nth(1).unwrap_or_default();
    let status = handle.status();
    let (code, body) = match path {
        "/metrics" => ("200 OK", render(handle)),
        "/healthz" => ("200 OK", "alive\n".to_owned()),
        "/readyz" if status.connected && !status.draining => ("200 OK", "ready\n".to_owned()),
        "/readyz" if status.draining => ("503 Service Unavailable", "draining\n".to_owned()),
        "/readyz" => ("503 Service Unavailable", "not connected\n".to_owned()),
        _ => ("404 Not Found", "expected /metrics, /healthz or /readyz\n".to_owned()),
    };
    let kind = if path == "/metrics" {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain"
    };
    let head = format!(
        "HTTP/1.1 {code}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    write.write_all((head + &body).as_bytes()).await?;
    write.shutdown().await
}
