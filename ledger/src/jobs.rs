//! Jobs: given whole to a node, again to another, then charged. A finished job stays for as long as something can refer
//! to it: for the retention of idempotency keys after its end, and while a wallet's queue has a charge of it. After that
//! it is in the books only; its id would then be taken again. Ids are 16 random bytes, so only a coordinator that pays a
//! receipt twice would use one again: the auditor, who forgets none, names it. What a charge costs stands in `captures.rs`.

mod plain;
mod row;

use crate::apply::ApplyError;
use crate::command::Redispatch;
use crate::decide::Plan;
use crate::lines::Lines;
use crate::refusal::Refusal;
use crate::slab::{Queue, Slab, definite};
use crate::state::State;
use crate::{nodes, rates};
use minicbor::{Decode, Encode};
use protocol::event::Header;
use protocol::event::job::JobDispatched;
use protocol::id::{HoldId, JobId};
use protocol::rate::ModelRate;
use std::collections::BTreeMap;

pub use row::Attempt;
pub(crate) use row::{Dispatch, Job, JobState, NewJob, Part, first_of};

/// Most attempts of one job.
pub const ATTEMPTS_MAX: u32 = 16;
/// Most finished jobs that one commit forgets: twice what it can finish, so that a backlog shrinks without a pause.
pub const RETIRED_PER_COMMIT_MAX: usize = 8_192;

/// A job's number among those that are known now; used again after it was forgotten, and never observable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct JobNo(u32);

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
    /// The one that was added last, if it is still there: its dispatch comes next.
    newest: Option<JobNo>,
    by_id: Lines,
    by_hold: Lines,
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
        self.by_id.find(&id.0, |row| used(&self.places, row).id == *id).map(JobNo)
    }

    /// [`Jobs::find`] that looks at the newest job first.
    #[inline]
    pub(crate) fn find_newest_first(&self, id: &JobId) -> Option<JobNo> {
        self.newest.filter(|newest| self[*newest].id == *id).or_else(|| self.find(id))
    }

    #[inline]
    pub(crate) fn find_hold(&self, hold: &HoldId) -> Option<JobNo> {
        self.by_hold.find(&hold.0, |row| used(&self.places, row).hold == *hold).map(JobNo)
    }

    /// See [`crate::look_ahead`].
    #[inline]
    pub(crate) fn touch(&self, id: &JobId, hold: &HoldId) -> u32 {
        self.by_id.touch(&id.0) ^ self.by_hold.touch(&hold.0)
    }

    /// See [`crate::look_ahead`].
    #[inline]
    pub(crate) fn touch_id(&self, id: &JobId) -> u32 {
        self.by_id.touch(&id.0)
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

    /// Adds a job; its ids must be new.
    pub(crate) fn add(&mut self, job: Job) -> Result<JobNo, ApplyError> {
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
        self.index(number, id, hold)?;
        self.newest = Some(JobNo(number));
        Ok(JobNo(number))
    }

    #[inline]
    fn index(&mut self, number: u32, id: JobId, hold: HoldId) -> Result<(), ApplyError> {
        let places = &self.places;
        if self.by_id.insert(&id.0, number, |row| used(places, row).id == id).is_some() {
            return Err(ApplyError::Impossible("a job is admitted twice"));
        }
        if self.by_hold.insert(&hold.0, number, |row| used(places, row).hold == hold).is_some() {
            return Err(ApplyError::Impossible("a hold is placed twice"));
        }
        Ok(())
    }

    fn forget(&mut self, number: JobNo) {
        let (id, hold, leaf) = (self[number].id, self[number].hold, self[number].ended_leaf);
        self.by_id.remove(&id.0, number.0);
        self.by_hold.remove(&hold.0, number.0);
        self.late.remove(&leaf);
        *self.places.get_mut(number.0).expect("it is there") = Place::Free(self.free);
        self.free = Some(number.0);
        self.newest = self.newest.filter(|newest| *newest != number);
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
            newest: self.newest,
            by_id: self.by_id.share(),
            by_hold: self.by_hold.share(),
            finished: self.finished.share(),
            late: self.late.clone(),
        }
    }

    /// Finds every job again after the rows were read, and puts ended ones back into the order of their ends.
    pub(crate) fn rebuild(&mut self) -> Result<(), &'static str> {
        // A snapshot has no free rows.
        let (rows, places) = (0..self.places.len() as u32, &self.places);
        let ids = rows.clone().map(|row| (row, &used(places, row).id.0));
        let holds = rows.map(|row| (row, &used(places, row).hold.0));
        let same_id = |one, other| used(places, one).id == used(places, other).id;
        let same_hold = |one, other| used(places, one).hold == used(places, other).hold;
        if !self.by_id.fill(ids, same_id) || !self.by_hold.fill(holds, same_hold) {
            return Err("a job or a hold is there twice");
        }
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

/// In the order of admission, whatever rows they happen to have; plain ones as byte strings.
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
        for (_, number) in order {
            match plain::write(&self[number]) {
                Some(bytes) => e.bytes(&bytes)?.ok()?,
                None => self[number].encode(e, c)?,
            }
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Jobs {
    fn decode(d: &mut minicbor::Decoder<'b>, c: &mut C) -> Result<Jobs, minicbor::decode::Error> {
        let mut jobs = Jobs::default();
        let mut last = None;
        for _ in 0..definite(d)? {
            let at = d.position();
            let job = match d.datatype()? {
                minicbor::data::Type::Bytes => d.bytes()?.try_into().ok().and_then(plain::read),
                _ => Some(Job::decode(d, c)?),
            };
            let job = job.ok_or_else(|| minicbor::decode::Error::message("no plain job").at(at))?;
            let late = last.replace(job.placed_leaf).is_some_and(|before| before >= job.placed_leaf);
            jobs.places.push(Place::Used(job));
            if late {
                return Err(minicbor::decode::Error::message("jobs are not in the order of admission").at(at));
            }
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
    let number = state.jobs.find_newest_first(&event.job);
    let number = number.ok_or_else(|| ApplyError::unknown("job", event.job))?;
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
