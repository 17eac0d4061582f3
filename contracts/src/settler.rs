//! Puts settlements on the chain, one at a time: what is sent is on disk before it is sent, so that after a crash the
//! very same bytes go out again; a stuck transaction is replaced with higher fees; the event confirms, not the status.
//! What is owed to whom is decided by the ledger; depth is the watcher's business.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use alloy::primitives::{Address, Bytes, TxKind};
use alloy::providers::Provider;
use alloy::rpc::types::Filter;
use alloy::sol_types::{SolCall, SolEvent};
use serde::{Deserialize, Serialize};

use crate::bindings::vault::CreditVault;
use crate::chain::{Call, Envelope, Mined};
use crate::deployment::{Claim, Deployment};
use crate::durable::write_whole;
use crate::error::ChainError;
use crate::event::{Record, pack_records};
use crate::fixed_bytes::{Address20, Hash32};
use crate::key::EvmKey;
use crate::merkle::{MerkleTree, payout_leaf, payout_tree};

/// Records in one settlement: 2 000 stay under the gas limit of a transaction (16.7 M), see chain.md.
pub const RECORDS_MAX: usize = 2_000;
/// A replacement must raise both fees by a tenth; nodes that ask for an eighth are served too.
const BUMP_PERCENT: u128 = 1_125;
const BUMP_BASE: u128 = 1_000;
/// A reorg may put the settlement into a block older than the one in which it was prepared, by no more than this.
const SEARCH_MARGIN_BLOCKS: u64 = 256;
/// Replacements of one transaction; then a human should look.
const ATTEMPTS_MAX: usize = 12;

/// An operator's cumulative earnings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payout {
    /// The operator's payout address.
    pub operator: Address20,
    /// Its cumulative earnings in vault units.
    pub cumulative_units: u64,
}

/// What one account owes, with what of it is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// The account and its cumulative charge.
    pub record: Record,
    /// Units that this settlement debits.
    pub debit_units: u64,
}

/// One settlement, complete. Made by [`SettlementPlan::new`], which computes root and total.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettlementPlan {
    /// The vault's last epoch plus one.
    pub epoch: u64,
    /// Cumulative charges, each account once, ordered by address.
    pub records: Vec<Record>,
    /// Cumulative earnings of all operators, each once, ordered by address; none for a chunk that only debits.
    pub payouts: Vec<Payout>,
    /// The payout root; zero without payouts.
    pub root: Hash32,
    /// The sum of the payouts.
    pub root_total: u64,
    /// What the settlement stands for, see specs/settlement.md.
    pub commitment: Hash32,
    /// Units below which the settlement must not happen.
    pub min_total: u64,
}

/// A settlement that is on the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// The epoch.
    pub epoch: u64,
    /// Units debited.
    pub total: u64,
    /// The payout root.
    pub root: Hash32,
    /// What it stands for.
    pub commitment: Hash32,
    /// Where it is.
    pub mined: Mined,
    /// How often the transaction was replaced with higher fees.
    pub replacements: u32,
}

/// A transaction of a settlement that took the place of a stuck one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replacement {
    /// The settlement's epoch.
    pub epoch: u64,
    /// The stuck transaction.
    pub replaced: Hash32,
    /// The one with higher fees.
    pub tx: Hash32,
}

/// How patient the settler is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettlerOptions {
    /// After this time without a block, the transaction is replaced with higher fees.
    pub stuck_after_ms: u64,
    /// After this time in all, the caller gets `NotMined` and may resume later.
    pub give_up_after_ms: u64,
}

/// The only sender of settlements. One process, one key, one directory.
#[derive(Debug)]
pub struct Settler {
    deployment: Deployment,
    key: EvmKey,
    directory: PathBuf,
    options: SettlerOptions,
    /// Replacements, oldest first, until they are taken. Held for one push or take; never across an await.
    replaced: Mutex<Vec<Replacement>>,
}

/// The file of a settlement under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pending {
    plan: SettlementPlan,
    /// The settlement cannot stand in an older block.
    since_block: u64,
    /// Every signed transaction that may be out there, oldest first; all but the last are replaced.
    attempts: Vec<Attempt>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Attempt {
    envelope: Envelope,
    tx: Hash32,
    raw: Bytes,
}

