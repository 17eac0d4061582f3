//! Sign-up credit: once an account, while the budget lasts; it ends, cannot be withdrawn, and earns operators nothing
//! that a chain pays.

use crate::accounts::open_account;
use crate::apply::ApplyError;
use crate::command::GrantSignUp;
use crate::decide::Plan;
use crate::grants::{self, PRIORITY_PROMO};
use crate::refusal::Refusal;
use crate::state::State;
use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::event::Header;
use protocol::event::economy::{SignUpCredited, SignUpRules};
use protocol::event::grant::{Backing, GrantIssued, GrantSource};
use protocol::id::AccountId;
use std::collections::BTreeSet;

/// What was given.
#[derive(Clone, Default, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct SignUps {
    /// For ever.
    #[n(0)]
    pub(crate) given: Amount,
    /// The day of the last one.
    #[n(1)]
    day: u64,
    /// On that day.
    #[n(2)]
    day_given: Amount,
    #[n(3)]
    accounts: BTreeSet<AccountId>,
}

impl SignUps {
    /// What is left: of the day, and of all.
    pub(crate) fn left(&self, rules: &SignUpRules, day: u64) -> (Amount, Amount) {
        let today = if day == self.day { self.day_given.0 } else { 0 };
        let left = (rules.budget.0 - self.given.0).max(0);
        (Amount((rules.day_budget.0 - today).clamp(0, left)), Amount(left))
    }
}

pub(crate) fn decide(plan: &mut Plan, command: &GrantSignUp) -> Result<(), Refusal> {
    let economy = &plan.state.economy;
    let rules = economy.rules()?.sign_up.as_ref().ok_or(Refusal::EconomyAbsent { part: "sign-up credit" })?;
    open_account(plan.state, command.account)?;
    if economy.sign_up.accounts.contains(&command.account) {
        return Err(Refusal::SignUpTwice { account: command.account });
    }
    let (day_left, left) = economy.sign_up.left(rules, economy.day_of(plan.now_us));
    if rules.amount > left {
        return Err(Refusal::SignUpExhausted { needed: rules.amount, left, period: "for ever" });
    }
    if rules.amount > day_left {
        return Err(Refusal::SignUpExhausted { needed: rules.amount, left: day_left, period: "today" });
    }
    let grant = grants::next_id(plan.state)?;
    let issued = GrantIssued {
        grant,
        account: command.account,
        source: GrantSource::Promo,
        asset: rules.asset,
        amount: rules.amount,
        priority: PRIORITY_PROMO,
        scope: rules.models.clone(),
        expires_us: Some(plan.now_us.saturating_add(rules.life_us)),
        backing: Backing::Unbacked,
    };
    let amount = rules.amount;
    grants::plan_issued(plan, issued)?;
    plan.emit(SignUpCredited {
        account: command.account,
        grant,
        day_left: Amount(day_left.0 - amount.0),
        left: Amount(left.0 - amount.0),
    });
    Ok(())
}

pub(crate) fn apply(state: &mut State, header: &Header, event: &SignUpCredited) -> Result<(), ApplyError> {
    let day = state.economy.day_of(header.time_us);
    let rules = state.economy.rules.as_ref().and_then(|rules| rules.sign_up.as_ref());
    let amount = rules.ok_or(ApplyError::Impossible("sign-up credit without rules"))?.amount.0;
    let sign_up = &mut state.economy.sign_up;
    if day != sign_up.day {
        (sign_up.day, sign_up.day_given) = (day, Amount::ZERO);
    }
    sign_up.given.0 += amount;
    sign_up.day_given.0 += amount;
    if event.left.0 < 0 || event.day_left.0 < 0 || !sign_up.accounts.insert(event.account) {
        return Err(ApplyError::Impossible("sign-up credit is given once an account, within its budget"));
    }
    Ok(())
}
