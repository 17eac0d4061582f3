//! Rules of bounties and of operators' conduct (`specs/economies.md`, 4 and 5): what serving an under-supplied model earns
//! more, what switching costs, who is struck. What a rule demands and the log leaves out is a finding too.

use super::books::{BookKey, Legs};
use super::captures::spread;
use super::economy::{KIND, part_ppm};
use super::holds::Job;
use super::judge::Judge;
use super::world::World;
use crate::checks::CheckKind;
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::account::AccountKind;
use protocol::event::economy::{
    BountyPaid, BountyPublished, BountyTakenBack, FallbackMarked, Forfeit, JobShareSet, OperatorStruck,
    PayoutCutStarted, ShareReason, UptimeNoted,
};
use protocol::event::grant::Backing;
use protocol::event::hold::VoidReason;
use protocol::event::job::{Outcome, UsageCaptured};
use protocol::event::node::NodeRegistered;
use protocol::event::{EventBody, Header};
use protocol::id::{AccountId, JobId, OperatorId};
use std::collections::{BTreeMap, BTreeSet};

const ONE: i128 = 1_000_000;

#[derive(Clone, Default, Debug)]
struct Outcomes {
    good: u64,
    bad: u64,
    online_us: u64,
    earned: BTreeMap<AssetId, i128>,
}

#[derive(Clone, Default, Debug)]
struct Conduct {
    since_us: u64,
    days: BTreeMap<u64, Outcomes>,
    cut: Option<(u32, u64)>,
    retired: Option<(u64, Vec<String>)>,
    strikes: u32,
    banned: bool,
    fallback_ppm: Option<u32>,
    struck: BTreeSet<JobId>,
}

/// What a replay knows of bounties and conduct.
#[derive(Default, Debug)]
pub(crate) struct Conducts {
    rows: BTreeMap<OperatorId, Conduct>,
    shares: BTreeMap<(JobId, OperatorId), u32>,
    published: BTreeMap<String, BountyPublished>,
    paid: i128,
    bounties: BTreeMap<(JobId, OperatorId), i128>,
    /// What the next event must be.
    due: Option<EventBody>,
}

/// Called before an event is judged: whether it is what the one before demanded.
pub(super) fn check_due(world: &mut World, judge: &mut Judge, body: &EventBody) -> bool {
    let Some(due) = world.economy.conducts.due.take() else { return false };
    judge.require(KIND, format_args!("{} follows: {due:?}", due.kind()), body.kind(), || due == *body)
}

impl Conducts {
    /// What the next event would have to be, at the end of the log.
    pub(super) fn due_kind(&self) -> Option<&'static str> {
        self.due.as_ref().map(EventBody::kind)
    }
}

/// A bounty or cut that nothing demanded.
fn undue(judge: &mut Judge, demanded: bool, what: &str) {
    judge.require(KIND, "bounties and cuts follow what demands them", what, || demanded);
}

/// Every multiplier keeps every share below the whole charge.
pub(super) fn check_cards(world: &World, judge: &mut Judge) {
    let Some(rules) = world.economy.rules.as_ref().and_then(|rules| rules.bounties.as_ref()) else { return };
    for rate in world.cards.iter().flat_map(|(card, _)| &card.models) {
        let product = u64::from(rate.operator_share_ppm) * u64::from(rules.multiplier_ppm_max);
        judge.require(KIND, "a share with its multiplier is below the whole charge", &rate.model, || {
            product < 1_000_000_000_000
        });
    }
}

