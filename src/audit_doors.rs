//! What the auditor's traits are here: a chain over the contracts room, re-execution over the kernels.

use anyhow::{Context, Result};
use auditor::chain::{Block, ChainEvent, ChainFact, ChainReader, ChainUnavailable, Holdings, WalletRecord};
use auditor::sample::{Reexecution, Reexecutor, Verdict};
use contracts::chain::{Chain, ChainConfig, Head};
use contracts::deployment::Deployment;
use contracts::error::ChainError;
use contracts::event::ChainFact as Fact;
use contracts::fixed_bytes::Address20;
use contracts::manifest::Manifest;
use contracts::reader::ChainReader as _;
use kernels::{Claim, Level, LoadOptions, Model};
use protocol::asset::VaultRef;
use protocol::id::{EvmAddress, Hash32, Word32};
use protocol::job_message::JobBody;
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Runtime;

/// How often a node is asked at most; audits ask once.
const POLL_MS: u64 = 200;

/// A chain at one named block. Used from threads without a runtime of their own.
pub struct ChainAtBlock {
    runtime: Runtime,
    deployment: Deployment,
    block: Head,
}

impl ChainAtBlock {
    /// Connects, verifies the manifest's contracts, and fixes the block: the given one, else the newest.
    pub fn open(rpc_url: &str, manifest: &Path, at_block: Option<u64>) -> Result<ChainAtBlock> {
        let runtime = Runtime::new()?;
        let manifest = Manifest::load(manifest)?;
        let config = ChainConfig {
            rpc_url: rpc_url.to_owned(),
            chain_id: manifest.chain_id,
            confirmations: 0,
            poll_interval_ms: POLL_MS,
        };
        let (deployment, block) = runtime.block_on(async {
            let deployment = Deployment::open(Chain::connect(config).await?, manifest).await?;
            let head = deployment.head().await?;
            let block = match at_block {
                None => head,
                Some(number) => deployment.block(number).await?.with_context(|| {
                    format!("block {number} does not exist; the newest is {}", head.number)
                })?,
            };
            Ok::<_, anyhow::Error>((deployment, block))
        })?;
        Ok(ChainAtBlock { runtime, deployment, block })
    }

    fn check_vault(&self, vault: VaultRef) -> Result<(), ChainUnavailable> {
        let manifest = self.deployment.manifest();
        if (vault.chain_id, vault.vault.0) == (manifest.chain_id, manifest.vault.0) {
            return Ok(());
        }
        Err(ChainUnavailable(format!("vault {} is not the manifest's {}", vault.vault, manifest.vault)))
    }
}

fn unavailable(error: ChainError) -> ChainUnavailable {
    ChainUnavailable(error.to_string())
}

fn evm(address: Address20) -> EvmAddress {
    EvmAddress(address.0)
}

impl ChainReader for ChainAtBlock {
    fn block(&self) -> Result<Block, ChainUnavailable> {
        let Head { number, hash, timestamp } = self.block;
        Ok(Block { number, hash: Word32(hash.0), timestamp_s: timestamp })
    }

    fn holdings(&self, vault: VaultRef) -> Result<Holdings, ChainUnavailable> {
        self.check_vault(vault)?;
        let read = self.runtime.block_on(self.deployment.holdings_at(self.block.number));
        let held = read.map_err(unavailable)?;
        Ok(Holdings {
            vault_units: held.vault_units,
            pot_units: held.pot_units,
            funded_units: held.funded,
            claimed_units: held.claimed_total,
            last_number: held.last_epoch,
        })
    }

    fn wallet(&self, vault: VaultRef, wallet: EvmAddress) -> Result<WalletRecord, ChainUnavailable> {
        self.check_vault(vault)?;
        let read = self.runtime.block_on(self.deployment.account_at(Address20(wallet.0), self.block.hash));
        let account = read.map_err(unavailable)?;
        Ok(WalletRecord { balance_units: account.balance, charged_units: account.charged })
    }

