//! The table on virtual time: who is chosen, who is not, and the one reason why.

use super::*;
use protocol::id::SealingKey;

const S: u64 = 1_000_000;
const MODEL: &str = "smol";

fn node(n: u8) -> NodeId {
    NodeId([n; 16])
}

fn spec(n: u8, slots: u32) -> NodeSpec {
    NodeSpec {
        node: node(n),
        operator: OperatorId([n; 32]),
        models: vec![MODEL.to_owned()],
        slots,
        sealing_key: SealingKey([n; 32]),
    }
}

fn beat(n: u8, slots: u32) -> Heartbeat {
    Heartbeat {
        protocol: 1,
        node: node(n),
        seq: 0,
        inflight: 0,
        slots,
        models: vec![MODEL.to_owned()],
        draining: false,
    }
}

fn table(nodes: &[(u8, u32)]) -> Table {
    let mut table = Table::new(TableOptions::open());
    for (n, slots) in nodes {
        table.register(spec(*n, *slots), 0);
        assert!(table.heartbeat(&OperatorId([*n; 32]), &beat(*n, *slots), 0));
    }
    table
}

const PICK: Pick<'static> = Pick { model: MODEL, tried: &[], lane: Lane::Prepaid, prefix: None, draw: 0 };

fn take(table: &mut Table, draw: u64, now_us: u64) -> Result<Chosen, Reason> {
    table.choose(Pick { draw, ..PICK }, now_us)
}

fn choose(table: &mut Table, draw: u64, now_us: u64) -> Result<NodeId, Reason> {
    take(table, draw, now_us).map(|c| c.node)
}

#[test]
fn load_is_a_fraction_of_capacity() {
    let mut table = table(&[(1, 1), (2, 4)]);
    let mut got = [0u32; 3];
    let mut last = None;
    for draw in 0..5 {
        let chosen = take(&mut table, draw * 77, 0).unwrap();
        got[chosen.node.0[0] as usize] += 1;
        last = last.or(Some(chosen).filter(|c| c.node == node(2)));
    }
    assert_eq!(got, [0, 1, 4], "both filled to the brim, neither twice while the other is emptier");
    assert_eq!(choose(&mut table, 1, 0), Err(Reason::Full));
    table.release(&last.unwrap(), 0);
    assert_eq!(choose(&mut table, 1, 0), Ok(node(2)));
}

#[test]
fn equals_share_by_chance() {
    let mut got = [0u32; 4];
    for draw in 0..3_000u64 {
        let mut table = table(&[(1, 2), (2, 2), (3, 2)]);
        got[choose(&mut table, next(draw), 0).unwrap().0[0] as usize] += 1;
    }
    assert!(got[1..].iter().all(|n| (900..1_100).contains(n)), "{got:?}");
}

#[test]
fn health_is_a_weight_and_not_an_order() {
    let mut got = [0u32; 3];
    for draw in 0..3_000u64 {
        let mut table = table(&[(1, 2), (2, 2)]);
        for _ in 0..9 {
            table.report(&node(1), Report::Good, 0);
        }
        table.report(&node(1), Report::Bad, 0);
        got[choose(&mut table, next(draw), 0).unwrap().0[0] as usize] += 1;
    }
    assert!(got[1] > 900 && got[1] < 1_500, "less than half, and far from nothing: {got:?}");
}

#[test]
fn three_missed_heartbeats_and_it_is_gone() {
    let mut table = table(&[(1, 1)]);
    let chosen = take(&mut table, 0, 6 * S).expect("the third may still come");
    table.release(&chosen, 6 * S);
    assert_eq!(choose(&mut table, 0, 7 * S), Err(Reason::HeartbeatMissed));
    assert!(!table.is_alive(&node(1), 7 * S));
    assert_eq!(table.online(7 * S), 0);
    table.heartbeat(&OperatorId([1; 32]), &beat(1, 1), 8 * S);
    assert_eq!(table.online(8 * S), 1);
    assert_eq!(choose(&mut table, 0, 8 * S), Ok(node(1)));
}

