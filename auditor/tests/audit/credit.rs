//! Credit of version 2: lines, moves, spend caps, and the order in which grants pay. Each rule honest and cheated.

use crate::cheats::caught;
use crate::story::*;
use auditor::checks::CheckKind;
use protocol::amount::Amount;
use protocol::event::account::{AccountKind, AccountOpened, CreditLineSet, CreditRepaid, SpendCapSet};
use protocol::event::grant::{Backing, CreditMoved, GrantIssued, GrantSource};
use protocol::event::hold::{HoldPlaced, HoldVoided, Slice, VoidReason};
use protocol::event::job::{CapturePart, CaptureReversed, JobDispatched, Outcome, UsageCaptured};
use protocol::event::*;
use protocol::id::*;

pub const OTHER: AccountId = AccountId([66; 16]);
pub const SPENDER: SpenderId = SpenderId([34; 16]);
pub const SYSTEM: AccountId = AccountId::SYSTEM;

pub type Leg = (LedgerAccount, i128);

pub fn kind_of(source: GrantSource) -> AccountKind {
    match source {
        GrantSource::Deposited => AccountKind::CustomerDeposited,
        GrantSource::Package => AccountKind::CustomerPackage,
        GrantSource::Earned => AccountKind::CustomerEarned,
        GrantSource::Allotment => AccountKind::CustomerAllotment,
        GrantSource::Promo => AccountKind::CustomerPromo,
        GrantSource::CreditLine => AccountKind::CustomerCredit,
    }
}

/// What stands behind a grant's number in a story.
fn issued(story: &Story, grant: GrantId) -> GrantIssued {
    let found = story.events.iter().find_map(|event| match &event.body {
        EventBody::GrantIssued(issued) if issued.grant == grant => Some(issued.clone()),
        _ => None,
    });
    found.expect("an issued grant")
}

pub fn book_of(story: &Story, grant: GrantId) -> LedgerAccount {
    let issued = issued(story, grant);
    story.book(issued.account, kind_of(issued.source))
}

/// A grant that is given: its number.
pub fn give(story: &mut Story, change: impl FnOnce(&mut GrantIssued)) -> GrantId {
    let numbers = story.events.iter().filter(|event| event.body.kind() == "grant_issued").count();
    let mut event = GrantIssued {
        grant: GrantId(numbers as u32),
        account: CUSTOMER,
        source: GrantSource::Promo,
        asset: FOIL,
        amount: Amount(1_000_000),
        priority: 30,
        scope: vec![],
        expires_us: None,
        backing: Backing::Unbacked,
    };
    change(&mut event);
    let (grant, amount) = (event.grant, event.amount.0);
    story.open_books(&[(event.account, kind_of(event.source)), (SYSTEM, AccountKind::PromoExpense)]);
    let legs = [
        (story.book(SYSTEM, AccountKind::PromoExpense), amount),
        (story.book(event.account, kind_of(event.source)), -amount),
    ];
    let legs = if amount == 0 { &[][..] } else { &legs };
    story.tell(event, legs, &[]);
    grant
}

pub fn slices(of: &[(GrantId, i128)]) -> Vec<Slice> {
    of.iter().map(|(grant, amount)| Slice { grant: *grant, amount: Amount(*amount) }).collect()
}

/// Pending legs: every slice by `sign`, and the other side.
pub fn pending(story: &Story, of: &[(GrantId, i128)], sign: i128) -> Vec<Leg> {
    let mut legs: Vec<Leg> =
        of.iter().map(|(grant, amount)| (book_of(story, *grant), amount * sign)).collect();
    let sum: i128 = of.iter().map(|(_, amount)| amount * sign).sum();
    legs.push((story.book(SYSTEM, AccountKind::HoldsPending), -sum));
    legs
}

/// A hold for the first job over the given slices, and its dispatch. Gives the hold's leaf.
pub fn hold_on(story: &mut Story, input: u64, max: u64, of: &[(GrantId, i128)]) -> usize {
    hold_for(story, 0, input, max, of, None)
}

