//! The economies beside deposits (`specs/economies.md`): their rules, what a day saw, and one hook that counts what other
//! events mean for them. Each economy has its own file. Must not: cost anything where no rules are published.

pub mod allotment;
pub mod bounties;
pub mod conduct;
pub(crate) mod packages;
pub(crate) mod sign_up;
pub(crate) mod treasury;
pub mod views;

use crate::apply::ApplyError;
use crate::decide::Plan;
use crate::grants::Paper;
use crate::preset::NAME_BYTES_MAX;
use crate::refusal::Refusal;
use crate::state::State;
use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::economy::{AllotmentRules, BountyRules, ConductRules, EconomyPublished, SignUpRules};
use protocol::event::grant::{GrantIssued, GrantSource};
use protocol::event::{EventBody, Header};
use protocol::id::{JobId, OperatorId};
use std::collections::{BTreeMap, BTreeSet};

/// Millionths of one.
pub const ONE_PPM: u32 = 1_000_000;
/// Days of figures that are kept: 28 full ones, today and tomorrow.
const DAYS_KEPT: u64 = 30;
/// Longest health window.
const WINDOW_DAYS_MAX: u32 = 28;
/// Most trust tiers.
const TIERS_MAX: usize = 16;
/// Most models of a lane.
const MODELS_MAX: usize = 64;
/// How long a job's share and bounty are remembered at least after its last charge: a reversal within it finds both.
const JOB_NOTES_US: u64 = 28 * 86_400 * 1_000_000;
/// Most notes that one event forgets.
const NOTES_FORGOTTEN_MAX: usize = 8;

/// What one day saw, in the allotment's asset.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct DayFigures {
    /// What jobs were charged.
    #[n(0)]
    pub(crate) usage: Amount,
    /// What came in: packages sold, and charges that vaults back.
    #[n(1)]
    pub(crate) revenue: Amount,
}

/// What a job's charges had of their own.
#[derive(Clone, PartialEq, Eq, Default, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct JobNote {
    /// Of the last change.
    #[n(0)]
    pub(crate) time_us: u64,
    /// Shares in place of the card's.
    #[n(1)]
    pub(crate) shares: Vec<(OperatorId, u32)>,
    /// Bounties paid.
    #[n(2)]
    pub(crate) bounties: Vec<(OperatorId, Amount)>,
}

/// Everything the economies know.
#[derive(Clone, Default, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Economy {
    #[n(0)]
    pub(crate) rules: Option<EconomyPublished>,
    /// The day of the first rules.
    #[n(1)]
    pub(crate) first_day: u64,
    #[n(2)]
    pub(crate) days: BTreeMap<u64, DayFigures>,
    #[n(3)]
    pub(crate) allotment: allotment::Allotment,
    #[n(4)]
    pub(crate) sign_up: sign_up::SignUps,
    #[n(5)]
    pub(crate) bounties: bounties::Bounties,
    #[n(6)]
    pub(crate) conduct: BTreeMap<OperatorId, conduct::Conduct>,
    #[n(7)]
    pub(crate) jobs: BTreeMap<JobId, JobNote>,
    /// When each note was last changed.
    #[n(8)]
    job_order: BTreeSet<(u64, JobId)>,
    #[n(9)]
    pub(crate) packages: packages::Packages,
    #[n(10)]
    pub(crate) treasury: treasury::Epochs,
}

impl Economy {
    /// The rules of one economy, or the refusal that there is none.
    pub(crate) fn rules(&self) -> Result<&EconomyPublished, Refusal> {
        self.rules.as_ref().ok_or(Refusal::EconomyAbsent { part: "economy" })
    }

    pub(crate) fn day_of(&self, time_us: u64) -> u64 {
        self.rules.as_ref().map_or(0, |rules| time_us / rules.day_us)
    }

    /// The share of a job's operator that stands in place of the card's.
    #[inline]
    pub(crate) fn share_of(&self, job: JobId, operator: &OperatorId) -> Option<u32> {
        if self.jobs.is_empty() {
            return None;
        }
        let shares = &self.jobs.get(&job)?.shares;
        shares.iter().find(|(of, _)| of == operator).map(|(_, share_ppm)| *share_ppm)
    }
}

/// A job's note, made or moved to the end of the order. Old ones go with their jobs.
pub(crate) fn note_job(state: &mut State, job: JobId, time_us: u64) -> &mut JobNote {
    let economy = &mut state.economy;
    for _ in 0..NOTES_FORGOTTEN_MAX {
        let Some((oldest_us, oldest)) = economy.job_order.first().copied() else { break };
        if oldest_us.saturating_add(JOB_NOTES_US) > time_us || state.jobs.find(&oldest).is_some() {
            break;
        }
        economy.job_order.pop_first();
        economy.jobs.remove(&oldest);
    }
    let note = economy.jobs.entry(job).or_default();
    economy.job_order.remove(&(note.time_us, job));
    note.time_us = time_us;
    economy.job_order.insert((time_us, job));
    note
}

