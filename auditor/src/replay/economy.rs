//! Rules of the economies (`specs/economies.md`, 1-3, 6, 7): days and their pools, stakers' parts, sign-up credit, service
//! levels, the treasury's epochs. Bounties and operators' conduct stand in `conduct.rs`.

use super::books::{BookKey, Legs};
use super::conduct::Conducts;
use super::grants::Grant;
use super::judge::Judge;
use super::world::World;
use crate::checks::CheckKind;
use protocol::asset::AssetId;
use protocol::event::account::AccountKind;
use protocol::event::economy::{
    AllotmentDayOpened, AllotmentRules, EconomyPublished, ServiceMeasured, SignUpCredited, StakeAllotted,
    TreasuryEpochClosed, TreasuryEpochPaid,
};
use protocol::event::grant::{Backing, GrantIssued, GrantSource};
use protocol::event::hold::Slice;
use protocol::event::{GrantId, Header};
use protocol::id::{AccountId, EvmAddress};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const KIND: CheckKind = CheckKind::Economies;
const ONE: i128 = 1_000_000;

/// The day that was opened last.
#[derive(Debug)]
struct Day {
    event: AllotmentDayOpened,
    seen_units: u64,
    given: i128,
    paid_units: u64,
    accounts: BTreeSet<AccountId>,
    wallets: BTreeSet<EvmAddress>,
}

/// Everything a replay knows of them.
#[derive(Default, Debug)]
pub(crate) struct Economy {
    pub(super) rules: Option<EconomyPublished>,
    first_day: u64,
    /// Usage and revenue.
    days: BTreeMap<u64, (i128, i128)>,
    day: Option<Day>,
    sign_ups: BTreeSet<AccountId>,
    sign_up_given: i128,
    sign_up_days: BTreeMap<u64, i128>,
    package_spent: BTreeMap<(u64, GrantId), i128>,
    measured: BTreeSet<(u64, GrantId)>,
    epoch: u64,
    open_epoch: Option<TreasuryEpochClosed>,
    paid_units: BTreeMap<AccountId, u64>,
    pub(super) conducts: Conducts,
}

impl Economy {
    pub(super) fn day_of(&self, time_us: u64) -> u64 {
        self.rules.as_ref().map_or(0, |rules| time_us.checked_div(rules.day_us).unwrap_or(0))
    }

    fn allotment(&self) -> Option<&AllotmentRules> {
        self.rules.as_ref()?.allotment.as_ref()
    }

    /// Mean usage and revenue of up to `most` full days before today, and how many there were.
    fn means(&self, today: u64, most: u64) -> (i128, i128, u64) {
        let count = today.saturating_sub(self.first_day).min(most);
        let (mut usage, mut revenue) = (0i128, 0i128);
        for day in today.saturating_sub(count)..today {
            let (used, earned) = self.days.get(&day).copied().unwrap_or_default();
            usage = usage.saturating_add(used);
            revenue = revenue.saturating_add(earned);
        }
        let mean = |sum: i128| sum.checked_div(i128::from(count)).unwrap_or(0);
        (mean(usage), mean(revenue), count)
    }
}

/// `floor(of x ppm / 1e6)`.
pub(super) fn part_ppm(of: i128, ppm: u32) -> i128 {
    of.saturating_mul(i128::from(ppm)).div_euclid(ONE)
}

