//! Same key, same command: the first outcome again. Same key, other command: refused. An unknown key that is older than
//! what is remembered: refused, never taken as new. Rebuilt from event headers alone.

use crate::apply::ApplyError;
use crate::command::Command;
use crate::lines::Lines;
use crate::refusal::Refusal;
use crate::slab::{Queue, definite};
use crate::state::State;
use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};
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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    key: IdempotencyKey,
    command: u64,
    /// First leaf, after the first leaf of its mark.
    after_mark: u32,
    count: u32,
}

const ENTRY_BYTES: usize = 32;
const _: () = assert!(std::mem::size_of::<Entry>() == ENTRY_BYTES);

/// Entries of one byte string in a snapshot.
const STRING_ENTRIES: usize = 512;

impl Entry {
    /// As snapshots have it: there are millions, and item by item they would be most of a snapshot's time.
    fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..16].copy_from_slice(&self.key.0);
        bytes[16..24].copy_from_slice(&self.command.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.after_mark.to_le_bytes());
        bytes[28..].copy_from_slice(&self.count.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> Entry {
        let all = u128::from_le_bytes(bytes[16..].try_into().expect("16 of 32 bytes"));
        Entry {
            key: IdempotencyKey(bytes[..16].try_into().expect("16 of 32 bytes")),
            command: all as u64,
            after_mark: (all >> 64) as u32,
            count: (all >> 96) as u32,
        }
    }
}

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
#[derive(Clone, Default, Debug)]
pub(crate) struct Keys {
    entries: Queue<Entry>,
    marks: Queue<Mark>,
    /// By key, the lower half of an entry's number.
    index: Lines,
}

/// Marks, then byte strings of entries, all but the last one full.
impl<C> Encode<C> for Keys {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, c: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.array(2)?.encode_with(&self.marks, c)?;
        e.array(self.entries.len().div_ceil(STRING_ENTRIES as u64))?;
        let mut string = Vec::with_capacity(STRING_ENTRIES * ENTRY_BYTES);
        for entry in self.entries.iter() {
            string.extend_from_slice(&entry.to_bytes());
            if string.len() == STRING_ENTRIES * ENTRY_BYTES {
                e.bytes(&string)?;
                string.clear();
            }
        }
        if string.is_empty() { Ok(()) } else { e.bytes(&string)?.ok() }
    }
}

impl<'b, C> Decode<'b, C> for Keys {
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Keys, DecodeError> {
        definite(d)?;
        let mut keys = Keys { marks: d.decode_with(c)?, ..Keys::default() };
        for _ in 0..definite(d)? {
            let at = d.position();
            let (entries, rest) = d.bytes()?.as_chunks::<ENTRY_BYTES>();
            if !rest.is_empty() {
                return Err(DecodeError::message("expected keys of 32 bytes each").at(at));
            }
            for entry in entries {
                keys.entries.push(Entry::from_bytes(entry));
            }
        }
        Ok(keys)
    }
}

/// An entry's whole number from its lower half, among those that are remembered.
fn whole(entries: &Queue<Entry>, low: u32) -> u64 {
    let first = entries.first();
    first + u64::from(low.wrapping_sub(first as u32))
}

fn is(entries: &Queue<Entry>, low: u32, key: &IdempotencyKey) -> bool {
    entries.get(whole(entries, low)).is_some_and(|entry| entry.key == *key)
}

impl Keys {
    fn find(&self, key: &IdempotencyKey) -> Option<u64> {
        let low = self.index.find(&key.0, |low| is(&self.entries, low, key))?;
        Some(whole(&self.entries, low))
    }

    /// See [`crate::look_ahead`].
    #[inline]
    pub(crate) fn touch(&self, key: &IdempotencyKey) -> u32 {
        self.index.touch(&key.0)
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
        if self.index.insert(&header.key.0, at as u32, |low| is(entries, low, &header.key)).is_some() {
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
        let rows = (entries.first()..).zip(entries.iter()).map(|(at, entry)| (at as u32, &entry.key.0));
        let key = |low: u32| entries.get(whole(entries, low)).map(|entry| entry.key);
        match self.index.fill(rows, |one, other| key(one) == key(other)) {
            true => Ok(()),
            false => Err("a key is there twice"),
        }
    }

    /// A copy that shares what it can.
    pub(crate) fn share(&mut self) -> Keys {
        Keys { entries: self.entries.share(), marks: self.marks.share(), index: self.index.share() }
    }
}
