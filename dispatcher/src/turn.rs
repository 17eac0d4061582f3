//! A request's turn at a node: at once when one has a slot and nobody waits, else in the model's line.
//! Must not: money, the network.

use crate::admission::SLOT_WAIT_MS_MAX;
use crate::api::error::ApiError;
use crate::clock::now_us;
use crate::gateway::Shared;
use crate::router::{Chosen, Lane, Line, Pick, Reason, Ticket, Waiting};
use protocol::id::AccountId;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Prompt tokens whose hash finds a node that has them in its cache.
const PREFIX_TOKENS: usize = 64;

/// What wants a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    /// The model's name on the rate card.
    pub model: &'a str,
    pub account: AccountId,
    pub prompt_ids: &'a [u32],
    /// Bound on output tokens.
    pub output_units_max: u32,
}

/// The models' lines.
#[derive(Default)]
pub(crate) struct Lines {
    /// Held for one step; never across an await.
    lines: Mutex<BTreeMap<String, Line>>,
}

impl Lines {
    /// What a job used of what was reserved for it.
    pub fn settle(&self, model: &str, account: AccountId, output_units_max: u64, output_units: u64) {
        if let Some(line) = self.lock().get_mut(model) {
            line.settle(account, output_units_max, output_units);
        }
    }

    /// Requests that wait, all models together.
    pub fn waiting(&self) -> usize {
        self.lock().values().map(Line::len).sum()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A hash of the prompt's beginning; shorter prompts have nothing worth finding.
pub(crate) fn prefix(prompt_ids: &[u32]) -> Option<u64> {
    let head = prompt_ids.get(..PREFIX_TOKENS)?;
    let hash = blake3::hash(&protocol::commitment::token_bytes(head));
    Some(u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight bytes of thirty-two")))
}

/// Leaves the line when its request goes away, however that happens.
struct Place<'a> {
    shared: &'a Shared,
    model: &'a str,
    ticket: Option<Ticket>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            if let Some(line) = self.shared.lines.lock().get_mut(self.model) {
                line.leave(ticket);
            }
            // It may have been its turn.
            self.shared.slot_freed.notify_waiters();
        }
    }
}

/// A node with a free slot; waits in line for one when all are busy.
pub(crate) async fn take(shared: &Shared, ask: Ask<'_>) -> Result<Chosen, ApiError> {
    let until = tokio::time::Instant::now() + Duration::from_millis(SLOT_WAIT_MS_MAX);
    let mut place = Place { shared, model: ask.model, ticket: None };
    loop {
        let freed = shared.slot_freed.notified();
        tokio::pin!(freed);
        freed.as_mut().enable();
        if shared.is_stopping() {
            return Err(ApiError::unavailable("stopping", "This coordinator is stopping.", 2));
        }
        let reason = match step(shared, &ask, &mut place) {
            Ok(chosen) => return Ok(chosen),
            Err(refused) => refused,
        };
        if !reason.passes_by_itself() {
            return Err(no_node(shared, ask.model, reason));
        }
        if place.ticket.is_none() {
            place.ticket = Some(enter(shared, &ask).map_err(|_| no_node(shared, ask.model, reason))?);
        }
        if tokio::time::timeout_at(until, freed).await.is_err() {
            return Err(no_node(shared, ask.model, reason));
        }
    }
}

/// Takes a slot if there is one and nobody stands before.
fn step(shared: &Shared, ask: &Ask<'_>, place: &mut Place<'_>) -> Result<Chosen, Reason> {
    let now = now_us();
    let mut lines = shared.lines.lock();
    let line = lines.entry(ask.model.to_owned()).or_default();
    if !line.is_free_for(place.ticket, now) {
        return Err(Reason::Full);
    }
    let lane = Lane::of(&shared.lane);
    let pick =
        Pick { model: ask.model, tried: &[], lane, prefix: prefix(ask.prompt_ids), draw: shared.draw() };
    let chosen = shared.table().choose(pick, now)?;
    line.serve(place.ticket.take(), waiting(shared, ask), now);
    if !line.is_empty() {
        // Another slot may be free for the next.
        shared.slot_freed.notify_waiters();
    }
    Ok(chosen)
}

fn enter(shared: &Shared, ask: &Ask<'_>) -> Result<Ticket, crate::router::LineRefusal> {
    let mut lines = shared.lines.lock();
    lines.entry(ask.model.to_owned()).or_default().enter(waiting(shared, ask), now_us())
}

fn waiting(shared: &Shared, ask: &Ask<'_>) -> Waiting {
    Waiting {
        lane: Lane::of(&shared.lane),
        account: ask.account,
        input_units: ask.prompt_ids.len() as u64,
        output_units_max: u64::from(ask.output_units_max),
    }
}

fn no_node(shared: &Shared, model: &str, reason: Reason) -> ApiError {
    let retry_after_s = shared.lines.lock().get(model).map_or(2, |line| line.retry_after_s(now_us()));
    let retry_after_s = u32::try_from(retry_after_s).unwrap_or(u32::MAX);
    let text =
        format!("No node can take a request for {model:?} now ({}); nothing is charged.", reason.code());
    ApiError::unavailable("no_node_available", text, retry_after_s).with("reason", serde_json::json!(reason))
}
