//! Coordinators that hash and sign correctly and cheat in what they write: each is found by `replay` at its leaf, exit 1.

use crate::story::*;
use auditor::checks::CheckKind;
use auditor::report::Outcome as Result_;
use protocol::amount::Amount;
use protocol::event::account::AccountKind;
use protocol::event::*;
use protocol::id::*;

#[test]
fn the_honest_story_replays_to_its_figures() {
    let report = honest().replayed();
    let failed: Vec<_> = report.checks.iter().filter(|check| check.result != Result_::Pass).collect();
    assert!(failed.iter().all(|check| check.result == Result_::Skipped), "{failed:#?}");
    assert_eq!((report.exit_code, &report.first_divergence), (0, &None));
    let total = &report.totals[0];
    let figures = [
        &total.deposited,
        &total.withdrawn,
        &total.captured,
        &total.operators,
        &total.settled,
        &total.claimed,
    ];
    assert_eq!(figures, ["5000000000", "1000000000", "2882721", "2306176", "2882000", "2305000"]);
    let debits: i128 = report.trial_balance.iter().map(|line| line.debits.parse::<i128>().unwrap()).sum();
    let credits: i128 = report.trial_balance.iter().map(|line| line.credits.parse::<i128>().unwrap()).sum();
    assert_eq!(debits, credits);
    assert_eq!(report.state_digest, honest().replayed().state_digest, "a replay is a function of the log");
    let text = auditor::report::text::render(&report);
    assert!(text.trim_end().lines().last().unwrap().starts_with("PASSED "), "{text}");
    let json: serde_json::Value = serde_json::from_str(&auditor::report::json::render(&report)).unwrap();
    assert_eq!(json["schema"], "counterfoil-audit-report-1");
    assert_eq!(json["checks"][0]["result"], "pass");
}

/// The check that must fail, and at which leaf the replay must diverge first.
pub fn caught(mut story: Story, kind: CheckKind, leaf: usize) {
    story.seal();
    let report = story.replayed();
    let check = report.check(kind).unwrap();
    let failed: Vec<_> =
        report.checks.iter().filter(|c| c.result == Result_::Fail).map(|c| (c.id, &c.findings)).collect();
    assert_eq!(report.exit_code, 1, "{failed:#?}");
    assert_eq!(check.result, Result_::Fail, "{} should fail: {failed:#?}", kind.id());
    assert!(check.findings.iter().any(|f| f.leaf == Some(leaf as u64)), "leaf {leaf}: {failed:#?}");
    assert_eq!(report.first_divergence.unwrap().leaf, leaf as u64, "{failed:#?}");
    let closing = auditor::report::text::closing_line(&story.replayed());
    assert!(closing.starts_with("FAILED "), "{closing}");
}

/// The story up to its batch: what was settled would be another figure, and its roots with it.
fn before_settlement(mut story: Story) -> Story {
    let at = story.find("batch_closed", 0);
    story.events.truncate(at);
    story
}

/// Adds to the legs on a ledger account.
fn shift(event: &mut Event, account: LedgerAccount, by: i128) {
    let leg = event.postings.iter_mut().find(|leg| leg.account == account).unwrap();
    leg.amount.0 += by;
}

#[test]
fn overcharged_by_one_base_unit() {
    let mut story = honest();
    let at = story.find("usage_captured", 0);
    let (customer, revenue) = (
        story.book(CUSTOMER, AccountKind::CustomerDeposited),
        story.book(AccountId::SYSTEM, AccountKind::PlatformRevenue),
    );
    let event = &mut story.events[at];
    let EventBody::UsageCaptured(e) = &mut event.body else { unreachable!() };
    e.cost.0 += 1;
    e.slices[0].amount.0 += 1;
    e.platform_share.0 += 1;
    shift(event, customer, 1);
    shift(event, revenue, -1);
    caught(before_settlement(story), CheckKind::Prices, at);
}

#[test]
fn more_tokens_billed_than_the_gateway_saw() {
    let mut story = honest();
    let at = story.find("usage_captured", 0);
    let EventBody::UsageCaptured(e) = &mut story.events[at].body else { unreachable!() };
    e.output_units_gateway = 999;
    caught(story, CheckKind::Prices, at);
}

#[test]
fn priced_by_a_card_that_is_not_in_force() {
    let mut story = honest();
    let new = card(2, 4_003);
    story.tell(policy::RateCardPublished { hash: new.hash(), card: new }, &[], &[]);
    let mut hold = hold_event(2, 5, 5, &card(1, 4_001));
    hold.job = JobId([50; 16]);
    hold.hold = HoldId([51; 16]);
    let at = story.events.len();
    admit(&mut story, 2, hold);
    let EventBody::JobDispatched(e) = &mut story.events[at + 1].body else { unreachable!() };
    e.job = JobId([50; 16]);
    caught(story, CheckKind::Prices, at);
}

