//! Charges: at once, in parts, beyond the hold within a tolerance, and undone. The price is the pinned card's, never
//! today's; the charge is `min(worker, gateway)` tokens (specs/outcomes.md).

use crate::accounts::{AccountNo, check_spending};
use crate::apply::ApplyError;
use crate::books::BookKey;
use crate::command::{Capture, ReverseCapture};
use crate::decide::{Legs, Plan};
use crate::deposits::QueuedCapture;
use crate::economy::{bounties, conduct};
use crate::grants::{self, Need, Paper};
use crate::holds;
use crate::jobs::{self, Dispatch, Job, JobState, Part};
use crate::nodes::OperatorNo;
use crate::refusal::Refusal;
use crate::splits::{self, CarryKey};
use crate::state::State;
use crate::{credit_lines, earnings, spend_caps};
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::Header;
use protocol::event::account::AccountKind;
use protocol::event::hold::Slices;
use protocol::event::job::{CapturePart, CaptureReversed, UsageCaptured};
use protocol::id::JobId;
use protocol::rate::{ModelRate, price_ceil};
use std::collections::BTreeMap;

/// What a capture bills, from the job's beginning, and who pays what the hold does not.
struct Bill {
    input_units: u64,
    output_units: u64,
    /// Price of all units so far.
    total: Amount,
    /// Slices of what is spendable now, beyond the hold.
    beyond: Slices,
}

/// Charges a job, or a part of it. All parts together cost `ceil(price x all units)`; a part costs that figure so far
/// less what the parts before cost, and consumes the hold's slices where the part before stopped. An open part
/// releases only what it consumes; the last one (or the only one) releases the rest.
///
/// Postings: Dr each slice's ledger account; Cr `OperatorAccrued` and `PlatformRevenue` with their shares; for what
/// slices draw from a credit line also Dr `Receivable` / Cr `CreditLines`. Pending legs release from the hold; with the
/// rest that flows back into an expired grant going Dr that grant / Cr `Breakage`.
pub(crate) fn decide_capture(plan: &mut Plan, command: &Capture) -> Result<(), Refusal> {
    let state = plan.state;
    let job = jobs::running(state, command.job)?;
    let attempt = job.attempts.get(command.attempt);
    let attempts = job.attempts.len() as u32;
    let attempt = attempt.ok_or(Refusal::AttemptUnknown { given: command.attempt, attempts })?;
    let rate =
        jobs::pinned_rate(state, job).expect("a hold is pinned to a published card that has its model");
    let output_units = check_part(command, job)?;
    let bill = bill(plan, command, job, rate, output_units)?;
    let (share_ppm, share_set) = conduct::share(plan, job, &attempt, rate.operator_share_ppm);
    let event = part_event(plan, command, job, &attempt, bill, share_ppm)?;
    let legs = capture_legs(plan, job, &attempt, &event)?;
    let bounty = bounties::due(plan, job, &attempt, &rate.model, &event);
    if let Some(share_set) = share_set {
        plan.emit(share_set);
    }
    plan.emit_with(event, legs);
    match bounty {
        Some(bounty) => {
            let owner = state.operators[attempt.operator].account_no;
            bounties::plan_paid(plan, owner, job.asset, bounty)
        }
        None => Ok(()),
    }
}

fn stays_open(part: Option<CapturePart>) -> bool {
    part.is_some_and(|part| part.open)
}

