//! The lease: the leader beats on `lease.<shard>`, whoever hears nothing for long enough may try to take over. Must not: be
//! what safety depends on (that is the fencing by expected sequence).
//!
//! A plain subject and not a key-value bucket with a time to live: a beat costs no fsync, needs no stream, no quorum and
//! no election, and stops being heard exactly when the leader or its way to the broker is gone. A bucket's entry would
//! lapse while its own stream elects a leader, although the sequencer lives; and it would put ten writes a second with
//! an fsync each on the ledger's disk.

use crate::pipeline::Position;
use crate::remote::message::{Beat, MESSAGE_VERSION, lease_subject};
use futures::StreamExt;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Between two beats.
pub const BEAT_PERIOD: Duration = Duration::from_millis(100);
/// A leader that has not heard its own beat for so long does not answer from its state; below [`LEASE_LAPSE`].
pub const LEASE_HELD: Duration = Duration::from_millis(600);
/// Whoever hears neither beat nor commit for so long may take over.
pub const LEASE_LAPSE: Duration = Duration::from_millis(900);
/// Beats whose sending time is remembered.
const BEATS_REMEMBERED_MAX: usize = 64;

/// Why the lease cannot be kept or watched.
#[derive(Debug, thiserror::Error)]
#[error(
    "the lease {subject} cannot be heard: {reason}; is the broker up, and may this user subscribe to it?"
)]
pub struct LeaseError {
    subject: String,
    reason: String,
}

/// What a leader's beat needs.
pub struct LeaseOptions {
    /// Of [`crate::auth::Role::Writer`].
    pub client: async_nats::Client,
    /// Shard of the log.
    pub shard: u32,
    /// The leader's term.
    pub epoch: u64,
    /// How far its log is.
    pub position: watch::Receiver<Position>,
    /// What the door looks at.
    pub lease: Lease,
}

/// Says whether the lease is held. Cheap to clone.
#[derive(Clone)]
pub struct Lease {
    began: Instant,
    /// Milliseconds after `began` at which the last beat that came back was sent, plus one; 0 = none came back.
    sent_ms: Arc<AtomicU64>,
}

impl Default for Lease {
    fn default() -> Self {
        Self::new()
    }
}

impl Lease {
    /// One that is not held yet.
    pub fn new() -> Lease {
        Lease { began: Instant::now(), sent_ms: Arc::new(AtomicU64::new(0)) }
    }

    /// True while the leader's own beats come back to it: it is connected, and awake.
    pub fn is_held(&self) -> bool {
        let sent = self.sent_ms.load(Ordering::Acquire);
        sent > 0 && self.began.elapsed() < Duration::from_millis(sent - 1) + LEASE_HELD
    }

    fn renew(&self, sent: Instant) {
        let ms = sent.duration_since(self.began).as_millis() as u64 + 1;
        self.sent_ms.fetch_max(ms, Ordering::AcqRel);
    }
}

/// Beats until it is dropped.
pub struct LeaseKeeper {
    superseded: watch::Receiver<Option<u64>>,
    task: JoinHandle<()>,
}

impl LeaseKeeper {
    /// Begins to beat.
    pub async fn start(options: LeaseOptions) -> Result<LeaseKeeper, LeaseError> {
        let (superseded_tx, superseded) = watch::channel(None);
        let beats = subscribe(&options.client, options.shard).await?;
        let task = tokio::spawn(keep(options, beats, superseded_tx));
        Ok(LeaseKeeper { superseded, task })
    }

    /// A later term than ours, once one was heard: another writer leads.
    pub fn superseded(&self) -> watch::Receiver<Option<u64>> {
        self.superseded.clone()
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn subscribe(client: &async_nats::Client, shard: u32) -> Result<async_nats::Subscriber, LeaseError> {
    let subject = lease_subject(shard);
    let subscribed = client.subscribe(subject.clone()).await;
    subscribed.map_err(|e| LeaseError { subject, reason: e.to_string() })
}

async fn keep(
    options: LeaseOptions,
    mut beats: async_nats::Subscriber,
    superseded: watch::Sender<Option<u64>>,
) {
    let LeaseOptions { client, shard, epoch, position, lease } = options;
    let mut period = tokio::time::interval(BEAT_PERIOD);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sent: VecDeque<(u64, Instant)> = VecDeque::new();
    let mut count = 0;
    loop {
        tokio::select! {
            // What was heard comes first: after a pause of this process it may be another's beat.
            biased;
            message = beats.next() => {
                let Some(message) = message else { return };
                let Some(beat) = Beat::read(&message.payload, shard) else { continue };
                if beat.epoch > epoch {
                    superseded.send_replace(Some(beat.epoch));
                } else if beat.epoch == epoch
                    && let Some((_, at)) = sent.iter().find(|(number, _)| *number == beat.count)
                {
                    lease.renew(*at);
                }
            }
            _ = period.tick() => {
                count += 1;
                sent.push_back((count, Instant::now()));
                if sent.len() > BEATS_REMEMBERED_MAX {
                    sent.pop_front();
                }
                let reached = (*position.borrow()).into();
                let beat = Beat { version: MESSAGE_VERSION, shard, epoch, reached, count };
                // Without a connection nobody hears it, and the lease lapses: as it must.
                let _ = client.publish(lease_subject(shard), beat.to_bytes().into()).await;
            }
        }
    }
}

/// The newest beat that was heard, and when.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// Of the highest term so far.
    pub beat: Option<Beat>,
    /// When it came; before the first, when listening began.
    pub at: Instant,
}

/// Listens to beats until it is dropped.
pub struct LeaseWatch {
    heard: watch::Receiver<Heard>,
    task: JoinHandle<()>,
}

impl LeaseWatch {
    /// Begins to listen.
    pub async fn start(client: &async_nats::Client, shard: u32) -> Result<LeaseWatch, LeaseError> {
        let mut beats = subscribe(client, shard).await?;
        let (heard_tx, heard) = watch::channel(Heard { beat: None, at: Instant::now() });
        let task = tokio::spawn(async move {
            let mut epoch = 0;
            while let Some(message) = beats.next().await {
                let Some(beat) = Beat::read(&message.payload, shard) else { continue };
                // One that was fenced may beat a little longer; it does not count.
                if beat.epoch >= epoch {
                    epoch = beat.epoch;
                    heard_tx.send_replace(Heard { beat: Some(beat), at: Instant::now() });
                }
            }
        });
        Ok(LeaseWatch { heard, task })
    }

    /// What was heard last.
    pub fn heard(&self) -> watch::Receiver<Heard> {
        self.heard.clone()
    }
}

impl Drop for LeaseWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_as_old_as_the_beat_that_came_back() {
        let lease = Lease { began: Instant::now() - 2 * LEASE_HELD, ..Lease::new() };
        assert!(!lease.is_held(), "nothing came back yet");
        let old = Instant::now() - LEASE_HELD;
        lease.renew(old);
        assert!(!lease.is_held(), "it came back, but it was sent long ago: this process slept");
        lease.renew(Instant::now());
        assert!(lease.is_held());
        lease.renew(old);
        assert!(lease.is_held(), "an older one takes nothing away");
    }

    const _: () = assert!(LEASE_HELD.as_millis() < LEASE_LAPSE.as_millis());
}
