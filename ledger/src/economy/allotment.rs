//! Allotment days: the pool by the adaptive rule, and each staker's part of it (rulings 3.9). The treasury owes at most the
//! pool, which is known before the day: parts are floors of a share of it, and their sum is watched. Splitting a stake never
//! pays: the proof is in `specs/economies.md`.

use super::{DayFigures, Economy, ONE_PPM};
use crate::accounts::open_account;
use crate::apply::ApplyError;
use crate::command::{AllotStakes, OpenAllotmentDay, SeenStake};
use crate::decide::Plan;
use crate::grants::{self, PRIORITY_ALLOTMENT};
use crate::refusal::Refusal;
use crate::state::State;
use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::event::GrantId;
use protocol::event::economy::{AllotmentDayOpened, AllotmentRules, StakeAllotted};
use protocol::event::grant::{Backing, GrantIssued, GrantSource};
use protocol::id::{AccountId, EvmAddress};
use std::collections::BTreeSet;

/// Most stakes of one command.
pub const STAKES_MAX: usize = 512;
/// Units of one whole staked token.
const TOKEN_UNITS: i128 = 1_000_000;

/// The day that is open, and what it gave.
#[derive(Clone, Default, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Allotment {
    /// The last day that was opened.
    #[n(0)]
    pub(crate) day: Option<AllotmentDayOpened>,
    /// Stake that was seen of it.
    #[n(1)]
    pub(crate) seen_units: u64,
    /// What was given of its pool.
    #[n(2)]
    pub(crate) given: Amount,
    /// What the treasury was asked to pay from its reserve, units of the stable token.
    #[n(3)]
    pub(crate) paid_units: u64,
    #[n(4)]
    accounts: BTreeSet<AccountId>,
    #[n(5)]
    wallets: BTreeSet<EvmAddress>,
}

/// What the pool of a day follows from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolInputs {
    /// Mean daily revenue of 7 days; `None` before the first full day, when revenue bounds nothing.
    pub revenue_mean_7: Option<i128>,
    /// Mean daily usage of 7 days.
    pub usage_mean_7: i128,
    /// Mean daily usage of 28 days.
    pub usage_mean_28: i128,
    /// The pool of the last day before; the floor for the first.
    pub pool_before: i128,
    /// What the treasury has and no day has reserved, base units.
    pub reserve: i128,
}

/// What usage makes of the pool, millionths: `clamp(mean 7 / mean 28, 1 - step, 1 + step)`; no usage changes nothing.
pub fn ratio_ppm(step_ppm: u32, usage_mean_7: i128, usage_mean_28: i128) -> u32 {
    let one = i128::from(ONE_PPM);
    let step = i128::from(step_ppm);
    if usage_mean_28 <= 0 {
        return ONE_PPM;
    }
    let ratio = usage_mean_7.max(0).saturating_mul(one) / usage_mean_28;
    ratio.clamp(one - step, one + step) as u32
}

/// `min(bound, reserve, revenue x R7, max(floor, before x ratio))`, each product rounded down.
pub fn pool(rules: &AllotmentRules, inputs: &PoolInputs) -> i128 {
    let ratio = ratio_ppm(rules.step_ppm, inputs.usage_mean_7, inputs.usage_mean_28);
    let part = |of: i128, ppm: u32| of.saturating_mul(i128::from(ppm)) / i128::from(ONE_PPM);
    let wanted = part(inputs.pool_before, ratio).max(rules.pool_floor.0);
    let earned = inputs.revenue_mean_7.map_or(i128::MAX, |revenue| part(revenue.max(0), rules.revenue_ppm));
    wanted.min(rules.pool_bound.0).min(inputs.reserve).min(earned).max(0)
}

/// A staker's part: `floor(stake x min(pool / total, per token))`, nothing below the minimum. `None` beyond 128 bits.
pub fn part(rules: &AllotmentRules, pool: i128, total_units: u64, stake_units: u64) -> Option<i128> {
    if stake_units < rules.stake_units_min || stake_units == 0 {
        return Some(0);
    }
    let stake = i128::from(stake_units);
    let by_pool = stake.checked_mul(pool)?.checked_div(i128::from(total_units))?;
    let by_token = stake.checked_mul(rules.per_token_max.0)? / TOKEN_UNITS;
    Some(by_pool.min(by_token))
}

