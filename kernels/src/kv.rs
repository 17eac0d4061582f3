//! Keys and values of one sequence (E): f16, in pages of 64 positions that hold all layers. A page is the attention tile. Which
//! page belongs to which job is the engine's matter; nothing here knows of jobs.

use crate::numerics::SharedSlice;
use std::sync::Arc;

/// Positions of a page, keys of an attention tile.
pub(crate) const PAGE_POSITIONS: usize = 64;

/// Shape of a page. Layout: `[layer][kv head][ K: head_dim x 64 positions | V: 64 positions x head_dim ]`, u16 bit patterns of f16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KvShape {
    pub layers: usize,
    pub heads: usize,
    pub head_dim: usize,
}

impl KvShape {
    /// Elements of K, or of V, of one head in one page.
    pub(crate) fn tile(self) -> usize {
        PAGE_POSITIONS * self.head_dim
    }

    /// Elements of a page.
    pub(crate) fn page(self) -> usize {
        self.layers * self.heads * 2 * self.tile()
    }

    fn head_offset(self, layer: usize, head: usize) -> usize {
        (layer * self.heads + head) * 2 * self.tile()
    }
}

/// Zeroed or recycled memory for 64 positions.
pub(crate) type Page = Box<[u16]>;

/// A page of a sequence: its own, or full and shared with others.
enum Slot {
    Own(Page),
    Full(Arc<Page>),
}

/// The pages of one sequence, in order of position. Full pages that are shared come first.
pub(crate) struct KvCache {
    shape: KvShape,
    pages: Vec<Slot>,
}

impl KvCache {
    pub(crate) fn new(shape: KvShape) -> KvCache {
        KvCache { shape, pages: Vec::new() }
    }

    /// Makes room for positions below `positions`, taking pages from `free` first.
    pub(crate) fn grow(&mut self, positions: usize, free: &mut Vec<Page>) {
        while self.pages.len() * PAGE_POSITIONS < positions {
            let page = free.pop().unwrap_or_else(|| vec![0; self.shape.page()].into_boxed_slice());
            self.pages.push(Slot::Own(page));
        }
    }

    /// Begins with a full page of another sequence with the same tokens. Only before the first position of its own.
    pub(crate) fn adopt(&mut self, page: Arc<Page>) {
        assert!(self.pages.iter().all(|p| matches!(p, Slot::Full(_))), "shared pages come first");
        self.pages.push(Slot::Full(page));
    }

    /// Shares a page all of whose positions are stored; nothing can be stored into it any more.
    pub(crate) fn share(&mut self, page: usize) -> Arc<Page> {
        let slot = &mut self.pages[page];
        if let Slot::Own(own) = slot {
            *slot = Slot::Full(Arc::new(std::mem::take(own)));
        }
        match slot {
            Slot::Full(page) => Arc::clone(page),
            Slot::Own(_) => unreachable!("made full above"),
        }
    }

    /// Gives all pages back; those that others hold too stay theirs.
    pub(crate) fn release(&mut self, free: &mut Vec<Page>) {
        free.extend(self.pages.drain(..).filter_map(|slot| match slot {
            Slot::Own(page) => Some(page),
            Slot::Full(page) => Arc::into_inner(page),
        }));
    }

    /// Pages held.
    pub(crate) fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// Key and value rows of a position of a layer, head after head, as f16 bits: `heads * head_dim` each.
    pub(crate) fn position(&self, layer: usize, position: usize) -> (Vec<u16>, Vec<u16>) {
        let page: &[u16] = match &self.pages[position / PAGE_POSITIONS] {
            Slot::Own(page) => page,
            Slot::Full(page) => page,
        };
        let (slot, dim, tile) = (position % PAGE_POSITIONS, self.shape.head_dim, self.shape.tile());
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for head in 0..self.shape.heads {
            let start = self.shape.head_offset(layer, head);
            keys.extend((0..dim).map(|d| page[start + d * PAGE_POSITIONS + slot]));
            values.extend_from_slice(&page[start + tile + slot * dim..][..dim]);
        }
        (keys, values)
    }

    /// All layers of a page, in the layout of [`KvShape`].
    pub(crate) fn page(&self, page: usize) -> &[u16] {
        match &self.pages[page] {
            Slot::Own(page) => page,
            Slot::Full(page) => page,
        }
    }

    /// Keys and values of one layer of a page, in the layout of [`KvShape`].
    pub(crate) fn layer(&self, layer: usize, page: usize) -> &[u16] {
        let page: &[u16] = match &self.pages[page] {
            Slot::Own(page) => page,
            Slot::Full(page) => page,
        };
        &page[self.shape.head_offset(layer, 0)..self.shape.head_offset(layer + 1, 0)]
    }

    /// The cache as several threads use it: they write positions of their own, then, after a barrier, read all.
    pub(crate) fn shared(&mut self) -> SharedKv<'_> {
        let full = self.pages.iter().take_while(|slot| matches!(slot, Slot::Full(_))).count();
        let pages = self.pages.iter_mut().map(|slot| match slot {
            Slot::Own(page) => SharedSlice::new(page),
            Slot::Full(page) => SharedSlice::read_only(page),
        });
        SharedKv { shape: self.shape, full, pages: pages.collect() }
    }
}

/// A [`KvCache`] during one forward pass.
pub(crate) struct SharedKv<'a> {
    shape: KvShape,
    /// Pages that are only read.
    full: usize,
    pages: Vec<SharedSlice<'a, u16>>,
}

impl SharedKv<'_> {
    /// Stores the key and the value of one head at `position`; `key` and `value` hold head_dim elements.
    ///
    /// # Safety
    /// No other thread stores this layer, head and position, and none reads this layer, during the call.
    pub(crate) unsafe fn store(
        &self,
        layer: usize,
        head: usize,
        position: usize,
        key: &[u16],
        value: &[u16],
    ) {
        assert!(position / PAGE_POSITIONS >= self.full, "a shared page is stored into");
        let page = &self.pages[position / PAGE_POSITIONS];
        let (slot, dim) = (position % PAGE_POSITIONS, self.shape.head_dim);
        let start = self.shape.head_offset(layer, head);
        for (d, bits) in key.iter().enumerate().take(dim) {
            let at = start + d * PAGE_POSITIONS + slot;
            // SAFETY: one element, this position's own, by the contract.
            unsafe { page.range(at..at + 1)[0] = *bits };
        }
        let at = start + self.shape.tile() + slot * dim;
        // SAFETY: the row of this position, by the contract.
        unsafe { page.range(at..at + dim).copy_from_slice(value) };
    }

    /// One head of one layer, for reading.
    ///
    /// # Safety
    /// No thread stores into this layer while the result lives.
    pub(crate) unsafe fn head(&self, layer: usize, head: usize) -> KvHead<'_> {
        KvHead { pages: &self.pages, offset: self.shape.head_offset(layer, head), tile: self.shape.tile() }
    }
}

/// Keys and values of one head of one layer.
#[derive(Clone, Copy)]
pub(crate) struct KvHead<'a> {
    pages: &'a [SharedSlice<'a, u16>],
    offset: usize,
    tile: usize,
}

impl<'a> KvHead<'a> {
    /// K `[head_dim][64]` and V `[64][head_dim]` of page `page`.
    pub(crate) fn tiles(&self, page: usize) -> (&'a [u16], &'a [u16]) {
        let page = &self.pages[page];
        // SAFETY: `SharedKv::head` was promised that nobody stores into this layer while we live; reads may overlap.
        let both = unsafe { page.read(self.offset..self.offset + 2 * self.tile) };
        both.split_at(self.tile)
    }
}