#[test]
fn a_worker_that_begins_anew_has_another_life() {
    let mut table = table(&[(1, 1)]);
    let operator = OperatorId([1; 32]);
    table.heartbeat(&operator, &Heartbeat { seq: 7, ..beat(1, 1) }, S);
    let life = table.life(&node(1));
    table.heartbeat(&operator, &Heartbeat { seq: 8, ..beat(1, 1) }, 2 * S);
    assert_eq!(table.life(&node(1)), life, "the same worker goes on");
    table.heartbeat(&operator, &Heartbeat { seq: 0, ..beat(1, 1) }, 3 * S);
    assert_ne!(table.life(&node(1)), life, "what it ran is lost");
}

#[test]
fn another_operators_heartbeat_does_not_count() {
    let mut table = Table::new(TableOptions::open());
    table.register(spec(1, 1), 0);
    assert!(!table.heartbeat(&OperatorId([2; 32]), &beat(1, 1), 0));
    assert_eq!(table.why(&node(1), MODEL, 0), Reason::NeverSeen);
}

#[test]
fn a_parked_node_gets_one_probe() {
    let mut table = table(&[(1, 4)]);
    for _ in 0..3 {
        let chosen = take(&mut table, 0, 0).unwrap();
        table.release(&chosen, 0);
        table.report(&node(1), Report::Bad, 0);
    }
    assert_eq!(choose(&mut table, 0, S), Err(Reason::Parked));
    for second in [6, 12, 15] {
        table.heartbeat(&OperatorId([1; 32]), &beat(1, 4), second * S);
    }
    let probe = take(&mut table, 0, 15 * S).unwrap();
    assert_eq!((probe.node, probe.rule), (node(1), Rule::Probe));
    assert_eq!(choose(&mut table, 0, 15 * S), Err(Reason::Probing), "a single one");
    table.release(&probe, 15 * S);
    table.report(&node(1), Report::Neutral, 15 * S);
    assert_eq!(choose(&mut table, 0, 15 * S), Ok(node(1)), "a cancel said nothing: probe again");
    table.report(&node(1), Report::Good, 16 * S);
    assert_eq!(table.why(&node(1), MODEL, 16 * S), Reason::Eligible);
}

#[test]
fn every_reason_has_its_turn() {
    let mut table = Table::new(TableOptions::open());
    let why = |table: &Table| table.why(&node(1), MODEL, 0);
    assert_eq!(why(&table), Reason::NotRegistered);
    table.register(NodeSpec { models: vec![], ..spec(1, 1) }, 0);
    assert_eq!(why(&table), Reason::NeverSeen);
    table.heartbeat(&OperatorId([1; 32]), &Heartbeat { draining: true, ..beat(1, 1) }, 0);
    assert_eq!(why(&table), Reason::Draining);
    table.heartbeat(&OperatorId([1; 32]), &Heartbeat { models: vec![], ..beat(1, 1) }, 0);
    assert_eq!(why(&table), Reason::ModelNotRegistered);
    table.register(spec(1, 1), 0);
    assert_eq!(why(&table), Reason::ModelNotLoaded);
    table.heartbeat(&OperatorId([1; 32]), &beat(1, 1), 0);
    assert_eq!(why(&table), Reason::Eligible);
    choose(&mut table, 0, 0).unwrap();
    assert_eq!(why(&table), Reason::Full);
    table.retire(&node(1));
    assert_eq!(why(&table), Reason::NotRegistered);
}

#[test]
fn tried_nodes_are_left_out() {
    let mut table = table(&[(1, 1), (2, 1)]);
    let tried = [node(1)];
    let pick = Pick { tried: &tried, draw: 5, ..PICK };
    assert_eq!(table.choose(pick, 0).unwrap().node, node(2));
    assert_eq!(table.choose(Pick { tried: &[node(1), node(2)], ..pick }, 0), Err(Reason::Tried));
}

