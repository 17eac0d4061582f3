//! Reads a segment: its facts at once, its commits frame by frame, everything when it is verified. Must not: repair.

use super::{
    CHECKPOINT_BYTES_MAX, Frame, HEAD_BYTES, INDEX_ENTRY_BYTES, MAGIC_END, SegmentError, SegmentHead,
    SegmentName, SegmentStore, TRAILER_BYTES, TRAILER_HASH_AT, hash_at, u32_at, u64_at,
};
use crate::pipeline::Position;
use crate::reader::RawCheck;
use bytes::Bytes;
use protocol::commit::COMMIT_BYTES_MAX;
use std::sync::Arc;

/// An open segment. Its head, index and checkpoint were read and fit together; its frames are read when asked for.
#[derive(Clone)]
pub struct Segment {
    store: Arc<dyn SegmentStore>,
    name: SegmentName,
    head: SegmentHead,
    frames: Vec<Frame>,
    checkpoint: Vec<u8>,
    index_at: u64,
}

impl Segment {
    /// Reads head, trailer, index and checkpoint.
    pub fn open(store: Arc<dyn SegmentStore>, name: SegmentName) -> Result<Self, SegmentError> {
        let size = store.size(&name)?;
        let damaged = |reason: String| SegmentError::Damaged { name: name.to_string(), reason };
        if size < (HEAD_BYTES + INDEX_ENTRY_BYTES + TRAILER_BYTES) as u64 {
            return Err(damaged(format!("{size} bytes are no segment")));
        }
        let mut head = [0; HEAD_BYTES];
        head.copy_from_slice(&store.read(&name, 0, HEAD_BYTES)?);
        let head = SegmentHead::decode(&head).map_err(damaged)?;
        if (head.first, head.last.commit) != (name.first, name.last) {
            let (first, last) = (head.first, head.last.commit);
            return Err(damaged(format!("its head says commits {first} to {last}")));
        }
        let trailer_at = size - TRAILER_BYTES as u64;
        let trailer = store.read(&name, trailer_at, TRAILER_BYTES)?;
        if &trailer[48..] != MAGIC_END || hash_at(&trailer, TRAILER_HASH_AT) != name.hash {
            return Err(damaged("its trailer is not the one that its name says".to_owned()));
        }
        let (index_at, count) = (u64_at(&trailer, 0), u32_at(&trailer, 8) as usize);
        let checkpoint_length = u32_at(&trailer, 12) as usize;
        let length = count * INDEX_ENTRY_BYTES + checkpoint_length;
        let fits = count > 0
            && checkpoint_length <= CHECKPOINT_BYTES_MAX
            && index_at >= HEAD_BYTES as u64
            && index_at.checked_add(length as u64) == Some(trailer_at);
        if !fits {
            return Err(damaged("its parts do not add up to its size".to_owned()));
        }
        let mut index = store.read(&name, index_at, length)?;
        let checkpoint = index.split_off(count * INDEX_ENTRY_BYTES);
        let frames = decode_index(&index, &head, index_at).map_err(damaged)?;
        Ok(Self { store, name, head, frames, checkpoint, index_at })
    }

    /// Its name.
    pub fn name(&self) -> &SegmentName {
        &self.name
    }

    /// What its head says.
    pub fn head(&self) -> &SegmentHead {
        &self.head
    }

    /// The signed checkpoint that covers it; empty when there was none.
    pub fn checkpoint(&self) -> &[u8] {
        &self.checkpoint
    }

    /// How many frames.
    pub fn frame_count(&self) -> usize {
        self.frames.len()
    }

    /// The frame that holds a commit.
    pub fn frame_of(&self, number: u64) -> usize {
        self.frames.partition_point(|frame| frame.first <= number).saturating_sub(1)
    }

    /// The commits of a frame with the number of the first; checked against the frame's hash.
    pub fn frame(&self, index: usize) -> Result<(u64, Vec<Bytes>), SegmentError> {
        let Some(frame) = self.frames.get(index) else { return Ok((self.name.last + 1, Vec::new())) };
        let stored = self.store.read(&self.name, frame.offset, frame.length as usize)?;
        let commits = decode_frame(frame, &stored).map_err(|reason| self.damaged(reason))?;
        Ok((frame.first, commits))
    }

