//! Rules of charges (`specs/postings.md`, 9): the pinned price of the smaller count, once for all parts of a job; first the
//! hold pays, then what is available; split by the carried cumulative share; undone at most once.

use super::books::{BookKey, Legs};
use super::draws::{self, Draw};
use super::holds::{self, Job};
use super::judge::Judge;
use super::wallets::Interval;
use super::world::World;
use super::{conduct, earnings, economy, lines, meters};
use crate::checks::CheckKind;
use protocol::asset::AssetId;
use protocol::event::account::AccountKind;
use protocol::event::grant::Backing;
use protocol::event::hold::Slice;
use protocol::event::job::{CaptureReversed, UsageCaptured};
use protocol::event::{GrantId, Header};
use protocol::id::JobId;
use protocol::rate::ModelRate;

/// What was charged and what the operator got of it, for life, per operator, asset and share.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Carry {
    pub(crate) gross: i128,
    pub(crate) paid: i128,
}

/// A charge, or a part of one, as it was booked.
#[derive(Clone, Debug)]
pub(crate) struct Charge {
    pub(crate) leaf: u64,
    pub(crate) time_us: u64,
    pub(crate) event: UsageCaptured,
    pub(crate) share_ppm: u32,
}

/// What the parts of a job come to.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Sums {
    pub(crate) input_units: u64,
    pub(crate) output_units: u64,
    pub(crate) cost: i128,
    pub(crate) beyond: i128,
}

impl Sums {
    fn add(&mut self, event: &UsageCaptured) {
        self.input_units = self.input_units.saturating_add(event.input_units);
        self.output_units = self.output_units.saturating_add(event.output_units);
        self.cost = self.cost.saturating_add(event.cost.0);
        self.beyond = self.beyond.saturating_add(event.beyond_hold.map_or(0, |amount| amount.0));
    }

    fn units(&self) -> u64 {
        self.input_units.saturating_add(self.output_units)
    }
}

impl Job {
    /// What it was charged in all parts.
    pub(crate) fn charged(&self) -> Sums {
        let mut sums = Sums::default();
        self.charges.iter().for_each(|charge| sums.add(&charge.event));
        sums
    }
}

/// `ceil(price x units / per_units)`; `None` beyond 128 bits.
pub(crate) fn price(rate: &ModelRate, units: u64) -> Option<i128> {
    let per = i128::from(rate.per_units).max(1);
    let gross = rate.price.0.checked_mul(i128::from(units))?;
    gross.checked_add(per - 1).map(|raised| raised.div_euclid(per))
}

/// `floor(whole x part / of)`; `None` beyond 128 bits.
pub(crate) fn floor_part(whole: i128, part: i128, of: i128) -> Option<i128> {
    match (part == of, of == 0) {
        (true, _) => Some(whole),
        (false, true) => None,
        (false, false) => Some(whole.checked_mul(part)?.div_euclid(of)),
    }
}

/// A share spread over the slices that paid, by the floor of the cumulative: it sums up exactly.
pub(crate) fn spread(share: i128, cost: i128, slices: &[Slice]) -> Option<Vec<i128>> {
    let (mut paid, mut given, mut parts) = (0i128, 0i128, Vec::with_capacity(slices.len()));
    for slice in slices {
        paid = paid.checked_add(slice.amount.0)?;
        let due = floor_part(share, paid, cost)?;
        parts.push(due.checked_sub(given)?);
        given = due;
    }
    Some(parts)
}

