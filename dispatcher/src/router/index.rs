//! The nodes of one model that may take a job now, by their load: the least loaded are found without looking at the others.
//! Must not: rules; who may stand here is the table's business.

use std::collections::BTreeMap;

/// Binary digits of a load's fraction. Two different fractions with denominators up to [`CAPACITY_MAX`] differ by at least
/// `1 / CAPACITY_MAX²` = 2^-24, so their loads differ too: the order is exact.
const LOAD_BITS: u32 = 24;
/// Most jobs at once of one node.
pub const CAPACITY_MAX: u32 = 4_096;

/// In flight over capacity, as a number that orders exactly.
pub fn load(inflight: u32, capacity: u32) -> u32 {
    let capacity = u64::from(capacity.clamp(1, CAPACITY_MAX));
    u32::try_from((u64::from(inflight) << LOAD_BITS) / capacity).unwrap_or(u32::MAX)
}

/// Where a node stands in an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// Its load.
    pub load: u32,
    /// Its position among those of that load.
    pub at: u32,
}

/// See the module. Nodes are slots of the table.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    levels: BTreeMap<u32, Vec<u32>>,
    /// Emptied lists, for the next level that comes up.
    spare: Vec<Vec<u32>>,
}

impl Index {
    /// Puts a node in.
    pub fn insert(&mut self, slot: u32, load: u32) -> Place {
        let level = self.levels.entry(load).or_insert_with(|| self.spare.pop().unwrap_or_default());
        level.push(slot);
        Place { load, at: (level.len() - 1) as u32 }
    }

    /// Takes a node out; returns the node that took its place, if one did.
    pub fn remove(&mut self, place: Place) -> Option<u32> {
        let level = self.levels.get_mut(&place.load).expect("a placed node's level is there");
        level.swap_remove(place.at as usize);
        let moved = level.get(place.at as usize).copied();
        if level.is_empty()
            && let Some(empty) = self.levels.remove(&place.load)
        {
            self.spare.push(empty);
        }
        moved
    }

    /// Levels from the least loaded on.
    pub fn levels(&self) -> impl Iterator<Item = &[u32]> {
        self.levels.values().map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_fractions_have_different_loads() {
        let near = [(1, 4_096, 1, 4_095), (2_047, 4_095, 2_048, 4_096), (4_094, 4_095, 4_095, 4_096)];
        for (a, b, c, d) in near {
            assert_ne!(load(a, b), load(c, d), "{a}/{b} and {c}/{d}");
        }
        assert_eq!(load(1, 2), load(2_048, 4_096));
        assert!(load(1, 3) < load(2, 5) && load(0, 1) < load(1, 4_096));
    }

    #[test]
    fn the_last_takes_the_place_of_the_one_that_leaves() {
        let mut index = Index::default();
        let first = index.insert(7, 5);
        index.insert(8, 5);
        assert_eq!(index.levels().next(), Some(&[7, 8][..]));
        assert_eq!(index.remove(first), Some(8));
        assert_eq!(index.remove(first), None);
        assert_eq!(index.levels().next(), None);
        index.insert(9, 3);
        index.insert(7, 4);
        assert_eq!(index.levels().flatten().copied().collect::<Vec<_>>(), [9, 7]);
    }
}
