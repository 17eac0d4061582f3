//! One leaf as an event of the store: a deterministic id, the FEED's JSON as data, and metadata that ties it to the log.

use protocol::event::Event;
use protocol::id::Hash32;
use protocol::proof::leaf_hash;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// UUIDv5 of the URL namespace and `counterfoil:mirror:1`; every event id is a UUIDv5 under it.
const NAMESPACE: Uuid = Uuid::from_u128(0xb0ee_a382_b7b8_55f4_9143_aed6_bb9f_d52b);

/// What stands beside the data of each event.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Metadata {
    /// Shard of the log.
    pub shard: u32,
    /// Leaf of the transparency log; equals the event's number in the stream.
    pub leaf: u64,
    /// RFC 6962 leaf hash of the event's own bytes (hex): what inclusion proofs are for.
    pub leaf_hash: String,
    /// The commit it belongs to.
    pub commit: u64,
    /// BLAKE3 of that commit's bytes (hex): the head of the chain there.
    pub commit_hash: String,
}

/// An event on its way into the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mirrored {
    /// Of shard and leaf only, so that a repeated append is the same append.
    pub id: Uuid,
    /// `counterfoil.<kind>.v<version>`, as in CloudEvents of the FEED.
    pub kind: String,
    /// JSON, as in the FEED's log copy.
    pub data: Vec<u8>,
    /// See there.
    pub metadata: Metadata,
}

impl Mirrored {
    /// The event of a leaf, whose own bytes are `leaf_bytes`, in a commit with this hash.
    pub fn new(event: &Event, leaf_bytes: &[u8], commit_hash: Hash32) -> Mirrored {
        let header = &event.header;
        Mirrored {
            id: id(header.shard, header.leaf),
            kind: format!("counterfoil.{}.v{}", event.body.kind(), event.version),
            data: protocol::feed::log_json(event),
            metadata: Metadata {
                shard: header.shard,
                leaf: header.leaf,
                leaf_hash: leaf_hash(leaf_bytes).to_string(),
                commit: header.commit,
                commit_hash: commit_hash.to_string(),
            },
        }
    }

    /// What it takes in a message, nearly.
    pub fn bytes(&self) -> usize {
        /// Ids, names and framing.
        const OVERHEAD_BYTES: usize = 512;
        self.data.len() + self.kind.len() + OVERHEAD_BYTES
    }
}

/// The id of a leaf's event: UUIDv5 of `<shard>.<leaf>`.
pub fn id(shard: u32, leaf: u64) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{shard}.{leaf}").as_bytes())
}

/// The stream of a shard.
pub fn stream(shard: u32) -> String {
    format!("ledger-{shard}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden: other tools compute these ids too (specs/mirror.md).
    #[test]
    fn ids_are_fixed() {
        assert_eq!(NAMESPACE, Uuid::new_v5(&Uuid::NAMESPACE_URL, b"counterfoil:mirror:1"));
        assert_eq!(stream(0), "ledger-0");
        // As Python's uuid.uuid5 says.
        assert_eq!(id(0, 0).to_string(), "79704839-75e1-5a2b-84f2-70306a992861");
        assert_eq!(id(0, 1).to_string(), "40cbb725-d9b5-5e68-b6ed-39da0c5c71bd");
        assert_ne!(id(0, 11), id(1, 1));
        assert_ne!(id(0, 1), id(1, 0));
    }
}