#[test]
fn the_smaller_of_declared_and_advertised_slots_counts() {
    let mut table = Table::new(TableOptions::open());
    table.register(spec(1, 8), 0);
    table.heartbeat(&OperatorId([1; 32]), &beat(1, 1), 0);
    choose(&mut table, 0, 0).unwrap();
    assert_eq!(choose(&mut table, 0, 0), Err(Reason::Full));
}

const HOUR: u64 = 3_600 * S;
const DAY: u64 = 24 * HOUR;

fn with(options: TableOptions, nodes: &[(u8, u32)]) -> Table {
    let mut table = Table::new(options);
    for (n, slots) in nodes {
        table.register(spec(*n, *slots), 0);
        assert!(table.heartbeat(&OperatorId([*n; 32]), &beat(*n, *slots), 0));
    }
    table
}

fn beat_all(table: &mut Table, nodes: &[(u8, u32)], now_us: u64) {
    for (n, slots) in nodes {
        table.heartbeat(&OperatorId([*n; 32]), &beat(*n, *slots), now_us);
    }
}

/// How many jobs the table gives out before there is no slot.
fn fill(table: &mut Table, now_us: u64) -> usize {
    let chosen: Vec<Chosen> = std::iter::from_fn(|| take(table, 7, now_us).ok()).collect();
    chosen.iter().for_each(|c| table.release(c, now_us));
    chosen.len()
}

#[test]
fn a_newcomer_has_a_quarter_and_after_a_week_everything() {
    let options = TableOptions { ramp_start_ppm: ramp::RAMP_START_PPM, ..TableOptions::open() };
    let mut table = with(options, &[(1, 8)]);
    assert_eq!(fill(&mut table, 0), 2);
    beat_all(&mut table, &[(1, 8)], 84 * HOUR);
    assert_eq!(fill(&mut table, 84 * HOUR), 5);
    table.retire(&node(1));
    table.register(NodeSpec { operator: OperatorId([1; 32]), ..spec(9, 8) }, 84 * HOUR);
    table.heartbeat(&OperatorId([1; 32]), &beat(9, 8), 84 * HOUR);
    assert_eq!(fill(&mut table, 84 * HOUR), 5, "the week is the operator's, not the registration's");
    table.heartbeat(&OperatorId([1; 32]), &beat(9, 8), 7 * DAY);
    assert_eq!(fill(&mut table, 7 * DAY), 8);
}

#[test]
fn a_parked_node_does_not_come_back_under_another_name() {
    let mut table = table(&[(1, 4)]);
    (0..3).for_each(|_| table.report(&node(1), Report::Bad, S));
    table.retire(&node(1));
    table.register(NodeSpec { operator: OperatorId([1; 32]), ..spec(9, 4) }, 2 * S);
    table.heartbeat(&OperatorId([1; 32]), &beat(9, 4), 2 * S);
    assert_eq!(choose(&mut table, 0, 2 * S), Err(Reason::Parked));
}

#[test]
fn one_customer_cannot_park_a_node() {
    let mut table = table(&[(1, 4)]);
    let report = |table: &mut Table, customer: u8, at: u64| {
        table.report(&node(1), Report::BadFor(AccountId([customer; 16])), at);
    };
    (0..20).for_each(|second| report(&mut table, 1, second * S));
    assert_eq!(table.why(&node(1), MODEL, S), Reason::Eligible);
    report(&mut table, 2, 20 * S);
    beat_all(&mut table, &[(1, 4)], 21 * S);
    assert_eq!(table.why(&node(1), MODEL, 21 * S), Reason::Eligible, "two customers' strikes are two");
    report(&mut table, 3, 21 * S);
    assert_eq!(table.why(&node(1), MODEL, 21 * S), Reason::Parked);
}

