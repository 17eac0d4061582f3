//! What must hold after every event, computed from the whole state by other paths than the rules take. For tests and
//! for a check at start; too slow for every command.

use crate::accounts::AccountNo;
use crate::apply::has_floor;
use crate::books::BookKey;
use crate::grants::{self, Paper, customer_kind};
use crate::jobs::{Job, JobState};
use crate::splits::proportion;
use crate::state::State;
use crate::vouchers::VoucherState;
use protocol::asset::AssetId;
use protocol::event::GrantId;
use protocol::event::account::AccountKind;
use protocol::id::JobId;
use std::collections::BTreeMap;

/// Checks everything; the text names the first thing that does not hold.
pub fn check(state: &State) -> Result<(), String> {
    counters(state)?;
    grants_are_the_customers_accounts(state)?;
    reservations_have_owners(state)?;
    open_holds_have_timers(state)?;
    operators_earnings(state)?;
    vaults_cover_deposits(state)?;
    spending_is_counted(state)?;
    credit_lines_are_mirrored(state)?;
    jobs_stay_while_needed(state)?;
    crate::economy::views::broken_promise(state).map_or(Ok(()), |broken| Err(broken.to_owned()))
}

/// Open holds that count are the caps' held figures, and charges of jobs still here are within what was counted.
fn spending_is_counted(state: &State) -> Result<(), String> {
    for (key, row) in &state.spend_caps {
        let jobs = || state.jobs.iter().map(|(_, job)| job).filter(|job| job.cap_key() == Some(*key));
        let running = jobs().filter(|job| job.state == JobState::Running);
        let held: i128 = running.map(|job| job.amount().0 - job.consumed()).sum();
        same(&format!("held under the cap of {}", key.1), row.held.0, held)?;
        let charged: i128 = jobs().filter(|job| !job.reversed).map(Job::charged).sum();
        if row.charged.0 < charged {
            return Err(format!("key {} is charged {charged} and {} are counted", key.1, row.charged.0));
        }
    }
    Ok(())
}

/// The memorandum accounts mirror the unused parts, and nobody can draw beyond a limit.
fn credit_lines_are_mirrored(state: &State) -> Result<(), String> {
    let mut unused: BTreeMap<AssetId, i128> = BTreeMap::new();
    for ((account, asset), line) in &state.credit_lines {
        let grant = &state.grants[line.grant];
        same("owner of a credit line", (grant.account, grant.asset()), (*account, *asset))?;
        *unused.entry(*asset).or_default() += grant.remaining.0;
        let spendable = grants::spendable(state, grant, state.time_us);
        if spendable > 0 && line.drawn.0 + grant.held.0 + spendable > line.limit.0 {
            return Err(format!("a line of {} lets draw {spendable} more: {line:?}", line.limit.0));
        }
    }
    for (asset, unused) in unused {
        let mirror =
            state.books.credit_balance(&state.accounts, BookKey::system(AccountKind::CreditLines, asset));
        same("unused credit lines", -mirror, unused)?;
    }
    Ok(())
}

/// Queues know their jobs, and an ended job waits either for its retention or for its batches.
fn jobs_stay_while_needed(state: &State) -> Result<(), String> {
    let mut queued: BTreeMap<JobId, u32> = BTreeMap::new();
    for entry in state.wallets.values().flat_map(|wallet| &wallet.queue) {
        *queued.entry(entry.job).or_default() += 1;
    }
    let waiting = state.jobs.iter().filter(|(_, job)| job.queued > 0);
    same("queued charges", waiting.map(|(_, job)| (job.id, job.queued)).collect(), queued)?;
    let ended = state.jobs.iter().filter(|(_, job)| job.state != JobState::Running);
    let mut ended: Vec<(u64, JobId)> = ended.map(|(_, job)| (job.ended_leaf, job.id)).collect();
    ended.sort_unstable();
    let known = state.jobs.ended_from(0).map(|job| (job.ended_leaf, job.id));
    same("ended jobs", known.collect(), ended)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, left: T, right: T) -> Result<(), String> {
    if left == right { Ok(()) } else { Err(format!("{what}: {left:?} is not {right:?}")) }
}

/// Debits equal credits per asset, booked and pending; nobody we owe to is overdrawn.
fn counters(state: &State) -> Result<(), String> {
    let mut sums: BTreeMap<AssetId, (i128, i128)> = BTreeMap::new();
    for (number, (key, row)) in state.books.rows().enumerate() {
        same(
            "the index of ledger accounts",
            state.books.find(&state.accounts, key).map(|n| n.0 as usize),
            Some(number),
        )?;
        let sum = sums.entry(key.asset).or_default();
        sum.0 += row.debits_posted.0 - row.credits_posted.0;
        sum.1 += row.debits_pending.0 - row.credits_pending.0;
        if has_floor(key.kind) && row.credit_balance() < row.reserved() {
            return Err(format!("ledger account {number} ({key:?}) is overdrawn"));
        }
    }
    for (asset, sum) in sums {
        same(&format!("booked and pending sums of asset {}", asset.0), sum, (0, 0))?;
    }
    Ok(())
}

