//! Discrete events on the router's own table: Poisson arrivals, answers of lognormal length, nodes of their own speed, some of
//! them failing, heartbeats as they come in reality, jobs that wait when every slot is taken.

use super::world::{Fleet, MODELS, Random};
use crate::ResultLine;
use crate::report::Better;
use dispatcher::router::{Chosen, Report};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

/// Part of the capacity that is asked for, percent.
const LOADS: [u32; 3] = [30, 70, 97];
/// Output tokens of a job: the median and the spread of its logarithm.
const TOKENS_MEDIAN: f64 = 250.0;
const TOKENS_SIGMA: f64 = 0.6;
/// Jobs that fail by the node's fault, of a thousand.
const FAILS_PER_THOUSAND: u64 = 5;
const BEAT_US: u64 = 2_000_000;
/// Jobs at the beginning that are not counted, of a hundred: the fleet fills first.
const WARM_UP_PERCENT: u32 = 20;

/// One simulated load.
pub struct Outcome {
    pub load: u32,
    /// Jain's index of work for each slot, over nodes whose operators are there for more than a week.
    pub fairness: f64,
    /// Jobs a slot of a newcomer's declared capacity got beside an elder's.
    pub newcomers: f64,
    /// Seconds from arrival to the end, sorted.
    pub latency_s: Vec<f64>,
    /// Seconds until a slot was had, sorted.
    pub wait_s: Vec<f64>,
    /// Work for each slot, mean, by class of slots.
    pub by_slots: Vec<(u32, f64)>,
    /// Nodes without a single job, of all that may have one.
    pub idle_part: f64,
}

impl Outcome {
    pub fn lines(&self) -> Vec<ResultLine> {
        let name = |what: &str| format!("simulation.load{}.{what}", self.load);
        let at = |sorted: &[f64], part: f64| {
            sorted
                .get(((sorted.len() as f64 * part) as usize).min(sorted.len().saturating_sub(1)))
                .copied()
                .unwrap_or(0.0)
        };
        vec![
            ResultLine::new(name("fairness"), self.fairness, "jain", Better::Higher),
            ResultLine::new(name("newcomers"), self.newcomers, "of 1", Better::Higher),
            ResultLine::new(name("idle_nodes"), self.idle_part, "of 1", Better::Lower),
            ResultLine::time_ms(name("latency.p50"), at(&self.latency_s, 0.5) * 1e3),
            ResultLine::time_ms(name("latency.p99"), at(&self.latency_s, 0.99) * 1e3),
            ResultLine::time_ms(name("wait.p99"), at(&self.wait_s, 0.99) * 1e3),
        ]
    }
}

/// Every load on a fleet of its own.
pub fn run(nodes: u32, jobs: u32, seed: u64) -> Vec<Outcome> {
    LOADS.iter().map(|load| Simulation::new(nodes, seed).run(*load, jobs)).collect()
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    End(u32),
    Beats,
}

struct Job {
    model: &'static str,
    came_us: u64,
    tokens: f64,
    counts: bool,
}

struct Simulation {
    fleet: Fleet,
    random: Random,
    places: HashMap<protocol::id::NodeId, usize>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    running: Vec<Option<(Chosen, Job, u64)>>,
    free: Vec<u32>,
    waiting: HashMap<&'static str, VecDeque<Job>>,
    served_s: Vec<f64>,
    served_jobs: Vec<u32>,
    latency_s: Vec<f64>,
    wait_s: Vec<f64>,
    number: u64,
    next_beat: usize,
}

impl Simulation {
    fn new(nodes: u32, seed: u64) -> Simulation {
        let mut random = Random(seed);
        let fleet = Fleet::new(nodes, &mut random);
        let places = fleet.nodes.iter().enumerate().map(|(at, node)| (node.spec.node, at)).collect();
        let count = fleet.nodes.len();
        Simulation {
            fleet,
            random,
            places,
            events: BinaryHeap::new(),
            running: Vec::new(),
            free: Vec::new(),
            waiting: HashMap::new(),
            served_s: vec![0.0; count],
            served_jobs: vec![0; count],
            latency_s: Vec::new(),
            wait_s: Vec::new(),
            number: 0,
            next_beat: 0,
        }
    }

