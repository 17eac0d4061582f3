//! Rows in blocks of fixed size under dense numbers: growing never copies what is there, and a copy of the whole is
//! made by sharing blocks, which are copied one by one when they are next written. Must not: know what the rows mean.

use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};
use std::collections::VecDeque;
use std::sync::Arc;

/// Rows of one block: a block is small enough to be copied in far less than a millisecond.
const BLOCK_ROWS: usize = 1 << BLOCK_BITS;
const BLOCK_BITS: u32 = 9;

/// A value that is ours, or one that a copy shares with us until one of the two writes.
#[derive(Clone, Debug)]
pub(crate) enum Shared<T> {
    Own(T),
    Both(Arc<T>),
}

impl<T: Default> Default for Shared<T> {
    fn default() -> Shared<T> {
        Shared::Own(T::default())
    }
}

impl<T: Clone + Default> Shared<T> {
    #[inline]
    pub(crate) fn get(&self) -> &T {
        match self {
            Shared::Own(value) => value,
            Shared::Both(value) => value,
        }
    }

    #[inline(always)]
    pub(crate) fn get_mut(&mut self) -> &mut T {
        if let Shared::Both(_) = self {
            self.make_own();
        }
        match self {
            Shared::Own(value) => value,
            Shared::Both(_) => unreachable!("it was made ours just now"),
        }
    }

    #[cold]
    fn make_own(&mut self) {
        if let Shared::Both(value) = self {
            let value = std::mem::take(value);
            *self = Shared::Own(Arc::try_unwrap(value).unwrap_or_else(|value| T::clone(&value)));
        }
    }

    /// A copy that shares the value.
    pub(crate) fn share(&mut self) -> Shared<T> {
        if let Shared::Own(value) = self {
            *self = Shared::Both(Arc::new(std::mem::take(value)));
        }
        self.clone()
    }
}

/// Rows 0, 1, 2 ... that are only ever added.
#[derive(Clone, Debug)]
pub(crate) struct Slab<T> {
    blocks: Vec<Shared<Vec<T>>>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { blocks: Vec::new(), len: 0 }
    }
}

impl<T: Clone> Slab<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn get(&self, at: u32) -> Option<&T> {
        let block = self.blocks.get((at >> BLOCK_BITS) as usize)?;
        block.get().get(at as usize & (BLOCK_ROWS - 1))
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        let block = self.blocks.get_mut((at >> BLOCK_BITS) as usize)?;
        block.get_mut().get_mut(at as usize & (BLOCK_ROWS - 1))
    }

    /// Adds a row; its number is the length before.
    pub(crate) fn push(&mut self, row: T) {
        if self.len.is_multiple_of(BLOCK_ROWS) {
            // The first block grows as it needs; the others are filled for sure.
            let rows = if self.len == 0 { 4 } else { BLOCK_ROWS };
            self.blocks.push(Shared::Own(Vec::with_capacity(rows)));
        }
        self.blocks.last_mut().expect("a block was added for the row").get_mut().push(row);
        self.len += 1;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.blocks.iter().flat_map(|block| block.get())
    }

    /// A copy that shares every block.
    pub(crate) fn share(&mut self) -> Slab<T> {
        Slab { blocks: self.blocks.iter_mut().map(Shared::share).collect(), len: self.len }
    }
}

impl<T: Clone> std::ops::Index<u32> for Slab<T> {
    type Output = T;
    fn index(&self, at: u32) -> &T {
        self.get(at).expect("row numbers come from this slab")
    }
}

impl<C, T: Encode<C> + Clone> Encode<C> for Slab<T> {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, c: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.array(self.len as u64)?;
        self.iter().try_for_each(|row| row.encode(e, c))
    }
}

impl<'b, C, T: Decode<'b, C> + Clone> Decode<'b, C> for Slab<T> {
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Slab<T>, DecodeError> {
        let mut slab = Slab::default();
        for _ in 0..definite(d)? {
            slab.push(T::decode(d, c)?);
        }
        Ok(slab)
    }
}

/// The length of an array; our own bytes always say it.
pub(crate) fn definite(d: &mut Decoder) -> Result<u64, DecodeError> {
    let at = d.position();
    d.array()?.ok_or_else(|| DecodeError::message("expected an array of definite length").at(at))
}

/// Rows in the order they came, the oldest leave first; numbered from the first there ever was.
#[derive(Clone, Debug)]
pub(crate) struct Queue<T> {
    blocks: VecDeque<Shared<Vec<T>>>,
    /// Number of the first row that is still here.
    first: u64,
    /// Number the next row gets.
    next: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { blocks: VecDeque::new(), first: 0, next: 0 }
    }
}

