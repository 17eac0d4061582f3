//! Read-only views, all by reference to [`State`]. What may be shown to whom is the caller's question.

use crate::accounts;
use crate::accounts::{AccountNo, book_key};
use crate::batches;
use crate::earnings::{Earning, EarningKey};
use crate::grants::{self, Paper};
use crate::jobs::{self, Dispatch, Job, JobState, Part};
use crate::rates;
use crate::state::State;
use crate::vouchers;
use protocol::amount::Amount;
use protocol::asset::{Asset, AssetId, VaultRef};
use protocol::event::account::AccountKind;
use protocol::event::batch::{BatchSubmitted, Charge, Payout, Rail};
use protocol::event::chain::{DepositKey, VaultRegistered};
use protocol::event::grant::{Backing, GrantSource};
use protocol::event::hold::Slice;
use protocol::event::policy::{NetworkOpened, Settings};
use protocol::event::{GrantId, LedgerAccount};
use protocol::id::{
    AccountId, BatchId, EvmAddress, Hash32, HoldId, JobId, NodeId, OperatorId, SealingKey, VoucherId, Word32,
};
use serde::Serialize;

pub use crate::batches::BatchState;
pub use crate::jobs::Attempt;
pub use crate::rates::PublishedCard;
pub use crate::vouchers::VoucherState;

/// What an account has in one asset, base units.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AssetBalance {
    /// Which asset.
    pub asset: AssetId,
    /// What a new hold could take now, for a model that every grant covers.
    pub available: Amount,
    /// In open holds.
    pub held: Amount,
    /// In open vouchers.
    pub reserved_for_withdrawal: Amount,
    /// Everything not spent: the sum of the grants' remaining.
    pub total: Amount,
    /// Owed after reversed deposits and exits; above zero nothing is available.
    pub owed: Amount,
    /// The buckets, in consumption order.
    pub grants: Vec<GrantView>,
}

/// One bucket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct GrantView {
    /// Its number.
    pub id: GrantId,
    /// From where.
    pub source: GrantSource,
    /// Not spent; includes what is held and reserved.
    pub remaining: Amount,
    /// In open holds.
    pub held: Amount,
    /// What a new hold could take now.
    pub spendable: Amount,
    /// When it ends.
    pub expires_us: Option<u64>,
    /// Models it may pay for; empty = all.
    pub scope: Vec<String>,
    /// What stands behind it.
    pub backing: Backing,
}

/// What stood behind each part of a hold or charge.
pub fn balance_sources(state: &State, slices: &[Slice]) -> Vec<(Backing, Amount)> {
    let known = slices.iter().filter_map(|slice| Some((state.grants.get(slice.grant)?, slice.amount)));
    known.map(|(grant, amount)| (grants::backing(state, grant.paper), amount)).collect()
}

/// Where a job stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Its hold is open.
    Running,
    /// It was charged.
    Captured,
    /// Its hold was released.
    Voided,
    /// Its hold ran out.
    Expired,
}

/// One job.
#[derive(Clone, PartialEq, Debug)]
pub struct JobView {
    /// The job.
    pub job: JobId,
    /// Its hold.
    pub hold: HoldId,
    /// Who pays.
    pub account: AccountId,
    /// The model's name on its card.
    pub model: String,
    /// The card it is priced by.
    pub rate_card_version: u32,
    /// Where it stands.
    pub status: JobStatus,
    /// Every dispatch, by its number.
    pub attempts: Vec<Attempt>,
    /// Prompt tokens.
    pub input_units: u64,
    /// Bound on output tokens.
    pub output_units_max: u64,
    /// When it must have ended, microseconds UTC.
    pub deadline_us: u64,
    /// When its hold expires, microseconds UTC.
    pub due_us: u64,
    /// In which asset.
    pub asset: AssetId,
    /// Worst-case cost, base units.
    pub amount: Amount,
    /// What was charged; also of a running job that is charged in parts.
    pub charge: Option<ChargeView>,
}

