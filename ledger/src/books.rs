//! The books: the four counters of every ledger account. Money moves only by legs.

use crate::accounts::{AccountNo, Accounts, NO_BOOK};
use crate::apply::{ApplyError, has_floor};
use crate::preset::ASSETS_MAX;
use crate::slab::Slab;
use crate::state::State;
use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::account::{AccountKind, LedgerAccountsOpened};
use protocol::event::{Event, LedgerAccount, Posting};
use std::collections::BTreeMap;

/// Largest amount of one leg: 2^110 base units. A command has far fewer than 2^10 legs on one account.
pub const LEG_MAX: i128 = 1 << 110;
/// No leg is decided on a counter above it: 2^120. Together they keep `apply` within 128 bits.
pub const COUNTER_MAX: i128 = 1 << 120;

const _: () = assert!(ASSETS_MAX <= 1 << 8, "a row says its asset in one byte");

/// What makes a ledger account one: owner, kind and asset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct BookKey {
    pub(crate) owner: AccountNo,
    pub(crate) kind: AccountKind,
    pub(crate) asset: AssetId,
}

impl BookKey {
    #[inline]
    pub(crate) fn new(owner: AccountNo, kind: AccountKind, asset: AssetId) -> BookKey {
        BookKey { owner, kind, asset }
    }

    /// A ledger account of the platform itself.
    #[inline]
    pub(crate) fn system(kind: AccountKind, asset: AssetId) -> BookKey {
        BookKey { owner: AccountNo::SYSTEM, kind, asset }
    }
}

/// Whose a ledger account is and what it counts.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Head {
    #[n(0)]
    owner: AccountNo,
    #[n(1)]
    kind: AccountKind,
    #[n(2)]
    asset: u8,
    /// The owner's ledger account that was opened before.
    #[cbor(skip)]
    before: u32,
}

const _: () = assert!(std::mem::size_of::<Head>() <= 12);

impl Head {
    fn is(&self, key: BookKey) -> bool {
        self.kind == key.kind && u32::from(self.asset) == key.asset.0
    }
}

/// What a ledger account counts: one cache line. All counters only grow: a release books the opposite pending leg, so what
/// is reserved is `debits_pending - credits_pending`.
#[derive(Clone, Default, Debug, Encode, Decode)]
#[cbor(array)]
#[repr(align(64))]
pub(crate) struct Counters {
    #[n(0)]
    pub(crate) debits_posted: Amount,
    #[n(1)]
    pub(crate) credits_posted: Amount,
    #[n(2)]
    pub(crate) debits_pending: Amount,
    #[n(3)]
    pub(crate) credits_pending: Amount,
}

const _: () = assert!(std::mem::size_of::<Counters>() == 64);

impl Counters {
    /// Booked balance as a credit; negative is a debit balance.
    pub(crate) fn credit_balance(&self) -> i128 {
        self.credits_posted.0 - self.debits_posted.0
    }

    /// What open reservations take from a credit balance.
    pub(crate) fn reserved(&self) -> i128 {
        self.debits_pending.0 - self.credits_pending.0
    }

    pub(crate) fn largest(&self) -> i128 {
        let booked = self.debits_posted.max(self.credits_posted);
        booked.max(self.debits_pending).max(self.credits_pending).0
    }
}

/// Every ledger account, by its dense number. A ledger account is found by walking its owner's few.
#[derive(Clone, Default, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Books {
    #[n(0)]
    heads: Slab<Head>,
    #[n(1)]
    counters: Slab<Counters>,
    /// The platform's own, by kind and asset.
    #[cbor(skip)]
    system: Vec<(AccountKind, u8, u32)>,
}

impl Books {
    pub(crate) fn find(&self, accounts: &Accounts, key: BookKey) -> Option<LedgerAccount> {
        if key.owner == AccountNo::SYSTEM {
            let same = |(kind, asset, _): &&(AccountKind, u8, u32)| {
                *kind == key.kind && u32::from(*asset) == key.asset.0
            };
            return self.system.iter().find(same).map(|(_, _, number)| LedgerAccount(*number));
        }
        let mut number = accounts.row(key.owner)?.book;
        while let Some(head) = self.heads.get(number) {
            if head.is(key) {
                return Some(LedgerAccount(number));
            }
            number = head.before;
        }
        None
    }

    /// See [`crate::look_ahead`].
    #[inline]
    pub(crate) fn touch(&self, number: u32) -> u32 {
        let head = self.heads.get(number).map_or(0, |head| head.before);
        head ^ self.counters.get(number).map_or(0, |row| row.debits_pending.0 as u32)
    }

    pub(crate) fn count(&self) -> usize {
        self.heads.len()
    }

    #[inline]
    pub(crate) fn counters(&self, number: LedgerAccount) -> Option<&Counters> {
        self.counters.get(number.0)
    }

    pub(crate) fn key(&self, number: LedgerAccount) -> Option<BookKey> {
        self.heads.get(number.0).map(key_of)
    }

