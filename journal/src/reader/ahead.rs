//! Commits decoded on one thread while another applies them. Must not: reorder or drop.

use super::{CommittedCommit, ReadError};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

/// Events that travel together: one hand-over costs about as much as decoding twenty of them.
const BATCH_EVENTS: usize = 4_096;
/// Commits that travel together at most.
const BATCH_COMMITS_MAX: usize = 1_024;
/// Batches that may wait; with their decoded events about 10 MB.
const BATCHES_WAITING_MAX: usize = 4;

type Batch = Vec<Result<CommittedCommit, ReadError>>;

/// An iterator over what a thread reads ahead. Dropping it ends the thread.
pub struct ReadAhead {
    batches: Option<Receiver<Batch>>,
    ready: std::vec::IntoIter<Result<CommittedCommit, ReadError>>,
    thread: Option<JoinHandle<()>>,
}

impl ReadAhead {
    /// Reads `commits` to their end, or to the first error, on a new thread.
    pub fn start(commits: impl Iterator<Item = Result<CommittedCommit, ReadError>> + Send + 'static) -> Self {
        let (sender, batches) = sync_channel::<Batch>(BATCHES_WAITING_MAX);
        let read = move || {
            let mut batch = Vec::new();
            let mut events = 0;
            for commit in commits {
                events += commit.as_ref().map_or(0, |commit| commit.events.len());
                batch.push(commit);
                if events >= BATCH_EVENTS || batch.len() >= BATCH_COMMITS_MAX {
                    events = 0;
                    if sender.send(std::mem::take(&mut batch)).is_err() {
                        return;
                    }
                }
            }
            let _ = sender.send(batch);
        };
        let spawned = std::thread::Builder::new().name("read-ahead".into()).spawn(read);
        let (thread, batches) = match spawned {
            Ok(thread) => (Some(thread), Some(batches)),
            Err(error) => return Self::failed(error.to_string()),
        };
        Self { batches, ready: Vec::new().into_iter(), thread }
    }

    fn failed(reason: String) -> Self {
        let error = Err(ReadError::Unavailable { at: 0, reason });
        Self { batches: None, ready: vec![error].into_iter(), thread: None }
    }
}

impl Iterator for ReadAhead {
    type Item = Result<CommittedCommit, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(commit) = self.ready.next() {
                return Some(commit);
            }
            self.ready = self.batches.as_ref()?.recv().ok()?.into_iter();
        }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        // First the channel: the thread may wait in it.
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