/// What a job was charged so far: the sums of its parts, and the last part's attempt, receipt and leaf.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChargeView {
    /// The attempt that delivered.
    pub attempt: u32,
    /// Prompt tokens billed.
    pub input_units: u64,
    /// Output tokens billed.
    pub output_units: u64,
    /// Base units.
    pub cost: Amount,
    /// The operator's part.
    pub operator_share: Amount,
    /// The platform's part.
    pub platform_share: Amount,
    /// BLAKE3 of the signed receipt.
    pub receipt: Hash32,
    /// Leaf of its event.
    pub leaf: u64,
    /// Whether it was undone.
    pub reversed: bool,
    /// Of how many parts it is; more than one only for a job that was charged on the way.
    pub parts: u32,
}

/// One operator.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct OperatorView {
    /// Its key.
    pub operator: OperatorId,
    /// The account that earns.
    pub account: AccountId,
    /// Its leaf in payout roots.
    pub payout_address: EvmAddress,
}

/// One node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct NodeView {
    /// The node.
    pub node: NodeId,
    /// Its owner.
    pub operator: OperatorId,
    /// Models it serves, sorted.
    pub models: Vec<String>,
    /// Declared concurrent jobs.
    pub slots: u32,
    /// Job bodies are sealed to it.
    pub sealing_key: SealingKey,
    /// Whether it left for good.
    pub retired: bool,
}

/// One wallet in one vault.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct WalletView {
    /// Where.
    pub vault: VaultRef,
    /// Who.
    pub wallet: EvmAddress,
    /// The account it is linked to.
    pub account: Option<AccountId>,
    /// Its deposit bucket.
    pub bucket: Option<GrantId>,
    /// Authorised maximum for life, vault units; 0 without an authorisation.
    pub cap_units: u64,
    /// End of the authorisation, seconds UTC; 0 without one.
    pub valid_until_s: u32,
    /// The authorisation's nonce.
    pub nonce: u64,
    /// Cumulative captures, base units.
    pub captured: Amount,
    /// Confirmed cumulative charge, vault units.
    pub charged_units: u64,
    /// When the requested exit can be carried out; `None` without a request.
    pub exit_at_s: Option<u64>,
    /// Open vouchers, base units.
    pub reserved: Amount,
    /// Deposits that wait for an account, base units.
    pub unattributed: Amount,
    /// For life, vault units.
    pub deposited_units: u64,
    /// For life, vault units.
    pub withdrawn_units: u64,
}

/// One voucher.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct VoucherView {
    /// The voucher.
    pub voucher: VoucherId,
    /// Whose credit.
    pub account: AccountId,
    /// From which vault.
    pub vault: VaultRef,
    /// Who may use it.
    pub wallet: EvmAddress,
    /// Vault units.
    pub units: u64,
    /// The vault's withdrawal nonce.
    pub nonce: u64,
    /// Seconds UTC on the chain's clock.
    pub deadline_s: u64,
    /// Where it stands.
    pub state: VoucherState,
}

/// One batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BatchView {
    /// The batch.
    pub batch: BatchId,
    /// The vault's settlement number.
    pub number: u64,
    /// Whose funds.
    pub vault: VaultRef,
    /// In which asset.
    pub asset: AssetId,
    /// Captures before this leaf are in.
    pub cutoff_leaf: u64,
    /// Leaf of its `BatchClosed`: a checkpoint must cover it before it is sent.
    pub closed_leaf: u64,
    /// When it was closed, microseconds UTC.
    pub closed_us: u64,
    /// How it is paid.
    pub rail: Rail,
    /// Sorted by wallet.
    pub charges: Vec<Charge>,
    /// Every payee's cumulative payout, sorted by address: the leaves of the payout root.
    pub payouts: Vec<Payout>,
    /// Sum of the added charges, vault units.
    pub charged_units: u64,
    /// Where it stands.
    pub state: BatchState,
    /// Roots and commitment, once submitted.
    pub submitted: Option<BatchSubmitted>,
    /// The transaction, once confirmed.
    pub confirmed_tx: Option<Word32>,
}

/// One served request in a batch: a leaf of its requests root. A capture that two batches charge in part has a line in
/// both; its amounts sum to the operator's share.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RequestLine {
    /// The job.
    pub job: JobId,
    /// Who served it.
    pub operator: OperatorId,
    /// Its payout address.
    pub payout_address: EvmAddress,
    /// What the operator earns by this batch, base units.
    pub amount: Amount,
    /// BLAKE3 of the signed receipt.
    pub receipt: Hash32,
}

