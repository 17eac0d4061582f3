//! Jobs: given whole to a node, again to another, then charged. A finished job stays for as long as something can refer
//! to it: for the retention of idempotency keys after its end, and while a wallet's queue has a charge of it. After that
//! it is in the books only. What a charge costs stands in `captures.rs`.

use crate::accounts::AccountNo;
use crate::apply::ApplyError;
use crate::command::Redispatch;
use crate::decide::Plan;
use crate::index::{Hashed, Index};
use crate::nodes::OperatorNo;
use crate::refusal::Refusal;
use crate::slab::{Queue, Slab, definite, few};
use crate::spend_caps::CapKey;
use crate::state::State;
use crate::{nodes, rates};
use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::Header;
use protocol::event::hold::{Slice, VoidReason};
use protocol::event::job::JobDispatched;
use protocol::id::{Hash32, HoldId, JobId, NodeId, OperatorId, SpenderId};
use protocol::rate::ModelRate;
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// Most attempts of one job.
pub const ATTEMPTS_MAX: u32 = 16;
/// Most finished jobs that one commit forgets: twice what it can finish, so that a backlog shrinks without a pause.
pub const RETIRED_PER_COMMIT_MAX: usize = 8_192;

/// A job's number among those that are known now; used again after it was forgotten, and never observable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct JobNo(u32);

/// One job with its hold.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Job {
    #[n(0)]
    pub(crate) id: JobId,
    #[n(1)]
    pub(crate) hold: HoldId,
    #[n(2)]
    pub(crate) account: AccountNo,
    #[n(3)]
    pub(crate) asset: AssetId,
    /// Everything ever held for it: the price of input and output bound.
    #[n(4)]
    pub(crate) amount: Amount,
    /// Of the hold and its extensions, in the order they were taken; they sum to the amount.
    #[cbor(n(5), with = "few")]
    pub(crate) slices: SmallVec<[Slice; 2]>,
    #[n(6)]
    pub(crate) rate_card_version: u32,
    /// The model's place on the card.
    #[n(7)]
    pub(crate) model: u32,
    #[n(8)]
    pub(crate) input_units: u64,
    #[n(9)]
    pub(crate) output_units_max: u64,
    #[n(10)]
    pub(crate) deadline_us: u64,
    /// Deadline plus grace: when the hold's timer fires.
    #[n(11)]
    pub(crate) due_us: u64,
    #[n(12)]
    pub(crate) placed_leaf: u64,
    #[cbor(n(13), with = "few")]
    pub(crate) attempts: SmallVec<[Dispatch; 1]>,
    #[n(14)]
    pub(crate) state: JobState,
    /// The key it counts for; `None` when the key had no cap at admission.
    #[n(15)]
    pub(crate) spender: Option<SpenderId>,
    /// Its charges, in their order.
    #[cbor(n(16), with = "few")]
    pub(crate) parts: SmallVec<[Part; 1]>,
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
    /// Time of that event.
    #[n(21)]
    pub(crate) ended_us: u64,
    /// Its place in the timers' slot while it runs.
    #[cbor(skip)]
    pub(crate) place: u32,
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

    /// To where output is billed, or never will be, from the job's beginning.
    pub(crate) fn output_end(&self) -> u64 {
        let cut = |part: &Part| self.attempts.get(part.attempt as usize).map_or(0, |to| to.continues_at);
        self.parts.iter().fold(0, |end: u64, part| end.max(cut(part)).saturating_add(part.output_units))
    }

    /// From where an attempt is paid: its own beginning, or what is billed. What lies between is billed to nobody.
    pub(crate) fn output_from(&self, attempt: u32) -> u64 {
        let cut = self.attempts.get(attempt as usize).map_or(0, |to| to.continues_at);
        self.output_end().max(cut)
    }

    /// To where an attempt is paid: where the next one went on.
    pub(crate) fn output_until(&self, attempt: u32) -> Option<u64> {
        self.attempts.get(attempt as usize + 1).map(|next| next.continues_at)
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

/// One dispatch, as it is kept.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Dispatch {
    #[n(0)]
    pub(crate) node: NodeId,
    #[n(1)]
    pub(crate) operator: OperatorNo,
    #[n(2)]
    pub(crate) body: Hash32,
    #[n(3)]
    pub(crate) continues_at: u64,
    #[n(4)]
    pub(crate) dispatched_us: u64,
}

/// One dispatch of a job; its number is its place in the job's list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// The node.
    pub node: NodeId,
    /// Its owner.
    pub operator: OperatorId,
    /// Salted commitment to the body.
    pub body: Hash32,
    /// Tokens delivered by earlier attempts.
    pub continues_at: u64,
    /// When it was dispatched, microseconds UTC.
    pub dispatched_us: u64,
}

