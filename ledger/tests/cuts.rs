//! Continued jobs: each attempt is paid for what it delivered between its cut and the next one, the prompt once, and the
//! consumer never pays more than one attempt alone would cost.

mod world;

use ledger::command::*;
use ledger::{Refusal, query};
use proptest::prelude::*;
use protocol::event::job::{CapturePart, UsageCaptured};
use protocol::event::{Event, EventBody};
use protocol::id::Hash32;
use world::*;

fn name<T: std::fmt::Debug>(result: Result<T, Refusal>) -> &'static str {
    result.expect_err("must be refused").name()
}

/// The next attempt of job 1, on node `n`.
fn go_on(attempt: u32, n: u8, continues_at: u64) -> Redispatch {
    Redispatch { job: job(1), attempt, node: node(n), body: Hash32([5; 32]), continues_at }
}

/// A part of job 1, counted from its beginning.
fn part(attempt: u32, number: u32, open: bool, output: u64) -> Capture {
    Capture { attempt, part: Some(CapturePart { number, open }), ..capture(1, 10, output, output) }
}

fn charge(events: &[Event]) -> &UsageCaptured {
    let found = events.iter().find_map(|event| match &event.body {
        EventBody::UsageCaptured(event) => Some(event),
        _ => None,
    });
    found.expect("a charge")
}

/// 10 prompt tokens and at most 40 of output at 10 each; attempt 0 is operator 2's.
fn admitted() -> World {
    let mut world = World::open(rate(10, 1, 800_000));
    world.grant(1, 10_000, None);
    world.admit(1, 1, 10, 40).unwrap();
    world
}

fn accrued(world: &World) -> [i128; 2] {
    [1, 2].map(|n| query::earnings(&world.state, operator(n))[0].accrued.0)
}

#[test]
fn both_attempts_are_paid_for_their_own_and_the_prompt_once() {
    let mut world = admitted();
    world.must(go_on(1, 1, 15));
    assert_eq!(name(world.run(part(0, 0, true, 16))), "outside_cut", "the cut caps earlier attempts");
    let events = world.must(part(0, 0, true, 15));
    assert_eq!((charge(&events).input_units, charge(&events).output_units), (10, 15));
    let events = world.must(part(1, 1, false, 30));
    assert_eq!((charge(&events).input_units, charge(&events).output_units), (0, 15));
    assert_eq!(world.available(1), 10_000 - 400, "what one attempt alone would cost");
    assert_eq!(accrued(&world), [120, 200]);
    world.must(ReverseCapture { job: job(1) });
    assert_eq!((world.available(1), accrued(&world)), (10_000, [0, 0]));
    world.check_replay();
}

#[test]
fn what_no_attempt_is_paid_for_costs_nothing() {
    // Nothing of the first attempt's prefix is verified: the units before the cut are billed to nobody.
    let mut world = admitted();
    world.must(go_on(1, 1, 12));
    let events = world.must(Capture { attempt: 1, ..capture(1, 10, 30, 30) });
    let charge = charge(&events);
    assert_eq!((charge.input_units, charge.output_units, charge.output_units_worker), (10, 18, 30));
    assert_eq!((world.available(1), accrued(&world)), (10_000 - 280, [224, 0]));
    world.check_replay();
    // Less than the cut is: the gap stays free, and the prompt was paid with the first part.
    let mut world = admitted();
    world.must(part(0, 0, true, 5));
    world.must(go_on(1, 1, 12));
    world.must(part(1, 1, true, 20));
    world.must(go_on(2, 2, 25));
    let events = world.must(part(2, 2, false, 40));
    assert_eq!(events.len(), 1);
    assert_eq!(world.available(1), 10_000 - (10 + 5 + 8 + 15) * 10);
    assert_eq!(accrued(&world), [64, 240]);
    world.check_replay();
}

#[test]
fn an_earlier_attempt_may_end_the_job_when_the_later_one_fails() {
    let mut world = admitted();
    world.must(go_on(1, 1, 12));
    assert_eq!(name(world.run(Capture { attempt: 1, ..capture(1, 10, 12, 12) })), "nothing_delivered");
    assert_eq!(name(world.run(Capture { attempt: 1, ..capture(1, 10, 11, 30) })), "outside_cut");
    world.must(capture(1, 10, 12, 40));
    assert_eq!((world.available(1), accrued(&world)), (10_000 - 220, [0, 176]));
    world.check_replay();
    // An attempt that begins anew is paid all, the one before nothing.
    let mut world = admitted();
    world.must(go_on(1, 1, 0));
    assert_eq!(name(world.capture(1, 10, 1)), "outside_cut");
    world.must(Capture { attempt: 1, ..capture(1, 10, 40, 40) });
    world.check_replay();
}

