//! What must never be written down: keys, seeds, prompts, answers. A network runs with every log line that it can write,
//! while canaries pass through it; afterwards each file that it left behind is searched for them. And what an attacker sends
//! cannot make a log line of its own.

use network_tests::hostile::Hostile;
use network_tests::raw::exchange;
use network_tests::{Network, NetworkOptions};
use serde_json::json;
use std::path::{Path, PathBuf};

/// In the prompt.
const PROMPT: &str = "canary-prompt-7f3a9d";
/// A key that somebody mistypes.
const WRONG_KEY: &str = "cf_canary-wrong-key-51c2e8";

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

fn contains(bytes: &[u8], needle: &str) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[test]
fn secrets_and_prompts_are_in_no_log_and_no_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let log = dir.path().join("stderr.log");
    let network = Network::up_logged(NetworkOptions { data: &data, story: false }, "trace", &log);
    let (status, opened) = network.call_as("", "POST", "/v1/accounts", Some(json!({})));
    assert_eq!(status, 201, "{opened}");
    let fresh = opened["api_key"].as_str().expect("a key").to_owned();
    let hostile = Hostile::register(&network, &fresh);
    let operator_seed = hostile.key.seed().expect("it has one");
    drop(hostile);
    // The honest node alone answers.
    let (status, answer) = network.chat(&format!("Repeat this word: {PROMPT}"), 24);
    assert!(status < 600, "{answer}");
    assert_eq!(network.call_as(WRONG_KEY, "GET", "/v1/balance", None).0, 401);
    assert_eq!(network.call_as(&fresh, "GET", "/v1/balance", None).0, 200);
    let (status, _) =
        network.send(&fresh, "POST", "/v1/chat/completions", Some(format!("{{\"{PROMPT}").as_bytes()));
    assert_eq!(status, 400);
    forge_log_lines(&network, &fresh);
    what_operators_watch_is_there(&network);
    let ready = network.ready.clone();
    assert!(network.interrupt().success());

    let logged = std::fs::read(&log).expect("the log's file");
    assert!(contains(&logged, "answered"), "the log says what happened, or this test proves nothing");
    let secrets = [PROMPT, WRONG_KEY, &fresh, &ready.api_key, &ready.admin_key, &operator_seed];
    let mut searched = Vec::new();
    files(&data, &mut searched);
    let logs = searched.iter().filter(|path| path.extension().is_some_and(|end| end == "log")).cloned();
    for path in logs.chain([log.clone()]) {
        let bytes = std::fs::read(&path).expect("readable");
        for secret in secrets {
            assert!(!contains(&bytes, secret), "{} holds {secret}", path.display());
        }
    }
    // Beyond logs: stream, archive, tiles, index, store. A key may lie where its owner keeps it: `keys/`, `worker/`.
    for path in searched.iter().filter(|path| path.is_file()) {
        let shown = path.strip_prefix(&data).expect("below").display().to_string();
        let bytes = std::fs::read(path).unwrap_or_default();
        assert!(!contains(&bytes, PROMPT), "{shown} holds the prompt");
        assert!(!contains(&bytes, &fresh), "{shown} holds a customer's key");
        assert!(!contains(&bytes, &operator_seed), "{shown} holds an operator's seed");
        let office = shown.starts_with("keys") || shown.contains("ready");
        assert!(office || !contains(&bytes, &ready.admin_key), "{shown} holds the administration's key");
    }
    no_forged_line(&logged);
}

/// A line of the log in each place that is logged.
const FORGED: &str = "9999-01-01T00:00:00Z  INFO api: FORGED admin logged in";

fn forge_log_lines(network: &Network, key: &str) {
    let encoded = FORGED.replace(' ', "%20");
    for request in [
        format!("GET /v1/%0a{encoded} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
        format!("GET /v1/%0d%0a{encoded}%1b[31m HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
        format!(
            "GET /v1/balance HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {key}\r\nx-request-id: a\t{FORGED}\r\n\r\n"
        ),
        format!(
            "GET /v1/jobs/a%0a{encoded} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {key}\r\n\r\n"
        ),
        format!("\x1b[2J\n{FORGED}\n GET / HTTP/1.1\r\n\r\n"),
    ] {
        let answer = exchange(&network.ready.gateway, request.as_bytes());
        assert!(!answer.text.contains("\x1b"), "an escape comes back: {:?}", answer.text);
    }
    let body =
        json!({"model": format!("x\n{FORGED}\u{1b}[31m"), "messages": [{"role": "user", "content": "hi"}]});
    let (status, answer) = network.call_as(key, "POST", "/v1/chat/completions", Some(body));
    assert_eq!(status, 404, "{answer}");
}

fn no_forged_line(log: &[u8]) {
    let text = String::from_utf8_lossy(log);
    let forged = text.lines().find(|line| line.trim_start().starts_with("9999-"));
    assert_eq!(forged, None, "a request wrote a line of the log");
    assert!(!text.contains('\u{1b}'), "a request wrote an escape into the log");
}

/// Every metric in an alert or on the dashboard is one that the gateway answers; every alert has its page.
fn what_operators_watch_is_there(network: &Network) {
    let read =
        |path: &str| std::fs::read_to_string(network_tests::network::root().join(path)).expect("in the tree");
    let (_, metrics) = network.call("GET", "/metrics", None);
    let metrics = metrics.as_str().expect("text");
    let (alerts, dashboard, runbook) = (
        read("deploy/monitoring/alerts.yml"),
        read("deploy/monitoring/dashboard.json"),
        read("docs/runbook.md"),
    );
    for text in [&alerts, &dashboard] {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let names: Vec<&str> = words.filter(|word| word.starts_with("counterfoil_")).collect();
        assert!(names.len() > 5);
        for name in names {
            assert!(metrics.contains(name), "{name} is watched, and /metrics has no such name");
        }
    }
    let tested = read("deploy/monitoring/alerts_test.yml");
    for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(runbook.contains(&format!("## {alert}\n")), "no page for {alert}");
        assert!(tested.contains(&format!("alertname: {alert}\n")), "no test fires {alert}");
    }
    rules_fire();
}

/// Prometheus' own tool, where it is installed.
fn rules_fire() {
    let place = network_tests::network::root().join("deploy/monitoring/alerts_test.yml");
    match std::process::Command::new("promtool").args(["test", "rules"]).arg(place).output() {
        Ok(done) => assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout)),
        Err(error) => eprintln!("skipped: promtool is not installed: {error}"),
    }
}
