//! Earned credit and continued jobs: what an operator may take, what comes back, and which attempt is paid for what. Each
//! rule honest and cheated.

use crate::cheats::caught;
use crate::credit::*;
use crate::story::*;
use auditor::checks::CheckKind;
use protocol::amount::Amount;
use protocol::event::account::{AccountClosed, AccountKind};
use protocol::event::grant::{Backing, EarningsTaken, GrantIssued, GrantSource};
use protocol::event::job::{CapturePart, CaptureReversed, JobDispatched};
use protocol::event::*;
use protocol::id::*;

/// An empty bucket of earnings of the operator's account.
fn bucket(story: &mut Story, change: impl FnOnce(&mut GrantIssued)) -> GrantId {
    give(story, |grant| {
        (grant.account, grant.source, grant.amount) = (OWNER, GrantSource::Earned, Amount(0));
        grant.priority = 40;
        change(grant);
    })
}

fn take(story: &mut Story, bucket: GrantId, amount: i128) -> usize {
    let legs = [
        (story.book(OWNER, AccountKind::OperatorAccrued), amount),
        (story.book(OWNER, AccountKind::CustomerEarned), -amount),
    ];
    story.tell(EarningsTaken { grant: bucket, amount: Amount(amount) }, &legs, &[])
}

/// A promotion pays 10 units, 20 005: 16 004 of it are the operator's and wait, unbacked.
fn served() -> (Story, GrantId) {
    let mut story = funded();
    let promo = give(&mut story, |grant| grant.amount = Amount(20_005));
    hold_on(&mut story, 5, 5, &[(promo, 20_005)]);
    charge_all(&mut story, 0, promo);
    (story, promo)
}

fn charge_all(story: &mut Story, job: u8, paid: GrantId) -> usize {
    let paid = [(paid, 20_005)];
    let (slices, released) = (&paid[..], &paid[..]);
    let told = Told {
        job,
        input: 5,
        output: 5,
        counted: 5,
        slices,
        released,
        part: None,
        beyond: None,
        share: 16_004,
    };
    charge(story, &told)
}

#[test]
fn earnings_are_taken_spent_and_filled_again() {
    let (mut story, _) = served();
    let own = bucket(&mut story, |_| {});
    take(&mut story, own, 10_000);
    take(&mut story, own, 6_004);
    passes(&story);
    let report = story.replayed();
    let line = report.trial_balance.iter().find(|line| line.kind == "customer_earned").unwrap();
    assert_eq!((line.debits.as_str(), line.credits.as_str()), ("0", "16004"));
}

#[test]
fn more_than_was_earned_is_taken() {
    let (mut story, _) = served();
    let own = bucket(&mut story, |_| {});
    take(&mut story, own, 10_000);
    let at = take(&mut story, own, 6_005);
    caught(story, CheckKind::Grants, at);
    // Nothing is not taken either.
    let (mut story, _) = served();
    let own = bucket(&mut story, |_| {});
    let at = take(&mut story, own, 0);
    story.events[at].postings.clear();
    caught(story, CheckKind::Grants, at);
}

#[test]
fn earnings_that_change_their_backing() {
    // What promotions paid, taken as if the treasury stood behind it.
    let (mut story, _) = served();
    let own = bucket(&mut story, |grant| grant.backing = Backing::Treasury);
    let at = take(&mut story, own, 1);
    caught(story, CheckKind::Grants, at);
    // What a deposit paid waits for its batch: nobody takes it as credit.
    let mut story = funded();
    hold_on(&mut story, 5, 5, &[(GrantId(0), 20_005)]);
    charge_all(&mut story, 0, GrantId(0));
    let own = bucket(&mut story, |_| {});
    let at = take(&mut story, own, 1);
    caught(story, CheckKind::Grants, at);
    // Nor is there a bucket for it.
    let mut story = funded();
    let deposit = story.events.iter().find_map(|event| match &event.body {
        EventBody::GrantIssued(issued) => Some(issued.backing),
        _ => None,
    });
    bucket(&mut story, |grant| grant.backing = deposit.unwrap());
    let at = story.events.len() - 1;
    caught(story, CheckKind::Grants, at);
}

