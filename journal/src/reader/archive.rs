//! The archive read in order, segments and tail as one log, with everything stopped (or beside a running writer: then up to
//! what is whole). Must not: repair.

use super::{ChainCheck, CommittedCommit, ReadAhead, ReadError};
use crate::segment::{DirectoryStore, Part, Segment, SegmentStore, list_parts};
use crate::tail::{ARCHIVE_FOLDER, Records, TailError, salvage, shard_of};
use bytes::Bytes;
use protocol::commit::Commit;
use protocol::id::Hash32;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Looks again at the folder when a file vanished under the reader: it was sealed meanwhile.
const LOOKS_MAX: u32 = 16;

/// The archive of one log.
pub struct ArchiveReader {
    shard: u32,
    folder: Folder,
    parts: Vec<Part>,
}

#[derive(Clone)]
struct Folder {
    dir: PathBuf,
    store: Arc<dyn SegmentStore>,
}

impl Folder {
    fn parts(&self) -> Result<Vec<Part>, ReadError> {
        Ok(list_parts(&*self.store, &self.dir)?.live)
    }
}

impl ArchiveReader {
    /// Lists the archive of `data_dir`. A folder without any reads as an empty log of shard 0.
    pub fn open(data_dir: &Path) -> Result<Self, ReadError> {
        Self::open_folder(&data_dir.join(ARCHIVE_FOLDER))
    }

    /// The same for the folder that holds the files themselves.
    pub fn open_folder(dir: &Path) -> Result<Self, ReadError> {
        let folder = Folder { dir: dir.to_owned(), store: Arc::new(DirectoryStore::new(dir)) };
        let parts = folder.parts()?;
        let shard = match parts.last() {
            None => 0,
            Some(Part::Tail { path, .. }) => shard_of(path)?,
            Some(Part::Segment(name)) => {
                Segment::open(folder.store.clone(), *name).map_err(TailError::from)?.head().shard
            }
        };
        Ok(Self { shard, folder, parts })
    }

    /// Shard of the log.
    pub fn shard(&self) -> u32 {
        self.shard
    }

    /// The last commit that the files speak of: by the name of a last segment, by the records of a last tail file, damaged or
    /// not.
    pub fn last_known(&self) -> Result<u64, ReadError> {
        Ok(match self.parts.last() {
            None => 0,
            Some(Part::Segment(name)) => name.last,
            Some(Part::Tail { first, path }) => {
                let held = salvage(path, self.shard)?.into_iter().map(|(head, _)| head.number).max();
                held.unwrap_or(first - 1)
            }
        })
    }

    /// Commits from number `first` on, chain-checked. A last record that is not whole ends the reading quietly: it was
    /// never acknowledged to anybody. A damaged one with others behind it is an error.
    pub fn commits(&self, first: u64) -> ArchiveCommits {
        let first = first.max(1);
        // The commit before anchors the chain.
        let anchor = if first > 1 { first - 1 } else { 1 };
        ArchiveCommits {
            raw: self.raw(anchor),
            chain: ChainCheck::new(self.shard, anchor),
            first,
            ended: false,
        }
    }

    /// The same, read, checked and decoded on a thread of its own while the caller applies.
    pub fn commits_ahead(&self, first: u64) -> ReadAhead {
        ReadAhead::start(self.commits(first))
    }

    /// The bytes of commits from number `anchor` on, hashes checked, the chain not.
    pub(super) fn raw(&self, anchor: u64) -> RawCommits {
        let begin = self.parts.iter().rposition(|part| part.first() <= anchor).unwrap_or(0);
        RawCommits {
            shard: self.shard,
            folder: self.folder.clone(),
            next: anchor,
            parts: self.parts[begin..].iter().cloned().collect(),
            open: None,
            looks: 0,
        }
    }
}

/// A commit as it stands in a file.
pub(super) struct RawCommit {
    hash: Option<Hash32>,
    bytes: Bytes,
}

/// A part being read.
enum Open {
    Tail(Box<Records>),
    Segment { segment: Box<Segment>, frame: usize, ready: VecDeque<Bytes>, next: u64 },
}

