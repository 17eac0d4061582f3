//! Rules of holds and dispatches: the worst case at the price in force, reserved, extended while it is open, ended once.

use super::books::{BookKey, Legs};
use super::captures::{Charge, price};
use super::draws::{self, Draw};
use super::judge::Judge;
use super::meters::{self, MeterKey};
use super::world::World;
use crate::checks::CheckKind;
use protocol::asset::AssetId;
use protocol::event::account::AccountKind;
use protocol::event::hold::{HoldExpired, HoldExtended, HoldPlaced, HoldVoided, Slice};
use protocol::event::job::JobDispatched;
use protocol::event::{GrantId, Header};
use protocol::id::{AccountId, Hash32, HoldId, JobId, NodeId, OperatorId};
use std::sync::Arc;

const KIND: CheckKind = CheckKind::Holds;

/// A job with its hold.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) account: AccountId,
    pub(crate) asset: AssetId,
    /// All that was ever reserved for it.
    pub(crate) amount: i128,
    /// What each slice still holds, in the order of consumption.
    pub(crate) slices: Vec<HeldSlice>,
    pub(crate) card_version: u32,
    pub(crate) model: Arc<str>,
    pub(crate) input_units: u64,
    pub(crate) output_units_max: u64,
    pub(crate) deadline_us: u64,
    pub(crate) placed_commit: u64,
    pub(crate) placed_us: u64,
    /// When its hold ended.
    pub(crate) ended_us: Option<u64>,
    /// Where its spending is counted, if it is.
    pub(crate) meter: Option<MeterKey>,
    pub(crate) attempts: Vec<Attempt>,
    /// Its charge, in one part or several.
    pub(crate) charges: Vec<Charge>,
    /// To where output is billed, or never will be, from the job's beginning.
    pub(crate) output_end: u64,
    pub(crate) is_open: bool,
    pub(crate) is_reversed: bool,
}

/// What a grant still holds for a job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeldSlice {
    pub(crate) grant: GrantId,
    pub(crate) held: i128,
}

/// One dispatch.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) node: NodeId,
    pub(crate) operator: OperatorId,
    pub(crate) body: Hash32,
    /// Where its own output begins, from the job's beginning.
    pub(crate) continues_at: u64,
}

impl Job {
    /// What it still holds.
    pub(crate) fn held(&self) -> i128 {
        self.slices.iter().map(|slice| slice.held).fold(0, i128::saturating_add)
    }

    pub(crate) fn is_charged(&self) -> bool {
        !self.charges.is_empty() && !self.is_reversed
    }

    fn end_name(&self) -> &'static str {
        match (self.is_open, self.charges.is_empty()) {
            (true, _) => "open",
            (false, false) => "captured",
            (false, true) => "released",
        }
    }
}

pub(crate) fn placed(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &HoldPlaced,
) -> Option<Legs> {
    let sum = event.slices.iter().map(|slice| slice.amount.0).fold(0, i128::saturating_add);
    judge.equal(KIND, "a hold is the sum of its slices", sum, event.amount.0);
    let is_new = !world.jobs.contains_key(&event.job) && !world.holds.contains_key(&event.hold);
    judge.require(KIND, "a hold and its job are new", event.job, || is_new);
    may_spend(world, judge, event.account)?;
    check_price(world, judge, header, event);
    check_deadline(world, judge, header, event.deadline_us);
    judge.require(KIND, "the deadline is ahead", event.deadline_us, || event.deadline_us > header.time_us);
    let draw =
        Draw { account: event.account, asset: event.asset, model: &event.model, time_us: header.time_us };
    draws::check(world, judge, &draw, &event.slices)?;
    let legs = reserve(world, &event.slices);
    let (account, asset) = (event.account, event.asset);
    let meter = event.spender.map(|spender| MeterKey { account, spender, asset });
    let meter = meter.filter(|key| world.meters.contains_key(key));
    meters::spend(world, judge, meter, event.amount.0);
    world.holds.insert(event.hold, event.job);
    let job = Job {
        account: event.account,
        asset: event.asset,
        amount: event.amount.0,
        slices: held_slices(&event.slices).collect(),
        card_version: event.rate_card_version,
        model: world.name(&event.model),
        input_units: event.input_units,
        output_units_max: event.output_units_max,
        deadline_us: event.deadline_us,
        placed_commit: header.commit,
        placed_us: header.time_us,
        ended_us: None,
        meter,
        attempts: Vec::new(),
        charges: Vec::new(),
        output_end: 0,
        is_open: true,
        is_reversed: false,
    };
    world.jobs.insert(event.job, job);
    Some(legs)
}

