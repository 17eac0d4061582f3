//! The books as an hledger journal: exact to every digit, declared accounts, commodities and payees, and a last entry that
//! asserts every balance, so that `hledger check` finds a missing or altered leg.

use super::{DEBIT_CREDIT, ExportError, Provenance, booked, fixed, provenance_lines, subjects};
use crate::fold::Books;
use crate::names::Names;
use crate::time::{date, rfc3339};
use protocol::amount::Amount;
use protocol::asset::Asset;
use protocol::event::account::AccountKind;
use protocol::event::{Event, LedgerAccount};
use std::fmt::Write;

/// The whole journal.
pub fn journal(events: &[Event], provenance: &Provenance) -> Result<String, ExportError> {
    let books = booked(events)?;
    let booked_count = events.iter().filter(|e| !e.postings.is_empty()).count();
    let extra = [format!("entries: {booked_count}")];
    let mut text = provenance_lines(";", ("hledger", DEBIT_CREDIT), provenance, &extra);
    text.push('\n');
    declarations(&mut text, &books);
    for event in events.iter().filter(|e| !e.postings.is_empty()) {
        entry(&mut text, &books, event);
    }
    assertions(&mut text, &books);
    Ok(text)
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    text.write_fmt(content).expect("writing to a string");
    text.push('\n');
}

fn declarations(text: &mut String, books: &Books) {
    for asset in books.assets() {
        line(text, format_args!("commodity {} {}", fixed(Amount(0), asset), symbol(asset)));
    }
    for account in books.accounts() {
        let name = name(books, account.opened.number);
        match class(account.opened.kind).1 {
            Some(letter) => line(text, format_args!("account {name}  ; type: {letter}")),
            None => line(text, format_args!("account {name}")),
        }
    }
    for payee in ["platform", "customer", "operator", "chain"] {
        line(text, format_args!("payee {payee}"));
    }
    text.push('\n');
}

fn entry(text: &mut String, books: &Books, event: &Event) {
    let header = &event.header;
    let kind = event.body.kind();
    let (job, batch) = subjects(event);
    let mut tags = format!("event: {}.{}, time: {}", header.shard, header.leaf, rfc3339(header.time_us));
    for (tag, value) in [("job", job), ("batch", batch)] {
        if !value.is_empty() {
            write!(tags, ", {tag}: {value}").expect("writing to a string");
        }
    }
    let note = kind.replace('_', " ");
    line(
        text,
        format_args!("{} * ({}) {} | {note}  ; {tags}", date(header.time_us), header.leaf, payee(kind)),
    );
    for posting in &event.postings {
        let Some(asset) = books.account(posting.account).and_then(|a| books.asset(a.opened.asset)) else {
            continue;
        };
        let amount = fixed(posting.amount, asset);
        line(text, format_args!("    {}  {amount} {}", name(books, posting.account), symbol(asset)));
    }
    text.push('\n');
}

fn assertions(text: &mut String, books: &Books) {
    if books.accounts().is_empty() {
        return;
    }
    line(
        text,
        format_args!("{} * (end) platform | balances as of size {}", date(books.time_us()), books.size()),
    );
    for account in books.accounts() {
        let Some(asset) = books.asset(account.opened.asset) else { continue };
        let (zero, balance) = (fixed(Amount(0), asset), fixed(account.counters.balance(), asset));
        let (name, symbol) = (name(books, account.opened.number), symbol(asset));
        line(text, format_args!("    {name}  {zero} {symbol} = {balance} {symbol}"));
    }
}

fn symbol(asset: &Asset) -> String {
    if asset.symbol.bytes().all(|b| b.is_ascii_alphabetic()) {
        asset.symbol.clone()
    } else {
        format!("\"{}\"", asset.symbol)
    }
}

/// The hledger account: its class first, then our kind, asset and owner.
fn name(books: &Books, number: LedgerAccount) -> String {
    let class = books.account(number).map_or("unknown", |account| class(account.opened.kind).0);
    format!("{class}:{}", books.name(number))
}

/// The top of the name, and hledger's type; memorandum accounts have none, so that no report counts them.
pub(super) fn class(kind: AccountKind) -> (&'static str, Option<char>) {
    use AccountKind::*;
    match kind {
        VaultAsset | PotAsset | Receivable | PlatformTreasury => ("assets", Some('A')),
        PlatformRevenue | Breakage => ("revenues", Some('R')),
        PromoExpense => ("expenses", Some('X')),
        CustomerDeposited | CustomerPackage | CustomerEarned | CustomerAllotment | CustomerPromo
        | OperatorAccrued | OperatorSettling | OperatorPayable | UnattributedDeposits | HoldsPending => {
            ("liabilities", Some('L'))
        }
        CustomerCredit | CreditLines => ("memorandum", None),
    }
}

fn payee(kind: &str) -> &'static str {
    match kind {
        "deposit_confirmed" | "deposit_attributed" | "deposit_reversed" | "exit_finalised"
        | "voucher_redeemed" => "chain",
        "usage_captured" | "capture_reversed" | "grant_issued" | "credit_moved" | "credit_line_set"
        | "credit_repaid" => "customer",
        "batch_closed" | "batch_confirmed" | "batch_failed" | "payout_claimed" | "earnings_taken" => {
            "operator"
        }
        _ => "platform",
    }
}