/// One ledger account. Counters only grow; what is reserved now is `debits_pending - credits_pending`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TrialLine {
    /// Its dense number.
    pub number: LedgerAccount,
    /// Whose it is.
    pub owner: AccountId,
    /// What it counts.
    pub kind: AccountKind,
    /// In which asset.
    pub asset: AssetId,
    /// Booked debits.
    pub debits_posted: Amount,
    /// Booked credits.
    pub credits_posted: Amount,
    /// Reserving debits.
    pub debits_pending: Amount,
    /// Reserving credits.
    pub credits_pending: Amount,
}

/// What an operator earned in one asset, base units.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Earnings {
    /// Which asset.
    pub asset: AssetId,
    /// Not yet in a batch; includes `unbacked`.
    pub accrued: Amount,
    /// Of that, what no vault pays (unbacked credit, exits that fell short).
    pub unbacked: Amount,
    /// What of it can be taken as credit, by what stands behind it; sums to `unbacked`.
    pub takeable: Vec<Takeable>,
    /// In a batch that is not final.
    pub settling: Amount,
    /// Claimable from the pot.
    pub payable: Amount,
    /// Claimed for life.
    pub claimed: Amount,
}

/// What can be taken as earned credit, base units.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Takeable {
    /// What stands behind it, before and after.
    pub backing: Backing,
    /// How much waits.
    pub amount: Amount,
}

/// Whether the account exists, open or closed.
pub fn account_exists(state: &State, account: AccountId) -> bool {
    state.accounts.contains_key(&account)
}

/// Whether the account exists and is open.
pub fn account_is_open(state: &State, account: AccountId) -> bool {
    state.accounts.get(&account).is_some_and(|row| !row.closed)
}

/// Every account id, sorted.
pub fn accounts(state: &State) -> Vec<AccountId> {
    let mut ids: Vec<AccountId> = state.accounts.rows.iter().map(|row| row.id).collect();
    ids.sort_unstable();
    ids
}

/// What the account has at `now_us`, by asset.
pub fn balance(state: &State, account: AccountId, now_us: u64) -> Vec<AssetBalance> {
    let number = state.accounts.find(&account);
    let Some((number, row)) = number.and_then(|number| Some((number, state.accounts.row(number)?))) else {
        return Vec::new();
    };
    let mut balances: Vec<AssetBalance> = Vec::new();
    let frozen = row.closed || state.accounts.owes(number).is_some();
    let assets = row.grants.as_slice().iter().map(|id| state.grants[*id].asset());
    let debts = state.accounts.debts.range((number, AssetId(0))..=(number, AssetId(u32::MAX)));
    let mut assets: Vec<AssetId> = assets.chain(debts.map(|((_, asset), _)| *asset)).collect();
    assets.sort_unstable();
    assets.dedup();
    for asset in assets {
        let mut balance = AssetBalance {
            asset,
            available: Amount::ZERO,
            held: Amount::ZERO,
            reserved_for_withdrawal: Amount::ZERO,
            total: Amount::ZERO,
            owed: Amount(state.accounts.debt(number, asset)),
            grants: Vec::new(),
        };
        for id in row.grants.as_slice() {
            let grant = &state.grants[*id];
            if grant.asset() != asset {
                continue;
            }
            let spendable = if frozen { 0 } else { grants::spendable(state, grant, now_us) };
            balance.available.0 += spendable;
            balance.held.0 += grant.held.0;
            let reserved = state.reserved(grant);
            balance.reserved_for_withdrawal.0 += reserved;
            balance.total.0 += grant.remaining.0 + reserved;
            balance.grants.push(GrantView {
                id: *id,
                source: grant.source,
                remaining: Amount(grant.remaining.0 + reserved),
                held: grant.held,
                spendable: Amount(spendable),
                expires_us: (grant.expires_us != u64::MAX).then_some(grant.expires_us),
                scope: state.grants.scope(grant).to_vec(),
                backing: grants::backing(state, grant.paper),
            });
        }
        balances.push(balance);
    }
    balances
}

