//! The archive tail read in order, with everything stopped (or beside a running writer: then up to what is whole).
//! Must not: repair.

use super::{ChainCheck, CommittedCommit, ReadError};
use crate::tail::{ARCHIVE_FOLDER, Records, TailError, list_files, shard_of};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// The tail files under a data folder.
pub struct ArchiveReader {
    shard: u32,
    files: Vec<(u64, PathBuf)>,
}

impl ArchiveReader {
    /// Lists the tail files of `data_dir`. A folder without any reads as an empty log of shard 0.
    pub fn open(data_dir: &Path) -> Result<Self, ReadError> {
        let files = list_files(&data_dir.join(ARCHIVE_FOLDER))?;
        let shard = files.first().map_or(Ok(0), |(_, path)| shard_of(path))?;
        Ok(Self { shard, files })
    }

    /// Shard of the log.
    pub fn shard(&self) -> u32 {
        self.shard
    }

    /// Commits from number `first` on, chain-checked. A last record that is not whole ends the reading quietly: it was
    /// never acknowledged to anybody. A damaged one with others behind it is an error.
    pub fn commits(&self, first: u64) -> ArchiveCommits {
        let first = first.max(1);
        // The commit before anchors the chain.
        let anchor = if first > 1 { first - 1 } else { 1 };
        let begin = self.files.iter().rposition(|(start, _)| *start <= anchor).unwrap_or(0);
        let next = self.files.get(begin).map_or(anchor, |(start, _)| *start);
        ArchiveCommits {
            shard: self.shard,
            files: self.files[begin..].iter().cloned().collect(),
            records: None,
            // Records before the anchor are checked by their own reader, without decoding their events.
            chain: ChainCheck::new(self.shard, anchor),
            next,
            first,
            ended: false,
        }
    }
}

/// Iterator over the archive's commits.
pub struct ArchiveCommits {
    shard: u32,
    files: VecDeque<(u64, PathBuf)>,
    records: Option<Records>,
    chain: ChainCheck,
    /// The number of the next record.
    next: u64,
    first: u64,
    ended: bool,
}

impl ArchiveCommits {
    fn advance(&mut self) -> Result<Option<CommittedCommit>, ReadError> {
        loop {
            if self.records.is_none() {
                let Some((start, path)) = self.files.pop_front() else { return Ok(None) };
                if start != self.next {
                    return Err(ReadError::Gap { expected: self.next, found: start });
                }
                self.records = Some(Records::open(&path, self.shard, start)?);
            }
            let Some(records) = &mut self.records else { return Ok(None) };
            let record = match records.next_record() {
                Ok(Some(record)) => record,
                Ok(None) => {
                    self.records = None;
                    continue;
                }
                Err(TailError::Damaged { .. }) if self.files.is_empty() && records.at_last_record() => {
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            };
            self.next += 1;
            if record.head.number < self.chain.next() {
                continue;
            }
            let commit = self.chain.check(record.bytes)?;
            if commit.number >= self.first {
                return Ok(Some(commit));
            }
        }
    }
}

impl Iterator for ArchiveCommits {
    type Item = Result<CommittedCommit, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.advance().transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}
