//! The network is gone: every process of ours is dead, and so is its broker. A node of the chain and a wallet are enough.

use network_tests::check::counterfoil;
use network_tests::network::root;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The first customer of the story: account 6 of the phrase that every development chain starts with.
const WALLET_KEY: &str = "92db14e403b83dfe3df233f83dfa3a0d7096f21ca9b0d6d6b8d88b2b4ec1564e";
const WALLET: &str = "0x976EA74026E726554dB657fA54763abd0C3a0aa9";
const ELSEWHERE: &str = "0x9999999999999999999999999999999999999999";

struct Chain {
    process: Child,
    rpc: String,
}

impl Drop for Chain {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn anvil() -> PathBuf {
    std::env::var_os("COUNTERFOIL_ANVIL").map_or_else(|| root().join(".tools/bin/anvil"), PathBuf::from)
}

/// Somebody's node of the chain, with the history that the network left.
fn somebody_s_node(state: &Path) -> Chain {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    drop(listener);
    let mut command = Command::new(anvil());
    command.args(["--silent", "--port", &port.to_string(), "--state"]).arg(state);
    let process = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("anvil starts");
    let chain = Chain { process, rpc: format!("http://127.0.0.1:{port}") };
    for _ in 0..300 {
        if rpc(&chain.rpc, "eth_chainId", json!([])).is_some() {
            return chain;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
    panic!("anvil does not answer")
}

fn rpc(url: &str, method: &str, params: Value) -> Option<Value> {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let mut answer = ureq::post(url).send_json(body).ok()?;
    Some(answer.body_mut().read_json::<Value>().ok()?["result"].clone())
}

/// The receipt, once the node has mined the transaction.
fn receipt(url: &str, transaction: &Value) -> Value {
    for _ in 0..200 {
        let receipt = rpc(url, "eth_getTransactionReceipt", json!([transaction])).expect("an answer");
        if !receipt.is_null() {
            return receipt;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
    panic!("{transaction} is not mined")
}

/// An address as the 32-byte word of a call.
fn word(address: &str) -> String {
    format!("{:0>64}", address.trim_start_matches("0x"))
}

/// Three whole tokens come into the vault while nobody of ours is there: minted, approved, deposited.
fn deposit_three(chain: &Chain, token: &str, vault: &str) {
    const DEPLOYER: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
    let three = format!("{:064x}", 3_000_000_000_000_000_000u128);
    for (from, to, selector, whom) in [
        (DEPLOYER, token, "0x40c10f19", WALLET),
        (WALLET, token, "0x095ea7b3", vault),
        (WALLET, vault, "0x47e7ef24", WALLET),
    ] {
        let call = json!([{ "from": from, "to": to, "data": format!("{selector}{}{three}", word(whom)) }]);
        let sent = rpc(&chain.rpc, "eth_sendTransaction", call).expect("sent");
        let receipt = receipt(&chain.rpc, &sent);
        assert_eq!(receipt["status"], "0x1", "{receipt}");
    }
}

#[test]
fn with_every_process_dead_the_money_comes_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let told =
        counterfoil(&["--json", "up", "--once", "--port", "0", "--data", data.to_str().expect("text")]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    let manifest = std::fs::read_to_string(data.join("chain/manifest.json")).expect("the manifest");
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    let vault = manifest["vault"].as_str().expect("an address");

    let chain = somebody_s_node(&data.join("chain/anvil.json"));
    let token = manifest["token"].as_str().expect("an address");
    deposit_three(&chain, token, vault);
    let key = dir.path().join("wallet.key");
    std::fs::write(&key, WALLET_KEY).expect("written");
    let exit = |verb: &str, more: &[&str]| {
        let key = key.to_str().expect("text");
        let place = ["--json", "exit", verb, "--rpc", &chain.rpc, "--vault", vault, "--key-file", key];
        let done = counterfoil(&[&place[..], more].concat());
        assert_eq!(done.code, 0, "{}", done.stderr);
        serde_json::from_str::<Value>(done.stdout.trim()).expect("JSON")
    };
    let before = exit("status", &[]);
    assert_eq!(before["account"], WALLET);
    let balance: f64 = before["balance"].as_str().expect("text").parse().expect("a decimal");
    assert!(balance >= 3.0, "{before}");
    let delay_s = exit("request", &[])["wait_s"].as_u64().expect("seconds");
    rpc(&chain.rpc, "evm_increaseTime", json!([delay_s + 1])).expect("later");
    rpc(&chain.rpc, "evm_mine", json!([])).expect("a block");
    assert_eq!(exit("status", &[])["stage"], "due");
    let paid = exit("finalize", &["--to", ELSEWHERE]);
    assert_eq!(paid["amount"], before["balance"]);
    let data = format!("0x70a08231{}", word(ELSEWHERE));
    let held =
        rpc(&chain.rpc, "eth_call", json!([{ "to": token, "data": data }, "latest"])).expect("an answer");
    let held = u128::from_str_radix(held.as_str().expect("hex").trim_start_matches("0x"), 16).expect("hex");
    let units: u128 = paid["amount"].as_str().expect("text").replace('.', "").parse().expect("a decimal");
    assert_eq!(held, units * 1_000_000_000_000, "to the last unit");
}