/// What the wallet can withdraw now, vault units.
pub fn withdrawable(state: &State, vault: VaultRef, wallet: EvmAddress) -> u64 {
    let row = state.wallets.get(&(vault, wallet));
    let account = row.and_then(|row| row.account).and_then(|id| state.accounts.find(&id));
    let free = row.is_some_and(|row| row.exit_at_s.is_none())
        && account.is_some_and(|number| accounts::check_spending(state, number).is_ok());
    if free { vouchers::withdrawable_units(state, vault, wallet) } else { 0 }
}

/// The rate card that prices holds at `now_us`.
pub fn rate_card(state: &State, now_us: u64) -> Option<&PublishedCard> {
    rates::in_force(state, now_us)
}

/// A rate card by its version.
pub fn rate_card_by_version(state: &State, version: u32) -> Option<&PublishedCard> {
    rates::by_version(state, version)
}

/// One job, while something can still refer to it: running, or ended within the retention of idempotency keys, or with
/// charges that wait for a batch. `None` for one that never was and for one that is finished and settled: that one is in
/// the books.
pub fn job(state: &State, id: JobId) -> Option<JobView> {
    state.jobs.get(&id).map(|job| view(state, job))
}

fn view(state: &State, job: &Job) -> JobView {
    let status = match &job.state {
        JobState::Running => JobStatus::Running,
        JobState::Voided(_) => JobStatus::Voided,
        JobState::Expired => JobStatus::Expired,
        JobState::Captured => JobStatus::Captured,
    };
    let parts = job.parts();
    let charge = parts.last().map(|last| {
        let sum = |of: fn(&Part) -> i128| Amount(parts.iter().map(of).sum());
        ChargeView {
            attempt: last.attempt,
            input_units: parts.iter().map(|part| part.input_units).sum(),
            output_units: parts.iter().map(|part| part.output_units).sum(),
            cost: sum(|part| part.cost.0),
            operator_share: sum(|part| part.operator_share.0),
            platform_share: sum(Part::platform_share),
            receipt: last.receipt,
            leaf: last.leaf,
            reversed: job.reversed,
            parts: parts.len() as u32,
        }
    });
    let attempt = |dispatch: Dispatch| Attempt {
        node: dispatch.node,
        operator: state.operators[dispatch.operator].id,
        body: dispatch.body,
        continues_at: dispatch.continues_at,
        dispatched_us: dispatch.dispatched_us,
    };
    JobView {
        job: job.id,
        hold: job.hold,
        account: state.accounts.id(job.account),
        model: jobs::model(state, job).to_owned(),
        rate_card_version: job.rate_card_version,
        status,
        attempts: job.attempts.iter().map(attempt).collect(),
        input_units: job.input_units,
        output_units_max: job.output_units_max,
        deadline_us: job.deadline_us,
        due_us: job.due_us,
        asset: job.asset,
        amount: job.amount(),
        charge,
    }
}

/// Ended jobs with charges, by the leaf of their end, after a leaf, at most `count`. Only jobs that [`job`] still knows:
/// older charges are in the books.
pub fn captures_after(state: &State, leaf: Option<u64>, count: usize) -> Vec<(u64, JobId)> {
    let first = leaf.map_or(0, |leaf| leaf.saturating_add(1));
    let charged = state.jobs.ended_from(first).filter(|job| job.part_count() > 0);
    charged.map(|job| (job.ended_leaf, job.id)).take(count).collect()
}

/// Jobs whose hold is open, by id.
pub fn open_jobs(state: &State) -> Vec<JobView> {
    let mut open: Vec<&Job> = state.timers.running().map(|number| &state.jobs[number]).collect();
    open.sort_unstable_by_key(|job| job.id);
    open.into_iter().map(|job| view(state, job)).collect()
}

/// One node.
pub fn node(state: &State, id: NodeId) -> Option<NodeView> {
    let node = state.nodes.get(&id)?;
    Some(NodeView {
        node: id,
        operator: node.operator,
        models: node.models.clone(),
        slots: node.slots,
        sealing_key: node.sealing_key,
        retired: node.retired,
    })
}

/// Every node, also retired ones, by id.
pub fn nodes(state: &State) -> Vec<NodeView> {
    state.nodes.keys().filter_map(|id| node(state, *id)).collect()
}

/// One operator.
pub fn operator(state: &State, id: OperatorId) -> Option<OperatorView> {
    let row = state.operators.get(&id)?;
    Some(OperatorView { operator: id, account: row.account, payout_address: row.payout_address })
}