impl SettlementPlan {
    /// Orders records and payouts, computes root and total, and refuses what contradicts itself.
    pub fn new(
        epoch: u64,
        mut records: Vec<Record>,
        mut payouts: Vec<Payout>,
        commitment: Hash32,
        min_total: u64,
    ) -> Result<Self, ChainError> {
        let bad = |cause: String| Err(ChainError::BadPlan { epoch, cause });
        records.sort_unstable_by_key(|record| record.account);
        payouts.sort_unstable_by_key(|payout| payout.operator);
        if records.len() > RECORDS_MAX {
            return bad(format!("{} records, at most {RECORDS_MAX} fit; split into chunks", records.len()));
        }
        if let Some(pair) = records.windows(2).find(|pair| pair[0].account == pair[1].account) {
            return bad(format!("account {} stands twice", pair[0].account));
        }
        if let Some(pair) = payouts.windows(2).find(|pair| pair[0].operator == pair[1].operator) {
            return bad(format!("operator {} stands twice", pair[0].operator));
        }
        let sum = payouts.iter().try_fold(0u64, |sum, payout| sum.checked_add(payout.cumulative_units));
        let Some(root_total) = sum else { return bad("the payouts add up to more than 64 bits".to_string()) };
        let root = tree_of(&payouts).root();
        Ok(Self { epoch, records, payouts, root, root_total, commitment, min_total })
    }

    /// Splits what does not fit into one transaction: settlements of successive epochs, all but the last only debit.
    /// Each demands its own debits in full, so that the last one's root never promises what an earlier one did not bring.
    pub fn chunks(
        first_epoch: u64,
        charges: &[Charge],
        payouts: Vec<Payout>,
        commitment: Hash32,
    ) -> Result<Vec<Self>, ChainError> {
        let mut charges = charges.to_vec();
        charges.sort_unstable_by_key(|charge| charge.record.account);
        if let Some(pair) = charges.windows(2).find(|pair| pair[0].record.account == pair[1].record.account) {
            let cause = format!("account {} stands twice", pair[0].record.account);
            return Err(ChainError::BadPlan { epoch: first_epoch, cause });
        }
        let chunks: Vec<&[Charge]> = match charges.is_empty() {
            true => vec![&[]],
            false => charges.chunks(RECORDS_MAX).collect(),
        };
        let last = chunks.len() - 1;
        let plan = |(index, chunk): (usize, &&[Charge])| {
            let epoch = first_epoch + index as u64;
            let sum = chunk.iter().try_fold(0u64, |sum, charge| sum.checked_add(charge.debit_units));
            let cause = || "the debits add up to more than 64 bits".to_string();
            let min_total = sum.ok_or_else(|| ChainError::BadPlan { epoch, cause: cause() })?;
            let records = chunk.iter().map(|charge| charge.record).collect();
            let payouts = if index == last { payouts.clone() } else { Vec::new() };
            Self::new(epoch, records, payouts, commitment, min_total)
        };
        chunks.iter().enumerate().map(plan).collect()
    }

    /// An operator's claim against this settlement's root; `None` when it earns nothing here.
    pub fn claim(&self, operator: Address20) -> Option<Claim> {
        let payout = self.payouts.iter().find(|payout| payout.operator == operator)?;
        let leaf = payout_leaf(operator, payout.cumulative_units);
        let proof = tree_of(&self.payouts).proof(leaf)?;
        Some(Claim { epoch: self.epoch, operator, cumulative_units: payout.cumulative_units, proof })
    }

    /// The call's data, for a multisig or anybody who checks it.
    pub fn calldata(&self) -> Vec<u8> {
        let call = CreditVault::settleCall {
            epoch: self.epoch,
            minTotal: self.min_total,
            root: self.root.into(),
            rootTotal: self.root_total,
            commitment: self.commitment.into(),
            records: pack_records(&self.records).into(),
        };
        call.abi_encode()
    }

    /// keccak256 of the packed records, as the `Settled` event carries it.
    pub fn records_hash(&self) -> Hash32 {
        Hash32::keccak(&pack_records(&self.records))
    }

    fn require_consistent(&self) -> Result<(), ChainError> {
        let again = Self::new(
            self.epoch,
            self.records.clone(),
            self.payouts.clone(),
            self.commitment,
            self.min_total,
        )?;
        if again == *self {
            return Ok(());
        }
        let cause = "root, total or order do not follow from records and payouts".to_string();
        Err(ChainError::BadPlan { epoch: self.epoch, cause })
    }
}

