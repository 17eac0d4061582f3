//! Commits decoded on one thread while another applies them. Must not: reorder or drop.

use super::{ChainCheck, CommittedCommit, ReadError, Reader};
use crate::pipeline::Position;
use bytes::Bytes;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Events that travel together: one hand-over costs about as much as decoding twenty of them.
const BATCH_EVENTS: usize = 4_096;
/// Commits that travel together at most.
const BATCH_COMMITS_MAX: usize = 1_024;
/// Batches that may wait; with their decoded events about 10 MB.
const BATCHES_WAITING_MAX: usize = 4;

/// Fetched batches of messages that may wait to be decoded; each is at most 8 MiB.
const FETCHED_WAITING_MAX: usize = 4;

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
                let ended = commit.is_err();
                events += commit.as_ref().map_or(0, |commit| commit.events.len());
                batch.push(commit);
                if ended {
                    break;
                }
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

/// What a fetching thread hands to the decoding one.
type Fetched = Result<Vec<(u64, Bytes)>, ReadError>;

impl Reader {
    /// Commits behind a known position up to number `last`: fetched on one thread, checked and decoded on another, while the
    /// caller applies. For folding much of a log at once. The connection must belong to a runtime that runs meanwhile.
    pub fn ahead(&self, after: Position, last: u64) -> ReadAhead {
        let (sender, batches) = sync_channel(FETCHED_WAITING_MAX);
        let reader = self.clone();
        let fetch = move || fetch_all(&reader, after.commit + 1, last, &sender);
        if let Err(error) = std::thread::Builder::new().name("log-fetch".into()).spawn(fetch) {
            return ReadAhead::failed(error.to_string());
        }
        let chain = ChainCheck::after(self.shard(), after);
        ReadAhead::start(Decoding { batches, ready: Vec::new().into_iter(), chain, last })
    }
}

fn fetch_all(reader: &Reader, first: u64, last: u64, sender: &SyncSender<Fetched>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let reason = error.to_string();
            return drop(sender.send(Err(ReadError::Unavailable { at: first, reason })));
        }
    };
    let mut next = first;
    while next <= last {
        let fetched = runtime.block_on(reader.fetch_batch(next, last));
        next = match &fetched {
            Ok(batch) => batch.last().map_or(next, |(sequence, _)| sequence + 1),
            Err(_) => u64::MAX,
        };
        // Nobody listens any more: the reading ended.
        if sender.send(fetched).is_err() {
            return;
        }
    }
}

/// Checks and decodes what was fetched.
struct Decoding {
    batches: Receiver<Fetched>,
    ready: std::vec::IntoIter<(u64, Bytes)>,
    chain: ChainCheck,
    last: u64,
}

impl Iterator for Decoding {
    type Item = Result<CommittedCommit, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let expected = self.chain.next();
        if expected > self.last {
            return None;
        }
        loop {
            if let Some((sequence, bytes)) = self.ready.next() {
                if sequence != expected {
                    return Some(Err(ReadError::Gap { expected, found: sequence }));
                }
                return Some(self.chain.check(bytes));
            }
            match self.batches.recv() {
                Ok(Ok(batch)) => self.ready = batch.into_iter(),
                Ok(Err(error)) => return Some(Err(error)),
                Err(_) => return None,
            }
        }
    }
}
