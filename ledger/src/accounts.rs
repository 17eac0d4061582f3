//! Accounts: who exists, which grants may still pay for them in which order, what they owe.

use crate::apply::ApplyError;
use crate::books::BookKey;
use crate::command::{CloseAccount, OpenAccount};
use crate::decide::Plan;
use crate::grants::Grants;
use crate::index::Index;
use crate::refusal::Refusal;
use crate::slab::Slab;
use crate::state::State;
use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::asset::{AssetId, VaultRef};
use protocol::event::GrantId;
use protocol::event::account::{AccountClosed, AccountKind, AccountOpened};
use protocol::id::{AccountId, EvmAddress};
use std::collections::{BTreeMap, BTreeSet};

pub use crate::books::{COUNTER_MAX, LEG_MAX};

/// An account's dense number, in the order of opening: what rows say instead of 16 bytes. Never in an event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
#[cbor(transparent)]
pub(crate) struct AccountNo(#[n(0)] pub(crate) u32);

impl AccountNo {
    /// The network itself; it is no row.
    pub(crate) const SYSTEM: AccountNo = AccountNo(u32::MAX);
}

/// No ledger account, and no next one.
pub(crate) const NO_BOOK: u32 = u32::MAX;

/// One account: a customer, an operator's owner, or both. 40 bytes, because there are many.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Account {
    #[n(0)]
    pub(crate) id: AccountId,
    /// Grants that may still pay, in consumption order: priority, expiry (none last), number.
    #[n(1)]
    pub(crate) grants: GrantList,
    /// The newest of its ledger accounts; each names the one before.
    #[cbor(skip)]
    pub(crate) book: u32,
    #[n(2)]
    pub(crate) closed: bool,
    /// Whether `Accounts::debts` has a row of it.
    #[n(3)]
    pub(crate) indebted: bool,
}

const _: () = assert!(std::mem::size_of::<Account>() <= 40);

/// A few grants in place, many in a list of their own.
#[derive(Clone, Debug)]
pub(crate) enum GrantList {
    Few {
        count: u8,
        grants: [GrantId; 3],
    },
    #[expect(clippy::box_collection, reason = "16 bytes in every account instead of 32")]
    Many(Box<Vec<GrantId>>),
}

impl Default for GrantList {
    fn default() -> GrantList {
        GrantList::Few { count: 0, grants: [GrantId(0); 3] }
    }
}

impl GrantList {
    #[inline]
    pub(crate) fn as_slice(&self) -> &[GrantId] {
        match self {
            GrantList::Few { count, grants } => &grants[..usize::from(*count)],
            GrantList::Many(grants) => grants,
        }
    }

    pub(crate) fn insert(&mut self, at: usize, grant: GrantId) {
        match self {
            GrantList::Few { count, grants } if usize::from(*count) < grants.len() => {
                grants.copy_within(at..usize::from(*count), at + 1);
                grants[at] = grant;
                *count += 1;
            }
            GrantList::Few { grants, .. } => {
                let mut many = grants.to_vec();
                many.insert(at, grant);
                *self = GrantList::Many(Box::new(many));
            }
            GrantList::Many(grants) => grants.insert(at, grant),
        }
    }

    pub(crate) fn remove(&mut self, at: usize) {
        match self {
            GrantList::Few { count, grants } => {
                grants.copy_within(at + 1..usize::from(*count), at);
                *count -= 1;
            }
            GrantList::Many(grants) => {
                grants.remove(at);
                if let [a, b] = grants[..] {
                    *self = GrantList::Few { count: 2, grants: [a, b, GrantId(0)] };
                }
            }
        }
    }
}

impl<C> Encode<C> for GrantList {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        c: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        self.as_slice().encode(e, c)
    }
}

impl<'b, C> Decode<'b, C> for GrantList {
    fn decode(d: &mut minicbor::Decoder<'b>, c: &mut C) -> Result<GrantList, minicbor::decode::Error> {
        let mut list = GrantList::default();
        for at in 0..crate::slab::definite(d)? {
            list.insert(at as usize, GrantId::decode(d, c)?);
        }
        Ok(list)
    }
}

