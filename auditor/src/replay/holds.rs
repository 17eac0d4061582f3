//! Rules of holds and dispatches: the worst case at the price in force, reserved once, closed once.

use super::books::{BookKey, Legs};
use super::captures::{Captured, price};
use super::grants::{self, Draw};
use super::judge::Judge;
use super::world::World;
use crate::checks::CheckKind;
use protocol::asset::AssetId;
use protocol::event::Header;
use protocol::event::account::AccountKind;
use protocol::event::hold::{HoldExpired, HoldPlaced, HoldVoided, Slice};
use protocol::event::job::JobDispatched;
use protocol::id::{AccountId, Hash32, HoldId, JobId, NodeId, OperatorId};

const KIND: CheckKind = CheckKind::Holds;

/// A job with its hold.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) hold: HoldId,
    pub(crate) account: AccountId,
    pub(crate) asset: AssetId,
    pub(crate) amount: i128,
    pub(crate) slices: Vec<Slice>,
    pub(crate) card_version: u32,
    pub(crate) model: String,
    pub(crate) input_units: u64,
    pub(crate) output_units_max: u64,
    pub(crate) deadline_us: u64,
    pub(crate) placed_commit: u64,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) end: End,
}

/// One dispatch.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) node: NodeId,
    pub(crate) operator: OperatorId,
    pub(crate) body: Hash32,
}

/// How a job's hold ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    Running,
    Captured(Box<Captured>),
    Released,
}

impl Job {
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.end, End::Running)
    }

    fn end_name(&self) -> &'static str {
        match self.end {
            End::Running => "open",
            End::Captured(_) => "captured",
            End::Released => "released",
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
    let open = world.accounts.get(&event.account);
    let open = judge.known(KIND, open, "account", event.account)?;
    let may_spend = !open.closed && open.debts.values().all(|debt| *debt <= 0);
    judge.require(KIND, "the account is open and owes nothing", event.account, || may_spend);
    check_price(world, judge, header, event);
    let deadline_max =
        world.settings().map_or(u64::MAX, |s| header.time_us.saturating_add(s.job_deadline_us_max));
    let within = event.deadline_us > header.time_us && event.deadline_us <= deadline_max;
    judge.require(KIND, "the deadline is within the network's bounds", event.deadline_us, || within);
    let draw =
        Draw { account: event.account, asset: event.asset, model: &event.model, time_us: header.time_us };
    grants::draw(world, judge, &draw, &event.slices)?;
    let mut legs = Legs::default();
    for slice in &event.slices {
        legs.reserve(world.grants[slice.grant.0 as usize].book_key(), slice.amount.0);
    }
    world.holds.insert(event.hold, event.job);
    let job = Job {
        hold: event.hold,
        account: event.account,
        asset: event.asset,
        amount: event.amount.0,
        slices: event.slices.clone(),
        card_version: event.rate_card_version,
        model: event.model.clone(),
        input_units: event.input_units,
        output_units_max: event.output_units_max,
        deadline_us: event.deadline_us,
        placed_commit: header.commit,
        attempts: Vec::new(),
        end: End::Running,
    };
    world.jobs.insert(event.job, job);
    Some(legs)
}

/// The card is the one in force, the worst case is priced by it.
fn check_price(world: &World, judge: &mut Judge, header: &Header, event: &HoldPlaced) -> Option<()> {
    const PRICES: CheckKind = CheckKind::Prices;
    let effective = |(card, _): &&(protocol::rate::RateCard, Hash32)| card.effective_us <= header.time_us;
    let (card, hash) =
        judge.known(PRICES, world.cards.iter().rev().find(effective), "rate card in force", "none")?;
    judge.equal(PRICES, "a hold is pinned to the card in force", card.version, event.rate_card_version);
    judge.equal(PRICES, "a hold is pinned to the card's hash", *hash, event.rate_card_hash);
    let rate = judge.known(
        PRICES,
        world.rate(event.rate_card_version, &event.model),
        "model on the card",
        &event.model,
    )?;
    judge.equal(PRICES, "a hold is in the card's asset", rate.asset.0, event.asset.0);
    let units = event.input_units.saturating_add(event.output_units_max);
    let within = units <= u64::from(rate.context_tokens) && event.output_units_max > 0;
    judge.require(PRICES, "the worst case is within the model's context", units, || within);
    let worst = judge.known(PRICES, price(rate, units), "price within 128 bits", units)?;
    judge.equal(PRICES, "a hold is the worst case at the pinned price", worst, event.amount.0);
    Some(())
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
    let job = judge.known(JOBS, world.jobs.get_mut(&event.job), "job", event.job)?;
    let serves = node.models.binary_search(&job.model).is_ok();
    judge.require(JOBS, "the node serves the model", &job.model, || serves);
    judge.require(JOBS, "a job is dispatched while its hold is open", job.end_name(), || job.is_running());
    judge.equal(JOBS, "attempts are numbered without gaps", job.attempts.len() as u32, event.attempt);
    judge.require(JOBS, "a job is dispatched before its deadline", header.time_us, || {
        header.time_us < job.deadline_us
    });
    judge.require(JOBS, "a job continues within its bound", event.continues_at, || {
        event.continues_at <= job.output_units_max && (event.attempt > 0 || event.continues_at == 0)
    });
    job.attempts.push(Attempt { node: event.node, operator: event.operator, body: event.body });
    Some(Legs::default())
}

pub(crate) fn voided(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &HoldVoided,
) -> Option<Legs> {
    let mut legs = Legs::default();
    close(world, judge, header, event.hold, &[], &mut legs)?;
    Some(legs)
}

pub(crate) fn expired(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &HoldExpired,
) -> Option<Legs> {
    let job = world.holds.get(&event.hold).and_then(|job| world.jobs.get(job));
    let job = judge.known(KIND, job, "hold", event.hold)?;
    let grace_us = world.settings().map_or(0, |settings| settings.hold_grace_us);
    let due_us = job.deadline_us.saturating_add(grace_us);
    judge.require(KIND, "a hold outlives its deadline and grace first", header.time_us, || {
        header.time_us >= due_us
    });
    let mut legs = Legs::default();
    close(world, judge, header, event.hold, &[], &mut legs)?;
    Some(legs)
}

/// Ends a hold once: all of it is released, `consumed` is spent, and what would flow back into a grant that is over is
/// breakage. Gives the job.
pub(crate) fn close(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    hold: HoldId,
    consumed: &[Slice],
    legs: &mut Legs,
) -> Option<JobId> {
    let id = *judge.known(KIND, world.holds.get(&hold), "hold", hold)?;
    let job = judge.known(KIND, world.jobs.get_mut(&id), "job", id)?;
    if !judge.require(KIND, "a hold closes once", job.end_name(), || job.is_running()) {
        return None;
    }
    job.end = End::Released;
    for (k, slice) in job.slices.iter().enumerate() {
        let spent = consumed.get(k).map_or(0, |spent| spent.amount.0);
        let grant =
            judge.known(KIND, world.grants.get_mut(slice.grant.0 as usize), "grant", slice.grant.0)?;
        let held = slice.amount.0;
        grant.held = grant.held.saturating_sub(held);
        legs.release(grant.book_key(), held);
        legs.debit(grant.book_key(), spent);
        let mut gone = spent;
        if grant.is_over(header.time_us) {
            let rest = held.saturating_sub(spent);
            legs.debit(grant.book_key(), rest);
            legs.credit(BookKey::system(AccountKind::Breakage, grant.asset), rest);
            gone = held;
        }
        grant.remaining = grant.remaining.saturating_sub(gone);
    }
    Some(id)
}
