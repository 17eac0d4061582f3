//! Memory of a model's weights: one anonymous mapping, in the order in which a token reads them, on large pages where the
//! system has them. Small pages cost a decoding thread a table walk every 4 KiB. No knowledge of matrices.

use memmap2::MmapMut;
use std::alloc::{Layout, handle_alloc_error};
use std::sync::Arc;

/// Every part starts on a cache line.
const LINE: usize = 64;

/// Zeroed memory that is handed out from its start.
pub(crate) struct Arena {
    mapping: Arc<Mapping>,
    length: usize,
    used: usize,
}

struct Mapping {
    base: *mut u8,
    /// Keeps `base` alive.
    _memory: MmapMut,
}

// SAFETY: the memory is reached through `Part`s alone, which do not overlap and follow Rust's rules of borrowing.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// Some of the arena's memory, owned.
pub(crate) struct Part {
    mapping: Arc<Mapping>,
    start: usize,
    length: usize,
}

impl Arena {
    /// Room for `bytes` bytes; pages are taken as they are first written. As with every allocation, a system without memory
    /// ends the process.
    pub(crate) fn new(bytes: usize) -> Arena {
        let mut memory = MmapMut::map_anon(bytes.max(1)).unwrap_or_else(|_| {
            handle_alloc_error(Layout::from_size_align(bytes, LINE).unwrap_or(Layout::new::<u8>()))
        });
        // A system without large pages says no, and small ones do.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        let base = memory.as_mut_ptr();
        Arena { mapping: Arc::new(Mapping { base, _memory: memory }), length: bytes, used: 0 }
    }

    /// The next `bytes` bytes, a multiple of 64.
    pub(crate) fn take(&mut self, bytes: usize) -> Part {
        assert!(bytes.is_multiple_of(LINE), "{bytes} bytes are no whole lines");
        let start = self.used;
        self.used += bytes;
        assert!(self.used <= self.length, "{} bytes of an arena of {}", self.used, self.length);
        Part { mapping: Arc::clone(&self.mapping), start, length: bytes }
    }
}

impl Part {
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: inside the mapping, which lives as long as we do; zeroed by the system, so initialised; only this part
        // reaches these bytes, and writing needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.mapping.base.add(self.start), self.length) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; the borrow of `self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.mapping.base.add(self.start), self.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_zeroed_aligned_and_apart() {
        let mut arena = Arena::new(192);
        let (mut a, b) = (arena.take(64), arena.take(128));
        a.bytes_mut().fill(7);
        drop(arena);
        assert!(a.bytes().iter().all(|byte| *byte == 7));
        assert_eq!(b.bytes(), [0; 128]);
        assert!((b.bytes().as_ptr() as usize).is_multiple_of(LINE));
    }

    #[test]
    #[should_panic(expected = "of an arena of 64")]
    fn no_part_reaches_beyond_the_end() {
        Arena::new(64).take(128);
    }
}
