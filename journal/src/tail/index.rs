//! Where each commit stands in the tail files. Offsets of closed files are found when first asked for.
//! Must not: write.

use super::record::{self, Record, Records};
use super::{CommitHead, TailError};
use crate::pipeline::Position;
use bytes::Bytes;
use protocol::commit::{COMMIT_BYTES_MAX, Commit};
use protocol::id::Hash32;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

/// Commit number to place, shared by the writer (appends) and whoever reads single commits.
pub struct TailIndex {
    shard: u32,
    /// Held for one look-up, or for one scan of a closed file the first time it is asked for; never across await.
    files: RwLock<Vec<IndexedFile>>,
}

struct IndexedFile {
    first: u64,
    path: PathBuf,
    /// `None`: not looked at yet.
    offsets: Option<Vec<u64>>,
}

impl TailIndex {
    /// Lists a folder's tail files.
    pub(super) fn open(dir: &Path, shard: u32) -> Result<Arc<Self>, TailError> {
        let files = list_files(dir)?;
        let files = files.into_iter().map(|(first, path)| IndexedFile { first, path, offsets: None });
        Ok(Arc::new(Self { shard, files: RwLock::new(files.collect()) }))
    }

    pub(super) fn last_file(&self) -> Option<(u64, PathBuf)> {
        self.lock_read().last().map(|file| (file.first, file.path.clone()))
    }

    pub(super) fn set_offsets(&self, first: u64, offsets: Vec<u64>) {
        if let Some(file) = self.lock_write().iter_mut().find(|file| file.first == first) {
            file.offsets = Some(offsets);
        }
    }

    pub(super) fn push_file(&self, first: u64, path: PathBuf) {
        self.lock_write().push(IndexedFile { first, path, offsets: Some(Vec::new()) });
    }

    pub(super) fn push_offset(&self, offset: u64) {
        if let Some(offsets) = self.lock_write().last_mut().and_then(|file| file.offsets.as_mut()) {
            offsets.push(offset);
        }
    }

    /// A commit's bytes, checked against their hash; `None` when the tail does not reach that far.
    pub fn read(&self, number: u64) -> Result<Option<Bytes>, TailError> {
        let Some((path, offset)) = self.place(number)? else { return Ok(None) };
        let file = File::open(&path).map_err(TailError::io(&path, "open"))?;
        let mut head = [0; record::RECORD_HEAD_BYTES];
        file.read_exact_at(&mut head, offset).map_err(TailError::io(&path, "read"))?;
        let damaged = |reason: &str| TailError::Damaged {
            path: path.clone(),
            offset,
            number,
            reason: reason.to_owned(),
        };
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if length > COMMIT_BYTES_MAX {
            return Err(damaged("has an impossible length"));
        }
        let mut bytes = vec![0; length];
        let at = offset + record::RECORD_HEAD_BYTES as u64;
        file.read_exact_at(&mut bytes, at).map_err(TailError::io(&path, "read"))?;
        if Commit::hash(&bytes).0 != head[4..] {
            return Err(damaged("does not match its hash"));
        }
        Ok(Some(Bytes::from(bytes)))
    }

    /// The log's position after a commit that the tail holds; the beginning for commit 0 and for one that it does not.
    pub fn position_of(&self, number: u64) -> Result<Position, TailError> {
        let Some(bytes) = self.read(number)? else { return Ok(Position::default()) };
        let head = CommitHead::peek(&bytes).map_err(|e| TailError::Foreign {
            path: PathBuf::from(record::file_name(number)),
            reason: format!("commit {number} is not decodable: {e}"),
        })?;
        Ok(head.position(Commit::hash(&bytes)))
    }

    /// A commit's hash, when the tail holds it.
    pub fn hash_of(&self, number: u64) -> Result<Option<Hash32>, TailError> {
        Ok(self.read(number)?.map(|bytes| Commit::hash(&bytes)))
    }

    fn place(&self, number: u64) -> Result<Option<(PathBuf, u64)>, TailError> {
        let found = |file: &IndexedFile| {
            let offsets = file.offsets.as_ref()?;
            let offset = offsets.get(usize::try_from(number - file.first).ok()?)?;
            Some((file.path.clone(), *offset))
        };
        {
            let files = self.lock_read();
            match files.iter().rev().find(|file| file.first <= number) {
                None => return Ok(None),
                Some(file) if file.offsets.is_some() => return Ok(found(file)),
                Some(_) => {}
            }
        }
        let mut files = self.lock_write();
        let Some(file) = files.iter_mut().rev().find(|file| file.first <= number) else { return Ok(None) };
        if file.offsets.is_none() {
            file.offsets = Some(scan(&file.path, self.shard, file.first)?);
        }
        Ok(found(file))
    }

    fn lock_read(&self) -> std::sync::RwLockReadGuard<'_, Vec<IndexedFile>> {
        self.files.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn lock_write(&self) -> std::sync::RwLockWriteGuard<'_, Vec<IndexedFile>> {
        self.files.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
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
        let Some(Record { .. }) = records.next_record()? else { return Ok(offsets) };
        offsets.push(offset);
    }
}
