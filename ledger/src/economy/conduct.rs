//! What operators' conduct earns and costs them: the health window, the ramp, the cut for switching models, strikes and the
//! rolling reserve. Integers only, by events that the operator has too: it can compute each figure itself. All follow the
//! operator; a new registration changes nothing.

use super::ONE_PPM;
use crate::apply::ApplyError;
use crate::books::BookKey;
use crate::command::{StrikeOperator, TakeEarnings};
use crate::decide::{Legs, Plan};
use crate::grants;
use crate::jobs::{Dispatch, Job, JobState};
use crate::refusal::Refusal;
use crate::state::State;
use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::account::AccountKind;
use protocol::event::economy::{
    ConductRules, FallbackMarked, Forfeit, JobShareSet, OperatorStruck, PayoutCutStarted, ShareReason,
    TrustTier, UptimeNoted,
};
use protocol::event::hold::VoidReason;
use protocol::event::job::{Outcome, UsageCaptured};
use protocol::event::node::{NodeRegistered, NodeRetired};
use protocol::event::{EventBody, Header};
use protocol::id::{HoldId, JobId, OperatorId};
use std::collections::{BTreeMap, BTreeSet};

/// Days whose outcomes are kept.
const DAYS_KEPT: u64 = 28;

/// Outcomes of a day.
#[derive(Clone, PartialEq, Eq, Default, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Outcomes {
    /// Jobs that completed.
    #[n(0)]
    pub(crate) successes: u64,
    /// Jobs that failed by the operator's fault.
    #[n(1)]
    pub(crate) failures: u64,
    #[n(2)]
    pub(crate) probes_passed: u64,
    #[n(3)]
    pub(crate) probes_failed: u64,
    #[n(4)]
    pub(crate) online_us: u64,
    /// What it earned of charges, by asset.
    #[n(5)]
    pub(crate) earned: BTreeMap<AssetId, Amount>,
}

/// One operator.
#[derive(Clone, PartialEq, Eq, Default, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Conduct {
    /// When it registered.
    #[n(0)]
    pub(crate) since_us: u64,
    #[n(1)]
    pub(crate) days: BTreeMap<u64, Outcomes>,
    /// The last cut.
    #[n(2)]
    pub(crate) cut: Option<PayoutCutStarted>,
    /// When a node of its was retired last, and what that served.
    #[n(3)]
    pub(crate) retired: Option<(u64, Vec<String>)>,
    #[n(4)]
    pub(crate) strikes: u32,
    #[n(5)]
    pub(crate) banned: bool,
    /// Its share as the project's own fallback hardware.
    #[n(6)]
    pub(crate) fallback_ppm: Option<u32>,
    /// Jobs it was struck for.
    #[n(7)]
    struck: BTreeSet<JobId>,
}

impl Conduct {
    pub(crate) fn since(since_us: u64) -> Conduct {
        Conduct { since_us, ..Conduct::default() }
    }

    fn day(&mut self, day: u64) -> &mut Outcomes {
        while self.days.first_key_value().is_some_and(|(first, _)| first + DAYS_KEPT < day) {
            self.days.pop_first();
        }
        self.days.entry(day).or_default()
    }

    /// Judged successes and failures of the window that ends today. Whole `uptime_success_us` of online time are one each.
    pub(crate) fn judged(&self, rules: &ConductRules, today: u64) -> (u64, u64) {
        let from = (today + 1).saturating_sub(u64::from(rules.window_days));
        let (mut good, mut bad, mut online_us) = (0u64, 0u64, 0u64);
        for (_, day) in self.days.range(from..=today) {
            good = good.saturating_add(day.successes).saturating_add(day.probes_passed);
            bad = bad.saturating_add(day.failures).saturating_add(day.probes_failed);
            online_us = online_us.saturating_add(day.online_us);
        }
        (good.saturating_add(online_us / rules.uptime_success_us.max(1)), bad)
    }

