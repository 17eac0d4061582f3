//! The rules of version 2 of events, each a named promise: moved credit, credit lines, spend caps, extended holds,
//! charges in parts and beyond the hold, keys that are too old, finished jobs that leave. Earned credit and continued
//! jobs have their own files; the property at the end has everything together.

mod world;

use ledger::command::*;
use ledger::{Command, Refusal, query};
use proptest::prelude::*;
use protocol::amount::Amount;
use protocol::event::account::AccountKind;
use protocol::event::grant::{Backing, GrantSource};
use protocol::event::job::{CapturePart, UsageCaptured};
use protocol::event::policy::Settings;
use protocol::event::{Actor, Event, EventBody, GrantId};
use protocol::id::{Hash32, IdempotencyKey, SpenderId};
use world::*;

fn name<T: std::fmt::Debug>(result: Result<T, Refusal>) -> &'static str {
    result.expect_err("must be refused").name()
}

fn booked(world: &World, kind: AccountKind) -> i128 {
    let lines = query::trial_balance(&world.state).into_iter().filter(|line| line.kind == kind);
    lines.map(|line| line.credits_posted.0 - line.debits_posted.0).sum()
}

fn tolerant(capture_tolerance_ppm: u32) -> World {
    let settings = Settings { capture_tolerance_ppm: Some(capture_tolerance_ppm), ..settings() };
    World::open_with(rate(10, 1, 800_000), settings)
}

struct Bucket {
    of: u8,
    source: GrantSource,
    amount: i128,
    life_s: Option<u64>,
    scope: &'static [&'static str],
    backing: Backing,
}

const EARNED: Bucket = Bucket {
    of: 1,
    source: GrantSource::Earned,
    amount: 1_000,
    life_s: None,
    scope: &[],
    backing: Backing::Treasury,
};

fn bucket(world: &mut World, bucket: Bucket) -> GrantId {
    let events = world.must(IssueGrant {
        account: account(bucket.of),
        source: bucket.source,
        asset: FOIL,
        amount: Amount(bucket.amount),
        priority: 40,
        scope: bucket.scope.iter().map(|model| model.to_string()).collect(),
        expires_us: bucket.life_s.map(|life_s| world.now_us + life_s * S),
        backing: bucket.backing,
    });
    let EventBody::GrantIssued(issued) = &events.last().unwrap().body else { panic!("{events:?}") };
    issued.grant
}

fn shift(from: GrantId, to: GrantId, amount: i128) -> MoveCredit {
    MoveCredit { from, to, amount: Amount(amount) }
}

fn charge(events: &[Event]) -> &UsageCaptured {
    let found = events.iter().find_map(|event| match &event.body {
        EventBody::UsageCaptured(event) => Some(event),
        _ => None,
    });
    found.expect("a charge")
}

fn part(id: u32, number: u32, open: bool, input: u64, output: u64) -> Capture {
    Capture { part: Some(CapturePart { number, open }), ..capture(id, input, output, output) }
}