/// What other families' events mean for operators' conduct.
pub(super) fn note(world: &mut World, header: &Header, body: &EventBody) {
    if let EventBody::OperatorRegistered(e) = body {
        let row = Conduct { since_us: header.time_us, ..Conduct::default() };
        world.economy.conducts.rows.insert(e.operator, row);
    }
    if world.economy.rules.is_none() {
        return;
    }
    let failed = match body {
        EventBody::HoldVoided(e)
            if matches!(e.reason, VoidReason::OperatorFault | VoidReason::ReceiptInvalid) =>
        {
            let job = world.holds.get(&e.hold).and_then(|job| world.jobs.get(job));
            job.and_then(|job| job.attempts.last())
        }
        EventBody::HoldExpired(e) => {
            let job = world.holds.get(&e.hold).and_then(|job| world.jobs.get(job));
            job.and_then(|job| job.attempts.last())
        }
        EventBody::JobDispatched(e) if e.attempt > 0 => {
            world.jobs.get(&e.job).and_then(|job| job.attempts.get(e.attempt as usize - 1))
        }
        _ => None,
    };
    if let Some(operator) = failed.map(|attempt| attempt.operator) {
        outcomes(world, header, &operator, |day| day.bad += 1);
    }
    match body {
        EventBody::UsageCaptured(e) => {
            let Some(asset) = world.jobs.get(&e.job).map(|job| job.asset) else { return };
            let ends = e.part.is_none_or(|part| !part.open) && e.outcome == Outcome::Completed;
            outcomes(world, header, &e.operator, |day| {
                day.good += u64::from(ends);
                let earned = day.earned.entry(asset).or_default();
                *earned = earned.saturating_add(e.operator_share.0);
            });
        }
        EventBody::NodeRetired(e) => {
            let Some(node) = world.nodes.get(&e.node) else { return };
            let (operator, models) = (node.operator, node.models.clone());
            if let Some(row) = world.economy.conducts.rows.get_mut(&operator) {
                row.retired = Some((header.time_us, models));
            }
        }
        _ => {}
    }
}

fn outcomes(world: &mut World, header: &Header, operator: &OperatorId, change: impl FnOnce(&mut Outcomes)) {
    let today = world.economy.day_of(header.time_us);
    if let Some(row) = world.economy.conducts.rows.get_mut(operator) {
        change(row.days.entry(today).or_default());
    }
}

fn health(world: &World, row: &Conduct, time_us: u64) -> Option<i128> {
    let rules = world.economy.rules.as_ref()?.conduct.as_ref();
    let Some(rules) = rules else { return Some(ONE) };
    let today = world.economy.day_of(time_us);
    let from = today.saturating_add(1).saturating_sub(rules.window_days.into());
    let (mut good, mut bad, mut online) = (0i128, 0i128, 0u64);
    for day in row.days.range(from..=today).map(|(_, day)| day) {
        good += i128::from(day.good);
        bad += i128::from(day.bad);
        online = online.saturating_add(day.online_us);
    }
    good += i128::from(online.checked_div(rules.uptime_success_us).unwrap_or(0));
    Some((good * ONE).checked_div(good + bad).unwrap_or(ONE))
}

/// The bounty that a charge demands: it is the next event.
pub(super) fn bounty_due(world: &mut World, header: &Header, event: &UsageCaptured) -> Option<()> {
    let rules = world.economy.rules.as_ref()?.bounties.as_ref()?;
    let job = event.job;
    let row = world.jobs.get(&job)?;
    let owner = world.operators.get(&event.operator)?.account;
    let bounty = world.economy.conducts.published.get(&*row.model)?;
    let conduct = world.economy.conducts.rows.get(&event.operator)?;
    let barred = conduct.strikes > 0 || conduct.fallback_ppm.is_some() || row.account == owner;
    if header.time_us >= bounty.until_us || rules.asset != row.asset || barred {
        return None;
    }
    let health = health(world, conduct, header.time_us)?;
    let age_us = header.time_us.saturating_sub(conduct.since_us);
    let reached =
        rules.tiers.iter().filter(|tier| age_us >= tier.age_us && health >= i128::from(tier.health_ppm));
    let multiplier_ppm = bounty.multiplier_ppm.min(reached.map(|tier| tier.multiplier_ppm_max).max()?);
    let shares = spread(event.operator_share.0, event.cost.0, &event.slices)?;
    let backed = |grant: protocol::event::GrantId| {
        let backing = world.grants.get(grant.0 as usize).map(|grant| grant.backing);
        matches!(backing, Some(Backing::Vault(..) | Backing::Package(_)))
    };
    let backed = event.slices.iter().zip(shares).filter(|(slice, _)| backed(slice.grant));
    let base: i128 = backed.map(|(_, share)| share).fold(0, i128::saturating_add);
    let left = rules.budget.0.saturating_sub(world.economy.conducts.paid).max(0);
    let more = part_ppm(base, multiplier_ppm.saturating_sub(1_000_000));
    let amount = more.min(left).min(event.platform_share.0);
    if amount > 0 {
        let (operator, base, amount) = (event.operator, Amount(base), Amount(amount));
        let paid = BountyPaid { job, operator, multiplier_ppm, base, amount };
        world.economy.conducts.due = Some(paid.into());
    }
    Some(())
}

