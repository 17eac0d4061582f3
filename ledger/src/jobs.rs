//! Jobs: given whole to a node, again to another, then charged once. The price is the pinned card's, never today's;
//! the charge is `min(worker, gateway)` tokens (specs/outcomes.md).

use crate::accounts::BookKey;
use crate::apply::ApplyError;
use crate::command::{Capture, Redispatch, ReverseCapture};
use crate::decide::{Legs, Plan};
use crate::deposits::QueuedCapture;
use crate::refusal::Refusal;
use crate::splits::{self, CarryKey};
use crate::state::State;
use crate::{grants, holds, nodes, rates};
use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::Header;
use protocol::event::account::AccountKind;
use protocol::event::grant::Backing;
use protocol::event::hold::{Slice, VoidReason};
use protocol::event::job::{CaptureReversed, JobDispatched, UsageCaptured};
use protocol::id::{AccountId, Hash32, HoldId, JobId, NodeId, OperatorId};
use protocol::rate::{ModelRate, price_ceil};

/// Most attempts of one job.
pub const ATTEMPTS_MAX: u32 = 16;

/// One job with its hold.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Job {
    #[n(0)]
    pub(crate) hold: HoldId,
    #[n(1)]
    pub(crate) account: AccountId,
    #[n(2)]
    pub(crate) asset: AssetId,
    #[n(3)]
    pub(crate) amount: Amount,
    #[n(4)]
    pub(crate) slices: Vec<Slice>,
    #[n(5)]
    pub(crate) rate_card_version: u32,
    #[n(6)]
    pub(crate) model: String,
    #[n(7)]
    pub(crate) input_units: u64,
    #[n(8)]
    pub(crate) output_units_max: u64,
    #[n(9)]
    pub(crate) deadline_us: u64,
    /// Deadline plus grace: when the hold's timer fires.
    #[n(10)]
    pub(crate) due_us: u64,
    #[n(11)]
    pub(crate) placed_us: u64,
    #[n(12)]
    pub(crate) placed_leaf: u64,
    #[n(13)]
    pub(crate) attempts: Vec<Attempt>,
    #[n(14)]
    pub(crate) state: JobState,
}

/// One dispatch of a job; its number is its place in the job's list.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Attempt {
    /// The node.
    #[n(0)]
    pub node: NodeId,
    /// Its owner.
    #[n(1)]
    pub operator: OperatorId,
    /// Salted commitment to the body.
    #[n(2)]
    pub body: Hash32,
    /// Tokens delivered by earlier attempts.
    #[n(3)]
    pub continues_at: u64,
    /// When it was dispatched, microseconds UTC.
    #[n(4)]
    pub dispatched_us: u64,
}

/// Where a job stands.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(flat)]
pub(crate) enum JobState {
    #[n(0)]
    Running,
    #[n(1)]
    Captured(#[n(0)] Captured),
    #[n(2)]
    Voided(#[n(0)] VoidReason),
    #[n(3)]
    Expired,
}

impl JobState {
    fn name(&self) -> &'static str {
        match self {
            JobState::Running => "running",
            JobState::Captured(_) => "captured",
            JobState::Voided(_) => "voided",
            JobState::Expired => "expired",
        }
    }
}

/// What a capture charged.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Captured {
    #[n(0)]
    pub(crate) attempt: u32,
    #[n(1)]
    pub(crate) operator: OperatorId,
    #[n(2)]
    pub(crate) input_units: u64,
    #[n(3)]
    pub(crate) output_units: u64,
    #[n(4)]
    pub(crate) cost: Amount,
    #[n(5)]
    pub(crate) slices: Vec<Slice>,
    #[n(6)]
    pub(crate) operator_share: Amount,
    #[n(7)]
    pub(crate) platform_share: Amount,
    #[n(8)]
    pub(crate) share_ppm: u32,
    #[n(9)]
    pub(crate) receipt: Hash32,
    #[n(10)]
    pub(crate) leaf: u64,
    #[n(11)]
    pub(crate) time_us: u64,
    #[n(12)]
    pub(crate) reversed: bool,
}

