//! The trial balance: every ledger account with its balance; debits equal credits per asset or the books are wrong.

use crate::fold::Books;
use protocol::amount::Amount;
use serde::Serialize;
use std::collections::BTreeMap;

/// One line; amounts in base units and, for people, as decimals.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TrialLine {
    /// Ledger account number.
    pub number: u32,
    /// Its name.
    pub account: String,
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

/// Reads it off the books.
pub fn trial_balance(books: &Books) -> TrialBalance {
    let mut sums: BTreeMap<String, Amount> = BTreeMap::new();
    let lines = books.accounts().iter().map(|account| {
        let asset = books.asset(account.opened.asset);
        let (symbol, scale) = asset.map_or(("?".to_owned(), 0), |a| (a.symbol.clone(), a.ledger_scale));
        let balance = account.counters.balance();
        sums.entry(symbol.clone()).or_default().0 += balance.0;
        TrialLine {
            number: account.opened.number.0,
            account: books.name(account.opened.number),
            asset: symbol,
            balance,
            balance_decimal: balance.to_decimal_string(scale),
            pending: account.counters.pending(),
        }
    });
    let lines = lines.collect();
    TrialBalance { size: books.size(), lines, sums }
}