pub fn hold_for(
    story: &mut Story,
    job: u8,
    input: u64,
    max: u64,
    of: &[(GrantId, i128)],
    spender: Option<SpenderId>,
) -> usize {
    let placed = hold_event(0, input, max, &card(1, 4_001));
    let ids = (JobId([100 + job; 16]), HoldId([140 + job; 16]));
    let placed = HoldPlaced { job: ids.0, hold: ids.1, slices: slices(of).into(), spender, ..placed };
    let legs = pending(story, of, 1);
    let at = story.tell(placed, &[], &legs);
    let dispatched = JobDispatched {
        job: ids.0,
        attempt: 0,
        node: NODE,
        operator: operator(),
        body: Hash32([3; 32]),
        continues_at: 0,
    };
    story.same_command(dispatched, &[], &[]);
    at
}

/// What a charge says of itself; what follows from it is filled in.
pub struct Told<'a> {
    pub job: u8,
    pub input: u64,
    pub output: u64,
    /// Output from the job's beginning.
    pub counted: u64,
    pub slices: &'a [(GrantId, i128)],
    /// What pending legs release.
    pub released: &'a [(GrantId, i128)],
    pub part: Option<CapturePart>,
    pub beyond: Option<i128>,
    pub share: i128,
}

pub fn charge(story: &mut Story, told: &Told<'_>) -> usize {
    let cost: i128 = told.slices.iter().map(|(_, amount)| amount).sum();
    let event = UsageCaptured {
        hold: HoldId([140 + told.job; 16]),
        job: JobId([100 + told.job; 16]),
        attempt: 0,
        node: NODE,
        operator: operator(),
        outcome: Outcome::Completed,
        input_units: told.input,
        output_units: told.output,
        output_units_worker: told.counted,
        output_units_gateway: told.counted,
        cost: Amount(cost),
        slices: slices(told.slices).into(),
        operator_share: Amount(told.share),
        platform_share: Amount(cost - told.share),
        receipt: Hash32([7; 32]),
        chain_head: Hash32([8; 32]),
        part: told.part,
        beyond_hold: told.beyond.map(Amount),
    };
    let legs = charge_legs(story, told.slices, told.share, 1);
    let pending = pending(story, told.released, -1);
    story.tell(event, &legs, &pending)
}

/// Booked legs of a charge, or (sign -1) of undoing it.
pub fn charge_legs(story: &Story, of: &[(GrantId, i128)], share: i128, sign: i128) -> Vec<Leg> {
    let mut legs = Vec::new();
    let cost: i128 = of.iter().map(|(_, amount)| amount).sum();
    for (grant, amount) in of {
        legs.push((book_of(story, *grant), amount * sign));
        if issued(story, *grant).source == GrantSource::CreditLine {
            legs.push((story.book(CUSTOMER, AccountKind::Receivable), amount * sign));
            legs.push((story.book(SYSTEM, AccountKind::CreditLines), -amount * sign));
        }
    }
    legs.push((story.book(OWNER, AccountKind::OperatorAccrued), -share * sign));
    legs.push((story.book(SYSTEM, AccountKind::PlatformRevenue), (share - cost) * sign));
    legs
}

/// It replays, and everything passes.
pub fn passes(story: &Story) {
    let report = story.replayed();
    let failed: Vec<_> = report.checks.iter().filter(|check| check.findings_total > 0).collect();
    assert_eq!((report.exit_code, &report.first_divergence), (0, &None), "{failed:#?}");
}

// ---- the order of consumption

/// 10 units cost 20 005. Grants in their order: 1 (ends first), 2, then the deposit.
fn two_grants() -> (Story, GrantId, GrantId) {
    let mut story = funded();
    let ends = |story: &mut Story, us| {
        give(story, |grant| {
            (grant.amount, grant.expires_us) = (Amount(8_000), Some(START_US + us));
        })
    };
    let later = ends(&mut story, 900_000_000);
    let sooner = ends(&mut story, 800_000_000);
    (story, sooner, later)
}

#[test]
fn grants_pay_by_priority_end_and_number() {
    let (mut story, sooner, later) = two_grants();
    let of = [(sooner, 8_000), (later, 8_000), (GrantId(0), 4_005)];
    hold_on(&mut story, 5, 5, &of);
    let paid = [(sooner, 8_000), (later, 8_000), (GrantId(0), 2_005)];
    charge(
        &mut story,
        &Told {
            job: 0,
            input: 5,
            output: 4,
            counted: 4,
            slices: &paid,
            released: &of,
            part: None,
            beyond: None,
            share: 14_404,
        },
    );
    // The two are used up: the deposit alone pays the next.
    hold_for(&mut story, 1, 5, 5, &[(GrantId(0), 20_005)], None);
    passes(&story);
}

