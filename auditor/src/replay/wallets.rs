//! Rules of vaults, wallets and deposits (rulings 3.2, 3.7): each deposit once, to the account its wallet is linked to,
//! debts repaid first.

use super::books::{BookKey, Legs};
use super::judge::Judge;
use super::world::World;
use crate::checks::CheckKind;
use protocol::asset::{AssetId, VaultRef};
use protocol::event::account::{AccountKind, SpendAuthorised};
use protocol::event::chain::{
    DepositAttributed, DepositConfirmed, DepositReversed, SolvencyChecked, VaultRegistered,
};
use protocol::event::{GrantId, Header};
use protocol::id::{AccountId, EvmAddress, Hash32, JobId, OperatorId, Word32};
use std::collections::VecDeque;

const KIND: CheckKind = CheckKind::Deposits;

/// One wallet in one vault. Amounts in base units unless a name says units (vault units).
#[derive(Clone, Default, Debug)]
pub(crate) struct Wallet {
    pub(crate) account: Option<AccountId>,
    pub(crate) bucket: Option<GrantId>,
    pub(crate) unattributed: i128,
    pub(crate) authorisation: Option<Authorisation>,
    pub(crate) exiting: bool,
    /// Captured for life; rebased by an exit.
    pub(crate) captured: i128,
    /// How much of it closed batches cover.
    pub(crate) covered: i128,
    /// Confirmed cumulative charge.
    pub(crate) charged_units: u64,
    /// For life.
    pub(crate) deposited_units: u64,
    /// For life; vouchers and exits.
    pub(crate) withdrawn_units: u64,
    /// Captures that are not wholly charged, oldest first.
    pub(crate) queue: VecDeque<Interval>,
}

/// The newest authorisation of a wallet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Authorisation {
    pub(crate) max_cumulative_units: u64,
    pub(crate) valid_until_s: u32,
    pub(crate) nonce: u64,
}

/// A capture's interval of its wallet's cumulative charge.
#[derive(Clone, Debug)]
pub(crate) struct Interval {
    /// Leaf of the charge and the slice's place in it.
    pub(crate) place: (u64, usize),
    pub(crate) job: JobId,
    pub(crate) operator: OperatorId,
    pub(crate) time_us: u64,
    pub(crate) cost: i128,
    pub(crate) share: i128,
    pub(crate) covered: i128,
    pub(crate) receipt: Hash32,
}

/// A mirrored deposit.
#[derive(Clone, Debug)]
pub(crate) struct Deposit {
    pub(crate) leaf: u64,
    pub(crate) wallet: EvmAddress,
    pub(crate) units: u64,
    pub(crate) amount: i128,
    pub(crate) reversed: bool,
}

/// Funds that left a vault to a wallet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Withdrawal {
    pub(crate) leaf: u64,
    pub(crate) vault: VaultRef,
    pub(crate) wallet: EvmAddress,
    pub(crate) units: u64,
    pub(crate) tx: Word32,
}

pub(crate) fn vault_registered(
    world: &mut World,
    judge: &mut Judge,
    event: &VaultRegistered,
) -> Option<Legs> {
    judge.known(KIND, world.vault_unit(event.asset), "asset that a vault can hold", event.asset.0)?;
    let is_new = world.vaults.insert(event.vault, event.clone()).is_none();
    judge.require(KIND, "a vault is registered once", event.vault.vault, || is_new);
    Some(Legs::default())
}