fn invalid(detail: impl Into<String>) -> Refusal {
    Refusal::EconomyInvalid { detail: detail.into() }
}

/// Publishes rules: every figure within its bounds, and no promise that another rule breaks.
pub(crate) fn decide_publish(plan: &mut Plan, command: &EconomyPublished) -> Result<(), Refusal> {
    let before = plan.state.economy.rules.as_ref();
    let expected = before.map_or(1, |rules| rules.version + 1);
    if command.version != expected {
        return Err(invalid(format!("rules are version {expected} now, {} came", command.version)));
    }
    if before.is_some_and(|rules| rules.day_us != command.day_us) {
        return Err(invalid("the length of a day never changes"));
    }
    check_rules(plan.state, command)?;
    plan.emit(command.clone());
    Ok(())
}

fn check_rules(state: &State, rules: &EconomyPublished) -> Result<(), Refusal> {
    let epoch_us = state.settings().map_or(0, |settings| settings.epoch_us);
    if rules.day_us == 0 || epoch_us == 0 || !rules.day_us.is_multiple_of(epoch_us) {
        let day_us = rules.day_us;
        return Err(invalid(format!("an epoch of {epoch_us} us does not divide the day of {day_us} us")));
    }
    if let Some(rules) = &rules.allotment {
        check_allotment(state, rules)?;
    }
    if let Some(rules) = &rules.sign_up {
        check_sign_up(state, rules)?;
    }
    if let Some(rules) = &rules.bounties {
        check_bounties(state, rules)?;
    }
    if let Some(rules) = &rules.conduct {
        check_conduct(rules)?;
    }
    let packages = rules.packages.as_ref();
    if packages.is_some_and(|rules| rules.service_ppm_target > ONE_PPM || rules.credit_ppm > ONE_PPM) {
        return Err(invalid("a package's service level and credit are at most 1000000 millionths"));
    }
    Ok(())
}

fn check_models(models: &[String]) -> Result<(), Refusal> {
    let sorted = models.windows(2).all(|pair| pair[0] < pair[1]);
    let named = models.iter().all(|name| !name.is_empty() && name.len() <= NAME_BYTES_MAX);
    if sorted && named && models.len() <= MODELS_MAX {
        return Ok(());
    }
    Err(invalid("a lane's models are at most 64 names, sorted, none twice"))
}

fn check_allotment(state: &State, rules: &AllotmentRules) -> Result<(), Refusal> {
    check_models(&rules.models)?;
    state.vault_unit(rules.asset).ok_or(Refusal::AssetUnknown { asset: rules.asset })?;
    let amounts = [rules.per_token_max, rules.pool_floor, rules.pool_bound];
    if amounts.iter().any(|amount| amount.0 < 0 || amount.0 > i128::from(u64::MAX)) {
        return Err(invalid("an allotment's amounts are between 0 and 2^64 base units"));
    }
    if rules.pool_floor > rules.pool_bound {
        let (floor, bound) = (rules.pool_floor.0, rules.pool_bound.0);
        return Err(invalid(format!("the pool's floor of {floor} is above its bound of {bound}")));
    }
    if rules.step_ppm >= ONE_PPM {
        return Err(invalid("the pool's step is below 1000000 millionths"));
    }
    Ok(())
}

fn check_sign_up(state: &State, rules: &SignUpRules) -> Result<(), Refusal> {
    check_models(&rules.models)?;
    state.asset(rules.asset).ok_or(Refusal::AssetUnknown { asset: rules.asset })?;
    if rules.budget < state.economy.sign_up.given {
        return Err(invalid("more sign-up credit was given than the new budget"));
    }
    let fits = rules.amount.0 > 0 && rules.amount <= rules.day_budget && rules.day_budget <= rules.budget;
    if !fits || rules.life_us == 0 || rules.budget.0 > i128::from(u64::MAX) {
        return Err(invalid(
            "sign-up credit: 0 < amount <= day_budget <= budget < 2^64, and it ends some time",
        ));
    }
    Ok(())
}

/// Rulings 3.10: a share with its multiplier stays below the whole charge, so that nobody gains by paying himself.
fn check_bounties(state: &State, rules: &BountyRules) -> Result<(), Refusal> {
    state.asset(rules.asset).ok_or(Refusal::AssetUnknown { asset: rules.asset })?;
    let tiers = rules.tiers.iter().map(|tier| tier.multiplier_ppm_max);
    let highest = tiers.chain([rules.multiplier_ppm_max]).max().unwrap_or(0);
    let lowest = rules.tiers.iter().map(|tier| tier.multiplier_ppm_max).min().unwrap_or(ONE_PPM);
    let healthy = rules.tiers.iter().all(|tier| tier.health_ppm <= ONE_PPM);
    let fits = rules.budget >= state.economy.bounties.paid && rules.budget.0 <= i128::from(u64::MAX);
    if !fits || lowest < ONE_PPM || !healthy || rules.tiers.len() > TIERS_MAX || rules.life_us == 0 {
        return Err(invalid(
            "bounties: a budget of what was paid or more within 2^64, at most 16 tiers, multipliers from 1000000 on",
        ));
    }
    bounties::check_cards(state, highest)
}