/// Every operator, by id.
pub fn operators(state: &State) -> Vec<OperatorView> {
    state.operators.ids().filter_map(|id| operator(state, *id)).collect()
}

/// What the operator's account earned, by asset.
pub fn earnings(state: &State, id: OperatorId) -> Vec<Earnings> {
    let (Some(operator), Some(network)) = (state.operators.get(&id), &state.network) else {
        return Vec::new();
    };
    let account = operator.account;
    let mut earnings = Vec::new();
    for asset in &network.assets {
        let key = |kind| book_key(state, account, kind, asset.id);
        let of = |kind| Amount(state.books.credit_balance(&state.accounts, key(kind)));
        let unit = state.vault_unit(asset.id).unwrap_or(0);
        let vaults = state.vaults.values().filter(|vault| vault.asset == asset.id);
        let payees = vaults.filter_map(|vault| state.payees.get(&(vault.vault, account)));
        let takeable = takeable(state, operator.account_no, asset.id);
        let line = Earnings {
            asset: asset.id,
            accrued: of(AccountKind::OperatorAccrued),
            unbacked: Amount(takeable.iter().map(|part| part.amount.0).sum()),
            takeable,
            settling: of(AccountKind::OperatorSettling),
            payable: of(AccountKind::OperatorPayable),
            claimed: Amount(payees.map(|payee| i128::from(payee.claimed_units) * unit).sum()),
        };
        earnings.push(line);
    }
    earnings
}

/// By backing, those of which nothing waits left out.
fn takeable(state: &State, owner: AccountNo, asset: AssetId) -> Vec<Takeable> {
    let all = state.earnings.range((owner, asset, Paper::Unbacked)..);
    let own = all.take_while(|((of, is, _), _)| (*of, *is) == (owner, asset));
    let waiting = own.filter(|(_, earning)| !earning.waiting.is_zero());
    let takeable = |((_, _, paper), earning): (&EarningKey, &Earning)| Takeable {
        backing: grants::backing(state, *paper),
        amount: earning.waiting,
    };
    waiting.map(takeable).collect()
}

/// One wallet in one vault.
pub fn wallet(state: &State, vault: VaultRef, address: EvmAddress) -> Option<WalletView> {
    let row = state.wallets.get(&(vault, address))?;
    let authorisation = row.authorisation.as_ref();
    Some(WalletView {
        vault,
        wallet: address,
        account: row.account,
        bucket: row.bucket,
        cap_units: authorisation.map_or(0, |a| a.max_cumulative_units),
        valid_until_s: authorisation.map_or(0, |a| a.valid_until_s),
        nonce: authorisation.map_or(0, |a| a.nonce),
        captured: row.captured,
        charged_units: row.charged_units,
        exit_at_s: row.exit_at_s,
        reserved: row.reserved,
        unattributed: row.unattributed,
        deposited_units: row.deposited_units,
        withdrawn_units: row.withdrawn_units,
    })
}

/// Wallets linked to an account.
pub fn wallets_of(state: &State, account: AccountId) -> Vec<WalletView> {
    let number = state.accounts.find(&account);
    let keys = number.into_iter().flat_map(|number| state.accounts.wallets_of(number));
    keys.filter_map(|(vault, address)| wallet(state, vault, address)).collect()
}

/// Every wallet of a vault, by address.
pub fn wallets(state: &State, vault: VaultRef) -> Vec<WalletView> {
    state.wallets.of(vault).filter_map(|row| wallet(state, vault, row.address)).collect()
}

/// Whether a deposit is mirrored and was not reversed.
pub fn deposit_is_mirrored(state: &State, key: DepositKey) -> bool {
    state.deposits.get(&key).is_some_and(|deposit| !deposit.reversed)
}

/// Whether a package's purchase has its bucket: it has one for ever.
pub fn package_is_granted(state: &State, purchase: u64) -> bool {
    let paper = grants::paper_beside_vaults(Backing::Package(purchase));
    state.grants.iter().any(|(_, grant)| Some(grant.paper) == paper)
}

/// Vouchers that are still open, by id.
pub fn open_vouchers(state: &State) -> Vec<VoucherView> {
    let open = state.vouchers.iter().filter(|(_, voucher)| voucher.state == VoucherState::Open);
    open.filter_map(|(id, _)| voucher(state, *id)).collect()
}

