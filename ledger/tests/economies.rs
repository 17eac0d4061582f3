//! The promises of the economies beside deposits, each by its name. Every log that a test makes is replayed by the auditor,
//! who shares no code with the ledger.

mod world;

use ledger::command::*;
use ledger::economy::{allotment, bounties, conduct, views};
use ledger::{Refusal, query};
use proptest::prelude::*;
use protocol::amount::Amount;
use protocol::event::economy::*;
use protocol::event::grant::{Backing, GrantSource};
use protocol::event::job::UsageCaptured;
use protocol::event::node::NodeRegistered;
use protocol::event::{Event, EventBody, GrantId};
use protocol::id::*;
use world::*;

const DAY: u64 = 86_400 * S;
const HOUR: u64 = 3_600 * S;
/// One whole token or credit, base units.
const WHOLE: i128 = 1_000_000_000;

fn rules() -> EconomyPublished {
    EconomyPublished {
        version: 1,
        day_us: DAY,
        allotment: Some(AllotmentRules {
            asset: FOIL,
            stake_units_min: 100_000_000,
            per_token_max: Amount(WHOLE),
            pool_floor: Amount(WHOLE),
            pool_bound: Amount(4 * WHOLE),
            step_ppm: 100_000,
            revenue_ppm: 500_000,
            models: vec![],
            concurrency: 2,
            requests_per_minute: 30,
        }),
        sign_up: Some(SignUpRules {
            asset: FOIL,
            amount: Amount(100),
            budget: Amount(500),
            day_budget: Amount(200),
            life_us: 7 * DAY,
            models: vec![MODEL.into()],
        }),
        bounties: Some(BountyRules {
            asset: FOIL,
            budget: Amount(100),
            queue_ms_target: 500,
            fallback_ppm_target: 50_000,
            gain_ppm: 200_000,
            multiplier_ppm_max: 1_200_000,
            life_us: 6 * HOUR,
            tiers: vec![
                TrustTier { age_us: 0, health_ppm: 0, multiplier_ppm_max: 1_050_000 },
                TrustTier { age_us: 7 * DAY, health_ppm: 900_000, multiplier_ppm_max: 1_200_000 },
            ],
        }),
        conduct: Some(conduct_rules()),
        packages: Some(PackageRules {
            service_ppm_target: 990_000,
            first_token_ms_max: 2_000,
            credit_ppm: 100_000,
            credit_life_us: 30 * DAY,
            concurrency: 8,
        }),
    }
}

fn conduct_rules() -> ConductRules {
    ConductRules {
        window_days: 14,
        ramp_us: 7 * DAY,
        ramp_start_ppm: 100_000,
        uptime_success_us: HOUR,
        cut_ppm: 500_000,
        cut_us: 72 * HOUR,
        cut_steps: 72,
        strikes_max: 2,
        reserve_ppm: 200_000,
        reserve_days: 3,
    }
}

fn network() -> World {
    network_with(rules())
}

fn network_with(rules: EconomyPublished) -> World {
    let mut world = World::open(rate(10, 1, 800_000));
    world.must(rules);
    world
}

fn name<T: std::fmt::Debug>(result: Result<T, Refusal>) -> &'static str {
    result.expect_err("must be refused").name()
}

fn found<T>(events: &[Event], pick: impl Fn(&EventBody) -> Option<T>) -> Option<T> {
    events.iter().find_map(|event| pick(&event.body))
}

fn charge(events: &[Event]) -> UsageCaptured {
    let pick = |body: &EventBody| match body {
        EventBody::UsageCaptured(e) => Some(e.clone()),
        _ => None,
    };
    found(events, pick).expect("a charge")
}

fn bounty(events: &[Event]) -> Option<BountyPaid> {
    found(events, |body| match body {
        EventBody::BountyPaid(e) => Some(e.clone()),
        _ => None,
    })
}

