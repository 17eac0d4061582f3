//! Asks the ledger to end what is due: abandoned holds, expired grants. Begins only after the receipts were drained, so
//! that no hold expires that a receipt would have charged.

use crate::access::random_16;
use crate::clock::now_us;
use crate::delivery::command;
use crate::gateway::{Shared, until_raised};
use journal::SubmitError;
use ledger::command::ExpireDue;
use ledger::query;
use protocol::id::IdempotencyKey;
use std::sync::Arc;
use std::time::Duration;

/// How often it looks.
pub const LOOK_MS: u64 = 1_000;
/// What workers get after a start to hand in what they finished meanwhile: downtime does not count against a hold.
pub const START_GRACE_MS: u64 = 5_000;
/// Most events of one commit.
const EVENTS_MAX: u32 = 256;

/// Runs until the coordinator stops.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    let start = tokio::time::Instant::now() + Duration::from_millis(START_GRACE_MS);
    let mut ticks = tokio::time::interval_at(start, Duration::from_millis(LOOK_MS));
    loop {
        tokio::select! {
            () = until_raised(&mut stopping) => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = expire(&shared).await {
            tracing::warn!(target: "expiry", %error, "nothing expired this time");
        }
    }
}

/// Expires what is due now, in as many commits as it takes.
pub(crate) async fn expire(shared: &Shared) -> Result<(), SubmitError> {
    loop {
        let due = shared.client.read(query::next_due_us).await?;
        if due.is_none_or(|due| due > now_us()) {
            return Ok(());
        }
        let Ok(unique) = random_16() else { return Ok(()) };
        let key = IdempotencyKey::internal("expire", &[&unique]);
        match shared.client.submit(command(key, ExpireDue { events_max: EVENTS_MAX })).await {
            Ok(outcome) => tracing::info!(target: "expiry", events = outcome.events.len(), "expired"),
            Err(SubmitError::Refused { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
