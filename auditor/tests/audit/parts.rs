//! Charges of version 2: extended holds, charges in parts, charges beyond the hold. Each rule honest and cheated.

use crate::cheats::caught;
use crate::credit::*;
use crate::story::*;
use auditor::checks::CheckKind;
use protocol::amount::Amount;
use protocol::event::account::SpendCapSet;
use protocol::event::hold::{HoldExtended, HoldVoided, VoidReason};
use protocol::event::job::{CapturePart, CaptureReversed};
use protocol::event::*;
use protocol::id::*;

const BUCKET: GrantId = GrantId(0);

fn part(number: u32, open: bool) -> Option<CapturePart> {
    Some(CapturePart { number, open })
}

/// A charge of the first job from the deposit, within its hold.
fn told<'a>(input: u64, output: u64, counted: u64, slices: &'a [(GrantId, i128)]) -> Told<'a> {
    Told { job: 0, input, output, counted, slices, released: slices, part: None, beyond: None, share: 0 }
}

// ---- extended holds: 10 units are 20 005, 20 are 40 010

fn extend(story: &mut Story, bound: u64, deadline_us: u64, of: &[(GrantId, i128)]) -> usize {
    let amount = Amount(of.iter().map(|(_, amount)| amount).sum());
    let hold = HoldId([140; 16]);
    let event =
        HoldExtended { hold, amount, slices: slices(of).into(), output_units_max: bound, deadline_us };
    let legs = pending(story, of, 1);
    story.tell(event, &[], if of.is_empty() { &[] } else { &legs })
}

/// 19 of 20 units are charged, from the promotion that the hold began with and the deposit that it went on with.
fn extended() -> (Story, usize) {
    let mut story = funded();
    let promo = give(&mut story, |grant| grant.amount = Amount(20_005));
    hold_on(&mut story, 5, 5, &[(promo, 20_005)]);
    let at = extend(&mut story, 15, START_US + 400_000_000, &[(BUCKET, 20_005)]);
    let (paid, held) = ([(promo, 20_005), (BUCKET, 18_005)], [(promo, 20_005), (BUCKET, 20_005)]);
    charge(&mut story, &Told { released: &held, share: 30_408, ..told(5, 14, 14, &paid) });
    (story, at)
}

#[test]
fn a_hold_grows_and_is_charged_whole() {
    passes(&extended().0);
    // More time alone reserves nothing.
    let mut story = funded();
    hold_on(&mut story, 5, 5, &[(BUCKET, 20_005)]);
    extend(&mut story, 5, START_US + 400_000_000, &[]);
    passes(&story);
}

#[test]
fn an_extension_by_more_than_its_price() {
    let mut story = funded();
    hold_on(&mut story, 5, 5, &[(BUCKET, 20_005)]);
    let at = extend(&mut story, 15, START_US + 400_000_000, &[(BUCKET, 20_006)]);
    caught(story, CheckKind::Prices, at);
}

#[test]
fn an_extension_that_takes_time_away_or_comes_late() {
    let (story, at) = extended();
    let mut early = story.clone();
    let EventBody::HoldExtended(e) = &mut early.events[at].body else { unreachable!() };
    e.deadline_us = START_US + 299_000_000;
    caught(early, CheckKind::Holds, at);
    let mut late = story;
    late.events.truncate(at + 1);
    late.events[at].header.time_us = START_US + 300_000_000;
    caught(late, CheckKind::Holds, at);
}

#[test]
fn an_extension_of_a_closed_hold() {
    let (mut story, _) = extended();
    let at = extend(&mut story, 25, START_US + 400_000_000, &[(BUCKET, 20_005)]);
    caught(story, CheckKind::Holds, at);
}

#[test]
fn an_extension_that_passes_a_cap() {
    let mut story = funded();
    let cap = SpendCapSet { account: CUSTOMER, spender: SPENDER, asset: FOIL, cap: Some(Amount(40_009)) };
    story.tell(cap, &[], &[]);
    hold_for(&mut story, 0, 5, 5, &[(BUCKET, 20_005)], Some(SPENDER));
    let at = extend(&mut story, 15, START_US + 400_000_000, &[(BUCKET, 20_005)]);
    caught(story, CheckKind::SpendCaps, at);
}

// ---- parts: 7, 10 and 11 units so far cost 14 004, 20 005, 22 006; 20 are held

fn in_parts() -> Story {
    let mut story = funded();
    hold_on(&mut story, 5, 15, &[(BUCKET, 40_010)]);
    let first = [(BUCKET, 14_004)];
    charge(&mut story, &Told { part: part(0, true), share: 11_203, ..told(5, 2, 2, &first) });
    let second = [(BUCKET, 6_001)];
    charge(&mut story, &Told { part: part(1, true), share: 4_801, ..told(0, 3, 5, &second) });
    let third = [(BUCKET, 2_001)];
    let rest = [(BUCKET, 20_005)];
    charge(
        &mut story,
        &Told { part: part(2, false), released: &rest, share: 1_600, ..told(0, 1, 6, &third) },
    );
    story
}

fn undo_all(story: &mut Story) -> usize {
    let legs = charge_legs(story, &[(BUCKET, 22_006)], 17_604, -1);
    let event = CaptureReversed {
        job: JobId([100; 16]),
        refunded: Amount(22_006),
        operator_share: Amount(17_604),
        platform_share: Amount(4_402),
    };
    story.tell(event, &legs, &[])
}

