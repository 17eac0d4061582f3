//! A stranger's worker in another language earns, and the conformance kit says that it keeps the protocol.

use network_tests::check::counterfoil;
use network_tests::network::{counterfoil as binary, root};
use network_tests::operator::{Killed, Operator, model_file};
use network_tests::roles::{Broker, Role, http};
use protocol::id::NodeId;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use worker::keys::NodeKey;

const MODEL: &str = "SmolLM2-attested";

/// The shipped preset with one more model: the same file, run by whoever can.
fn preset(dir: &Path) -> PathBuf {
    let text = fs::read_to_string(root().join("presets/prepaid.toml")).expect("the preset");
    let model = format!(
        "\n[[rate_card.models]]\nmodel = \"{MODEL}\"\nlicence = \"Apache-2.0\"\nproof_class = \"attested\"\nasset = \"FOIL\"\n\
         price = \"0.0000040\"\nper_units = 1\noperator_share_ppm = 800000\ncontext_tokens = 2048\n"
    );
    let path = dir.join("preset.toml");
    fs::write(&path, text + &model).expect("written");
    path
}

/// A sequencer, and a gateway once it leads.
fn coordinator(dir: &Path, broker: &Broker) -> (Role, Role, String) {
    let (preset, model) = (preset(dir), model_file());
    let role = |name: &str, table: String| {
        let table = format!("nats_url = \"{}\"\nroles = [\"{name}\"]\n{table}", broker.url());
        let path = dir.join(format!("{name}.toml"));
        fs::write(&path, table).expect("written");
        Role::start(path.to_str().expect("text"))
    };
    let mut sequencer = role(
        "sequencer",
        format!(
            "[sequencer]\ncredentials_file = \"broker/keys/writer.creds\"\ndata_dir = \"books\"\n\
             genesis = {{ origin = \"foreign.test/prepaid/0\", preset_file = {preset:?} }}\n"
        ),
    );
    sequencer.says("leads");
    let mut gateway = role(
        "gateway",
        format!(
            "[gateway]\ncredentials_file = \"broker/keys/gateway.creds\"\ndata_dir = \"gw\"\nsecrets_dir = \"secrets\"\n\
             listen = \"127.0.0.1:0\"\nname = \"gw1\"\noperator_keys_dir = \"broker/keys\"\npreset_file = {preset:?}\n\
             models = [{{ name = \"SmolLM2-135M-Instruct\", path = {model:?} }}, {{ name = {MODEL:?}, path = {model:?} }}]\n"
        ),
    );
    let url = gateway.says("listens")["url"].as_str().expect("an address").to_owned();
    (sequencer, gateway, url)
}

/// `examples/worker.py`, with our own command as what answers.
fn python_worker(operator: &Operator, broker: &Broker) -> Killed {
    let python = std::env::var_os("COUNTERFOIL_PYTHON")
        .map_or_else(|| root().join(".tools/venv/bin/python"), PathBuf::from);
    let key = fs::read_to_string(NodeKey::path(&operator.dir.join("data"), &operator.node))
        .expect("the node's key");
    let log = fs::File::create(operator.dir.join("worker.py.log")).expect("a log");
    let mut command = Command::new(python);
    command.arg(root().join("examples/worker.py")).arg(broker.url());
    command.args(["operator.jwt", "operator.seed"].map(|file| operator.dir.join(file)));
    command.args([operator.node.to_string(), key.trim().to_owned(), MODEL.to_owned()]).arg(model_file());
    command.arg(binary()).args(["model", "generate", "--threads", "1", "--model"]).arg(model_file());
    command.args(["--max-tokens", "{max_tokens}", "--temperature", "{temperature}", "--prompt", "{prompt}"]);
    Killed(command.stdout(Stdio::null()).stderr(log).spawn().expect("python starts"))
}

#[test]
fn a_python_worker_earns_and_keeps_the_protocol() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let broker = Broker::start(dir);
    let (_sequencer, _gateway, url) = coordinator(dir, &broker);
    let operator = Operator::register(&url, &dir.join("stranger"), NodeId([0x51; 16]), MODEL, 1);
    let worker = python_worker(&operator, &broker);
    operator.until_routed(MODEL);
    let admin = fs::read_to_string(dir.join("secrets/admin.key")).expect("the key");
    let (_, opened) = http("POST", &format!("{url}/v1/accounts"), "", Some(json!({})));
    let grant = json!({"account": opened["account"], "amount": "1"});
    assert_eq!(http("POST", &format!("{url}/v1/admin/grants"), admin.trim(), Some(grant)).0, 201);
    let chat = json!({"model": MODEL, "max_tokens": 24, "temperature": 0, "messages": [{"role": "user", "content": "What is the capital of France?"}]});
    let key = opened["api_key"].as_str().expect("a key");
    let (status, answer) = http("POST", &format!("{url}/v1/chat/completions"), key, Some(chat));
    let log = || fs::read_to_string(operator.dir.join("worker.py.log")).unwrap_or_default();
    assert_eq!(status, 200, "{answer}\n{}", log());
    assert!(
        answer["choices"][0]["message"]["content"].as_str().is_some_and(|text| !text.trim().is_empty()),
        "{answer}"
    );
    assert_ne!(operator.told()["earnings"][0]["accrued"], "0", "{}", operator.told());
    let creds = dir.join("broker/keys/gateway.creds");
    let model = model_file();
    let subject = format!("job.{}.{}", operator.operator, operator.node);
    let found = counterfoil(&[
        "worker",
        "conformance",
        "--nats",
        &broker.url(),
        "--creds",
        creds.to_str().expect("text"),
        "--subject",
        &subject,
        "--sealing-key",
        &operator.sealing_key,
        "--model",
        MODEL,
        "--model-file",
        model.to_str().expect("text"),
        "--proof-class",
        "attested",
    ]);
    assert_eq!(found.code, 0, "{}\n{}\n{}", found.stdout, found.stderr, log());
    assert_eq!(found.stdout.matches("pass  ").count(), found.stdout.lines().count(), "{}", found.stdout);
    drop(worker);
    let why = counterfoil(&["node", "why", &operator.node.to_string(), "--gateway", &url]);
    assert!(why.stdout.contains(MODEL), "{}", why.stdout);
}