    fn run(mut self, load: u32, jobs: u32) -> Outcome {
        // Tokens a second that the fleet can make now, ramp and all, over the mean length of an answer.
        let speed: f64 = self.fleet.nodes.iter().map(|node| node.speed * self.capacity(node)).sum();
        let mean = TOKENS_MEDIAN * (TOKENS_SIGMA * TOKENS_SIGMA / 2.0).exp();
        let slots: f64 = self.fleet.nodes.iter().map(|node| self.capacity(node)).sum();
        // A slot's time is what is short: jobs a second at the mean time of a job.
        let seconds: f64 =
            self.fleet.nodes.iter().map(|node| mean / node.speed * self.capacity(node)).sum::<f64>() / slots;
        let by_slots = slots / seconds;
        let arrivals = f64::from(load) / 100.0 * by_slots.min(speed / mean);
        self.at(self.fleet.start_us, Event::Arrival);
        self.at(self.fleet.start_us, Event::Beats);
        let (mut came, warm) = (0, jobs * WARM_UP_PERCENT / 100);
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            match event {
                Event::Arrival if came < jobs => {
                    came += 1;
                    self.arrive(now, came > warm);
                    let gap = -self.random.unit().ln() / arrivals;
                    self.at(now + (gap * 1e6) as u64 + 1, Event::Arrival);
                }
                // The last have arrived: what still runs is of no load any more.
                Event::Arrival => break,
                Event::End(at) => self.end(at, now),
                Event::Beats => self.beats(now),
            }
        }
        self.outcome(load)
    }

    fn capacity(&self, node: &super::world::WorldNode) -> f64 {
        let standing = self.fleet.table.standing(&node.spec.node, self.fleet.start_us);
        standing.map_or(0.0, |standing| f64::from(standing.capacity))
    }

    fn at(&mut self, at_us: u64, event: Event) {
        self.number += 1;
        self.events.push(Reverse((at_us, self.number, event)));
    }

    /// A hundredth of the fleet beats each fiftieth of a second, so that everybody does every two seconds.
    fn beats(&mut self, now: u64) {
        let count = self.fleet.nodes.len().div_ceil(100);
        for _ in 0..count {
            self.fleet.beat(self.next_beat, now);
            self.next_beat = (self.next_beat + 1) % self.fleet.nodes.len();
        }
        self.at(now + BEAT_US / 100, Event::Beats);
    }

    fn arrive(&mut self, now: u64, counts: bool) {
        let model = MODELS[self.random.below(MODELS.len() as u64) as usize];
        let tokens = (TOKENS_MEDIAN.ln() + TOKENS_SIGMA * self.random.normal()).exp().clamp(1.0, 8_192.0);
        let job = Job { model, came_us: now, tokens, counts };
        if let Some(job) = self.begin(job, now) {
            self.waiting.entry(model).or_default().push_back(job);
        }
    }

    /// Gives a job to a node; gives it back when there is none.
    fn begin(&mut self, job: Job, now: u64) -> Option<Job> {
        let pick = dispatcher::router::Pick { model: job.model, ..self.fleet.pick(&mut self.random) };
        let Ok(chosen) = self.fleet.table.choose(pick, now) else { return Some(job) };
        let node = &self.fleet.nodes[self.places[&chosen.node]];
        let took_us = (job.tokens / node.speed * 1e6) as u64;
        if job.counts {
            self.wait_s.push((now - job.came_us) as f64 / 1e6);
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.running.push(None);
            (self.running.len() - 1) as u32
        });
        self.running[at as usize] = Some((chosen, job, took_us));
        self.at(now + took_us, Event::End(at));
        None
    }

    fn end(&mut self, at: u32, now: u64) {
        let Some((chosen, job, took_us)) = self.running[at as usize].take() else { return };
        self.free.push(at);
        let place = self.places[&chosen.node];
        let failed = self.random.below(1_000) < FAILS_PER_THOUSAND;
        let table = &mut self.fleet.table;
        table.release(&chosen, now);
        table.note_pace(&chosen.node, job.tokens as u64, took_us, now);
        table.report(&chosen.node, if failed { Report::Bad } else { Report::Good }, now);
        if job.counts {
            self.served_s[place] += took_us as f64 / 1e6;
            self.served_jobs[place] += 1;
            self.latency_s.push((now - job.came_us) as f64 / 1e6);
        }
        for model in MODELS {
            let next = self.waiting.get_mut(model).and_then(VecDeque::pop_front);
            if let Some(next) = next
                && let Some(next) = self.begin(next, now)
            {
                self.waiting.entry(model).or_default().push_front(next);
            }
        }
    }

    fn outcome(mut self, load: u32) -> Outcome {
        self.latency_s.sort_by(f64::total_cmp);
        self.wait_s.sort_by(f64::total_cmp);
        let per_slot = |at: usize| self.served_s[at] / f64::from(self.fleet.nodes[at].slots);
        let of = |newcomer: bool| -> Vec<f64> {
            let nodes = self.fleet.nodes.iter().enumerate().filter(|(_, n)| n.is_newcomer == newcomer);
            nodes.map(|(at, _)| per_slot(at)).collect()
        };
        let (elders, newcomers) = (of(false), of(true));
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let squares: Vec<f64> = elders.iter().map(|value| value * value).collect();
        let by_slots = [1, 2, 4, 8, 16].map(|slots| {
            let nodes =
                self.fleet.nodes.iter().enumerate().filter(|(_, n)| n.slots == slots && !n.is_newcomer);
            (slots, mean(&nodes.map(|(at, _)| per_slot(at)).collect::<Vec<_>>()))
        });
        Outcome {
            load,
            fairness: mean(&elders).powi(2) / mean(&squares).max(f64::MIN_POSITIVE),
            newcomers: mean(&newcomers) / mean(&elders).max(f64::MIN_POSITIVE),
            idle_part: self.served_jobs.iter().filter(|jobs| **jobs == 0).count() as f64
                / self.served_jobs.len().max(1) as f64,
            by_slots: by_slots.to_vec(),
            latency_s: self.latency_s,
            wait_s: self.wait_s,
        }
    }
}