fn held_slices(slices: &[Slice]) -> impl Iterator<Item = HeldSlice> {
    slices.iter().map(|slice| HeldSlice { grant: slice.grant, held: slice.amount.0 })
}

fn reserve(world: &mut World, slices: &[Slice]) -> Legs {
    draws::hold(world, slices);
    let mut legs = Legs::default();
    for slice in slices {
        if let Some(grant) = world.grants.get(slice.grant.0 as usize) {
            legs.reserve(grant.book_key(), slice.amount.0);
        }
    }
    legs
}

pub(crate) fn may_spend(world: &World, judge: &mut Judge, account: AccountId) -> Option<()> {
    let row = judge.known(KIND, world.accounts.get(&account), "account", account)?;
    let may_spend = !row.closed && row.debts.values().all(|debt| *debt <= 0);
    judge.require(KIND, "the account is open and owes nothing", account, || may_spend);
    Some(())
}

fn check_deadline(world: &World, judge: &mut Judge, header: &Header, deadline_us: u64) {
    let longest_us = world.settings().map_or(u64::MAX, |settings| settings.job_deadline_us_max);
    let latest_us = header.time_us.saturating_add(longest_us);
    judge.require(KIND, "the deadline is within the network's bounds", deadline_us, || {
        deadline_us <= latest_us
    });
}

/// The card is the one in force, the worst case is priced by it.
fn check_price(world: &World, judge: &mut Judge, header: &Header, event: &HoldPlaced) -> Option<()> {
    const PRICES: CheckKind = CheckKind::Prices;
    let effective = |(card, _): &&(protocol::rate::RateCard, Hash32)| card.effective_us <= header.time_us;
    let (card, hash) =
        judge.known(PRICES, world.cards.iter().rev().find(effective), "rate card in force", "none")?;
    judge.equal(PRICES, "a hold is pinned to the card in force", card.version, event.rate_card_version);
    judge.equal(PRICES, "a hold is pinned to the card's hash", *hash, event.rate_card_hash);
    let (version, bound) = (event.rate_card_version, event.output_units_max);
    let rate = judge.known(PRICES, world.rate(version, &event.model), "model on the card", &event.model)?;
    judge.equal(PRICES, "a hold is in the card's asset", rate.asset.0, event.asset.0);
    judge.require(PRICES, "output has a bound above 0", bound, || bound > 0);
    let worst = worst_case(world, judge, version, &event.model, event.input_units.saturating_add(bound))?;
    judge.equal(PRICES, "a hold is the worst case at the pinned price", worst, event.amount.0);
    Some(())
}

/// The price of all units on a card, which must be within the model's context.
fn worst_case(world: &World, judge: &mut Judge, version: u32, model: &str, units: u64) -> Option<i128> {
    const PRICES: CheckKind = CheckKind::Prices;
    let rate = judge.known(PRICES, world.rate(version, model), "pinned price", model)?;
    let within = units <= u64::from(rate.context_tokens);
    judge.require(PRICES, "the worst case is within the model's context", units, || within);
    judge.known(PRICES, price(rate, units), "price within 128 bits", units)
}

/// More for an open hold, at its own card, from what grants can pay now.
pub(crate) fn extended(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &HoldExtended,
) -> Option<Legs> {
    let id = *judge.known(KIND, world.holds.get(&event.hold), "hold", event.hold)?;
    let job = judge.known(KIND, world.jobs.get(&id), "job", id)?;
    if !judge.require(KIND, "a hold is extended while it is open", job.end_name(), || job.is_open) {
        return None;
    }
    let (bound, deadline_us) = (job.output_units_max, job.deadline_us);
    judge.require(KIND, format_args!("at least the bound so far, {bound}"), event.output_units_max, || {
        event.output_units_max >= bound
    });
    judge.require(
        KIND,
        format_args!("at least the deadline so far, {deadline_us}"),
        event.deadline_us,
        || event.deadline_us >= deadline_us,
    );
    check_deadline(world, judge, header, event.deadline_us);
    judge.require(KIND, "a hold is extended before its deadline", header.time_us, || {
        header.time_us < deadline_us
    });
    let units = job.input_units.saturating_add(event.output_units_max);
    let (amount, account, asset, meter) = (job.amount, job.account, job.asset, job.meter);
    let (version, model) = (job.card_version, job.model.clone());
    let worst = worst_case(world, judge, version, &model, units)?;
    let added = worst.saturating_sub(amount);
    judge.equal(CheckKind::Prices, "an addition is the new worst case less the hold", added, event.amount.0);
    let sum = event.slices.iter().map(|slice| slice.amount.0).fold(0, i128::saturating_add);
    judge.equal(KIND, "an addition is the sum of its slices", sum, event.amount.0);
    if !event.slices.is_empty() {
        may_spend(world, judge, account)?;
    }
    let draw = Draw { account, asset, model: &model, time_us: header.time_us };
    draws::check(world, judge, &draw, &event.slices)?;
    let legs = reserve(world, &event.slices);
    meters::spend(world, judge, meter, event.amount.0);
    let job = world.jobs.get_mut(&id)?;
    job.amount = amount.saturating_add(event.amount.0);
    job.slices.extend(held_slices(&event.slices));
    (job.output_units_max, job.deadline_us) = (event.output_units_max, event.deadline_us);
    Some(legs)
}

