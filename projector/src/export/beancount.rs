//! The books for Beancount: a summary a day by default, every event when asked. Beancount rounds numbers above 28 digits
//! and lets a plain `balance` be one unit off, so longer figures are refused and every assertion says `~ 0`.

use super::{DEBIT_CREDIT, ExportError, Provenance, booked, fixed, provenance_lines, subjects};
use crate::fold::Books;
use crate::time::{date, next_date};
use protocol::amount::Amount;
use protocol::asset::Asset;
use protocol::event::account::AccountKind;
use protocol::event::{Event, LedgerAccount};
use protocol::id::AccountId;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Digits that Beancount keeps.
pub const DIGITS_MAX: usize = 28;

/// How much of the log is in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detail {
    /// One entry a day and asset: what moved between accounts.
    Daily,
    /// One entry an event, with links to jobs and batches.
    Full,
}

/// The whole file.
pub fn ledger(events: &[Event], provenance: &Provenance, detail: Detail) -> Result<String, ExportError> {
    let books = booked(events)?;
    let booked_events: Vec<&Event> = events.iter().filter(|event| !event.postings.is_empty()).collect();
    check_digits(&books, &booked_events)?;
    let detail_text = match detail {
        Detail::Daily => "daily summaries",
        Detail::Full => "every event",
    };
    let extra = [format!("events with bookings: {}", booked_events.len()), format!("detail: {detail_text}")];
    let mut text = provenance_lines(";", ("beancount", DEBIT_CREDIT), provenance, &extra);
    let begin = events.first().map_or_else(|| date(0), |event| date(event.header.time_us));
    head(&mut text, &books, &begin);
    match detail {
        Detail::Daily => daily(&mut text, &books, &booked_events),
        Detail::Full => booked_events.iter().for_each(|event| entry(&mut text, &books, event)),
    }
    assertions(&mut text, &books);
    Ok(text)
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    text.write_fmt(content).expect("writing to a string");
    text.push('\n');
}

fn head(text: &mut String, books: &Books, begin: &str) {
    line(text, format_args!("option \"title\" \"{}\"", books.origin().replace('"', "'")));
    line(text, format_args!("option \"inferred_tolerance_default\" \"*:0\""));
    line(text, format_args!("plugin \"beancount.plugins.check_commodity\"\n"));
    for asset in books.assets() {
        line(
            text,
            format_args!("{begin} commodity {}\n  precision: {}", currency(asset), asset.ledger_scale),
        );
    }
    for account in books.accounts() {
        let Some(asset) = books.asset(account.opened.asset) else { continue };
        line(text, format_args!("{begin} open {} {}", name(books, account.opened.number), currency(asset)));
    }
    text.push('\n');
}

fn entry(text: &mut String, books: &Books, event: &Event) {
    let header = &event.header;
    let (job, batch) = subjects(event);
    let kind = event.body.kind();
    let links: String = [job, batch].iter().filter(|id| !id.is_empty()).map(|id| format!(" ^{id}")).collect();
    let narration = kind.replace('_', " ");
    let tag = kind.replace('_', "-");
    line(text, format_args!("{} * \"{narration}\"{links} #{tag}", date(header.time_us)));
    line(text, format_args!("  seq: {}", header.leaf));
    for posting in &event.postings {
        leg(text, books, posting.account, posting.amount);
    }
    text.push('\n');
}

fn daily(text: &mut String, books: &Books, events: &[&Event]) {
    let mut days: BTreeMap<String, BTreeMap<(u32, u32), i128>> = BTreeMap::new();
    for event in events {
        let day = days.entry(date(event.header.time_us)).or_default();
        for posting in &event.postings {
            let asset = books.account(posting.account).map_or(0, |account| account.opened.asset.0);
            *day.entry((asset, posting.account.0)).or_default() += posting.amount.0;
        }
    }
    for (day, sums) in days {
        let mut current = None;
        for ((asset, account), amount) in sums.into_iter().filter(|(_, amount)| *amount != 0) {
            if current.replace(asset) != Some(asset) {
                line(text, format_args!("{day} * \"bookings of the day\" #daily"));
            }
            leg(text, books, LedgerAccount(account), Amount(amount));
        }
        text.push('\n');
    }
}

fn leg(text: &mut String, books: &Books, account: LedgerAccount, amount: Amount) {
    let Some(asset) = books.account(account).and_then(|a| books.asset(a.opened.asset)) else { return };
    line(text, format_args!("  {}  {} {}", name(books, account), decimal(amount, asset), currency(asset)));
}

/// Balances as of the morning after the last event.
fn assertions(text: &mut String, books: &Books) {
    let day = next_date(books.time_us());
    for account in books.accounts() {
        let Some(asset) = books.asset(account.opened.asset) else { continue };
        let balance = decimal(account.counters.balance(), asset);
        let name = name(books, account.opened.number);
        line(text, format_args!("{day} balance {name}  {balance} ~ 0 {}", currency(asset)));
    }
}

fn check_digits(books: &Books, events: &[&Event]) -> Result<(), ExportError> {
    let too_long = |amount: i128| amount.unsigned_abs().to_string().len() > DIGITS_MAX;
    for event in events {
        if event.postings.iter().any(|posting| too_long(posting.amount.0)) {
            return Err(ExportError::TooManyDigits { leaf: event.header.leaf });
        }
    }
    match books.accounts().iter().find(|account| too_long(account.counters.balance().0)) {
        Some(_) => Err(ExportError::TooManyDigits { leaf: books.size().saturating_sub(1) }),
        None => Ok(()),
    }
}

fn decimal(amount: Amount, asset: &Asset) -> String {
    fixed(amount, asset).trim_end_matches('.').to_owned()
}

/// Beancount's currencies begin with a letter.
fn currency(asset: &Asset) -> String {
    if asset.symbol.starts_with(|c: char| c.is_ascii_digit()) {
        format!("X{}", asset.symbol)
    } else {
        asset.symbol.clone()
    }
}

/// `Liabilities:CustomerDeposited:FOIL:Acct-...`
fn name(books: &Books, number: LedgerAccount) -> String {
    let Some(account) = books.account(number) else { return "Equity:Unknown".to_owned() };
    let symbol = books.asset(account.opened.asset).map_or_else(|| "X".to_owned(), currency);
    let kind: String = account.opened.kind.name().split('_').map(capital).collect();
    let class = class(account.opened.kind);
    match account.opened.owner {
        AccountId::SYSTEM => format!("{class}:{kind}:{symbol}"),
        owner => format!("{class}:{kind}:{symbol}:{}", capital(&owner.to_string().replace('_', "-"))),
    }
}

fn class(kind: AccountKind) -> &'static str {
    use AccountKind::*;
    match kind {
        VaultAsset | PotAsset | Receivable | PlatformTreasury => "Assets",
        PlatformRevenue | Breakage => "Income",
        PromoExpense => "Expenses",
        CustomerDeposited | CustomerPackage | CustomerEarned | CustomerAllotment | CustomerPromo
        | OperatorAccrued | OperatorSettling | OperatorPayable | UnattributedDeposits | HoldsPending => {
            "Liabilities"
        }
        CustomerCredit | CreditLines => "Equity:Memorandum",
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
