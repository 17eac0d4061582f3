//! Rules of the ways out: vouchers reserve, then are used or lapse, once; an exit takes what the vault paid (rulings 3.6).

use super::books::{BookKey, Legs};
use super::earnings;
use super::judge::Judge;
use super::wallets::Withdrawal;
use super::world::World;
use crate::checks::CheckKind;
use protocol::asset::VaultRef;
use protocol::event::Header;
use protocol::event::account::AccountKind;
use protocol::event::chain::{
    ExitCancelled, ExitFinalised, ExitRequested, VoucherIssued, VoucherLapsed, VoucherRedeemed,
};
use protocol::id::{AccountId, EvmAddress, VoucherId};

/// A voucher's deadline follows the chain's clock, which may be this far from the log's either way.
const CHAIN_CLOCK_SKEW_US: u64 = 86_400 * 1_000_000;

const KIND: CheckKind = CheckKind::Vouchers;

/// A withdrawal voucher.
#[derive(Clone, Debug)]
pub(crate) struct Voucher {
    pub(crate) account: AccountId,
    pub(crate) vault: VaultRef,
    pub(crate) wallet: EvmAddress,
    pub(crate) units: u64,
    pub(crate) amount: i128,
    pub(crate) nonce: u64,
    pub(crate) open: bool,
    pub(crate) issued_us: u64,
    pub(crate) ended_us: Option<u64>,
}

pub(crate) fn issued(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &VoucherIssued,
) -> Option<Legs> {
    let asset = judge.known(KIND, world.vaults.get(&event.vault), "vault", event.vault.vault)?.asset;
    let unit = world.vault_unit(asset)?;
    let amount = i128::from(event.units).saturating_mul(unit);
    judge.equal(KIND, "a voucher's amount is its units", amount, event.amount.0);
    let voucher_us = world.settings().map_or(0, |settings| settings.voucher_us);
    let deadline_us = event.deadline_s.saturating_mul(1_000_000);
    judge.require(KIND, "a voucher ends within the time the network allows", event.deadline_s, || {
        deadline_us.saturating_add(CHAIN_CLOCK_SKEW_US) > header.time_us
            && deadline_us <= header.time_us.saturating_add(voucher_us).saturating_add(CHAIN_CLOCK_SKEW_US)
    });
    let wallet = world.wallets.get(&(event.vault, event.wallet));
    let wallet = judge.known(KIND, wallet, "wallet", event.wallet)?;
    judge.require(KIND, "the wallet is the account's and does not leave", event.wallet, || {
        wallet.account == Some(event.account) && !wallet.exiting
    });
    let bucket = judge.known(KIND, wallet.bucket, "deposit bucket of the wallet", event.wallet)?;
    let nonce_open = world.vouchers.values().any(|voucher| {
        voucher.open
            && (voucher.vault, voucher.wallet, voucher.nonce) == (event.vault, event.wallet, event.nonce)
    });
    judge.require(KIND, "one open voucher a nonce", event.nonce, || !nonce_open);
    let grant = judge.known(KIND, world.grants.get_mut(bucket.0 as usize), "grant", bucket.0)?;
    let free = grant.free();
    judge.require(KIND, format_args!("at most the {free} that is neither held nor reserved"), amount, || {
        amount > 0 && amount <= free
    });
    grant.reserved = grant.reserved.saturating_add(amount);
    let row = Voucher {
        account: event.account,
        vault: event.vault,
        wallet: event.wallet,
        units: event.units,
        amount,
        nonce: event.nonce,
        open: true,
        issued_us: header.time_us,
        ended_us: None,
    };
    let is_new = world.vouchers.insert(event.voucher, row).is_none();
    judge.require(KIND, "a voucher is issued once", event.voucher, || is_new);
    let mut legs = Legs::default();
    legs.reserve(BookKey::of(event.account, AccountKind::CustomerDeposited, asset), amount);
    Some(legs)
}

/// Ends a voucher's reservation.
fn close(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    id: VoucherId,
    legs: &mut Legs,
) -> Option<Voucher> {
    let voucher = world.vouchers.get_mut(&id).filter(|voucher| voucher.open);
    let voucher = judge.known(KIND, voucher, "open voucher", id)?;
    (voucher.open, voucher.ended_us) = (false, Some(header.time_us));
    let voucher = voucher.clone();
    let bucket = world.wallets.get(&(voucher.vault, voucher.wallet)).and_then(|wallet| wallet.bucket);
    let grant = bucket.and_then(|bucket| world.grants.get_mut(bucket.0 as usize))?;
    grant.reserved = grant.reserved.saturating_sub(voucher.amount);
    legs.release(BookKey::of(voucher.account, AccountKind::CustomerDeposited, grant.asset), voucher.amount);
    Some(voucher)
}

