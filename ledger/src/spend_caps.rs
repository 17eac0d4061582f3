//! Caps on what one key of an account may spend, for life: its charges and its open holds together. A key is counted
//! from its first cap on, by the jobs that are admitted from then on; a reversal gives back.

use crate::accounts::{AccountNo, open_account};
use crate::apply::ApplyError;
use crate::books::LEG_MAX;
use crate::command::SetSpendCap;
use crate::decide::Plan;
use crate::refusal::Refusal;
use crate::state::State;
use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::account::SpendCapSet;
use protocol::id::SpenderId;

/// Whose spending in what.
pub(crate) type CapKey = (AccountNo, SpenderId, AssetId);

/// A key that had a cap at least once.
#[derive(Clone, PartialEq, Eq, Default, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct SpendCap {
    /// `None` after its removal; counting goes on.
    #[n(0)]
    pub(crate) cap: Option<Amount>,
    /// Charges less reversals, of jobs that count.
    #[n(1)]
    pub(crate) charged: Amount,
    /// In open holds of jobs that count.
    #[n(2)]
    pub(crate) held: Amount,
}

/// Whether a key may spend `asked` more now; a key that never had a cap may.
pub(crate) fn check(state: &State, key: &CapKey, asked: Amount) -> Result<(), Refusal> {
    let Some(row) = state.spend_caps.get(key) else { return Ok(()) };
    let Some(cap) = row.cap else { return Ok(()) };
    let spent = Amount(row.charged.0.saturating_add(row.held.0));
    if spent.0.saturating_add(asked.0) > cap.0 && asked.0 > 0 {
        return Err(Refusal::SpendCapReached { spender: key.1, cap, spent, asked });
    }
    Ok(())
}

pub(crate) fn decide_set(plan: &mut Plan, command: &SetSpendCap) -> Result<(), Refusal> {
    let account = open_account(plan.state, command.account)?;
    if plan.state.asset(command.asset).is_none() {
        return Err(Refusal::AssetUnknown { asset: command.asset });
    }
    if command.cap.is_some_and(|cap| cap.0 < 0 || cap.0 > LEG_MAX) {
        return Err(Refusal::SpendCapInvalid { detail: "it must be between 0 and 2^110 base units" });
    }
    let key = (account, command.spender, command.asset);
    if command.cap.is_none() && plan.state.spend_caps.get(&key).is_none_or(|row| row.cap.is_none()) {
        return Err(Refusal::SpendCapInvalid { detail: "there is none to remove" });
    }
    plan.emit(SpendCapSet {
        account: command.account,
        spender: command.spender,
        asset: command.asset,
        cap: command.cap,
    });
    Ok(())
}

pub(crate) fn apply_set(state: &mut State, event: &SpendCapSet) -> Result<(), ApplyError> {
    let account = state.account_no(event.account)?;
    let key = (account, event.spender, event.asset);
    state.spend_caps.entry(key).or_default().cap = event.cap;
    Ok(())
}

/// Moves a counted key's figures; nothing for jobs that do not count.
pub(crate) fn note(
    state: &mut State,
    key: Option<CapKey>,
    held: i128,
    charged: i128,
) -> Result<(), ApplyError> {
    let Some(key) = key else { return Ok(()) };
    let row = state.spend_caps.get_mut(&key);
    let row = row.ok_or(ApplyError::Impossible("a job counts for a key that never had a cap"))?;
    row.held.0 += held;
    row.charged.0 += charged;
    Ok(())
}