    /// The highest multiplier of the tiers it reaches; `None` when it reaches none, or was struck.
    pub(crate) fn multiplier_ppm(&self, tiers: &[TrustTier], now_us: u64, health_ppm: u32) -> Option<u32> {
        if self.strikes > 0 || self.fallback_ppm.is_some() {
            return None;
        }
        let age_us = now_us.saturating_sub(self.since_us);
        let reached = tiers.iter().filter(|tier| age_us >= tier.age_us && health_ppm >= tier.health_ppm);
        reached.map(|tier| tier.multiplier_ppm_max).max()
    }
}

/// Successes among all that was judged, millionths; all of it when nothing was.
pub fn health_ppm(successes: u64, failures: u64) -> u32 {
    let all = u128::from(successes) + u128::from(failures);
    if all == 0 {
        return ONE_PPM;
    }
    (u128::from(successes) * u128::from(ONE_PPM) / all) as u32
}

/// The part of its declared capacity that an operator is given, millionths: from `ramp_start_ppm` at registration, evenly
/// to all of it after `ramp_us`.
pub fn ramp_ppm(rules: &ConductRules, age_us: u64) -> u32 {
    if age_us >= rules.ramp_us {
        return ONE_PPM;
    }
    let open = u128::from(ONE_PPM - rules.ramp_start_ppm);
    let gained = open * u128::from(age_us) / u128::from(rules.ramp_us);
    rules.ramp_start_ppm + gained as u32
}

/// The cut at a time, millionths: `floor(cut x steps left / steps)`, steps counted up from the end; nothing from the end on.
pub fn cut_ppm(rules: &ConductRules, cut: &PayoutCutStarted, now_us: u64) -> u32 {
    let left_us = cut.until_us.saturating_sub(now_us).min(rules.cut_us);
    let step_us = (rules.cut_us / u64::from(rules.cut_steps)).max(1);
    let steps_left = left_us.div_ceil(step_us);
    (u128::from(cut.cut_ppm) * u128::from(steps_left) / u128::from(rules.cut_steps)) as u32
}

pub(crate) fn rules(state: &State) -> Option<&ConductRules> {
    state.economy.rules.as_ref()?.conduct.as_ref()
}

/// Judged successes and failures of an operator's window; none without rules.
pub(crate) fn judged(state: &State, conduct: &Conduct, now_us: u64) -> (u64, u64) {
    let today = state.economy.day_of(now_us);
    rules(state).map_or((0, 0), |rules| conduct.judged(rules, today))
}

/// No job goes to who was banned.
pub(crate) fn check_dispatch(state: &State, operator: &OperatorId) -> Result<(), Refusal> {
    match state.economy.conduct.get(operator) {
        Some(conduct) if conduct.banned => Err(Refusal::OperatorBanned { operator: *operator }),
        _ => Ok(()),
    }
}

/// The share of a job's operator, and the event that sets it when it is not the card's. It is fixed at the operator's first
/// charge of the job.
pub(crate) fn share(
    plan: &Plan,
    job: &Job,
    attempt: &Dispatch,
    card_share_ppm: u32,
) -> (u32, Option<JobShareSet>) {
    let state = plan.state;
    let operator = state.operators[attempt.operator].id;
    if let Some(share_ppm) = state.economy.share_of(job.id, &operator) {
        return (share_ppm, None);
    }
    let charged = job.parts().iter().any(|part| job.operator_of(part) == attempt.operator);
    let Some(conduct) = state.economy.conduct.get(&operator).filter(|_| !charged) else {
        return (card_share_ppm, None);
    };
    let set = |share_ppm, reason| {
        let set = JobShareSet { job: job.id, operator, card_share_ppm, share_ppm, reason };
        (share_ppm, Some(set))
    };
    if let Some(fallback_ppm) = conduct.fallback_ppm {
        return set(fallback_ppm.min(card_share_ppm), ShareReason::Fallback);
    }
    let cut =
        rules(state).zip(conduct.cut.as_ref()).map_or(0, |(rules, cut)| cut_ppm(rules, cut, plan.now_us));
    if cut == 0 {
        return (card_share_ppm, None);
    }
    let left = u64::from(card_share_ppm) * u64::from(ONE_PPM - cut) / u64::from(ONE_PPM);
    set(left as u32, ShareReason::Cut)
}

