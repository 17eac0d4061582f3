//! Operators of every strategy, and how jobs reach them: by chance, weighted with the capacity that each has to spare, so that
//! cutting a machine in pieces neither helps nor hurts.

use super::world::World;
use super::{DAY_HOURS, HOUR_US, Load, Strategy};
use crate::report::{DayFigures, StrategyFigures};
use ledger::Refusal;
use ledger::command::*;
use ledger::economy::views;
use protocol::amount::Amount;
use protocol::event::economy::UptimeNoted;
use protocol::event::grant::Backing;
use protocol::event::hold::VoidReason;
use protocol::event::job::{Outcome, UsageCaptured};
use protocol::event::node::{NodeRegistered, OperatorRegistered};
use protocol::event::{Event, EventBody};
use protocol::id::{AccountId, EvmAddress, Hash32, HoldId, JobId, NodeId, OperatorId, SealingKey};
use protocol::rate::price_ceil;
use std::collections::BTreeMap;

/// One job of capacity, millionths.
const JOB_PPM: u64 = 1_000_000;
/// Identities of a sybil.
const SYBIL_IDENTITIES: u32 = 5;
/// Jobs that a flapper drops, millionths.
const DROPPED_PPM: u32 = 200_000;
/// Days between a re-registrant's registrations.
const RE_REGISTER_DAYS: u32 = 7;
/// Hours between two looks at which models lack supply.
const BOUNTY_HOURS: u64 = 6;
/// A queue's time when nothing waits.
const QUEUE_MS_IDLE: u64 = 100;
/// Accounts that a launderer opens a day, if the budget allows.
const LAUNDERED_ACCOUNTS: u32 = 20;
/// Whole credits that a wash trader buys a day.
const WASH_CREDITS: i128 = 1;

/// What an hour asks for.
pub(super) struct Demand<'a> {
    pub(super) hour: u64,
    pub(super) jobs: u32,
    pub(super) holders: &'a [AccountId],
}

struct Identity {
    operator: OperatorId,
    node: NodeId,
    /// Ordinary or scarce.
    model: usize,
    /// Jobs an hour.
    capacity: u32,
    /// What it has to spare now, millionths of a job.
    spare_ppm: u64,
    online: bool,
    gone: bool,
}

struct Actor {
    strategy: Strategy,
    identities: Vec<Identity>,
    /// With which it pays its own jobs.
    purses: Vec<AccountId>,
    figures: StrategyFigures,
}

/// All of them.
pub(super) struct Operators {
    actors: Vec<Actor>,
    load: Load,
    job_price: i128,
    /// Asked and not served since the last look, by model.
    asked: [u64; 2],
    unserved: [u64; 2],
    by_operator: BTreeMap<OperatorId, usize>,
}

impl Operators {
    pub(super) fn register(world: &mut World, load: &Load) -> Result<Operators, Refusal> {
        let card = ledger::query::rate_card(&world.state, u64::MAX).map(|published| published.card.clone());
        let rate = card.and_then(|card| card.models.first().cloned());
        let units = load.input_units + load.output_units;
        let price =
            rate.and_then(|rate| price_ceil(rate.price, rate.per_units, units)).unwrap_or(Amount::ZERO);
        let mut operators = Operators {
            actors: Vec::new(),
            load: load.clone(),
            job_price: price.0,
            asked: [0; 2],
            unserved: [0; 2],
            by_operator: BTreeMap::new(),
        };
        for number in 0..load.honest {
            operators.add(world, Strategy::Honest, usize::from(number % 3 == 2))?;
        }
        for strategy in Strategy::ALL.into_iter().skip(1) {
            if load.strategies.is_empty() || load.strategies.contains(&strategy) {
                operators.add(world, strategy, 0)?;
            }
        }
        Ok(operators)
    }

    fn add(&mut self, world: &mut World, strategy: Strategy, model: usize) -> Result<(), Refusal> {
        let count = if strategy == Strategy::Sybil { SYBIL_IDENTITIES } else { 1 };
        let at = self.actors.len();
        let mut identities = Vec::new();
        for number in 0..count {
            let capacity = self.load.capacity_per_hour;
            let share = capacity / count + u32::from(number < capacity % count);
            identities.push(self.identity(world, at, model, share)?);
        }
        let purses = match strategy {
            Strategy::WashTrader => vec![world.account()?],
            _ => Vec::new(),
        };
        let figures = StrategyFigures { strategy, identities: count, ..StrategyFigures::of(strategy) };
        self.actors.push(Actor { strategy, identities, purses, figures });
        Ok(())
    }

