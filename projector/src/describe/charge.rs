//! Sentences about jobs and the arithmetic of their price: rate x units, what grants paid, who got which share.

use super::money::grant;
use super::{Teller, counted};
use crate::time::rfc3339;
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::EventBody;
use protocol::event::hold::{HoldExtended, HoldPlaced, Slice, VoidReason};
use protocol::event::job::{CaptureReversed, Outcome, UsageCaptured};
use protocol::id::JobId;
use protocol::rate::{ModelRate, Unit, price_ceil};

pub(super) fn sentence(teller: &Teller<'_>) -> String {
    match &teller.event.body {
        EventBody::HoldPlaced(e) => placed(teller, e),
        EventBody::HoldExtended(e) => extended(teller, e),
        EventBody::HoldVoided(e) => {
            let why = match e.reason {
                VoidReason::OperatorFault => "the node failed, vanished or was too late",
                VoidReason::ReceiptInvalid => "the worker's receipt did not verify",
                VoidReason::NoUsage => "nothing was delivered",
                VoidReason::NotAccepted => "no node took the job",
                VoidReason::ClientGone => "the client left before anything was delivered",
            };
            format!("{} for {} was released and nothing charged: {why}.", e.hold, job_of(teller, e.hold))
        }
        EventBody::HoldExpired(e) => {
            format!(
                "{} for {} ran out, was released, and nothing was charged.",
                e.hold,
                job_of(teller, e.hold)
            )
        }
        EventBody::JobDispatched(e) => {
            let what = match (e.attempt, e.continues_at) {
                (0, _) => String::new(),
                (attempt, 0) => format!(", attempt {attempt}, from the beginning"),
                (attempt, at) => format!(", attempt {attempt}, from output unit {at} on"),
            };
            format!("{} was given to {} of operator {}{what}.", e.job, e.node, e.operator)
        }
        EventBody::UsageCaptured(e) => captured(teller, e),
        EventBody::CaptureReversed(e) => reversed(teller, e),
        other => other.kind().replace('_', " "),
    }
}

/// The lines behind the figures.
pub(super) fn arithmetic(teller: &Teller<'_>) -> Vec<String> {
    match &teller.event.body {
        EventBody::HoldPlaced(e) => {
            let units = e.input_units.saturating_add(e.output_units_max);
            let mut lines: Vec<String> =
                teller.rate(e).map(|rate| product(teller, rate, units, 0)).into_iter().collect();
            lines.push(paid_by(teller, e.asset, "reserved from", &e.slices));
            lines
        }
        EventBody::HoldExtended(e) => {
            let hold = teller.hold(e.hold);
            let mut lines = Vec::new();
            if let Some((hold, rate)) = hold.and_then(|hold| Some((hold, teller.rate(hold)?))) {
                let units = hold.input_units.saturating_add(e.output_units_max);
                lines.push(product(teller, rate, units, 0));
            }
            if let (Some(hold), false) = (hold, e.slices.is_empty()) {
                lines.push(paid_by(teller, hold.asset, "added from", &e.slices));
            }
            lines
        }
        EventBody::UsageCaptured(e) => capture_lines(teller, e),
        EventBody::CaptureReversed(e) => vec![format!(
            "{} + {} = {}: the operator's and the platform's part",
            teller.figure(e.operator_share),
            teller.figure(e.platform_share),
            teller.figure(e.refunded)
        )],
        _ => Vec::new(),
    }
}

fn placed(teller: &Teller<'_>, event: &HoldPlaced) -> String {
    let key = event.spender.map_or_else(String::new, |spender| format!(" by its key {spender}"));
    format!(
        "{} of {} was reserved{key} for {}: at most {} of input and {} of output of {} under rate card {}, until {}.",
        teller.money(event.asset, event.amount),
        event.account,
        event.job,
        units(teller.rate(event), event.input_units),
        units(teller.rate(event), event.output_units_max),
        event.model,
        event.rate_card_version,
        rfc3339(event.deadline_us)
    )
}

fn extended(teller: &Teller<'_>, event: &HoldExtended) -> String {
    let grown = if event.amount.is_zero() {
        "got more time".to_owned()
    } else {
        format!("grew by {}", teller.figure(event.amount))
    };
    format!(
        "{} for {} {grown}: at most {} of output, until {}.",
        event.hold,
        job_of(teller, event.hold),
        units(teller.hold(event.hold).and_then(|hold| teller.rate(hold)), event.output_units_max),
        rfc3339(event.deadline_us)
    )
}

fn captured(teller: &Teller<'_>, event: &UsageCaptured) -> String {
    let hold = teller.hold(event.hold);
    let rate = hold.and_then(|hold| teller.rate(hold));
    let end = match (event.outcome, event.part) {
        (_, Some(part)) if part.open => format!("part {}; more may follow", part.number),
        (Outcome::Completed, _) => "the answer ended".to_owned(),
        (Outcome::ClientGone, _) => "the client left".to_owned(),
    };
    let payer = hold.map_or_else(String::new, |hold| format!("{} paid ", hold.account));
    let model = hold.map_or_else(String::new, |hold| format!(" of {}", hold.model));
    format!(
        "{payer}{} for {}: {} of input and {} of output{model}; {end}.",
        figure(teller, event),
        event.job,
        units(rate, event.input_units),
        units(rate, event.output_units)
    )
}