#[test]
fn below_the_floor_others_go_first_and_a_probe_brings_it_back() {
    let mut table = table(&[(1, 4), (2, 1)]);
    for _ in 0..3 {
        table.note_pace(&node(1), 20, 10 * S, S);
    }
    assert_eq!(table.why(&node(1), MODEL, S), Reason::BelowFloor);
    let first = take(&mut table, 3, S).unwrap();
    assert_eq!(first.node, node(2));
    let second = take(&mut table, 3, S).unwrap();
    assert_eq!((second.node, second.rule), (node(1), Rule::LastResort), "slow is better than nobody");
    table.release(&first, S);
    table.release(&second, S);
    beat_all(&mut table, &[(1, 4), (2, 1)], 61 * S);
    let probe = (0..20).find_map(|draw| {
        let chosen = take(&mut table, draw * 991, 61 * S).unwrap();
        table.release(&chosen, 61 * S);
        (chosen.rule == Rule::Probe).then_some(chosen)
    });
    assert_eq!(probe.map(|c| c.node), Some(node(1)));
    assert_eq!(table.why(&node(1), MODEL, 61 * S), Reason::BelowFloor, "while the probe is out");
    table.note_pace(&node(1), 100, 10 * S, 71 * S);
    beat_all(&mut table, &[(1, 4), (2, 1)], 71 * S);
    assert_eq!(table.why(&node(1), MODEL, 71 * S), Reason::Eligible);
}

#[test]
fn the_networks_own_hardware_serves_only_when_nobody_else_can() {
    let fallback = [(OperatorId([2; 32]), Pool::Accelerator), (OperatorId([3; 32]), Pool::Processor)];
    let options = TableOptions { fallback: fallback.into(), ..TableOptions::open() };
    let mut table = with(options, &[(1, 1), (2, 1), (3, 1)]);
    let rules: Vec<Rule> = (0..3).map(|_| take(&mut table, 5, 0).unwrap().rule).collect();
    assert_eq!(rules, [Rule::LeastLoaded, Rule::FallbackAccelerator, Rule::FallbackProcessor]);
    assert_eq!(choose(&mut table, 5, 0), Err(Reason::Full), "it has a capacity too");
    assert_eq!(table.decisions().fallback_ppm(), 666_666);
    assert_eq!(table.decisions().refused[Reason::Full as usize], 1);
}

#[test]
fn what_is_reserved_is_never_lent() {
    let options = TableOptions { dedicated_reserve_ppm: 250_000, ..TableOptions::open() };
    let mut table = with(options, &[(1, 8)]);
    let taken: Vec<_> = std::iter::from_fn(|| take(&mut table, 1, 0).ok()).collect();
    assert_eq!(taken.len(), 6);
    assert_eq!(choose(&mut table, 1, 0), Err(Reason::Reserved));
    let dedicated = Pick { lane: Lane::Dedicated, ..PICK };
    let own: Vec<_> = (0..2).map(|_| table.choose(dedicated, 0).unwrap()).collect();
    assert_eq!(table.choose(dedicated, 0).map(|c| c.node), Err(Reason::Full));
    own.iter().for_each(|c| table.release(c, 0));
    assert_eq!(choose(&mut table, 1, 0), Err(Reason::Reserved), "it is kept again");
}

#[test]
fn a_warm_cache_decides_only_among_equals() {
    let warm = Pick { prefix: Some(7), ..PICK };
    let mut seen = [0; 3];
    for draw in 0..50u64 {
        let mut table = table(&[(1, 2), (2, 2)]);
        let first = table.choose(Pick { draw: next(draw), ..warm }, 0).unwrap();
        let second = table.choose(Pick { draw: next(draw), ..warm }, 0).unwrap();
        assert_ne!(first.node, second.node, "the other is less loaded");
        table.release(&first, 0);
        table.release(&second, 0);
        let third = table.choose(Pick { draw: next(draw * 3), ..warm }, 0).unwrap();
        assert_eq!((third.node, third.rule), (second.node, Rule::Affinity), "equal: where it was last");
        seen[third.node.0[0] as usize] += 1;
        let tried = [third.node];
        table.release(&third, 0);
        let other = table.choose(Pick { tried: &tried, ..warm }, 0).unwrap();
        assert_eq!(other.node, first.node);
    }
    assert!(seen[1] > 5 && seen[2] > 5, "{seen:?}");
}

