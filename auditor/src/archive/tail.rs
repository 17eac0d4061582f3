//! Tail files: a head, then records `[length][hash][commit]`. The last record of the last file may be torn.

use super::{ArchiveFault, is_commit_length};
use protocol::commit::Commit;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"cf-tail1";
const HEAD_BYTES: usize = 24;
const RECORD_HEAD_BYTES: usize = 36;

/// The first commit that a file's name says; `None` when it is no tail file's name.
pub(super) fn first_of_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("tail-")?.strip_suffix(".cft")?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

/// An open tail file.
pub(super) struct Tail {
    path: PathBuf,
    reader: BufReader<File>,
    offset: u64,
    next: u64,
    may_be_torn: bool,
    shard: u32,
}

impl Tail {
    pub(super) fn open(path: &Path, first: u64, may_be_torn: bool) -> Result<Tail, ArchiveFault> {
        let fault = |reason: String| ArchiveFault::new(path, 0, reason);
        let file = File::open(path).map_err(|e| fault(e.to_string()))?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut head = [0; HEAD_BYTES];
        let read = fill(&mut reader, &mut head).map_err(|e| fault(e.to_string()))?;
        let zeros = head[12..16] == [0; 4];
        if read < HEAD_BYTES || head[..8] != *MAGIC || !zeros || head[16..24] != first.to_le_bytes() {
            return Err(fault(format!("the head of a tail file that begins at commit {first} was expected")));
        }
        let offset = HEAD_BYTES as u64;
        let shard = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        Ok(Tail { path: path.to_owned(), reader, offset, next: first, may_be_torn, shard })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    pub(super) fn shard(&self) -> u32 {
        self.shard
    }

    /// Of the next record.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next commit's number and bytes; `None` at the end, or at a torn last record.
    pub(super) fn next_record(&mut self) -> Result<Option<(u64, Vec<u8>)>, ArchiveFault> {
        let fault = |reason: String| ArchiveFault::new(&self.path, self.offset, reason);
        let mut head = [0; RECORD_HEAD_BYTES];
        let read = fill(&mut self.reader, &mut head).map_err(|e| fault(e.to_string()))?;
        if read == 0 {
            return Ok(None);
        }
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let mut bytes = Vec::new();
        if read == RECORD_HEAD_BYTES {
            if !is_commit_length(length) {
                return Err(fault(format!("commit {} of {length} bytes", self.next)));
            }
            bytes.resize(length, 0);
            let read = fill(&mut self.reader, &mut bytes).map_err(|e| fault(e.to_string()))?;
            bytes.truncate(read);
        }
        if read < RECORD_HEAD_BYTES || bytes.len() < length {
            if self.may_be_torn {
                return Ok(None);
            }
            return Err(fault(format!("commit {} is not whole", self.next)));
        }
        if Commit::hash(&bytes).0 != head[4..] {
            return Err(fault(format!("commit {} does not hash to what stands before it", self.next)));
        }
        let number = self.next;
        self.next += 1;
        self.offset += (RECORD_HEAD_BYTES + length) as u64;
        Ok(Some((number, bytes)))
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match reader.read(&mut buffer[read..]) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
