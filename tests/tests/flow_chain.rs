//! Contracts by one command, their manifest, and what is refused about it.

use network_tests::check::counterfoil;
use network_tests::network::root;
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Account 0 of the phrase that every development chain starts with.
const DEPLOYER_KEY: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

struct Anvil(Child);

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A fresh chain, and its address once it answers.
fn anvil() -> (Anvil, String) {
    let program =
        std::env::var_os("COUNTERFOIL_ANVIL").map_or_else(|| root().join(".tools/bin/anvil"), PathBuf::from);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    drop(listener);
    let mut command = Command::new(program);
    command.args(["--silent", "--port", &port.to_string()]);
    let anvil = Anvil(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("anvil starts"));
    let url = format!("http://127.0.0.1:{port}");
    for _ in 0..300 {
        let asked = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": [] });
        if ureq::post(&url).send_json(asked).is_ok() {
            return (anvil, url);
        }
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
    panic!("anvil does not answer")
}

#[test]
fn contracts_are_deployed_by_one_command_and_a_false_manifest_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_chain, rpc) = anvil();
    let (key, manifest) = (dir.path().join("deployer.key"), dir.path().join("manifest.json"));
    std::fs::write(&key, DEPLOYER_KEY).expect("written");
    let path = |path: &std::path::Path| path.to_str().expect("text").to_owned();
    let (key_file, out) = (path(&key), path(&manifest));
    let deploy = [
        "--json",
        "chain",
        "deploy",
        "--rpc",
        &rpc,
        "--key-file",
        &key_file,
        "--coordinator",
        "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
        "--settler",
        "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
        "--guardian",
        "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
        "--stake",
        "--out",
        &out,
    ];
    let told = counterfoil(&deploy);
    assert_eq!(told.code, 0, "{}", told.stderr);
    let written: Value =
        serde_json::from_str(&std::fs::read_to_string(&manifest).expect("written")).expect("JSON");
    assert_eq!(serde_json::from_str::<Value>(told.stdout.trim()).expect("JSON"), written);
    assert!(written["economy"]["governor"]["address"].is_string(), "{written}");
    assert_ne!(counterfoil(&deploy).code, 0, "a network is deployed once");

    let verify = |manifest: &std::path::Path, rpc: &str| {
        counterfoil(&["chain", "verify", "--rpc", rpc, "--manifest", &path(manifest)])
    };
    let verified = verify(&manifest, &rpc);
    assert_eq!(verified.code, 0, "{}", verified.stderr);
    let mut swapped = written.clone();
    (swapped["vault"], swapped["payouts"]) = (written["payouts"].clone(), written["vault"].clone());
    let mut slower = written.clone();
    slower["exit_delay_s"] = 30.into();
    for (name, lie) in [("swapped", swapped), ("slower", slower)] {
        let file = dir.path().join(format!("{name}.json"));
        std::fs::write(&file, lie.to_string()).expect("written");
        let refused = verify(&file, &rpc);
        assert_ne!(refused.code, 0, "{name}");
        assert!(refused.stderr.contains("use the manifest that deploy wrote"), "{name}: {}", refused.stderr);
    }
    let (_other, elsewhere) = anvil();
    let refused = verify(&manifest, &elsewhere);
    assert!(refused.code != 0 && refused.stderr.contains("another chain"), "{}", refused.stderr);
}
