//! How fast deposits become spendable, measured on a real chain and log. The figures are printed; the bars are asserted
//! loosely, because other work may share the machine (BENCHMARKS.md has the figures of a quiet one).

use std::time::{Duration, Instant};

use contracts::mirror::Mirror;
use contracts::{Anvil, AnvilOptions, Chain, Deployment, Mining, dev};
use ledger::query;
use protocol::asset::VaultRef;
use protocol::event::account::SpendAuthorised;
use protocol::id::{AccountId, EvmAddress, Hash32};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::books::Books;
use crate::world::{World, anvil_options};

const DEPOSITS: usize = 1_000;
const UNITS: u64 = 1_000_000;
/// Pause between two looks, as `up` has it.
const POLL_MS: u64 = 200;
/// Beyond the bar of a second: for a machine with other work.
const LAG_MAX: Duration = Duration::from_secs(10);

async fn rpc(books: &Books, calls: &Value) -> Value {
    let client = contracts::http_client().no_proxy().build().expect("a client");
    let sent = client.post(books.world.anvil.rpc_url()).header("content-type", "application/json");
    let answer = sent.body(calls.to_string()).send().await.expect("sent").text().await.expect("text");
    serde_json::from_str(&answer).expect("JSON")
}

fn wallet(index: usize) -> EvmAddress {
    let mut wallet = [0xee; 20];
    wallet[..8].copy_from_slice(&(index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    EvmAddress(wallet)
}

async fn link_all(books: &Books) {
    for index in 0..DEPOSITS {
        let (wallet, account) = (wallet(index), AccountId::of_wallet(wallet(index)));
        books.must(ledger::command::OpenAccount { account }).await;
        let authorised = SpendAuthorised {
            account,
            vault: books.vault(),
            wallet,
            max_cumulative_units: u64::MAX / 2,
            valid_until_s: u32::MAX,
            nonce: 0,
            session: Hash32([9; 32]),
            signature: None,
        };
        books.must(authorised).await;
    }
}

/// A thousand deposits for a thousand accounts, waiting in the pool for one block.
async fn send_all(books: &Books) {
    let world = &books.world;
    let total = UNITS * DEPOSITS as u64;
    dev::mint(&world.deployment, &world.deployer, world.user.address(), total).await.expect("minted");
    world.deployment.approve(&world.user, total).await.expect("approved");
    let limit =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "evm_setBlockGasLimit", "params": ["0x3b9aca00"] });
    rpc(books, &limit).await;
    dev::mine(&world.chain, 1).await.expect("a block with the new limit");
    dev::set_automine(&world.chain, false).await.expect("blocks stop");
    let asked = json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_getTransactionCount",
        "params": [world.user.address(), "latest"] });
    let nonce = rpc(books, &asked).await["result"].as_str().expect("hex").to_owned();
    let nonce = u64::from_str_radix(nonce.trim_start_matches("0x"), 16).expect("a nonce");
    let call = |index: usize| {
        let base_units = u128::from(UNITS) * 1_000_000_000_000;
        let account: String = wallet(index).0.iter().map(|byte| format!("{byte:02x}")).collect();
        json!({ "jsonrpc": "2.0", "id": index, "method": "eth_sendTransaction", "params": [{
            "from": world.user.address(), "to": world.deployment.manifest().vault, "gas": "0x30d40",
            "nonce": format!("0x{:x}", nonce + index as u64),
            "data": format!("0x47e7ef24{account:0>64}{base_units:064x}") }] })
    };
    for start in (0..DEPOSITS).step_by(100) {
        let calls: Vec<Value> = (start..start + 100).map(call).collect();
        let answers = rpc(books, &Value::Array(calls)).await;
        for answer in answers.as_array().expect("a batch of answers") {
            assert!(answer["error"].is_null(), "{answer}");
        }
    }
}

/// A mirror that looks as often as `up`'s does.
async fn mirror(books: &Books, confirmations: u64) -> Mirror {
    let chain =
        Chain::connect(books.world.anvil.config(confirmations, POLL_MS)).await.expect("anvil answers");
    let manifest = books.world.deployment.manifest().clone();
    books.mirror_through(Deployment::open(chain, manifest).await.expect("the same contracts"), confirmations)
}

async fn spendable_count(books: &Books, vault: VaultRef) -> usize {
    let read = books.client.read(move |state| {
        let spendable = |wallet: &query::WalletView| wallet.deposited_units > 0 && wallet.account.is_some();
        query::wallets(state, vault).iter().filter(|wallet| spendable(wallet)).count()
    });
    read.await.expect("read")
}

#[tokio::test]
async fn a_thousand_deposits_in_one_block_are_spendable_within_a_second() {
    let books = Books::open(1).await;
    link_all(&books).await;
    books.catch_up(&mut books.mirror(1)).await;
    send_all(&books).await;
    let (stop, stopped) = watch::channel(false);
    let following = tokio::spawn(mirror(&books, 1).await.run(stopped));
    // The block with all of them, then the one that makes it deep enough: the clock starts when that is there.
    dev::mine(&books.world.chain, 1).await.expect("all at once");
    let head = dev::mine(&books.world.chain, 1).await.expect("and one above");
    let started = Instant::now();
    let mut position = books.client.position();
    let all = async {
        loop {
            position.borrow_and_update();
            if spendable_count(&books, books.vault()).await == DEPOSITS {
                return started.elapsed();
            }
            position.changed().await.expect("the log goes on");
        }
    };
    let lag = tokio::time::timeout(LAG_MAX, all).await.expect("in time");
    println!("chain.deposits_1000.lag_ms {} (bar 1000), block {}", lag.as_millis(), head.number - 1);
    stop.send_replace(true);
    following.await.expect("it ended");
    books.assert_no_drift().await;
}

#[tokio::test]
async fn a_deposit_is_spendable_a_second_after_its_confirmations_at_most() {
    const BLOCK_S: u64 = 1;
    const CONFIRMATIONS: u64 = 2;
    let options = AnvilOptions { mining: Mining::Mixed { block_time_s: BLOCK_S }, ..anvil_options(None) };
    let anvil = Anvil::start(&options).await.expect("started");
    let books = Books::on(World::over(anvil, CONFIRMATIONS).await).await;
    let account = books.link(&books.world.user, 90_000_000).await;
    let (stop, stopped) = watch::channel(false);
    let following = tokio::spawn(mirror(&books, CONFIRMATIONS).await.run(stopped));
    let mut waits = Vec::new();
    for round in 1..=5i128 {
        books.world.fund(&books.world.user, UNITS).await;
        let mined = Instant::now();
        let mut position = books.client.position();
        loop {
            position.borrow_and_update();
            if books.available(account).await == round * i128::from(UNITS) {
                break;
            }
            position.changed().await.expect("the log goes on");
        }
        waits.push(mined.elapsed());
    }
    waits.sort_unstable();
    let bar = Duration::from_secs(CONFIRMATIONS * BLOCK_S + 1);
    println!(
        "chain.deposit_to_spendable_ms {:?}, bar {}",
        waits.iter().map(Duration::as_millis).collect::<Vec<_>>(),
        bar.as_millis()
    );
    assert!(waits[waits.len() / 2] <= bar, "{waits:?}");
    stop.send_replace(true);
    following.await.expect("it ended");
}