#[test]
fn credit_moves_only_where_it_is_worth_no_more() {
    let mut world = World::open(rate(10, 1, 800_000));
    let from = bucket(&mut world, EARNED);
    let to = bucket(&mut world, Bucket { of: 2, ..EARNED });
    let events = world.must(shift(from, to, 400));
    assert_eq!(events.last().unwrap().postings.len(), 2);
    assert_eq!((world.available(1), world.available(2)), (600, 1_400));
    let own = bucket(&mut world, EARNED);
    let events = world.must(shift(from, own, 100));
    let legs = &events.last().unwrap().postings;
    assert_eq!(legs[0].account, legs[1].account, "both legs, also within one ledger account");
    assert_eq!(legs[0].amount.0 + legs[1].amount.0, 0);
    assert_eq!(name(world.run(shift(from, to, 501))), "insufficient_credit");
    assert_eq!(name(world.run(shift(from, to, 0))), "units_zero");
    assert_eq!(name(world.run(shift(from, from, 1))), "move_refused");
    assert_eq!(name(world.run(shift(from, GrantId(99), 1))), "grant_unknown");
    let package = Backing::Package(7);
    for other in [
        Bucket { source: GrantSource::Package, ..EARNED },
        Bucket { backing: Backing::Unbacked, ..EARNED },
        Bucket { backing: package, ..EARNED },
    ] {
        let to = bucket(&mut world, other);
        assert_eq!(name(world.run(shift(from, to, 1))), "move_refused");
    }
    let short = bucket(&mut world, Bucket { life_s: Some(10), ..EARNED });
    assert_eq!(name(world.run(shift(short, from, 1))), "move_refused", "nothing lives longer");
    world.must(shift(from, short, 1));
    let narrow = bucket(&mut world, Bucket { scope: &["a", "b"], ..EARNED });
    let narrower = bucket(&mut world, Bucket { scope: &["b"], ..EARNED });
    assert_eq!(name(world.run(shift(narrow, from, 1))), "move_refused", "nothing pays for more");
    assert_eq!(name(world.run(shift(narrower, narrow, 1))), "move_refused");
    world.must(shift(narrow, narrower, 1));
    world.must(shift(from, narrow, 1));
    for source in [GrantSource::Promo, GrantSource::Allotment] {
        let mine = bucket(&mut world, Bucket { source, ..EARNED });
        let also = bucket(&mut world, Bucket { source, ..EARNED });
        let theirs = bucket(&mut world, Bucket { of: 2, source, ..EARNED });
        world.must(shift(mine, also, 1));
        assert_eq!(name(world.run(shift(mine, theirs, 1))), "move_refused", "it stays with its account");
    }
    world.now_us += 10 * S;
    assert_eq!(name(world.run(shift(from, short, 1))), "move_refused", "it has expired");
    world.check_replay();
}

#[test]
fn held_credit_does_not_move_and_deposits_never() {
    let mut world = World::open(rate(10, 1, 800_000));
    let from = bucket(&mut world, EARNED);
    let to = bucket(&mut world, Bucket { of: 2, ..EARNED });
    world.admit(1, 1, 20, 20).unwrap();
    assert_eq!(name(world.run(shift(from, to, 601))), "insufficient_credit");
    world.must(shift(from, to, 600));
    world.capture(1, 20, 20).unwrap();
    assert_eq!((world.total(1), world.total(2)), (0, 1_600));
    world.must(shift(to, from, 10));
    assert_eq!(world.available(1), 10, "an empty bucket is filled again");
    for n in 1..=2 {
        world.authorise(n, 1_000).unwrap();
        world.deposit(n, 5, 0).unwrap();
    }
    let deposits: Vec<GrantId> =
        (1..=2).map(|n| query::wallet(&world.state, vault(), wallet(n)).unwrap().bucket.unwrap()).collect();
    assert_eq!(name(world.run(shift(deposits[0], deposits[1], 1))), "move_refused");
    world.check_replay();
}

fn line(world: &mut World, limit: i128) -> Result<Vec<Event>, Refusal> {
    world.run(SetCreditLine { account: account(1), asset: FOIL, limit: Amount(limit), priority: 60 })
}

fn repay(world: &mut World, amount: i128) -> Result<Vec<Event>, Refusal> {
    let reference = Hash32([3; 32]);
    world.run(RepayCredit { account: account(1), asset: FOIL, amount: Amount(amount), reference })
}

#[test]
fn a_credit_line_is_drawn_owed_and_repaid_and_never_beyond_its_limit() {
    let mut world = World::open(rate(10, 1, 800_000));
    assert_eq!(name(repay(&mut world, 1)), "credit_line_unknown");
    line(&mut world, 1_000).unwrap();
    assert_eq!(world.available(1), 1_000);
    world.admit(1, 1, 30, 30).unwrap();
    world.capture(1, 30, 20).unwrap();
    assert_eq!(world.available(1), 500);
    assert_eq!(booked(&world, AccountKind::Receivable), -500, "what was drawn is owed");
    assert_eq!(booked(&world, AccountKind::CreditLines), -500);
    assert_eq!(booked(&world, AccountKind::CustomerCredit), 500);
    let earned = &query::earnings(&world.state, operator(2))[0];
    assert_eq!((earned.accrued.0, earned.unbacked.0), (400, 400), "nobody pays it on a chain");
    world.admit(1, 2, 10, 10).unwrap();
    assert_eq!(name(repay(&mut world, 501)), "repays_more_than_drawn");
    line(&mut world, 300).unwrap();
    assert_eq!((world.available(1), world.held(1)), (0, 200), "an open hold keeps its part");
    assert_eq!(name(line(&mut world, -1)), "credit_line_invalid");
    world.void(2).unwrap();
    assert_eq!(world.available(1), 0, "what a hold gives back is beyond the new limit");
    repay(&mut world, 400).unwrap();
    assert_eq!(world.available(1), 200, "100 are drawn of 300");
    assert_eq!(booked(&world, AccountKind::PlatformTreasury), -400);
    assert_eq!(name(world.run(CloseAccount { account: account(1) })), "account_not_empty");
    repay(&mut world, 100).unwrap();
    assert_eq!(world.available(1), 300);
    assert_eq!(booked(&world, AccountKind::Receivable), 0);
    world.check_replay();
}

