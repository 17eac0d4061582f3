//! The node table of one dispatcher: least loaded by the fraction of capacity in use, chance among equals weighed by
//! health. One owner; time and chance are arguments. A plain scan: an index stands behind the same doors when a network
//! outgrows it.

use super::breaker::{Breaker, Standing};
use super::health::{Health, WEIGHT_ONE};
use super::reason::Reason;
use protocol::id::{NodeId, OperatorId, SealingKey};
use protocol::job_message::{HEARTBEAT_MS, HEARTBEATS_MISSED_MAX, Heartbeat};
use std::collections::BTreeMap;

/// A node without a heartbeat for this long takes nothing.
pub const ALIVE_US: u64 = HEARTBEAT_MS * 1_000 * (HEARTBEATS_MISSED_MAX as u64) + HEARTBEAT_MS * 500;
/// Draws among equals before the first drawn is taken as it is.
const TIE_DRAWS_MAX: u32 = 8;

/// What a node's registration says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeSpec {
    /// The node.
    pub node: NodeId,
    /// Its owner.
    pub operator: OperatorId,
    /// Models it is registered for.
    pub models: Vec<String>,
    /// Declared concurrent jobs.
    pub slots: u32,
    /// Job bodies are sealed to it.
    pub sealing_key: SealingKey,
}

/// What to choose by.
#[derive(Clone, Copy, Debug)]
pub struct Pick<'a> {
    /// The model's name on the rate card.
    pub model: &'a str,
    /// Nodes this request already tried.
    pub tried: &'a [NodeId],
    /// A random number; decides among equals.
    pub draw: u64,
}

/// The node that was chosen; one of its slots is taken until [`Table::release`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chosen {
    /// The node.
    pub node: NodeId,
    /// Its owner.
    pub operator: OperatorId,
    /// Job bodies are sealed to it.
    pub sealing_key: SealingKey,
}

/// How a job ended, for the node's standing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Report {
    /// Verified and delivered.
    Good,
    /// The node's fault.
    Bad,
    /// Says nothing about the node: a cancel, a caller's mistake, a refusal for want of slots.
    Neutral,
}

#[derive(Clone, Debug)]
struct Node {
    spec: NodeSpec,
    inflight: u32,
    seen_us: Option<u64>,
    /// Sequence number of its last heartbeat: it grows while the worker lives.
    beat_seq: Option<u64>,
    /// How often the worker began anew; jobs of an earlier life are lost.
    life: u64,
    loaded: Vec<String>,
    advertised_slots: u32,
    draining: bool,
    breaker: Breaker,
    health: Health,
}

/// All nodes this dispatcher may use.
#[derive(Clone, Debug, Default)]
pub struct Table {
    nodes: BTreeMap<NodeId, Node>,
}

impl Table {
    /// Adds a node, or replaces what it declares; its load and standing stay.
    pub fn register(&mut self, spec: NodeSpec) {
        match self.nodes.get_mut(&spec.node) {
            Some(node) => node.spec = spec,
            None => {
                let node = Node {
                    inflight: 0,
                    seen_us: None,
                    beat_seq: None,
                    life: 0,
                    loaded: Vec::new(),
                    advertised_slots: 0,
                    draining: false,
                    breaker: Breaker::default(),
                    health: Health::default(),
                    spec,
                };
                self.nodes.insert(node.spec.node, node);
            }
        }
    }

    /// Takes a node out for good.
    pub fn retire(&mut self, node: &NodeId) {
        self.nodes.remove(node);
    }

    /// A heartbeat of `operator` came; `false` when no such node of that operator is registered.
    pub fn heartbeat(&mut self, operator: &OperatorId, beat: &Heartbeat, now_us: u64) -> bool {
        match self.nodes.get_mut(&beat.node).filter(|n| n.spec.operator == *operator) {
            Some(node) => {
                node.seen_us = Some(now_us);
                if node.beat_seq.is_some_and(|last| beat.seq <= last) {
                    node.life += 1;
                }
                node.beat_seq = Some(beat.seq);
                node.loaded.clone_from(&beat.models);
                node.advertised_slots = beat.slots;
                node.draining = beat.draining;
                true
            }
            None => false,
        }
    }

