//! Records of the tail files: encoding, reading one after the other, what a commit says of itself without decoding its
//! events. Must not: know which file is current.

use super::TailError;
use crate::pipeline::Position;
use bytes::Bytes;
use protocol::commit::{COMMIT_BYTES_MAX, Commit};
use protocol::id::Hash32;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"cf-tail1";
/// Magic, shard, four zero bytes, first commit.
pub(super) const FILE_HEAD_BYTES: u64 = 24;
/// Length and hash.
pub(super) const RECORD_HEAD_BYTES: usize = 4 + 32;
/// Large sequential reads; files are read whole.
const READ_BUFFER_BYTES: usize = 256 * 1024;

pub(super) fn file_name(first: u64) -> String {
    format!("tail-{first:020}.cft")
}

/// The first commit that a file's name states.
pub(super) fn first_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix("tail-")?.strip_suffix(".cft")?.parse().ok()
}

pub(super) fn file_head(shard: u32, first: u64) -> [u8; FILE_HEAD_BYTES as usize] {
    let mut head = [0; FILE_HEAD_BYTES as usize];
    head[..8].copy_from_slice(MAGIC);
    head[8..12].copy_from_slice(&shard.to_le_bytes());
    head[16..].copy_from_slice(&first.to_le_bytes());
    head
}

/// The shard that a tail file's head states, if it is one of ours.
pub(super) fn shard_of(path: &Path) -> Result<u32, TailError> {
    let mut file = File::open(path).map_err(TailError::io(path, "open"))?;
    let mut head = [0; FILE_HEAD_BYTES as usize];
    let foreign = |reason: &str| TailError::Foreign { path: path.to_owned(), reason: reason.to_owned() };
    file.read_exact(&mut head).map_err(|_| foreign("its head is not whole"))?;
    if &head[..8] != MAGIC {
        return Err(foreign("it does not begin with cf-tail1"));
    }
    Ok(u32::from_le_bytes([head[8], head[9], head[10], head[11]]))
}

pub(super) fn encode_record(buffer: &mut Vec<u8>, hash: Hash32, bytes: &[u8]) {
    assert!(bytes.len() <= COMMIT_BYTES_MAX, "the pipeline bounds its commits");
    buffer.clear();
    buffer.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&hash.0);
    buffer.extend_from_slice(bytes);
}

/// What a commit's first fields say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitHead {
    /// Shard of the log.
    pub shard: u32,
    /// Its number.
    pub number: u64,
    /// Leaf of its first event.
    pub first_leaf: u64,
    /// How many events.
    pub leaves: u64,
    /// Microseconds UTC.
    pub time_us: u64,
    /// Hash of the commit before.
    pub previous: Hash32,
}

impl CommitHead {
    /// Reads the head of a commit's bytes.
    pub fn peek(bytes: &[u8]) -> Result<Self, minicbor::decode::Error> {
        let mut decoder = minicbor::Decoder::new(bytes);
        decoder.array()?;
        decoder.u32()?;
        let shard = decoder.u32()?;
        decoder.u64()?;
        let (number, first_leaf, time_us) = (decoder.u64()?, decoder.u64()?, decoder.u64()?);
        let previous: Hash32 = decoder.decode()?;
        let leaves = decoder.array()?.unwrap_or(0);
        Ok(Self { shard, number, first_leaf, leaves, time_us, previous })
    }

    /// The log's position after this commit.
    pub fn position(&self, hash: Hash32) -> Position {
        Position { commit: self.number, leaf: self.first_leaf + self.leaves, hash, time_us: self.time_us }
    }
}

/// One record at a known place, checked against its hash.
pub(super) fn read_at(path: &Path, offset: u64, number: u64) -> Result<Bytes, TailError> {
    let file = File::open(path).map_err(TailError::io(path, "open"))?;
    let mut head = [0; RECORD_HEAD_BYTES];
    file.read_exact_at(&mut head, offset).map_err(TailError::io(path, "read"))?;
    let damaged = |reason: &str| TailError::Damaged {
        path: path.to_owned(),
        offset,
        number,
        reason: reason.to_owned(),
    };
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    if length > COMMIT_BYTES_MAX {
        return Err(damaged("has an impossible length"));
    }
    let mut bytes = vec![0; length];
    let at = offset + RECORD_HEAD_BYTES as u64;
    file.read_exact_at(&mut bytes, at).map_err(TailError::io(path, "read"))?;
    if Commit::hash(&bytes).0 != head[4..] {
        return Err(damaged("does not match its hash"));
    }
    Ok(Bytes::from(bytes))
}

/// Every whole record of a damaged file, wherever it stands: lengths and heads may be rotten, hashes tell. In the file's order.
pub(crate) fn salvage(path: &Path, shard: u32) -> Result<Vec<(CommitHead, Bytes)>, TailError> {
    let bytes = Bytes::from(std::fs::read(path).map_err(TailError::io(path, "read"))?);
    let mut found = Vec::new();
    let mut at = 0;
    while at + RECORD_HEAD_BYTES < bytes.len() {
        match record_in(&bytes, at, shard) {
            Some((head, commit)) => {
                at += RECORD_HEAD_BYTES + commit.len();
                found.push((head, commit));
            }
            None => at += 1,
        }
    }
    Ok(found)
}

