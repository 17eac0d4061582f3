//! Receipts that the network has not acknowledged yet: on disk before anybody hears of them, re-sent on
//! `receipt.<operator>.<job>.<attempt>` until JetStream says it has them, over restarts too.

use crate::error::WorkerError;
use crate::keys::write_durably;
use async_nats::jetstream;
use protocol::id::{JobId, OperatorId};
use protocol::job_message::receipt_subject;
use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Receipts that may lie unsent; a worker that reached this takes no new jobs.
pub(crate) const RECEIPTS_UNSENT_MAX: usize = 10_000;
/// First pause after a failed attempt; doubles up to [`RETRY_MS_MAX`]. A reconnect ends the pause.
const RETRY_MS_FIRST: u64 = 250;
/// Longest pause.
const RETRY_MS_MAX: u64 = 15_000;
/// How long one attempt waits for the acknowledgement.
const ACK_MS_MAX: u64 = 5_000;
/// End of the name of a stored receipt.
const SUFFIX: &str = "receipt";

/// One stored receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Unsent {
    job: JobId,
    attempt: u32,
    path: PathBuf,
}

/// Where receipts are put; cheap to clone.
#[derive(Clone)]
pub(crate) struct Outbox {
    dir: Arc<Path>,
    queue: mpsc::Sender<Unsent>,
    unsent: watch::Sender<usize>,
}

/// The sending half, to be run.
pub(crate) struct Sender {
    waiting: VecDeque<Unsent>,
    queue: mpsc::Receiver<Unsent>,
    unsent: watch::Sender<usize>,
    operator: OperatorId,
    jetstream: jetstream::Context,
    connects: watch::Receiver<u64>,
}

/// What the sender needs.
pub(crate) struct OutboxOptions {
    pub(crate) dir: PathBuf,
    pub(crate) operator: OperatorId,
    pub(crate) client: async_nats::Client,
    /// Counts connections to the server; a change ends a pause.
    pub(crate) connects: watch::Receiver<u64>,
}

/// Opens the directory and finds what an earlier run left unsent.
pub(crate) fn open(options: OutboxOptions) -> Result<(Outbox, Sender), WorkerError> {
    fs::create_dir_all(&options.dir).map_err(|e| WorkerError::file(&options.dir, e))?;
    let waiting = stored(&options.dir)?;
    if !waiting.is_empty() {
        tracing::info!(target: "worker", receipt_count = waiting.len(), "receipts of an earlier run are still to be sent");
    }
    let (unsent, _) = watch::channel(waiting.len());
    let (sender, queue) = mpsc::channel(RECEIPTS_UNSENT_MAX);
    let mut jetstream = jetstream::new(options.client);
    jetstream.set_timeout(Duration::from_millis(ACK_MS_MAX));
    let outbox = Outbox { dir: options.dir.into(), queue: sender, unsent: unsent.clone() };
    let connects = options.connects;
    Ok((outbox, Sender { waiting, queue, unsent, operator: options.operator, jetstream, connects }))
}

impl Outbox {
    /// Stores the receipt durably and sees to its sending. When this returns, a crash cannot lose it.
    pub(crate) async fn put(&self, job: JobId, attempt: u32, receipt: Vec<u8>) -> Result<(), WorkerError> {
        let path = self.dir.join(format!("{job}.{attempt}.{SUFFIX}"));
        let target = path.clone();
        // An fsync may take milliseconds: not on a runtime thread.
        let written = tokio::task::spawn_blocking(move || write_durably(&target, &receipt)).await;
        written.map_err(|e| WorkerError::file(&path, e))??;
        self.unsent.send_modify(|count| *count += 1);
        let unsent = Unsent { job, attempt, path: path.clone() };
        // The queue is as long as the bound on unsent receipts, which is checked before a job is taken.
        self.queue
            .send(unsent)
            .await
            .map_err(|_| WorkerError::file(&path, "stored; the next start will send it"))
    }

    /// Receipts not acknowledged yet.
    pub(crate) fn unsent(&self) -> watch::Receiver<usize> {
        self.unsent.subscribe()
    }
}