#[test]
fn a_reversed_charge_of_a_credit_line_gives_back_what_was_repaid_too() {
    let mut world = World::open(rate(10, 1, 800_000));
    line(&mut world, 1_000).unwrap();
    world.admit(1, 1, 30, 30).unwrap();
    world.capture(1, 30, 30).unwrap();
    repay(&mut world, 600).unwrap();
    world.must(ReverseCapture { job: job(1) });
    assert_eq!(world.available(1), 1_600, "the limit, and what was paid for nothing");
    assert_eq!(booked(&world, AccountKind::Receivable), 600, "the account has it with us");
    world.check_replay();
}

#[test]
fn a_credit_line_is_no_grant_and_freezes_nobody() {
    let mut world = World::open(rate(10, 1, 800_000));
    line(&mut world, 1_000).unwrap();
    let other = SetCreditLine { account: account(1), asset: FOIL, limit: Amount(5), priority: 1 };
    assert_eq!(name(world.run(other)), "credit_line_invalid");
    let grant = IssueGrant {
        account: account(1),
        source: GrantSource::CreditLine,
        asset: FOIL,
        amount: Amount(5),
        priority: 1,
        scope: vec![],
        expires_us: None,
        backing: Backing::Unbacked,
    };
    assert_eq!(name(world.run(grant)), "grant_invalid");
    world.admit(1, 1, 50, 50).unwrap();
    world.capture(1, 50, 50).unwrap();
    world.grant(1, 100, None);
    world.admit(1, 2, 5, 5).unwrap();
    world.check_replay();
}

fn spender(n: u8) -> SpenderId {
    SpenderId([n; 16])
}

fn cap(world: &mut World, cap: Option<i128>) -> Result<Vec<Event>, Refusal> {
    world.run(SetSpendCap { account: account(1), spender: spender(1), asset: FOIL, cap: cap.map(Amount) })
}

fn admit_by(world: &mut World, id: u32, input: u64, output: u64) -> Result<Vec<Event>, Refusal> {
    let admission = Admit { spender: Some(spender(1)), ..world.admission(1, id, input, output) };
    world.run(admission)
}

#[test]
fn a_key_spends_at_most_its_cap_with_holds_and_charges_together() {
    let mut world = tolerant(1_000_000);
    world.grant(1, 100_000, None);
    admit_by(&mut world, 1, 50, 50).unwrap();
    assert_eq!(name(cap(&mut world, None)), "spend_cap_invalid");
    cap(&mut world, Some(1_000)).unwrap();
    admit_by(&mut world, 2, 30, 30).unwrap();
    assert_eq!(name(admit_by(&mut world, 3, 20, 21)), "spend_cap_reached");
    world.admit(1, 4, 50, 50).unwrap();
    let longer = ExtendHold { job: job(2), output_units_max: 71, deadline_us: world.now_us + 60 * S };
    assert_eq!(name(world.run(longer.clone())), "spend_cap_reached");
    world.must(ExtendHold { output_units_max: 50, ..longer });
    world.capture(2, 30, 10).unwrap();
    admit_by(&mut world, 3, 30, 30).unwrap();
    assert_eq!(name(admit_by(&mut world, 5, 0, 1)), "spend_cap_reached");
    world.must(ReverseCapture { job: job(2) });
    admit_by(&mut world, 5, 20, 20).unwrap();
    let events = world.capture(5, 20, 25).unwrap();
    assert_eq!(charge(&events).cost.0, 400, "beyond its hold only as far as the cap allows");
    cap(&mut world, None).unwrap();
    admit_by(&mut world, 6, 50, 50).unwrap();
    cap(&mut world, Some(1_999)).unwrap();
    assert_eq!(name(admit_by(&mut world, 7, 0, 1)), "spend_cap_reached", "counting went on");
    world.check_replay();
}

