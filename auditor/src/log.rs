//! Walks a copy's entries from the first to the last, a bundle at a time, and hashes them as it goes: memory stays flat
//! whatever the log's length.

use crate::archive::{Archive, Commits};
use crate::copy::{CopyFault, LogCopy};
use crate::merkle::{Roots, leaf_hash};
use protocol::codec::decode_event;
use protocol::event::Event;
use protocol::id::Hash32;
use protocol::tile::TILE_WIDTH;
use std::collections::VecDeque;

/// Goes through the entries of the first `size` leaves.
pub struct Walk<'a> {
    copy: &'a LogCopy,
    size: u64,
    next: u64,
    roots: Roots,
    /// Where entries come from when there are no tiles, and those that came with a bundle's last commit.
    commits: Option<Commits<'a>>,
    waiting: VecDeque<Vec<u8>>,
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
        let commits = if copy.has_tiles() { None } else { copy.archive().map(Archive::commits) };
        Walk { copy, size, next: 0, roots: Roots::default(), commits, waiting: VecDeque::new() }
    }

    /// The next bundle; `None` after the last.
    pub fn next_bundle(&mut self) -> Option<Result<Bundle, CopyFault>> {
        if self.next >= self.size {
            return None;
        }
        let width = (self.size - self.next).min(TILE_WIDTH);
        let entries = match self.entries(width) {
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

    fn entries(&mut self, width: u64) -> Result<Vec<Vec<u8>>, CopyFault> {
        let Some(commits) = &mut self.commits else {
            return self.copy.bundle(self.next / TILE_WIDTH, width);
        };
        while (self.waiting.len() as u64) < width {
            let Some(commit) = commits.next() else {
                let leaves = commits.reached().leaves;
                let reason = format!("it ends at leaf {leaves}, the checkpoint covers {}", self.size);
                return Err(CopyFault { path: "archive".to_owned(), reason });
            };
            self.waiting.extend(commit?.commit.events.into_iter().map(Vec::from));
        }
        Ok(self.waiting.drain(..width as usize).collect())
    }

    /// How many commits the entries came with, when they came from an archive.
    pub fn commits_read(&self) -> Option<u64> {
        self.commits.as_ref().map(|commits| commits.reached().number)
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

/// Shows each event of the first `size` leaves with its bytes. Entries that are no events are passed over: `audit replay`
/// finds them.
pub(crate) fn each_event(
    copy: &LogCopy,
    size: u64,
    mut show: impl FnMut(u64, &Event, &[u8]),
) -> Result<(), CopyFault> {
    let mut walk = Walk::new(copy, size);
    while let Some(bundle) = walk.next_bundle() {
        let bundle = bundle?;
        for (leaf, entry) in (bundle.first_leaf..).zip(&bundle.entries) {
            if let Ok(event) = decode_event(entry) {
                show(leaf, &event, entry);
            }
        }
    }
    Ok(())
}
