//! Mirrors what the chain says into the log: each fact becomes one command with a key of its own, so that a repeated look,
//! a restart or a re-scan changes nothing. The watcher decides what is confirmed; the ledger decides what it means.

use std::path::PathBuf;
use std::time::Duration;

use journal::{LedgerClient, SubmitError};
use ledger::command::{
    Command, CommandBody, ConfirmBatch, ConfirmDeposit, LapseVoucher, RecordClaim, RedeemVoucher,
    SeeExitFinalised,
};
use protocol::asset::VaultRef;
use protocol::event::Actor;
use protocol::event::chain::{CheckpointAnchored, DepositKey, ExitCancelled, ExitRequested};
use protocol::id::{EvmAddress, Hash32 as LogHash, IdempotencyKey, Word32};
use tokio::sync::watch;

use crate::deployment::Deployment;
use crate::durable::write_whole;
use crate::error::ChainError;
use crate::event::{ChainEvent, ChainFact, Origin};
use crate::fixed_bytes::{Address20, Hash32};
use crate::quorum::QuorumReader;
use crate::watcher::{ConfirmationPolicy, PendingDeposit, Watcher, WatcherState};

/// What the mirror knows right now, for pages and for `readyz`.
#[derive(Debug, Clone, Default)]
pub struct MirrorStatus {
    /// Newest block seen.
    pub head: u64,
    /// Newest block whose facts are in the log.
    pub mirrored: u64,
    /// Deposits that wait for confirmations.
    pub pending: Vec<PendingDeposit>,
    /// Why nothing is mirrored any more, when so.
    pub halted: Option<String>,
}

/// What the mirror needs.
pub struct MirrorOptions {
    /// The contracts.
    pub deployment: Deployment,
    /// Blocks on top of a block before its facts count.
    pub confirmations: u64,
    /// Where the position is kept.
    pub state_file: PathBuf,
    /// The log.
    pub client: LedgerClient,
    /// keccak256 of our log's origin line: anchors of other logs are not ours.
    pub origin: Hash32,
}

/// The watcher's hands: from confirmed facts to commands.
pub struct Mirror {
    options: MirrorOptions,
    reader: QuorumReader<Deployment>,
    watcher: Watcher,
    status: watch::Sender<MirrorStatus>,
}