#[test]
fn a_hold_grows_by_its_pinned_price_from_what_is_spendable_now() {
    let mut world = World::open(rate(7, 3, 800_000));
    world.grant(1, 100, None);
    let later = bucket(&mut world, Bucket { amount: 1_000, ..EARNED });
    world.admit(1, 1, 10, 10).unwrap();
    assert_eq!(world.held(1), 47, "ceil(7 x 20 / 3)");
    world.publish(2, world.now_us, rate(1_000, 1, 800_000)).unwrap();
    let deadline_us = world.now_us + 60 * S;
    let extend = |output_units_max, deadline_us| ExtendHold { job: job(1), output_units_max, deadline_us };
    assert_eq!(name(world.run(extend(9, deadline_us))), "extension_invalid");
    assert_eq!(name(world.run(extend(10, deadline_us))), "extension_invalid", "nothing new");
    assert_eq!(name(world.run(extend(10_000, deadline_us))), "insufficient_credit");
    let events = world.must(extend(50, deadline_us + 30 * S));
    let EventBody::HoldExtended(event) = &events.last().unwrap().body else { panic!("{events:?}") };
    assert_eq!(event.amount.0, 140 - 47, "ceil(7 x 60 / 3) - 47, by the pinned card");
    assert_eq!(event.slices.iter().map(|s| s.amount.0).collect::<Vec<_>>(), [53, 40]);
    assert_eq!(event.slices[1].grant, later);
    world.now_us = deadline_us + 15 * S;
    assert_eq!(name(world.run(ExpireDue { events_max: 1 })), "nothing_due", "the timer moved");
    let events = world.capture(1, 10, 50).unwrap();
    assert_eq!(charge(&events).slices.iter().map(|s| s.amount.0).collect::<Vec<_>>(), [47, 53, 40]);
    assert_eq!((world.held(1), world.available(1)), (0, 960));
    world.check_replay();
}

#[test]
fn a_running_job_alone_is_extended_and_before_its_deadline() {
    let mut world = World::open(rate(10, 1, 800_000));
    world.grant(1, 10_000, None);
    world.admit(1, 1, 10, 10).unwrap();
    let deadline_us = world.now_us + 60 * S;
    let extend = ExtendHold { job: job(1), output_units_max: 10, deadline_us: deadline_us + S };
    let far = ExtendHold { deadline_us: world.now_us + 601 * S, ..extend.clone() };
    assert_eq!(name(world.run(far)), "deadline_out_of_range");
    let long = ExtendHold { output_units_max: 100_000, ..extend.clone() };
    assert_eq!(name(world.run(long)), "context_exceeded");
    world.now_us = deadline_us;
    assert_eq!(name(world.run(extend.clone())), "deadline_passed");
    world.void(1).unwrap();
    assert_eq!(name(world.run(extend)), "hold_closed");
    world.check_replay();
}

