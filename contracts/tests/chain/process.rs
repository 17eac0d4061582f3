//! The supervised development chain keeps its state and ends with its owner.

use contracts::{Anvil, AnvilOptions, Chain, Deployment, EvmKey, Mining, deploy, dev};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::world::{anvil_options, connect, deploy_options};

#[tokio::test]
async fn the_chain_survives_a_stop() {
    let directory = TempDir::new().expect("a directory");
    let options = anvil_options(Some(directory.path().join("chain.json")));
    let anvil = Anvil::start(&options).await.expect("started");
    let chain = connect(&anvil, 0).await;
    let manifest = deploy(&chain, &deploy_options()).await.expect("deployed");
    let deployment = Deployment::open(chain.clone(), manifest.clone()).await.expect("open");
    let key = EvmKey::development(0);
    dev::mint(&deployment, &key, key.address(), 1_000_000).await.expect("minted");
    dev::approve_and_deposit(&deployment, &key, key.address(), 1_000_000).await.expect("deposited");
    let head = chain.head().await.expect("head");
    anvil.stop().await.expect("stopped in order");

    let anvil = Anvil::start(&options).await.expect("started again");
    let chain = connect(&anvil, 0).await;
    assert_eq!(chain.block(head.number).await.expect("block"), Some(head), "the same history");
    let deployment = Deployment::open(chain, manifest).await.expect("the manifest still holds");
    assert_eq!(deployment.account(key.address()).await.expect("account").balance, 1_000_000);
}

#[tokio::test]
async fn blocks_come_by_themselves_when_told_so() {
    let options = AnvilOptions { mining: Mining::Mixed { block_time_s: 1 }, ..anvil_options(None) };
    let anvil = Anvil::start(&options).await.expect("started");
    let chain = connect(&anvil, 0).await;
    let before = chain.head().await.expect("head");
    deploy(&chain, &deploy_options()).await.expect("mined at once");
    let deployed = chain.head().await.expect("head");
    assert!(deployed.number >= before.number + 3);
    let later = chain.wait_past(deployed.number).await.expect("a block without a transaction");
    assert!(later.number > deployed.number);
}

#[tokio::test]
async fn a_busy_port_and_a_missing_program_are_named() {
    let anvil = Anvil::start(&anvil_options(None)).await.expect("started");
    let taken = AnvilOptions { port: anvil.port(), ..anvil_options(None) };
    let error = Anvil::start(&taken).await.expect_err("busy").to_string();
    assert!(error.contains(&anvil.port().to_string()) && error.contains("another port"), "{error}");
    let missing = AnvilOptions { program: "/no/such/anvil".into(), ..anvil_options(None) };
    assert_eq!(Anvil::start(&missing).await.expect_err("missing").code(), "chain_anvil");
}

#[tokio::test]
async fn a_dropped_chain_is_gone() {
    let anvil = Anvil::start(&anvil_options(None)).await.expect("started");
    let config = anvil.config(0, 5);
    drop(anvil);
    wait_until_gone(config).await;
}

/// Not a test: what the next one starts and kills.
#[tokio::test]
#[ignore = "started by another test"]
async fn owner_that_will_be_killed() {
    let anvil = Anvil::start(&anvil_options(None)).await.expect("started");
    println!("\nport {}", anvil.port());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_chain_ends_when_its_owner_is_killed() {
    let arguments = ["--ignored", "--exact", "process::owner_that_will_be_killed", "--nocapture"];
    let mut owner = tokio::process::Command::new(std::env::current_exe().expect("this program"));
    owner.args(arguments).stdout(std::process::Stdio::piped()).kill_on_drop(true);
    let mut owner = owner.spawn().expect("started");
    let mut lines = BufReader::new(owner.stdout.take().expect("piped")).lines();
    let port = loop {
        let line = lines.next_line().await.expect("readable").expect("it says its port");
        if let Some(port) = line.strip_prefix("port ") {
            break port.parse::<u16>().expect("a port");
        }
    };
    let rpc_url = format!("http://127.0.0.1:{port}");
    let config = contracts::ChainConfig { rpc_url, ..anvil_config() };
    Chain::connect(config.clone()).await.expect("it runs");
    owner.kill().await.expect("SIGKILL");
    wait_until_gone(config).await;
}

fn anvil_config() -> contracts::ChainConfig {
    let rpc_url = String::new();
    contracts::ChainConfig {
        rpc_url,
        chain_id: crate::world::CHAIN_ID,
        confirmations: 0,
        poll_interval_ms: 5,
    }
}

async fn wait_until_gone(config: contracts::ChainConfig) {
    let gone = async {
        while Chain::connect(config.clone()).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.expect("nobody answers any more");
}