pub(crate) fn published(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &EconomyPublished,
) -> Option<Legs> {
    let before = world.economy.rules.as_ref();
    let expected = before.map_or(1, |rules| rules.version.saturating_add(1));
    judge.equal(KIND, "versions of rules grow by one", expected, event.version);
    let same_day = before.is_none_or(|rules| rules.day_us == event.day_us);
    judge.require(KIND, "the length of a day never changes", event.day_us, || same_day);
    let epoch_us = world.settings().map_or(0, |settings| settings.epoch_us);
    judge.require(KIND, "epochs divide the day", event.day_us, || {
        event.day_us > 0 && event.day_us.checked_rem(epoch_us) == Some(0)
    });
    if let Some(rules) = &event.allotment {
        judge.require(KIND, "the pool's floor is at most its bound", rules.pool_floor.0, || {
            0 <= rules.pool_floor.0 && rules.pool_floor <= rules.pool_bound
        });
    }
    if let Some(rules) = &event.sign_up {
        judge.require(KIND, "0 < amount <= day budget <= budget", rules.amount.0, || {
            rules.amount.0 > 0 && rules.amount <= rules.day_budget && rules.day_budget <= rules.budget
        });
    }
    if world.economy.rules.is_none() {
        world.economy.first_day = header.time_us.checked_div(event.day_us).unwrap_or(0);
    }
    world.economy.rules = Some(event.clone());
    super::conduct::check_cards(world, judge);
    Some(Legs::default())
}

/// A package sold is revenue of its day.
pub(super) fn granted(world: &mut World, header: &Header, event: &GrantIssued) {
    let economy = &mut world.economy;
    if event.source == GrantSource::Package
        && economy.allotment().map(|rules| rules.asset) == Some(event.asset)
    {
        let day = economy.days.entry(economy_day(&economy.rules, header.time_us)).or_default();
        day.1 = day.1.saturating_add(event.amount.0);
    }
}

fn economy_day(rules: &Option<EconomyPublished>, time_us: u64) -> u64 {
    rules.as_ref().map_or(0, |rules| time_us.checked_div(rules.day_us).unwrap_or(0))
}

/// A charge is usage of its day; what vaults paid of it is revenue; packages' spending is kept by day.
pub(super) fn charged(world: &mut World, header: &Header, asset: AssetId, cost: i128, slices: &[Slice]) {
    if world.economy.rules.is_none() {
        return;
    }
    let today = world.economy.day_of(header.time_us);
    let mut by_vaults = 0i128;
    for slice in slices {
        match world.grants.get(slice.grant.0 as usize).map(|grant| grant.backing) {
            Some(Backing::Vault(..)) => by_vaults = by_vaults.saturating_add(slice.amount.0),
            Some(Backing::Package(_)) => {
                let spent = world.economy.package_spent.entry((today, slice.grant)).or_default();
                *spent = spent.saturating_add(slice.amount.0);
            }
            _ => {}
        }
    }
    if world.economy.allotment().map(|rules| rules.asset) == Some(asset) {
        let day = world.economy.days.entry(today).or_default();
        *day = (day.0.saturating_add(cost), day.1.saturating_add(by_vaults));
    }
}

pub(crate) fn day_opened(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &AllotmentDayOpened,
) -> Option<Legs> {
    let economy = &world.economy;
    let rules = judge.known(KIND, economy.allotment(), "allotment", event.day)?.clone();
    let today = economy.day_of(header.time_us);
    let last = economy.day.as_ref().map(|day| day.event.day);
    judge.require(KIND, "today or tomorrow, after the last one", event.day, || {
        (today..=today.saturating_add(1)).contains(&event.day) && last.is_none_or(|last| last < event.day)
    });
    let (usage_7, revenue_7, days) = economy.means(today, 7);
    let (usage_28, _, _) = economy.means(today, 28);
    let before = economy.day.as_ref().map_or(rules.pool_floor.0, |day| day.event.pool.0);
    judge.equal(KIND, "mean revenue of 7 days", revenue_7, event.revenue_mean_7.0);
    judge.equal(KIND, "mean usage of 7 days", usage_7, event.usage_mean_7.0);
    judge.equal(KIND, "mean usage of 28 days", usage_28, event.usage_mean_28.0);
    judge.equal(KIND, "the pool before", before, event.pool_before.0);
    let step = i128::from(rules.step_ppm);
    let ratio =
        usage_7.saturating_mul(ONE).checked_div(usage_28).unwrap_or(ONE).clamp(ONE - step, ONE + step);
    judge.equal(KIND, "what usage made of the pool", ratio, i128::from(event.ratio_ppm));
    let unit = judge.known(KIND, world.vault_unit(rules.asset), "asset", rules.asset.0)?;
    let wanted = before.saturating_mul(ratio).div_euclid(ONE).max(rules.pool_floor.0);
    let mut limits = vec![wanted, rules.pool_bound.0, i128::from(event.reserve_units).saturating_mul(unit)];
    if days > 0 {
        limits.push(part_ppm(revenue_7, rules.revenue_ppm));
    }
    let pool = limits.into_iter().min().unwrap_or(0);
    judge.equal(KIND, "the pool by its rule, within bound, reserve and revenue", pool, event.pool.0);
    world.economy.day = Some(Day {
        event: event.clone(),
        seen_units: 0,
        given: 0,
        paid_units: 0,
        accounts: BTreeSet::new(),
        wallets: BTreeSet::new(),
    });
    Some(Legs::default())
}