/// After a registration: whether the operator switched. It did when a node of its stops serving a model, or when it brings
/// a new node within `cut_us` of a retirement that does not serve all that the retired one did.
pub(crate) fn plan_switch(plan: &mut Plan, command: &NodeRegistered) {
    let state = plan.state;
    let (Some(rules), Some(conduct)) = (rules(state), state.economy.conduct.get(&command.operator)) else {
        return;
    };
    let served: &[String] = match (state.nodes.get(&command.node), &conduct.retired) {
        (Some(node), _) => &node.models,
        (None, Some((at_us, models))) if at_us.saturating_add(rules.cut_us) > plan.now_us => models,
        _ => &[],
    };
    let Some(model) = served.iter().find(|model| command.models.binary_search(model).is_err()) else {
        return;
    };
    let (operator, node, model) = (command.operator, command.node, model.clone());
    let until_us = plan.now_us.saturating_add(rules.cut_us);
    if rules.cut_ppm > 0 {
        let cut_ppm = rules.cut_ppm;
        plan.emit(PayoutCutStarted { operator, node, model, cut_ppm, until_us });
    }
}

pub(crate) fn decide_fallback(plan: &mut Plan, command: &FallbackMarked) -> Result<(), Refusal> {
    plan.state.economy.rules()?;
    let operator = command.operator;
    if !plan.state.operators.contains_key(&operator) {
        return Err(Refusal::OperatorUnknown { operator });
    }
    if command.share_ppm.is_some_and(|share| share > ONE_PPM) {
        return Err(super::invalid("a fallback's share is at most 1000000 millionths"));
    }
    plan.emit(command.clone());
    Ok(())
}

pub(crate) fn decide_uptime(plan: &mut Plan, command: &UptimeNoted) -> Result<(), Refusal> {
    plan.state.economy.rules()?.conduct.as_ref().ok_or(Refusal::EconomyAbsent { part: "conduct rules" })?;
    if !plan.state.operators.contains_key(&command.operator) {
        return Err(Refusal::OperatorUnknown { operator: command.operator });
    }
    plan.emit(command.clone());
    Ok(())
}

/// What of the earnings of an account must stay for now.
pub(crate) fn reserve(state: &State, account: protocol::id::AccountId, asset: AssetId, now_us: u64) -> i128 {
    let Some(rules) = rules(state).filter(|rules| rules.reserve_ppm > 0) else { return 0 };
    let today = state.economy.day_of(now_us);
    let from = (today + 1).saturating_sub(u64::from(rules.reserve_days));
    let own = state.operators.values().filter(|operator| operator.account == account);
    let conducts = own.filter_map(|operator| state.economy.conduct.get(&operator.id));
    let days = conducts.flat_map(|conduct| conduct.days.range(from..=today));
    let earned: i128 = days.filter_map(|(_, day)| day.earned.get(&asset)).map(|amount| amount.0).sum();
    earned.saturating_mul(i128::from(rules.reserve_ppm)) / i128::from(ONE_PPM)
}