pub(crate) fn spend_authorised(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &SpendAuthorised,
) -> Option<Legs> {
    judge.known(KIND, world.vaults.get(&event.vault), "vault", event.vault.vault)?;
    judge.known(KIND, world.accounts.get(&event.account), "account", event.account)?;
    let wallet = world.wallets.entry((event.vault, event.wallet)).or_default();
    let linked = *wallet.account.get_or_insert(event.account);
    judge.equal(KIND, "a wallet stays its account's", linked, event.account);
    let until_us = u64::from(event.valid_until_s) * 1_000_000;
    judge.require(KIND, "an authorisation is still valid", event.valid_until_s, || until_us > header.time_us);
    if let Some(before) = wallet.authorisation {
        let rises = event.nonce > before.nonce
            || (event.nonce == before.nonce && event.max_cumulative_units > before.max_cumulative_units);
        judge.require(
            KIND,
            "an authorisation only raises the cap of its nonce",
            event.max_cumulative_units,
            || rises,
        );
    }
    wallet.authorisation = Some(Authorisation {
        max_cumulative_units: event.max_cumulative_units,
        valid_until_s: event.valid_until_s,
        nonce: event.nonce,
    });
    Some(Legs::default())
}

/// Credits deposited funds: debts first, the rest to the wallet's bucket.
fn credit(
    world: &mut World,
    judge: &mut Judge,
    legs: &mut Legs,
    key: (VaultRef, EvmAddress),
    asset: AssetId,
    amount: i128,
) -> Option<()> {
    let wallet = world.wallets.get(&key)?;
    let account = judge.known(KIND, wallet.account, "account of the wallet", key.1)?;
    let bucket = judge.known(KIND, wallet.bucket, "deposit bucket of the wallet", key.1)?;
    let row = judge.known(KIND, world.accounts.get_mut(&account), "account", account)?;
    let debt = row.debts.entry(asset).or_default();
    // Below zero the books owe the account, after an exit that paid less than they had: that is given back.
    let repaid = (*debt).min(amount);
    *debt = debt.saturating_sub(repaid);
    let grant = judge.known(KIND, world.grants.get_mut(bucket.0 as usize), "grant", bucket.0)?;
    grant.remaining = grant.remaining.saturating_add(amount.saturating_sub(repaid));
    legs.credit(BookKey::of(account, AccountKind::Receivable, asset), repaid);
    legs.credit(BookKey::of(account, AccountKind::CustomerDeposited, asset), amount.saturating_sub(repaid));
    Some(())
}

pub(crate) fn deposit_confirmed(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &DepositConfirmed,
) -> Option<Legs> {
    let vault = event.key.vault;
    let asset = judge.known(KIND, world.vaults.get(&vault), "vault", vault.vault)?.asset;
    let unit = world.vault_unit(asset)?;
    let amount = i128::from(event.units).saturating_mul(unit);
    judge.equal(KIND, "a deposit's amount is its units", amount, event.amount.0);
    let row = Deposit {
        leaf: header.leaf,
        wallet: event.wallet,
        units: event.units,
        amount: event.amount.0,
        reversed: false,
    };
    let before = world.deposits.insert(event.key, row);
    let twice = before.as_ref().is_some_and(|before| !before.reversed);
    let place = format!("{} ordinal {}", event.key.tx, event.key.ordinal);
    judge.require(KIND, "a deposit is mirrored once", place, || !twice);
    let wallet = world.wallets.entry((vault, event.wallet)).or_default();
    wallet.deposited_units = wallet.deposited_units.saturating_add(event.units);
    let linked = wallet.account == event.account;
    judge.require(KIND, "a deposit goes to the account its wallet is linked to", event.wallet, || linked);
    let mut legs = Legs::default();
    legs.debit(BookKey::system(AccountKind::VaultAsset, asset), amount);
    match event.account {
        None => {
            wallet.unattributed = wallet.unattributed.saturating_add(amount);
            legs.credit(BookKey::system(AccountKind::UnattributedDeposits, asset), amount);
        }
        Some(_) => credit(world, judge, &mut legs, (vault, event.wallet), asset, amount)?,
    }
    Some(legs)
}