/// What the grant right before an event must be.
struct Filled<'a> {
    account: AccountId,
    source: GrantSource,
    asset: AssetId,
    priority: u8,
    scope: &'a [String],
    expires_us: u64,
    backing: Backing,
    amount: i128,
}

fn check_filled(world: &World, judge: &mut Judge, id: Option<GrantId>, filled: &Filled<'_>) -> Option<()> {
    let grant: Option<&Grant> = id
        .filter(|id| id.0 as usize + 1 == world.grants.len())
        .and_then(|id| world.grants.get(id.0 as usize));
    let id = id.map_or(u32::MAX, |id| id.0);
    let grant = judge.known(KIND, grant, "bucket issued right before", id)?;
    let same = (grant.account, grant.source, grant.asset, grant.priority, grant.expires_us)
        == (filled.account, filled.source, filled.asset, filled.priority, Some(filled.expires_us));
    let same = same && grant.scope == filled.scope && grant.backing == filled.backing;
    judge.require(KIND, "the bucket is the one its rule gives", id, || same);
    judge.equal(KIND, "the bucket's amount is what its rule gives", filled.amount, grant.remaining);
    Some(())
}

pub(crate) fn allotted(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &StakeAllotted,
) -> Option<Legs> {
    let economy = &world.economy;
    let rules = judge.known(KIND, economy.allotment(), "allotment", event.day)?.clone();
    let today = economy.day_of(header.time_us);
    let day = economy.day.as_ref().filter(|day| day.event.day == event.day && today == event.day);
    let day = judge.known(KIND, day, "day that lasts", event.day)?;
    let (total, pool) = (day.event.stake_units_total, day.event.pool.0);
    let twice = day.accounts.contains(&event.account) || day.wallets.contains(&event.wallet);
    judge.require(KIND, "an account and a wallet have one part a day", event.account, || !twice);
    let linked = world.wallets.iter().filter(|((_, wallet), _)| *wallet == event.wallet);
    let linked: Vec<AccountId> = linked.filter_map(|(_, wallet)| wallet.account).collect();
    judge.require(KIND, "a linked wallet's stake is its account's", event.wallet, || {
        linked.iter().all(|account| *account == event.account)
    });
    let stake = i128::from(event.stake_units);
    let amount = if event.stake_units < rules.stake_units_min || event.stake_units == 0 {
        0
    } else {
        let by_pool = stake.saturating_mul(pool).checked_div(i128::from(total)).unwrap_or(0);
        by_pool.min(stake.saturating_mul(rules.per_token_max.0).div_euclid(ONE))
    };
    judge.equal(KIND, "the part that follows from the stake", amount, event.amount.0);
    let issued = event.grant.is_some();
    judge.require(KIND, "a part above nothing has a bucket", amount, || issued == (amount > 0));
    if issued {
        let day_us = economy.rules.as_ref().map_or(0, |rules| rules.day_us);
        let filled = Filled {
            account: event.account,
            source: GrantSource::Allotment,
            asset: rules.asset,
            priority: 10,
            scope: &rules.models,
            expires_us: event.day.saturating_add(1).saturating_mul(day_us),
            backing: Backing::Treasury,
            amount,
        };
        check_filled(world, judge, event.grant, &filled)?;
    }
    let day = world.economy.day.as_mut()?;
    day.accounts.insert(event.account);
    day.wallets.insert(event.wallet);
    day.seen_units = day.seen_units.saturating_add(event.stake_units);
    day.given = day.given.saturating_add(event.amount.0);
    let (seen, given) = (day.seen_units, day.given);
    judge.require(KIND, format_args!("at most all stake, {total}"), seen, || seen <= total);
    judge.require(KIND, format_args!("at most the day's pool, {pool}"), given, || given <= pool);
    Some(Legs::default())
}

