//! Settlement: which wallets are charged, which payees are paid, and what of it the chain has confirmed. Ledger figures
//! become vault units by the floor of the cumulative, never of a delta (rulings 3.4).

use crate::accounts::book_key;
use crate::apply::ApplyError;
use crate::books::BookKey;
use crate::command::{CloseBatch, ConfirmBatch, FailBatch, RecordClaim};
use crate::decide::{Legs, Plan};
use crate::deposits::vault_of;
use crate::refusal::Refusal;
use crate::splits::proportion;
use crate::state::State;
use crate::wallets::Wallet;
use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::asset::{AssetId, VaultRef};
use protocol::event::Header;
use protocol::event::account::AccountKind;
use protocol::event::batch::{
    BatchClosed, BatchConfirmed, BatchFailed, BatchReplaced, BatchSubmitted, Charge, Payout, PayoutClaimed,
    Rail,
};
use protocol::event::chain::CheckpointAnchored;
use protocol::id::{AccountId, BatchId, EvmAddress, Hash32, JobId, OperatorId, Word32};
use std::collections::BTreeMap;

/// Most wallets one batch charges; the rest wait for the next. Keeps the event within a log entry.
pub const BATCH_CHARGES_MAX: usize = 400;
/// Most wallets that one batch names as waiting; behind them, others wait too.
pub const BATCH_SHORT_MAX: usize = 1_000;
/// Epochs a small debt may wait for more.
pub const SMALL_DEBT_EPOCHS_MAX: u64 = 4;

/// What a vault's payout root pays one account, for life.
#[derive(Clone, PartialEq, Eq, Default, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Payee {
    /// Its share of everything charged, base units, before the floor to vault units.
    #[n(0)]
    pub(crate) covered: Amount,
    /// In closed batches, vault units.
    #[n(1)]
    pub(crate) closed_units: u64,
    /// In confirmed batches, vault units.
    #[n(2)]
    pub(crate) confirmed_units: u64,
    /// Claimed from the pot, vault units.
    #[n(3)]
    pub(crate) claimed_units: u64,
}

/// Where a batch stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum BatchState {
    /// Cut-off and charges are fixed.
    #[n(0)]
    Closed,
    /// Roots and commitment are fixed.
    #[n(1)]
    Submitted,
    /// Final on the chain.
    #[n(2)]
    Confirmed,
    /// Will not be paid as closed.
    #[n(3)]
    Failed,
}

impl BatchState {
    fn name(self) -> &'static str {
        match self {
            BatchState::Closed => "closed",
            BatchState::Submitted => "submitted",
            BatchState::Confirmed => "confirmed",
            BatchState::Failed => "failed",
        }
    }
}

/// One batch.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Batch {
    #[n(0)]
    pub(crate) number: u64,
    #[n(1)]
    pub(crate) vault: VaultRef,
    #[n(2)]
    pub(crate) asset: AssetId,
    #[n(3)]
    pub(crate) cutoff_leaf: u64,
    #[n(4)]
    pub(crate) rail: Rail,
    #[n(5)]
    pub(crate) charges: Vec<Charge>,
    #[n(6)]
    pub(crate) payouts: Vec<Payout>,
    #[n(7)]
    pub(crate) lines: Vec<Line>,
    #[n(8)]
    pub(crate) state: BatchState,
    #[n(9)]
    pub(crate) closed_leaf: u64,
    #[n(10)]
    pub(crate) closed_us: u64,
    #[n(11)]
    pub(crate) submitted: Option<BatchSubmitted>,
    #[n(12)]
    pub(crate) confirmed_tx: Option<Word32>,
}

/// What a batch charges of one capture.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Line {
    #[n(0)]
    pub(crate) wallet: EvmAddress,
    #[n(1)]
    pub(crate) job: JobId,
    #[n(2)]
    pub(crate) operator: OperatorId,
    /// Of the capture's cost, base units.
    #[n(3)]
    pub(crate) cost: Amount,
    /// Of the operator's share, base units.
    #[n(4)]
    pub(crate) share: Amount,
    #[n(5)]
    pub(crate) receipt: Hash32,
    #[n(6)]
    pub(crate) leaf: u64,
    /// The queue entry's place among its capture's slices.
    #[n(7)]
    pub(crate) slice: u32,
}

