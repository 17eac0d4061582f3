//! Ways out: withdrawal vouchers, which reserve their amount until they are used or can no longer be, and exits, which
//! the chain carries out without us (rulings 3.6).

use crate::accounts::{book_key, spending_account};
use crate::apply::ApplyError;
use crate::books::BookKey;
use crate::command::{IssueVoucher, LapseVoucher, RedeemVoucher, SeeExitFinalised};
use crate::decide::{Legs, Plan};
use crate::deposits::{owe, vault_of};
use crate::earnings;
use crate::grants::{Grant, Paper};
use crate::refusal::Refusal;
use crate::state::State;
use crate::wallets::Wallet;
use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::asset::{AssetId, VaultRef};
use protocol::event::GrantId;
use protocol::event::account::AccountKind;
use protocol::event::chain::{
    ExitCancelled, ExitFinalised, ExitRequested, VoucherIssued, VoucherLapsed, VoucherRedeemed,
};
use protocol::id::{AccountId, EvmAddress, VoucherId};

/// Deadlines follow the chain's clock, which may be this far from ours either way.
pub const CHAIN_CLOCK_SKEW_US: u64 = 86_400 * 1_000_000;

/// One voucher.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Voucher {
    #[n(0)]
    pub(crate) account: AccountId,
    #[n(1)]
    pub(crate) vault: VaultRef,
    #[n(2)]
    pub(crate) wallet: EvmAddress,
    #[n(3)]
    pub(crate) units: u64,
    #[n(4)]
    pub(crate) amount: Amount,
    #[n(5)]
    pub(crate) nonce: u64,
    #[n(6)]
    pub(crate) deadline_s: u64,
    #[n(7)]
    pub(crate) state: VoucherState,
}

/// Where a voucher stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum VoucherState {
    /// Its amount is reserved.
    #[n(0)]
    Open,
    /// The vault paid it.
    #[n(1)]
    Redeemed,
    /// It can no longer be used.
    #[n(2)]
    Lapsed,
}

impl VoucherState {
    fn name(self) -> &'static str {
        match self {
            VoucherState::Open => "open",
            VoucherState::Redeemed => "redeemed",
            VoucherState::Lapsed => "lapsed",
        }
    }
}

/// What can be withdrawn from a wallet's bucket now, in vault units: what is neither held nor reserved. The cap does
/// not matter; captures that wait for their batch have left the bucket already.
pub(crate) fn withdrawable_units(state: &State, vault: VaultRef, wallet: EvmAddress) -> u64 {
    let free = bucket(state, vault, wallet).map_or(0, |grant| grant.free().max(0));
    let unit = vault_of(state, vault).map_or(1, |(_, unit)| unit);
    u64::try_from(free / unit).unwrap_or(u64::MAX)
}

fn bucket(state: &State, vault: VaultRef, wallet: EvmAddress) -> Option<&Grant> {
    let id = state.wallets.get(&(vault, wallet))?.bucket?;
    state.grants.get(id)
}

pub(crate) fn decide_issue(plan: &mut Plan, command: &IssueVoucher) -> Result<(), Refusal> {
    let state = plan.state;
    if state.vouchers.contains_key(&command.voucher) {
        return Err(Refusal::VoucherKnown { voucher: command.voucher });
    }
    let (registered, unit) = vault_of(state, command.vault)?;
    spending_account(state, command.account)?;
    let wallet = state.wallets.get(&(command.vault, command.wallet));
    let wallet = wallet.filter(|row| row.account == Some(command.account));
    let wallet = wallet.ok_or(Refusal::WalletNotLinked { wallet: command.wallet })?;
    if wallet.exit_at_s.is_some() {
        return Err(Refusal::ExitPending { wallet: command.wallet });
    }
    if command.units == 0 {
        return Err(Refusal::UnitsZero {});
    }
    let deadline_us = command.deadline_s.saturating_mul(1_000_000);
    let deadline_us_max =
        plan.now_us.saturating_add(plan.settings()?.voucher_us).saturating_add(CHAIN_CLOCK_SKEW_US);
    if deadline_us.saturating_add(CHAIN_CLOCK_SKEW_US) <= plan.now_us || deadline_us > deadline_us_max {
        return Err(Refusal::DeadlineOutOfRange { deadline_us, now_us: plan.now_us, deadline_us_max });
    }
    if let Some(voucher) = find(state, command.vault, command.wallet, command.nonce, VoucherState::Open) {
        return Err(Refusal::NonceInUse { nonce: command.nonce, voucher });
    }
    let withdrawable_units = withdrawable_units(state, command.vault, command.wallet);
    if command.units > withdrawable_units {
        return Err(Refusal::MoreThanWithdrawable { asked_units: command.units, withdrawable_units });
    }
    let amount = i128::from(command.units) * unit;
    let mut legs = Legs::default();
    reserve(plan, &mut legs, command.account, registered.asset, amount)?;
    let event = VoucherIssued {
        voucher: command.voucher,
        account: command.account,
        vault: command.vault,
        wallet: command.wallet,
        units: command.units,
        amount: Amount(amount),
        nonce: command.nonce,
        deadline_s: command.deadline_s,
    };
    plan.emit_with(event, legs);
    Ok(())
}