/// Earnings are taken down to the reserve.
pub(crate) fn check_reserve(plan: &Plan, command: &TakeEarnings) -> Result<(), Refusal> {
    let state = plan.state;
    let reserve = reserve(state, command.account, command.asset, plan.now_us);
    let Some(account) = state.accounts.find(&command.account).filter(|_| reserve > 0) else { return Ok(()) };
    let own = state.earnings.iter().filter(|((of, asset, _), _)| (*of, *asset) == (account, command.asset));
    let waiting: i128 = own.map(|(_, earning)| earning.waiting.0).sum();
    let takeable = (waiting - reserve).max(0);
    if command.amount.0 > takeable {
        let (asked, takeable, reserve) = (command.amount, Amount(takeable), Amount(reserve));
        return Err(Refusal::EarningsReserved { asked, takeable, reserve });
    }
    Ok(())
}

/// A strike for a job whose charge was undone: everything that waits for the operator's account and no vault pays is lost.
///
/// Postings: Dr `OperatorAccrued` / Cr `PlatformRevenue`, per asset and backing.
pub(crate) fn decide_strike(plan: &mut Plan, command: &StrikeOperator) -> Result<(), Refusal> {
    let state = plan.state;
    let rules = rules(state).ok_or(Refusal::EconomyAbsent { part: "conduct rules" })?;
    let job = state.jobs.get(&command.job).ok_or(Refusal::JobUnknown { job: command.job })?;
    let no = |detail| Err(Refusal::StrikeRefused { job: command.job, detail });
    if job.state == JobState::Running || !job.reversed {
        return no("its charge is not undone: reverse it first");
    }
    let Some(last) = job.parts().last().map(|part| job.operator_of(part)) else {
        return no("it was never charged");
    };
    let operator = &state.operators[last];
    let conduct = state.economy.conduct.get(&operator.id).cloned().unwrap_or_default();
    if conduct.struck.contains(&command.job) {
        return no("the operator was struck for it already");
    }
    let own = state
        .earnings
        .iter()
        .filter(|((account, _, _), e)| *account == operator.account_no && e.waiting.0 > 0);
    let forfeited: Vec<Forfeit> = own
        .map(|((_, asset, paper), earning)| Forfeit {
            asset: *asset,
            backing: grants::backing(state, *paper),
            amount: earning.waiting,
        })
        .collect();
    let mut legs = Legs::default();
    for Forfeit { asset, amount, .. } in &forfeited {
        let accrued = BookKey::new(operator.account_no, AccountKind::OperatorAccrued, *asset);
        plan.post(&mut legs, accrued, amount.0)?;
        plan.post(&mut legs, BookKey::system(AccountKind::PlatformRevenue, *asset), -amount.0)?;
    }
    let strikes = conduct.strikes + 1;
    let banned = strikes >= rules.strikes_max;
    let event = OperatorStruck { operator: operator.id, job: command.job, strikes, banned, forfeited };
    plan.emit_with(event, legs);
    Ok(())
}

fn conduct_mut<'a>(state: &'a mut State, operator: &OperatorId) -> Result<&'a mut Conduct, ApplyError> {
    state.economy.conduct.get_mut(operator).ok_or_else(|| ApplyError::unknown("operator", operator))
}

pub(crate) fn apply_cut(state: &mut State, event: &PayoutCutStarted) -> Result<(), ApplyError> {
    conduct_mut(state, &event.operator)?.cut = Some(event.clone());
    Ok(())
}

pub(crate) fn apply_share(state: &mut State, header: &Header, event: &JobShareSet) -> Result<(), ApplyError> {
    if event.share_ppm > event.card_share_ppm || state.economy.share_of(event.job, &event.operator).is_some()
    {
        return Err(ApplyError::Impossible("a job's share is set once, at most the card's"));
    }
    state.job_no(event.job)?;
    let note = super::note_job(state, event.job, header.time_us);
    note.shares.push((event.operator, event.share_ppm));
    Ok(())
}

pub(crate) fn apply_fallback(state: &mut State, event: &FallbackMarked) -> Result<(), ApplyError> {
    conduct_mut(state, &event.operator)?.fallback_ppm = event.share_ppm;
    Ok(())
}