pub(crate) fn captured(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &UsageCaptured,
) -> Option<Legs> {
    let id = holds::open(world, judge, event.hold)?;
    judge.equal(CheckKind::Holds, "a charge closes its job's hold", id, event.job);
    let share_ppm = check_charge(world, judge, header, id, event)?;
    let job = world.jobs.get_mut(&id)?;
    let (asset, meter) = (job.asset, job.meter);
    let own = consume(job, event.cost.0);
    compare_own(judge, &own, event);
    let mut legs = Legs::default();
    for (grant, amount) in &own {
        release(world, *grant, *amount, &mut legs);
        spend(world, *grant, *amount, &mut legs);
    }
    let beyond = event.slices.get(own.len()..).unwrap_or_default();
    if !beyond.is_empty() {
        let job = world.jobs.get(&id)?;
        let model = job.model.clone();
        let account = job.account;
        holds::may_spend(world, judge, account)?;
        let draw = Draw { account, asset, model: &model, time_us: header.time_us };
        draws::check(world, judge, &draw, beyond)?;
        for slice in beyond {
            spend(world, slice.grant, slice.amount.0, &mut legs);
        }
        meters::spend(world, judge, meter, event.beyond_hold.map_or(0, |amount| amount.0));
    }
    let job = world.jobs.get_mut(&id)?;
    let (leaf, time_us) = (header.leaf, header.time_us);
    job.output_end = job.own(event.attempt).from.saturating_add(event.output_units);
    job.charges.push(Charge { leaf, time_us, event: event.clone(), share_ppm });
    if !is_open(event) {
        holds::end(world, header, id, &mut legs)?;
    }
    share_out(world, judge, header, event, asset, share_ppm, &mut legs)?;
    economy::charged(world, header, asset, event.cost.0, &event.slices);
    Some(legs)
}

/// Takes a cost from what a hold's slices still hold, in their order.
fn consume(job: &mut Job, cost: i128) -> Vec<(GrantId, i128)> {
    let mut open = cost;
    let mut own = Vec::with_capacity(job.slices.len());
    for slice in &mut job.slices {
        let take = slice.held.min(open);
        if take > 0 {
            own.push((slice.grant, take));
            slice.held -= take;
            open -= take;
        }
    }
    own
}

