//! Rules of settlement (`specs/decisions/0002`): each capture owns an interval of its wallet's cumulative charge and is
//! paid when the charge covers it, first in first out, the last one in part; the platform has the rest.

use super::books::{BookKey, Legs};
use super::captures::floor_part;
use super::judge::Judge;
use super::world::{Claim, NamedHead, World};
use crate::checks::CheckKind;
use crate::settlement::{ServedRequest, commitment, payout_root, requests_root};
use protocol::asset::{AssetId, VaultRef};
use protocol::event::Header;
use protocol::event::account::AccountKind;
use protocol::event::batch::{
    BatchClosed, BatchConfirmed, BatchFailed, BatchReplaced, BatchSubmitted, Charge, Payout, PayoutClaimed,
};
use protocol::event::chain::CheckpointAnchored;
use protocol::id::{AccountId, BatchId, EvmAddress, Hash32, JobId, OperatorId, Word32};
use std::collections::BTreeMap;

const KIND: CheckKind = CheckKind::Batches;
/// Most wallets one batch charges.
const BATCH_CHARGES_MAX: usize = 400;
/// Most wallets one batch names as waiting.
const BATCH_SHORT_MAX: usize = 1_000;
/// Settlement periods a small debt may wait.
const SMALL_DEBT_EPOCHS_MAX: u64 = 4;

/// What one account has of a vault's payouts, for life.
#[derive(Clone, Default, Debug)]
pub(crate) struct Payee {
    /// Its share of everything covered, base units.
    pub(crate) earned: i128,
    pub(crate) closed_units: u64,
    pub(crate) confirmed_units: u64,
    pub(crate) claimed_units: u64,
    pub(crate) address: Option<EvmAddress>,
}

/// Where a batch stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    Closed,
    Submitted,
    Confirmed,
    Failed,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Stage::Closed => "closed",
            Stage::Submitted => "submitted",
            Stage::Confirmed => "confirmed",
            Stage::Failed => "failed",
        }
    }
}

/// One batch.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) leaf: u64,
    pub(crate) number: u64,
    pub(crate) vault: VaultRef,
    pub(crate) asset: AssetId,
    pub(crate) charges: Vec<Charge>,
    pub(crate) payouts: Vec<Payout>,
    /// Recomputed; what the chain's transaction must carry.
    pub(crate) payout_root: Word32,
    pub(crate) root_total_units: u64,
    pub(crate) commitment: Option<Word32>,
    pub(crate) stage: Stage,
    pub(crate) closed_us: u64,
    /// When it was confirmed or failed.
    pub(crate) ended_us: Option<u64>,
    pub(crate) confirmed: Option<(Word32, u64)>,
    lines: Vec<Line>,
}

/// What a batch charges of one capture.
#[derive(Clone, Debug)]
struct Line {
    wallet: EvmAddress,
    place: (u64, usize),
    job: JobId,
    operator: OperatorId,
    receipt: Hash32,
    cost: i128,
    share: i128,
}

impl Batch {
    pub(crate) fn charged_units(&self) -> u64 {
        self.charges.iter().map(|charge| charge.added_units).fold(0, u64::saturating_add)
    }

    /// What each charge earned its operator in this batch, as the requests root has it.
    fn requests(&self, world: &World) -> Vec<ServedRequest> {
        let mut by_leaf: BTreeMap<u64, ServedRequest> = BTreeMap::new();
        for line in &self.lines {
            let operator = world.operators.get(&line.operator).map(|operator| operator.payout_address);
            let operator = operator.unwrap_or(EvmAddress([0; 20]));
            let request =
                ServedRequest { job: line.job, operator, amount_base_units: 0, receipt: line.receipt };
            let request = by_leaf.entry(line.place.0).or_insert(request);
            request.amount_base_units = request.amount_base_units.saturating_add(line.share.unsigned_abs());
        }
        by_leaf.into_values().collect()
    }
}

