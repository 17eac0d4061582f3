//! Rules of grants: buckets of credit, and what each may pay for (rulings 3.1, 3.2, 3.13).

use super::books::{BookKey, Legs};
use super::judge::Judge;
use super::world::World;
use crate::checks::CheckKind;
use protocol::asset::AssetId;
use protocol::event::account::AccountKind;
use protocol::event::grant::{Backing, GrantExpired, GrantIssued, GrantSource};
use protocol::event::hold::Slice;
use protocol::event::{GrantId, Header};
use protocol::id::AccountId;

const KIND: CheckKind = CheckKind::Grants;

/// One bucket.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) account: AccountId,
    pub(crate) source: GrantSource,
    pub(crate) asset: AssetId,
    pub(crate) priority: u8,
    pub(crate) scope: Vec<String>,
    pub(crate) expires_us: Option<u64>,
    pub(crate) backing: Backing,
    /// Filled and not spent, withdrawn or lapsed.
    pub(crate) remaining: i128,
    pub(crate) held: i128,
    pub(crate) reserved: i128,
    pub(crate) ended: bool,
}

impl Grant {
    pub(crate) fn is_deposit(&self) -> bool {
        self.source == GrantSource::Deposited
    }

    pub(crate) fn free(&self) -> i128 {
        self.remaining.saturating_sub(self.held).saturating_sub(self.reserved)
    }

    /// By its date alone, whether or not its end is logged.
    pub(crate) fn is_over(&self, time_us: u64) -> bool {
        self.expires_us.is_some_and(|expires_us| expires_us <= time_us)
    }

    pub(crate) fn book_key(&self) -> BookKey {
        let kind = match self.source {
            GrantSource::Deposited => AccountKind::CustomerDeposited,
            GrantSource::Package => AccountKind::CustomerPackage,
            GrantSource::Earned => AccountKind::CustomerEarned,
            GrantSource::Allotment => AccountKind::CustomerAllotment,
            GrantSource::Promo => AccountKind::CustomerPromo,
            GrantSource::CreditLine => AccountKind::CustomerCredit,
        };
        BookKey::of(self.account, kind, self.asset)
    }

    /// Lower pays first: priority, then end (none last), then number.
    fn order(&self, id: GrantId) -> (u8, u64, u32) {
        (self.priority, self.expires_us.unwrap_or(u64::MAX), id.0)
    }
}

pub(crate) fn issued(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &GrantIssued,
) -> Option<Legs> {
    let expected = world.grants.len() as u32;
    judge.equal(CheckKind::Numbering, "grants are numbered without gaps", expected, event.grant.0);
    judge.known(KIND, world.accounts.get(&event.account), "account", event.account)?;
    let amount = event.amount.0;
    let grant = Grant {
        account: event.account,
        source: event.source,
        asset: event.asset,
        priority: event.priority,
        scope: event.scope.clone(),
        expires_us: event.expires_us,
        backing: event.backing,
        remaining: amount,
        held: 0,
        reserved: 0,
        ended: false,
    };
    let over = grant.is_over(header.time_us);
    judge
        .require(KIND, "a grant has not ended when it is given", format!("{:?}", event.expires_us), || !over);
    match (event.source, event.backing) {
        (GrantSource::Deposited, Backing::Vault(vault, address)) => {
            judge.equal(KIND, "a deposit bucket opens empty", 0, amount);
            let wallet = world.wallets.get_mut(&(vault, address));
            let wallet = judge.known(KIND, wallet, "wallet", address)?;
            let fits = wallet.bucket.replace(event.grant).is_none() && wallet.account == Some(event.account);
            judge.require(KIND, "a linked wallet has one deposit bucket", address, || fits);
        }
        (source, backing) => {
            let apart = source != GrantSource::Deposited && !matches!(backing, Backing::Vault(..));
            judge.require(KIND, "deposits and vault backing go together", event.grant.0, || apart);
            judge.require(KIND, "a grant gives something", amount, || amount > 0);
        }
    }
    let mut legs = Legs::default();
    legs.debit(BookKey::system(AccountKind::PromoExpense, event.asset), amount);
    legs.credit(grant.book_key(), amount);
    world.grants.push(grant);
    Some(legs)
}

pub(crate) fn expired(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &GrantExpired,
) -> Option<Legs> {
    let grant = judge.known(KIND, world.grants.get_mut(event.grant.0 as usize), "grant", event.grant.0)?;
    let due = grant.is_over(header.time_us) && !std::mem::replace(&mut grant.ended, true);
    judge.require(KIND, "a grant ends once, at its end", event.grant.0, || due);
    let free = grant.free();
    judge.equal(KIND, "what lapses is what is left and not held", free, event.lapsed.0);
    grant.remaining = grant.remaining.saturating_sub(free);
    let mut legs = Legs::default();
    legs.debit(grant.book_key(), free);
    legs.credit(BookKey::system(AccountKind::Breakage, grant.asset), free);
    Some(legs)
}

/// What a hold wants of its grants.
pub(crate) struct Draw<'a> {
    pub(crate) account: AccountId,
    pub(crate) asset: AssetId,
    pub(crate) model: &'a str,
    pub(crate) time_us: u64,
}

/// Holds a slice of each grant, after asking whether the grant may pay it.
pub(crate) fn draw(world: &mut World, judge: &mut Judge, draw: &Draw<'_>, slices: &[Slice]) -> Option<()> {
    let mut last = None;
    for slice in slices {
        let (id, amount) = (slice.grant, slice.amount.0);
        let allowed = judge.known(KIND, spendable(world, id, draw.time_us), "grant", id.0)?;
        let grant = judge.known(KIND, world.grants.get_mut(id.0 as usize), "grant", id.0)?;
        let fits = grant.account == draw.account && grant.asset == draw.asset;
        judge.require(KIND, "a grant pays for its own account, in its asset", id.0, || fits);
        let scope = grant.scope.is_empty() || grant.scope.iter().any(|model| model == draw.model);
        judge.require(KIND, "a grant pays for models of its scope", draw.model, || scope);
        judge
            .require(KIND, &format!("a slice of 1 to {allowed}"), amount, || amount > 0 && amount <= allowed);
        let order = grant.order(id);
        judge.require(KIND, "grants pay in their order", id.0, || last.is_none_or(|last| last < order));
        last = Some(order);
        grant.held = grant.held.saturating_add(amount);
    }
    Some(())
}

/// What a new hold may take: nothing after its end; of deposited funds at most what the signed cap still allows, and
/// nothing when the wallet leaves or the authorisation is about to end.
fn spendable(world: &World, id: GrantId, time_us: u64) -> Option<i128> {
    let grant = world.grants.get(id.0 as usize)?;
    if grant.is_over(time_us) || grant.ended {
        return Some(0);
    }
    let Backing::Vault(vault, address) = grant.backing else { return Some(grant.free()) };
    let wallet = world.wallets.get(&(vault, address))?;
    let (Some(authorisation), Some(settings)) = (wallet.authorisation, world.settings()) else {
        return Some(0);
    };
    let margin_us = settings.epoch_us.saturating_mul(u64::from(settings.authorisation_margin_epochs));
    let until_us = (u64::from(authorisation.valid_until_s) * 1_000_000).saturating_sub(margin_us);
    if wallet.exiting || time_us >= until_us {
        return Some(0);
    }
    let cap = i128::from(authorisation.max_cumulative_units).saturating_mul(world.vault_unit(grant.asset)?);
    let collectable = cap.saturating_sub(wallet.captured).saturating_sub(grant.held);
    Some(grant.free().min(collectable))
}
