//! Booked legs with the names that files give them, made once an account and once an event: what postings of every form are
//! written from.

use super::{ExportError, Provenance, cell, subjects};
use crate::fold::Books;
use crate::names::Names;
use protocol::amount::Amount;
use protocol::event::Event;
use std::collections::BTreeMap;

/// How files call a ledger account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccountWords {
    /// `kind:ASSET:acct_..`, safe in a cell.
    pub name: String,
    /// Symbol of its asset.
    pub asset: String,
    /// Digits after the point.
    pub scale: u8,
}

/// One event with booked legs that the file holds.
pub struct Booked<'a> {
    /// The event.
    pub event: &'a Event,
    /// Its job, or nothing.
    pub job: String,
    /// Its batch, or nothing.
    pub batch: String,
}

/// The legs of a log prefix.
pub struct Legs<'a> {
    events: &'a [Event],
    provenance: &'a Provenance,
    books: Books,
    words: Vec<AccountWords>,
}

impl<'a> Legs<'a> {
    /// Folds the events, which checks them, and names the accounts.
    pub fn of(events: &'a [Event], provenance: &'a Provenance) -> Result<Legs<'a>, ExportError> {
        let books = super::booked(events)?;
        let words = books.accounts().iter().map(|account| {
            let asset = books.asset(account.opened.asset);
            let (asset, scale) = asset.map_or(("?".to_owned(), 0), |a| (a.symbol.clone(), a.ledger_scale));
            AccountWords { name: cell(&books.name(account.opened.number)), asset, scale }
        });
        let words = words.collect();
        Ok(Legs { events, provenance, books, words })
    }

    /// The books at the end.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// What an account is called.
    pub fn words(&self, posting: &protocol::event::Posting) -> &AccountWords {
        // The fold refused legs of accounts that nobody opened.
        &self.words[posting.account.0 as usize]
    }

    /// The events that have booked legs and lie in the file's period, in order.
    pub fn events(&self) -> impl Iterator<Item = &'a Event> {
        let provenance = self.provenance;
        self.events.iter().filter(move |event| !event.postings.is_empty() && provenance.holds(event))
    }

    /// The same with what they speak of.
    pub fn booked(&self) -> impl Iterator<Item = Booked<'a>> {
        self.events().map(|event| {
            let (job, batch) = subjects(event);
            Booked { event, job, batch }
        })
    }

    /// Rows, and the sum of debits of each asset by its symbol; credits are the same.
    pub fn control_totals(&self) -> (u64, BTreeMap<String, Amount>) {
        let mut rows = 0;
        let mut debits: BTreeMap<u32, i128> = BTreeMap::new();
        for event in self.events() {
            rows += event.postings.len() as u64;
            for posting in &event.postings {
                let asset = self.books.account(posting.account).map_or(u32::MAX, |a| a.opened.asset.0);
                *debits.entry(asset).or_default() += posting.amount.0.max(0);
            }
        }
        let symbol = |number: u32| {
            let asset = self.books.asset(protocol::asset::AssetId(number));
            asset.map_or_else(|| "?".to_owned(), |asset| asset.symbol.clone())
        };
        (rows, debits.into_iter().map(|(asset, sum)| (symbol(asset), Amount(sum))).collect())
    }

    /// The header lines that say them.
    pub fn control_lines(&self) -> Vec<String> {
        let (rows, totals) = self.control_totals();
        let mut lines = vec![format!("rows: {rows}")];
        let total = |(asset, Amount(sum)): (&String, &Amount)| {
            format!("control total {asset}: debits {sum} = credits {sum}")
        };
        lines.extend(totals.iter().map(total));
        lines
    }
}
