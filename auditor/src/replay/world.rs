//! The state that a replay builds, and the order in which an event is judged: its place, its legs by themselves, its rule,
//! its legs by its rule, its key.

use super::batches::{Batch, Payee};
use super::books::{Books, Legs};
use super::captures::Carry;
use super::earnings::{Earned, EarnedKey};
use super::economy::Economy;
use super::grants::Grant;
use super::holds::Job;
use super::judge::Judge;
use super::meters::{Meter, MeterKey};
use super::policy::{Account, Node, Operator};
use super::vouchers::Voucher;
use super::wallets::{Deposit, Wallet, Withdrawal};
use super::{
    batches, captures, conduct, earnings, economy, grants, holds, lines, meters, policy, vouchers, wallets,
};
use crate::checks::CheckKind;
use protocol::asset::{AssetId, VAULT_SCALE, VaultRef};
use protocol::event::chain::{DepositKey, VaultRegistered};
use protocol::event::policy::{NetworkOpened, Settings};
use protocol::event::{Event, EventBody, Header};
use protocol::id::{
    AccountId, BatchId, EvmAddress, Hash32, HoldId, IdempotencyKey, JobId, NodeId, OperatorId, VoucherId,
    Word32,
};
use protocol::rate::{ModelRate, RateCard};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// A head of the log that one of its events names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NamedHead {
    pub(crate) leaf: u64,
    pub(crate) size: u64,
    pub(crate) root: Hash32,
}

/// A claim as the log has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) leaf: u64,
    pub(crate) vault: VaultRef,
    pub(crate) address: EvmAddress,
    pub(crate) units: u64,
    pub(crate) tx: Word32,
}

#[derive(Clone, Copy, Debug)]
struct KeyUse {
    command: u64,
    commit: u64,
    first_leaf: u64,
    count: u64,
}

/// Everything a replay knows.
#[derive(Default)]
pub(crate) struct World {
    leaf: u64,
    commit: u64,
    time_us: u64,
    shard: Option<u32>,
    pub(crate) epoch: u64,
    pub(crate) network: Option<NetworkOpened>,
    pub(crate) cards: Vec<(RateCard, Hash32)>,
    pub(crate) books: Books,
    pub(crate) accounts: BTreeMap<AccountId, Account>,
    pub(crate) grants: Vec<Grant>,
    pub(crate) holds: HashMap<HoldId, JobId>,
    pub(crate) jobs: HashMap<JobId, Job>,
    pub(crate) meters: HashMap<MeterKey, Meter>,
    names: Vec<Arc<str>>,
    pub(crate) carries: BTreeMap<(OperatorId, AssetId, u32), Carry>,
    pub(crate) earned: BTreeMap<EarnedKey, Earned>,
    pub(crate) economy: Economy,
    pub(crate) operators: BTreeMap<OperatorId, Operator>,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) vaults: BTreeMap<VaultRef, VaultRegistered>,
    pub(crate) wallets: BTreeMap<(VaultRef, EvmAddress), Wallet>,
    pub(crate) deposits: BTreeMap<DepositKey, Deposit>,
    pub(crate) withdrawals: Vec<Withdrawal>,
    pub(crate) vouchers: BTreeMap<VoucherId, Voucher>,
    pub(crate) batches: BTreeMap<BatchId, Batch>,
    pub(crate) payees: BTreeMap<(VaultRef, AccountId), Payee>,
    pub(crate) claims: Vec<Claim>,
    pub(crate) anchored: BTreeMap<u64, u64>,
    pub(crate) named_heads: Vec<NamedHead>,
    keys: HashMap<IdempotencyKey, KeyUse>,
    keys_by_time: VecDeque<(u64, IdempotencyKey)>,
    command_first_leaf: u64,
}

impl World {
    pub(crate) fn next_leaf(&self) -> u64 {
        self.leaf
    }

    /// Of the last event, microseconds UTC.
    pub(crate) fn time_us(&self) -> u64 {
        self.time_us
    }

    pub(crate) fn heads(&self) -> &[NamedHead] {
        &self.named_heads
    }

    pub(crate) fn settings(&self) -> Option<&Settings> {
        self.network.as_ref().map(|network| &network.settings)
    }

    /// Leaf of the first event of the command that is being folded.
    pub(crate) fn command_first_leaf(&self) -> u64 {
        self.command_first_leaf
    }

    /// Base units of one vault unit.
    pub(crate) fn vault_unit(&self, asset: AssetId) -> Option<i128> {
        let asset = self.network.as_ref()?.assets.iter().find(|known| known.id == asset)?;
        10i128.checked_pow(u32::from(asset.ledger_scale.checked_sub(VAULT_SCALE)?))
    }

    /// The entry of a model on a card by its version.
    pub(crate) fn rate(&self, version: u32, model: &str) -> Option<&ModelRate> {
        let (card, _) = self.cards.get((version as usize).checked_sub(1)?)?;
        card.models.iter().find(|rate| rate.model == model)
    }

