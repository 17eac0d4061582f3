//! The trial balance: every ledger account with its balance; debits equal credits per asset or the books are wrong.

use crate::fold::{Books, Counters};
use crate::names::Names;
use protocol::amount::Amount;
use protocol::event::account::{AccountKind, OpenedLedgerAccount};
use serde::Serialize;
use std::collections::BTreeMap;

/// One line; amounts in base units and, for people, as decimals.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TrialLine {
    /// Ledger account number.
    pub number: u32,
    /// Its name.
    pub account: String,
    /// What it counts.
    pub kind: AccountKind,
    /// Asset symbol.
    pub asset: String,
    /// Booked debits less credits, base units.
    pub balance: Amount,
    /// The same as a decimal.
    pub balance_decimal: String,
    /// Reserved debits less credits, base units.
    pub pending: Amount,
}

/// The whole statement, with its position.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TrialBalance {
    /// As of this many leaves.
    pub size: u64,
    /// One line an account, by number.
    pub lines: Vec<TrialLine>,
    /// Sum of all balances per asset symbol; zero, or a finding.
    pub sums: BTreeMap<String, Amount>,
}

impl TrialLine {
    /// The line of one account.
    pub(crate) fn of(names: &dyn Names, opened: &OpenedLedgerAccount, counters: &Counters) -> TrialLine {
        let asset = names.asset(opened.asset);
        let (symbol, scale) = asset.map_or(("?".to_owned(), 0), |a| (a.symbol, a.ledger_scale));
        let balance = counters.balance();
        TrialLine {
            number: opened.number.0,
            account: names.name(opened.number),
            kind: opened.kind,
            asset: symbol,
            balance,
            balance_decimal: balance.to_decimal_string(scale),
            pending: counters.pending(),
        }
    }
}

/// Reads it off the books.
pub fn trial_balance(books: &Books) -> TrialBalance {
    let mut sums: BTreeMap<String, Amount> = BTreeMap::new();
    let mut lines = Vec::new();
    for account in books.accounts() {
        let line = TrialLine::of(books, &account.opened, &account.counters);
        sums.entry(line.asset.clone()).or_default().0 += line.balance.0;
        lines.push(line);
    }
    TrialBalance { size: books.size(), lines, sums }
}