#[test]
fn split_off_by_one() {
    let mut story = honest();
    let at = story.find("usage_captured", 1);
    let (accrued, revenue) = (
        story.book(OWNER, AccountKind::OperatorAccrued),
        story.book(AccountId::SYSTEM, AccountKind::PlatformRevenue),
    );
    let event = &mut story.events[at];
    let EventBody::UsageCaptured(e) = &mut event.body else { unreachable!() };
    e.operator_share.0 -= 1;
    e.platform_share.0 += 1;
    shift(event, accrued, 1);
    shift(event, revenue, -1);
    caught(before_settlement(story), CheckKind::Splits, at);
}

#[test]
fn a_deposit_mirrored_twice() {
    let mut story = honest();
    let first = story.events[story.find("deposit_confirmed", 0)].clone();
    let legs: Vec<_> = first.postings.iter().map(|leg| (leg.account, leg.amount.0)).collect();
    let at = story.tell(first.body, &legs, &[]);
    caught(story, CheckKind::Deposits, at);
}

#[test]
fn a_hold_captured_twice() {
    let mut story = honest();
    let at = story.events.len();
    let card = card(1, 4_001);
    let held = hold_event(0, 420, 1_100, &card).amount.0;
    capture(&mut story, 0, held);
    let report = {
        story.seal();
        story.replayed()
    };
    assert_eq!(report.exit_code, 1);
    assert_eq!(report.first_divergence.as_ref().unwrap().leaf, at as u64);
    assert!(report.check(CheckKind::Holds).unwrap().findings.iter().any(|f| f.leaf == Some(at as u64)));
}

#[test]
fn an_operator_paid_one_unit_too_much() {
    let mut story = honest();
    let at = story.find("batch_closed", 0);
    let (accrued, settling) =
        (story.book(OWNER, AccountKind::OperatorAccrued), story.book(OWNER, AccountKind::OperatorSettling));
    let event = &mut story.events[at];
    let EventBody::BatchClosed(e) = &mut event.body else { unreachable!() };
    for (payout, by) in e.payouts.iter_mut().zip([1i64, -1]) {
        payout.cumulative_units = payout.cumulative_units.checked_add_signed(by).unwrap();
        payout.added_units = payout.added_units.checked_add_signed(by).unwrap();
    }
    shift(event, accrued, 1_000);
    shift(event, settling, -1_000);
    let confirmed = story.find("batch_confirmed", 0);
    let payable = story.book(OWNER, AccountKind::OperatorPayable);
    shift(&mut story.events[confirmed], settling, 1_000);
    shift(&mut story.events[confirmed], payable, -1_000);
    caught(story, CheckKind::Batches, at);
}

#[test]
fn a_wallet_charged_one_unit_too_much() {
    let mut story = honest();
    let at = story.find("batch_closed", 0);
    let EventBody::BatchClosed(e) = &mut story.events[at].body else { unreachable!() };
    e.charges[0].cumulative_units += 1;
    e.charges[0].added_units += 1;
    e.payouts[1].cumulative_units += 1;
    e.payouts[1].added_units += 1;
    story.events.truncate(at + 1);
    caught(story, CheckKind::Batches, at);
}

#[test]
fn a_due_wallet_left_out_of_the_next_batch() {
    let mut story = honest();
    let at = story.find("batch_closed", 0);
    let EventBody::BatchClosed(e) = &mut story.events[at].body else { unreachable!() };
    (e.charges, e.payouts) = (vec![], vec![]);
    story.events[at].postings.clear();
    story.events.truncate(at + 1);
    caught(story, CheckKind::Batches, at);
}

#[test]
fn legs_that_do_not_balance() {
    let mut story = honest();
    let at = story.find("deposit_confirmed", 0);
    let customer = story.book(CUSTOMER, AccountKind::CustomerDeposited);
    shift(&mut story.events[at], customer, -1);
    caught(story, CheckKind::Balanced, at);
}

#[test]
fn balanced_legs_on_the_wrong_account() {
    let mut story = honest();
    let at = story.find("usage_captured", 0);
    let (accrued, revenue) = (
        story.book(OWNER, AccountKind::OperatorAccrued),
        story.book(AccountId::SYSTEM, AccountKind::PlatformRevenue),
    );
    shift(&mut story.events[at], accrued, 5);
    shift(&mut story.events[at], revenue, -5);
    caught(story, CheckKind::Legs, at);
}

#[test]
fn more_claimed_than_payable() {
    let mut story = honest();
    let first = story.events[story.find("payout_claimed", 0)].clone();
    let EventBody::PayoutClaimed(mut again) = first.body else { unreachable!() };
    again.units = 1;
    again.amount = Amount(1_000);
    again.tx = tx(9);
    let payable = story.book(OWNER, AccountKind::OperatorPayable);
    let pot = story.book(AccountId::SYSTEM, AccountKind::PotAsset);
    let at = story.tell(again, &[(payable, 1_000), (pot, -1_000)], &[]);
    caught(story, CheckKind::Claims, at);
}