fn package(world: &mut World, n: u8, amount: i128, expires_us: Option<u64>) -> GrantId {
    let events = world.must(IssueGrant {
        account: account(n),
        source: GrantSource::Package,
        asset: FOIL,
        amount: Amount(amount),
        priority: ledger::grants::PRIORITY_PACKAGE,
        scope: vec![],
        expires_us,
        backing: Backing::Package(u64::from(n)),
    });
    let pick = |body: &EventBody| match body {
        EventBody::GrantIssued(e) => Some(e.grant),
        _ => None,
    };
    found(&events, pick).expect("a bucket")
}

fn open_day(world: &mut World, day: u64, total: u64, reserve: u64) -> Result<AllotmentDayOpened, Refusal> {
    let (block_hash, stake_units_total, reserve_units) = (tx(3), total, reserve);
    let command = OpenAllotmentDay { day, block: 5, block_hash, stake_units_total, reserve_units };
    let events = world.run(command)?;
    let pick = |body: &EventBody| match body {
        EventBody::AllotmentDayOpened(e) => Some(e.clone()),
        _ => None,
    };
    Ok(found(&events, pick).expect("a day"))
}

fn stake(n: u8, tokens: u64) -> SeenStake {
    SeenStake { account: account(n), wallet: wallet(n), stake_units: tokens * 1_000_000 }
}

fn allot(world: &mut World, day: u64, stakes: &[SeenStake]) -> Result<i128, Refusal> {
    let events = world.run(AllotStakes { day, stakes: stakes.to_vec() })?;
    let parts = events.iter().filter_map(|event| match &event.body {
        EventBody::StakeAllotted(e) => Some(e.amount.0),
        _ => None,
    });
    Ok(parts.sum())
}

fn serve(world: &mut World, n: u8, id: u32, input: u64) -> Vec<Event> {
    world.admit(n, id, input, 10).expect("admitted");
    world.capture(id, input, 10).expect("charged")
}

proptest! {
    /// For a fixed stake, any split among any number of accounts gets at most what one account gets.
    #[test]
    fn splitting_is_never_profitable(
        pieces in prop::collection::vec(0u64..5_000_000_000, 1..12),
        others in 0u64..100_000_000_000,
        minimum in 0u64..1_000_000_000,
        pool in 0i128..1_000_000_000_000,
        per_token in 0i128..10_000_000_000,
    ) {
        let mut rules = rules().allotment.unwrap();
        (rules.stake_units_min, rules.per_token_max) = (minimum, Amount(per_token));
        let whole: u64 = pieces.iter().sum();
        let total = whole + others;
        let part = |stake| allotment::part(&rules, pool, total, stake).unwrap();
        let split: i128 = pieces.iter().map(|piece| part(*piece)).sum();
        prop_assert!(split <= part(whole), "{split} for {pieces:?}, {} for the whole", part(whole));
        let below: u64 = pieces.iter().filter(|piece| **piece < minimum).sum();
        let rest: i128 = pieces.iter().filter(|piece| **piece >= minimum).map(|piece| part(*piece)).sum();
        prop_assert_eq!(split, rest, "a piece below the minimum loses its {} whole", below);
    }

    /// Whatever the stakes, a day gives at most its pool, and the pool is at most bound and reserve.
    #[test]
    fn the_obligation_bound_holds(
        stakes in prop::collection::vec(1u64..5_000, 3),
        others in 0u64..5_000,
        reserve in 0u64..5_000_000,
    ) {
        let mut world = network();
        let total = (stakes.iter().sum::<u64>() + others) * 1_000_000;
        let day = open_day(&mut world, 0, total, reserve).unwrap();
        prop_assert!(day.pool.0 <= 4 * WHOLE && day.pool.0 <= i128::from(reserve) * UNIT);
        let stakes: Vec<SeenStake> = stakes.iter().zip(1u8..).map(|(tokens, n)| stake(n, *tokens)).collect();
        let given = allot(&mut world, 0, &stakes).unwrap();
        prop_assert!(given <= day.pool.0);
        let held: i128 = (1..=3).map(|n| world.total(n)).sum();
        prop_assert_eq!(held, given);
        world.check_replay();
    }

    /// The cut falls step by step from its whole to nothing at 72 hours, and never rises.
    #[test]
    fn the_payout_cut_is_nothing_after_72_hours(at in 0u64..72 * HOUR, later in 0u64..72 * HOUR) {
        let rules = conduct_rules();
        let (operator, node, model) = (operator(1), node(1), MODEL.to_owned());
        let cut = PayoutCutStarted { operator, node, model, cut_ppm: 500_000, until_us: 72 * HOUR };
        let of = |now_us| conduct::cut_ppm(&rules, &cut, now_us);
        prop_assert_eq!((of(0), of(72 * HOUR - 1), of(72 * HOUR), of(u64::MAX)), (500_000, 6_944, 0, 0));
        let (first, second) = (at.min(later), at.max(later));
        prop_assert!(of(first) >= of(second) && of(first) <= 500_000);
    }
}