#[test]
fn parts_cost_together_what_the_whole_costs() {
    let mut world = World::open(rate(7, 3, 333_333));
    world.grant(1, 50, None);
    bucket(&mut world, EARNED);
    world.admit(1, 1, 10, 40).unwrap();
    let held = world.held(1);
    assert_eq!(name(world.run(part(1, 1, true, 10, 5))), "part_number");
    let first = world.must(part(1, 0, true, 10, 5));
    assert_eq!((charge(&first).cost.0, world.held(1)), (35, held - 35), "only its own consumption");
    assert_eq!(name(world.capture(1, 10, 6)), "part_number", "a job in parts ends in parts");
    assert_eq!(name(world.run(part(1, 1, true, 9, 6))), "part_goes_back");
    assert_eq!(name(world.run(part(1, 1, true, 10, 5))), "nothing_delivered");
    let second = world.must(part(1, 1, true, 10, 7));
    let slices: Vec<i128> = charge(&second).slices.iter().map(|slice| slice.amount.0).collect();
    assert_eq!((charge(&second).cost.0, slices, charge(&second).output_units), (5, vec![5], 2));
    assert_eq!(name(world.run(ReverseCapture { job: job(1) })), "not_captured", "it runs");
    let third = world.must(part(1, 2, false, 10, 13));
    let slices: Vec<i128> = charge(&third).slices.iter().map(|slice| slice.amount.0).collect();
    assert_eq!(
        (charge(&third).cost.0, slices),
        (54 - 40, vec![10, 4]),
        "goes on where the part before stopped"
    );
    let view = query::job(&world.state, job(1)).unwrap().charge.unwrap();
    assert_eq!((view.cost.0, view.input_units, view.output_units, view.parts), (54, 10, 13, 3));
    assert_eq!((world.held(1), world.available(1)), (0, 1_050 - 54));
    let paid = booked(&world, AccountKind::OperatorAccrued);
    assert_eq!(paid, 54 * 333_333 / 1_000_000, "one carry over all parts");
    world.must(ReverseCapture { job: job(1) });
    assert_eq!(world.available(1), 1_050);
    assert_eq!(booked(&world, AccountKind::OperatorAccrued), 0);
    assert_eq!(name(world.run(ReverseCapture { job: job(1) })), "already_reversed");
    world.check_replay();
}

#[test]
fn charges_in_parts_stand_when_the_rest_is_voided_or_expires() {
    let mut world = World::open(rate(10, 1, 800_000));
    world.grant(1, 10_000, None);
    world.admit(1, 1, 10, 40).unwrap();
    world.admit(1, 2, 10, 40).unwrap();
    world.must(part(1, 0, true, 10, 5));
    world.must(part(2, 0, true, 10, 6));
    world.void(1).unwrap();
    world.now_us += 71 * S;
    world.must(ExpireDue { events_max: 9 });
    assert_eq!((world.held(1), world.available(1)), (0, 10_000 - 310));
    for id in 1..=2 {
        world.must(ReverseCapture { job: job(id) });
    }
    assert_eq!(world.available(1), 10_000);
    world.check_replay();
}

#[test]
fn parts_of_a_deposit_wait_for_their_batches_one_by_one() {
    let mut world = World::open(rate(1_000, 1, 500_000));
    world.authorise(1, 1_000).unwrap();
    world.deposit(1, 100, 0).unwrap();
    world.admit(1, 1, 10, 40).unwrap();
    world.must(part(1, 0, true, 10, 5));
    world.close_batch(1).unwrap();
    world.must(part(1, 1, false, 10, 20));
    assert_eq!(name(world.run(ReverseCapture { job: job(1) })), "capture_in_batch");
    world.submit_batch(1).unwrap();
    world.confirm_batch(1).unwrap();
    assert_eq!(name(world.run(ReverseCapture { job: job(1) })), "capture_in_batch");
    world.close_batch(2).unwrap();
    let lines = query::batch_requests(&world.state, batch(2));
    assert_eq!((lines.len(), lines[0].amount.0), (1, 7_500));
    world.submit_batch(2).unwrap();
    world.confirm_batch(2).unwrap();
    world.check_replay();
}

#[test]
fn beyond_its_hold_a_job_costs_at_most_the_tolerance_and_only_what_is_there() {
    let mut world = tolerant(100_000);
    world.grant(1, 500, None);
    world.admit(1, 1, 10, 40).unwrap();
    assert_eq!(name(world.run(capture(1, 10, 46, 46))), "beyond_tolerance");
    assert_eq!(name(world.run(part(1, 0, true, 10, 41))), "output_above_hold", "an open part never");
    let events = world.must(capture(1, 10, 45, 44));
    assert_eq!((charge(&events).cost.0, charge(&events).beyond_hold), (500, None), "nothing else is there");
    assert_eq!((charge(&events).output_units, charge(&events).output_units_gateway), (40, 44));
    world.grant(1, 530, None);
    world.admit(1, 2, 10, 40).unwrap();
    let events = world.must(capture(2, 10, 43, 50));
    assert_eq!((charge(&events).cost.0, charge(&events).beyond_hold), (530, Some(Amount(30))));
    assert_eq!(charge(&events).slices.len(), 2, "the last slice is none of the hold's");
    assert_eq!((world.held(1), world.available(1)), (0, 0));
    world.must(ReverseCapture { job: job(2) });
    assert_eq!(world.available(1), 530);
    world.check_replay();
    let mut strict = World::open(rate(10, 1, 800_000));
    strict.grant(1, 10_000, None);
    strict.admit(1, 1, 10, 40).unwrap();
    assert_eq!(name(strict.capture(1, 10, 41)), "output_above_hold");
    strict.check_replay();
}