fn check_conduct(rules: &ConductRules) -> Result<(), Refusal> {
    let shares = [rules.ramp_start_ppm, rules.cut_ppm, rules.reserve_ppm];
    if shares.iter().any(|ppm| *ppm > ONE_PPM) {
        return Err(invalid("ramp, cut and reserve are at most 1000000 millionths"));
    }
    if rules.window_days == 0 || rules.window_days > WINDOW_DAYS_MAX || rules.reserve_days > rules.window_days
    {
        return Err(invalid("the health window has 1 to 28 days, and the reserve lies within it"));
    }
    let periods = [rules.ramp_us, rules.cut_us, rules.uptime_success_us];
    if periods.contains(&0) || rules.cut_steps == 0 || rules.strikes_max == 0 {
        return Err(invalid("ramp, cut, uptime, steps and strikes are above 0"));
    }
    if !rules.cut_us.is_multiple_of(u64::from(rules.cut_steps)) {
        return Err(invalid("the cut's steps divide its time"));
    }
    Ok(())
}

pub(crate) fn apply_published(
    state: &mut State,
    header: &Header,
    event: &EconomyPublished,
) -> Result<(), ApplyError> {
    let expected = state.economy.rules.as_ref().map_or(1, |rules| rules.version + 1);
    if event.version != expected || event.day_us == 0 {
        return Err(ApplyError::Impossible("versions of economies grow by one"));
    }
    if state.economy.rules.is_none() {
        state.economy.first_day = header.time_us / event.day_us;
    }
    state.economy.rules = Some(event.clone());
    Ok(())
}

/// What other families' events mean for the economies. Called after the event was applied.
#[inline]
pub(crate) fn note(state: &mut State, header: &Header, body: &EventBody) -> Result<(), ApplyError> {
    if let EventBody::OperatorRegistered(e) = body {
        state.economy.conduct.insert(e.operator, conduct::Conduct::since(header.time_us));
    }
    if state.economy.rules.is_none() {
        return Ok(());
    }
    match body {
        EventBody::UsageCaptured(e) => {
            let (asset, share) = (state.jobs[state.job_no(e.job)?].asset, e.operator_share);
            note_usage(state, header, asset, e);
            conduct::note_charge(state, header, e, asset, share);
            Ok(())
        }
        EventBody::GrantIssued(e) => {
            note_sale(state, header, e);
            Ok(())
        }
        EventBody::HoldVoided(_) | EventBody::HoldExpired(_) | EventBody::JobDispatched(_) => {
            conduct::note_failure(state, header, body)
        }
        EventBody::NodeRetired(e) => conduct::note_retired(state, header, e),
        _ => Ok(()),
    }
}

fn figures(state: &mut State, time_us: u64) -> &mut DayFigures {
    let today = state.economy.day_of(time_us);
    let days = &mut state.economy.days;
    while days.first_key_value().is_some_and(|(day, _)| day + DAYS_KEPT < today) {
        days.pop_first();
    }
    days.entry(today).or_default()
}

fn allotment_asset(state: &State) -> Option<AssetId> {
    Some(state.economy.rules.as_ref()?.allotment.as_ref()?.asset)
}

fn note_usage(
    state: &mut State,
    header: &Header,
    asset: AssetId,
    event: &protocol::event::job::UsageCaptured,
) {
    let mut paid_by_vaults = 0;
    for slice in &event.slices {
        match state.grants[slice.grant].paper {
            Paper::Wallet(_) => paid_by_vaults += slice.amount.0,
            Paper::Package(..) => {
                let day = state.economy.day_of(header.time_us);
                state.economy.packages.spend(day, slice.grant, slice.amount.0);
            }
            Paper::Unbacked | Paper::Treasury => {}
        }
    }
    if allotment_asset(state) == Some(asset) {
        let figures = figures(state, header.time_us);
        figures.usage.0 = figures.usage.0.saturating_add(event.cost.0);
        figures.revenue.0 = figures.revenue.0.saturating_add(paid_by_vaults);
    }
}

fn note_sale(state: &mut State, header: &Header, event: &GrantIssued) {
    if event.source == GrantSource::Package && allotment_asset(state) == Some(event.asset) {
        let figures = figures(state, header.time_us);
        figures.revenue.0 = figures.revenue.0.saturating_add(event.amount.0);
    }
}
