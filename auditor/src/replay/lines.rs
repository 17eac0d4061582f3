//! Rules of credit lines (`specs/postings.md`, 5): a bucket that is filled up to a limit less what is drawn; what a charge
//! draws is a receivable until it is repaid. Drawn credit freezes nothing.

use super::books::{BookKey, Legs};
use super::judge::Judge;
use super::world::World;
use crate::checks::CheckKind;
use protocol::event::account::{AccountKind, CreditLineSet, CreditRepaid};

const KIND: CheckKind = CheckKind::CreditLines;

/// What a bucket is as a credit line. Drawn falls below zero when a charge is undone after it was repaid.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Line {
    pub(crate) limit: i128,
    pub(crate) drawn: i128,
}

pub(crate) fn set(world: &mut World, judge: &mut Judge, event: &CreditLineSet) -> Option<Legs> {
    let grant = judge.known(KIND, world.grants.get_mut(event.grant.0 as usize), "grant", event.grant.0)?;
    let open = world.accounts.get(&grant.account).is_some_and(|row| !row.closed);
    judge.require(KIND, "the account is open", grant.account, || open);
    let (held, remaining, key) = (grant.held, grant.remaining, grant.book_key());
    let line = judge.known(KIND, grant.line.as_mut(), "credit line", event.grant.0)?;
    judge.require(KIND, "a limit is not negative", event.limit.0, || event.limit.0 >= 0);
    line.limit = event.limit.0;
    let unused = line.limit.saturating_sub(line.drawn).max(held);
    let change = unused.saturating_sub(remaining);
    judge.equal(
        KIND,
        "what is unused becomes limit less drawn, and what is held stays",
        change,
        event.change.0,
    );
    grant.remaining = unused;
    let mut legs = Legs::default();
    legs.debit(BookKey::system(AccountKind::CreditLines, key.asset), change);
    legs.credit(key, change);
    Some(legs)
}

pub(crate) fn repaid(world: &mut World, judge: &mut Judge, event: &CreditRepaid) -> Option<Legs> {
    let grant = judge.known(KIND, world.grants.get_mut(event.grant.0 as usize), "grant", event.grant.0)?;
    let (remaining, key) = (grant.remaining, grant.book_key());
    let line = judge.known(KIND, grant.line.as_mut(), "credit line", event.grant.0)?;
    let (amount, drawn) = (event.amount.0, line.drawn);
    judge.require(KIND, format_args!("1 to the {drawn} that is drawn"), amount, || {
        (1..=drawn).contains(&amount)
    });
    line.drawn = drawn.saturating_sub(amount);
    let restored = line.limit.saturating_sub(line.drawn).saturating_sub(remaining).max(0);
    grant.remaining = remaining.saturating_add(restored);
    let mut legs = Legs::default();
    legs.debit(BookKey::system(AccountKind::PlatformTreasury, key.asset), amount);
    legs.credit(BookKey::of(key.owner, AccountKind::Receivable, key.asset), amount);
    legs.debit(BookKey::system(AccountKind::CreditLines, key.asset), restored);
    legs.credit(key, restored);
    Some(legs)
}

/// What a charge of `amount` from a line adds to the legs of every slice: the draw is owed. Negative undoes it.
pub(crate) fn drawn_legs(legs: &mut Legs, key: BookKey, amount: i128) {
    legs.debit(BookKey::of(key.owner, AccountKind::Receivable, key.asset), amount);
    legs.credit(BookKey::system(AccountKind::CreditLines, key.asset), amount);
}
