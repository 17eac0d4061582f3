//! Stake, votes, treasury and packages: deployed, verified, and everything that happens on them told once.

use contracts::{
    BoundsProposal, ChainFact, Deployment, EconomyFact, EconomyOptions, Manifest, PackageTerms,
    ProposalState, Voice, Watcher, WatcherState, deploy_economy, dev,
};

use crate::world::World;

const WHOLE: u128 = 1_000_000_000_000_000_000;

pub async fn with_economy(world: &World) -> Deployment {
    let options = EconomyOptions {
        deployer: world.deployer.clone(),
        dollar: None,
        settler: world.settler.address(),
        publisher: world.guardian.address(),
        minimum_stake_base_units: 100 * WHOLE,
        unbond_delay_s: 86_400,
        voting_delay_s: 60,
        voting_period_s: 600,
        quorum_percent: 20,
        floor_units: 1_000_000,
        ceiling_units: 50_000_000,
    };
    let manifest = deploy_economy(&world.chain, world.deployment.manifest(), &options).await;
    let manifest = manifest.expect("the artefacts deploy");
    let path = world.directory.path().join("manifest.json");
    manifest.save(&path).expect("written");
    let read = Manifest::load(&path).expect("read");
    assert_eq!(read, manifest);
    Deployment::open(world.chain.clone(), read).await.expect("verified")
}

#[tokio::test]
async fn stake_sales_and_reserves_are_told_once_with_their_figures() {
    let world = World::new(0).await;
    let deployment = with_economy(&world).await;
    let economy = deployment.economy().expect("it has one");
    let (holder, small) = (&world.user, &world.other_user);
    for (who, whole) in [(holder, 150), (small, 50)] {
        dev::mint(&deployment, &world.deployer, who.address(), whole * 1_000_000).await.expect("minted");
        economy.approve_stake(who, u128::from(whole) * WHOLE).await.expect("approved");
        economy.stake_tokens(who, u128::from(whole) * WHOLE).await.expect("staked");
    }
    let staked_at = world.chain.head().await.expect("head");
    dev::increase_time(&world.chain, 10).await.expect("the second is over");
    economy.unbond(holder, 20 * WHOLE).await.expect("unbonding");

    let accounts = [holder.address(), small.address()];
    let stakes = economy.eligible_stakes(&accounts, staked_at).await.expect("stakes");
    assert_eq!(stakes.base_units, [150 * WHOLE, 0], "the small one is below the minimum");
    assert_eq!(stakes.total_base_units, 200 * WHOLE, "and counts in the total");
    assert_eq!(economy.past_votes(holder.address(), staked_at).await.expect("votes"), 150 * WHOLE);

    let terms = PackageTerms { price_base_units: 20_000_000, units: 25_000_000, validity_s: 3_600 };
    economy.list_package(&world.guardian, 7, terms).await.expect("listed");
    economy.mint_dollars(&world.deployer, holder.address(), 20_000_000).await.expect("minted");
    economy.approve_packages(holder, 20_000_000).await.expect("approved");
    economy.buy_package(holder, 7, small.address(), 20_000_000).await.expect("bought");
    assert_eq!(economy.treasury_free().await.expect("read"), 20_000_000, "sales fund the treasury");
    economy.open_day(&world.settler, 1, 15_000_000).await.expect("opened");
    let uncovered = economy.open_day(&world.settler, 2, 6_000_000).await.expect_err("only 5 are left");
    assert!(uncovered.to_string().contains("NotCovered"), "{uncovered}");

    let mut watcher = Watcher::new(WatcherState::new(deployment.manifest(), 0));
    let events = watcher.poll(&deployment).await.expect("the chain answers").events;
    let told: Vec<EconomyFact> = events
        .into_iter()
        .filter_map(|event| match event.fact {
            ChainFact::Economy(fact) => Some(fact),
            _ => None,
        })
        .collect();
    let count = |is: fn(&EconomyFact) -> bool| told.iter().filter(|fact| is(fact)).count();
    assert_eq!(count(|fact| matches!(fact, EconomyFact::Staked { .. })), 2);
    assert_eq!(count(|fact| matches!(fact, EconomyFact::VotesChanged { .. })), 3);
    let unbonding = |fact: &&EconomyFact| matches!(fact, EconomyFact::UnbondingStarted { total_base_units, .. } if *total_base_units == 130 * WHOLE);
    assert_eq!(told.iter().filter(unbonding).count(), 1, "{told:#?}");
    let day = EconomyFact::DayOpened { day: 1, pool_units: 15_000_000, free_units: 5_000_000 };
    assert!(told.contains(&day), "{told:#?}");
    let sold = |fact: &&EconomyFact| matches!(fact, EconomyFact::PackagePurchased { package: 7, account, payer, price_base_units: 20_000_000, units: 25_000_000, .. } if *account == small.address() && *payer == holder.address());
    assert_eq!(told.iter().filter(sold).count(), 1, "{told:#?}");
    assert_eq!(watcher.poll(&deployment).await.expect("the chain answers").events, [], "once");
    for fact in &told {
        let text = serde_json::to_string(fact).expect("json");
        assert_eq!(serde_json::from_str::<EconomyFact>(&text).expect("its own json"), *fact);
    }
}

