//! What is due when: holds and grants in the order of their end. `ExpireDue` turns what is due into events. Time comes
//! from the log. A timer that fires late harms nobody: an expired grant is unspendable by its own date (rulings 3.13).

use crate::command::ExpireDue;
use crate::decide::Plan;
use crate::jobs::{JobNo, Jobs};
use crate::refusal::Refusal;
use crate::{grants, holds};
use minicbor::{Decode, Encode};
use protocol::event::GrantId;
use protocol::id::HoldId;
use std::collections::{BTreeMap, BTreeSet};

/// Most events one `ExpireDue` emits, whatever it asks for: they must fit one commit.
pub const EXPIRE_EVENTS_MAX: u32 = 1024;

/// What ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
#[cbor(flat)]
pub enum Due {
    /// A hold outlived deadline and grace.
    #[n(0)]
    Hold(#[n(0)] HoldId),
    /// A grant reached its end.
    #[n(1)]
    Grant(#[n(0)] GrantId),
}

/// Microseconds of one slot are 2^16: a million holds over ten minutes are some hundred a slot.
const SLOT_BITS: u32 = 16;

/// Most places of a slot for each hold in it, beyond the first few: a hold that ends leaves its place empty, so that no
/// other job's row has to be read.
const PLACES_PER_HOLD_MAX: usize = 8;

/// Holds that end within one slot of time, in no order that matters.
#[derive(Clone, Default, Debug)]
struct Slot {
    places: Vec<Option<JobNo>>,
    open: usize,
}

impl Slot {
    fn holds(&self) -> impl Iterator<Item = JobNo> {
        self.places.iter().flatten().copied()
    }

    /// Moves holds together.
    fn tidy(&mut self, jobs: &mut Jobs) {
        self.places.retain(Option::is_some);
        for (number, place) in self.places.iter().flatten().zip(0..) {
            jobs.row_mut(*number).place = place;
        }
    }
}

/// Open holds in slots of time, grants in order. Rebuilt from jobs and grants. Only the latest slot may be without a hold:
/// it stays for those that come next.
#[derive(Clone, Default, Debug)]
pub(crate) struct Timers {
    holds: BTreeMap<u64, Slot>,
    grants: BTreeSet<(u64, GrantId)>,
}

impl Timers {
    /// Adds a running job; it remembers its place in its slot.
    pub(crate) fn add_hold(&mut self, jobs: &mut Jobs, number: JobNo) {
        let job = jobs.row_mut(number);
        let at = job.due_us >> SLOT_BITS;
        let latest = self.holds.last_key_value();
        if latest.is_some_and(|(last, slot)| *last != at && slot.open == 0) {
            self.holds.pop_last();
        }
        let slot = self.holds.entry(at).or_default();
        job.place = slot.places.len() as u32;
        slot.places.push(Some(number));
        slot.open += 1;
    }

    /// Takes a running job out, by the place it remembers.
    pub(crate) fn remove_hold(&mut self, jobs: &mut Jobs, number: JobNo) {
        let job = &jobs[number];
        let (at, place) = (job.due_us >> SLOT_BITS, job.place as usize);
        let latest = self.holds.last_key_value().is_some_and(|(last, _)| *last == at);
        let slot = self.holds.get_mut(&at).expect("a running job is in the slot of its end");
        assert_eq!(slot.places[place].take(), Some(number), "a job knows its place");
        slot.open -= 1;
        if slot.open == 0 && !latest {
            self.holds.remove(&at);
        } else if slot.open == 0 {
            slot.places.clear();
        } else if slot.places.len() > 64.max(slot.open * PLACES_PER_HOLD_MAX) {
            slot.tidy(jobs);
        }
    }

    pub(crate) fn add_grant(&mut self, expires_us: u64, grant: GrantId) {
        self.grants.insert((expires_us, grant));
    }

    pub(crate) fn remove_grant(&mut self, expires_us: u64, grant: GrantId) {
        self.grants.remove(&(expires_us, grant));
    }

    /// Every running job.
    pub(crate) fn running(&self) -> impl Iterator<Item = JobNo> {
        self.holds.values().flat_map(Slot::holds)
    }

    /// When the next timer fires.
    pub(crate) fn next_us(&self, jobs: &Jobs) -> Option<u64> {
        let first = self.holds.values().find(|slot| slot.open > 0);
        let hold = first.and_then(|slot| slot.holds().map(|number| jobs[number].due_us).min());
        let grant = self.grants.first().map(|(us, _)| *us);
        hold.into_iter().chain(grant).min()
    }

    /// What is due by now, earliest first, holds before grants of the same moment, by their ids; at most `count`.
    fn due(&self, jobs: &Jobs, now_us: u64, count: usize) -> Vec<(u64, Due)> {
        let grants = self.grants.iter().take_while(|(us, _)| *us <= now_us).take(count);
        let mut due: Vec<(u64, Due)> = grants.map(|(us, grant)| (*us, Due::Grant(*grant))).collect();
        let mut holds = 0;
        for slot in self.holds.range(..=now_us >> SLOT_BITS).map(|(_, slot)| slot) {
            let ended = slot.holds().map(|number| &jobs[number]).filter(|job| job.due_us <= now_us);
            let mut ended: Vec<(u64, Due)> = ended.map(|job| (job.due_us, Due::Hold(job.hold))).collect();
            let left = count - holds;
            if ended.len() > left {
                ended.select_nth_unstable(left);
                ended.truncate(left);
            }
            holds += ended.len();
            due.append(&mut ended);
            if holds == count {
                break;
            }
        }
        due.sort_unstable();
        due.truncate(count);
        due
    }
}

/// Expires what is due, earliest first. The events do not depend on each other: a release into an expired grant is
/// breakage by the grant's date, whether or not its own event stands before.
pub(crate) fn decide_expire_due(plan: &mut Plan, command: &ExpireDue) -> Result<(), Refusal> {
    let events_max = command.events_max.min(EXPIRE_EVENTS_MAX) as usize;
    let state = plan.state;
    let due = state.timers.due(&state.jobs, plan.now_us, events_max);
    if due.is_empty() {
        let next_us = state.timers.next_us(&state.jobs);
        return Err(Refusal::NothingDue { now_us: plan.now_us, next_us });
    }
    for (_, due) in due {
        match due {
            Due::Hold(hold) => holds::plan_expiry(plan, hold)?,
            Due::Grant(grant) => grants::plan_expiry(plan, grant)?,
        }
    }
    Ok(())
}
