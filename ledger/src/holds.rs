//! Holds: the worst-case cost reserved before a job is dispatched, slice by slice. A hold closes exactly once: by a
//! capture, a void or its expiry.

use crate::accounts::{AccountNo, check_spending, spending_account};
use crate::apply::ApplyError;
use crate::books::BookKey;
use crate::command::{Admit, ExtendHold, Void};
use crate::decide::{Legs, Plan};
use crate::grants::{self, Need, SLICES_MAX};
use crate::jobs::{self, Job, JobNo, JobState, NewJob};
use crate::refusal::Refusal;
use crate::state::State;
use crate::{nodes, rates, spend_caps};
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::Header;
use protocol::event::account::AccountKind;
use protocol::event::hold::{HoldExpired, HoldExtended, HoldPlaced, HoldVoided, Slice, Slices};
use protocol::event::job::JobDispatched;
use protocol::id::HoldId;
use protocol::rate::{ModelRate, price_ceil};
use smallvec::SmallVec;

pub(crate) fn decide_admit(plan: &mut Plan, command: &Admit) -> Result<(), Refusal> {
    let state = plan.state;
    if state.jobs.find(&command.job).is_some() || state.jobs.find_hold(&command.hold).is_some() {
        return Err(Refusal::JobKnown { job: command.job });
    }
    let account = spending_account(state, command.account)?;
    let card = rates::in_force(state, plan.now_us).ok_or(Refusal::NoRateCard {})?;
    let unknown = || Refusal::ModelUnknown { model: command.model.clone(), version: card.card.version };
    let rate = card.card.model(&command.model).ok_or_else(unknown)?;
    let bounds = Bounds {
        input_units: command.input_units,
        output_units_max: command.output_units_max,
        deadline_us: command.deadline_us,
    };
    let units = check_bounds(plan, &bounds, rate.context_tokens)?;
    let node = nodes::serving(state, command.node, &command.model)?;
    let needed = price_ceil(rate.price, rate.per_units, units).ok_or(Refusal::Overflow { what: "price" })?;
    let need = Need { account, asset: rate.asset, model: &command.model, amount: needed.0 };
    if let Some(spender) = command.spender {
        spend_caps::check(state, &(account, spender, rate.asset), needed)?;
    }
    let short = |available| Refusal::InsufficientCredit { needed, available, asset: rate.asset };
    let slices = grants::choose(state, &need, plan.now_us).map_err(short)?;
    let legs = hold_legs(plan, &slices, rate.asset)?;
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

/// Legs that reserve: pending Dr each slice's ledger account / Cr `HoldsPending` by their sum.
fn hold_legs(plan: &mut Plan, slices: &[Slice], asset: AssetId) -> Result<Legs, Refusal> {
    let mut legs = Legs::default();
    let mut sum = 0;
    for slice in slices {
        plan.reserve(&mut legs, plan.state.grants[slice.grant].book_key(), slice.amount.0)?;
        sum += slice.amount.0;
    }
    plan.reserve(&mut legs, BookKey::system(AccountKind::HoldsPending, asset), -sum)?;
    Ok(legs)
}

/// Reserves more for a running job, or gives it more time. What is added is the price of input and the new bound, by
/// the pinned card, less what was held so far; it is taken from what is spendable now, in consumption order, and its
/// slices follow the hold's own. Pending legs as at admission.
pub(crate) fn decide_extend(plan: &mut Plan, command: &ExtendHold) -> Result<(), Refusal> {
    let state = plan.state;
    let ExtendHold { job: id, output_units_max, deadline_us } = *command;
    let job = jobs::running(state, id)?;
    let invalid = |detail| Err(Refusal::ExtensionInvalid { job: id, detail });
    if output_units_max < job.output_units_max || deadline_us < job.deadline_us {
        return invalid("neither its bound nor its deadline may fall");
    }
    if output_units_max == job.output_units_max && deadline_us == job.deadline_us {
        return invalid("neither its bound nor its deadline is new");
    }
    if plan.now_us >= job.deadline_us {
        return Err(Refusal::DeadlinePassed { deadline_us: job.deadline_us, now_us: plan.now_us });
    }
    let rate =
        jobs::pinned_rate(state, job).expect("a hold is pinned to a published card that has its model");
    let bounds = Bounds { input_units: job.input_units, output_units_max, deadline_us };
    let units = check_bounds(plan, &bounds, rate.context_tokens)?;
    let needed = price_ceil(rate.price, rate.per_units, units).ok_or(Refusal::Overflow { what: "price" })?;
    let added = Amount(needed.0 - job.amount().0);
    assert!(added.0 >= 0, "more units at the same price cost no less");
    let mut slices = Slices::new();
    if !added.is_zero() {
        check_spending(state, job.account)?;
        if let Some(key) = job.cap_key() {
            spend_caps::check(state, &key, added)?;
        }
        let need = Need { account: job.account, asset: job.asset, model: &rate.model, amount: added.0 };
        let short = |available| Refusal::InsufficientCredit { needed: added, available, asset: job.asset };
        slices = grants::choose(state, &need, plan.now_us).map_err(short)?;
        if job.slices.len() + slices.len() > SLICES_MAX {
            return invalid("it would draw on more than 256 slices");
        }
    }
    let legs = hold_legs(plan, &slices, job.asset)?;
    plan.emit_with(
        HoldExtended { hold: job.hold, amount: added, slices, output_units_max, deadline_us },
        legs,
    );
    Ok(())
}

struct Bounds {
    input_units: u64,
    output_units_max: u64,
    deadline_us: u64,
}

/// Bounds of the job itself; gives the worst-case number of units.
fn check_bounds(plan: &Plan, command: &Bounds, context_tokens: u32) -> Result<u64, Refusal> {
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
    let legs = release_legs(plan, job, 0)?;
    plan.emit_with(HoldVoided { hold: job.hold, reason: command.reason }, legs);
    Ok(())
}

/// Adds the end of a hold that nobody captured or voided in time.
pub(crate) fn plan_expiry(plan: &mut Plan, hold: HoldId) -> Result<(), Refusal> {
    let state = plan.state;
    let number = state.jobs.find_hold(&hold).expect("a hold's timer lives as long as its hold is open");
    let job = &state.jobs[number];
    let legs = release_legs(plan, job, 0)?;
    plan.emit_with(HoldExpired { hold }, legs);
    Ok(())
}

/// Legs that end a hold: what is still reserved of it is released; what was not consumed and flows back into an
/// expired grant is breakage. `consumed` of what is still reserved is charged, in the order of the slices.
pub(crate) fn release_legs(plan: &mut Plan, job: &Job, consumed: i128) -> Result<Legs, Refusal> {
    let mut legs = Legs::default();
    let mut released = 0;
    for slice in job.open_slices() {
        let key = plan.state.grants[slice.grant].book_key();
        plan.reserve(&mut legs, key, -slice.amount.0)?;
        released += slice.amount.0;
    }
    plan.reserve(&mut legs, BookKey::system(AccountKind::HoldsPending, job.asset), released)?;
    let (mut breakage, mut consumed) = (0, consumed);
    for slice in job.open_slices() {
        let grant = &plan.state.grants[slice.grant];
        let taken = slice.amount.0.min(consumed);
        consumed -= taken;
        if grant.expired(plan.now_us) {
            plan.post(&mut legs, grant.book_key(), slice.amount.0 - taken)?;
            breakage += slice.amount.0 - taken;
        }
    }
    plan.post(&mut legs, BookKey::system(AccountKind::Breakage, job.asset), -breakage)?;
    Ok(legs)
}

pub(crate) fn apply_placed(state: &mut State, header: &Header, event: &HoldPlaced) -> Result<(), ApplyError> {
    let total = event.slices.iter().try_fold(0i128, |sum, slice| sum.checked_add(slice.amount.0));
    if total != Some(event.amount.0) {
        return Err(ApplyError::Impossible("a hold is the sum of its slices"));
    }
    let account = state.account_no(event.account)?;
    take_slices(state, account, &event.slices)?;
    let cap_key = event.spender.map(|spender| (account, spender, event.asset));
    let cap_key = cap_key.filter(|key| state.spend_caps.contains_key(key));
    spend_caps::note(state, cap_key, event.amount.0, 0)?;
    let card = rates::by_version(state, event.rate_card_version).map(|published| &published.card.models);
    let place =
        |models: &Vec<ModelRate>| models.binary_search_by(|rate| rate.model.as_str().cmp(&event.model)).ok();
    let model = card.and_then(place);
    let model = model.ok_or(ApplyError::Impossible("a hold is pinned to a card without its model"))?;
    let grace_us = state.settings().map_or(0, |settings| settings.hold_grace_us);
    let job = NewJob {
        id: event.job,
        hold: event.hold,
        account,
        asset: event.asset,
        rate_card_version: event.rate_card_version,
        model: model as u32,
        input_units: event.input_units,
        output_units_max: event.output_units_max,
        deadline_us: event.deadline_us,
        due_us: event.deadline_us.saturating_add(grace_us),
        placed_leaf: header.leaf,
        spender: cap_key.map(|(_, spender, _)| spender),
    };
    let number = state.jobs.add(Job::new(job, &event.slices))?;
    state.timers.add_hold(&mut state.jobs, number);
    Ok(())
}

fn take_slices(state: &mut State, account: AccountNo, slices: &[Slice]) -> Result<(), ApplyError> {
    for slice in slices {
        let grant = state.grant_mut(slice.grant)?;
        if slice.amount.0 <= 0 || slice.amount.0 > grant.free() || grant.account != account {
            return Err(ApplyError::Impossible("a slice takes more than its grant has"));
        }
        grant.held.0 += slice.amount.0;
    }
    Ok(())
}

pub(crate) fn apply_extended(state: &mut State, event: &HoldExtended) -> Result<(), ApplyError> {
    let grace_us = state.settings().map_or(0, |settings| settings.hold_grace_us);
    let number = state.hold_no(event.hold)?;
    let total = event.slices.iter().try_fold(0i128, |sum, slice| sum.checked_add(slice.amount.0));
    let job = &state.jobs[number];
    let grows = event.output_units_max >= job.output_units_max && event.deadline_us >= job.deadline_us;
    if job.state != JobState::Running || total != Some(event.amount.0) || !grows {
        return Err(ApplyError::Impossible("only an open hold grows, by the sum of its new slices"));
    }
    if job.amount().checked_add(event.amount).is_none() {
        return Err(ApplyError::Impossible("a hold beyond 128 bits"));
    }
    let (account, cap_key) = (job.account, job.cap_key());
    state.timers.remove_hold(&mut state.jobs, number);
    let job = state.jobs.row_mut(number);
    job.slices.extend(&event.slices);
    job.output_units_max = event.output_units_max;
    job.deadline_us = event.deadline_us;
    job.due_us = event.deadline_us.saturating_add(grace_us);
    state.timers.add_hold(&mut state.jobs, number);
    take_slices(state, account, &event.slices)?;
    spend_caps::note(state, cap_key, event.amount.0, 0)
}

pub(crate) fn apply_voided(state: &mut State, header: &Header, event: &HoldVoided) -> Result<(), ApplyError> {
    close(state, header, event.hold, JobState::Voided(event.reason))
}

pub(crate) fn apply_expired(
    state: &mut State,
    header: &Header,
    event: &HoldExpired,
) -> Result<(), ApplyError> {
    close(state, header, event.hold, JobState::Expired)
}

/// Ends a hold's reservation and its job's running state, without a charge; the same arithmetic as [`release_legs`].
fn close(state: &mut State, header: &Header, hold: HoldId, end: JobState) -> Result<(), ApplyError> {
    let number = state.hold_no(hold)?;
    release(state, header, number, 0)?;
    jobs::finish(state, header, number, end);
    Ok(())
}

/// Releases all that is still held of a job, of which `consumed` is charged.
pub(crate) fn release(
    state: &mut State,
    header: &Header,
    number: JobNo,
    consumed: i128,
) -> Result<(), ApplyError> {
    let job = &state.jobs[number];
    if job.state != JobState::Running {
        return Err(ApplyError::Impossible("a hold closes once"));
    }
    let cap_key = job.cap_key();
    let open: SmallVec<[Slice; 4]> = job.open_slices().collect();
    state.timers.remove_hold(&mut state.jobs, number);
    let (mut consumed, mut released) = (consumed, 0);
    for slice in open {
        let taken = slice.amount.0.min(consumed);
        consumed -= taken;
        released += slice.amount.0;
        let grant = state.grant_mut(slice.grant)?;
        if grant.held.0 < slice.amount.0 {
            return Err(ApplyError::Impossible("more is released than is held"));
        }
        grant.held.0 -= slice.amount.0;
        let lost = if grant.expired(header.time_us) { slice.amount.0 } else { taken };
        grant.remaining.0 -= lost;
        grants::index(state, slice.grant)?;
    }
    if consumed != 0 {
        return Err(ApplyError::Impossible("a hold pays more than it has"));
    }
    spend_caps::note(state, cap_key, -released, 0)
}
