//! Tables from 16 long bytes to row numbers, four bytes each, for rows that stay. Many small tables instead of one, so that
//! growing one never pauses; the hash is fixed and the order of a table is never observable. Must not: hold the bytes
//! themselves (the rows do; growing reads them again).

use crate::slab::Shared;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

const SEGMENTS: usize = 1 << SEGMENT_BITS;
const SEGMENT_BITS: u32 = 10;

/// Tables take places from the lowest bits and tags from the highest 7: 32 good bits are enough for both.
#[inline]
fn widen(half: u32) -> u64 {
    u64::from(half) | u64::from(half) << 32
}

/// Row numbers by the hash of what the rows are called.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    segments: Vec<Shared<HashTable<u32>>>,
}

impl Default for Index {
    fn default() -> Index {
        Index { segments: (0..SEGMENTS).map(|_| Shared::default()).collect() }
    }
}

/// A fixed mix of all 16 bytes: ids are random or hashes, only test worlds have regular ones.
#[inline]
pub(crate) fn mix(bytes: &[u8; 16]) -> u64 {
    let all = u128::from_le_bytes(*bytes);
    let (low, high) = (all as u64, (all >> 64) as u64);
    let product = u128::from(low ^ 0x9e37_79b9_7f4a_7c15) * u128::from(high ^ 0xd1b5_4a32_d192_ed03);
    let mixed = (product as u64) ^ ((product >> 64) as u64) ^ high.rotate_left(29) ^ low;
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ (mixed >> 29)
}

/// Which table, and the hash in it.
#[inline]
fn hash(bytes: &[u8; 16]) -> (usize, u64) {
    let mixed = mix(bytes);
    ((mixed >> 40) as usize & (SEGMENTS - 1), widen(mixed as u32))
}

impl Index {
    /// The row whose bytes are these, if any; `bytes_of` reads a row's bytes.
    #[inline]
    pub(crate) fn find<'a>(&self, bytes: &[u8; 16], bytes_of: impl Fn(u32) -> &'a [u8; 16]) -> Option<u32> {
        let (segment, hash) = hash(bytes);
        self.segments[segment].get().find(hash, |row| bytes_of(*row) == bytes).copied()
    }

    /// Adds a row unless the bytes are there; gives the row that is. `bytes_of` need not know the new row.
    #[inline]
    pub(crate) fn insert<'a>(
        &mut self,
        bytes: &[u8; 16],
        row: u32,
        bytes_of: impl Fn(u32) -> &'a [u8; 16],
    ) -> Option<u32> {
        let (segment, whole) = hash(bytes);
        let same = |row: &u32| bytes_of(*row) == bytes;
        let again = |row: &u32| hash(bytes_of(*row)).1;
        match self.segments[segment].get_mut().entry(whole, same, again) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(free) => {
                free.insert(row);
                None
            }
        }
    }

    /// Makes room in tables that are empty.
    pub(crate) fn reserve(&mut self, rows: usize) {
        for segment in self.segments.iter_mut().map(Shared::get_mut).filter(|segment| segment.is_empty()) {
            *segment = HashTable::with_capacity(rows / SEGMENTS);
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
            assert_eq!(index.insert(&bytes, n, |row| &rows[row as usize]), None);
        }
        let longest = index.segments.iter().map(|segment| segment.get().len()).max().unwrap();
        assert!(longest < 150, "{longest} of 50000 in one of {SEGMENTS} segments");
        for (n, bytes) in rows.iter().enumerate() {
            assert_eq!(index.find(bytes, |row| &rows[row as usize]), Some(n as u32));
        }
        let again = rows[9];
        assert_eq!(index.insert(&again, 60_000, |row| &rows[row as usize]), Some(9));
    }
}