/// What a close comes to; decided from the state alone, so that `apply` finds the same lines.
struct Closing {
    charges: Vec<Charge>,
    payouts: Vec<Payout>,
    lines: Vec<Line>,
}

/// Who is due: charged, or left to wait because the chain would charge it short.
#[derive(Default)]
struct Due {
    charges: Vec<Charge>,
    short: Vec<EvmAddress>,
}

fn due(state: &State, command: &CloseBatch, unit: i128, now_us: u64) -> Option<Due> {
    let settings = state.settings()?;
    let wait_us_max = settings.epoch_us.saturating_mul(SMALL_DEBT_EPOCHS_MAX);
    let margin_us = settings.epoch_us.saturating_mul(u64::from(settings.authorisation_margin_epochs));
    let mut due = Due::default();
    for row in state.wallets.of(command.vault) {
        let wallet = row.address;
        let cumulative_units = u64::try_from(row.captured.0.div_euclid(unit)).ok()?;
        let added_units = cumulative_units.saturating_sub(row.charged_units);
        let waits =
            row.queue.front().is_some_and(|first| first.time_us.saturating_add(wait_us_max) <= now_us);
        // The vault charges nothing after `valid_until`: a small debt must not wait until then.
        let ends_soon = row.authorisation.as_ref().is_some_and(|authorisation| {
            now_us.saturating_add(margin_us) >= u64::from(authorisation.valid_until_s) * 1_000_000
        });
        let hurries = waits || ends_soon || row.exit_at_s.is_some();
        if added_units == 0 || (added_units < settings.settle_units_min && !hurries) {
            continue;
        }
        if command.without.contains(&wallet) {
            due.short.push(wallet);
        } else {
            due.charges.push(Charge { wallet, cumulative_units, added_units });
        }
        if due.charges.len() == BATCH_CHARGES_MAX || due.short.len() == BATCH_SHORT_MAX {
            break;
        }
    }
    Some(due)
}

/// First in, first out: the captures that a wallet's added charge covers, the last one possibly in part.
fn cover(wallet: EvmAddress, row: &Wallet, budget: i128, lines: &mut Vec<Line>) -> Option<()> {
    let mut open = budget;
    for entry in row.queue.iter().filter(|entry| entry.covered != entry.cost) {
        if open == 0 {
            break;
        }
        let take = (entry.cost.0 - entry.covered.0).min(open);
        let before = proportion(entry.share, entry.covered.0, entry.cost.0)?;
        let after = proportion(entry.share, entry.covered.0 + take, entry.cost.0)?;
        lines.push(Line {
            wallet,
            job: entry.job,
            operator: entry.operator,
            cost: Amount(take),
            share: Amount(after - before),
            receipt: entry.receipt,
            leaf: entry.leaf,
            slice: entry.slice,
        });
        open -= take;
    }
    (open == 0).then_some(())
}

/// Payees of a vault after the lines: operators' cumulative floors, and the platform with the rest. When floors of
/// several operators would together exceed what is charged, the later addresses wait for the next batch.
fn payouts(state: &State, vault: VaultRef, unit: i128, closing: &Closing) -> Option<Vec<Payout>> {
    let mut added: BTreeMap<AccountId, i128> = BTreeMap::new();
    for line in &closing.lines {
        *added.entry(state.operators.get(&line.operator)?.account).or_default() += line.share.0;
    }
    let first = (vault, AccountId([0; 16]));
    let last = (vault, AccountId([0xff; 16]));
    for ((_, account), _) in state.payees.range(first..=last) {
        added.entry(*account).or_default();
    }
    added.remove(&AccountId::SYSTEM);
    let addresses: BTreeMap<AccountId, EvmAddress> =
        state.operators.values().map(|o| (o.account, o.payout_address)).collect();
    let mut payouts = Vec::new();
    for (account, base) in added {
        let before = state.payees.get(&(vault, account)).cloned().unwrap_or_default();
        let floor = u64::try_from((before.covered.0 + base).div_euclid(unit)).ok()?;
        payouts.push(Payout {
            account,
            address: *addresses.get(&account)?,
            cumulative_units: floor,
            added_units: floor.checked_sub(before.closed_units)?,
        });
    }
    payouts.sort_by_key(|payout| payout.address);
    let mut open: u64 = closing.charges.iter().map(|charge| charge.added_units).sum();
    for payout in &mut payouts {
        let waits = payout.added_units.saturating_sub(open);
        payout.added_units -= waits;
        payout.cumulative_units -= waits;
        open -= payout.added_units;
    }
    let platform_before = state.payees.get(&(vault, AccountId::SYSTEM)).map_or(0, |p| p.closed_units);
    payouts.push(Payout {
        account: AccountId::SYSTEM,
        address: state.vaults.get(&vault)?.platform,
        cumulative_units: platform_before.checked_add(open)?,
        added_units: open,
    });
    payouts.sort_by_key(|payout| payout.address);
    payouts.retain(|payout| payout.cumulative_units > 0);
    Some(payouts)
}

