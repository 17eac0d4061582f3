//! Tables from 16 long bytes to row numbers. Many small tables instead of one, so that growing one never pauses; the
//! hash is fixed and the order of a table is never observable. Must not: hold the bytes themselves (the rows do).

use crate::slab::Shared;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

const SEGMENTS: usize = 1 << SEGMENT_BITS;
const SEGMENT_BITS: u32 = 10;

/// What a table says of a row.
pub(crate) trait Slot: Copy {
    fn new(row: u32, hash: u64) -> Self;
    fn row(self) -> u32;
    /// Whether the row can be the one with this hash; `true` when the slot does not know.
    fn may_be(self, hash: u64) -> bool;
    /// The hash, when the slot knows it.
    fn hash(self) -> Option<u64>;
}

/// Only the number, 4 bytes: for rows that stay. Growing reads the rows again.
impl Slot for u32 {
    fn new(row: u32, _: u64) -> u32 {
        row
    }
    fn row(self) -> u32 {
        self
    }
    fn may_be(self, _: u64) -> bool {
        true
    }
    fn hash(self) -> Option<u64> {
        None
    }
}

/// The number and half of the hash, 8 bytes: for rows that come and go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hashed {
    row: u32,
    half: u32,
}

impl Slot for Hashed {
    fn new(row: u32, hash: u64) -> Hashed {
        Hashed { row, half: hash as u32 }
    }
    fn row(self) -> u32 {
        self.row
    }
    fn may_be(self, hash: u64) -> bool {
        self.half == hash as u32
    }
    fn hash(self) -> Option<u64> {
        Some(widen(self.half))
    }
}

/// Tables take places from the lowest bits and tags from the highest 7: 32 good bits are enough for both.
#[inline]
fn widen(half: u32) -> u64 {
    u64::from(half) | u64::from(half) << 32
}

/// Row numbers by the hash of what the rows are called.
#[derive(Clone, Debug)]
pub(crate) struct Index<S = u32> {
    segments: Vec<Shared<HashTable<S>>>,
}

impl<S: Slot> Default for Index<S> {
    fn default() -> Index<S> {
        Index { segments: (0..SEGMENTS).map(|_| Shared::default()).collect() }
    }
}

/// A fixed mix of all 16 bytes: ids are random or hashes, only test worlds have regular ones. The lower half is for a
/// table, the upper one chooses it.
#[inline]
fn hash(bytes: &[u8; 16]) -> (usize, u64) {
    let all = u128::from_le_bytes(*bytes);
    let (low, high) = (all as u64, (all >> 64) as u64);
    let product = u128::from(low ^ 0x9e37_79b9_7f4a_7c15) * u128::from(high ^ 0xd1b5_4a32_d192_ed03);
    let mixed = (product as u64) ^ ((product >> 64) as u64) ^ high.rotate_left(29) ^ low;
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let mixed = mixed ^ (mixed >> 29);
    ((mixed >> 40) as usize & (SEGMENTS - 1), widen(mixed as u32))
}

impl<S: Slot> Index<S> {
    /// The row whose bytes are these, if any; `bytes_of` reads a row's bytes.
    #[inline]
    pub(crate) fn find<'a>(&self, bytes: &[u8; 16], bytes_of: impl Fn(u32) -> &'a [u8; 16]) -> Option<u32> {
        let (segment, hash) = hash(bytes);
        let same = |slot: &S| slot.may_be(hash) && bytes_of(slot.row()) == bytes;
        self.segments[segment].get().find(hash, same).map(|slot| slot.row())
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
        let same = |slot: &S| slot.may_be(whole) && bytes_of(slot.row()) == bytes;
        let again = |slot: &S| slot.hash().unwrap_or_else(|| hash(bytes_of(slot.row())).1);
        match self.segments[segment].get_mut().entry(whole, same, again) {
            Entry::Occupied(known) => Some(known.get().row()),
            Entry::Vacant(free) => {
                free.insert(S::new(row, whole));
                None
            }
        }
    }

    /// Takes a row out.
    pub(crate) fn remove(&mut self, bytes: &[u8; 16], row: u32) {
        let (segment, hash) = hash(bytes);
        let table = self.segments[segment].get_mut();
        if let Ok(entry) = table.find_entry(hash, |slot| slot.row() == row) {
            entry.remove();
        }
    }

    /// A copy that shares every segment.
    pub(crate) fn share(&mut self) -> Index<S> {
        Index { segments: self.segments.iter_mut().map(Shared::share).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread<S: Slot>() {
        let mut rows: Vec<[u8; 16]> = Vec::new();
        let mut index: Index<S> = Index::default();
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
        index.remove(&rows[9], 9);
        assert_eq!(index.find(&rows[9], |row| &rows[row as usize]), None);
    }

    #[test]
    fn regular_ids_spread_over_segments() {
        spread::<u32>();
        spread::<Hashed>();
    }
}
