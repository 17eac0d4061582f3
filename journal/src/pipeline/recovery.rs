//! The commit in flight until its fate is known. A publish whose outcome is unknown is read back and sent again: the same
//! bytes, the same id, the same expected sequence. Absent proves nothing; only reading our own bytes does.
//! Must not: send anything under a new number.

use super::batch::{Sealed, Waiting};
use super::input::{Effect, Position, Published, ReadBack, StopReason};
use super::mutant::Mutant;
use super::{Mode, Pipeline};
use protocol::commit::Commit;

/// A publish without an answer is ambiguous after this, microseconds.
pub const PUBLISH_WAIT_US: u64 = 3_000_000;
/// A read without an answer is asked again after this, microseconds.
pub const READ_WAIT_US: u64 = 3_000_000;
/// First pause between two tries, microseconds; it doubles.
const PAUSE_US_MIN: u64 = 20_000;
/// Longest pause between two tries, microseconds.
const PAUSE_US_MAX: u64 = 1_000_000;
/// Reads that may find a sequence absent although the stream is longer, before we call it a hole.
const HOLE_READS_MAX: u32 = 8;

/// The one commit in flight.
pub(super) struct Flight<T> {
    pub(super) sealed: Sealed<T>,
    /// An acknowledgement of this or a later attempt is ours.
    first_attempt: u64,
    fate: Fate,
    tries: u32,
    holes: u32,
}

/// What we wait for; the number is the attempt's or timer's id, anything else is stale.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Sent(u64),
    Asked(u64),
    Pausing(u64, Next),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Send,
    Ask,
}

impl<T> Flight<T> {
    /// Whether a timer still matters.
    pub(super) fn awaits(&self, timer: u64) -> bool {
        let (Fate::Sent(id) | Fate::Asked(id) | Fate::Pausing(id, _)) = self.fate;
        id == timer
    }
}

impl<T> Pipeline<T> {
    pub(super) fn launch(&mut self, sealed: Sealed<T>, out: &mut Vec<Effect<T>>) {
        assert!(self.flight.is_none(), "one commit in flight: the expected sequence fences no more than one");
        let first_attempt = self.ids + 1;
        self.flight =
            Some(Flight { sealed, first_attempt, fate: Fate::Sent(first_attempt), tries: 0, holes: 0 });
        self.send(out);
    }

    fn send(&mut self, out: &mut Vec<Effect<T>>) {
        let attempt = self.next_id();
        let Some(flight) = &mut self.flight else { return };
        flight.fate = Fate::Sent(attempt);
        let Sealed { position, bytes, .. } = &flight.sealed;
        let (position, bytes) = (*position, bytes.clone());
        out.push(Effect::Publish { attempt, position, bytes: bytes.clone() });
        out.push(Effect::Timer { timer: attempt, after_us: PUBLISH_WAIT_US });
        if self.is(Mutant::TailInParallel) {
            out.push(Effect::TailAppend { position, bytes });
        }
        if self.is(Mutant::ReplyBeforeAck) {
            self.reply_now(out);
        }
    }

    /// Only for a mutant: what waits for the commit in flight leaves.
    fn reply_now(&mut self, out: &mut Vec<Effect<T>>) {
        let Some(flight) = &mut self.flight else { return };
        let position = flight.sealed.position;
        out.extend(std::mem::take(&mut flight.sealed.waiting).into_iter().map(|w| w.leave(&position)));
    }

    fn ask(&mut self, out: &mut Vec<Effect<T>>) {
        let attempt = self.next_id();
        let Some(flight) = &mut self.flight else { return };
        flight.fate = Fate::Asked(attempt);
        out.push(Effect::ReadBack { attempt, number: flight.sealed.position.commit });
        out.push(Effect::Timer { timer: attempt, after_us: READ_WAIT_US });
    }

    /// The first try goes on at once, later ones after a growing pause.
    fn again(&mut self, next: Next, out: &mut Vec<Effect<T>>) {
        let timer = self.next_id();
        let Some(flight) = &mut self.flight else { return };
        flight.tries += 1;
        if flight.tries == 1 {
            return match next {
                Next::Send => self.send(out),
                Next::Ask => self.ask(out),
            };
        }
        let doublings = (flight.tries - 2).min(16);
        flight.fate = Fate::Pausing(timer, next);
        out.push(Effect::Timer { timer, after_us: (PAUSE_US_MIN << doublings).min(PAUSE_US_MAX) });
    }

    pub(super) fn published(
        &mut self,
        now_us: u64,
        attempt: u64,
        result: Published,
        out: &mut Vec<Effect<T>>,
    ) {
        let Some(flight) = &self.flight else { return };
        let number = flight.sealed.position.commit;
        let counts = self.is(Mutant::StaleAckCounts);
        match result {
            Published::Stored { .. } if counts => self.landed(now_us, out),
            Published::Stored { sequence } if sequence == number && attempt >= flight.first_attempt => {
                self.landed(now_us, out);
            }
            Published::Stored { sequence } => {
                if flight.fate == Fate::Sent(attempt) {
                    let why = format!("commit {number} was stored as sequence {sequence}; reading back");
                    out.push(Effect::Warn(why));
                    self.ask(out);
                }
            }
            Published::Ambiguous { .. } if self.is(Mutant::RetryUnderNewNumber) => {
                self.renumber(number + 1, out)
            }
            Published::Ambiguous { reason } => {
                if flight.fate == Fate::Sent(attempt) {
                    out.push(Effect::Warn(format!(
                        "commit {number}: outcome unknown ({reason}); reading back"
                    )));
                    self.ask(out);
                }
            }
        }
    }

