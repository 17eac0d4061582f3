//! A worker whose model runs in somebody else's OpenAI-compatible server: here the gateway of another network, with a real
//! model. What it delivers is counted by the tokenizer of the rate card, and its receipts say that they prove no more.

use network_tests::faults::signal;
use network_tests::network::{command, root};
use network_tests::roles::{Broker, Role, http};
use network_tests::{Network, NetworkOptions};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const MODEL: &str = "elsewhere";
const UPSTREAM_MODEL: &str = "SmolLM2-135M-Instruct";

fn model_file() -> PathBuf {
    let fetched = || root().join(".tools/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    std::env::var_os("COUNTERFOIL_MODEL").map_or_else(fetched, PathBuf::from)
}

fn secret(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A network whose only model is an attested one.
struct Ground {
    url: String,
    admin: String,
    _roles: [Role; 2],
    broker: Broker,
}

impl Ground {
    fn start(dir: &Path) -> Ground {
        let preset = std::fs::read_to_string(root().join("presets/prepaid.toml")).unwrap();
        let preset = preset.replace("\"re_executable\"", "\"attested\"").replace(UPSTREAM_MODEL, MODEL);
        std::fs::write(dir.join("preset.toml"), preset).unwrap();
        let broker = Broker::start(dir);
        let role = |name: &str, table: String| {
            let path = dir.join(format!("{name}.toml"));
            std::fs::write(&path, format!("nats_url = \"{}\"\n{table}", broker.url())).unwrap();
            Role::start(path.to_str().unwrap())
        };
        let mut sequencer = role(
            "sequencer",
            "roles = [\"sequencer\"]\n[sequencer]\ncredentials_file = \"broker/keys/writer.creds\"\ndata_dir = \"log\"\n\
             genesis = { origin = \"backends.test/prepaid/0\", preset_file = \"preset.toml\" }\n"
                .to_owned(),
        );
        sequencer.says("leads");
        let mut gateway = role(
            "gateway",
            format!(
                "roles = [\"gateway\"]\n[gateway]\ncredentials_file = \"broker/keys/gateway.creds\"\ndata_dir = \"gw\"\n\
                 secrets_dir = \"secrets\"\nlisten = \"127.0.0.1:0\"\nname = \"gw\"\noperator_keys_dir = \"broker/keys\"\n\
                 preset_file = \"preset.toml\"\nmodels = [{{ name = \"{MODEL}\", path = \"{}\" }}]\n",
                model_file().display()
            ),
        );
        let url = gateway.says("listens")["url"].as_str().unwrap().to_owned();
        let admin = std::fs::read_to_string(dir.join("secrets/admin.key")).unwrap().trim().to_owned();
        Ground { url, admin, _roles: [gateway, sequencer], broker }
    }

    fn call(&self, method: &str, path: &str, key: &str, body: Option<Value>) -> Value {
        let (status, value) = http(method, &format!("{}{path}", self.url), key, body);
        assert!((200..300).contains(&status), "{path}: {status} {value}");
        value
    }

    fn account(&self) -> (String, String) {
        let opened = self.call("POST", "/v1/accounts", "", Some(json!({})));
        let text = |name: &str| opened[name].as_str().expect("a text").to_owned();
        (text("account"), text("api_key"))
    }

    /// Registers an operator, starts its worker against the other network, registers its node, waits until it is routed.
    fn worker(&self, dir: &Path, upstream: &Network) -> Worker {
        let pair = nkeys::KeyPair::new_user();
        let (_, key) = self.account();
        let operator =
            json!({ "operator": pair.public_key(), "payout_address": format!("0x{}", "11".repeat(20)) });
        let registered = self.call("POST", "/v1/operators", &key, Some(operator));
        secret(&dir.join("operator.seed"), &pair.seed().unwrap());
        secret(&dir.join("operator.jwt"), registered["nats_jwt"].as_str().unwrap());
        secret(&dir.join("upstream.key"), &upstream.ready.api_key);
        let node = "node_00000000000000000000000004";
        let config = format!(
            "nats_url = \"{}\"\noperator_seed_file = \"operator.seed\"\noperator_jwt_file = \"operator.jwt\"\n\
             [[nodes]]\nid = \"{node}\"\nslots = 2\n[[nodes.models]]\nbackend = \"openai\"\nname = \"{MODEL}\"\n\
             url = \"{}/v1\"\nmodel = \"{UPSTREAM_MODEL}\"\napi_key_file = \"upstream.key\"\ntokenizer = \"{}\"\n",
            self.broker.url(),
            upstream.ready.gateway,
            model_file().display()
        );
        std::fs::write(dir.join("worker.toml"), config).unwrap();
        let mut run = command();
        run.args(["--json", "worker", "run", "--config"]).arg(dir.join("worker.toml")).stdout(Stdio::piped());
        let mut worker = Worker(run.spawn().expect("the worker starts"));
        let mut line = String::new();
        BufReader::new(worker.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let body = json!({ "node": node, "operator": pair.public_key(), "models": [MODEL], "slots": 2,
                           "sealing_key": ready["status"]["nodes"][0]["sealing_key"] });
        self.call("POST", "/v1/nodes", &key, Some(body));
        let started = Instant::now();
        while self.call("GET", &format!("/v1/nodes/{node}"), "", None)["why"][MODEL] != "eligible" {
            assert!(started.elapsed() < Duration::from_secs(30), "the node is never routed");
            std::thread::park_timeout(Duration::from_millis(50));
        }
        worker
    }
}

struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        signal(self.0.id(), "TERM");
        let _ = self.0.wait();
    }
}

#[test]
fn a_foreign_server_serves_and_is_paid_by_our_own_count() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Network::up(NetworkOptions { data: &dir.path().join("upstream"), story: false });
    let ground = Ground::start(dir.path());
    let (account, key) = ground.account();
    ground.call(
        "POST",
        "/v1/admin/grants",
        &ground.admin,
        Some(json!({ "account": account, "amount": "1" })),
    );
    let worker = ground.worker(dir.path(), &upstream);
    let question = json!([{ "role": "user", "content": "Name the capital of France." }]);
    let ask = |more: Value| {
        let mut body = json!({ "model": MODEL, "messages": question, "temperature": 0, "max_tokens": 24 });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };

    let answer = ground.call("POST", "/v1/chat/completions", &key, Some(ask(json!({}))));
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let (status, direct) = upstream.chat("Name the capital of France.", 24);
    assert_eq!(
        (status, &direct["choices"][0]["message"]["content"]),
        (200, &json!(text)),
        "passed on unchanged"
    );
    assert!(text.contains("Paris"), "{text}");
    // Theirs counts the end token, ours what was delivered: never more.
    let counted = |answer: &Value| answer["usage"]["completion_tokens"].as_u64().unwrap();
    assert!(counted(&answer) <= counted(&direct), "{answer} {direct}");

    let job = answer["id"].as_str().unwrap().trim_start_matches("chatcmpl-");
    let receipt = ground.call("GET", &format!("/v1/receipts/{job}"), "", None);
    assert_eq!(receipt["receipt"]["proof_class"], "attested");
    assert_eq!(receipt["receipt"]["numerics"], "attested");
    assert_eq!(receipt["receipt"]["output_tokens"], counted(&answer));

    let tool = json!([{ "type": "function", "function": { "name": "answer", "parameters": {
        "type": "object", "properties": { "ok": { "type": "boolean" } }, "required": ["ok"], "additionalProperties": false } } }]);
    let called = ask(json!({ "tools": tool, "tool_choice": "required", "max_tokens": 40 }));
    let called = ground.call("POST", "/v1/chat/completions", &key, Some(called));
    let call = &called["choices"][0]["message"]["tool_calls"][0]["function"];
    assert_eq!(call["name"], "answer", "{called}");
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["ok"].is_boolean(), "{arguments}");

    let completion =
        json!({ "model": MODEL, "prompt": "The capital of France is", "temperature": 0, "max_tokens": 4 });
    let completion = ground.call("POST", "/v1/completions", &key, Some(completion));
    assert!(completion["choices"][0]["text"].as_str().unwrap().contains("Paris"), "{completion}");

    // What this backend cannot do is refused by the node, and costs nothing.
    let url = format!("{}/v1/chat/completions", ground.url);
    let (status, refused) = http("POST", &url, &key, Some(ask(json!({ "logprobs": true }))));
    assert_eq!((status, &refused["error"]["code"]), (503, &json!("no_node_accepted")), "{refused}");

    // A server that is gone fails the job; nothing is charged for it.
    let before = ground.call("GET", "/v1/balance", &key, None)["balances"][0]["available"].clone();
    assert!(upstream.interrupt().success());
    let (status, failed) = http("POST", &url, &key, Some(ask(json!({}))));
    assert!(status >= 500, "{failed}");
    let after = ground.call("GET", "/v1/balance", &key, None)["balances"][0].clone();
    assert_eq!((&after["available"], &after["held"]), (&before, &json!("0")));
    drop(worker);
}