/// The part is the next one, counts from the job's beginning, and bills something; only the last of several may bill
/// nothing more. An attempt bills what it delivered itself: from where it went on, or from what is billed, and to
/// where the next one went on. Gives the output that all parts bill together.
fn check_part(command: &Capture, job: &Job) -> Result<u64, Refusal> {
    let expected = job.part_count() as u32;
    let given = command.part.map(|part| part.number);
    if given.unwrap_or(0) != expected {
        return Err(Refusal::PartNumber { job: command.job, expected, given });
    }
    if command.input_units > job.input_units {
        return Err(Refusal::InputAboveHold { given: command.input_units, held: job.input_units });
    }
    let counted = command.output_units_worker.min(command.output_units_gateway);
    let (input_before, output_before) = job.billed();
    let end = job.output_end();
    if command.input_units < input_before || counted < end {
        let (input_units, output_units) = (input_before, end);
        return Err(Refusal::PartGoesBack { job: command.job, input_units, output_units });
    }
    let (from, until) = (job.output_from(command.attempt), job.output_until(command.attempt));
    if counted < from || until.is_some_and(|until| counted > until) {
        return Err(Refusal::OutsideCut { attempt: command.attempt, given: counted, from, until });
    }
    let output_units = output_before + (counted - from);
    let nothing_new = (command.input_units, counted) == (input_before, from);
    if output_units == 0 || (nothing_new && stays_open(command.part)) {
        return Err(Refusal::NothingDelivered { job: command.job });
    }
    Ok(output_units)
}

/// Within the hold: what was delivered. Beyond it, and only when the hold ends with this charge: at most the hold and
/// its tolerance; what the hold does not cover is taken from what is spendable now. Where that does not suffice (or the
/// account is frozen or closed, or the key's cap is reached), nothing is taken and the hold is all: then the output that
/// is billed is the largest number of units whose price it covers.
fn bill(
    plan: &Plan,
    command: &Capture,
    job: &Job,
    rate: &ModelRate,
    output_units: u64,
) -> Result<Bill, Refusal> {
    let counted = command.output_units_worker.min(command.output_units_gateway);
    let tolerance_ppm = plan.settings()?.capture_tolerance_ppm.unwrap_or(0);
    if counted > job.output_units_max && (tolerance_ppm == 0 || stays_open(command.part)) {
        return Err(Refusal::OutputAboveHold { given: counted, held: job.output_units_max });
    }
    let overflow = || Refusal::Overflow { what: "price" };
    let units = command.input_units.checked_add(output_units).ok_or_else(overflow)?;
    let total = price_ceil(rate.price, rate.per_units, units).ok_or_else(overflow)?;
    let input_units = command.input_units;
    if total <= job.amount() {
        return Ok(Bill { input_units, output_units, total, beyond: Slices::new() });
    }
    let tolerated = job.amount().0.checked_mul(i128::from(tolerance_ppm)).map(|product| product / 1_000_000);
    let extra = Amount(total.0 - job.amount().0);
    if tolerated.is_none_or(|tolerated| extra.0 > tolerated) {
        return Err(Refusal::BeyondTolerance { cost: total, hold: job.amount(), tolerance_ppm });
    }
    if let Some(beyond) = beyond_hold(plan, job, rate, extra) {
        return Ok(Bill { input_units, output_units, total, beyond });
    }
    let covered = job.amount().0.checked_mul(i128::from(rate.per_units)).map(|base| base / rate.price.0);
    let covered = covered.and_then(|units| u64::try_from(units).ok()).ok_or_else(overflow)?;
    let output_units = output_units.min(covered.saturating_sub(input_units));
    let total = price_ceil(rate.price, rate.per_units, input_units + output_units).ok_or_else(overflow)?;
    assert!(total <= job.amount(), "units that the hold covers cost no more than it");
    Ok(Bill { input_units, output_units, total, beyond: Slices::new() })
}

fn beyond_hold(plan: &Plan, job: &Job, rate: &ModelRate, extra: Amount) -> Option<Slices> {
    check_spending(plan.state, job.account).ok()?;
    if let Some(key) = job.cap_key() {
        spend_caps::check(plan.state, &key, extra).ok()?;
    }
    let need = Need { account: job.account, asset: job.asset, model: &rate.model, amount: extra.0 };
    grants::choose(plan.state, &need, plan.now_us).ok()
}