fn figure(teller: &Teller<'_>, event: &UsageCaptured) -> String {
    match teller.hold(event.hold) {
        Some(hold) => teller.money(hold.asset, event.cost),
        None => teller.figure(event.cost),
    }
}

fn capture_lines(teller: &Teller<'_>, event: &UsageCaptured) -> Vec<String> {
    let mut lines = Vec::new();
    let hold = teller.hold(event.hold);
    let money = |amount| hold.map_or_else(|| teller.figure(amount), |hold| teller.money(hold.asset, amount));
    if event.output_units_worker != event.output_units_gateway {
        lines.push(format!(
            "billed the lesser: the worker's receipt says {}, the gateway saw {}",
            event.output_units_worker, event.output_units_gateway
        ));
    }
    let rate = hold.and_then(|hold| teller.rate(hold));
    if let Some(rate) = rate {
        let before = billed_before(teller, event);
        let units = event.input_units.saturating_add(event.output_units);
        lines.push(product(teller, rate, units, before));
    }
    if let Some(beyond) = event.beyond_hold {
        lines.push(format!("{} of it went beyond the hold", money(beyond)));
    }
    if let Some(hold) = hold {
        lines.push(paid_by(teller, hold.asset, "paid by", &event.slices));
    }
    let share = rate.map_or_else(String::new, |rate| format!(" ({} %)", percent(rate.operator_share_ppm)));
    lines.push(format!(
        "{} to the operator{share} + {} to the platform = {}; what is below a base unit is carried on",
        money(event.operator_share),
        money(event.platform_share),
        money(event.cost)
    ));
    lines
}

/// Units that earlier parts of the same job billed.
fn billed_before(teller: &Teller<'_>, event: &UsageCaptured) -> u64 {
    let Some(part) = event.part else { return 0 };
    let earlier = teller.related.iter().filter_map(|other| match &other.body {
        EventBody::UsageCaptured(other) if other.job == event.job => Some(other),
        _ => None,
    });
    earlier
        .filter(|other| other.part.is_some_and(|p| p.number < part.number))
        .map(|other| other.input_units + other.output_units)
        .sum()
}

/// `0.000004 FOIL per token x 1420 tokens = 0.00568 FOIL`; of a later part, the difference to what is paid already.
fn product(teller: &Teller<'_>, rate: &ModelRate, units_now: u64, before: u64) -> String {
    let money = |amount| teller.money(rate.asset, amount);
    let price = |units| price_ceil(rate.price, rate.per_units, units);
    let all = units_now.saturating_add(before);
    let (Some(cost), Some(paid)) = (price(all), price(before)) else { return "beyond 128 bits".to_owned() };
    let exact = rate
        .price
        .0
        .checked_mul(i128::from(all))
        .is_some_and(|gross| gross % i128::from(rate.per_units) == 0);
    let rounded = if exact { "" } else { ", rounded up once" };
    let line = format!(
        "{} per {} x {} = {}{rounded}",
        money(rate.price),
        per(rate),
        units(Some(rate), all),
        money(cost)
    );
    if before == 0 {
        return line;
    }
    format!("{line}; less {} for the {before} before = {}", money(paid), money(Amount(cost.0 - paid.0)))
}

fn paid_by(teller: &Teller<'_>, asset: AssetId, verb: &str, slices: &[Slice]) -> String {
    let line =
        |slice: &Slice| format!("{} {}", grant(teller, slice.grant), teller.money(asset, slice.amount));
    format!("{verb} {}", slices.iter().map(line).collect::<Vec<_>>().join(", "))
}

fn reversed(teller: &Teller<'_>, event: &CaptureReversed) -> String {
    let whom = teller
        .hold_of_job(event.job)
        .map_or_else(|| "the customer".to_owned(), |hold| hold.account.to_string());
    format!("The charge of {} was undone: {whom} got {} back.", event.job, teller.figure(event.refunded))
}

fn job_of(teller: &Teller<'_>, hold: protocol::id::HoldId) -> String {
    teller.hold(hold).map_or_else(|| "its job".to_owned(), |hold| JobId::to_string(&hold.job))
}

fn units(rate: Option<&ModelRate>, count: u64) -> String {
    counted(usize::try_from(count).unwrap_or(usize::MAX), rate.map_or("unit", |rate| noun(rate.unit)))
}

fn noun(unit: Unit) -> &'static str {
    match unit {
        Unit::Token => "token",
        Unit::Image => "image",
        Unit::Second => "second",
        Unit::Request => "request",
    }
}

/// `token`, or `1000000 tokens`.
pub(super) fn per(rate: &ModelRate) -> String {
    if rate.per_units == 1 { noun(rate.unit).to_owned() } else { units(Some(rate), rate.per_units) }
}

/// Millionths as per cent, exactly.
fn percent(ppm: u32) -> String {
    Amount(i128::from(ppm)).to_decimal_string(4)
}