/// The job, if its hold is open.
pub(crate) fn running(state: &State, id: JobId) -> Result<&Job, Refusal> {
    let job = state.jobs.get(&id).ok_or(Refusal::JobUnknown { job: id })?;
    if job.state != JobState::Running {
        return Err(Refusal::HoldClosed { job: id, hold: job.hold, by: job.state.name() });
    }
    Ok(job)
}

/// The price a job is pinned to.
fn pinned_rate<'a>(state: &'a State, job: &Job) -> Option<&'a ModelRate> {
    rates::by_version(state, job.rate_card_version)?.card.model(&job.model)
}

pub(crate) fn decide_redispatch(plan: &mut Plan, command: &Redispatch) -> Result<(), Refusal> {
    let job = running(plan.state, command.job)?;
    let expected = job.attempts.len() as u32;
    if command.attempt != expected || expected >= ATTEMPTS_MAX {
        return Err(Refusal::AttemptNumber { job: command.job, expected, given: command.attempt });
    }
    if plan.now_us >= job.deadline_us {
        return Err(Refusal::DeadlinePassed { deadline_us: job.deadline_us, now_us: plan.now_us });
    }
    if command.continues_at > job.output_units_max {
        return Err(Refusal::OutputAboveHold { given: command.continues_at, held: job.output_units_max });
    }
    let node = nodes::serving(plan.state, command.node, &job.model)?;
    plan.emit(JobDispatched {
        job: command.job,
        attempt: command.attempt,
        node: command.node,
        operator: node.operator,
        body: command.body,
        continues_at: command.continues_at,
    });
    Ok(())
}

pub(crate) fn decide_capture(plan: &mut Plan, command: &Capture) -> Result<(), Refusal> {
    let state = plan.state;
    let job = running(state, command.job)?;
    let attempt = job.attempts.get(command.attempt as usize);
    let attempts = job.attempts.len() as u32;
    let attempt = attempt.ok_or(Refusal::AttemptUnknown { given: command.attempt, attempts })?;
    if command.input_units > job.input_units {
        return Err(Refusal::InputAboveHold { given: command.input_units, held: job.input_units });
    }
    let output_units = command.output_units_worker.min(command.output_units_gateway);
    if output_units == 0 {
        return Err(Refusal::NothingDelivered { job: command.job });
    }
    if output_units > job.output_units_max {
        return Err(Refusal::OutputAboveHold { given: output_units, held: job.output_units_max });
    }
    let rate = pinned_rate(state, job).expect("a hold is pinned to a published card that has its model");
    let cost = price_ceil(rate.price, rate.per_units, command.input_units + output_units);
    let cost = cost.ok_or(Refusal::Overflow { what: "price" })?;
    assert!(cost <= job.amount, "fewer units at the same price cost no more than the hold");
    let slices = consume(&job.slices, cost);
    let carry_key =
        CarryKey { operator: attempt.operator, asset: job.asset, share_ppm: rate.operator_share_ppm };
    let carry = state.carries.get(&carry_key).copied().unwrap_or_default();
    let overflow = Refusal::Overflow { what: "operator share" };
    let share = splits::operator_share(carry, rate.operator_share_ppm, cost).ok_or(overflow.clone())?;
    splits::spread(share, cost, slices.iter().map(|slice| slice.amount)).ok_or(overflow)?;
    let event = UsageCaptured {
        hold: job.hold,
        job: command.job,
        attempt: command.attempt,
        node: attempt.node,
        operator: attempt.operator,
        outcome: command.outcome,
        input_units: command.input_units,
        output_units,
        output_units_worker: command.output_units_worker,
        output_units_gateway: command.output_units_gateway,
        cost,
        slices,
        operator_share: share,
        platform_share: Amount(cost.0 - share.0),
        receipt: command.receipt,
        chain_head: command.chain_head,
        part: command.part,
        beyond_hold: None,
    };
    let legs = capture_legs(plan, job, &event)?;
    plan.emit_with(event, legs);
    Ok(())
}

