//! What an event speaks of, so that all events about one job, hold, batch or grant are found by their leaves.
//! Must not: say what happened to it (`describe` does).

use protocol::asset::VaultRef;
use protocol::event::chain::DepositKey;
use protocol::event::{Event, EventBody, GrantId};
use protocol::id::{AccountId, BatchId, EvmAddress, HoldId, JobId, NodeId, OperatorId, VoucherId};
use std::collections::BTreeMap;

/// Most events that are followed from one subject; a job has a handful.
pub const LEAVES_PER_SUBJECT_MAX: usize = 64;

/// A thing that events are about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Subject {
    /// An account's life: opened, capped, closed.
    Account(AccountId),
    /// A job: hold, dispatches, charges, reversal.
    Job(JobId),
    /// A hold: placed, extended, ended.
    Hold(HoldId),
    /// A settlement batch.
    Batch(BatchId),
    /// A withdrawal.
    Voucher(VoucherId),
    /// A bucket of credit.
    Grant(GrantId),
    /// A price list by its version.
    RateCard(u32),
    /// An operator.
    Operator(OperatorId),
    /// A node.
    Node(NodeId),
    /// One deposit.
    Deposit(DepositKey),
    /// A wallet's authorisations and exits.
    Wallet(VaultRef, EvmAddress),
    /// A vault.
    Vault(VaultRef),
}

impl Subject {
    /// A tag and the id's bytes: unique, of a fixed length for each tag.
    pub fn key(&self) -> Vec<u8> {
        let vault = |v: &VaultRef| [&v.chain_id.to_be_bytes()[..], &v.vault.0].concat();
        let (tag, bytes) = match self {
            Subject::Account(id) => (1u8, id.0.to_vec()),
            Subject::Job(id) => (2, id.0.to_vec()),
            Subject::Hold(id) => (3, id.0.to_vec()),
            Subject::Batch(id) => (4, id.0.to_vec()),
            Subject::Voucher(id) => (5, id.0.to_vec()),
            Subject::Grant(id) => (6, id.0.to_be_bytes().to_vec()),
            Subject::RateCard(version) => (7, version.to_be_bytes().to_vec()),
            Subject::Operator(id) => (8, id.0.to_vec()),
            Subject::Node(id) => (9, id.0.to_vec()),
            Subject::Deposit(key) => {
                (10, [&vault(&key.vault)[..], &key.tx.0, &key.ordinal.to_be_bytes()].concat())
            }
            Subject::Wallet(of, wallet) => (11, [&vault(of)[..], &wallet.0].concat()),
            Subject::Vault(of) => (12, vault(of)),
        };
        [&[tag][..], &bytes].concat()
    }

    /// Reads what people type: `job_..`, `hold_..`, `batch_..`, `vouch_..`, `acct_..`, `node_..`.
    pub fn parse(text: &str) -> Option<Subject> {
        let job = text.parse().map(Subject::Job);
        let hold = || text.parse().map(Subject::Hold);
        let batch = || text.parse().map(Subject::Batch);
        let voucher = || text.parse().map(Subject::Voucher);
        let account = || text.parse().map(Subject::Account);
        let node = || text.parse().map(Subject::Node);
        job.or_else(|_| hold())
            .or_else(|_| batch())
            .or_else(|_| voucher())
            .or_else(|_| account())
            .or_else(|_| node())
            .ok()
    }
}

