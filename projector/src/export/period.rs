//! Periods of files: a year, quarter, month or day, UTC. A file of a period depends on the log up to the period's end and on
//! nothing later, so a closed period is exported to the same bytes for ever; what corrects it later is listed by the period
//! in which it happened.

use crate::export::Provenance;
use crate::fold::Books;
use crate::time::date;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, ToSpan};
use protocol::event::{Event, EventBody, Posting};
use protocol::id::{AccountId, JobId};
use std::collections::BTreeMap;

/// From its first microsecond up to the one after its last, UTC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Period {
    /// As it was written: `2026-10`.
    pub name: String,
    /// First microsecond.
    pub from_us: u64,
    /// The one after the last.
    pub to_us: u64,
    /// Whether the log had an event at or after the end: then nothing can be added any more.
    pub is_closed: bool,
}

/// Not a period.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no period: a year, quarter, month or day such as 2026, 2026-Q4, 2026-10, 2026-10-31")]
pub struct NoPeriod(String);

impl std::str::FromStr for Period {
    type Err = NoPeriod;

    fn from_str(text: &str) -> Result<Period, NoPeriod> {
        parse(text).ok_or_else(|| NoPeriod(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Period> {
    let digits = |text: &str, count: usize| -> Option<i16> {
        (text.len() == count && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
    };
    let mut fields = text.splitn(3, '-');
    let year = digits(fields.next()?, 4).filter(|year| (1970..9998).contains(year))?;
    let (month, day) = (fields.next(), fields.next());
    let (first, length): (Date, Span) = match (month, day) {
        (None, _) => (Date::new(year, 1, 1).ok()?, 1.year()),
        (Some(quarter), None) if quarter.starts_with('Q') => {
            let quarter = digits(&quarter[1..], 1).filter(|n| (1..=4).contains(n))?;
            (Date::new(year, i8::try_from(quarter * 3 - 2).ok()?, 1).ok()?, 3.months())
        }
        (Some(month), None) => (Date::new(year, i8::try_from(digits(month, 2)?).ok()?, 1).ok()?, 1.month()),
        (Some(month), Some(day)) => {
            let (month, day) = (digits(month, 2)?, digits(day, 2)?);
            (Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()?, 1.day())
        }
    };
    let us = |date: Date| -> Option<u64> {
        u64::try_from(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_microsecond()).ok()
    };
    let (from_us, to_us) = (us(first)?, us(first.checked_add(length).ok()?)?);
    Some(Period { name: text.to_owned(), from_us, to_us, is_closed: false })
}

impl Period {
    /// Whether a log time lies in it.
    pub fn holds(&self, time_us: u64) -> bool {
        (self.from_us..self.to_us).contains(&time_us)
    }

    /// The last day, `2026-10-31`.
    pub fn last_day(&self) -> String {
        date(self.to_us - 1)
    }

    /// Leaves the events before the end, and notes whether there were later ones: call it before anything is computed.
    pub fn close_on(&mut self, events: &mut Vec<Event>) {
        let within = events.partition_point(|event| event.header.time_us < self.to_us);
        self.is_closed = within < events.len();
        events.truncate(within);
    }
}

/// What happened to an account in the period and corrects an earlier one, as lines for people.
pub fn corrections_of(
    account: AccountId,
    books: &Books,
    events: &[Event],
    provenance: &Provenance,
) -> Vec<String> {
    let concerns = |event: &Event| {
        let owner = |leg: &Posting| books.account(leg.account).map(|known| known.opened.owner);
        event.postings.iter().any(|leg| owner(leg) == Some(account))
    };
    listed(events, provenance, concerns)
}

/// What happened in the period and corrects an earlier one, as lines for people.
pub fn corrections(events: &[Event], provenance: &Provenance) -> Vec<String> {
    listed(events, provenance, |_| true)
}

fn listed(events: &[Event], provenance: &Provenance, concerns: impl Fn(&Event) -> bool) -> Vec<String> {
    let Some(period) = &provenance.period else { return Vec::new() };
    let mut charged: BTreeMap<JobId, (u64, u64)> = BTreeMap::new();
    let mut deposits = BTreeMap::new();
    let mut closed = BTreeMap::new();
    let mut found = Vec::new();
    for event in events {
        let here = (event.header.leaf, event.header.time_us);
        let corrected = match &event.body {
            EventBody::UsageCaptured(e) => {
                charged.insert(e.job, here);
                None
            }
            EventBody::DepositConfirmed(e) => {
                deposits.insert(e.key, here);
                None
            }
            EventBody::BatchClosed(e) => {
                closed.insert(e.batch, here);
                None
            }
            EventBody::CaptureReversed(e) => charged.get(&e.job),
            EventBody::DepositReversed(e) => deposits.get(&e.key),
            EventBody::BatchFailed(e) => closed.get(&e.batch),
            _ => None,
        };
        if let Some((leaf, time_us)) = corrected
            && *time_us < period.from_us
            && period.holds(event.header.time_us)
            && concerns(event)
        {
            let kind = event.body.kind().replace('_', " ");
            found.push(format!(
                "correction: event {}, {kind}, of event {leaf} of {}",
                here.0,
                date(*time_us)
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_begin_and_end_where_calendars_say() {
        let seconds = |text: &str| {
            let period: Period = text.parse().unwrap();
            (period.from_us / 1_000_000, period.to_us / 1_000_000)
        };
        // From `date -u -d ... +%s`.
        assert_eq!(seconds("2024-02"), (1_706_745_600, 1_709_251_200));
        assert_eq!(seconds("2026-12"), (1_796_083_200, 1_798_761_600));
        assert_eq!(seconds("2026-Q4"), (1_790_812_800, 1_798_761_600));
        assert_eq!(seconds("2024-02-29"), (1_709_164_800, 1_709_251_200));
        assert_eq!("2024-02".parse::<Period>().unwrap().last_day(), "2024-02-29");
        for wrong in ["26", "2026-13", "2026-2", "2025-02-29", "2026-Q5", "2026-10-00", "", "2026-10-1x"] {
            assert!(wrong.parse::<Period>().is_err(), "{wrong}");
        }
    }
}