/// One charge of a job.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Part {
    #[n(0)]
    pub(crate) attempt: u32,
    #[n(1)]
    pub(crate) operator: OperatorNo,
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
    #[cbor(n(6), with = "few")]
    pub(crate) slices: SmallVec<[Slice; 2]>,
    #[n(7)]
    pub(crate) operator_share: Amount,
    #[n(8)]
    pub(crate) receipt: Hash32,
    #[n(9)]
    pub(crate) leaf: u64,
}

impl Part {
    pub(crate) fn platform_share(&self) -> i128 {
        self.cost.0 - self.operator_share.0
    }
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

/// A row that has a job, or waits for one.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "free rows are used next, and boxes would cost every job")]
enum Place {
    /// Free; the next free one, if any.
    Free(Option<u32>),
    Used(Job),
}

/// Every job that is known.
#[derive(Clone, Default, Debug)]
pub(crate) struct Jobs {
    places: Slab<Place>,
    free: Option<u32>,
    count: usize,
    by_id: Index<Hashed>,
    by_hold: Index<Hashed>,
    /// Ended jobs in the order of their ends.
    finished: Queue<JobNo>,
    /// Ended jobs that only wait for their charges' batches, by the leaf of their end.
    late: BTreeMap<u64, JobNo>,
}

fn used(places: &Slab<Place>, number: u32) -> &Job {
    match &places[number] {
        Place::Used(job) => job,
        Place::Free(_) => panic!("row {number} has no job: numbers come from the indexes"),
    }
}

impl std::ops::Index<JobNo> for Jobs {
    type Output = Job;
    #[inline]
    fn index(&self, number: JobNo) -> &Job {
        used(&self.places, number.0)
    }
}

impl Jobs {
    #[inline]
    pub(crate) fn find(&self, id: &JobId) -> Option<JobNo> {
        self.by_id.find(&id.0, |row| &used(&self.places, row).id.0).map(JobNo)
    }

    #[inline]
    pub(crate) fn find_hold(&self, hold: &HoldId) -> Option<JobNo> {
        self.by_hold.find(&hold.0, |row| &used(&self.places, row).hold.0).map(JobNo)
    }

    pub(crate) fn get(&self, id: &JobId) -> Option<&Job> {
        self.find(id).map(|number| &self[number])
    }

    #[inline]
    pub(crate) fn row_mut(&mut self, number: JobNo) -> &mut Job {
        match self.places.get_mut(number.0) {
            Some(Place::Used(job)) => job,
            _ => panic!("row {} has no job: numbers come from the indexes", number.0),
        }
    }

    /// All that are known, in no order that matters.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (JobNo, &Job)> {
        self.places.iter().zip(0u32..).filter_map(|(place, number)| match place {
            Place::Used(job) => Some((JobNo(number), job)),
            Place::Free(_) => None,
        })
    }

    /// Adds a job whose ids are new.
    pub(crate) fn add(&mut self, job: Job) -> JobNo {
        let (id, hold) = (job.id, job.hold);
        let number = match self.free {
            Some(number) => {
                let place = self.places.get_mut(number).expect("a free row is a row");
                let Place::Free(next) = *place else { panic!("row {number} is not free") };
                self.free = next;
                *place = Place::Used(job);
                number
            }
            None => {
                self.places.push(Place::Used(job));
                self.places.len() as u32 - 1
            }
        };
        self.count += 1;
        let places = &self.places;
        self.by_id.insert(&id.0, number, |row| &used(places, row).id.0);
        self.by_hold.insert(&hold.0, number, |row| &used(places, row).hold.0);
        JobNo(number)
    }

    fn forget(&mut self, number: JobNo) {
        let (id, hold, leaf) = (self[number].id, self[number].hold, self[number].ended_leaf);
        self.by_id.remove(&id.0, number.0);
        self.by_hold.remove(&hold.0, number.0);
        self.late.remove(&leaf);
        *self.places.get_mut(number.0).expect("it is there") = Place::Free(self.free);
        self.free = Some(number.0);
        self.count -= 1;
    }

    /// Charges of a job left a wallet's queue: settled, stranded by an exit, or undone.
    pub(crate) fn unqueue(&mut self, id: &JobId) -> Result<(), ApplyError> {
        let number = self.find(id).ok_or_else(|| ApplyError::unknown("job", id))?;
        let job = self.row_mut(number);
        let left = job.queued.checked_sub(1);
        job.queued = left.ok_or(ApplyError::Impossible("queues have more charges of a job than it has"))?;
        if job.queued == 0 && job.overdue {
            self.forget(number);
        }
        Ok(())
    }

    /// Forgets finished jobs whose retention is over; what a queue still has of one keeps it until it leaves the queue.
    pub(crate) fn retire(&mut self, now_us: u64, keep_us: u64) {
        for _ in 0..RETIRED_PER_COMMIT_MAX {
            let Some(number) = self.finished.get(self.finished.first()).copied() else { break };
            if self[number].ended_us.saturating_add(keep_us) >= now_us {
                break;
            }
            self.finished.pop();
            let job = self.row_mut(number);
            if job.queued > 0 {
                job.overdue = true;
                let leaf = job.ended_leaf;
                self.late.insert(leaf, number);
            } else {
                self.forget(number);
            }
        }
    }