/// The event's slices begin with what the hold pays, and go on with what goes beyond it.
fn compare_own(judge: &mut Judge, own: &[(GrantId, i128)], event: &UsageCaptured) {
    const KIND: CheckKind = CheckKind::Grants;
    judge.examine(KIND);
    let actual = event.slices.iter().map(|slice| (slice.grant, slice.amount.0));
    if event.slices.len() < own.len() || !actual.zip(own).all(|(actual, own)| actual == *own) {
        let text = |list: &mut dyn Iterator<Item = (GrantId, i128)>| {
            list.map(|(grant, amount)| format!("{amount} of grant {}", grant.0))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let actual = text(&mut event.slices.iter().map(|slice| (slice.grant, slice.amount.0)));
        let expected = text(&mut own.iter().copied());
        judge.fail(KIND, expected, actual, "a charge consumes its hold's slices in order");
    }
    let sum = event.slices.iter().map(|slice| slice.amount.0).fold(0, i128::saturating_add);
    judge.equal(KIND, "the slices of a charge are its cost", event.cost.0, sum);
}

fn release(world: &mut World, grant: GrantId, amount: i128, legs: &mut Legs) {
    let Some(grant) = world.grants.get_mut(grant.0 as usize) else { return };
    grant.held = grant.held.saturating_sub(amount);
    legs.release(grant.book_key(), amount);
}

/// Spends `amount` of a grant; below zero, an undone charge comes back to it.
fn spend(world: &mut World, grant: GrantId, amount: i128, legs: &mut Legs) {
    let Some(grant) = world.grants.get_mut(grant.0 as usize) else { return };
    grant.remaining = grant.remaining.saturating_sub(amount);
    legs.debit(grant.book_key(), amount);
    if let Some(line) = &mut grant.line {
        line.drawn = line.drawn.saturating_add(amount);
        lines::drawn_legs(legs, grant.book_key(), amount);
    }
    let backing = grant.backing;
    count_captured(world, backing, amount);
}

/// Charges of a wallet for life.
fn count_captured(world: &mut World, backing: Backing, amount: i128) {
    let Backing::Vault(vault, address) = backing else { return };
    if let Some(wallet) = world.wallets.get_mut(&(vault, address)) {
        wallet.captured = wallet.captured.saturating_add(amount);
    }
}

/// Gives operator and platform their parts, and each wallet that paid its interval.
fn share_out(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &UsageCaptured,
    asset: AssetId,
    share_ppm: u32,
    legs: &mut Legs,
) -> Option<()> {
    let operator = world.operators.get(&event.operator);
    let operator = judge.known(CheckKind::Jobs, operator, "operator", event.operator)?;
    let owner = operator.account;
    legs.credit(BookKey::of(owner, AccountKind::OperatorAccrued, asset), event.operator_share.0);
    legs.credit(BookKey::system(AccountKind::PlatformRevenue, asset), event.platform_share.0);
    let carry = world.carries.entry((event.operator, asset, share_ppm)).or_default();
    carry.gross = carry.gross.saturating_add(event.cost.0);
    carry.paid = carry.paid.saturating_add(event.operator_share.0);
    let parts = spread(event.operator_share.0, event.cost.0, &event.slices);
    let parts = judge.known(CheckKind::Splits, parts, "share within 128 bits", event.operator_share.0)?;
    for (n, (slice, share)) in event.slices.iter().zip(parts).enumerate() {
        let Some(grant) = world.grants.get(slice.grant.0 as usize) else { continue };
        let Backing::Vault(vault, address) = grant.backing else {
            let backing = grant.backing;
            earnings::earn(world, (owner, asset, backing), share);
            continue;
        };
        let Some(wallet) = world.wallets.get_mut(&(vault, address)) else { continue };
        wallet.queue.push_back(Interval {
            place: (header.leaf, n),
            job: event.job,
            operator: event.operator,
            time_us: header.time_us,
            cost: slice.amount.0,
            share,
            covered: 0,
            receipt: event.receipt,
        });
    }
    Some(())
}

/// Counts, price and split of a charge. Gives the share it was split by.
fn check_charge(
    world: &World,
    judge: &mut Judge,
    header: &Header,
    id: JobId,
    event: &UsageCaptured,
) -> Option<u32> {
    const PRICES: CheckKind = CheckKind::Prices;
    let job = judge.known(CheckKind::Holds, world.jobs.get(&id), "job", id)?;
    let attempt = job.attempts.get(event.attempt as usize);
    let attempt = judge.known(CheckKind::Jobs, attempt, "attempt", event.attempt)?;
    judge.equal(CheckKind::Jobs, "the attempt's node is charged for", attempt.node, event.node);
    judge.equal(CheckKind::Jobs, "the attempt's operator is paid", attempt.operator, event.operator);
    let before = job.charged();
    let mut sums = before;
    sums.add(event);
    let rate = judge.known(PRICES, world.rate(job.card_version, &job.model), "pinned price", &job.model)?;
    let own = job.own(event.attempt);
    check_counts(world, judge, job, event, &sums);
    let output = before.output_units.saturating_add(own.check(judge, event));
    let bill = Bill { job, rate, event, sums: &sums, output, time_us: header.time_us };
    if !bill.is_cut_to_hold(world) {
        judge.equal(
            PRICES,
            "output billed is the smaller count of the attempt's own",
            output,
            sums.output_units,
        );
    }
    let cost = judge.known(PRICES, price(rate, sums.units()), "price within 128 bits", sums.units())?;
    let cost = cost.saturating_sub(before.cost);
    judge.equal(PRICES, "the charge is the pinned price of the billed tokens", cost, event.cost.0);
    check_beyond(world, judge, job, event, &sums);
    let card = (&event.operator, rate.operator_share_ppm);
    let share_ppm = conduct::share(world, judge, header, (id, job), card);
    let key = (event.operator, job.asset, share_ppm);
    let carry = world.carries.get(&key).copied().unwrap_or_default();
    let due = carry.gross.saturating_add(event.cost.0).checked_mul(i128::from(share_ppm));
    let due = judge.known(CheckKind::Splits, due, "share within 128 bits", carry.gross)?;
    let share = due.div_euclid(1_000_000).saturating_sub(carry.paid).clamp(0, event.cost.0.max(0));
    let given = event.operator_share.0;
    judge.equal(CheckKind::Splits, "the operator's share, cumulative, remainder carried", share, given);
    let rest = event.cost.0.saturating_sub(given);
    judge.equal(CheckKind::Splits, "the platform has the rest", rest, event.platform_share.0);
    Some(share_ppm)
}

/// Which part it is, and how many tokens all parts so far bill.
fn check_counts(world: &World, judge: &mut Judge, job: &Job, event: &UsageCaptured, sums: &Sums) {
    const PRICES: CheckKind = CheckKind::Prices;
    let number = job.charges.len();
    let part = event.part.map_or(0, |part| part.number as usize);
    judge.equal(CheckKind::Holds, "parts of a charge are numbered without gaps", number, part);
    let (input, most) = (job.input_units, job.output_units_max);
    judge.require(PRICES, format_args!("at most the {input} prompt tokens held"), sums.input_units, || {
        sums.input_units <= input
    });
    // With a tolerance, what goes beyond the bound is limited by what it costs.
    let may_exceed = tolerance_ppm(world).is_some() && !is_open(event);
    let most = if may_exceed { u64::MAX } else { most };
    let end = job.own(event.attempt).from.saturating_add(event.output_units);
    judge.require(PRICES, format_args!("1 to {most} output tokens"), sums.output_units, || {
        sums.output_units > 0 && end <= most
    });
}

fn is_open(event: &UsageCaptured) -> bool {
    event.part.is_some_and(|part| part.open)
}

/// What a charge bills, and what it could have billed.
struct Bill<'a> {
    job: &'a Job,
    rate: &'a ModelRate,
    event: &'a UsageCaptured,
    sums: &'a Sums,
    /// What all parts would bill by the smaller count.
    output: u64,
    time_us: u64,
}

