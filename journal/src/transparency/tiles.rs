//! Tile files: reading, writing, pruning. The only file that knows where the log's derived files lie and how they become
//! durable. Must not: compute hashes.

use super::TransparencyError;
use protocol::tile::{TILE_WIDTH, Tile};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// With more tiles to make durable the whole file system is synced at once: one flush, not one or two for each file.
const SYNCED_EACH_MAX: usize = 32;

/// The directory that is served to the world: `checkpoint`, `policy`, `tile/...`.
#[derive(Clone, Debug)]
pub(crate) struct TileStore {
    dir: PathBuf,
}

impl TileStore {
    pub(crate) fn new(dir: &Path) -> TileStore {
        TileStore { dir: dir.to_owned() }
    }

    /// The bytes of a tile at this width; a full one serves for any narrower one (c2sp.org/tlog-tiles).
    pub(crate) fn read_hashes(&self, tile: Tile) -> Result<Vec<u8>, TransparencyError> {
        let mut bytes = self.read(tile)?;
        let expected = tile.width as usize * 32;
        if bytes.len() < expected {
            let reason = format!("{} bytes, expected {expected}", bytes.len());
            return Err(TransparencyError::Damaged { path: self.dir.join(tile.path()), reason });
        }
        bytes.truncate(expected);
        Ok(bytes)
    }

    /// The entry bundle at this width, cut from a full one if need be.
    pub(crate) fn read_bundle(&self, tile: Tile) -> Result<Vec<u8>, TransparencyError> {
        let mut bytes = self.read(tile)?;
        let mut end = 0;
        for entry in 0..tile.width {
            let length = bytes.get(end..end + 2).map(|l| usize::from(u16::from_be_bytes([l[0], l[1]])));
            end += 2 + length.unwrap_or(usize::from(u16::MAX));
            if end > bytes.len() {
                let reason = format!("it ends before entry {entry} of {}", tile.width);
                return Err(TransparencyError::Damaged { path: self.dir.join(tile.path()), reason });
            }
        }
        bytes.truncate(end);
        Ok(bytes)
    }

    fn read(&self, tile: Tile) -> Result<Vec<u8>, TransparencyError> {
        let path = self.dir.join(tile.path());
        match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && tile.width < TILE_WIDTH => {
                let full = self.dir.join(tile.full().path());
                std::fs::read(&full).map_err(|_| TransparencyError::Io { path, source: e })
            }
            read => read.map_err(|source| TransparencyError::Io { path, source }),
        }
    }

    /// Writes a tile so that it is whole or absent for whoever looks; [`TileStore::settle`] makes it durable.
    pub(crate) fn write_behind(&self, tile: Tile, bytes: &[u8]) -> Result<(), TransparencyError> {
        let path = self.dir.join(tile.path());
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
            let new = beside(&path);
            std::fs::write(&new, bytes)?;
            std::fs::rename(&new, &path)
        };
        write().map_err(|source| TransparencyError::Io { path: path.clone(), source })
    }

    /// After this returns, a power cut finds these tiles. Only then are the partial forms of full ones superfluous.
    pub(crate) fn settle(&self, tiles: &[Tile]) -> Result<(), TransparencyError> {
        if tiles.len() > SYNCED_EACH_MAX {
            let synced = File::open(&self.dir).and_then(|dir| Ok(rustix::fs::syncfs(&dir)?));
            synced.map_err(|source| TransparencyError::Io { path: self.dir.clone(), source })?;
        } else {
            let paths = tiles.iter().map(|tile| self.dir.join(tile.path()));
            let folders: BTreeSet<PathBuf> =
                paths.clone().filter_map(|path| Some(path.parent()?.to_owned())).collect();
            for path in paths.chain(folders) {
                let synced = File::open(&path).and_then(|file| file.sync_all());
                synced.map_err(|source| TransparencyError::Io { path, source })?;
            }
        }
        for tile in tiles.iter().filter(|tile| tile.width == TILE_WIDTH) {
            let partial = self.dir.join(format!("{}.p", tile.path()));
            match std::fs::remove_dir_all(&partial) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(TransparencyError::Io { path: partial, source: e });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes a file below the directory, whole and durable.
    pub(crate) fn write_file(&self, path: &str, bytes: &[u8]) -> Result<(), TransparencyError> {
        write_durably(&self.dir.join(path), bytes)
    }

    /// A file below the directory; `None` when there is none.
    pub(crate) fn read_file(&self, path: &str) -> Result<Option<String>, TransparencyError> {
        read_optional(&self.dir.join(path))
    }

    /// Whether two paths are one directory is the file system's to say; this is for messages.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Reads a text; `None` when there is no such file.
pub(crate) fn read_optional(path: &Path) -> Result<Option<String>, TransparencyError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TransparencyError::Io { path: path.to_owned(), source }),
    }
}

/// Where a file is written before it takes its name.
fn beside(path: &Path) -> PathBuf {
    // Not `with_extension`: tile names have dots of their own.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// New file, fsync, rename, fsync of the directory: after this returns, a power cut finds the new bytes.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), TransparencyError> {
    let write = || -> std::io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir)?;
        let new = beside(path);
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|source| TransparencyError::Io { path: path.to_owned(), source })
}