#[test]
fn a_voucher_redeemed_twice() {
    let mut story = honest();
    let first = story.events[story.find("voucher_redeemed", 0)].clone();
    let legs = |legs: &[Posting]| legs.iter().map(|leg| (leg.account, leg.amount.0)).collect::<Vec<_>>();
    let at = story.tell(first.body, &legs(&first.postings), &legs(&first.pending));
    caught(story, CheckKind::Vouchers, at);
}

#[test]
fn a_voucher_for_more_than_is_free() {
    let mut story = honest();
    let at = story.find("voucher_issued", 0);
    let EventBody::VoucherIssued(e) = &mut story.events[at].body else { unreachable!() };
    (e.units, e.amount) = (4_999_000, Amount(4_999_000_000));
    for leg in &mut story.events[at].pending {
        leg.amount.0 = leg.amount.0.signum() * 4_999_000_000;
    }
    story.events.truncate(at + 1);
    caught(story, CheckKind::Vouchers, at);
}

#[test]
fn a_hold_expired_before_its_deadline() {
    let mut story = honest();
    let at = story.find("hold_voided", 0);
    story.events[at].body = hold::HoldExpired { hold: HoldId([42; 16]) }.into();
    caught(story, CheckKind::Holds, at);
}

#[test]
fn the_gravest_code_wins() {
    use auditor::report::gravest;
    for (codes, wins) in [(&[3, 1, 0][..], 1), (&[1, 3], 1), (&[3, 4, 1], 4), (&[0, 3], 3), (&[], 0)] {
        assert_eq!(gravest(codes.iter().copied()), wins, "{codes:?}");
    }
}

#[test]
fn spending_above_the_signed_cap() {
    let mut story = honest();
    let at = story.find("spend_authorised", 0);
    let EventBody::SpendAuthorised(e) = &mut story.events[at].body else { unreachable!() };
    e.max_cumulative_units = 100;
    let hold = story.find("hold_placed", 0);
    caught(story, CheckKind::Grants, hold);
}

#[test]
fn an_event_backdated() {
    let mut story = honest();
    let at = story.find("payout_claimed", 0);
    story.events[at].header.time_us -= 1_000_000;
    caught(story, CheckKind::Sequence, at);
}

#[test]
fn spending_more_than_was_deposited() {
    let mut story = honest();
    let at = story.find("deposit_confirmed", 0);
    let EventBody::DepositConfirmed(e) = &mut story.events[at].body else { unreachable!() };
    (e.units, e.amount) = (1_000, Amount(1_000_000));
    for leg in &mut story.events[at].postings {
        leg.amount.0 = leg.amount.0.signum() * 1_000_000;
    }
    let hold = story.find("hold_placed", 0);
    caught(story, CheckKind::Floors, hold);
}

#[test]
fn two_commands_under_one_key() {
    let mut story = honest();
    let at = story.find("job_dispatched", 0);
    story.events[at].header.command += 1;
    caught(story, CheckKind::Keys, at);
}

#[test]
fn a_key_used_for_another_command() {
    let mut story = honest();
    let first = story.events[story.find("hold_placed", 0)].header.key;
    let at = story.find("payout_claimed", 0);
    story.events[at].header.key = first;
    caught(story, CheckKind::Keys, at);
}

#[test]
fn a_settlement_with_another_root_is_a_cryptographic_failure() {
    let mut story = honest();
    let at = story.find("batch_submitted", 0);
    let EventBody::BatchSubmitted(e) = &mut story.events[at].body else { unreachable!() };
    e.payout_root = tx(99);
    let report = story.replayed();
    assert_eq!(report.exit_code, 4);
    assert_eq!(report.check(CheckKind::Roots).unwrap().findings[0].leaf, Some(at as u64));
}

#[test]
fn a_settlement_that_names_another_history() {
    let mut story = honest();
    let at = story.find("batch_submitted", 0);
    let EventBody::BatchSubmitted(e) = &mut story.events[at].body else { unreachable!() };
    e.tlog_root = Hash32([99; 32]);
    e.commitment = auditor::settlement::commitment(e.requests_root, e.tlog_size, e.tlog_root);
    let report = story.replayed();
    assert_eq!(report.exit_code, 4);
    assert_eq!(report.check(CheckKind::Anchors).unwrap().findings[0].leaf, Some(at as u64));
}

#[test]
fn receipts_are_opened_and_compared() {
    let directory = tempfile::tempdir().unwrap();
    honest().write(directory.path());
    let put = |n: usize, bytes: &[u8]| {
        crate::log::put(&directory.path().join("receipts").join(format!("{}.cbor", JOBS[n])), bytes);
    };
    put(0, &receipt_bytes(0));
    let report = replay_of(directory.path());
    assert_eq!(report.exit_code, 3, "one receipt is missing");
    put(1, &receipt_bytes(1));
    assert_eq!(replay_of(directory.path()).exit_code, 0);
    put(1, &receipt_bytes(0));
    assert_eq!(replay_of(directory.path()).exit_code, 4, "another receipt than the log's");
}
