//! The high-water mark: how far the log once was, in a file of its own. It notices a tail and a stream that were both cut.
//! Two slots, written in turn, so that a torn write leaves the other one. Must not: decide what a mismatch means.

use super::{ARCHIVE_FOLDER, TailError};
use crate::pipeline::Position;
use protocol::id::Hash32;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"cf-mark1";
/// Magic, commit, leaf, time, hash, BLAKE3 of all before.
const SLOT_BYTES: usize = 8 + 8 + 8 + 8 + 32 + 32;
const BODY_BYTES: usize = SLOT_BYTES - 32;

/// The mark's file.
pub struct HighWater {
    file: File,
    path: PathBuf,
    slot: u64,
    last: Position,
}

impl HighWater {
    /// Opens or begins `archive/high-water` under a data folder.
    pub fn open(data_dir: &Path) -> Result<Self, TailError> {
        let dir = data_dir.join(ARCHIVE_FOLDER);
        std::fs::create_dir_all(&dir).map_err(TailError::io(&dir, "create the folder"))?;
        let path = dir.join("high-water");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(TailError::io(&path, "open"))?;
        let slots = [0, 1].map(|slot| read_slot(&file, slot));
        let newest = slots.iter().enumerate().max_by_key(|(_, mark)| mark.map(|mark| mark.commit));
        let (slot, last) = newest.map_or((0, None), |(slot, mark)| (slot as u64, *mark));
        Ok(Self { file, path, slot, last: last.unwrap_or_default() })
    }

    /// The newest whole mark of a data folder; nothing is made.
    pub fn open_existing(data_dir: &Path) -> Option<Position> {
        let file = File::open(data_dir.join(ARCHIVE_FOLDER).join("high-water")).ok()?;
        let slots = [0, 1].map(|slot| read_slot(&file, slot));
        slots.into_iter().flatten().max_by_key(|mark| mark.commit)
    }

    /// The newest mark that is whole; the beginning when there is none.
    pub fn last(&self) -> Position {
        self.last
    }

    /// Writes and syncs a new mark over the older one.
    pub fn write(&mut self, position: Position) -> Result<(), TailError> {
        if position.commit <= self.last.commit {
            return Ok(());
        }
        let slot = 1 - self.slot;
        let bytes = encode_slot(position);
        self.file
            .write_all_at(&bytes, slot * SLOT_BYTES as u64)
            .map_err(TailError::io(&self.path, "write"))?;
        self.file.sync_data().map_err(TailError::io(&self.path, "sync"))?;
        (self.slot, self.last) = (slot, position);
        Ok(())
    }
}

fn encode_slot(position: Position) -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&position.commit.to_le_bytes());
    bytes[16..24].copy_from_slice(&position.leaf.to_le_bytes());
    bytes[24..32].copy_from_slice(&position.time_us.to_le_bytes());
    bytes[32..64].copy_from_slice(&position.hash.0);
    let check = blake3::hash(&bytes[..BODY_BYTES]);
    bytes[BODY_BYTES..].copy_from_slice(check.as_bytes());
    bytes
}

fn read_slot(file: &File, slot: u64) -> Option<Position> {
    let mut bytes = [0; SLOT_BYTES];
    file.read_exact_at(&mut bytes, slot * SLOT_BYTES as u64).ok()?;
    if &bytes[..8] != MAGIC || blake3::hash(&bytes[..BODY_BYTES]).as_bytes() != &bytes[BODY_BYTES..] {
        return None;
    }
    let number = |at: usize| bytes[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or_default();
    let mut hash = [0; 32];
    hash.copy_from_slice(&bytes[32..64]);
    Some(Position { commit: number(8), leaf: number(16), time_us: number(24), hash: Hash32(hash) })
}
