//! Bounties: more for serving a model that lacks supply, out of the platform's own share (rulings 3.10). Never on credit
//! that nothing backs, nor on allotments, nor between one owner's accounts; never beyond the budget.

use super::conduct::health_ppm;
use super::{ONE_PPM, invalid};
use crate::accounts::AccountNo;
use crate::apply::ApplyError;
use crate::books::BookKey;
use crate::command::PublishBounty;
use crate::decide::{Legs, Plan};
use crate::grants::Paper;
use crate::jobs::{Dispatch, Job};
use crate::refusal::Refusal;
use crate::state::State;
use crate::{earnings, splits};
use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::Header;
use protocol::event::account::AccountKind;
use protocol::event::economy::{BountyPaid, BountyPublished, BountyRules, BountyTakenBack};
use protocol::event::job::UsageCaptured;
use protocol::id::{JobId, OperatorId};
use protocol::rate::RateCard;
use std::collections::BTreeMap;

/// What is published and what was paid.
#[derive(Clone, Default, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Bounties {
    /// By model.
    #[n(0)]
    pub(crate) published: BTreeMap<String, BountyPublished>,
    /// Less what was taken back.
    #[n(1)]
    pub(crate) paid: Amount,
}

impl Bounties {
    pub(crate) fn left(&self, rules: &BountyRules) -> Amount {
        Amount((rules.budget.0 - self.paid.0).max(0))
    }
}

/// The multiplier that a lack of supply gives: 1 plus `gain` times the larger of how far the queue is above its target (as
/// a part of the target) and how far the fallback share is; at most the rules' highest.
pub fn multiplier_ppm(rules: &BountyRules, queue_ms: u64, fallback_ppm: u32) -> u32 {
    let one = u128::from(ONE_PPM);
    let over_ms = u128::from(queue_ms.saturating_sub(rules.queue_ms_target));
    let queue_lack = over_ms * one / u128::from(rules.queue_ms_target.max(1));
    let lack = queue_lack.max(u128::from(fallback_ppm.saturating_sub(rules.fallback_ppm_target)));
    let raised = one + lack.min(one * one) * u128::from(rules.gain_ppm) / one;
    raised.min(u128::from(rules.multiplier_ppm_max.max(ONE_PPM))) as u32
}

/// Every share of a card with the highest multiplier stays below the whole charge.
pub(crate) fn check_card(card: &RateCard, multiplier_ppm_max: u32) -> Result<(), Refusal> {
    let whole = u64::from(ONE_PPM) * u64::from(ONE_PPM);
    let high = |share: u32| u64::from(share) * u64::from(multiplier_ppm_max) >= whole;
    match card.models.iter().find(|rate| high(rate.operator_share_ppm)) {
        Some(rate) => Err(invalid(format!(
            "{}: a share of {} millionths with a multiplier of {multiplier_ppm_max} is the whole charge or more: whoever \
             pays himself would gain",
            rate.model, rate.operator_share_ppm
        ))),
        None => Ok(()),
    }
}

pub(crate) fn check_cards(state: &State, multiplier_ppm_max: u32) -> Result<(), Refusal> {
    state.cards.iter().try_for_each(|published| check_card(&published.card, multiplier_ppm_max))
}

/// The highest multiplier that the rules in force can give.
pub(crate) fn highest(state: &State) -> Option<u32> {
    let rules = state.economy.rules.as_ref()?.bounties.as_ref()?;
    Some(rules.multiplier_ppm_max)
}

pub(crate) fn decide_publish(plan: &mut Plan, command: &PublishBounty) -> Result<(), Refusal> {
    let economy = &plan.state.economy;
    let rules = economy.rules()?.bounties.as_ref().ok_or(Refusal::EconomyAbsent { part: "bounties" })?;
    let card = crate::rates::in_force(plan.state, plan.now_us).map(|published| &published.card);
    if card.is_none_or(|card| card.model(&command.model).is_none()) {
        let version = card.map_or(0, |card| card.version);
        return Err(Refusal::ModelUnknown { model: command.model.clone(), version });
    }
    plan.emit(BountyPublished {
        model: command.model.clone(),
        queue_ms: command.queue_ms,
        fallback_ppm: command.fallback_ppm,
        multiplier_ppm: multiplier_ppm(rules, command.queue_ms, command.fallback_ppm),
        until_us: plan.now_us.saturating_add(rules.life_us),
        budget_left: economy.bounties.left(rules),
    });
    Ok(())
}

/// What serving a charge earns on top, if anything.
pub(crate) fn due(
    plan: &Plan,
    job: &Job,
    attempt: &Dispatch,
    model: &str,
    event: &UsageCaptured,
) -> Option<BountyPaid> {
    let state = plan.state;
    let rules = state.economy.rules.as_ref()?.bounties.as_ref()?;
    let bounty = state.economy.bounties.published.get(model)?;
    let operator = &state.operators[attempt.operator];
    let conduct = state.economy.conduct.get(&operator.id)?;
    if plan.now_us >= bounty.until_us || rules.asset != job.asset || operator.account_no == job.account {
        return None;
    }
    let (good, bad) = super::conduct::judged(state, conduct, plan.now_us);
    let trust_ppm = conduct.multiplier_ppm(&rules.tiers, plan.now_us, health_ppm(good, bad))?;
    let multiplier_ppm = bounty.multiplier_ppm.min(trust_ppm);
    let base = backed_share(state, event)?;
    let more = base.checked_mul(i128::from(multiplier_ppm.saturating_sub(ONE_PPM)))? / i128::from(ONE_PPM);
    let amount = more.min(state.economy.bounties.left(rules).0).min(event.platform_share.0);
    (amount > 0).then_some(BountyPaid {
        job: event.job,
        operator: operator.id,
        multiplier_ppm,
        base: Amount(base),
        amount: Amount(amount),
    })
}

