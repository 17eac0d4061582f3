//! Rules of charges: the pinned price times the smaller count, split by the carried cumulative share, undone at most once.

use super::books::{BookKey, Legs};
use super::holds::{self, End};
use super::judge::Judge;
use super::wallets::Interval;
use super::world::World;
use crate::checks::CheckKind;
use protocol::event::Header;
use protocol::event::account::AccountKind;
use protocol::event::grant::Backing;
use protocol::event::hold::Slice;
use protocol::event::job::{CaptureReversed, UsageCaptured};
use protocol::rate::ModelRate;

/// What was charged and what the operator got of it, for life, per operator, asset and share.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Carry {
    pub(crate) gross: i128,
    pub(crate) paid: i128,
}

/// A charge as it was booked.
#[derive(Clone, Debug)]
pub(crate) struct Captured {
    pub(crate) leaf: u64,
    pub(crate) event: UsageCaptured,
    pub(crate) share_ppm: u32,
    pub(crate) reversed: bool,
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
fn spread(share: i128, cost: i128, slices: &[Slice]) -> Option<Vec<i128>> {
    let (mut paid, mut given, mut parts) = (0i128, 0i128, Vec::new());
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
    let share_ppm = check_charge(world, judge, event)?;
    let mut legs = Legs::default();
    let id = holds::close(world, judge, header, event.hold, &event.slices, &mut legs)?;
    let job = world.jobs.get_mut(&id)?;
    let asset = job.asset;
    job.end = End::Captured(Box::new(Captured {
        leaf: header.leaf,
        event: event.clone(),
        share_ppm,
        reversed: false,
    }));
    let operator =
        judge.known(CheckKind::Jobs, world.operators.get(&event.operator), "operator", event.operator)?;
    legs.credit(BookKey::of(operator.account, AccountKind::OperatorAccrued, asset), event.operator_share.0);
    legs.credit(BookKey::system(AccountKind::PlatformRevenue, asset), event.platform_share.0);
    let carry = world.carries.entry((event.operator, asset, share_ppm)).or_default();
    carry.gross = carry.gross.saturating_add(event.cost.0);
    carry.paid = carry.paid.saturating_add(event.operator_share.0);
    let parts = spread(event.operator_share.0, event.cost.0, &event.slices);
    let parts = judge.known(CheckKind::Splits, parts, "share within 128 bits", event.operator_share.0)?;
    for (slice, share) in event.slices.iter().zip(parts) {
        let Some(grant) = world.grants.get(slice.grant.0 as usize) else { continue };
        let Backing::Vault(vault, address) = grant.backing else { continue };
        let Some(wallet) = world.wallets.get_mut(&(vault, address)) else { continue };
        wallet.captured = wallet.captured.saturating_add(slice.amount.0);
        wallet.queue.push_back(Interval {
            job: event.job,
            operator: event.operator,
            time_us: header.time_us,
            cost: slice.amount.0,
            share,
            covered: 0,
            receipt: event.receipt,
        });
    }
    Some(legs)
}

/// Counts, price, slices and split of a charge. Gives the share it was split by.
fn check_charge(world: &World, judge: &mut Judge, event: &UsageCaptured) -> Option<u32> {
    const PRICES: CheckKind = CheckKind::Prices;
    let job = judge.known(CheckKind::Holds, world.jobs.get(&event.job), "job", event.job)?;
    judge.equal(CheckKind::Holds, "a charge closes its job's hold", job.hold, event.hold);
    let attempt = job.attempts.get(event.attempt as usize);
    let attempt = judge.known(CheckKind::Jobs, attempt, "attempt", event.attempt)?;
    judge.equal(CheckKind::Jobs, "the attempt's node is charged for", attempt.node, event.node);
    judge.equal(CheckKind::Jobs, "the attempt's operator is paid", attempt.operator, event.operator);
    let output = event.output_units_worker.min(event.output_units_gateway);
    judge.equal(PRICES, "output billed is the smaller count", output, event.output_units);
    judge.require(
        PRICES,
        &format!("at most the {} prompt tokens held", job.input_units),
        event.input_units,
        || event.input_units <= job.input_units,
    );
    let within = (1..=job.output_units_max).contains(&event.output_units);
    judge.require(
        PRICES,
        &format!("1 to {} output tokens", job.output_units_max),
        event.output_units,
        || within,
    );
    let rate = judge.known(PRICES, world.rate(job.card_version, &job.model), "pinned price", &job.model)?;
    let cost = price(rate, event.input_units.saturating_add(event.output_units));
    let cost = judge.known(PRICES, cost, "price within 128 bits", event.output_units)?;
    judge.equal(PRICES, "the charge is the pinned price of the billed tokens", cost, event.cost.0);
    judge.require(CheckKind::Holds, &format!("at most the {} held", job.amount), event.cost.0, || {
        event.cost.0 <= job.amount
    });
    check_slices(judge, &job.slices, event);
    let key = (event.operator, job.asset, rate.operator_share_ppm);
    let carry = world.carries.get(&key).copied().unwrap_or_default();
    let due = carry.gross.saturating_add(event.cost.0).checked_mul(i128::from(rate.operator_share_ppm));
    let due = judge.known(CheckKind::Splits, due, "share within 128 bits", carry.gross)?;
    let share = due.div_euclid(1_000_000).saturating_sub(carry.paid).clamp(0, event.cost.0.max(0));
    judge.equal(
        CheckKind::Splits,
        "the operator's share, cumulative, remainder carried",
        share,
        event.operator_share.0,
    );
    let rest = event.cost.0.saturating_sub(event.operator_share.0);
    judge.equal(CheckKind::Splits, "the platform has the rest", rest, event.platform_share.0);
    Some(rate.operator_share_ppm)
}

/// The first slices of the hold that cover the charge, the last one in part.
fn check_slices(judge: &mut Judge, held: &[Slice], event: &UsageCaptured) {
    let mut open = event.cost.0;
    let mut expected = Vec::new();
    for slice in held {
        let take = slice.amount.0.min(open);
        if take > 0 {
            expected.push((slice.grant.0, take));
            open -= take;
        }
    }
    let actual: Vec<(u32, i128)> = event.slices.iter().map(|slice| (slice.grant.0, slice.amount.0)).collect();
    let (expected, actual) = (format!("{expected:?}"), format!("{actual:?}"));
    judge.equal(
        CheckKind::Grants,
        "a charge consumes its hold's slices in order (grant, amount)",
        expected,
        actual,
    );
}

pub(crate) fn reversed(
    world: &mut World,
    judge: &mut Judge,
    header: &Header,
    event: &CaptureReversed,
) -> Option<Legs> {
    const KIND: CheckKind = CheckKind::Reversals;
    let job = judge.known(KIND, world.jobs.get_mut(&event.job), "job", event.job)?;
    let asset = job.asset;
    let End::Captured(captured) = &mut job.end else {
        judge.fail(KIND, "a charged job", event.job, "what was not charged is undone");
        return None;
    };
    let again = std::mem::replace(&mut captured.reversed, true);
    if !judge.require(KIND, "a charge is undone once", event.job, || !again) {
        return None;
    }
    let (charge, share_ppm) = (captured.event.clone(), captured.share_ppm);
    judge.equal(KIND, "the operator's share is taken back", charge.operator_share.0, event.operator_share.0);
    judge.equal(KIND, "the platform's share is taken back", charge.platform_share.0, event.platform_share.0);
    let mut legs = Legs::default();
    let mut refunded = 0i128;
    for slice in &charge.slices {
        let grant =
            judge.known(KIND, world.grants.get_mut(slice.grant.0 as usize), "grant", slice.grant.0)?;
        let amount = slice.amount.0;
        if let Backing::Vault(vault, address) = grant.backing {
            let wallet = judge.known(KIND, world.wallets.get_mut(&(vault, address)), "wallet", address)?;
            let at =
                wallet.queue.iter().position(|interval| interval.job == event.job && interval.covered == 0);
            let at = judge.known(KIND, at, "charge that no batch has", event.job)?;
            wallet.queue.remove(at);
            wallet.captured = wallet.captured.saturating_sub(amount);
        }
        if grant.is_over(header.time_us) {
            legs.credit(BookKey::system(AccountKind::Breakage, asset), amount);
        } else {
            grant.remaining = grant.remaining.saturating_add(amount);
            refunded = refunded.saturating_add(amount);
            legs.credit(grant.book_key(), amount);
        }
    }
    judge.equal(KIND, "what flows back to grants that still live", refunded, event.refunded.0);
    let operator = judge.known(KIND, world.operators.get(&charge.operator), "operator", charge.operator)?;
    legs.debit(BookKey::of(operator.account, AccountKind::OperatorAccrued, asset), charge.operator_share.0);
    legs.debit(BookKey::system(AccountKind::PlatformRevenue, asset), charge.platform_share.0);
    let carry = world.carries.entry((charge.operator, asset, share_ppm)).or_default();
    carry.gross = carry.gross.saturating_sub(charge.cost.0);
    carry.paid = carry.paid.saturating_sub(charge.operator_share.0);
    Some(legs)
}