fn capture_legs(plan: &mut Plan, job: &Job, event: &UsageCaptured) -> Result<Legs, Refusal> {
    let mut legs = holds::release_legs(plan, job, &event.slices)?;
    for slice in &event.slices {
        let key = plan.state.grants[slice.grant.0 as usize].book_key();
        plan.post(&mut legs, key, slice.amount.0)?;
    }
    let owner = plan.state.operators[&event.operator].account;
    let accrued = BookKey::new(owner, AccountKind::OperatorAccrued, job.asset);
    plan.post(&mut legs, accrued, -event.operator_share.0)?;
    let revenue = BookKey::system(AccountKind::PlatformRevenue, job.asset);
    plan.post(&mut legs, revenue, -event.platform_share.0)?;
    Ok(legs)
}

/// The first slices that cover the cost, the last one in part.
fn consume(slices: &[Slice], cost: Amount) -> Vec<Slice> {
    let mut open = cost.0;
    let mut consumed = Vec::new();
    for slice in slices {
        let take = slice.amount.0.min(open);
        if take > 0 {
            consumed.push(Slice { grant: slice.grant, amount: Amount(take) });
            open -= take;
        }
    }
    consumed
}

/// A charge that is not yet in a batch is unwound leg by leg. What came from a grant that has expired since is
/// breakage, as any release into it.
pub(crate) fn decide_reverse(plan: &mut Plan, command: &ReverseCapture) -> Result<(), Refusal> {
    let state = plan.state;
    let job = state.jobs.get(&command.job).ok_or(Refusal::JobUnknown { job: command.job })?;
    let JobState::Captured(captured) = &job.state else {
        return Err(Refusal::NotCaptured { job: command.job, state: job.state.name() });
    };
    if captured.reversed {
        return Err(Refusal::AlreadyReversed { job: command.job });
    }
    let mut legs = Legs::default();
    let (mut refunded, mut breakage) = (0, 0);
    for slice in &captured.slices {
        let grant = &state.grants[slice.grant.0 as usize];
        if let Backing::Vault(vault, wallet) = grant.backing {
            let queue = &state.wallets[&(vault, wallet)].queue;
            let open = queue.iter().any(|entry| entry.job == command.job && entry.covered.is_zero());
            if !open {
                return Err(Refusal::CaptureInBatch { job: command.job });
            }
        }
        if grant.expired(plan.now_us) {
            breakage += slice.amount.0;
        } else {
            refunded += slice.amount.0;
            plan.post(&mut legs, grant.book_key(), -slice.amount.0)?;
        }
    }
    plan.post(&mut legs, BookKey::system(AccountKind::Breakage, job.asset), -breakage)?;
    let owner = state.operators[&captured.operator].account;
    let accrued = BookKey::new(owner, AccountKind::OperatorAccrued, job.asset);
    plan.post(&mut legs, accrued, captured.operator_share.0)?;
    let revenue = BookKey::system(AccountKind::PlatformRevenue, job.asset);
    plan.post(&mut legs, revenue, captured.platform_share.0)?;
    let event = CaptureReversed {
        job: command.job,
        refunded: Amount(refunded),
        operator_share: captured.operator_share,
        platform_share: captured.platform_share,
    };
    plan.emit_with(event, legs);
    Ok(())
}

pub(crate) fn apply_dispatched(
    state: &mut State,
    header: &Header,
    event: &JobDispatched,
) -> Result<(), ApplyError> {
    if !state.operators.contains_key(&event.operator) {
        return Err(ApplyError::unknown("operator", event.operator));
    }
    let job = state.jobs.get_mut(&event.job).ok_or_else(|| ApplyError::unknown("job", event.job))?;
    if job.state != JobState::Running || event.attempt as usize != job.attempts.len() {
        return Err(ApplyError::Impossible("attempts of a running job are numbered without gaps"));
    }
    job.attempts.push(Attempt {
        node: event.node,
        operator: event.operator,
        body: event.body,
        continues_at: event.continues_at,
        dispatched_us: header.time_us,
    });
    Ok(())
}