/// What is left at the end of the day is breakage; nothing rolls over; a new day starts afresh.
#[test]
fn unused_allotment_lapses() {
    let mut world = network();
    let day = open_day(&mut world, 0, 300_000_000, 10_000_000).unwrap();
    assert_eq!(day.pool, Amount(WHOLE), "the first day has the floor");
    assert_eq!(allot(&mut world, 0, &[stake(1, 150), stake(2, 50)]).unwrap(), WHOLE / 2);
    assert_eq!((world.available(1), world.available(2)), (WHOLE / 2, 0), "50 is below the minimum of 100");
    let paid = charge(&serve(&mut world, 1, 2, 90));
    world.now_us = DAY;
    assert_eq!(world.available(1), 0, "over at midnight, whether or not its end is logged");
    let events = world.must(ExpireDue { events_max: 10 });
    let lapsed = found(&events, |body| match body {
        EventBody::GrantExpired(e) => Some(e.lapsed.0),
        _ => None,
    });
    assert_eq!(lapsed, Some(WHOLE / 2 - paid.cost.0));
    open_day(&mut world, 1, 300_000_000, 10_000_000).unwrap();
    let refused = allot(&mut world, 0, &[stake(1, 150)]);
    assert_eq!(name(refused), "allotment_day_wrong");
    world.check_replay();
}

/// The pool rises with usage by at most the step, contracts when revenue falls, and stays within bound and reserve.
#[test]
fn the_pool_follows_usage_and_revenue_within_its_bounds() {
    let mut world = network();
    package(&mut world, 1, 100 * WHOLE, None);
    let mut pools = Vec::new();
    let mut id = 0;
    for day in 0..30u64 {
        world.now_us = world.now_us.max(day * DAY + S);
        let opened = open_day(&mut world, day, 300_000_000, 3_000_000).unwrap();
        assert!(opened.pool.0 <= 3 * WHOLE, "the reserve of day {day}");
        pools.push(opened.pool.0);
        // Twice as many jobs each day of the first week, then none.
        for _ in 0..if day < 7 { 1 << day } else { 0 } {
            id += 1;
            serve(&mut world, 1, id, 90);
        }
        // A sale each day for two weeks.
        if day < 14 {
            package(&mut world, 2, 6 * WHOLE, None);
        }
    }
    for pair in pools.windows(2) {
        assert!(pair[1] <= pair[0] + pair[0] / 10, "a step of at most a tenth: {pair:?}");
    }
    let highest = pools.iter().max().unwrap();
    assert!(*highest > WHOLE * 3 / 2, "it rose with usage: {pools:?}");
    assert_eq!(*pools.last().unwrap(), 0, "no revenue for two weeks: nothing can be promised");
    let next = views::next_pool(&world.state, 3_000_000, world.now_us).unwrap();
    assert_eq!(next, Amount(0), "known before the day");
    world.check_replay();
}

