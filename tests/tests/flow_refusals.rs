//! What a user runs into before anything runs: a busy port, a missing tool, a wrong file, a second coordinator. Each is
//! refused with what was wrong and what to do.

use network_tests::check::counterfoil;
use network_tests::network::command;
use network_tests::{Network, NetworkOptions};
use std::net::TcpListener;

fn refused(command: &mut std::process::Command) -> String {
    let output = command.output().expect("the command starts");
    assert!(!output.status.success(), "it was accepted");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_busy_port_is_named_with_a_remedy() {
    let busy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = busy.local_addr().expect("bound").port().to_string();
    let dir = tempfile::tempdir().expect("a directory");
    let said = refused(command().args(["up", "--once", "--port", &port, "--data"]).arg(dir.path()));
    assert!(said.contains(&port) && said.contains("--port 0"), "{said}");
}

#[test]
fn a_missing_tool_or_model_says_how_to_get_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let nowhere = dir.path().join("nowhere");
    for variable in ["COUNTERFOIL_NATS_SERVER", "COUNTERFOIL_ANVIL"] {
        let mut up = command();
        up.args(["up", "--once", "--port", "0", "--data"])
            .arg(dir.path().join("data"))
            .env(variable, &nowhere);
        let said = refused(&mut up);
        assert!(said.contains(variable) || said.contains("cargo xtask tools"), "{variable}: {said}");
    }
    let mut generate = command();
    generate.args(["model", "generate", "--prompt", "x"]).env("COUNTERFOIL_MODEL", &nowhere);
    assert!(refused(&mut generate).contains("nowhere"));
}

#[test]
fn a_second_coordinator_on_the_same_data_is_refused_and_the_first_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let network = Network::up(NetworkOptions { data: &data, story: false });
    let said = refused(command().args(["up", "--no-story", "--port", "0", "--data"]).arg(&data));
    assert!(said.contains("in use") || said.contains("lock") || said.contains("another"), "{said}");
    let (status, answer) = network.chat("Name the capital of France.", 8);
    assert_eq!(status, 200, "{answer}");
    assert!(network.interrupt().success());
}

#[test]
fn wrong_places_and_wrong_usage_have_their_exit_codes() {
    let missing = counterfoil(&["export", "hledger", "--data", "no-such-directory"]);
    assert_eq!(missing.code, 3, "{}", missing.stderr);
    assert!(missing.stderr.contains("no-such-directory"), "{}", missing.stderr);
    assert_eq!(counterfoil(&["audit", "replay", "no-such-directory"]).code, 3);
    assert_eq!(counterfoil(&["ledger", "balance", "not-an-account", "--data", "."]).code, 2);
    assert_eq!(counterfoil(&["no-such-verb"]).code, 2);
}