#[test]
fn a_deposit_pays_beyond_its_hold_as_an_entry_of_its_own() {
    let mut world = tolerant(500_000);
    world.authorise(1, 1_000).unwrap();
    world.deposit(1, 100, 0).unwrap();
    world.admit(1, 1, 10, 40).unwrap();
    world.must(capture(1, 10, 50, 50));
    assert_eq!(world.available(1), 100_000 - 600);
    world.must(ReverseCapture { job: job(1) });
    assert_eq!(world.available(1), 100_000);
    world.check_replay();
}

fn timed(key: u8, key_time_us: u64, open: u8) -> Command {
    let body = OpenAccount { account: account(open) };
    let key = IdempotencyKey::internal("timed", &[&[key]]);
    Command {
        key,
        actor: Actor::Admin,
        not_after_us: None,
        body: body.into(),
        key_time_us: Some(key_time_us),
    }
}

#[test]
fn a_forgotten_key_is_too_old_and_never_new() {
    let mut world = World::open(rate(10, 1, 800_000));
    let start_us = world.now_us;
    let ahead = timed(1, start_us + ledger::KEY_AHEAD_US_MAX, 10);
    world.run_command(&ahead).unwrap();
    let early = timed(2, start_us + ledger::KEY_AHEAD_US_MAX + 1, 11);
    assert_eq!(name(world.run_command(&early)), "key_time_ahead");
    // Whenever it comes again: the first outcome, or too old.
    for step_s in [1, 86_399, 1, 59, 1, 1, 600] {
        world.now_us += step_s * S;
        match world.run_command(&ahead) {
            Ok(ledger::Decision::Repeated { .. }) => {}
            other => assert_eq!(name(other), "too_old"),
        }
        world.must(OpenAccount { account: account((100 + world.now_us / S % 89) as u8 + 10) });
    }
    assert_eq!(name(world.run_command(&ahead)), "too_old");
    assert_eq!(name(world.run_command(&timed(3, start_us, 12))), "too_old");
    world.check_replay();
}

#[test]
fn a_finished_job_leaves_when_nothing_can_refer_to_it() {
    let mut world = World::open(rate(1_000, 1, 500_000));
    world.grant(2, 1_000_000, None);
    world.authorise(1, 1_000).unwrap();
    world.deposit(1, 100, 0).unwrap();
    for (n, id) in [(1, 1), (2, 2), (2, 3), (2, 4)] {
        world.admit(n, id, 10, 10).unwrap();
    }
    world.capture(1, 10, 10).unwrap();
    world.capture(2, 10, 10).unwrap();
    world.void(3).unwrap();
    let known = |world: &World| -> Vec<u32> {
        (1..=4).filter(|id| query::job(&world.state, job(*id)).is_some()).collect()
    };
    let charged = |world: &World| query::captures_after(&world.state, None, 9).len();
    world.now_us += 86_400 * S;
    world.must(OpenAccount { account: account(50) });
    assert_eq!((known(&world), charged(&world)), (vec![1, 2, 3, 4], 2), "the retention is not over");
    world.now_us += 1;
    world.must(OpenAccount { account: account(51) });
    assert_eq!((known(&world), charged(&world)), (vec![1, 4], 1), "one waits for its batch, one runs");
    assert_eq!(name(world.run(ReverseCapture { job: job(2) })), "job_unknown");
    let snapshot = ledger::snapshot::write(&world.state);
    assert_eq!(ledger::snapshot::read(&snapshot).unwrap(), world.state);
    world.close_batch(1).unwrap();
    world.submit_batch(1).unwrap();
    world.confirm_batch(1).unwrap();
    assert_eq!((known(&world), charged(&world)), (vec![4], 0), "settled");
    world.check_replay();
}