#[test]
fn a_cut_never_goes_back() {
    let mut world = admitted();
    world.must(part(0, 0, true, 8));
    let refused = world.run(go_on(1, 1, 7));
    assert_eq!(refused, Err(Refusal::CutGoesBack { job: job(1), given: 7, least: 8 }));
    world.must(go_on(1, 1, 12));
    assert_eq!(name(world.run(go_on(2, 2, 11))), "cut_goes_back");
    assert_eq!(name(world.run(go_on(2, 2, 41))), "output_above_hold");
    world.must(go_on(2, 2, 12));
    assert_eq!(name(world.run(part(1, 1, false, 13))), "outside_cut");
    world.must(part(2, 1, true, 13));
    assert_eq!(name(world.run(part(0, 2, false, 12))), "part_goes_back");
    world.must(part(2, 2, false, 13));
    assert_eq!(world.available(1), 10_000 - (10 + 8 + 1) * 10);
    world.check_replay();
}

#[test]
fn a_continued_job_goes_beyond_its_hold_like_any_other() {
    let settings = protocol::event::policy::Settings { capture_tolerance_ppm: Some(200_000), ..settings() };
    let mut world = World::open_with(rate(10, 1, 800_000), settings);
    world.grant(1, 540, None);
    world.admit(1, 1, 10, 40).unwrap();
    world.must(go_on(1, 1, 4));
    // 10 + 46 units cost 60 more than the hold and 40 are there: it is cut to what the hold covers.
    let events = world.must(Capture { attempt: 1, ..capture(1, 10, 50, 50) });
    assert_eq!((charge(&events).output_units, charge(&events).cost.0), (40, 500));
    world.grant(1, 500, None);
    world.must(Admit { hold: hold(2), job: job(2), ..world.admission(1, 2, 10, 40) });
    world.must(Redispatch { job: job(2), ..go_on(1, 1, 4) });
    let events = world.must(Capture { attempt: 1, ..capture(2, 10, 48, 48) });
    assert_eq!((charge(&events).output_units, charge(&events).beyond_hold.unwrap().0), (44, 40));
    world.check_replay();
}

/// What happens to the job next: a later attempt, or a part of some attempt.
#[derive(Clone, Copy, Debug)]
enum Step {
    GoOn(u64),
    Bill { attempt: u32, open: bool, input: u64, output: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let bill = (0u32..4, prop::bool::weighted(0.8), 0u64..=10, 0u64..45)
        .prop_map(|(attempt, open, input, output)| Step::Bill { attempt, open, input, output });
    prop_oneof![2 => (0u64..42).prop_map(Step::GoOn), 5 => bill]
}

proptest! {
    /// Whoever is billed in whatever order: nobody is paid outside its own, no unit twice, and all parts together cost
    /// at most what one attempt that delivered everything would.
    #[test]
    fn a_continued_job_costs_at_most_what_one_attempt_would(steps in prop::collection::vec(step(), 1..25)) {
        let mut world = World::open(rate(7, 3, 700_000));
        world.grant(1, 10_000, None);
        world.admit(1, 1, 10, 40).unwrap();
        let (mut cuts, mut number) = (vec![0u64], 0);
        let mut billed: Vec<UsageCaptured> = Vec::new();
        for step in steps {
            match step {
                Step::GoOn(at) => {
                    let attempt = cuts.len() as u32;
                    if world.run(go_on(attempt, 1 + (attempt % 2) as u8, at)).is_ok() {
                        cuts.push(at);
                    }
                }
                Step::Bill { attempt, open, input, output } => {
                    let command = Capture { input_units: input, ..part(attempt, number, open, output) };
                    if let Ok(events) = world.run(command) {
                        billed.push(charge(&events).clone());
                        number += 1;
                    }
                }
            }
        }
        let mut end = 0;
        for part in &billed {
            let counted = part.output_units_worker;
            let from = counted - part.output_units;
            prop_assert!(from >= end && from >= cuts[part.attempt as usize], "{part:?}");
            let after = cuts.get(part.attempt as usize + 1);
            // A cut that came later than the part is not before what the part billed.
            prop_assert!(after.is_none_or(|until| counted <= *until), "{part:?}");
            end = counted;
        }
        let input: u64 = billed.iter().map(|part| part.input_units).sum();
        let cost: i128 = billed.iter().map(|part| part.cost.0).sum();
        prop_assert!(input <= 10 && cost <= (i128::from(input + end) * 7 + 2) / 3);
        world.check_replay();
    }
}
