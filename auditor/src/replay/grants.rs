//! Rules of grants: buckets of credit, opened, moved between and ended (rulings 3.1, 3.2, 3.13; `specs/postings.md`, 4, 7).

use super::books::{BookKey, Legs};
use super::earnings;
use super::judge::Judge;
use super::lines::Line;
use super::world::World;
use crate::checks::CheckKind;
use protocol::asset::AssetId;
use protocol::event::account::AccountKind;
use protocol::event::grant::{Backing, CreditMoved, GrantExpired, GrantIssued, GrantSource};
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
    /// Of a credit line.
    pub(crate) line: Option<Line>,
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
    pub(crate) fn order(&self, id: GrantId) -> Place {
        Place(self.priority, self.expires_us.unwrap_or(u64::MAX), id.0)
    }

    /// Whether it can never pay again, as far as is known now: it need not be asked.
    pub(crate) fn is_used_up(&self) -> bool {
        let empty = self.remaining == 0 && !self.is_deposit() && self.line.is_none();
        (empty || self.ended) && self.held == 0 && self.reserved == 0
    }
}

/// A grant's place in the order of consumption: priority, end (none last), number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Place(u8, u64, pub(crate) u32);

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
        line: (event.source == GrantSource::CreditLine).then(Line::default),
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
        (GrantSource::CreditLine, backing) => {
            judge.equal(KIND, "a credit line opens empty", 0, amount);
            let plain = backing == Backing::Unbacked && event.expires_us.is_none() && event.scope.is_empty();
            judge.require(KIND, "a credit line is unbacked, without end and scope", event.grant.0, || plain);
            let row = world.accounts.get_mut(&event.account)?;
            let is_new = row.lines.insert(event.asset, event.grant).is_none();
            judge.require(KIND, "an account has one credit line an asset", event.account, || is_new);
        }
        (GrantSource::Earned, _) if amount == 0 => earnings::opened(world, judge, event),
        (source, backing) => {
            let apart = source != GrantSource::Deposited && !matches!(backing, Backing::Vault(..));
            judge.require(KIND, "deposits and vault backing go together", event.grant.0, || apart);
            judge.require(KIND, "a grant gives something", amount, || amount > 0);
        }
    }
    let mut legs = Legs::default();
    legs.debit(BookKey::system(AccountKind::PromoExpense, event.asset), amount);
    legs.credit(grant.book_key(), amount);
    super::economy::granted(world, header, event);
    world.grants.push(grant);
    world.list_grant(event.grant);
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

/// Credit goes from one bucket to another of the same kind; what stands behind it, and what it may pay for, stays.
pub(crate) fn moved(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &CreditMoved,
) -> Option<Legs> {
    let from = judge.known(KIND, world.grants.get(event.from.0 as usize), "grant", event.from.0)?;
    let to = judge.known(KIND, world.grants.get(event.to.0 as usize), "grant", event.to.0)?;
    judge.require(KIND, "credit moves between two grants", event.from.0, || event.from != event.to);
    judge.equal(KIND, "moved credit stays in its asset", from.asset.0, to.asset.0);
    judge.require(KIND, "moved credit keeps its backing", event.to.0, || from.backing == to.backing);
    let movable = !matches!(from.source, GrantSource::Deposited | GrantSource::CreditLine);
    judge.require(KIND, "deposits and credit lines do not move", event.from.0, || movable);
    judge.require(KIND, "moved credit keeps its source", event.to.0, || from.source == to.source);
    let may_leave = matches!(from.source, GrantSource::Earned | GrantSource::Package);
    judge.require(KIND, "only earned and bought credit moves to another account", event.to.0, || {
        may_leave || from.account == to.account
    });
    let now_us = header.time_us;
    judge.require(KIND, "neither of the grants is over", now_us, || {
        !from.is_over(now_us) && !to.is_over(now_us) && !from.ended && !to.ended
    });
    let end = |grant: &Grant| grant.expires_us.unwrap_or(u64::MAX);
    judge.require(KIND, "moved credit does not live longer", event.to.0, || end(to) <= end(from));
    let within = from.scope.is_empty()
        || (!to.scope.is_empty() && to.scope.iter().all(|model| from.scope.contains(model)));
    judge.require(KIND, "moved credit pays for nothing more", event.to.0, || within);
    let row = |account| world.accounts.get(&account);
    let target = row(to.account).is_some_and(|row| !row.closed);
    let source =
        row(from.account).is_some_and(|row| !row.closed && row.debts.values().all(|debt| *debt <= 0));
    judge.require(KIND, "both accounts are open, and the one that gives owes nothing", to.account, || {
        target && source
    });
    let (amount, free) = (event.amount.0, from.free());
    judge.require(KIND, format_args!("1 to the {free} that is neither held nor reserved"), amount, || {
        (1..=free).contains(&amount)
    });
    let mut legs = Legs::default();
    legs.pair(from.book_key(), to.book_key(), amount);
    let from = &mut world.grants[event.from.0 as usize];
    from.remaining = from.remaining.saturating_sub(amount);
    let to = &mut world.grants[event.to.0 as usize];
    to.remaining = to.remaining.saturating_add(amount);
    world.list_grant(event.to);
    Some(legs)
}