fn closing(state: &State, vault: VaultRef, unit: i128, charges: Vec<Charge>) -> Option<Closing> {
    let mut closing = Closing { charges, payouts: Vec::new(), lines: Vec::new() };
    for charge in &closing.charges {
        let row = state.wallets.get(&(vault, charge.wallet))?;
        let covered: i128 = row.queue.iter().map(|entry| entry.covered.0).sum();
        let uncovered: i128 = row.queue.iter().map(|entry| entry.cost.0).sum::<i128>() - covered;
        let covered_before = row.captured.0 - uncovered;
        let budget = i128::from(charge.cumulative_units) * unit - covered_before;
        cover(charge.wallet, row, budget, &mut closing.lines)?;
    }
    closing.payouts = payouts(state, vault, unit, &closing)?;
    Some(closing)
}

pub(crate) fn decide_close(plan: &mut Plan, command: &CloseBatch) -> Result<(), Refusal> {
    let state = plan.state;
    let vault = command.vault;
    if state.batches.contains_key(&command.batch) {
        return Err(Refusal::BatchKnown { batch: command.batch });
    }
    let (registered, unit) = vault_of(state, vault)?;
    if let Some(batch) = state.open_batches.get(&vault) {
        return Err(Refusal::BatchOpen { batch: *batch });
    }
    let overflow = Refusal::Overflow { what: "a batch's figures" };
    let Due { charges, short } = due(state, command, unit, plan.now_us).ok_or(overflow.clone())?;
    if charges.is_empty() {
        return Err(Refusal::NothingToCharge { vault });
    }
    let closing = closing(state, vault, unit, charges).ok_or(overflow)?;
    let asset = registered.asset;
    let mut legs = Legs::default();
    settle_legs(plan, &mut legs, &closing.payouts, asset, Settle::Close)?;
    let event = BatchClosed {
        batch: command.batch,
        number: state.batch_numbers.get(&vault).copied().unwrap_or(0) + 1,
        vault,
        asset,
        cutoff_leaf: state.next_leaf,
        rail: command.rail,
        charges: closing.charges,
        payouts: closing.payouts,
        short: (!short.is_empty()).then_some(short),
    };
    plan.emit_with(event, legs);
    Ok(())
}

/// Which way operators' amounts move.
#[derive(Clone, Copy)]
enum Settle {
    /// Accrued to settling.
    Close,
    /// Settling to payable.
    Confirm,
    /// Settling back to accrued.
    Fail,
}

fn settle_legs(
    plan: &mut Plan,
    legs: &mut Legs,
    payouts: &[Payout],
    asset: AssetId,
    settle: Settle,
) -> Result<(), Refusal> {
    let unit = plan.state.vault_unit(asset).ok_or(Refusal::AssetUnknown { asset })?;
    let (from, to) = match settle {
        Settle::Close => (AccountKind::OperatorAccrued, AccountKind::OperatorSettling),
        Settle::Confirm => (AccountKind::OperatorSettling, AccountKind::OperatorPayable),
        Settle::Fail => (AccountKind::OperatorSettling, AccountKind::OperatorAccrued),
    };
    for payout in payouts.iter().filter(|payout| payout.account != AccountId::SYSTEM) {
        let amount = i128::from(payout.added_units) * unit;
        let (from, to) = [from, to].map(|kind| book_key(plan.state, payout.account, kind, asset)).into();
        plan.post(legs, from, amount)?;
        plan.post(legs, to, -amount)?;
    }
    Ok(())
}

