//! The node table: who may get a job, and who gets it. Least loaded by the fraction of capacity in use; among equals one is
//! drawn, with health as a weight. The least loaded are found in an index, not by looking at everybody: what changes with
//! time (heartbeats that stay away, parked nodes, a newcomer's week) changes by timers that a choice runs first.
//! Pure: time and chance are arguments. One table owns a model's nodes; two with half the truth would both choose the same.

use super::affinity::Affinity;
use super::breaker::Standing;
use super::health::{Health, WEIGHT_ONE};
use super::index::{Index, load};
use super::lanes::{Lane, reserved};
use super::node::{Node, ONLINE_CREDIT_US, Serve, Share, Standings};
use super::ramp;
use super::reason::{REASONS, Reason, Rule};
use super::terms::{
    Chosen, Decisions, NodeRecord, NodeSpec, NodeStanding, OperatorRecord, POOLS, Pick, Pool, Report,
    TableOptions,
};
use protocol::id::{AccountId, NodeId, OperatorId};
use protocol::job_message::{HEARTBEAT_MS, HEARTBEATS_MISSED_MAX, Heartbeat};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

/// A node without a heartbeat for this long takes nothing.
pub const ALIVE_US: u64 = HEARTBEAT_MS * 1_000 * (HEARTBEATS_MISSED_MAX as u64) + HEARTBEAT_MS * 500;
/// Draws among equals before one is taken as it is.
const TIE_DRAWS_MAX: u32 = 8;
/// A customer can strike an operator once in this time; what more of its jobs fail says nothing.
pub const STRIKE_WINDOW_US: u64 = super::breaker::FAILURE_WINDOW_US;
/// Strikes that are remembered.
const STRIKES_MAX: usize = 16_384;

#[derive(Clone, Debug, Default)]
struct ModelRow {
    pools: [Index; POOLS],
    /// Nodes registered for it, by how they were judged.
    reasons: [u32; REASONS],
    /// Of the nodes that take jobs.
    capacity: u64,
    inflight: u64,
    /// Jobs of the dedicated lane.
    dedicated: u64,
}

#[derive(Clone, Debug)]
struct Operator {
    since_us: u64,
    /// Of its node that left last.
    left: Option<Standings>,
    refuted: bool,
}

/// All nodes this dispatcher may use.
#[derive(Clone, Debug)]
pub struct Table {
    options: TableOptions,
    nodes: Vec<Option<Node>>,
    free: Vec<u32>,
    slots: HashMap<NodeId, u32>,
    models: Vec<ModelRow>,
    model_rows: HashMap<String, u32>,
    operators: HashMap<OperatorId, Operator>,
    strikes: HashMap<(OperatorId, AccountId), u64>,
    timers: BinaryHeap<Reverse<(u64, u32)>>,
    affinity: Affinity,
    decisions: Decisions,
}

impl Table {
    /// An empty table.
    pub fn new(options: TableOptions) -> Table {
        Table {
            options,
            nodes: Vec::new(),
            free: Vec::new(),
            slots: HashMap::new(),
            models: Vec::new(),
            model_rows: HashMap::new(),
            operators: HashMap::new(),
            strikes: HashMap::new(),
            timers: BinaryHeap::new(),
            affinity: Affinity::default(),
            decisions: Decisions::default(),
        }
    }

    /// Adds a node, or replaces what it declares; its load and standing stay. A new node of an operator whose last one left
    /// has that one's standing.
    pub fn register(&mut self, spec: NodeSpec, now_us: u64) {
        let serves: Vec<Serve> = spec.models.iter().map(|model| self.serve(model)).collect();
        let slot = match self.slots.get(&spec.node).copied() {
            Some(slot) => {
                if self.node(&spec.node).is_some_and(|node| node.spec == spec) {
                    return;
                }
                self.unplace(slot);
                let node = self.nodes[slot as usize].as_mut().expect("a slot by name is taken");
                let loaded: Vec<u32> = node.serves.iter().filter(|s| s.loaded).map(|s| s.model).collect();
                node.serves = serves;
                node.serves.iter_mut().for_each(|s| s.loaded = loaded.contains(&s.model));
                node.spec = spec;
                slot
            }
            None => self.add(spec, serves),
        };
        self.look(slot, now_us);
    }

