//! Who waits for a slot of one model, and whose turn it is: the lane first, then the account that had least, then who came
//! first. What an account had is counted in tokens (an output token as two), reserved when its turn comes and corrected when
//! its job ends; one that comes back after a while begins where the least served of the others are, so that nobody saves up.
//! Pure: time is an argument.

use super::lanes::{LANES, Lane};
use protocol::id::AccountId;
use std::collections::HashMap;

/// Requests of a lane that may wait for a model, by [`Lane`]'s order.
pub const WAITING_MAX: [usize; LANES] = [64, 256, 256];
/// After so long a request goes before every lane: priority must not starve anybody.
pub const STARVED_US: u64 = 5_000_000;
/// What an output token counts beside an input token.
pub const OUTPUT_WEIGHT: u64 = 2;
/// Bounds of what a refused request is told to wait, seconds.
pub const RETRY_AFTER_S: (u64, u64) = (2, 30);
/// Accounts whose figures are kept.
const ACCOUNTS_MAX: usize = 16_384;
/// Turns are counted over this long, for the estimate of a wait.
const RATE_US: u64 = 10_000_000;

/// A place in the line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket(u64);

/// A request that wants a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// Its lane.
    pub lane: Lane,
    /// Whose.
    pub account: AccountId,
    /// Prompt tokens.
    pub input_units: u64,
    /// Bound on output tokens.
    pub output_units_max: u64,
}

/// Why a request may not even wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LineRefusal {
    /// When to come again, seconds: as long as the line takes at its present speed.
    pub retry_after_s: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    ticket: Ticket,
    waiting: Waiting,
    since_us: u64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Line {
    entries: Vec<Entry>,
    served: HashMap<AccountId, u64>,
    /// What the account of the last turn had had by then.
    last_served: u64,
    tickets: u64,
    rate: Rate,
}

impl Line {
    /// Joins the line.
    ///
    /// # Errors
    /// [`LineRefusal`] when the lane's line is full.
    pub fn enter(&mut self, waiting: Waiting, now_us: u64) -> Result<Ticket, LineRefusal> {
        let lane = self.entries.iter().filter(|e| e.waiting.lane == waiting.lane).count();
        if lane >= WAITING_MAX[waiting.lane.rank()] {
            return Err(LineRefusal { retry_after_s: self.retry_after_s(now_us) });
        }
        self.lift(waiting.account);
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.entries.push(Entry { ticket, waiting, since_us: now_us });
        Ok(ticket)
    }

    /// Whose turn it is; `None` when nobody waits.
    pub fn first(&self, now_us: u64) -> Option<Ticket> {
        let key = |e: &&Entry| {
            let starved = now_us.saturating_sub(e.since_us) >= STARVED_US;
            let rank = if starved { LANES } else { e.waiting.lane.rank() };
            let had = self.served.get(&e.waiting.account).copied().unwrap_or(0);
            (std::cmp::Reverse(rank), had, e.ticket)
        };
        self.entries.iter().min_by_key(key).map(|e| e.ticket)
    }

    /// Whether nobody stands before this one: nobody waits, or it is its turn.
    pub fn is_free_for(&self, ticket: Option<Ticket>, now_us: u64) -> bool {
        match (self.first(now_us), ticket) {
            (None, _) => true,
            (first, Some(_)) => first == ticket,
            (Some(_), None) => false,
        }
    }

    /// Leaves without a turn.
    pub fn leave(&mut self, ticket: Ticket) {
        self.entries.retain(|e| e.ticket != ticket);
    }

    /// Its turn came, from the line or without having waited: what it may use at most counts as had.
    pub fn serve(&mut self, ticket: Option<Ticket>, waiting: Waiting, now_us: u64) {
        match ticket {
            Some(ticket) => self.leave(ticket),
            None => self.lift(waiting.account),
        }
        let had = self.served.entry(waiting.account).or_default();
        self.last_served = self.last_served.max(*had);
        *had += waiting.input_units + OUTPUT_WEIGHT * waiting.output_units_max;
        self.rate.note(now_us);
        self.forget();
    }

    /// The job ended with so many output tokens of those that were reserved.
    pub fn settle(&mut self, account: AccountId, output_units_max: u64, output_units: u64) {
        if let Some(had) = self.served.get_mut(&account) {
            *had = had.saturating_sub(OUTPUT_WEIGHT * output_units_max.saturating_sub(output_units));
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How long the line takes at the speed of the last seconds, within [`RETRY_AFTER_S`].
    pub fn retry_after_s(&self, now_us: u64) -> u64 {
        let turns = self.rate.turns(now_us).max(1);
        let wait = (self.entries.len() as u64 * (RATE_US / 1_000_000)).div_ceil(turns);
        wait.clamp(RETRY_AFTER_S.0, RETRY_AFTER_S.1)
    }

    /// An account that does not wait already begins where the others are.
    fn lift(&mut self, account: AccountId) {
        if self.entries.iter().any(|e| e.waiting.account == account) {
            return;
        }
        let had = |e: &Entry| self.served.get(&e.waiting.account).copied().unwrap_or(0);
        let least = self.entries.iter().map(had).min().unwrap_or(self.last_served);
        let had = self.served.entry(account).or_default();
        *had = (*had).max(least);
    }

    /// Figures that the next [`Line::lift`] would raise anyway need not be kept.
    fn forget(&mut self) {
        if self.served.len() > ACCOUNTS_MAX {
            let waits = |account: &AccountId| self.entries.iter().any(|e| e.waiting.account == *account);
            let last = self.last_served;
            self.served.retain(|account, had| *had > last || waits(account));
        }
        if self.served.len() > ACCOUNTS_MAX {
            self.served.clear();
        }
    }
}

/// Turns in the last [`RATE_US`], by two windows of which the older counts by the part of it that is still in.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    window: u64,
    now: u64,
    before: u64,
}

impl Rate {
    fn note(&mut self, now_us: u64) {
        *self = self.at(now_us);
        self.now += 1;
    }

    fn turns(&self, now_us: u64) -> u64 {
        let rate = self.at(now_us);
        let left = RATE_US - now_us % RATE_US;
        rate.now + rate.before * left / RATE_US
    }

    fn at(&self, now_us: u64) -> Rate {
        let window = now_us / RATE_US;
        match window.saturating_sub(self.window) {
            0 => *self,
            1 => Rate { window, now: 0, before: self.now },
            _ => Rate { window, now: 0, before: 0 },
        }
    }
}

#[cfg(test)]
mod tests;