#[test]
fn earnings_go_to_a_bucket_of_their_own() {
    type Change = fn(&mut GrantIssued);
    let cheats: [Change; 3] = [
        |grant| grant.priority = 5,
        |grant| grant.scope = vec![MODEL.into()],
        |grant| grant.expires_us = Some(START_US + 900_000_000),
    ];
    for cheat in cheats {
        let (mut story, _) = served();
        bucket(&mut story, cheat);
        let at = story.events.len() - 1;
        caught(story, CheckKind::Grants, at);
    }
    // A second one for the same.
    let (mut story, _) = served();
    bucket(&mut story, |_| {});
    bucket(&mut story, |_| {});
    let at = story.events.len() - 1;
    caught(story, CheckKind::Grants, at);
    // Into given credit, or another account's.
    let (mut story, promo) = served();
    bucket(&mut story, |_| {});
    let at = take(&mut story, promo, 1);
    caught(story, CheckKind::Grants, at);
    let (mut story, _) = served();
    bucket(&mut story, |_| {});
    let others = bucket(&mut story, |grant| grant.account = CUSTOMER);
    let at = take(&mut story, others, 1);
    caught(story, CheckKind::Grants, at);
}

#[test]
fn earnings_of_an_account_that_is_closed() {
    let (mut story, _) = served();
    let own = bucket(&mut story, |_| {});
    story.tell(AccountClosed { account: OWNER }, &[], &[]);
    let at = take(&mut story, own, 1);
    caught(story, CheckKind::Grants, at);
}

#[test]
fn earnings_taken_without_the_legs() {
    let (mut story, _) = served();
    let own = bucket(&mut story, |_| {});
    let at = take(&mut story, own, 10_000);
    story.events[at].postings[0].account = story.book(SYSTEM, AccountKind::PlatformRevenue);
    caught(story, CheckKind::Legs, at);
}

// ---- undone

/// Undoes the first job; `from_bucket` of its 16 004 comes out of taken earnings.
fn undo(story: &mut Story, paid: GrantId, from_bucket: i128) -> usize {
    let mut legs = charge_legs(story, &[(paid, 20_005)], 16_004, -1);
    if from_bucket != 0 {
        legs.push((story.book(OWNER, AccountKind::OperatorAccrued), -from_bucket));
        legs.push((story.book(OWNER, AccountKind::CustomerEarned), from_bucket));
    }
    let event = CaptureReversed {
        job: JobId([100; 16]),
        refunded: Amount(20_005),
        operator_share: Amount(16_004),
        platform_share: Amount(4_001),
    };
    story.tell(event, &legs, &[])
}

#[test]
fn a_reversal_takes_back_what_waits_and_then_what_is_free() {
    let (mut story, promo) = served();
    let own = bucket(&mut story, |_| {});
    take(&mut story, own, 10_000);
    let mut cheat = story.clone();
    let at = undo(&mut story, promo, 10_000);
    passes(&story);
    // What was taken back is not there a second time.
    story.rewind(at + 1);
    let at = take(&mut story, own, 1);
    caught(story, CheckKind::Grants, at);
    // Out of the bucket alone, though something still waits.
    let at = undo(&mut cheat, promo, 9_999);
    caught(cheat, CheckKind::Legs, at);
}

#[test]
fn a_reversal_of_spent_earnings() {
    let (mut story, promo) = served();
    let own = bucket(&mut story, |_| {});
    take(&mut story, own, 16_004);
    let theirs = give(&mut story, |grant| (grant.source, grant.amount) = (GrantSource::Earned, Amount(1)));
    let legs = [(book_of(&story, own), 1), (book_of(&story, theirs), -1)];
    story.tell(protocol::event::grant::CreditMoved { from: own, to: theirs, amount: Amount(1) }, &legs, &[]);
    let at = undo(&mut story, promo, 16_004);
    caught(story, CheckKind::Reversals, at);
}

