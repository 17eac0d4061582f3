//! The router's own table: routes and releases a second on one core at ten, a thousand and ten thousand nodes, beside a scan
//! of every node in the same run; and ten thousand nodes in a simulation on that very table. Must not: the network.

mod plot;
mod scan;
mod simulation;
mod world;

use crate::{BenchError, Report, ResultLine, Source};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use world::{Fleet, MODELS, Random};

/// Sizes that are measured.
const SIZES: [u32; 3] = [10, 1_000, 10_000];
/// Part of the slots that is taken while decisions are timed.
const LOAD_PPM: u64 = 700_000;
/// Virtual time between two decisions, microseconds: half a million a second, with the heartbeats of that time.
const STEP_US: u64 = 2;
/// Decisions between two looks at the clock.
const BLOCK: u64 = 2_000;

/// A part of `bench route`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoutePart {
    /// Decisions a second.
    Table,
    /// Ten thousand nodes.
    Simulation,
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct RouteOptions {
    /// Length of each timed part.
    pub part: Duration,
    /// Jobs of each simulated load.
    pub jobs: u32,
    /// Nodes of the simulation.
    pub nodes: u32,
    /// Chance.
    pub seed: u64,
    /// Only these; all when empty.
    pub only: Vec<RoutePart>,
    /// Where plots go, as SVG; none when left out.
    pub plots: Option<PathBuf>,
}

/// Measures.
///
/// # Errors
/// [`BenchError::Failed`] when a plot cannot be written.
pub fn run(options: RouteOptions) -> Result<Report, BenchError> {
    let RouteOptions { part, jobs, nodes, seed, .. } = options;
    let settings = serde_json::json!({
        "part_s": part.as_secs_f64(), "load_ppm": LOAD_PPM, "models": MODELS, "jobs": jobs, "nodes": nodes, "seed": seed,
        "in_it": ["breaker", "ramp", "speed floor", "model filter", "lanes", "heartbeats", "timers", "health weights"],
    });
    let mut report = Report::new("route", settings);
    let wants = |part| options.only.is_empty() || options.only.contains(&part);
    if wants(RoutePart::Table) {
        for count in SIZES {
            let ours = table_rate(count, part, seed);
            let scan = scan::rate(count, part, seed);
            let line = ResultLine::rate(format!("route.n{count}"), ours);
            report.results.push(line.beside("a scan of every node", scan, Source::SameRun));
        }
    }
    if wants(RoutePart::Simulation) {
        let runs = simulation::run(nodes, jobs, seed);
        report.results.extend(runs.iter().flat_map(simulation::Outcome::lines));
        if let Some(dir) = &options.plots {
            plot::write(dir, &runs)?;
        }
    }
    Ok(report)
}

/// Routes and releases a second: one choice and one return of a slot count as one.
fn table_rate(count: u32, part: Duration, seed: u64) -> f64 {
    let mut random = Random(seed);
    let mut fleet = Fleet::new(count, &mut random);
    let mut now_us = fleet.start_us;
    let slots: u64 = fleet.nodes.iter().map(|node| u64::from(node.slots)).sum();
    let mut out = Vec::new();
    for _ in 0..(slots * LOAD_PPM / 1_000_000).max(1) {
        let pick = fleet.pick(&mut random);
        out.extend(fleet.table.choose(pick, now_us));
    }
    let beats_every = (2_000_000 / u64::from(count) / STEP_US).max(1);
    let (mut done, mut routed) = (0u64, 0u64);
    let begun = Instant::now();
    while begun.elapsed() < part {
        for _ in 0..BLOCK {
            now_us += STEP_US;
            done += 1;
            if done.is_multiple_of(beats_every) {
                fleet.beat((done / beats_every % u64::from(count)) as usize, now_us);
            }
            let at = random.below(out.len() as u64) as usize;
            let pick = fleet.pick(&mut random);
            match fleet.table.choose(pick, now_us) {
                Ok(chosen) => {
                    let ended = std::mem::replace(&mut out[at], chosen);
                    fleet.table.release(&ended, now_us);
                    routed += 1;
                }
                Err(_) => {
                    if out.len() > 1 {
                        let ended = out.swap_remove(at);
                        fleet.table.release(&ended, now_us);
                    }
                }
            }
        }
    }
    routed as f64 / begun.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simulation_serves_everybody_and_says_so_by_name() {
        let options = RouteOptions {
            part: Duration::from_millis(10),
            jobs: 2_000,
            nodes: 200,
            seed: 1,
            only: vec![RoutePart::Simulation],
            plots: None,
        };
        let report = run(options).unwrap();
        let value = |name: &str| report.results.iter().find(|line| line.name == name).map(|line| line.value);
        let fairness = value("simulation.load70.fairness").expect("named");
        assert!((0.5..=1.0).contains(&fairness), "{fairness}");
        assert!(value("simulation.load30.latency.p99").expect("named") > 0.0);
        assert!(value("simulation.load97.newcomers").expect("named") > 0.3);
    }
}
