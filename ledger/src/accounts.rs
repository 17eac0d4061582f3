//! Accounts and the books: who exists, and the four counters of every ledger account. Money moves only by legs.

use crate::apply::{ApplyError, has_floor};
use crate::command::{CloseAccount, OpenAccount};
use crate::decide::Plan;
use crate::refusal::Refusal;
use crate::state::State;
use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::asset::{AssetId, VaultRef};
use protocol::event::account::{AccountClosed, AccountKind, AccountOpened, LedgerAccountsOpened};
use protocol::event::{Event, GrantId, LedgerAccount, Posting};
use protocol::id::{AccountId, EvmAddress};
use std::collections::{BTreeMap, BTreeSet};

/// Largest amount of one leg: 2^110 base units. A command has far fewer than 2^10 legs on one account.
pub const LEG_MAX: i128 = 1 << 110;
/// No leg is decided on a counter above it: 2^120. Together they keep `apply` within 128 bits.
pub const COUNTER_MAX: i128 = 1 << 120;

/// What makes a ledger account one: owner, kind and asset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct BookKey {
    #[n(0)]
    pub(crate) owner: AccountId,
    #[n(1)]
    pub(crate) kind: AccountKind,
    #[n(2)]
    pub(crate) asset: AssetId,
}

impl BookKey {
    pub(crate) fn new(owner: AccountId, kind: AccountKind, asset: AssetId) -> BookKey {
        BookKey { owner, kind, asset }
    }

    /// A ledger account of the platform itself.
    pub(crate) fn system(kind: AccountKind, asset: AssetId) -> BookKey {
        BookKey { owner: AccountId::SYSTEM, kind, asset }
    }
}

/// One ledger account. All counters only grow: a release books the opposite pending leg, so what is reserved is
/// `debits_pending - credits_pending`.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Row {
    #[n(0)]
    pub(crate) key: BookKey,
    #[n(1)]
    pub(crate) debits_posted: Amount,
    #[n(2)]
    pub(crate) credits_posted: Amount,
    #[n(3)]
    pub(crate) debits_pending: Amount,
    #[n(4)]
    pub(crate) credits_pending: Amount,
}

impl Row {
    /// Booked balance as a credit; negative is a debit balance.
    pub(crate) fn credit_balance(&self) -> i128 {
        self.credits_posted.0 - self.debits_posted.0
    }

    /// What open reservations take from a credit balance.
    pub(crate) fn reserved(&self) -> i128 {
        self.debits_pending.0 - self.credits_pending.0
    }

    pub(crate) fn counter_max(&self) -> i128 {
        let booked = self.debits_posted.max(self.credits_posted);
        booked.max(self.debits_pending).max(self.credits_pending).0
    }
}

/// Every ledger account, by its dense number.
#[derive(Clone, PartialEq, Eq, Default, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Books {
    #[n(0)]
    pub(crate) rows: Vec<Row>,
    #[n(1)]
    index: BTreeMap<BookKey, u32>,
}

impl Books {
    pub(crate) fn find(&self, key: BookKey) -> Option<LedgerAccount> {
        self.index.get(&key).map(|number| LedgerAccount(*number))
    }

    pub(crate) fn count(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn row(&self, number: LedgerAccount) -> Option<&Row> {
        self.rows.get(number.0 as usize)
    }

    /// Booked balance of a ledger account as a credit; 0 when it was never opened.
    pub(crate) fn credit_balance(&self, key: BookKey) -> i128 {
        self.find(key).and_then(|number| self.row(number)).map_or(0, Row::credit_balance)
    }

    /// Books an event's legs: sums, counters, floors.
    pub(crate) fn book(&mut self, event: &Event) -> Result<(), ApplyError> {
        self.check_sums(&event.postings)?;
        self.check_sums(&event.pending)?;
        for Posting { account, amount } in &event.postings {
            let row = &mut self.rows[account.0 as usize];
            let counter = if amount.0 >= 0 { &mut row.debits_posted } else { &mut row.credits_posted };
            raise(counter, *amount, *account)?;
        }
        for Posting { account, amount } in &event.pending {
            let row = &mut self.rows[account.0 as usize];
            let counter = if amount.0 >= 0 { &mut row.debits_pending } else { &mut row.credits_pending };
            raise(counter, *amount, *account)?;
        }
        for Posting { account, .. } in event.postings.iter().chain(&event.pending) {
            self.check_floor(*account)?;
        }
        Ok(())
    }

    fn check_sums(&self, legs: &[Posting]) -> Result<(), ApplyError> {
        let mut sums: Vec<(AssetId, i128)> = Vec::new();
        for posting in legs {
            let asset = self.asset_of(posting)?;
            let at = sums.iter().position(|(known, _)| *known == asset).unwrap_or_else(|| {
                sums.push((asset, 0));
                sums.len() - 1
            });
            let sum = &mut sums[at].1;
            *sum = sum.checked_add(posting.amount.0).ok_or(ApplyError::Overflow(posting.account.0))?;
        }
        match sums.into_iter().find(|(_, sum)| *sum != 0) {
            Some((asset, sum)) => Err(ApplyError::Unbalanced { asset: asset.0, sum }),
            None => Ok(()),
        }
    }

    fn asset_of(&self, posting: &Posting) -> Result<AssetId, ApplyError> {
        let row = self.row(posting.account);
        Ok(row.ok_or_else(|| ApplyError::unknown("ledger account", posting.account.0))?.key.asset)
    }

    fn check_floor(&self, number: LedgerAccount) -> Result<(), ApplyError> {
        let row = &self.rows[number.0 as usize];
        let available = row.credit_balance() - row.reserved();
        if has_floor(row.key.kind) && available < 0 {
            let kind = row.key.kind.name();
            return Err(ApplyError::BelowFloor { number: number.0, kind, available });
        }
        Ok(())
    }
}

fn raise(counter: &mut Amount, amount: Amount, account: LedgerAccount) -> Result<(), ApplyError> {
    let by = amount.0.checked_abs().ok_or(ApplyError::Overflow(account.0))?;
    let raised = counter.0.checked_add(by).filter(|raised| *raised <= 1 << 125);
    counter.0 = raised.ok_or(ApplyError::Overflow(account.0))?;
    Ok(())
}

/// One account: a customer, an operator's owner, or both.
#[derive(Clone, PartialEq, Eq, Default, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Account {
    #[n(0)]
    pub(crate) closed: bool,
    /// Grants that may still pay, in consumption order: priority, expiry (none last), number.
    #[n(1)]
    pub(crate) grants: BTreeSet<(u8, u64, GrantId)>,
    #[n(2)]
    pub(crate) wallets: BTreeSet<(VaultRef, EvmAddress)>,
    /// Owed after reversed deposits and shortfalls; above zero the account may not spend or withdraw.
    #[n(3)]
    pub(crate) debts: BTreeMap<AssetId, Amount>,
}

