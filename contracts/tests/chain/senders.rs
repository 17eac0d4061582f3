//! Sending settlements: fees, crashes at every step, dropped transactions, many accounts, and a multisig instead of us.

use std::path::Path;

use contracts::{
    Address20, Charge, Hash32, Payout, Record, SafeBatch, SettlementPlan, Settler, SettlerOptions, dev,
};
use serde_json::Value;

use crate::world::World;

const PATIENT: SettlerOptions = SettlerOptions { stuck_after_ms: 60_000, give_up_after_ms: 60_000 };
const IMPATIENT: SettlerOptions = SettlerOptions { stuck_after_ms: 50, give_up_after_ms: 60_000 };

async fn settler_in(world: &World, directory: &Path, options: SettlerOptions) -> Settler {
    let opened = Settler::open(world.deployment.clone(), world.settler.clone(), directory, options).await;
    opened.expect("the settler's key")
}

async fn funded() -> World {
    let world = World::new(0).await;
    world.fund(&world.user, 10_000_000).await;
    world.authorise(&world.user, 8_000_000).await;
    world
}

fn plan(world: &World, epoch: u64, charged: u64) -> SettlementPlan {
    let records = vec![Record { account: world.user.address(), cumulative_units: charged }];
    let payouts = vec![Payout { operator: world.operator.address(), cumulative_units: charged }];
    SettlementPlan::new(epoch, records, payouts, Hash32([5; 32]), 1).expect("a plan")
}

fn stored(directory: &Path) -> Option<Value> {
    let text = std::fs::read_to_string(directory.join("settle-1.json")).ok()?;
    serde_json::from_str(&text).ok()
}

fn attempt_count(directory: &Path) -> usize {
    stored(directory).and_then(|file| file["attempts"].as_array().map(Vec::len)).unwrap_or(0)
}

async fn charged(world: &World) -> u64 {
    world.deployment.account(world.user.address()).await.expect("account").charged
}

/// Lets a settler run until `done` says so, then ends it where it stands: a crash.
async fn crash_when(world: &World, settler: &Settler, plan: &SettlementPlan, done: impl Fn() -> bool) {
    let watching = async {
        let mut tick = tokio::time::interval(world.chain.poll_interval());
        while !done() {
            tick.tick().await;
        }
    };
    tokio::select! {
        ended = settler.settle(plan) => panic!("it should not get there: {ended:?}"),
        () = watching => {}
    }
}

#[tokio::test]
async fn each_replacement_raises_both_fees_by_an_eighth() {
    let world = funded().await;
    dev::set_automine(&world.chain, false).await.expect("blocks stop");
    let directory = world.directory.path();
    let settler = settler_in(&world, directory, IMPATIENT).await;
    crash_when(&world, &settler, &plan(&world, 1, 3_000_000), || attempt_count(directory) >= 4).await;
    let file = stored(directory).expect("the file");
    let fees = |field: &str| -> Vec<u128> {
        let attempts = file["attempts"].as_array().expect("attempts");
        attempts
            .iter()
            .map(|attempt| u128::from(attempt["envelope"][field].as_u64().expect("a fee")))
            .collect()
    };
    for field in ["max_fee_per_gas", "max_priority_fee_per_gas"] {
        let fees = fees(field);
        for pair in fees.windows(2) {
            assert!(pair[1] * 1_000 >= pair[0] * 1_125, "{field}: {pair:?}");
            assert!(pair[1] * 1_000 <= pair[0] * 1_125 + 1_000, "{field}: no more than that: {pair:?}");
        }
    }
    let nonces: Vec<&Value> =
        file["attempts"].as_array().expect("some").iter().map(|a| &a["envelope"]["nonce"]).collect();
    assert!(nonces.windows(2).all(|pair| pair[0] == pair[1]), "replaced, not added: {nonces:?}");
}

