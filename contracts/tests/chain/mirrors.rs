//! The chain's facts in a real ledger's books: reorganisations, several nodes, caps, packages.

use contracts::mirror::Mirror;
use contracts::{Anvil, AnvilOptions, ConfirmationPolicy, ConfirmationStep, Mining, PackageTerms, dev};
use ledger::query;
use protocol::asset::AssetId;
use protocol::event::EventBody;
use protocol::id::{AccountId, EvmAddress};

use crate::books::Books;
use crate::economies::with_economy;
use crate::proxy::{Fault, Proxy};
use crate::world::{World, anvil_options, start_anvil};

const K: u64 = 2;

async fn halted(mirror: &mut Mirror) -> Option<String> {
    mirror.look().await.expect("the chain answers");
    mirror.status().borrow().halted.clone()
}

#[tokio::test]
async fn a_deep_reorg_takes_unspent_deposits_back_and_goes_on() {
    let books = Books::open(K).await;
    let (mut mirror, world) = (books.mirror(K), &books.world);
    let account = books.link(&world.user, 8_000_000).await;
    world.fund(&world.user, 5_000_000).await;
    books.catch_up(&mut mirror).await;
    assert_eq!(books.available(account).await, 5_000_000);

    dev::reorg(&world.chain, K + 2, Some(world.guardian.address())).await.expect("reorganised");
    assert_eq!(halted(&mut mirror).await, None, "nothing was spent: the books follow the chain");
    assert_eq!(books.available(account).await, 0);
    books.assert_no_drift().await;

    let again = world.fund(&world.user, 1_000_000).await;
    let other = books.link(&world.other_user, 8_000_000).await;
    world.fund(&world.other_user, 2_000_000).await;
    books.catch_up(&mut mirror).await;
    assert_ne!(again, contracts::Hash32::ZERO);
    assert_eq!((books.available(account).await, books.available(other).await), (1_000_000, 2_000_000));
    books.assert_no_drift().await;
}

#[tokio::test]
async fn a_spent_deposit_that_vanishes_is_owed_and_stops_everything_until_a_person_looked() {
    let books = Books::open(K).await;
    let (mut mirror, world) = (books.mirror(K), &books.world);
    let account = books.link(&world.user, 8_000_000).await;
    let other = books.link(&world.other_user, 8_000_000).await;
    world.fund(&world.user, 5_000_000).await;
    books.catch_up(&mut mirror).await;
    books.serve(account, 1, 3_000).await;
    assert_eq!(books.available(account).await, 2_000_000);

    dev::reorg(&world.chain, K + 2, Some(world.guardian.address())).await.expect("reorganised");
    assert!(halted(&mut mirror).await.is_some(), "the alarm");
    assert_eq!((books.available(account).await, books.owed(account).await), (0, 3_000_000), "the shortfall");
    books.admit(account, 2, 10).await.expect_err("frozen while it owes");
    world.fund(&world.other_user, 2_000_000).await;
    books.catch_up(&mut mirror).await;
    assert_eq!(books.available(other).await, 0, "nothing is credited any more");
    let leaf = books.client.position().borrow().leaf;
    let mut restarted = books.mirror(K);
    assert!(halted(&mut restarted).await.is_some(), "also after a restart");
    assert_eq!(books.client.position().borrow().leaf, leaf, "and nothing is booked twice");

    let mut resumed = books.mirror(K).resume_after_reorg();
    assert_eq!(halted(&mut resumed).await, None);
    books.catch_up(&mut resumed).await;
    assert_eq!(books.available(other).await, 2_000_000);
    world.fund(&world.user, 4_000_000).await;
    books.catch_up(&mut resumed).await;
    assert_eq!((books.available(account).await, books.owed(account).await), (1_000_000, 0), "repaid first");
    books.assert_no_drift().await;
}

