//! The money invariants that need no network, each a named test (design: reliability, "Money invariants").

mod world;

use ledger::command::*;
use ledger::{Command, Decision, Refusal, query};
use protocol::amount::Amount;
use protocol::event::account::{AccountKind, SpendAuthorised};
use protocol::event::batch::BatchReplaced;
use protocol::event::chain::{DepositKey, ExitCancelled, ExitRequested};
use protocol::event::grant::{Backing, GrantSource};
use protocol::event::{Actor, EventBody};
use protocol::id::{Hash32, IdempotencyKey};
use protocol::rate::{RateCard, price_ceil};
use world::*;

fn name<T: std::fmt::Debug>(result: Result<T, Refusal>) -> &'static str {
    result.expect_err("must be refused").name()
}

/// Booked balance of a kind over all owners, as a credit.
fn booked(world: &World, kind: AccountKind) -> i128 {
    let lines = query::trial_balance(&world.state).into_iter().filter(|line| line.kind == kind);
    lines.map(|line| line.credits_posted.0 - line.debits_posted.0).sum()
}

/// Requirement P4: the worked figures, through a hold and a capture, to the last digit.
#[test]
fn p4_worked_figures_through_hold_and_capture() {
    for (price, per, input, output, expected) in [
        ("0.0000040", 1, 420, 1_000, "0.00568"),
        ("0.002", 1_000, 200, 1_000, "0.0024"),
        ("0.02", 1_000, 1_000, 8_000, "0.18"),
    ] {
        let price = Amount::parse_decimal(price, 9).unwrap();
        let mut world = World::open(rate(price.0, per, 800_000));
        world.grant(1, 1_000_000_000, None);
        world.admit(1, 1, input, output + 500).unwrap();
        let held = price_ceil(price, per, input + output + 500).unwrap().0;
        assert_eq!(world.held(1), held);
        let events = world.capture(1, input, output).unwrap();
        let EventBody::UsageCaptured(captured) = &events.last().unwrap().body else { panic!("{events:?}") };
        assert_eq!(captured.cost.to_decimal_string(9), expected);
        assert_eq!(captured.operator_share.0 + captured.platform_share.0, captured.cost.0);
        assert_eq!(captured.operator_share.0, captured.cost.0 * 8 / 10);
        assert_eq!(world.available(1), 1_000_000_000 - captured.cost.0);
        assert_eq!(world.held(1), 0);
        world.check_replay();
    }
}

#[test]
fn no_overspend_with_64_admissions_on_a_balance_worth_three() {
    let mut world = World::open(rate(1_000, 1, 800_000));
    world.authorise(1, 1_000_000).unwrap();
    world.deposit(1, 3 * 100, 0).unwrap();
    let outcomes: Vec<_> = (0..64).map(|id| world.admit(1, id, 60, 40)).collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 3);
    for refused in outcomes.into_iter().filter_map(Result::err) {
        let needed = Amount(100_000);
        assert_eq!(refused, Refusal::InsufficientCredit { needed, available: Amount(0), asset: FOIL });
    }
    assert_eq!((world.available(1), world.held(1), world.total(1)), (0, 300_000, 300_000));
    for id in 0..3 {
        world.void(id).unwrap();
    }
    assert_eq!(world.available(1), 300_000, "no leaked hold");
    world.check_replay();
}

#[test]
fn a_price_change_never_reprices_a_hold() {
    let mut world = World::open(rate(10, 1, 800_000));
    world.grant(1, 1_000_000, None);
    world.admit(1, 1, 50, 50).unwrap();
    let later_us = world.now_us + 5 * S;
    world.publish(2, later_us, rate(70, 1, 500_000)).unwrap();
    world.now_us = later_us;
    world.admit(1, 2, 50, 50).unwrap();
    world.capture(1, 50, 50).unwrap();
    world.capture(2, 50, 50).unwrap();
    let cost = |id| query::job(&world.state, job(id)).unwrap().charge.unwrap();
    assert_eq!((cost(1).cost.0, cost(1).operator_share.0), (1_000, 800));
    assert_eq!((cost(2).cost.0, cost(2).operator_share.0), (7_000, 3_500));
    assert_eq!(query::rate_card(&world.state, later_us - 1).unwrap().card.version, 1);
    assert_eq!(name(world.publish(4, later_us, rate(1, 1, 0))), "rate_card_version");
    assert_eq!(name(world.publish(3, later_us - 1, rate(1, 1, 0))), "rate_card_in_the_past");
}

