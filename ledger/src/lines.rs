//! Tables from 16 long bytes to row numbers, for rows that come and go by the million: a look-up that finds nothing reads
//! one cache line. Many small tables instead of one, so that growing one never pauses; the hash is fixed and the order of
//! a table is never observable. Must not: hold the bytes themselves (the rows do).

use crate::index::mix;
use crate::slab::Shared;

const SEGMENTS: usize = 1 << SEGMENT_BITS;
const SEGMENT_BITS: u32 = 8;
/// Rows of one line.
const PLACES: usize = 7;
/// A table grows when it has more rows than this many for each of its lines.
const FILLED_MAX: usize = 6;
/// Set in every tag, so that 0 is a free place and no tag is a count.
const TAKEN: u32 = 1 << 31;

/// One cache line: seven rows and a half of each one's hash.
#[derive(Clone, Debug, Default)]
#[repr(align(64))]
struct Line {
    /// Half a hash for each place, 0 when it is free; the last counts rows that belong here and stand further on.
    tags: [u32; 8],
    rows: [u32; 8],
}

const _: () = assert!(std::mem::size_of::<Line>() == 64);

impl Line {
    /// One bit for each place with this tag.
    #[inline(always)]
    fn places_of(&self, tag: u32) -> u32 {
        let mut places = 0;
        for (place, known) in self.tags.iter().enumerate() {
            places |= u32::from(*known == tag) << place;
        }
        places
    }

    fn free_place(&self) -> Option<usize> {
        self.tags[..PLACES].iter().position(|tag| *tag == 0)
    }

    #[inline(always)]
    fn passed(&self) -> u32 {
        self.tags[PLACES]
    }
}

/// One of the many tables; its lines are a power of two, or none.
#[derive(Clone, Debug, Default)]
struct Segment {
    lines: Vec<Line>,
    rows: usize,
}

impl Segment {
    #[inline(always)]
    fn find(&self, tag: u32, same: impl Fn(u32) -> bool) -> Option<u32> {
        let mask = self.lines.len().wrapping_sub(1);
        let first = tag as usize;
        for at in first..first + self.lines.len() {
            let line = &self.lines[at & mask];
            let mut places = line.places_of(tag);
            while places != 0 {
                let row = line.rows[places.trailing_zeros() as usize];
                if same(row) {
                    return Some(row);
                }
                places &= places - 1;
            }
            if line.passed() == 0 {
                return None;
            }
        }
        None
    }

    #[inline]
    fn add(&mut self, tag: u32, row: u32) {
        if self.rows >= self.lines.len() * FILLED_MAX {
            self.grow();
        }
        self.rows += 1;
        self.put(tag, row);
    }

    #[inline(always)]
    fn put(&mut self, tag: u32, row: u32) {
        let mask = self.lines.len() - 1;
        let mut at = tag as usize;
        loop {
            let line = &mut self.lines[at & mask];
            if let Some(place) = line.free_place() {
                (line.tags[place], line.rows[place]) = (tag, row);
                return;
            }
            line.tags[PLACES] += 1;
            at += 1;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let lines = vec![Line::default(); (self.lines.len() * 2).max(1)];
        for line in std::mem::replace(&mut self.lines, lines) {
            for (tag, row) in line.tags[..PLACES].iter().zip(line.rows) {
                if *tag != 0 {
                    self.put(*tag, row);
                }
            }
        }
    }

    fn remove(&mut self, tag: u32, row: u32) {
        let mask = self.lines.len().wrapping_sub(1);
        for passed in 0..self.lines.len() {
            let line = &mut self.lines[(tag as usize + passed) & mask];
            let here = (0..PLACES).find(|place| (line.tags[*place], line.rows[*place]) == (tag, row));
            if let Some(place) = here {
                line.tags[place] = 0;
                self.rows -= 1;
                for before in 0..passed {
                    self.lines[(tag as usize + before) & mask].tags[PLACES] -= 1;
                }
                return;
            }
            if line.passed() == 0 {
                return;
            }
        }
    }
}

/// Row numbers by the hash of what the rows are called.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    segments: Vec<Shared<Segment>>,
}

impl Default for Lines {
    fn default() -> Lines {
        Lines { segments: (0..SEGMENTS).map(|_| Shared::default()).collect() }
    }
}

/// The upper bits of the hash choose the table, the lower ones the line and the tag.
#[inline]
fn place(bytes: &[u8; 16]) -> (usize, u32) {
    let mixed = mix(bytes);
    ((mixed >> (64 - SEGMENT_BITS)) as usize, mixed as u32 | TAKEN)
}

impl Lines {
    /// The row whose bytes are these, if any; `is` tells whether a row is the one.
    #[inline]
    pub(crate) fn find(&self, bytes: &[u8; 16], is: impl Fn(u32) -> bool) -> Option<u32> {
        let (segment, tag) = place(bytes);
        self.segments[segment].get().find(tag, is)
    }

    /// Adds a row unless the bytes are there; gives the row that is. `is` need not know the new row.
    #[inline]
    pub(crate) fn insert(&mut self, bytes: &[u8; 16], row: u32, is: impl Fn(u32) -> bool) -> Option<u32> {
        let (segment, tag) = place(bytes);
        let segment = self.segments[segment].get_mut();
        let known = segment.find(tag, is);
        if known.is_none() {
            segment.add(tag, row);
        }
        known
    }

