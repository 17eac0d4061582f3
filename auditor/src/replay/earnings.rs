//! Rules of earned credit (`specs/postings.md`, 10): shares of charges that no vault backs wait by what backed the credit
//! that was charged, and are taken as earned credit of that backing.

use super::books::{BookKey, Legs};
use super::captures::{Charge, spread};
use super::conduct;
use super::judge::Judge;
use super::wallets::Interval;
use super::world::World;
use crate::checks::CheckKind;
use protocol::asset::AssetId;
use protocol::event::account::AccountKind;
use protocol::event::grant::{Backing, EarningsTaken, GrantIssued};
use protocol::event::job::UsageCaptured;
use protocol::event::{GrantId, Header};
use protocol::id::{AccountId, JobId, OperatorId};
use std::collections::BTreeMap;

/// Where earned credit stands among an account's grants.
const PRIORITY: u8 = 40;

/// Of whom, in what, backed by what.
pub(crate) type EarnedKey = (AccountId, AssetId, Backing);

/// What was earned with one backing.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Earned {
    pub(crate) waiting: i128,
    bucket: Option<GrantId>,
}

/// A share waits, unless a vault pays it.
pub(crate) fn earn(world: &mut World, key: EarnedKey, share: i128) {
    if !matches!(key.2, Backing::Vault(..)) {
        let earned = world.earned.entry(key).or_default();
        earned.waiting = earned.waiting.saturating_add(share);
    }
}

/// What an exit leaves unpaid of a charge is owed and no vault pays it.
pub(crate) fn stranded(world: &mut World, asset: AssetId, interval: &Interval) {
    let paid = super::captures::floor_part(interval.share, interval.covered, interval.cost).unwrap_or(0);
    if let Some(operator) = world.operators.get(&interval.operator) {
        let owner = operator.account;
        earn(world, (owner, asset, Backing::Unbacked), interval.share.saturating_sub(paid));
    }
}

/// An empty bucket of earned credit.
pub(crate) fn opened(world: &mut World, judge: &mut Judge, event: &GrantIssued) {
    const KIND: CheckKind = CheckKind::Grants;
    let beside = !matches!(event.backing, Backing::Vault(..));
    judge.require(KIND, "what a vault backs is paid on the chain", event.grant.0, || beside);
    let plain = event.priority == PRIORITY && event.expires_us.is_none() && event.scope.is_empty();
    judge.require(KIND, "earnings have priority 40, no end and no scope", event.grant.0, || plain);
    let earned = world.earned.entry((event.account, event.asset, event.backing)).or_default();
    let is_new = earned.bucket.replace(event.grant).is_none();
    judge.require(KIND, "an account's earnings of one backing have one bucket", event.grant.0, || is_new);
}

pub(crate) fn taken(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &EarningsTaken,
) -> Option<Legs> {
    const KIND: CheckKind = CheckKind::Grants;
    if let Some(grant) = world.grants.get(event.grant.0 as usize) {
        conduct::check_reserve(world, judge, header, (grant.account, grant.asset), event.amount.0);
    }
    let grant = judge.known(KIND, world.grants.get_mut(event.grant.0 as usize), "grant", event.grant.0)?;
    let (owner, asset) = (grant.account, grant.asset);
    let earned = world.earned.get_mut(&(owner, asset, grant.backing));
    let earned = earned.filter(|earned| earned.bucket == Some(event.grant));
    let earned = judge.known(KIND, earned, "bucket of earnings", event.grant.0)?;
    let (amount, waiting) = (event.amount.0, earned.waiting);
    judge.require(KIND, format_args!("1 to the {waiting} that wait with this backing"), amount, || {
        (1..=waiting).contains(&amount)
    });
    earned.waiting = waiting.saturating_sub(amount);
    grant.remaining = grant.remaining.saturating_add(amount);
    let mut legs = Legs::default();
    legs.debit(BookKey::of(owner, AccountKind::OperatorAccrued, asset), amount);
    legs.credit(grant.book_key(), amount);
    world.list_grant(event.grant);
    let row = judge.known(KIND, world.accounts.get(&owner), "account", owner)?;
    let may = !row.closed && row.debts.values().all(|debt| *debt <= 0);
    judge.require(KIND, "who takes earnings is open and owes nothing", owner, || may);
    Some(legs)
}

/// What every part of a charge earned, by what backed it.
fn shares(world: &World, asset: AssetId, parts: &[Charge]) -> Option<BTreeMap<EarnedKey, i128>> {
    let mut shares: BTreeMap<EarnedKey, i128> = BTreeMap::new();
    for UsageCaptured { operator, operator_share, cost, slices, .. } in parts.iter().map(|part| &part.event) {
        let owner = owner(world, operator)?;
        for (slice, share) in slices.iter().zip(spread(operator_share.0, cost.0, slices)?) {
            let backing = world.grants.get(slice.grant.0 as usize)?.backing;
            let sum = shares.entry((owner, asset, backing)).or_default();
            *sum = sum.saturating_add(share);
        }
    }
    Some(shares)
}

fn owner(world: &World, operator: &OperatorId) -> Option<AccountId> {
    world.operators.get(operator).map(|operator| operator.account)
}

/// Undoes what a job's charges earned beside vaults: from what waits, and then from what is free in the bucket.
pub(crate) fn recalled(
    world: &mut World,
    judge: &mut Judge,
    job: JobId,
    asset: AssetId,
    parts: &[Charge],
    legs: &mut Legs,
) -> Option<()> {
    const KIND: CheckKind = CheckKind::Reversals;
    let shares = judge.known(KIND, shares(world, asset, parts), "operators' shares", job)?;
    for (key, share) in shares.into_iter().filter(|(key, _)| !matches!(key.2, Backing::Vault(..))) {
        let earned = world.earned.entry(key).or_default();
        let waits = share.min(earned.waiting);
        earned.waiting = earned.waiting.saturating_sub(waits);
        let rest = share.saturating_sub(waits);
        let grant = earned.bucket.and_then(|bucket| world.grants.get_mut(bucket.0 as usize));
        let free = grant.as_ref().map_or(0, |grant| grant.free());
        judge.require(KIND, format_args!("at most the {free} of its earnings that are free"), rest, || {
            rest <= free.max(0)
        });
        let Some(grant) = grant.filter(|_| rest > 0) else { continue };
        grant.remaining = grant.remaining.saturating_sub(rest);
        legs.credit(BookKey::of(key.0, AccountKind::OperatorAccrued, asset), rest);
        legs.debit(grant.book_key(), rest);
    }
    Some(())
}
