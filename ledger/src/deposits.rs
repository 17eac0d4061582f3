//! Vaults, wallets and deposits: what lies on a chain for whom, and how much of it may be spent. A deposit is mirrored
//! exactly once; a reversed one takes unspent funds first (rulings 3.2, 3.7).

use crate::accounts::{book_key, open_account};
use crate::apply::ApplyError;
use crate::books::BookKey;
use crate::command::{CheckSolvency, ConfirmDeposit, ReverseDeposit};
use crate::decide::{Legs, Plan};
use crate::grants::{self, PRIORITY_DEPOSITED};
use crate::refusal::Refusal;
use crate::state::State;
use crate::wallets::WalletNo;
use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::asset::{AssetId, VAULT_SCALE, VaultRef};
use protocol::event::account::{AccountKind, SpendAuthorised};
use protocol::event::chain::{
    DepositAttributed, DepositConfirmed, DepositReversed, SolvencyChecked, VaultRegistered,
};
use protocol::event::grant::{Backing, GrantIssued, GrantSource};
use protocol::id::{AccountId, EvmAddress, Hash32, JobId, OperatorId};

/// The newest spend authorisation.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Authorisation {
    #[n(0)]
    pub(crate) max_cumulative_units: u64,
    #[n(1)]
    pub(crate) valid_until_s: u32,
    #[n(2)]
    pub(crate) nonce: u64,
    #[n(3)]
    pub(crate) session: Hash32,
}

/// The part of a capture that one wallet pays, while it waits for its charge.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct QueuedCapture {
    #[n(0)]
    pub(crate) job: JobId,
    #[n(1)]
    pub(crate) operator: OperatorId,
    #[n(2)]
    pub(crate) cost: Amount,
    /// The operator's part of that cost.
    #[n(3)]
    pub(crate) share: Amount,
    /// How much of the cost closed batches charge.
    #[n(4)]
    pub(crate) covered: Amount,
    #[n(5)]
    pub(crate) receipt: Hash32,
    #[n(6)]
    pub(crate) leaf: u64,
    #[n(7)]
    pub(crate) time_us: u64,
    /// Its place among the capture's slices; with the leaf it names the entry.
    #[n(8)]
    pub(crate) slice: u32,
}

/// One mirrored deposit.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Deposit {
    #[n(0)]
    pub(crate) wallet: EvmAddress,
    #[n(1)]
    pub(crate) units: u64,
    #[n(2)]
    pub(crate) amount: Amount,
    #[n(3)]
    pub(crate) reversed: bool,
}

/// What a wallet's signature and the chain let us charge beyond what was captured: 0 from the first sight of an exit
/// request, and from some epochs before the authorisation ends (rulings 3.2).
pub(crate) fn collectable(state: &State, wallet: WalletNo, now_us: u64) -> i128 {
    let row = &state.wallets[wallet];
    let vault = row.vault;
    let Some(authorisation) = &row.authorisation else { return 0 };
    let (Some(settings), Some(registered)) = (state.settings(), state.vaults.get(&vault)) else { return 0 };
    let Some(unit) = state.vault_unit(registered.asset) else { return 0 };
    let margin_us = settings.epoch_us.saturating_mul(u64::from(settings.authorisation_margin_epochs));
    let valid_until_us = u64::from(authorisation.valid_until_s) * 1_000_000;
    if row.exit_at_s.is_some() || now_us >= valid_until_us.saturating_sub(margin_us) {
        return 0;
    }
    let cap = i128::from(authorisation.max_cumulative_units) * unit;
    (cap - row.captured.0).max(0)
}

/// The registered vault with its asset and the base units of its unit.
pub(crate) fn vault_of(state: &State, vault: VaultRef) -> Result<(&VaultRegistered, i128), Refusal> {
    let registered = state.vaults.get(&vault).ok_or(Refusal::VaultUnknown { vault })?;
    let unit = state.vault_unit(registered.asset).ok_or(Refusal::AssetUnknown { asset: registered.asset })?;
    Ok((registered, unit))
}

pub(crate) fn decide_register_vault(plan: &mut Plan, command: &VaultRegistered) -> Result<(), Refusal> {
    if plan.state.vaults.contains_key(&command.vault) {
        return Err(Refusal::VaultKnown { vault: command.vault });
    }
    let asset = plan.state.asset(command.asset).ok_or(Refusal::AssetUnknown { asset: command.asset })?;
    if asset.chain_scale.is_none() || asset.ledger_scale < VAULT_SCALE {
        return Err(Refusal::AssetNotOnChain { asset: command.asset });
    }
    let taken = plan.state.operators.values().any(|o| o.payout_address == command.platform);
    if taken {
        return Err(Refusal::PayoutAddressTaken { address: command.platform });
    }
    plan.emit(command.clone());
    Ok(())
}