/// Sums over the last full days before `today`, and how many days there were.
fn sums(economy: &Economy, today: u64, days: u64) -> (DayFigures, i128) {
    let from = today.saturating_sub(days).max(economy.first_day);
    let mut sum = DayFigures::default();
    for (_, figures) in economy.days.range(from..today) {
        sum.usage.0 = sum.usage.0.saturating_add(figures.usage.0);
        sum.revenue.0 = sum.revenue.0.saturating_add(figures.revenue.0);
    }
    (sum, i128::from(today.saturating_sub(from)))
}

/// What a pool opened now would follow from.
pub(crate) fn inputs(state: &State, rules: &AllotmentRules, reserve_units: u64, now_us: u64) -> PoolInputs {
    let economy = &state.economy;
    let today = economy.day_of(now_us);
    let (week, week_days) = sums(economy, today, 7);
    let (month, month_days) = sums(economy, today, 28);
    let before = economy.allotment.day.as_ref().map_or(rules.pool_floor, |day| day.pool);
    let unit = state.vault_unit(rules.asset).unwrap_or(0);
    PoolInputs {
        revenue_mean_7: (week_days > 0).then(|| week.revenue.0 / week_days.max(1)),
        usage_mean_7: week.usage.0 / week_days.max(1),
        usage_mean_28: month.usage.0 / month_days.max(1),
        pool_before: before.0,
        reserve: i128::from(reserve_units).saturating_mul(unit),
    }
}

fn rules_of(economy: &Economy) -> Result<&AllotmentRules, Refusal> {
    economy.rules()?.allotment.as_ref().ok_or(Refusal::EconomyAbsent { part: "allotment" })
}

/// Opens a day, at most one day ahead: its pool is what the treasury can owe for it, known before it starts.
pub(crate) fn decide_open(plan: &mut Plan, command: &OpenAllotmentDay) -> Result<(), Refusal> {
    let economy = &plan.state.economy;
    let rules = rules_of(economy)?;
    let today = economy.day_of(plan.now_us);
    let wrong = |detail| Err(Refusal::AllotmentDayWrong { given: command.day, today, detail });
    if command.day != today && command.day != today + 1 {
        return wrong("only today and tomorrow can be opened");
    }
    if economy.allotment.day.as_ref().is_some_and(|day| day.day >= command.day) {
        return wrong("it was opened already, or a later one was");
    }
    if command.stake_units_total > i64::MAX as u64 || command.reserve_units > i64::MAX as u64 {
        return Err(Refusal::Overflow { what: "stake or reserve" });
    }
    let inputs = inputs(plan.state, rules, command.reserve_units, plan.now_us);
    let event = AllotmentDayOpened {
        day: command.day,
        block: command.block,
        block_hash: command.block_hash,
        stake_units_total: command.stake_units_total,
        reserve_units: command.reserve_units,
        revenue_mean_7: Amount(inputs.revenue_mean_7.unwrap_or(0)),
        usage_mean_7: Amount(inputs.usage_mean_7),
        usage_mean_28: Amount(inputs.usage_mean_28),
        pool_before: Amount(inputs.pool_before),
        ratio_ppm: ratio_ppm(rules.step_ppm, inputs.usage_mean_7, inputs.usage_mean_28),
        pool: Amount(pool(rules, &inputs)),
    };
    plan.emit(event);
    Ok(())
}

