//! Figures of the parts around the gateway for `GET /metrics`: how far what follows the log is behind it.

use dispatcher::metrics::{Reading, Readings};
use journal::Position;
use journal::transparency::TransparencyHandle;
use std::sync::Arc;
use tokio::sync::watch;

/// What is read at each scrape.
pub struct Followers {
    /// The log's committed position.
    pub position: watch::Receiver<Position>,
    /// Checkpoints.
    pub transparency: TransparencyHandle,
    /// The next leaf that FEED gets.
    pub feed: watch::Receiver<u64>,
}

impl Followers {
    /// For the gateway.
    pub fn readings(self) -> Readings {
        Arc::new(move || {
            let leaves = self.position.borrow().leaf;
            let signed = self.transparency.published().borrow().as_ref().map_or(0, |signed| signed.size);
            let behind = |at: u64| leaves.saturating_sub(at) as f64;
            let reading = |name, help, value| Reading { name, help, value };
            vec![
                reading(
                    "counterfoil_tlog_size",
                    "Events that the newest signed checkpoint covers",
                    signed as f64,
                ),
                reading(
                    "counterfoil_tlog_lag_events",
                    "Events that no checkpoint covers yet",
                    behind(signed),
                ),
                reading(
                    "counterfoil_feed_lag_events",
                    "Events that are not on FEED yet",
                    behind(*self.feed.borrow()),
                ),
            ]
        })
    }
}
