//! Sealed segments of the archive: verbatim commits in zstd frames, with head, index, checkpoint and a hash of everything.
//! Written once, then immutable. Format: `specs/archive.md` section 3. Must not: know JetStream, or who seals when.

mod bucket;
mod builder;
mod courier;
mod location;
mod parts;
mod reading;
mod sealer;
mod store;
#[cfg(test)]
mod tests;

pub use bucket::{Bucket, BucketKeys, BucketStore};
pub use builder::SegmentBuilder;
pub use courier::{Copied, copy_missing};
pub use location::{LocationError, StoreLocation};
pub use reading::Segment;
pub use sealer::{SEALED_AFTER_FILES, Sealer};
pub use store::{DirectoryStore, SegmentStore};

pub(crate) use courier::Courier;
pub(crate) use parts::{Part, keep_aside, list_parts, set_aside};
pub(crate) use sealer::Wound;

use crate::pipeline::Position;
use protocol::id::Hash32;
use std::path::Path;

const MAGIC: &[u8; 8] = b"cf-seg01";
const MAGIC_END: &[u8; 8] = b"cf-segen";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 128;
const INDEX_ENTRY_BYTES: usize = 64;
const TRAILER_BYTES: usize = 56;
/// Where the hash stands in the trailer.
const TRAILER_HASH_AT: usize = 16;
/// Most bytes of commits in one frame that we read; we write smaller ones.
const FRAME_CONTENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest checkpoint that a segment carries.
const CHECKPOINT_BYTES_MAX: usize = protocol::checkpoint::NOTE_BYTES_MAX;

/// Why a segment could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The store said no.
    #[error("archive segment {name}: cannot {what}: {source}")]
    Io {
        /// Which segment or folder.
        name: String,
        /// What was tried.
        what: &'static str,
        /// Its words.
        source: std::io::Error,
    },
    /// Not what its name and format say.
    #[error(
        "archive segment {name}: {reason}; the keeper of a running journal takes it again from the stream, `counterfoil restore` says what both hold"
    )]
    Damaged {
        /// Which.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// What was to be sealed is not a piece of one log.
    #[error("cannot seal commit {number}: {reason}")]
    NotSealable {
        /// Which commit.
        number: u64,
        /// What does not fit.
        reason: String,
    },
}

impl SegmentError {
    pub(crate) fn io(name: impl ToString, what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let name = name.to_string();
        move |source| Self::Io { name, what, source }
    }

    /// The file is gone: somebody sealed, healed or deleted meanwhile.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

/// What a segment's name says: `segment-<first>-<last>-<hash>.cfs`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SegmentName {
    /// Number of its first commit.
    pub first: u64,
    /// Number of its last commit.
    pub last: u64,
    /// BLAKE3 of the file up to the hash in its trailer.
    pub hash: Hash32,
}

impl std::fmt::Display for SegmentName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "segment-{:020}-{:020}-{}.cfs", self.first, self.last, self.hash)
    }
}

impl SegmentName {
    /// Reads a file's name; anything but the one form is none of ours.
    pub fn parse(path: &Path) -> Option<Self> {
        let text = path.file_name()?.to_str()?;
        let mut fields = text.strip_prefix("segment-")?.strip_suffix(".cfs")?.splitn(3, '-');
        let mut field = || fields.next();
        let name = Self {
            first: field()?.parse().ok()?,
            last: field()?.parse().ok()?,
            hash: field()?.parse().ok()?,
        };
        (name.to_string() == text && name.first >= 1 && name.first <= name.last).then_some(name)
    }
}

/// What a segment's head says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHead {
    /// Shard of the log.
    pub shard: u32,
    /// Number of its first commit.
    pub first: u64,
    /// Leaves before its first commit.
    pub leaves_before: u64,
    /// Hash of the commit before its first.
    pub previous: Hash32,
    /// The log's position after its last commit.
    pub last: Position,
}

impl SegmentHead {
    fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.shard.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.last.commit.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.leaves_before.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.last.leaf.to_le_bytes());
        bytes[48..80].copy_from_slice(&self.previous.0);
        bytes[80..112].copy_from_slice(&self.last.hash.0);
        bytes[112..120].copy_from_slice(&self.last.time_us.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEAD_BYTES]) -> Result<Self, String> {
        if &bytes[..8] != MAGIC {
            return Err("it does not begin with cf-seg01".to_owned());
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return Err(format!("its version is {version}, this program knows {VERSION}: use a newer one"));
        }
        let head = Self {
            shard: u32_at(bytes, 12),
            first: u64_at(bytes, 16),
            leaves_before: u64_at(bytes, 32),
            previous: hash_at(bytes, 48),
            last: Position {
                commit: u64_at(bytes, 24),
                leaf: u64_at(bytes, 40),
                hash: hash_at(bytes, 80),
                time_us: u64_at(bytes, 112),
            },
        };
        let ordered =
            head.first >= 1 && head.first <= head.last.commit && head.leaves_before <= head.last.leaf;
        if !ordered || head.encode() != *bytes {
            return Err("its head is not canonical".to_owned());
        }
        Ok(head)
    }
}

/// Where one frame stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Frame {
    first: u64,
    commits: u32,
    offset: u64,
    length: u32,
    content_length: u32,
    hash: Hash32,
}

impl Frame {
    fn encode(&self) -> [u8; INDEX_ENTRY_BYTES] {
        let mut bytes = [0; INDEX_ENTRY_BYTES];
        bytes[..8].copy_from_slice(&self.first.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.commits.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.content_length.to_le_bytes());
        bytes[32..64].copy_from_slice(&self.hash.0);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let frame = Self {
            first: u64_at(bytes, 0),
            commits: u32_at(bytes, 8),
            offset: u64_at(bytes, 16),
            length: u32_at(bytes, 24),
            content_length: u32_at(bytes, 28),
            hash: hash_at(bytes, 32),
        };
        let sane = frame.commits > 0 && frame.content_length as usize <= FRAME_CONTENT_BYTES_MAX;
        (sane && frame.encode() == bytes).then_some(frame)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].try_into().map(u32::from_le_bytes).unwrap_or_default()
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or_default()
}

fn hash_at(bytes: &[u8], at: usize) -> Hash32 {
    let mut hash = [0; 32];
    hash.copy_from_slice(&bytes[at..at + 32]);
    Hash32(hash)
}
