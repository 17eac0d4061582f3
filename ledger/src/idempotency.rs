//! Same key, same command: the first outcome again. Same key, other command: refused. An unknown key that is older than
//! what is remembered: refused, never taken as new. Rebuilt from event headers alone.

use crate::apply::ApplyError;
use crate::command::{Command, CommandBody};
use crate::refusal::Refusal;
use crate::state::State;
use minicbor::{Decode, Encode};
use protocol::codec;
use protocol::event::Header;
use protocol::id::IdempotencyKey;
use std::collections::BTreeMap;

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
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Entry {
    #[n(0)]
    pub(crate) command: u64,
    #[n(1)]
    pub(crate) commit: u64,
    #[n(2)]
    pub(crate) first_leaf: u64,
    #[n(3)]
    pub(crate) count: u32,
    #[n(4)]
    pub(crate) time_us: u64,
}

/// The keys that are remembered, also in the order they came.
#[derive(Clone, PartialEq, Eq, Default, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Keys {
    #[n(0)]
    entries: BTreeMap<IdempotencyKey, Entry>,
    #[n(1)]
    by_leaf: BTreeMap<u64, IdempotencyKey>,
}

/// First 8 bytes of BLAKE3 over the canonical body.
pub(crate) fn fingerprint(body: &CommandBody) -> u64 {
    let hash = blake3::hash(&codec::encode(body));
    let (head, _) = hash.as_bytes().split_first_chunk::<8>().expect("a hash of 32 bytes has 8");
    u64::from_be_bytes(*head)
}

impl Keys {
    pub(crate) fn get(&self, key: &IdempotencyKey) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Notes an event under its key. Events of one command follow each other without a gap.
    pub(crate) fn note(&mut self, header: &Header) -> Result<(), ApplyError> {
        if let Some(entry) = self.entries.get_mut(&header.key) {
            let follows = entry.first_leaf + u64::from(entry.count) == header.leaf;
            if !follows || entry.commit != header.commit || entry.command != header.command {
                return Err(ApplyError::KeyUsedAgain { key: header.key, first_leaf: entry.first_leaf });
            }
            entry.count += 1;
            return Ok(());
        }
        let entry = Entry {
            command: header.command,
            commit: header.commit,
            first_leaf: header.leaf,
            count: 1,
            time_us: header.time_us,
        };
        self.entries.insert(header.key, entry);
        self.by_leaf.insert(header.leaf, header.key);
        Ok(())
    }

    /// Forgets keys older than `keep_us` at log time `now_us`.
    pub(crate) fn forget(&mut self, now_us: u64, keep_us: u64) {
        for _ in 0..FORGOTTEN_PER_COMMIT_MAX {
            let Some(first) = self.by_leaf.first_entry() else { break };
            let Some(entry) = self.entries.get(first.get()) else { break };
            if entry.time_us.saturating_add(keep_us) >= now_us {
                break;
            }
            self.entries.remove(&first.remove());
        }
    }
}