    /// Takes a slot of the least loaded eligible node, or says why there is none: the reason nearest to eligible.
    pub fn choose(&mut self, pick: Pick<'_>, now_us: u64) -> Result<Chosen, Reason> {
        let mut equals: Vec<NodeId> = Vec::new();
        let mut best = (1u64, 0u64);
        let mut nearest = Reason::NotRegistered;
        for (id, node) in &self.nodes {
            let reason = node.reason(&pick, now_us);
            if reason != Reason::Eligible {
                nearest = nearer(nearest, reason);
                continue;
            }
            let load = (u64::from(node.inflight), u64::from(node.capacity()));
            // a/b against c/d without a division.
            match (load.0 * best.1.max(1)).cmp(&(best.0 * load.1)) {
                _ if equals.is_empty() => (best, equals) = (load, vec![*id]),
                std::cmp::Ordering::Less => (best, equals) = (load, vec![*id]),
                std::cmp::Ordering::Equal => equals.push(*id),
                std::cmp::Ordering::Greater => {}
            }
        }
        let id = self.draw_among(&equals, pick.draw, now_us).ok_or(nearest)?;
        let node = self.nodes.get_mut(&id).expect("an id just found in the table");
        node.inflight += 1;
        node.breaker.note_dispatch(now_us);
        let NodeSpec { node, operator, sealing_key, .. } = node.spec;
        Ok(Chosen { node, operator, sealing_key })
    }

    /// Gives a slot back.
    pub fn release(&mut self, node: &NodeId) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.inflight = node.inflight.saturating_sub(1);
        }
    }

    /// How the job on that node ended.
    pub fn report(&mut self, node: &NodeId, report: Report, now_us: u64) {
        let Some(node) = self.nodes.get_mut(node) else { return };
        match report {
            Report::Good => {
                node.breaker.note_success();
                node.health.note_good(now_us);
            }
            Report::Bad => {
                node.breaker.note_failure(now_us);
                node.health.note_bad(now_us);
            }
            Report::Neutral => node.breaker.note_neutral(),
        }
    }

    /// Whether its heartbeats come.
    pub fn is_alive(&self, node: &NodeId, now_us: u64) -> bool {
        self.nodes.get(node).is_some_and(|n| n.is_alive(now_us))
    }

    /// The worker's life: another number means that it was started again and has lost what it ran.
    pub fn life(&self, node: &NodeId) -> Option<u64> {
        self.nodes.get(node).map(|n| n.life)
    }

    /// Why a node would or would not get the next job of `model`.
    pub fn why(&self, node: &NodeId, model: &str, now_us: u64) -> Reason {
        let pick = Pick { model, tried: &[], draw: 0 };
        self.nodes.get(node).map_or(Reason::NotRegistered, |n| n.reason(&pick, now_us))
    }

    /// Jobs out at a node.
    pub fn inflight(&self, node: &NodeId) -> u32 {
        self.nodes.get(node).map_or(0, |n| n.inflight)
    }

    /// Nodes that are alive, not leaving, and have a model loaded that they are registered for.
    pub fn online(&self, now_us: u64) -> usize {
        let serves = |n: &&Node| n.spec.models.iter().any(|m| n.loaded.contains(m));
        self.nodes.values().filter(|n| n.is_alive(now_us) && !n.draining).filter(serves).count()
    }

    fn draw_among(&self, equals: &[NodeId], draw: u64, now_us: u64) -> Option<NodeId> {
        let count = equals.len() as u64;
        let first = *equals.get(usize::try_from(draw.checked_rem(count)?).ok()?)?;
        let mut random = draw;
        for _ in 0..TIE_DRAWS_MAX {
            random = next(random);
            let drawn = equals[((random >> 32) % count) as usize];
            let weight = self.nodes.get(&drawn).map_or(0, |n| n.health.weight_ppm(now_us));
            random = next(random);
            if (random >> 32) % WEIGHT_ONE < weight {
                return Some(drawn);
            }
        }
        Some(first)
    }
}

impl Node {
    fn capacity(&self) -> u32 {
        self.spec.slots.min(self.advertised_slots)
    }

    fn is_alive(&self, now_us: u64) -> bool {
        self.seen_us.is_some_and(|seen| now_us < seen.saturating_add(ALIVE_US))
    }

    fn reason(&self, pick: &Pick<'_>, now_us: u64) -> Reason {
        if self.seen_us.is_none() {
            return Reason::NeverSeen;
        }
        if !self.is_alive(now_us) {
            return Reason::HeartbeatMissed;
        }
        if self.draining {
            return Reason::Draining;
        }
        if !self.spec.models.iter().any(|m| m == pick.model) {
            return Reason::ModelNotRegistered;
        }
        if !self.loaded.iter().any(|m| m == pick.model) {
            return Reason::ModelNotLoaded;
        }
        if pick.tried.contains(&self.spec.node) {
            return Reason::Tried;
        }
        match self.breaker.standing(now_us) {
            Standing::Parked { .. } => Reason::Parked,
            Standing::Probing => Reason::Probing,
            Standing::Closed | Standing::ProbeDue if self.inflight >= self.capacity() => Reason::Full,
            Standing::Closed | Standing::ProbeDue => Reason::Eligible,
        }
    }
}

/// The more helpful of two reasons for a refusal: one that passes by itself before one that does not.
fn nearer(a: Reason, b: Reason) -> Reason {
    let rank = |r: Reason| (r.passes_by_itself(), r);
    if rank(b) > rank(a) { b } else { a }
}

/// splitmix64: spreads one random number over several draws.
fn next(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