    fn facts(&self) -> Result<Vec<ChainEvent>, ChainUnavailable> {
        let manifest = self.deployment.manifest();
        let vault = VaultRef { chain_id: manifest.chain_id, vault: evm(manifest.vault) };
        let read = self.runtime.block_on(async {
            let head = self.deployment.head().await?;
            self.deployment.events(manifest.deployed_block, head.number).await
        });
        let events = read.map_err(unavailable)?;
        let known = |event: contracts::event::ChainEvent| {
            Some(ChainEvent {
                vault,
                block: event.origin.block,
                tx: Word32(event.origin.key.tx.0),
                ordinal: event.origin.key.ordinal,
                fact: fact(event.fact)?,
            })
        };
        Ok(events.into_iter().filter_map(known).collect())
    }
}

/// The facts that the books must agree with.
fn fact(fact: Fact) -> Option<ChainFact> {
    Some(match fact {
        Fact::Deposited { account, units, .. } => ChainFact::Deposited { wallet: evm(account), units },
        Fact::Withdrawn { account, units, nonce, .. } => {
            ChainFact::Withdrawn { wallet: evm(account), units, nonce }
        }
        Fact::ExitFinalized { account, units, .. } => {
            ChainFact::ExitFinalised { wallet: evm(account), units }
        }
        Fact::Settled { epoch, total, root, root_total, commitment, .. } => ChainFact::Settled {
            number: epoch,
            total_units: total,
            root: Word32(root.0),
            root_total_units: root_total,
            commitment: Word32(commitment.0),
        },
        Fact::Claimed { operator, units, .. } => ChainFact::Claimed { address: evm(operator), units },
        Fact::Anchored { origin, size, root, .. } => {
            ChainFact::Anchored { origin: Word32(origin.0), size, root: Hash32(root.0) }
        }
        Fact::Authorised { .. }
        | Fact::Charged { .. }
        | Fact::Shortfall { .. }
        | Fact::ExitRequested { .. }
        | Fact::ExitCancelled { .. }
        | Fact::SettlerAppointed { .. }
        | Fact::RootPosted { .. }
        | Fact::RootDisabled { .. }
        | Fact::PayeeSet { .. }
        | Fact::SurplusAttributed { .. }
        | Fact::Economy(_) => return None,
    })
}

/// Runs jobs again on this machine's CPU.
pub struct CpuKernels {
    model: Arc<Model>,
    threads: usize,
}

impl CpuKernels {
    /// Loads the weights once.
    pub fn load(model: &Path) -> Result<CpuKernels> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let loaded = Model::load(model, LoadOptions::from_environment()?);
        Ok(CpuKernels { model: loaded.with_context(|| model.display().to_string())?, threads })
    }
}

impl Reexecutor for CpuKernels {
    fn reexecute(&self, job: &Reexecution<'_>) -> Verdict {
        if job.weights.0 != self.model.id() {
            let ours = Hash32(self.model.id());
            return Verdict::Unavailable(format!(
                "the job ran on weights {}, this file is {ours}",
                job.weights
            ));
        }
        // The auditor's own key, not the one that the contents claim.
        let body = JobBody { sampling_key: job.sampling_key, ..job.body.clone() };
        let claim =
            Claim { output_ids: job.output_ids.to_vec(), chain_head: job.chain_head.0, ..Claim::default() };
        let request = worker::backend::job_request(&body);
        let found = kernels::verify_job(&self.model, self.threads, &request, &claim, Level::Whole);
        match found.map(|finding| finding.verdict) {
            Ok(kernels::Verdict::Identical { .. }) => Verdict::Identical,
            Ok(kernels::Verdict::Differs { index, expected, claimed }) => Verdict::Differs {
                token: Some(u64::from(index)),
                expected: format!("token {expected}"),
                actual: format!("token {claimed}"),
            },
            Ok(kernels::Verdict::HeadDiffers { computed }) => Verdict::Differs {
                token: None,
                expected: Hash32(computed).to_string(),
                actual: job.chain_head.to_string(),
            },
            Err(error) => Verdict::Unavailable(error.to_string()),
        }
    }
}