fn grants_are_the_customers_accounts(state: &State) -> Result<(), String> {
    let mut remaining: BTreeMap<BookKey, i128> = BTreeMap::new();
    let mut reserved: BTreeMap<BookKey, i128> = BTreeMap::new();
    for (id, grant) in state.grants.iter() {
        let promised = state.reserved(grant);
        if grant.held.0 < 0 || promised < 0 || grant.free() < 0 {
            return Err(format!("grant {} has less than nothing: {grant:?}", id.0));
        }
        *remaining.entry(grant.book_key()).or_default() += grant.remaining.0 + promised;
        let taken = grant.held.0 + promised;
        *reserved.entry(grant.book_key()).or_default() += taken;
        *reserved.entry(BookKey::system(AccountKind::HoldsPending, grant.asset())).or_default() -= taken;
    }
    let customer = |kind| {
        use protocol::event::grant::GrantSource::*;
        [Deposited, Package, Earned, Allotment, Promo, CreditLine]
            .iter()
            .any(|source| customer_kind(*source) == kind)
    };
    for (key, row) in state.books.rows() {
        let of = |map: &BTreeMap<BookKey, i128>| map.get(&key).copied().unwrap_or(0);
        if customer(key.kind) {
            same(&format!("balance of {key:?}"), row.credit_balance(), of(&remaining))?;
        }
        same(&format!("reserved of {key:?}"), row.reserved(), of(&reserved))?;
    }
    Ok(())
}

fn reservations_have_owners(state: &State) -> Result<(), String> {
    let mut held: BTreeMap<GrantId, i128> = BTreeMap::new();
    for (_, job) in state.jobs.iter().filter(|(_, job)| job.state == JobState::Running) {
        for slice in job.open_slices() {
            *held.entry(slice.grant).or_default() += slice.amount.0;
        }
    }
    let mut reserved: BTreeMap<GrantId, i128> = BTreeMap::new();
    for voucher in state.vouchers.values().filter(|voucher| voucher.state == VoucherState::Open) {
        let bucket = state.wallets.get(&(voucher.vault, voucher.wallet)).and_then(|row| row.bucket);
        let bucket = bucket.ok_or_else(|| format!("an open voucher without a bucket: {voucher:?}"))?;
        *reserved.entry(bucket).or_default() += voucher.amount.0;
    }
    for (id, grant) in state.grants.iter() {
        let of = |map: &BTreeMap<GrantId, i128>| map.get(&id).copied().unwrap_or(0);
        same(&format!("held of grant {}", id.0), grant.held.0, of(&held))?;
        same(&format!("reserved of grant {}", id.0), state.reserved(grant), of(&reserved))?;
    }
    Ok(())
}

fn open_holds_have_timers(state: &State) -> Result<(), String> {
    let running = state.jobs.iter().filter(|(_, job)| job.state == JobState::Running);
    let mut running: Vec<_> = running.map(|(number, _)| number).collect();
    let mut timed: Vec<_> = state.timers.running().collect();
    running.sort();
    timed.sort();
    same("timers of open holds", timed, running)?;
    for (id, grant) in state.grants.iter() {
        let list = state.accounts.row(grant.account).map_or(&[][..], |row| row.grants.as_slice());
        let places = list.iter().filter(|other| **other == id).count();
        let needed = grant.is_deposit() || !grant.held.is_zero();
        if places > 1 || (needed && places == 0) {
            return Err(format!("grant {} is {places} times in its account's order", id.0));
        }
        let ordered =
            list.windows(2).all(|w| state.grants[w[0]].order(w[0]) < state.grants[w[1]].order(w[1]));
        same("order of consumption", ordered, true)?;
    }
    Ok(())
}

