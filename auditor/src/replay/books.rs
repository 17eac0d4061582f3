//! Ledger accounts and their four counters; the legs that an event's rule gives, compared with the legs it carries.

use super::judge::Judge;
use crate::checks::CheckKind;
use protocol::asset::AssetId;
use protocol::event::account::{AccountKind, OpenedLedgerAccount};
use protocol::event::{Event, Posting};
use protocol::id::AccountId;
use std::collections::BTreeMap;

/// What makes a ledger account one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct BookKey {
    pub(crate) owner: AccountId,
    pub(crate) kind: AccountKind,
    pub(crate) asset: AssetId,
}

impl BookKey {
    pub(crate) fn of(owner: AccountId, kind: AccountKind, asset: AssetId) -> BookKey {
        BookKey { owner, kind, asset }
    }

    pub(crate) fn system(kind: AccountKind, asset: AssetId) -> BookKey {
        BookKey { owner: AccountId::SYSTEM, kind, asset }
    }
}

impl std::fmt::Display for BookKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.owner == AccountId::SYSTEM {
            write!(f, "{} of the network (asset {})", self.kind.name(), self.asset.0)
        } else {
            write!(f, "{} of {} (asset {})", self.kind.name(), self.owner, self.asset.0)
        }
    }
}

/// The legs that a rule gives for an event, summed per ledger account; positive debits.
#[derive(Default, Debug)]
pub(crate) struct Legs {
    booked: Vec<(BookKey, i128)>,
    pending: Vec<(BookKey, i128)>,
    /// Both legs must be there, one by one, even when they are on one ledger account.
    pair: Option<(BookKey, BookKey, i128)>,
}

fn add(sums: &mut Vec<(BookKey, i128)>, key: BookKey, amount: i128) {
    // An event has a handful of legs: looking along them is faster than any map.
    match sums.iter_mut().find(|(known, _)| *known == key) {
        Some((_, sum)) => *sum = sum.saturating_add(amount),
        None => sums.push((key, amount)),
    }
}

impl Legs {
    pub(crate) fn debit(&mut self, key: BookKey, amount: i128) {
        add(&mut self.booked, key, amount);
    }

    pub(crate) fn credit(&mut self, key: BookKey, amount: i128) {
        self.debit(key, amount.saturating_neg());
    }

    /// A debit and a credit that are legs of their own even on one ledger account; the event has no others.
    pub(crate) fn pair(&mut self, from: BookKey, to: BookKey, amount: i128) {
        self.debit(from, amount);
        self.credit(to, amount);
        self.pair = Some((from, to, amount));
    }

    /// Reserves `amount` of a customer's account against the reservations' own.
    pub(crate) fn reserve(&mut self, key: BookKey, amount: i128) {
        add(&mut self.pending, key, amount);
        add(
            &mut self.pending,
            BookKey::system(AccountKind::HoldsPending, key.asset),
            amount.saturating_neg(),
        );
    }

    pub(crate) fn release(&mut self, key: BookKey, amount: i128) {
        self.reserve(key, amount.saturating_neg());
    }
}

/// One ledger account. Counters only grow.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) key: BookKey,
    pub(crate) debits: i128,
    pub(crate) credits: i128,
    pub(crate) debits_pending: i128,
    pub(crate) credits_pending: i128,
}

impl Row {
    /// Booked credits less debits, less what is reserved.
    fn available(&self) -> i128 {
        let booked = self.credits.saturating_sub(self.debits);
        booked.saturating_sub(self.debits_pending.saturating_sub(self.credits_pending))
    }

    fn has_floor(&self) -> bool {
        // What somebody owns, or what was reserved; the platform's own results may go either way.
        !matches!(
            self.key.kind,
            AccountKind::VaultAsset
                | AccountKind::PotAsset
                | AccountKind::Receivable
                | AccountKind::PlatformRevenue
                | AccountKind::Breakage
                | AccountKind::PromoExpense
                | AccountKind::PlatformTreasury
                | AccountKind::CreditLines
        )
    }
}

/// Every ledger account by its number.
#[derive(Default, Debug)]
pub(crate) struct Books {
    pub(crate) rows: Vec<Row>,
    numbers: BTreeMap<BookKey, u32>,
}

impl Books {
    pub(crate) fn open(&mut self, judge: &mut Judge, opened: &OpenedLedgerAccount) {
        let expected = self.rows.len() as u32;
        judge.equal(
            CheckKind::Numbering,
            "ledger accounts are numbered without gaps",
            expected,
            opened.number.0,
        );
        let key = BookKey::of(opened.owner, opened.kind, opened.asset);
        if self.numbers.insert(key, expected).is_some() {
            judge.fail(CheckKind::Numbering, "one ledger account", key, "a ledger account is opened twice");
        }
        self.rows.push(Row { key, debits: 0, credits: 0, debits_pending: 0, credits_pending: 0 });
    }