impl Open {
    /// The next commit with its number, and its hash when that was computed already.
    fn next_commit(&mut self) -> Result<Option<(u64, RawCommit)>, TailError> {
        match self {
            Open::Tail(records) => {
                let record = records.next_record()?;
                Ok(record.map(|record| {
                    (record.head.number, RawCommit { hash: Some(record.hash), bytes: record.bytes })
                }))
            }
            Open::Segment { segment, frame, ready, next } => {
                if ready.is_empty() {
                    let (first, commits) = segment.frame(*frame)?;
                    (*next, *ready) = (first, commits.into());
                    *frame += 1;
                }
                let Some(bytes) = ready.pop_front() else { return Ok(None) };
                *next += 1;
                Ok(Some((*next - 1, RawCommit { hash: None, bytes })))
            }
        }
    }
}

/// The archive's commits as bytes, in order, without gaps.
pub(super) struct RawCommits {
    shard: u32,
    folder: Folder,
    next: u64,
    parts: VecDeque<Part>,
    open: Option<Open>,
    looks: u32,
}

impl RawCommits {
    /// The next commit.
    pub(super) fn advance(&mut self) -> Result<Option<RawCommit>, ReadError> {
        loop {
            if self.open.is_none() && !self.open_next()? {
                return Ok(None);
            }
            let Some(open) = &mut self.open else { return Ok(None) };
            let (number, commit) = match open.next_commit() {
                Ok(Some(commit)) => commit,
                Ok(None) => {
                    self.open = None;
                    continue;
                }
                Err(TailError::Damaged { .. }) if self.parts.is_empty() && open.at_last_record() => {
                    return Ok(None);
                }
                Err(error) if error.is_not_found() => {
                    self.look_again(error)?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if number < self.next {
                continue;
            }
            if number > self.next {
                return Err(ReadError::Gap { expected: self.next, found: number });
            }
            self.next += 1;
            return Ok(Some(commit));
        }
    }

    fn open_next(&mut self) -> Result<bool, ReadError> {
        loop {
            let Some(part) = self.parts.pop_front() else { return Ok(false) };
            if part.first() > self.next {
                return Err(ReadError::Gap { expected: self.next, found: part.first() });
            }
            match self.open_part(&part) {
                Ok(open) => {
                    self.open = Some(open);
                    return Ok(true);
                }
                Err(error) if error.is_not_found() => self.look_again(error)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn open_part(&self, part: &Part) -> Result<Open, TailError> {
        Ok(match part {
            Part::Tail { first, path } => {
                let mut records = Records::open(path, self.shard, *first)?;
                records.skip_to(self.next)?;
                Open::Tail(Box::new(records))
            }
            Part::Segment(name) => {
                let segment = Box::new(Segment::open(self.folder.store.clone(), *name)?);
                let frame = segment.frame_of(self.next);
                Open::Segment { segment, frame, ready: VecDeque::new(), next: 0 }
            }
        })
    }

    /// What we were told of is gone; its commits must stand in another file by now.
    fn look_again(&mut self, gone: TailError) -> Result<(), ReadError> {
        self.looks += 1;
        if self.looks > LOOKS_MAX {
            return Err(gone.into());
        }
        self.open = None;
        let parts = self.folder.parts()?;
        let begin = parts.iter().rposition(|part| part.first() <= self.next).unwrap_or(0);
        self.parts = parts.into_iter().skip(begin).collect();
        Ok(())
    }
}

impl Open {
    fn at_last_record(&self) -> bool {
        match self {
            Open::Tail(records) => records.at_last_record(),
            Open::Segment { .. } => false,
        }
    }
}

/// Iterator over the archive's commits.
pub struct ArchiveCommits {
    raw: RawCommits,
    chain: ChainCheck,
    first: u64,
    ended: bool,
}

impl ArchiveCommits {
    fn advance(&mut self) -> Result<Option<CommittedCommit>, ReadError> {
        loop {
            let Some(RawCommit { hash, bytes }) = self.raw.advance()? else { return Ok(None) };
            let hash = hash.unwrap_or_else(|| Commit::hash(&bytes));
            let commit = self.chain.check_hashed(bytes, hash)?;
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