impl Mirror {
    /// Continues where the state file says, else at the block of the deployment.
    pub fn open(options: MirrorOptions) -> Result<Mirror, ChainError> {
        let path = &options.state_file;
        let state = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| ChainError::file(path, e))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                WatcherState::new(options.deployment.manifest(), options.confirmations)
            }
            Err(e) => return Err(ChainError::file(path, e)),
        };
        let (status, _) = watch::channel(MirrorStatus::default());
        let reader = QuorumReader::new(vec![options.deployment.clone()], 1)?;
        Ok(Mirror { watcher: Watcher::new(state), options, reader, status })
    }

    /// Believes only what `quorum` of our node and these agree on: the same contracts through other nodes.
    pub fn with_witnesses(mut self, witnesses: Vec<Deployment>, quorum: usize) -> Result<Mirror, ChainError> {
        let readers = std::iter::once(self.options.deployment.clone()).chain(witnesses).collect();
        self.reader = QuorumReader::new(readers, quorum)?;
        Ok(self)
    }

    /// Lets larger deposits wait for more blocks.
    pub fn with_policy(mut self, policy: ConfirmationPolicy) -> Mirror {
        self.watcher.set_policy(policy);
        self
    }

    /// Follows what the mirror knows.
    pub fn status(&self) -> watch::Receiver<MirrorStatus> {
        self.status.subscribe()
    }

    /// Looks again and again until `stop` says so. Trouble with the node is waited out; trouble with the log too.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut tick = tokio::time::interval(self.options.deployment.chain().poll_interval());
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = stop.wait_for(|s| *s) => return,
            }
            if let Err(error) = self.look().await {
                tracing::warn!(target: "mirror", %error, "chain not mirrored this time");
            }
        }
    }

    /// One look: poll, submit in order, then remember the position.
    pub async fn look(&mut self) -> Result<(), ChainError> {
        // A copy: were a command not accepted, the next look must see the same facts again.
        let mut watcher = self.watcher.clone();
        let poll = watcher.poll(&self.reader).await?;
        for event in poll.early_exits.iter().chain(&poll.events) {
            self.mirror(event).await?;
        }
        for gone in &poll.vanished_exits {
            self.exit_vanished(gone).await?;
        }
        if let Some(confirmed) = poll.confirmed {
            self.lapse_vouchers(confirmed).await?;
        }
        let moved = watcher.state() != self.watcher.state();
        self.watcher = watcher;
        if moved {
            let text = serde_json::to_vec(self.watcher.state()).expect("a position has a JSON form");
            write_whole(&self.options.state_file, &text)?;
        }
        self.status.send_replace(MirrorStatus {
            head: poll.head.number,
            mirrored: self.watcher.state().next_block.saturating_sub(1),
            pending: poll.pending_deposits,
            halted: poll.halt.map(|halt| {
                format!("block {} was replaced after it was mirrored: deposits wait", halt.replaced.number)
            }),
        });
        Ok(())
    }

    fn vault(&self) -> VaultRef {
        let manifest = self.options.deployment.manifest();
        VaultRef { chain_id: manifest.chain_id, vault: evm(manifest.vault) }
    }

    async fn mirror(&self, event: &ChainEvent) -> Result<(), ChainError> {
        if let Some(body) = self.command(event).await? {
            self.submit(origin_key(&event.origin), body).await?;
        }
        Ok(())
    }

    /// The command a fact asks for; `None` when the books do not follow from it.
    async fn command(&self, event: &ChainEvent) -> Result<Option<CommandBody>, ChainError> {
        let (vault, origin) = (self.vault(), &event.origin);
        let tx = Word32(origin.key.tx.0);
        let body: CommandBody = match &event.fact {
            ChainFact::Deposited { account, units, .. } => ConfirmDeposit {
                key: DepositKey { vault, tx, ordinal: origin.key.ordinal },
                wallet: evm(*account),
                units: *units,
                block: origin.block,
                block_hash: Word32(origin.block_hash.0),
            }
            .into(),
            ChainFact::Withdrawn { account, units, nonce, .. } => {
                RedeemVoucher { vault, wallet: evm(*account), nonce: *nonce, units: *units, tx }.into()
            }
            ChainFact::ExitRequested { account, exit_at } => {
                ExitRequested { vault, wallet: evm(*account), exit_at_s: u64::from(*exit_at), tx }.into()
            }
            ChainFact::ExitCancelled { account } => ExitCancelled { vault, wallet: evm(*account), tx }.into(),
            ChainFact::ExitFinalized { account, units, .. } => {
                SeeExitFinalised { vault, wallet: evm(*account), units: *units, tx }.into()
            }
            ChainFact::Claimed { operator, units, .. } => {
                RecordClaim { vault, address: evm(*operator), units: *units, tx }.into()
            }
            ChainFact::Settled { epoch, total, .. } => match self.batch_of(*epoch).await? {
                Some(batch) => ConfirmBatch {
                    batch,
                    tx,
                    block: origin.block,
                    block_hash: Word32(origin.block_hash.0),
                    charged_units: *total,
                }
                .into(),
                None => return Ok(None),
            },
            ChainFact::Anchored { origin: log, size, root, .. } if *log == self.options.origin => {
                let root = LogHash(root.0);
                CheckpointAnchored { chain_id: vault.chain_id, size: *size, root, tx }.into()
            }
            // Caps are booked when the wallet signs; roots, records and other logs' anchors follow from what is booked.
            ChainFact::Authorised { .. }
            | ChainFact::Charged { .. }
            | ChainFact::Shortfall { .. }
            | ChainFact::SettlerAppointed { .. }
            | ChainFact::RootPosted { .. }
            | ChainFact::RootDisabled { .. }
            | ChainFact::PayeeSet { .. }
            | ChainFact::SurplusAttributed { .. }
            | ChainFact::Economy(_)
            | ChainFact::Anchored { .. } => return Ok(None),
        };
        Ok(Some(body))
    }

    async fn batch_of(&self, epoch: u64) -> Result<Option<protocol::id::BatchId>, ChainError> {
        let vault = self.vault();
        let found = self.options.client.read(move |state| {
            let open = ledger::query::open_batch(state, vault)?;
            (open.number == epoch).then_some(open.batch)
        });
        found.await.map_err(not_taken)
    }

    async fn exit_vanished(&self, event: &ChainEvent) -> Result<(), ChainError> {
        let ChainFact::ExitRequested { account, .. } = event.fact else { return Ok(()) };
        let key = IdempotencyKey::internal("exit vanished", &[&origin_key(&event.origin).0]);
        let body =
            ExitCancelled { vault: self.vault(), wallet: evm(account), tx: Word32(event.origin.key.tx.0) };
        self.submit(key, body.into()).await
    }

    /// Rulings 3.6: a reservation is released only when a block deep enough is past the deadline and the nonce unused.
    async fn lapse_vouchers(&self, confirmed: crate::chain::Head) -> Result<(), ChainError> {
        let vault = self.vault();
        let open = self.options.client.read(ledger::query::open_vouchers);
        for voucher in open.await.map_err(not_taken)? {
            if voucher.vault != vault || voucher.deadline_s >= confirmed.timestamp {
                continue;
            }
            let wallet = Address20(voucher.wallet.0);
            let account = self.options.deployment.account_at(wallet, confirmed.hash).await?;
            if account.withdrawal_nonce == voucher.nonce {
                let key = IdempotencyKey::internal("voucher lapsed", &[&voucher.voucher.0]);
                let body = LapseVoucher { voucher: voucher.voucher, block: confirmed.number };
                self.submit(key, body.into()).await?;
            }
        }
        Ok(())
    }

    /// Submits until the outcome is known. A refusal is logged: the chain is as it is, the books say what they lack.
    async fn submit(&self, key: IdempotencyKey, body: CommandBody) -> Result<(), ChainError> {
        let command = Command::new(key, Actor::Watcher, body);
        match submit_known(&self.options.client, command).await {
            Ok(_) => Ok(()),
            // Something on its way must end first; the next look asks again.
            Err(SubmitError::Refused { refusal, .. })
                if matches!(refusal.name(), "holds_open" | "batch_open") =>
            {
                Err(not_taken(SubmitError::Refused { refusal, at_leaf: 0 }))
            }
            Err(SubmitError::Refused { refusal, .. }) => {
                tracing::warn!(target: "mirror", %refusal, "the ledger refused a fact of the chain");
                Ok(())
            }
            Err(error) => Err(not_taken(error)),
        }
    }
}