/// Pending legs of a reservation for a voucher; a negative amount releases.
fn reserve(
    plan: &mut Plan,
    legs: &mut Legs,
    account: AccountId,
    asset: AssetId,
    amount: i128,
) -> Result<(), Refusal> {
    let customer = book_key(plan.state, account, AccountKind::CustomerDeposited, asset);
    plan.reserve(legs, customer, amount)?;
    plan.reserve(legs, BookKey::system(AccountKind::HoldsPending, asset), -amount)
}

fn find(
    state: &State,
    vault: VaultRef,
    wallet: EvmAddress,
    nonce: u64,
    wanted: VoucherState,
) -> Option<VoucherId> {
    let same = |v: &Voucher| (v.vault, v.wallet, v.nonce, v.state) == (vault, wallet, nonce, wanted);
    state.vouchers.iter().find(|(_, voucher)| same(voucher)).map(|(id, _)| *id)
}

pub(crate) fn decide_redeem(plan: &mut Plan, command: &RedeemVoucher) -> Result<(), Refusal> {
    let state = plan.state;
    let RedeemVoucher { vault, wallet, nonce, units, tx } = *command;
    let (registered, _) = vault_of(state, vault)?;
    let Some(id) = find(state, vault, wallet, nonce, VoucherState::Open) else {
        let redeemed = find(state, vault, wallet, nonce, VoucherState::Redeemed);
        return Err(match redeemed {
            Some(voucher) => Refusal::VoucherClosed { voucher, state: VoucherState::Redeemed.name() },
            None => Refusal::VoucherNotOpen { wallet, nonce, units },
        });
    };
    let voucher = &state.vouchers[&id];
    if voucher.units != units {
        return Err(Refusal::UnitsDiffer { expected_units: voucher.units, given_units: units });
    }
    let (account, asset, amount) = (voucher.account, registered.asset, voucher.amount.0);
    let mut legs = Legs::default();
    reserve(plan, &mut legs, account, asset, -amount)?;
    plan.post(&mut legs, book_key(state, account, AccountKind::CustomerDeposited, asset), amount)?;
    plan.post(&mut legs, BookKey::system(AccountKind::VaultAsset, asset), -amount)?;
    plan.emit_with(VoucherRedeemed { voucher: id, tx }, legs);
    Ok(())
}

pub(crate) fn decide_lapse(plan: &mut Plan, command: &LapseVoucher) -> Result<(), Refusal> {
    let state = plan.state;
    let id = command.voucher;
    let voucher = state.vouchers.get(&id).ok_or(Refusal::VoucherUnknown { voucher: id })?;
    if voucher.state != VoucherState::Open {
        return Err(Refusal::VoucherClosed { voucher: id, state: voucher.state.name() });
    }
    let (registered, _) = vault_of(state, voucher.vault)?;
    let mut legs = Legs::default();
    reserve(plan, &mut legs, voucher.account, registered.asset, -voucher.amount.0)?;
    plan.emit_with(VoucherLapsed { voucher: id, block: command.block }, legs);
    Ok(())
}

pub(crate) fn decide_exit_requested(plan: &mut Plan, command: &ExitRequested) -> Result<(), Refusal> {
    vault_of(plan.state, command.vault)?;
    let wallet = plan.state.wallets.get(&(command.vault, command.wallet));
    if wallet.is_some_and(|row| row.exit_at_s.is_some()) {
        return Err(Refusal::ExitPending { wallet: command.wallet });
    }
    plan.emit(command.clone());
    Ok(())
}

