//! OpenAI's clients as others wrote them, against a running network with a real model: every call, every control; and the
//! auditor runs each of those jobs again and gets the same tokens.

use network_tests::check::{audit_replay, counterfoil};
use network_tests::network::root;
use network_tests::{Network, NetworkOptions};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

const MODEL: &str = "SmolLM2-135M-Instruct";

/// A place that `cargo xtask test` prepares, by its variable or where it lies.
fn place(variable: &str, otherwise: &str) -> PathBuf {
    let place = std::env::var_os(variable).map_or_else(|| root().join(otherwise), PathBuf::from);
    assert!(place.exists(), "{} is missing: run cargo xtask test, which installs it", place.display());
    place
}

fn succeeds(command: &mut Command) -> String {
    let done = command.output().expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&done.stdout), text(&done.stderr));
    assert!(done.status.success(), "{command:?}\nstdout: {stdout}\nstderr: {stderr}");
    stdout
}

fn python(script: &str, network: &Network, more: &[&str]) -> String {
    let python = place("COUNTERFOIL_SDK_PYTHON", ".tools/venv-sdk/bin/python");
    let mut command = Command::new(python);
    command.arg(root().join("tests/foreign").join(script));
    succeeds(command.args([&network.ready.gateway, &network.ready.api_key]).args(more))
}

#[test]
fn foreign_clients_work_unmodified_and_their_jobs_are_re_executed() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let network = Network::up(NetworkOptions { data: &data, story: false });
    let before = network.available();

    let said = python("sdk_openai.py", &network, &[]);
    assert_eq!(said.lines().count(), 5, "every part has run: {said}");
    python("sdk_langchain.py", &network, &[MODEL]);
    let modules = place("COUNTERFOIL_SDK_MODULES", ".tools/sdk/node_modules");
    let mut node = Command::new("node");
    node.env("COUNTERFOIL_SDK_MODULES", &modules).arg(root().join("tests/foreign/node/sdk.mjs"));
    let said = succeeds(node.args([&network.ready.gateway, &network.ready.api_key, MODEL]));
    assert_eq!(said.lines().count(), 3, "every client has run: {said}");

    money_adds_up(&network, before);
    assert!(network.interrupt().success());
    audit_replay(&data);
    re_executed(&data, dir.path());
}

/// What was spent is what usage, statements and the place of every unit say.
fn money_adds_up(network: &Network, before: i128) {
    let spent = before - network.available();
    assert!(spent > 0 && network.held() == 0);
    let get = |path: &str| {
        let (status, value) = network.call("GET", path, None);
        assert_eq!(status, 200, "{path}: {value}");
        value
    };
    let units =
        |value: &Value| -> i128 { value["base_units"].as_str().expect("figures").parse().expect("integers") };
    let usage = get("/v1/usage?days=2");
    assert_eq!(units(&usage["totals"][0]["cost"]), spent, "{usage}");
    assert_eq!(usage["data"][0]["model"], MODEL);
    let money = get("/v1/money");
    let asset = &money["assets"][0];
    assert_eq!(asset["adds_up"], true, "{money}");
    assert_eq!(units(&asset["here"]["available"]), network.available());
    let went = asset["went"].as_array().expect("a list");
    let charged = went.iter().find(|flow| flow["kind"] == "usage_captured").expect("charges went");
    assert_eq!(units(&charged["amount"]), spent);

    let newest = get("/v1/statements?limit=3");
    let lines = newest["data"].as_array().expect("lines");
    assert!(!lines.is_empty() && lines.len() <= 3, "{newest}");
    assert_eq!(units(&lines.last().expect("one")["balance"]), network.available());
    let next = newest["next_before"].as_u64().expect("there is more");
    let older = get(&format!("/v1/statements?limit=3&before={next}"));
    let last = older["data"].as_array().expect("lines").last().expect("one")["leaf"].as_u64();
    assert!(last.expect("a leaf") < next, "pages do not overlap");
}

/// The auditor opens every sealed body, with its controls, and runs the job again on its own.
fn re_executed(data: &Path, scratch: &Path) {
    let copy = scratch.join("copy");
    let (data, copy) = (data.to_str().expect("text"), copy.to_str().expect("text"));
    let policy = format!("{data}/auditor.policy");
    let fetched = counterfoil(&["audit", "fetch", data, copy, "--policy", &policy]);
    assert_eq!(fetched.code, 0, "{}{}", fetched.stdout, fetched.stderr);
    let key = format!("{data}/keys/audit.key");
    let done = counterfoil(&["--json", "audit", "sample", copy, "--reexecute", "all", "--audit-key", &key]);
    assert_eq!(done.code, 0, "{}\n{}", done.stdout, done.stderr);
    let report: Value = serde_json::from_str(done.stdout.trim()).expect("a report");
    let checks = report["checks"].as_array().expect("checks");
    let check = checks.iter().find(|check| check["id"] == "reexecuted").expect("it was run again");
    assert!(check["examined"].as_u64().expect("a count") >= 30, "{check}");
}

/// Our description of ourselves, tried by a tool that makes up requests of its own.
#[test]
fn the_description_holds_against_schemathesis() {
    let dir = tempfile::tempdir().expect("a directory");
    let network = Network::up(NetworkOptions { data: &dir.path().join("data"), story: false });
    let python = place("COUNTERFOIL_SDK_PYTHON", ".tools/venv-sdk/bin/python");
    // By its interpreter: what the script's first line names may have moved since it was installed.
    let mut command = Command::new(&python);
    command.arg(python.with_file_name("schemathesis"));
    command.current_dir(dir.path()).arg("run").arg(format!("{}/v1/openapi.yaml", network.ready.gateway));
    command.args(["--url", &network.ready.gateway, "--header"]);
    command.arg(format!("Authorization: Bearer {}", network.ready.api_key));
    command.args([
        "--checks",
        "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
    ]);
    command.args([
        "--phases",
        "fuzzing",
        "--max-examples",
        "12",
        "--seed",
        "7",
        "--generation-deterministic",
    ]);
    command.args(["--exclude-path-regex", "^/v1/(events|accounts/close|withdrawals|keys/.*)"]);
    command.args(["--request-timeout", "20", "--no-color"]);
    succeeds(&mut command);
    let (status, answer) = network.chat("Name the capital of France.", 8);
    assert_eq!(status, 200, "it serves as before: {answer}");
}
