//! Mirrors what the chain says into the log: each fact becomes one command with a key of its own, so that a repeated look,
//! a restart or a re-scan changes nothing. The watcher decides what is confirmed; the ledger decides what it means.

mod complaint;
mod reorg;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use journal::{LedgerClient, SubmitError};
use ledger::command::{
    CheckSolvency, Command, CommandBody, ConfirmBatch, ConfirmDeposit, IssueGrant, LapseVoucher, OpenAccount,
    RecordClaim, RedeemVoucher, SeeExitFinalised,
};
use ledger::grants::PRIORITY_PACKAGE;
use protocol::amount::Amount;
use protocol::asset::{AssetId, VAULT_SCALE, VaultRef};
use protocol::event::account::SpendAuthorised;
use protocol::event::chain::{CheckpointAnchored, DepositKey, ExitCancelled, ExitRequested};
use protocol::event::grant::{Backing, GrantSource};
use protocol::event::{Actor, EventBody};
use protocol::id::{AccountId, EvmAddress, Hash32 as LogHash, IdempotencyKey, Word32};
use tokio::sync::watch;

use self::complaint::Complaint;
use crate::deployment::Deployment;
use crate::durable::write_whole;
use crate::error::ChainError;
use crate::event::{ChainEvent, ChainFact, EconomyFact, Origin};
use crate::fixed_bytes::{Address20, Hash32};
use crate::quorum::QuorumReader;
use crate::watcher::{ConfirmationPolicy, PendingDeposit, Watcher, WatcherState};