fn part_event(
    plan: &Plan,
    command: &Capture,
    job: &Job,
    attempt: &Dispatch,
    bill: Bill,
    share_ppm: u32,
) -> Result<UsageCaptured, Refusal> {
    let state = plan.state;
    let cost = Amount(bill.total.0 - job.charged());
    let beyond: i128 = bill.beyond.iter().map(|slice| slice.amount.0).sum();
    let mut slices = consume(job, cost.0 - beyond);
    slices.extend(bill.beyond);
    let carry_key = CarryKey { operator: attempt.operator, asset: job.asset, share_ppm };
    let carry = state.carries.get(&carry_key).copied().unwrap_or_default();
    let overflow = || Refusal::Overflow { what: "operator share" };
    let share = splits::operator_share(carry, share_ppm, cost).ok_or_else(overflow)?;
    splits::spread(share, cost, slices.iter().map(|slice| slice.amount)).ok_or_else(overflow)?;
    let (input_before, output_before) = job.billed();
    Ok(UsageCaptured {
        hold: job.hold,
        job: command.job,
        attempt: command.attempt,
        node: attempt.node,
        operator: state.operators[attempt.operator].id,
        outcome: command.outcome,
        input_units: bill.input_units - input_before,
        output_units: bill.output_units - output_before,
        output_units_worker: command.output_units_worker,
        output_units_gateway: command.output_units_gateway,
        cost,
        slices,
        operator_share: share,
        platform_share: Amount(cost.0 - share.0),
        receipt: command.receipt,
        chain_head: command.chain_head,
        part: command.part,
        beyond_hold: (beyond > 0).then_some(Amount(beyond)),
    })
}

fn capture_legs(
    plan: &mut Plan,
    job: &Job,
    attempt: &Dispatch,
    event: &UsageCaptured,
) -> Result<Legs, Refusal> {
    let beyond = event.beyond_hold.unwrap_or_default().0;
    let mut legs = if stays_open(event.part) {
        let mut legs = Legs::default();
        for slice in &event.slices {
            let key = plan.state.grants[slice.grant].book_key();
            plan.reserve(&mut legs, key, -slice.amount.0)?;
        }
        plan.reserve(&mut legs, BookKey::system(AccountKind::HoldsPending, job.asset), event.cost.0)?;
        legs
    } else {
        holds::release_legs(plan, job, event.cost.0 - beyond)?
    };
    for slice in &event.slices {
        let key = plan.state.grants[slice.grant].book_key();
        plan.post(&mut legs, key, slice.amount.0)?;
    }
    let owner = plan.state.operators[attempt.operator].account_no;
    let accrued = BookKey::new(owner, AccountKind::OperatorAccrued, job.asset);
    plan.post(&mut legs, accrued, -event.operator_share.0)?;
    let revenue = BookKey::system(AccountKind::PlatformRevenue, job.asset);
    plan.post(&mut legs, revenue, -event.platform_share.0)?;
    let drawn = credit_lines::drawn_by(plan.state, &event.slices);
    credit_lines::draw_legs(plan, &mut legs, job.account, job.asset, drawn)?;
    Ok(legs)
}

/// The next slices of the hold that cover the cost, the first and the last one possibly in part.
fn consume(job: &Job, cost: i128) -> Slices {
    jobs::first_of(job.open_slices(), cost)
}

