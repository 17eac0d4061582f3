//! The whole state of one shard. Only `apply` writes it. Maps are ordered, so that its bytes are canonical.
//! Must not: rules (they stand with their feature).

use crate::accounts::{Account, Books};
use crate::apply::ApplyError;
use crate::batches::{Batch, Payee};
use crate::credit_lines::CreditLine;
use crate::deposits::{Deposit, Wallet};
use crate::grants::Grant;
use crate::idempotency::Keys;
use crate::jobs::{Finished, Job};
use crate::nodes::{Node, Operator};
use crate::rates::PublishedCard;
use crate::spend_caps::{CapKey, SpendCap};
use crate::splits::{Carry, CarryKey};
use crate::timers::Due;
use crate::vouchers::Voucher;
use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::asset::{Asset, AssetId, VAULT_SCALE, VaultRef};
use protocol::event::GrantId;
use protocol::event::chain::{CheckpointAnchored, DepositKey, VaultRegistered};
use protocol::event::policy::{NetworkOpened, Settings};
use protocol::id::{
    AccountId, BatchId, EvmAddress, Hash32, HoldId, JobId, NodeId, OperatorId, VoucherId, Word32,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Everything the ledger knows. A fold over the log: `State::new`, then `apply` for each event and `end_commit` for
/// each commit.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct State {
    #[n(0)]
    pub(crate) shard: u32,
    #[n(1)]
    pub(crate) next_leaf: u64,
    #[n(2)]
    pub(crate) commit: u64,
    #[n(3)]
    pub(crate) commit_hash: Hash32,
    #[n(4)]
    pub(crate) time_us: u64,
    #[n(5)]
    pub(crate) writer_epoch: u64,
    #[n(6)]
    pub(crate) network: Option<NetworkOpened>,
    #[n(7)]
    pub(crate) cards: Vec<PublishedCard>,
    #[n(8)]
    pub(crate) books: Books,
    #[n(9)]
    pub(crate) accounts: BTreeMap<AccountId, Account>,
    #[n(10)]
    pub(crate) grants: Vec<Grant>,
    #[n(11)]
    pub(crate) holds: BTreeMap<HoldId, JobId>,
    #[n(12)]
    pub(crate) jobs: BTreeMap<JobId, Job>,
    #[n(13)]
    pub(crate) open_jobs: BTreeSet<JobId>,
    #[n(14)]
    pub(crate) timers: BTreeSet<(u64, Due)>,
    #[n(15)]
    pub(crate) carries: BTreeMap<CarryKey, Carry>,
    #[n(16)]
    pub(crate) operators: BTreeMap<OperatorId, Operator>,
    #[n(17)]
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    #[n(18)]
    pub(crate) vaults: BTreeMap<VaultRef, VaultRegistered>,
    #[n(19)]
    pub(crate) wallets: BTreeMap<(VaultRef, EvmAddress), Wallet>,
    #[n(20)]
    pub(crate) deposits: BTreeMap<DepositKey, Deposit>,
    #[n(21)]
    pub(crate) vouchers: BTreeMap<VoucherId, Voucher>,
    #[n(22)]
    pub(crate) payees: BTreeMap<(VaultRef, AccountId), Payee>,
    /// Operators' shares that no vault pays.
    #[n(23)]
    pub(crate) unbacked: BTreeMap<(AccountId, AssetId), Amount>,
    #[n(24)]
    pub(crate) batches: BTreeMap<BatchId, Batch>,
    /// The batch of a vault that is neither confirmed nor failed.
    #[n(25)]
    pub(crate) open_batches: BTreeMap<VaultRef, BatchId>,
    /// Settlement numbers that were used, by vault: the last one that was not failed.
    #[n(26)]
    pub(crate) batch_numbers: BTreeMap<VaultRef, u64>,
    #[n(27)]
    pub(crate) claims: BTreeSet<(VaultRef, EvmAddress, Word32)>,
    #[n(28)]
    pub(crate) anchors: Vec<CheckpointAnchored>,
    #[n(29)]
    pub(crate) keys: Keys,
    #[n(30)]
    pub(crate) spend_caps: BTreeMap<CapKey, SpendCap>,
    #[n(31)]
    pub(crate) credit_lines: BTreeMap<(AccountId, AssetId), CreditLine>,
    /// Ended jobs in the order of their ends.
    #[n(32)]
    pub(crate) finished: VecDeque<Finished>,
    /// Ended jobs that only wait for their charges' batches, by the leaf of their end.
    #[n(33)]
    pub(crate) late: BTreeMap<u64, JobId>,
}

