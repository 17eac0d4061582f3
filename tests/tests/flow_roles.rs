//! `counterfoil serve`: sequencer, standby, two gateways and the projector, each a process of its own on one nats-server. The
//! leader is killed with kill -9 under load: the standby goes on, nothing that a customer was told is lost.

use network_tests::check::audit_replay;
use network_tests::faults::signal;
use network_tests::network::command;
use network_tests::roles::{Broker, Role, http};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// From the signal to the next answer of a gateway: the lease's lapse, opening the log, one commit; on a busy machine.
const TAKEOVER_MAX: Duration = Duration::from_secs(5);

fn write(dir: &Path, name: &str, table: &str, broker: &Broker) -> String {
    let path = dir.join(name);
    std::fs::write(&path, format!("nats_url = \"{}\"\n{table}", broker.url())).unwrap();
    path.to_str().unwrap().to_owned()
}

fn sequencer(dir: &Path, name: &str, broker: &Broker) -> Role {
    let preset = network_tests::network::root().join("presets/prepaid.toml");
    let table = format!(
        "roles = [\"sequencer\"]\n[sequencer]\ncredentials_file = \"broker/keys/writer.creds\"\ndata_dir = \"{name}\"\n\
         archive_copy = \"file://{}\"\n\
         genesis = {{ origin = \"roles.test/prepaid/0\", preset_file = \"{}\" }}\n",
        dir.join("copy").display(),
        preset.display()
    );
    Role::start(&write(dir, &format!("{name}.toml"), &table, broker))
}

fn gateway(dir: &Path, name: &str, broker: &Broker) -> (Role, String) {
    let root = network_tests::network::root();
    let model = std::env::var("COUNTERFOIL_MODEL")
        .unwrap_or_else(|_| root.join(".tools/models/SmolLM2-135M-Instruct.Q4_1.gguf").display().to_string());
    let table = format!(
        "roles = [\"gateway\"]\n[gateway]\ncredentials_file = \"broker/keys/gateway.creds\"\ndata_dir = \"{name}\"\n\
         secrets_dir = \"secrets\"\nlisten = \"127.0.0.1:0\"\nname = \"{name}\"\n\
         operator_keys_dir = \"broker/keys\"\npreset_file = \"{}\"\n\
         models = [{{ name = \"SmolLM2-135M-Instruct\", path = \"{model}\" }}]\n",
        root.join("presets/prepaid.toml").display()
    );
    let mut role = Role::start(&write(dir, &format!("{name}.toml"), &table, broker));
    let url = role.says("listens")["url"].as_str().unwrap().to_owned();
    (role, url)
}

/// A customer with credit: account and key. The key belongs to this gateway.
fn customer(url: &str, admin: &str) -> (String, String) {
    let (status, opened) = http("POST", &format!("{url}/v1/accounts"), "", Some(json!({})));
    assert_eq!(status, 201, "{opened}");
    let text = |name: &str| opened[name].as_str().unwrap_or_else(|| panic!("{name} in {opened}")).to_owned();
    let (account, key) = (text("account"), text("api_key"));
    let grant = json!({"account": account, "amount": "1"});
    let (status, granted) = http("POST", &format!("{url}/v1/admin/grants"), admin, Some(grant));
    assert_eq!(status, 201, "{granted}");
    (account, key)
}

fn available(url: &str, key: &str) -> String {
    let (status, balance) = http("GET", &format!("{url}/v1/balance"), key, None);
    assert_eq!(status, 200, "{balance}");
    balance["balances"][0]["base_units"]["available"].as_str().expect("a figure").to_owned()
}

/// Opens accounts one after the other until it is told to stop; gives the keys it was told, and when each came.
fn load(url: &str, stop: &AtomicBool) -> Vec<(String, Instant)> {
    let mut told = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let (status, opened) = http("POST", &format!("{url}/v1/accounts"), "", Some(json!({})));
        match opened["api_key"].as_str() {
            Some(key) if status == 201 => told.push((key.to_owned(), Instant::now())),
            _ => assert!(status >= 500, "only unavailability is an excuse: {status} {opened}"),
        }
    }
    told
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

