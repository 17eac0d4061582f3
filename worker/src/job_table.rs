//! The attempts that a node runs now and ran lately: finds the one to cancel, tells repeated offers. No I/O.

use protocol::id::JobId;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Attempts remembered after their end, so that a repeated offer is not run twice.
const ENDED_MAX: usize = 4_096;

/// One attempt.
pub(crate) type AttemptKey = (JobId, u32);

/// See the module.
#[derive(Default)]
pub(crate) struct JobTable {
    /// Held for single map operations; never across an await.
    attempts: Mutex<Attempts>,
    /// Attempts that have not ended, up to their last message.
    running_count: watch::Sender<usize>,
}

#[derive(Default)]
struct Attempts {
    running: HashMap<AttemptKey, watch::Sender<bool>>,
    known: HashSet<AttemptKey>,
    ended: VecDeque<AttemptKey>,
}

impl JobTable {
    /// Notes a new attempt and returns what its driver watches: `true` = cancel. `None`: known already.
    pub(crate) fn begin(&self, key: AttemptKey) -> Option<watch::Receiver<bool>> {
        let mut attempts = self.lock();
        if !attempts.known.insert(key) {
            return None;
        }
        let (sender, receiver) = watch::channel(false);
        attempts.running.insert(key, sender);
        self.running_count.send_replace(attempts.running.len());
        Some(receiver)
    }

    /// The attempt was refused after all; it may be offered again.
    pub(crate) fn forget(&self, key: AttemptKey) {
        let mut attempts = self.lock();
        attempts.running.remove(&key);
        attempts.known.remove(&key);
        self.running_count.send_replace(attempts.running.len());
    }

    /// The attempt ended.
    pub(crate) fn end(&self, key: AttemptKey) {
        let mut attempts = self.lock();
        attempts.running.remove(&key);
        self.running_count.send_replace(attempts.running.len());
        attempts.ended.push_back(key);
        if attempts.ended.len() > ENDED_MAX
            && let Some(oldest) = attempts.ended.pop_front()
        {
            attempts.known.remove(&oldest);
        }
    }

    /// Tells the attempt's driver to stop; `false` when it does not run (any more).
    pub(crate) fn cancel(&self, key: AttemptKey) -> bool {
        self.lock().running.get(&key).is_some_and(|driver| driver.send(true).is_ok())
    }

    /// Waits until every attempt has ended.
    pub(crate) async fn idle(&self) {
        // The sender is ours, so the wait cannot fail.
        let _ = self.running_count.subscribe().wait_for(|count| *count == 0).await;
    }

    fn lock(&self) -> MutexGuard<'_, Attempts> {
        // Every operation leaves the maps whole, so a panic elsewhere spoils nothing.
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_begins_once_and_is_cancelled_only_while_it_runs() {
        let table = JobTable::default();
        let key = (JobId([1; 16]), 0);
        let watched = table.begin(key).expect("new");
        assert!(table.begin(key).is_none());
        assert!(table.begin((key.0, 1)).is_some(), "another attempt of the same job is another attempt");
        assert!(table.cancel(key) && *watched.borrow());
        table.end(key);
        assert!(!table.cancel(key) && table.begin(key).is_none(), "ended attempts are remembered");
        assert_eq!(*table.running_count.borrow(), 1);
    }

    #[test]
    fn a_refused_attempt_may_come_again_and_memory_is_bounded() {
        let table = JobTable::default();
        let key = (JobId([1; 16]), 0);
        table.begin(key);
        table.forget(key);
        assert!(table.begin(key).is_some());
        table.end(key);
        for attempt in 1..=ENDED_MAX as u32 {
            table.begin((key.0, attempt));
            table.end((key.0, attempt));
        }
        assert!(table.begin(key).is_some(), "the oldest is forgotten");
        assert!(table.begin((key.0, 1)).is_none());
    }
}