/// Every account there is.
#[derive(Clone, Default, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Accounts {
    #[n(0)]
    pub(crate) rows: Slab<Account>,
    #[n(1)]
    pub(crate) wallets: BTreeSet<(AccountNo, VaultRef, EvmAddress)>,
    /// Owed after reversed deposits and shortfalls; above zero the account may not spend or withdraw.
    #[n(2)]
    pub(crate) debts: BTreeMap<(AccountNo, AssetId), Amount>,
    #[cbor(skip)]
    index: Index,
}

impl Accounts {
    #[inline]
    pub(crate) fn find(&self, id: &AccountId) -> Option<AccountNo> {
        if *id == AccountId::SYSTEM {
            return Some(AccountNo::SYSTEM);
        }
        self.index.find(&id.0, |row| &self.rows[row].id.0).map(AccountNo)
    }

    /// The row of a customer's or operator's account.
    pub(crate) fn get(&self, id: &AccountId) -> Option<&Account> {
        self.find(id).and_then(|number| self.row(number))
    }

    pub(crate) fn contains_key(&self, id: &AccountId) -> bool {
        *id != AccountId::SYSTEM && self.find(id).is_some()
    }

    #[inline]
    pub(crate) fn row(&self, number: AccountNo) -> Option<&Account> {
        self.rows.get(number.0)
    }

    pub(crate) fn id(&self, number: AccountNo) -> AccountId {
        self.row(number).map_or(AccountId::SYSTEM, |row| row.id)
    }

    pub(crate) fn debt(&self, number: AccountNo, asset: AssetId) -> i128 {
        self.debts.get(&(number, asset)).map_or(0, |debt| debt.0)
    }

    /// The first asset it owes in, and how much.
    pub(crate) fn owes(&self, number: AccountNo) -> Option<(AssetId, Amount)> {
        if !self.row(number)?.indebted {
            return None;
        }
        let mut debts = self.debts.range((number, AssetId(0))..=(number, AssetId(u32::MAX)));
        debts.find(|(_, debt)| debt.0 > 0).map(|((_, asset), debt)| (*asset, *debt))
    }

    /// Wallets linked to it, by vault and address.
    pub(crate) fn wallets_of(&self, number: AccountNo) -> impl Iterator<Item = (VaultRef, EvmAddress)> {
        let lowest = VaultRef { chain_id: 0, vault: EvmAddress([0; 20]) };
        let rest = self.wallets.range((number, lowest, EvmAddress([0; 20]))..);
        rest.take_while(move |(of, ..)| *of == number).map(|(_, vault, address)| (*vault, *address))
    }

