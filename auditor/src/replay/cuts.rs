//! Rules of continued jobs (`specs/postings.md`, 11): an attempt is paid from where it went on to where the next one did.

use super::holds::{Attempt, Job};
use super::judge::Judge;
use crate::checks::CheckKind;
use protocol::event::job::UsageCaptured;

/// What an attempt may still be paid for, in output units from the job's beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own {
    pub(crate) from: u64,
    until: Option<u64>,
}

impl Job {
    /// Nobody is paid twice for a unit, and nobody for what was delivered before its own beginning.
    pub(crate) fn own(&self, attempt: u32) -> Own {
        let cut = |number: Option<usize>| self.attempts.get(number?).map(|attempt| attempt.continues_at);
        let number = usize::try_from(attempt).ok();
        let from = cut(number).unwrap_or(0).max(self.output_end);
        Own { from, until: cut(number.and_then(|number| number.checked_add(1))) }
    }

    /// The earliest that a next attempt may go on.
    pub(crate) fn least_cut(&self) -> u64 {
        self.attempts
            .iter()
            .map(|attempt: &Attempt| attempt.continues_at)
            .max()
            .unwrap_or(0)
            .max(self.output_end)
    }
}

impl Own {
    /// The smaller count lies within what is the attempt's own. Gives how much of it there is to bill.
    pub(crate) fn check(self, judge: &mut Judge, event: &UsageCaptured) -> u64 {
        let counted = event.output_units_worker.min(event.output_units_gateway);
        let until = self.until.unwrap_or(u64::MAX);
        let words =
            format_args!("output counted from {} to {until}, where the next attempt went on", self.from);
        judge.require(CheckKind::Jobs, words, counted, || (self.from..=until).contains(&counted));
        counted.saturating_sub(self.from)
    }
}
