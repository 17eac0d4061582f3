//! What the treasury owes workers for allotted credit: fixed every epoch from what waits with its backing, paid from a
//! day's reserve and never beyond it (requirement A6).

use crate::apply::ApplyError;
use crate::books::BookKey;
use crate::command::CloseTreasuryEpoch;
use crate::decide::{Legs, Plan};
use crate::grants::Paper;
use crate::refusal::Refusal;
use crate::state::State;
use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::account::AccountKind;
use protocol::event::batch::Payout;
use protocol::event::economy::{TreasuryEpochClosed, TreasuryEpochPaid};
use protocol::id::AccountId;
use std::collections::BTreeMap;

/// Most payees of one epoch; the rest waits for the next.
const PAYEES_MAX: usize = 500;

/// Epochs so far.
#[derive(Clone, Default, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Epochs {
    /// The last one's number.
    #[n(0)]
    pub(crate) last: u64,
    /// Closed and not paid.
    #[n(1)]
    pub(crate) open: Option<TreasuryEpochClosed>,
    /// Units for life, by account.
    #[n(2)]
    pub(crate) paid_units: BTreeMap<AccountId, u64>,
}

/// Postings: Dr `OperatorAccrued` / Cr `OperatorSettling` of each payee, whole units; what is below one waits on.
pub(crate) fn decide_close(plan: &mut Plan, command: &CloseTreasuryEpoch) -> Result<(), Refusal> {
    let state = plan.state;
    let economy = &state.economy;
    let rules = economy.rules()?.allotment.as_ref().ok_or(Refusal::EconomyAbsent { part: "allotment" })?;
    let no = |detail| Err(Refusal::TreasuryRefused { detail });
    if economy.treasury.open.is_some() {
        return no("the epoch before is not paid: wait for it");
    }
    let Some(day) = &economy.allotment.day else { return no("no day was opened: nothing can be owed") };
    let unit = state.vault_unit(rules.asset).ok_or(Refusal::AssetUnknown { asset: rules.asset })?;
    let reserve = u64::try_from(day.pool.0 / unit).unwrap_or(u64::MAX);
    let mut left = reserve.saturating_sub(economy.allotment.paid_units);
    let mut payouts = Vec::new();
    let mut legs = Legs::default();
    for operator in state.operators.values() {
        let waiting = state.earnings.get(&(operator.account_no, rules.asset, Paper::Treasury));
        let added_units =
            waiting.map_or(0, |e| u64::try_from(e.waiting.0 / unit).unwrap_or(u64::MAX)).min(left);
        let known = payouts.iter().any(|payout: &Payout| payout.account == operator.account);
        if added_units == 0 || known || payouts.len() == PAYEES_MAX {
            continue;
        }
        left -= added_units;
        let before = economy.treasury.paid_units.get(&operator.account).copied().unwrap_or(0);
        payouts.push(Payout {
            account: operator.account,
            address: operator.payout_address,
            cumulative_units: before.saturating_add(added_units),
            added_units,
        });
        let amount = i128::from(added_units) * unit;
        let of = |kind| BookKey::new(operator.account_no, kind, rules.asset);
        plan.post(&mut legs, of(AccountKind::OperatorAccrued), amount)?;
        plan.post(&mut legs, of(AccountKind::OperatorSettling), -amount)?;
    }
    if payouts.is_empty() {
        return no("no worker has earned a whole unit from allotments, or the day's reserve is used up");
    }
    payouts.sort_by_key(|payout| payout.account);
    let (batch, epoch, day) = (command.batch, economy.treasury.last + 1, day.day);
    plan.emit_with(TreasuryEpochClosed { batch, epoch, day, asset: rules.asset, payouts }, legs);
    Ok(())
}

/// Postings: Dr `OperatorSettling` of each payee / Cr `PlatformTreasury`.
pub(crate) fn decide_paid(plan: &mut Plan, command: &TreasuryEpochPaid) -> Result<(), Refusal> {
    let state = plan.state;
    let no = |detail| Err(Refusal::TreasuryRefused { detail });
    let Some(open) = state.economy.treasury.open.as_ref().filter(|open| open.batch == command.batch) else {
        return no("no such epoch is closed and unpaid");
    };
    let units: u64 = open.payouts.iter().map(|payout| payout.added_units).sum();
    if units != command.units {
        return no("the chain paid another sum than the epoch's payouts: reconcile with it");
    }
    let unit = state.vault_unit(open.asset).ok_or(Refusal::AssetUnknown { asset: open.asset })?;
    let mut legs = Legs::default();
    for payout in &open.payouts {
        let number = crate::accounts::open_account(state, payout.account)
            .or_else(|_| state.accounts.find(&payout.account).ok_or(Refusal::Overflow { what: "account" }))?;
        let amount = i128::from(payout.added_units) * unit;
        plan.post(&mut legs, BookKey::new(number, AccountKind::OperatorSettling, open.asset), amount)?;
    }
    let paid = BookKey::system(AccountKind::PlatformTreasury, open.asset);
    plan.post(&mut legs, paid, -i128::from(units) * unit)?;
    plan.emit_with(command.clone(), legs);
    Ok(())
}

pub(crate) fn apply_closed(state: &mut State, event: &TreasuryEpochClosed) -> Result<(), ApplyError> {
    let unit = unit_of(state, event.asset)?;
    if state.economy.treasury.open.is_some() || event.epoch != state.economy.treasury.last + 1 {
        return Err(ApplyError::Impossible("the treasury's epochs follow each other, one open at a time"));
    }
    for payout in &event.payouts {
        let number = state.account_no(payout.account)?;
        let earning = state.earnings.get_mut(&(number, event.asset, Paper::Treasury));
        let amount = i128::from(payout.added_units) * unit;
        let earning = earning.filter(|earning| earning.waiting.0 >= amount);
        earning.ok_or(ApplyError::Impossible("the treasury owes more than was earned"))?.waiting.0 -= amount;
        let paid = state.economy.treasury.paid_units.entry(payout.account).or_default();
        *paid = paid.saturating_add(payout.added_units);
        state.economy.allotment.paid_units =
            state.economy.allotment.paid_units.saturating_add(payout.added_units);
    }
    let pool = state.economy.allotment.day.as_ref().map_or(0, |day| day.pool.0);
    if i128::from(state.economy.allotment.paid_units) * unit > pool {
        return Err(ApplyError::Impossible("the treasury owes more than the day's reserve"));
    }
    state.economy.treasury.last = event.epoch;
    state.economy.treasury.open = Some(event.clone());
    Ok(())
}

pub(crate) fn apply_paid(state: &mut State, event: &TreasuryEpochPaid) -> Result<(), ApplyError> {
    match state.economy.treasury.open.take() {
        Some(open) if open.batch == event.batch => Ok(()),
        _ => Err(ApplyError::Impossible("an epoch is paid that is not open")),
    }
}

fn unit_of(state: &State, asset: AssetId) -> Result<i128, ApplyError> {
    state.vault_unit(asset).ok_or_else(|| ApplyError::unknown("asset", asset.0))
}

/// What workers earned from allotments and nobody closed.
pub(crate) fn waiting(state: &State, asset: AssetId) -> Amount {
    let own = state.earnings.iter().filter(|((_, of, paper), _)| *of == asset && *paper == Paper::Treasury);
    Amount(own.map(|(_, earning)| earning.waiting.0).sum())
}
