//! An account's statement as a file: CSV, or one HTML page that prints. An operator's says, per quarter and asset, what its
//! jobs cost, what the platform kept, and what was paid out.

use super::period::corrections_of;
use super::{ExportError, Provenance, cell, provenance_lines};
use crate::fold::Books;
use crate::names::Names;
use crate::statements::{Statement, StatementLine};
use crate::time::{date, quarter};
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::{Event, EventBody};
use protocol::id::{AccountId, JobId, OperatorId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// What an operator's jobs came to in one quarter and asset; base units.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Quarter {
    /// Charges, less those undone in the quarter.
    pub captures: i64,
    /// What customers paid.
    pub gross: Amount,
    /// What the platform kept of it.
    pub fees: Amount,
    /// What the operator earned.
    pub earned: Amount,
    /// What was paid out to it.
    pub paid: Amount,
}

impl Quarter {
    fn add(&mut self, captures: i64, gross: Amount, fees: Amount, earned: Amount) {
        self.captures += captures;
        self.gross.0 += gross.0;
        self.fees.0 += fees.0;
        self.earned.0 += earned.0;
    }
}

/// A statement, ready to be written.
#[derive(Clone, Debug)]
pub struct AccountStatement<'a> {
    account: AccountId,
    statement: Statement,
    /// Lines before the file's period.
    before: usize,
    quarters: BTreeMap<(String, u32), Quarter>,
    payouts: Vec<(String, Amount, AssetId, String)>,
    corrections: Vec<String>,
    provenance: &'a Provenance,
}