    /// One commit's bytes.
    pub fn read(&self, number: u64) -> Result<Option<Bytes>, SegmentError> {
        if !(self.name.first..=self.name.last).contains(&number) {
            return Ok(None);
        }
        let (first, mut commits) = self.frame(self.frame_of(number))?;
        let at = usize::try_from(number - first).unwrap_or(usize::MAX);
        if at >= commits.len() {
            return Err(self.damaged(format!("commit {number} is not in its frame")));
        }
        Ok(Some(commits.swap_remove(at)))
    }

    /// Reads everything: the hash of the file, every frame, the chain from head to end.
    pub fn verify(&self) -> Result<Position, SegmentError> {
        let size = self.store.size(&self.name)?;
        let bytes = self.store.read(&self.name, 0, usize::try_from(size).unwrap_or(usize::MAX))?;
        self.verify_bytes(&bytes)
    }

    /// The same for bytes at hand.
    pub fn verify_bytes(&self, bytes: &[u8]) -> Result<Position, SegmentError> {
        let hashed = bytes.len().saturating_sub(TRAILER_BYTES - TRAILER_HASH_AT);
        let hash = blake3::hash(&bytes[..hashed]);
        if hash.as_bytes() != &self.name.hash.0 {
            return Err(self.damaged(format!("its content hashes to {}", hash.to_hex())));
        }
        let before = Position {
            commit: self.head.first - 1,
            leaf: self.head.leaves_before,
            hash: self.head.previous,
            time_us: 0,
        };
        let mut check = RawCheck::after(self.head.shard, before);
        let mut last = before;
        for frame in &self.frames {
            let stored = bytes.get(frame.offset as usize..frame.offset as usize + frame.length as usize);
            let stored = stored.ok_or_else(|| self.damaged("a frame is outside".to_owned()))?;
            for commit in decode_frame(frame, stored).map_err(|reason| self.damaged(reason))? {
                last = check.check(&commit).map_err(|reason| self.damaged(reason))?.1;
            }
        }
        if last != self.head.last {
            return Err(self.damaged("its commits do not end as its head says".to_owned()));
        }
        Ok(last)
    }

    /// Bytes of the frames, compressed.
    pub fn stored_bytes(&self) -> u64 {
        self.index_at
    }

    fn damaged(&self, reason: String) -> SegmentError {
        SegmentError::Damaged { name: self.name.to_string(), reason }
    }
}

fn decode_index(index: &[u8], head: &SegmentHead, index_at: u64) -> Result<Vec<Frame>, String> {
    let mut frames = Vec::with_capacity(index.len() / INDEX_ENTRY_BYTES);
    let (mut offset, mut next) = (HEAD_BYTES as u64, head.first);
    for entry in index.chunks_exact(INDEX_ENTRY_BYTES) {
        let frame = Frame::decode(entry).ok_or("its index is not canonical")?;
        if (frame.offset, frame.first) != (offset, next) {
            return Err("its index has a gap".to_owned());
        }
        offset += u64::from(frame.length);
        next += u64::from(frame.commits);
        frames.push(frame);
    }
    if (offset, next) != (index_at, head.last.commit + 1) {
        return Err("its index does not cover it".to_owned());
    }
    Ok(frames)
}

fn decode_frame(frame: &Frame, stored: &[u8]) -> Result<Vec<Bytes>, String> {
    let at = frame.first;
    if blake3::hash(stored).as_bytes() != &frame.hash.0 {
        return Err(format!("the frame of commit {at} does not match its hash"));
    }
    let length = frame.content_length as usize;
    let content = zstd::bulk::decompress(stored, length);
    let content = Bytes::from(content.map_err(|e| format!("the frame of commit {at}: {e}"))?);
    let mut commits = Vec::with_capacity(frame.commits as usize);
    let mut offset = 0;
    while offset < content.len() {
        let begin = offset + 4;
        let length = if begin <= content.len() { u32_at(&content, offset) as usize } else { usize::MAX };
        if length == 0 || length > COMMIT_BYTES_MAX || begin + length > content.len() {
            return Err(format!("the frame of commit {at} has a record of an impossible length"));
        }
        commits.push(content.slice(begin..begin + length));
        offset = begin + length;
    }
    if (commits.len(), content.len()) != (frame.commits as usize, length) {
        return Err(format!("the frame of commit {at} does not hold what the index says"));
    }
    Ok(commits)
}
