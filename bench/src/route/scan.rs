//! What a router does that looks at every node for each decision: the same rules on a plain list. The peer of the table.

use super::world::{Fleet, MODELS, Random};
use super::{BLOCK, LOAD_PPM, STEP_US};
use dispatcher::router::breaker::{Breaker, Standing};
use dispatcher::router::table::ALIVE_US;
use std::time::{Duration, Instant};

struct Plain {
    models: Vec<&'static str>,
    capacity: u32,
    inflight: u32,
    seen_us: u64,
    breaker: Breaker,
}

/// Routes and releases a second.
pub fn rate(count: u32, part: Duration, seed: u64) -> f64 {
    let mut random = Random(seed);
    let fleet = Fleet::new(count, &mut random);
    let mut now_us = fleet.start_us;
    let mut nodes: Vec<Plain> = fleet.nodes.iter().map(|node| plain(&fleet, node)).collect();
    let slots: u64 = nodes.iter().map(|node| u64::from(node.capacity)).sum();
    let mut out = Vec::new();
    for _ in 0..(slots * LOAD_PPM / 1_000_000).max(1) {
        out.extend(choose(&mut nodes, &mut random, now_us));
    }
    let mut routed = 0u64;
    let begun = Instant::now();
    // A block of scans takes long at ten thousand nodes; the clock is looked at more often there.
    let block = (BLOCK * 10 / u64::from(count)).max(1);
    while begun.elapsed() < part {
        for _ in 0..block {
            now_us += STEP_US;
            let at = random.below(out.len() as u64) as usize;
            match choose(&mut nodes, &mut random, now_us) {
                Some(chosen) => {
                    let ended = std::mem::replace(&mut out[at], chosen);
                    nodes[ended].inflight -= 1;
                    routed += 1;
                }
                None if out.len() > 1 => nodes[out.swap_remove(at)].inflight -= 1,
                None => {}
            }
        }
    }
    routed as f64 / begun.elapsed().as_secs_f64()
}

fn plain(fleet: &Fleet, node: &super::world::WorldNode) -> Plain {
    let standing = fleet.table.standing(&node.spec.node, fleet.start_us);
    let served = |model: &&&'static str| node.spec.models.iter().any(|m| m == **model);
    Plain {
        models: MODELS.iter().filter(served).copied().collect(),
        capacity: standing.map_or(1, |standing| standing.capacity),
        inflight: 0,
        seen_us: fleet.start_us,
        breaker: Breaker::default(),
    }
}

/// The least loaded, found by looking at everybody; among equals by chance.
fn choose(nodes: &mut [Plain], random: &mut Random, now_us: u64) -> Option<usize> {
    let model = MODELS[random.below(MODELS.len() as u64) as usize];
    let mut best: Option<(usize, u32, u32)> = None;
    let mut equals = 0;
    for (at, node) in nodes.iter().enumerate() {
        let is_open = matches!(node.breaker.standing(now_us), Standing::Closed | Standing::ProbeDue);
        let may = now_us < node.seen_us + ALIVE_US && node.models.contains(&model) && is_open;
        if !may || node.inflight >= node.capacity {
            continue;
        }
        let order = best.map(|(_, inflight, capacity)| {
            (u64::from(node.inflight) * u64::from(capacity))
                .cmp(&(u64::from(inflight) * u64::from(node.capacity)))
        });
        match order {
            None | Some(std::cmp::Ordering::Less) => {
                best = Some((at, node.inflight, node.capacity));
                equals = 1;
            }
            Some(std::cmp::Ordering::Equal) => {
                equals += 1;
                if random.below(equals) == 0 {
                    best = Some((at, node.inflight, node.capacity));
                }
            }
            Some(std::cmp::Ordering::Greater) => {}
        }
    }
    let (at, ..) = best?;
    nodes[at].inflight += 1;
    nodes[at].breaker.note_dispatch(now_us);
    Some(at)
}