/// The operator's share of what vaults and packages paid.
fn backed_share(state: &State, event: &UsageCaptured) -> Option<i128> {
    let parts = splits::spread(event.operator_share, event.cost, event.slices.iter().map(|s| s.amount))?;
    let backed = |grant| matches!(state.grants[grant].paper, Paper::Wallet(_) | Paper::Package(..));
    let shares = event.slices.iter().zip(parts).filter(|(slice, _)| backed(slice.grant));
    Some(shares.map(|(_, share)| share.0).sum())
}

/// Postings: Dr `PlatformRevenue` / Cr `OperatorAccrued`. It is credit that the network spends, never paid on a chain.
pub(crate) fn plan_paid(
    plan: &mut Plan,
    owner: AccountNo,
    asset: AssetId,
    event: BountyPaid,
) -> Result<(), Refusal> {
    let mut legs = Legs::default();
    plan.post(&mut legs, BookKey::system(AccountKind::PlatformRevenue, asset), event.amount.0)?;
    plan.post(&mut legs, BookKey::new(owner, AccountKind::OperatorAccrued, asset), -event.amount.0)?;
    plan.emit_with(event, legs);
    Ok(())
}

/// Takes the bounties of an undone job back, as far as they still wait after its shares went back; what was taken as credit
/// stays the platform's loss.
pub(crate) fn plan_back(plan: &mut Plan, job: &Job) -> Result<(), Refusal> {
    let state = plan.state;
    let Some(note) = state.economy.jobs.get(&job.id) else { return Ok(()) };
    for (operator, paid) in &note.bounties {
        let Some(owner) = state.operators.get(operator).map(|row| row.account_no) else { continue };
        let waiting = state.earnings.get(&(owner, job.asset, Paper::Unbacked)).map_or(0, |e| e.waiting.0);
        let gone = unbacked_share(state, job, owner).ok_or(Refusal::Overflow { what: "operator share" })?;
        let amount = paid.0.min((waiting - gone).max(0));
        if amount == 0 {
            continue;
        }
        let mut legs = Legs::default();
        let accrued = BookKey::new(owner, AccountKind::OperatorAccrued, job.asset);
        plan.post(&mut legs, accrued, amount)?;
        plan.post(&mut legs, BookKey::system(AccountKind::PlatformRevenue, job.asset), -amount)?;
        plan.emit_with(BountyTakenBack { job: job.id, operator: *operator, amount: Amount(amount) }, legs);
    }
    Ok(())
}

/// What a job's charges gave an account of unbacked earnings: the reversal before took it.
fn unbacked_share(state: &State, job: &Job, owner: AccountNo) -> Option<i128> {
    let mut sum = 0;
    for part in &job.parts() {
        if state.operators[job.operator_of(part)].account_no != owner {
            continue;
        }
        let shares = splits::spread(part.operator_share, part.cost, part.slices.iter().map(|s| s.amount))?;
        let unbacked = part.slices.iter().zip(shares);
        let unbacked = unbacked.filter(|(slice, _)| state.grants[slice.grant].paper == Paper::Unbacked);
        sum += unbacked.map(|(_, share)| share.0).sum::<i128>();
    }
    Some(sum)
}

pub(crate) fn apply_published(state: &mut State, event: &BountyPublished) -> Result<(), ApplyError> {
    state.economy.bounties.published.insert(event.model.clone(), event.clone());
    Ok(())
}

fn place(
    state: &State,
    job: JobId,
    operator: &OperatorId,
) -> Result<(AccountNo, AssetId, Paper), ApplyError> {
    let asset = state.jobs[state.job_no(job)?].asset;
    let owner = state.operators.get(operator).ok_or_else(|| ApplyError::unknown("operator", operator))?;
    Ok((owner.account_no, asset, Paper::Unbacked))
}

pub(crate) fn apply_paid(state: &mut State, header: &Header, event: &BountyPaid) -> Result<(), ApplyError> {
    let rules = state.economy.rules.as_ref().and_then(|rules| rules.bounties.as_ref());
    let budget = rules.ok_or(ApplyError::Impossible("a bounty without rules"))?.budget;
    state.economy.bounties.paid.0 += event.amount.0;
    if event.amount.0 <= 0 || state.economy.bounties.paid > budget {
        return Err(ApplyError::Impossible("bounties stay within their budget"));
    }
    let key = place(state, event.job, &event.operator)?;
    earnings::wait(state, key, event.amount.0);
    let note = super::note_job(state, event.job, header.time_us);
    note.bounties.push((event.operator, event.amount));
    Ok(())
}

pub(crate) fn apply_taken_back(state: &mut State, event: &BountyTakenBack) -> Result<(), ApplyError> {
    let key = place(state, event.job, &event.operator)?;
    let waiting = state.earnings.get(&key).map_or(0, |earning| earning.waiting.0);
    if event.amount.0 <= 0 || event.amount.0 > waiting {
        return Err(ApplyError::Impossible("a bounty is taken back that does not wait"));
    }
    earnings::wait(state, key, -event.amount.0);
    state.economy.bounties.paid.0 -= event.amount.0;
    let note = state.economy.jobs.get_mut(&event.job);
    let bounties =
        &mut note.ok_or(ApplyError::Impossible("a bounty is taken back that was not paid"))?.bounties;
    let mut open = event.amount.0;
    for (_, paid) in bounties.iter_mut().filter(|(operator, _)| *operator == event.operator) {
        let back = open.min(paid.0);
        paid.0 -= back;
        open -= back;
    }
    if open == 0 { Ok(()) } else { Err(ApplyError::Impossible("more is taken back than was paid")) }
}