pub(crate) fn bounty_published(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &BountyPublished,
) -> Option<Legs> {
    let rules = world.economy.rules.as_ref().and_then(|rules| rules.bounties.clone());
    let rules = judge.known(KIND, rules, "rules of bounties", &event.model)?;
    let target = i128::from(rules.queue_ms_target);
    let queue = (i128::from(event.queue_ms) - target).max(0) * ONE / target.max(1);
    let fallback = (i128::from(event.fallback_ppm) - i128::from(rules.fallback_ppm_target)).max(0);
    let raised = ONE + queue.max(fallback).min(ONE * ONE) * i128::from(rules.gain_ppm) / ONE;
    let multiplier = raised.min(i128::from(rules.multiplier_ppm_max).max(ONE));
    judge.equal(KIND, "the multiplier that a lack of supply gives", multiplier, event.multiplier_ppm.into());
    let until_us = header.time_us.saturating_add(rules.life_us);
    judge.equal(KIND, "a bounty ends by its rule", until_us, event.until_us);
    let left = rules.budget.0.saturating_sub(world.economy.conducts.paid).max(0);
    judge.equal(KIND, "what is left for bounties", left, event.budget_left.0);
    world.economy.conducts.published.insert(event.model.clone(), event.clone());
    Some(Legs::default())
}

fn bounty_legs(
    world: &mut World,
    judge: &mut Judge,
    (job, operator): (JobId, OperatorId),
    amount: i128,
) -> Option<(Legs, (AccountId, AssetId, Backing))> {
    let asset = judge.known(KIND, world.jobs.get(&job), "job", job)?.asset;
    let owner = judge.known(KIND, world.operators.get(&operator), "operator", operator)?.account;
    let mut legs = Legs::default();
    legs.debit(BookKey::system(AccountKind::PlatformRevenue, asset), amount);
    legs.credit(BookKey::of(owner, AccountKind::OperatorAccrued, asset), amount);
    let paid = &mut world.economy.conducts.paid;
    *paid = paid.saturating_add(amount);
    let of = world.economy.conducts.bounties.entry((job, operator)).or_default();
    *of = of.saturating_add(amount);
    Some((legs, (owner, asset, Backing::Unbacked)))
}

/// That it was due, and how much, was judged when it came.
pub(crate) fn bounty_paid(
    world: &mut World,
    judge: &mut Judge,
    event: &BountyPaid,
    demanded: bool,
) -> Option<Legs> {
    undue(judge, demanded, "bounty_paid");
    let (legs, key) = bounty_legs(world, judge, (event.job, event.operator), event.amount.0)?;
    super::earnings::earn(world, key, event.amount.0);
    let budget =
        world.economy.rules.as_ref().and_then(|rules| rules.bounties.as_ref()).map_or(0, |b| b.budget.0);
    let paid = world.economy.conducts.paid;
    judge.require(KIND, format_args!("bounties within their budget, {budget}"), paid, || paid <= budget);
    Some(legs)
}

pub(crate) fn bounty_taken_back(
    world: &mut World,
    judge: &mut Judge,
    event: &BountyTakenBack,
) -> Option<Legs> {
    let row = judge.known(KIND, world.jobs.get(&event.job), "job", event.job)?;
    let undone = row.is_reversed;
    judge.require(KIND, "a bounty goes back with its charge", event.job, || undone);
    let owner = judge.known(KIND, world.operators.get(&event.operator), "operator", event.operator)?.account;
    let key = (owner, row.asset, Backing::Unbacked);
    let waiting = world.earned.get(&key).map_or(0, |earned| earned.waiting);
    let paid = world.economy.conducts.bounties.get(&(event.job, event.operator)).copied().unwrap_or(0);
    judge.equal(KIND, "what was paid and still waits goes back", paid.min(waiting), event.amount.0);
    let (legs, key) = bounty_legs(world, judge, (event.job, event.operator), -event.amount.0)?;
    super::earnings::earn(world, key, -event.amount.0);
    Some(legs)
}

