//! Deposits are handed on exactly once, when they are deep enough, and never after the chain has contradicted itself.

use contracts::{ChainFact, Watcher, WatcherState, dev};

use crate::world::{World, deposits};

fn restart(watcher: &Watcher) -> Watcher {
    let text = serde_json::to_string(watcher.state()).expect("a state has a JSON form");
    let state: WatcherState = serde_json::from_str(&text).expect("it reads its own form");
    assert_eq!(state, *watcher.state());
    Watcher::new(state)
}

#[tokio::test]
async fn a_deposit_counts_once_after_its_confirmations() {
    let world = World::new(2).await;
    let mut watcher = world.watcher();
    let tx = world.fund(&world.user, 5_000_000).await;

    for confirmations in 0..2 {
        let poll = world.poll(&mut watcher).await;
        assert_eq!(deposits(&poll.events), []);
        let waiting = &poll.pending_deposits[..];
        assert_eq!(waiting.len(), 1);
        assert_eq!((waiting[0].confirmations, waiting[0].needed), (confirmations, 2));
        watcher = restart(&watcher);
        world.mine(1).await;
    }

    let poll = world.poll(&mut watcher).await;
    assert_eq!(deposits(&poll.events), [(tx, 5_000_000)]);
    assert_eq!(poll.pending_deposits, []);
    let deposited = poll.events.last().expect("the deposit");
    assert_eq!(deposited.origin.key.ordinal, 1, "the token's Transfer is the receipt's first log");

    world.mine(3).await;
    assert_eq!(world.poll(&mut watcher).await.events, []);
    let mut restarted = restart(&watcher);
    assert_eq!(world.poll(&mut restarted).await.events, []);
    restarted.rescan_from(0);
    assert_eq!(world.poll(&mut restarted).await.events, [], "a scan that starts over yields nothing twice");

    let again = world.fund(&world.user, 1_000_000).await;
    world.mine(2).await;
    assert_eq!(deposits(&world.poll(&mut restarted).await.events), [(again, 1_000_000)]);
}

#[tokio::test]
async fn a_watcher_that_starts_from_nothing_sees_the_same_history_once() {
    let world = World::new(0).await;
    let first = world.fund(&world.user, 5_000_000).await;
    let second = world.fund(&world.other_user, 7_000_000).await;
    let mut watcher = world.watcher();
    let poll = world.poll(&mut watcher).await;
    assert_eq!(deposits(&poll.events), [(first, 5_000_000), (second, 7_000_000)]);
    assert!(poll.caught_up);
    assert_eq!(world.poll(&mut watcher).await.events, []);
}

#[tokio::test]
async fn two_deposits_of_one_block_have_ordinals_of_their_own_receipts() {
    let world = World::new(0).await;
    for user in [&world.user, &world.other_user] {
        dev::mint(&world.deployment, &world.deployer, user.address(), 5_000_000).await.expect("minted");
        world.deployment.approve(user, 5_000_000).await.expect("approved");
    }
    dev::set_automine(&world.chain, false).await.expect("blocks stop");
    let mine_both = async {
        while dev::waiting_count(&world.chain).await.expect("the pool") < 2 {
            tokio::time::sleep(world.chain.poll_interval()).await;
        }
        dev::mine(&world.chain, 1).await.expect("mined");
    };
    let (first, second, ()) = tokio::join!(
        world.deployment.deposit(&world.user, world.user.address(), 1_000_000),
        world.deployment.deposit(&world.other_user, world.other_user.address(), 2_000_000),
        mine_both,
    );
    assert_eq!(first.expect("deposited").block, second.expect("deposited").block);
    let events = world.poll(&mut world.watcher()).await.events;
    let ordinals: Vec<u32> = events
        .iter()
        .filter(|event| matches!(event.fact, ChainFact::Deposited { .. }))
        .map(|event| event.origin.key.ordinal)
        .collect();
    assert_eq!(ordinals, [1, 1], "behind the token's Transfer in each receipt, not in the block");
}

#[tokio::test]
async fn a_reorg_of_one_block_is_never_credited() {
    let world = World::new(2).await;
    let mut watcher = world.watcher();
    world.fund(&world.user, 5_000_000).await;
    assert_eq!(world.poll(&mut watcher).await.pending_deposits.len(), 1);

    dev::reorg(&world.chain, 1, Some(world.guardian.address())).await.expect("reorganised");
    let poll = world.poll(&mut watcher).await;
    assert_eq!(poll.pending_deposits, [], "the block that held it is gone");
    world.mine(5).await;
    let poll = world.poll(&mut watcher).await;
    assert_eq!(deposits(&poll.events), []);
    assert_eq!(poll.halt, None, "a reorg above the confirmed blocks is ordinary");
    assert_eq!(world.deployment.account(world.user.address()).await.expect("account").balance, 0);
}

#[tokio::test]
async fn a_reorg_deeper_than_the_confirmations_halts_for_good() {
    let world = World::new(2).await;
    let mut watcher = world.watcher();
    world.fund(&world.user, 5_000_000).await;
    world.mine(2).await;
    assert_eq!(deposits(&world.poll(&mut watcher).await.events).len(), 1);
    let stands = world.poll(&mut watcher).await.confirmed.expect("a confirmed block");

    dev::reorg(&world.chain, 4, Some(world.guardian.address())).await.expect("reorganised");
    let poll = world.poll(&mut watcher).await;
    let halt = poll.halt.expect("the confirmed block is replaced");
    assert_eq!(halt.replaced.hash, stands.hash);
    assert_ne!(halt.found, stands.hash);
    assert_eq!(poll.events, []);

    world.fund(&world.other_user, 1_000_000).await;
    world.mine(5).await;
    let poll = world.poll(&mut restart(&watcher)).await;
    assert_eq!(poll.halt, Some(halt), "also after a restart");
    assert_eq!(poll.events, []);

    watcher.accept_new_history(&[]);
    let poll = world.poll(&mut restart(&watcher)).await;
    assert_eq!(poll.halt, None);
    let units: Vec<u64> = deposits(&poll.events).into_iter().map(|(_, units)| units).collect();
    assert_eq!(units, [1_000_000], "only what is new; the first deposit is neither repeated nor there");
}

#[tokio::test]
async fn a_node_that_lags_behind_is_no_reorg() {
    let world = World::new(0).await;
    let mut watcher = world.watcher();
    world.mine(5).await;
    world.poll(&mut watcher).await;
    let mut state = serde_json::to_value(watcher.state()).expect("json");
    let ahead = state["next_block"].as_u64().expect("a number") + 10;
    state["next_block"] = (ahead + 1).into();
    let mark = state["remembered"][0].clone();
    state["remembered"] = serde_json::json!([{ "number": ahead, "hash": mark["hash"] }]);
    let mut ahead = Watcher::new(serde_json::from_value(state).expect("a state"));
    let error = ahead.poll(&world.deployment).await.expect_err("the node is behind");
    assert_eq!(error.code(), "chain_node_behind");
    assert!(error.is_transient());
    assert_eq!(ahead.state().halt, None);
}
