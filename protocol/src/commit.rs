//! A commit: the events of one or more accepted commands, written as one JetStream message.

use crate::codec::{CodecError, decode_event};
use crate::event::Event;
use crate::id::Hash32;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

/// The version of the commit layout that is written today.
pub const COMMIT_VERSION: u32 = 1;
/// Most events in one commit.
pub const COMMIT_EVENTS_MAX: usize = 4096;
/// Most bytes of one commit.
pub const COMMIT_BYTES_MAX: usize = 1024 * 1024;

/// `[version, shard, writer_epoch, number, first_leaf, time_us, previous, [* event bytes]]`. Events are byte strings,
/// so that a leaf is exactly the bytes that were written.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Commit {
    /// Layout, [`COMMIT_VERSION`].
    #[n(0)]
    pub version: u32,
    /// Shard of the log.
    #[n(1)]
    pub shard: u32,
    /// The writer's term.
    #[n(2)]
    pub writer_epoch: u64,
    /// Equals the stream sequence; the first is 1.
    #[n(3)]
    pub number: u64,
    /// Leaf index of the first event.
    #[n(4)]
    pub first_leaf: u64,
    /// Microseconds UTC; never below the commit before.
    #[n(5)]
    pub time_us: u64,
    /// [`Commit::hash`] of the commit before; zeros for the first.
    #[n(6)]
    pub previous: Hash32,
    /// The events' bytes.
    #[n(7)]
    pub events: Vec<ByteVec>,
}

impl Commit {
    /// BLAKE3 of a commit's bytes as written: the next commit's `previous`, and the message id.
    pub fn hash(bytes: &[u8]) -> Hash32 {
        Hash32(*blake3::hash(bytes).as_bytes())
    }

    /// Decodes the events and checks that their headers belong here.
    pub fn decode_events(&self) -> Result<Vec<Event>, CodecError> {
        let malformed = |reason: String| CodecError::Malformed { what: "commit", reason };
        let mut events = Vec::with_capacity(self.events.len());
        for (k, bytes) in self.events.iter().enumerate() {
            let event = decode_event(bytes)?;
            let leaf = self.first_leaf + k as u64;
            let header = &event.header;
            if (header.shard, header.leaf, header.commit) != (self.shard, leaf, self.number) {
                return Err(malformed(format!(
                    "event {k} says shard {}, leaf {}, commit {}; the commit says {}, {leaf}, {}",
                    header.shard, header.leaf, header.commit, self.shard, self.number
                )));
            }
            if header.time_us > self.time_us {
                return Err(malformed(format!("event {k} is later than its commit")));
            }
            events.push(event);
        }
        Ok(events)
    }
}