/// The cut that a registration demands: it is the next event. Runs before the node's row is replaced.
pub(super) fn cut_due(world: &mut World, header: &Header, event: &NodeRegistered) -> Option<()> {
    let rules = world.economy.rules.as_ref()?.conduct.as_ref()?;
    let row = world.economy.conducts.rows.get(&event.operator)?;
    let served: &[String] = match (world.nodes.get(&event.node), &row.retired) {
        (Some(node), _) => &node.models,
        (None, Some((at_us, models))) if header.time_us < at_us.saturating_add(rules.cut_us) => models,
        _ => &[],
    };
    let model = served.iter().find(|model| !event.models.contains(model))?.clone();
    let (operator, node, cut_ppm) = (event.operator, event.node, rules.cut_ppm);
    let until_us = header.time_us.saturating_add(rules.cut_us);
    if cut_ppm > 0 {
        world.economy.conducts.due =
            Some(PayoutCutStarted { operator, node, model, cut_ppm, until_us }.into());
    }
    Some(())
}

pub(crate) fn cut_started(
    world: &mut World,
    judge: &mut Judge,
    event: &PayoutCutStarted,
    demanded: bool,
) -> Option<Legs> {
    undue(judge, demanded, "payout_cut_started");
    let row = world.economy.conducts.rows.get_mut(&event.operator);
    judge.known(KIND, row, "operator", event.operator)?.cut = Some((event.cut_ppm, event.until_us));
    Some(Legs::default())
}

/// The share that the rules give an operator of a job at its first charge, when it is not the card's, and why.
fn own_share(world: &World, operator: &OperatorId, card: u32, time_us: u64) -> Option<(u32, ShareReason)> {
    let row = world.economy.conducts.rows.get(operator)?;
    if let Some(fallback) = row.fallback_ppm {
        return Some((fallback.min(card), ShareReason::Fallback));
    }
    let rules = world.economy.rules.as_ref()?.conduct.as_ref()?;
    let (cut_ppm, until_us) = row.cut?;
    let left = until_us.saturating_sub(time_us).min(rules.cut_us);
    let step = rules.cut_us.checked_div(rules.cut_steps.into())?;
    let steps = i128::from(left.div_ceil(step.max(1)));
    let cut = (i128::from(cut_ppm) * steps).checked_div(rules.cut_steps.into())?;
    let share = i128::from(card) * (ONE - cut) / ONE;
    (cut > 0).then_some((share as u32, ShareReason::Cut))
}

pub(crate) fn share_set(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &JobShareSet,
) -> Option<Legs> {
    let job = judge.known(KIND, world.jobs.get(&event.job), "job", event.job)?;
    let card = world.rate(job.card_version, &job.model).map(|rate| rate.operator_share_ppm);
    let card = judge.known(KIND, card, "pinned price", &job.model)?;
    judge.equal(KIND, "the share of the pinned card", card, event.card_share_ppm);
    let expected = own_share(world, &event.operator, card, header.time_us);
    judge.require(KIND, format_args!("the share by the rules: {expected:?}"), event.share_ppm, || {
        expected == Some((event.share_ppm, event.reason))
    });
    let charged = job.charges.iter().any(|charge| charge.event.operator == event.operator);
    let key = (event.job, event.operator);
    let is_new = world.economy.conducts.shares.insert(key, event.share_ppm).is_none();
    judge.require(KIND, "a job's share is set once, before its first charge", event.job, || {
        is_new && !charged
    });
    Some(Legs::default())
}

/// The share that a charge is split by. A share that had to be set and was not is a finding.
pub(super) fn share(
    world: &World,
    judge: &mut Judge,
    header: &Header,
    (id, job): (JobId, &Job),
    (operator, card): (&OperatorId, u32),
) -> u32 {
    if let Some(share_ppm) = world.economy.conducts.shares.get(&(id, *operator)) {
        return *share_ppm;
    }
    let first = job.charges.iter().all(|charge| charge.event.operator != *operator);
    if first && world.economy.rules.is_some() {
        let missing = own_share(world, operator, card, header.time_us);
        judge.require(KIND, "a cut or fallback share is set before the charge", id, || missing.is_none());
    }
    card
}

pub(crate) fn fallback_marked(world: &mut World, judge: &mut Judge, event: &FallbackMarked) -> Option<Legs> {
    let row = world.economy.conducts.rows.get_mut(&event.operator);
    judge.known(KIND, row, "operator", event.operator)?.fallback_ppm = event.share_ppm;
    judge.require(KIND, "a share is at most the whole", event.operator, || {
        event.share_ppm.is_none_or(|share| share <= 1_000_000)
    });
    Some(Legs::default())
}

