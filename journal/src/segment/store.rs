//! Where segments are kept. Must not: look into them.

use super::{SegmentError, SegmentName};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A place for immutable segments. A folder (also one that is a mounted bucket) is [`DirectoryStore`], a bucket
/// [`super::BucketStore`].
pub trait SegmentStore: Send + Sync {
    /// What there is, by first commit.
    fn list(&self) -> Result<Vec<SegmentName>, SegmentError>;
    /// Its size in bytes.
    fn size(&self, name: &SegmentName) -> Result<u64, SegmentError>;
    /// `length` bytes from `offset` on; fewer is an error.
    fn read(&self, name: &SegmentName, offset: u64, length: usize) -> Result<Vec<u8>, SegmentError>;
    /// Stores it whole and durably, or not at all. The same segment again is fine.
    fn put(&self, name: &SegmentName, bytes: &[u8]) -> Result<(), SegmentError>;
}

/// Segments as files of one folder.
#[derive(Clone, Debug)]
pub struct DirectoryStore {
    dir: PathBuf,
}

impl DirectoryStore {
    /// The folder need not exist before the first [`SegmentStore::put`].
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Where a segment lies.
    pub fn path(&self, name: &SegmentName) -> PathBuf {
        self.dir.join(name.to_string())
    }

    fn open(&self, name: &SegmentName) -> Result<File, SegmentError> {
        File::open(self.path(name)).map_err(SegmentError::io(name, "open"))
    }
}

impl SegmentStore for DirectoryStore {
    fn list(&self) -> Result<Vec<SegmentName>, SegmentError> {
        let failed = || SegmentError::io(self.dir.display(), "list the folder");
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed()(e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(SegmentName::parse(&entry.map_err(failed())?.path()));
        }
        names.sort();
        Ok(names)
    }

    fn size(&self, name: &SegmentName) -> Result<u64, SegmentError> {
        let metadata = self.open(name)?.metadata().map_err(SegmentError::io(name, "read the size"))?;
        Ok(metadata.len())
    }

    fn read(&self, name: &SegmentName, offset: u64, length: usize) -> Result<Vec<u8>, SegmentError> {
        let mut bytes = vec![0; length];
        self.open(name)?.read_exact_at(&mut bytes, offset).map_err(SegmentError::io(name, "read"))?;
        Ok(bytes)
    }

    fn put(&self, name: &SegmentName, bytes: &[u8]) -> Result<(), SegmentError> {
        std::fs::create_dir_all(&self.dir).map_err(SegmentError::io(name, "create the folder"))?;
        let path = self.path(name);
        let partial = path.with_extension("partial");
        let mut file = File::create(&partial).map_err(SegmentError::io(name, "create"))?;
        file.write_all(bytes).map_err(SegmentError::io(name, "write"))?;
        file.sync_all().map_err(SegmentError::io(name, "sync"))?;
        drop(file);
        std::fs::rename(&partial, &path).map_err(SegmentError::io(name, "rename"))?;
        let folder = File::open(&self.dir).map_err(SegmentError::io(name, "open the folder"))?;
        folder.sync_all().map_err(SegmentError::io(name, "sync the folder"))
    }
}
