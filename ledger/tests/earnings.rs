//! Earned credit, promise by promise: it is spendable, it keeps what backed the credit that was charged, and an undone
//! charge takes it back or is refused.

mod world;

use ledger::command::*;
use ledger::{Refusal, query};
use protocol::amount::Amount;
use protocol::event::account::AccountKind;
use protocol::event::grant::{Backing, GrantSource};
use protocol::event::{Event, EventBody, GrantId};
use world::*;

fn name<T: std::fmt::Debug>(result: Result<T, Refusal>) -> &'static str {
    result.expect_err("must be refused").name()
}

/// Operator `n` serves jobs whose number is `n + 1` modulo 2.
fn owner(n: u8) -> u8 {
    100 + n
}

fn take(n: u8, backing: Backing, amount: i128) -> TakeEarnings {
    TakeEarnings { account: account(owner(n)), asset: FOIL, backing, amount: Amount(amount) }
}

fn taken(events: &[Event]) -> GrantId {
    let found = events.iter().find_map(|event| match &event.body {
        EventBody::EarningsTaken(event) => Some(event.grant),
        _ => None,
    });
    found.expect("taken")
}

fn takeable(world: &World, n: u8) -> Vec<(Backing, i128)> {
    let earnings = &query::earnings(&world.state, operator(n))[0];
    let parts: Vec<_> = earnings.takeable.iter().map(|part| (part.backing, part.amount.0)).collect();
    assert_eq!(earnings.unbacked.0, parts.iter().map(|(_, amount)| amount).sum::<i128>());
    parts
}

fn credit(world: &mut World, of: u8, backing: Backing, amount: i128) {
    world.must(IssueGrant {
        account: account(of),
        source: GrantSource::Package,
        asset: FOIL,
        amount: Amount(amount),
        priority: 20,
        scope: vec![],
        expires_us: None,
        backing,
    });
}

/// Account 1 is charged 1 000 by operator 2, whose share is 800.
fn served() -> World {
    let mut world = World::open(rate(10, 1, 800_000));
    world.grant(1, 1_000, None);
    world.admit(1, 1, 50, 50).unwrap();
    world.capture(1, 50, 50).unwrap();
    world
}

#[test]
fn promotional_credit_stays_unbacked_however_often_it_is_earned() {
    let mut world = served();
    world.must(take(2, Backing::Unbacked, 800));
    assert_eq!((world.available(owner(2)), takeable(&world, 2)), (800, vec![]));
    world.admit(owner(2), 2, 40, 40).unwrap();
    world.capture(2, 40, 40).unwrap();
    assert_eq!(takeable(&world, 1), [(Backing::Unbacked, 640)], "the second operator earns of the same");
    let grant = taken(&world.must(take(1, Backing::Unbacked, 640)));
    let balance = &query::balance(&world.state, account(owner(1)), world.now_us)[0];
    let bucket = &balance.grants[0];
    assert_eq!((bucket.id, bucket.source, bucket.backing), (grant, GrantSource::Earned, Backing::Unbacked));
    assert_eq!((bucket.scope.len(), bucket.expires_us), (0, None));
    // Nothing of it is ever payable or withdrawable, also not by way of another bucket.
    let earnings = &query::earnings(&world.state, operator(1))[0];
    assert_eq!((earnings.accrued.0, earnings.settling.0, earnings.payable.0), (0, 0, 0));
    assert_eq!(name(world.close_batch(1)), "nothing_to_charge");
    world.authorise(owner(1), 1_000).unwrap();
    world.deposit(owner(1), 1, 0).unwrap();
    assert_eq!(query::withdrawable(&world.state, vault(), wallet(owner(1))), 1, "the deposit alone");
    assert_eq!(name(world.voucher(owner(1), 1, 2, 0)), "more_than_withdrawable");
    let deposit = query::wallet(&world.state, vault(), wallet(owner(1))).unwrap().bucket.unwrap();
    let out = MoveCredit { from: grant, to: deposit, amount: Amount(1) };
    assert_eq!(name(world.run(out)), "move_refused");
    world.check_replay();
}

#[test]
fn each_backing_has_its_own_bucket_which_is_filled_again() {
    let mut world = World::open(rate(10, 1, 800_000));
    let backings = [Backing::Unbacked, Backing::Treasury, Backing::Package(7), Backing::Package(1 << 40)];
    for backing in backings {
        credit(&mut world, 1, backing, 250);
    }
    world.admit(1, 1, 50, 50).unwrap();
    world.capture(1, 50, 50).unwrap();
    assert_eq!(takeable(&world, 2), backings.map(|backing| (backing, 200)));
    let mut buckets = Vec::new();
    for backing in backings {
        let first = world.must(take(2, backing, 150));
        assert!(first.iter().any(|event| matches!(&event.body, EventBody::GrantIssued(issued)
            if issued.amount.is_zero() && issued.backing == backing)));
        let second = world.must(take(2, backing, 50));
        assert_eq!((second.len(), taken(&second)), (1, taken(&first)), "the bucket is there");
        buckets.push(taken(&first));
    }
    buckets.dedup();
    assert_eq!((buckets.len(), world.available(owner(2))), (4, 800));
    let accrued = query::trial_balance(&world.state);
    let accrued = accrued.iter().filter(|line| line.kind == AccountKind::OperatorAccrued);
    assert_eq!(accrued.map(|line| line.credits_posted.0 - line.debits_posted.0).sum::<i128>(), 0);
    world.check_replay();
}