fn record_in(bytes: &Bytes, at: usize, shard: u32) -> Option<(CommitHead, Bytes)> {
    let begin = at + RECORD_HEAD_BYTES;
    let length = u32::from_le_bytes(bytes[at..at + 4].try_into().ok()?) as usize;
    // A commit is a CBOR array of eight; without this look nearly every place would be hashed.
    let plausible =
        (1..=COMMIT_BYTES_MAX).contains(&length) && begin + length <= bytes.len() && bytes[begin] == 0x88;
    if !plausible {
        return None;
    }
    let commit = bytes.slice(begin..begin + length);
    let head = CommitHead::peek(&commit).ok().filter(|head| head.shard == shard)?;
    (Commit::hash(&commit).0 == bytes[at + 4..begin]).then_some((head, commit))
}

/// One record.
pub(crate) struct Record {
    pub(crate) hash: Hash32,
    pub(crate) head: CommitHead,
    pub(crate) bytes: Bytes,
}

/// A file's records, one after the other, each checked against its hash, its number and the one before.
pub(crate) struct Records {
    path: PathBuf,
    shard: u32,
    file: BufReader<File>,
    offset: u64,
    next: u64,
    previous: Option<Hash32>,
    file_bytes: u64,
    /// Where the record that is being read says it ends.
    claimed_end: u64,
}

impl Records {
    pub(crate) fn open(path: &Path, shard: u32, first: u64) -> Result<Self, TailError> {
        let file = File::open(path).map_err(TailError::io(path, "open"))?;
        let file_bytes = file.metadata().map_err(TailError::io(path, "read the size"))?.len();
        let mut file = BufReader::with_capacity(READ_BUFFER_BYTES, file);
        let mut head = [0; FILE_HEAD_BYTES as usize];
        let foreign = |reason: &str| TailError::Foreign { path: path.to_owned(), reason: reason.to_owned() };
        file.read_exact(&mut head).map_err(|_| foreign("its head is not whole"))?;
        if head != file_head(shard, first) {
            return Err(foreign(&format!("its head is not that of shard {shard}, first commit {first}")));
        }
        let path = path.to_owned();
        let (offset, claimed_end) = (FILE_HEAD_BYTES, FILE_HEAD_BYTES);
        Ok(Self { path, shard, file, offset, next: first, previous: None, file_bytes, claimed_end })
    }

    /// Passes over the records before `number` by their lengths alone; those behind are checked as ever, so that rot in what
    /// was passed over shows as a record that is damaged, or another commit. A file that ends before is at its end then.
    pub(crate) fn skip_to(&mut self, number: u64) -> Result<(), TailError> {
        while self.next < number {
            let mut head = [0; RECORD_HEAD_BYTES];
            if self.fill(&mut head)? < RECORD_HEAD_BYTES {
                return Ok(());
            }
            let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
            let left = self.file_bytes - self.offset.min(self.file_bytes);
            if length == 0
                || length as usize > COMMIT_BYTES_MAX
                || u64::from(length) + RECORD_HEAD_BYTES as u64 > left
            {
                // Whoever reads it says what is wrong with it.
                let back = self.file.seek_relative(-(RECORD_HEAD_BYTES as i64));
                return back.map_err(TailError::io(&self.path, "seek"));
            }
            self.file.seek_relative(i64::from(length)).map_err(TailError::io(&self.path, "seek"))?;
            self.offset += RECORD_HEAD_BYTES as u64 + u64::from(length);
            self.next += 1;
        }
        Ok(())
    }

    /// After [`TailError::Damaged`]: nothing follows the damaged record, so that it may be one that was never whole.
    pub(crate) fn at_last_record(&self) -> bool {
        self.claimed_end >= self.file_bytes
    }

    /// Where the next record begins.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record; `None` at the end of whole records. [`TailError::Damaged`] at one that is not whole.
    pub(crate) fn next_record(&mut self) -> Result<Option<Record>, TailError> {
        let mut head = [0; RECORD_HEAD_BYTES];
        self.claimed_end = u64::MAX;
        match self.fill(&mut head)? {
            0 => return Ok(None),
            RECORD_HEAD_BYTES => {}
            _ => return Err(self.damaged("is cut off")),
        }
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if length > COMMIT_BYTES_MAX {
            self.claimed_end = self.offset;
        }
        // A length of zero is what a file system leaves behind that grew the file and lost the data.
        if length == 0 || length > COMMIT_BYTES_MAX {
            return Err(self.damaged("has an impossible length"));
        }
        self.claimed_end = self.offset + (RECORD_HEAD_BYTES + length) as u64;
        let mut bytes = vec![0; length];
        if self.fill(&mut bytes)? != length {
            return Err(self.damaged("is cut off"));
        }
        let hash = Commit::hash(&bytes);
        if hash.0 != head[4..] {
            return Err(self.damaged("does not match its hash"));
        }
        let head = CommitHead::peek(&bytes).map_err(|_| self.damaged("is not a commit"))?;
        if (head.shard, head.number) != (self.shard, self.next) {
            return Err(self.damaged("is another commit"));
        }
        if self.previous.is_some_and(|previous| previous != head.previous) {
            return Err(self.damaged("does not follow the one before"));
        }
        self.offset += (RECORD_HEAD_BYTES + length) as u64;
        self.next += 1;
        self.previous = Some(hash);
        Ok(Some(Record { hash, head, bytes: Bytes::from(bytes) }))
    }

    /// Reads until the buffer is full or the file ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, TailError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(TailError::io(&self.path, "read")(e)),
            }
        }
        Ok(filled)
    }

    fn damaged(&self, reason: &str) -> TailError {
        let (path, offset, number) = (self.path.clone(), self.offset, self.next);
        TailError::Damaged { path, offset, number, reason: reason.to_owned() }
    }
}