/// All charges of an ended job that are not yet in a batch are unwound, leg by leg: Cr each slice's ledger account (what
/// came from a grant that has expired since is breakage, as any release into it); Dr the operators' and the platform's
/// shares, the operators' from `CustomerEarned` where they were taken as credit; Cr `Receivable` / Dr `CreditLines` for what was drawn from a credit line, also when it was repaid since.
pub(crate) fn decide_reverse(plan: &mut Plan, command: &ReverseCapture) -> Result<(), Refusal> {
    let state = plan.state;
    let job = state.jobs.get(&command.job).ok_or(Refusal::JobUnknown { job: command.job })?;
    if job.state == JobState::Running || job.part_count() == 0 {
        return Err(Refusal::NotCaptured { job: command.job, state: job.state.name() });
    }
    if job.reversed {
        return Err(Refusal::AlreadyReversed { job: command.job });
    }
    let mut legs = Legs::default();
    let (mut refunded, mut breakage, mut drawn) = (0, 0, 0);
    let mut accrued: BTreeMap<AccountNo, i128> = BTreeMap::new();
    let (mut share, mut platform) = (0, 0);
    for part in &job.parts() {
        for slice in &part.slices {
            let grant = &state.grants[slice.grant];
            check_unsettled(state, job, grant.paper)?;
            if grant.expired(plan.now_us) {
                breakage += slice.amount.0;
            } else {
                refunded += slice.amount.0;
                plan.post(&mut legs, grant.book_key(), -slice.amount.0)?;
            }
        }
        *accrued.entry(state.operators[job.operator_of(part)].account_no).or_default() +=
            part.operator_share.0;
        share += part.operator_share.0;
        platform += part.platform_share();
        drawn += credit_lines::drawn_by(state, &part.slices);
    }
    plan.post(&mut legs, BookKey::system(AccountKind::Breakage, job.asset), -breakage)?;
    for recall in earnings::recalls(state, job).ok_or(Refusal::Overflow { what: "operator share" })? {
        recall.check(job)?;
        *accrued.entry(recall.owner()).or_default() -= recall.bucket_part();
        let earned = BookKey::new(recall.owner(), AccountKind::CustomerEarned, job.asset);
        plan.post(&mut legs, earned, recall.bucket_part())?;
    }
    for (owner, share) in accrued {
        plan.post(&mut legs, BookKey::new(owner, AccountKind::OperatorAccrued, job.asset), share)?;
    }
    let revenue = BookKey::system(AccountKind::PlatformRevenue, job.asset);
    plan.post(&mut legs, revenue, platform)?;
    credit_lines::draw_legs(plan, &mut legs, job.account, job.asset, -drawn)?;
    let event = CaptureReversed {
        job: command.job,
        refunded: Amount(refunded),
        operator_share: Amount(share),
        platform_share: Amount(platform),
    };
    plan.emit_with(event, legs);
    bounties::plan_back(plan, job)
}

/// A charge that a wallet paid must still wait, whole, in the wallet's queue.
fn check_unsettled(state: &State, job: &Job, paper: Paper) -> Result<(), Refusal> {
    let Paper::Wallet(wallet) = paper else { return Ok(()) };
    let parts = job.parts();
    let paid_here = parts.iter().flat_map(|part| &part.slices);
    let paid_here = paid_here.filter(|s| state.grants[s.grant].paper == paper).count();
    let queue = &state.wallets[wallet].queue;
    let open = queue.iter().filter(|entry| entry.job == job.id && entry.covered.is_zero()).count();
    if open == paid_here { Ok(()) } else { Err(Refusal::CaptureInBatch { job: job.id }) }
}

pub(crate) fn apply_captured(
    state: &mut State,
    header: &Header,
    event: &UsageCaptured,
) -> Result<(), ApplyError> {
    let number = state.job_no(event.job)?;
    let job = &state.jobs[number];
    let rate = jobs::pinned_rate(state, job).ok_or(ApplyError::Impossible("a job without a pinned price"))?;
    let attempt = job.attempts.get(event.attempt);
    let operator = attempt.ok_or(ApplyError::Impossible("a charge of an attempt that was not"))?.operator;
    if state.operators[operator].id != event.operator {
        return Err(ApplyError::Impossible("a charge pays the operator of its attempt"));
    }
    let share_ppm = state.economy.share_of(job.id, &event.operator).unwrap_or(rate.operator_share_ppm);
    let (asset, cap_key) = (job.asset, job.cap_key());
    check_event(job, event)?;
    let beyond = event.beyond_hold.unwrap_or_default().0;
    if stays_open(event.part) {
        consume_open(state, event, cap_key)?;
    } else {
        holds::release(state, header, number, event.cost.0 - beyond)?;
        take_beyond(state, event, beyond, header.time_us)?;
        jobs::finish(state, header, number, JobState::Captured);
    }
    credit_lines::draw(state, &event.slices, 1)?;
    spend_caps::note(state, cap_key, 0, event.cost.0)?;
    let carry = state.carries.entry(CarryKey { operator, asset, share_ppm }).or_default();
    carry.gross.0 += event.cost.0;
    carry.paid.0 += event.operator_share.0;
    let queued = earn(state, header, event, operator, asset)?;
    let job = state.jobs.row_mut(number);
    job.queued += queued;
    job.charge(event, header.leaf);
    Ok(())
}