pub(crate) fn closed(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &BatchClosed,
) -> Option<Legs> {
    let vault = event.vault;
    let registered = judge.known(KIND, world.vaults.get(&vault), "vault", vault.vault)?;
    let platform = registered.platform;
    judge.equal(KIND, "a batch is in its vault's asset", registered.asset.0, event.asset.0);
    let unit = judge.known(KIND, world.vault_unit(event.asset), "asset", event.asset.0)?;
    let of_vault = |batch: &&Batch| batch.vault == vault && batch.stage != Stage::Failed;
    let number = world.batches.values().filter(of_vault).map(|batch| batch.number).max().unwrap_or(0) + 1;
    judge.equal(KIND, "settlements are numbered without gaps", number, event.number);
    let open = world
        .batches
        .values()
        .any(|b| b.vault == vault && matches!(b.stage, Stage::Closed | Stage::Submitted));
    judge.require(KIND, "a vault has one open batch", event.batch, || !open);
    let cutoff = world.command_first_leaf();
    judge.equal(KIND, "the cut-off is where the close begins", cutoff, event.cutoff_leaf);
    check_charges(world, judge, header, event, unit);
    let mut lines = Vec::new();
    for charge in &event.charges {
        cover(world, judge, vault, charge, unit, &mut lines)?;
    }
    let payouts = payouts(world, vault, platform, unit, event, &lines);
    let payouts = judge.known(KIND, payouts, "payout within 64 bits", event.batch)?;
    compare_payouts(judge, &payouts, &event.payouts);
    for payout in &event.payouts {
        let payee = world.payees.entry((vault, payout.account)).or_default();
        payee.closed_units = payout.cumulative_units;
        payee.address = Some(payout.address);
    }
    // The root stands for every payee, also those that this batch does not change.
    let of_vault = world.payees.iter().filter(|((of, _), payee)| *of == vault && payee.closed_units > 0);
    let leaves: Vec<(EvmAddress, u64)> = of_vault
        .filter_map(|(_, payee)| payee.address.map(|address| (address, payee.closed_units)))
        .collect();
    let batch = Batch {
        leaf: header.leaf,
        number: event.number,
        vault,
        asset: event.asset,
        charges: event.charges.clone(),
        payouts: event.payouts.clone(),
        root_total_units: leaves.iter().map(|(_, units)| *units).fold(0, u64::saturating_add),
        payout_root: payout_root(leaves),
        commitment: None,
        stage: Stage::Closed,
        closed_us: header.time_us,
        ended_us: None,
        confirmed: None,
        lines,
    };
    let legs = move_payouts(&batch, unit, AccountKind::OperatorAccrued, AccountKind::OperatorSettling);
    let is_new = world.batches.insert(event.batch, batch).is_none();
    judge.require(KIND, "a batch is closed once", event.batch, || is_new);
    Some(legs)
}

/// Each charge is the floor of the wallet's cumulative captures, and nobody who is due is left out.
fn check_charges(world: &World, judge: &mut Judge, header: &Header, event: &BatchClosed, unit: i128) {
    let sorted = event.charges.windows(2).all(|pair| pair[0].wallet < pair[1].wallet);
    judge.require(KIND, "charges are sorted by wallet, none twice", event.batch, || sorted);
    let settings = world.settings();
    let units_min = settings.map_or(0, |settings| settings.settle_units_min);
    let wait_us = settings.map_or(0, |settings| settings.epoch_us.saturating_mul(SMALL_DEBT_EPOCHS_MAX));
    let margin_us = settings.map_or(0, |settings| {
        settings.epoch_us.saturating_mul(u64::from(settings.authorisation_margin_epochs))
    });
    let short = event.short.as_deref().unwrap_or_default();
    let sorted = event.short.as_ref().is_none_or(|_| !short.is_empty()) && short.is_sorted();
    judge.require(KIND, "waiting wallets are sorted and some", event.batch, || sorted);
    let (mut due_count, mut short_count) = (0, 0);
    for ((vault, address), wallet) in world.wallets.iter().filter(|((vault, _), _)| *vault == event.vault) {
        let floor = u64::try_from(wallet.captured.div_euclid(unit)).unwrap_or(u64::MAX);
        let added = floor.saturating_sub(wallet.charged_units);
        let charge = event.charges.iter().find(|charge| charge.wallet == *address);
        let overdue =
            wallet.queue.front().is_some_and(|i| i.time_us.saturating_add(wait_us) <= header.time_us);
        let ends_soon = wallet.authorisation.is_some_and(|authorisation| {
            header.time_us.saturating_add(margin_us) >= u64::from(authorisation.valid_until_s) * 1_000_000
        });
        let due = added > 0 && (added >= units_min || overdue || ends_soon || wallet.exiting);
        let is_short = short.contains(address);
        if is_short {
            let said = "only who is due is named as waiting, and is not charged";
            judge.require(KIND, said, address, || due && charge.is_none());
            short_count += 1;
            continue;
        }
        due_count += usize::from(due);
        match charge {
            Some(charge) => {
                judge.equal(KIND, "a charge is the floor of all captures", floor, charge.cumulative_units);
                judge.equal(KIND, "it adds what was not charged yet", added, charge.added_units);
                judge.require(KIND, "a charge is due", address, || due);
            }
            None if due && due_count <= BATCH_CHARGES_MAX && short_count < BATCH_SHORT_MAX => {
                let message = format!("{address} of vault {} is due and left out", vault.vault);
                judge.fail(KIND, format!("a charge of {added}"), "none", message);
            }
            None => {}
        }
    }
    for charge in &event.charges {
        judge.known(KIND, world.wallets.get(&(event.vault, charge.wallet)), "wallet", charge.wallet);
    }
}

