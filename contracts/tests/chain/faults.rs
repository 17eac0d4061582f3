//! Nodes that misbehave: nothing is lost, nothing counts twice, nothing false is believed.

use std::time::Duration;

use contracts::{
    Anvil, AnvilOptions, ConfirmationPolicy, ConfirmationStep, Deployment, Mining, QuorumReader, Watcher,
    WatcherState, deploy, dev,
};
use tempfile::TempDir;

use crate::proxy::{Fault, Proxy};
use crate::world::{World, anvil_options, connect, deploy_options, deposits};

#[tokio::test]
async fn a_node_that_drops_logs_is_caught_and_nothing_is_lost() {
    let world = World::new(1).await;
    let proxy = Proxy::start(&world).await;
    let through = proxy.deployment(&world).await;
    let mut watcher = world.watcher();
    watcher.poll(&through).await.expect("an honest answer");
    let tx = world.fund(&world.user, 5_000_000).await;
    world.mine(1).await;
    proxy.set(Fault::Gaps);
    let error = watcher.poll(&through).await.expect_err("the header names the vault");
    assert_eq!(error.code(), "chain_rpc", "{error}");
    assert!(error.is_transient() && error.to_string().contains("lacks events"), "{error}");
    proxy.set(Fault::None);
    assert_eq!(deposits(&watcher.poll(&through).await.expect("honest again").events), [(tx, 5_000_000)]);
}

#[tokio::test]
async fn answers_that_come_twice_backwards_or_late_count_once() {
    let world = World::new(1).await;
    let proxy = Proxy::start(&world).await;
    let through = proxy.deployment(&world).await;
    let mut watcher = world.watcher();
    let first = world.fund(&world.user, 5_000_000).await;
    world.mine(1).await;
    proxy.set(Fault::TwiceBackwards);
    let events = watcher.poll(&through).await.expect("an answer").events;
    assert_eq!(deposits(&events), [(first, 5_000_000)]);
    let ordinals: Vec<u32> = events.iter().map(|event| event.origin.key.ordinal).collect();
    assert_eq!(*ordinals.last().expect("the deposit"), 1, "behind the token's Transfer, as ever");
    let second = world.fund(&world.user, 6_000_000).await;
    world.mine(1).await;
    proxy.set(Fault::Late(Duration::from_millis(200)));
    assert_eq!(deposits(&watcher.poll(&through).await.expect("late").events), [(second, 6_000_000)]);
}

#[tokio::test]
async fn a_node_that_moves_to_another_chain_is_an_error_and_no_reorg() {
    let world = World::new(1).await;
    let proxy = Proxy::start(&world).await;
    let through = proxy.deployment(&world).await;
    let mut watcher = world.watcher();
    world.fund(&world.user, 5_000_000).await;
    world.mine(1).await;
    assert_eq!(deposits(&watcher.poll(&through).await.expect("honest").events).len(), 1);
    proxy.set(Fault::OtherChain);
    let error = watcher.poll(&through).await.expect_err("another chain's id");
    assert_eq!(error.code(), "chain_wrong_chain", "{error}");
    assert_eq!(watcher.state().halt, None, "other hashes of another chain are no reorg");
    proxy.set(Fault::None);
    assert_eq!(watcher.poll(&through).await.expect("back").halt, None);
}

#[tokio::test]
async fn two_of_three_nodes_are_enough_whatever_the_third_says() {
    let world = World::new(1).await;
    let proxies = [Proxy::start(&world).await, Proxy::start(&world).await, Proxy::start(&world).await];
    let mut nodes = Vec::new();
    for proxy in &proxies {
        nodes.push(proxy.deployment(&world).await);
    }
    let reader = QuorumReader::new(nodes, 2).expect("a majority");
    let mut watcher = world.watcher();
    let mut expected = 1_000_000;
    for fault in [Fault::None, Fault::Gaps, Fault::TwiceBackwards, Fault::OtherChain, Fault::Down] {
        proxies[1].set(fault);
        let tx = world.fund(&world.user, expected).await;
        world.mine(1).await;
        let poll = watcher.poll(&reader).await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(deposits(&poll.events), [(tx, expected)], "{fault:?}");
        expected += 1;
    }
    proxies[2].set(Fault::Gaps);
    world.fund(&world.user, expected).await;
    world.mine(1).await;
    let error = watcher.poll(&reader).await.expect_err("one honest node is no majority");
    assert_eq!(error.code(), "chain_no_quorum", "{error}");
    assert!(error.is_transient());
    proxies[1].set(Fault::None);
    assert_eq!(deposits(&watcher.poll(&reader).await.expect("two again").events).len(), 1);
}

