//! The chain: every commit names the hash of the one before, its number, its first leaf and a time that never goes back.
//! Must not: I/O.

use super::ReadError;
use crate::pipeline::Position;
use bytes::Bytes;
use ledger::{ApplyError, State};
use protocol::codec::decode;
use protocol::commit::{COMMIT_VERSION, Commit};
use protocol::event::Event;
use protocol::id::Hash32;

/// A commit whose place in the chain was checked.
#[derive(Clone, Debug)]
pub struct CommittedCommit {
    /// Its number: the stream's sequence.
    pub number: u64,
    /// Its hash.
    pub hash: Hash32,
    /// Its bytes as written.
    pub bytes: Bytes,
    /// The same decoded.
    pub commit: Commit,
    /// Its events decoded.
    pub events: Vec<Event>,
}

impl CommittedCommit {
    /// The log's position after it.
    pub fn position(&self) -> Position {
        Position {
            commit: self.number,
            leaf: self.commit.first_leaf + self.events.len() as u64,
            hash: self.hash,
            time_us: self.commit.time_us,
        }
    }

    /// Folds it into a state that stands at the commit before.
    pub fn apply_to(&self, state: &mut State) -> Result<(), ApplyError> {
        for event in &self.events {
            ledger::apply(state, event)?;
        }
        ledger::end_commit(state, self.number, self.hash, self.commit.time_us)
    }

    /// Decodes a commit; where it belongs is not checked.
    pub fn decode(number: u64, bytes: Bytes) -> Result<Self, ReadError> {
        let codec = |source| ReadError::Codec { at: number, source };
        let commit: Commit = decode("commit", &bytes).map_err(codec)?;
        let events = commit.decode_events().map_err(codec)?;
        Ok(Self { number, hash: Commit::hash(&bytes), bytes, commit, events })
    }
}

/// Checks commits one after the other.
#[derive(Clone, Debug)]
pub struct ChainCheck {
    shard: u32,
    next: u64,
    /// `None`: the first commit that comes is taken as the anchor.
    last: Option<Position>,
}

impl ChainCheck {
    /// Begins at commit `next`: at 1 with the beginning of the log, elsewhere with that commit as the anchor.
    pub fn new(shard: u32, next: u64) -> Self {
        Self { shard, next, last: (next <= 1).then(Position::default) }
    }

    /// Goes on after a known position.
    pub fn after(shard: u32, last: Position) -> Self {
        Self { shard, next: last.commit + 1, last: Some(last) }
    }

    /// The number that must come next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The commit that must come next, checked and decoded.
    pub fn check(&mut self, bytes: Bytes) -> Result<CommittedCommit, ReadError> {
        let at = self.next;
        let broken = |reason: String| Err(ReadError::Broken { at, reason });
        let checked = CommittedCommit::decode(at, bytes)?;
        let commit = &checked.commit;
        if commit.version != COMMIT_VERSION {
            return broken(format!("its version is {}, this program knows {COMMIT_VERSION}", commit.version));
        }
        if (commit.shard, commit.number) != (self.shard, at) {
            return broken(format!("it says it is commit {} of shard {}", commit.number, commit.shard));
        }
        if let Some(last) = &self.last {
            if commit.previous != last.hash {
                return broken(format!("it follows {}, the commit before is {}", commit.previous, last.hash));
            }
            if commit.first_leaf != last.leaf {
                return broken(format!("it begins at leaf {}, expected {}", commit.first_leaf, last.leaf));
            }
            if commit.time_us < last.time_us {
                return broken(format!("its time {} is before {}", commit.time_us, last.time_us));
            }
        }
        self.last = Some(checked.position());
        self.next += 1;
        Ok(checked)
    }
}