pub(crate) fn uptime(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &UptimeNoted,
) -> Option<Legs> {
    judge.known(KIND, world.economy.conducts.rows.get(&event.operator), "operator", event.operator)?;
    outcomes(world, header, &event.operator, |day| {
        day.online_us = day.online_us.saturating_add(event.online_us);
        day.good = day.good.saturating_add(event.probes_passed.into());
        day.bad = day.bad.saturating_add(event.probes_failed.into());
    });
    Some(Legs::default())
}

pub(crate) fn is_banned(world: &World, operator: &OperatorId) -> bool {
    world.economy.conducts.rows.get(operator).is_some_and(|row| row.banned)
}

/// Where a backing stands in the list of what is lost.
fn place(backing: Backing) -> (u8, u64) {
    match backing {
        Backing::Unbacked => (0, 0),
        Backing::Vault(..) => (1, 0),
        Backing::Treasury => (2, 0),
        Backing::Package(number) => (3, number),
    }
}

pub(crate) fn struck(world: &mut World, judge: &mut Judge, event: &OperatorStruck) -> Option<Legs> {
    let rules = world.economy.rules.as_ref().and_then(|rules| rules.conduct.clone());
    let rules = judge.known(KIND, rules, "rules of conduct", event.operator)?;
    let job = judge.known(KIND, world.jobs.get(&event.job), "job", event.job)?;
    let last = job.charges.last().map(|charge| charge.event.operator);
    let undone = job.is_reversed;
    judge.require(KIND, "a strike is for the operator of an undone charge", event.job, || {
        undone && last == Some(event.operator)
    });
    let owner = judge.known(KIND, world.operators.get(&event.operator), "operator", event.operator)?.account;
    let row = world.economy.conducts.rows.get_mut(&event.operator);
    let row = judge.known(KIND, row, "operator", event.operator)?;
    judge.equal(KIND, "strikes are counted one by one", row.strikes.saturating_add(1), event.strikes);
    let is_new = row.struck.insert(event.job);
    judge.require(KIND, "a job is one strike", event.job, || is_new);
    judge.equal(KIND, "who has too many strikes is banned", event.strikes >= rules.strikes_max, event.banned);
    (row.strikes, row.banned) = (event.strikes, event.banned);
    let own = world.earned.iter_mut().filter(|((of, _, backing), earned)| {
        *of == owner && earned.waiting > 0 && !matches!(backing, Backing::Vault(..))
    });
    let mut legs = Legs::default();
    let mut lost: Vec<Forfeit> = Vec::new();
    for ((_, asset, backing), earned) in own {
        let amount = std::mem::take(&mut earned.waiting);
        legs.debit(BookKey::of(owner, AccountKind::OperatorAccrued, *asset), amount);
        legs.credit(BookKey::system(AccountKind::PlatformRevenue, *asset), amount);
        lost.push(Forfeit { asset: *asset, backing: *backing, amount: Amount(amount) });
    }
    lost.sort_by_key(|lost| (lost.asset, place(lost.backing)));
    let message = format!("what waits is lost: {lost:?}");
    judge.require(KIND, message, format!("{:?}", event.forfeited), || lost == event.forfeited);
    Some(legs)
}

/// Earnings are taken down to the reserve. Called with what waited before.
pub(super) fn check_reserve(
    world: &World,
    judge: &mut Judge,
    header: &Header,
    (owner, asset): (AccountId, AssetId),
    amount: i128,
) -> Option<()> {
    let rules = world.economy.rules.as_ref()?.conduct.as_ref()?;
    let today = world.economy.day_of(header.time_us);
    let from = today.saturating_add(1).saturating_sub(rules.reserve_days.into());
    let own = world.operators.iter().filter(|(_, operator)| operator.account == owner);
    let rows = own.filter_map(|(id, _)| world.economy.conducts.rows.get(id));
    let days = rows.flat_map(|row| row.days.range(from..=today));
    let earned: i128 = days.filter_map(|(_, day)| day.earned.get(&asset)).sum();
    let reserve = part_ppm(earned, rules.reserve_ppm);
    let waits = world.earned.iter().filter(|((of, in_asset, _), _)| (*of, *in_asset) == (owner, asset));
    let waiting: i128 = waits.map(|(_, earned)| earned.waiting).sum();
    judge.require(CheckKind::Grants, format_args!("at least the reserve of {reserve} stays"), amount, || {
        reserve <= 0 || amount <= (waiting - reserve).max(0)
    });
    Some(())
}