#[test]
fn an_expired_grant_pays_no_new_hold_but_its_old_slices_stay_valid() {
    let mut world = World::open(rate(10, 1, 800_000));
    let end_us = world.now_us + 30 * S;
    world.grant(1, 1_500, Some(end_us));
    world.admit(1, 1, 50, 50).unwrap();
    assert_eq!(world.available(1), 500);
    world.now_us = end_us;
    assert_eq!(world.available(1), 0, "unspendable by its own date, before any event says so");
    assert_eq!(name(world.admit(1, 2, 1, 1)), "insufficient_credit");
    world.must(ExpireDue { events_max: 100 });
    assert_eq!(booked(&world, AccountKind::Breakage), 500);
    assert_eq!((world.held(1), world.total(1)), (1_000, 1_000), "the open hold keeps its slice");
    let captured = world.capture(1, 50, 20).unwrap();
    let EventBody::UsageCaptured(event) = &captured.last().unwrap().body else { panic!() };
    assert_eq!(event.cost.0, 700, "the slice held before pays");
    assert_eq!(booked(&world, AccountKind::Breakage), 800, "what flows back is breakage");
    assert_eq!(world.total(1), 0);
    assert_eq!(name(world.run(ExpireDue { events_max: 1 })), "nothing_due");
    world.check_replay();
}

#[test]
fn a_release_after_the_date_but_before_the_event_is_breakage_too() {
    let mut world = World::open(rate(10, 1, 800_000));
    let end_us = world.now_us + 30 * S;
    world.grant(1, 1_500, Some(end_us));
    world.admit(1, 1, 50, 50).unwrap();
    world.now_us = end_us + 1;
    world.void(1).unwrap();
    assert_eq!(booked(&world, AccountKind::Breakage), 1_000);
    world.must(ExpireDue { events_max: 100 });
    assert_eq!(booked(&world, AccountKind::Breakage), 1_500);
    assert_eq!(booked(&world, AccountKind::CustomerPromo), 0);
    world.check_replay();
}

#[test]
fn grants_are_consumed_by_priority_then_expiry_then_number() {
    let mut world = World::open(rate(1, 1, 0));
    let give = |world: &mut World, source, priority, expires_us, scope: &[&str]| {
        world.must(IssueGrant {
            account: account(1),
            source,
            asset: FOIL,
            amount: Amount(10),
            priority,
            scope: scope.iter().map(|name| name.to_string()).collect(),
            expires_us,
            backing: Backing::Unbacked,
        });
    };
    give(&mut world, GrantSource::Promo, 30, None, &[]);
    give(&mut world, GrantSource::Promo, 30, Some(900 * S), &[]);
    give(&mut world, GrantSource::Promo, 30, Some(800 * S), &[]);
    give(&mut world, GrantSource::Allotment, 10, None, &["other"]);
    give(&mut world, GrantSource::Package, 20, None, &[MODEL]);
    let events = world.admit(1, 1, 1, 34).unwrap();
    let placed = events.iter().find_map(|event| match &event.body {
        EventBody::HoldPlaced(placed) => Some(placed),
        _ => None,
    });
    let slices: Vec<_> = placed.unwrap().slices.iter().map(|s| (s.grant.0, s.amount.0)).collect();
    assert_eq!(slices, [(4, 10), (2, 10), (1, 10), (0, 5)], "the other model's grant is passed over");
    let events = world.capture(1, 1, 14).unwrap();
    let EventBody::UsageCaptured(event) = &events.last().unwrap().body else { panic!() };
    let slices: Vec<_> = event.slices.iter().map(|s| (s.grant.0, s.amount.0)).collect();
    assert_eq!(slices, [(4, 10), (2, 5)]);
}

#[test]
fn a_withdrawal_racing_a_hold_cannot_take_held_funds() {
    let mut world = World::open(rate(1_000, 1, 800_000));
    world.authorise(1, 10_000).unwrap();
    world.deposit(1, 1_000, 0).unwrap();
    world.admit(1, 1, 300, 300).unwrap();
    let asked_units = 401;
    let refusal = Refusal::MoreThanWithdrawable { asked_units, withdrawable_units: 400 };
    assert_eq!(world.voucher(1, 1, asked_units, 0).unwrap_err(), refusal);
    world.voucher(1, 1, 400, 0).unwrap();
    assert_eq!(name(world.voucher(1, 2, 1, 0)), "nonce_in_use");
    assert_eq!(name(world.admit(1, 2, 1, 1)), "insufficient_credit", "nor can a hold take the voucher's");
    world.capture(1, 300, 100).unwrap();
    assert_eq!(query::withdrawable(&world.state, vault(), wallet(1)), 200);
    assert_eq!(name(world.redeem(1, 399, 0)), "units_differ");
    world.redeem(1, 400, 0).unwrap();
    assert_eq!(name(world.redeem(1, 400, 0)), "voucher_closed");
    assert_eq!(name(world.redeem(1, 400, 5)), "voucher_not_open");
    assert_eq!(world.total(1), 200_000);
    assert_eq!(-booked(&world, AccountKind::VaultAsset), 600_000);
    world.voucher(1, 3, 200, 1).unwrap();
    world.must(LapseVoucher { voucher: voucher(3), block: 99 });
    assert_eq!(name(world.run(LapseVoucher { voucher: voucher(3), block: 99 })), "voucher_closed");
    assert_eq!(world.available(1), 200_000);
    world.check_replay();
}

