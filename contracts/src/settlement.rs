//! One settlement from the books to the chain: close, fix the roots over a checkpoint that covers the close, send, and
//! wait until the mirror has confirmed it. Every step is found again after a crash: the batch's state is in the log, the
//! signed transaction on disk.

mod short;

use std::future::Future;
use std::path::{Path, PathBuf};

use journal::LedgerClient;
use ledger::command::{CloseBatch, Command, CommandBody, FailBatch};
use ledger::query::{BatchState, BatchView};
use protocol::asset::VaultRef;
use protocol::event::Actor;
use protocol::event::batch::{BatchReplaced, BatchSubmitted, Rail};
use protocol::id::{BatchId, Hash32 as LogHash, IdempotencyKey, Word32};
use serde::{Deserialize, Serialize};

use crate::deployment::Deployment;
use crate::durable::write_whole;
use crate::error::ChainError;
use crate::event::Record;
use crate::fixed_bytes::{Address20, Hash32};
use crate::mirror::{evm, not_taken, submit_known};
use crate::requests::{RequestScope, ServedRequest, commitment};
use crate::settler::{Payout, Settlement, SettlementPlan, Settler};

/// Where checkpoints come from: the transparency log's signer.
pub trait CheckpointSource: Send + Sync {
    /// The newest checkpoint that covers at least `size` leaves; waits until there is one.
    fn covering(&self, size: u64) -> impl Future<Output = Result<(u64, LogHash), String>> + Send;
}

/// What a settlement needs.
pub struct SettlementOptions<C> {
    /// The contracts.
    pub deployment: Deployment,
    /// The sender.
    pub settler: Settler,
    /// The log.
    pub client: LedgerClient,
    /// Checkpoints.
    pub checkpoints: C,
    /// Where plans and request lists are published.
    pub directory: PathBuf,
}

/// Batches of one epoch: each holds a few hundred wallets, so that it fits into a log entry and into a transaction.
const BATCHES_PER_EPOCH_MAX: usize = 1_000;

/// A settlement as published beside the chain: everything an operator needs to claim and to prove a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedBatch {
    /// The batch.
    pub batch: String,
    /// What was sent.
    pub plan: SettlementPlan,
    /// The served requests, in the order of the log.
    pub requests: Vec<ServedRequest>,
}

/// The settlement role of a coordinator.
pub struct SettlementRun<C> {
    options: SettlementOptions<C>,
}

impl<C: CheckpointSource> SettlementRun<C> {
    /// Takes the role.
    pub fn new(options: SettlementOptions<C>) -> Self {
        SettlementRun { options }
    }

    /// Settles everything that is due: batch after batch, each when the one before is confirmed in the log. An epoch with
    /// nothing due is empty.
    pub async fn settle_epoch(&self) -> Result<Vec<(BatchId, Settlement)>, ChainError> {
        let mut settled = Vec::new();
        while settled.len() < BATCHES_PER_EPOCH_MAX {
            let Some((batch, settlement)) = self.settle_once().await? else { break };
            settled.push((batch, settlement));
            self.confirmed(batch).await?;
        }
        Ok(settled)
    }

    /// Waits until the mirror has booked a batch's end.
    async fn confirmed(&self, id: BatchId) -> Result<(), ChainError> {
        let mut position = self.options.client.position();
        loop {
            position.borrow_and_update();
            let state =
                self.options.client.read(move |state| ledger::query::batch(state, id).map(|b| b.state));
            match state.await.map_err(not_taken)? {
                Some(BatchState::Closed | BatchState::Submitted) => {}
                Some(BatchState::Confirmed | BatchState::Failed) | None => return Ok(()),
            }
            let stopped = |_| ChainError::Log { cause: "the log has stopped".to_owned() };
            position.changed().await.map_err(stopped)?;
        }
    }