/// Gives stakers their parts of the open day: each account and each wallet once.
pub(crate) fn decide_allot(plan: &mut Plan, command: &AllotStakes) -> Result<(), Refusal> {
    let state = plan.state;
    let rules = rules_of(&state.economy)?.clone();
    let allotment = &state.economy.allotment;
    let today = state.economy.day_of(plan.now_us);
    let wrong = |detail| Err(Refusal::AllotmentDayWrong { given: command.day, today, detail });
    let Some(day) = allotment.day.as_ref().filter(|day| day.day == command.day) else {
        return wrong("it is not the day that was opened last");
    };
    if command.day != today {
        return wrong("parts are given while the day lasts");
    }
    if command.stakes.is_empty() || command.stakes.len() > STAKES_MAX {
        return wrong("1 to 512 stakes at once");
    }
    let (mut accounts, mut wallets) = (BTreeSet::new(), BTreeSet::new());
    let mut seen = allotment.seen_units;
    let mut grant = grants::next_id(state)?;
    for stake in &command.stakes {
        check_stake(state, allotment, stake)?;
        if !accounts.insert(stake.account) || !wallets.insert(stake.wallet) {
            return Err(Refusal::StakeTwice { account: stake.account, wallet: stake.wallet });
        }
        seen = seen.saturating_add(stake.stake_units);
        if seen > day.stake_units_total {
            return Err(Refusal::StakeAboveTotal { seen_units: seen, total_units: day.stake_units_total });
        }
        let amount = part(&rules, day.pool.0, day.stake_units_total, stake.stake_units);
        let amount = amount.ok_or(Refusal::Overflow { what: "allotment" })?;
        grant = plan_part(plan, &rules, stake, (command.day, amount, grant))?;
    }
    Ok(())
}

fn check_stake(state: &State, allotment: &Allotment, stake: &SeenStake) -> Result<(), Refusal> {
    open_account(state, stake.account)?;
    if allotment.accounts.contains(&stake.account) || allotment.wallets.contains(&stake.wallet) {
        return Err(Refusal::StakeTwice { account: stake.account, wallet: stake.wallet });
    }
    let linked = |vault: &protocol::asset::VaultRef| {
        let number = state.wallets.find(&(*vault, stake.wallet))?;
        state.wallets[number].account
    };
    match state.vaults.keys().find_map(linked) {
        Some(other) if other != stake.account => {
            Err(Refusal::StakeOfAnother { wallet: stake.wallet, account: other })
        }
        _ => Ok(()),
    }
}

/// The next free grant number after it.
fn plan_part(
    plan: &mut Plan,
    rules: &AllotmentRules,
    stake: &SeenStake,
    (day, amount, grant): (u64, i128, GrantId),
) -> Result<GrantId, Refusal> {
    let day_us = plan.state.economy.rules()?.day_us;
    if amount > 0 {
        let issued = GrantIssued {
            grant,
            account: stake.account,
            source: GrantSource::Allotment,
            asset: rules.asset,
            amount: Amount(amount),
            priority: PRIORITY_ALLOTMENT,
            scope: rules.models.clone(),
            expires_us: Some((day + 1).saturating_mul(day_us)),
            backing: Backing::Treasury,
        };
        grants::plan_issued(plan, issued)?;
    }
    plan.emit(StakeAllotted {
        day,
        account: stake.account,
        wallet: stake.wallet,
        stake_units: stake.stake_units,
        amount: Amount(amount),
        grant: (amount > 0).then_some(grant),
    });
    Ok(if amount > 0 { GrantId(grant.0 + 1) } else { grant })
}

pub(crate) fn apply_opened(state: &mut State, event: &AllotmentDayOpened) -> Result<(), ApplyError> {
    let allotment = &mut state.economy.allotment;
    if event.pool.0 < 0 || allotment.day.as_ref().is_some_and(|day| day.day >= event.day) {
        return Err(ApplyError::Impossible("allotment days follow each other, with a pool of 0 or more"));
    }
    *allotment = Allotment { day: Some(event.clone()), ..Allotment::default() };
    Ok(())
}

pub(crate) fn apply_allotted(state: &mut State, event: &StakeAllotted) -> Result<(), ApplyError> {
    let allotment = &mut state.economy.allotment;
    let day = allotment.day.as_ref().filter(|day| day.day == event.day);
    let day = day.ok_or(ApplyError::Impossible("a part of a day that is not open"))?;
    allotment.seen_units = allotment.seen_units.saturating_add(event.stake_units);
    allotment.given.0 = allotment.given.0.saturating_add(event.amount.0);
    if allotment.given > day.pool || allotment.seen_units > day.stake_units_total {
        return Err(ApplyError::Impossible("a day gives more than its pool, or saw more than all stake"));
    }
    let is_new = allotment.accounts.insert(event.account) && allotment.wallets.insert(event.wallet);
    if is_new { Ok(()) } else { Err(ApplyError::Impossible("a staker gets one part a day")) }
}