#[test]
fn a_job_is_charged_once() {
    let mut world = World::open(rate(10, 1, 800_000));
    world.grant(1, 10_000, None);
    world.admit(1, 1, 50, 50).unwrap();
    let key = IdempotencyKey::internal("capture", &[&job(1).0]);
    let body: ledger::CommandBody = capture(1, 50, 30, 20).into();
    let command = Command::new(key, Actor::Gateway, body);
    let Decision::New(events) = world.run_command(&command).unwrap() else { panic!() };
    let after = world.available(1);
    assert_eq!(after, 10_000 - 700, "billed is the lesser of worker and gateway");
    let header = events[0].header;
    let (commit, first_leaf, count) = (header.commit, header.leaf, events.len() as u32);
    let again = world.run_command(&command).unwrap();
    assert_eq!(again, Decision::Repeated { commit, first_leaf, count });
    assert_eq!(name(world.capture(1, 50, 20)), "hold_closed", "another key does not help");
    assert_eq!(name(world.void(1)), "hold_closed");
    let other = Command { body: capture(1, 50, 30, 21).into(), ..command };
    assert_eq!(name(world.run_command(&other)), "key_reused");
    assert_eq!(world.available(1), after);
}

#[test]
fn keys_are_forgotten_by_log_time_and_late_copies_refused() {
    let mut world = World::open(rate(10, 1, 800_000));
    let key = IdempotencyKey::internal("open", &[b"9"]);
    let open = OpenAccount { account: account(9) };
    let not_after_us = Some(world.now_us + 10 * S);
    let command = Command { key, actor: Actor::Admin, not_after_us, body: open.into(), key_time_us: None };
    world.run_command(&command).unwrap();
    world.now_us += 86_400 * S;
    assert!(matches!(world.run_command(&command), Ok(Decision::Repeated { .. })));
    world.must(OpenAccount { account: account(10) });
    world.now_us += ledger::KEY_AHEAD_US_MAX + 1;
    world.must(OpenAccount { account: account(11) });
    assert_eq!(name(world.run_command(&command)), "too_late");
    let command = Command { not_after_us: None, ..command };
    assert_eq!(name(world.run_command(&command)), "account_known", "the state itself still protects");
    world.check_replay();
}

#[test]
fn a_capture_stays_within_its_hold_and_charges_nothing_for_nothing() {
    let mut world = World::open(rate(10, 1, 800_000));
    world.grant(1, 10_000, None);
    world.admit(1, 1, 50, 50).unwrap();
    assert_eq!(name(world.run(capture(1, 51, 1, 1))), "input_above_hold");
    assert_eq!(name(world.run(capture(1, 50, 51, 51))), "output_above_hold");
    assert_eq!(name(world.run(capture(1, 50, 0, 9))), "nothing_delivered");
    assert_eq!(name(world.run(capture(1, 50, 9, 0))), "nothing_delivered");
    assert_eq!(name(world.run(Capture { attempt: 1, ..capture(1, 50, 9, 9) })), "attempt_unknown");
    assert_eq!(name(world.capture(2, 1, 1)), "job_unknown");
    world.void(1).unwrap();
    assert_eq!(world.available(1), 10_000);
}

#[test]
fn a_redispatched_job_pays_the_attempt_that_delivered() {
    let mut world = World::open(rate(10, 1, 800_000));
    world.grant(1, 10_000, None);
    world.admit(1, 1, 50, 50).unwrap();
    let again = |attempt, n| Redispatch {
        job: job(1),
        attempt,
        node: node(n),
        body: Hash32([5; 32]),
        continues_at: 0,
    };
    assert_eq!(name(world.run(again(2, 1))), "attempt_number");
    world.must(again(1, 1));
    world.must(Capture { attempt: 1, ..capture(1, 50, 50, 50) });
    let accrued = |n| query::earnings(&world.state, operator(n))[0].accrued.0;
    assert_eq!((accrued(1), accrued(2)), (800, 0));
}

#[test]
fn abandoned_holds_expire_in_order_and_only_after_grace() {
    let mut world = World::open(rate(10, 1, 800_000));
    world.grant(1, 10_000, None);
    for id in [3, 1, 2] {
        world.admit(1, id, 50, 50).unwrap();
    }
    world.now_us += 69 * S;
    assert_eq!(name(world.run(ExpireDue { events_max: 10 })), "nothing_due");
    world.now_us += S;
    assert_eq!(query::next_due_us(&world.state), Some(world.now_us));
    let events = world.must(ExpireDue { events_max: 2 });
    let expired: Vec<_> = events.iter().map(|event| event.body.clone()).collect();
    let hold_expired = |id| EventBody::from(protocol::event::hold::HoldExpired { hold: hold(id) });
    assert_eq!(expired, [hold_expired(1), hold_expired(2)]);
    assert_eq!(world.held(1), 1_000);
    world.must(ExpireDue { events_max: 2 });
    assert_eq!((world.held(1), world.available(1)), (0, 10_000));
    assert_eq!(name(world.capture(3, 50, 50)), "hold_closed");
    world.check_replay();
}