#[tokio::test]
async fn a_crash_at_any_step_settles_exactly_once() {
    // Prepared; sent; replaced once; replaced twice. (Before and after mining: settlements.rs.)
    for steps in 0..4usize {
        let world = funded().await;
        dev::set_automine(&world.chain, false).await.expect("blocks stop");
        let directory = world.directory.path();
        let plan = plan(&world, 1, 3_000_000);
        if steps == 0 {
            settler_in(&world, directory, PATIENT).await.prepare(&plan).await.expect("on disk");
        } else {
            let options = if steps == 1 { PATIENT } else { IMPATIENT };
            let settler = settler_in(&world, directory, options).await;
            crash_when(&world, &settler, &plan, || attempt_count(directory) >= steps).await;
        }
        dev::set_automine(&world.chain, true).await.expect("blocks go on");
        dev::mine(&world.chain, 1).await.expect("mined");
        let resumed = settler_in(&world, directory, PATIENT).await.resume().await.expect("finished");
        assert_eq!(resumed.map(|done| done.total), Some(3_000_000), "after {steps} steps");
        assert_eq!(charged(&world).await, 3_000_000);
        assert_eq!(world.deployment.last_epoch().await.expect("epoch"), 1);
        assert_eq!(attempt_count(directory), 0, "nothing is left under way");
    }
}

#[tokio::test]
async fn a_transaction_that_the_pool_dropped_goes_out_again() {
    let world = funded().await;
    dev::set_automine(&world.chain, false).await.expect("blocks stop");
    let directory = world.directory.path().to_path_buf();
    let settler = settler_in(&world, &directory, IMPATIENT).await;
    let plan = plan(&world, 1, 3_000_000);
    let drop_first = async {
        let mut tick = tokio::time::interval(world.chain.poll_interval());
        while dev::waiting_count(&world.chain).await.expect("the pool") == 0 {
            tick.tick().await;
        }
        let first = stored(&directory).expect("stored before it was sent")["attempts"][0]["tx"].clone();
        let first: Hash32 = serde_json::from_value(first).expect("a hash");
        dev::drop_waiting(&world.chain, first).await.expect("dropped");
        dev::set_automine(&world.chain, true).await.expect("blocks go on");
        dev::mine(&world.chain, 1).await.expect("mined");
    };
    let (done, ()) = tokio::join!(settler.settle(&plan), drop_first);
    assert_eq!(done.expect("settled all the same").total, 3_000_000);
    assert_eq!(charged(&world).await, 3_000_000);
}

#[tokio::test]
async fn two_settlers_with_one_plan_settle_it_once_and_both_know() {
    let world = funded().await;
    let elsewhere = tempfile::TempDir::new().expect("a directory");
    let ours = settler_in(&world, world.directory.path(), IMPATIENT).await;
    let theirs = settler_in(&world, elsewhere.path(), IMPATIENT).await;
    let plan = plan(&world, 1, 3_000_000);
    ours.prepare(&plan).await.expect("on disk");
    theirs.prepare(&plan).await.expect("on disk");
    let (one, two) = tokio::join!(ours.send(1), theirs.send(1));
    let (one, two) = (one.expect("settled"), two.expect("settled"));
    assert_eq!((one.mined.tx, one.total), (two.mined.tx, two.total), "the same transaction");
    assert_eq!(charged(&world).await, 3_000_000);
}