/// What the event belongs to: it is listed under each of these.
pub fn belongs_to(body: &EventBody) -> Vec<Subject> {
    use EventBody::*;
    match body {
        NetworkOpened(_) | WriterChanged(_) | LedgerAccountsOpened(_) | CheckpointAnchored(_) => vec![],
        RateCardPublished(e) => vec![Subject::RateCard(e.card.version)],
        VaultRegistered(e) => vec![Subject::Vault(e.vault)],
        AccountOpened(e) => vec![Subject::Account(e.account)],
        AccountClosed(e) => vec![Subject::Account(e.account)],
        SpendCapSet(e) => vec![Subject::Account(e.account)],
        SpendAuthorised(e) => vec![Subject::Account(e.account), Subject::Wallet(e.vault, e.wallet)],
        CreditLineSet(e) => vec![Subject::Grant(e.grant)],
        CreditRepaid(e) => vec![Subject::Grant(e.grant)],
        DepositConfirmed(e) => vec![Subject::Deposit(e.key)],
        DepositAttributed(e) => vec![Subject::Wallet(e.vault, e.wallet)],
        DepositReversed(e) => vec![Subject::Deposit(e.key)],
        ExitRequested(e) => vec![Subject::Wallet(e.vault, e.wallet)],
        ExitCancelled(e) => vec![Subject::Wallet(e.vault, e.wallet)],
        ExitFinalised(e) => vec![Subject::Wallet(e.vault, e.wallet)],
        VoucherIssued(e) => vec![Subject::Voucher(e.voucher)],
        VoucherRedeemed(e) => vec![Subject::Voucher(e.voucher)],
        VoucherLapsed(e) => vec![Subject::Voucher(e.voucher)],
        GrantIssued(e) => vec![Subject::Grant(e.grant)],
        GrantExpired(e) => vec![Subject::Grant(e.grant)],
        CreditMoved(e) => vec![Subject::Grant(e.from), Subject::Grant(e.to)],
        EarningsTaken(e) => vec![Subject::Grant(e.grant)],
        HoldPlaced(e) => vec![Subject::Job(e.job), Subject::Hold(e.hold)],
        HoldVoided(e) => vec![Subject::Hold(e.hold)],
        HoldExpired(e) => vec![Subject::Hold(e.hold)],
        HoldExtended(e) => vec![Subject::Hold(e.hold)],
        JobDispatched(e) => vec![Subject::Job(e.job)],
        UsageCaptured(e) => vec![Subject::Job(e.job)],
        CaptureReversed(e) => vec![Subject::Job(e.job)],
        OperatorRegistered(e) => vec![Subject::Operator(e.operator)],
        NodeRegistered(e) => vec![Subject::Node(e.node)],
        NodeRetired(e) => vec![Subject::Node(e.node)],
        BatchClosed(e) => vec![Subject::Batch(e.batch)],
        BatchSubmitted(e) => vec![Subject::Batch(e.batch)],
        BatchConfirmed(e) => vec![Subject::Batch(e.batch)],
        BatchFailed(e) => vec![Subject::Batch(e.batch)],
        BatchReplaced(e) => vec![Subject::Batch(e.batch)],
        SolvencyChecked(e) => vec![Subject::Vault(e.vault)],
        PayoutClaimed(_) => vec![],
        EconomyPublished(_) | AllotmentDayOpened(_) | BountyPublished(_) => vec![],
        StakeAllotted(e) => {
            [Some(Subject::Account(e.account)), e.grant.map(Subject::Grant)].into_iter().flatten().collect()
        }
        SignUpCredited(e) => vec![Subject::Account(e.account), Subject::Grant(e.grant)],
        BountyPaid(e) => vec![Subject::Job(e.job)],
        BountyTakenBack(e) => vec![Subject::Job(e.job)],
        PayoutCutStarted(e) => vec![Subject::Operator(e.operator), Subject::Node(e.node)],
        JobShareSet(e) => vec![Subject::Job(e.job)],
        FallbackMarked(e) => vec![Subject::Operator(e.operator)],
        UptimeNoted(e) => vec![Subject::Operator(e.operator)],
        OperatorStruck(e) => vec![Subject::Operator(e.operator), Subject::Job(e.job)],
        ServiceMeasured(e) => {
            [Some(Subject::Grant(e.package)), e.grant.map(Subject::Grant)].into_iter().flatten().collect()
        }
        TreasuryEpochClosed(e) => vec![Subject::Batch(e.batch)],
        TreasuryEpochPaid(e) => vec![Subject::Batch(e.batch)],
    }
}

/// What else must be known to explain the event: prices, buckets, operators, vaults.
pub fn refers_to(body: &EventBody) -> Vec<Subject> {
    use EventBody::*;
    let mut found = belongs_to(body);
    match body {
        SpendAuthorised(e) => found.push(Subject::Vault(e.vault)),
        DepositReversed(e) => found.push(Subject::Vault(e.key.vault)),
        VoucherIssued(e) => found.push(Subject::Wallet(e.vault, e.wallet)),
        HoldPlaced(e) => {
            found.push(Subject::RateCard(e.rate_card_version));
            found.extend(e.slices.iter().map(|slice| Subject::Grant(slice.grant)));
        }
        HoldExtended(e) => found.extend(e.slices.iter().map(|slice| Subject::Grant(slice.grant))),
        UsageCaptured(e) => {
            found.extend([Subject::Hold(e.hold), Subject::Operator(e.operator)]);
            found.extend(e.slices.iter().map(|slice| Subject::Grant(slice.grant)));
        }
        JobDispatched(e) => found.extend([Subject::Operator(e.operator), Subject::Node(e.node)]),
        NodeRegistered(e) => found.push(Subject::Operator(e.operator)),
        BatchClosed(e) => found.push(Subject::Vault(e.vault)),
        PayoutClaimed(e) => found.push(Subject::Vault(e.vault)),
        _ => {}
    }
    found
}