/// Links the wallet at the first signature; waiting deposits follow it.
pub(crate) fn decide_authorise(plan: &mut Plan, command: &SpendAuthorised) -> Result<(), Refusal> {
    let state = plan.state;
    open_account(state, command.account)?;
    let (registered, _) = vault_of(state, command.vault)?;
    if u64::from(command.valid_until_s) * 1_000_000 <= plan.now_us {
        return Err(Refusal::AuthorisationExpired { valid_until_s: command.valid_until_s });
    }
    let wallet = state.wallets.get(&(command.vault, command.wallet));
    let linked_elsewhere = wallet.and_then(|row| row.account).is_some_and(|id| id != command.account);
    if linked_elsewhere {
        return Err(Refusal::WalletLinkedElsewhere { wallet: command.wallet });
    }
    if let Some(known) = wallet.and_then(|row| row.authorisation.as_ref()) {
        if command.nonce < known.nonce {
            return Err(Refusal::AuthorisationNonce { known: known.nonce, given: command.nonce });
        }
        if command.nonce == known.nonce && command.max_cumulative_units <= known.max_cumulative_units {
            return Err(Refusal::AuthorisationNotHigher {
                known_units: known.max_cumulative_units,
                given_units: command.max_cumulative_units,
            });
        }
    }
    plan.emit(command.clone());
    let waiting = wallet.map_or(Amount::ZERO, |row| row.unattributed);
    if waiting.is_zero() {
        return Ok(());
    }
    let (vault, wallet, account) = (command.vault, command.wallet, command.account);
    ensure_bucket(plan, vault, wallet, account, registered.asset)?;
    let mut legs = Legs::default();
    plan.post(&mut legs, BookKey::system(AccountKind::UnattributedDeposits, registered.asset), waiting.0)?;
    credit_customer(plan, &mut legs, account, registered.asset, waiting.0)?;
    plan.emit_with(DepositAttributed { vault, wallet, account, amount: waiting }, legs);
    Ok(())
}

/// Opens the wallet's deposit bucket unless it has one.
fn ensure_bucket(
    plan: &mut Plan,
    vault: VaultRef,
    wallet: EvmAddress,
    account: AccountId,
    asset: AssetId,
) -> Result<(), Refusal> {
    let known = plan.state.wallets.get(&(vault, wallet)).and_then(|row| row.bucket);
    if known.is_none() {
        plan.emit(GrantIssued {
            grant: grants::next_id(plan.state)?,
            account,
            source: GrantSource::Deposited,
            asset,
            amount: Amount::ZERO,
            priority: PRIORITY_DEPOSITED,
            scope: Vec::new(),
            expires_us: None,
            backing: Backing::Vault(vault, wallet),
        });
    }
    Ok(())
}

/// Credits deposited funds: what the account owes is repaid first.
fn credit_customer(
    plan: &mut Plan,
    legs: &mut Legs,
    account: AccountId,
    asset: AssetId,
    amount: i128,
) -> Result<(), Refusal> {
    let debt = plan.state.accounts.find(&account).map_or(0, |number| plan.state.accounts.debt(number, asset));
    let repaid = debt.min(amount);
    let state = plan.state;
    plan.post(legs, book_key(state, account, AccountKind::Receivable, asset), -repaid)?;
    plan.post(legs, book_key(state, account, AccountKind::CustomerDeposited, asset), repaid - amount)
}

pub(crate) fn decide_confirm(plan: &mut Plan, command: &ConfirmDeposit) -> Result<(), Refusal> {
    let state = plan.state;
    let vault = command.key.vault;
    let (registered, unit) = vault_of(state, vault)?;
    if state.deposits.get(&command.key).is_some_and(|deposit| !deposit.reversed) {
        return Err(Refusal::DepositKnown { key: command.key });
    }
    if command.units == 0 {
        return Err(Refusal::UnitsZero {});
    }
    let wallet = state.wallets.get(&(vault, command.wallet));
    let deposited = wallet.map_or(0, |row| row.deposited_units).checked_add(command.units);
    deposited.ok_or(Refusal::Overflow { what: "the wallet's deposits" })?;
    let asset = registered.asset;
    let amount = i128::from(command.units) * unit;
    let account = wallet.and_then(|row| row.account);
    let mut legs = Legs::default();
    plan.post(&mut legs, BookKey::system(AccountKind::VaultAsset, asset), amount)?;
    match account {
        Some(account) => {
            ensure_bucket(plan, vault, command.wallet, account, asset)?;
            credit_customer(plan, &mut legs, account, asset, amount)?;
        }
        None => {
            let waiting = BookKey::system(AccountKind::UnattributedDeposits, asset);
            plan.post(&mut legs, waiting, -amount)?;
        }
    }
    let event = DepositConfirmed {
        key: command.key,
        wallet: command.wallet,
        units: command.units,
        amount: Amount(amount),
        account,
        block: command.block,
        block_hash: command.block_hash,
    };
    plan.emit_with(event, legs);
    Ok(())
}

