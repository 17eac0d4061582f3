//! Holds: the worst-case cost reserved before a job is dispatched, slice by slice. A hold closes exactly once: by a
//! capture, a void or its expiry.

use crate::accounts::{BookKey, spending_account};
use crate::apply::ApplyError;
use crate::command::{Admit, Void};
use crate::decide::{Legs, Plan};
use crate::grants::{self, Need};
use crate::jobs::{self, Job, JobState};
use crate::refusal::Refusal;
use crate::state::State;
use crate::timers::Due;
use crate::{nodes, rates};
use protocol::amount::Amount;
use protocol::event::Header;
use protocol::event::account::AccountKind;
use protocol::event::hold::{HoldExpired, HoldPlaced, HoldVoided, Slice};
use protocol::event::job::JobDispatched;
use protocol::id::HoldId;
use protocol::rate::price_ceil;

pub(crate) fn decide_admit(plan: &mut Plan, command: &Admit) -> Result<(), Refusal> {
    let state = plan.state;
    if state.jobs.contains_key(&command.job) || state.holds.contains_key(&command.hold) {
        return Err(Refusal::JobKnown { job: command.job });
    }
    spending_account(state, command.account)?;
    let card = rates::in_force(state, plan.now_us).ok_or(Refusal::NoRateCard {})?;
    let unknown = || Refusal::ModelUnknown { model: command.model.clone(), version: card.card.version };
    let rate = card.card.model(&command.model).ok_or_else(unknown)?;
    let units = check_bounds(plan, command, rate.context_tokens)?;
    let node = nodes::serving(state, command.node, &command.model)?;
    let needed = price_ceil(rate.price, rate.per_units, units).ok_or(Refusal::Overflow { what: "price" })?;
    let need = Need { account: command.account, asset: rate.asset, model: &command.model, amount: needed.0 };
    let short = |available| Refusal::InsufficientCredit { needed, available, asset: rate.asset };
    let slices = grants::choose(state, &need, plan.now_us).map_err(short)?;
    let mut legs = Legs::default();
    for slice in &slices {
        plan.reserve(&mut legs, state.grants[slice.grant.0 as usize].book_key(), slice.amount.0)?;
    }
    plan.reserve(&mut legs, BookKey::system(AccountKind::HoldsPending, rate.asset), -needed.0)?;
    let placed = HoldPlaced {
        hold: command.hold,
        job: command.job,
        account: command.account,
        asset: rate.asset,
        amount: needed,
        slices,
        rate_card_version: card.card.version,
        rate_card_hash: card.hash,
        model: command.model.clone(),
        input_units: command.input_units,
        output_units_max: command.output_units_max,
        deadline_us: command.deadline_us,
        spender: command.spender,
    };
    plan.emit_with(placed, legs);
    plan.emit(JobDispatched {
        job: command.job,
        attempt: 0,
        node: command.node,
        operator: node.operator,
        body: command.body,
        continues_at: 0,
    });
    Ok(())
}

/// Bounds of the job itself; gives the worst-case number of units.
fn check_bounds(plan: &Plan, command: &Admit, context_tokens: u32) -> Result<u64, Refusal> {
    if command.output_units_max == 0 {
        return Err(Refusal::OutputBoundZero {});
    }
    let units = command.input_units.checked_add(command.output_units_max);
    let units = units.ok_or(Refusal::Overflow { what: "input plus output units" })?;
    if units > u64::from(context_tokens) {
        return Err(Refusal::ContextExceeded {
            input_units: command.input_units,
            output_units_max: command.output_units_max,
            context_tokens,
        });
    }
    let deadline_us_max = plan.now_us.saturating_add(plan.settings()?.job_deadline_us_max);
    if command.deadline_us <= plan.now_us || command.deadline_us > deadline_us_max {
        let (deadline_us, now_us) = (command.deadline_us, plan.now_us);
        return Err(Refusal::DeadlineOutOfRange { deadline_us, now_us, deadline_us_max });
    }
    Ok(units)
}

pub(crate) fn decide_void(plan: &mut Plan, command: &Void) -> Result<(), Refusal> {
    let job = jobs::running(plan.state, command.job)?;
    let legs = release_legs(plan, job, &[])?;
    plan.emit_with(HoldVoided { hold: job.hold, reason: command.reason }, legs);
    Ok(())
}

/// Adds the end of a hold that nobody captured or voided in time.
pub(crate) fn plan_expiry(plan: &mut Plan, hold: HoldId) -> Result<(), Refusal> {
    let state = plan.state;
    let job = state.holds.get(&hold).and_then(|job| state.jobs.get(job));
    let job = job.expect("a hold's timer lives as long as its hold is open");
    let legs = release_legs(plan, job, &[])?;
    plan.emit_with(HoldExpired { hold }, legs);
    Ok(())
}

