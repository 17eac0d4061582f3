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

/// `2026-11-21`, in UTC.
pub fn date(us: u64) -> String {
    timestamp(us).to_zoned(TimeZone::UTC).date().to_string()
}

/// The day after, in UTC; the last day stays itself.
pub fn next_date(us: u64) -> String {
    let today = timestamp(us).to_zoned(TimeZone::UTC).date();
    today.tomorrow().unwrap_or(today).to_string()
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
        assert_eq!(quarter(1_790_000_000_000_001), "2026-Q3");
        assert_eq!(parse_rfc3339("2026-09-21T14:13:20.000001Z"), Some(1_790_000_000_000_001));
        assert_eq!(rfc3339(u64::MAX), rfc3339(u64::MAX - 1), "out of range stays in range");
    }
}