    /// Adds many rows at once to tables that are empty: one table after the other, so that each stays near the processor
    /// while it is filled. `same` tells whether two rows have the same bytes; false when some have.
    pub(crate) fn fill<'a>(
        &mut self,
        rows: impl Iterator<Item = (u32, &'a [u8; 16])> + Clone,
        same: impl Fn(u32, u32) -> bool,
    ) -> bool {
        let mut ends = [0usize; SEGMENTS];
        rows.clone().for_each(|(_, bytes)| ends[place(bytes).0] += 1);
        let counts = ends;
        let mut all = 0;
        for end in &mut ends {
            all += *end;
            *end = all - *end;
        }
        let mut sorted = vec![(0, 0); all];
        for (row, bytes) in rows {
            let (segment, tag) = place(bytes);
            sorted[ends[segment]] = (tag, row);
            ends[segment] += 1;
        }
        let mut start = 0;
        for (segment, count) in self.segments.iter_mut().zip(counts) {
            let segment = segment.get_mut();
            segment.lines = vec![Line::default(); (count / FILLED_MAX + 1).next_power_of_two()];
            for (tag, row) in &sorted[start..start + count] {
                if segment.find(*tag, |known| same(known, *row)).is_some() {
                    return false;
                }
                segment.add(*tag, *row);
            }
            start += count;
        }
        true
    }

    /// Takes a row out.
    pub(crate) fn remove(&mut self, bytes: &[u8; 16], row: u32) {
        let (segment, tag) = place(bytes);
        self.segments[segment].get_mut().remove(tag, row);
    }

    /// Reads the line where these bytes would be, so that the next look-up need not wait for it. What it gives means
    /// nothing.
    #[inline]
    pub(crate) fn touch(&self, bytes: &[u8; 16]) -> u32 {
        let (segment, tag) = place(bytes);
        let lines = &self.segments[segment].get().lines;
        let line = lines.get(tag as usize & lines.len().wrapping_sub(1));
        line.map_or(0, Line::passed)
    }

    /// A copy that shares every table.
    pub(crate) fn share(&mut self) -> Lines {
        Lines { segments: self.segments.iter_mut().map(Shared::share).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Regular names, as test worlds have them.
    fn name(n: u32) -> [u8; 16] {
        let mut bytes = [7; 16];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        bytes
    }

    #[test]
    fn regular_names_spread() {
        let mut lines = Lines::default();
        for n in 0..50_000 {
            assert_eq!(lines.insert(&name(n), n, |row| row == n), None);
        }
        let longest = lines.segments.iter().map(|segment| segment.get().rows).max().unwrap();
        assert!(longest < 300, "{longest} of 50000 in one of {SEGMENTS} tables");
        let away = |segment: &Segment| segment.lines.iter().map(|line| line.passed() as usize).sum::<usize>();
        let away: usize = lines.segments.iter().map(|segment| away(segment.get())).sum();
        assert!(away < 10_000, "{away} of 50000 rows stand beyond their line");
    }

    #[test]
    fn filled_at_once_they_are_the_same() {
        let names: Vec<[u8; 16]> = (0..50_000).map(name).collect();
        let same = |names: &[[u8; 16]], one: u32, other: u32| names[one as usize] == names[other as usize];
        let mut lines = Lines::default();
        assert!(lines.fill((0..).zip(&names), |one, other| same(&names, one, other)));
        for (n, bytes) in names.iter().enumerate() {
            assert_eq!(lines.find(bytes, |row| names[row as usize] == *bytes), Some(n as u32));
        }
        assert_eq!(lines.find(&name(50_000), |_| true), None);
        let twice: Vec<[u8; 16]> = names.iter().chain(&names[7..8]).copied().collect();
        assert!(!Lines::default().fill((0..).zip(&twice), |one, other| same(&twice, one, other)));
    }

    proptest! {
        /// Tables are a map, whatever the tags: here many rows share a few of them.
        #[test]
        fn a_table_is_a_map(ops in prop::collection::vec((0u32..3, 0u32..40), 0..400)) {
            let (mut segment, mut map) = (Segment::default(), BTreeMap::new());
            for (op, n) in ops {
                let tag = TAKEN | (n % 5);
                let known = segment.find(tag, |row| row == n);
                prop_assert_eq!(known.is_some(), map.contains_key(&n));
                match op {
                    0 => {
                        segment.remove(tag, n);
                        map.remove(&n);
                    }
                    _ if known.is_none() => {
                        segment.add(tag, n);
                        map.insert(n, tag);
                    }
                    _ => {}
                }
                prop_assert_eq!(segment.rows, map.len());
                for (n, tag) in &map {
                    prop_assert_eq!(segment.find(*tag, |row| row == *n), Some(*n));
                }
            }
            for (n, tag) in map {
                segment.remove(tag, n);
            }
            prop_assert!(segment.lines.iter().all(|line| line.tags == [0; 8]));
        }
    }
}