/// Covers a wallet's intervals up to its new cumulative charge.
fn cover(
    world: &mut World,
    judge: &mut Judge,
    vault: VaultRef,
    charge: &Charge,
    unit: i128,
    lines: &mut Vec<Line>,
) -> Option<()> {
    let wallet =
        judge.known(KIND, world.wallets.get_mut(&(vault, charge.wallet)), "wallet", charge.wallet)?;
    let target = i128::from(charge.cumulative_units).saturating_mul(unit).min(wallet.captured);
    let mut open = target.saturating_sub(wallet.covered).max(0);
    for interval in wallet.queue.iter_mut() {
        let take = (interval.cost - interval.covered).min(open);
        if take <= 0 {
            continue;
        }
        let before = floor_part(interval.share, interval.covered, interval.cost)?;
        interval.covered = interval.covered.saturating_add(take);
        let after = floor_part(interval.share, interval.covered, interval.cost)?;
        lines.push(Line {
            wallet: charge.wallet,
            place: interval.place,
            job: interval.job,
            operator: interval.operator,
            receipt: interval.receipt,
            cost: take,
            share: after - before,
        });
        wallet.covered = wallet.covered.saturating_add(take);
        open -= take;
    }
    judge.equal(KIND, "captures cover the whole charge", 0, open);
    Some(())
}

/// Every payee's cumulative floor; the sum of what is added is what is charged, later addresses wait where floors of
/// several payees would together exceed it, and the platform has the rest.
fn payouts(
    world: &mut World,
    vault: VaultRef,
    platform: EvmAddress,
    unit: i128,
    event: &BatchClosed,
    lines: &[Line],
) -> Option<Vec<Payout>> {
    for line in lines {
        let operator = world.operators.get(&line.operator)?;
        let payee = world.payees.entry((vault, operator.account)).or_default();
        payee.earned = payee.earned.checked_add(line.share)?;
        payee.address = Some(operator.payout_address);
    }
    let mut open: u64 = event.charges.iter().map(|charge| charge.added_units).fold(0, u64::saturating_add);
    let of_vault =
        world.payees.iter().filter(|((of, account), _)| *of == vault && *account != AccountId::SYSTEM);
    let mut payouts: Vec<Payout> = Vec::new();
    for ((_, account), payee) in of_vault {
        let cumulative_units = u64::try_from(payee.earned.div_euclid(unit)).ok()?;
        let added_units = cumulative_units.saturating_sub(payee.closed_units);
        payouts.push(Payout { account: *account, address: payee.address?, cumulative_units, added_units });
    }
    payouts.sort_by_key(|payout| payout.address);
    for payout in &mut payouts {
        let waits = payout.added_units.saturating_sub(open);
        payout.added_units -= waits;
        payout.cumulative_units -= waits;
        open -= payout.added_units;
    }
    let account = AccountId::SYSTEM;
    let before = world.payees.get(&(vault, account)).map_or(0, |payee| payee.closed_units);
    let cumulative_units = before.checked_add(open)?;
    payouts.push(Payout { account, address: platform, cumulative_units, added_units: open });
    payouts.sort_by_key(|payout| payout.address);
    payouts.retain(|payout| payout.cumulative_units > 0);
    Some(payouts)
}

