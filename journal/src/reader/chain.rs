//! The chain: every commit names the hash of the one before, its number, its first leaf and a time that never goes back.
//! Must not: I/O.

use super::ReadError;
use crate::pipeline::Position;
use bytes::Bytes;
use ledger::{ApplyError, State};
use protocol::codec::{CodecError, encode};
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
        let hash = Commit::hash(&bytes);
        Self::decode_hashed(number, bytes, hash)
    }

    fn decode_hashed(number: u64, bytes: Bytes, hash: Hash32) -> Result<Self, ReadError> {
        let codec = |source| ReadError::Codec { at: number, source };
        let commit = decode_commit(&bytes).map_err(codec)?;
        let events = commit.decode_events().map_err(codec)?;
        Ok(Self { number, hash, bytes, commit, events })
    }
}

/// As `protocol::codec::decode`, without encoding everything again: the canonical form of a commit is its head, which is
/// compared, and byte strings, whose lengths must add up (any other form of them is longer).
fn decode_commit(bytes: &[u8]) -> Result<Commit, CodecError> {
    let what = "commit";
    let malformed = |e: minicbor::decode::Error| CodecError::Malformed { what, reason: e.to_string() };
    let mut commit: Commit = minicbor::decode(bytes).map_err(malformed)?;
    let events = std::mem::take(&mut commit.events);
    let mut head = encode(&commit);
    commit.events = events;
    // The empty array of events gives way to the head of the real one.
    head.pop();
    let _infallible = minicbor::Encoder::new(&mut head).array(commit.events.len() as u64);
    let events: usize = commit.events.iter().map(|event| string_head_bytes(event.len()) + event.len()).sum();
    if bytes.starts_with(&head) && bytes.len() == head.len() + events {
        return Ok(commit);
    }
    Err(CodecError::NotCanonical { what })
}

/// Length of a CBOR head that states this length.
fn string_head_bytes(length: usize) -> usize {
    match length {
        0..24 => 1,
        24..0x100 => 2,
        0x100..0x1_0000 => 3,
        _ => 5,
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
        let hash = Commit::hash(&bytes);
        self.check_hashed(bytes, hash)
    }

    /// The same for bytes whose hash was computed already.
    pub(super) fn check_hashed(&mut self, bytes: Bytes, hash: Hash32) -> Result<CommittedCommit, ReadError> {
        let at = self.next;
        let broken = |reason: String| Err(ReadError::Broken { at, reason });
        let checked = CommittedCommit::decode_hashed(at, bytes, hash)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use minicbor::bytes::ByteVec;

    #[test]
    fn only_the_canonical_form_of_a_commit_is_taken() {
        for count in [0, 1, 23, 24, 255, 256, 1_000] {
            let events = (0..count).map(|n| ByteVec::from(vec![0x40; [3, 30, 300][n % 3]])).collect();
            let commit = Commit {
                version: 1,
                shard: 0,
                writer_epoch: 2,
                number: 9,
                first_leaf: 70_000,
                time_us: 1,
                previous: Hash32([7; 32]),
                events,
            };
            let bytes = encode(&commit);
            assert_eq!(decode_commit(&bytes).as_ref(), Ok(&commit));
            let mut trailing = bytes.clone();
            trailing.push(0);
            assert!(decode_commit(&trailing).is_err(), "{count} events, trailing byte");
            // Every integer of the head in a longer form; the array of events without a length.
            let longer = [&bytes[..1], &[0x18, 0x01][..], &bytes[2..]].concat();
            assert!(decode_commit(&longer).is_err(), "{count} events, long version");
            let array = encode(&Commit { events: Vec::new(), ..commit.clone() }).len() - 1;
            let head = string_head_bytes(count);
            let open = [&bytes[..array], &[0x9f][..], &bytes[array + head..], &[0xff][..]].concat();
            assert!(decode_commit(&open).is_err(), "{count} events, open array");
        }
    }
}