#[test]
fn a_deposit_is_mirrored_exactly_once() {
    let mut world = World::open(rate(10, 1, 800_000));
    world.authorise(1, 1_000).unwrap();
    let kinds = |events: &[protocol::Event]| events.iter().map(|e| e.body.kind()).collect::<Vec<_>>();
    let events = world.deposit(1, 5, 0).unwrap();
    assert_eq!(kinds(&events), ["ledger_accounts_opened", "grant_issued", "deposit_confirmed"]);
    assert_eq!(name(world.deposit(1, 5, 0)), "deposit_known");
    let events = world.deposit(1, 5, 1).unwrap();
    assert_eq!(kinds(&events), ["deposit_confirmed"], "one bucket a wallet");
    assert_eq!(world.total(1), 10 * UNIT);
    world.check_replay();
}

#[test]
fn a_deposit_of_an_unknown_wallet_waits_for_its_account() {
    let mut world = World::open(rate(10, 1, 800_000));
    world.deposit(2, 7, 0).unwrap();
    world.deposit(2, 3, 1).unwrap();
    assert_eq!(booked(&world, AccountKind::UnattributedDeposits), 10 * UNIT);
    assert_eq!(world.total(2), 0);
    let events = world.authorise(2, 4).unwrap();
    assert!(events.iter().any(|event| matches!(event.body, EventBody::DepositAttributed(_))));
    assert_eq!(booked(&world, AccountKind::UnattributedDeposits), 0);
    assert_eq!((world.total(2), world.available(2)), (10 * UNIT, 4 * UNIT), "the cap bounds spending");
    let stolen = SpendAuthorised {
        account: account(1),
        vault: vault(),
        wallet: wallet(2),
        max_cumulative_units: 100,
        valid_until_s: u32::MAX,
        nonce: 0,
        session: Hash32([4; 32]),
        signature: None,
    };
    assert_eq!(name(world.run(stolen)), "wallet_linked_elsewhere");
    world.check_replay();
}

#[test]
fn collectable_is_bounded_by_cap_exit_and_validity() {
    let mut world = World::open(rate(1_000, 1, 800_000));
    world.deposit(1, 100, 0).unwrap();
    world.authorise(1, 50).unwrap();
    assert_eq!(name(world.authorise(1, 50)), "authorisation_not_higher");
    world.admit(1, 1, 10, 20).unwrap();
    assert_eq!(world.available(1), 20 * UNIT, "cap less held");
    world.capture(1, 10, 10).unwrap();
    assert_eq!(world.available(1), 30 * UNIT, "cap less captured");
    assert_eq!(
        query::withdrawable(&world.state, vault(), wallet(1)),
        80,
        "the cap does not bind withdrawals"
    );
    world.authorise(1, 90).unwrap();
    assert_eq!(world.available(1), 70 * UNIT);
    let asked = ExitRequested { vault: vault(), wallet: wallet(1), exit_at_s: 5, tx: tx(1) };
    world.must(asked.clone());
    assert_eq!(world.available(1), 0, "nothing from the first sight of an exit");
    assert_eq!(name(world.run(asked)), "exit_pending");
    assert_eq!(name(world.voucher(1, 1, 1, 0)), "exit_pending");
    world.must(ExitCancelled { vault: vault(), wallet: wallet(1), tx: tx(2) });
    assert_eq!(world.available(1), 70 * UNIT);
    let soon = world.now_us / S + 201;
    world.must(SpendAuthorised {
        account: account(1),
        vault: vault(),
        wallet: wallet(1),
        max_cumulative_units: 100,
        valid_until_s: soon as u32,
        nonce: 0,
        session: Hash32([4; 32]),
        signature: None,
    });
    assert_eq!(world.available(1), 80 * UNIT);
    world.now_us += S;
    assert_eq!(world.available(1), 0, "two epochs before the authorisation ends");
}

#[test]
fn a_reversed_deposit_takes_unspent_funds_first_and_freezes_for_the_rest() {
    let mut world = World::open(rate(1_000, 1, 800_000));
    world.authorise(1, 10_000).unwrap();
    world.deposit(1, 100, 0).unwrap();
    world.admit(1, 1, 30, 30).unwrap();
    world.capture(1, 30, 30).unwrap();
    let key = DepositKey { vault: vault(), tx: tx(1), ordinal: 0 };
    let events = world.must(ReverseDeposit { key });
    let EventBody::DepositReversed(reversed) = &events.last().unwrap().body else { panic!() };
    assert_eq!((reversed.taken.0, reversed.owed.0), (40 * UNIT, 60 * UNIT));
    assert_eq!(name(world.run(ReverseDeposit { key })), "deposit_unknown");
    assert_eq!(name(world.admit(1, 2, 1, 1)), "account_frozen");
    world.grant(1, 1_000_000, None);
    assert_eq!(name(world.admit(1, 2, 1, 1)), "account_frozen", "also from other credit");
    world.deposit(1, 20, 1).unwrap();
    assert_eq!(name(world.admit(1, 2, 1, 1)), "account_frozen", "a part repaid is not enough");
    world.deposit(1, 50, 2).unwrap();
    assert_eq!(world.total(1), 10 * UNIT + 1_000_000);
    world.admit(1, 2, 1, 1).unwrap();
    world.deposit(1, 100, 0).unwrap();
    world.check_replay();
}

