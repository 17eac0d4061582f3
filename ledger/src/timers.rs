//! What is due when: holds and grants in the order of their end. `ExpireDue` turns what is due into events.
//! A timer that fires late harms nobody: an expired grant is unspendable by its own date (rulings 3.13).

use crate::command::ExpireDue;
use crate::decide::Plan;
use crate::refusal::Refusal;
use crate::{grants, holds};
use minicbor::{Decode, Encode};
use protocol::event::GrantId;
use protocol::id::HoldId;

/// Most events one `ExpireDue` emits, whatever it asks for: they must fit one commit.
pub const EXPIRE_EVENTS_MAX: u32 = 1024;

/// What ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
#[cbor(flat)]
pub enum Due {
    /// A hold outlived deadline and grace.
    #[n(0)]
    Hold(#[n(0)] HoldId),
    /// A grant reached its end.
    #[n(1)]
    Grant(#[n(0)] GrantId),
}

/// Expires what is due, earliest first. The events do not depend on each other: a release into an expired grant is
/// breakage by the grant's date, whether or not its own event stands before.
pub(crate) fn decide_expire_due(plan: &mut Plan, command: &ExpireDue) -> Result<(), Refusal> {
    let events_max = command.events_max.min(EXPIRE_EVENTS_MAX) as usize;
    let state = plan.state;
    let due = state.timers.iter().take_while(|(due_us, _)| *due_us <= plan.now_us).take(events_max);
    let due: Vec<Due> = due.map(|(_, due)| *due).collect();
    if due.is_empty() {
        let next_us = state.timers.first().map(|(due_us, _)| *due_us);
        return Err(Refusal::NothingDue { now_us: plan.now_us, next_us });
    }
    for due in due {
        match due {
            Due::Hold(hold) => holds::plan_expiry(plan, hold)?,
            Due::Grant(grant) => grants::plan_expiry(plan, grant)?,
        }
    }
    Ok(())
}
