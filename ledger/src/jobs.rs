//! Jobs: given whole to a node, again to another, then charged. A finished job stays for as long as something can refer
//! to it: for the retention of idempotency keys after its end, and while a wallet's queue has a charge of it. After that
//! it is in the books only. What a charge costs stands in `captures.rs`.

use crate::apply::ApplyError;
use crate::command::Redispatch;
use crate::decide::Plan;
use crate::refusal::Refusal;
use crate::spend_caps::CapKey;
use crate::state::State;
use crate::{nodes, rates};
use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::Header;
use protocol::event::hold::{Slice, VoidReason};
use protocol::event::job::JobDispatched;
use protocol::id::{AccountId, Hash32, HoldId, JobId, NodeId, OperatorId, SpenderId};
use protocol::rate::ModelRate;

/// Most attempts of one job.
pub const ATTEMPTS_MAX: u32 = 16;
/// Most finished jobs that one commit forgets: twice what it can finish, so that a backlog shrinks without a pause.
pub const RETIRED_PER_COMMIT_MAX: usize = 8_192;

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
    /// Everything ever held for it: the price of input and output bound.
    #[n(3)]
    pub(crate) amount: Amount,
    /// Of the hold and its extensions, in the order they were taken; they sum to the amount.
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
    /// The key it counts for; `None` when the key had no cap at admission.
    #[n(15)]
    pub(crate) spender: Option<SpenderId>,
    /// Its charges, in their order.
    #[n(16)]
    pub(crate) parts: Vec<Part>,
    /// Whether the charges were undone.
    #[n(17)]
    pub(crate) reversed: bool,
    /// Charges of it that wait in wallets' queues.
    #[n(18)]
    pub(crate) queued: u32,
    /// Its retention is over; it stays for its queued charges only.
    #[n(19)]
    pub(crate) overdue: bool,
    /// Leaf of the event that ended it.
    #[n(20)]
    pub(crate) ended_leaf: u64,
}

impl Job {
    /// What the charges so far took of the hold.
    pub(crate) fn consumed(&self) -> i128 {
        self.parts.iter().map(|part| part.cost.0 - part.beyond.0).sum()
    }

    /// What the charges so far cost.
    pub(crate) fn charged(&self) -> i128 {
        self.parts.iter().map(|part| part.cost.0).sum()
    }

    /// What is still held of each slice, in their order.
    pub(crate) fn open_slices(&self) -> impl Iterator<Item = Slice> + '_ {
        let mut consumed = self.consumed();
        self.slices.iter().map(move |slice| {
            let taken = slice.amount.0.min(consumed);
            consumed -= taken;
            Slice { grant: slice.grant, amount: Amount(slice.amount.0 - taken) }
        })
    }

    /// Where its spending counts.
    pub(crate) fn cap_key(&self) -> Option<CapKey> {
        self.spender.map(|spender| (self.account, spender, self.asset))
    }
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

/// One charge of a job.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Part {
    #[n(0)]
    pub(crate) attempt: u32,
    #[n(1)]
    pub(crate) operator: OperatorId,
    /// Billed by this part alone.
    #[n(2)]
    pub(crate) input_units: u64,
    /// Billed by this part alone.
    #[n(3)]
    pub(crate) output_units: u64,
    #[n(4)]
    pub(crate) cost: Amount,
    /// Of the cost, what the hold did not cover.
    #[n(5)]
    pub(crate) beyond: Amount,
    #[n(6)]
    pub(crate) slices: Vec<Slice>,
    #[n(7)]
    pub(crate) operator_share: Amount,
    #[n(8)]
    pub(crate) platform_share: Amount,
    #[n(9)]
    pub(crate) receipt: Hash32,
    #[n(10)]
    pub(crate) leaf: u64,
    #[n(11)]
    pub(crate) time_us: u64,
}

/// Where a job stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(flat)]
pub(crate) enum JobState {
    #[n(0)]
    Running,
    /// A charge ended it.
    #[n(1)]
    Captured,
    /// Released; charges in parts stand.
    #[n(2)]
    Voided(#[n(0)] VoidReason),
    /// Released; charges in parts stand.
    #[n(3)]
    Expired,
}

impl JobState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            JobState::Running => "running",
            JobState::Captured => "captured",
            JobState::Voided(_) => "voided",
            JobState::Expired => "expired",
        }
    }
}

/// A finished job that waits for the end of its retention.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Finished {
    #[n(0)]
    pub(crate) leaf: u64,
    #[n(1)]
    pub(crate) time_us: u64,
    #[n(2)]
    pub(crate) job: JobId,
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
pub(crate) fn pinned_rate<'a>(state: &'a State, job: &Job) -> Option<&'a ModelRate> {
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

/// A job ended: it stays for its retention.
pub(crate) fn finish(state: &mut State, header: &Header, id: JobId, end: JobState) -> Result<(), ApplyError> {
    let job = state.jobs.get_mut(&id).ok_or_else(|| ApplyError::unknown("job", id))?;
    job.state = end;
    job.ended_leaf = header.leaf;
    state.open_jobs.remove(&id);
    state.finished.push_back(Finished { leaf: header.leaf, time_us: header.time_us, job: id });
    Ok(())
}

/// Charges of a job left a wallet's queue: settled, stranded by an exit, or undone.
pub(crate) fn unqueue(state: &mut State, id: JobId) -> Result<(), ApplyError> {
    let job = state.jobs.get_mut(&id).ok_or_else(|| ApplyError::unknown("job", id))?;
    let left = job.queued.checked_sub(1);
    job.queued =
        left.ok_or(ApplyError::Impossible("a job has fewer queued charges than queues have of it"))?;
    if job.queued == 0 && job.overdue {
        forget(state, id);
    }
    Ok(())
}

fn forget(state: &mut State, id: JobId) {
    if let Some(job) = state.jobs.remove(&id) {
        state.holds.remove(&job.hold);
        state.late.remove(&job.ended_leaf);
    }
}

/// Forgets finished jobs whose retention is over; what a queue still has of one keeps it until it leaves the queue.
pub(crate) fn retire(state: &mut State, now_us: u64, keep_us: u64) {
    for _ in 0..RETIRED_PER_COMMIT_MAX {
        let over = state.finished.front().filter(|first| first.time_us.saturating_add(keep_us) < now_us);
        let Some(Finished { leaf, job: id, .. }) = over.copied() else { break };
        state.finished.pop_front();
        let waits = state.jobs.get_mut(&id).filter(|job| job.queued > 0);
        match waits {
            Some(job) => {
                job.overdue = true;
                state.late.insert(leaf, id);
            }
            None => forget(state, id),
        }
    }
}