#[tokio::test]
async fn what_enough_nodes_say_is_booked_and_nothing_else() {
    let books = Books::open(0).await;
    let world = &books.world;
    let account = books.link(&world.user, 90_000_000).await;
    let proxies = [Proxy::start(world).await, Proxy::start(world).await, Proxy::start(world).await];
    let [first, second, third] = &proxies;
    let (own, witnesses) =
        (first.deployment(world).await, vec![second.deployment(world).await, third.deployment(world).await]);
    let mut mirror = books.mirror_through(own, 0).with_witnesses(witnesses, 2).expect("a majority");
    let mut expected = 0;
    for fault in [Fault::None, Fault::Gaps, Fault::OtherChain, Fault::Down] {
        // Whoever it is: our own node is no better than its witnesses.
        first.set(fault);
        world.fund(&world.user, 1_000_000).await;
        expected += 1_000_000;
        mirror.look().await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(books.available(account).await, expected, "{fault:?}");
    }
    second.set(Fault::Down);
    world.fund(&world.user, 1_000_000).await;
    assert_eq!(mirror.look().await.expect_err("one of three").code(), "chain_no_quorum");
    assert_eq!(books.available(account).await, expected);
    second.set(Fault::None);
    mirror.look().await.expect("two again");
    books.assert_no_drift().await;
}

#[tokio::test]
async fn a_chain_node_that_ends_and_comes_back_leaves_no_drift() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = anvil_options(Some(directory.path().join("chain.json")));
    let anvil = Anvil::start(&options).await.expect("started");
    let port = anvil.port();
    let mut books = Books::on(World::over(anvil, 1).await).await;
    let mut mirror = books.mirror(1);
    let account = books.link(&books.world.user, 8_000_000).await;
    books.world.fund(&books.world.user, 5_000_000).await;
    books.catch_up(&mut mirror).await;
    books.serve(account, 1, 1_000).await;
    let settlement = books.settlement().await;
    let ended = std::mem::replace(&mut books.world.anvil, start_anvil().await);
    ended.stop().await.expect("ended");
    assert!(mirror.look().await.expect_err("nobody answers").is_transient());
    assert!(settlement.settle_once().await.expect_err("nobody answers").is_transient());
    books.serve(account, 2, 500).await;
    assert_eq!(books.available(account).await, 3_500_000, "what is known stays spendable");
    books.world.anvil =
        Anvil::start(&AnvilOptions { port, mining: Mining::Instant, ..options }).await.expect("again");
    books.world.fund(&books.world.user, 1_000_000).await;
    books.catch_up(&mut mirror).await;
    let (_, done) = settlement.settle_once().await.expect("settled").expect("due");
    assert_eq!(done.total, 1_500_000);
    books.catch_up(&mut mirror).await;
    assert_eq!(books.available(account).await, 4_500_000);
    books.assert_no_drift().await;
}

#[tokio::test]
async fn a_large_deposit_is_spendable_after_its_own_depth() {
    let books = Books::open(1).await;
    let world = &books.world;
    let account = books.link(&world.user, 900_000_000).await;
    let steps = vec![ConfirmationStep { from_units: 100_000_000, confirmations: 6 }];
    let mut mirror = books.mirror(1).with_policy(ConfirmationPolicy::new(steps).expect("a policy"));
    world.fund(&world.user, 100_000_000).await;
    books.catch_up(&mut mirror).await;
    assert_eq!(books.available(account).await, 0);
    let pending: Vec<u64> = mirror.status().borrow().pending.iter().map(|pending| pending.needed).collect();
    assert_eq!(pending, [6]);
    world.mine(4).await;
    mirror.look().await.expect("the chain answers");
    assert_eq!(books.available(account).await, 100_000_000);
    books.assert_no_drift().await;
}