    /// Finishes what was under way, then closes and settles one batch of what is due. `None`: nothing was due.
    pub async fn settle_once(&self) -> Result<Option<(BatchId, Settlement)>, ChainError> {
        let batch = match self.open_batch().await? {
            Some(open) => open,
            None => match self.close().await? {
                Some(closed) => closed,
                None => return Ok(None),
            },
        };
        let published = self.publish(&batch).await?;
        let settled = self.options.settler.settle(&published.plan).await;
        self.note_replacements(batch.batch).await?;
        match settled {
            Ok(settlement) => Ok(Some((batch.batch, settlement))),
            Err(
                error @ (ChainError::PlanStale { .. }
                | ChainError::EpochTaken { .. }
                | ChainError::BadPlan { .. }),
            ) => {
                // Not sent and never to be sent as it stands: its amounts wait again.
                let body = FailBatch { batch: batch.batch, reason: error.to_string() };
                self.submit("batch failed", &batch.batch.0, body.into()).await?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Books which transactions took the place of stuck ones, before anything else happens to the batch.
    async fn note_replacements(&self, batch: BatchId) -> Result<(), ChainError> {
        for replacement in self.options.settler.take_replacements() {
            let (replaced, tx) = (Word32(replacement.replaced.0), Word32(replacement.tx.0));
            let note = BatchReplaced { batch, replaced, tx };
            match self.submit("batch replaced", &tx.0, note.into()).await {
                // The mirror was faster: the batch is confirmed, by the event that counts.
                Ok(()) | Err(ChainError::Refused { refusal: "batch_not_open", .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn vault(&self) -> VaultRef {
        let manifest = self.options.deployment.manifest();
        VaultRef { chain_id: manifest.chain_id, vault: evm(manifest.vault) }
    }

    async fn open_batch(&self) -> Result<Option<BatchView>, ChainError> {
        let vault = self.vault();
        let open = self.options.client.read(move |state| ledger::query::open_batch(state, vault));
        open.await.map_err(not_taken)
    }

    async fn close(&self) -> Result<Option<BatchView>, ChainError> {
        let vault = self.vault();
        let without = short::short_wallets(&self.options.client, &self.options.deployment, vault).await?;
        if !without.is_empty() {
            let wallets = without.len();
            tracing::warn!(target: "settlement", wallets, "wallets that would be charged short wait");
        }
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|e| ChainError::Log { cause: e.to_string() })?;
        let close = CloseBatch { batch: BatchId(id), vault, rail: Rail::RootClaims, without };
        match self.submit("close batch", &id, close.into()).await {
            Ok(()) => self.open_batch().await,
            Err(ChainError::Refused { refusal: "nothing_to_charge", .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fixes the roots in the log, once, and writes the plan where operators find it.
    async fn publish(&self, batch: &BatchView) -> Result<PublishedBatch, ChainError> {
        let path = batch_path(&self.options.directory, batch.number);
        if batch.submitted.is_some()
            && let Some(known) = read_published(&path)?
            && known.batch == batch.batch.to_string()
        {
            return Ok(known);
        }
        let covered = self.options.checkpoints.covering(batch.closed_leaf + 1).await;
        let (tlog_size, tlog_root) = covered.map_err(|cause| ChainError::Log { cause })?;
        let requests = self.requests(batch).await?;
        let manifest = self.options.deployment.manifest();
        let scope = RequestScope { chain_id: manifest.chain_id, vault: manifest.vault, epoch: batch.number };
        let requests_root = scope.tree(&requests).root();
        let commitment = commitment(requests_root, tlog_size, Hash32(tlog_root.0));
        let plan = plan(batch, commitment)?;
        let submitted = BatchSubmitted {
            batch: batch.batch,
            payout_root: Word32(plan.root.0),
            root_total_units: plan.root_total,
            requests_root: Word32(requests_root.0),
            tlog_size,
            tlog_root,
            commitment: Word32(commitment.0),
        };
        let published = PublishedBatch { batch: batch.batch.to_string(), plan, requests };
        let text = serde_json::to_vec_pretty(&published).expect("a batch has a JSON form");
        // On disk first: once the log says "submitted", the plan must be found again with the same bytes.
        write_whole(&path, &text)?;
        self.submit("submit batch", &batch.batch.0, submitted.into()).await?;
        Ok(published)
    }

    async fn requests(&self, batch: &BatchView) -> Result<Vec<ServedRequest>, ChainError> {
        let id = batch.batch;
        let lines = self.options.client.read(move |state| ledger::query::batch_requests(state, id));
        let request = |line: ledger::query::RequestLine| ServedRequest {
            job: line.job.0,
            operator: Address20(line.payout_address.0),
            amount_base_units: line.amount.0.unsigned_abs(),
            receipt: Hash32(line.receipt.0),
        };
        Ok(lines.await.map_err(not_taken)?.into_iter().map(request).collect())
    }

    async fn submit(&self, purpose: &str, id: &[u8], body: CommandBody) -> Result<(), ChainError> {
        let key = IdempotencyKey::internal(purpose, &[id]);
        let command = Command::new(key, Actor::Settler, body);
        match submit_known(&self.options.client, command).await {
            Ok(_) => Ok(()),
            Err(journal::SubmitError::Refused { refusal, .. }) => {
                Err(ChainError::Refused { refusal: refusal.name(), cause: refusal.to_string() })
            }
            Err(error) => Err(not_taken(error)),
        }
    }
}

fn plan(batch: &BatchView, commitment: Hash32) -> Result<SettlementPlan, ChainError> {
    let records = batch.charges.iter().map(|charge| Record {
        account: Address20(charge.wallet.0),
        cumulative_units: charge.cumulative_units,
    });
    let payouts = batch.payouts.iter().filter(|p| p.cumulative_units > 0).map(|payout| Payout {
        operator: Address20(payout.address.0),
        cumulative_units: payout.cumulative_units,
    });
    // All or nothing (decision 0002): what was closed is charged in full, or the batch fails.
    SettlementPlan::new(batch.number, records.collect(), payouts.collect(), commitment, batch.charged_units)
}

/// Where a settlement is published.
pub fn batch_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("batch-{number}.json"))
}

/// Reads a published settlement; `None` when there is none.
pub fn read_published(path: &Path) -> Result<Option<PublishedBatch>, ChainError> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| ChainError::file(path, e)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(ChainError::file(path, e)),
    }
}
