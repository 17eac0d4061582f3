//! The growing tree: full tiles go to disk as they fill, the right edge stays in memory until a checkpoint writes it as
//! partial tiles. After a crash the tree is what the last signed checkpoint covers; the rest is fed again from the log.
//! Must not: sign. Hash arithmetic is `tlog_tiles`; readers check it with `protocol`'s own code.

use super::TransparencyError;
use super::tiles::TileStore;
use protocol::id::Hash32;
use protocol::tile::{TILE_HEIGHT, TILE_WIDTH, Tile, TileKind, push_entry, tiles_between};
use tlog_tiles::{Hash, HashReader};

/// Height in the form that `tlog_tiles` wants.
const HEIGHT: u8 = TILE_HEIGHT as u8;

/// The tree of all leaves so far.
#[derive(Debug)]
pub(crate) struct Tree {
    store: TileStore,
    size: u64,
    /// Per level, the hashes of the tile that is not full yet: fewer than 256.
    edge: Vec<Vec<u8>>,
    /// The entries of the bundle that is not full yet.
    bundle: Vec<u8>,
    /// Size when partial tiles were last written.
    written: u64,
    /// Tiles that a power cut may still take.
    unsettled: Vec<Tile>,
}

impl Tree {
    /// A tree without leaves. Files that lie there are overwritten as it grows.
    pub(crate) fn empty(store: TileStore) -> Tree {
        Tree { store, size: 0, edge: Vec::new(), bundle: Vec::new(), written: 0, unsettled: Vec::new() }
    }

    /// The tree of `size` leaves from its files. Only the right edge is read: damage elsewhere shows in proofs.
    pub(crate) fn load(store: TileStore, size: u64) -> Result<Tree, TransparencyError> {
        let mut edge = Vec::new();
        let mut level = 0;
        while size >> (TILE_HEIGHT * level) > 0 {
            let count = size >> (TILE_HEIGHT * level);
            let (index, width) = (count / TILE_WIDTH, count % TILE_WIDTH);
            let tile = Tile { kind: TileKind::Hashes { level }, index, width };
            edge.push(if width == 0 { Vec::new() } else { store.read_hashes(tile)? });
            level += 1;
            if level == u64::BITS / TILE_HEIGHT {
                break;
            }
        }
        let (index, width) = (size / TILE_WIDTH, size % TILE_WIDTH);
        let tile = Tile { kind: TileKind::Entries, index, width };
        let bundle = if width == 0 { Vec::new() } else { store.read_bundle(tile)? };
        Ok(Tree { store, size, edge, bundle, written: size, unsettled: Vec::new() })
    }

    /// Number of leaves.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Appends one leaf; writes the tiles that become full.
    pub(crate) fn append(&mut self, leaf: &[u8]) -> Result<(), TransparencyError> {
        push_entry(&mut self.bundle, leaf)
            .map_err(|e| TransparencyError::Leaf { leaf: self.size, reason: e.to_string() })?;
        let mut hash = tlog_tiles::record_hash(leaf);
        for level in 0.. {
            if self.edge.len() == level {
                self.edge.push(Vec::with_capacity(TILE_WIDTH as usize * 32));
            }
            self.edge[level].extend_from_slice(&hash.0);
            if self.edge[level].len() < TILE_WIDTH as usize * 32 {
                break;
            }
            let shift = TILE_HEIGHT * level as u32;
            let index = (self.size >> shift) / TILE_WIDTH;
            let tile = |kind| Tile { kind, index, width: TILE_WIDTH };
            if level == 0 {
                self.store.write_behind(tile(TileKind::Entries), &self.bundle)?;
                self.unsettled.push(tile(TileKind::Entries));
                self.bundle.clear();
            }
            let hashes = tile(TileKind::Hashes { level: level as u32 });
            self.store.write_behind(hashes, &self.edge[level])?;
            self.unsettled.push(hashes);
            hash = tlog_tiles::Tile::subtree_hash(&self.edge[level]);
            self.edge[level].clear();
        }
        self.size += 1;
        Ok(())
    }

    /// Writes the right edge as partial tiles and makes all tiles durable, so that a checkpoint of this size can be
    /// published.
    pub(crate) fn write_partial(&mut self) -> Result<(), TransparencyError> {
        for tile in tiles_between(self.written, self.size).filter(|t| t.width < TILE_WIDTH) {
            let bytes = match tile.kind {
                TileKind::Entries => &self.bundle,
                TileKind::Hashes { level } => &self.edge[level as usize],
            };
            self.store.write_behind(tile, bytes)?;
            self.unsettled.push(tile);
        }
        self.store.settle(&self.unsettled)?;
        self.unsettled.clear();
        self.written = self.size;
        Ok(())
    }

    /// Root of the first `size` leaves.
    pub(crate) fn root(&self, size: u64) -> Result<Hash32, TransparencyError> {
        assert!(size <= self.size, "a root of leaves that are not there yet");
        tlog_tiles::tree_hash(size, self).map(|h| Hash32(h.0)).map_err(|e| self.damaged(&e))
    }

    /// Hash of one leaf, as stored.
    pub(crate) fn leaf_hash(&self, leaf: u64) -> Result<Hash32, TransparencyError> {
        let hashes = self.read_hashes(&[tlog_tiles::stored_hash_index(0, leaf)]);
        hashes.map(|h| Hash32(h[0].0)).map_err(|e| self.damaged(&e))
    }

    /// The tile's bytes: from the edge in memory, else from its file.
    fn tile_bytes(&self, level: u32, index: u64) -> Result<Vec<u8>, TransparencyError> {
        let count = self.size >> (TILE_HEIGHT * level);
        if index == count / TILE_WIDTH {
            return Ok(self.edge[level as usize].clone());
        }
        self.store.read_hashes(Tile { kind: TileKind::Hashes { level }, index, width: TILE_WIDTH })
    }

    pub(crate) fn damaged(&self, error: &tlog_tiles::Error) -> TransparencyError {
        TransparencyError::Damaged { path: self.store.dir().to_owned(), reason: error.to_string() }
    }
}

impl HashReader for Tree {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        let mut hashes = Vec::with_capacity(indexes.len());
        for &index in indexes {
            let tile = tlog_tiles::Tile::from_index(HEIGHT, index);
            let bytes = self.tile_bytes(u32::from(tile.level()), tile.level_index());
            // The crate's error has no room for ours; its text does.
            let bytes = bytes.map_err(|e| tlog_tiles::Error::InvalidInput(e.to_string()))?;
            hashes.push(tile.hash_at_index(&bytes, index)?);
        }
        Ok(hashes)
    }
}
