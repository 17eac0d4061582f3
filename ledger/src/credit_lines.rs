//! Credit lines: an account may owe up to a limit. The unused part is a bucket like others (`GrantSource::CreditLine`,
//! unbacked), mirrored by `CreditLines`; what was drawn is a receivable that freezes nobody. In the books always:
//! `CustomerCredit` = the bucket's remaining; `Receivable` = drawn lines + debts.

use crate::accounts::{AccountNo, open_account};
use crate::apply::ApplyError;
use crate::books::{BookKey, LEG_MAX};
use crate::command::{RepayCredit, SetCreditLine};
use crate::decide::{Legs, Plan};
use crate::grants::{self, Grant};
use crate::refusal::Refusal;
use crate::state::State;
use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::GrantId;
use protocol::event::account::{AccountKind, CreditLineSet, CreditRepaid};
use protocol::event::grant::{Backing, GrantIssued, GrantSource};
use protocol::event::hold::Slice;

/// One account's line in one asset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct CreditLine {
    #[n(0)]
    pub(crate) grant: GrantId,
    #[n(1)]
    pub(crate) limit: Amount,
    /// Drawn and not repaid. Below zero when a charge was undone after it had been repaid: then the account may draw
    /// that much more.
    #[n(2)]
    pub(crate) drawn: Amount,
}

/// The line behind a bucket of source `CreditLine`.
pub(crate) fn of<'a>(state: &'a State, grant: &Grant) -> Option<&'a CreditLine> {
    state.credit_lines.get(&(grant.account, grant.asset()))
}

/// What a new hold may draw: never beyond the limit, whatever a release put back into the bucket since the limit fell.
pub(crate) fn spendable(state: &State, grant: &Grant) -> i128 {
    let Some(line) = of(state, grant) else { return 0 };
    grant.free().min(line.limit.0 - line.drawn.0 - grant.held.0).max(0)
}

/// The unused part at a limit: what is neither drawn nor below what open holds have of it.
fn unused(limit: Amount, drawn: Amount, held: Amount) -> i128 {
    (limit.0 - drawn.0).max(held.0)
}

/// Opens the line or changes its limit. Postings: Dr `CreditLines` / Cr `CustomerCredit` by the change of the unused
/// part, `max(limit - drawn, held) - remaining`; reversed when it falls; none when it stays.
pub(crate) fn decide_set(plan: &mut Plan, command: &SetCreditLine) -> Result<(), Refusal> {
    let state = plan.state;
    let SetCreditLine { account, asset, limit, priority } = *command;
    let number = open_account(state, account)?;
    if state.asset(asset).is_none() {
        return Err(Refusal::AssetUnknown { asset });
    }
    if limit.0 < 0 || limit.0 > LEG_MAX {
        return Err(Refusal::CreditLineInvalid {
            detail: "the limit must be between 0 and 2^110 base units",
        });
    }
    let (grant, change) = match state.credit_lines.get(&(number, asset)) {
        Some(line) => {
            let bucket = &state.grants[line.grant];
            if bucket.priority != priority {
                return Err(Refusal::CreditLineInvalid { detail: "its priority is fixed when it is opened" });
            }
            (line.grant, unused(limit, line.drawn, bucket.held) - bucket.remaining.0)
        }
        None => {
            let grant = grants::next_id(state)?;
            plan.emit(GrantIssued {
                grant,
                account,
                source: GrantSource::CreditLine,
                asset,
                amount: Amount::ZERO,
                priority,
                scope: Vec::new(),
                expires_us: None,
                backing: Backing::Unbacked,
            });
            (grant, limit.0)
        }
    };
    let mut legs = Legs::default();
    plan.post(&mut legs, BookKey::system(AccountKind::CreditLines, asset), change)?;
    plan.post(&mut legs, BookKey::new(number, AccountKind::CustomerCredit, asset), -change)?;
    plan.emit_with(CreditLineSet { grant, limit, change: Amount(change) }, legs);
    Ok(())
}

/// How much of a repayment of `amount` comes back as unused: up to the limit and no further.
fn given_back(line: &CreditLine, remaining: Amount, amount: Amount) -> i128 {
    (line.limit.0 - (line.drawn.0 - amount.0) - remaining.0).clamp(0, amount.0)
}