#[test]
fn an_earlier_grant_that_is_passed_over() {
    let (mut story, sooner, _) = two_grants();
    let at = hold_on(&mut story, 5, 5, &[(sooner, 8_000), (GrantId(0), 12_005)]);
    caught(story, CheckKind::Grants, at);
}

#[test]
fn an_earlier_grant_that_is_not_used_up() {
    let (mut story, sooner, later) = two_grants();
    let at = hold_on(&mut story, 5, 5, &[(sooner, 7_999), (later, 8_000), (GrantId(0), 4_006)]);
    caught(story, CheckKind::Grants, at);
}

#[test]
fn a_grant_for_other_models_is_passed_over_and_must_be() {
    let mut story = funded();
    let scoped = give(&mut story, |grant| grant.scope = vec!["large".into()]);
    let mut honest = funded();
    give(&mut honest, |grant| grant.scope = vec!["large".into()]);
    hold_on(&mut honest, 5, 5, &[(GrantId(0), 20_005)]);
    passes(&honest);
    let at = hold_on(&mut story, 5, 5, &[(scoped, 20_005)]);
    caught(story, CheckKind::Grants, at);
}

// ---- moved credit

/// Two buckets of earned credit of one account, one of another account.
fn earned() -> (Story, [GrantId; 3]) {
    let mut story = funded();
    story.tell(AccountOpened { account: OTHER }, &[], &[]);
    let earned = |story: &mut Story, account| {
        give(story, |grant| {
            (grant.source, grant.account, grant.backing) = (GrantSource::Earned, account, Backing::Treasury);
        })
    };
    let grants = [CUSTOMER, CUSTOMER, OTHER].map(|account| earned(&mut story, account));
    (story, grants)
}

fn move_credit(story: &mut Story, from: GrantId, to: GrantId, amount: i128) -> usize {
    let legs = [(book_of(story, from), amount), (book_of(story, to), -amount)];
    story.tell(CreditMoved { from, to, amount: Amount(amount) }, &legs, &[])
}

#[test]
fn earned_credit_moves_within_and_between_accounts() {
    let (mut story, [one, two, others]) = earned();
    move_credit(&mut story, one, two, 400_000);
    move_credit(&mut story, two, others, 1_400_000);
    passes(&story);
    let report = story.replayed();
    let line = report.trial_balance.iter().find(|line| line.kind == "customer_earned").unwrap();
    assert_eq!((line.debits.as_str(), line.credits.as_str()), ("1800000", "4800000"));
}

#[test]
fn a_move_within_one_ledger_account_without_its_legs() {
    let (mut story, [one, two, _]) = earned();
    let at = move_credit(&mut story, one, two, 400_000);
    story.events[at].postings.clear();
    caught(story, CheckKind::Legs, at);
}

#[test]
fn more_credit_moved_than_there_is() {
    let (mut story, [one, two, _]) = earned();
    let at = move_credit(&mut story, one, two, 1_000_001);
    caught(story, CheckKind::Grants, at);
}

#[test]
fn credit_that_may_not_move_does_not() {
    // Given credit to another account; credit into a longer life, a wider scope, another backing, another source.
    type Change = fn(&mut GrantIssued);
    let cheats: [(Change, Change); 5] = [
        (|_| {}, |to| to.account = OTHER),
        (|from| from.expires_us = Some(START_US + 800_000_000), |to| to.expires_us = None),
        (|from| from.scope = vec![MODEL.into()], |to| to.scope = vec![]),
        (|_| {}, |to| to.backing = Backing::Treasury),
        (|_| {}, |to| to.source = GrantSource::Allotment),
    ];
    for (n, (from, to)) in cheats.into_iter().enumerate() {
        let (mut story, _) = earned();
        let (from, to) = (give(&mut story, from), give(&mut story, to));
        let at = move_credit(&mut story, from, to, 5);
        let finding = story.replayed().first_divergence.unwrap();
        assert_eq!((finding.leaf, finding.check), (at as u64, "grants"), "cheat {n}: {finding:?}");
    }
}

// ---- credit lines