#[test]
fn parts_cost_together_what_one_charge_would() {
    let mut story = in_parts();
    passes(&story);
    assert_eq!(story.replayed().totals[0].captured, "22006");
    undo_all(&mut story);
    passes(&story);
    assert_eq!(story.replayed().totals[0].captured, "0");
    let at = undo_all(&mut story);
    caught(story, CheckKind::Reversals, at);
}

#[test]
fn a_hold_that_was_charged_in_part_ends_with_a_void() {
    let mut story = in_parts();
    let at = story.find("usage_captured", 2);
    story.rewind(at);
    let legs = pending(&story, &[(BUCKET, 20_005)], -1);
    let reason = VoidReason::ClientGone;
    story.tell(HoldVoided { hold: HoldId([140; 16]), reason }, &[], &legs);
    passes(&story);
}

#[test]
fn a_part_left_out() {
    let mut story = in_parts();
    let at = story.find("usage_captured", 1);
    let EventBody::UsageCaptured(e) = &mut story.events[at].body else { unreachable!() };
    e.part = part(2, true);
    caught(story, CheckKind::Holds, at);
}

#[test]
fn a_part_that_is_rounded_up_by_itself() {
    let mut story = funded();
    hold_on(&mut story, 5, 15, &[(BUCKET, 40_010)]);
    charge(&mut story, &Told { part: part(0, true), share: 11_203, ..told(5, 2, 2, &[(BUCKET, 14_004)]) });
    // 3 units by themselves are 6 002, but with the 7 before they are 20 005 in all.
    let at =
        charge(&mut story, &Told { part: part(1, true), share: 4_801, ..told(0, 3, 5, &[(BUCKET, 6_002)]) });
    caught(story, CheckKind::Prices, at);
}

#[test]
fn tokens_billed_in_two_parts() {
    let mut story = in_parts();
    let at = story.find("usage_captured", 2);
    let EventBody::UsageCaptured(e) = &mut story.events[at].body else { unreachable!() };
    (e.output_units_worker, e.output_units_gateway) = (5, 5);
    caught(story, CheckKind::Prices, at);
}

#[test]
fn an_open_part_that_releases_the_rest() {
    let mut story = in_parts();
    let at = story.find("usage_captured", 0);
    for leg in &mut story.events[at].pending {
        leg.amount.0 = leg.amount.0.signum() * 40_010;
    }
    story.events.truncate(at + 1);
    caught(story, CheckKind::Legs, at);
}

#[test]
fn an_undone_part_is_not_the_whole() {
    let mut story = in_parts();
    let at = undo_all(&mut story);
    let EventBody::CaptureReversed(e) = &mut story.events[at].body else { unreachable!() };
    e.refunded = Amount(2_001);
    caught(story, CheckKind::Reversals, at);
}

// ---- beyond the hold: 10 % of 20 005 is 2 000; 11 units are 22 006, one base unit too much; 8 are 16 004, 9 are 18 005

fn tolerant(ppm: u32) -> Story {
    let mut story = funded();
    let EventBody::NetworkOpened(e) = &mut story.events[0].body else { unreachable!() };
    e.settings.capture_tolerance_ppm = Some(ppm);
    story
}

fn beyond(story: &mut Story) -> usize {
    hold_on(story, 5, 5, &[(BUCKET, 20_005)]);
    let paid = [(BUCKET, 20_005), (BUCKET, 2_001)];
    let told =
        Told { released: &[(BUCKET, 20_005)], beyond: Some(2_001), share: 17_604, ..told(5, 6, 6, &paid) };
    charge(story, &told)
}

#[test]
fn a_charge_goes_beyond_its_hold_within_the_tolerance() {
    let mut story = tolerant(110_000);
    beyond(&mut story);
    passes(&story);
}

#[test]
fn a_charge_beyond_the_tolerance() {
    let mut story = tolerant(100_000);
    let at = beyond(&mut story);
    caught(story, CheckKind::Holds, at);
}

#[test]
fn a_charge_beyond_its_hold_that_does_not_say_so() {
    let mut story = tolerant(110_000);
    let at = beyond(&mut story);
    let EventBody::UsageCaptured(e) = &mut story.events[at].body else { unreachable!() };
    e.beyond_hold = None;
    caught(story, CheckKind::Holds, at);
}

#[test]
fn a_network_without_a_tolerance_has_none() {
    let mut story = funded();
    let at = beyond(&mut story);
    caught(story, CheckKind::Holds, at);
}

#[test]
fn a_charge_is_cut_to_its_hold_when_no_more_can_be_paid() {
    // 11 tokens were delivered, the hold covers 10, and the key's cap does not let the eleventh be paid.
    let cut = |cap: i128| {
        let mut story = tolerant(110_000);
        let cap = SpendCapSet { account: CUSTOMER, spender: SPENDER, asset: FOIL, cap: Some(Amount(cap)) };
        story.tell(cap, &[], &[]);
        let of = [(BUCKET, 20_005)];
        hold_for(&mut story, 0, 5, 5, &of, Some(SPENDER));
        let at = charge(&mut story, &Told { share: 16_004, ..told(5, 5, 6, &of) });
        (story, at)
    };
    passes(&cut(22_005).0);
    let (story, at) = cut(22_006);
    caught(story, CheckKind::Prices, at);
}