/// The batch, if it stands as it must.
fn expect<'a>(state: &'a State, id: BatchId, wanted: &[BatchState]) -> Result<&'a Batch, Refusal> {
    let batch = state.batches.get(&id).ok_or(Refusal::BatchUnknown { batch: id })?;
    if !wanted.contains(&batch.state) {
        return Err(Refusal::BatchNotOpen { batch: id, state: batch.state.name() });
    }
    Ok(batch)
}

pub(crate) fn decide_submit(plan: &mut Plan, command: &BatchSubmitted) -> Result<(), Refusal> {
    let batch = expect(plan.state, command.batch, &[BatchState::Closed])?;
    let expected_units: u64 = batch.payouts.iter().map(|payout| payout.cumulative_units).sum();
    if command.root_total_units != expected_units {
        return Err(Refusal::UnitsDiffer { expected_units, given_units: command.root_total_units });
    }
    if command.tlog_size <= batch.closed_leaf {
        return Err(Refusal::CheckpointTooSmall { size: command.tlog_size, leaf: batch.closed_leaf });
    }
    plan.emit(command.clone());
    Ok(())
}

pub(crate) fn decide_confirm(plan: &mut Plan, command: &ConfirmBatch) -> Result<(), Refusal> {
    let batch = expect(plan.state, command.batch, &[BatchState::Submitted])?;
    let expected_units: u64 = batch.charges.iter().map(|charge| charge.added_units).sum();
    if command.charged_units != expected_units {
        return Err(Refusal::UnitsDiffer { expected_units, given_units: command.charged_units });
    }
    let (_, unit) = vault_of(plan.state, batch.vault)?;
    let amount = i128::from(expected_units) * unit;
    let mut legs = Legs::default();
    plan.post(&mut legs, BookKey::system(AccountKind::PotAsset, batch.asset), amount)?;
    plan.post(&mut legs, BookKey::system(AccountKind::VaultAsset, batch.asset), -amount)?;
    settle_legs(plan, &mut legs, &batch.payouts, batch.asset, Settle::Confirm)?;
    let event = BatchConfirmed {
        batch: command.batch,
        tx: command.tx,
        block: command.block,
        block_hash: command.block_hash,
        charged_units: command.charged_units,
        amount: Amount(amount),
    };
    plan.emit_with(event, legs);
    Ok(())
}

pub(crate) fn decide_fail(plan: &mut Plan, command: &FailBatch) -> Result<(), Refusal> {
    let batch = expect(plan.state, command.batch, &[BatchState::Closed, BatchState::Submitted])?;
    let mut legs = Legs::default();
    settle_legs(plan, &mut legs, &batch.payouts, batch.asset, Settle::Fail)?;
    plan.emit_with(BatchFailed { batch: command.batch, reason: command.reason.clone() }, legs);
    Ok(())
}

/// Only notes it: whichever of the two is mined, the batch's values are the same.
pub(crate) fn decide_replaced(plan: &mut Plan, command: &BatchReplaced) -> Result<(), Refusal> {
    expect(plan.state, command.batch, &[BatchState::Submitted])?;
    plan.emit(command.clone());
    Ok(())
}

pub(crate) fn apply_replaced(state: &mut State, event: &BatchReplaced) -> Result<(), ApplyError> {
    match batch_mut(state, event.batch)?.state {
        BatchState::Submitted => Ok(()),
        BatchState::Closed | BatchState::Confirmed | BatchState::Failed => {
            Err(ApplyError::Impossible("only a submitted batch has transactions"))
        }
    }
}

