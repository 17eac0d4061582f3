//! Snapshots of the ledger's state as files: named by position and by the hash of their content, written whole or not at
//! all, the newest few kept. Must not: judge whether a snapshot fits the log (the start does).
//!
//! `snapshots/state-<commit>-<BLAKE3 of the content>.cfs`, the content as `ledger::snapshot` writes it.

use ledger::State;
use protocol::id::Hash32;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The folder inside a data folder.
pub const SNAPSHOT_FOLDER: &str = "snapshots";
/// Older ones are deleted.
pub const SNAPSHOTS_KEPT: usize = 3;

/// Why a snapshot was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file system said no.
    #[error("snapshot {path}: cannot {what}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Its words.
        source: std::io::Error,
    },
    /// The file is not what its name says.
    #[error("snapshot {path}: {reason}; it is ignored and may be deleted")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl SnapshotError {
    fn io(path: &Path, what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, what, source }
    }
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// The commit that it stands at.
    pub commit: u64,
    /// BLAKE3 of its content.
    pub content: Hash32,
    /// Where it is.
    pub path: PathBuf,
}

impl SnapshotFile {
    /// Reads the content, checking it against the name.
    pub fn read_bytes(&self) -> Result<Vec<u8>, SnapshotError> {
        let bytes = std::fs::read(&self.path).map_err(SnapshotError::io(&self.path, "read"))?;
        let content = Hash32(*blake3::hash(&bytes).as_bytes());
        if content != self.content {
            return Err(self.damaged(format!("its content is {content}")));
        }
        Ok(bytes)
    }

    fn damaged(&self, reason: String) -> SnapshotError {
        SnapshotError::Damaged { path: self.path.clone(), reason }
    }

    /// Reads the state, checking content and position.
    pub fn read(&self) -> Result<State, SnapshotError> {
        let damaged = |reason: String| self.damaged(reason);
        let bytes = self.read_bytes()?;
        let state = ledger::snapshot::read(&bytes).map_err(|e| damaged(e.to_string()))?;
        if state.last_commit() != self.commit {
            return Err(damaged(format!("it stands at commit {}", state.last_commit())));
        }
        Ok(state)
    }
}

/// The folder of snapshots.
#[derive(Clone, Debug)]
pub struct SnapshotStore {
    dir: PathBuf,
}

impl SnapshotStore {
    /// Opens or makes the folder under `data_dir`.
    pub fn open(data_dir: &Path) -> Result<Self, SnapshotError> {
        let dir = data_dir.join(SNAPSHOT_FOLDER);
        std::fs::create_dir_all(&dir).map_err(SnapshotError::io(&dir, "create the folder"))?;
        Ok(Self { dir })
    }

    /// What there is, the newest first.
    pub fn list(&self) -> Result<Vec<SnapshotFile>, SnapshotError> {
        let entries =
            std::fs::read_dir(&self.dir).map_err(SnapshotError::io(&self.dir, "list the folder"))?;
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(SnapshotError::io(&self.dir, "list the folder"))?.path();
            files.extend(parse_name(&path));
        }
        files.sort_by(|a, b| b.commit.cmp(&a.commit).then(a.path.cmp(&b.path)));
        Ok(files)
    }

    /// Writes a state and deletes what is older than the newest few.
    pub fn write(&self, state: &State) -> Result<SnapshotFile, SnapshotError> {
        let bytes = ledger::snapshot::write(state);
        let content = Hash32(*blake3::hash(&bytes).as_bytes());
        let commit = state.last_commit();
        let path = self.dir.join(format!("state-{commit:020}-{content}.cfs"));
        // Of its own: two that write the same state do not meet.
        let partial = path.with_extension(format!("{:?}.partial", std::thread::current().id()));
        let mut file = File::create(&partial).map_err(SnapshotError::io(&partial, "create"))?;
        file.write_all(&bytes).map_err(SnapshotError::io(&partial, "write"))?;
        file.sync_all().map_err(SnapshotError::io(&partial, "sync"))?;
        std::fs::rename(&partial, &path).map_err(SnapshotError::io(&path, "rename"))?;
        let folder = File::open(&self.dir).map_err(SnapshotError::io(&self.dir, "open the folder"))?;
        folder.sync_all().map_err(SnapshotError::io(&self.dir, "sync the folder"))?;
        for old in self.list()?.into_iter().skip(SNAPSHOTS_KEPT) {
            std::fs::remove_file(&old.path).map_err(SnapshotError::io(&old.path, "delete"))?;
        }
        Ok(SnapshotFile { commit, content, path })
    }
}

fn parse_name(path: &Path) -> Option<SnapshotFile> {
    let name = path.file_name()?.to_str()?.strip_prefix("state-")?.strip_suffix(".cfs")?;
    let (commit, content) = name.split_once('-')?;
    Some(SnapshotFile { commit: commit.parse().ok()?, content: content.parse().ok()?, path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_read_back_and_a_damaged_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(dir.path()).unwrap();
        let state = State::new(0);
        let file = store.write(&state).unwrap();
        assert_eq!(store.list().unwrap(), vec![file.clone()]);
        assert_eq!(file.read().unwrap().hash(), state.hash());
        let mut bytes = std::fs::read(&file.path).unwrap();
        bytes[0] ^= 1;
        std::fs::write(&file.path, bytes).unwrap();
        assert!(matches!(file.read(), Err(SnapshotError::Damaged { .. })));
    }
}
