//! The watcher against a chain in memory that grows, reorganises, repeats itself and answers late, by seed.

use std::collections::BTreeSet;

use super::*;
use crate::event::Origin;
use crate::fixed_bytes::Address20;

const SEED_COUNT: u64 = 300;
const STEP_COUNT: u64 = 60;

/// A deterministic source of choices (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }
}

#[derive(Clone)]
struct Block {
    hash: Hash32,
    transactions: Vec<u64>,
}

struct MemoryChain {
    blocks: Vec<Block>,
    minted_hashes: u64,
    next_transaction: u64,
    repeats_itself: bool,
}

impl MemoryChain {
    fn new() -> Self {
        let mut chain =
            Self { blocks: Vec::new(), minted_hashes: 0, next_transaction: 0, repeats_itself: false };
        chain.grow(vec![]);
        chain
    }

    fn grow(&mut self, transactions: Vec<u64>) {
        self.minted_hashes += 1;
        let hash = Hash32::keccak(&self.minted_hashes.to_be_bytes());
        self.blocks.push(Block { hash, transactions });
    }

    fn fresh_transactions(&mut self, count: u64) -> Vec<u64> {
        let first = self.next_transaction;
        self.next_transaction += count;
        (first..self.next_transaction).collect()
    }

    /// Replaces blocks. Each of their transactions is mined again in one of the new blocks, or lost.
    fn reorganise(&mut self, depth: u64, dice: &mut Dice) {
        let depth = depth.min(self.blocks.len() as u64 - 1) as usize;
        let dropped = self.blocks.split_off(self.blocks.len() - depth);
        let mut again: Vec<u64> = dropped.into_iter().flat_map(|block| block.transactions).collect();
        again.retain(|_| dice.roll(4) > 0);
        for left in (1..=depth).rev() {
            let here = if left == 1 { again.len() } else { dice.roll(again.len() as u64 + 1) as usize };
            let transactions = again.drain(..here).collect();
            self.grow(transactions);
        }
    }

    fn event(&self, number: u64, transaction: u64) -> ChainEvent {
        let key = EventKey {
            chain_id: 1,
            contract: Address20([1; 20]),
            tx: Hash32::keccak(&transaction.to_le_bytes()),
            ordinal: (transaction % 3) as u32,
            part: 0,
        };
        let (account, payer) = (Address20([2; 20]), Address20([3; 20]));
        let fact = match transaction % 5 {
            0 => ChainFact::ExitRequested { account, exit_at: transaction as u32 },
            _ => ChainFact::Deposited { account, payer, units: transaction },
        };
        let block_hash = self.blocks[number as usize].hash;
        ChainEvent { origin: Origin { key, block: number, block_hash }, fact }
    }

    fn events_now(&self, from: u64, to: u64) -> Vec<ChainEvent> {
        let newest = self.blocks.len() as u64 - 1;
        let block = |number: u64| {
            let transactions = &self.blocks[number as usize].transactions;
            transactions.iter().map(move |transaction| self.event(number, *transaction))
        };
        (from..=to.min(newest)).flat_map(block).collect()
    }

    fn keys_up_to(&self, number: u64) -> BTreeSet<EventKey> {
        self.events_now(0, number).into_iter().map(|event| event.origin.key).collect()
    }
}

impl ChainReader for MemoryChain {
    async fn head(&self) -> Result<Head, ChainError> {
        let newest = self.blocks.len() as u64 - 1;
        Ok(self.block(newest).await?.expect("the newest block"))
    }

    async fn block(&self, number: u64) -> Result<Option<Head>, ChainError> {
        let block = self.blocks.get(number as usize);
        Ok(block.map(|block| Head { number, hash: block.hash, timestamp: number * 12 }))
    }

    async fn events(&self, from: u64, to: u64) -> Result<Vec<ChainEvent>, ChainError> {
        let mut events = self.events_now(from, to);
        if self.repeats_itself {
            events.extend(events.clone());
        }
        Ok(events)
    }
}

fn state(confirmations: u64) -> WatcherState {
    WatcherState {
        confirmations,
        next_block: 0,
        remembered: Vec::new(),
        halt: None,
        handed_on: BTreeSet::new(),
        early_exits: Vec::new(),
        policy: ConfirmationPolicy::default(),
        waiting: Vec::new(),
    }
}

/// Runs one seed; the halt that ended it, if one did.
async fn run(seed: u64, depth_over: u64) -> Option<Halt> {
    let mut dice = Dice(seed);
    let confirmations = dice.roll(4);
    let mut chain = MemoryChain::new();
    let mut watcher = Watcher::new(state(confirmations));
    let mut handed_on = BTreeSet::new();
    for _ in 0..STEP_COUNT {
        match dice.roll(6) {
            0 | 1 => {
                let count = dice.roll(4);
                let transactions = chain.fresh_transactions(count);
                chain.grow(transactions);
            }
            2 => chain.reorganise(dice.roll(confirmations + depth_over + 1), &mut dice),
            3 => watcher.rescan_from(dice.roll(chain.blocks.len() as u64 + 1)),
            4 => {
                let text = serde_json::to_string(watcher.state()).expect("json");
                watcher = Watcher::new(serde_json::from_str(&text).expect("its own json"));
            }
            _ => {}
        }
        chain.repeats_itself = dice.roll(3) == 0;
        let poll = watcher.poll(&chain).await.expect("memory does not fail");
        for event in &poll.events {
            assert!(handed_on.insert(event.origin.key), "seed {seed}: handed on twice");
        }
        if poll.halt.is_some() {
            return poll.halt;
        }
        assert!(poll.caught_up);
        let deepest = chain.blocks.len() as u64 - 1;
        if let Some(confirmed) = deepest.checked_sub(confirmations) {
            assert_eq!(
                handed_on,
                chain.keys_up_to(confirmed),
                "seed {seed}: the confirmed history, all of it, once"
            );
        }
    }
    None
}