pub(crate) fn deposit_attributed(
    world: &mut World,
    judge: &mut Judge,
    event: &DepositAttributed,
) -> Option<Legs> {
    let key = (event.vault, event.wallet);
    let asset = judge.known(KIND, world.vaults.get(&event.vault), "vault", event.vault.vault)?.asset;
    let wallet = judge.known(KIND, world.wallets.get_mut(&key), "wallet", event.wallet)?;
    let waiting = std::mem::take(&mut wallet.unattributed);
    judge.equal(KIND, "all that waited is attributed", waiting, event.amount.0);
    let linked = wallet.account == Some(event.account);
    judge.require(KIND, "it goes to the account that linked the wallet", event.account, || linked);
    let mut legs = Legs::default();
    legs.debit(BookKey::system(AccountKind::UnattributedDeposits, asset), waiting);
    credit(world, judge, &mut legs, key, asset, waiting)?;
    Some(legs)
}

/// What a vault owes is recomputed; that it holds so much at the named block is for `reconcile`.
pub(crate) fn solvency_checked(
    world: &mut World,
    judge: &mut Judge,
    event: &SolvencyChecked,
) -> Option<Legs> {
    const KIND: CheckKind = CheckKind::VaultBalance;
    judge.known(KIND, world.vaults.get(&event.vault), "vault", event.vault.vault)?;
    let mine = world.wallets.iter().filter(|((vault, _), _)| *vault == event.vault);
    let owed = |wallet: &Wallet| {
        wallet.deposited_units.saturating_sub(wallet.withdrawn_units).saturating_sub(wallet.charged_units)
    };
    let owed: u64 = mine.map(|(_, wallet)| owed(wallet)).fold(0, u64::saturating_add);
    judge.equal(KIND, "what a vault owes is what its wallets have in it", owed, event.owed_units);
    judge.require(KIND, "at least what the vault owes", event.held_units, || event.held_units >= owed);
    Some(Legs::default())
}

pub(crate) fn deposit_reversed(
    world: &mut World,
    judge: &mut Judge,
    event: &DepositReversed,
) -> Option<Legs> {
    let vault = event.key.vault;
    let asset = judge.known(KIND, world.vaults.get(&vault), "vault", vault.vault)?.asset;
    let deposit = world.deposits.get_mut(&event.key).filter(|deposit| !deposit.reversed);
    let deposit = judge.known(KIND, deposit, "deposit that stands", event.key.tx)?;
    deposit.reversed = true;
    let (amount, address, units) = (deposit.amount, deposit.wallet, deposit.units);
    let wallet = judge.known(KIND, world.wallets.get_mut(&(vault, address)), "wallet", address)?;
    wallet.deposited_units = wallet.deposited_units.saturating_sub(units);
    let mut legs = Legs::default();
    let free = match (wallet.account, wallet.bucket) {
        (None, _) => wallet.unattributed,
        (Some(_), Some(bucket)) => world.grants.get(bucket.0 as usize).map_or(0, |grant| grant.free()),
        (Some(_), None) => 0,
    };
    let taken = amount.min(free.max(0));
    judge.equal(KIND, "unspent funds are taken first", taken, event.taken.0);
    judge.equal(KIND, "the rest is owed", amount - taken, event.owed.0);
    let owner = wallet.account.unwrap_or(AccountId::SYSTEM);
    let from = match wallet.account {
        None => {
            wallet.unattributed = wallet.unattributed.saturating_sub(taken);
            BookKey::system(AccountKind::UnattributedDeposits, asset)
        }
        Some(account) => {
            if let Some(grant) = wallet.bucket.and_then(|id| world.grants.get_mut(id.0 as usize)) {
                grant.remaining = grant.remaining.saturating_sub(taken);
            }
            BookKey::of(account, AccountKind::CustomerDeposited, asset)
        }
    };
    if let Some(row) = world.accounts.get_mut(&owner) {
        let debt = row.debts.entry(asset).or_default();
        *debt = debt.saturating_add(amount - taken);
    }
    legs.debit(from, taken);
    legs.debit(BookKey::of(owner, AccountKind::Receivable, asset), amount - taken);
    legs.credit(BookKey::system(AccountKind::VaultAsset, asset), amount);
    Some(legs)
}