pub(crate) fn dispatched(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &JobDispatched,
) -> Option<Legs> {
    const JOBS: CheckKind = CheckKind::Jobs;
    let node = judge.known(JOBS, world.nodes.get(&event.node), "node", event.node)?;
    let operator_matches = node.operator == event.operator && !node.retired;
    judge.require(JOBS, "a job goes to a registered node of the operator", event.node, || operator_matches);
    let banned = super::conduct::is_banned(world, &event.operator);
    judge.require(JOBS, "no job goes to a banned operator", event.operator, || !banned);
    let job = judge.known(JOBS, world.jobs.get_mut(&event.job), "job", event.job)?;
    let serves = node.models.binary_search_by(|model| model.as_str().cmp(&job.model)).is_ok();
    judge.require(JOBS, "the node serves the model", &job.model, || serves);
    judge.require(JOBS, "a job is dispatched while its hold is open", job.end_name(), || job.is_open);
    judge.equal(JOBS, "attempts are numbered without gaps", job.attempts.len() as u32, event.attempt);
    judge.require(JOBS, "a job is dispatched before its deadline", header.time_us, || {
        header.time_us < job.deadline_us
    });
    judge.require(JOBS, "a job continues within its bound", event.continues_at, || {
        event.continues_at <= job.output_units_max && (event.attempt > 0 || event.continues_at == 0)
    });
    let (least, continues_at) = (job.least_cut(), event.continues_at);
    judge.require(JOBS, format_args!("a job goes on at {least} or later"), continues_at, || {
        continues_at >= least
    });
    let (node, operator, body) = (event.node, event.operator, event.body);
    job.attempts.push(Attempt { node, operator, body, continues_at });
    Some(Legs::default())
}

pub(crate) fn voided(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &HoldVoided,
) -> Option<Legs> {
    let mut legs = Legs::default();
    let id = open(world, judge, event.hold)?;
    end(world, header, id, &mut legs)?;
    Some(legs)
}

pub(crate) fn expired(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &HoldExpired,
) -> Option<Legs> {
    let id = open(world, judge, event.hold)?;
    let grace_us = world.settings().map_or(0, |settings| settings.hold_grace_us);
    let due_us = world.jobs.get(&id)?.deadline_us.saturating_add(grace_us);
    judge.require(KIND, "a hold outlives its deadline and grace first", header.time_us, || {
        header.time_us >= due_us
    });
    let mut legs = Legs::default();
    end(world, header, id, &mut legs)?;
    Some(legs)
}

/// The job of a hold that is open.
pub(crate) fn open(world: &World, judge: &mut Judge, hold: HoldId) -> Option<JobId> {
    let id = *judge.known(KIND, world.holds.get(&hold), "hold", hold)?;
    let job = judge.known(KIND, world.jobs.get(&id), "job", id)?;
    judge.require(KIND, "a hold closes once", job.end_name(), || job.is_open).then_some(id)
}

/// Ends a hold: what it still holds is released, and what would flow back into a grant that is over is breakage.
pub(crate) fn end(world: &mut World, header: &Header, id: JobId, legs: &mut Legs) -> Option<()> {
    let job = world.jobs.get_mut(&id)?;
    (job.is_open, job.ended_us) = (false, Some(header.time_us));
    let (meter, mut rest) = (job.meter, 0i128);
    for slice in job.slices.iter_mut().filter(|slice| slice.held != 0) {
        let held = std::mem::take(&mut slice.held);
        rest = rest.saturating_add(held);
        let Some(grant) = world.grants.get_mut(slice.grant.0 as usize) else { continue };
        grant.held = grant.held.saturating_sub(held);
        legs.release(grant.book_key(), held);
        if grant.is_over(header.time_us) {
            legs.debit(grant.book_key(), held);
            legs.credit(BookKey::system(AccountKind::Breakage, grant.asset), held);
            grant.remaining = grant.remaining.saturating_sub(held);
        }
    }
    meters::give_back(world, meter, rest);
    Some(())
}