#[test]
fn a_node_that_is_busy_below_its_word_is_given_what_it_takes() {
    let mut table = table(&[(1, 4)]);
    let chosen: Vec<_> = (0..3).map(|_| take(&mut table, 0, 0).unwrap()).collect();
    table.report(&node(1), Report::Busy, 0);
    table.release(&chosen[2], 0);
    assert_eq!(choose(&mut table, 0, 0), Err(Reason::Full), "it took two, so it can two");
    assert_eq!(table.standing(&node(1), 0).unwrap().capacity, 2);
    assert!(choose(&mut table, 0, S / 2).is_ok(), "one more every half second");
    assert_eq!(table.standing(&node(1), S).unwrap().capacity, 4);
}

#[test]
fn a_retired_nodes_jobs_may_still_be_given_back() {
    let mut table = table(&[(1, 2)]);
    let chosen = take(&mut table, 0, 0).unwrap();
    table.retire(&node(1));
    table.register(spec(2, 2), 0);
    table.heartbeat(&OperatorId([2; 32]), &beat(2, 2), 0);
    let other = take(&mut table, 0, 0).unwrap();
    table.release(&chosen, 0);
    assert_eq!(table.inflight(&other.node), 1, "its row is another's now, and untouched");
}

#[test]
fn standing_outlives_the_process() {
    let options = TableOptions { ramp_start_ppm: ramp::RAMP_START_PPM, ..TableOptions::open() };
    let mut before = with(options.clone(), &[(1, 8), (2, 8)]);
    (0..3).for_each(|_| before.report(&node(1), Report::Good, DAY));
    before.report(&node(1), Report::Bad, DAY);
    before.report(&node(2), Report::Refuted, DAY);
    let records = before.records();
    let written = serde_json::to_string(&records).unwrap();
    let mut after = Table::new(options);
    [1, 2].iter().for_each(|n| after.register(spec(*n, 8), 8 * DAY));
    after.restore(&serde_json::from_str::<Vec<OperatorRecord>>(&written).unwrap(), 8 * DAY);
    beat_all(&mut after, &[(1, 8), (2, 8)], 8 * DAY);
    let standing = after.standing(&node(1), 8 * DAY).unwrap();
    assert_eq!((standing.ramp_ppm, standing.since_us), (WEIGHT_ONE, Some(0)), "its week is over");
    assert_eq!(standing.good_ppm, before.standing(&node(1), 8 * DAY).unwrap().good_ppm);
    assert_eq!(after.why(&node(2), MODEL, 8 * DAY), Reason::Refuted);
    assert_eq!(after.records(), records);
}

mod against_a_scan {
    //! Any history: whoever is chosen is one that a look at every node would have chosen.

    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Register { n: u8, slots: u32 },
        Retire { n: u8 },
        Beat { n: u8, slots: u32, loaded: bool, draining: bool },
        Choose { draw: u64, tried: u8 },
        Release { which: usize },
        Report { n: u8, kind: u8 },
        Pace { n: u8, tokens: u64 },
        Wait { ms: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        let n = 1..9u8;
        prop_oneof![
            2 => (n.clone(), 1..6u32).prop_map(|(n, slots)| Step::Register { n, slots }),
            1 => n.clone().prop_map(|n| Step::Retire { n }),
            6 => (n.clone(), 0..6u32, 0..10u8, 0..10u8).prop_map(|(n, slots, loaded, draining)| {
                Step::Beat { n, slots, loaded: loaded > 0, draining: draining == 0 }
            }),
            10 => (any::<u64>(), 0..9u8).prop_map(|(draw, tried)| Step::Choose { draw, tried }),
            6 => any::<usize>().prop_map(|which| Step::Release { which }),
            4 => (n.clone(), 0..5u8).prop_map(|(n, kind)| Step::Report { n, kind }),
            2 => (n, 16..100u64).prop_map(|(n, tokens)| Step::Pace { n, tokens }),
            3 => prop_oneof![0..3_000u64, 0..90_000u64, 0..90_000_000u64].prop_map(|ms| Step::Wait { ms }),
        ]
    }

