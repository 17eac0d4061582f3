//! RFC 6962 trees over SHA-256, written once more for the auditor, so that a root is computed by two programs: leaf and
//! node hashes, and every root a log ever had. Proofs are checked by `protocol::proof`. Must not: read files.

use protocol::id::Hash32;
use protocol::tile::TILE_WIDTH;
use sha2::{Digest, Sha256};

/// `SHA-256(0x00 || entry)`.
pub fn leaf_hash(entry: &[u8]) -> Hash32 {
    Hash32(Sha256::new().chain_update([0]).chain_update(entry).finalize().into())
}

/// `SHA-256(0x01 || left || right)`.
pub fn node_hash(left: &Hash32, right: &Hash32) -> Hash32 {
    Hash32(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
}

/// The root of a tree without leaves: SHA-256 of nothing.
pub fn empty_root() -> Hash32 {
    Hash32(Sha256::digest([]).into())
}

/// The perfect subtrees that a growing tree consists of, largest first. Enough to know its root at any moment.
#[derive(Clone, Default, Debug)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash32>,
}

impl Frontier {
    /// Appends one leaf (or, in a tree of equal subtrees, one subtree).
    pub fn push(&mut self, hash: Hash32) {
        let mut node = hash;
        for _ in 0..self.size.trailing_ones() {
            let left = self.peaks.pop().expect("a set bit of the size is a peak");
            node = node_hash(&left, &node);
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// How many were appended.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root of what was appended.
    pub fn root(&self) -> Hash32 {
        fold_peaks(self.peaks.iter())
    }
}

fn fold_peaks<'a>(peaks: impl DoubleEndedIterator<Item = &'a Hash32>) -> Hash32 {
    let folded = peaks
        .rev()
        .fold(None, |right: Option<Hash32>, left| Some(right.map_or(*left, |right| node_hash(left, &right))));
    folded.unwrap_or_else(empty_root)
}

/// Every root a log ever had, from the hashes of its full tiles: 32 bytes for 256 leaves.
#[derive(Clone, Default, Debug)]
pub struct Roots {
    tiles: Vec<Hash32>,
    tail: Vec<Hash32>,
}

impl Roots {
    /// Appends one leaf hash. Gives the 256 hashes of a tile when it was the tile's last.
    pub fn push(&mut self, leaf: Hash32) -> Option<Vec<Hash32>> {
        self.tail.push(leaf);
        if self.tail.len() as u64 != TILE_WIDTH {
            return None;
        }
        let tile = std::mem::take(&mut self.tail);
        self.tiles.push(subtree_root(&tile));
        Some(tile)
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.tiles.len() as u64 * TILE_WIDTH + self.tail.len() as u64
    }

    /// Leaf hashes after the last full tile.
    pub fn tail(&self) -> &[Hash32] {
        &self.tail
    }

    /// The roots of the full tiles: level 1 of the log's tiles.
    pub fn tile_roots(&self) -> &[Hash32] {
        &self.tiles
    }

    /// The root over everything.
    pub fn root(&self) -> Hash32 {
        self.root_with(self.tiles.len(), &self.tail)
    }

    /// The root of the first `tiles` full tiles followed by `rest` leaf hashes, fewer than a tile.
    pub fn root_with(&self, tiles: usize, rest: &[Hash32]) -> Hash32 {
        let mut whole = Frontier::default();
        self.tiles[..tiles].iter().for_each(|tile| whole.push(*tile));
        let mut end = Frontier::default();
        rest.iter().for_each(|leaf| end.push(*leaf));
        fold_peaks(whole.peaks.iter().chain(&end.peaks))
    }
}

/// The root over a tile's hashes.
pub fn subtree_root(hashes: &[Hash32]) -> Hash32 {
    let mut frontier = Frontier::default();
    hashes.iter().for_each(|hash| frontier.push(*hash));
    frontier.root()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ct_merkle::mem_backed_tree::MemoryBackedTree;
    use proptest::prelude::*;

    proptest! {
        /// Roots at every earlier size equal those of another implementation.
        #[test]
        fn roots_equal_ct_merkle(size in 1u64..700, at in 0u64..700) {
            let at = at.min(size);
            let leaf = |n: u64| n.to_le_bytes().to_vec();
            let (mut roots, mut frontier) = (Roots::default(), Frontier::default());
            let mut oracle = MemoryBackedTree::<Sha256, Vec<u8>>::new();
            let mut hashes = Vec::new();
            for n in 0..size {
                hashes.push(leaf_hash(&leaf(n)));
                roots.push(hashes[n as usize]);
                frontier.push(hashes[n as usize]);
                if n < at {
                    oracle.push(leaf(n));
                }
            }
            prop_assert_eq!(roots.root(), frontier.root());
            let tiles = at / TILE_WIDTH;
            let rest = &hashes[(tiles * TILE_WIDTH) as usize..at as usize];
            let root = roots.root_with(tiles as usize, rest);
            if at == 0 {
                prop_assert_eq!(root, empty_root());
            } else {
                let theirs = oracle.root();
                prop_assert_eq!(&root.0[..], &theirs.as_bytes()[..]);
            }
        }
    }
}