fn check_event(job: &Job, event: &UsageCaptured) -> Result<(), ApplyError> {
    let sum = event.slices.iter().try_fold(0i128, |sum, slice| sum.checked_add(slice.amount.0));
    let shares = event.operator_share.checked_add(event.platform_share);
    if sum != Some(event.cost.0) || shares != Some(event.cost) {
        return Err(ApplyError::Impossible("slices and shares must both sum to the cost"));
    }
    let number = event.part.map_or(0, |part| part.number);
    if job.hold != event.hold || job.state != JobState::Running || number as usize != job.part_count() {
        return Err(ApplyError::Impossible("parts of a running job are numbered without gaps"));
    }
    let counted = event.output_units_worker.min(event.output_units_gateway);
    if counted < job.output_from(event.attempt).saturating_add(event.output_units) {
        return Err(ApplyError::Impossible("an attempt is paid for more than it counted after its cut"));
    }
    let beyond = event.beyond_hold.unwrap_or_default();
    let of_hold = event.cost.0 - beyond.0;
    if beyond.0 < 0 || of_hold < 0 || of_hold > job.amount().0 - job.consumed() {
        return Err(ApplyError::Impossible("a capture takes more than its hold has"));
    }
    if !follows(job, of_hold, event) {
        return Err(ApplyError::Impossible("a capture consumes its hold's slices in their order"));
    }
    if !beyond.is_zero() && stays_open(event.part) {
        return Err(ApplyError::Impossible("only the last charge of a hold goes beyond it"));
    }
    Ok(())
}

/// Whether an event's slices are the next of the hold that cover the cost, and beyond them only what the hold did not.
fn follows(job: &Job, of_hold: i128, event: &UsageCaptured) -> bool {
    let (mut open, mut own) = (of_hold, 0);
    for slice in job.open_slices() {
        let take = slice.amount.0.min(open);
        if take > 0 {
            let given = event.slices.get(own);
            if given.is_none_or(|given| (given.grant, given.amount.0) != (slice.grant, take)) {
                return false;
            }
            (open, own) = (open - take, own + 1);
        }
    }
    let beyond = event.beyond_hold.is_some_and(|beyond| !beyond.is_zero());
    (beyond || own == event.slices.len()) && event.slices[own..].iter().all(|slice| slice.amount.0 > 0)
}

/// An open part takes what it consumed out of the hold and leaves the rest.
fn consume_open(
    state: &mut State,
    event: &UsageCaptured,
    cap_key: Option<spend_caps::CapKey>,
) -> Result<(), ApplyError> {
    for slice in &event.slices {
        let grant = state.grant_mut(slice.grant)?;
        if grant.held.0 < slice.amount.0 {
            return Err(ApplyError::Impossible("more is charged than is held"));
        }
        grant.held.0 -= slice.amount.0;
        grant.remaining.0 -= slice.amount.0;
        grants::index(state, slice.grant)?;
    }
    spend_caps::note(state, cap_key, -event.cost.0, 0)
}

/// The last slices, beyond the hold, are of what was free.
fn take_beyond(
    state: &mut State,
    event: &UsageCaptured,
    beyond: i128,
    now_us: u64,
) -> Result<(), ApplyError> {
    let mut open = beyond;
    for slice in event.slices.iter().rev() {
        if open <= 0 {
            break;
        }
        open -= slice.amount.0;
        let grant = state.grant_mut(slice.grant)?;
        if slice.amount.0 > grant.free() || grant.expired(now_us) {
            return Err(ApplyError::Impossible("a charge beyond its hold takes what is not free"));
        }
        grant.remaining.0 -= slice.amount.0;
        grants::index(state, slice.grant)?;
    }
    if open == 0 { Ok(()) } else { Err(ApplyError::Impossible("beyond the hold are whole slices")) }
}