    /// A model's name, kept once.
    pub(crate) fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.iter().find(|known| &***known == name) {
            return known.clone();
        }
        let new: Arc<str> = name.into();
        // A host may write a name of its own in every hold: only those on cards are looked for again.
        if self.cards.iter().any(|(card, _)| card.models.iter().any(|rate| rate.model == name)) {
            self.names.push(new.clone());
        }
        new
    }

    /// An entry that could not be read still takes its place.
    pub(crate) fn skip_leaf(&mut self) {
        self.leaf += 1;
    }

    /// Judges one event and takes it over.
    pub(crate) fn fold(&mut self, judge: &mut Judge, leaf: u64, event: &Event) {
        let header = &event.header;
        judge.at(header.shard, leaf);
        self.place(judge, leaf, event);
        self.command(judge, leaf, header);
        if let EventBody::LedgerAccountsOpened(opened) = &event.body {
            policy::ledger_accounts_opened(self, judge, opened);
        }
        self.books.book(judge, event);
        let demanded = conduct::check_due(self, judge, &event.body);
        if let EventBody::NodeRegistered(e) = &event.body {
            conduct::cut_due(self, header, e);
        }
        if let Some(legs) = self.rule(judge, header, &event.body, demanded) {
            self.books.compare(judge, event, &legs);
        }
        if let EventBody::UsageCaptured(e) = &event.body {
            // By the health before this very charge.
            conduct::bounty_due(self, header, e);
        }
        conduct::note(self, header, &event.body);
        self.leaf = leaf + 1;
        self.commit = header.commit;
        self.time_us = self.time_us.max(header.time_us);
    }

    fn place(&mut self, judge: &mut Judge, leaf: u64, event: &Event) {
        const KIND: CheckKind = CheckKind::Sequence;
        let header = &event.header;
        judge.equal(KIND, "the header names the leaf it stands at", leaf, header.leaf);
        judge.equal(
            KIND,
            "all events are of one shard",
            *self.shard.get_or_insert(header.shard),
            header.shard,
        );
        let next = [self.commit.max(1), self.commit.saturating_add(1)];
        let commit = header.commit;
        judge.require(KIND, "commits are numbered from 1 without gaps", commit, || next.contains(&commit));
        let last_us = self.time_us;
        judge.require(KIND, "time never goes back", header.time_us, || header.time_us >= last_us);
        let opens = matches!(event.body, EventBody::NetworkOpened(_));
        judge.require(
            KIND,
            "the network is opened by the first event and no other",
            event.body.kind(),
            || opens == (leaf == 0),
        );
    }

    /// Events of one command share key and fingerprint and stand together; a key that is remembered starts no second one.
    fn command(&mut self, judge: &mut Judge, leaf: u64, header: &Header) {
        const KIND: CheckKind = CheckKind::Keys;
        judge.examine(KIND);
        let keep_us = self.settings().map_or(u64::MAX, |settings| settings.idempotency_us);
        while let Some((time_us, key)) = self.keys_by_time.front()
            && time_us.saturating_add(keep_us) < header.time_us
        {
            self.keys.remove(key);
            self.keys_by_time.pop_front();
        }
        if let Some(known) = self.keys.get_mut(&header.key) {
            let follows = known.first_leaf + known.count == leaf;
            if !follows || known.commit != header.commit || known.command != header.command {
                let first = known.first_leaf;
                judge.fail(
                    KIND,
                    format!("a new key, or leaf {first}'s own command"),
                    header.key,
                    "a key is used again",
                );
            }
            known.count += 1;
            self.command_first_leaf = known.first_leaf;
            return;
        }
        let (command, commit, first_leaf) = (header.command, header.commit, leaf);
        self.keys.insert(header.key, KeyUse { command, commit, first_leaf, count: 1 });
        self.keys_by_time.push_back((header.time_us, header.key));
        self.command_first_leaf = first_leaf;
    }

    /// The event's own rule: what it demands, what it changes, which legs it gives. `None` when it names what is not there.
    fn rule(&mut self, judge: &mut Judge, header: &Header, body: &EventBody, demanded: bool) -> Option<Legs> {
        match body {
            EventBody::NetworkOpened(e) => policy::network_opened(self, judge, e),
            EventBody::WriterChanged(e) => policy::writer_changed(self, judge, e),
            EventBody::RateCardPublished(e) => policy::rate_card_published(self, judge, e),
            EventBody::AccountOpened(e) => policy::account_opened(self, judge, e),
            EventBody::AccountClosed(e) => policy::account_closed(self, judge, e),
            EventBody::LedgerAccountsOpened(_) => Some(Legs::default()),
            EventBody::OperatorRegistered(e) => policy::operator_registered(self, judge, e),
            EventBody::NodeRegistered(e) => policy::node_registered(self, judge, e),
            EventBody::NodeRetired(e) => policy::node_retired(self, judge, e),
            EventBody::VaultRegistered(e) => wallets::vault_registered(self, judge, e),
            EventBody::SpendAuthorised(e) => wallets::spend_authorised(self, judge, header, e),
            EventBody::DepositConfirmed(e) => wallets::deposit_confirmed(self, judge, header, e),
            EventBody::DepositAttributed(e) => wallets::deposit_attributed(self, judge, e),
            EventBody::DepositReversed(e) => wallets::deposit_reversed(self, judge, e),
            EventBody::ExitRequested(e) => vouchers::exit_requested(self, judge, e),
            EventBody::ExitCancelled(e) => vouchers::exit_cancelled(self, judge, e),
            EventBody::ExitFinalised(e) => vouchers::exit_finalised(self, judge, header, e),
            EventBody::VoucherIssued(e) => vouchers::issued(self, judge, header, e),
            EventBody::VoucherRedeemed(e) => vouchers::redeemed(self, judge, header, e),
            EventBody::VoucherLapsed(e) => vouchers::lapsed(self, judge, header, e),
            EventBody::CheckpointAnchored(e) => batches::anchored(self, judge, header, e),
            EventBody::GrantIssued(e) => grants::issued(self, judge, header, e),
            EventBody::GrantExpired(e) => grants::expired(self, judge, header, e),
            EventBody::HoldPlaced(e) => holds::placed(self, judge, header, e),
            EventBody::HoldVoided(e) => holds::voided(self, judge, header, e),
            EventBody::HoldExpired(e) => holds::expired(self, judge, header, e),
            EventBody::JobDispatched(e) => holds::dispatched(self, judge, header, e),
            EventBody::UsageCaptured(e) => captures::captured(self, judge, header, e),
            EventBody::CaptureReversed(e) => captures::reversed(self, judge, header, e),
            EventBody::SpendCapSet(e) => meters::cap_set(self, judge, e),
            EventBody::CreditLineSet(e) => lines::set(self, judge, e),
            EventBody::CreditRepaid(e) => lines::repaid(self, judge, e),
            EventBody::CreditMoved(e) => grants::moved(self, judge, header, e),
            EventBody::EarningsTaken(e) => earnings::taken(self, judge, header, e),
            EventBody::HoldExtended(e) => holds::extended(self, judge, header, e),
            EventBody::BatchClosed(e) => batches::closed(self, judge, header, e),
            EventBody::BatchSubmitted(e) => batches::submitted(self, judge, header, e),
            EventBody::BatchConfirmed(e) => batches::confirmed(self, judge, header, e),
            EventBody::BatchFailed(e) => batches::failed(self, judge, header, e),
            EventBody::PayoutClaimed(e) => batches::claimed(self, judge, header, e),
            EventBody::BatchReplaced(e) => batches::replaced(self, judge, e),
            EventBody::SolvencyChecked(e) => wallets::solvency_checked(self, judge, e),
            _ => self.economy_rule(judge, header, body, demanded),
        }
    }

    fn economy_rule(
        &mut self,
        judge: &mut Judge,
        header: &Header,
        body: &EventBody,
        demanded: bool,
    ) -> Option<Legs> {
        match body {
            EventBody::EconomyPublished(e) => economy::published(self, judge, header, e),
            EventBody::AllotmentDayOpened(e) => economy::day_opened(self, judge, header, e),
            EventBody::StakeAllotted(e) => economy::allotted(self, judge, header, e),
            EventBody::SignUpCredited(e) => economy::sign_up(self, judge, header, e),
            EventBody::ServiceMeasured(e) => economy::service_measured(self, judge, header, e),
            EventBody::TreasuryEpochClosed(e) => economy::epoch_closed(self, judge, e),
            EventBody::TreasuryEpochPaid(e) => economy::epoch_paid(self, judge, e),
            EventBody::BountyPublished(e) => conduct::bounty_published(self, judge, header, e),
            EventBody::BountyPaid(e) => conduct::bounty_paid(self, judge, e, demanded),
            EventBody::BountyTakenBack(e) => conduct::bounty_taken_back(self, judge, e),
            EventBody::PayoutCutStarted(e) => conduct::cut_started(self, judge, e, demanded),
            EventBody::JobShareSet(e) => conduct::share_set(self, judge, header, e),
            EventBody::FallbackMarked(e) => conduct::fallback_marked(self, judge, e),
            EventBody::UptimeNoted(e) => conduct::uptime(self, judge, header, e),
            EventBody::OperatorStruck(e) => conduct::struck(self, judge, e),
            _ => {
                judge.fail(CheckKind::Codec, "a kind with a rule", body.kind(), "no rule for this kind");
                None
            }
        }
    }

    /// What only the end of the log shows.
    pub(crate) fn finish(&self, judge: &mut Judge) {
        judge.at(self.shard.unwrap_or(0), self.leaf.saturating_sub(1));
        let held: i128 = self.grants.iter().map(|grant| grant.held).fold(0, i128::saturating_add);
        let open = self.jobs.values().filter(|job| job.is_open);
        let open: i128 = open.map(Job::held).fold(0, i128::saturating_add);
        let due = self.economy.conducts.due_kind();
        judge.require(
            CheckKind::Economies,
            "nothing that a rule demands is left out",
            due.unwrap_or("-"),
            || due.is_none(),
        );
        judge.equal(CheckKind::Holds, "what grants hold is what open holds reserve", open, held);
    }
}
