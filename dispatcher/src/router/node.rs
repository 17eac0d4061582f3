//! One node as the table knows it: what it declared, what it says, how it did. Must not: other nodes.

use super::breaker::{Breaker, Standing};
use super::floor::{Floor, Pace};
use super::health::Health;
use super::index::{CAPACITY_MAX, Place};
use super::ramp;
use super::reason::Reason;
use super::table::ALIVE_US;
use super::terms::{NodeSpec, Pool, RouteBy};

/// A node that said it was busy below its capacity gets that many jobs; the figure grows by one in this time.
pub(super) const MEASURED_STEP_US: u64 = 500_000;
const DAY_US: u64 = 86_400_000_000;
/// Time online that counts as one good end.
pub(super) const ONLINE_CREDIT_US: u64 = 3_600_000_000;

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub spec: NodeSpec,
    pub pool: Pool,
    pub inflight: u32,
    pub seen_us: Option<u64>,
    /// Sequence number of its last heartbeat: it grows while the worker lives.
    pub beat_seq: Option<u64>,
    /// How often the worker began anew; jobs of an earlier life are lost.
    pub life: u64,
    pub advertised_slots: u32,
    pub draining: bool,
    pub measured: Option<Measured>,
    /// An answer of its operator came out different when it was run again.
    pub refuted: bool,
    pub standing: Standings,
    /// Since when it is online, less what was counted as good already.
    pub online_from_us: u64,
    /// Models it is registered for.
    pub serves: Vec<Serve>,
    /// Jobs at once, as of the last look.
    pub capacity: u32,
    /// Probability of being kept when drawn among equals, as of the last look.
    pub weight_ppm: u64,
    /// When it is looked at next.
    pub timer_us: u64,
}

/// What follows an operator when a node of its is registered anew.
#[derive(Clone, Debug, Default)]
pub(super) struct Standings {
    pub breaker: Breaker,
    pub floor: Floor,
    pub health: Health,
}

/// What a node took at most when it last said that it was busy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub jobs: u32,
    pub since_us: u64,
}

/// One model that a node is registered for.
#[derive(Clone, Debug)]
pub(super) struct Serve {
    /// The model's row in the table.
    pub model: u32,
    /// Whether its heartbeat lists it.
    pub loaded: bool,
    /// How it was judged at the last look.
    pub shown: Reason,
    /// Where it stands in the model's index.
    pub stand: Option<(Pool, Place)>,
    /// What it adds to the model's sums: capacity and jobs in flight.
    pub counted: Option<(u64, u64)>,
}

/// What a network and an operator's time in it make of what a node declares.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// Part of the declared slots that the network uses, millionths.
    pub capacity_ppm: u64,
    pub ramp_start_ppm: u64,
    /// First heartbeat of any of the operator's nodes.
    pub since_us: u64,
}

impl Measured {
    /// Jobs at once by now.
    fn jobs_at(self, now_us: u64) -> u32 {
        let steps = now_us.saturating_sub(self.since_us) / MEASURED_STEP_US;
        self.jobs.saturating_add(u32::try_from(steps).unwrap_or(u32::MAX))
    }
}

impl Share {
    fn ppm(self, pool: Pool, now_us: u64) -> u64 {
        match pool {
            Pool::Operators | Pool::LastResort => ramp::share_ppm(self.ramp_start_ppm, self.since_us, now_us),
            Pool::Accelerator | Pool::Processor => super::health::WEIGHT_ONE,
        }
    }
}

impl Node {
    /// Jobs at once: the least of what is declared (by the network's and the ramp's part), advertised and measured.
    pub fn capacity_at(&self, share: Share, now_us: u64) -> u32 {
        let declared = ramp::capacity(self.spec.slots, share.capacity_ppm);
        let declared = ramp::capacity(declared, share.ppm(self.pool, now_us));
        let measured = self.measured.map_or(u32::MAX, |m| m.jobs_at(now_us));
        declared.min(self.advertised_slots).min(measured).min(CAPACITY_MAX)
    }

    /// How heavy it weighs among equals.
    pub fn weight_at(&self, share: Share, by: RouteBy, now_us: u64) -> u64 {
        let health = match by {
            RouteBy::Score => self.standing.health.weight_ppm(now_us),
            RouteBy::Availability => self.standing.health.share_ppm(now_us),
        };
        health * share.ppm(self.pool, now_us) / super::health::WEIGHT_ONE
    }

    pub fn is_alive(&self, now_us: u64) -> bool {
        self.seen_us.is_some_and(|seen| now_us < seen.saturating_add(ALIVE_US))
    }

    /// Why it would or would not get a job of a model that it `serves`, and the pool it stands in if it may.
    pub fn judge(&self, serve: Option<&Serve>, capacity: u32, now_us: u64) -> (Reason, Option<Pool>) {
        let reason = match (self.seen_us, serve) {
            (None, _) => Reason::NeverSeen,
            _ if !self.is_alive(now_us) => Reason::HeartbeatMissed,
            _ if self.draining => Reason::Draining,
            _ if self.refuted => Reason::Refuted,
            (_, None) => Reason::ModelNotRegistered,
            (_, Some(serve)) if !serve.loaded => Reason::ModelNotLoaded,
            _ => Reason::Eligible,
        };
        if reason != Reason::Eligible {
            return (reason, None);
        }
        let has_slot = self.inflight < capacity;
        match self.standing.breaker.standing(now_us) {
            Standing::Parked { .. } => return (Reason::Parked, None),
            Standing::Probing => return (Reason::Probing, None),
            Standing::Closed | Standing::ProbeDue => {}
        }
        match self.standing.floor.pace(now_us) {
            Pace::Below { .. } | Pace::Probing => (Reason::BelowFloor, has_slot.then_some(Pool::LastResort)),
            Pace::Good | Pace::ProbeDue if has_slot => (Reason::Eligible, Some(self.pool)),
            Pace::Good | Pace::ProbeDue => (Reason::Full, None),
        }
    }

    /// Whether the next job it gets is a probe.
    pub fn is_probe(&self, now_us: u64) -> bool {
        self.standing.breaker.standing(now_us) == Standing::ProbeDue
            || self.standing.floor.pace(now_us) == Pace::ProbeDue
    }

    /// When its standing or its capacity changes by time alone.
    pub fn next_change_us(&self, share: Share, now_us: u64) -> u64 {
        let alive = self.seen_us.map(|seen| seen.saturating_add(ALIVE_US)).filter(|at| *at > now_us);
        let measured = self.measured.map(|m| {
            let steps = now_us.saturating_sub(m.since_us) / MEASURED_STEP_US;
            m.since_us.saturating_add((steps + 1) * MEASURED_STEP_US)
        });
        let midnight = (now_us / DAY_US + 1).saturating_mul(DAY_US);
        [
            alive,
            measured,
            self.standing.breaker.next_change_us(now_us),
            self.standing.floor.next_change_us(now_us),
            ramp::next_step_us(share.ramp_start_ppm, share.since_us, now_us),
        ]
        .into_iter()
        .flatten()
        .fold(midnight, u64::min)
    }

    /// It said that it was busy, with what it has from us in `inflight`.
    pub fn note_busy(&mut self, now_us: u64) {
        let jobs = self.inflight.saturating_sub(1);
        self.measured = Some(Measured { jobs, since_us: now_us });
    }

    /// Forgets a measurement that no longer limits anything.
    pub fn forget_measured(&mut self, now_us: u64) {
        let slots = self.spec.slots.min(self.advertised_slots);
        if self.measured.is_some_and(|m| m.jobs_at(now_us) >= slots) {
            self.measured = None;
        }
    }
}