pub(crate) fn redeemed(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &VoucherRedeemed,
) -> Option<Legs> {
    let mut legs = Legs::default();
    let voucher = close(world, judge, header, event.voucher, &mut legs)?;
    let asset = judge.known(KIND, world.vaults.get(&voucher.vault), "vault", voucher.vault.vault)?.asset;
    let wallet = world.wallets.get_mut(&(voucher.vault, voucher.wallet))?;
    wallet.withdrawn_units = wallet.withdrawn_units.saturating_add(voucher.units);
    let bucket = wallet.bucket;
    if let Some(grant) = bucket.and_then(|bucket| world.grants.get_mut(bucket.0 as usize)) {
        grant.remaining = grant.remaining.saturating_sub(voucher.amount);
    }
    legs.debit(BookKey::of(voucher.account, AccountKind::CustomerDeposited, asset), voucher.amount);
    legs.credit(BookKey::system(AccountKind::VaultAsset, asset), voucher.amount);
    let Voucher { vault, wallet, units, .. } = voucher;
    world.withdrawals.push(Withdrawal { leaf: header.leaf, vault, wallet, units, tx: event.tx });
    Some(legs)
}

pub(crate) fn lapsed(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &VoucherLapsed,
) -> Option<Legs> {
    let mut legs = Legs::default();
    close(world, judge, header, event.voucher, &mut legs)?;
    Some(legs)
}

pub(crate) fn exit_requested(world: &mut World, judge: &mut Judge, event: &ExitRequested) -> Option<Legs> {
    judge.known(KIND, world.vaults.get(&event.vault), "vault", event.vault.vault)?;
    let wallet = world.wallets.entry((event.vault, event.wallet)).or_default();
    let was = std::mem::replace(&mut wallet.exiting, true);
    judge.require(KIND, "an exit is requested once", event.wallet, || !was);
    Some(Legs::default())
}

pub(crate) fn exit_cancelled(world: &mut World, judge: &mut Judge, event: &ExitCancelled) -> Option<Legs> {
    let wallet = world.wallets.get_mut(&(event.vault, event.wallet)).filter(|wallet| wallet.exiting);
    judge.known(KIND, wallet, "wallet that leaves", event.wallet)?.exiting = false;
    Some(Legs::default())
}

/// What the vault paid leaves the books; bucket and waiting deposits end at zero, the difference goes to the
/// account's receivable.
pub(crate) fn exit_finalised(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &ExitFinalised,
) -> Option<Legs> {
    let (vault, address) = (event.vault, event.wallet);
    let asset = judge.known(KIND, world.vaults.get(&vault), "vault", vault.vault)?.asset;
    let unit = world.vault_unit(asset)?;
    let mut legs = Legs::default();
    let here = |voucher: &Voucher| voucher.open && (voucher.vault, voucher.wallet) == (vault, address);
    let dead: Vec<VoucherId> = world.vouchers.iter().filter(|(_, v)| here(v)).map(|(id, _)| *id).collect();
    for id in dead {
        close(world, judge, header, id, &mut legs)?;
    }
    let wallet = world.wallets.get_mut(&(vault, address)).filter(|wallet| wallet.exiting);
    let wallet = judge.known(KIND, wallet, "wallet that leaves", address)?;
    let owner = wallet.account.unwrap_or(AccountId::SYSTEM);
    let waiting = std::mem::take(&mut wallet.unattributed);
    (wallet.exiting, wallet.authorisation) = (false, None);
    // The vault rebases to what it charged: what waits for a batch can never be charged any more.
    let stranded = std::mem::take(&mut wallet.queue);
    wallet.captured = i128::from(wallet.charged_units).saturating_mul(unit);
    wallet.covered = wallet.captured;
    let out_units = wallet.withdrawn_units.saturating_add(wallet.charged_units);
    let balance_units = wallet.deposited_units.saturating_sub(out_units);
    wallet.withdrawn_units = wallet.withdrawn_units.saturating_add(event.units);
    judge.equal(KIND, "an exit pays the wallet's whole balance", balance_units, event.units);
    let mut mirrored = waiting;
    if let Some(grant) = wallet.bucket.and_then(|bucket| world.grants.get_mut(bucket.0 as usize)) {
        judge.equal(KIND, "nothing is held when a wallet leaves", 0, grant.held);
        let remaining = std::mem::take(&mut grant.remaining);
        mirrored = mirrored.saturating_add(remaining);
        legs.debit(BookKey::of(grant.account, AccountKind::CustomerDeposited, asset), remaining);
    }
    stranded.iter().for_each(|interval| earnings::stranded(world, asset, interval));
    let paid = i128::from(event.units).saturating_mul(unit);
    judge.equal(KIND, "an exit's amount is its units", paid, event.amount.0);
    let left = mirrored.saturating_sub(paid);
    judge.equal(KIND, "what the books had left after an exit", left, event.shortfall.0);
    legs.debit(BookKey::system(AccountKind::UnattributedDeposits, asset), waiting);
    // The difference, either way, is between the account and the network.
    legs.credit(BookKey::of(owner, AccountKind::Receivable, asset), left);
    if let Some(row) = world.accounts.get_mut(&owner) {
        let debt = row.debts.entry(asset).or_default();
        *debt = debt.saturating_sub(left);
    }
    legs.credit(BookKey::system(AccountKind::VaultAsset, asset), paid);
    let (leaf, units, tx) = (header.leaf, event.units, event.tx);
    world.withdrawals.push(Withdrawal { leaf, vault, wallet: address, units, tx });
    Some(legs)
}