// ---- continued jobs: 5 of prompt and 15 of output are 40 010; 2 001 a unit, rounded up once

const BUCKET: GrantId = GrantId(0);

fn go_on(story: &mut Story, attempt: u32, continues_at: u64) -> usize {
    let (job, body) = (JobId([100; 16]), Hash32([3; 32]));
    let event = JobDispatched { job, attempt, node: NODE, operator: operator(), body, continues_at };
    story.tell(event, &[], &[])
}

fn part(number: u32, open: bool) -> Option<CapturePart> {
    Some(CapturePart { number, open })
}

struct Bill {
    attempt: u32,
    part: u32,
    open: bool,
    input: u64,
    output: u64,
    counted: u64,
    paid: i128,
    released: i128,
    share: i128,
}

fn bill(story: &mut Story, bill: Bill) -> usize {
    let at = charge(
        story,
        &Told {
            job: 0,
            input: bill.input,
            output: bill.output,
            counted: bill.counted,
            slices: &[(BUCKET, bill.paid)],
            released: &[(BUCKET, bill.released)],
            part: part(bill.part, bill.open),
            beyond: None,
            share: bill.share,
        },
    );
    let EventBody::UsageCaptured(event) = &mut story.events[at].body else { unreachable!() };
    event.attempt = bill.attempt;
    at
}

/// 5 and 5 units by the first attempt, 20 005; it is continued at `cut`.
fn first_part(cut: u64) -> Story {
    let mut story = funded();
    hold_on(&mut story, 5, 15, &[(BUCKET, 40_010)]);
    let (paid, released, share) = (20_005, 20_005, 16_004);
    let first =
        Bill { attempt: 0, part: 0, open: true, input: 5, output: 5, counted: 5, paid, released, share };
    bill(&mut story, first);
    go_on(&mut story, 1, cut);
    story
}

#[test]
fn a_continued_job_pays_each_attempt_for_its_own() {
    let mut story = first_part(5);
    let (paid, released, share) = (10_003, 20_005, 8_002);
    let last =
        Bill { attempt: 1, part: 1, open: false, input: 0, output: 5, counted: 10, paid, released, share };
    bill(&mut story, last);
    passes(&story);
    // With units between them that nobody is paid for.
    let mut story = first_part(8);
    let last =
        Bill { attempt: 1, part: 1, open: false, input: 0, output: 5, counted: 13, paid, released, share };
    bill(&mut story, last);
    passes(&story);
}

#[test]
fn a_later_attempt_paid_for_what_was_before_its_cut() {
    let mut story = first_part(8);
    let (paid, released, share) = (16_003, 20_005, 12_802);
    let last =
        Bill { attempt: 1, part: 1, open: false, input: 0, output: 8, counted: 13, paid, released, share };
    let at = bill(&mut story, last);
    caught(story, CheckKind::Prices, at);
}

#[test]
fn an_earlier_attempt_paid_for_more_than_it_was_continued_at() {
    let mut story = first_part(8);
    let (paid, released, share) = (8_002, 20_005, 6_401);
    let last =
        Bill { attempt: 0, part: 1, open: false, input: 0, output: 4, counted: 9, paid, released, share };
    let at = bill(&mut story, last);
    caught(story, CheckKind::Jobs, at);
}

#[test]
fn an_attempt_that_counts_less_than_it_began_with() {
    let mut story = first_part(8);
    let (paid, released, share) = (2_001, 20_005, 1_600);
    let last =
        Bill { attempt: 1, part: 1, open: false, input: 0, output: 1, counted: 7, paid, released, share };
    let at = bill(&mut story, last);
    caught(story, CheckKind::Jobs, at);
}

#[test]
fn a_job_that_goes_on_before_what_is_billed_or_was_cut() {
    let mut story = first_part(8);
    let at = go_on(&mut story, 2, 7);
    caught(story, CheckKind::Jobs, at);
    let story = first_part(4);
    let at = story.events.len() - 1;
    caught(story, CheckKind::Jobs, at);
}
