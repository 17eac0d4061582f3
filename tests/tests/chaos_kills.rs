//! Processes killed at bad moments. After each: the books balance, nothing is held for ever, nothing undelivered is
//! charged, and the audit passes.

use network_tests::check::audit_replay;
use network_tests::faults::{is_alive, signal};
use network_tests::{Network, NetworkOptions};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Waits for a condition that only polling shows, bounded.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

#[test]
fn a_worker_killed_mid_stream_costs_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let network = Network::up(NetworkOptions { data: &data, story: false });
    let before = network.available();
    let mut stream = network.chat_stream("Tell me a very long story about the sea.", 600);
    assert_eq!(stream.read_text(3).len(), 3);
    signal(network.ready.pids.worker, "KILL");
    let mut last = String::new();
    while let Some(data) = stream.next_data() {
        last = data;
    }
    let error: Value = serde_json::from_str(&last).unwrap_or_else(|_| panic!("a clean end: {last}"));
    assert!(error.get("error").is_some(), "the stream ends with an error frame: {last}");
    eventually("the hold is released", || network.held() == 0);
    assert_eq!(network.available(), before, "nothing was charged for what was not delivered");
    assert!(network.interrupt().success());
    audit_replay(&data);
}

#[test]
fn a_client_that_leaves_pays_for_what_it_got() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let network = Network::up(NetworkOptions { data: &data, story: false });
    let before = network.available();
    let mut stream = network.chat_stream("Tell me a very long story about the sea.", 600);
    assert_eq!(stream.read_text(5).len(), 5);
    drop(stream);
    eventually("the hold ends", || network.held() == 0);
    let paid = before - network.available();
    assert!(paid > 0, "what was delivered is charged");
    // 600 output tokens at 4000 base units each would be the whole answer.
    assert!(paid < 400 * 4_000, "and no more than that: {paid}");
    assert!(network.interrupt().success());
    audit_replay(&data);
}

#[test]
fn ctrl_c_mid_stream_ends_with_an_error_frame_and_no_orphans() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let network = Network::up(NetworkOptions { data: &data, story: false });
    let pids = network.ready.pids;
    let mut stream = network.chat_stream("Tell me a very long story about the sea.", 600);
    assert_eq!(stream.read_text(3).len(), 3);
    assert!(network.interrupt().success());
    let mut last = String::new();
    while let Some(data) = stream.next_data() {
        last = data;
    }
    assert_ne!(last, "[DONE]", "an unfinished answer must not look finished");
    for pid in [pids.nats, pids.chain, pids.worker] {
        assert!(!is_alive(pid), "child {pid} was left behind");
    }
    audit_replay(&data);
}

#[test]
fn a_coordinator_killed_before_capture_still_captures_after_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let network = Network::up(NetworkOptions { data: &data, story: false });
    let before = network.available();
    let mut stream = network.chat_stream("Count from one to ten.", 200);
    // Kill at the moment the answer is over for the client: receipt and capture are still to come.
    let mut finished = false;
    while let Some(data) = stream.next_data() {
        if data.contains("\"finish_reason\":\"") {
            finished = true;
            break;
        }
    }
    assert!(finished);
    network.kill_coordinator();

    let again = Network::up(NetworkOptions { data: &data, story: false });
    eventually("the job is closed", || again.held() == 0);
    assert!(again.available() < before, "the finished job was captured");
    assert!(again.interrupt().success());
    audit_replay(&data);
}

#[test]
fn a_coordinator_killed_mid_stream_leaves_nothing_held() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let network = Network::up(NetworkOptions { data: &data, story: false });
    let mut stream = network.chat_stream("Tell me a very long story about the sea.", 600);
    assert_eq!(stream.read_text(3).len(), 3);
    network.kill_coordinator();
    let again = Network::up(NetworkOptions { data: &data, story: false });
    eventually("the hold ends", || again.held() == 0);
    let (status, answer) = again.chat("Name the capital of France.", 16);
    assert_eq!(status, 200, "it serves again: {answer}");
    assert!(again.interrupt().success());
    audit_replay(&data);
}

#[test]
fn nats_server_killed_under_load_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let network = Network::up(NetworkOptions { data: &data, story: false });
    let before = network.available();
    let (opened, charged) = std::thread::scope(|scope| {
        // Paid prompts beside it: what was answered whole is charged, once.
        let prompts = scope.spawn(|| {
            let answers = (0..6).map(|_| network.chat("Name three colours.", 24));
            let tokens = |answer: Value| answer["usage"]["total_tokens"].as_i64().expect("a count");
            answers.filter(|(status, _)| *status == 200).map(|(_, answer)| tokens(answer)).sum::<i64>()
        });
        let load = scope.spawn(|| {
            let mut opened = Vec::new();
            for round in 0..200 {
                if round == 100 {
                    signal(network.ready.pids.nats, "KILL");
                }
                let (status, account) =
                    network.call_as("", "POST", "/v1/accounts", Some(serde_json::json!({})));
                if [200, 201].contains(&status) {
                    opened.push(account["account"].as_str().expect("an id").to_owned());
                }
            }
            opened
        });
        (load.join().expect("the load ends"), prompts.join().expect("the prompts end"))
    });
    assert!(opened.len() >= 100, "only {} were acknowledged", opened.len());
    eventually("no hold is left", || network.held() == 0);
    let paid = before - network.available();
    let whole = i128::from(charged) * 4_000;
    assert!(charged > 0 && paid >= whole, "every whole answer is charged: {paid} for {whole}");
    // An answer that broke off may have been charged for what was delivered, never more; the audit below finds a second charge.
    assert!(paid <= 6 * 80 * 4_000, "six short prompts cannot cost {paid}");
    eventually("it serves again", || network.chat("Name the capital of France.", 8).0 == 200);
    assert!(network.interrupt().success());
    audit_replay(&data);
    let journal = network_tests::check::counterfoil(&[
        "--json",
        "ledger",
        "accounts",
        "--data",
        data.to_str().expect("text"),
    ]);
    assert_eq!(journal.code, 0, "{}", journal.stderr);
    for account in &opened {
        assert!(
            journal.stdout.contains(account.as_str()),
            "{account} was acknowledged and is not in the log"
        );
    }
}