#[tokio::test]
async fn a_killed_node_that_comes_back_is_followed_on() {
    let directory = TempDir::new().expect("a directory");
    let options = anvil_options(Some(directory.path().join("chain.json")));
    let anvil = Anvil::start(&options).await.expect("started");
    let chain = connect(&anvil, 0).await;
    let manifest = deploy(&chain, &deploy_options()).await.expect("deployed");
    let deployment = Deployment::open(chain.clone(), manifest.clone()).await.expect("open");
    let key = contracts::EvmKey::development(0);
    dev::mint(&deployment, &key, key.address(), 9_000_000).await.expect("minted");
    let before =
        dev::approve_and_deposit(&deployment, &key, key.address(), 1_000_000).await.expect("deposited");
    let mut watcher = Watcher::new(WatcherState::new(&manifest, 0));
    assert_eq!(deposits(&watcher.poll(&deployment).await.expect("answers").events), [(before.tx, 1_000_000)]);
    let port = anvil.port();
    anvil.stop().await.expect("ended");
    assert!(watcher.poll(&deployment).await.expect_err("nobody answers").is_transient());
    let again = AnvilOptions { port, mining: Mining::Instant, ..options };
    let _anvil = Anvil::start(&again).await.expect("started again");
    let after =
        dev::approve_and_deposit(&deployment, &key, key.address(), 2_000_000).await.expect("deposited");
    let poll = watcher.poll(&deployment).await.expect("answers again");
    assert_eq!((deposits(&poll.events), poll.halt), (vec![(after.tx, 2_000_000)], None));
}

#[tokio::test]
async fn reorgs_of_one_of_k_and_of_k_plus_two_blocks() {
    const K: u64 = 3;
    for (depth, halts) in [(1, false), (K, false), (K + 2, true)] {
        let world = World::new(K).await;
        let mut watcher = world.watcher();
        world.fund(&world.user, 5_000_000).await;
        world.mine(K).await;
        assert_eq!(deposits(&world.poll(&mut watcher).await.events).len(), 1);
        dev::reorg(&world.chain, depth, Some(world.guardian.address())).await.expect("reorganised");
        let poll = world.poll(&mut watcher).await;
        assert_eq!(poll.halt.is_some(), halts, "depth {depth} with {K} confirmations");
        assert_eq!(deposits(&poll.events), [], "depth {depth}: nothing twice");
        let held = world.deployment.account(world.user.address()).await.expect("account").balance;
        assert_eq!(held == 0, halts, "what counted is there unless we halted");
    }
}

#[tokio::test]
async fn a_large_deposit_waits_for_its_own_depth() {
    let world = World::new(1).await;
    let mut watcher = world.watcher();
    let steps = vec![ConfirmationStep { from_units: 100_000_000, confirmations: 8 }];
    watcher.set_policy(ConfirmationPolicy::new(steps).expect("a policy"));
    let large = world.fund(&world.user, 100_000_000).await;
    let small = world.fund(&world.other_user, 99_999_999).await;
    world.mine(1).await;
    let poll = world.poll(&mut watcher).await;
    assert_eq!(deposits(&poll.events), [(small, 99_999_999)]);
    assert_eq!(poll.pending_deposits.iter().map(|p| p.needed).collect::<Vec<u64>>(), [8]);
    world.mine(8).await;
    assert_eq!(deposits(&world.poll(&mut watcher).await.events), [(large, 100_000_000)]);
}