/// Books a payment that came in outside the ledger. Postings: Dr `PlatformTreasury` / Cr `Receivable` by the amount;
/// Dr `CreditLines` / Cr `CustomerCredit` by what becomes unused again: `limit - drawn - remaining` after the
/// repayment, at least 0 and at most the amount.
pub(crate) fn decide_repay(plan: &mut Plan, command: &RepayCredit) -> Result<(), Refusal> {
    let state = plan.state;
    let RepayCredit { account, asset, amount, reference } = *command;
    let number = state.accounts.find(&account);
    let line = number.and_then(|number| Some((number, state.credit_lines.get(&(number, asset))?)));
    let (number, line) = line.ok_or(Refusal::CreditLineUnknown { account, asset })?;
    if amount.0 <= 0 {
        return Err(Refusal::UnitsZero {});
    }
    if amount > line.drawn {
        return Err(Refusal::RepaysMoreThanDrawn { asked: amount, drawn: line.drawn.max(Amount::ZERO) });
    }
    let back = given_back(line, state.grants[line.grant].remaining, amount);
    let mut legs = Legs::default();
    plan.post(&mut legs, BookKey::system(AccountKind::PlatformTreasury, asset), amount.0)?;
    plan.post(&mut legs, BookKey::new(number, AccountKind::Receivable, asset), -amount.0)?;
    plan.post(&mut legs, BookKey::system(AccountKind::CreditLines, asset), back)?;
    plan.post(&mut legs, BookKey::new(number, AccountKind::CustomerCredit, asset), -back)?;
    plan.emit_with(CreditRepaid { grant: line.grant, amount, reference }, legs);
    Ok(())
}

/// What the slices draw from credit lines (a hold's slices are all of one account and asset).
pub(crate) fn drawn_by(state: &State, slices: &[Slice]) -> i128 {
    let of_lines = slices.iter().filter(|slice| {
        state.grants.get(slice.grant).is_some_and(|grant| grant.source == GrantSource::CreditLine)
    });
    of_lines.map(|slice| slice.amount.0).sum()
}

/// The legs of drawing (or, negative, of undoing it): Dr `Receivable` / Cr `CreditLines`, besides the slice's own.
pub(crate) fn draw_legs(
    plan: &mut Plan,
    legs: &mut Legs,
    account: AccountNo,
    asset: AssetId,
    drawn: i128,
) -> Result<(), Refusal> {
    plan.post(legs, BookKey::new(account, AccountKind::Receivable, asset), drawn)?;
    plan.post(legs, BookKey::system(AccountKind::CreditLines, asset), -drawn)
}

/// Adds to what is drawn what the slices took from credit lines (`sign` 1), or takes it off (-1).
pub(crate) fn draw(state: &mut State, slices: &[Slice], sign: i128) -> Result<(), ApplyError> {
    for slice in slices {
        if state.grants[slice.grant].source == GrantSource::CreditLine {
            line_mut(state, slice.grant)?.drawn.0 += sign * slice.amount.0;
        }
    }
    Ok(())
}

fn line_mut(state: &mut State, grant: GrantId) -> Result<&mut CreditLine, ApplyError> {
    let row = state.grant(grant)?;
    let key = (row.account, row.asset());
    let line = state.credit_lines.get_mut(&key).filter(|line| line.grant == grant);
    line.ok_or(ApplyError::Impossible("a bucket without its credit line"))
}

pub(crate) fn apply_set(state: &mut State, event: &CreditLineSet) -> Result<(), ApplyError> {
    let grant = state.grant(event.grant)?;
    if grant.source != GrantSource::CreditLine || event.limit.0 < 0 {
        return Err(ApplyError::Impossible("a limit is set on what is no credit line"));
    }
    let key = (grant.account, grant.asset());
    let line = state.credit_lines.get(&key).copied();
    let line = line.unwrap_or(CreditLine { grant: event.grant, limit: event.limit, drawn: Amount::ZERO });
    let target = unused(event.limit, line.drawn, grant.held);
    if line.grant != event.grant || target - grant.remaining.0 != event.change.0 {
        return Err(ApplyError::Impossible("a credit line changes by something else than its limit says"));
    }
    state.credit_lines.insert(key, CreditLine { limit: event.limit, ..line });
    state.grant_mut(event.grant)?.remaining.0 += event.change.0;
    grants::index(state, event.grant)
}

pub(crate) fn apply_repaid(state: &mut State, event: &CreditRepaid) -> Result<(), ApplyError> {
    let remaining = state.grant(event.grant)?.remaining;
    let line = line_mut(state, event.grant)?;
    if event.amount.0 <= 0 || event.amount > line.drawn {
        return Err(ApplyError::Impossible("more is repaid than was drawn"));
    }
    let back = given_back(line, remaining, event.amount);
    line.drawn.0 -= event.amount.0;
    state.grant_mut(event.grant)?.remaining.0 += back;
    grants::index(state, event.grant)
}
