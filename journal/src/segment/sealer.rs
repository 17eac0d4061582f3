//! Seals complete tail files, and looks over everything that is closed. Must not: read the stream (the keeper heals), or run
//! by itself.

use super::builder::size_of;
use super::{
    DirectoryStore, Part, Segment, SegmentBuilder, SegmentError, SegmentName, keep_aside, list_parts,
    set_aside,
};
use crate::pipeline::Position;
use crate::reader::RawCheck;
use crate::tail::{Records, TailError, TailIndex};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Complete tail files that stay unsealed, so that a checkpoint covers what is sealed.
pub const SEALED_AFTER_FILES: usize = 1;

/// See the module.
#[derive(Clone)]
pub struct Sealer {
    dir: PathBuf,
    shard: u32,
    index: Arc<TailIndex>,
    checkpoint: PathBuf,
    keep_files: usize,
}

/// A range of closed commits that the archive does not hold whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wound {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// The rotten file, if there is one.
    pub(crate) file: Option<PathBuf>,
    pub(crate) reason: String,
}

impl Sealer {
    /// Works on the archive folder `dir` of an open tail. `checkpoint`: where the newest signed note is published; it need
    /// not exist. `keep_files`: see [`SEALED_AFTER_FILES`].
    pub fn new(
        dir: &Path,
        shard: u32,
        index: Arc<TailIndex>,
        checkpoint: PathBuf,
        keep_files: usize,
    ) -> Self {
        Self { dir: dir.to_owned(), shard, index, checkpoint, keep_files }
    }

    /// Shard of the log.
    pub(crate) fn shard(&self) -> u32 {
        self.shard
    }

    /// Commits and positions of the archive.
    pub(crate) fn index(&self) -> &TailIndex {
        &self.index
    }

    /// Seals the oldest complete tail file, when there are more than stay unsealed. A damaged one is an error.
    pub fn seal_next(&self) -> Result<Option<SegmentName>, TailError> {
        let files = self.index.complete_files();
        if files.len() <= self.keep_files {
            return Ok(None);
        }
        let Some((first, path)) = files.into_iter().next() else { return Ok(None) };
        let mut builder = SegmentBuilder::new(self.shard);
        let mut records = Records::open(&path, self.shard, first)?;
        while let Some(record) = records.next_record()? {
            builder.push(&record.bytes)?;
        }
        if builder.last().is_none() {
            return Err(TailError::Foreign { path, reason: "a complete file without commits".to_owned() });
        }
        let name = self.store(builder)?;
        // The segment is on the disk and was read back: from here on the file is a leftover.
        std::fs::remove_file(&path).map_err(TailError::io(&path, "delete after sealing"))?;
        Ok(Some(name))
    }

    /// Stores a segment, reads it back whole, and only then lets it count.
    pub(crate) fn store(&self, builder: SegmentBuilder) -> Result<SegmentName, TailError> {
        let checkpoint = std::fs::read(&self.checkpoint).unwrap_or_default();
        let (name, bytes) = builder.finish(&checkpoint)?;
        let store = self.index.store();
        store.put(&name, &bytes)?;
        drop(bytes);
        let segment = Segment::open(store, name)?;
        if let Err(error) = segment.verify() {
            set_aside(&self.dir, &DirectoryStore::new(&self.dir).path(&name))?;
            return Err(error.into());
        }
        let covered = size_of(segment.checkpoint());
        tracing::info!(target: "journal", segment = %name, commits = name.last - name.first + 1, checkpoint = covered, "sealed");
        self.index.sealed(segment);
        Ok(name)
    }