pub(crate) fn decide_exit_cancelled(plan: &mut Plan, command: &ExitCancelled) -> Result<(), Refusal> {
    exiting(plan.state, command.vault, command.wallet)?;
    plan.emit(command.clone());
    Ok(())
}

fn exiting(state: &State, vault: VaultRef, wallet: EvmAddress) -> Result<&Wallet, Refusal> {
    let row = state.wallets.get(&(vault, wallet)).filter(|row| row.exit_at_s.is_some());
    row.ok_or(Refusal::NoExitPending { wallet })
}

/// The vault paid its whole balance of the wallet out: the bucket ends at zero, open vouchers are dead (the vault
/// bumped their nonce), captures it can no longer be charged for become the account's debt.
pub(crate) fn decide_exit_finalised(plan: &mut Plan, command: &SeeExitFinalised) -> Result<(), Refusal> {
    let state = plan.state;
    let SeeExitFinalised { vault, wallet, units, tx } = *command;
    let (registered, unit) = vault_of(state, vault)?;
    let row = exiting(state, vault, wallet)?;
    if let Some(batch) = state.open_batches.get(&vault) {
        let charged = state.batches[batch].charges.iter().any(|charge| charge.wallet == wallet);
        if charged {
            return Err(Refusal::BatchOpen { batch: *batch });
        }
    }
    let grant = bucket(state, vault, wallet);
    let held = grant.map_or(0, |grant| grant.held.0);
    if held != 0 {
        return Err(Refusal::HoldsOpen { wallet, held: Amount(held) });
    }
    let balance_units = row.deposited_units.checked_sub(row.withdrawn_units + row.charged_units);
    let expected_units = balance_units.unwrap_or(0);
    if units != expected_units {
        return Err(Refusal::UnitsDiffer { expected_units, given_units: units });
    }
    let asset = registered.asset;
    let paid = i128::from(units) * unit;
    let in_bucket = grant.map_or(0, |grant| grant.remaining.0 + row.reserved.0);
    let mirrored = row.unattributed.0 + in_bucket;
    let owner = row.account.unwrap_or(AccountId::SYSTEM);
    let mut legs = Legs::default();
    if let Some(grant) = grant {
        reserve(plan, &mut legs, owner, asset, -row.reserved.0)?;
        plan.post(&mut legs, grant.book_key(), in_bucket)?;
    }
    let waiting = BookKey::system(AccountKind::UnattributedDeposits, asset);
    plan.post(&mut legs, waiting, row.unattributed.0)?;
    let owed = paid - mirrored;
    plan.post(&mut legs, book_key(state, owner, AccountKind::Receivable, asset), owed)?;
    plan.post(&mut legs, BookKey::system(AccountKind::VaultAsset, asset), -paid)?;
    let (amount, shortfall) = (Amount(paid), Amount(-owed));
    plan.emit_with(ExitFinalised { vault, wallet, units, amount, shortfall, tx }, legs);
    Ok(())
}

pub(crate) fn apply_issued(state: &mut State, event: &VoucherIssued) -> Result<(), ApplyError> {
    let account = state.account_no(event.account)?;
    let grant = bucket_mut(state, event.vault, event.wallet)?;
    if event.amount.0 <= 0 || event.amount.0 > grant.free() || grant.account != account {
        return Err(ApplyError::Impossible("a voucher reserves more than there is"));
    }
    grant.remaining.0 -= event.amount.0;
    state.wallet_mut(event.vault, event.wallet)?.reserved.0 += event.amount.0;
    let row = Voucher {
        account: event.account,
        vault: event.vault,
        wallet: event.wallet,
        units: event.units,
        amount: event.amount,
        nonce: event.nonce,
        deadline_s: event.deadline_s,
        state: VoucherState::Open,
    };
    match state.vouchers.insert(event.voucher, row) {
        None => Ok(()),
        Some(_) => Err(ApplyError::Impossible("a voucher is issued twice")),
    }
}

fn bucket_mut(state: &mut State, vault: VaultRef, wallet: EvmAddress) -> Result<&mut Grant, ApplyError> {
    let bucket: Option<GrantId> = state.wallet_mut(vault, wallet)?.bucket;
    state.grant_mut(bucket.ok_or(ApplyError::Impossible("a wallet without a bucket pays out"))?)
}