    fn add(&mut self, spec: NodeSpec, serves: Vec<Serve>) -> u32 {
        let pool = self.options.fallback.get(&spec.operator).copied().unwrap_or(Pool::Operators);
        let operator = self.operators.get_mut(&spec.operator);
        let refuted = operator.as_ref().is_some_and(|operator| operator.refuted);
        let left = operator.and_then(|operator| operator.left.take());
        let slot = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(None);
            (self.nodes.len() - 1) as u32
        });
        self.slots.insert(spec.node, slot);
        self.nodes[slot as usize] = Some(Node {
            spec,
            pool,
            inflight: 0,
            seen_us: None,
            beat_seq: None,
            life: 0,
            advertised_slots: 0,
            draining: false,
            measured: None,
            refuted,
            standing: left.unwrap_or_default(),
            online_from_us: 0,
            serves,
            capacity: 0,
            weight_ppm: WEIGHT_ONE,
            timer_us: u64::MAX,
        });
        slot
    }

    fn serve(&mut self, model: &str) -> Serve {
        let row = match self.model_rows.get(model) {
            Some(row) => *row,
            None => {
                let row = self.models.len() as u32;
                self.models.push(ModelRow::default());
                self.model_rows.insert(model.to_owned(), row);
                row
            }
        };
        // Not counted anywhere yet.
        Serve { model: row, loaded: false, shown: Reason::NotRegistered, stand: None, counted: None }
    }

    /// Takes a node out for good.
    pub fn retire(&mut self, node: &NodeId) {
        let Some(slot) = self.slots.remove(node) else { return };
        self.unplace(slot);
        if let Some(node) = self.nodes[slot as usize].take()
            && let Some(operator) = self.operators.get_mut(&node.spec.operator)
        {
            operator.left = Some(node.standing);
        }
        self.free.push(slot);
    }

    /// A heartbeat of `operator` came; `false` when no such node of that operator is registered.
    pub fn heartbeat(&mut self, operator: &OperatorId, beat: &Heartbeat, now_us: u64) -> bool {
        let Some(slot) = self.slots.get(&beat.node).copied() else { return false };
        let Some(node) = self.nodes[slot as usize].as_mut().filter(|n| n.spec.operator == *operator) else {
            return false;
        };
        self.operators.entry(*operator).or_insert(Operator { since_us: now_us, left: None, refuted: false });
        if !node.is_alive(now_us) {
            node.online_from_us = now_us;
        }
        while now_us.saturating_sub(node.online_from_us) >= ONLINE_CREDIT_US {
            node.online_from_us += ONLINE_CREDIT_US;
            node.standing.health.note_good(node.online_from_us);
        }
        node.seen_us = Some(now_us);
        if node.beat_seq.is_some_and(|last| beat.seq <= last) {
            node.life += 1;
        }
        node.beat_seq = Some(beat.seq);
        node.advertised_slots = beat.slots;
        node.draining = beat.draining;
        for serve in &mut node.serves {
            let name = |model: &String| self.model_rows.get(model) == Some(&serve.model);
            serve.loaded = beat.models.iter().any(name);
        }
        self.look(slot, now_us);
        true
    }

    /// Takes a slot of the least loaded eligible node, or says why there is none: the reason nearest to eligible.
    ///
    /// # Errors
    /// The [`Reason`]; nothing is taken.
    pub fn choose(&mut self, pick: Pick<'_>, now_us: u64) -> Result<Chosen, Reason> {
        self.run_timers(now_us);
        let found = self.find(&pick);
        match &found {
            Ok((_, rule, _)) => self.decisions.chosen[*rule as usize] += 1,
            Err(reason) => self.decisions.refused[*reason as usize] += 1,
        }
        let (slot, rule, model) = found?;
        let node = self.nodes[slot as usize].as_mut().expect("an indexed node is there");
        let rule = match node.is_probe(now_us) {
            true => Rule::Probe,
            false => rule,
        };
        node.inflight += 1;
        node.standing.breaker.note_dispatch(now_us);
        node.standing.floor.note_dispatch(now_us);
        let NodeSpec { node, operator, sealing_key, .. } = node.spec;
        self.models[model as usize].dedicated += u64::from(pick.lane == Lane::Dedicated);
        if let Some(prefix) = pick.prefix {
            self.affinity.note(prefix, model, slot);
        }
        self.refresh(slot, now_us);
        Ok(Chosen { node, operator, sealing_key, rule, lane: pick.lane, slot, model })
    }

    fn find(&self, pick: &Pick<'_>) -> Result<(u32, Rule, u32), Reason> {
        let Some(&model) = self.model_rows.get(pick.model) else {
            return Err(if self.slots.is_empty() {
                Reason::NotRegistered
            } else {
                Reason::ModelNotRegistered
            });
        };
        let row = &self.models[model as usize];
        if pick.lane != Lane::Dedicated && self.options.dedicated_reserve_ppm > 0 {
            let kept = reserved(row.capacity, self.options.dedicated_reserve_ppm, row.dedicated);
            let free = row.capacity.saturating_sub(row.inflight);
            if free > 0 && free <= kept {
                return Err(Reason::Reserved);
            }
        }
        for (pool, index) in row.pools.iter().enumerate() {
            for level in index.levels() {
                let Some((slot, rule)) = self.draw_among(level, pick, model) else { continue };
                let rule = match pool {
                    1 => Rule::FallbackAccelerator,
                    2 => Rule::FallbackProcessor,
                    3 => Rule::LastResort,
                    _ => rule,
                };
                return Ok((slot, rule, model));
            }
        }
        Err(self.nearest(row, pick, model))
    }

    /// The most helpful of the reasons why a model's nodes are not there: one that passes by itself before one that does not.
    fn nearest(&self, row: &ModelRow, pick: &Pick<'_>, model: u32) -> Reason {
        let mut counts = row.reasons;
        for tried in pick.tried {
            let serves = self.node(tried).map_or(&[][..], |node| &node.serves);
            if let Some(serve) = serves.iter().find(|serve| serve.model == model) {
                counts[serve.shown as usize] = counts[serve.shown as usize].saturating_sub(1);
                counts[Reason::Tried as usize] += 1;
            }
        }
        let there = Reason::ALL.into_iter().filter(|reason| counts[*reason as usize] > 0);
        match there.max_by_key(|reason| (reason.passes_by_itself(), *reason)) {
            Some(reason) => reason,
            None if self.slots.is_empty() => Reason::NotRegistered,
            None => Reason::ModelNotRegistered,
        }
    }

    /// Gives a slot back.
    pub fn release(&mut self, chosen: &Chosen, now_us: u64) {
        if chosen.lane == Lane::Dedicated {
            let row = &mut self.models[chosen.model as usize];
            row.dedicated = row.dedicated.saturating_sub(1);
        }
        let Some(node) = self.nodes.get_mut(chosen.slot as usize).and_then(Option::as_mut) else { return };
        if node.spec.node == chosen.node {
            node.inflight = node.inflight.saturating_sub(1);
            self.refresh(chosen.slot, now_us);
        }
    }

    /// How the job on that node ended.
    pub fn report(&mut self, node: &NodeId, report: Report, now_us: u64) {
        let Some(slot) = self.slots.get(node).copied() else { return };
        let Some(operator) = self.nodes[slot as usize].as_ref().map(|node| node.spec.operator) else {
            return;
        };
        let counts = match report {
            Report::BadFor(account) => self.strike(operator, account, now_us),
            Report::Good | Report::Bad | Report::Busy | Report::Refuted | Report::Neutral => true,
        };
        if report == Report::Refuted {
            return self.refute(operator, now_us);
        }
        let Some(node) = self.nodes[slot as usize].as_mut() else { return };
        let Standings { breaker, floor, health } = &mut node.standing;
        match report {
            Report::Good => {
                breaker.note_success();
                health.note_good(now_us);
            }
            Report::Bad | Report::BadFor(_) if counts => {
                breaker.note_failure(now_us);
                floor.note_nothing();
                health.note_bad(now_us);
            }
            Report::Neutral | Report::Refuted | Report::Bad | Report::BadFor(_) => {
                breaker.note_neutral();
                floor.note_nothing();
            }
            Report::Busy => {
                breaker.note_neutral();
                floor.note_nothing();
                node.note_busy(now_us);
            }
        }
        self.look(slot, now_us);
    }

    /// An answer of that node had so many tokens and took so long from its first to its last, as the gateway saw it.
    pub fn note_pace(&mut self, node: &NodeId, tokens: u64, took_us: u64, now_us: u64) {
        let Some(slot) = self.slots.get(node).copied() else { return };
        let Some(node) = self.nodes[slot as usize].as_mut() else { return };
        node.standing.floor.note_answer(tokens, took_us, now_us);
        self.look(slot, now_us);
    }

    /// No node of the operator gets another job from this table.
    fn refute(&mut self, operator: OperatorId, now_us: u64) {
        let entry = self.operators.entry(operator);
        entry.or_insert(Operator { since_us: now_us, left: None, refuted: false }).refuted = true;
        for slot in 0..self.nodes.len() {
            if let Some(node) = self.nodes[slot].as_mut().filter(|node| node.spec.operator == operator) {
                node.refuted = true;
                self.look(slot as u32, now_us);
            }
        }
    }

    /// Whether this strike is the customer's first against that operator in the window.
    fn strike(&mut self, operator: OperatorId, account: AccountId, now_us: u64) -> bool {
        let fresh = |at: &u64| at.saturating_add(STRIKE_WINDOW_US) > now_us;
        if self.strikes.get(&(operator, account)).is_some_and(fresh) {
            return false;
        }
        if self.strikes.len() >= STRIKES_MAX {
            self.strikes.retain(|_, at| fresh(at));
        }
        if self.strikes.len() < STRIKES_MAX {
            self.strikes.insert((operator, account), now_us);
        }
        true
    }

    /// Whether its heartbeats come.
    pub fn is_alive(&self, node: &NodeId, now_us: u64) -> bool {
        self.node(node).is_some_and(|n| n.is_alive(now_us))
    }

    /// The worker's life: another number means that it was started again and has lost what it ran.
    pub fn life(&self, node: &NodeId) -> Option<u64> {
        self.node(node).map(|n| n.life)
    }

    /// Why a node would or would not get the next job of `model`. Judged from the beginning, not read from the index.
    pub fn why(&self, node: &NodeId, model: &str, now_us: u64) -> Reason {
        let Some(node) = self.node(node) else { return Reason::NotRegistered };
        let row = self.model_rows.get(model);
        let serve = node.serves.iter().find(|serve| Some(&serve.model) == row);
        node.judge(serve, node.capacity_at(self.share(&node.spec.operator), now_us), now_us).0
    }

    /// What a node declared.
    pub fn spec(&self, node: &NodeId) -> Option<NodeSpec> {
        self.node(node).map(|node| node.spec.clone())
    }

    /// The same for every model that the node is registered for.
    pub fn why_all(&self, node: &NodeId, now_us: u64) -> Vec<(String, Reason)> {
        let models = self.node(node).map_or(&[][..], |node| &node.spec.models);
        models.iter().map(|model| (model.clone(), self.why(node, model, now_us))).collect()
    }

    /// Until when a node is parked, if it is.
    pub fn parked_until_us(&self, node: &NodeId, now_us: u64) -> Option<u64> {
        match self.node(node)?.standing.breaker.standing(now_us) {
            Standing::Parked { until_us } => Some(until_us),
            Standing::Closed | Standing::ProbeDue | Standing::Probing => None,
        }
    }

    /// Jobs out at a node.
    pub fn inflight(&self, node: &NodeId) -> u32 {
        self.node(node).map_or(0, |n| n.inflight)
    }

    /// What a node's operator may know about it.
    pub fn standing(&self, node: &NodeId, now_us: u64) -> Option<NodeStanding> {
        let node = self.node(node)?;
        let share = self.share(&node.spec.operator);
        let seen = node.seen_us.is_some();
        Some(NodeStanding {
            inflight: node.inflight,
            capacity: node.capacity_at(share, now_us),
            declared: node.spec.slots,
            ramp_ppm: ramp::share_ppm(share.ramp_start_ppm, share.since_us, now_us),
            good_ppm: node.standing.health.share_ppm(now_us),
            tokens_per_ks: node.standing.floor.tokens_per_ks(),
            since_us: seen.then_some(share.since_us),
            pool: node.pool,
        })
    }

    /// Nodes that are alive, not leaving, and have a model loaded that they are registered for.
    pub fn online(&self, now_us: u64) -> usize {
        let nodes = self.nodes.iter().flatten();
        nodes.filter(|n| n.is_alive(now_us) && !n.draining && n.serves.iter().any(|s| s.loaded)).count()
    }

    /// Registered nodes by why they would or would not get a job, a model each; the order is [`Reason::ALL`]'s.
    pub fn reasons(&mut self, now_us: u64) -> [u64; REASONS] {
        self.run_timers(now_us);
        let mut sums = [0; REASONS];
        for row in &self.models {
            for (sum, count) in sums.iter_mut().zip(row.reasons) {
                *sum += u64::from(count);
            }
        }
        sums
    }

    /// What must outlive this process: since when operators are here, and their nodes' fourteen days; sorted.
    pub fn records(&self) -> Vec<OperatorRecord> {
        let mut nodes: BTreeMap<OperatorId, Vec<NodeRecord>> = BTreeMap::new();
        for node in self.nodes.iter().flatten() {
            let record = NodeRecord { node: node.spec.node, days: node.standing.health.days() };
            nodes.entry(node.spec.operator).or_default().push(record);
        }
        let record = |(id, operator): (&OperatorId, &Operator)| OperatorRecord {
            operator: *id,
            since_us: operator.since_us,
            refuted: operator.refuted,
            nodes: nodes.get(id).cloned().unwrap_or_default(),
        };
        let mut records: Vec<OperatorRecord> = self.operators.iter().map(record).collect();
        records.sort_by_key(|record| record.operator);
        records
    }

    /// Takes what an earlier process recorded. Nodes that are not registered (any more) are left out.
    pub fn restore(&mut self, records: &[OperatorRecord], now_us: u64) {
        for OperatorRecord { operator, since_us, refuted, nodes } in records {
            let (since_us, refuted) = ((*since_us).min(now_us), *refuted);
            self.operators.insert(*operator, Operator { since_us, left: None, refuted });
            for NodeRecord { node, days } in nodes {
                let Some(slot) = self.slots.get(node).copied() else { continue };
                let Some(node) = self.nodes[slot as usize].as_mut() else { continue };
                if node.spec.operator == *operator {
                    node.standing.health = Health::of(days);
                    node.refuted = refuted;
                    self.look(slot, now_us);
                }
            }
        }
    }

    /// What was decided since the table was made.
    pub fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    fn node(&self, node: &NodeId) -> Option<&Node> {
        self.nodes[*self.slots.get(node)? as usize].as_ref()
    }

    fn share(&self, operator: &OperatorId) -> Share {
        let since_us = self.operators.get(operator).map_or(u64::MAX, |operator| operator.since_us);
        let TableOptions { capacity_ppm, ramp_start_ppm, .. } = self.options;
        Share { capacity_ppm, ramp_start_ppm, since_us }
    }

    /// One of a level that was not tried: the one that has the prompt's beginning, else a drawn one.
    fn draw_among(&self, level: &[u32], pick: &Pick<'_>, model: u32) -> Option<(u32, Rule)> {
        let node = |slot: u32| self.nodes[slot as usize].as_ref().expect("an indexed node is there");
        let untried = |slot: u32| !pick.tried.contains(&node(slot).spec.node);
        let rule = if level.len() == 1 { Rule::LeastLoaded } else { Rule::Drawn };
        let warm = pick.prefix.and_then(|prefix| self.affinity.find(prefix, model));
        let is_equal = |slot: &u32| level.len() > 1 && self.stands_in(*slot, model, level) && untried(*slot);
        if let Some(slot) = warm.filter(is_equal) {
            return Some((slot, Rule::Affinity));
        }
        let count = level.len() as u64;
        let mut random = pick.draw;
        for _ in 0..TIE_DRAWS_MAX {
            random = next(random);
            let drawn = level[(((random >> 32) * count) >> 32) as usize];
            random = next(random);
            if (random >> 32) % WEIGHT_ONE < node(drawn).weight_ppm && untried(drawn) {
                return Some((drawn, rule));
            }
        }
        let start = ((random >> 32) * count) >> 32;
        let turned = (0..count).map(|step| level[((start + step) % count) as usize]);
        turned.take(pick.tried.len() + 1).find(|slot| untried(*slot)).map(|slot| (slot, rule))
    }

    /// Whether a slot is one of this very level.
    fn stands_in(&self, slot: u32, model: u32, level: &[u32]) -> bool {
        let Some(node) = self.nodes.get(slot as usize).and_then(Option::as_ref) else { return false };
        let serve = node.serves.iter().find(|serve| serve.model == model);
        let place = serve.and_then(|serve| serve.stand).map(|(_, place)| place.at as usize);
        place.and_then(|at| level.get(at)) == Some(&slot)
    }

    /// Looks at every node whose time has come.
    fn run_timers(&mut self, now_us: u64) {
        while let Some(Reverse((due_us, slot))) = self.timers.peek().copied() {
            if due_us > now_us {
                return;
            }
            self.timers.pop();
            let Some(node) = self.nodes[slot as usize].as_mut() else { continue };
            if node.timer_us == due_us {
                node.timer_us = u64::MAX;
                self.look(slot, now_us);
            }
        }
    }

    /// Works out what a node may have, where it stands, and when to look again.
    fn look(&mut self, slot: u32, now_us: u64) {
        let Some(node) = self.nodes[slot as usize].as_ref() else { return };
        let share = self.share(&node.spec.operator);
        let by = self.options.route_by;
        let Some(node) = self.nodes[slot as usize].as_mut() else { return };
        node.forget_measured(now_us);
        node.capacity = node.capacity_at(share, now_us);
        node.weight_ppm = node.weight_at(share, by, now_us);
        let due_us = node.next_change_us(share, now_us);
        if due_us < node.timer_us {
            node.timer_us = due_us;
            self.timers.push(Reverse((due_us, slot)));
        }
        self.refresh(slot, now_us);
    }

    /// Puts a node where its load and standing say.
    fn refresh(&mut self, slot: u32, now_us: u64) {
        let Some(node) = self.nodes[slot as usize].as_mut() else { return };
        let mut serves = std::mem::take(&mut node.serves);
        for serve in &mut serves {
            let Some(node) = self.nodes[slot as usize].as_ref() else { break };
            let (capacity, inflight) = (node.capacity, node.inflight);
            let (reason, pool) = node.judge(Some(serve), capacity, now_us);
            self.count(serve, reason, (u64::from(capacity), u64::from(inflight)));
            let stand = pool.map(|pool| (pool, load(inflight, capacity)));
            if serve.stand.map(|(pool, place)| (pool, place.load)) != stand {
                self.unstand(serve);
                let pools = &mut self.models[serve.model as usize].pools;
                serve.stand = stand.map(|(pool, load)| (pool, pools[pool as usize].insert(slot, load)));
            }
        }
        self.put_back(slot, serves);
    }

    fn put_back(&mut self, slot: u32, serves: Vec<Serve>) {
        if let Some(node) = self.nodes[slot as usize].as_mut() {
            node.serves = serves;
        }
    }

    /// Counts a node among its model's by how it was judged; `load` is its capacity and its jobs.
    fn count(&mut self, serve: &mut Serve, reason: Reason, load: (u64, u64)) {
        self.uncount(serve);
        let row = &mut self.models[serve.model as usize];
        row.reasons[reason as usize] += 1;
        serve.shown = reason;
        if matches!(reason, Reason::Eligible | Reason::Full) {
            row.capacity += load.0;
            row.inflight += load.1;
            serve.counted = Some(load);
        }
    }

    fn uncount(&mut self, serve: &mut Serve) {
        let row = &mut self.models[serve.model as usize];
        if serve.shown != Reason::NotRegistered {
            row.reasons[serve.shown as usize] -= 1;
            serve.shown = Reason::NotRegistered;
        }
        let (capacity, inflight) = serve.counted.take().unwrap_or_default();
        row.capacity -= capacity;
        row.inflight -= inflight;
    }

    /// Takes a node out of its models' sums and indexes.
    fn unplace(&mut self, slot: u32) {
        let Some(node) = self.nodes[slot as usize].as_mut() else { return };
        let mut serves = std::mem::take(&mut node.serves);
        for serve in &mut serves {
            self.unstand(serve);
            self.uncount(serve);
        }
        self.put_back(slot, serves);
    }

    fn unstand(&mut self, serve: &mut Serve) {
        let Some((pool, place)) = serve.stand.take() else { return };
        let row = &mut self.models[serve.model as usize];
        let Some(moved) = row.pools[pool as usize].remove(place) else { return };
        let moved = self.nodes[moved as usize].as_mut().expect("an indexed node is there");
        let theirs = moved.serves.iter_mut().find(|theirs| theirs.model == serve.model);
        theirs.expect("it stood there for this model").stand = Some((pool, place));
    }
}

/// splitmix64: spreads one random number over several draws.
pub fn next(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