/// Deposits in one message to the log.
const DEPOSITS_AT_ONCE_MAX: usize = 256;

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
    /// Bought packages give credit in it; without one, purchases are not booked.
    package_asset: Option<AssetId>,
    /// What a deep reorganisation took is accepted as it is: a person has looked.
    resumes: bool,
    /// The last epoch of the chain's clock whose solvency is in the books.
    checked_epoch: AtomicU64,
    reader: QuorumReader<Deployment>,
    watcher: Watcher,
    status: watch::Sender<MirrorStatus>,
    complaint: Complaint,
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
        Ok(Mirror {
            watcher: Watcher::new(state),
            options,
            package_asset: None,
            resumes: false,
            checked_epoch: AtomicU64::new(u64::MAX),
            reader,
            status,
            complaint: Complaint::default(),
        })
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

    /// Goes on after a reorganisation that was deeper than the confirmations, although something is owed for it or cannot
    /// be taken back: a person has looked, and the books stand as they are.
    pub fn resume_after_reorg(mut self) -> Mirror {
        self.resumes = true;
        self
    }

    /// Books bought packages as credit in an asset, for the account that the buyer's address is linked to or is.
    pub fn with_packages(mut self, asset: AssetId) -> Mirror {
        self.package_asset = Some(asset);
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
            match self.look().await {
                Ok(()) if self.watcher.state().halt.is_some() => {}
                Ok(()) => self.complaint.end(),
                Err(error) if self.complaint.is_due(error.to_string(), Instant::now()) => {
                    tracing::warn!(target: "mirror", %error, "chain not mirrored this time");
                }
                Err(_) => {}
            }
        }
    }

    /// One look: poll, submit in order, then remember the position.
    pub async fn look(&mut self) -> Result<(), ChainError> {
        // A copy: were a command not accepted, the next look must see the same facts again.
        let mut watcher = self.watcher.clone();
        let poll = watcher.poll(&self.reader).await?;
        if let Some(halt) = poll.halt {
            self.take_back(&mut watcher, halt).await?;
        }
        self.mirror_all(poll.early_exits.iter().chain(&poll.events)).await?;
        for gone in &poll.vanished_exits {
            self.exit_vanished(gone).await?;
        }
        if let Some(confirmed) = poll.confirmed {
            self.lapse_vouchers(confirmed).await?;
            if poll.caught_up && watcher.state().halt.is_none() && !watcher.holds_back() {
                self.check_solvency(confirmed).await?;
            }
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
            halted: self.watcher.state().halt.map(|halt| {
                format!("block {} was replaced after it was mirrored: deposits wait", halt.replaced.number)
            }),
        });
        Ok(())
    }

    fn vault(&self) -> VaultRef {
        let manifest = self.options.deployment.manifest();
        VaultRef { chain_id: manifest.chain_id, vault: evm(manifest.vault) }
    }

    /// In the chain's order; deposits that stand together go to the log as one message.
    async fn mirror_all<'a>(&self, events: impl Iterator<Item = &'a ChainEvent>) -> Result<(), ChainError> {
        let mut deposits: Vec<Command> = Vec::new();
        for event in events {
            if let ChainFact::Deposited { account, units, .. } = &event.fact {
                let body = self.deposit(&event.origin, *account, *units);
                deposits.push(Command::new(origin_key(&event.origin), Actor::Watcher, body));
                if deposits.len() == DEPOSITS_AT_ONCE_MAX {
                    self.submit_deposits(std::mem::take(&mut deposits)).await?;
                }
                continue;
            }
            self.submit_deposits(std::mem::take(&mut deposits)).await?;
            self.mirror(event).await?;
        }
        self.submit_deposits(deposits).await
    }

    async fn submit_deposits(&self, deposits: Vec<Command>) -> Result<(), ChainError> {
        if deposits.is_empty() {
            return Ok(());
        }
        let results = match self.options.client.submit_many(deposits.clone()).await {
            Ok(results) => results,
            // Whatever happened of them, each is asked for again by its key.
            Err(_) => deposits.iter().map(|_| Err(SubmitError::Unknown)).collect(),
        };
        for (command, result) in deposits.into_iter().zip(results) {
            if result.is_err() {
                self.submit(command.key, command.body).await?;
            }
        }
        Ok(())
    }

    fn deposit(&self, origin: &Origin, account: Address20, units: u64) -> ConfirmDeposit {
        ConfirmDeposit {
            key: DepositKey { vault: self.vault(), tx: Word32(origin.key.tx.0), ordinal: origin.key.ordinal },
            wallet: evm(account),
            units,
            block: origin.block,
            block_hash: Word32(origin.block_hash.0),
        }
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
            ChainFact::Deposited { account, units, .. } => self.deposit(origin, *account, *units).into(),
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
            ChainFact::Authorised { account, .. } => match self.linked(*account).await? {
                Some(linked) => return Ok(cap(vault, linked, &event.fact)),
                // A cap is booked when its wallet is linked: the gateway reads it then.
                None => return Ok(None),
            },
            ChainFact::Economy(EconomyFact::PackagePurchased { account, units, valid_until, .. }) => {
                return self.package(origin, *account, *units, *valid_until).await;
            }
            // Roots, records and other logs' anchors follow from what is booked; stakes are read at a block.
            ChainFact::Charged { .. }
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

    async fn linked(&self, account: Address20) -> Result<Option<AccountId>, ChainError> {
        let (vault, wallet) = (self.vault(), evm(account));
        let found = self.options.client.read(move |state| ledger::query::wallet(state, vault, wallet));
        Ok(found.await.map_err(not_taken)?.and_then(|wallet| wallet.account))
    }

    /// Credit for a bought package. The buyer may be nobody's wallet yet: then its address is the account.
    async fn package(
        &self,
        origin: &Origin,
        buyer: Address20,
        units: u64,
        valid_until_s: u64,
    ) -> Result<Option<CommandBody>, ChainError> {
        let Some(asset) = self.package_asset else { return Ok(None) };
        let own = AccountId::of_wallet(evm(buyer));
        let account = self.linked(buyer).await?.unwrap_or(own);
        let number = purchase_number(origin);
        let read = self.options.client.read(move |state| {
            let scale = ledger::query::assets(state).get(asset.0 as usize).map(|asset| asset.ledger_scale);
            let is_granted = ledger::query::package_is_granted(state, number);
            (scale, is_granted, ledger::query::account_exists(state, account))
        });
        let (scale, is_granted, exists) = read.await.map_err(not_taken)?;
        if is_granted {
            // The log forgets keys after a while; a bucket stays.
            return Ok(None);
        }
        let unit = scale.and_then(|scale| 10i128.checked_pow(u32::from(scale.checked_sub(VAULT_SCALE)?)));
        let unit =
            unit.ok_or_else(|| ChainError::Log { cause: format!("no asset {} for packages", asset.0) })?;
        if !exists {
            let key = IdempotencyKey::internal("account of an address", &[&own.0]);
            self.submit(key, OpenAccount { account: own }.into()).await?;
        }
        let grant = IssueGrant {
            account,
            source: GrantSource::Package,
            asset,
            amount: Amount(i128::from(units) * unit),
            priority: PRIORITY_PACKAGE,
            scope: Vec::new(),
            expires_us: valid_until_s.checked_mul(1_000_000),
            backing: Backing::Package(number),
        };
        Ok(Some(grant.into()))
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

    /// Once an epoch of the chain's clock: what the vault holds at a confirmed block against what the books owe, which know
    /// everything up to that block. The key is the epoch's, so that a second check of it is the first one's outcome.
    async fn check_solvency(&self, confirmed: crate::chain::Head) -> Result<(), ChainError> {
        let read = self.options.client.read(|state| ledger::query::settings(state).map(|s| s.epoch_us));
        let Some(epoch_us) = read.await.map_err(not_taken)?.filter(|epoch_us| *epoch_us > 0) else {
            return Ok(());
        };
        let epoch = confirmed.timestamp.saturating_mul(1_000_000) / epoch_us;
        if self.checked_epoch.load(Ordering::Relaxed) == epoch {
            return Ok(());
        }
        let vault = self.vault();
        let held = self.options.deployment.holdings_at(confirmed.number).await?;
        if held.block.hash != confirmed.hash {
            // Replaced between two questions; the next look asks again.
            return Ok(());
        }
        let check = CheckSolvency {
            vault,
            block: confirmed.number,
            block_hash: Word32(confirmed.hash.0),
            held_units: held.vault_units,
        };
        let place = [&vault.chain_id.to_be_bytes()[..], &vault.vault.0, &epoch.to_be_bytes()].concat();
        let command = Command::new(IdempotencyKey::internal("solvency", &[&place]), Actor::Watcher, check);
        let outcome = match submit_known(&self.options.client, command).await {
            Ok(outcome) => outcome,
            // The epoch was checked before, at another block; anything else is a vault that nobody registered.
            Err(SubmitError::Refused { refusal, .. }) => {
                tracing::debug!(target: "mirror", %refusal, epoch, "solvency is not checked again");
                self.checked_epoch.store(epoch, Ordering::Relaxed);
                return Ok(());
            }
            Err(error) => return Err(not_taken(error)),
        };
        for event in &outcome.events {
            if let EventBody::SolvencyChecked(checked) = &event.body
                && checked.held_units < checked.owed_units
            {
                let (held_units, owed_units) = (checked.held_units, checked.owed_units);
                tracing::error!(target: "mirror", block = checked.block, held_units, owed_units, "the vault is short");
            }
        }
        self.checked_epoch.store(epoch, Ordering::Relaxed);
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
            // The cap was booked when its wallet signed it, or a higher one since.
            Err(SubmitError::Refused { refusal, .. })
                if matches!(refusal.name(), "authorisation_not_higher" | "authorisation_nonce") =>
            {
                Ok(())
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

/// A cap as the vault recorded it: it was confirmed on the chain, so no signature is kept.
fn cap(vault: VaultRef, account: AccountId, fact: &ChainFact) -> Option<CommandBody> {
    let ChainFact::Authorised { account: wallet, max_cumulative, valid_until, nonce, session } = fact else {
        return None;
    };
    let authorised = SpendAuthorised {
        account,
        vault,
        wallet: evm(*wallet),
        max_cumulative_units: *max_cumulative,
        valid_until_s: *valid_until,
        nonce: *nonce,
        session: LogHash(session.0),
        signature: None,
    };
    Some(authorised.into())
}

/// A purchase's own number: the contract gives none, its place on the chain is one.
fn purchase_number(origin: &Origin) -> u64 {
    let place = [&origin.key.tx.0[..], &origin.key.ordinal.to_be_bytes()].concat();
    let hash = Hash32::keccak(&place).0;
    u64::from_be_bytes(std::array::from_fn(|index| hash[index]))
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