impl<T: Clone> Queue<T> {
    pub(crate) fn len(&self) -> u64 {
        self.next - self.first
    }

    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The block of a row, among those that are left.
    fn block(&self, at: u64) -> usize {
        ((at >> BLOCK_BITS) - (self.first >> BLOCK_BITS)) as usize
    }

    pub(crate) fn get(&self, at: u64) -> Option<&T> {
        let here = (self.first..self.next).contains(&at);
        here.then(|| &self.blocks[self.block(at)].get()[at as usize & (BLOCK_ROWS - 1)])
    }

    pub(crate) fn get_mut(&mut self, at: u64) -> Option<&mut T> {
        if !(self.first..self.next).contains(&at) {
            return None;
        }
        let block = self.block(at);
        Some(&mut self.blocks[block].get_mut()[at as usize & (BLOCK_ROWS - 1)])
    }

    /// The newest row.
    #[inline]
    pub(crate) fn last(&self) -> Option<&T> {
        self.blocks.back()?.get().last()
    }

    /// The newest row, to be written.
    #[inline]
    pub(crate) fn last_mut(&mut self) -> Option<&mut T> {
        self.blocks.back_mut()?.get_mut().last_mut()
    }

    /// Adds a row and gives its number.
    #[inline]
    pub(crate) fn push(&mut self, row: T) -> u64 {
        let at = self.next;
        if self.blocks.is_empty() || (at as usize).is_multiple_of(BLOCK_ROWS) {
            // The first block of all grows as it needs; the others are filled for sure.
            let rows = if at == 0 { 4 } else { BLOCK_ROWS };
            self.blocks.push_back(Shared::Own(Vec::with_capacity(rows)));
        }
        self.blocks.back_mut().expect("a block was added for the row").get_mut().push(row);
        self.next += 1;
        at
    }

    /// Lets the oldest row go.
    pub(crate) fn pop(&mut self) {
        assert!(self.first < self.next, "only what is there leaves");
        self.first += 1;
        if self.first == self.next {
            // A new block begins a new count, so that its rows lie from its start.
            self.blocks.clear();
            self.first = self.first.next_multiple_of(BLOCK_ROWS as u64);
            self.next = self.first;
        } else if (self.first as usize).is_multiple_of(BLOCK_ROWS) {
            self.blocks.pop_front();
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        // What left stands in the oldest block until the block leaves.
        let left = self.first as usize & (BLOCK_ROWS - 1);
        self.blocks.iter().flat_map(|block| block.get()).skip(left)
    }

    /// A copy that shares every block.
    pub(crate) fn share(&mut self) -> Queue<T> {
        let blocks = self.blocks.iter_mut().map(Shared::share).collect();
        Queue { blocks, first: self.first, next: self.next }
    }
}

impl<C, T: Encode<C> + Clone> Encode<C> for Queue<T> {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, c: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.array(self.len())?;
        self.iter().try_for_each(|row| row.encode(e, c))
    }
}

impl<'b, C, T: Decode<'b, C> + Clone> Decode<'b, C> for Queue<T> {
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Queue<T>, DecodeError> {
        let mut queue = Queue::default();
        for _ in 0..definite(d)? {
            queue.push(T::decode(d, c)?);
        }
        Ok(queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_queue_is_a_queue(ops in prop::collection::vec(0u32..3, 0..5_000)) {
            let (mut queue, mut plain) = (Queue::default(), VecDeque::new());
            for (n, op) in ops.iter().enumerate() {
                if *op == 0 && !plain.is_empty() {
                    queue.pop();
                    plain.pop_front();
                } else {
                    let at = queue.push(n);
                    prop_assert_eq!(queue.get(at), Some(&n));
                    plain.push_back(n);
                }
                prop_assert_eq!(queue.get(queue.first()), plain.front());
                prop_assert_eq!(queue.last(), plain.back());
                prop_assert_eq!(queue.last_mut(), plain.back_mut());
            }
            prop_assert!(queue.iter().eq(plain.iter()));
        }
    }

    #[test]
    fn a_shared_copy_stays_as_it_was() {
        let mut slab = Slab::default();
        (0..3 * BLOCK_ROWS).for_each(|n| slab.push(n));
        let copy = slab.share();
        *slab.get_mut(5).unwrap() = 99;
        slab.push(7);
        assert_eq!((slab[5], copy[5]), (99, 5));
        assert_eq!((slab.len(), copy.len()), (3 * BLOCK_ROWS + 1, 3 * BLOCK_ROWS));
        assert!(copy.iter().copied().eq(0..3 * BLOCK_ROWS));
    }
}