/// Writes an account straight into the vault's storage: 2 500 deposits would take their time.
pub async fn put_account(world: &World, account: Address20, balance: u64) {
    let slot = {
        let mut words = [0; 64];
        words[12..32].copy_from_slice(&account.0);
        words[63] = 3;
        Hash32::keccak(&words)
    };
    let mut word = [0; 32];
    word[24..].copy_from_slice(&balance.to_be_bytes());
    word[8..16].copy_from_slice(&u64::MAX.to_be_bytes());
    word[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
    dev::set_storage(&world.chain, world.deployment.manifest().vault, slot, Hash32(word)).await.expect("set");
}

#[tokio::test]
async fn many_accounts_go_in_chunks_below_the_gas_limit_of_a_transaction() {
    let world = World::new(0).await;
    world.fund(&world.user, 10_000_000).await;
    let mut charges = Vec::new();
    for index in 0..2_100u64 {
        let mut account = [0xab; 20];
        account[..8].copy_from_slice(&index.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        put_account(&world, Address20(account), 1_000).await;
        let record = Record { account: Address20(account), cumulative_units: 100 };
        charges.push(Charge { record, debit_units: 100 });
    }
    let payouts = vec![Payout { operator: world.operator.address(), cumulative_units: 210_000 }];
    let plans = SettlementPlan::chunks(1, &charges, payouts, Hash32([5; 32])).expect("chunks");
    let sizes: Vec<(u64, usize, bool)> =
        plans.iter().map(|plan| (plan.epoch, plan.records.len(), plan.root == Hash32::ZERO)).collect();
    assert_eq!(sizes, [(1, 2_000, true), (2, 100, false)]);
    // What the accounts own stands in `liabilities` too (slot 5).
    let mut liabilities = [0; 32];
    liabilities[24..].copy_from_slice(&(10_000_000u64 + 2_100_000).to_be_bytes());
    let mut slot = [0; 32];
    slot[31] = 5;
    let vault = world.deployment.manifest().vault;
    dev::set_storage(&world.chain, vault, Hash32(slot), Hash32(liabilities)).await.expect("set");
    let settler = settler_in(&world, world.directory.path(), PATIENT).await;
    let mut gas = Vec::new();
    for plan in &plans {
        let done = settler.settle(plan).await.expect("settled");
        gas.push(done.mined.gas_used);
    }
    assert!(gas[0] < contracts::chain::TRANSACTION_GAS_MAX * 3 / 4, "{gas:?}: room for the margin");
    let pot = world.deployment.pot().await.expect("pot");
    assert_eq!(pot.funded, 210_000);
    let twice = [charges[0], charges[0]];
    assert!(SettlementPlan::chunks(1, &twice, vec![], Hash32::ZERO).is_err(), "each account once");
}

#[tokio::test]
async fn a_safe_that_executes_the_file_gives_the_state_of_our_own_transaction() {
    let (ours, multisig) = (funded().await, funded().await);
    let safe = Address20([0x5a; 20]);
    let (first, second) = (plan(&ours, 1, 3_000_000), plan(&ours, 2, 5_000_000));
    let settler = settler_in(&ours, ours.directory.path(), PATIENT).await;
    settler.settle(&first).await.expect("settled");
    settler.settle(&second).await.expect("settled");

    multisig.deployment.appoint_settler(&multisig.deployer, safe).await.expect("the Safe settles");
    let plans = [first.clone(), second.clone()];
    let manifest = multisig.deployment.manifest();
    let batch = SafeBatch { manifest, safe, plans: &plans, created_at_ms: 1_700_000_000_000 };
    let file = batch.to_json().expect("a file");
    assert_eq!(file, batch.to_json().expect("a file"), "the same bytes");
    assert_eq!((file["version"].as_str(), file["chainId"].as_str()), (Some("1.0"), Some("31337")));
    assert_eq!(file["meta"]["checksum"].as_str().map(str::len), Some(66));
    for transaction in file["transactions"].as_array().expect("transactions") {
        let to = transaction["to"].as_str().expect("text").parse().expect("an address");
        let data = transaction["data"].as_str().expect("text");
        let data = alloy::hex::decode(data).expect("hex");
        dev::send_as(&multisig.chain, safe, to, &data).await.expect("executed");
    }
    let user = ours.user.address();
    let here = ours.deployment.account(user).await.expect("account");
    let there = multisig.deployment.account(user).await.expect("account");
    assert_eq!((here.balance, here.charged, here.cap), (there.balance, there.charged, there.cap));
    assert_eq!(ours.deployment.pot().await.expect("pot"), multisig.deployment.pot().await.expect("pot"));
    for epoch in [1, 2] {
        let root = |found: Option<contracts::PayoutRoot>| found.map(|posted| posted.root);
        let one = root(ours.deployment.payout_root(epoch).await.expect("root"));
        assert_eq!(one, root(multisig.deployment.payout_root(epoch).await.expect("root")));
        assert!(one.is_some());
    }
    let unordered = [second, first];
    let batch = SafeBatch { manifest, safe, plans: &unordered, created_at_ms: 0 };
    assert_eq!(batch.to_json().expect_err("out of order").code(), "chain_bad_plan");
}