pub(crate) fn sign_up(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &SignUpCredited,
) -> Option<Legs> {
    let rules = world.economy.rules.as_ref().and_then(|rules| rules.sign_up.clone());
    let rules = judge.known(KIND, rules, "rules of sign-up credit", event.account)?;
    let filled = Filled {
        account: event.account,
        source: GrantSource::Promo,
        asset: rules.asset,
        priority: 30,
        scope: &rules.models,
        expires_us: header.time_us.saturating_add(rules.life_us),
        backing: Backing::Unbacked,
        amount: rules.amount.0,
    };
    check_filled(world, judge, Some(event.grant), &filled)?;
    let today = world.economy.day_of(header.time_us);
    let economy = &mut world.economy;
    let is_new = economy.sign_ups.insert(event.account);
    judge.require(KIND, "sign-up credit comes once an account", event.account, || is_new);
    economy.sign_up_given = economy.sign_up_given.saturating_add(rules.amount.0);
    let given_today = economy.sign_up_days.entry(today).or_default();
    *given_today = given_today.saturating_add(rules.amount.0);
    let left = rules.budget.0.saturating_sub(economy.sign_up_given);
    let before = left.saturating_add(rules.amount.0);
    let day_before = rules.day_budget.0.saturating_sub(*given_today).saturating_add(rules.amount.0);
    let day_left = day_before.min(before).saturating_sub(rules.amount.0);
    judge.equal(KIND, "what is left of the sign-up budget", left, event.left.0);
    judge.equal(KIND, "what is left of the day's sign-up budget", day_left, event.day_left.0);
    judge.require(KIND, "sign-up credit stays within its budgets", left, || left >= 0 && day_left >= 0);
    Some(Legs::default())
}

pub(crate) fn service_measured(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &ServiceMeasured,
) -> Option<Legs> {
    let rules = world.economy.rules.as_ref().and_then(|rules| rules.packages.clone());
    let rules = judge.known(KIND, rules, "rules of packages", event.package.0)?;
    let package = world.grants.get(event.package.0 as usize);
    let package = package.filter(|grant| grant.source == GrantSource::Package);
    let package = judge.known(KIND, package, "package", event.package.0)?;
    let (account, asset) = (package.account, package.asset);
    let today = world.economy.day_of(header.time_us);
    judge.require(KIND, "a level is measured in the week after its day", event.day, || {
        event.day < today && today < event.day.saturating_add(8)
    });
    judge.require(KIND, "no more requests were in time than there were", event.requests_met, || {
        event.requests > 0 && event.requests_met <= event.requests
    });
    let key = (event.day, event.package);
    let is_new = world.economy.measured.insert(key);
    judge.require(KIND, "a package's day is measured once", event.day, || is_new);
    let spent = world.economy.package_spent.get(&key).copied().unwrap_or(0);
    judge.equal(KIND, "what the package paid that day", spent, event.spent.0);
    let met = i128::from(event.requests_met).saturating_mul(ONE);
    let met = met.checked_div(i128::from(event.requests)).unwrap_or(ONE);
    let missed = met < i128::from(rules.service_ppm_target);
    let credit = if missed { part_ppm(spent, rules.credit_ppm) } else { 0 };
    judge.equal(KIND, "the credit for a missed level", credit, event.credit.0);
    let issued = event.grant.is_some();
    judge.require(KIND, "a credit above nothing has a bucket", credit, || issued == (credit > 0));
    if issued {
        let filled = Filled {
            account,
            source: GrantSource::Promo,
            asset,
            priority: 30,
            scope: &[],
            expires_us: header.time_us.saturating_add(rules.credit_life_us),
            backing: Backing::Unbacked,
            amount: credit,
        };
        check_filled(world, judge, event.grant, &filled)?;
    }
    Some(Legs::default())
}