/// Zero stake, one holder with everything, too much stake, one stake twice, a wallet of somebody else.
#[test]
fn stakes_at_the_edges() {
    let mut world = network();
    let none = open_day(&mut world, 0, 0, 10_000_000).unwrap();
    assert_eq!(none.pool, Amount(WHOLE));
    assert_eq!(name(allot(&mut world, 0, &[stake(1, 150)])), "stake_above_total");
    assert_eq!(name(open_day(&mut world, 0, 0, 1)), "allotment_day_wrong");
    assert_eq!(name(open_day(&mut world, 2, 0, 1)), "allotment_day_wrong");
    open_day(&mut world, 1, 5_000_000_000, 10_000_000).unwrap();
    assert_eq!(name(allot(&mut world, 1, &[stake(1, 5_000)])), "allotment_day_wrong");
    world.now_us = DAY + S;
    assert_eq!(allot(&mut world, 1, &[stake(1, 5_000)]).unwrap(), WHOLE, "all of the pool, none above it");
    assert_eq!(name(allot(&mut world, 1, &[stake(1, 5_000)])), "stake_twice");
    world.authorise(2, 1_000).unwrap();
    let foreign = SeenStake { account: account(3), ..stake(2, 0) };
    assert_eq!(name(allot(&mut world, 1, &[foreign])), "stake_of_another");
    world.check_replay();
}

/// Once an account, within the day and for ever; it ends, pays for its models only, and is never paid on a chain.
#[test]
fn the_sign_up_budget_holds() {
    let mut world = network();
    let sign_up = |world: &mut World, n: u8| world.run(GrantSignUp { account: account(n) });
    sign_up(&mut world, 1).unwrap();
    assert_eq!(name(sign_up(&mut world, 1)), "sign_up_twice");
    sign_up(&mut world, 2).unwrap();
    assert_eq!(name(sign_up(&mut world, 3)), "sign_up_exhausted");
    assert_eq!(views::sign_up_left(&world.state, world.now_us), Some((Amount(0), Amount(300))));
    let mut given = 200;
    for n in 10..60u8 {
        world.now_us += DAY / 8;
        world.must(OpenAccount { account: account(n) });
        given += if sign_up(&mut world, n).is_ok() { 100 } else { 0 };
    }
    assert_eq!(given, 500, "the whole budget and nothing beyond");
    let (_, left) = views::sign_up_left(&world.state, world.now_us).unwrap();
    assert_eq!(left, Amount(0), "exhaustion is public");
    let grants = query::balance(&world.state, account(1), 2 * S).remove(0).grants;
    assert_eq!((grants[0].backing, grants[0].scope.as_slice()), (Backing::Unbacked, &[MODEL.to_owned()][..]));
    world.check_replay();
}

/// With and without a bounty the consumer's cost is the same; the platform's share pays; nothing for unbacked credit,
/// allotments or the operator's own jobs; never beyond the budget; it goes back with its charge.
#[test]
fn a_bounty_is_never_charged_to_a_consumer() {
    let mut world = network();
    package(&mut world, 1, 10_000, None);
    let before = charge(&serve(&mut world, 1, 2, 90));
    let lack = |world: &mut World| {
        world.run(PublishBounty { model: MODEL.into(), queue_ms: 2_000, fallback_ppm: 0 }).unwrap()
    };
    lack(&mut world);
    let events = serve(&mut world, 1, 4, 90);
    let (with, paid) = (charge(&events), bounty(&events).expect("a bounty"));
    assert_eq!((with.cost, with.operator_share), (before.cost, before.operator_share));
    assert_eq!(
        (paid.multiplier_ppm, paid.amount),
        (1_050_000, Amount(40)),
        "trust of the first tier: 5 % of 800"
    );
    world.grant(2, 10_000, None);
    assert_eq!(bounty(&serve(&mut world, 2, 6, 90)), None, "nothing on unbacked credit");
    let own = AccountId(account(101).0);
    let to = own_package(&mut world, own);
    world.must(MoveCredit { from: GrantId(0), to, amount: Amount(2_000) });
    let admission = Admit { account: own, ..world.admission(1, 8, 90, 10) };
    world.run(admission).unwrap();
    assert_eq!(bounty(&world.capture(8, 90, 10).unwrap()), None, "nobody is paid for serving himself");
    serve(&mut world, 1, 10, 90);
    let last = bounty(&serve(&mut world, 1, 12, 90)).expect("what is left");
    assert_eq!(last.amount, Amount(20), "the budget is 100");
    assert_eq!(bounty(&serve(&mut world, 1, 14, 90)), None);
    let events = world.must(ReverseCapture { job: job(4) });
    assert!(found(&events, |body| matches!(body, EventBody::BountyTakenBack(_)).then_some(())).is_some());
    assert_eq!(views::bounties_paid(&world.state), Amount(60));
    world.check_replay();
}