/// Where events are found again: the index with the archive behind it, or all events in memory.
pub trait Finder {
    /// Why it could not be found.
    type Error;

    /// Leaves of the first [`LEAVES_PER_SUBJECT_MAX`] events about a subject, in order.
    fn leaves(&self, subject: &Subject) -> Result<Vec<u64>, Self::Error>;

    /// One event; `None` when the log is shorter.
    fn event(&self, leaf: u64) -> Result<Option<Event>, Self::Error>;

    /// Leaf of the first `BatchClosed` whose cut-off lies behind this leaf.
    fn batch_after(&self, leaf: u64) -> Result<Option<u64>, Self::Error>;
}

/// The events that explain this one: its own subjects', and once more those of the holds and charges among them.
pub fn related<F: Finder>(finder: &F, event: &Event) -> Result<Vec<Event>, F::Error> {
    let mut found: BTreeMap<u64, Event> = BTreeMap::new();
    let mut round: Vec<Event> = vec![event.clone()];
    for depth in 0..3 {
        let mut next = Vec::new();
        for event in &round {
            use EventBody::*;
            let explains = matches!(event.body, HoldPlaced(_) | UsageCaptured(_) | JobDispatched(_));
            if depth > 0 && !explains {
                continue;
            }
            let mut leaves = Vec::new();
            for subject in refers_to(&event.body) {
                leaves.extend(finder.leaves(&subject)?);
            }
            if let UsageCaptured(_) = &event.body {
                leaves.extend(finder.batch_after(event.header.leaf)?);
            }
            // In the log's order: whoever reads a file reads it forwards.
            leaves.sort_unstable();
            for leaf in leaves {
                if !found.contains_key(&leaf)
                    && let Some(event) = finder.event(leaf)?
                {
                    found.insert(leaf, event.clone());
                    next.push(event);
                }
            }
        }
        round = next;
    }
    found.remove(&event.header.leaf);
    Ok(found.into_values().collect())
}

/// All events of a log from its beginning, in memory.
#[derive(Debug)]
pub struct InMemory<'a> {
    events: &'a [Event],
    leaves: BTreeMap<Subject, Vec<u64>>,
    /// Cut-off and leaf of every batch.
    batches: Vec<(u64, u64)>,
}

impl<'a> InMemory<'a> {
    /// Looks through the events once.
    pub fn new(events: &'a [Event]) -> InMemory<'a> {
        let mut leaves: BTreeMap<Subject, Vec<u64>> = BTreeMap::new();
        let mut batches = Vec::new();
        for event in events {
            for subject in belongs_to(&event.body) {
                leaves.entry(subject).or_default().push(event.header.leaf);
            }
            if let EventBody::BatchClosed(closed) = &event.body {
                batches.push((closed.cutoff_leaf, event.header.leaf));
            }
        }
        InMemory { events, leaves, batches }
    }
}

impl Finder for InMemory<'_> {
    type Error = std::convert::Infallible;

    fn leaves(&self, subject: &Subject) -> Result<Vec<u64>, Self::Error> {
        let leaves = self.leaves.get(subject).map_or(&[][..], Vec::as_slice);
        Ok(leaves.iter().take(LEAVES_PER_SUBJECT_MAX).copied().collect())
    }

    fn event(&self, leaf: u64) -> Result<Option<Event>, Self::Error> {
        Ok(self.events.get(leaf as usize).cloned())
    }

    fn batch_after(&self, leaf: u64) -> Result<Option<u64>, Self::Error> {
        Ok(self.batches.iter().find(|(cutoff, _)| *cutoff > leaf).map(|(_, closed)| *closed))
    }
}
