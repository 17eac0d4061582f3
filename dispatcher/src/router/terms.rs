//! What the table is asked and what it answers: options, a node's declaration, a pick, the chosen node, a report, the records
//! that outlive a process. Must not: rules.

use super::health::{Day, WEIGHT_ONE};
use super::lanes::Lane;
use super::reason::{REASONS, Rule};
use protocol::id::{AccountId, NodeId, OperatorId, SealingKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How nodes of the same load are drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteBy {
    /// By the fourth power of their share of good ends.
    Score,
    /// By that share itself, in which time online counts.
    Availability,
}

/// The rules of a network. Without defaults: a network says what it wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableOptions {
    /// How equals are drawn.
    pub route_by: RouteBy,
    /// Part of the declared slots that is used, millionths.
    pub capacity_ppm: u64,
    /// Where a newcomer's week begins, millionths; [`WEIGHT_ONE`] leaves it out.
    pub ramp_start_ppm: u64,
    /// Part of a model's capacity that is kept for the dedicated lane, millionths.
    pub dedicated_reserve_ppm: u64,
    /// The network's own hardware, by operator: serves when no operator's node can.
    pub fallback: BTreeMap<OperatorId, Pool>,
}

impl TableOptions {
    /// A network that trusts everybody from the first day and keeps nothing back.
    pub fn open() -> TableOptions {
        TableOptions {
            route_by: RouteBy::Score,
            capacity_ppm: WEIGHT_ONE,
            ramp_start_ppm: WEIGHT_ONE,
            dedicated_reserve_ppm: 0,
            fallback: BTreeMap::new(),
        }
    }
}

/// Which nodes are asked first, second, third.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// Everybody's.
    Operators,
    /// The project's accelerators.
    Accelerator,
    /// The server's own processor.
    Processor,
    /// Nodes below the speed floor.
    LastResort,
}

/// How many pools there are.
pub(super) const POOLS: usize = 4;

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
    /// Its lane.
    pub lane: Lane,
    /// A hash of the prompt's beginning, to find the node that has it in its cache.
    pub prefix: Option<u64>,
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
    /// By which rule.
    pub rule: Rule,
    /// The lane whose share of the model it uses.
    pub lane: Lane,
    /// Its row and the model's, so that giving it back looks nothing up.
    pub(super) slot: u32,
    pub(super) model: u32,
}

/// How a job ended, for the node's standing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Report {
    /// Verified and delivered.
    Good,
    /// The node's fault, whoever asked.
    Bad,
    /// The node's fault, in a way that a customer could bring about on purpose: counts once a customer, operator and window.
    BadFor(AccountId),
    /// It had said that it had a slot, and was busy.
    Busy,
    /// Its answer came out different when it was run again: its operator gets no more jobs.
    Refuted,
    /// Says nothing about the node: a cancel, a caller's mistake.
    Neutral,
}

/// What was decided so far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Decisions {
    /// Jobs given out, by rule in the order of [`Rule::ALL`].
    pub chosen: [u64; Rule::ALL.len()],
    /// Jobs for which there was no node, by reason in the order of [`Reason::ALL`].
    pub refused: [u64; REASONS],
}

impl Decisions {
    /// Part of the jobs that the network's own hardware served, millionths.
    pub fn fallback_ppm(&self) -> u64 {
        let all: u64 = self.chosen.iter().sum();
        let own = Rule::ALL.iter().zip(self.chosen).filter(|(rule, _)| rule.is_fallback());
        own.map(|(_, count)| count).sum::<u64>() * WEIGHT_ONE / all.max(1)
    }
}

/// What is kept of an operator.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OperatorRecord {
    /// Who.
    pub operator: OperatorId,
    /// First heartbeat of any of its nodes, microseconds UTC.
    pub since_us: u64,
    /// Whether an answer of its came out different when it was run again.
    pub refuted: bool,
    /// Its nodes.
    pub nodes: Vec<NodeRecord>,
}

/// What is kept of a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Which.
    pub node: NodeId,
    /// Days on which jobs of it ended.
    pub days: Vec<Day>,
}

/// What an operator may know about its node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct NodeStanding {
    /// Jobs out.
    pub inflight: u32,
    /// Jobs at once that it may have now.
    pub capacity: u32,
    /// Jobs at once that it declared.
    pub declared: u32,
    /// Part of them that its operator's first week lets it have, millionths.
    pub ramp_ppm: u64,
    /// Share of good ends in fourteen days, millionths.
    pub good_ppm: u64,
    /// Thousandths of a token a second that it sustained; `null` while nothing is known.
    pub tokens_per_ks: Option<u64>,
    /// First heartbeat of any node of its operator, microseconds UTC.
    pub since_us: Option<u64>,
    /// Whether it is everybody's or the network's own.
    pub pool: Pool,
}