/// Ends a voucher's reservation and gives the voucher as it was.
fn close(state: &mut State, id: VoucherId, end: VoucherState) -> Result<Voucher, ApplyError> {
    let voucher = state.vouchers.get_mut(&id).ok_or_else(|| ApplyError::unknown("voucher", id))?;
    if voucher.state != VoucherState::Open {
        return Err(ApplyError::Impossible("a voucher closes once"));
    }
    voucher.state = end;
    let voucher = voucher.clone();
    state.wallet_mut(voucher.vault, voucher.wallet)?.reserved.0 -= voucher.amount.0;
    Ok(voucher)
}

pub(crate) fn apply_redeemed(state: &mut State, event: &VoucherRedeemed) -> Result<(), ApplyError> {
    let voucher = close(state, event.voucher, VoucherState::Redeemed)?;
    withdraw(state, voucher.vault, voucher.wallet, voucher.units)
}

fn withdraw(state: &mut State, vault: VaultRef, wallet: EvmAddress, units: u64) -> Result<(), ApplyError> {
    let row = state.wallet_mut(vault, wallet)?;
    let withdrawn = row.withdrawn_units.checked_add(units);
    row.withdrawn_units = withdrawn.ok_or(ApplyError::Impossible("withdrawals beyond 64 bits"))?;
    Ok(())
}

pub(crate) fn apply_lapsed(state: &mut State, event: &VoucherLapsed) -> Result<(), ApplyError> {
    let voucher = close(state, event.voucher, VoucherState::Lapsed)?;
    bucket_mut(state, voucher.vault, voucher.wallet)?.remaining.0 += voucher.amount.0;
    Ok(())
}

pub(crate) fn apply_exit_requested(state: &mut State, event: &ExitRequested) -> Result<(), ApplyError> {
    if !state.vaults.contains_key(&event.vault) {
        return Err(ApplyError::unknown("vault", event.vault.vault));
    }
    state.wallets.sight((event.vault, event.wallet)).exit_at_s = Some(event.exit_at_s);
    Ok(())
}

pub(crate) fn apply_exit_cancelled(state: &mut State, event: &ExitCancelled) -> Result<(), ApplyError> {
    state.wallet_mut(event.vault, event.wallet)?.exit_at_s = None;
    Ok(())
}

pub(crate) fn apply_exit_finalised(state: &mut State, event: &ExitFinalised) -> Result<(), ApplyError> {
    let registered = state.vaults.get(&event.vault);
    let asset = registered.ok_or_else(|| ApplyError::unknown("vault", event.vault.vault))?.asset;
    let unit = state.vault_unit(asset).ok_or(ApplyError::Impossible("a vault's asset has no unit"))?;
    let here = |v: &Voucher| (v.vault, v.wallet, v.state) == (event.vault, event.wallet, VoucherState::Open);
    let dead = state.vouchers.iter().filter(|(_, voucher)| here(voucher));
    let dead: Vec<VoucherId> = dead.map(|(id, _)| *id).collect();
    for id in dead {
        close(state, id, VoucherState::Lapsed)?;
    }
    let row = state.wallet_mut(event.vault, event.wallet)?;
    if !row.reserved.is_zero() {
        return Err(ApplyError::Impossible("an exit leaves a voucher open"));
    }
    row.exit_at_s = None;
    row.authorisation = None;
    row.unattributed = Amount::ZERO;
    // The vault rebases to what it charged: what waits for a batch can never be charged any more.
    let stranded = std::mem::take(&mut row.queue);
    row.captured = Amount(i128::from(row.charged_units) * unit);
    let (account, bucket) = (row.account, row.bucket);
    for entry in stranded {
        let operator = state.operators.get(&entry.operator);
        let owner = operator.ok_or_else(|| ApplyError::unknown("operator", entry.operator))?.account_no;
        let counted = crate::splits::proportion(entry.share, entry.covered.0, entry.cost.0);
        let counted = counted.ok_or(ApplyError::Impossible("a share beyond 128 bits"))?;
        earnings::wait(state, (owner, asset, Paper::Unbacked), entry.share.0 - counted);
        state.jobs.unqueue(&entry.job)?;
    }
    if let Some(bucket) = bucket {
        let grant = state.grant_mut(bucket)?;
        if !grant.held.is_zero() {
            return Err(ApplyError::Impossible("an exit ends a bucket that is still held"));
        }
        grant.remaining = Amount::ZERO;
    }
    if let Some(account) = account {
        owe(state, account, asset, -event.shortfall)?;
    }
    withdraw(state, event.vault, event.wallet, event.units)
}