#[test]
fn a_fork_stays_as_it_was_while_the_ledger_goes_on() {
    let mut world = World::open(rate(1_000, 1, 500_000));
    world.authorise(1, 1_000).unwrap();
    world.deposit(1, 100, 0).unwrap();
    world.grant(2, 1_000_000, Some(world.now_us + 50 * S));
    for id in 1..=3 {
        world.admit(1, id, 5, 5).unwrap();
    }
    let before = ledger::snapshot::write(&world.state);
    let mut fork = world.state.fork();
    assert_eq!(ledger::snapshot::write(&fork), before);
    world.capture(1, 5, 5).unwrap();
    world.void(2).unwrap();
    world.grant(2, 7, None);
    assert_eq!(ledger::snapshot::write(&fork), before, "the original writes, the fork does not see it");
    let after = ledger::snapshot::write(&world.state);
    let command = Command::new(IdempotencyKey([9; 16]), Actor::Admin, ExpireDue { events_max: 9 });
    let ledger::Decision::New(events) = ledger::decide(&fork, &command, world.now_us + 100 * S).unwrap()
    else {
        panic!("a fork is a whole ledger")
    };
    for event in &events {
        ledger::apply(&mut fork, event).unwrap();
    }
    let ended = |event: &&Event| matches!(event.body, EventBody::HoldExpired(_) | EventBody::GrantExpired(_));
    assert_eq!(events.iter().filter(ended).count(), 4, "three holds and a grant");
    assert_eq!(ledger::snapshot::write(&world.state), after, "and the other way round");
    world.check_replay();
}

#[test]
fn a_snapshot_that_is_not_the_one_form_of_a_state_is_refused() {
    let mut world = World::open(rate(1_000, 1, 500_000));
    world.grant(2, 1_000, None);
    world.check_replay();
    let bytes = ledger::snapshot::write(&world.state);
    let mut streamed = Vec::new();
    ledger::snapshot::write_to(&world.state, &mut streamed).unwrap();
    assert_eq!(bytes, streamed);
    assert_eq!(world.state.hash().0, *blake3::hash(&bytes).as_bytes());
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        if let Ok(other) = ledger::snapshot::read(&flipped) {
            assert_eq!(ledger::snapshot::write(&other), flipped, "byte {at}: read as what it does not say");
        }
    }
    assert!(ledger::snapshot::read(&bytes[..bytes.len() - 1]).is_err());
    assert!(ledger::snapshot::read(&[&bytes[..], &[0]].concat()).is_err());
}

#[derive(Clone, Debug)]
enum Op {
    Advance(u64),
    Grant(u8, i128, Option<u64>),
    Move(u32, u32, i128),
    Line(i128),
    Repay(i128),
    Cap(Option<i128>),
    Admit(u64, u64),
    Extend(usize, u64, u64),
    Part(usize, bool, u64, u64),
    Capture(usize, u64, u64),
    Void(usize),
    Reverse(usize),
    Expire,
    Batch,
    /// An operator takes of what it earned, and spends it.
    Take(u8, usize, i128),
    Spend(u8, u64, u64),
    GoOn(usize, u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (1u64..40).prop_map(Op::Advance),
        3 => (1u8..=2, 1i128..3_000, prop::option::of(1u64..120)).prop_map(|(a, b, c)| Op::Grant(a, b, c)),
        3 => (0u32..12, 0u32..12, 1i128..1_000).prop_map(|(a, b, c)| Op::Move(a, b, c)),
        1 => (0i128..3_000).prop_map(Op::Line),
        2 => (1i128..2_000).prop_map(Op::Repay),
        1 => prop::option::of(0i128..6_000).prop_map(Op::Cap),
        8 => (0u64..60, 1u64..60).prop_map(|(a, b)| Op::Admit(a, b)),
        4 => (0usize..9, 0u64..40, 0u64..30).prop_map(|(a, b, c)| Op::Extend(a, b, c)),
        6 => (0usize..9, any::<bool>(), 0u64..60, 0u64..90).prop_map(|(a, b, c, d)| Op::Part(a, b, c, d)),
        5 => (0usize..9, 0u64..60, 0u64..90).prop_map(|(a, b, c)| Op::Capture(a, b, c)),
        1 => (0usize..9).prop_map(Op::Void),
        3 => (0usize..60).prop_map(Op::Reverse),
        1 => Just(Op::Expire),
        1 => Just(Op::Batch),
        4 => (1u8..=2, 0usize..3, 1i128..900).prop_map(|(a, b, c)| Op::Take(a, b, c)),
        3 => (1u8..=2, 0u64..30, 1u64..30).prop_map(|(a, b, c)| Op::Spend(a, b, c)),
        3 => (0usize..9, 0u64..60).prop_map(|(a, b)| Op::GoOn(a, b)),
    ]
}

