//! Where each commit stands in tail files and segments. Offsets of closed files are found when first asked for.
//! Must not: write.

use super::record::{self, Records};
use super::{CommitHead, TailError};
use crate::pipeline::Position;
use crate::segment::{DirectoryStore, Part, Segment, SegmentName, SegmentStore, list_parts};
use bytes::Bytes;
use protocol::commit::Commit;
use protocol::id::Hash32;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

/// Commit number to place, shared by the writer (appends), the sealer and whoever reads single commits.
pub struct TailIndex {
    shard: u32,
    store: Arc<dyn SegmentStore>,
    /// Held for one look-up, or for one scan of a closed file the first time it is asked for; never across await.
    parts: RwLock<Vec<Indexed>>,
}

struct Indexed {
    first: u64,
    place: Place,
}

enum Place {
    /// Offsets are `None` while nobody has asked.
    Tail { path: PathBuf, offsets: Option<Vec<u64>> },
    /// Opened when first asked for.
    Segment { name: SegmentName, open: Option<Arc<Segment>> },
}

/// Where to read one commit.
enum Found {
    Tail(PathBuf, u64),
    Segment(Arc<Segment>),
}

impl TailIndex {
    /// Lists an archive folder's parts.
    pub(super) fn open(dir: &Path, shard: u32) -> Result<Arc<Self>, TailError> {
        let store: Arc<dyn SegmentStore> = Arc::new(DirectoryStore::new(dir));
        let parts = list_parts(&*store, dir)?.live.into_iter().map(|part| Indexed {
            first: part.first(),
            place: match part {
                Part::Tail { path, .. } => Place::Tail { path, offsets: None },
                Part::Segment(name) => Place::Segment { name, open: None },
            },
        });
        let parts = RwLock::new(parts.collect());
        Ok(Arc::new(Self { shard, store, parts }))
    }

    /// The store of the segments beside the tail.
    pub fn store(&self) -> Arc<dyn SegmentStore> {
        self.store.clone()
    }

    /// The last part, when it is a tail file.
    pub(super) fn last_file(&self) -> Option<(u64, PathBuf)> {
        match self.lock_read().last() {
            Some(Indexed { first, place: Place::Tail { path, .. } }) => Some((*first, path.clone())),
            _ => None,
        }
    }

    /// The last commit of the last part, when that is a segment; 0 when there is nothing.
    pub(super) fn last_sealed_number(&self) -> u64 {
        match self.lock_read().last() {
            Some(Indexed { place: Place::Segment { name, .. }, .. }) => name.last,
            _ => 0,
        }
    }

    /// Complete tail files, the oldest first.
    pub(crate) fn complete_files(&self) -> Vec<(u64, PathBuf)> {
        let parts = self.lock_read();
        let files = parts.iter().filter_map(|part| match &part.place {
            Place::Tail { path, .. } => Some((part.first, path.clone())),
            Place::Segment { .. } => None,
        });
        let mut files: Vec<_> = files.collect();
        files.pop();
        files
    }

    /// A segment now holds its range: what it replaces is not asked any more and may be deleted.
    pub(crate) fn sealed(&self, segment: Segment) {
        let name = *segment.name();
        let mut parts = self.lock_write();
        parts.retain(|part| !(name.first..=name.last).contains(&part.first));
        let place = Place::Segment { name, open: Some(Arc::new(segment)) };
        parts.push(Indexed { first: name.first, place });
        parts.sort_by_key(|part| part.first);
    }

    pub(super) fn set_offsets(&self, first: u64, found: Vec<u64>) {
        for part in self.lock_write().iter_mut().filter(|part| part.first == first) {
            if let Place::Tail { offsets, .. } = &mut part.place {
                *offsets = Some(found);
                return;
            }
        }
    }

    pub(super) fn push_file(&self, first: u64, path: PathBuf) {
        self.lock_write().push(Indexed { first, place: Place::Tail { path, offsets: Some(Vec::new()) } });
    }

    pub(super) fn push_offset(&self, offset: u64) {
        if let Some(Indexed { place: Place::Tail { offsets: Some(offsets), .. }, .. }) =
            self.lock_write().last_mut()
        {
            offsets.push(offset);
        }
    }

