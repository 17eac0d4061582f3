//! Follows the chain and hands on each event exactly once, when enough blocks lie above it. Holds its whole state in
//! one serialisable value; asks its questions through `ChainReader`; sleeps never: the caller decides when to poll.
//!
//! Does not decide what an event means, and does not go on after a reorg deeper than its confirmations: it halts.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::chain::Head;
use crate::error::ChainError;
use crate::event::{ChainEvent, ChainFact, EconomyFact, EventKey};
use crate::fixed_bytes::{Address20, Hash32};
use crate::manifest::Manifest;
use crate::reader::ChainReader;

mod policy;

pub use policy::{ConfirmationPolicy, ConfirmationStep};

/// Blocks asked for in one call: nodes refuse wide ranges.
const RANGE_BLOCKS_MAX: u64 = 1_000;
/// Hashes of confirmed blocks that are kept, to say how far back a deep reorg goes.
const REMEMBERED_BLOCKS_MAX: usize = 256;
/// Event keys are kept for this many blocks behind the cursor, so that a scan that starts over yields nothing twice.
const REMEMBERED_KEYS_BLOCKS: u64 = 1_024;

/// Everything that a watcher knows. Store it in the same step as the events that a poll returned, or before them and
/// rely on their keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatcherState {
    /// Blocks that must lie above a block before its events count.
    pub confirmations: u64,
    /// The next block to be confirmed.
    pub next_block: u64,
    /// Confirmed blocks and their hashes, oldest first.
    pub remembered: Vec<BlockMark>,
    /// Set when the chain contradicted what was confirmed. Nothing is handed on any more.
    pub halt: Option<Halt>,
    handed_on: BTreeSet<HandedOn>,
    early_exits: Vec<ChainEvent>,
    /// What larger deposits need beyond `confirmations`.
    #[serde(default)]
    policy: ConfirmationPolicy,
    /// Confirmed, but for a deposit that needs more, or behind one of the same account. In the chain's order.
    #[serde(default)]
    waiting: Vec<ChainEvent>,
}

/// A block that was confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockMark {
    /// The block's number.
    pub number: u64,
    /// The block's hash.
    pub hash: Hash32,
}

/// A reorg deeper than the confirmations: events that were handed on may not be true any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halt {
    /// The confirmed block that the chain has replaced.
    pub replaced: BlockMark,
    /// The hash that the chain gives for it now.
    pub found: Hash32,
    /// The newest remembered block that still stands, if any.
    pub last_common: Option<BlockMark>,
}

/// What one look at the chain brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poll {
    /// The chain's newest block.
    pub head: Head,
    /// The newest confirmed block, once there is one.
    pub confirmed: Option<Head>,
    /// Events that have become confirmed, in the chain's order, each once.
    pub events: Vec<ChainEvent>,
    /// Exit requests in unconfirmed blocks, each once, at first sight: stop serving these accounts now.
    pub early_exits: Vec<ChainEvent>,
    /// Exit requests that were reported early and have vanished with a reorg.
    pub vanished_exits: Vec<ChainEvent>,
    /// Deposits that wait for confirmations: all of them, at every poll.
    pub pending_deposits: Vec<PendingDeposit>,
    /// False when older blocks are still to be read: poll again at once.
    pub caught_up: bool,
    /// Set when the watcher has halted: raise the alarm.
    pub halt: Option<Halt>,
}

/// A deposit that is on the chain and does not count yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingDeposit {
    /// The `Deposited` event.
    pub event: ChainEvent,
    /// Blocks above it.
    pub confirmations: u64,
    /// Blocks that must be above it.
    pub needed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct HandedOn {
    // First, so that the set is searched by it.
    key: EventKey,
    block: u64,
    #[serde(default)]
    undo: Undo,
}

/// What it takes to undo an event that was handed on and has vanished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// Nothing: no books follow from it, or what it said can be said again.
    Nothing,
    /// A deposit's reversal.
    Deposit,
    /// A person: money left the vault by it, or a settlement stood in it.
    #[default]
    Person,
}

/// An event that was handed on and stands nowhere any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vanished {
    /// Which.
    pub key: EventKey,
    /// What it takes to undo it.
    pub undo: Undo,
}