#[tokio::test]
async fn a_cap_that_was_raised_on_the_chain_counts_when_it_is_confirmed() {
    let books = Books::open(1).await;
    let (mut mirror, world) = (books.mirror(1), &books.world);
    let account = books.link(&world.user, 1_000_000).await;
    world.fund(&world.user, 5_000_000).await;
    books.catch_up(&mut mirror).await;
    assert_eq!(books.available(account).await, 1_000_000, "as far as the signature goes");
    world.authorise(&world.user, 4_000_000).await;
    mirror.look().await.expect("the chain answers");
    assert_eq!(books.available(account).await, 1_000_000, "not yet deep enough");
    books.catch_up(&mut mirror).await;
    assert_eq!(books.available(account).await, 4_000_000);
}

#[tokio::test]
async fn each_epoch_what_the_vault_holds_is_compared_with_what_it_owes_at_a_named_block() {
    let books = Books::open(1).await;
    let (mut mirror, world) = (books.mirror(1), &books.world);
    let account = books.link(&world.user, 8_000_000).await;
    world.fund(&world.user, 5_000_000).await;
    books.catch_up(&mut mirror).await;
    books.catch_up(&mut mirror).await;
    books.serve(account, 1, 1_000).await;
    books.settlement().await.settle_once().await.expect("settled").expect("due");
    books.catch_up(&mut mirror).await;
    dev::increase_time(&world.chain, 6 * 3_600).await.expect("the next epoch");
    books.catch_up(&mut mirror).await;
    // Somebody robs the vault: not by any function that it has.
    let balance_slot = {
        let mut words = [0; 64];
        words[12..32].copy_from_slice(&world.deployment.manifest().vault.0);
        contracts::Hash32::keccak(&words)
    };
    let robbed = contracts::Hash32([0; 32]);
    dev::set_storage(&world.chain, world.deployment.manifest().token, balance_slot, robbed)
        .await
        .expect("set");
    dev::increase_time(&world.chain, 6 * 3_600).await.expect("the epoch after");
    books.catch_up(&mut mirror).await;
    let mut checks = Vec::new();
    for event in books.events().await {
        if let EventBody::SolvencyChecked(check) = event {
            let block = world.deployment.holdings_at(check.block).await.expect("the block stands").block;
            assert_eq!(block.hash.0, check.block_hash.0);
            checks.push((check.held_units, check.owed_units));
        }
    }
    assert_eq!(checks.len(), 3, "once an epoch: {checks:?}");
    assert_eq!(checks[1..], [(4_000_000, 4_000_000), (0, 4_000_000)], "and a short vault is named");
}

#[tokio::test]
async fn a_bought_package_is_credit_of_the_buyers_address_once() {
    let world = World::new(0).await;
    let deployment = with_economy(&world).await;
    let books = Books::on(world).await;
    let (world, economy) = (&books.world, deployment.economy().expect("it has one"));
    let terms = PackageTerms { price_base_units: 20_000_000, units: 25_000_000, validity_s: 3_600 };
    economy.list_package(&world.guardian, 7, terms).await.expect("listed");
    economy.mint_dollars(&world.deployer, world.user.address(), 40_000_000).await.expect("minted");
    economy.approve_packages(&world.user, 40_000_000).await.expect("approved");
    let linked = books.link(&world.user, 1).await;
    for buyer in [&world.user, &world.other_user] {
        economy.buy_package(&world.user, 7, buyer.address(), 20_000_000).await.expect("bought");
    }
    let mut mirror = books.mirror_through(deployment.clone(), 0).with_packages(AssetId(0));
    mirror.look().await.expect("the chain answers");
    let unknown = AccountId::of_wallet(EvmAddress(world.other_user.address().0));
    assert_eq!((books.available(linked).await, books.available(unknown).await), (25_000_000, 25_000_000));
    std::fs::remove_file(books.data().join("watcher.json")).expect("the position");
    let mut anew = books.mirror_through(deployment.clone(), 0).with_packages(AssetId(0));
    anew.look().await.expect("the chain answers");
    assert_eq!(books.available(unknown).await, 25_000_000, "a scan from the beginning grants nothing twice");
    let grants = books.client.read(move |state| query::balance(state, unknown, 0)).await.expect("read");
    assert!(grants[0].grants[0].expires_us.is_some(), "valid as long as the contract says");
}