impl Bill<'_> {
    /// Whether it bills the most that the hold covers, because what goes beyond was tolerated and could not be paid.
    fn is_cut_to_hold(&self, world: &World) -> bool {
        let Bill { job, rate, event, sums, output, time_us } = *self;
        if sums.output_units >= output || is_open(event) || event.beyond_hold.is_some() {
            return false;
        }
        let fits = |units| price(rate, units).is_some_and(|cost| cost <= job.amount);
        let largest = fits(sums.units()) && !fits(sums.units().saturating_add(1));
        let all = price(rate, sums.input_units.saturating_add(output));
        let extra = all.map(|cost| cost.saturating_sub(job.amount));
        let tolerated = extra.filter(|extra| *extra <= tolerance(world, job));
        let draw = Draw { account: job.account, asset: job.asset, model: &job.model, time_us };
        largest && tolerated.is_some_and(|extra| !draws::could_pay(world, &draw, job.meter, extra))
    }
}

/// How much a charge may take beyond its hold.
fn tolerance(world: &World, job: &Job) -> i128 {
    let ppm = i128::from(tolerance_ppm(world).unwrap_or(0));
    job.amount.checked_mul(ppm).map_or(0, |product| product.div_euclid(1_000_000))
}

fn tolerance_ppm(world: &World) -> Option<u32> {
    world.settings()?.capture_tolerance_ppm
}

/// What the hold does not cover is said, and is within the network's tolerance.
fn check_beyond(world: &World, judge: &mut Judge, job: &Job, event: &UsageCaptured, sums: &Sums) {
    const KIND: CheckKind = CheckKind::Holds;
    let beyond = event.cost.0.saturating_sub(job.held()).max(0);
    let said = event.beyond_hold.map_or(0, |amount| amount.0);
    judge.equal(KIND, "what a charge takes beyond its hold", beyond, said);
    judge.require(KIND, "beyond the hold is left out when it is nothing", said, || {
        event.beyond_hold.is_none_or(|amount| amount.0 > 0)
    });
    judge.require(KIND, "only the last charge of a hold goes beyond it", said, || {
        said == 0 || !is_open(event)
    });
    let most = tolerance(world, job);
    let above = sums.beyond.max(beyond);
    let amount = job.amount;
    judge.require(KIND, format_args!("at most {most} beyond the {amount} held"), above, || above <= most);
}