/// Where each slice's share of the operator waits: in the wallet's queue until the chain charged it, or with what it
/// earned from credit of the same backing. Gives how many wait in queues.
fn earn(
    state: &mut State,
    header: &Header,
    event: &UsageCaptured,
    operator: OperatorNo,
    asset: AssetId,
) -> Result<u32, ApplyError> {
    let parts = splits::spread(event.operator_share, event.cost, event.slices.iter().map(|s| s.amount));
    let parts = parts.ok_or(ApplyError::Impossible("a share beyond 128 bits"))?;
    let owner = state.operators[operator].account_no;
    let mut queued = 0;
    for (place, (slice, share)) in event.slices.iter().zip(parts).enumerate() {
        let paper = state.grants[slice.grant].paper;
        let Paper::Wallet(wallet) = paper else {
            earnings::wait(state, (owner, asset, paper), share.0);
            continue;
        };
        queued += 1;
        let wallet = state.wallets.row_mut(wallet)?;
        wallet.captured.0 += slice.amount.0;
        wallet.queue.push_back(QueuedCapture {
            job: event.job,
            operator: event.operator,
            cost: slice.amount,
            share,
            covered: Amount::ZERO,
            receipt: event.receipt,
            leaf: header.leaf,
            time_us: header.time_us,
            slice: place as u32,
        });
    }
    Ok(queued)
}

pub(crate) fn apply_reversed(
    state: &mut State,
    header: &Header,
    event: &CaptureReversed,
) -> Result<(), ApplyError> {
    let number = state.job_no(event.job)?;
    let job = state.jobs.row_mut(number);
    if job.state == JobState::Running || job.part_count() == 0 || job.reversed {
        return Err(ApplyError::Impossible("only charges of an ended job are reversed, and once"));
    }
    job.reversed = true;
    let (asset, cap_key, charged) = (job.asset, job.cap_key(), job.charged());
    let job = job.clone();
    let rate =
        jobs::pinned_rate(state, &job).ok_or(ApplyError::Impossible("a job without a pinned price"))?;
    let card_share_ppm = rate.operator_share_ppm;
    earnings::apply_recalled(state, &job)?;
    for part in &job.parts() {
        let operator = job.operator_of(part);
        let own = state.economy.share_of(job.id, &state.operators[operator].id);
        let share_ppm = own.unwrap_or(card_share_ppm);
        let carry = state.carries.entry(CarryKey { operator, asset, share_ppm }).or_default();
        carry.gross.0 -= part.cost.0;
        carry.paid.0 -= part.operator_share.0;
        refund(state, header, event.job, part)?;
    }
    spend_caps::note(state, cap_key, 0, -charged)?;
    for _ in 0..job.queued {
        state.jobs.unqueue(&event.job)?;
    }
    Ok(())
}

/// Takes a part out of the wallets' queues, and refunds it.
fn refund(state: &mut State, header: &Header, job: JobId, part: &Part) -> Result<(), ApplyError> {
    for (place, slice) in part.slices.iter().enumerate() {
        if let Paper::Wallet(wallet) = state.grants[slice.grant].paper {
            let wallet = state.wallets.row_mut(wallet)?;
            let here = |e: &QueuedCapture| (e.job, e.leaf, e.slice) == (job, part.leaf, place as u32);
            let at = wallet.queue.iter().position(here);
            let entry = at.and_then(|at| wallet.queue.remove(at));
            if entry.is_none_or(|entry| !entry.covered.is_zero()) {
                return Err(ApplyError::Impossible("a capture in a batch is reversed"));
            }
            wallet.captured.0 -= slice.amount.0;
        }
        let grant = state.grant_mut(slice.grant)?;
        if !grant.expired(header.time_us) {
            grant.remaining.0 += slice.amount.0;
            grants::index(state, slice.grant)?;
        }
    }
    credit_lines::draw(state, &part.slices, -1)
}