fn with_line(limit: i128) -> (Story, GrantId) {
    let mut story = funded();
    story.open_books(&[
        (CUSTOMER, AccountKind::Receivable),
        (SYSTEM, AccountKind::CreditLines),
        (SYSTEM, AccountKind::PlatformTreasury),
    ]);
    let line = give(&mut story, |grant| {
        (grant.source, grant.amount, grant.priority) = (GrantSource::CreditLine, Amount(0), 5);
    });
    set_line(&mut story, line, limit, limit);
    (story, line)
}

fn set_line(story: &mut Story, grant: GrantId, limit: i128, change: i128) -> usize {
    let legs = [(story.book(SYSTEM, AccountKind::CreditLines), change), (book_of(story, grant), -change)];
    let legs = if change == 0 { &[][..] } else { &legs };
    story.tell(CreditLineSet { grant, limit: Amount(limit), change: Amount(change) }, legs, &[])
}

fn repay(story: &mut Story, grant: GrantId, amount: i128, restored: i128) -> usize {
    let legs = [
        (story.book(SYSTEM, AccountKind::PlatformTreasury), amount),
        (story.book(CUSTOMER, AccountKind::Receivable), -amount),
        (story.book(SYSTEM, AccountKind::CreditLines), restored),
        (book_of(story, grant), -restored),
    ];
    let event = CreditRepaid { grant, amount: Amount(amount), reference: Hash32([35; 32]) };
    story.tell(event, &legs[..if restored == 0 { 2 } else { 4 }], &[])
}

/// A line of 50 000, of which 9 units are drawn: 18 005.
fn drawn() -> (Story, GrantId) {
    let (mut story, line) = with_line(50_000);
    hold_on(&mut story, 5, 5, &[(line, 20_005)]);
    let told = Told {
        job: 0,
        input: 5,
        output: 4,
        counted: 4,
        slices: &[(line, 18_005)],
        released: &[(line, 20_005)],
        part: None,
        beyond: None,
        share: 14_404,
    };
    charge(&mut story, &told);
    (story, line)
}

#[test]
fn a_credit_line_is_drawn_repaid_and_lowered() {
    let (mut story, line) = drawn();
    // Lowered below what is drawn: nothing is left, and repaying gives back only up to the limit.
    set_line(&mut story, line, 10_000, -31_995);
    repay(&mut story, line, 10_000, 1_995);
    set_line(&mut story, line, 20_000, 10_000);
    repay(&mut story, line, 8_005, 8_005);
    passes(&story);
    let report = story.replayed();
    let of = |kind: &str| report.trial_balance.iter().find(|line| line.kind == kind).unwrap().clone();
    let owed = of("receivable");
    assert_eq!((owed.debits, owed.credits), ("18005".into(), "18005".into()));
    let unused = of("credit_lines");
    assert_eq!(unused.debits.parse::<i128>().unwrap() - unused.credits.parse::<i128>().unwrap(), 20_000);
}

#[test]
fn a_drawn_charge_is_undone_with_what_it_owed() {
    let (mut story, line) = drawn();
    let legs = charge_legs(&story, &[(line, 18_005)], 14_404, -1);
    let event = CaptureReversed {
        job: JobId([100; 16]),
        refunded: Amount(18_005),
        operator_share: Amount(14_404),
        platform_share: Amount(3_601),
    };
    let at = story.tell(event, &legs, &[]);
    passes(&story);
    // Without the receivable: the books would say that the customer still owes.
    let owed = story.book(CUSTOMER, AccountKind::Receivable);
    let lines = story.book(SYSTEM, AccountKind::CreditLines);
    story.events[at].postings.retain(|leg| leg.account != owed && leg.account != lines);
    caught(story, CheckKind::Legs, at);
}

#[test]
fn drawn_credit_that_nobody_owes() {
    let (mut story, _) = drawn();
    let at = story.find("usage_captured", 0);
    let owed = story.book(CUSTOMER, AccountKind::Receivable);
    let lines = story.book(SYSTEM, AccountKind::CreditLines);
    story.events[at].postings.retain(|leg| leg.account != owed && leg.account != lines);
    caught(story, CheckKind::Legs, at);
}

