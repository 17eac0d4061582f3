//! Statements: what happened to one owner's accounts, line by line, with the running balance. Booked legs only;
//! reservations are no movements.

use crate::fold::{Books, FoldError};
use crate::names::Names;
use crate::time::rfc3339;
use protocol::amount::Amount;
use protocol::event::account::AccountKind;
use protocol::event::{Event, LedgerAccount, Posting};
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
    /// The same for a person: `charge for a job`.
    pub text: &'static str,
    /// Which ledger account.
    pub account: String,
    /// Asset symbol.
    pub asset: String,
    /// For the owner: plus is more for them. Decimal.
    pub amount: String,
    /// Balance after it, the same way round.
    pub balance: String,
    /// Where the other side of the leg stands; of several, the largest.
    pub counter: String,
}

/// What a line is made of before it has names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinePart {
    /// The event.
    pub leaf: u64,
    /// Log time, microseconds.
    pub time_us: u64,
    /// Kind of event.
    pub kind: &'static str,
    /// Which ledger account.
    pub account: LedgerAccount,
    /// The leg: plus debit, minus credit.
    pub amount: Amount,
    /// Booked debits less credits after it.
    pub balance: Amount,
    /// The other side.
    pub counter: Option<LedgerAccount>,
}

impl LinePart {
    /// With names and decimals, from the owner's point of view.
    pub fn line(&self, names: &dyn Names) -> StatementLine {
        let opened = names.ledger_account(self.account);
        let asset = opened.as_ref().and_then(|opened| names.asset(opened.asset));
        let (symbol, scale) = asset.map_or(("?".to_owned(), 0), |a| (a.symbol, a.ledger_scale));
        let kind = opened.map_or(AccountKind::Receivable, |opened| opened.kind);
        StatementLine {
            leaf: self.leaf,
            time: rfc3339(self.time_us),
            kind: self.kind,
            text: phrase(self.kind),
            account: names.name(self.account),
            asset: symbol,
            amount: theirs(kind, self.amount).to_decimal_string(scale),
            balance: theirs(kind, self.balance).to_decimal_string(scale),
            counter: self.counter.map_or_else(String::new, |number| names.name(number)),
        }
    }
}

/// From the owner's side: a liability of ours is their credit, a receivable their debt; our own assets stay as they are.
pub fn theirs(kind: AccountKind, amount: Amount) -> Amount {
    if kind.is_debit_normal() && kind != AccountKind::Receivable { amount } else { -amount }
}

/// The account on the other side of a leg: the largest leg of the other sign in the same list, the first of equals.
pub fn counter_account(postings: &[Posting], posting: &Posting) -> Option<LedgerAccount> {
    let others = postings.iter().filter(|other| (other.amount.0 < 0) != (posting.amount.0 < 0));
    let largest = others.reduce(|best, other| {
        if other.amount.0.unsigned_abs() > best.amount.0.unsigned_abs() { other } else { best }
    });
    largest.map(|leg| leg.account)
}

/// A kind of event as a line of a statement says it.
pub fn phrase(kind: &str) -> &'static str {
    PHRASES.iter().find(|(name, _)| *name == kind).map_or("booking", |(_, text)| text)
}

/// Every kind that can have booked legs.
const PHRASES: &[(&str, &str)] = &[
    ("usage_captured", "charge for a job"),
    ("capture_reversed", "charge undone"),
    ("grant_issued", "credit granted"),
    ("grant_expired", "credit lapsed"),
    ("credit_moved", "credit moved"),
    ("earnings_taken", "earnings made spendable"),
    ("credit_line_set", "credit line changed"),
    ("credit_repaid", "credit line repaid"),
    ("deposit_confirmed", "deposit"),
    ("deposit_attributed", "deposit found its account"),
    ("deposit_reversed", "deposit vanished"),
    ("exit_finalised", "left the vault"),
    ("voucher_redeemed", "withdrawal"),
    ("hold_voided", "lapsed when a hold ended"),
    ("hold_expired", "lapsed when a hold ran out"),
    ("batch_closed", "went into a batch"),
    ("batch_confirmed", "batch paid on the chain"),
    ("batch_failed", "batch withdrawn"),
    ("payout_claimed", "payout claimed"),
];

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
        let before = self.lines.len();
        self.books.apply(event)?;
        // Several legs of one account: each line shows the balance after its own leg.
        let mut after: Vec<(LedgerAccount, i128)> = Vec::new();
        for posting in event.postings.iter().rev() {
            let Some(account) = self.books.account(posting.account) else { continue };
            if account.opened.owner != self.owner {
                continue;
            }
            let known = after.iter_mut().find(|(number, _)| *number == posting.account);
            let balance = match known {
                Some((_, balance)) => std::mem::replace(balance, *balance - posting.amount.0),
                None => {
                    let balance = account.counters.balance().0;
                    after.push((posting.account, balance - posting.amount.0));
                    balance
                }
            };
            let part = LinePart {
                leaf: event.header.leaf,
                time_us: event.header.time_us,
                kind: event.body.kind(),
                account: posting.account,
                amount: posting.amount,
                balance: Amount(balance),
                counter: counter_account(&event.postings, posting),
            };
            self.lines.push(part.line(&self.books));
        }
        self.lines[before..].reverse();
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
