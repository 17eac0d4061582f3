//! Nodes like those of a real network: a few large ones, many small ones, newcomers and elders, some parked, four models.

use dispatcher::router::{Lane, NodeSpec, Pick, Report, Table, TableOptions, ramp, table};
use protocol::id::{NodeId, OperatorId, SealingKey};
use protocol::job_message::{Heartbeat, JOB_PROTOCOL};

/// Models of the fleet.
pub const MODELS: [&str; 4] = ["small", "medium", "large", "vision"];
/// Part of the nodes whose operators came today.
const NEWCOMERS_PPM: u64 = 200_000;
const DAY_US: u64 = 86_400_000_000;

/// A seeded random sequence.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        table::next(self.0)
    }

    /// Below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((self.next() >> 32) * bound) >> 32
    }

    /// Between 0 and 1, never 0.
    pub fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 1.0) / (1u64 << 53) as f64
    }

    /// Normal, by Box and Muller.
    pub fn normal(&mut self) -> f64 {
        let (u, v) = (self.unit(), self.unit());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

/// One node of the world.
pub struct WorldNode {
    pub spec: NodeSpec,
    pub slots: u32,
    pub is_newcomer: bool,
    /// Tokens a second of one job.
    pub speed: f64,
    beats: u64,
}

/// The nodes and the router's table of them.
pub struct Fleet {
    pub table: Table,
    pub nodes: Vec<WorldNode>,
    /// Now, when the fleet is ready.
    pub start_us: u64,
}

impl Fleet {
    /// So many nodes. One in a hundred is parked.
    pub fn new(count: u32, random: &mut Random) -> Fleet {
        let start_us = 30 * DAY_US;
        let options = TableOptions { ramp_start_ppm: ramp::RAMP_START_PPM, ..TableOptions::open() };
        let nodes = (0..count).map(|number| node(number, random)).collect();
        let mut fleet = Fleet { table: Table::new(options), nodes, start_us };
        for at in 0..fleet.nodes.len() {
            let since_us = if fleet.nodes[at].is_newcomer { start_us } else { start_us - 8 * DAY_US };
            fleet.table.register(fleet.nodes[at].spec.clone(), since_us);
            fleet.beat(at, since_us);
            fleet.beat(at, start_us);
            let id = fleet.nodes[at].spec.node;
            let fails = random.below(100);
            (0..fails / 20).for_each(|_| fleet.table.report(&id, Report::Bad, start_us - DAY_US));
            (0..50).for_each(|_| fleet.table.report(&id, Report::Good, start_us - DAY_US));
            if fails == 0 {
                (0..3).for_each(|_| fleet.table.report(&id, Report::Bad, start_us));
            }
        }
        fleet
    }

    /// One node's heartbeat.
    pub fn beat(&mut self, at: usize, now_us: u64) {
        let node = &mut self.nodes[at];
        node.beats += 1;
        let beat = Heartbeat {
            protocol: JOB_PROTOCOL,
            node: node.spec.node,
            seq: node.beats,
            inflight: 0,
            slots: node.slots,
            models: node.spec.models.clone(),
            draining: false,
        };
        let operator = node.spec.operator;
        self.table.heartbeat(&operator, &beat, now_us);
    }

    /// A request for one of the models.
    pub fn pick(&self, random: &mut Random) -> Pick<'static> {
        let model = MODELS[random.below(MODELS.len() as u64) as usize];
        Pick { model, tried: &[], lane: Lane::Prepaid, prefix: None, draw: random.next() }
    }
}

fn node(number: u32, random: &mut Random) -> WorldNode {
    let slots = match random.below(100) {
        0..30 => 1,
        30..60 => 2,
        60..80 => 4,
        80..95 => 8,
        _ => 16,
    };
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_le_bytes());
    let mut operator = [0; 32];
    operator[..4].copy_from_slice(&number.to_le_bytes());
    let first = random.below(MODELS.len() as u64) as usize;
    let mut models = vec![MODELS[number as usize % MODELS.len()].to_owned()];
    if first != number as usize % MODELS.len() {
        models.push(MODELS[first].to_owned());
    }
    let spec = NodeSpec {
        node: NodeId(id),
        operator: OperatorId(operator),
        models,
        slots,
        sealing_key: SealingKey([0; 32]),
    };
    let speed = 8.0 * 15f64.powf(random.unit());
    WorldNode { spec, slots, is_newcomer: random.below(1_000_000) < NEWCOMERS_PPM, speed, beats: 0 }
}