impl Account {
    pub(crate) fn debt(&self, asset: AssetId) -> i128 {
        self.debts.get(&asset).map_or(0, |debt| debt.0)
    }

    /// The first asset it owes in, and how much.
    pub(crate) fn owes(&self) -> Option<(AssetId, Amount)> {
        self.debts.iter().find(|(_, debt)| debt.0 > 0).map(|(asset, debt)| (*asset, *debt))
    }
}

/// The account, if it exists and is open.
pub(crate) fn open_account(state: &State, id: AccountId) -> Result<&Account, Refusal> {
    let account = state.accounts.get(&id).ok_or(Refusal::AccountUnknown { account: id })?;
    if account.closed {
        return Err(Refusal::AccountIsClosed { account: id });
    }
    Ok(account)
}

/// The account, if it may also spend and withdraw.
pub(crate) fn spending_account(state: &State, id: AccountId) -> Result<&Account, Refusal> {
    let account = open_account(state, id)?;
    if let Some((asset, owed)) = account.owes() {
        return Err(Refusal::AccountFrozen { account: id, owed, asset });
    }
    Ok(account)
}

pub(crate) fn decide_open(plan: &mut Plan, command: &OpenAccount) -> Result<(), Refusal> {
    let account = command.account;
    if account == AccountId::SYSTEM || plan.state.accounts.contains_key(&account) {
        return Err(Refusal::AccountKnown { account });
    }
    plan.emit(AccountOpened { account });
    Ok(())
}

/// Closing leaves nothing behind that the owner could still want: no running job, no voucher, no deposit,
/// nothing drawn from a credit line.
pub(crate) fn decide_close(plan: &mut Plan, command: &CloseAccount) -> Result<(), Refusal> {
    let state = plan.state;
    let id = command.account;
    let account = open_account(state, id)?;
    if let Some((asset, owed)) = account.owes() {
        return Err(Refusal::AccountFrozen { account: id, owed, asset });
    }
    let mut left = Amount::ZERO;
    for (_, _, grant) in &account.grants {
        let grant = &state.grants[grant.0 as usize];
        let in_use = !grant.held.is_zero() || !grant.reserved.is_zero();
        if in_use || (!grant.remaining.is_zero() && grant.is_deposit()) {
            left = Amount(left.0.saturating_add(grant.remaining.0));
        }
    }
    let first = (id, AssetId(0));
    let last = (id, AssetId(u32::MAX));
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
    match state.accounts.insert(event.account, Account::default()) {
        None => Ok(()),
        Some(_) => Err(ApplyError::Impossible("an account is opened twice")),
    }
}

pub(crate) fn apply_closed(state: &mut State, event: &AccountClosed) -> Result<(), ApplyError> {
    state.account_mut(event.account)?.closed = true;
    Ok(())
}

pub(crate) fn apply_ledger_accounts_opened(
    state: &mut State,
    event: &LedgerAccountsOpened,
) -> Result<(), ApplyError> {
    for opened in &event.opened {
        let key = BookKey::new(opened.owner, opened.kind, opened.asset);
        let owner_known = key.owner == AccountId::SYSTEM || state.accounts.contains_key(&key.owner);
        if !owner_known || state.asset(key.asset).is_none() {
            return Err(ApplyError::unknown("owner or asset of ledger account", opened.number.0));
        }
        if opened.number.0 as usize != state.books.count() || state.books.find(key).is_some() {
            return Err(ApplyError::Impossible("ledger accounts are numbered without gaps, each once"));
        }
        state.books.index.insert(key, opened.number.0);
        let zero = Amount::ZERO;
        state.books.rows.push(Row {
            key,
            debits_posted: zero,
            credits_posted: zero,
            debits_pending: zero,
            credits_pending: zero,
        });
    }
    Ok(())
}
