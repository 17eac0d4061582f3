//! Walks a copy's entries from the first to the last, a bundle at a time, and hashes them as it goes: memory stays flat
//! whatever the log's length.

use crate::copy::{CopyFault, LogCopy};
use crate::merkle::{Roots, leaf_hash};
use protocol::id::Hash32;
use protocol::tile::TILE_WIDTH;

/// Goes through the entries of the first `size` leaves.
pub struct Walk<'a> {
    copy: &'a LogCopy,
    size: u64,
    next: u64,
    roots: Roots,
}

/// Some entries in a row.
#[derive(Debug)]
pub struct Bundle {
    /// Leaf index of the first.
    pub first_leaf: u64,
    /// Their bytes.
    pub entries: Vec<Vec<u8>>,
    /// The tile they fill, when they fill one: its leaf hashes.
    pub tile: Option<Vec<Hash32>>,
}

impl<'a> Walk<'a> {
    /// Begins at leaf 0.
    pub fn new(copy: &'a LogCopy, size: u64) -> Walk<'a> {
        Walk { copy, size, next: 0, roots: Roots::default() }
    }

    /// The next bundle; `None` after the last.
    pub fn next_bundle(&mut self) -> Option<Result<Bundle, CopyFault>> {
        if self.next >= self.size {
            return None;
        }
        let width = (self.size - self.next).min(TILE_WIDTH);
        let entries = match self.copy.bundle(self.next / TILE_WIDTH, width) {
            Ok(entries) => entries,
            Err(fault) => return Some(Err(fault)),
        };
        let first_leaf = self.next;
        let mut tile = None;
        for entry in &entries {
            tile = self.roots.push(leaf_hash(entry));
        }
        self.next += width;
        Some(Ok(Bundle { first_leaf, entries, tile }))
    }

    /// What was hashed so far.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// The root the log had at `size` leaves, which must have been walked already.
    pub fn root_at(&self, size: u64) -> Result<Hash32, CopyFault> {
        let tiles = size / TILE_WIDTH;
        let width = size % TILE_WIDTH;
        if size == self.roots.size() {
            return Ok(self.roots.root());
        }
        if size > self.roots.size() {
            let reason = format!("it has {} leaves; a root over {size} was asked for", self.roots.size());
            return Err(CopyFault { path: "checkpoint".to_owned(), reason });
        }
        let rest: Vec<Hash32> = if width == 0 {
            Vec::new()
        } else if tiles as usize == self.roots.tile_roots().len() {
            self.roots.tail()[..width as usize].to_vec()
        } else {
            let entries = self.copy.bundle(tiles, TILE_WIDTH)?;
            entries[..width as usize].iter().map(|entry| leaf_hash(entry)).collect()
        };
        Ok(self.roots.root_with(tiles as usize, &rest))
    }
}