#[tokio::test]
async fn stakers_change_the_published_bounds_by_a_vote_and_nobody_else_does() {
    let world = World::new(0).await;
    let deployment = with_economy(&world).await;
    let economy = deployment.economy().expect("it has one");
    for (who, whole) in [(&world.user, 150), (&world.other_user, 120)] {
        dev::mint(&deployment, &world.deployer, who.address(), whole * 1_000_000).await.expect("minted");
        economy.approve_stake(who, u128::from(whole) * WHOLE).await.expect("approved");
        economy.stake_tokens(who, u128::from(whole) * WHOLE).await.expect("staked");
    }
    dev::increase_time(&world.chain, 1).await.expect("the stakes' second is over");
    let description = "two thirds of the pool".to_owned();
    let proposal = BoundsProposal { floor_units: 2_000_000, ceiling_units: 40_000_000, description };
    economy.propose(&world.guardian, &proposal).await.expect_err("it has no stake");
    economy.propose(&world.user, &proposal).await.expect("proposed");
    let id = economy.proposal_id(&proposal).await.expect("an id");
    assert_eq!(economy.proposal_state(id).await.expect("read"), ProposalState::Pending);
    economy.vote(&world.user, id, Voice::For).await.expect_err("not begun");
    dev::increase_time(&world.chain, 61).await.expect("the snapshot is over");
    economy.vote(&world.user, id, Voice::For).await.expect("voted");
    economy.vote(&world.user, id, Voice::For).await.expect_err("once");
    economy.vote(&world.other_user, id, Voice::Against).await.expect("voted");
    economy.execute(&world.guardian, &proposal).await.expect_err("the vote runs");
    dev::increase_time(&world.chain, 601).await.expect("the vote is over");
    assert_eq!(economy.proposal_state(id).await.expect("read"), ProposalState::Succeeded);
    assert_eq!(economy.bounds().await.expect("bounds"), (1_000_000, 50_000_000));
    economy.execute(&world.guardian, &proposal).await.expect("anybody carries it out");
    assert_eq!(economy.bounds().await.expect("bounds"), (2_000_000, 40_000_000));
    let events = Watcher::new(WatcherState::new(deployment.manifest(), 0)).poll(&deployment).await;
    let events = events.expect("the chain answers").events;
    let changed = EconomyFact::BoundsChanged { floor_units: 2_000_000, ceiling_units: 40_000_000 };
    for fact in [EconomyFact::Executed { proposal: id }, changed] {
        let fact = ChainFact::Economy(fact);
        assert_eq!(events.iter().filter(|event| event.fact == fact).count(), 1, "{fact:?}");
    }
}

#[tokio::test]
async fn swapped_and_foreign_economies_are_refused() {
    let world = World::new(0).await;
    let deployment = with_economy(&world).await;
    let refused = |change: fn(&mut contracts::EconomyManifest)| {
        let mut manifest = deployment.manifest().clone();
        change(manifest.economy.as_mut().expect("it has one"));
        let chain = world.chain.clone();
        async move { manifest.verify(&chain).await.expect_err("a false manifest").code() }
    };
    assert_eq!(refused(|e| std::mem::swap(&mut e.stake, &mut e.packages)).await, "chain_foreign_code");
    assert_eq!(refused(|e| e.treasury.code.0[0] ^= 1).await, "chain_foreign_code");
    assert_eq!(refused(|e| std::mem::swap(&mut e.dollar, &mut e.packages)).await, "chain_foreign_code");
    let other = with_economy(&world).await.manifest().economy.expect("a second one");
    let mut mixed = deployment.manifest().clone();
    mixed.economy.as_mut().expect("it has one").treasury = other.treasury;
    let error = mixed.verify(&world.chain).await.expect_err("the parts are not each other's");
    assert_eq!(error.code(), "chain_wrong_wiring", "{error}");
}
