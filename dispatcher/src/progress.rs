//! How far answers were relayed, written behind the client in batches: the newest note of every job, as often as the disk
//! allows. A coordinator that is killed knows after its start what was delivered, up to a few milliseconds.

use crate::access::Store;
use crate::access::settling::Progress;
use crate::gateway::until_raised;
use protocol::id::JobId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Shortest time between two writes: every frame of every stream in it shares one.
pub const FLUSH_MS_MIN: u64 = 5;

/// Notes that wait for the next write; at most one a running job.
#[derive(Default)]
pub(crate) struct ProgressNotes {
    /// Held for one insertion; never across an await.
    waiting: Mutex<HashMap<JobId, Progress>>,
    changed: Notify,
}

impl ProgressNotes {
    /// Leaves the newest note of a job.
    pub fn note(&self, job: JobId, progress: Progress) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(job, progress);
        self.changed.notify_one();
    }

    fn take(&self) -> Vec<(JobId, Progress)> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).drain().collect()
    }

    /// Writes notes until the coordinator stops.
    pub async fn write_until(&self, store: &Store, mut stopped: watch::Receiver<bool>) {
        let mut writes = tokio::time::interval(Duration::from_millis(FLUSH_MS_MIN));
        writes.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            writes.tick().await;
            tokio::select! {
                () = until_raised(&mut stopped) => return,
                () = self.changed.notified() => {}
            }
            let notes = self.take();
            if notes.is_empty() {
                continue;
            }
            if let Err(error) = store.put_progress(notes).await {
                tracing::error!(target: "progress", %error, "progress not written");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::id::Hash32;

    #[tokio::test]
    async fn the_newest_note_of_every_job_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let notes = ProgressNotes::default();
        let job = |n: u8| JobId([n; 16]);
        let note = |delivered| Progress { attempt: 0, delivered, chain: Hash32([0; 32]) };
        for delivered in 1..=50 {
            notes.note(job(1), note(delivered));
        }
        notes.note(job(2), note(7));
        let (stop, stopped) = watch::channel(false);
        let write = notes.write_until(&store, stopped);
        let check = async {
            while store.progress(&job(2)).unwrap().is_none() {
                tokio::task::yield_now().await;
            }
            assert_eq!(store.progress(&job(1)).unwrap(), Some(note(50)));
            stop.send(true).unwrap();
        };
        tokio::join!(write, check);
    }
}