#[test]
fn what_a_vault_backs_or_what_is_not_there_is_not_taken() {
    let mut world = World::open(rate(1_000, 1, 500_000));
    world.authorise(1, 1_000).unwrap();
    world.deposit(1, 100, 0).unwrap();
    world.grant(1, 20_000, None);
    world.admit(1, 1, 30, 30).unwrap();
    world.capture(1, 20, 20).unwrap();
    assert_eq!(takeable(&world, 2), [(Backing::Unbacked, 10_000)], "the deposit's part is for the chain");
    assert_eq!(name(world.run(take(2, Backing::Vault(vault(), wallet(1)), 1))), "earnings_on_chain");
    let more = world.run(take(2, Backing::Unbacked, 10_001));
    let (asked, waiting) = (Amount(10_001), Amount(10_000));
    assert_eq!(more, Err(Refusal::MoreThanEarned { asked, waiting }));
    assert_eq!(name(world.run(take(2, Backing::Treasury, 1))), "more_than_earned");
    assert_eq!(name(world.run(take(1, Backing::Unbacked, 1))), "more_than_earned");
    assert_eq!(name(world.run(take(2, Backing::Unbacked, 0))), "units_zero");
    assert_eq!(name(world.run(take(9, Backing::Unbacked, 1))), "account_unknown");
    // Who owes takes nothing until it is repaid; who is closed never again.
    world.authorise(owner(2), 1_000).unwrap();
    world.deposit(owner(2), 5, 0).unwrap();
    world.admit(owner(2), 2, 1, 1).unwrap();
    world.capture(2, 1, 1).unwrap();
    let key = deposit(owner(2), 5, 0).key;
    world.must(ReverseDeposit { key });
    assert_eq!(name(world.run(take(2, Backing::Unbacked, 1))), "account_frozen");
    world.deposit(owner(2), 2, 1).unwrap();
    world.must(take(2, Backing::Unbacked, 4_000));
    world.must(CloseAccount { account: account(owner(1)) });
    assert_eq!(name(world.run(take(1, Backing::Unbacked, 1))), "account_closed");
    world.close_batch(1).unwrap();
    world.check_replay();
}

#[test]
fn what_an_exit_left_unpaid_is_taken_as_unbacked() {
    let mut world = World::open(rate(1_000, 1, 800_000));
    world.authorise(1, 1_000).unwrap();
    world.deposit(1, 100, 0).unwrap();
    world.admit(1, 1, 25, 25).unwrap();
    world.capture(1, 25, 25).unwrap();
    assert_eq!(takeable(&world, 2), []);
    world.must(protocol::event::chain::ExitRequested {
        vault: vault(),
        wallet: wallet(1),
        exit_at_s: 9,
        tx: tx(1),
    });
    world.must(SeeExitFinalised { vault: vault(), wallet: wallet(1), units: 100, tx: tx(2) });
    assert_eq!(takeable(&world, 2), [(Backing::Unbacked, 40 * UNIT)]);
    world.must(take(2, Backing::Unbacked, 40 * UNIT));
    world.admit(owner(2), 2, 20, 20).unwrap();
    world.capture(2, 20, 20).unwrap();
    assert_eq!(takeable(&world, 1), [(Backing::Unbacked, 32 * UNIT)]);
    assert_eq!(name(world.close_batch(1)), "nothing_to_charge");
    world.check_replay();
}

#[test]
fn an_undone_charge_takes_back_what_waits_then_what_is_free_and_never_what_is_spent() {
    let mut world = served();
    world.grant(1, 1_000, None);
    world.admit(1, 3, 25, 25).unwrap();
    world.capture(3, 25, 25).unwrap();
    world.must(take(2, Backing::Unbacked, 900));
    assert_eq!(takeable(&world, 2), [(Backing::Unbacked, 300)]);
    // 800 come back: 300 that wait and 500 of the bucket.
    world.must(ReverseCapture { job: job(1) });
    assert_eq!((takeable(&world, 2), world.available(owner(2)), world.available(1)), (vec![], 400, 1_500));
    // Held credit is not free.
    world.admit(owner(2), 2, 0, 1).unwrap();
    let (needed, available) = (Amount(400), Amount(390));
    let refused = world.run(ReverseCapture { job: job(3) });
    assert_eq!(refused, Err(Refusal::EarningsSpent { job: job(3), needed, available }));
    world.void(2).unwrap();
    world.must(ReverseCapture { job: job(3) });
    assert_eq!((world.available(owner(2)), world.available(1)), (0, 2_000));
    world.check_replay();
}

#[test]
fn an_operator_that_serves_itself_cannot_undo_what_only_the_refund_would_cover() {
    let mut world = served();
    world.must(take(2, Backing::Unbacked, 800));
    world.admit(owner(2), 3, 40, 40).unwrap();
    world.capture(3, 40, 40).unwrap();
    world.must(take(2, Backing::Unbacked, 640));
    world.admit(owner(2), 2, 0, 64).unwrap();
    assert_eq!(name(world.run(ReverseCapture { job: job(3) })), "earnings_spent", "before any refund");
    world.void(2).unwrap();
    world.must(ReverseCapture { job: job(3) });
    assert_eq!(world.available(owner(2)), 800);
    world.check_replay();
}
