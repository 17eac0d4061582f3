//! Ledger accounts and their four counters; the legs that an event's rule gives, compared with the legs it carries.

use super::judge::Judge;
use crate::checks::CheckKind;
use protocol::asset::AssetId;
use protocol::event::account::{AccountKind, OpenedLedgerAccount};
use protocol::event::{Event, LedgerAccount, Posting};
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
    booked: BTreeMap<BookKey, i128>,
    pending: BTreeMap<BookKey, i128>,
}

impl Legs {
    pub(crate) fn debit(&mut self, key: BookKey, amount: i128) {
        let sum = self.booked.entry(key).or_default();
        *sum = sum.saturating_add(amount);
    }

    pub(crate) fn credit(&mut self, key: BookKey, amount: i128) {
        self.debit(key, amount.saturating_neg());
    }

    /// Reserves `amount` of a customer's account against the reservations' own.
    pub(crate) fn reserve(&mut self, key: BookKey, amount: i128) {
        let other = BookKey::system(AccountKind::HoldsPending, key.asset);
        for (key, amount) in [(key, amount), (other, amount.saturating_neg())] {
            let sum = self.pending.entry(key).or_default();
            *sum = sum.saturating_add(amount);
        }
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
        let sides =
            [("booked", &event.postings, &expected.booked), ("pending", &event.pending, &expected.pending)];
        for (what, legs, expected) in sides {
            let mut left: BTreeMap<BookKey, i128> = expected.clone();
            for Posting { account: LedgerAccount(number), amount } in legs {
                let Some(row) = self.rows.get(*number as usize) else { continue };
                let sum = left.entry(row.key).or_default();
                *sum = sum.saturating_sub(amount.0);
            }
            for (key, missing) in left.into_iter().filter(|(_, missing)| *missing != 0) {
                let should = expected.get(&key).copied().unwrap_or(0);
                let message = format!("the {what} legs on {key} are not what the event's rule gives");
                judge.fail(CheckKind::Legs, should, should.saturating_sub(missing), message);
            }
        }
    }
}