impl Settler {
    /// Opens the directory of settlements under way; refuses a key that is not the vault's settler.
    pub async fn open(
        deployment: Deployment,
        key: EvmKey,
        directory: &Path,
        options: SettlerOptions,
    ) -> Result<Self, ChainError> {
        let expected = deployment.settler().await?;
        if key.address() != expected {
            return Err(ChainError::WrongSigner { expected, got: key.address().to_string() });
        }
        std::fs::create_dir_all(directory).map_err(|error| ChainError::file(directory, error))?;
        Ok(Self { deployment, key, directory: directory.to_path_buf(), options, replaced: Mutex::default() })
    }

    /// Settles: prepares, sends, and waits until the event is in a block. A plan that the chain has settled already
    /// gives the same answer again.
    pub async fn settle(&self, plan: &SettlementPlan) -> Result<Settlement, ChainError> {
        if self.load(plan.epoch)?.is_none() && self.deployment.last_epoch().await? >= plan.epoch {
            let since_block = self.deployment.manifest().deployed_block;
            let unsent = Pending { plan: plan.clone(), since_block, attempts: Vec::new() };
            if let Some(done) = self.confirm(&unsent).await? {
                return Ok(done);
            }
        }
        self.prepare(plan).await?;
        self.send(plan.epoch).await
    }

    /// Simulates the plan, signs it and puts it on disk. Nothing is sent. Preparing the same plan again is harmless;
    /// another plan for an epoch under way is refused.
    pub async fn prepare(&self, plan: &SettlementPlan) -> Result<(), ChainError> {
        plan.require_consistent()?;
        if let Some(pending) = self.load(plan.epoch)? {
            if pending.plan == *plan {
                return Ok(());
            }
            let cause = "another plan for this epoch is under way; resume it first".to_string();
            return Err(ChainError::BadPlan { epoch: plan.epoch, cause });
        }
        self.simulate(plan).await?;
        let envelope = self.deployment.chain().fill(&self.key, &self.call(plan)).await?;
        // The settler's own nonce, not the pool's: nothing else may be under way.
        let nonce = self.mined_nonce().await?;
        let head = self.deployment.chain().head().await?.number;
        let since_block =
            head.saturating_sub(SEARCH_MARGIN_BLOCKS).max(self.deployment.manifest().deployed_block);
        let mut pending = Pending { plan: plan.clone(), since_block, attempts: Vec::new() };
        self.sign_into(&mut pending, Envelope { nonce, ..envelope })
    }

    /// Sends a prepared settlement and waits until it is in a block, replacing it when it is stuck.
    pub async fn send(&self, epoch: u64) -> Result<Settlement, ChainError> {
        let Some(mut pending) = self.load(epoch)? else {
            let since_block = self.deployment.manifest().deployed_block;
            return match self.find_settled(epoch, since_block).await? {
                Some((settled, mined)) => Ok(settlement(epoch, &settled, mined, 0)),
                None => Err(ChainError::BadPlan { epoch, cause: "it was never prepared".to_string() }),
            };
        };
        let started = Instant::now();
        loop {
            if let Some(done) = self.confirm(&pending).await? {
                self.forget(epoch)?;
                return Ok(done);
            }
            self.refresh_nonce(&mut pending).await?;
            self.broadcast(&pending).await?;
            if let Some(done) = self.wait(&pending, started).await? {
                self.forget(epoch)?;
                return Ok(done);
            }
            self.bump(&mut pending)?;
        }
    }

    /// After a start: finishes the settlement that was under way, if any.
    pub async fn resume(&self) -> Result<Option<Settlement>, ChainError> {
        match self.pending_epoch()? {
            Some(epoch) => self.send(epoch).await.map(Some),
            None => Ok(None),
        }
    }

    /// Replacements since the last call, oldest first, for the books.
    pub fn take_replacements(&self) -> Vec<Replacement> {
        std::mem::take(&mut self.replaced.lock().expect("nobody panics with it"))
    }

    /// The oldest epoch that is prepared and not confirmed.
    pub fn pending_epoch(&self) -> Result<Option<u64>, ChainError> {
        let failed = |error| ChainError::file(&self.directory, error);
        let mut oldest: Option<u64> = None;
        for entry in std::fs::read_dir(&self.directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let epoch: Option<u64> = name
                .to_str()
                .and_then(|name| name.strip_prefix("settle-")?.strip_suffix(".json")?.parse().ok());
            oldest = match (oldest, epoch) {
                (Some(known), Some(found)) => Some(found.min(known)),
                (known, found) => known.or(found),
            };
        }
        Ok(oldest)
    }