    /// Ended jobs by the leaf of their end, from a leaf on.
    pub(crate) fn ended_from(&self, leaf: u64) -> impl Iterator<Item = &Job> {
        let (mut low, mut high) = (self.finished.first(), self.finished.first() + self.finished.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let number = self.finished.get(middle).expect("between first and last");
            if self[*number].ended_leaf < leaf { low = middle + 1 } else { high = middle }
        }
        let rest = (low..).map_while(|at| self.finished.get(at));
        self.late.range(leaf..).map(|(_, number)| number).chain(rest).map(|number| &self[*number])
    }

    /// A copy that shares what it can.
    pub(crate) fn share(&mut self) -> Jobs {
        Jobs {
            places: self.places.share(),
            free: self.free,
            count: self.count,
            by_id: self.by_id.share(),
            by_hold: self.by_hold.share(),
            finished: self.finished.share(),
            late: self.late.clone(),
        }
    }

    /// Puts ended jobs back into the order of their ends.
    pub(crate) fn rebuild(&mut self) -> Result<(), &'static str> {
        let ended = self.iter().filter(|(_, job)| job.state != JobState::Running);
        let mut ended: Vec<(u64, JobNo)> = ended.map(|(number, job)| (job.ended_leaf, number)).collect();
        ended.sort_unstable();
        for (leaf, number) in ended {
            if self[number].overdue {
                self.late.insert(leaf, number);
            } else {
                self.finished.push(number);
            }
        }
        Ok(())
    }
}

/// In the order of admission, whatever rows they happen to have.
impl<C> Encode<C> for Jobs {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        c: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let mut order: Vec<(u64, JobNo)> =
            self.iter().map(|(number, job)| (job.placed_leaf, number)).collect();
        order.sort_unstable();
        e.array(order.len() as u64)?;
        order.iter().try_for_each(|(_, number)| self[*number].encode(e, c))
    }
}

impl<'b, C> Decode<'b, C> for Jobs {
    fn decode(d: &mut minicbor::Decoder<'b>, c: &mut C) -> Result<Jobs, minicbor::decode::Error> {
        let mut jobs = Jobs::default();
        let mut last = None;
        for _ in 0..definite(d)? {
            let at = d.position();
            let job = Job::decode(d, c)?;
            let known = jobs.find(&job.id).is_some() || jobs.find_hold(&job.hold).is_some();
            if known || last.replace(job.placed_leaf).is_some_and(|before| before >= job.placed_leaf) {
                return Err(minicbor::decode::Error::message("jobs are not in the order of admission").at(at));
            }
            jobs.add(job);
        }
        Ok(jobs)
    }
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
    rates::by_version(state, job.rate_card_version)?.card.models.get(job.model as usize)
}

/// The model's name on its card.
pub(crate) fn model<'a>(state: &'a State, job: &Job) -> &'a str {
    pinned_rate(state, job).map_or("", |rate| &rate.model)
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
    let least = least_cut(job);
    if command.continues_at < least {
        return Err(Refusal::CutGoesBack { job: command.job, given: command.continues_at, least });
    }
    let node = nodes::serving(plan.state, command.node, model(plan.state, job))?;
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

/// Where a next attempt may go on at the earliest: not before the last one did, nor before what is billed.
fn least_cut(job: &Job) -> u64 {
    job.attempts.last().map_or(0, |last| last.continues_at).max(job.output_end())
}

pub(crate) fn apply_dispatched(
    state: &mut State,
    header: &Header,
    event: &JobDispatched,
) -> Result<(), ApplyError> {
    let operator = state.operators.find(&event.operator);
    let operator = operator.ok_or_else(|| ApplyError::unknown("operator", event.operator))?;
    let number = state.job_no(event.job)?;
    let job = state.jobs.row_mut(number);
    if job.state != JobState::Running || event.attempt as usize != job.attempts.len() {
        return Err(ApplyError::Impossible("attempts of a running job are numbered without gaps"));
    }
    if event.continues_at < least_cut(job) {
        return Err(ApplyError::Impossible("a job goes on where it was, or later"));
    }
    job.attempts.push(Dispatch {
        node: event.node,
        operator,
        body: event.body,
        continues_at: event.continues_at,
        dispatched_us: header.time_us,
    });
    Ok(())
}

/// A job ended: it stays for its retention.
pub(crate) fn finish(state: &mut State, header: &Header, number: JobNo, end: JobState) {
    let job = state.jobs.row_mut(number);
    job.state = end;
    job.ended_leaf = header.leaf;
    job.ended_us = header.time_us;
    state.jobs.finished.push(number);
}
