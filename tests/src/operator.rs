//! An operator as an outsider is one: keys of its own, registered over HTTP, its worker a process of its own.

use crate::network::root;
use crate::roles::http;
use nkeys::KeyPair;
use protocol::id::NodeId;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};
use worker::keys::NodeKey;

/// How long a node may take to be routed.
const ROUTED_WAIT: Duration = Duration::from_secs(60);

/// A child process that does not outlive its test.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A registered operator with one node; its files lie in `dir`.
pub struct Operator {
    /// `operator.seed`, `operator.jwt`, `data/`.
    pub dir: PathBuf,
    /// Its key.
    pub operator: String,
    /// Its node.
    pub node: NodeId,
    /// What job bodies are sealed to, as registration took it.
    pub sealing_key: String,
    /// Key of the account that earns.
    pub api_key: String,
    gateway: String,
}

impl Operator {
    /// Opens an account and registers a key and a node of one model.
    pub fn register(gateway: &str, dir: &Path, node: NodeId, model: &str, slots: u32) -> Operator {
        let call = |path: &str, key: &str, body: Value| {
            let (status, said) = http("POST", &format!("{gateway}{path}"), key, Some(body));
            assert_eq!(status, 201, "{path}: {said}");
            said
        };
        let opened = call("/v1/accounts", "", json!({}));
        let api_key = opened["api_key"].as_str().expect("a key").to_owned();
        let pair = KeyPair::new_user();
        let operator = pair.public_key();
        let payout = format!("0x{}", hex(&node.0[..1]).repeat(20));
        let body = json!({"operator": operator, "payout_address": payout});
        let registered = call("/v1/operators", &api_key, body);
        fs::create_dir_all(dir).expect("a folder");
        let sealing_key =
            NodeKey::open_or_create(&dir.join("data"), &node).expect("a key").public().to_string();
        let body = json!({"node": node, "operator": operator, "models": [model], "slots": slots, "sealing_key": sealing_key});
        call("/v1/nodes", &api_key, body);
        write_private(&dir.join("operator.seed"), &pair.seed().expect("a seed"));
        write_private(&dir.join("operator.jwt"), registered["nats_jwt"].as_str().expect("a JWT"));
        Operator { dir: dir.to_owned(), operator, node, sealing_key, api_key, gateway: gateway.to_owned() }
    }

    /// What the network says about its node.
    pub fn told(&self) -> Value {
        http("GET", &format!("{}/v1/nodes/{}", self.gateway, self.node), "", None).1
    }

    /// Waits until the node gets jobs of the model.
    pub fn until_routed(&self, model: &str) {
        let until = Instant::now() + ROUTED_WAIT;
        while self.told()["why"][model] != "eligible" {
            assert!(Instant::now() < until, "never routed: {}", self.told());
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
}

/// The model file that the tests run.
pub fn model_file() -> PathBuf {
    let fetched = root().join(".tools/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    std::env::var_os("COUNTERFOIL_MODEL").map_or(fetched, |path| root().join(path))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write_private(path: &Path, text: &str) {
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .expect("a file");
    file.write_all(text.as_bytes()).expect("written");
}