impl Sender {
    /// Sends for ever; ends when every [`Outbox`] is gone and nothing waits.
    pub(crate) async fn run(mut self) {
        let mut pause_ms = RETRY_MS_FIRST;
        loop {
            if self.waiting.is_empty() {
                match self.queue.recv().await {
                    Some(next) => self.waiting.push_back(next),
                    None => return,
                }
            }
            while let Ok(next) = self.queue.try_recv() {
                self.waiting.push_back(next);
            }
            let Some(next) = self.waiting.pop_front() else { continue };
            match self.send(&next).await {
                Ok(()) => {
                    pause_ms = RETRY_MS_FIRST;
                    self.unsent.send_modify(|count| *count = count.saturating_sub(1));
                }
                Err(error) => {
                    tracing::warn!(target: "worker", job = %next.job, attempt = next.attempt, %error, pause_ms,
                        "receipt not acknowledged; sending it again");
                    // To the back: one that is refused must not keep the others.
                    self.waiting.push_back(next);
                    self.pause(pause_ms).await;
                    pause_ms = (pause_ms * 2).min(RETRY_MS_MAX);
                }
            }
        }
    }

    /// Sends one receipt and forgets it once the stream has it.
    async fn send(&self, unsent: &Unsent) -> Result<(), String> {
        let bytes = match tokio::fs::read(&unsent.path).await {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e.to_string()),
        };
        let subject = receipt_subject(&self.operator, &unsent.job, unsent.attempt);
        let ack = async { self.jetstream.publish(subject, bytes.into()).await?.await };
        // The context's own time-out does not cover a publish that waits for a lost connection.
        let acked = tokio::time::timeout(Duration::from_millis(2 * ACK_MS_MAX), ack).await;
        match acked.map_err(|_| "no answer".to_owned())? {
            Ok(_) => {}
            // The stream keeps a few copies per job and attempt; only we may publish there, so it has ours.
            Err(error) if subject_is_full(&error) => {}
            Err(error) => return Err(error.to_string()),
        }
        tokio::fs::remove_file(&unsent.path)
            .await
            .map_err(|e| format!("acknowledged, but {}: {e}", unsent.path.display()))
    }

    /// Until the server is connected again, or the pause is over.
    async fn pause(&mut self, pause_ms: u64) {
        let connected_again = async {
            if self.connects.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(pause_ms), connected_again).await;
    }
}

/// Whether the stream refuses because it holds as many messages of this subject as it may.
fn subject_is_full(error: &jetstream::context::PublishError) -> bool {
    let source = std::error::Error::source(error).and_then(|e| e.downcast_ref::<jetstream::Error>());
    source.is_some_and(|e| {
        e.error_code() == jetstream::ErrorCode::STREAM_STORE_FAILED && e.to_string().contains("per subject")
    })
}

/// The stored receipts, oldest first.
fn stored(dir: &Path) -> Result<VecDeque<Unsent>, WorkerError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| WorkerError::file(dir, e))? {
        let path = entry.map_err(|e| WorkerError::file(dir, e))?.path();
        let modified =
            fs::metadata(&path).and_then(|m| m.modified()).map_err(|e| WorkerError::file(&path, e))?;
        match parse_name(&path) {
            Some((job, attempt)) => found.push((modified, Unsent { job, attempt, path })),
            // A crash while writing leaves an unfinished file, of which nobody has heard.
            None if path.extension().is_some_and(|e| e == "unfinished") => {
                fs::remove_file(&path).map_err(|e| WorkerError::file(&path, e))?;
            }
            None => {
                tracing::warn!(target: "worker", path = %path.display(), "not a receipt of ours; left alone")
            }
        }
    }
    found.sort_by_key(|(modified, unsent)| (*modified, unsent.path.clone()));
    Ok(found.into_iter().map(|(_, unsent)| unsent).collect())
}

fn parse_name(path: &Path) -> Option<(JobId, u32)> {
    let name = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?.strip_suffix('.')?;
    let (job, attempt) = name.split_once('.')?;
    Some((job.parse().ok()?, attempt.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_finds_what_was_stored_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let job = JobId([4; 16]);
        let path = dir.path().join(format!("{job}.7.{SUFFIX}"));
        write_durably(&path, b"receipt").unwrap();
        fs::write(dir.path().join(format!("{job}.8.unfinished")), b"rec").unwrap();
        fs::write(dir.path().join("README"), b"?").unwrap();
        let found = stored(dir.path()).unwrap();
        assert_eq!(found, [Unsent { job, attempt: 7, path }]);
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}: the unfinished file goes, a stranger's stays");
    }
}