    /// A commit's bytes, checked against their hash; `None` when the archive does not reach that far.
    pub fn read(&self, number: u64) -> Result<Option<Bytes>, TailError> {
        let Some(found) = self.place(number)? else { return Ok(None) };
        match self.read_found(found, number) {
            // Sealed between the two looks: now the segment has it.
            Err(e) if e.is_not_found() => match self.place(number)? {
                Some(found) => self.read_found(found, number),
                None => Ok(None),
            },
            other => other,
        }
    }

    fn read_found(&self, found: Found, number: u64) -> Result<Option<Bytes>, TailError> {
        match found {
            Found::Segment(segment) => Ok(segment.read(number)?),
            Found::Tail(path, offset) => record::read_at(&path, offset, number).map(Some),
        }
    }

    /// The log's position after a commit that the archive holds; the beginning for commit 0 and for one that it does not.
    pub fn position_of(&self, number: u64) -> Result<Position, TailError> {
        let Some(bytes) = self.read(number)? else { return Ok(Position::default()) };
        let head = CommitHead::peek(&bytes).map_err(|e| TailError::Foreign {
            path: PathBuf::from(record::file_name(number)),
            reason: format!("commit {number} is not decodable: {e}"),
        })?;
        Ok(head.position(Commit::hash(&bytes)))
    }

    /// A commit's hash, when the archive holds it.
    pub fn hash_of(&self, number: u64) -> Result<Option<Hash32>, TailError> {
        Ok(self.read(number)?.map(|bytes| Commit::hash(&bytes)))
    }

    fn place(&self, number: u64) -> Result<Option<Found>, TailError> {
        {
            let parts = self.lock_read();
            match parts.iter().rev().find(|part| part.first <= number) {
                None => return Ok(None),
                Some(part) => match &part.place {
                    Place::Tail { path, offsets: Some(offsets) } => {
                        return Ok(found(part.first, path, offsets, number));
                    }
                    Place::Segment { open: Some(segment), .. } => {
                        return Ok(Some(Found::Segment(segment.clone())));
                    }
                    Place::Tail { .. } | Place::Segment { .. } => {}
                },
            }
        }
        let mut parts = self.lock_write();
        let Some(part) = parts.iter_mut().rev().find(|part| part.first <= number) else { return Ok(None) };
        match &mut part.place {
            Place::Tail { path, offsets } => {
                if offsets.is_none() {
                    *offsets = Some(scan(path, self.shard, part.first)?);
                }
                let offsets = offsets.as_deref().unwrap_or_default();
                Ok(found(part.first, path, offsets, number))
            }
            Place::Segment { name, open } => {
                let segment = match open {
                    Some(segment) => segment.clone(),
                    None => Arc::new(Segment::open(self.store.clone(), *name)?),
                };
                *open = Some(segment.clone());
                Ok(Some(Found::Segment(segment)))
            }
        }
    }

    fn lock_read(&self) -> std::sync::RwLockReadGuard<'_, Vec<Indexed>> {
        self.parts.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn lock_write(&self) -> std::sync::RwLockWriteGuard<'_, Vec<Indexed>> {
        self.parts.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn found(first: u64, path: &Path, offsets: &[u64], number: u64) -> Option<Found> {
    let offset = offsets.get(usize::try_from(number - first).ok()?)?;
    Some(Found::Tail(path.to_owned(), *offset))
}

/// A folder's tail files in order; a missing folder has none.
pub(crate) fn list_files(dir: &Path) -> Result<Vec<(u64, PathBuf)>, TailError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(TailError::io(dir, "list the folder")(e)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(TailError::io(dir, "list the folder"))?.path();
        if let Some(first) = record::first_of(&path) {
            files.push((first, path));
        }
    }
    files.sort();
    Ok(files)
}

/// The shard of a tail file.
pub(crate) fn shard_of(path: &Path) -> Result<u32, TailError> {
    record::shard_of(path)
}

fn scan(path: &Path, shard: u32, first: u64) -> Result<Vec<u64>, TailError> {
    let mut records = Records::open(path, shard, first)?;
    let mut offsets = Vec::new();
    loop {
        let offset = records.offset();
        if records.next_record()?.is_none() {
            return Ok(offsets);
        }
        offsets.push(offset);
    }
}