pub(crate) fn decide_claim(plan: &mut Plan, command: &RecordClaim) -> Result<(), Refusal> {
    let state = plan.state;
    let RecordClaim { vault, address, units, tx } = *command;
    let (registered, unit) = vault_of(state, vault)?;
    if state.claims.contains(&(vault, address, tx)) {
        return Err(Refusal::ClaimKnown { address, tx });
    }
    let asset = registered.asset;
    let (account, from) = if address == registered.platform {
        (AccountId::SYSTEM, BookKey::system(AccountKind::PlatformTreasury, asset))
    } else {
        let operator = state.operators.values().find(|o| o.payout_address == address);
        let account = operator.ok_or(Refusal::PayeeUnknown { address })?.account;
        (account, book_key(state, account, AccountKind::OperatorPayable, asset))
    };
    let payee = state.payees.get(&(vault, account)).cloned().unwrap_or_default();
    let claimable_units = payee.confirmed_units - payee.claimed_units;
    if units == 0 || units > claimable_units {
        return Err(Refusal::MoreThanClaimable { asked_units: units, claimable_units });
    }
    let amount = i128::from(units) * unit;
    let mut legs = Legs::default();
    plan.post(&mut legs, from, amount)?;
    plan.post(&mut legs, BookKey::system(AccountKind::PotAsset, asset), -amount)?;
    plan.emit_with(PayoutClaimed { vault, account, address, units, amount: Amount(amount), tx }, legs);
    Ok(())
}

pub(crate) fn decide_anchor(plan: &mut Plan, command: &CheckpointAnchored) -> Result<(), Refusal> {
    let same_chain = |anchor: &&CheckpointAnchored| anchor.chain_id == command.chain_id;
    let last = plan.state.anchors.iter().rev().find(same_chain).map_or(0, |anchor| anchor.size);
    if command.size <= last || command.size > plan.state.next_leaf {
        let leaves = plan.state.next_leaf;
        return Err(Refusal::AnchorSize { last, given: command.size, leaves });
    }
    plan.emit(command.clone());
    Ok(())
}

pub(crate) fn apply_anchored(state: &mut State, event: &CheckpointAnchored) -> Result<(), ApplyError> {
    state.anchors.retain(|anchor| anchor.chain_id != event.chain_id);
    state.anchors.push(event.clone());
    Ok(())
}

pub(crate) fn apply_closed(
    state: &mut State,
    header: &Header,
    event: &BatchClosed,
) -> Result<(), ApplyError> {
    let vault = event.vault;
    let unit = state.vault_unit(event.asset).ok_or(ApplyError::unknown("asset", event.asset.0))?;
    let closing = closing(state, vault, unit, event.charges.clone());
    let closing = closing.ok_or(ApplyError::Impossible("a batch charges what nobody captured"))?;
    if closing.payouts != event.payouts {
        return Err(ApplyError::Impossible("a batch's payouts do not follow from its charges"));
    }
    move_lines(state, vault, &closing.lines, Cover::Add)?;
    for payout in &event.payouts {
        state.payees.entry((vault, payout.account)).or_default().closed_units = payout.cumulative_units;
    }
    state.batch_numbers.insert(vault, event.number);
    if state.open_batches.insert(vault, event.batch).is_some() {
        return Err(ApplyError::Impossible("a vault has two open batches"));
    }
    let batch = Batch {
        number: event.number,
        vault,
        asset: event.asset,
        cutoff_leaf: event.cutoff_leaf,
        rail: event.rail,
        charges: event.charges.clone(),
        payouts: event.payouts.clone(),
        lines: closing.lines,
        state: BatchState::Closed,
        closed_leaf: header.leaf,
        closed_us: header.time_us,
        submitted: None,
        confirmed_tx: None,
    };
    match state.batches.insert(event.batch, batch) {
        None => Ok(()),
        Some(_) => Err(ApplyError::Impossible("a batch is closed twice")),
    }
}

#[derive(Clone, Copy)]
enum Cover {
    Add,
    TakeBack,
}