#[tokio::test]
async fn every_seed_hands_on_the_confirmed_history_exactly_once() {
    for seed in 0..SEED_COUNT {
        assert_eq!(run(seed, 0).await, None, "seed {seed}: no reorg was deeper than the confirmations");
    }
}

#[tokio::test]
async fn deeper_reorgs_halt_and_nothing_false_is_handed_on_before() {
    let mut halted = 0;
    for seed in 0..SEED_COUNT {
        halted += u64::from(run(seed, 3).await.is_some());
    }
    assert!(halted > SEED_COUNT / 2, "{halted} of {SEED_COUNT} seeds had a deep reorg");
}

#[tokio::test]
async fn an_exit_is_reported_early_once_and_taken_back_when_it_vanishes() {
    let mut chain = MemoryChain::new();
    let mut watcher = Watcher::new(state(2));
    chain.grow(vec![5]);
    assert_eq!(watcher.poll(&chain).await.expect("poll").early_exits.len(), 1);
    let mut dice = Dice(1);
    // The same request, mined again in another block, is the same request.
    chain.blocks.pop();
    chain.grow(vec![]);
    chain.grow(vec![5]);
    let poll = watcher.poll(&chain).await.expect("poll");
    assert_eq!((poll.early_exits.len(), poll.vanished_exits.len()), (0, 0));
    chain.blocks.truncate(2);
    for _ in 0..4 {
        chain.grow(vec![]);
    }
    assert_eq!(watcher.poll(&chain).await.expect("poll").vanished_exits.len(), 1);
    chain.reorganise(1, &mut dice);
    assert_eq!(watcher.poll(&chain).await.expect("poll").vanished_exits.len(), 0, "once");
}

fn patient(from_units: u64, confirmations: u64) -> ConfirmationPolicy {
    ConfirmationPolicy::new(vec![ConfirmationStep { from_units, confirmations }]).expect("one step")
}

#[tokio::test]
async fn a_large_deposit_waits_longer_and_its_accounts_events_behind_it() {
    let mut chain = MemoryChain::new();
    let mut watcher = Watcher::new(state(1));
    watcher.set_policy(patient(100, 4));
    // 101 is a large deposit; 5 an exit request of the same account; 2 a small deposit of it.
    chain.grow(vec![2]);
    chain.grow(vec![101, 5]);
    chain.grow(vec![]);
    let poll = watcher.poll(&chain).await.expect("poll");
    assert_eq!(poll.events.len(), 1, "the small one");
    assert_eq!(poll.pending_deposits.len(), 1);
    assert_eq!((poll.pending_deposits[0].confirmations, poll.pending_deposits[0].needed), (1, 4));
    let text = serde_json::to_string(watcher.state()).expect("json");
    let mut watcher = Watcher::new(serde_json::from_str(&text).expect("its own json"));
    for _ in 0..2 {
        chain.grow(vec![]);
        assert_eq!(watcher.poll(&chain).await.expect("poll").events, []);
    }
    chain.grow(vec![]);
    let events = watcher.poll(&chain).await.expect("poll").events;
    assert!(matches!(events[0].fact, ChainFact::Deposited { units: 101, .. }), "{events:?}");
    assert!(
        matches!(events[1].fact, ChainFact::ExitRequested { .. }),
        "after it, as on the chain: {events:?}"
    );
    assert_eq!(watcher.poll(&chain).await.expect("poll").events, [], "once");
}

#[tokio::test]
async fn a_large_deposit_that_a_deep_reorg_takes_is_never_handed_on() {
    let mut chain = MemoryChain::new();
    let mut watcher = Watcher::new(state(1));
    watcher.set_policy(patient(100, 6));
    chain.grow(vec![101]);
    for _ in 0..3 {
        chain.grow(vec![]);
        assert_eq!(watcher.poll(&chain).await.expect("poll").events, []);
    }
    chain.blocks.truncate(1);
    for _ in 0..4 {
        chain.grow(vec![]);
    }
    assert!(watcher.poll(&chain).await.expect("poll").halt.is_some(), "deeper than the confirmations");
    watcher.accept_new_history(&[]);
    for _ in 0..8 {
        chain.grow(vec![]);
    }
    assert_eq!(watcher.poll(&chain).await.expect("poll").events, [], "nothing to reverse");
    // Mined again, it is new and waits anew.
    chain.grow(vec![101]);
    for _ in 0..6 {
        assert_eq!(watcher.poll(&chain).await.expect("poll").events, []);
        chain.grow(vec![]);
    }
    assert_eq!(watcher.poll(&chain).await.expect("poll").events.len(), 1);
}