    /// All, by number.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (BookKey, &Counters)> {
        self.heads.iter().map(key_of).zip(self.counters.iter())
    }

    /// Booked balance of a ledger account as a credit; 0 when it was never opened.
    pub(crate) fn credit_balance(&self, accounts: &Accounts, key: BookKey) -> i128 {
        self.find(accounts, key).and_then(|number| self.counters(number)).map_or(0, Counters::credit_balance)
    }

    /// Books an event's legs: sums, counters, floors.
    pub(crate) fn book(&mut self, event: &Event) -> Result<(), ApplyError> {
        self.check_sums(&event.postings)?;
        self.check_sums(&event.pending)?;
        for Posting { account, amount } in &event.postings {
            let row = self.row_mut(*account)?;
            let counter = if amount.0 >= 0 { &mut row.debits_posted } else { &mut row.credits_posted };
            raise(counter, *amount, *account)?;
        }
        for Posting { account, amount } in &event.pending {
            let row = self.row_mut(*account)?;
            let counter = if amount.0 >= 0 { &mut row.debits_pending } else { &mut row.credits_pending };
            raise(counter, *amount, *account)?;
        }
        for Posting { account, .. } in event.postings.iter().chain(&event.pending) {
            self.check_floor(*account)?;
        }
        Ok(())
    }

    #[inline]
    fn row_mut(&mut self, number: LedgerAccount) -> Result<&mut Counters, ApplyError> {
        self.counters.get_mut(number.0).ok_or_else(|| ApplyError::unknown("ledger account", number.0))
    }

    /// Nearly always all legs are of one asset; then one pass tells.
    fn check_sums(&self, legs: &[Posting]) -> Result<(), ApplyError> {
        let Some(first) = legs.first() else { return Ok(()) };
        let first = self.asset_of(first)?;
        let mut sum = 0i128;
        for posting in legs {
            if self.asset_of(posting)? != first {
                return self.check_sums_of_many(legs);
            }
            sum = sum.checked_add(posting.amount.0).ok_or(ApplyError::Overflow(posting.account.0))?;
        }
        if sum == 0 { Ok(()) } else { Err(ApplyError::Unbalanced { asset: u32::from(first), sum }) }
    }

    fn check_sums_of_many(&self, legs: &[Posting]) -> Result<(), ApplyError> {
        let mut sums: BTreeMap<u8, i128> = BTreeMap::new();
        for posting in legs {
            let sum = sums.entry(self.asset_of(posting)?).or_default();
            *sum = sum.checked_add(posting.amount.0).ok_or(ApplyError::Overflow(posting.account.0))?;
        }
        match sums.into_iter().find(|(_, sum)| *sum != 0) {
            Some((asset, sum)) => Err(ApplyError::Unbalanced { asset: u32::from(asset), sum }),
            None => Ok(()),
        }
    }

    fn asset_of(&self, posting: &Posting) -> Result<u8, ApplyError> {
        let head = self.heads.get(posting.account.0);
        Ok(head.ok_or_else(|| ApplyError::unknown("ledger account", posting.account.0))?.asset)
    }

    fn check_floor(&self, number: LedgerAccount) -> Result<(), ApplyError> {
        let row = &self.counters[number.0];
        let available = row.credit_balance() - row.reserved();
        let kind = self.heads[number.0].kind;
        if available < 0 && has_floor(kind) {
            let kind = kind.name();
            return Err(ApplyError::BelowFloor { number: number.0, kind, available });
        }
        Ok(())
    }

    /// Puts a row at the head of its owner's chain.
    fn chain(&mut self, accounts: &mut Accounts, number: u32) -> Result<(), ApplyError> {
        let (owner, kind, asset) = {
            let head = &self.heads[number];
            (head.owner, head.kind, head.asset)
        };
        let before = if owner == AccountNo::SYSTEM {
            self.system.push((kind, asset, number));
            NO_BOOK
        } else {
            std::mem::replace(&mut accounts.row_mut(owner)?.book, number)
        };
        self.heads.get_mut(number).expect("it was read just now").before = before;
        Ok(())
    }

    pub(crate) fn rebuild(&mut self, accounts: &mut Accounts) -> Result<(), &'static str> {
        if self.heads.len() != self.counters.len() {
            return Err("ledger accounts without counters, or counters without one");
        }
        for number in 0..self.heads.len() as u32 {
            if self.find(accounts, key_of(&self.heads[number])).is_some() {
                return Err("a ledger account is there twice");
            }
            self.chain(accounts, number).map_err(|_| "a ledger account's owner is not there")?;
        }
        Ok(())
    }

    /// A copy that shares what it can.
    pub(crate) fn share(&mut self) -> Books {
        Books { heads: self.heads.share(), counters: self.counters.share(), system: self.system.clone() }
    }
}

fn key_of(head: &Head) -> BookKey {
    BookKey { owner: head.owner, kind: head.kind, asset: AssetId(u32::from(head.asset)) }
}

fn raise(counter: &mut Amount, amount: Amount, account: LedgerAccount) -> Result<(), ApplyError> {
    let by = amount.0.checked_abs().ok_or(ApplyError::Overflow(account.0))?;
    let raised = counter.0.checked_add(by).filter(|raised| *raised <= 1 << 125);
    counter.0 = raised.ok_or(ApplyError::Overflow(account.0))?;
    Ok(())
}

pub(crate) fn apply_ledger_accounts_opened(
    state: &mut State,
    event: &LedgerAccountsOpened,
) -> Result<(), ApplyError> {
    for opened in &event.opened {
        let owner = state.accounts.find(&opened.owner);
        let (Some(owner), Some(_)) = (owner, state.asset(opened.asset)) else {
            return Err(ApplyError::unknown("owner or asset of ledger account", opened.number.0));
        };
        let key = BookKey::new(owner, opened.kind, opened.asset);
        let known = state.books.find(&state.accounts, key).is_some();
        if opened.number.0 as usize != state.books.count() || opened.number.0 == NO_BOOK || known {
            return Err(ApplyError::Impossible("ledger accounts are numbered without gaps, each once"));
        }
        let (kind, asset) = (opened.kind, opened.asset.0 as u8);
        state.books.heads.push(Head { owner, kind, asset, before: NO_BOOK });
        state.books.counters.push(Counters::default());
        state.books.chain(&mut state.accounts, opened.number.0)?;
    }
    Ok(())
}
