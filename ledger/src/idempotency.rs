//! Same key, same command: the first outcome again. Same key, other command: refused. An unknown key that is older than
//! what is remembered: refused, never taken as new. Rebuilt from event headers alone.

use crate::apply::ApplyError;
use crate::command::{Command, CommandBody};
use crate::index::{Hashed, Index};
use crate::refusal::Refusal;
use crate::slab::Queue;
use crate::state::State;
use minicbor::{Decode, Encode};
use protocol::codec;
use protocol::event::Header;
use protocol::id::IdempotencyKey;

/// How far a key's own time may be ahead of the log's; keys are remembered by this much longer than their retention, so
/// that a forgotten key is always too old.
pub const KEY_AHEAD_US_MAX: u64 = 60 * 1_000_000;
/// Most keys that one commit forgets: twice what it can add, so that a backlog shrinks without a pause.
const FORGOTTEN_PER_COMMIT_MAX: usize = 8_192;

/// An unknown key's own time, where it has one, must be within what is remembered.
pub(crate) fn check_time(state: &State, command: &Command, now_us: u64) -> Result<(), Refusal> {
    let Some(key_time_us) = command.key_time_us else { return Ok(()) };
    let keep_us = state.settings().map_or(u64::MAX, |settings| settings.idempotency_us);
    if key_time_us.saturating_add(keep_us) < now_us {
        let oldest_us = now_us - keep_us;
        return Err(Refusal::TooOld { key: command.key, key_time_us, oldest_us });
    }
    if key_time_us > now_us.saturating_add(KEY_AHEAD_US_MAX) {
        return Err(Refusal::KeyTimeAhead { key_time_us, now_us });
    }
    Ok(())
}

/// What a key led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Outcome {
    pub(crate) command: u64,
    pub(crate) commit: u64,
    pub(crate) first_leaf: u64,
    pub(crate) count: u32,
}

/// One key; 32 bytes, because there are many. When and in which commit says its mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
struct Entry {
    #[n(0)]
    key: IdempotencyKey,
    #[n(1)]
    command: u64,
    /// First leaf, after the first leaf of its mark.
    #[n(2)]
    after_mark: u32,
    #[n(3)]
    count: u32,
}

const _: () = assert!(std::mem::size_of::<Entry>() == 32);

/// What following keys have in common: their commit and their time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
struct Mark {
    #[n(0)]
    first_leaf: u64,
    #[n(1)]
    commit: u64,
    #[n(2)]
    time_us: u64,
    #[n(3)]
    entries: u32,
}

/// The keys that are remembered, in the order they came.
#[derive(Clone, Default, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Keys {
    #[n(0)]
    entries: Queue<Entry>,
    #[n(1)]
    marks: Queue<Mark>,
    /// By key, the lower half of an entry's number.
    #[cbor(skip)]
    index: Index<Hashed>,
}

/// 64 bits of the canonical body: tells two commands under one key apart, and nothing else. Whoever makes two bodies with
/// one fingerprint gets the first one's outcome for his own second one. Kept in headers, so never changed.
pub(crate) fn fingerprint(body: &CommandBody) -> u64 {
    let mut small = Small { bytes: [0; SMALL_BODY_BYTES], len: 0 };
    match minicbor::encode(body, &mut small) {
        Ok(()) => mix(&small.bytes[..small.len]),
        // Long lists: rare, and never on a hot path.
        Err(_) => mix(&codec::encode(body)),
    }
}

/// Word by word, each multiplied with what came before; the length last.
fn mix(bytes: &[u8]) -> u64 {
    let fold = |a: u64, b: u64| {
        let product = u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(b ^ 0xd1b5_4a32_d192_ed03);
        product as u64 ^ (product >> 64) as u64
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let state = words.fold(0x2545_f491_4f6c_dd1d, |state: u64, word| fold(state.rotate_left(23), word));
    fold(fold(state.rotate_left(23), u64::from_le_bytes(last)), bytes.len() as u64 ^ state)
}

/// Bodies up to this size are hashed without an allocation.
const SMALL_BODY_BYTES: usize = 256;

/// The bytes of a small body.
struct Small {
    bytes: [u8; SMALL_BODY_BYTES],
    len: usize,
}

impl minicbor::encode::Write for &mut Small {
    type Error = ();

    #[inline(always)]
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), ()> {
        let end = self.len + bytes.len();
        self.bytes.get_mut(self.len..end).ok_or(())?.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }
}

/// An entry's whole number from its lower half, among those that are remembered.
fn whole(entries: &Queue<Entry>, low: u32) -> u64 {
    let first = entries.first();
    first + u64::from(low.wrapping_sub(first as u32))
}

fn key_of(entries: &Queue<Entry>, low: u32) -> &[u8; 16] {
    &entries.get(whole(entries, low)).expect("the index knows only remembered keys").key.0
}

impl Keys {
    fn find(&self, key: &IdempotencyKey) -> Option<u64> {
        let low = self.index.find(&key.0, |low| key_of(&self.entries, low))?;
        Some(whole(&self.entries, low))
    }

