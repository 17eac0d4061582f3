//! The breaker of one node: three failures within a minute park it for fifteen seconds, then a single probe decides.
//! Neutral ends (a cancel, a caller's mistake) move nothing. Time is an argument, microseconds.

/// Failures within [`FAILURE_WINDOW_US`] that park a node.
pub const FAILURES_MAX: usize = 3;
/// How far back failures count.
pub const FAILURE_WINDOW_US: u64 = 60_000_000;
/// How long a parked node gets nothing.
pub const PARK_US: u64 = 15_000_000;

/// Where a breaker stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Jobs flow.
    Closed,
    /// Nothing until the time given.
    Parked {
        /// Microseconds UTC.
        until_us: u64,
    },
    /// One job may go out, to see.
    ProbeDue,
    /// That job is out; nothing else until it ends.
    Probing,
}

/// State of one node's breaker.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    /// Failures that still count.
    failures_us: [u64; FAILURES_MAX],
    failure_count: usize,
    parked_until_us: Option<u64>,
    probing: bool,
}

impl Breaker {
    /// A job is given to the node: the probe, when one was due.
    pub fn note_dispatch(&mut self, now_us: u64) {
        if self.standing(now_us) == Standing::ProbeDue {
            self.probing = true;
        }
    }

    /// A job ended well: a probe lets the node fully back in.
    pub fn note_success(&mut self) {
        if self.probing {
            *self = Breaker::default();
        }
    }

    /// A job failed by the node's fault.
    pub fn note_failure(&mut self, now_us: u64) {
        if self.probing {
            self.park(now_us);
            return;
        }
        let mut kept = 0;
        for at in 0..self.failure_count {
            let failed_us = self.failures_us[at];
            if failed_us.saturating_add(FAILURE_WINDOW_US) > now_us {
                self.failures_us[kept] = failed_us;
                kept += 1;
            }
        }
        self.failures_us[kept] = now_us;
        self.failure_count = kept + 1;
        if self.failure_count >= FAILURES_MAX {
            self.park(now_us);
        }
    }

    /// A job ended in a way that says nothing about the node: a probe is due again.
    pub fn note_neutral(&mut self) {
        self.probing = false;
    }

    /// Where it stands at `now_us`.
    pub fn standing(&self, now_us: u64) -> Standing {
        match self.parked_until_us {
            None => Standing::Closed,
            Some(until_us) if now_us < until_us => Standing::Parked { until_us },
            Some(_) if self.probing => Standing::Probing,
            Some(_) => Standing::ProbeDue,
        }
    }

    /// When its standing changes by itself, if it does.
    pub fn next_change_us(&self, now_us: u64) -> Option<u64> {
        self.parked_until_us.filter(|until_us| *until_us > now_us)
    }

    fn park(&mut self, now_us: u64) {
        self.failure_count = 0;
        self.probing = false;
        self.parked_until_us = Some(now_us.saturating_add(PARK_US));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    #[test]
    fn three_failures_in_sixty_seconds_park_for_fifteen() {
        let mut breaker = Breaker::default();
        breaker.note_failure(0);
        breaker.note_failure(30 * S);
        assert_eq!(breaker.standing(30 * S), Standing::Closed);
        breaker.note_failure(60 * S - 1);
        assert_eq!(breaker.standing(60 * S), Standing::Parked { until_us: 75 * S - 1 });
        assert_eq!(breaker.standing(75 * S - 2), Standing::Parked { until_us: 75 * S - 1 });
        assert_eq!(breaker.standing(75 * S - 1), Standing::ProbeDue);
    }

    #[test]
    fn a_failure_sixty_seconds_old_no_longer_counts() {
        let mut breaker = Breaker::default();
        breaker.note_failure(0);
        breaker.note_failure(30 * S);
        breaker.note_failure(60 * S);
        assert_eq!(breaker.standing(60 * S), Standing::Closed);
    }

    #[test]
    fn one_probe_and_fully_back() {
        let mut breaker = parked();
        breaker.note_dispatch(16 * S);
        assert_eq!(breaker.standing(16 * S), Standing::Probing);
        breaker.note_success();
        assert_eq!(breaker.standing(16 * S), Standing::Closed);
        breaker.note_failure(17 * S);
        breaker.note_failure(17 * S);
        assert_eq!(breaker.standing(17 * S), Standing::Closed, "old failures are forgotten");
    }

    #[test]
    fn a_failed_probe_parks_again_and_a_neutral_one_asks_again() {
        let mut breaker = parked();
        breaker.note_dispatch(16 * S);
        breaker.note_neutral();
        assert_eq!(breaker.standing(16 * S), Standing::ProbeDue);
        breaker.note_dispatch(16 * S);
        breaker.note_failure(17 * S);
        assert_eq!(breaker.standing(17 * S), Standing::Parked { until_us: 32 * S });
    }

    #[test]
    fn success_outside_a_probe_does_not_wipe_failures() {
        let mut breaker = Breaker::default();
        breaker.note_failure(0);
        breaker.note_failure(1);
        breaker.note_success();
        breaker.note_failure(2);
        assert!(matches!(breaker.standing(3), Standing::Parked { .. }));
    }

    fn parked() -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES_MAX {
            breaker.note_failure(0);
        }
        breaker
    }
}
