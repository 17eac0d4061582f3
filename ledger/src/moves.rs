//! Credit that moves from one bucket to another: nothing is made, nothing changes its backing, nothing lives longer or
//! pays for more than before. A deposit, a promotion, an allotment and a credit line stay with their account; a deposit
//! and a credit line stay where they are.

use crate::accounts::{check_open, check_spending};
use crate::apply::ApplyError;
use crate::command::MoveCredit;
use crate::decide::{Legs, Plan};
use crate::grants::{self, Grant};
use crate::refusal::Refusal;
use crate::state::State;
use protocol::amount::Amount;
use protocol::event::GrantId;
use protocol::event::grant::{CreditMoved, GrantSource};

/// Why credit of one bucket may not go to another; `None` when it may.
fn obstacle(state: &State, from: &Grant, to: &Grant, now_us: u64) -> Option<&'static str> {
    let (wide, narrow) = (state.grants.scope(from), state.grants.scope(to));
    let narrower = wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(|model| wide.contains(model)));
    let stays = match from.source {
        GrantSource::Deposited | GrantSource::CreditLine => true,
        GrantSource::Earned | GrantSource::Package => false,
        GrantSource::Allotment | GrantSource::Promo => from.account != to.account,
    };
    if from.asset() != to.asset() {
        Some("their assets differ")
    } else if from.source != to.source {
        Some("their sources differ")
    } else if from.paper != to.paper {
        Some("their backings differ")
    } else if stays {
        Some("credit of this source stays where it is")
    } else if from.expired(now_us) || to.expired(now_us) {
        Some("one of them has expired")
    } else if to.expires_us > from.expires_us {
        Some("the target would outlive the source")
    } else if !narrower {
        Some("the target pays for models that the source does not")
    } else {
        None
    }
}

/// Postings: Dr the ledger account of the source bucket / Cr that of the target, also when both are one.
pub(crate) fn decide(plan: &mut Plan, command: &MoveCredit) -> Result<(), Refusal> {
    let state = plan.state;
    let MoveCredit { from: from_id, to: to_id, amount } = *command;
    let known = |id: GrantId| state.grants.get(id).ok_or(Refusal::GrantUnknown { grant: id });
    let (from, to) = (known(from_id)?, known(to_id)?);
    check_spending(state, from.account)?;
    check_open(state, to.account)?;
    if amount.0 <= 0 {
        return Err(Refusal::UnitsZero {});
    }
    let same = (from_id == to_id).then_some("they are one bucket");
    if let Some(detail) = same.or_else(|| obstacle(state, from, to, plan.now_us)) {
        return Err(Refusal::MoveRefused { from: from_id, to: to_id, detail });
    }
    let available = from.free().max(0);
    if amount.0 > available {
        let available = Amount(available);
        return Err(Refusal::InsufficientCredit { needed: amount, available, asset: from.asset() });
    }
    let mut legs = Legs::default();
    plan.post(&mut legs, from.book_key(), amount.0)?;
    plan.post(&mut legs, to.book_key(), -amount.0)?;
    plan.emit_with(CreditMoved { from: from_id, to: to_id, amount }, legs);
    Ok(())
}

pub(crate) fn apply(state: &mut State, event: &CreditMoved) -> Result<(), ApplyError> {
    let from = state.grant_mut(event.from)?;
    if event.amount.0 <= 0 || event.amount.0 > from.free() || event.from == event.to {
        return Err(ApplyError::Impossible("more credit moves than is free"));
    }
    from.remaining.0 -= event.amount.0;
    state.grant_mut(event.to)?.remaining.0 += event.amount.0;
    grants::index(state, event.from)?;
    grants::index(state, event.to)
}