fn compare_payouts(judge: &mut Judge, expected: &[Payout], actual: &[Payout]) {
    let text = |p: &Payout| format!("{} {} +{}", p.account, p.cumulative_units, p.added_units);
    let find = |list: &[Payout], account: AccountId| list.iter().find(|p| p.account == account).map(text);
    for payout in expected {
        let found = find(actual, payout.account).unwrap_or_else(|| "nothing".to_owned());
        judge.equal(KIND, "a payout follows from the captures, first in first out", text(payout), found);
    }
    for payout in actual.iter().filter(|payout| find(expected, payout.account).is_none()) {
        judge.fail(KIND, "nothing", text(payout), "a payout for nothing served");
    }
    let places =
        |list: &[Payout]| list.iter().map(|payout| payout.address.to_string()).collect::<Vec<_>>().join(" ");
    judge.equal(
        KIND,
        "payouts go to the payees' addresses, sorted, none twice",
        places(expected),
        places(actual),
    );
}

fn move_payouts(batch: &Batch, unit: i128, from: AccountKind, to: AccountKind) -> Legs {
    let mut legs = Legs::default();
    for payout in batch.payouts.iter().filter(|payout| payout.account != AccountId::SYSTEM) {
        let amount = i128::from(payout.added_units).saturating_mul(unit);
        legs.debit(BookKey::of(payout.account, from, batch.asset), amount);
        legs.credit(BookKey::of(payout.account, to, batch.asset), amount);
    }
    legs
}

/// The batch with its stage moved on, if it stood where it must.
fn advance(world: &mut World, judge: &mut Judge, id: BatchId, from: &[Stage], to: Stage) -> Option<Batch> {
    let batch = judge.known(KIND, world.batches.get_mut(&id), "batch", id)?;
    let stage = batch.stage;
    let words = format!("a batch that is {}", from.iter().map(|s| s.name()).collect::<Vec<_>>().join(" or "));
    if !judge.require(KIND, &words, stage.name(), || from.contains(&stage)) {
        return None;
    }
    batch.stage = to;
    Some(batch.clone())
}

pub(crate) fn submitted(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &BatchSubmitted,
) -> Option<Legs> {
    const ROOTS: CheckKind = CheckKind::Roots;
    let batch = advance(world, judge, event.batch, &[Stage::Closed], Stage::Submitted)?;
    judge.equal(ROOTS, "the payout root is that of the payees", batch.payout_root, event.payout_root);
    judge.equal(KIND, "the root's total is the payees' sum", batch.root_total_units, event.root_total_units);
    let requests = requests_root(batch.vault, batch.number, &batch.requests(world));
    judge.equal(ROOTS, "the requests root is that of the served requests", requests, event.requests_root);
    let bound = commitment(requests, event.tlog_size, event.tlog_root);
    judge.equal(ROOTS, "the commitment binds requests and log", bound, event.commitment);
    let covers = event.tlog_size > batch.leaf && event.tlog_size <= header.leaf;
    judge.require(
        KIND,
        "the named head covers the close and lies before the submission",
        event.tlog_size,
        || covers,
    );
    world.named_heads.push(NamedHead { leaf: header.leaf, size: event.tlog_size, root: event.tlog_root });
    world.batches.get_mut(&event.batch)?.commitment = Some(bound);
    Some(Legs::default())
}

pub(crate) fn confirmed(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &BatchConfirmed,
) -> Option<Legs> {
    let batch = advance(world, judge, event.batch, &[Stage::Submitted], Stage::Confirmed)?;
    let unit = world.vault_unit(batch.asset)?;
    let charged = batch.charged_units();
    judge.equal(KIND, "the vault charged what was closed", charged, event.charged_units);
    let amount = i128::from(charged).saturating_mul(unit);
    judge.equal(KIND, "a confirmed amount is its units", amount, event.amount.0);
    for charge in &batch.charges {
        let Some(wallet) = world.wallets.get_mut(&(batch.vault, charge.wallet)) else { continue };
        wallet.charged_units = charge.cumulative_units;
        while wallet.queue.front().is_some_and(|interval| interval.covered == interval.cost) {
            wallet.queue.pop_front();
        }
    }
    for payout in &batch.payouts {
        let payee = world.payees.entry((batch.vault, payout.account)).or_default();
        payee.confirmed_units = payout.cumulative_units;
    }
    let row = world.batches.get_mut(&event.batch)?;
    (row.confirmed, row.ended_us) = (Some((event.tx, event.block)), Some(header.time_us));
    let mut legs = move_payouts(&batch, unit, AccountKind::OperatorSettling, AccountKind::OperatorPayable);
    legs.debit(BookKey::system(AccountKind::PotAsset, batch.asset), amount);
    legs.credit(BookKey::system(AccountKind::VaultAsset, batch.asset), amount);
    Some(legs)
}