#[test]
fn a_line_that_grows_by_more_than_its_limit() {
    let (mut story, line) = drawn();
    let at = set_line(&mut story, line, 60_000, 10_001);
    caught(story, CheckKind::CreditLines, at);
}

#[test]
fn more_repaid_than_drawn() {
    let (mut story, line) = drawn();
    let at = repay(&mut story, line, 18_006, 18_005);
    caught(story, CheckKind::CreditLines, at);
}

#[test]
fn a_repayment_that_restores_beyond_the_limit() {
    let (mut story, line) = drawn();
    set_line(&mut story, line, 10_000, -31_995);
    let at = repay(&mut story, line, 10_000, 10_000);
    caught(story, CheckKind::Legs, at);
}

#[test]
fn more_held_than_a_lowered_limit_leaves() {
    let (mut story, line) = with_line(50_000);
    hold_on(&mut story, 5, 5, &[(line, 20_005)]);
    // What is held stays when the limit falls, and comes back when its hold ends: it is still above the limit.
    set_line(&mut story, line, 0, -29_995);
    let legs = pending(&story, &[(line, 20_005)], -1);
    let reason = VoidReason::OperatorFault;
    story.tell(HoldVoided { hold: HoldId([140; 16]), reason }, &[], &legs);
    let mut honest = story.clone();
    hold_for(&mut honest, 1, 5, 5, &[(GrantId(0), 20_005)], None);
    passes(&honest);
    let at = hold_for(&mut story, 1, 5, 5, &[(line, 20_005)], None);
    caught(story, CheckKind::Grants, at);
}

// ---- spend caps

fn cap(story: &mut Story, cap: Option<i128>) -> usize {
    let cap = cap.map(Amount);
    story.tell(SpendCapSet { account: CUSTOMER, spender: SPENDER, asset: FOIL, cap }, &[], &[])
}

/// A cap of 40 000; one job of 18 005 is charged under it.
fn capped() -> Story {
    let mut story = funded();
    // Before there is a cap, nothing is counted.
    hold_for(&mut story, 9, 50, 50, &[(GrantId(0), 200_050)], Some(SPENDER));
    cap(&mut story, Some(40_000));
    let of = [(GrantId(0), 20_005)];
    hold_for(&mut story, 0, 5, 5, &of, Some(SPENDER));
    let told = Told {
        job: 0,
        input: 5,
        output: 4,
        counted: 4,
        slices: &[(GrantId(0), 18_005)],
        released: &of,
        part: None,
        beyond: None,
        share: 14_404,
    };
    charge(&mut story, &told);
    story
}

#[test]
fn a_key_spends_up_to_its_cap() {
    let mut story = capped();
    // 18 005 charged, 20 005 held: 38 010. Another key of the account is not counted.
    hold_for(&mut story, 1, 5, 5, &[(GrantId(0), 20_005)], Some(SPENDER));
    hold_for(&mut story, 2, 5, 5, &[(GrantId(0), 20_005)], None);
    passes(&story);
    // Undoing the charge gives its share of the cap back.
    let legs = charge_legs(&story, &[(GrantId(0), 18_005)], 14_404, -1);
    let event = CaptureReversed {
        job: JobId([100; 16]),
        refunded: Amount(18_005),
        operator_share: Amount(14_404),
        platform_share: Amount(3_601),
    };
    story.tell(event, &legs, &[]);
    hold_for(&mut story, 3, 4, 5, &[(GrantId(0), 18_005)], Some(SPENDER));
    passes(&story);
}

#[test]
fn a_key_that_spends_beyond_its_cap() {
    let mut story = capped();
    hold_for(&mut story, 1, 5, 5, &[(GrantId(0), 20_005)], Some(SPENDER));
    let at = hold_for(&mut story, 2, 1, 1, &[(GrantId(0), 4_001)], Some(SPENDER));
    caught(story, CheckKind::SpendCaps, at);
}

#[test]
fn a_removed_cap_goes_on_counting() {
    let mut story = capped();
    cap(&mut story, None);
    hold_for(&mut story, 1, 50, 50, &[(GrantId(0), 200_050)], Some(SPENDER));
    cap(&mut story, Some(219_000));
    passes(&story);
    let at = hold_for(&mut story, 2, 1, 1, &[(GrantId(0), 4_001)], Some(SPENDER));
    caught(story, CheckKind::SpendCaps, at);
}