    /// Finishes what a crash left: a tail file that a whole segment covers is deleted; one that is covered by a damaged
    /// segment gets its place back. Files that were never finished go.
    pub fn tidy(&self) -> Result<(), TailError> {
        let store = self.index.store();
        for (first, path) in list_parts(&*store, &self.dir)?.leftovers {
            let names = store.list()?;
            let covering = names.into_iter().find(|name| (name.first..=name.last).contains(&first));
            let Some(name) = covering else { continue };
            let whole = Segment::open(store.clone(), name).and_then(|segment| segment.verify());
            match whole {
                Ok(_) => std::fs::remove_file(&path).map_err(TailError::io(&path, "delete after sealing"))?,
                Err(error @ SegmentError::Damaged { .. }) => {
                    tracing::warn!(target: "journal", "{error}; its tail file is still there");
                    let mut builder = SegmentBuilder::new(self.shard);
                    let mut records = Records::open(&path, self.shard, first)?;
                    while let Some(record) = records.next_record()? {
                        builder.push(&record.bytes)?;
                    }
                    set_aside(&self.dir, &DirectoryStore::new(&self.dir).path(&name))?;
                    self.store(builder)?;
                    std::fs::remove_file(&path).map_err(TailError::io(&path, "delete after sealing"))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let failed = || TailError::io(&self.dir, "list the folder");
        for entry in std::fs::read_dir(&self.dir).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            if path.extension().is_some_and(|extension| extension == "partial") {
                std::fs::remove_file(&path).map_err(TailError::io(&path, "delete an unfinished file"))?;
            }
        }
        Ok(())
    }

    /// Reads every closed part whole; the open tail file is the writer's. Ends early when `ending` says so.
    pub(crate) fn inspect(&self, ending: &dyn Fn() -> bool) -> Result<Vec<Wound>, TailError> {
        let parts = list_parts(&*self.index.store(), &self.dir)?.live;
        let mut wounds = Vec::new();
        let mut last = Position::default();
        for (at, part) in parts.iter().enumerate() {
            let next = parts.get(at + 1).map(Part::first);
            if ending() {
                return Ok(wounds);
            }
            if part.first() > last.commit + 1 {
                let (first, end) = (last.commit + 1, part.first() - 1);
                let reason = "no file holds them".to_owned();
                wounds.push(Wound { first, last: end, file: None, reason });
                last = self.index.position_of(end).unwrap_or_default();
                last.commit = end;
            }
            if next.is_none() && matches!(part, Part::Tail { .. }) {
                return Ok(wounds);
            }
            match self.inspect_part(part, next, last) {
                Ok(end) => last = end,
                Err(Inspected::Wound(wound)) => {
                    last = Position { commit: wound.last, ..Position::default() };
                    wounds.push(wound);
                }
                Err(Inspected::Failed(error)) => return Err(error),
            }
        }
        Ok(wounds)
    }

    /// The position after a closed part that is whole and follows `before` (a hash of zeros behind a wound: not known).
    fn inspect_part(&self, part: &Part, next: Option<u64>, before: Position) -> Result<Position, Inspected> {
        let wound = |file: PathBuf, end: u64, reason: String| {
            Inspected::Wound(Wound { first: part.first(), last: end, file: Some(file), reason })
        };
        let known = before.commit == 0 || before.hash != Position::default().hash;
        match part {
            Part::Segment(name) => {
                let path = DirectoryStore::new(&self.dir).path(name);
                let segment = Segment::open(self.index.store(), *name);
                let checked = segment.and_then(|segment| Ok((segment.verify()?, segment.head().previous)));
                match checked {
                    Ok((_, previous)) if known && previous != before.hash => {
                        Err(wound(path, name.last, "it does not follow the part before".to_owned()))
                    }
                    Ok((end, _)) => Ok(end),
                    Err(SegmentError::Damaged { reason, .. }) => Err(wound(path, name.last, reason)),
                    Err(error) => Err(Inspected::Failed(error.into())),
                }
            }
            Part::Tail { first, path } => {
                let end = next.map_or(u64::MAX, |next| next - 1);
                let check =
                    if known { RawCheck::after(self.shard, before) } else { RawCheck::anywhere(self.shard) };
                match self.inspect_tail(path, *first, check) {
                    // A shorter file is a gap before the next part.
                    Ok(found) => Ok(found),
                    Err(TailError::Damaged { number, reason, .. }) => {
                        Err(wound(path.clone(), end, format!("commit {number} {reason}")))
                    }
                    Err(TailError::Foreign { reason, .. }) => Err(wound(path.clone(), end, reason)),
                    Err(error) => Err(Inspected::Failed(error)),
                }
            }
        }
    }

    fn inspect_tail(&self, path: &Path, first: u64, mut check: RawCheck) -> Result<Position, TailError> {
        let mut records = Records::open(path, self.shard, first)?;
        while let Some(record) = records.next_record()? {
            let foreign = |reason| TailError::Foreign { path: path.to_owned(), reason };
            check.check(&record.bytes).map_err(foreign)?;
        }
        check.last().ok_or_else(|| TailError::Foreign {
            path: path.to_owned(),
            reason: "it is complete and holds no commits".to_owned(),
        })
    }

    /// Keeps a rotten file for people, before its commits are stored again.
    pub(crate) fn keep_aside(&self, file: &Path) -> Result<PathBuf, SegmentError> {
        keep_aside(&self.dir, file)
    }

    /// Takes the rotten file away, once its commits stand elsewhere; not when a whole one took its very name.
    pub(crate) fn remove_rotten(&self, file: &Path, stored: &[SegmentName]) -> Result<(), SegmentError> {
        let store = DirectoryStore::new(&self.dir);
        if stored.iter().any(|name| store.path(name) == file) {
            return Ok(());
        }
        std::fs::remove_file(file).map_err(SegmentError::io(file.display(), "delete what was replaced"))
    }
}

/// Why a part was not found whole.
enum Inspected {
    Wound(Wound),
    Failed(TailError),
}
