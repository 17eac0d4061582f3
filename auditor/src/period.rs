//! Periods of books: a year, a quarter, a month, a day, all UTC.

use crate::error::AuditError;

const DAY_US: u64 = 86_400 * 1_000_000;

/// From its first microsecond up to the one after its last, UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Period {
    /// First microsecond.
    pub from_us: u64,
    /// The one after the last.
    pub to_us: u64,
}

impl std::str::FromStr for Period {
    type Err = AuditError;

    /// `2026`, `2026-Q4`, `2026-10` or `2026-10-31`.
    fn from_str(text: &str) -> Result<Period, AuditError> {
        parse(text).ok_or_else(|| AuditError::Usage {
            what: "period",
            expected: "a year, quarter, month or day such as 2026, 2026-Q4, 2026-10, 2026-10-31",
            given: text.to_owned(),
        })
    }
}

fn parse(text: &str) -> Option<Period> {
    let digits = |text: &str, count: usize| {
        (text.len() == count && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
    };
    let mut fields = text.splitn(3, '-');
    let year: u64 = digits(fields.next()?, 4).filter(|year| (1970..=9998).contains(year))?;
    let (month, day) = (fields.next(), fields.next());
    let next = |year: u64, month: u64| (year + month / 12, month % 12 + 1);
    let (from, to) = match (month, day) {
        (None, _) => ((year, 1, 1), (year + 1, 1, 1)),
        (Some(quarter), None) if quarter.starts_with('Q') => {
            let first: u64 = digits(&quarter[1..], 1).filter(|n| (1..=4).contains(n))? * 3 - 2;
            let (to_year, to_month) = next(year, first + 2);
            ((year, first, 1), (to_year, to_month, 1))
        }
        (Some(month), day) => {
            let month: u64 = digits(month, 2).filter(|month| (1..=12).contains(month))?;
            let (to_year, to_month) = next(year, month);
            let Some(day) = day else { return Some(between((year, month, 1), (to_year, to_month, 1))) };
            let day: u64 = digits(day, 2).filter(|day| *day >= 1)?;
            let from_us = days(year, month, day) * DAY_US;
            let is_in_month = from_us < days(to_year, to_month, 1) * DAY_US;
            return is_in_month.then_some(Period { from_us, to_us: from_us + DAY_US });
        }
    };
    Some(between(from, to))
}

fn between(from: (u64, u64, u64), to: (u64, u64, u64)) -> Period {
    Period { from_us: days(from.0, from.1, from.2) * DAY_US, to_us: days(to.0, to.1, to.2) * DAY_US }
}

/// Days from 1970-01-01, in the Gregorian calendar: years begin in March, so that the leap day is the last.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a number of days from 1970-01-01: [`days`] the other way round.
pub(crate) fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_are_each_other_s_inverse() {
        for day in (0..200_000).step_by(7) {
            let (year, month, of_month) = civil(day);
            assert_eq!(days(year, month, of_month), day, "{year}-{month}-{of_month}");
        }
        assert_eq!((civil(0), civil(19_782)), ((1970, 1, 1), (2024, 2, 29)));
    }

    #[test]
    fn periods_begin_and_end_where_calendars_say() {
        let seconds = |text: &str| {
            let period: Period = text.parse().unwrap();
            (period.from_us / 1_000_000, period.to_us / 1_000_000)
        };
        // From `date -u -d ... +%s`.
        assert_eq!(seconds("1970"), (0, 31_536_000));
        assert_eq!(seconds("2024-02"), (1_706_745_600, 1_709_251_200));
        assert_eq!(seconds("2026-12"), (1_796_083_200, 1_798_761_600));
        assert_eq!(seconds("2026-Q4"), (1_790_812_800, 1_798_761_600));
        assert_eq!(seconds("2024-02-29"), (1_709_164_800, 1_709_251_200));
        assert_eq!(seconds("2000-03-01").0, 951_868_800);
        for wrong in
            ["26", "2026-13", "2026-2", "2025-02-29", "2026-Q5", "2026-10-00", "", "2026-10-1x", "2026-é"]
        {
            assert!(wrong.parse::<Period>().is_err(), "{wrong}");
        }
    }
}