fn own_package(world: &mut World, owner: AccountId) -> GrantId {
    let events = world.must(IssueGrant {
        account: owner,
        source: GrantSource::Package,
        asset: FOIL,
        amount: Amount(1),
        priority: 20,
        scope: vec![],
        expires_us: None,
        backing: Backing::Package(1),
    });
    found(&events, |body| match body {
        EventBody::GrantIssued(e) => Some(e.grant),
        _ => None,
    })
    .expect("a bucket")
}

/// Rules and cards that would let somebody gain by paying himself are refused, with the arithmetic.
#[test]
fn a_share_with_its_multiplier_stays_below_the_whole() {
    let mut world = World::open(rate(10, 1, 800_000));
    let mut greedy = rules();
    greedy.bounties.as_mut().unwrap().multiplier_ppm_max = 1_250_000;
    let refusal = world.run(greedy).unwrap_err();
    assert_eq!(refusal.name(), "economy_invalid");
    assert!(refusal.to_string().contains("800000 millionths with a multiplier of 1250000"), "{refusal}");
    world.must(rules());
    let dear = world.publish(2, world.now_us, rate(10, 1, 850_000));
    assert_eq!(name(dear), "economy_invalid");
    let mut odd = rules();
    (odd.version, odd.day_us) = (2, DAY + 1);
    assert_eq!(name(world.run(odd)), "economy_invalid");
    let lack = |queue_ms, fallback_ppm| {
        bounties::multiplier_ppm(rules().bounties.as_ref().unwrap(), queue_ms, fallback_ppm)
    };
    assert_eq!(
        [lack(500, 0), lack(750, 0), lack(0, 550_000), lack(u64::MAX, 0)],
        [1_000_000, 1_100_000, 1_100_000, 1_200_000]
    );
    world.check_replay();
}

fn node_of(n: u8, id: u8, models: &[&str]) -> NodeRegistered {
    let models = models.iter().map(|model| model.to_string()).collect();
    NodeRegistered {
        node: node(id),
        operator: operator(n),
        models,
        slots: 4,
        sealing_key: SealingKey([n; 32]),
    }
}

/// A switch cuts the operator's share, the platform has the rest, the consumer pays the same; a retired and newly
/// registered node is the same switch; the cut decays to nothing; a reversal undoes the share that was used.
#[test]
fn switching_models_cuts_the_share_and_decays() {
    let mut world = network();
    package(&mut world, 1, 100_000, None);
    let full = charge(&serve(&mut world, 1, 2, 90));
    world.must(node_of(1, 1, &["other", MODEL]));
    assert_eq!(charge(&serve(&mut world, 1, 4, 90)).operator_share, full.operator_share, "more is no switch");
    let events = world.must(node_of(1, 1, &[MODEL]));
    let cut = found(&events, |body| match body {
        EventBody::PayoutCutStarted(e) => Some(e.clone()),
        _ => None,
    });
    assert_eq!(cut.expect("a switch").model, "other");
    let half = charge(&serve(&mut world, 1, 6, 90));
    assert_eq!((half.cost, half.operator_share), (full.cost, Amount(full.operator_share.0 / 2)));
    world.now_us += 36 * HOUR;
    assert_eq!(charge(&serve(&mut world, 1, 8, 90)).operator_share, Amount(full.operator_share.0 * 3 / 4));
    world.must(ReverseCapture { job: job(8) });
    world.now_us += 36 * HOUR;
    assert_eq!(charge(&serve(&mut world, 1, 10, 90)).operator_share, full.operator_share);
    world.must(RetireNode { node: node(2) });
    let events = world.must(node_of(2, 9, &["other"]));
    assert!(found(&events, |body| matches!(body, EventBody::PayoutCutStarted(_)).then_some(())).is_some());
    world.check_replay();
}

