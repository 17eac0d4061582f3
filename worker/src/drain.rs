//! The good end of a worker: no new jobs, the running ones finished, receipts acknowledged, then gone.

use crate::error::WorkerError;
use crate::notify::{self, Moment};
use crate::worker::{Drained, Worker, WorkerHandle};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How long an ending worker waits for the network to acknowledge its receipts; they are on disk in any case.
const RECEIPTS_WAIT_MS_MAX: u64 = 30_000;
/// How long it waits for its last messages to leave.
const GOODBYE_MS_MAX: u64 = 5_000;

impl Worker {
    /// Runs until [`WorkerHandle::drain`] was called and every job has ended.
    ///
    /// # Errors
    /// [`WorkerError::Nats`] when a part of the worker ended by itself, which only happens with a closed connection.
    pub async fn run(mut self) -> Result<Drained, WorkerError> {
        let mut drain = self.shared.drain.subscribe();
        tokio::select! {
            _ = drain.wait_for(|drain| *drain) => {}
            Some(ended) = self.tasks.join_next() => {
                let how = ended.err().map_or_else(|| "ended".to_owned(), |e| e.to_string());
                return Err(WorkerError::Nats(format!("a loop of the worker {how}; start the worker again")));
            }
        }
        tracing::info!(target: "worker", "draining: no new jobs");
        notify::tell(Moment::Stopping);
        for node in &self.shared.nodes {
            node.idle().await;
        }
        let mut unsent = self.shared.unsent.clone();
        let wait = unsent.wait_for(|count| *count == 0);
        // What is not acknowledged by then is sent by the next start.
        let _ = tokio::time::timeout(Duration::from_millis(RECEIPTS_WAIT_MS_MAX), wait).await;
        let receipts_unsent = *self.shared.unsent.borrow() as u64;
        if tokio::time::timeout(Duration::from_millis(GOODBYE_MS_MAX), self.goodbye()).await.is_err() {
            tracing::warn!(target: "worker", "the last messages may not have left");
        }
        tracing::info!(target: "worker", receipts_unsent, "drained");
        Ok(Drained { receipts_unsent })
    }

    /// A last heartbeat, so that nobody waits for three missed ones; then everything out of the buffers.
    async fn goodbye(&self) {
        for node in &self.shared.nodes {
            node.publish_heartbeat().await;
        }
        if let Err(error) = self.shared.client.flush().await {
            tracing::warn!(target: "worker", %error, "flush");
        }
    }
}

/// Drains the worker on the first SIGTERM or Ctrl-C and returns on the second, which means: end now. To be polled beside
/// [`Worker::run`]; whichever returns first ends the process.
///
/// # Errors
/// [`WorkerError::Options`] when the system gives no signals.
pub async fn on_signals(handle: WorkerHandle) -> Result<(), WorkerError> {
    let fail = |e: std::io::Error| WorkerError::Options(format!("listening for signals: {e}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(fail)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fail)?;
    for request in ["first", "second"] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!(target: "worker", request, "asked by a signal to end");
        handle.drain();
    }
    Ok(())
}