/// One voucher.
pub fn voucher(state: &State, id: VoucherId) -> Option<VoucherView> {
    let row = state.vouchers.get(&id)?;
    Some(VoucherView {
        voucher: id,
        account: row.account,
        vault: row.vault,
        wallet: row.wallet,
        units: row.units,
        nonce: row.nonce,
        deadline_s: row.deadline_s,
        state: row.state,
    })
}

/// Registered vaults.
pub fn vaults(state: &State) -> Vec<&VaultRegistered> {
    state.vaults.values().collect()
}

/// How the network was opened.
pub fn network(state: &State) -> Option<&NetworkOpened> {
    state.network.as_ref()
}

/// The assets, in the order of their numbers.
pub fn assets(state: &State) -> &[Asset] {
    state.network.as_ref().map_or(&[], |network| &network.assets)
}

/// The rules in force; `None` before the network is opened.
pub fn settings(state: &State) -> Option<&Settings> {
    state.settings()
}

/// One batch.
pub fn batch(state: &State, id: BatchId) -> Option<BatchView> {
    let row = state.batches.get(&id)?;
    Some(BatchView {
        batch: id,
        number: row.number,
        vault: row.vault,
        asset: row.asset,
        cutoff_leaf: row.cutoff_leaf,
        closed_leaf: row.closed_leaf,
        closed_us: row.closed_us,
        rail: row.rail,
        charges: row.charges.clone(),
        payouts: row.payouts.clone(),
        charged_units: row.charges.iter().map(|charge| charge.added_units).sum(),
        state: row.state,
        submitted: row.submitted.clone(),
        confirmed_tx: row.confirmed_tx,
    })
}

/// The vault's batch that is neither confirmed nor failed.
pub fn open_batch(state: &State, vault: VaultRef) -> Option<BatchView> {
    batch(state, *state.open_batches.get(&vault)?)
}

/// Every batch in the order of closing.
pub fn batches(state: &State) -> Vec<BatchView> {
    let mut views: Vec<BatchView> = state.batches.keys().filter_map(|id| batch(state, *id)).collect();
    views.sort_by_key(|view| view.closed_leaf);
    views
}

/// The served requests of a batch, in the order of their captures' leaves.
pub fn batch_requests(state: &State, id: BatchId) -> Vec<RequestLine> {
    let lines = state.batches.get(&id).map_or(&[][..], |batch| &batch.lines);
    let mut lines: Vec<&batches::Line> = lines.iter().collect();
    lines.sort_by_key(|line| (line.leaf, line.wallet));
    let mut requests: Vec<RequestLine> = Vec::with_capacity(lines.len());
    let mut last_leaf = None;
    for line in lines {
        // One charge paid from two wallets is one request; another part of the same job is another.
        let last = requests.last_mut().filter(|_| last_leaf == Some(line.leaf));
        last_leaf = Some(line.leaf);
        if let Some(last) = last {
            last.amount.0 += line.share.0;
            continue;
        }
        let address = state.operators.get(&line.operator).map(|operator| operator.payout_address);
        requests.push(RequestLine {
            job: line.job,
            operator: line.operator,
            payout_address: address.unwrap_or(EvmAddress([0; 20])),
            amount: line.share,
            receipt: line.receipt,
        });
    }
    requests
}

/// Every ledger account with its counters, by number.
pub fn trial_balance(state: &State) -> Vec<TrialLine> {
    let numbers = 0..state.books.count() as u32;
    numbers.filter_map(|number| ledger_account(state, LedgerAccount(number))).collect()
}

/// One ledger account by its number.
pub fn ledger_account(state: &State, number: LedgerAccount) -> Option<TrialLine> {
    let (key, row) = (state.books.key(number)?, state.books.counters(number)?);
    Some(TrialLine {
        number,
        owner: state.accounts.id(key.owner),
        kind: key.kind,
        asset: key.asset,
        debits_posted: row.debits_posted,
        credits_posted: row.credits_posted,
        debits_pending: row.debits_pending,
        credits_pending: row.credits_pending,
    })
}

/// When the next timer fires, microseconds UTC.
pub fn next_due_us(state: &State) -> Option<u64> {
    state.timers.next_us(&state.jobs)
}
