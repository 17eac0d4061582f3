//! Which node served a prompt's beginning last: it may still have it in its cache. Only ever decides among equals.

use std::collections::{HashMap, VecDeque};

/// Beginnings that are remembered; the oldest is forgotten first.
pub const PREFIXES_MAX: usize = 65_536;

/// See the module. Nodes are slots of the table, models its rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Affinity {
    nodes: HashMap<(u64, u32), u32>,
    order: VecDeque<(u64, u32)>,
}

impl Affinity {
    /// A node was given a prompt that begins so.
    pub fn note(&mut self, prefix: u64, model: u32, slot: u32) {
        if self.nodes.insert((prefix, model), slot).is_some() {
            return;
        }
        self.order.push_back((prefix, model));
        if self.order.len() > PREFIXES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.nodes.remove(&oldest);
        }
    }

    /// The node that had it last.
    pub fn find(&self, prefix: u64, model: u32) -> Option<u32> {
        self.nodes.get(&(prefix, model)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_node_counts_and_memory_is_bounded() {
        let mut affinity = Affinity::default();
        affinity.note(1, 0, 5);
        affinity.note(1, 0, 6);
        assert_eq!((affinity.find(1, 0), affinity.find(1, 1)), (Some(6), None));
        for prefix in 2..=PREFIXES_MAX as u64 + 1 {
            affinity.note(prefix, 0, 7);
        }
        assert_eq!((affinity.find(1, 0), affinity.nodes.len()), (None, PREFIXES_MAX));
    }
}