    /// The least loaded of those that may, found by looking at everybody.
    fn scan(table: &Table, tried: &[NodeId], now_us: u64) -> Vec<NodeId> {
        let may = |reason| move |id: &NodeId| table.why(id, MODEL, now_us) == reason && !tried.contains(id);
        let all = || (1..9).map(node);
        let eligible: Vec<NodeId> = all().filter(may(Reason::Eligible)).collect();
        let slow = all().filter(may(Reason::BelowFloor));
        let slow: Vec<NodeId> =
            slow.filter(|id| table.standing(id, now_us).is_some_and(|s| s.inflight < s.capacity)).collect();
        let candidates = if eligible.is_empty() { slow } else { eligible };
        let load = |id: &NodeId| {
            let standing = table.standing(id, now_us).expect("a candidate is registered");
            (u64::from(standing.inflight), u64::from(standing.capacity))
        };
        let least = candidates.iter().map(load).min_by(|a, b| (a.0 * b.1).cmp(&(b.0 * a.1)));
        let Some(least) = least else { return Vec::new() };
        candidates.into_iter().filter(|id| load(id).0 * least.1 == least.0 * load(id).1).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
        #[test]
        fn the_index_and_the_scan_agree(steps in proptest::collection::vec(step(), 1..200), ramp: bool) {
            let ramp_start_ppm = if ramp { ramp::RAMP_START_PPM } else { WEIGHT_ONE };
            let mut table = Table::new(TableOptions { ramp_start_ppm, ..TableOptions::open() });
            let (mut now, mut out) = (0, Vec::<Chosen>::new());
            for step in steps {
                match step {
                    Step::Register { n, slots } => table.register(spec(n, slots), now),
                    Step::Retire { n } => table.retire(&node(n)),
                    Step::Beat { n, slots, loaded, draining } => {
                        let models = if loaded { vec![MODEL.to_owned()] } else { Vec::new() };
                        let beat = Heartbeat { models, draining, ..beat(n, slots) };
                        table.heartbeat(&OperatorId([n; 32]), &beat, now);
                    }
                    Step::Choose { draw, tried } => {
                        let tried = [node(tried)];
                        let expected = scan(&table, &tried, now);
                        match table.choose(Pick { draw, tried: &tried, ..PICK }, now) {
                            Ok(chosen) => {
                                prop_assert!(expected.contains(&chosen.node), "{chosen:?} not of {expected:?}");
                                out.push(chosen);
                            }
                            Err(reason) => prop_assert!(expected.is_empty(), "{reason:?} with {expected:?}"),
                        }
                    }
                    Step::Release { which } if !out.is_empty() => {
                        let chosen = out.swap_remove(which % out.len());
                        table.release(&chosen, now);
                    }
                    Step::Release { .. } => {}
                    Step::Report { n, kind } => {
                        let reports =
                            [Report::Good, Report::Bad, Report::BadFor(AccountId([n; 16])), Report::Busy, Report::Neutral];
                        table.report(&node(n), reports[usize::from(kind)], now);
                    }
                    Step::Pace { n, tokens } => table.note_pace(&node(n), tokens, 10 * S, now),
                    Step::Wait { ms } => now += ms * 1_000,
                }
            }
        }
    }
}
