//! Waiting a moment for those who were just answered: most ask again at once, and one commit for all of them costs less than
//! two in turns. It is given up for a while when nobody comes. Must not: wait while the log is busy, or with much to write.

use super::{Effect, Mode, Pipeline};

/// How long the first of those who wait is kept back, microseconds: an answer's way to its caller and the next question's
/// way back, with change to spare.
pub const GATHER_US: u64 = 150;
/// After misses in a row, at most two to this power occasions are let go.
const REST_POWER_MAX: u32 = 6;

/// One wait.
struct Wait {
    timer: u64,
    /// Requests that waited when it began.
    begun_with: usize,
    /// With so many it ends.
    enough: usize,
}

/// What is remembered of waits.
#[derive(Default)]
pub(super) struct Gathering {
    wait: Option<Wait>,
    misses: u32,
    rest: u32,
}

impl Gathering {
    pub(super) fn awaits(&self, timer: u64) -> bool {
        self.wait.as_ref().is_some_and(|wait| wait.timer == timer)
    }

    /// A commit may begin.
    pub(super) fn is_over(&self) -> bool {
        self.wait.is_none()
    }

    pub(super) fn end(&mut self) {
        self.wait = None;
    }

    /// Ends the wait when enough wait now.
    pub(super) fn look(&mut self, queued: usize) {
        if self.wait.as_ref().is_some_and(|wait| queued >= wait.enough) {
            (self.wait, self.misses) = (None, 0);
        }
    }

    /// The time is up.
    fn expire(&mut self, queued: usize) {
        let Some(wait) = self.wait.take() else { return };
        let (came, hoped) = (queued.saturating_sub(wait.begun_with), wait.enough - wait.begun_with);
        if came * 2 >= hoped {
            self.misses = 0;
            return;
        }
        self.misses = (self.misses + 1).min(REST_POWER_MAX);
        self.rest = 1 << self.misses;
    }
}

impl<T> Pipeline<T> {
    /// `answered` requests are about to be answered; few others wait: theirs may wait for them.
    pub(super) fn gather(&mut self, answered: usize, out: &mut Vec<Effect<T>>) {
        let few = self.queued > 0 && self.queued + answered < self.options.prepare_requests_min;
        let idle = self.mode == Mode::Active && self.prepared.is_none() && self.draft.is_empty();
        if self.options.gather_us == 0 || answered == 0 || !few || !idle || !self.gathering.is_over() {
            return;
        }
        if self.gathering.rest > 0 {
            self.gathering.rest -= 1;
            return;
        }
        let timer = self.next_id();
        self.gathering.wait = Some(Wait { timer, begun_with: self.queued, enough: self.queued + answered });
        out.push(Effect::Timer { timer, after_us: self.options.gather_us });
    }

    /// The moment is over.
    pub(super) fn gathered(&mut self, now_us: u64, out: &mut Vec<Effect<T>>) {
        self.gathering.expire(self.queued);
        self.pump(now_us, out);
    }
}
