//! Whatever the archive's files still hold, rotten or not, walked in order and chained; the stream's survivors fill in.
//! Must not: write.

use super::RestoreError;
use crate::pipeline::Position;
use crate::reader::RawCheck;
use crate::segment::{DirectoryStore, Part, Segment, SegmentStore, list_parts};
use crate::tail::{ARCHIVE_FOLDER, salvage, shard_of};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An archive folder, read tolerantly.
pub(super) struct Copies {
    shard: u32,
    store: Arc<dyn SegmentStore>,
    parts: Vec<Part>,
    /// What tail files hold that segments should cover.
    leftovers: BTreeMap<u64, Bytes>,
}

impl Copies {
    pub(super) fn open(path: &Path) -> Result<Self, RestoreError> {
        let inner = path.join(ARCHIVE_FOLDER);
        let dir: PathBuf = if inner.is_dir() { inner } else { path.to_owned() };
        let store: Arc<dyn SegmentStore> = Arc::new(DirectoryStore::new(&dir));
        let parts = list_parts(&*store, &dir)?;
        if parts.live.is_empty() {
            return Err(RestoreError::NoArchive { path: path.to_owned() });
        }
        let shard = parts.live.iter().find_map(|part| shard_of_part(&store, part)).unwrap_or(0);
        let mut leftovers = BTreeMap::new();
        for (_, path) in parts.leftovers {
            leftovers.extend(salvage(&path, shard)?.into_iter().map(|(head, bytes)| (head.number, bytes)));
        }
        Ok(Self { shard, store, parts: parts.live, leftovers })
    }

    pub(super) fn shard(&self) -> u32 {
        self.shard
    }

    /// From commit 1; `from_stream`: what only the stream has.
    pub(super) fn walk<'a>(&'a self, from_stream: &'a BTreeMap<u64, Bytes>) -> CopyWalk<'a> {
        CopyWalk {
            copies: self,
            from_stream,
            check: RawCheck::after(self.shard, Position::default()),
            last: Position::default(),
            before: 0,
            parts: self.parts.iter().collect(),
            segment: None,
            ready: VecDeque::new(),
            trouble: None,
            highest: 0,
        }
    }
}

fn shard_of_part(store: &Arc<dyn SegmentStore>, part: &Part) -> Option<u32> {
    match part {
        Part::Tail { path, .. } => shard_of(path).ok(),
        Part::Segment(name) => Some(Segment::open(store.clone(), *name).ok()?.head().shard),
    }
}

/// The archive's commits that chain, one after the other.
pub(super) struct CopyWalk<'a> {
    copies: &'a Copies,
    from_stream: &'a BTreeMap<u64, Bytes>,
    check: RawCheck,
    last: Position,
    before: u64,
    parts: VecDeque<&'a Part>,
    segment: Option<(Segment, usize)>,
    ready: VecDeque<(u64, Bytes)>,
    /// Why the last thing that was skipped was skipped.
    trouble: Option<String>,
    highest: u64,
}

impl CopyWalk<'_> {
    /// The next commit that chains, from file or survivor; `None` when none does.
    pub(super) fn next_chained(&mut self) -> Result<Option<(Position, Bytes)>, RestoreError> {
        let wanted = self.last.commit + 1;
        self.fill(wanted)?;
        let from_file = match self.ready.front() {
            Some((number, _)) if *number == wanted => self.ready.pop_front().map(|(_, bytes)| bytes),
            _ => None,
        };
        let others = [self.copies.leftovers.get(&wanted), self.from_stream.get(&wanted)];
        for bytes in from_file.into_iter().chain(others.into_iter().flatten().cloned()) {
            match self.check.check(&bytes) {
                Ok((head, position)) => {
                    (self.before, self.last) = (head.first_leaf, position);
                    return Ok(Some((position, bytes)));
                }
                Err(reason) => self.trouble = Some(reason),
            }
        }
        Ok(None)
    }

    /// Leaves before the commit that came last.
    pub(super) fn leaves_before(&self) -> u64 {
        self.before
    }

    /// Where the walk stands.
    pub(super) fn last(&self) -> Position {
        self.last
    }

    /// Why the archive does not go on.
    pub(super) fn trouble(&self) -> String {
        self.trouble.clone().unwrap_or_else(|| "its files end before".to_owned())
    }

    /// The highest commit that a file spoke of so far, and what is still ahead by name.
    pub(super) fn highest(&self) -> u64 {
        let named = self.copies.parts.iter().map(|part| match part {
            Part::Segment(name) => name.last,
            Part::Tail { first, .. } => first - 1,
        });
        named.max().unwrap_or(0).max(self.highest)
    }

    /// Reads on until the next readable commit is not below `wanted`.
    fn fill(&mut self, wanted: u64) -> Result<(), RestoreError> {
        loop {
            while self.ready.front().is_some_and(|(number, _)| *number < wanted) {
                self.ready.pop_front();
            }
            if !self.ready.is_empty() || !self.read_more()? {
                return Ok(());
            }
        }
    }

    /// The next frame or file that is readable at all; false at the end.
    fn read_more(&mut self) -> Result<bool, RestoreError> {
        loop {
            if let Some((segment, frame)) = &mut self.segment {
                let at = *frame;
                *frame += 1;
                if at >= segment.frame_count() {
                    self.segment = None;
                    continue;
                }
                match segment.frame(at) {
                    Ok((first, commits)) => {
                        self.ready = (first..).zip(commits).collect();
                        return Ok(true);
                    }
                    Err(error) => self.trouble = Some(error.to_string()),
                }
                continue;
            }
            let Some(part) = self.parts.pop_front() else { return Ok(false) };
            match part {
                Part::Segment(name) => match Segment::open(self.copies.store.clone(), *name) {
                    Ok(segment) => self.segment = Some((segment, 0)),
                    Err(error) => self.trouble = Some(error.to_string()),
                },
                Part::Tail { path, .. } => {
                    let found = salvage(path, self.copies.shard)?;
                    self.trouble = Some(format!("{} does not hold it whole", path.display()));
                    self.ready = found.into_iter().map(|(head, bytes)| (head.number, bytes)).collect();
                    let highest = self.ready.iter().map(|(number, _)| *number).max();
                    self.highest = self.highest.max(highest.unwrap_or(0));
                    return Ok(true);
                }
            }
        }
    }
}
