//! What a new hold takes of which grants (`specs/postings.md`, 2): what each may still pay, and the order of consumption.

use super::grants::{Grant, Place};
use super::judge::Judge;
use super::meters::MeterKey;
use super::world::World;
use crate::checks::CheckKind;
use protocol::asset::AssetId;
use protocol::event::GrantId;
use protocol::event::grant::Backing;
use protocol::event::hold::Slice;
use protocol::id::AccountId;

const KIND: CheckKind = CheckKind::Grants;

/// What is wanted of an account's grants.
pub(crate) struct Draw<'a> {
    pub(crate) account: AccountId,
    pub(crate) asset: AssetId,
    pub(crate) model: &'a str,
    pub(crate) time_us: u64,
}

impl Draw<'_> {
    fn may_pay(&self, grant: &Grant) -> bool {
        grant.asset == self.asset && self.is_in_scope(grant)
    }

    fn is_in_scope(&self, grant: &Grant) -> bool {
        grant.scope.is_empty() || grant.scope.iter().any(|model| model == self.model)
    }
}

/// Asks of each slice whether its grant may pay it, and of all grants before whether they should have paid first.
pub(crate) fn check(world: &mut World, judge: &mut Judge, draw: &Draw<'_>, slices: &[Slice]) -> Option<()> {
    let mut last: Option<Place> = None;
    for slice in slices {
        let (id, amount) = (slice.grant, slice.amount.0);
        let grant = judge.known(KIND, world.grants.get(id.0 as usize), "grant", id.0)?;
        let fits = grant.account == draw.account && grant.asset == draw.asset;
        judge.require(KIND, "a grant pays for its own account, in its asset", id.0, || fits);
        judge.require(KIND, "a grant pays for models of its scope", draw.model, || draw.is_in_scope(grant));
        let allowed = spendable(world, grant, draw.time_us);
        judge.require(KIND, format_args!("a slice of 1 to {allowed}"), amount, || {
            amount > 0 && amount <= allowed
        });
        let place = grant.order(id);
        judge.require(KIND, "grants pay in their order", id.0, || last.is_none_or(|last| last < place));
        last = Some(place);
    }
    check_order(world, judge, draw, slices);
    Some(())
}

/// Every slice but the last takes all its grant can pay, and no grant that could pay stands before a slice's unused.
fn check_order(world: &mut World, judge: &mut Judge, draw: &Draw<'_>, slices: &[Slice]) {
    let Some(account) = world.accounts.get(&draw.account) else { return };
    judge.examine(KIND);
    let mut open = slices.iter().peekable();
    let mut used_up = Vec::new();
    for place in &account.spendable {
        let Some(next) = open.peek() else { break };
        let Some(grant) = world.grants.get(place.2 as usize) else { continue };
        if grant.is_used_up() {
            used_up.push(*place);
            continue;
        }
        let is_next = next.grant.0 == place.2;
        let can = if draw.may_pay(grant) { spendable(world, grant, draw.time_us) } else { 0 };
        if is_next {
            let amount = next.amount.0;
            open.next();
            if open.peek().is_some() && amount < can {
                let message = format!("grant {} is not used up before later ones pay", place.2);
                judge.fail(KIND, can, amount, message);
            }
        } else if can > 0 {
            let message = format!("grant {} could pay and is passed over for a later one", place.2);
            judge.fail(KIND, format_args!("{can} of grant {}", place.2), next.grant.0, message);
        }
    }
    if !used_up.is_empty()
        && let Some(account) = world.accounts.get_mut(&draw.account)
    {
        used_up.iter().for_each(|place| {
            account.spendable.remove(place);
        });
    }
}

/// Most grants that one draw takes.
const SLICES_MAX: usize = 256;

/// Whether an account may and can pay an amount now.
pub(crate) fn could_pay(world: &World, draw: &Draw<'_>, meter: Option<MeterKey>, amount: i128) -> bool {
    let Some(account) = world.accounts.get(&draw.account) else { return false };
    let meter = meter.and_then(|key| world.meters.get(&key));
    let capped =
        meter.is_some_and(|meter| meter.cap.is_some_and(|cap| meter.spent.saturating_add(amount) > cap));
    if account.closed || account.debts.values().any(|debt| *debt > 0) || capped {
        return false;
    }
    let grants = account.spendable.iter().filter_map(|place| world.grants.get(place.2 as usize));
    let can = grants.filter(|grant| draw.may_pay(grant)).map(|grant| spendable(world, grant, draw.time_us));
    let can = can.filter(|can| *can > 0).take(SLICES_MAX);
    can.fold(0, i128::saturating_add) >= amount
}

/// Reserves checked slices.
pub(crate) fn hold(world: &mut World, slices: &[Slice]) {
    for slice in slices {
        if let Some(grant) = world.grants.get_mut(slice.grant.0 as usize) {
            grant.held = grant.held.saturating_add(slice.amount.0);
        }
    }
}

/// What a grant may pay for something new: nothing after its end; of deposited funds at most what the signed cap still
/// allows, and nothing when the wallet leaves or the authorisation is about to end; of a line what its limit leaves.
fn spendable(world: &World, grant: &Grant, time_us: u64) -> i128 {
    if grant.is_over(time_us) || grant.ended {
        return 0;
    }
    let free = grant.free().max(0);
    if let Some(line) = grant.line {
        let left = line.limit.saturating_sub(line.drawn).saturating_sub(grant.held);
        return free.min(left).max(0);
    }
    let Backing::Vault(vault, address) = grant.backing else { return free };
    collectable(world, grant, (vault, address), time_us).map_or(0, |limit| free.min(limit).max(0))
}

fn collectable(
    world: &World,
    grant: &Grant,
    key: (protocol::asset::VaultRef, protocol::id::EvmAddress),
    time_us: u64,
) -> Option<i128> {
    let wallet = world.wallets.get(&key)?;
    let (authorisation, settings) = (wallet.authorisation?, world.settings()?);
    let margin_us = settings.epoch_us.saturating_mul(u64::from(settings.authorisation_margin_epochs));
    let until_us = (u64::from(authorisation.valid_until_s) * 1_000_000).saturating_sub(margin_us);
    if wallet.exiting || time_us >= until_us {
        return None;
    }
    let cap = i128::from(authorisation.max_cumulative_units).saturating_mul(world.vault_unit(grant.asset)?);
    Some(cap.saturating_sub(wallet.captured).saturating_sub(grant.held))
}

impl World {
    /// Puts a grant into its account's order of consumption, where it stays until it is used up.
    pub(crate) fn list_grant(&mut self, id: GrantId) {
        let Some(grant) = self.grants.get(id.0 as usize) else { return };
        let place = grant.order(id);
        if let Some(account) = self.accounts.get_mut(&grant.account) {
            account.spendable.insert(place);
        }
    }
}