pub(crate) fn epoch_closed(
    world: &mut World,
    judge: &mut Judge,
    event: &TreasuryEpochClosed,
) -> Option<Legs> {
    let unit = judge.known(KIND, world.vault_unit(event.asset), "asset", event.asset.0)?;
    let economy = &mut world.economy;
    let asset = economy.allotment().map(|rules| rules.asset);
    judge.require(KIND, "the treasury pays in the allotment's asset", event.asset.0, || {
        asset == Some(event.asset)
    });
    judge.equal(
        KIND,
        "the treasury's epochs follow each other",
        economy.epoch.saturating_add(1),
        event.epoch,
    );
    let none_open = economy.open_epoch.is_none();
    judge.require(KIND, "one epoch is open at a time", event.epoch, || none_open);
    let day = economy.day.as_mut().filter(|day| day.event.day == event.day);
    let day = judge.known(KIND, day, "open day", event.day)?;
    let mut legs = Legs::default();
    let mut last = None;
    for payout in &event.payouts {
        let sorted = last.replace(payout.account).is_none_or(|last| last < payout.account);
        judge.require(KIND, "payees are sorted, each once", payout.account, || sorted);
        let address = world.operators.values().find(|operator| operator.account == payout.account);
        let address = address.map(|operator| operator.payout_address);
        judge.require(KIND, "a payee is an operator's account and address", payout.address, || {
            address == Some(payout.address)
        });
        let amount = i128::from(payout.added_units).saturating_mul(unit);
        let key = (payout.account, event.asset, Backing::Treasury);
        let earned = world.earned.entry(key).or_default();
        let waiting = earned.waiting;
        judge.require(KIND, format_args!("1 to what waits, {waiting}"), amount, || {
            (1..=waiting).contains(&amount)
        });
        earned.waiting = waiting.saturating_sub(amount);
        let paid = economy.paid_units.entry(payout.account).or_default();
        *paid = paid.saturating_add(payout.added_units);
        judge.equal(KIND, "what a payee got for life", *paid, payout.cumulative_units);
        day.paid_units = day.paid_units.saturating_add(payout.added_units);
        legs.debit(BookKey::of(payout.account, AccountKind::OperatorAccrued, event.asset), amount);
        legs.credit(BookKey::of(payout.account, AccountKind::OperatorSettling, event.asset), amount);
    }
    let (owed, pool) = (i128::from(day.paid_units).saturating_mul(unit), day.event.pool.0);
    judge.require(KIND, format_args!("at most the day's reserve, {pool}"), owed, || owed <= pool);
    economy.epoch = event.epoch;
    economy.open_epoch = Some(event.clone());
    Some(legs)
}

pub(crate) fn epoch_paid(world: &mut World, judge: &mut Judge, event: &TreasuryEpochPaid) -> Option<Legs> {
    let open = world.economy.open_epoch.take().filter(|open| open.batch == event.batch);
    let open = judge.known(KIND, open, "open epoch of the treasury", event.batch)?;
    let unit = judge.known(KIND, world.vault_unit(open.asset), "asset", open.asset.0)?;
    let units = open.payouts.iter().map(|payout| payout.added_units).fold(0, u64::saturating_add);
    judge.equal(KIND, "the treasury paid the epoch's sum", units, event.units);
    let mut legs = Legs::default();
    for payout in &open.payouts {
        let amount = i128::from(payout.added_units).saturating_mul(unit);
        legs.debit(BookKey::of(payout.account, AccountKind::OperatorSettling, open.asset), amount);
        legs.credit(BookKey::system(AccountKind::PlatformTreasury, open.asset), amount);
    }
    Some(legs)
}
