//! `counterfoil restore` and `ledger rebuild` on a data directory that a whole network left: its log's store is destroyed, the
//! command rebuilds it, the network goes on with the same ledger.

use network_tests::network::command;
use network_tests::{Network, NetworkOptions};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Output;

fn run(arguments: &[&str]) -> (Output, Value) {
    let output = command().args(arguments).output().unwrap();
    let json = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, json)
}

/// The folder of the log in the server's store.
fn stream_dir(data: &Path) -> PathBuf {
    let accounts = std::fs::read_dir(data.join("nats/store/jetstream")).unwrap();
    let mut streams = accounts.map(|account| account.unwrap().path().join("streams/LEDGER_0"));
    streams.find(|path| path.is_dir()).unwrap()
}

#[test]
fn a_destroyed_log_is_rebuilt_and_the_network_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let network = Network::up(NetworkOptions { data: &data, story: false });
    let gateway = network.ready.gateway.clone();
    assert!(gateway.starts_with("http"));
    assert!(network.interrupt().success());
    let path = data.to_str().unwrap();
    let archive = data.join("archive");
    let (output, rebuilt) = run(&["--json", "ledger", "rebuild", "--data", path]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(rebuilt["same"], true, "{rebuilt}");
    assert!(rebuilt["snapshot"]["commit"].as_u64() > Some(0), "{rebuilt}");
    // The message block is cut, the folder's description gone.
    let stream = stream_dir(&data);
    let block = std::fs::OpenOptions::new().write(true).open(stream.join("msgs/1.blk")).unwrap();
    block.set_len(block.metadata().unwrap().len() / 2).unwrap();
    std::fs::remove_file(stream.join("meta.inf")).unwrap();
    let arguments = ["--json", "restore", "--archive", archive.to_str().unwrap(), "--data", path];
    let (output, restored) = run(&arguments);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(restored["commits"], rebuilt["commits"], "{restored}");
    assert_eq!(restored["republished_commits"], rebuilt["commits"]);
    assert_eq!(restored["proved"]["chain"], true);
    assert_eq!(restored["proved"]["checkpoint_signature"], true, "{restored}");
    assert_eq!(restored["proved"]["snapshot_commit"], rebuilt["snapshot"]["commit"]);
    assert!(restored["moved_aside"].is_string(), "the former files are kept: {restored}");
    // Once more: there is nothing to do.
    let (output, again) = run(&arguments);
    assert!(output.status.success() && again["republished_commits"] == 0, "{again}");
    // Another log's archive is refused.
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let (output, _) = run(&["restore", "--archive", empty.to_str().unwrap(), "--data", path]);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && words.contains("holds no archive"), "{words}");
    let network = Network::up(NetworkOptions { data: &data, story: false });
    assert!(network.interrupt().success());
}