/// Accrued = what waits beside vaults + what waits in wallets' queues + the remainders of the floors; settling and payable follow from
/// the payees' figures.
fn operators_earnings(state: &State) -> Result<(), String> {
    type ByOwner = BTreeMap<(AccountNo, AssetId), i128>;
    let mut accrued = ByOwner::new();
    for ((owner, asset, paper), earning) in &state.earnings {
        let bucket = earning.bucket.map(|id| &state.grants[id]);
        let fits = bucket.is_none_or(|row| (row.account, row.asset(), row.paper) == (*owner, *asset, *paper));
        if earning.waiting.0 < 0 || !fits || matches!(paper, Paper::Wallet(_)) {
            return Err(format!("earnings of asset {} behind {paper:?}: {earning:?}", asset.0));
        }
        *accrued.entry((*owner, *asset)).or_default() += earning.waiting.0;
    }
    let (mut settling, mut payable) = (ByOwner::new(), ByOwner::new());
    let operator = |id| state.operators.get(id).map_or(AccountNo::SYSTEM, |row| row.account_no);
    for wallet in state.wallets.values() {
        let asset = state.vaults[&wallet.vault].asset;
        for entry in &wallet.queue {
            let owner = operator(&entry.operator);
            let counted = proportion(entry.share, entry.covered.0, entry.cost.0).unwrap_or(0);
            *accrued.entry((owner, asset)).or_default() += entry.share.0 - counted;
        }
    }
    for ((vault, owner), payee) in &state.payees {
        let asset = state.vaults[vault].asset;
        let unit = state.vault_unit(asset).unwrap_or(0);
        let owner = &state.accounts.find(owner).ok_or("a payee without an account")?;
        if *owner == AccountNo::SYSTEM {
            continue;
        }
        let units = |count: u64| i128::from(count) * unit;
        *accrued.entry((*owner, asset)).or_default() += payee.covered.0 - units(payee.closed_units);
        *settling.entry((*owner, asset)).or_default() += units(payee.closed_units - payee.confirmed_units);
        *payable.entry((*owner, asset)).or_default() += units(payee.confirmed_units - payee.claimed_units);
    }
    if let Some(open) = &state.economy.treasury.open {
        let unit = state.vault_unit(open.asset).unwrap_or(0);
        for payout in &open.payouts {
            let owner = state.accounts.find(&payout.account).ok_or("a payee without an account")?;
            *settling.entry((owner, open.asset)).or_default() += i128::from(payout.added_units) * unit;
        }
    }
    for (key, row) in state.books.rows() {
        let expected = match key.kind {
            AccountKind::OperatorAccrued => &accrued,
            AccountKind::OperatorSettling => &settling,
            AccountKind::OperatorPayable => &payable,
            _ => continue,
        };
        let expected = expected.get(&(key.owner, key.asset)).copied().unwrap_or(0);
        same(&format!("earnings of {key:?}"), row.credit_balance(), expected)?;
    }
    Ok(())
}

/// The mirror: what lies in vaults and pots is what the chain's own figures say, and covers what is owed from it.
fn vaults_cover_deposits(state: &State) -> Result<(), String> {
    let assets = state.network.as_ref().map_or(&[][..], |network| &network.assets);
    for asset in assets {
        let Some(unit) = state.vault_unit(asset.id) else { continue };
        let system = |kind| state.books.credit_balance(&state.accounts, BookKey::system(kind, asset.id));
        let (mut in_vaults, mut waiting, mut uncharged) = (0, 0, 0);
        for wallet in state.wallets.values() {
            let (vault, address) = (&wallet.vault, &wallet.address);
            if state.vaults[vault].asset != asset.id {
                continue;
            }
            let out = i128::from(wallet.withdrawn_units) + i128::from(wallet.charged_units);
            in_vaults += (i128::from(wallet.deposited_units) - out) * unit;
            waiting += wallet.unattributed.0;
            uncharged += wallet.captured.0 - i128::from(wallet.charged_units) * unit;
            let open: i128 = wallet.queue.iter().map(|entry| entry.cost.0 - entry.covered.0).sum();
            let batch = state.open_batches.get(vault).map(|id| &state.batches[id]);
            let charges = batch.iter().flat_map(|batch| &batch.charges);
            let mine = charges.filter(|charge| charge.wallet == *address);
            let closing: u64 = mine.map(|charge| charge.added_units).sum();
            let covered = (i128::from(wallet.charged_units) + i128::from(closing)) * unit;
            same(&format!("charged of wallet {address}"), wallet.captured.0 - open, covered)?;
        }
        same("vault asset", -system(AccountKind::VaultAsset), in_vaults)?;
        same("unattributed deposits", system(AccountKind::UnattributedDeposits), waiting)?;
        let payees = state.payees.iter().filter(|((vault, _), _)| state.vaults[vault].asset == asset.id);
        let unclaimed: u64 = payees.map(|(_, payee)| payee.confirmed_units - payee.claimed_units).sum();
        same("pot asset", -system(AccountKind::PotAsset), i128::from(unclaimed) * unit)?;
        let of_kind = |kind| -> i128 {
            let rows = state.books.rows().filter(|(k, _)| (k.kind, k.asset) == (kind, asset.id));
            rows.map(|(_, row)| row.credit_balance()).sum()
        };
        // What a reorganisation took from a wallet that no account ever linked is owed by nobody we know.
        let lost = -system(AccountKind::Receivable);
        let debts: i128 =
            state.accounts.debts.iter().filter(|((_, of), _)| *of == asset.id).map(|(_, debt)| debt.0).sum();
        let lines = state.credit_lines.iter().filter(|((_, of), _)| *of == asset.id);
        let drawn: i128 = lines.map(|(_, line)| line.drawn.0).sum();
        same("receivables", -of_kind(AccountKind::Receivable), debts + lost + drawn)?;
        let owed = of_kind(AccountKind::CustomerDeposited) + waiting + uncharged;
        if in_vaults + debts + lost < owed {
            return Err(format!(
                "vaults hold {in_vaults} and {debts} is owed to them, {owed} is owed from them"
            ));
        }
    }
    Ok(())
}