/// The fallback's own rule: its jobs are charged alike, marked, and split by its share.
#[test]
fn fallback_is_paid_by_its_own_rule() {
    let mut world = network();
    package(&mut world, 1, 10_000, None);
    world.must(FallbackMarked { operator: operator(1), share_ppm: Some(0) });
    let events = serve(&mut world, 1, 2, 90);
    let paid = charge(&events);
    assert_eq!(
        (paid.cost, paid.operator_share, paid.platform_share),
        (Amount(1_000), Amount(0), Amount(1_000))
    );
    let marked = found(&events, |body| match body {
        EventBody::JobShareSet(e) => Some(e.reason),
        _ => None,
    });
    assert_eq!(marked, Some(ShareReason::Fallback));
    world.must(FallbackMarked { operator: operator(1), share_ppm: None });
    assert_eq!(charge(&serve(&mut world, 1, 4, 90)).operator_share, Amount(800));
    world.check_replay();
}

/// A failed verification costs what waits, twice ends it; what was earned lately cannot be taken before.
#[test]
fn who_fails_verification_loses_what_waits_and_is_banned() {
    let mut world = network();
    package(&mut world, 1, 100_000, None);
    for id in [2, 4, 6] {
        serve(&mut world, 1, id, 90);
    }
    let take = |amount| TakeEarnings {
        account: account(101),
        asset: FOIL,
        backing: Backing::Package(1),
        amount: Amount(amount),
    };
    assert_eq!(name(world.run(take(2_400))), "earnings_reserved");
    world.must(take(1_500));
    let strike = |world: &mut World, id| world.run(StrikeOperator { job: job(id) });
    assert_eq!(name(strike(&mut world, 2)), "strike_refused");
    world.must(ReverseCapture { job: job(2) });
    let events = strike(&mut world, 2).unwrap();
    let struck = found(&events, |body| match body {
        EventBody::OperatorStruck(e) => Some(e.clone()),
        _ => None,
    })
    .expect("a strike");
    assert_eq!((struck.strikes, struck.banned), (1, false));
    assert_eq!(struck.forfeited[0].amount, Amount(2_400 - 1_500 - 800));
    assert_eq!(name(strike(&mut world, 2)), "strike_refused");
    world.admit(1, 8, 90, 10).unwrap();
    world.must(ReverseCapture { job: job(4) });
    strike(&mut world, 4).unwrap();
    world.capture(8, 90, 10).expect("a job that runs is charged by its receipt");
    assert_eq!(name(world.admit(1, 10, 90, 10)), "operator_banned");
    let standing = views::standing(&world.state, &operator(1), world.now_us).unwrap();
    assert!(standing.banned && standing.strikes == 2 && standing.multiplier_ppm_max.is_none());
    world.check_replay();
}