pub(crate) fn decide_reverse(plan: &mut Plan, command: &ReverseDeposit) -> Result<(), Refusal> {
    let state = plan.state;
    let deposit = state.deposits.get(&command.key).filter(|deposit| !deposit.reversed);
    let deposit = deposit.ok_or(Refusal::DepositUnknown { key: command.key })?;
    let vault = command.key.vault;
    let (registered, _) = vault_of(state, vault)?;
    let (asset, amount) = (registered.asset, deposit.amount.0);
    let wallet = state.wallets.get(&(vault, deposit.wallet)).expect("a mirrored deposit has its wallet");
    let mut legs = Legs::default();
    let taken = match wallet.account {
        None => {
            let taken = amount.min(wallet.unattributed.0);
            let waiting = BookKey::system(AccountKind::UnattributedDeposits, asset);
            plan.post(&mut legs, waiting, taken)?;
            taken
        }
        Some(account) => {
            let free = wallet.bucket.map_or(0, |id| state.grants[id].free().max(0));
            let taken = amount.min(free);
            let customer = book_key(state, account, AccountKind::CustomerDeposited, asset);
            plan.post(&mut legs, customer, taken)?;
            taken
        }
    };
    let owed = amount - taken;
    let owner = wallet.account.unwrap_or(AccountId::SYSTEM);
    plan.post(&mut legs, book_key(state, owner, AccountKind::Receivable, asset), owed)?;
    plan.post(&mut legs, BookKey::system(AccountKind::VaultAsset, asset), -amount)?;
    let event = DepositReversed { key: command.key, taken: Amount(taken), owed: Amount(owed) };
    plan.emit_with(event, legs);
    Ok(())
}

/// What a vault owes all its wallets by the log, vault units.
fn owed_units(state: &State, vault: VaultRef) -> Option<u64> {
    let owed = |row: &crate::wallets::Wallet| {
        row.deposited_units.checked_sub(row.withdrawn_units)?.checked_sub(row.charged_units)
    };
    state.wallets.of(vault).try_fold(0u64, |sum, row| sum.checked_add(owed(row).unwrap_or(0)))
}

pub(crate) fn decide_solvency(plan: &mut Plan, command: &CheckSolvency) -> Result<(), Refusal> {
    let CheckSolvency { vault, block, block_hash, held_units } = *command;
    vault_of(plan.state, vault)?;
    let owed_units = owed_units(plan.state, vault).ok_or(Refusal::Overflow { what: "what a vault owes" })?;
    plan.emit(SolvencyChecked { vault, block, block_hash, held_units, owed_units });
    Ok(())
}

pub(crate) fn apply_solvency(state: &mut State, event: &SolvencyChecked) -> Result<(), ApplyError> {
    match owed_units(state, event.vault) {
        Some(owed_units) if owed_units == event.owed_units => Ok(()),
        _ => Err(ApplyError::Impossible("what a vault owes does not follow from its wallets")),
    }
}

pub(crate) fn apply_vault_registered(state: &mut State, event: &VaultRegistered) -> Result<(), ApplyError> {
    if state.vault_unit(event.asset).is_none() {
        return Err(ApplyError::unknown("asset that a vault can hold", event.asset.0));
    }
    match state.vaults.insert(event.vault, event.clone()) {
        None => Ok(()),
        Some(_) => Err(ApplyError::Impossible("a vault is registered twice")),
    }
}

pub(crate) fn apply_authorised(state: &mut State, event: &SpendAuthorised) -> Result<(), ApplyError> {
    if !state.vaults.contains_key(&event.vault) {
        return Err(ApplyError::unknown("vault", event.vault.vault));
    }
    let key = (event.vault, event.wallet);
    let number = state.account_no(event.account)?;
    state.accounts.wallets.insert((number, key.0, key.1));
    let wallet = state.wallets.sight(key);
    if wallet.account.is_some_and(|account| account != event.account) {
        return Err(ApplyError::Impossible("a wallet is linked to a second account"));
    }
    wallet.account = Some(event.account);
    wallet.authorisation = Some(Authorisation {
        max_cumulative_units: event.max_cumulative_units,
        valid_until_s: event.valid_until_s,
        nonce: event.nonce,
        session: event.session,
    });
    Ok(())
}

