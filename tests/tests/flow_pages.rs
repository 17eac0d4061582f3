//! People in a real browser on a whole network: from a first visit to a verified answer, money in and out with a wallet,
//! books read to the last entry, hostile answers, phones, keyboards, a restart in mid-conversation. axe looks at every page.

use network_tests::network::{Network, NetworkOptions, root};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Driver and browser; `None` on a machine without one.
fn browser() -> Option<(PathBuf, PathBuf)> {
    let named = std::env::var_os("COUNTERFOIL_CHROMIUM").map(PathBuf::from);
    let chromium = named.or_else(|| Some(PathBuf::from("/usr/bin/chromium")).filter(|path| path.exists()))?;
    let named = std::env::var_os("COUNTERFOIL_BROWSER_MODULES").map(PathBuf::from);
    let modules = named.unwrap_or_else(|| root().join(".tools/browser/node_modules"));
    let missing = "is missing: run cargo xtask test, which installs it";
    assert!(modules.join("axe-core").is_dir(), "{}/axe-core {missing}", modules.display());
    Some((modules, chromium))
}

/// The script against a network; screenshots go to `target/pictures`.
fn script(name: &str, network: &Network) -> Option<Command> {
    let Some((modules, chromium)) = browser() else {
        eprintln!("skipped: chromium is not installed (COUNTERFOIL_CHROMIUM is not set)");
        return None;
    };
    let mut command = Command::new("node");
    command.arg(root().join("tests/pages").join(name));
    command.env("NODE_PATH", modules).env("CHROMIUM", chromium);
    command.env("GATEWAY", &network.ready.gateway).env("CHAIN", &network.ready.chain_rpc);
    command.env("PICTURES", root().join("target/pictures"));
    Some(command)
}

/// Runs it to its end; every scenario it reports held, and there were so many.
fn run(mut command: Command, scenarios_min: usize) {
    let output = command.output().expect("node runs");
    let told = String::from_utf8_lossy(&output.stdout);
    let mut count = 0;
    for line in told.lines() {
        let scenario: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(scenario["problem"], Value::Null, "{}: {}", scenario["name"], scenario["problem"]);
        count += 1;
    }
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(count >= scenarios_min, "only {count} scenarios ran:\n{told}");
}

#[test]
fn people_ask_pay_and_check() {
    let dir = tempfile::tempdir().expect("a directory");
    let network = Network::up(NetworkOptions { data: &dir.path().join("data"), story: false });
    if let Some(command) = script("pages.mjs", &network) {
        run(command, 18);
    }
}

#[test]
fn a_conversation_outlives_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = free.local_addr().expect("bound").port();
    drop(free);
    let options = NetworkOptions { data: &data, story: false };
    let network = Network::up_at(options, port);
    let Some(mut command) = script("restart.mjs", &network) else { return };
    let mut script = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("node runs");
    let mut told = BufReader::new(script.stdout.take().expect("piped"));
    let mut line = String::new();
    told.read_line(&mut line).expect("text");
    assert_eq!(line.trim(), "writing", "an answer is being written");
    network.interrupt();
    let _again = Network::up_at(options, port);
    script.stdin.take().expect("piped").write_all(b"up\n").expect("told");
    line.clear();
    told.read_line(&mut line).expect("text");
    let ended = script.wait().expect("it ends");
    assert!(ended.success() && line.trim() == "held", "{line}");
}
