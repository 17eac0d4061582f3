//! The whole state of one shard. Only `apply` writes it. What there is much of lies in blocks under dense numbers; maps
//! are ordered, so that its bytes are canonical. Must not: rules (they stand with their feature).

use crate::accounts::{AccountNo, Accounts};
use crate::apply::ApplyError;
use crate::batches::{Batch, Payee};
use crate::books::Books;
use crate::credit_lines::CreditLine;
use crate::deposits::Deposit;
use crate::earnings::{Earning, EarningKey};
use crate::economy::Economy;
use crate::grants::{Grant, Grants};
use crate::idempotency::Keys;
use crate::jobs::{JobNo, JobState, Jobs};
use crate::nodes::{Node, Operators};
use crate::rates::PublishedCard;
use crate::spend_caps::{CapKey, SpendCap};
use crate::splits::{Carry, CarryKey};
use crate::timers::Timers;
use crate::vouchers::Voucher;
use crate::wallets::{Wallet, Wallets};
use minicbor::{Decode, Encode};
use protocol::asset::{Asset, AssetId, VAULT_SCALE, VaultRef};
use protocol::event::GrantId;
use protocol::event::chain::{CheckpointAnchored, DepositKey, VaultRegistered};
use protocol::event::policy::{NetworkOpened, Settings};
use protocol::id::{AccountId, BatchId, EvmAddress, Hash32, HoldId, JobId, NodeId, VoucherId, Word32};
use std::collections::{BTreeMap, BTreeSet};

/// Everything the ledger knows. A fold over the log: `State::new`, then `apply` for each event and `end_commit` for
/// each commit.
#[derive(Clone, Encode, Decode)]
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
    pub(crate) accounts: Accounts,
    #[n(9)]
    pub(crate) books: Books,
    #[n(10)]
    pub(crate) grants: Grants,
    #[n(11)]
    pub(crate) jobs: Jobs,
    #[n(12)]
    pub(crate) carries: BTreeMap<CarryKey, Carry>,
    #[n(13)]
    pub(crate) operators: Operators,
    #[n(14)]
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    #[n(15)]
    pub(crate) vaults: BTreeMap<VaultRef, VaultRegistered>,
    #[n(16)]
    pub(crate) wallets: Wallets,
    #[n(17)]
    pub(crate) deposits: BTreeMap<DepositKey, Deposit>,
    #[n(18)]
    pub(crate) vouchers: BTreeMap<VoucherId, Voucher>,
    #[n(19)]
    pub(crate) payees: BTreeMap<(VaultRef, AccountId), Payee>,
    /// Operators' shares that no vault pays, by what stands behind them.
    #[n(20)]
    pub(crate) earnings: BTreeMap<EarningKey, Earning>,
    #[n(21)]
    pub(crate) batches: BTreeMap<BatchId, Batch>,
    /// The batch of a vault that is neither confirmed nor failed.
    #[n(22)]
    pub(crate) open_batches: BTreeMap<VaultRef, BatchId>,
    /// Settlement numbers that were used, by vault: the last one that was not failed.
    #[n(23)]
    pub(crate) batch_numbers: BTreeMap<VaultRef, u64>,
    #[n(24)]
    pub(crate) claims: BTreeSet<(VaultRef, EvmAddress, Word32)>,
    #[n(25)]
    pub(crate) anchors: Vec<CheckpointAnchored>,
    #[n(26)]
    pub(crate) keys: Keys,
    #[n(27)]
    pub(crate) spend_caps: BTreeMap<CapKey, SpendCap>,
    #[n(28)]
    pub(crate) credit_lines: BTreeMap<(AccountNo, AssetId), CreditLine>,
    #[n(29)]
    pub(crate) economy: Economy,
    /// Follow from jobs and grants.
    #[cbor(skip)]
    pub(crate) timers: Timers,
}