    /// Adds to what an account owes (a negative amount takes off it); above zero it is frozen.
    pub(crate) fn owe(&mut self, number: AccountNo, asset: AssetId, amount: i128) -> Result<(), ApplyError> {
        if amount != 0 {
            self.row_mut(number)?.indebted = true;
            self.debts.entry((number, asset)).or_default().0 += amount;
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn row_mut(&mut self, number: AccountNo) -> Result<&mut Account, ApplyError> {
        self.rows.get_mut(number.0).ok_or_else(|| ApplyError::unknown("account number", number.0))
    }

    /// Puts a grant into its owner's order, or takes it out.
    pub(crate) fn list(&mut self, grants: &Grants, id: GrantId, listed: bool) -> Result<(), ApplyError> {
        let grant = &grants[id];
        let order = grant.order(id);
        let list = &mut self.row_mut(grant.account)?.grants;
        let at = list.as_slice().partition_point(|other| grants[*other].order(*other) < order);
        if listed {
            list.insert(at, id)
        } else {
            list.remove(at)
        }
        Ok(())
    }

    pub(crate) fn rebuild(&mut self) -> Result<(), &'static str> {
        self.index.reserve(self.rows.len());
        for row in 0..self.rows.len() as u32 {
            let id = self.rows[row].id;
            if self.contains_key(&id) || id == AccountId::SYSTEM {
                return Err("an account is there twice");
            }
            let rows = &self.rows;
            self.index.insert(&id.0, row, |row| &rows[row].id.0);
            self.rows.get_mut(row).expect("counted just now").book = NO_BOOK;
        }
        Ok(())
    }

    /// A copy that shares what it can.
    pub(crate) fn share(&mut self) -> Accounts {
        let (wallets, debts) = (self.wallets.clone(), self.debts.clone());
        Accounts { rows: self.rows.share(), wallets, debts, index: self.index.share() }
    }
}

/// The account's number, if it exists and is open.
pub(crate) fn open_account(state: &State, id: AccountId) -> Result<AccountNo, Refusal> {
    let number = state.accounts.find(&id).filter(|number| *number != AccountNo::SYSTEM);
    let number = number.ok_or(Refusal::AccountUnknown { account: id })?;
    check_open(state, number)?;
    Ok(number)
}

/// The account's number, if it may also spend and withdraw.
pub(crate) fn spending_account(state: &State, id: AccountId) -> Result<AccountNo, Refusal> {
    let number = open_account(state, id)?;
    check_spending(state, number)?;
    Ok(number)
}

pub(crate) fn check_open(state: &State, number: AccountNo) -> Result<(), Refusal> {
    match state.accounts.row(number) {
        Some(row) if row.closed => Err(Refusal::AccountIsClosed { account: row.id }),
        _ => Ok(()),
    }
}

/// Open, and owing nothing.
pub(crate) fn check_spending(state: &State, number: AccountNo) -> Result<(), Refusal> {
    check_open(state, number)?;
    match state.accounts.owes(number) {
        Some((asset, owed)) => {
            Err(Refusal::AccountFrozen { account: state.accounts.id(number), owed, asset })
        }
        None => Ok(()),
    }
}

pub(crate) fn decide_open(plan: &mut Plan, command: &OpenAccount) -> Result<(), Refusal> {
    let account = command.account;
    if plan.state.accounts.find(&account).is_some() {
        return Err(Refusal::AccountKnown { account });
    }
    if plan.state.accounts.rows.len() >= AccountNo::SYSTEM.0 as usize {
        return Err(Refusal::Overflow { what: "the number of accounts" });
    }
    plan.emit(AccountOpened { account });
    Ok(())
}

/// Closing leaves nothing behind that the owner could still want: no running job, no voucher, no deposit,
/// nothing drawn from a credit line.
pub(crate) fn decide_close(plan: &mut Plan, command: &CloseAccount) -> Result<(), Refusal> {
    let state = plan.state;
    let id = command.account;
    let number = spending_account(state, id)?;
    let mut left = Amount::ZERO;
    for grant in state.accounts.rows[number.0].grants.as_slice() {
        let grant = &state.grants[*grant];
        let reserved = state.reserved(grant);
        let in_use = !grant.held.is_zero() || reserved != 0;
        if in_use || (!grant.remaining.is_zero() && grant.is_deposit()) {
            left = Amount(left.0.saturating_add(grant.remaining.0).saturating_add(reserved));
        }
    }
    let (first, last) = ((number, AssetId(0)), (number, AssetId(u32::MAX)));
    for (_, line) in state.credit_lines.range(first..=last) {
        left = Amount(left.0.saturating_add(line.drawn.0.max(0)));
    }
    if !left.is_zero() {
        return Err(Refusal::AccountNotEmpty { account: id, left });
    }
    plan.emit(AccountClosed { account: id });
    Ok(())
}

pub(crate) fn apply_opened(state: &mut State, event: &AccountOpened) -> Result<(), ApplyError> {
    let accounts = &mut state.accounts;
    if accounts.find(&event.account).is_some() {
        return Err(ApplyError::Impossible("an account is opened twice"));
    }
    let row = accounts.rows.len() as u32;
    accounts.rows.push(Account {
        id: event.account,
        grants: GrantList::default(),
        book: NO_BOOK,
        closed: false,
        indebted: false,
    });
    let rows = &accounts.rows;
    accounts.index.insert(&event.account.0, row, |row| &rows[row].id.0);
    Ok(())
}

pub(crate) fn apply_closed(state: &mut State, event: &AccountClosed) -> Result<(), ApplyError> {
    let number = state.account_no(event.account)?;
    state.accounts.row_mut(number)?.closed = true;
    Ok(())
}

/// A ledger account of somebody who exists.
pub(crate) fn book_key(state: &State, owner: AccountId, kind: AccountKind, asset: AssetId) -> BookKey {
    let owner = state.accounts.find(&owner).expect("whoever asks knows that the account exists");
    BookKey { owner, kind, asset }
}