    pub(super) fn read_back(
        &mut self,
        now_us: u64,
        attempt: u64,
        result: ReadBack,
        out: &mut Vec<Effect<T>>,
    ) {
        let reuses = self.is(Mutant::ReuseSpeculativeState);
        let gives_up = self.is(Mutant::AbsentIsNotCommitted);
        let goes_on = self.is(Mutant::GoOnAtLowerSequence);
        let Some(flight) = &mut self.flight else { return };
        if flight.fate != Fate::Asked(attempt) {
            return;
        }
        let Position { commit: number, hash: ours, .. } = flight.sealed.position;
        match result {
            ReadBack::Found(bytes) if bytes == flight.sealed.bytes => self.landed(now_us, out),
            ReadBack::Found(_) if reuses => self.forget_flight(now_us, out),
            ReadBack::Found(bytes) => {
                let found = Commit::hash(&bytes);
                self.stop(StopReason::Fenced { number, found, ours }, out);
            }
            ReadBack::Absent { last_sequence } if goes_on && last_sequence < number - 1 => {
                self.renumber(last_sequence + 1, out);
            }
            // Everything below the one in flight was acknowledged.
            ReadBack::Absent { last_sequence } if last_sequence < number - 1 => {
                let reason = StopReason::Missing { acknowledged: number - 1, last: last_sequence };
                self.stop(reason, out);
            }
            ReadBack::Absent { .. } if gives_up => self.forget_flight(now_us, out),
            ReadBack::Absent { last_sequence } if last_sequence < number => self.again(Next::Send, out),
            ReadBack::Absent { last_sequence } => {
                flight.holes += 1;
                if flight.holes < HOLE_READS_MAX {
                    return self.again(Next::Ask, out);
                }
                let why = format!(
                    "the stream ends at {last_sequence} but has no message {number}; do not write to it: \
                     `counterfoil restore` rebuilds it from the archive"
                );
                self.stop(StopReason::Broken(why), out);
            }
            ReadBack::Failed { .. } => self.again(Next::Ask, out),
        }
    }

    pub(super) fn timed_out(&mut self, now_us: u64, timer: u64, out: &mut Vec<Effect<T>>) {
        if self.tail_pause == Some(timer) {
            self.tail_pause = None;
            for sealed in &self.settling {
                self.tail_append(sealed, out);
            }
            return;
        }
        if self.gathering.awaits(timer) {
            return self.gathered(now_us, out);
        }
        let Some(flight) = &self.flight else { return };
        match flight.fate {
            Fate::Sent(attempt) if attempt == timer => {
                let reason = "no answer in time".to_owned();
                self.published(now_us, attempt, Published::Ambiguous { reason }, out);
            }
            Fate::Asked(attempt) if attempt == timer => self.again(Next::Ask, out),
            Fate::Pausing(id, Next::Send) if id == timer => self.send(out),
            Fate::Pausing(id, Next::Ask) if id == timer => self.ask(out),
            Fate::Sent(_) | Fate::Asked(_) | Fate::Pausing(..) => {}
        }
    }

    /// The commit stands in the log: into the tail; what is ready goes out first, because the log takes longest.
    fn landed(&mut self, now_us: u64, out: &mut Vec<Effect<T>>) {
        let Some(mut flight) = self.flight.take() else { return };
        let Sealed { position, bytes, .. } = &flight.sealed;
        let append = Effect::TailAppend { position: *position, bytes: bytes.clone() };
        if self.is(Mutant::ReplyBeforeTail) {
            let Sealed { position, waiting, .. } = &mut flight.sealed;
            out.extend(std::mem::take(waiting).into_iter().map(|waiting| waiting.leave(position)));
        }
        let answered = flight.sealed.waiting.iter().map(Waiting::weight).sum();
        self.settling.push_back(flight.sealed);
        self.gather(answered, out);
        self.pump(now_us, out);
        if !matches!(self.mode, Mode::Stopped(_)) {
            out.push(append);
        }
    }

    /// Only for mutants: the same bytes under another number.
    fn renumber(&mut self, number: u64, out: &mut Vec<Effect<T>>) {
        if let Some(flight) = &mut self.flight {
            flight.sealed.position.commit = number;
        }
        self.send(out);
    }

    /// Only for mutants: as if the commit in flight had never been.
    fn forget_flight(&mut self, now_us: u64, out: &mut Vec<Effect<T>>) {
        let Some(flight) = self.flight.take() else { return };
        out.extend(flight.sealed.waiting.into_iter().map(|w| w.leave_unsent(&StopReason::Closed)));
        self.pump(now_us, out);
    }

    /// The watchdog: what was acknowledged must still be there, and be the same.
    pub(super) fn watched(&mut self, position: Position, result: ReadBack, out: &mut Vec<Effect<T>>) {
        if matches!(self.mode, Mode::Stopped(_)) || position.commit == 0 {
            return;
        }
        match result {
            ReadBack::Found(bytes) => {
                let (number, found, expected) = (position.commit, Commit::hash(&bytes), position.hash);
                if found != expected {
                    self.stop(StopReason::Altered { number, found, expected }, out);
                }
            }
            ReadBack::Absent { last_sequence } => {
                let reason = StopReason::Missing { acknowledged: position.commit, last: last_sequence };
                self.stop(reason, out);
            }
            ReadBack::Failed { .. } => {}
        }
    }
}
