//! What books are worth in one currency, for ledgers of finance that know no tokens: rates that the caller names, one
//! journal a month with a line a kind of account and asset, and a rounding line, so that every journal sums to zero.

use super::hledger::class;
use super::legs::Legs;
use super::{ExportError, Provenance};
use crate::time::{date, month};
use protocol::amount::Amount;
use protocol::asset::{Asset, AssetId};
use protocol::event::Event;
use protocol::event::account::AccountKind;
use std::collections::BTreeMap;

/// Digits of a rate behind the point.
pub const RATE_SCALE: u8 = 12;
/// Digits of the currency behind the point.
pub const MINOR_SCALE: u8 = 2;

/// What one of each asset is worth in the currency of the books.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rates {
    /// The currency, such as `EUR`.
    pub currency: String,
    /// By symbol; 1e-12 of the currency.
    pub by_asset: BTreeMap<String, Amount>,
}

impl Rates {
    /// An amount in hundredths of the currency; halves go away from zero.
    pub fn minor(&self, asset: &Asset, amount: Amount) -> Result<i128, ExportError> {
        let no_rate = || ExportError::NoRate { asset: asset.symbol.clone() };
        let rate = self.by_asset.get(&asset.symbol).ok_or_else(no_rate)?;
        let too_large =
            || ExportError::format("rates")(format!("{} {} times its rate", amount.0, asset.symbol));
        let product = amount.0.checked_mul(rate.0).ok_or_else(too_large)?;
        let digits = u32::from(asset.ledger_scale) + u32::from(RATE_SCALE - MINOR_SCALE);
        let unit = 10_i128.checked_pow(digits).ok_or_else(too_large)?;
        let half = if product < 0 { -unit / 2 } else { unit / 2 };
        Ok(product.checked_add(half).ok_or_else(too_large)? / unit)
    }
}

/// Where a line goes in finance's own chart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Line {
    /// The books' accounts of one kind and asset.
    Kind(AccountKind, String),
    /// What rounding to hundredths left.
    Rounding,
}

/// A month's journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Journal {
    /// `2026-10`.
    pub month: String,
    /// The day it is booked on: the last one with an event in it.
    pub time_us: u64,
    /// Hundredths of the currency, + debit; they sum to zero.
    pub lines: Vec<(Line, i128)>,
}

/// Base units by kind of account and asset.
type Sums = BTreeMap<(AccountKind, u32), i128>;

/// One journal a month of the file's period.
pub fn journals(
    events: &[Event],
    provenance: &Provenance,
    rates: &Rates,
) -> Result<Vec<Journal>, ExportError> {
    let legs = Legs::of(events, provenance)?;
    let mut months: BTreeMap<String, (u64, Sums)> = BTreeMap::new();
    for event in legs.events() {
        let of_month = months.entry(month(event.header.time_us)).or_default();
        of_month.0 = event.header.time_us;
        for posting in &event.postings {
            let Some(account) = legs.books().account(posting.account) else { continue };
            // Notes are no claim and no debt.
            if class(account.opened.kind).1.is_none() {
                continue;
            }
            *of_month.1.entry((account.opened.kind, account.opened.asset.0)).or_default() += posting.amount.0;
        }
    }
    let mut journals = Vec::new();
    for (month, (time_us, sums)) in months {
        let mut lines = Vec::new();
        let mut left = 0;
        for ((kind, asset), sum) in sums {
            let Some(asset) = legs.books().asset(AssetId(asset)) else { continue };
            let minor = rates.minor(asset, Amount(sum))?;
            left += minor;
            if minor != 0 {
                lines.push((Line::Kind(kind, asset.symbol.clone()), minor));
            }
        }
        if left != 0 {
            lines.push((Line::Rounding, -left));
        }
        if !lines.is_empty() {
            journals.push(Journal { month, time_us, lines });
        }
    }
    Ok(journals)
}

impl Journal {
    /// Year, month and day as texts.
    pub fn day(&self) -> (String, String, String) {
        let day = date(self.time_us);
        let mut fields = day.split('-').map(str::to_owned);
        let mut next = || fields.next().unwrap_or_default();
        (next(), next(), next())
    }
}

/// Hundredths as a decimal with both digits.
pub fn two_digits(minor: i128) -> String {
    let sign = if minor < 0 { "-" } else { "" };
    let minor = minor.unsigned_abs();
    format!("{sign}{}.{:02}", minor / 100, minor % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hundredths_round_half_away_from_zero() {
        let asset = Asset { id: AssetId(0), symbol: "X".into(), ledger_scale: 3, chain_scale: None };
        let rate = Amount(500_000_000_000);
        let rates = Rates { currency: "EUR".into(), by_asset: [("X".to_owned(), rate)].into() };
        for (amount, minor) in [(1_000, 50), (10, 1), (9, 0), (-10, -1), (-9, 0), (29, 1), (30, 2)] {
            assert_eq!(rates.minor(&asset, Amount(amount)).unwrap(), minor, "{amount}");
        }
        assert!(rates.minor(&asset, Amount(i128::MAX)).is_err(), "never a wrong figure");
        assert_eq!((two_digits(-5), two_digits(123_456)), ("-0.05".to_owned(), "1234.56".to_owned()));
    }
}
