//! Two real workers with the real model, one of them killed in the middle of an answer: the other one goes on, and the client
//! reads the very text that it would have read.

use network_tests::network::{chat_body, command};
use network_tests::operator::{Killed, Operator, model_file};
use network_tests::{Network, NetworkOptions, faults};
use protocol::id::NodeId;
use serde_json::Value;
use std::fs;
use std::io::BufRead;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const MODEL: &str = "SmolLM2-135M-Instruct";
const NODE: NodeId = NodeId([0x42; 16]);
const PROMPT: &str = "Tell me a long story about a lighthouse keeper and seven ships.";

/// A second operator with a worker process of its own.
fn second_worker(network: &Network, dir: &Path) -> Killed {
    let operator = Operator::register(&network.ready.gateway, dir, NODE, MODEL, 2);
    let (nats, model) = (&network.ready.nats, model_file());
    let config = format!(
        "nats_url = {nats:?}\noperator_seed_file = \"operator.seed\"\noperator_jwt_file = \"operator.jwt\"\ndata_dir = \"data\"\n\
         threads = 1\n[[nodes]]\nid = \"{NODE}\"\nslots = 2\n\
         [[nodes.models]]\nbackend = \"builtin\"\nname = {MODEL:?}\npath = {model:?}\n"
    );
    fs::write(dir.join("worker.toml"), config).expect("written");
    let mut worker = command();
    worker.args(["worker", "run", "--config"]).arg(dir.join("worker.toml")).stdout(Stdio::null());
    let worker = Killed(worker.spawn().expect("the worker starts"));
    operator.until_routed(MODEL);
    worker
}

/// An answer as it came: text, longest pause between two pieces, whether it ended as a whole one does.
struct Read {
    text: String,
    pause: Duration,
    whole: bool,
    job: String,
}

/// Reads a stream; calls `at` once after so many pieces, with the job's id.
fn read(network: &Network, at: usize, mut then: impl FnMut(&str)) -> Read {
    let body = chat_body(PROMPT, 96, true).to_string();
    let response =
        network.request(&network.ready.api_key, "POST", "/v1/chat/completions", Some(body.as_bytes()));
    assert_eq!(response.status().as_u16(), 200);
    let job = response.headers()["x-counterfoil-job-id"].to_str().expect("text").to_owned();
    let (mut text, mut pieces, mut whole) = (String::new(), 0, false);
    let (mut pause, mut last) = (Duration::ZERO, Instant::now());
    for line in std::io::BufReader::new(response.into_body().into_reader()).lines() {
        let line = line.expect("the connection holds");
        let Some(data) = line.strip_prefix("data: ") else { continue };
        whole |= data == "[DONE]";
        let chunk: Value = serde_json::from_str(data).unwrap_or_default();
        assert!(chunk["error"].is_null(), "{chunk}");
        let Some(piece) = chunk["choices"][0]["delta"]["content"].as_str().filter(|piece| !piece.is_empty())
        else {
            continue;
        };
        if pieces > 0 {
            pause = pause.max(last.elapsed());
        }
        last = Instant::now();
        text.push_str(piece);
        pieces += 1;
        if pieces == at {
            then(&job);
        }
    }
    Read { text, pause, whole, job }
}

#[test]
fn a_worker_killed_in_the_middle_is_replaced_and_the_text_is_the_same() {
    let dir = tempfile::tempdir().expect("a folder");
    let network = Network::up(NetworkOptions { data: &dir.path().join("data"), story: true });
    let undisturbed = read(&network, usize::MAX, |_| {});
    assert!(undisturbed.whole && undisturbed.text.len() > 100, "{}", undisturbed.text);
    let second = second_worker(&network, &dir.path().join("second"));
    let mut killed = String::new();
    let moved = read(&network, 6, |job| {
        let (_, told) = network.call("GET", &format!("/v1/jobs/{job}"), None);
        killed = told["attempts"][0]["node"].as_str().expect("a node").to_owned();
        let pid = if killed == NODE.to_string() { second.0.id() } else { network.ready.pids.worker };
        faults::signal(pid, "KILL");
    });
    assert_eq!(moved.text, undisturbed.text, "bit for bit, over two nodes");
    assert!(moved.whole, "an answer that moved ends like any other");
    let (_, told) = network.call("GET", &format!("/v1/jobs/{}", moved.job), None);
    let attempts = told["attempts"].as_array().expect("attempts").clone();
    assert_eq!(attempts.len(), 2, "{told}");
    assert_ne!(attempts[1]["node"], killed.as_str());
    assert_eq!(told["charge"]["attempt"], 1, "{told}");
    println!("longest pause: {:?}, undisturbed {:?}", moved.pause, undisturbed.pause);
    assert!(moved.pause < Duration::from_secs(20), "the seam took {:?}", moved.pause);
}