impl<'a> AccountStatement<'a> {
    /// Folds the events.
    pub fn of(
        account: AccountId,
        events: &[Event],
        provenance: &'a Provenance,
    ) -> Result<AccountStatement<'a>, ExportError> {
        let mut statement = Statement::of(account);
        let mut operators: BTreeSet<OperatorId> = BTreeSet::new();
        let mut jobs: BTreeMap<JobId, AssetId> = BTreeMap::new();
        let mut known = false;
        let mut quarters: BTreeMap<(String, u32), Quarter> = BTreeMap::new();
        let mut payouts = Vec::new();
        let mut before = 0;
        for event in events {
            statement.apply(event)?;
            if provenance.period.as_ref().is_some_and(|period| event.header.time_us < period.from_us) {
                before = statement.lines().len();
            }
            let name = quarter(event.header.time_us);
            match &event.body {
                EventBody::AccountOpened(opened) => known |= opened.account == account,
                EventBody::OperatorRegistered(e) if e.account == account => {
                    operators.insert(e.operator);
                }
                EventBody::UsageCaptured(e) if operators.contains(&e.operator) => {
                    let Some(asset) = asset_of(statement.books(), event) else { continue };
                    jobs.insert(e.job, asset);
                    if !provenance.holds(event) {
                        continue;
                    }
                    let sums = quarters.entry((name, asset.0)).or_default();
                    sums.add(1, e.cost, e.platform_share, e.operator_share);
                }
                EventBody::CaptureReversed(e) if provenance.holds(event) => {
                    let Some(asset) = jobs.get(&e.job) else { continue };
                    let sums = quarters.entry((name, asset.0)).or_default();
                    sums.add(-1, -e.refunded, -e.platform_share, -e.operator_share);
                }
                EventBody::PayoutClaimed(e) if e.account == account && provenance.holds(event) => {
                    let Some(asset) = asset_of(statement.books(), event) else { continue };
                    quarters.entry((name, asset.0)).or_default().paid.0 += e.amount.0;
                    payouts.push((date(event.header.time_us), e.amount, asset, e.tx.to_string()));
                }
                _ => {}
            }
        }
        if !known {
            return Err(ExportError::UnknownAccount(account));
        }
        let corrections = corrections_of(account, statement.books(), events, provenance);
        Ok(AccountStatement { account, statement, before, quarters, payouts, corrections, provenance })
    }

    /// One row a booked leg; quarters and payouts of an operator stand in the lines before the header.
    pub fn csv(&self) -> String {
        let lines = self.lines();
        let mut extra = vec![format!("account: {}", self.account), format!("rows: {}", lines.len())];
        extra.extend(self.quarter_texts());
        extra.extend(self.payouts.iter().map(|(day, amount, asset, tx)| {
            format!("payout {day}: {} in transaction {tx}", self.books().money(*asset, *amount))
        }));
        extra.extend(self.totals());
        extra.extend(self.corrections.iter().cloned());
        let mut text =
            provenance_lines("#", ("statement", "+ is more for the account"), self.provenance, &extra);
        text.push_str("seq,ts,event_type,text,account,counter_account,asset,amount,balance\n");
        for line in lines {
            writeln!(
                text,
                "{},{},{},{},{},{},{},{},{}",
                line.leaf,
                line.time,
                line.kind,
                line.text,
                cell(&line.account),
                cell(&line.counter),
                line.asset,
                line.amount,
                line.balance
            )
            .expect("writing to a string");
        }
        text
    }

    /// One page without script or outside parts.
    pub fn html(&self) -> String {
        let title = format!("Statement of {}", self.account);
        let mut text = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title>\n<style>{STYLE}</style></head>\n<body><h1>{}</h1>\n",
            escape(&title),
            escape(&title)
        );
        let root =
            self.provenance.root.map_or_else(|| "no checkpoint of this size".to_owned(), |r| r.to_string());
        writeln!(
            text,
            "<p>Log {} as of size {}, root <code>{root}</code>. Plus is more for the account.</p>",
            escape(&self.provenance.origin),
            self.provenance.size
        )
        .expect("writing to a string");
        list(&mut text, "Balances", &self.totals());
        list(&mut text, "Earnings", &self.quarter_texts());
        let payouts: Vec<String> = self
            .payouts
            .iter()
            .map(|(day, amount, asset, tx)| format!("{day}: {} in {tx}", self.books().money(*asset, *amount)))
            .collect();
        list(&mut text, "Payouts", &payouts);
        text.push_str("<table><thead><tr><th>event</th><th>time</th><th>what</th><th>account</th><th>amount</th><th>balance</th><th>asset</th></tr></thead><tbody>\n");
        for line in self.lines() {
            row(&mut text, line);
        }
        text.push_str("</tbody></table></body></html>\n");
        text
    }

    /// Whose.
    pub fn account(&self) -> AccountId {
        self.account
    }

    /// The books at the end.
    pub fn books(&self) -> &Books {
        self.statement.books()
    }

    /// Its lines in the file's period, oldest first.
    pub fn lines(&self) -> &[StatementLine] {
        &self.statement.lines()[self.before..]
    }

    /// What an operator's jobs came to, by quarter and asset.
    pub fn quarters(&self) -> &BTreeMap<(String, u32), Quarter> {
        &self.quarters
    }

    /// Where the figures come from.
    pub fn provenance(&self) -> &Provenance {
        self.provenance
    }

    fn quarter_texts(&self) -> Vec<String> {
        let line = |((quarter, asset), sums): (&(String, u32), &Quarter)| {
            let money = |amount| self.books().money(AssetId(*asset), amount);
            format!(
                "{quarter}: {} charges, gross {}, platform fees {}, earned {}, paid out {}",
                sums.captures,
                money(sums.gross),
                money(sums.fees),
                money(sums.earned),
                money(sums.paid)
            )
        };
        self.quarters.iter().map(line).collect()
    }

    /// The balance of each account, by its name.
    fn totals(&self) -> Vec<String> {
        let accounts = self.books().of_owner(self.account);
        let line = |account: &crate::fold::BookAccount| {
            let balance = crate::statements::theirs(account.opened.kind, account.counters.balance());
            let money = self.books().money(account.opened.asset, balance);
            format!("balance {}: {money}", account.opened.kind.name())
        };
        accounts.map(line).collect()
    }
}

const STYLE: &str = "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}td,th{padding:.2em .6em;border-bottom:1px solid #ccc;text-align:left}td.n{text-align:right;font-variant-numeric:tabular-nums}code{overflow-wrap:anywhere}";

fn list(text: &mut String, title: &str, items: &[String]) {
    if items.is_empty() {
        return;
    }
    writeln!(text, "<h2>{}</h2><ul>", escape(title)).expect("writing to a string");
    for item in items {
        writeln!(text, "<li>{}</li>", escape(item)).expect("writing to a string");
    }
    text.push_str("</ul>\n");
}

fn row(text: &mut String, line: &StatementLine) {
    writeln!(
        text,
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
        line.leaf,
        escape(&line.time),
        escape(line.text),
        escape(&line.account),
        escape(&line.amount),
        escape(&line.balance),
        escape(&line.asset)
    )
    .expect("writing to a string");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The asset of an event's first leg.
fn asset_of(books: &Books, event: &Event) -> Option<AssetId> {
    let posting = event.postings.first()?;
    books.account(posting.account).map(|account| account.opened.asset)
}