#[test]
fn two_gateways_one_sequencer_and_a_standby_that_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let broker = Broker::start(dir);
    let mut first = sequencer(dir, "a", &broker);
    assert_eq!(first.says("leads")["term"], 1);
    let mut second = sequencer(dir, "b", &broker);
    second.says("stands_by");
    let (one, one_url) = gateway(dir, "gw1", &broker);
    let (two, two_url) = gateway(dir, "gw2", &broker);
    let table = "roles = [\"projector\"]\n[projector]\ncredentials_file = \"broker/keys/projector.creds\"\ndata_dir = \"follower\"\n\
                 keys_dir = \"signer\"\n";
    let mut projector = Role::start(&write(dir, "projector.toml", table, &broker));
    projector.says("follows");
    let admin = std::fs::read_to_string(dir.join("secrets/admin.key")).unwrap();
    let admin = admin.trim();

    // Two customers at two doors of one ledger.
    let customers = [(&one_url, customer(&one_url, admin)), (&two_url, customer(&two_url, admin))];
    for (url, (_, key)) in &customers {
        assert_eq!(available(url, key), "1000000000");
    }
    // What one gateway did the other one sees: a grant by the second to the first one's customer.
    let grant = json!({"account": customers[0].1.0, "amount": "2"});
    let (status, granted) = http("POST", &format!("{two_url}/v1/admin/grants"), admin, Some(grant));
    assert_eq!(status, 201, "{granted}");
    wait_until("the first gateway follows", || available(&one_url, &customers[0].1.1) == "3000000000");

    let stop = AtomicBool::new(false);
    let (killed, told) = std::thread::scope(|scope| {
        let loads = [&one_url, &two_url].map(|url| scope.spawn(|| load(url, &stop)));
        std::thread::park_timeout(Duration::from_millis(1_500));
        signal(first.pid(), "KILL");
        let killed = Instant::now();
        assert_eq!(second.says("leads")["term"], 2);
        std::thread::park_timeout(Duration::from_millis(2_000));
        stop.store(true, Ordering::Relaxed);
        (killed, loads.map(|load| load.join().expect("a load's thread")))
    });
    for (told, url) in told.iter().zip([&one_url, &two_url]) {
        let (before, after): (Vec<_>, Vec<_>) = told.iter().partition(|(_, at)| *at < killed);
        assert!(!before.is_empty() && !after.is_empty(), "{} before, {} after", before.len(), after.len());
        // An answer on its way when the leader died may still have arrived: the longest gap is the takeover.
        let gap = told.windows(2).map(|pair| pair[1].1 - pair[0].1).max().unwrap();
        println!("{url}: {} before, {} after, longest gap {} ms", before.len(), after.len(), gap.as_millis());
        assert!(gap < TAKEOVER_MAX, "{gap:?}");
        for (key, _) in told {
            let (status, balance) = http("GET", &format!("{url}/v1/balance"), key, None);
            assert_eq!(status, 200, "an account that was promised: {balance}");
        }
    }
    for (url, (_, key)) in customers.iter().skip(1) {
        assert_eq!(available(url, key), "1000000000");
    }

    // The one that died comes back, and stands by.
    let mut again = sequencer(dir, "a", &broker);
    again.says("stands_by");
    let promised = told.iter().map(Vec::len).sum::<usize>() as u64;
    wait_until("the projector signs everything that was promised", || published_size(dir) > promised);
    for role in [one, two, projector, again, second] {
        assert!(role.interrupt().success());
    }
    // What the projector published is a whole log to an auditor, across the change of writers.
    let report: Value = audit_replay(&dir.join("follower"));
    assert!(report["events"].as_u64() > Some(promised), "{report}");
}

/// How many events the newest checkpoint covers.
fn published_size(dir: &Path) -> u64 {
    let note = std::fs::read_to_string(dir.join("follower/tlog/checkpoint")).unwrap_or_default();
    note.lines().nth(1).and_then(|size| size.parse().ok()).unwrap_or(0)
}

#[test]
fn a_configuration_is_checked_without_serving() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("serve.toml");
    let text = "nats_url = \"nats://127.0.0.1:4222\"\nroles = [\"sequencer\"]\n[sequencer]\n\
                credentials_file = \"writer.creds\"\ndata_dir = \"data\"\n";
    std::fs::write(&path, text).unwrap();
    let check = |more: &[&str]| {
        let path = path.to_str().unwrap();
        let output =
            command().args(["--json", "serve", "--check", "--config", path]).args(more).output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (code, words) = check(&[]);
    assert!(code == Some(0) && words.contains("sequencer"), "{words}");
    let (code, words) = check(&["--roles", "settler"]);
    assert!(code == Some(2) && words.contains("[settler]"), "{words}");
    std::fs::write(&path, text.replace("data_dir", "data_dri")).unwrap();
    let (code, words) = check(&[]);
    assert!(code == Some(2) && words.contains("data_dri"), "{words}");
    assert!(!dir.path().join("data").exists(), "nothing was made");
}