    /// What the plan would collect if it were mined now; `PlanStale` when that is too little.
    pub async fn simulate(&self, plan: &SettlementPlan) -> Result<u64, ChainError> {
        let preview = self.deployment.preview_settle(&plan.records).await?;
        let (epoch, total, min_total) = (plan.epoch, preview.total, plan.min_total);
        if preview.epoch == epoch && total < min_total {
            return Err(ChainError::PlanStale { epoch, total, min_total });
        }
        let vault = self.deployment.vault();
        let call = vault.settle(
            plan.epoch,
            plan.min_total,
            plan.root.into(),
            plan.root_total,
            plan.commitment.into(),
            pack_records(&plan.records).into(),
        );
        let total = call.from(self.key.address().into()).call().await;
        let total = total.map_err(|error| self.deployment.chain().call_failed("settle", error))?;
        Ok(total.saturating_to())
    }

    fn call(&self, plan: &SettlementPlan) -> Call {
        let to = TxKind::Call(self.deployment.manifest().vault.into());
        Call { name: "settle", to, input: plan.calldata().into() }
    }

    async fn mined_nonce(&self) -> Result<u64, ChainError> {
        let chain = self.deployment.chain();
        let nonce = chain.provider().get_transaction_count(Address::from(self.key.address())).await;
        nonce.map_err(|error| chain.rpc("eth_getTransactionCount", error))
    }

    fn sign_into(&self, pending: &mut Pending, envelope: Envelope) -> Result<(), ChainError> {
        let (raw, tx) = self.deployment.chain().sign(&self.key, &self.call(&pending.plan), envelope);
        pending.attempts.push(Attempt { envelope, tx, raw: raw.into() });
        self.store(pending)
    }

    /// If something else took the nonce, none of our attempts can be mined any more: sign again with the next one.
    async fn refresh_nonce(&self, pending: &mut Pending) -> Result<(), ChainError> {
        let last = last_attempt(pending);
        let nonce = self.mined_nonce().await?;
        // Fewer than ours are mined when a reorg dropped a transaction before it: wait for nothing, take that place.
        if nonce == last.envelope.nonce {
            return Ok(());
        }
        if let Some(done) = self.confirm(pending).await? {
            // Mined between two questions; the caller's next look finds it as well.
            tracing::debug!(target: "settler", epoch = done.epoch, "settlement was mined while it was looked up");
            return Ok(());
        }
        let envelope = Envelope { nonce, ..last.envelope };
        self.sign_into(pending, envelope)
    }