/// Two states are equal when their snapshots are.
impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        crate::snapshot::write(self) == crate::snapshot::write(other)
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let State { shard, next_leaf, commit, .. } = self;
        write!(f, "State of shard {shard} after {next_leaf} leaves, commit {commit}, hash {}", self.hash())
    }
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
            accounts: Accounts::default(),
            books: Books::default(),
            grants: Grants::default(),
            jobs: Jobs::default(),
            carries: BTreeMap::new(),
            operators: Operators::default(),
            nodes: BTreeMap::new(),
            vaults: BTreeMap::new(),
            wallets: Wallets::default(),
            deposits: BTreeMap::new(),
            vouchers: BTreeMap::new(),
            payees: BTreeMap::new(),
            earnings: BTreeMap::new(),
            batches: BTreeMap::new(),
            open_batches: BTreeMap::new(),
            batch_numbers: BTreeMap::new(),
            claims: BTreeSet::new(),
            anchors: Vec::new(),
            keys: Keys::default(),
            spend_caps: BTreeMap::new(),
            credit_lines: BTreeMap::new(),
            economy: Economy::default(),
            timers: Timers::default(),
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
        let mut hasher = blake3::Hasher::new();
        crate::snapshot::write_to(self, &mut hasher).expect("a hasher takes everything");
        Hash32(*hasher.finalize().as_bytes())
    }

    /// A copy for a snapshot or a reader, made without copying what there is much of: blocks of rows and tables are
    /// shared, and copied one by one when either side next writes them. What lies in ordered maps (vaults' deposits,
    /// vouchers, batches) is copied at once.
    pub fn fork(&mut self) -> State {
        State {
            shard: self.shard,
            next_leaf: self.next_leaf,
            commit: self.commit,
            commit_hash: self.commit_hash,
            time_us: self.time_us,
            writer_epoch: self.writer_epoch,
            network: self.network.clone(),
            cards: self.cards.clone(),
            accounts: self.accounts.share(),
            books: self.books.share(),
            grants: self.grants.share(),
            jobs: self.jobs.share(),
            carries: self.carries.clone(),
            operators: self.operators.clone(),
            nodes: self.nodes.clone(),
            vaults: self.vaults.clone(),
            wallets: self.wallets.share(),
            deposits: self.deposits.clone(),
            vouchers: self.vouchers.clone(),
            payees: self.payees.clone(),
            earnings: self.earnings.clone(),
            batches: self.batches.clone(),
            open_batches: self.open_batches.clone(),
            batch_numbers: self.batch_numbers.clone(),
            claims: self.claims.clone(),
            anchors: self.anchors.clone(),
            keys: self.keys.share(),
            spend_caps: self.spend_caps.clone(),
            credit_lines: self.credit_lines.clone(),
            economy: self.economy.clone(),
            timers: self.timers.clone(),
        }
    }

    /// Finds everything again that a snapshot leaves out because it follows from the rest.
    pub(crate) fn rebuild(&mut self) -> Result<(), &'static str> {
        // Keys are the most rows and know of nothing else: they have a core of their own.
        let keys = &mut self.keys;
        std::thread::scope(|scope| {
            let keys = scope.spawn(|| keys.rebuild());
            self.accounts.rebuild()?;
            self.books.rebuild(&mut self.accounts)?;
            self.grants.rebuild()?;
            self.operators.rebuild()?;
            self.wallets.rebuild()?;
            self.jobs.rebuild()?;
            keys.join().unwrap_or(Err("the keys could not be put into their table"))
        })?;
        let running = self.jobs.iter().filter(|(_, job)| job.state == JobState::Running);
        let running: Vec<JobNo> = running.map(|(number, _)| number).collect();
        for number in running {
            self.timers.add_hold(&mut self.jobs, number);
        }
        for (expires_us, grant) in self.grants.timers() {
            self.timers.add_grant(expires_us, grant);
        }
        Ok(())
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
        self.grants.get(id).ok_or_else(|| ApplyError::unknown("grant", id.0))
    }

    #[inline]
    pub(crate) fn grant_mut(&mut self, id: GrantId) -> Result<&mut Grant, ApplyError> {
        self.grants.get_mut(id).ok_or_else(|| ApplyError::unknown("grant", id.0))
    }

    /// The number of an account that somebody opened.
    #[inline]
    pub(crate) fn account_no(&self, id: AccountId) -> Result<AccountNo, ApplyError> {
        let number = self.accounts.find(&id).filter(|number| *number != AccountNo::SYSTEM);
        number.ok_or_else(|| ApplyError::unknown("account", id))
    }

    #[inline]
    pub(crate) fn job_no(&self, id: JobId) -> Result<JobNo, ApplyError> {
        self.jobs.find(&id).ok_or_else(|| ApplyError::unknown("job", id))
    }

    #[inline]
    pub(crate) fn hold_no(&self, id: HoldId) -> Result<JobNo, ApplyError> {
        self.jobs.find_hold(&id).ok_or_else(|| ApplyError::unknown("hold", id))
    }

    pub(crate) fn wallet_mut(
        &mut self,
        vault: VaultRef,
        wallet: EvmAddress,
    ) -> Result<&mut Wallet, ApplyError> {
        self.wallets.get_mut(&(vault, wallet)).ok_or_else(|| ApplyError::unknown("wallet", wallet))
    }

    /// What open vouchers promise out of a bucket.
    pub(crate) fn reserved(&self, grant: &Grant) -> i128 {
        match grant.paper {
            crate::grants::Paper::Wallet(wallet) if grant.is_deposit() => self.wallets[wallet].reserved.0,
            _ => 0,
        }
    }
}