/// Marks what lines cover in the wallets' queues and adds it to the operators' figures, or takes both back.
fn move_lines(state: &mut State, vault: VaultRef, lines: &[Line], cover: Cover) -> Result<(), ApplyError> {
    let sign = match cover {
        Cover::Add => 1,
        Cover::TakeBack => -1,
    };
    for line in lines {
        let row = state.wallet_mut(vault, line.wallet)?;
        // The queue is in the order of leaves, and of slices within one.
        let key = (line.leaf, line.slice);
        let at = row.queue.binary_search_by(|entry| (entry.leaf, entry.slice).cmp(&key)).ok();
        let entry = at.and_then(|at| row.queue.get_mut(at));
        let entry = entry.ok_or(ApplyError::Impossible("a batch covers a capture that does not wait"))?;
        entry.covered.0 += sign * line.cost.0;
        let operator = state.operators.get(&line.operator);
        let owner = operator.ok_or_else(|| ApplyError::unknown("operator", line.operator))?.account;
        state.payees.entry((vault, owner)).or_default().covered.0 += sign * line.share.0;
    }
    Ok(())
}

fn batch_mut(state: &mut State, id: BatchId) -> Result<&mut Batch, ApplyError> {
    state.batches.get_mut(&id).ok_or_else(|| ApplyError::unknown("batch", id))
}

pub(crate) fn apply_submitted(state: &mut State, event: &BatchSubmitted) -> Result<(), ApplyError> {
    let batch = batch_mut(state, event.batch)?;
    if batch.state != BatchState::Closed {
        return Err(ApplyError::Impossible("a batch is submitted once, after it was closed"));
    }
    batch.state = BatchState::Submitted;
    batch.submitted = Some(event.clone());
    Ok(())
}

pub(crate) fn apply_confirmed(state: &mut State, event: &BatchConfirmed) -> Result<(), ApplyError> {
    let batch = batch_mut(state, event.batch)?;
    if batch.state != BatchState::Submitted {
        return Err(ApplyError::Impossible("a batch is confirmed once, after it was submitted"));
    }
    batch.state = BatchState::Confirmed;
    batch.confirmed_tx = Some(event.tx);
    let (vault, charges, payouts) = (batch.vault, batch.charges.clone(), batch.payouts.clone());
    for charge in charges {
        let row = state.wallet_mut(vault, charge.wallet)?;
        row.charged_units = charge.cumulative_units;
        let settled = row.queue.iter().take_while(|entry| entry.covered == entry.cost).count();
        let settled: Vec<JobId> = row.queue.drain(..settled).map(|entry| entry.job).collect();
        for job in settled {
            state.jobs.unqueue(&job)?;
        }
    }
    for payout in payouts {
        let payee = state.payees.entry((vault, payout.account)).or_default();
        payee.confirmed_units = payout.cumulative_units;
    }
    state.open_batches.remove(&vault);
    Ok(())
}

pub(crate) fn apply_failed(state: &mut State, event: &BatchFailed) -> Result<(), ApplyError> {
    let batch = batch_mut(state, event.batch)?;
    if !matches!(batch.state, BatchState::Closed | BatchState::Submitted) {
        return Err(ApplyError::Impossible("only an open batch fails"));
    }
    batch.state = BatchState::Failed;
    let (vault, number, lines) = (batch.vault, batch.number, batch.lines.clone());
    let payouts = batch.payouts.clone();
    move_lines(state, vault, &lines, Cover::TakeBack)?;
    for payout in payouts {
        state.payees.entry((vault, payout.account)).or_default().closed_units -= payout.added_units;
    }
    // The vault takes settlement numbers without gaps: the next batch uses this one's.
    state.batch_numbers.insert(vault, number - 1);
    state.open_batches.remove(&vault);
    Ok(())
}

pub(crate) fn apply_claimed(state: &mut State, event: &PayoutClaimed) -> Result<(), ApplyError> {
    let payee = state.payees.entry((event.vault, event.account)).or_default();
    let claimed = payee.claimed_units.checked_add(event.units);
    let claimed = claimed.filter(|claimed| *claimed <= payee.confirmed_units);
    payee.claimed_units = claimed.ok_or(ApplyError::Impossible("more is claimed than was paid in"))?;
    state.claims.insert((event.vault, event.address, event.tx));
    Ok(())
}
