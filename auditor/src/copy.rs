//! A log as it lies on disk: a copy made by `fetch`, or the `tlog/` of a data directory. Reads only, and trusts nothing.
//! Layout: C2SP tlog-tiles (`checkpoint`, `tile/<level>/<n>`, `tile/entries/<n>`, partial ones `.p/<width>`), and in a
//! copy `policy`, `checkpoints/`, `receipts/`, `contents/`, `commits/`.

use crate::error::AuditError;
use crate::note::SignedCheckpoint;
use protocol::checkpoint::{CheckpointError, NOTE_BYTES_MAX};
use protocol::id::{Hash32, JobId};
use protocol::tile::{TILE_WIDTH, Tile, TileKind, parse_entries, parse_hashes};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest bundle: 256 entries of at most 65 535 bytes with their lengths.
const BUNDLE_BYTES_MAX: u64 = TILE_WIDTH * (65_535 + 2);

/// Where a log lies.
#[derive(Clone, Debug)]
pub struct LogCopy {
    /// Holds `checkpoint` and `tile/`.
    tiles: PathBuf,
    /// What was given: holds receipts, contents, commits, kept checkpoints.
    root: PathBuf,
}

/// A checkpoint file that was kept.
#[derive(Debug)]
pub struct KeptCheckpoint {
    /// Where it lies.
    pub path: PathBuf,
    /// What it says, or why it is no checkpoint.
    pub note: Result<SignedCheckpoint, CheckpointError>,
}

/// A part of the log that is not as the layout demands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct CopyFault {
    /// Which file, relative to the log.
    pub path: String,
    /// What is wrong.
    pub reason: String,
}

impl LogCopy {
    /// Opens a fetched copy or a data directory.
    pub fn open(directory: &Path) -> Result<LogCopy, AuditError> {
        let root = directory.to_owned();
        [root.clone(), root.join("tlog")]
            .into_iter()
            .find(|tiles| tiles.join("checkpoint").is_file())
            .map(|tiles| LogCopy { tiles, root: root.clone() })
            .ok_or(AuditError::NoLog { path: root })
    }

    /// A place that `fetch` fills.
    pub(crate) fn begin(directory: &Path) -> LogCopy {
        LogCopy { tiles: directory.to_owned(), root: directory.to_owned() }
    }

    /// Whether it was made by `fetch`; a data directory's own policy proves nothing.
    pub fn is_fetched(&self) -> bool {
        self.tiles == self.root
    }

    /// A file beside the log, such as `policy`.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The newest checkpoint; the inner error when it is not one.
    pub fn checkpoint(&self) -> Result<Result<SignedCheckpoint, CheckpointError>, AuditError> {
        read_checkpoint(&self.tiles.join("checkpoint"))
    }

    /// Checkpoints that `fetch` kept, in the order of their files' names.
    pub fn kept_checkpoints(&self) -> Result<Vec<KeptCheckpoint>, AuditError> {
        let files = list(&self.root.join("checkpoints"))?;
        let read = |path: PathBuf| read_checkpoint(&path).map(|note| KeptCheckpoint { path, note });
        files.into_iter().map(read).collect()
    }

    /// The entries of one bundle, exactly `width` of them.
    pub fn bundle(&self, index: u64, width: u64) -> Result<Vec<Vec<u8>>, CopyFault> {
        let (tile, bytes) = self.tile_bytes(Tile { kind: TileKind::Entries, index, width })?;
        let entries = parse_entries(&bytes, tile.width);
        let entries = entries.map_err(|e| CopyFault { path: tile.path(), reason: e.to_string() })?;
        Ok(entries[..width as usize].iter().map(|entry| entry.to_vec()).collect())
    }

    /// The hashes of one tile, exactly `width` of them.
    pub fn tile(&self, level: u32, index: u64, width: u64) -> Result<Vec<Hash32>, CopyFault> {
        let (tile, bytes) = self.tile_bytes(Tile { kind: TileKind::Hashes { level }, index, width })?;
        let hashes = parse_hashes(&bytes, tile.width);
        let mut hashes = hashes.map_err(|e| CopyFault { path: tile.path(), reason: e.to_string() })?;
        hashes.truncate(width as usize);
        Ok(hashes)
    }

    /// The tile as named, or the full one that replaced a partial one while the log grew.
    fn tile_bytes(&self, tile: Tile) -> Result<(Tile, Vec<u8>), CopyFault> {
        let read = |tile: Tile| read_at_most(&self.tiles.join(tile.path()), BUNDLE_BYTES_MAX);
        let (found, bytes) = match read(tile) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && tile != tile.full() => {
                (tile.full(), read(tile.full()).map_err(|_| error))
            }
            other => (tile, other),
        };
        match bytes {
            Ok(bytes) => Ok((found, bytes)),
            Err(error) => Err(CopyFault { path: tile.path(), reason: error.to_string() }),
        }
    }

    /// Whether receipts were fetched at all.
    pub fn has_receipts(&self) -> bool {
        self.root.join("receipts").is_dir()
    }

    /// A job's signed receipt; `None` when it was not fetched.
    pub fn receipt(&self, job: &JobId) -> Option<Vec<u8>> {
        read_at_most(&self.root.join("receipts").join(format!("{job}.cbor")), NOTE_BYTES_MAX as u64).ok()
    }

    /// A job's contents, sealed to the audit key; `None` when they were not fetched.
    pub fn contents(&self, job: &JobId) -> Option<Vec<u8>> {
        const CONTENTS_BYTES_MAX: u64 = 32 * 1024 * 1024;
        read_at_most(&self.root.join("contents").join(format!("{job}.sealed")), CONTENTS_BYTES_MAX).ok()
    }

    /// Files of commits, in the order of their first numbers.
    pub(crate) fn commit_files(&self) -> Result<Vec<PathBuf>, AuditError> {
        let mut files = list(&self.root.join("commits"))?;
        files.sort_by_key(|path| {
            path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok())
        });
        Ok(files)
    }
}

/// Reads a checkpoint file.
pub(crate) fn read_checkpoint(path: &Path) -> Result<Result<SignedCheckpoint, CheckpointError>, AuditError> {
    let bytes = read_at_most(path, NOTE_BYTES_MAX as u64 + 1).map_err(|e| AuditError::file(path, e))?;
    Ok(SignedCheckpoint::parse(&bytes))
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, AuditError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(AuditError::file(directory, error)),
    };
    let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(|error| AuditError::file(directory, error))?;
    paths.retain(|path| path.extension().is_none_or(|end| end != "part"));
    paths.sort();
    Ok(paths)
}

fn read_at_most(path: &Path, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(std::io::Error::other(format!("more than {bytes_max} bytes")));
    }
    Ok(bytes)
}
