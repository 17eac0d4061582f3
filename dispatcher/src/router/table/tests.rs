//! The table on virtual time: who is chosen, who is not, and the one reason why.

use super::*;

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
    let mut table = Table::default();
    for (n, slots) in nodes {
        table.register(spec(*n, *slots));
        assert!(table.heartbeat(&OperatorId([*n; 32]), &beat(*n, *slots), 0));
    }
    table
}

fn choose(table: &mut Table, draw: u64, now_us: u64) -> Result<NodeId, Reason> {
    table.choose(Pick { model: MODEL, tried: &[], draw }, now_us).map(|c| c.node)
}

#[test]
fn load_is_a_fraction_of_capacity() {
    let mut table = table(&[(1, 1), (2, 4)]);
    let mut got = [0u32; 3];
    for draw in 0..5 {
        got[choose(&mut table, draw * 77, 0).unwrap().0[0] as usize] += 1;
    }
    assert_eq!(got, [0, 1, 4], "both filled to the brim, neither twice while the other is emptier");
    assert_eq!(choose(&mut table, 1, 0), Err(Reason::Full));
    table.release(&node(2));
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
    assert_eq!(choose(&mut table, 0, 6 * S), Ok(node(1)), "the third may still come");
    table.release(&node(1));
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
    let mut table = Table::default();
    table.register(spec(1, 1));
    assert!(!table.heartbeat(&OperatorId([2; 32]), &beat(1, 1), 0));
    assert_eq!(table.why(&node(1), MODEL, 0), Reason::NeverSeen);
}

#[test]
fn a_parked_node_gets_one_probe() {
    let mut table = table(&[(1, 4)]);
    for _ in 0..3 {
        choose(&mut table, 0, 0).unwrap();
        table.release(&node(1));
        table.report(&node(1), Report::Bad, 0);
    }
    assert_eq!(choose(&mut table, 0, S), Err(Reason::Parked));
    for second in [6, 12, 15] {
        table.heartbeat(&OperatorId([1; 32]), &beat(1, 4), second * S);
    }
    assert_eq!(choose(&mut table, 0, 15 * S), Ok(node(1)));
    assert_eq!(choose(&mut table, 0, 15 * S), Err(Reason::Probing), "a single one");
    table.release(&node(1));
    table.report(&node(1), Report::Neutral, 15 * S);
    assert_eq!(choose(&mut table, 0, 15 * S), Ok(node(1)), "a cancel said nothing: probe again");
    table.report(&node(1), Report::Good, 16 * S);
    assert_eq!(table.why(&node(1), MODEL, 16 * S), Reason::Eligible);
}

#[test]
fn every_reason_has_its_turn() {
    let mut table = Table::default();
    let why = |table: &Table| table.why(&node(1), MODEL, 0);
    assert_eq!(why(&table), Reason::NotRegistered);
    table.register(NodeSpec { models: vec![], ..spec(1, 1) });
    assert_eq!(why(&table), Reason::NeverSeen);
    table.heartbeat(&OperatorId([1; 32]), &Heartbeat { draining: true, ..beat(1, 1) }, 0);
    assert_eq!(why(&table), Reason::Draining);
    table.heartbeat(&OperatorId([1; 32]), &Heartbeat { models: vec![], ..beat(1, 1) }, 0);
    assert_eq!(why(&table), Reason::ModelNotRegistered);
    table.register(spec(1, 1));
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
    let pick = Pick { model: MODEL, tried: &tried, draw: 5 };
    assert_eq!(table.choose(pick, 0).unwrap().node, node(2));
    assert_eq!(table.choose(Pick { tried: &[node(1), node(2)], ..pick }, 0), Err(Reason::Tried));
}

#[test]
fn the_smaller_of_declared_and_advertised_slots_counts() {
    let mut table = Table::default();
    table.register(spec(1, 8));
    table.heartbeat(&OperatorId([1; 32]), &beat(1, 1), 0);
    choose(&mut table, 0, 0).unwrap();
    assert_eq!(choose(&mut table, 0, 0), Err(Reason::Full));
}
