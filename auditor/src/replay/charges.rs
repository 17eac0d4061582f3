//! The charges of a replayed log, as rows to draw a sample from.

use super::captures::price;
use super::holds::Job;
use super::world::World;
use protocol::amount::Amount;
use protocol::event::job::UsageCaptured;
use protocol::id::Hash32;

/// One charge with all that is needed to look at it again.
#[derive(Clone, Debug)]
pub(crate) struct SampledCharge {
    pub(crate) leaf: u64,
    pub(crate) time_us: u64,
    pub(crate) event: UsageCaptured,
    pub(crate) model: String,
    pub(crate) weights: Hash32,
    /// The body's commitment, from the dispatch.
    pub(crate) body: Hash32,
    /// The commit that holds the job's hold.
    pub(crate) placed_commit: u64,
    /// The pinned price of the billed tokens.
    pub(crate) recomputed: Option<i128>,
}

impl World {
    /// Every charge that was not undone, by leaf. A charge in parts is one row, at the leaf of its last.
    pub(crate) fn charges(&self) -> Vec<SampledCharge> {
        let mut charges: Vec<SampledCharge> = self.jobs.values().filter_map(|job| self.charge(job)).collect();
        charges.sort_by_key(|charge| charge.leaf);
        charges
    }

    fn charge(&self, job: &Job) -> Option<SampledCharge> {
        let last = job.charges.last().filter(|_| job.is_charged())?;
        let sums = job.charged();
        let mut event = last.event.clone();
        // What a re-execution must give goes to where the last part ends, also when not all of it was billed.
        (event.input_units, event.output_units) = (sums.input_units, job.output_end);
        event.cost = Amount(sums.cost);
        let rate = self.rate(job.card_version, &job.model);
        let units = sums.input_units.saturating_add(sums.output_units);
        let attempt = job.attempts.get(event.attempt as usize);
        Some(SampledCharge {
            leaf: last.leaf,
            time_us: last.time_us,
            model: job.model.to_string(),
            weights: rate.map_or(Hash32([0; 32]), |rate| rate.weights),
            body: attempt.map_or(Hash32([0; 32]), |attempt| attempt.body),
            placed_commit: job.placed_commit,
            recomputed: rate.and_then(|rate| price(rate, units)),
            event,
        })
    }
}
