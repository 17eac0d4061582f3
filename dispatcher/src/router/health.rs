//! Fourteen days of a node's ends, by day, as one weight for ties. Integers only. A newcomer is not starved: without
//! history it weighs as much as the best.

use serde::{Deserialize, Serialize};

/// Days that count.
pub const WINDOW_DAYS: u64 = 14;
const DAY_US: u64 = 86_400_000_000;
/// A weight of certainty, in millionths.
pub const WEIGHT_ONE: u64 = 1_000_000;

/// One day's ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Day {
    /// Days since 1970.
    pub number: u32,
    /// Good ends.
    pub good: u32,
    /// Bad ends.
    pub bad: u32,
}

/// Ends of one node's jobs.
#[derive(Clone, Debug, Default)]
pub struct Health {
    days: [Day; WINDOW_DAYS as usize],
}

impl Health {
    /// As it was recorded.
    pub fn of(days: &[Day]) -> Health {
        let mut health = Health::default();
        for day in days {
            let slot = &mut health.days[day.number as usize % WINDOW_DAYS as usize];
            if day.number >= slot.number {
                *slot = *day;
            }
        }
        health
    }

    /// For the record: the days on which anything ended.
    pub fn days(&self) -> Vec<Day> {
        self.days.iter().filter(|day| day.good + day.bad > 0).copied().collect()
    }

    /// A job ended well.
    pub fn note_good(&mut self, now_us: u64) {
        let day = self.day(now_us);
        day.good = day.good.saturating_add(1);
    }

    /// A job failed by the node's fault.
    pub fn note_bad(&mut self, now_us: u64) {
        let day = self.day(now_us);
        day.bad = day.bad.saturating_add(1);
    }

    /// Share of good ends in the window, in millionths; all of them when there were none.
    pub fn share_ppm(&self, now_us: u64) -> u64 {
        let today = now_us / DAY_US;
        let recent = self.days.iter().filter(|d| u64::from(d.number) + WINDOW_DAYS > today);
        let sum = |(good, bad), d: &Day| (good + u64::from(d.good), bad + u64::from(d.bad));
        let (good, bad) = recent.fold((0, 0), sum);
        // One imagined good end: a single failure of a newcomer does not weigh like a ruined record.
        (good + 1) * WEIGHT_ONE / (good + bad + 1)
    }

    /// Probability, in millionths, of being kept when drawn among equals: the fourth power of the share. Measured in
    /// simulation: a strict order by health starves newcomers, this does not.
    pub fn weight_ppm(&self, now_us: u64) -> u64 {
        let share = self.share_ppm(now_us);
        let square = share * share / WEIGHT_ONE;
        square * square / WEIGHT_ONE
    }

    fn day(&mut self, now_us: u64) -> &mut Day {
        let number = (now_us / DAY_US) as u32;
        let slot = &mut self.days[number as usize % WINDOW_DAYS as usize];
        if slot.number != number {
            *slot = Day { number, good: 0, bad: 0 };
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newcomers_weigh_like_the_best_and_failures_lower_it() {
        let mut health = Health::default();
        assert_eq!(health.weight_ppm(0), WEIGHT_ONE);
        health.note_bad(0);
        assert_eq!(health.share_ppm(0), 500_000);
        assert_eq!(health.weight_ppm(0), 62_500);
        for _ in 0..98 {
            health.note_good(0);
        }
        assert_eq!(health.share_ppm(0), 990_000);
    }

    #[test]
    fn a_day_leaves_the_window_after_fourteen() {
        let mut health = Health::default();
        health.note_bad(0);
        assert_eq!(health.share_ppm(13 * DAY_US), 500_000);
        assert_eq!(health.share_ppm(14 * DAY_US), WEIGHT_ONE);
        health.note_good(14 * DAY_US);
        assert_eq!(health.share_ppm(14 * DAY_US), WEIGHT_ONE, "the slot was reused");
    }
}
