//! Log time for people: microseconds UTC to RFC 3339 and dates, the same on every machine, locale and time zone.

use jiff::Timestamp;
use jiff::tz::TimeZone;

fn timestamp(us: u64) -> Timestamp {
    // The log's clock starts in 1970; the far end of jiff's range is the year 9999.
    i64::try_from(us).ok().and_then(|us| Timestamp::from_microsecond(us).ok()).unwrap_or(Timestamp::MAX)
}

/// `2026-11-21T10:31:00.000001Z`, always six digits.
pub fn rfc3339(us: u64) -> String {
    format!("{:.6}", timestamp(us))
}

/// From here on times are all the same; 9999-12-30.
const LAST_SECOND: u64 = 253_402_207_200;

/// Writes times one after the other: events of a log come by the thousand a second, so the date and the second are kept.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    second: Option<u64>,
    text: String,
}

impl Clock {
    /// The same text as [`rfc3339`].
    pub fn rfc3339(&mut self, us: u64) -> &str {
        let second = us / 1_000_000;
        // The far end of the range has a fraction of its own.
        if second >= LAST_SECOND {
            self.second = None;
        }
        if self.second != Some(second) {
            self.text = rfc3339(us);
            self.second = (second < LAST_SECOND).then_some(second);
            return &self.text;
        }
        // Behind the point stand six digits and the Z.
        let point = self.text.len().saturating_sub(7);
        if self.text.as_bytes().get(point.wrapping_sub(1)) == Some(&b'.') {
            self.text.truncate(point);
            let _ = std::fmt::Write::write_fmt(&mut self.text, format_args!("{:06}Z", us % 1_000_000));
        }
        &self.text
    }
}

/// `2026-11-21`, in UTC.
pub fn date(us: u64) -> String {
    timestamp(us).to_zoned(TimeZone::UTC).date().to_string()
}

/// The day after, in UTC; the last day stays itself.
pub fn next_date(us: u64) -> String {
    let today = timestamp(us).to_zoned(TimeZone::UTC).date();
    today.tomorrow().unwrap_or(today).to_string()
}

/// `2026-11`, in UTC.
pub fn month(us: u64) -> String {
    let day = timestamp(us).to_zoned(TimeZone::UTC).date();
    format!("{:04}-{:02}", day.year(), day.month())
}

/// `2026-Q4`, in UTC.
pub fn quarter(us: u64) -> String {
    let day = timestamp(us).to_zoned(TimeZone::UTC).date();
    format!("{:04}-Q{}", day.year(), (day.month() + 2) / 3)
}

/// Reads RFC 3339 into microseconds; `None` when it is none or before 1970.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    u64::try_from(text.parse::<Timestamp>().ok()?.as_microsecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_fixed() {
        assert_eq!(rfc3339(1_790_000_000_000_001), "2026-09-21T14:13:20.000001Z");
        assert_eq!(date(1_790_000_000_000_001), "2026-09-21");
        assert_eq!(next_date(1_790_000_000_000_001), "2026-09-22");
        let mut clock = Clock::default();
        for us in
            [0, 1, 999_999, 1_000_000, 1_790_000_000_000_001, 1_790_000_000_500_000, u64::MAX, u64::MAX - 1]
        {
            assert_eq!(clock.rfc3339(us), rfc3339(us), "{us}");
        }
        assert_eq!(quarter(1_790_000_000_000_001), "2026-Q3");
        assert_eq!(parse_rfc3339("2026-09-21T14:13:20.000001Z"), Some(1_790_000_000_000_001));
        assert_eq!(rfc3339(u64::MAX), rfc3339(u64::MAX - 1), "out of range stays in range");
    }
}