pub(crate) fn apply_captured(
    state: &mut State,
    header: &Header,
    event: &UsageCaptured,
) -> Result<(), ApplyError> {
    let job = state.jobs.get(&event.job).ok_or_else(|| ApplyError::unknown("job", event.job))?;
    let asset = job.asset;
    let rate = pinned_rate(state, job).ok_or(ApplyError::Impossible("a job without a pinned price"))?;
    let share_ppm = rate.operator_share_ppm;
    let parts = splits::spread(event.operator_share, event.cost, event.slices.iter().map(|s| s.amount));
    let parts = parts.ok_or(ApplyError::Impossible("a share beyond 128 bits"))?;
    let sum = event.slices.iter().try_fold(0i128, |sum, slice| sum.checked_add(slice.amount.0));
    let shares = event.operator_share.checked_add(event.platform_share);
    if sum != Some(event.cost.0) || shares != Some(event.cost) {
        return Err(ApplyError::Impossible("slices and shares must both sum to the cost"));
    }
    let captured = Captured {
        attempt: event.attempt,
        operator: event.operator,
        input_units: event.input_units,
        output_units: event.output_units,
        cost: event.cost,
        slices: event.slices.clone(),
        operator_share: event.operator_share,
        platform_share: event.platform_share,
        share_ppm,
        receipt: event.receipt,
        leaf: header.leaf,
        time_us: header.time_us,
        reversed: false,
    };
    holds::close(state, header, event.hold, JobState::Captured(captured), &event.slices)?;
    let carry_key = CarryKey { operator: event.operator, asset, share_ppm };
    let carry = state.carries.entry(carry_key).or_default();
    carry.gross.0 += event.cost.0;
    carry.paid.0 += event.operator_share.0;
    let operator = state.operators.get(&event.operator);
    let owner = operator.ok_or_else(|| ApplyError::unknown("operator", event.operator))?.account;
    for (slice, share) in event.slices.iter().zip(parts) {
        match state.grant(slice.grant)?.backing {
            Backing::Vault(vault, wallet) => {
                let wallet = state.wallet_mut(vault, wallet)?;
                wallet.captured.0 += slice.amount.0;
                wallet.queue.push_back(QueuedCapture {
                    job: event.job,
                    operator: event.operator,
                    cost: slice.amount,
                    share,
                    covered: Amount::ZERO,
                    receipt: event.receipt,
                    leaf: header.leaf,
                    time_us: header.time_us,
                });
            }
            Backing::Unbacked | Backing::Treasury | Backing::Package(_) => {
                state.unbacked.entry((owner, asset)).or_default().0 += share.0;
            }
        }
    }
    Ok(())
}

pub(crate) fn apply_reversed(
    state: &mut State,
    header: &Header,
    event: &CaptureReversed,
) -> Result<(), ApplyError> {
    let job = state.jobs.get_mut(&event.job).ok_or_else(|| ApplyError::unknown("job", event.job))?;
    let asset = job.asset;
    let captured = match &mut job.state {
        JobState::Captured(captured) if !captured.reversed => captured,
        _ => return Err(ApplyError::Impossible("only a capture is reversed, and once")),
    };
    captured.reversed = true;
    let Captured { operator, share_ppm, cost, slices, operator_share, .. } = captured.clone();
    let parts = splits::spread(operator_share, cost, slices.iter().map(|s| s.amount));
    let parts = parts.ok_or(ApplyError::Impossible("a share beyond 128 bits"))?;
    let carry = state.carries.entry(CarryKey { operator, asset, share_ppm }).or_default();
    carry.gross.0 -= cost.0;
    carry.paid.0 -= operator_share.0;
    let owner = state.operators.get(&operator);
    let owner = owner.ok_or_else(|| ApplyError::unknown("operator", operator))?.account;
    for (slice, share) in slices.iter().zip(parts) {
        match state.grant(slice.grant)?.backing {
            Backing::Vault(vault, wallet) => {
                let wallet = state.wallet_mut(vault, wallet)?;
                let at = wallet.queue.iter().position(|entry| entry.job == event.job);
                let entry = at.and_then(|at| wallet.queue.remove(at));
                if entry.is_none_or(|entry| !entry.covered.is_zero()) {
                    return Err(ApplyError::Impossible("a capture in a batch is reversed"));
                }
                wallet.captured.0 -= slice.amount.0;
            }
            Backing::Unbacked | Backing::Treasury | Backing::Package(_) => {
                state.unbacked.entry((owner, asset)).or_default().0 -= share.0;
            }
        }
        let grant = state.grant_mut(slice.grant)?;
        if !grant.expired(header.time_us) {
            grant.remaining.0 += slice.amount.0;
            grants::index(state, slice.grant)?;
        }
    }
    Ok(())
}