    pub(crate) fn get(&self, key: &IdempotencyKey) -> Option<Outcome> {
        let at = self.find(key)?;
        let entry = self.entries.get(at)?;
        let mark = self.mark_of(at)?;
        let first_leaf = mark.first_leaf + u64::from(entry.after_mark);
        let (command, commit, count) = (entry.command, mark.commit, entry.count);
        Some(Outcome { command, commit, first_leaf, count })
    }

    /// Looks through the marks: only for a command that came twice.
    fn mark_of(&self, at: u64) -> Option<&Mark> {
        let mut first = self.entries.first();
        self.marks.iter().find(|mark| {
            first += u64::from(mark.entries);
            at < first
        })
    }

    /// Notes an event under its key. Events of one command follow each other without a gap.
    pub(crate) fn note(&mut self, header: &Header) -> Result<(), ApplyError> {
        if self.entries.last().is_some_and(|entry| entry.key == header.key)
            && let (Some(entry), Some(mark)) = (self.entries.last_mut(), self.marks.last())
        {
            let first_leaf = mark.first_leaf + u64::from(entry.after_mark);
            let follows = first_leaf + u64::from(entry.count) == header.leaf;
            if !follows || mark.commit != header.commit || entry.command != header.command {
                return Err(ApplyError::KeyUsedAgain { key: header.key, first_leaf });
            }
            entry.count += 1;
            return Ok(());
        }
        let at = self.entries.first() + self.entries.len();
        let entries = &self.entries;
        if self.index.insert(&header.key.0, at as u32, |low| key_of(entries, low)).is_some() {
            let first_leaf = self.get(&header.key).map_or(0, |known| known.first_leaf);
            return Err(ApplyError::KeyUsedAgain { key: header.key, first_leaf });
        }
        let after_mark = self.mark(header);
        self.entries.push(Entry { key: header.key, command: header.command, after_mark, count: 1 });
        Ok(())
    }

    /// Counts an entry under its mark, a new one when commit or time are new; gives its leaf after the mark's.
    fn mark(&mut self, header: &Header) -> u32 {
        if let Some(mark) = self.marks.last_mut()
            && (mark.commit, mark.time_us) == (header.commit, header.time_us)
            && let Ok(after) = u32::try_from(header.leaf - mark.first_leaf)
        {
            mark.entries += 1;
            return after;
        }
        let (first_leaf, commit, time_us) = (header.leaf, header.commit, header.time_us);
        self.marks.push(Mark { first_leaf, commit, time_us, entries: 1 });
        0
    }

    /// Forgets keys older than `keep_us` at log time `now_us`.
    pub(crate) fn forget(&mut self, now_us: u64, keep_us: u64) {
        for _ in 0..FORGOTTEN_PER_COMMIT_MAX {
            let at = self.marks.first();
            let Some(mark) = self.marks.get_mut(at) else { break };
            if mark.time_us.saturating_add(keep_us) >= now_us {
                break;
            }
            mark.entries -= 1;
            if mark.entries == 0 {
                self.marks.pop();
            }
            let first = self.entries.first();
            let entry = self.entries.get(first).expect("a mark counts entries that are there");
            self.index.remove(&entry.key.0, first as u32);
            self.entries.pop();
        }
    }

    /// Finds everything again after the rows were read.
    pub(crate) fn rebuild(&mut self) -> Result<(), &'static str> {
        let marked: u64 = self.marks.iter().map(|mark| u64::from(mark.entries)).sum();
        if marked != self.entries.len() || self.marks.iter().any(|mark| mark.entries == 0) {
            return Err("the marks of keys do not count the keys");
        }
        let entries = &self.entries;
        for (k, entry) in entries.iter().enumerate() {
            let at = (entries.first() + k as u64) as u32;
            self.index.insert(&entry.key.0, at, |low| key_of(entries, low));
        }
        Ok(())
    }

    /// A copy that shares what it can.
    pub(crate) fn share(&mut self) -> Keys {
        Keys { entries: self.entries.share(), marks: self.marks.share(), index: self.index.share() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Headers keep fingerprints: another value for the same body would refuse honest copies of old commands.
    #[test]
    fn fingerprints_stay_what_they_are_and_differ() {
        assert_eq!(mix(b""), MIX_OF_NOTHING);
        assert_eq!(mix(b"one fingerprint for ever"), MIX_OF_TEXT);
        let mut seen = BTreeSet::new();
        for length in 0..64 {
            for at in 0..=length {
                let mut bytes = vec![0u8; length];
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = 1;
                }
                seen.insert(mix(&bytes));
            }
        }
        assert_eq!(seen.len(), (0..64).map(|length| length + 1).sum::<usize>());
    }

    const MIX_OF_NOTHING: u64 = 0xfb22_68a4_0e70_0543;
    const MIX_OF_TEXT: u64 = 0xca97_3605_06a8_de5c;
}
