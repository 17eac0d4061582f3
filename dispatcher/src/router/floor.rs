//! The speed floor: five tokens a second, by what the gateway itself saw come. Above it all speeds are equal. A node below it
//! waits a minute, then one job decides. Integers; time is an argument.

/// Tokens a second that a node must sustain.
pub const FLOOR_TOKENS_PER_S: u64 = 5;
/// Shortest answer that says something about speed, tokens.
pub const SAMPLE_TOKENS_MIN: u64 = 16;
/// Answers before a node is judged.
pub const SAMPLES_MIN: usize = 3;
/// Answers that count, the newest.
const SAMPLES_MAX: usize = 8;
/// How long a node that was found too slow waits for its probe.
pub const WAIT_US: u64 = 60_000_000;

/// Where a node stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// Fast enough, or not known yet.
    Good,
    /// Too slow until the time given.
    Below {
        /// Microseconds UTC.
        until_us: u64,
    },
    /// One job may go out, to see.
    ProbeDue,
    /// That job is out.
    Probing,
}

/// The last answers of one node.
#[derive(Clone, Debug, Default)]
pub struct Floor {
    /// Tokens and microseconds, a ring.
    samples: [(u64, u64); SAMPLES_MAX],
    count: usize,
    below_until_us: Option<u64>,
    probing: bool,
}

impl Floor {
    /// A job is given to the node: the probe, when one was due.
    pub fn note_dispatch(&mut self, now_us: u64) {
        if self.pace(now_us) == Pace::ProbeDue {
            self.probing = true;
        }
    }

    /// An answer of so many tokens took so long from its first token to its last, as the gateway saw it. Answers of fewer
    /// than [`SAMPLE_TOKENS_MIN`] say nothing; after one that was a probe, another is due.
    pub fn note_answer(&mut self, tokens: u64, took_us: u64, now_us: u64) {
        if tokens < SAMPLE_TOKENS_MIN {
            self.probing = false;
            return;
        }
        if self.below_until_us.is_some() {
            if is_slow(tokens, took_us) {
                self.below_until_us = Some(now_us.saturating_add(WAIT_US));
                self.probing = false;
            } else if self.probing {
                *self = Floor::default();
            }
            return;
        }
        self.samples[self.count % SAMPLES_MAX] = (tokens, took_us);
        self.count += 1;
        let (tokens, took_us) = self.samples.iter().fold((0, 0), |sum, s| (sum.0 + s.0, sum.1 + s.1));
        if self.count >= SAMPLES_MIN && is_slow(tokens, took_us) {
            *self = Floor { below_until_us: Some(now_us.saturating_add(WAIT_US)), ..Floor::default() };
        }
    }

    /// A job ended without an answer that could be measured.
    pub fn note_nothing(&mut self) {
        self.probing = false;
    }

    /// Where it stands.
    pub fn pace(&self, now_us: u64) -> Pace {
        match self.below_until_us {
            None => Pace::Good,
            Some(until_us) if now_us < until_us => Pace::Below { until_us },
            Some(_) if self.probing => Pace::Probing,
            Some(_) => Pace::ProbeDue,
        }
    }

    /// When that changes by itself, if it does.
    pub fn next_change_us(&self, now_us: u64) -> Option<u64> {
        self.below_until_us.filter(|until_us| *until_us > now_us)
    }

    /// What it sustained over the answers that count, thousandths of a token a second; `None` while nothing is known.
    pub fn tokens_per_ks(&self) -> Option<u64> {
        let (tokens, took_us) = self.samples.iter().fold((0, 0), |sum, s| (sum.0 + s.0, sum.1 + s.1));
        (self.count > 0).then(|| tokens.saturating_mul(1_000_000_000) / took_us.max(1))
    }
}

/// The first token's own time is not in `took_us`, so one token less was made in it.
fn is_slow(tokens: u64, took_us: u64) -> bool {
    (tokens - 1).saturating_mul(1_000_000) < took_us.saturating_mul(FLOOR_TOKENS_PER_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    #[test]
    fn five_tokens_a_second_exactly_are_enough() {
        let mut floor = Floor::default();
        for _ in 0..SAMPLES_MIN {
            floor.note_answer(51, 10 * S, 0);
        }
        assert_eq!(floor.pace(0), Pace::Good);
        let mut floor = Floor::default();
        for _ in 0..SAMPLES_MIN {
            assert_eq!(floor.pace(0), Pace::Good, "one slow answer is no proof");
            floor.note_answer(50, 10 * S, 0);
        }
        assert_eq!(floor.pace(0), Pace::Below { until_us: 60 * S });
    }

    #[test]
    fn one_probe_and_fully_back() {
        let mut floor = slow();
        assert_eq!(floor.pace(60 * S), Pace::ProbeDue);
        floor.note_dispatch(60 * S);
        assert_eq!(floor.pace(60 * S), Pace::Probing);
        floor.note_answer(10, 60 * S, 61 * S);
        assert_eq!(floor.pace(61 * S), Pace::ProbeDue, "too short to say anything");
        floor.note_dispatch(61 * S);
        floor.note_answer(100, 10 * S, 71 * S);
        assert_eq!(floor.pace(71 * S), Pace::Good);
        floor.note_answer(20, 10 * S, 72 * S);
        floor.note_answer(20, 10 * S, 72 * S);
        assert_eq!(floor.pace(72 * S), Pace::Good, "the old answers are forgotten");
    }

    #[test]
    fn a_slow_probe_waits_another_minute() {
        let mut floor = slow();
        floor.note_dispatch(60 * S);
        floor.note_answer(20, 60 * S, 120 * S);
        assert_eq!(floor.pace(120 * S), Pace::Below { until_us: 180 * S });
    }

    #[test]
    fn a_fast_answer_that_was_no_probe_does_not_end_the_wait() {
        let mut floor = slow();
        floor.note_answer(100, S, 10 * S);
        assert_eq!(floor.pace(10 * S), Pace::Below { until_us: 60 * S });
    }

    fn slow() -> Floor {
        let mut floor = Floor::default();
        for _ in 0..SAMPLES_MIN {
            floor.note_answer(20, 60 * S, 0);
        }
        floor
    }
}
