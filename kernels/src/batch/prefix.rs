//! Full pages kept for jobs that begin with the same tokens. Safe because the bits of a page depend on the tokens alone (K),
//! never on how or in whose company they were made. The oldest use goes first.

use crate::kv::{PAGE_POSITIONS, Page};
use std::collections::HashMap;
use std::sync::Arc;

/// Name of a page: a hash of all tokens up to its end.
pub(super) type PageKey = [u8; 32];

pub(super) struct PrefixCache {
    pages: HashMap<PageKey, Kept>,
    pages_max: usize,
    clock: u64,
}

struct Kept {
    page: Arc<Page>,
    used: u64,
}

/// The key of page `index` of `tokens`, after that of the page before.
pub(super) fn page_key(before: Option<&PageKey>, tokens: &[u32], index: usize) -> PageKey {
    let mut hash = blake3::Hasher::new();
    hash.update(before.map_or(&[0; 32], |key| key));
    let own = &tokens[index * PAGE_POSITIONS..(index + 1) * PAGE_POSITIONS];
    hash.update(&own.iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>());
    hash.finalize().into()
}

impl PrefixCache {
    /// Keeps up to `pages_max` pages.
    pub(super) fn new(pages_max: usize) -> PrefixCache {
        PrefixCache { pages: HashMap::new(), pages_max, clock: 0 }
    }

    /// False where nothing is ever kept.
    pub(super) fn is_on(&self) -> bool {
        self.pages_max > 0
    }

    /// Pages kept.
    pub(super) fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// The pages with which `tokens` begin, as far as they are kept, at most `pages_max` of them.
    pub(super) fn find(&mut self, tokens: &[u32], pages_max: usize) -> Vec<Arc<Page>> {
        self.clock += 1;
        let (mut found, mut key) = (Vec::new(), None);
        for index in 0..pages_max {
            let next = page_key(key.as_ref(), tokens, index);
            let Some(kept) = self.pages.get_mut(&next) else { break };
            kept.used = self.clock;
            found.push(Arc::clone(&kept.page));
            key = Some(next);
        }
        found
    }

    /// Keeps a full page.
    pub(super) fn keep(&mut self, key: PageKey, page: Arc<Page>) {
        self.clock += 1;
        self.pages.insert(key, Kept { page, used: self.clock });
        while self.pages.len() > self.pages_max {
            // A page is looked up rarely and the cache is small: a scan is cheaper than a second index.
            let oldest = self.pages.iter().min_by_key(|(_, kept)| kept.used).map(|(key, _)| *key);
            oldest.and_then(|key| self.pages.remove(&key));
        }
    }
}