/// The window, the ramp and uptime, by the operator's own arithmetic.
#[test]
fn health_ramp_and_uptime_follow_from_the_log() {
    let mut world = network();
    package(&mut world, 1, 100_000, None);
    serve(&mut world, 1, 2, 90);
    world.admit(1, 4, 90, 10).unwrap();
    world.must(Void { job: job(4), reason: protocol::event::hold::VoidReason::OperatorFault });
    world.admit(1, 6, 90, 10).unwrap();
    world.must(Void { job: job(6), reason: protocol::event::hold::VoidReason::ClientGone });
    let standing = |world: &World| views::standing(&world.state, &operator(1), world.now_us).unwrap();
    let now = standing(&world);
    assert_eq!((now.successes, now.failures, now.health_ppm, now.ramp_ppm), (1, 1, 500_000, 100_000));
    let online =
        UptimeNoted { operator: operator(1), online_us: 5 * HOUR, probes_passed: 2, probes_failed: 0 };
    world.must(online);
    assert_eq!(standing(&world).health_ppm, 888_888, "8 of 9");
    world.now_us += 7 * DAY / 2;
    assert_eq!(standing(&world).ramp_ppm, 550_000, "half of the way from a tenth to all");
    world.now_us += 14 * DAY;
    let later = standing(&world);
    assert_eq!((later.successes, later.failures, later.ramp_ppm), (0, 0, 1_000_000));
    world.check_replay();
}

/// A missed service level is credited once, by what the package paid that day; a package that ends while a job runs pays it.
#[test]
fn a_missed_service_level_is_credited_by_its_rule() {
    let mut world = network();
    let bucket = package(&mut world, 1, 100_000, Some(DAY + 30 * S));
    assert_eq!(views::entitlement(&world.state, account(1), world.now_us).unwrap().lane, "dedicated");
    serve(&mut world, 1, 2, 90);
    let measure = |requests_met| MeasureService { package: bucket, day: 0, requests: 100, requests_met };
    assert_eq!(name(world.run(measure(98))), "service_refused");
    world.now_us = DAY + S;
    world.admit(1, 4, 90, 10).unwrap();
    world.now_us = DAY + 31 * S;
    assert_eq!(
        charge(&world.capture(4, 90, 10).unwrap()).cost,
        Amount(1_000),
        "it ended mid-stream, and pays"
    );
    let events = world.must(measure(98));
    let credit = found(&events, |body| match body {
        EventBody::ServiceMeasured(e) => Some((e.spent.0, e.credit.0)),
        _ => None,
    });
    assert_eq!(credit, Some((1_000, 100)));
    assert_eq!(name(world.run(measure(98))), "service_refused");
    assert_eq!(world.available(1), 100);
    world.check_replay();
}

/// Workers of the included lane are paid from the day's reserve, whole units, epoch by epoch.
#[test]
fn the_treasury_pays_what_allotments_earned() {
    let mut world = network();
    assert_eq!(name(world.run(CloseTreasuryEpoch { batch: batch(1) })), "treasury_refused");
    open_day(&mut world, 0, 300_000_000, 10_000_000).unwrap();
    allot(&mut world, 0, &[stake(1, 150)]).unwrap();
    for id in [2, 3, 4] {
        serve(&mut world, 1, id, 90);
    }
    assert_eq!(views::treasury_waiting(&world.state, FOIL), Amount(2_400));
    let events = world.must(CloseTreasuryEpoch { batch: batch(1) });
    let closed = found(&events, |body| match body {
        EventBody::TreasuryEpochClosed(e) => Some(e.clone()),
        _ => None,
    })
    .expect("an epoch");
    let units: Vec<u64> = closed.payouts.iter().map(|payout| payout.added_units).collect();
    assert_eq!(units, [1], "1600 are one unit, 800 are none: they wait on");
    assert_eq!(views::treasury_waiting(&world.state, FOIL), Amount(1_400));
    let paid = |units| TreasuryEpochPaid { batch: batch(1), tx: tx(8), block: 9, units };
    assert_eq!(name(world.run(CloseTreasuryEpoch { batch: batch(2) })), "treasury_refused");
    assert_eq!(name(world.run(paid(2))), "treasury_refused");
    world.must(paid(1));
    world.check_replay();
}
