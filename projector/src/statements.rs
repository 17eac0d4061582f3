//! Statements: what happened to one owner's accounts, line by line, with the running balance.

use crate::fold::{Books, FoldError};
use crate::time::rfc3339;
use protocol::amount::Amount;
use protocol::event::Event;
use protocol::id::AccountId;
use serde::Serialize;

/// One leg of one event.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct StatementLine {
    /// The event.
    pub leaf: u64,
    /// When, RFC 3339.
    pub time: String,
    /// What kind of event.
    pub kind: &'static str,
    /// Which ledger account.
    pub account: String,
    /// Asset symbol.
    pub asset: String,
    /// For the owner: plus is more for them. Decimal.
    pub amount: String,
    /// Balance after it, the same way round.
    pub balance: String,
}

/// Follows the log and notes the lines of one owner.
#[derive(Debug, Clone)]
pub struct Statement {
    owner: AccountId,
    books: Books,
    lines: Vec<StatementLine>,
}

impl Statement {
    /// An empty statement of an owner.
    pub fn of(owner: AccountId) -> Statement {
        Statement { owner, books: Books::new(), lines: Vec::new() }
    }

    /// Takes the next event in.
    pub fn apply(&mut self, event: &Event) -> Result<(), FoldError> {
        self.books.apply(event)?;
        for posting in &event.postings {
            let Some(account) = self.books.account(posting.account) else { continue };
            if account.opened.owner != self.owner {
                continue;
            }
            let asset = self.books.asset(account.opened.asset);
            let (symbol, scale) = asset.map_or(("?".to_owned(), 0), |a| (a.symbol.clone(), a.ledger_scale));
            // A liability of ours is the owner's credit: turn the sign for them.
            let theirs =
                |amount: Amount| if account.opened.kind.is_debit_normal() { amount } else { -amount };
            self.lines.push(StatementLine {
                leaf: event.header.leaf,
                time: rfc3339(event.header.time_us),
                kind: event.body.kind(),
                account: self.books.name(posting.account),
                asset: symbol,
                amount: theirs(posting.amount).to_decimal_string(scale),
                balance: theirs(account.counters.balance()).to_decimal_string(scale),
            });
        }
        Ok(())
    }

    /// The books behind it.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// The lines, oldest first.
    pub fn lines(&self) -> &[StatementLine] {
        &self.lines
    }
}