    fn identity(
        &mut self,
        world: &mut World,
        actor: usize,
        model: usize,
        capacity: u32,
    ) -> Result<Identity, Refusal> {
        let account = world.account()?;
        let (mut key, mut address) = ([0; 32], [0; 20]);
        key[..16].copy_from_slice(&account.0);
        address[..16].copy_from_slice(&account.0);
        let operator = OperatorId(key);
        world.run(OperatorRegistered { operator, account, payout_address: EvmAddress(address) })?;
        let node = NodeId(account.0);
        let identity = Identity { operator, node, model, capacity, spare_ppm: 0, online: true, gone: false };
        world.run(identity.registration(world))?;
        self.by_operator.insert(operator, actor);
        Ok(identity)
    }

    /// Strategies' daily moves.
    pub(super) fn begin_day(&mut self, world: &mut World, day: u32) -> Result<(), Refusal> {
        for at in 0..self.actors.len() {
            match self.actors[at].strategy {
                Strategy::Hopper if day > 0 => {
                    let identity = &mut self.actors[at].identities[0];
                    identity.model = 1 - identity.model;
                    let registration = identity.registration(world);
                    world.run(registration)?;
                }
                Strategy::ReRegistrant if day > 0 && day.is_multiple_of(RE_REGISTER_DAYS) => {
                    let old = &mut self.actors[at].identities[0];
                    old.gone = true;
                    let (node, model) = (old.node, old.model);
                    world.run(RetireNode { node })?;
                    let capacity = self.load.capacity_per_hour;
                    let fresh = self.identity(world, at, model, capacity)?;
                    self.actors[at].identities = vec![fresh];
                    self.actors[at].figures.identities += 1;
                }
                Strategy::WashTrader => {
                    let purse = self.actors[at].purses[0];
                    world.sell(purse, WASH_CREDITS)?;
                }
                Strategy::SignUpLaunderer => self.launder(world, at)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn launder(&mut self, world: &mut World, at: usize) -> Result<(), Refusal> {
        if views::rules(&world.state).is_none_or(|rules| rules.sign_up.is_none()) {
            return Ok(());
        }
        self.actors[at].purses.clear();
        for _ in 0..LAUNDERED_ACCOUNTS {
            let account = world.account()?;
            match world.run(GrantSignUp { account }) {
                Ok(_) => self.actors[at].purses.push(account),
                Err(Refusal::SignUpExhausted { .. }) => break,
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(())
    }

    /// An hour of jobs.
    pub(super) fn hour(
        &mut self,
        world: &mut World,
        demand: &Demand<'_>,
        figures: &mut DayFigures,
    ) -> Result<(), Refusal> {
        self.refresh(world);
        if demand.hour.is_multiple_of(BOUNTY_HOURS) {
            self.publish_bounties(world)?;
        }
        self.own_jobs(world)?;
        for _ in 0..demand.jobs {
            let model = usize::from(world.chance(self.load.scarce_ppm));
            self.asked[model] += 1;
            figures.asked += 1;
            let served = match self.choose(world, model) {
                Some((actor, identity)) => self.give(world, demand, (actor, identity), model)?,
                None => false,
            };
            if served {
                figures.served += 1;
            } else {
                self.unserved[model] += 1;
            }
        }
        Ok(())
    }

    /// Who is there, and with how much to spare: declared capacity by the ramp, nothing for who was banned.
    fn refresh(&mut self, world: &mut World) {
        let hour_cost = self.job_price * i128::from(self.load.hour_cost_ppm) / 1_000_000;
        for actor in &mut self.actors {
            for identity in &mut actor.identities {
                identity.online = actor.strategy != Strategy::Flapper || world.chance(500_000);
                let standing = views::standing(&world.state, &identity.operator, world.now_us);
                let (ramp_ppm, banned) = standing.map_or((1_000_000, false), |s| (s.ramp_ppm, s.banned));
                let most = u64::from(identity.capacity) * JOB_PPM;
                let gained = u64::from(identity.capacity) * u64::from(ramp_ppm);
                identity.spare_ppm = (identity.spare_ppm.min(JOB_PPM) + gained).min(most);
                if banned || !identity.online || identity.gone {
                    identity.spare_ppm = 0;
                }
                if identity.online && !banned {
                    actor.figures.costs.0 += hour_cost;
                }
            }
        }
    }

    fn publish_bounties(&mut self, world: &mut World) -> Result<(), Refusal> {
        if views::rules(&world.state).is_none_or(|rules| rules.bounties.is_none()) {
            return Ok(());
        }
        for at in 0..2 {
            let fallback_ppm =
                (self.unserved[at] * 1_000_000).checked_div(self.asked[at]).unwrap_or(0) as u32;
            let queue_ms = QUEUE_MS_IDLE + u64::from(fallback_ppm) / 200;
            let model = world.models[at].clone();
            world.run(PublishBounty { model, queue_ms, fallback_ppm })?;
        }
        (self.asked, self.unserved) = ([0; 2], [0; 2]);
        Ok(())
    }

    /// By chance, weighted with what each has to spare.
    fn choose(&self, world: &mut World, model: usize) -> Option<(usize, usize)> {
        let spare = |identity: &Identity| {
            if identity.model == model && identity.spare_ppm >= JOB_PPM { identity.spare_ppm } else { 0 }
        };
        let all = self.actors.iter().flat_map(|actor| &actor.identities);
        let total: u64 = all.map(spare).sum();
        if total == 0 {
            return None;
        }
        let mut place = world.random(total);
        for (at, actor) in self.actors.iter().enumerate() {
            for (number, identity) in actor.identities.iter().enumerate() {
                let own = spare(identity);
                if place < own {
                    return Some((at, number));
                }
                place -= own;
            }
        }
        None
    }

    /// A customer's or holder's job; whether it was served.
    fn give(
        &mut self,
        world: &mut World,
        demand: &Demand<'_>,
        place: (usize, usize),
        model: usize,
    ) -> Result<bool, Refusal> {
        let payer = match demand.holders {
            [] => world.customer,
            holders if world.chance(500_000) => holders[world.random(holders.len() as u64) as usize],
            _ => world.customer,
        };
        match self.serve(world, place, model, payer) {
            Err(Refusal::InsufficientCredit { .. }) if payer != world.customer => {
                let customer = world.customer;
                match self.serve(world, place, model, customer) {
                    Err(Refusal::InsufficientCredit { .. }) => Ok(false),
                    other => other,
                }
            }
            Err(Refusal::InsufficientCredit { .. }) => Ok(false),
            other => other,
        }
    }

    fn serve(
        &mut self,
        world: &mut World,
        (at, number): (usize, usize),
        model: usize,
        payer: AccountId,
    ) -> Result<bool, Refusal> {
        let Load { input_units, output_units, .. } = self.load;
        let job = JobId(world.id());
        let node = self.actors[at].identities[number].node;
        world.run(Admit {
            hold: HoldId(job.0),
            job,
            account: payer,
            model: world.models[model].clone(),
            input_units,
            output_units_max: output_units,
            deadline_us: world.now_us + 60_000_000,
            node,
            body: Hash32([5; 32]),
            spender: None,
        })?;
        let actor = &mut self.actors[at];
        actor.identities[number].spare_ppm -= JOB_PPM;
        let cost = self.job_price * i128::from(self.load.job_cost_ppm) / 1_000_000;
        if actor.strategy == Strategy::Flapper && world.chance(DROPPED_PPM) {
            actor.figures.costs.0 += cost / 2;
            world.run(Void { job, reason: VoidReason::OperatorFault })?;
            return Ok(false);
        }
        actor.figures.costs.0 += if actor.strategy == Strategy::Liar { 0 } else { cost };
        let events = world.run(Capture {
            job,
            attempt: 0,
            outcome: Outcome::Completed,
            input_units,
            output_units_worker: output_units,
            output_units_gateway: output_units,
            receipt: Hash32([7; 32]),
            chain_head: Hash32([8; 32]),
            part: None,
        })?;
        self.book(world, &events);
        self.verify(world, at, job)?;
        Ok(true)
    }

    /// A random share is re-executed; what was made up does not stand.
    fn verify(&mut self, world: &mut World, at: usize, job: JobId) -> Result<(), Refusal> {
        let caught = world.chance(self.load.verified_ppm) && self.actors[at].strategy == Strategy::Liar;
        if !caught {
            return Ok(());
        }
        let events = world.run(ReverseCapture { job })?;
        self.book(world, &events);
        if views::rules(&world.state).is_some_and(|rules| rules.conduct.is_some()) {
            let events = world.run(StrikeOperator { job })?;
            self.book(world, &events);
            // Perhaps banned: the next hour tells.
            for identity in &mut self.actors[at].identities {
                identity.spare_ppm = 0;
            }
        }
        Ok(())
    }

    /// Jobs that wash traders and launderers give themselves, granted that they could choose the node.
    fn own_jobs(&mut self, world: &mut World) -> Result<(), Refusal> {
        for at in 0..self.actors.len() {
            let purses = self.actors[at].purses.clone();
            let model = self.actors[at].identities[0].model;
            for _ in 0..self.load.capacity_per_hour / 2 {
                let spare = self.actors[at].identities[0].spare_ppm >= JOB_PPM;
                let Some(purse) = purses.first().filter(|_| spare) else { break };
                let mut served = false;
                for payer in std::iter::once(purse).chain(&purses[1..]) {
                    match self.serve(world, (at, 0), model, *payer) {
                        Ok(_) => {
                            served = true;
                            break;
                        }
                        Err(Refusal::InsufficientCredit { .. }) => {}
                        Err(refusal) => return Err(refusal),
                    }
                }
                if !served {
                    break;
                }
                if self.actors[at].strategy == Strategy::WashTrader {
                    self.actors[at].figures.spent.0 += self.job_price;
                }
            }
        }
        Ok(())
    }

    /// What events say about who earned.
    fn book(&mut self, world: &World, events: &[Event]) {
        for event in events {
            match &event.body {
                EventBody::UsageCaptured(e) => self.earn(world, e),
                EventBody::CaptureReversed(e) => {
                    if let Some(figures) = self.of_job(world, e.job) {
                        figures.reversed.0 += e.operator_share.0;
                    }
                }
                EventBody::BountyPaid(e) => {
                    if let Some(figures) = self.of(&e.operator) {
                        figures.bounties.0 += e.amount.0;
                    }
                }
                EventBody::BountyTakenBack(e) => {
                    if let Some(figures) = self.of(&e.operator) {
                        figures.bounties.0 -= e.amount.0;
                    }
                }
                EventBody::JobShareSet(e) => {
                    if let Some(figures) = self.of(&e.operator) {
                        figures.cut_jobs += 1;
                    }
                }
                EventBody::OperatorStruck(e) => {
                    if let Some(figures) = self.of(&e.operator) {
                        figures.strikes = e.strikes;
                        figures.forfeited.0 += e.forfeited.iter().map(|f| f.amount.0).sum::<i128>();
                    }
                }
                _ => {}
            }
        }
    }

    fn earn(&mut self, world: &World, event: &UsageCaptured) {
        let backings = ledger::query::balance_sources(&world.state, &event.slices);
        let Some(figures) = self.of(&event.operator) else { return };
        figures.jobs += 1;
        let unbacked: i128 =
            backings.iter().filter(|(backing, _)| *backing == Backing::Unbacked).map(|(_, a)| a.0).sum();
        let part = event.operator_share.0 * unbacked / event.cost.0.max(1);
        figures.unbacked.0 += part;
        figures.earned.0 += event.operator_share.0 - part;
    }

    fn of(&mut self, operator: &OperatorId) -> Option<&mut StrategyFigures> {
        let at = *self.by_operator.get(operator)?;
        Some(&mut self.actors[at].figures)
    }

    fn of_job(&mut self, world: &World, job: JobId) -> Option<&mut StrategyFigures> {
        let view = ledger::query::job(&world.state, job)?;
        let operator = view.attempts.last()?.operator;
        self.of(&operator)
    }

    /// Probes and online time enter the window.
    pub(super) fn end_day(&mut self, world: &mut World) -> Result<(), Refusal> {
        if views::rules(&world.state).is_none_or(|rules| rules.conduct.is_none()) {
            return Ok(());
        }
        for actor in &self.actors {
            for identity in &actor.identities {
                let hours = if actor.strategy == Strategy::Flapper { DAY_HOURS / 2 } else { DAY_HOURS };
                let operator = identity.operator;
                let failed = u32::from(actor.strategy == Strategy::Flapper) * 2;
                let (online_us, probes_passed) = (hours * HOUR_US, 2);
                world.run(UptimeNoted { operator, online_us, probes_passed, probes_failed: failed })?;
            }
        }
        Ok(())
    }

    /// What each strategy has by the end of a day, the honest ones' mean.
    pub(super) fn fill(&self, figures: &mut DayFigures) {
        figures.profits = self.earnings().iter().map(|row| (row.strategy, row.profit())).collect();
    }

    /// One row a strategy; the honest ones' mean.
    pub(super) fn earnings(&self) -> Vec<StrategyFigures> {
        let mut rows: Vec<StrategyFigures> = Vec::new();
        for actor in &self.actors {
            match rows.iter_mut().find(|row| row.strategy == actor.strategy) {
                Some(row) => row.add(&actor.figures),
                None => rows.push(actor.figures.clone()),
            }
        }
        for row in &mut rows {
            let count = self.actors.iter().filter(|actor| actor.strategy == row.strategy).count();
            row.divide(count as i128);
        }
        rows
    }
}

impl Identity {
    fn registration(&self, world: &World) -> NodeRegistered {
        NodeRegistered {
            node: self.node,
            operator: self.operator,
            models: vec![world.models[self.model].clone()],
            slots: self.capacity.max(1),
            sealing_key: SealingKey([1; 32]),
        }
    }
}