#[test]
fn an_exit_takes_what_was_spent_but_not_charged_as_a_debt() {
    let mut world = World::open(rate(1_000, 1, 800_000));
    world.authorise(1, 10_000).unwrap();
    world.deposit(1, 100, 0).unwrap();
    world.admit(1, 1, 30, 30).unwrap();
    world.admit(1, 2, 10, 10).unwrap();
    world.capture(1, 30, 20).unwrap();
    world.voucher(1, 1, 10, 0).unwrap();
    let exit = |units| SeeExitFinalised { vault: vault(), wallet: wallet(1), units, tx: tx(3) };
    assert_eq!(name(world.run(exit(100))), "no_exit_pending");
    world.must(ExitRequested { vault: vault(), wallet: wallet(1), exit_at_s: 5, tx: tx(1) });
    assert_eq!(name(world.run(exit(100))), "holds_open");
    world.void(2).unwrap();
    assert_eq!(name(world.run(exit(99))), "units_differ");
    let events = world.must(exit(100));
    let EventBody::ExitFinalised(event) = &events.last().unwrap().body else { panic!() };
    assert_eq!(event.shortfall.0, -50 * UNIT, "the capture of 50 was not charged yet");
    assert_eq!(world.total(1), 0);
    assert_eq!(name(world.admit(1, 3, 1, 1)), "account_frozen");
    assert_eq!(name(world.close_batch(1)), "nothing_to_charge");
    assert_eq!(query::earnings(&world.state, operator(2))[0].unbacked.0, 40 * UNIT, "owed, not payable");
    world.check_replay();
}

#[test]
fn a_reversal_unwinds_the_actual_legs_once() {
    let mut world = World::open(rate(7, 3, 333_333));
    world.authorise(1, 1_000).unwrap();
    world.deposit(1, 1, 0).unwrap();
    world.grant(1, 100, None);
    world.admit(1, 1, 50, 50).unwrap();
    world.capture(1, 50, 33).unwrap();
    let before = (booked(&world, AccountKind::OperatorAccrued), booked(&world, AccountKind::PlatformRevenue));
    assert_eq!(before.0 + before.1, 194);
    world.must(ReverseCapture { job: job(1) });
    assert_eq!(booked(&world, AccountKind::OperatorAccrued), 0);
    assert_eq!(booked(&world, AccountKind::PlatformRevenue), 0);
    assert_eq!(world.available(1), 1_100);
    assert_eq!(name(world.run(ReverseCapture { job: job(1) })), "already_reversed");
    assert_eq!(name(world.run(ReverseCapture { job: job(2) })), "job_unknown");
    world.check_replay();
}

#[test]
fn a_batch_pays_floors_of_cumulatives_and_the_platform_the_rest() {
    let mut world = World::open(rate(7, 3, 800_000));
    for n in 1..=2 {
        world.authorise(n, 1_000_000).unwrap();
        world.deposit(n, 100, 0).unwrap();
    }
    // 1 000 units of 7/3 = 2 334 base units each: two wallets, two operators.
    for id in 0..4 {
        world.admit(1 + (id / 2) as u8, id, 500, 500).unwrap();
        world.capture(id, 500, 500).unwrap();
    }
    let closed = world.close_batch(1).unwrap();
    let EventBody::BatchClosed(event) = &closed.last().unwrap().body else { panic!() };
    let charges: Vec<_> = event.charges.iter().map(|c| (c.wallet, c.cumulative_units)).collect();
    assert_eq!(charges, [(wallet(1), 4), (wallet(2), 4)], "4 668 base units are 4 vault units each");
    let added: u64 = event.payouts.iter().map(|payout| payout.added_units).sum();
    assert_eq!(added, 8);
    assert_eq!(name(world.close_batch(2)), "batch_open");
    assert_eq!(name(world.run(ReverseCapture { job: job(0) })), "capture_in_batch");
    assert_eq!(name(world.confirm_batch(1)), "batch_not_open");
    let lines = query::batch_requests(&world.state, batch(1));
    assert_eq!(lines.len(), 4);
    world.submit_batch(1).unwrap();
    let wrong = ConfirmBatch { batch: batch(1), tx: tx(9), block: 5, block_hash: tx(5), charged_units: 7 };
    assert_eq!(name(world.run(wrong)), "units_differ");
    world.confirm_batch(1).unwrap();
    assert_eq!(-booked(&world, AccountKind::PotAsset), 8 * UNIT);
    let payable: Vec<u64> = (1..=2).map(|n| payable_units(&world, n)).collect();
    // Of each wallet's 4 000: the first capture whole (share 1 867), 1 666 of the second's 2 334 (share 1 332).
    assert_eq!(payable, [3, 2], "floors of 3 734 and 2 664");
    assert_eq!(name(world.claim(payout_address(1), payable[0] + 1, 1)), "more_than_claimable");
    world.claim(payout_address(1), payable[0], 1).unwrap();
    assert_eq!(name(world.claim(payout_address(1), payable[0], 1)), "claim_known");
    world.claim(protocol::id::EvmAddress([0xee; 20]), 8 - payable.iter().sum::<u64>(), 2).unwrap();
    assert_eq!(
        -booked(&world, AccountKind::PlatformTreasury),
        (8 - payable.iter().sum::<u64>() as i128) * UNIT
    );
    // The remainder is not lost: another capture lifts the cumulative over the next unit.
    assert_eq!(name(world.close_batch(3)), "nothing_to_charge");
    world.admit(1, 9, 500, 500).unwrap();
    world.capture(9, 500, 500).unwrap();
    let closed = world.close_batch(3).unwrap();
    let EventBody::BatchClosed(event) = &closed.last().unwrap().body else { panic!() };
    assert_eq!((event.number, event.charges[0].cumulative_units, event.charges[0].added_units), (2, 7, 3));
    let second = event.payouts.iter().find(|payout| payout.address == payout_address(2)).unwrap();
    assert_eq!(second.cumulative_units, 5, "floor of 2 664 + 2 400, not of each");
    world.check_replay();
}