/// How long to wait before a command with an unknown outcome is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// How often.
const ASK_AGAIN_MAX: u32 = 25;

/// Submits a command and, while the outcome is unknown or the queue full, asks again with the same key.
pub(crate) async fn submit_known(
    client: &LedgerClient,
    command: Command,
) -> Result<journal::Outcome, SubmitError> {
    let mut tick = tokio::time::interval(ASK_AGAIN);
    let mut asked = 0;
    loop {
        tick.tick().await;
        match client.submit(command.clone()).await {
            Err(SubmitError::Unknown | SubmitError::Overloaded) if asked < ASK_AGAIN_MAX => asked += 1,
            answer => return answer,
        }
    }
}

/// The log did not take a command: nothing is remembered, the next look tries again.
pub(crate) fn not_taken(error: SubmitError) -> ChainError {
    ChainError::Log { cause: error.to_string() }
}

pub(crate) fn evm(address: Address20) -> EvmAddress {
    EvmAddress(address.0)
}

fn origin_key(origin: &Origin) -> IdempotencyKey {
    let key = &origin.key;
    IdempotencyKey::internal(
        "chain fact",
        &[
            &key.chain_id.to_be_bytes(),
            &key.contract.0,
            &key.tx.0,
            &key.ordinal.to_be_bytes(),
            &key.part.to_be_bytes(),
            // A deposit that was reversed and mined again stands in another block: not the old answer.
            &origin.block_hash.0,
        ],
    )
}