    /// Checks an event's legs by themselves, then counts them: zero sums, known accounts, floors.
    pub(crate) fn book(&mut self, judge: &mut Judge, event: &Event) {
        for (what, legs) in [("booked", &event.postings), ("pending", &event.pending)] {
            self.check_sums(judge, what, legs);
            for Posting { account, amount } in legs {
                let Some(row) = self.rows.get_mut(account.0 as usize) else { continue };
                let counter = match (what == "booked", amount.0 >= 0) {
                    (true, true) => &mut row.debits,
                    (true, false) => &mut row.credits,
                    (false, true) => &mut row.debits_pending,
                    (false, false) => &mut row.credits_pending,
                };
                *counter = counter.saturating_add(amount.0.saturating_abs());
            }
        }
        for Posting { account, .. } in &event.postings {
            let kind = self.rows.get(account.0 as usize).map(|row| row.key.kind);
            if kind == Some(AccountKind::HoldsPending) {
                judge.fail(CheckKind::Legs, "no booked leg", account.0, "reservations are never booked");
            }
        }
        for Posting { account, .. } in event.postings.iter().chain(&event.pending) {
            let Some(row) = self.rows.get(account.0 as usize) else { continue };
            judge.examine(CheckKind::Floors);
            if row.has_floor() && row.available() < 0 {
                let message = format!("{} would own less than nothing", row.key);
                judge.fail(CheckKind::Floors, "at least 0", row.available(), message);
            }
        }
    }

    fn check_sums(&self, judge: &mut Judge, what: &str, legs: &[Posting]) {
        judge.examine(CheckKind::Balanced);
        let Some(first) = legs.first().and_then(|leg| self.rows.get(leg.account.0 as usize)) else {
            return self.check_sums_apart(judge, what, legs);
        };
        // Nearly always one asset.
        let asset = first.key.asset;
        let mut sum = 0i128;
        for Posting { account, amount } in legs {
            match self.rows.get(account.0 as usize) {
                Some(row) if row.key.asset == asset => sum = sum.saturating_add(amount.0),
                _ => return self.check_sums_apart(judge, what, legs),
            }
        }
        if sum != 0 {
            let message = format!("{what} legs in asset {} do not balance", asset.0);
            judge.fail(CheckKind::Balanced, 0, sum, message);
        }
    }

    fn check_sums_apart(&self, judge: &mut Judge, what: &str, legs: &[Posting]) {
        let mut sums: BTreeMap<AssetId, i128> = BTreeMap::new();
        for Posting { account, amount } in legs {
            let Some(row) = self.rows.get(account.0 as usize) else {
                judge.fail(
                    CheckKind::Balanced,
                    "an opened ledger account",
                    account.0,
                    "a leg on an unknown account",
                );
                continue;
            };
            let sum = sums.entry(row.key.asset).or_default();
            *sum = sum.saturating_add(amount.0);
        }
        for (asset, sum) in sums {
            if sum != 0 {
                let message = format!("{what} legs in asset {} do not balance", asset.0);
                judge.fail(CheckKind::Balanced, 0, sum, message);
            }
        }
    }

    /// Compares an event's legs with those of its rule, account by account.
    pub(crate) fn compare(&self, judge: &mut Judge, event: &Event, expected: &Legs) {
        judge.examine(CheckKind::Legs);
        self.compare_side(judge, "booked", &event.postings, &expected.booked);
        self.compare_side(judge, "pending", &event.pending, &expected.pending);
        if let Some((from, to, amount)) = expected.pair {
            let key =
                |leg: &Posting| self.rows.get(leg.account.0 as usize).map(|row| (row.key, leg.amount.0));
            let found: Vec<_> = event.postings.iter().filter_map(key).collect();
            let wanted = [(from, amount), (to, amount.saturating_neg())];
            if found.len() != 2 || !wanted.iter().all(|leg| found.contains(leg)) {
                let message = format!("a debit on {from} and a credit on {to}, each a leg of its own");
                judge.fail(CheckKind::Legs, amount, format!("{} legs", found.len()), message);
            }
        }
    }

    fn compare_side(&self, judge: &mut Judge, what: &str, legs: &[Posting], expected: &[(BookKey, i128)]) {
        let sum_of = |key: BookKey| {
            let on_key =
                legs.iter().filter(|leg| self.rows.get(leg.account.0 as usize).is_some_and(|r| r.key == key));
            on_key.map(|leg| leg.amount.0).fold(0, i128::saturating_add)
        };
        let mut wrong = |key: BookKey, should: i128, is: i128| {
            let message = format!("the {what} legs on {key} are not what the event's rule gives");
            judge.fail(CheckKind::Legs, should, is, message);
        };
        for (key, should) in expected {
            let is = sum_of(*key);
            if is != *should {
                wrong(*key, *should, is);
            }
        }
        for (at, leg) in legs.iter().enumerate() {
            let Some(row) = self.rows.get(leg.account.0 as usize) else { continue };
            let key = row.key;
            let known = expected.iter().any(|(expected, _)| *expected == key);
            let named = legs[..at].iter().any(|earlier| earlier.account == leg.account);
            let is = if known || named { 0 } else { sum_of(key) };
            if is != 0 {
                wrong(key, 0, is);
            }
        }
    }
}