fn payable_units(world: &World, n: u8) -> u64 {
    (query::earnings(&world.state, operator(n))[0].payable.0 / UNIT) as u64
}

#[test]
fn a_failed_batch_puts_everything_back_and_its_number_is_used_again() {
    let mut world = World::open(rate(7, 3, 800_000));
    world.authorise(1, 1_000_000).unwrap();
    world.deposit(1, 100, 0).unwrap();
    world.admit(1, 1, 500, 500).unwrap();
    world.capture(1, 500, 500).unwrap();
    let accrued = booked(&world, AccountKind::OperatorAccrued);
    world.close_batch(1).unwrap();
    world.submit_batch(1).unwrap();
    world.must(FailBatch { batch: batch(1), reason: "the wallet's cap was too small".into() });
    assert_eq!(booked(&world, AccountKind::OperatorAccrued), accrued);
    assert_eq!(booked(&world, AccountKind::OperatorSettling), 0);
    assert_eq!(name(world.submit_batch(1)), "batch_not_open");
    let closed = world.close_batch(2).unwrap();
    let EventBody::BatchClosed(event) = &closed.last().unwrap().body else { panic!() };
    assert_eq!((event.number, event.charges[0].added_units), (1, 2));
    world.submit_batch(2).unwrap();
    world.confirm_batch(2).unwrap();
    world.check_replay();
}

#[test]
fn unbacked_credit_earns_operators_but_is_never_settled() {
    let mut world = World::open(rate(1_000, 1, 800_000));
    world.authorise(1, 1_000).unwrap();
    world.deposit(1, 50, 0).unwrap();
    world.grant(1, 30_000, None);
    world.admit(1, 1, 30, 30).unwrap();
    world.capture(1, 30, 20).unwrap();
    let earned = query::earnings(&world.state, operator(2));
    assert_eq!((earned[0].accrued.0, earned[0].unbacked.0), (40_000, 24_000), "30 of 50 were promo");
    let closed = world.close_batch(1).unwrap();
    let EventBody::BatchClosed(event) = &closed.last().unwrap().body else { panic!() };
    assert_eq!(event.charges[0].cumulative_units, 20, "only the deposited part");
    world.submit_batch(1).unwrap();
    world.confirm_batch(1).unwrap();
    let earned = query::earnings(&world.state, operator(2));
    assert_eq!((earned[0].accrued.0, earned[0].payable.0), (24_000, 16_000));
}

#[test]
fn small_debts_wait_for_more_but_at_most_four_epochs() {
    let settings = protocol::event::policy::Settings { settle_units_min: 10, ..settings() };
    let mut world = World::open_with(rate(1_000, 1, 800_000), settings);
    world.authorise(1, 1_000).unwrap();
    world.deposit(1, 50, 0).unwrap();
    world.admit(1, 1, 5, 1).unwrap();
    world.capture(1, 5, 1).unwrap();
    assert_eq!(name(world.close_batch(1)), "nothing_to_charge");
    world.now_us += 399 * S;
    assert_eq!(name(world.close_batch(1)), "nothing_to_charge");
    world.now_us += S;
    world.close_batch(1).unwrap();
}