/// The watcher. Same state and same answers give the same polls.
#[derive(Debug, Clone)]
pub struct Watcher {
    state: WatcherState,
}

impl WatcherState {
    /// The state of a watcher that has seen nothing of a deployment yet.
    pub fn new(manifest: &Manifest, confirmations: u64) -> Self {
        Self {
            confirmations,
            next_block: manifest.deployed_block,
            remembered: Vec::new(),
            halt: None,
            handed_on: BTreeSet::new(),
            early_exits: Vec::new(),
            policy: ConfirmationPolicy::default(),
            waiting: Vec::new(),
        }
    }
}

impl Watcher {
    /// Continues from a state.
    pub fn new(state: WatcherState) -> Self {
        Self { state }
    }

    /// The state to be stored.
    pub fn state(&self) -> &WatcherState {
        &self.state
    }

    /// Whether something that is on the chain and deep enough for others waits for its own depth.
    pub fn holds_back(&self) -> bool {
        !self.state.waiting.is_empty()
    }

    /// Changes what larger deposits need. Takes effect at the next poll, also for deposits that wait already.
    pub fn set_policy(&mut self, policy: ConfirmationPolicy) {
        self.state.policy = policy;
    }

    /// Reads from an earlier block again. What was handed on is not handed on a second time.
    pub fn rescan_from(&mut self, block: u64) {
        let oldest = self.state.next_block.saturating_sub(REMEMBERED_KEYS_BLOCKS);
        self.state.next_block = block.max(oldest).min(self.state.next_block);
    }

    /// While halted: what was handed on from the replaced blocks and stands nowhere now. `None` when no remembered
    /// block stands any more: then nobody can say.
    pub async fn vanished(&self, reader: &impl ChainReader) -> Result<Option<Vec<Vanished>>, ChainError> {
        let Some(common) = self.state.halt.and_then(|halt| halt.last_common) else { return Ok(None) };
        let head = reader.head().await?;
        let mut standing = BTreeSet::new();
        let mut from = common.number + 1;
        while from <= head.number {
            let to = head.number.min(from + RANGE_BLOCKS_MAX - 1);
            standing.extend(reader.events(from, to).await?.into_iter().map(|event| event.origin.key));
            from = to + 1;
        }
        let waiting: BTreeSet<EventKey> = self.state.waiting.iter().map(|event| event.origin.key).collect();
        let replaced = self.state.handed_on.iter().filter(|known| known.block > common.number);
        let gone = replaced.filter(|known| !standing.contains(&known.key) && !waiting.contains(&known.key));
        Ok(Some(gone.map(|known| Vanished { key: known.key, undo: known.undo }).collect()))
    }

    /// Ends a halt, after the books were put right: goes on behind the newest block that still stands. What was handed on
    /// and is gone is not taken back here (see [`Watcher::vanished`]); stands it again later, it is new.
    pub fn accept_new_history(&mut self, vanished: &[Vanished]) {
        let Some(halt) = self.state.halt.take() else { return };
        self.state.handed_on.retain(|known| vanished.iter().all(|gone| gone.key != known.key));
        let last_common = halt.last_common.map(|mark| mark.number);
        let oldest = self.state.remembered.first().map_or(0, |mark| mark.number);
        self.state.remembered.retain(|mark| last_common.is_some_and(|number| mark.number <= number));
        self.state.next_block = last_common.map_or(oldest, |number| number + 1);
        // What waited in replaced blocks was never handed on: where it stands now, it is new.
        let stands = |event: &ChainEvent| last_common.is_some_and(|number| event.origin.block <= number);
        let (kept, gone) = std::mem::take(&mut self.state.waiting).into_iter().partition(stands);
        self.state.waiting = kept;
        let gone: Vec<ChainEvent> = gone;
        self.state.handed_on.retain(|known| gone.iter().all(|event| event.origin.key != known.key));
    }