fn step(world: &mut World, n: u32, op: &Op) {
    let open = query::open_jobs(&world.state);
    let pick = |k: usize| open.get(k % open.len().max(1));
    let _ = match *op {
        Op::Advance(seconds) => {
            world.now_us += seconds * S;
            return;
        }
        Op::Grant(of, amount, life_s) => {
            bucket(world, Bucket { of, amount, life_s, ..EARNED });
            return;
        }
        Op::Move(from, to, amount) => world.run(shift(GrantId(from), GrantId(to), amount)),
        Op::Line(limit) => line(world, limit),
        Op::Repay(amount) => repay(world, amount),
        Op::Cap(most) => cap(world, most),
        Op::Admit(input, output) => admit_by(world, n, input, output),
        Op::Extend(k, more, seconds) => {
            let Some(view) = pick(k) else { return };
            let output_units_max = view.output_units_max + more;
            let deadline_us = view.deadline_us + seconds * S;
            world.run(ExtendHold { job: view.job, output_units_max, deadline_us })
        }
        Op::Part(k, open, input, output) => {
            let Some(view) = pick(k) else { return };
            let number = view.charge.as_ref().map_or(0, |charge| charge.parts);
            let input = input.min(view.input_units);
            let attempt = (output % view.attempts.len() as u64) as u32;
            world.run(Capture { job: view.job, attempt, ..part(0, number, open, input, output) })
        }
        Op::Capture(k, input, output) => {
            let Some(view) = pick(k) else { return };
            let input = input.min(view.input_units);
            let attempt = (output % view.attempts.len() as u64) as u32;
            world.run(Capture { job: view.job, attempt, ..capture(0, input, output, output) })
        }
        Op::Void(k) => {
            let Some(view) = pick(k) else { return };
            let reason = protocol::event::hold::VoidReason::OperatorFault;
            world.run(Void { job: view.job, reason })
        }
        Op::Reverse(k) => {
            let charged = query::captures_after(&world.state, None, 99);
            let Some((_, job)) = charged.get(k % charged.len().max(1)) else { return };
            world.run(ReverseCapture { job: *job })
        }
        Op::Take(of, k, amount) => {
            let waiting = &query::earnings(&world.state, operator(of))[0].takeable;
            let Some(part) = waiting.get(k % waiting.len().max(1)) else { return };
            // Now and then more than waits.
            let (account, amount) =
                (account(100 + of), Amount(1 + amount % (part.amount.0 + part.amount.0 / 8 + 1)));
            world.run(TakeEarnings { account, asset: FOIL, backing: part.backing, amount })
        }
        Op::Spend(of, input, output) => world.admit(100 + of, n, input, output),
        Op::GoOn(k, continues_at) => {
            let Some(view) = pick(k) else { return };
            let attempt = view.attempts.len() as u32;
            let (node, body) = (node(1 + (attempt % 2) as u8), Hash32([5; 32]));
            world.run(Redispatch { job: view.job, attempt, node, body, continues_at })
        }
        Op::Expire => world.run(ExpireDue { events_max: 100 }),
        Op::Batch => {
            world.close_batch(n).and_then(|_| world.submit_batch(n)).and_then(|_| world.confirm_batch(n))
        }
    };
}

proptest! {
    /// Whatever comes in whatever order: the invariants hold after every event, and replay from bytes, from snapshots
    /// and of the rest behind a snapshot gives the very state.
    #[test]
    fn the_new_rules_keep_every_invariant(ops in prop::collection::vec(op(), 1..150), cut in 0.0f64..1.0) {
        let mut world = tolerant(300_000);
        world.authorise(1, 1_000).unwrap();
        world.deposit(1, 2, 0).unwrap();
        for (n, op) in ops.iter().enumerate() {
            step(&mut world, n as u32, op);
        }
        world.check_replay();
        let commits = (world.commit_hashes.len() as f64 * cut) as usize;
        world.check_snapshot_and_suffix(commits);
    }
}