    async fn broadcast(&self, pending: &Pending) -> Result<(), ChainError> {
        let last = last_attempt(pending);
        match self.deployment.chain().broadcast("settle", &last.raw).await {
            Ok(()) => Ok(()),
            // The node has it already, or has mined it, or one of its replacements: the receipts tell.
            Err(ChainError::Rpc { cause, .. }) if is_known(&cause) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Waits until one of the attempts is mined; `None` when it is time for a replacement.
    async fn wait(&self, pending: &Pending, started: Instant) -> Result<Option<Settlement>, ChainError> {
        let sent = Instant::now();
        loop {
            if let Some(done) = self.confirm(pending).await? {
                return Ok(Some(done));
            }
            let waited_ms = started.elapsed().as_millis() as u64;
            if waited_ms > self.options.give_up_after_ms {
                return Err(ChainError::NotMined { call: "settle", tx: last_attempt(pending).tx, waited_ms });
            }
            if sent.elapsed() > Duration::from_millis(self.options.stuck_after_ms) {
                return Ok(None);
            }
            tokio::time::sleep(self.deployment.chain().poll_interval()).await;
        }
    }

    fn bump(&self, pending: &mut Pending) -> Result<(), ChainError> {
        if pending.attempts.len() >= ATTEMPTS_MAX {
            return Ok(());
        }
        let last = last_attempt(pending).envelope;
        let raised = |fee: u128| (fee * BUMP_PERCENT).div_ceil(BUMP_BASE).max(fee + 1);
        let envelope = Envelope {
            max_fee_per_gas: raised(last.max_fee_per_gas),
            max_priority_fee_per_gas: raised(last.max_priority_fee_per_gas),
            ..last
        };
        let (epoch, replaced) = (pending.plan.epoch, last_attempt(pending).tx);
        tracing::warn!(target: "settler", epoch, nonce = last.nonce, "settlement is stuck: fees are raised");
        self.sign_into(pending, envelope)?;
        let replacement = Replacement { epoch, replaced, tx: last_attempt(pending).tx };
        self.replaced.lock().expect("nobody panics with it").push(replacement);
        Ok(())
    }

    /// Whether the chain has settled the epoch with our content; an error when it has other content.
    async fn confirm(&self, pending: &Pending) -> Result<Option<Settlement>, ChainError> {
        let plan = &pending.plan;
        if self.deployment.last_epoch().await? < plan.epoch {
            return self.require_none_failed(pending).await.map(|()| None);
        }
        let Some((settled, mined)) = self.find_settled(plan.epoch, pending.since_block).await? else {
            return Ok(None);
        };
        let got = Hash32::from(settled.commitment);
        let same_records = Hash32::from(settled.recordsHash) == plan.records_hash();
        if got != plan.commitment || !same_records || Hash32::from(settled.root) != plan.root {
            return Err(ChainError::EpochTaken { epoch: plan.epoch, expected: plan.commitment, got });
        }
        let replacements = pending.attempts.len().saturating_sub(1) as u32;
        Ok(Some(settlement(plan.epoch, &settled, mined, replacements)))
    }

    /// A transaction that failed in a block is over: the plan must be made again.
    async fn require_none_failed(&self, pending: &Pending) -> Result<(), ChainError> {
        for attempt in &pending.attempts {
            let receipt = self.deployment.chain().receipt(attempt.tx).await?;
            if receipt.is_some_and(|receipt| !receipt.status()) {
                self.forget(pending.plan.epoch)?;
                let reason =
                    format!("transaction {} was mined and failed; preview and plan again", attempt.tx);
                return Err(ChainError::Reverted { call: "settle", reason });
            }
        }
        Ok(())
    }

    async fn find_settled(
        &self,
        epoch: u64,
        since_block: u64,
    ) -> Result<Option<(CreditVault::Settled, Mined)>, ChainError> {
        let manifest = self.deployment.manifest();
        let filter = Filter::new()
            .address(Address::from(manifest.vault))
            .event_signature(CreditVault::Settled::SIGNATURE_HASH)
            .topic1(alloy::primitives::U256::from(epoch))
            .from_block(since_block);
        let Some(log) = self.deployment.logs(&filter).await?.pop() else { return Ok(None) };
        let tx = Hash32::from(log.transaction_hash.unwrap_or_default());
        let decoded = CreditVault::Settled::decode_log_data(log.data());
        let settled =
            decoded.map_err(|error| ChainError::BadLog { tx, ordinal: 0, cause: error.to_string() })?;
        Ok(self.deployment.chain().mined(tx).await?.map(|mined| (settled, mined)))
    }

    fn path(&self, epoch: u64) -> PathBuf {
        self.directory.join(format!("settle-{epoch}.json"))
    }

    fn load(&self, epoch: u64) -> Result<Option<Pending>, ChainError> {
        let path = self.path(epoch);
        match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| ChainError::file(&path, error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ChainError::file(&path, error)),
        }
    }

    fn store(&self, pending: &Pending) -> Result<(), ChainError> {
        let text = serde_json::to_vec_pretty(pending).expect("a settlement has a JSON form");
        write_whole(&self.path(pending.plan.epoch), &text)
    }

    fn forget(&self, epoch: u64) -> Result<(), ChainError> {
        let path = self.path(epoch);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(ChainError::file(&path, error)),
            _ => Ok(()),
        }
    }
}

fn tree_of(payouts: &[Payout]) -> MerkleTree {
    payout_tree(payouts.iter().map(|payout| (payout.operator, payout.cumulative_units)))
}

fn last_attempt(pending: &Pending) -> &Attempt {
    pending.attempts.last().expect("a settlement is only stored with an attempt")
}

fn settlement(epoch: u64, settled: &CreditVault::Settled, mined: Mined, replacements: u32) -> Settlement {
    Settlement {
        epoch,
        total: settled.total.saturating_to(),
        root: settled.root.into(),
        commitment: settled.commitment.into(),
        mined,
        replacements,
    }
}

/// Nodes' words for a transaction that they need not be given again. Not standardised: geth, reth, anvil, nethermind.
fn is_known(cause: &str) -> bool {
    let cause = cause.to_lowercase();
    ["already known", "already imported", "nonce too low", "underpriced", "alreadyknown"]
        .iter()
        .any(|word| cause.contains(word))
}
