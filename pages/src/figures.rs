//! Amounts, counts and times as people read them. An amount is never rounded: zeros at its end go, digits never do. The
//! balance beside a text is cut to five decimals, downwards. Must not: compute money.

use projector::time::rfc3339;

/// Between groups of three digits: narrow, does not break.
const GROUP: char = '\u{202f}';
/// Decimals of a balance beside a text.
const BALANCE_DECIMALS: usize = 5;

/// `1 234.5`: exact, without zeros at its end, at least two decimals.
pub(crate) fn exact(decimal: &str) -> String {
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    let fraction = fraction.trim_end_matches('0');
    format!("{}.{fraction:0<2}", grouped(whole))
}

/// The same cut to five decimals: never more than there is.
pub(crate) fn cut(decimal: &str) -> String {
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    let kept = &fraction[..fraction.len().min(BALANCE_DECIMALS)];
    exact(&format!("{whole}.{kept}"))
}

/// `1 234`
pub(crate) fn count(number: u64) -> String {
    grouped(&number.to_string())
}

fn grouped(digits: &str) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |rest| ("-", rest));
    let mut text = String::from(sign);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(GROUP);
        }
        text.push(digit);
    }
    text
}

/// `2026-11-21 19:46:08 UTC`
pub(crate) fn utc(us: u64) -> String {
    let text = rfc3339(us);
    let (date, time) = text.split_once('T').unwrap_or((&text, ""));
    format!("{date} {} UTC", time.get(..8).unwrap_or(time))
}

/// `4 h 12 min`, from now.
pub(crate) fn distance(from_us: u64, to_us: u64) -> String {
    let minutes = to_us.saturating_sub(from_us) / 60_000_000;
    match (minutes / 1_440, minutes / 60 % 24, minutes % 60) {
        (0, 0, 0) => "less than a minute".to_owned(),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (1, hours, _) => format!("1 day {hours} h"),
        (days, _, _) => format!("{days} days"),
    }
}

/// A long id in two ends: `acct_01h4…x7q2`.
pub(crate) fn short(id: &str) -> String {
    let count = id.chars().count();
    if count <= 16 {
        return id.to_owned();
    }
    let head: String = id.chars().take(10).collect();
    let tail: String = id.chars().skip(count - 4).collect();
    format!("{head}…{tail}")
}

/// Microseconds UTC by this machine's clock.
pub(crate) fn now_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_and_balances_never_too_high() {
        for (given, shown) in [
            ("0.000148000", "0.000148"),
            ("12.400000000", "12.40"),
            ("3", "3.00"),
            ("-1234567.5", "-1\u{202f}234\u{202f}567.50"),
        ] {
            assert_eq!(exact(given), shown);
        }
        assert_eq!(cut("0.499999999"), "0.49999", "cut, not rounded");
        assert_eq!(cut("1"), "1.00");
        assert_eq!(count(1_284_031), "1\u{202f}284\u{202f}031");
    }

    #[test]
    fn times_and_distances() {
        assert_eq!(utc(1_790_000_000_000_001), "2026-09-21 14:13:20 UTC");
        let minute = 60_000_000;
        assert_eq!(distance(0, 252 * minute), "4 h 12 min");
        assert_eq!(distance(0, 30), "less than a minute");
        assert_eq!(distance(5, 0), "less than a minute", "what is over is not negative");
        assert_eq!(distance(0, 1_500 * minute), "1 day 1 h");
    }

    #[test]
    fn ids_keep_both_ends() {
        assert_eq!(short("acct_01h4abcdefghjkmnpqrstvx7q2"), "acct_01h4a…x7q2");
        assert_eq!(short("gw0"), "gw0");
    }
}
