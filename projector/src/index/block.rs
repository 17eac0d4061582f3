//! The legs of one ledger account, in blocks: the counters before the first, then leg after leg as differences. A
//! balance at any leaf is one look-up and at most one block to walk.

use super::varint::{Bytes, put, put_signed};
use crate::fold::Counters;
use protocol::amount::Amount;
use protocol::event::LedgerAccount;

/// Legs in a block; it ends only between two events.
pub(super) const LEGS_PER_BLOCK: usize = 128;

const RESERVED: u8 = 1;
const HAS_COUNTER: u8 = 2;

/// One leg of one event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) leaf: u64,
    pub(super) layer: Layer,
    pub(super) amount: i128,
    pub(super) counter: Option<LedgerAccount>,
}

/// Booked, or only reserved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Layer {
    Booked,
    Reserved,
}

/// Adds a leg to the counters.
pub(super) fn add(counters: &mut Counters, layer: Layer, amount: i128) {
    let counter = match (layer, amount >= 0) {
        (Layer::Booked, true) => &mut counters.debits_posted,
        (Layer::Booked, false) => &mut counters.credits_posted,
        (Layer::Reserved, true) => &mut counters.debits_pending,
        (Layer::Reserved, false) => &mut counters.credits_pending,
    };
    counter.0 += amount.abs();
}

/// The block that grows: where an account stands, and what its last block holds.
pub(super) struct Open {
    pub(super) first_leaf: u64,
    pub(super) bytes: Vec<u8>,
    legs: usize,
    last_leaf: u64,
    counters: Counters,
}

impl Open {
    /// Begins a block after these counters.
    pub(super) fn begin(first_leaf: u64, counters: Counters) -> Open {
        let mut bytes = Vec::with_capacity(32);
        for counter in [
            counters.debits_posted,
            counters.credits_posted,
            counters.debits_pending,
            counters.credits_pending,
        ] {
            put(&mut bytes, counter.0 as u128);
        }
        Open { first_leaf, bytes, legs: 0, last_leaf: first_leaf, counters }
    }

    /// Takes a stored block up again.
    pub(super) fn resume(first_leaf: u64, bytes: &[u8]) -> Open {
        let mut walk = Walk::new(first_leaf, bytes);
        let mut legs = 0;
        let mut last_leaf = first_leaf;
        while let Some(entry) = walk.next() {
            legs += 1;
            last_leaf = entry.leaf;
        }
        Open { first_leaf, bytes: bytes.to_vec(), legs, last_leaf, counters: walk.counters }
    }

    /// Whether this leg belongs into another block.
    pub(super) fn is_full_for(&self, leaf: u64) -> bool {
        self.legs >= LEGS_PER_BLOCK && leaf != self.last_leaf
    }

    /// The counters after its last leg.
    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    pub(super) fn push(&mut self, entry: &Entry) {
        put(&mut self.bytes, u128::from(entry.leaf - self.last_leaf));
        let reserved = if entry.layer == Layer::Reserved { RESERVED } else { 0 };
        let counter = if entry.counter.is_some() { HAS_COUNTER } else { 0 };
        self.bytes.push(reserved | counter);
        put_signed(&mut self.bytes, entry.amount);
        if let Some(counter) = entry.counter {
            put(&mut self.bytes, u128::from(counter.0));
        }
        self.legs += 1;
        self.last_leaf = entry.leaf;
        add(&mut self.counters, entry.layer, entry.amount);
    }
}

/// Reads a block leg by leg; `counters` stand after the leg that was read last.
pub(super) struct Walk<'a> {
    bytes: Bytes<'a>,
    leaf: u64,
    pub(super) counters: Counters,
}

impl<'a> Walk<'a> {
    pub(super) fn new(first_leaf: u64, bytes: &'a [u8]) -> Walk<'a> {
        let mut bytes = Bytes(bytes);
        let mut counter = || Amount(bytes.take() as i128);
        let counters = Counters {
            debits_posted: counter(),
            credits_posted: counter(),
            debits_pending: counter(),
            credits_pending: counter(),
        };
        Walk { bytes, leaf: first_leaf, counters }
    }

    pub(super) fn next(&mut self) -> Option<Entry> {
        if self.bytes.is_empty() {
            return None;
        }
        self.leaf += self.bytes.take_u64();
        let flags = self.bytes.byte();
        let layer = if flags & RESERVED != 0 { Layer::Reserved } else { Layer::Booked };
        let amount = self.bytes.take_signed();
        let counter =
            if flags & HAS_COUNTER != 0 { Some(LedgerAccount(self.bytes.take() as u32)) } else { None };
        add(&mut self.counters, layer, amount);
        Some(Entry { leaf: self.leaf, layer, amount, counter })
    }

    /// The counters after the last leg before `size`.
    pub(super) fn counters_at(mut self, size: u64) -> Counters {
        loop {
            let before = self.counters;
            match self.next() {
                Some(entry) if entry.leaf < size => {}
                Some(_) => return before,
                None => return self.counters,
            }
        }
    }
}