/// The amounts of a failed batch wait again, in their old places.
pub(crate) fn failed(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &BatchFailed,
) -> Option<Legs> {
    let batch = advance(world, judge, event.batch, &[Stage::Closed, Stage::Submitted], Stage::Failed)?;
    world.batches.get_mut(&event.batch)?.ended_us = Some(header.time_us);
    let unit = world.vault_unit(batch.asset)?;
    for line in &batch.lines {
        if let Some(wallet) = world.wallets.get_mut(&(batch.vault, line.wallet)) {
            wallet.covered = wallet.covered.saturating_sub(line.cost);
            let interval = wallet.queue.iter_mut().find(|interval| interval.place == line.place);
            if let Some(interval) = interval {
                interval.covered = interval.covered.saturating_sub(line.cost);
            }
        }
        if let Some(operator) = world.operators.get(&line.operator) {
            let payee = world.payees.entry((batch.vault, operator.account)).or_default();
            payee.earned = payee.earned.saturating_sub(line.share);
        }
    }
    for payout in &batch.payouts {
        let payee = world.payees.entry((batch.vault, payout.account)).or_default();
        payee.closed_units = payee.closed_units.saturating_sub(payout.added_units);
    }
    Some(move_payouts(&batch, unit, AccountKind::OperatorSettling, AccountKind::OperatorAccrued))
}

/// A replacement changes nothing: whichever transaction is mined has the batch's values.
pub(crate) fn replaced(world: &mut World, judge: &mut Judge, event: &BatchReplaced) -> Option<Legs> {
    let stage = judge.known(KIND, world.batches.get(&event.batch), "batch", event.batch)?.stage;
    judge.require(KIND, "a submitted batch", stage.name(), || stage == Stage::Submitted);
    judge.require(KIND, "another transaction than the stuck one", event.tx, || event.tx != event.replaced);
    Some(Legs::default())
}

pub(crate) fn claimed(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &PayoutClaimed,
) -> Option<Legs> {
    const CLAIMS: CheckKind = CheckKind::Claims;
    let registered = judge.known(CLAIMS, world.vaults.get(&event.vault), "vault", event.vault.vault)?;
    let (asset, platform) = (registered.asset, registered.platform);
    let unit = world.vault_unit(asset)?;
    let payee = world.payees.get_mut(&(event.vault, event.account));
    let payee = judge.known(CLAIMS, payee, "payee", event.account)?;
    let address = payee.address.unwrap_or(platform);
    judge.equal(CLAIMS, "a claim is by the payee's own leaf", address, event.address);
    let claimable = payee.confirmed_units.saturating_sub(payee.claimed_units);
    judge.require(CLAIMS, format_args!("a claim of 1 to {claimable}"), event.units, || {
        (1..=claimable).contains(&event.units)
    });
    payee.claimed_units = payee.claimed_units.saturating_add(event.units);
    let same =
        |claim: &Claim| (claim.vault, claim.address, claim.tx) == (event.vault, event.address, event.tx);
    let again = world.claims.iter().any(same);
    judge.require(CLAIMS, "a claim is booked once", event.tx, || !again);
    let amount = i128::from(event.units).saturating_mul(unit);
    judge.equal(CLAIMS, "a claim's amount is its units", amount, event.amount.0);
    let (leaf, vault, address, units, tx) = (header.leaf, event.vault, event.address, event.units, event.tx);
    world.claims.push(Claim { leaf, vault, address, units, tx });
    let from = if event.account == AccountId::SYSTEM {
        BookKey::system(AccountKind::PlatformTreasury, asset)
    } else {
        BookKey::of(event.account, AccountKind::OperatorPayable, asset)
    };
    let mut legs = Legs::default();
    legs.debit(from, amount);
    legs.credit(BookKey::system(AccountKind::PotAsset, asset), amount);
    Some(legs)
}

pub(crate) fn anchored(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &CheckpointAnchored,
) -> Option<Legs> {
    let last = world.anchored.insert(event.chain_id, event.size).unwrap_or(0);
    judge.require(CheckKind::Sequence, "anchors grow and lie before their event", event.size, || {
        event.size > last && event.size <= header.leaf
    });
    world.named_heads.push(NamedHead { leaf: header.leaf, size: event.size, root: event.root });
    Some(Legs::default())
}