pub(crate) fn apply_uptime(
    state: &mut State,
    header: &Header,
    event: &UptimeNoted,
) -> Result<(), ApplyError> {
    let day = state.economy.day_of(header.time_us);
    let day = conduct_mut(state, &event.operator)?.day(day);
    day.online_us = day.online_us.saturating_add(event.online_us);
    day.probes_passed = day.probes_passed.saturating_add(event.probes_passed.into());
    day.probes_failed = day.probes_failed.saturating_add(event.probes_failed.into());
    Ok(())
}

pub(crate) fn apply_struck(state: &mut State, event: &OperatorStruck) -> Result<(), ApplyError> {
    let conduct = conduct_mut(state, &event.operator)?;
    if event.strikes != conduct.strikes + 1 || !conduct.struck.insert(event.job) {
        return Err(ApplyError::Impossible("strikes are counted one by one, each for another job"));
    }
    (conduct.strikes, conduct.banned) = (event.strikes, event.banned);
    let owner = state.operators.get(&event.operator).map(|row| row.account_no);
    let owner = owner.ok_or_else(|| ApplyError::unknown("operator", event.operator))?;
    for Forfeit { asset, backing, amount } in &event.forfeited {
        let paper = grants::paper_beside_vaults(*backing);
        let paper = paper.ok_or(ApplyError::Impossible("what a vault backs is not forfeited"))?;
        let earning = state.earnings.get_mut(&(owner, *asset, paper));
        let earning = earning.filter(|earning| earning.waiting >= *amount && amount.0 > 0);
        earning.ok_or(ApplyError::Impossible("more is forfeited than waits"))?.waiting.0 -= amount.0;
    }
    Ok(())
}

/// A charge is a success when it ends the job by itself; what its operator earned counts for the reserve.
pub(crate) fn note_charge(
    state: &mut State,
    header: &Header,
    event: &UsageCaptured,
    asset: AssetId,
    share: Amount,
) {
    let day = state.economy.day_of(header.time_us);
    let Some(conduct) = state.economy.conduct.get_mut(&event.operator) else { return };
    let day = conduct.day(day);
    let ends = event.part.is_none_or(|part| !part.open);
    day.successes += u64::from(ends && event.outcome == Outcome::Completed);
    let earned = day.earned.entry(asset).or_default();
    earned.0 = earned.0.saturating_add(share.0);
}

/// Faults: a hold voided for them or run out, and a job that another node had to go on with.
pub(crate) fn note_failure(state: &mut State, header: &Header, body: &EventBody) -> Result<(), ApplyError> {
    let last = |hold: &HoldId| -> Result<Option<Dispatch>, ApplyError> {
        Ok(state.jobs[state.hold_no(*hold)?].attempts.last())
    };
    let failed = match body {
        EventBody::HoldVoided(e)
            if matches!(e.reason, VoidReason::OperatorFault | VoidReason::ReceiptInvalid) =>
        {
            last(&e.hold)?
        }
        EventBody::HoldExpired(e) => last(&e.hold)?,
        EventBody::JobDispatched(e) if e.attempt > 0 => {
            state.jobs[state.job_no(e.job)?].attempts.get(e.attempt - 1)
        }
        _ => None,
    };
    let Some(operator) = failed.map(|dispatch| state.operators[dispatch.operator].id) else { return Ok(()) };
    let day = state.economy.day_of(header.time_us);
    if let Some(conduct) = state.economy.conduct.get_mut(&operator) {
        conduct.day(day).failures += 1;
    }
    Ok(())
}

pub(crate) fn note_retired(
    state: &mut State,
    header: &Header,
    event: &NodeRetired,
) -> Result<(), ApplyError> {
    let Some(node) = state.nodes.get(&event.node) else { return Ok(()) };
    let (operator, models) = (node.operator, node.models.clone());
    if let Some(conduct) = state.economy.conduct.get_mut(&operator) {
        conduct.retired = Some((header.time_us, models));
    }
    Ok(())
}