    /// One look at the chain. On an error nothing has changed.
    pub async fn poll(&mut self, reader: &impl ChainReader) -> Result<Poll, ChainError> {
        let head = reader.head().await?;
        let mut poll = Poll::empty(head);
        let mut next = self.state.clone();
        if next.halt.is_none() {
            next.halt = self.find_deep_reorg(reader, head).await?;
        }
        poll.halt = next.halt;
        if next.halt.is_none() {
            next.confirm(reader, &mut poll).await?;
            next.release(&mut poll);
            next.look_ahead(reader, &mut poll).await?;
        }
        self.state = next;
        Ok(poll)
    }

    async fn find_deep_reorg(
        &self,
        reader: &impl ChainReader,
        head: Head,
    ) -> Result<Option<Halt>, ChainError> {
        let Some(newest) = self.state.remembered.last().copied() else { return Ok(None) };
        let found = match reader.block(newest.number).await? {
            Some(block) => block.hash,
            // A node that lags behind is not a reorg.
            None => return Err(ChainError::NodeBehind { head: head.number, confirmed: newest.number }),
        };
        if found == newest.hash {
            return Ok(None);
        }
        let mut last_common = None;
        for mark in self.state.remembered.iter().rev() {
            if reader.block(mark.number).await?.is_some_and(|block| block.hash == mark.hash) {
                last_common = Some(*mark);
                break;
            }
        }
        Ok(Some(Halt { replaced: newest, found, last_common }))
    }
}

impl WatcherState {
    /// Hands on the events of the next range of blocks that are deep enough.
    async fn confirm(&mut self, reader: &impl ChainReader, poll: &mut Poll) -> Result<(), ChainError> {
        let Some(deepest) = poll.head.number.checked_sub(self.confirmations) else { return Ok(()) };
        if deepest >= self.next_block {
            let to = deepest.min(self.next_block + RANGE_BLOCKS_MAX - 1);
            let before = block_or_behind(reader, to, poll.head).await?;
            let events = reader.events(self.next_block, to).await?;
            let after = block_or_behind(reader, to, poll.head).await?;
            if before.hash != after.hash {
                // The range was replaced while it was read; a later poll reads it again.
                poll.caught_up = false;
                return Ok(());
            }
            for event in events {
                // A range of many blocks has marks between, where something happened.
                self.mark(BlockMark { number: event.origin.block, hash: event.origin.block_hash });
                self.hand_on(event, poll);
            }
            self.remember(BlockMark { number: to, hash: after.hash });
            self.next_block = to + 1;
            poll.confirmed = Some(after);
            poll.caught_up = to == deepest;
        } else if let Some(mark) = self.remembered.last().copied() {
            poll.confirmed = reader.block(mark.number).await?;
        }
        Ok(())
    }

    fn hand_on(&mut self, event: ChainEvent, poll: &mut Poll) {
        let key = event.origin.key;
        // The same event may stand in another block after a reorg or a wrong answer: the key alone decides.
        if self.was_handed_on(key) {
            return;
        }
        self.handed_on.insert(HandedOn { block: event.origin.block, key, undo: undo(&event.fact) });
        self.early_exits.retain(|early| early.origin.key != key);
        if self.waiting.is_empty() && self.needed(&event) <= self.confirmations {
            poll.events.push(event);
        } else {
            self.waiting.push(event);
        }
    }

    /// Hands on what has waited long enough. An account's events keep their order: what it did after a deposit that
    /// still waits would not make sense without it.
    fn release(&mut self, poll: &mut Poll) {
        let mut held_accounts: BTreeSet<Address20> = BTreeSet::new();
        for event in std::mem::take(&mut self.waiting) {
            let deep = poll.head.number >= event.origin.block + self.needed(&event);
            let account = event.fact.account();
            if deep && account.is_none_or(|account| !held_accounts.contains(&account)) {
                poll.events.push(event);
            } else {
                held_accounts.extend(account);
                self.waiting.push(event);
            }
        }
        for event in &self.waiting {
            if let ChainFact::Deposited { .. } = event.fact {
                poll.pending_deposits.push(PendingDeposit {
                    confirmations: poll.head.number - event.origin.block,
                    needed: self.needed(event),
                    event: event.clone(),
                });
            }
        }
    }

    fn needed(&self, event: &ChainEvent) -> u64 {
        match event.fact {
            ChainFact::Deposited { units, .. } => self.policy.needed(units, self.confirmations),
            _ => self.confirmations,
        }
    }