#[test]
fn what_a_vault_owes_is_what_its_wallets_have_in_it() {
    let mut world = World::open(rate(1_000, 1, 800_000));
    world.authorise(1, 1_000).unwrap();
    world.deposit(1, 50, 0).unwrap();
    world.deposit(2, 30, 1).unwrap();
    world.admit(1, 1, 5, 1).unwrap();
    world.capture(1, 5, 1).unwrap();
    let check = CheckSolvency { vault: vault(), block: 9, block_hash: tx(1), held_units: 80 };
    let owed = |events: Vec<protocol::event::Event>| match &events[0].body {
        EventBody::SolvencyChecked(event) => event.owed_units,
        other => panic!("{other:?}"),
    };
    assert_eq!(owed(world.must(check.clone())), 80, "a capture is owed until it is charged");
    world.close_batch(1).unwrap();
    world.submit_batch(1).unwrap();
    world.confirm_batch(1).unwrap();
    assert_eq!(owed(world.must(CheckSolvency { held_units: 74, ..check })), 74);
    world.check_replay();
}

/// The vault charges nothing after a cap's end: a debt below the minimum is due when spending stops.
#[test]
fn a_small_debt_is_due_before_its_cap_ends() {
    let settings = protocol::event::policy::Settings { settle_units_min: 10, ..settings() };
    let mut world = World::open_with(rate(1_000, 1, 800_000), settings.clone());
    world.authorise(1, 1_000).unwrap();
    world.deposit(1, 50, 0).unwrap();
    world.admit(1, 1, 5, 1).unwrap();
    world.capture(1, 5, 1).unwrap();
    let margin_s = settings.epoch_us / S * u64::from(settings.authorisation_margin_epochs);
    let valid_until_s = u32::try_from(world.now_us / S + margin_s + 10).unwrap();
    let shorter = protocol::event::account::SpendAuthorised {
        account: account(1),
        vault: vault(),
        wallet: wallet(1),
        max_cumulative_units: 1_001,
        valid_until_s,
        nonce: 0,
        session: Hash32([4; 32]),
        signature: None,
    };
    world.run(shorter).unwrap();
    assert_eq!(name(world.close_batch(1)), "nothing_to_charge");
    world.now_us += 10 * S;
    world.close_batch(1).unwrap();
}

/// A wallet that the chain would charge short does not stop the others.
#[test]
fn a_batch_leaves_out_who_cannot_be_charged() {
    let mut world = World::open(rate(1_000, 1, 800_000));
    for n in [1, 2] {
        world.authorise(n, 1_000).unwrap();
        world.deposit(n, 50, 0).unwrap();
        world.admit(n, u32::from(n), 5, 1).unwrap();
        world.capture(u32::from(n), 5, 1).unwrap();
    }
    let closed = world.close_without(1, &[1]).unwrap();
    let EventBody::BatchClosed(event) = &closed.last().unwrap().body else { panic!("{closed:?}") };
    assert_eq!(event.charges.iter().map(|charge| charge.wallet).collect::<Vec<_>>(), [wallet(2)]);
    assert_eq!(event.short, Some(vec![wallet(1)]), "who waits is named");
    world.submit_batch(1).unwrap();
    world.run(BatchReplaced { batch: batch(1), replaced: tx(8), tx: tx(9) }).unwrap();
    world.confirm_batch(1).unwrap();
    assert_eq!(name(world.close_without(2, &[1])), "nothing_to_charge");
    let later = world.close_batch(2).unwrap();
    let EventBody::BatchClosed(event) = &later.last().unwrap().body else { panic!("{later:?}") };
    assert_eq!(event.charges.iter().map(|charge| charge.wallet).collect::<Vec<_>>(), [wallet(1)]);
    world.check_replay();
}

/// Operators' floors may together reach what is charged; nobody's cumulative figure ever falls.
#[test]
fn cumulative_payouts_never_fall_even_when_everything_goes_to_operators() {
    let mut world = World::open(rate(1, 1, 1_000_000));
    world.authorise(1, 1_000_000).unwrap();
    world.deposit(1, 100, 0).unwrap();
    let mut last: Vec<(protocol::id::EvmAddress, u64)> = Vec::new();
    for round in 0..6u32 {
        for id in [round * 2, round * 2 + 1] {
            world.admit(1, id, 250, 250).unwrap();
            world.capture(id, 250, 250).unwrap();
        }
        let closed = world.close_batch(round).unwrap();
        let EventBody::BatchClosed(event) = &closed.last().unwrap().body else { panic!() };
        assert_eq!(event.payouts.iter().map(|payout| payout.added_units).sum::<u64>(), 1);
        for (address, units) in &last {
            let now = event.payouts.iter().find(|payout| payout.address == *address).unwrap();
            assert!(now.cumulative_units >= *units);
        }
        last = event.payouts.iter().map(|payout| (payout.address, payout.cumulative_units)).collect();
        world.submit_batch(round).unwrap();
        world.confirm_batch(round).unwrap();
    }
    world.check_replay();
}

