//! Read-only views of the economies, by reference to [`State`].

use super::{allotment, conduct, treasury};
use crate::state::State;
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::economy::{AllotmentDayOpened, BountyPublished, EconomyPublished, TreasuryEpochClosed};
use protocol::event::grant::GrantSource;
use protocol::id::{AccountId, OperatorId};
use serde::Serialize;

/// The rules in force.
pub fn rules(state: &State) -> Option<&EconomyPublished> {
    state.economy.rules.as_ref()
}

/// The number of the day at a time, microseconds UTC.
pub fn day_of(state: &State, time_us: u64) -> u64 {
    state.economy.day_of(time_us)
}

/// The day that was opened last, what was given of its pool, and what the treasury paid of it (10^-6 of the token).
pub fn allotment_day(state: &State) -> Option<(&AllotmentDayOpened, Amount, u64)> {
    let allotment = &state.economy.allotment;
    allotment.day.as_ref().map(|day| (day, allotment.given, allotment.paid_units))
}

/// What tomorrow's pool would be with this reserve: the treasury's maximum obligation, before the day.
pub fn next_pool(state: &State, reserve_units: u64, now_us: u64) -> Option<Amount> {
    let rules = state.economy.rules.as_ref()?.allotment.as_ref()?;
    let inputs = allotment::inputs(state, rules, reserve_units, now_us);
    Some(Amount(allotment::pool(rules, &inputs)))
}

/// What is left of the sign-up budget: of the day, and of all.
pub fn sign_up_left(state: &State, now_us: u64) -> Option<(Amount, Amount)> {
    let rules = state.economy.rules.as_ref()?.sign_up.as_ref()?;
    Some(state.economy.sign_up.left(rules, state.economy.day_of(now_us)))
}

/// Bounties in force.
pub fn bounties(state: &State, now_us: u64) -> Vec<&BountyPublished> {
    let published = state.economy.bounties.published.values();
    published.filter(|bounty| bounty.until_us > now_us && bounty.multiplier_ppm > super::ONE_PPM).collect()
}

/// What bounties have cost so far.
pub fn bounties_paid(state: &State) -> Amount {
    state.economy.bounties.paid
}

/// An operator's standing: everything a router or the operator itself needs, in integers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Standing {
    /// When it registered.
    pub since_us: u64,
    /// Judged successes of the health window.
    pub successes: u64,
    /// Judged failures of it.
    pub failures: u64,
    /// Successes among both, millionths.
    pub health_ppm: u32,
    /// Part of the declared capacity to give it, millionths.
    pub ramp_ppm: u32,
    /// The cut of its share now, millionths.
    pub cut_ppm: u32,
    /// Strikes so far.
    pub strikes: u32,
    /// Whether it gets no more jobs.
    pub banned: bool,
    /// Whether it is the project's fallback hardware.
    pub fallback: bool,
    /// The highest bounty that its trust unlocks, millionths; `None` = none.
    pub multiplier_ppm_max: Option<u32>,
}

/// See [`Standing`]; `None` without conduct rules or for an unknown operator.
pub fn standing(state: &State, operator: &OperatorId, now_us: u64) -> Option<Standing> {
    let rules = conduct::rules(state)?;
    let row = state.economy.conduct.get(operator)?;
    let (successes, failures) = conduct::judged(state, row, now_us);
    let health_ppm = conduct::health_ppm(successes, failures);
    let bounties = state.economy.rules.as_ref().and_then(|rules| rules.bounties.as_ref());
    Some(Standing {
        since_us: row.since_us,
        successes,
        failures,
        health_ppm,
        ramp_ppm: conduct::ramp_ppm(rules, now_us.saturating_sub(row.since_us)),
        cut_ppm: row.cut.as_ref().map_or(0, |cut| conduct::cut_ppm(rules, cut, now_us)),
        strikes: row.strikes,
        banned: row.banned,
        fallback: row.fallback_ppm.is_some(),
        multiplier_ppm_max: bounties.and_then(|b| row.multiplier_ppm(&b.tiers, now_us, health_ppm)),
    })
}

/// What of an account's earnings must stay for now.
pub fn earnings_reserve(state: &State, account: AccountId, asset: AssetId, now_us: u64) -> Amount {
    Amount(conduct::reserve(state, account, asset, now_us))
}

/// What an account may do at once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Entitlement {
    /// `dedicated` with a package that has something left, `included` with an allotment, else `open`.
    pub lane: &'static str,
    /// Jobs at once; `None` = no cap of a lane.
    pub concurrency: Option<u32>,
    /// Requests a minute; `None` = no cap of a lane.
    pub requests_per_minute: Option<u32>,
    /// Models the lane offers; empty = all.
    pub models: Vec<String>,
}

/// A package lifts the caps of the included lane, for the holder's included jobs too (requirement A5).
pub fn entitlement(state: &State, account: AccountId, now_us: u64) -> Option<Entitlement> {
    let rules = state.economy.rules.as_ref()?;
    let number = state.accounts.find(&account)?;
    let grants = state.accounts.row(number)?.grants.as_slice().iter().map(|id| &state.grants[*id]);
    let live = |source| {
        grants.clone().any(|grant| grant.source == source && grant.free() > 0 && !grant.expired(now_us))
    };
    if let Some(packages) = rules.packages.as_ref().filter(|_| live(GrantSource::Package)) {
        let concurrency = Some(packages.concurrency);
        return Some(Entitlement {
            lane: "dedicated",
            concurrency,
            requests_per_minute: None,
            models: vec![],
        });
    }
    let open = Entitlement { lane: "open", concurrency: None, requests_per_minute: None, models: vec![] };
    Some(match rules.allotment.as_ref().filter(|_| live(GrantSource::Allotment)) {
        Some(allotment) => Entitlement {
            lane: "included",
            concurrency: Some(allotment.concurrency),
            requests_per_minute: Some(allotment.requests_per_minute),
            models: allotment.models.clone(),
        },
        None => open,
    })
}

/// The treasury's epoch that is closed and not paid.
pub fn treasury_epoch(state: &State) -> Option<&TreasuryEpochClosed> {
    state.economy.treasury.open.as_ref()
}

/// What workers earned from allotments and no epoch contains yet.
pub fn treasury_waiting(state: &State, asset: AssetId) -> Amount {
    treasury::waiting(state, asset)
}

/// Whether the promises about budgets hold: the sentence of the first that does not.
pub fn broken_promise(state: &State) -> Option<&'static str> {
    let economy = &state.economy;
    let rules = economy.rules.as_ref()?;
    let day = economy.allotment.day.as_ref();
    if day.is_some_and(|day| economy.allotment.given > day.pool || day.pool.0 < 0) {
        return Some("the day's allotments exceed its pool");
    }
    let sign_up = rules.sign_up.as_ref();
    if sign_up.is_some_and(|rules| economy.sign_up.given > rules.budget) {
        return Some("sign-up credit exceeds its budget");
    }
    let bounties = rules.bounties.as_ref();
    if bounties.is_some_and(|rules| economy.bounties.paid > rules.budget) || economy.bounties.paid.0 < 0 {
        return Some("bounties exceed their budget");
    }
    None
}