/// Fills the wallet's bucket with what is left after the account's debt; the same arithmetic as [`credit_customer`].
fn fill(state: &mut State, key: (VaultRef, EvmAddress), amount: i128) -> Result<(), ApplyError> {
    let wallet = state.wallet_mut(key.0, key.1)?;
    let (Some(owner), Some(bucket)) = (wallet.account, wallet.bucket) else {
        return Err(ApplyError::Impossible("a deposit is credited without account or bucket"));
    };
    let asset = state.grant(bucket)?.asset();
    let owner = state.account_no(owner)?;
    let repaid = state.accounts.debt(owner, asset).min(amount);
    state.accounts.owe(owner, asset, -repaid)?;
    state.grant_mut(bucket)?.remaining.0 += amount - repaid;
    Ok(())
}

pub(crate) fn apply_confirmed(state: &mut State, event: &DepositConfirmed) -> Result<(), ApplyError> {
    let key = (event.key.vault, event.wallet);
    let row = Deposit { wallet: event.wallet, units: event.units, amount: event.amount, reversed: false };
    if state.deposits.insert(event.key, row).is_some_and(|before| !before.reversed) {
        return Err(ApplyError::Impossible("a deposit is confirmed twice"));
    }
    let wallet = state.wallets.sight(key);
    let deposited = wallet.deposited_units.checked_add(event.units);
    wallet.deposited_units = deposited.ok_or(ApplyError::Impossible("deposits beyond 64 bits"))?;
    if event.account != wallet.account || event.amount.0 < 0 {
        return Err(ApplyError::Impossible("a deposit goes to the account its wallet is linked to"));
    }
    match event.account {
        Some(_) => fill(state, key, event.amount.0),
        None => {
            wallet.unattributed.0 += event.amount.0;
            Ok(())
        }
    }
}

pub(crate) fn apply_attributed(state: &mut State, event: &DepositAttributed) -> Result<(), ApplyError> {
    let wallet = state.wallet_mut(event.vault, event.wallet)?;
    if wallet.unattributed != event.amount || wallet.account != Some(event.account) {
        return Err(ApplyError::Impossible("all that waited goes to the account that linked the wallet"));
    }
    wallet.unattributed = Amount::ZERO;
    fill(state, (event.vault, event.wallet), event.amount.0)
}

pub(crate) fn apply_reversed(state: &mut State, event: &DepositReversed) -> Result<(), ApplyError> {
    let deposit = state.deposits.get_mut(&event.key).filter(|deposit| !deposit.reversed);
    let deposit = deposit.ok_or(ApplyError::Impossible("an unknown deposit is reversed"))?;
    deposit.reversed = true;
    let (units, amount, address) = (deposit.units, deposit.amount, deposit.wallet);
    if event.taken.0 < 0 || event.owed.0 < 0 || event.taken.checked_add(event.owed) != Some(amount) {
        return Err(ApplyError::Impossible("taken and owed must sum to the deposit"));
    }
    let wallet = state.wallet_mut(event.key.vault, address)?;
    let left = wallet.deposited_units.checked_sub(units);
    wallet.deposited_units = left.ok_or(ApplyError::Impossible("more is reversed than was deposited"))?;
    let (owner, bucket) = (wallet.account, wallet.bucket);
    let Some(owner) = owner else {
        wallet.unattributed.0 -= event.taken.0;
        return Ok(());
    };
    if let Some(bucket) = bucket {
        let grant = state.grant_mut(bucket)?;
        if event.taken.0 > grant.free() {
            return Err(ApplyError::Impossible("held or reserved funds are taken"));
        }
        grant.remaining.0 -= event.taken.0;
    }
    let vault = state.vaults.get(&event.key.vault);
    let asset = vault.ok_or_else(|| ApplyError::unknown("vault", event.key.vault.vault))?.asset;
    owe(state, owner, asset, event.owed)
}

/// See [`crate::accounts::Accounts::owe`].
pub(crate) fn owe(
    state: &mut State,
    account: AccountId,
    asset: AssetId,
    amount: Amount,
) -> Result<(), ApplyError> {
    let number = state.account_no(account)?;
    state.accounts.owe(number, asset, amount.0)
}
