//! A log as it lies on disk: a copy made by `fetch`, the `tlog/` of a data directory, or an archive alone. Reads only, and
//! trusts nothing.
//! Layout: C2SP tlog-tiles (`checkpoint`, `tile/<level>/<n>`, `tile/entries/<n>`, partial ones `.p/<width>`), and in a
//! copy `policy`, `checkpoints/`, `receipts/`, `contents/`, `commits/`, `archive/`.

use crate::archive::{Archive, ArchiveFault};
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
    /// Holds `checkpoint` and `tile/`; `None` where there is only an archive.
    tiles: Option<PathBuf>,
    /// What was given: holds receipts, contents, commits, kept checkpoints.
    root: PathBuf,
    archive: Option<Archive>,
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
    /// Opens a fetched copy, a data directory, or an archive.
    pub fn open(directory: &Path) -> Result<LogCopy, AuditError> {
        let root = directory.to_owned();
        let archive = Archive::find(directory)?;
        let tiles = [root.clone(), root.join("tlog")];
        let tiles = tiles.into_iter().find(|tiles| tiles.join("checkpoint").is_file());
        if tiles.is_none() && archive.is_none() {
            return Err(AuditError::NoLog { path: root });
        }
        Ok(LogCopy { tiles, root, archive })
    }

    /// A place that `fetch` fills.
    pub(crate) fn begin(directory: &Path) -> LogCopy {
        LogCopy { tiles: Some(directory.to_owned()), root: directory.to_owned(), archive: None }
    }

    /// Whether it was made by `fetch`; a data directory's own policy proves nothing.
    pub fn is_fetched(&self) -> bool {
        self.tiles.as_ref() == Some(&self.root)
    }

    /// Whether there are tiles; without them entries are those of the archive.
    pub fn has_tiles(&self) -> bool {
        self.tiles.is_some()
    }

    /// The archive, where there is one.
    pub fn archive(&self) -> Option<&Archive> {
        self.archive.as_ref()
    }

    /// A file beside the log, such as `policy`.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The newest checkpoint; the inner error when it is not one.
    pub fn checkpoint(&self) -> Result<Result<SignedCheckpoint, CheckpointError>, AuditError> {
        match (&self.tiles, &self.archive) {
            (Some(tiles), _) => read_checkpoint(&tiles.join("checkpoint")),
            (None, Some(archive)) => {
                let note = archive.checkpoint();
                let note = note.ok_or_else(|| AuditError::NoCheckpoint { path: self.root.clone() })?;
                Ok(SignedCheckpoint::parse(&note))
            }
            (None, None) => Err(AuditError::NoLog { path: self.root.clone() }),
        }
    }

    /// Checkpoints that `fetch` kept, in the order of their files' names.
    pub fn kept_checkpoints(&self) -> Result<Vec<KeptCheckpoint>, AuditError> {
        let files = list(&self.root.join("checkpoints"))?;
        let read = |path: PathBuf| read_checkpoint(&path).map(|note| KeptCheckpoint { path, note });
        files.into_iter().map(read).collect()
    }

    /// The entries of one bundle, exactly `width` of them.
    pub fn bundle(&self, index: u64, width: u64) -> Result<Vec<Vec<u8>>, CopyFault> {
        if let (None, Some(archive)) = (&self.tiles, &self.archive) {
            return archived(archive, index * TILE_WIDTH, width);
        }
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
        let tiles = self.tiles.as_ref();
        let tiles =
            tiles.ok_or_else(|| CopyFault { path: tile.path(), reason: "there are no tiles".into() })?;
        let read = |tile: Tile| read_at_most(&tiles.join(tile.path()), BUNDLE_BYTES_MAX);
        let (found, bytes) = match read(tile) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && tile != tile.full() => {
                let larger = [tile.full()].into_iter().chain(larger_partial(tiles, tile));
                let found = larger.map(|tile| (tile, read(tile))).find(|(_, bytes)| bytes.is_ok());
                found.unwrap_or((tile, Err(error)))
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

/// The widest partial form of a tile that is wider than what is asked for: it was asked for at an earlier size.
fn larger_partial(tiles: &Path, tile: Tile) -> Option<Tile> {
    let folder = tiles.join(Tile { width: 1, ..tile }.path());
    let widths = std::fs::read_dir(folder.parent()?).ok()?;
    let widths = widths.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok());
    let width = widths.filter(|width| (tile.width + 1..TILE_WIDTH).contains(width)).max()?;
    Some(Tile { width, ..tile })
}

impl From<ArchiveFault> for CopyFault {
    fn from(fault: ArchiveFault) -> CopyFault {
        CopyFault { path: fault.file, reason: format!("at byte {}: {}", fault.offset, fault.reason) }
    }
}

/// Entries in a row, from an archive.
fn archived(archive: &Archive, first_leaf: u64, count: u64) -> Result<Vec<Vec<u8>>, CopyFault> {
    let mut entries = Vec::new();
    for commit in archive.commits_before(first_leaf) {
        let commit = commit?.commit;
        for (leaf, event) in (commit.first_leaf..).zip(commit.events) {
            if leaf >= first_leaf && (entries.len() as u64) < count {
                entries.push(event.into());
            }
        }
        if entries.len() as u64 == count {
            return Ok(entries);
        }
    }
    let path = "archive".to_owned();
    Err(CopyFault { path, reason: format!("it ends before leaf {}", first_leaf + count) })
}

/// Reads a checkpoint file.
pub(crate) fn read_checkpoint(path: &Path) -> Result<Result<SignedCheckpoint, CheckpointError>, AuditError> {
    let bytes = read_at_most(path, NOTE_BYTES_MAX as u64 + 1).map_err(|e| AuditError::file(path, e))?;
    Ok(SignedCheckpoint::parse(&bytes))
}

pub(crate) fn list(directory: &Path) -> Result<Vec<PathBuf>, AuditError> {
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
