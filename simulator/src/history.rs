//! One history: events on virtual time, faults by the seed's own mix, writers, log, tail and clients; faults end, and then
//! everything must end well. Must not: know what the pipeline is made of.

mod faults;
mod world;

use crate::checker::Violation;
use crate::mutants::Mistake;
use world::World;

/// Virtual time after which no fault happens any more, microseconds.
pub const FAULTS_END_US: u64 = 3_000_000;
/// Virtual time by which everything must have come to an end, microseconds.
pub const HISTORY_US_MAX: u64 = 90_000_000;
/// Events of one history; a mistake that spins ends here.
pub const EVENTS_MAX: u64 = 40_000;

/// What one seed led to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct History {
    /// Its seed.
    pub seed: u64,
    /// Of everything that happened, in order: two runs of one seed have the same.
    pub digest: u64,
    /// Events on virtual time.
    pub events: u64,
    /// Commits in the log.
    pub commits: u64,
    /// Writers that began a term.
    pub terms: u64,
    /// Writers that were fenced.
    pub fenced: u64,
    /// Answers that left a writer.
    pub answers: u64,
    /// Log or tail rotted, and the writers stopped for it.
    pub halted: bool,
    /// The promise that was broken.
    pub violation: Option<Violation>,
}

/// Runs one seed, with a mistake or without.
pub fn run(seed: u64, mistake: Option<Mistake>) -> History {
    let mut world = World::new(seed, mistake);
    let violation = world.run().err();
    let world::Tally { events, terms, fenced } = world.tally;
    History {
        seed,
        digest: world.digest,
        events,
        commits: world.log.last(),
        terms,
        fenced,
        answers: world.checker.answers,
        halted: world.halted,
        violation,
    }
}