#[test]
fn the_network_is_opened_first_and_once() {
    let mut world = World::empty();
    assert_eq!(name(world.run(OpenAccount { account: account(1) })), "network_not_opened");
    let mut world = World::open(rate(1, 1, 0));
    let network = query::network(&world.state).unwrap().clone();
    assert_eq!(name(world.run(network)), "network_already_opened");
    let events = world.must(ChangeWriter { nonce: Hash32([1; 32]) });
    assert_eq!((events.len(), world.state.writer_epoch()), (1, 1));
}

#[test]
fn a_rate_card_leaves_the_platform_its_headroom() {
    let mut world = World::open(rate(1, 1, 0));
    let card = |share_ppm, headroom_ppm| RateCard {
        version: 2,
        effective_us: 10_000 * S,
        headroom_ppm,
        models: vec![rate(1, 1, share_ppm)],
    };
    let refusal = world.run(PublishRateCard { card: card(850_001, 150_000) }).unwrap_err();
    assert_eq!(refusal.name(), "headroom_too_small");
    assert!(refusal.to_string().contains("1000000 - headroom 150000 = 850000"), "{refusal}");
    let mut twice = card(0, 0);
    twice.models.push(rate(1, 1, 0));
    assert_eq!(name(world.run(PublishRateCard { card: twice })), "rate_invalid");
    let mut closed = card(0, 0);
    closed.models[0].licence = " ".into();
    assert_eq!(name(world.run(PublishRateCard { card: closed })), "rate_invalid");
    world.must(PublishRateCard { card: card(850_000, 150_000) });
}

#[test]
fn figures_beyond_128_bits_are_refused_not_wrapped() {
    let mut world = World::open(rate(10i128.pow(30), 1, 1_000_000));
    world.grant(1, ledger::accounts::LEG_MAX, None);
    let refused = |result: Result<_, Refusal>| result.map(|_: Vec<protocol::Event>| ()).unwrap_err().name();
    assert_eq!(refused(world.admit(1, 1, u64::MAX, 1)), "overflow");
    assert_eq!(refused(world.admit(1, 1, 50_000, 50_000)), "insufficient_credit");
    let mut given = 1;
    let grant = || IssueGrant {
        account: account(2),
        source: GrantSource::Promo,
        asset: FOIL,
        amount: Amount(ledger::accounts::LEG_MAX),
        priority: 30,
        scope: vec![],
        expires_us: None,
        backing: Backing::Unbacked,
    };
    let refusal = loop {
        match world.run(grant()) {
            Ok(_) => given += 1,
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((refusal.name(), given), ("overflow", 1_025));
}

/// `apply` trusts no log: an event that cannot have happened is an error, before or after decoding.
#[test]
fn an_edited_event_is_not_applied() {
    use ledger::{ApplyError, apply};
    let mut world = World::open(rate(10, 1, 800_000));
    world.grant(1, 10_000, None);
    let before = world.state.clone();
    let admission = world.admission(1, 1, 50, 50);
    let key = IdempotencyKey::internal("edit", &[]);
    let command =
        Command { key, actor: Actor::Admin, not_after_us: None, body: admission.into(), key_time_us: None };
    let Decision::New(events) = ledger::decide(&before, &command, world.now_us).unwrap() else { panic!() };
    let placed = events.iter().position(|event| matches!(event.body, EventBody::HoldPlaced(_))).unwrap();
    let edited = |edit: &dyn Fn(&mut protocol::Event)| {
        let mut state = before.clone();
        for (k, event) in events.iter().enumerate() {
            let mut event = event.clone();
            if k == placed {
                edit(&mut event);
            }
            apply(&mut state, &event)?;
        }
        Ok(())
    };
    assert_eq!(edited(&|_| ()), Ok(()));
    let unbalanced = edited(&|event| event.pending[0].amount.0 += 1).unwrap_err();
    assert_eq!(unbalanced, ApplyError::Unbalanced { asset: 0, sum: 1 });
    let unknown = edited(&|event| event.pending[0].account.0 = 99).unwrap_err();
    assert!(matches!(unknown, ApplyError::Unknown { .. }), "{unknown}");
    let overdrawn = edited(&|event| {
        event.pending[0].amount.0 += 10_000;
        event.pending[1].amount.0 -= 10_000;
    });
    assert!(matches!(overdrawn, Err(ApplyError::BelowFloor { available: -1_000, .. })), "{overdrawn:?}");
    let gap = edited(&|event| event.header.leaf += 1).unwrap_err();
    assert!(matches!(gap, ApplyError::WrongPlace { field: "leaf", .. }), "{gap}");
    let back = edited(&|event| event.header.time_us -= 1).unwrap_err();
    assert!(matches!(back, ApplyError::WrongPlace { field: "time_us", .. }), "{back}");
    let greedy = edited(&|event| {
        if let EventBody::HoldPlaced(placed) = &mut event.body {
            placed.amount.0 += 10_000;
            placed.slices[0].amount.0 += 10_000;
        }
    });
    assert!(matches!(greedy, Err(ApplyError::Impossible(_))), "{greedy:?}");
}