impl State {
    /// The state before the first event.
    pub fn new(shard: u32) -> State {
        State {
            shard,
            next_leaf: 0,
            commit: 0,
            commit_hash: Hash32([0; 32]),
            time_us: 0,
            writer_epoch: 0,
            network: None,
            cards: Vec::new(),
            books: Books::default(),
            accounts: BTreeMap::new(),
            grants: Vec::new(),
            holds: BTreeMap::new(),
            jobs: BTreeMap::new(),
            open_jobs: BTreeSet::new(),
            timers: BTreeSet::new(),
            carries: BTreeMap::new(),
            operators: BTreeMap::new(),
            nodes: BTreeMap::new(),
            vaults: BTreeMap::new(),
            wallets: BTreeMap::new(),
            deposits: BTreeMap::new(),
            vouchers: BTreeMap::new(),
            payees: BTreeMap::new(),
            unbacked: BTreeMap::new(),
            batches: BTreeMap::new(),
            open_batches: BTreeMap::new(),
            batch_numbers: BTreeMap::new(),
            claims: BTreeSet::new(),
            anchors: Vec::new(),
            keys: Keys::default(),
            spend_caps: BTreeMap::new(),
            credit_lines: BTreeMap::new(),
            finished: VecDeque::new(),
            late: BTreeMap::new(),
        }
    }

    /// Which shard of the log this is.
    pub fn shard(&self) -> u32 {
        self.shard
    }

    /// Leaf index the next event will get; equals the number of leaves.
    pub fn next_leaf(&self) -> u64 {
        self.next_leaf
    }

    /// Number of the last ended commit; 0 before the first.
    pub fn last_commit(&self) -> u64 {
        self.commit
    }

    /// [`protocol::commit::Commit::hash`] of the last ended commit; zeros before the first.
    pub fn last_commit_hash(&self) -> Hash32 {
        self.commit_hash
    }

    /// Time of the newest event or commit, microseconds UTC.
    pub fn last_time_us(&self) -> u64 {
        self.time_us
    }

    /// The writer's term; 0 until the first `WriterChanged`.
    pub fn writer_epoch(&self) -> u64 {
        self.writer_epoch
    }

    /// BLAKE3 of the canonical snapshot bytes.
    pub fn hash(&self) -> Hash32 {
        Hash32(*blake3::hash(&crate::snapshot::write(self)).as_bytes())
    }

    pub(crate) fn settings(&self) -> Option<&Settings> {
        self.network.as_ref().map(|network| &network.settings)
    }

    pub(crate) fn asset(&self, id: AssetId) -> Option<&Asset> {
        self.network.as_ref()?.assets.get(id.0 as usize)
    }

    /// Base units of one vault unit: `10^(ledger_scale - 6)`. `None` for an asset no vault can hold.
    pub(crate) fn vault_unit(&self, id: AssetId) -> Option<i128> {
        let scale = self.asset(id)?.ledger_scale;
        Some(10i128.pow(u32::from(scale.checked_sub(VAULT_SCALE)?)))
    }

    pub(crate) fn grant(&self, id: GrantId) -> Result<&Grant, ApplyError> {
        self.grants.get(id.0 as usize).ok_or_else(|| ApplyError::unknown("grant", id.0))
    }

    pub(crate) fn grant_mut(&mut self, id: GrantId) -> Result<&mut Grant, ApplyError> {
        self.grants.get_mut(id.0 as usize).ok_or_else(|| ApplyError::unknown("grant", id.0))
    }

    pub(crate) fn account_mut(&mut self, id: AccountId) -> Result<&mut Account, ApplyError> {
        self.accounts.get_mut(&id).ok_or_else(|| ApplyError::unknown("account", id))
    }

    pub(crate) fn wallet_mut(
        &mut self,
        vault: VaultRef,
        wallet: EvmAddress,
    ) -> Result<&mut Wallet, ApplyError> {
        self.wallets.get_mut(&(vault, wallet)).ok_or_else(|| ApplyError::unknown("wallet", wallet))
    }
}