/// Legs that end a hold: its whole reservation is released; what was not consumed and flows back into an expired
/// grant is breakage. `consumed` follows the hold's slices, the last one possibly in part.
pub(crate) fn release_legs(plan: &mut Plan, job: &Job, consumed: &[Slice]) -> Result<Legs, Refusal> {
    let mut legs = Legs::default();
    for slice in &job.slices {
        let key = plan.state.grants[slice.grant.0 as usize].book_key();
        plan.reserve(&mut legs, key, -slice.amount.0)?;
    }
    plan.reserve(&mut legs, BookKey::system(AccountKind::HoldsPending, job.asset), job.amount.0)?;
    let mut breakage = 0;
    for (k, slice) in job.slices.iter().enumerate() {
        let grant = &plan.state.grants[slice.grant.0 as usize];
        let rest = slice.amount.0 - consumed.get(k).map_or(0, |c| c.amount.0);
        if grant.expired(plan.now_us) {
            plan.post(&mut legs, grant.book_key(), rest)?;
            breakage += rest;
        }
    }
    plan.post(&mut legs, BookKey::system(AccountKind::Breakage, job.asset), -breakage)?;
    Ok(legs)
}

pub(crate) fn apply_placed(state: &mut State, header: &Header, event: &HoldPlaced) -> Result<(), ApplyError> {
    let total = event.slices.iter().try_fold(0i128, |sum, slice| sum.checked_add(slice.amount.0));
    if total != Some(event.amount.0) || state.jobs.contains_key(&event.job) {
        return Err(ApplyError::Impossible("a hold is the sum of its slices, and its job is new"));
    }
    if state.holds.insert(event.hold, event.job).is_some() {
        return Err(ApplyError::Impossible("a hold is placed twice"));
    }
    for slice in &event.slices {
        let grant = state.grant_mut(slice.grant)?;
        if slice.amount.0 <= 0 || slice.amount.0 > grant.free() || grant.account != event.account {
            return Err(ApplyError::Impossible("a slice takes more than its grant has"));
        }
        grant.held.0 += slice.amount.0;
    }
    let grace_us = state.settings().map_or(0, |settings| settings.hold_grace_us);
    let due_us = event.deadline_us.saturating_add(grace_us);
    state.timers.insert((due_us, Due::Hold(event.hold)));
    state.open_jobs.insert(event.job);
    state.jobs.insert(
        event.job,
        Job {
            hold: event.hold,
            account: event.account,
            asset: event.asset,
            amount: event.amount,
            slices: event.slices.clone(),
            rate_card_version: event.rate_card_version,
            model: event.model.clone(),
            input_units: event.input_units,
            output_units_max: event.output_units_max,
            deadline_us: event.deadline_us,
            due_us,
            placed_us: header.time_us,
            placed_leaf: header.leaf,
            attempts: Vec::new(),
            state: JobState::Running,
        },
    );
    Ok(())
}

pub(crate) fn apply_voided(state: &mut State, header: &Header, event: &HoldVoided) -> Result<(), ApplyError> {
    close(state, header, event.hold, JobState::Voided(event.reason), &[])
}

pub(crate) fn apply_expired(
    state: &mut State,
    header: &Header,
    event: &HoldExpired,
) -> Result<(), ApplyError> {
    close(state, header, event.hold, JobState::Expired, &[])
}

/// Ends a hold's reservation and its job's running state; the same arithmetic as [`release_legs`].
pub(crate) fn close(
    state: &mut State,
    header: &Header,
    hold: HoldId,
    end: JobState,
    consumed: &[Slice],
) -> Result<(), ApplyError> {
    let id = *state.holds.get(&hold).ok_or_else(|| ApplyError::unknown("hold", hold))?;
    let job = state.jobs.get_mut(&id).ok_or_else(|| ApplyError::unknown("job", id))?;
    if job.state != JobState::Running || consumed.len() > job.slices.len() {
        return Err(ApplyError::Impossible("a hold closes once, and by its own slices"));
    }
    job.state = end;
    let slices = job.slices.clone();
    state.timers.remove(&(job.due_us, Due::Hold(hold)));
    state.open_jobs.remove(&id);
    for (k, slice) in slices.iter().enumerate() {
        let taken = consumed.get(k).copied().unwrap_or(Slice { grant: slice.grant, amount: Amount::ZERO });
        let grant = state.grant_mut(slice.grant)?;
        let in_order = taken.grant == slice.grant && (0..=slice.amount.0).contains(&taken.amount.0);
        if !in_order || grant.held.0 < slice.amount.0 {
            return Err(ApplyError::Impossible("a capture consumes its hold's slices in their order"));
        }
        grant.held.0 -= slice.amount.0;
        let lost = if grant.expired(header.time_us) { slice.amount.0 } else { taken.amount.0 };
        grant.remaining.0 -= lost;
        grants::index(state, slice.grant)?;
    }
    Ok(())
}