/// Undoes every part of a charge, leg by leg.
pub(crate) fn reversed(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &CaptureReversed,
) -> Option<Legs> {
    const KIND: CheckKind = CheckKind::Reversals;
    let job = judge.known(KIND, world.jobs.get_mut(&event.job), "job", event.job)?;
    let charged = !job.charges.is_empty() && !job.is_open;
    if !judge.require(KIND, "a charge is undone after its hold has ended", event.job, || charged) {
        return None;
    }
    let again = std::mem::replace(&mut job.is_reversed, true);
    if !judge.require(KIND, "a charge is undone once", event.job, || !again) {
        return None;
    }
    let (asset, meter, parts) = (job.asset, job.meter, job.charges.clone());
    let sum = |of: fn(&UsageCaptured) -> i128| parts.iter().map(|part| of(&part.event)).sum::<i128>();
    let (share, rest) = (sum(|part| part.operator_share.0), sum(|part| part.platform_share.0));
    judge.equal(KIND, "the operator's share is taken back", share, event.operator_share.0);
    judge.equal(KIND, "the platform's share is taken back", rest, event.platform_share.0);
    let mut legs = Legs::default();
    earnings::recalled(world, judge, event.job, asset, &parts, &mut legs)?;
    let mut refunded = 0i128;
    for part in &parts {
        for slice in &part.event.slices {
            refunded = refunded.saturating_add(unwind(world, judge, header, &part.event, slice, &mut legs)?);
        }
        let operator = world.operators.get(&part.event.operator);
        let operator = judge.known(KIND, operator, "operator", part.event.operator)?;
        let accrued = BookKey::of(operator.account, AccountKind::OperatorAccrued, asset);
        legs.debit(accrued, part.event.operator_share.0);
        legs.debit(BookKey::system(AccountKind::PlatformRevenue, asset), part.event.platform_share.0);
        let carry = world.carries.entry((part.event.operator, asset, part.share_ppm)).or_default();
        carry.gross = carry.gross.saturating_sub(part.event.cost.0);
        carry.paid = carry.paid.saturating_sub(part.event.operator_share.0);
    }
    judge.equal(KIND, "what flows back to grants that still live", refunded, event.refunded.0);
    meters::give_back(world, meter, sum(|part| part.cost.0));
    Some(legs)
}

/// Gives one slice back, to its grant or, when that is over, to nobody. Gives what the grant got.
fn unwind(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    charge: &UsageCaptured,
    slice: &Slice,
    legs: &mut Legs,
) -> Option<i128> {
    const KIND: CheckKind = CheckKind::Reversals;
    let grant = judge.known(KIND, world.grants.get(slice.grant.0 as usize), "grant", slice.grant.0)?;
    let (amount, over, asset, backing) =
        (slice.amount.0, grant.is_over(header.time_us), grant.asset, grant.backing);
    if let Backing::Vault(vault, address) = backing {
        let wallet = judge.known(KIND, world.wallets.get_mut(&(vault, address)), "wallet", address)?;
        let mine = |interval: &Interval| {
            interval.job == charge.job && interval.covered == 0 && interval.cost == amount
        };
        let at = wallet.queue.iter().position(mine);
        let at = judge.known(KIND, at, "charge that no batch has", charge.job)?;
        wallet.queue.remove(at);
    }
    if over {
        legs.credit(BookKey::system(AccountKind::Breakage, asset), amount);
        count_captured(world, backing, amount.saturating_neg());
        return Some(0);
    }
    spend(world, slice.grant, amount.saturating_neg(), legs);
    world.list_grant(slice.grant);
    Some(amount)
}
