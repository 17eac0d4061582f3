//! Tables from 16 long bytes to row numbers. Many small tables instead of one, so that growing one never pauses; the
//! hash is fixed and the order of a table is never observable. Must not: hold the bytes themselves (the rows do).

use crate::slab::Shared;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

const SEGMENTS: usize = 1 << SEGMENT_BITS;
const SEGMENT_BITS: u32 = 10;

/// Row numbers by the hash of what the rows are called.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    segments: Vec<Shared<HashTable<u32>>>,
}

impl Default for Index {
    fn default() -> Index {
        Index { segments: vec![Shared::default(); SEGMENTS] }
    }
}

/// A fixed mix of all 16 bytes: ids are random or hashes, only test worlds have regular ones.
#[inline]
pub(crate) fn hash(bytes: &[u8; 16]) -> u64 {
    let all = u128::from_le_bytes(*bytes);
    let (low, high) = (all as u64, (all >> 64) as u64);
    let product = u128::from(low ^ 0x9e37_79b9_7f4a_7c15) * u128::from(high ^ 0xd1b5_4a32_d192_ed03);
    let mixed = (product as u64) ^ ((product >> 64) as u64) ^ high.rotate_left(29) ^ low;
    // One more round, because tables look at the highest and the lowest bits.
    (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// Which segment: bits that a table's own places and tags do not use.
#[inline]
fn segment(hash: u64) -> usize {
    (hash >> 40) as usize & (SEGMENTS - 1)
}

impl Index {
    /// The row whose bytes are these, if any; `bytes_of` reads a row's bytes.
    #[inline]
    pub(crate) fn find<'a>(&self, bytes: &[u8; 16], bytes_of: impl Fn(u32) -> &'a [u8; 16]) -> Option<u32> {
        let hash = hash(bytes);
        self.segments[segment(hash)].get().find(hash, |row| bytes_of(*row) == bytes).copied()
    }

    /// Adds a row that is not there yet; `bytes_of` must know the row already.
    #[inline]
    pub(crate) fn insert<'a>(&mut self, bytes: &[u8; 16], row: u32, bytes_of: impl Fn(u32) -> &'a [u8; 16]) {
        let whole = hash(bytes);
        let table = self.segments[segment(whole)].get_mut();
        table.insert_unique(whole, row, |row| hash(bytes_of(*row)));
    }

    /// Adds a row unless the bytes are there; gives the row that is. One search where `find` and `insert` are two.
    #[inline]
    pub(crate) fn insert_new<'a>(
        &mut self,
        bytes: &[u8; 16],
        row: u32,
        bytes_of: impl Fn(u32) -> &'a [u8; 16],
    ) -> Option<u32> {
        let whole = hash(bytes);
        let table = self.segments[segment(whole)].get_mut();
        let entry = table.entry(whole, |row| bytes_of(*row) == bytes, |row| hash(bytes_of(*row)));
        match entry {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(free) => {
                free.insert(row);
                None
            }
        }
    }

    /// Takes a row out.
    pub(crate) fn remove(&mut self, bytes: &[u8; 16], row: u32) {
        let hash = hash(bytes);
        let table = self.segments[segment(hash)].get_mut();
        if let Ok(entry) = table.find_entry(hash, |known| *known == row) {
            entry.remove();
        }
    }

    /// A copy that shares every segment.
    pub(crate) fn share(&mut self) -> Index {
        Index { segments: self.segments.iter_mut().map(Shared::share).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_ids_spread_over_segments() {
        let mut rows: Vec<[u8; 16]> = Vec::new();
        let mut index = Index::default();
        for n in 0..50_000u32 {
            let mut bytes = [7; 16];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            rows.push(bytes);
            index.insert(&bytes, n, |row| &rows[row as usize]);
        }
        let longest = index.segments.iter().map(|segment| segment.get().len()).max().unwrap();
        assert!(longest < 150, "{longest} of 50000 in one of {SEGMENTS} segments");
        for (n, bytes) in rows.iter().enumerate() {
            assert_eq!(index.find(bytes, |row| &rows[row as usize]), Some(n as u32));
        }
        index.remove(&rows[9], 9);
        assert_eq!(index.find(&rows[9], |row| &rows[row as usize]), None);
    }
}