    fn was_handed_on(&self, key: EventKey) -> bool {
        let from = HandedOn { key, block: 0, undo: Undo::Nothing };
        self.handed_on.range(from..).next().is_some_and(|known| known.key == key)
    }

    /// Reports what is to be known before it is confirmed: exit requests and waiting deposits.
    async fn look_ahead(&mut self, reader: &impl ChainReader, poll: &mut Poll) -> Result<(), ChainError> {
        if !poll.caught_up || poll.head.number < self.next_block {
            return Ok(());
        }
        let ahead = reader.events(self.next_block, poll.head.number).await?;
        self.forget_vanished_exits(&ahead, poll);
        for event in ahead {
            if self.was_handed_on(event.origin.key) {
                continue;
            }
            match event.fact {
                ChainFact::ExitRequested { .. } => {
                    let key = event.origin.key;
                    if !self.early_exits.iter().any(|early| early.origin.key == key) {
                        self.early_exits.push(event.clone());
                        poll.early_exits.push(event);
                    }
                }
                ChainFact::Deposited { .. } => {
                    let confirmations = poll.head.number - event.origin.block;
                    let needed = self.needed(&event);
                    poll.pending_deposits.push(PendingDeposit { event, confirmations, needed });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// An early exit is gone when its block is confirmed and it stands neither there nor in a newer block.
    fn forget_vanished_exits(&mut self, ahead: &[ChainEvent], poll: &mut Poll) {
        let next_block = self.next_block;
        let stands = |exit: &ChainEvent| {
            let again = ahead.iter().any(|event| event.origin.key == exit.origin.key);
            again || exit.origin.block >= next_block
        };
        let (kept, vanished) = std::mem::take(&mut self.early_exits).into_iter().partition(stands);
        self.early_exits = kept;
        poll.vanished_exits = vanished;
    }

    fn remember(&mut self, mark: BlockMark) {
        self.mark(mark);
        let oldest = mark.number.saturating_sub(REMEMBERED_KEYS_BLOCKS);
        self.handed_on.retain(|known| known.block >= oldest);
    }

    fn mark(&mut self, mark: BlockMark) {
        if self.remembered.last() == Some(&mark) {
            return;
        }
        self.remembered.retain(|known| known.number < mark.number);
        self.remembered.push(mark);
        if self.remembered.len() > REMEMBERED_BLOCKS_MAX {
            self.remembered.remove(0);
        }
    }
}

impl Poll {
    fn empty(head: Head) -> Self {
        Self {
            head,
            confirmed: None,
            events: Vec::new(),
            early_exits: Vec::new(),
            vanished_exits: Vec::new(),
            pending_deposits: Vec::new(),
            caught_up: true,
            halt: None,
        }
    }
}

/// What it takes to take a fact back, once the books know it.
fn undo(fact: &ChainFact) -> Undo {
    match fact {
        ChainFact::Deposited { .. } => Undo::Deposit,
        // A signature is good on every history; a day, a vote or a payee is read from the chain when it is needed.
        ChainFact::Authorised { .. }
        | ChainFact::SettlerAppointed { .. }
        | ChainFact::PayeeSet { .. }
        | ChainFact::RootDisabled { .. }
        | ChainFact::SurplusAttributed { .. }
        | ChainFact::Anchored { .. } => Undo::Nothing,
        ChainFact::Economy(EconomyFact::PackagePurchased { .. }) => Undo::Person,
        ChainFact::Economy(_) => Undo::Nothing,
        ChainFact::Settled { .. }
        | ChainFact::Charged { .. }
        | ChainFact::Shortfall { .. }
        | ChainFact::RootPosted { .. }
        | ChainFact::Withdrawn { .. }
        | ChainFact::ExitRequested { .. }
        | ChainFact::ExitCancelled { .. }
        | ChainFact::ExitFinalized { .. }
        | ChainFact::Claimed { .. } => Undo::Person,
    }
}

async fn block_or_behind(reader: &impl ChainReader, number: u64, head: Head) -> Result<Head, ChainError> {
    let block = reader.block(number).await?;
    block.ok_or(ChainError::NodeBehind { head: head.number, confirmed: number })
}

#[cfg(test)]
mod tests;
