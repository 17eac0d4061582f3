//! Makes a segment in memory from commits that follow each other. Must not: read or write files.

use super::{
    CHECKPOINT_BYTES_MAX, Frame, HEAD_BYTES, MAGIC_END, SegmentError, SegmentHead, SegmentName, TRAILER_BYTES,
};
use crate::pipeline::Position;
use crate::reader::RawCheck;
use protocol::commit::COMMIT_BYTES_MAX;
use protocol::id::Hash32;

/// A frame is closed when it holds this much; small enough that one commit is read back in about a millisecond.
const FRAME_CONTENT_BYTES: usize = 1024 * 1024;
/// Commits are mostly hashes and numbers: higher levels cost several times as much for a few percent (measured).
const ZSTD_LEVEL: i32 = 3;

/// Takes commits in order. The first one says where the segment begins.
pub struct SegmentBuilder {
    shard: u32,
    head: Option<SegmentHead>,
    check: RawCheck,
    bytes: Vec<u8>,
    frames: Vec<Frame>,
    content: Vec<u8>,
    content_commits: u32,
}

impl SegmentBuilder {
    /// An empty segment.
    pub fn new(shard: u32) -> Self {
        Self {
            shard,
            head: None,
            check: RawCheck::anywhere(shard),
            bytes: vec![0; HEAD_BYTES],
            frames: Vec::new(),
            content: Vec::with_capacity(FRAME_CONTENT_BYTES + COMMIT_BYTES_MAX),
            content_commits: 0,
        }
    }

    /// The position after the last commit that was taken.
    pub fn last(&self) -> Option<Position> {
        self.head.map(|head| head.last)
    }

    /// Bytes so far, compressed.
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes the next commit; one that does not follow the last is refused.
    pub fn push(&mut self, commit: &[u8]) -> Result<(), SegmentError> {
        let number = self.check.next();
        let refused = |reason: String| SegmentError::NotSealable { number, reason };
        if commit.is_empty() || commit.len() > COMMIT_BYTES_MAX {
            return Err(refused(format!("it has {} bytes", commit.len())));
        }
        let (head, last) = self.check.check(commit).map_err(refused)?;
        let begun = SegmentHead {
            shard: self.shard,
            first: head.number,
            leaves_before: head.first_leaf,
            previous: head.previous,
            last,
        };
        self.head.get_or_insert(begun).last = last;
        self.content.extend_from_slice(&(commit.len() as u32).to_le_bytes());
        self.content.extend_from_slice(commit);
        self.content_commits += 1;
        if self.content.len() >= FRAME_CONTENT_BYTES {
            self.close_frame()?;
        }
        Ok(())
    }

    fn close_frame(&mut self) -> Result<(), SegmentError> {
        if self.content_commits == 0 {
            return Ok(());
        }
        let first = self.check.next() - u64::from(self.content_commits);
        let failed = SegmentError::io(format!("frame of commit {first}"), "compress");
        let frame = zstd::bulk::compress(&self.content, ZSTD_LEVEL).map_err(failed)?;
        self.frames.push(Frame {
            first,
            commits: self.content_commits,
            offset: self.bytes.len() as u64,
            length: frame.len() as u32,
            content_length: self.content.len() as u32,
            hash: Hash32(*blake3::hash(&frame).as_bytes()),
        });
        self.bytes.extend_from_slice(&frame);
        self.content.clear();
        self.content_commits = 0;
        Ok(())
    }

    /// Closes it: name and bytes. `checkpoint` is the newest signed note, or empty; one that does not cover the segment is
    /// left out. Fails without any commit.
    pub fn finish(mut self, checkpoint: &[u8]) -> Result<(SegmentName, Vec<u8>), SegmentError> {
        self.close_frame()?;
        let Some(head) = self.head else {
            return Err(SegmentError::NotSealable { number: 0, reason: "there are no commits".to_owned() });
        };
        let checkpoint = if covers(checkpoint, head.last.leaf) { checkpoint } else { &[] };
        let mut bytes = self.bytes;
        bytes[..HEAD_BYTES].copy_from_slice(&head.encode());
        let index_at = bytes.len() as u64;
        for frame in &self.frames {
            bytes.extend_from_slice(&frame.encode());
        }
        bytes.extend_from_slice(checkpoint);
        bytes.extend_from_slice(&index_at.to_le_bytes());
        bytes.extend_from_slice(&(self.frames.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(checkpoint.len() as u32).to_le_bytes());
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        bytes.extend_from_slice(MAGIC_END);
        debug_assert!(bytes.len() > HEAD_BYTES + TRAILER_BYTES);
        Ok((SegmentName { first: head.first, last: head.last.commit, hash: Hash32(*hash.as_bytes()) }, bytes))
    }
}

/// The size that a signed note states, when it is one.
pub(super) fn size_of(checkpoint: &[u8]) -> Option<u64> {
    std::str::from_utf8(checkpoint).ok()?.lines().nth(1)?.parse().ok()
}

fn covers(checkpoint: &[u8], leaves: u64) -> bool {
    checkpoint.len() <= CHECKPOINT_BYTES_MAX && size_of(checkpoint).is_some_and(|size| size >= leaves)
}
