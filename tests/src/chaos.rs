//! Rounds of chaos on a network of roles under load: a process is killed with kill -9 or stopped for a while, chosen by
//! seed; then the service must come back. At the end every client's own notes are compared with what the network says, and
//! the published log is audited. Must not: look into processes.

use crate::check::audit_replay;
use crate::cluster::{Cluster, wait_until};
use crate::faults::signal;
use crate::roles::http;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A grant, base units of nine decimals.
const GRANT_BASE_UNITS: u64 = 1_000_000;
/// Pause of one client between two calls: load enough, and a machine that still moves.
const CLIENT_PAUSE: Duration = Duration::from_millis(15);
/// How long a process is stopped: longer than the lease.
const STOPPED_MS: u64 = 2_500;

/// What is done to the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blow {
    /// kill -9 of the sequencer that leads.
    KillLeader,
    /// kill -9 of the one that stands by.
    KillStandby,
    /// kill -9 of a gateway, with its streams.
    KillGateway,
    /// kill -9 of the projector.
    KillProjector,
    /// kill -9 of the worker.
    KillWorker,
    /// kill -9 of nats-server.
    KillBroker,
    /// SIGSTOP of the leader until another one leads, then SIGCONT: it must find itself fenced.
    StopLeader,
}

impl Blow {
    /// Every one, each as often as it is drawn.
    const DRAWN: [Blow; 12] = [
        Blow::KillLeader,
        Blow::KillLeader,
        Blow::KillStandby,
        Blow::KillGateway,
        Blow::KillGateway,
        Blow::KillProjector,
        Blow::KillWorker,
        Blow::KillWorker,
        Blow::KillBroker,
        Blow::KillBroker,
        Blow::KillGateway,
        Blow::StopLeader,
    ];
}

/// What the rounds came to.
#[derive(Debug, Default)]
pub struct Told {
    /// Rounds.
    pub rounds: u64,
    /// Accounts that clients were told of.
    pub accounts: u64,
    /// Grants that clients were told of, each asked for until it was certain.
    pub grants: u64,
    /// Calls that ended without a certain answer, and were repeated.
    pub uncertain: u64,
    /// Whole answers of the model.
    pub answers: u64,
    /// Longest time until an account could be opened at both doors again.
    pub longest: Duration,
    /// Sum of these times.
    pub waited: Duration,
}

/// What a client was told.
struct Notes {
    gateway: usize,
    account: String,
    key: String,
    grants: u64,
    accounts: Vec<String>,
    uncertain: u64,
}

/// Runs so many rounds from a seed in a folder, then checks everything; panics with what does not hold.
pub fn run(dir: &Path, rounds: u64, seed: u64) -> Told {
    let cluster = RwLock::new(Cluster::start(dir));
    let stop = AtomicBool::new(false);
    let mut told = Told { rounds, ..Told::default() };
    let mut leader = 0;
    let mut seed = seed;
    let (notes, spent) = std::thread::scope(|scope| {
        let granters: Vec<_> = (0..2)
            .map(|gateway| {
                scope.spawn({
                    let (cluster, stop) = (&cluster, &stop);
                    move || grant_and_open(cluster, gateway, stop)
                })
            })
            .collect();
        let prompter = scope.spawn(|| prompt(&cluster, &stop));
        for round in 0..rounds {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let blow = Blow::DRAWN[(seed >> 33) as usize % Blow::DRAWN.len()];
            let begun = Instant::now();
            let served = strike(&cluster, blow, &mut leader, (seed >> 20) as usize % 2);
            told.longest = told.longest.max(served);
            told.waited += served;
            println!(
                "round {round}: {blow:?}, served again after {} ms, {} ms in all",
                served.as_millis(),
                begun.elapsed().as_millis()
            );
        }
        stop.store(true, Ordering::Relaxed);
        let notes: Vec<Notes> = granters.into_iter().map(|thread| thread.join().expect("a client")).collect();
        (notes, prompter.join().expect("a client"))
    });
    let cluster = cluster.into_inner().expect("nobody panicked with it");
    for note in &notes {
        check_notes(&cluster, note);
        told.accounts += note.accounts.len() as u64;
        told.grants += note.grants;
        told.uncertain += note.uncertain;
    }
    told.answers = spent.answers;
    check_spending(&cluster, &spent);
    check_log(cluster, told.accounts);
    told
}

/// One blow, and until both gateways open accounts again.
fn strike(cluster: &RwLock<Cluster>, blow: Blow, leader: &mut usize, pick: usize) -> Duration {
    let mut at = Instant::now();
    match blow {
        Blow::KillLeader => {
            at = Instant::now();
            let old = *leader;
            cluster.write().expect("fine").sequencers[old].take();
            next_leader(cluster, leader);
            cluster.write().expect("fine").start_sequencer(old);
        }
        Blow::KillStandby => {
            let mut cluster = cluster.write().expect("fine");
            cluster.sequencers[1 - *leader].take();
            cluster.start_sequencer(1 - *leader);
        }
        Blow::KillGateway => {
            let mut cluster = cluster.write().expect("fine");
            cluster.gateways[pick].take();
            cluster.start_gateway(pick);
        }
        Blow::KillProjector => {
            let mut cluster = cluster.write().expect("fine");
            cluster.projector.take();
            cluster.start_projector();
        }
        Blow::KillWorker => {
            let mut cluster = cluster.write().expect("fine");
            if let Some(mut worker) = cluster.worker.take() {
                worker.kill().and_then(|()| worker.wait()).expect("it can be killed");
            }
            cluster.start_worker();
        }
        Blow::KillBroker => {
            cluster.write().expect("fine").broker.kill_and_restart();
        }
        Blow::StopLeader => {
            let old = *leader;
            let pid = cluster.read().expect("fine").sequencers[old].as_ref().expect("it runs").pid();
            signal(pid, "STOP");
            std::thread::park_timeout(Duration::from_millis(STOPPED_MS));
            next_leader(cluster, leader);
            signal(pid, "CONT");
            cluster.write().expect("fine").sequencers[old].as_mut().expect("it runs").says("was_superseded");
        }
    }
    let cluster = cluster.read().expect("fine");
    for gateway in 0..2 {
        let url = format!("{}/v1/accounts", cluster.url(gateway));
        wait_until("accounts can be opened", || http("POST", &url, "", Some(json!({}))).0 == 201);
    }
    at.elapsed()
}

fn next_leader(cluster: &RwLock<Cluster>, leader: &mut usize) {
    *leader = 1 - *leader;
    // Taken out, so that clients go on meanwhile.
    let mut standby = cluster.write().expect("fine").sequencers[*leader].take().expect("it stands by");
    standby.says("leads");
    cluster.write().expect("fine").sequencers[*leader] = Some(standby);
}

/// Asks for one grant after the other, each under its own key until it is certain; and opens accounts.
fn grant_and_open(cluster: &RwLock<Cluster>, gateway: usize, stop: &AtomicBool) -> Notes {
    let mut notes = Notes {
        gateway,
        account: String::new(),
        key: String::new(),
        grants: 0,
        accounts: Vec::new(),
        uncertain: 0,
    };
    (notes.account, notes.key) = customer(cluster, gateway, None);
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let (url, admin) = door(cluster, gateway);
        let body = json!({"account": notes.account, "amount": "0.001"});
        // The same key at either door is the same grant.
        let idempotency = format!("chaos-{gateway}-{number}");
        loop {
            let (url, admin) = if notes.uncertain % 2 == 1 {
                door(cluster, 1 - gateway)
            } else {
                (url.clone(), admin.clone())
            };
            let (status, answer) = granted(&format!("{url}/v1/admin/grants"), &admin, &idempotency, &body);
            if status == 201 {
                notes.grants += 1;
                break;
            }
            assert!(status >= 500, "only unavailability is an excuse: {status} {answer}");
            notes.uncertain += 1;
            std::thread::park_timeout(CLIENT_PAUSE * 4);
        }
        let (status, opened) =
            http("POST", &format!("{}/v1/accounts", door(cluster, gateway).0), "", Some(json!({})));
        match opened["api_key"].as_str() {
            Some(key) if status == 201 => notes.accounts.push(key.to_owned()),
            _ => assert!(status >= 500, "only unavailability is an excuse: {status} {opened}"),
        }
        std::thread::park_timeout(CLIENT_PAUSE);
    }
    notes
}

fn granted(url: &str, admin: &str, idempotency: &str, body: &Value) -> (u16, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let request = ureq::http::Request::builder()
        .method("POST")
        .uri(url)
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {admin}"))
        .header("idempotency-key", idempotency)
        .body(body.to_string().into_bytes())
        .expect("a request of ours is well-formed");
    match agent.run(request) {
        Ok(mut response) => {
            let status = response.status().as_u16();
            let bytes = response.body_mut().read_to_vec().unwrap_or_default();
            (status, serde_json::from_slice(&bytes).unwrap_or_default())
        }
        Err(error) => (599, Value::String(error.to_string())),
    }
}

fn door(cluster: &RwLock<Cluster>, gateway: usize) -> (String, String) {
    let cluster = cluster.read().expect("fine");
    (cluster.url(gateway), cluster.admin().to_owned())
}

/// An account at a gateway, with credit; asked for until it is there.
fn customer(cluster: &RwLock<Cluster>, gateway: usize, credit: Option<&str>) -> (String, String) {
    let opened = AtomicU64::new(0);
    loop {
        let (url, admin) = door(cluster, gateway);
        let (status, answer) = http("POST", &format!("{url}/v1/accounts"), "", Some(json!({})));
        let text = |name: &str| answer[name].as_str().map(str::to_owned);
        if let (201, Some(account), Some(key)) = (status, text("account"), text("api_key")) {
            let Some(amount) = credit else { return (account, key) };
            let body = json!({"account": account, "amount": amount});
            let key_of_grant = format!("credit-{account}");
            wait_until("credit is given", || {
                granted(
                    &format!("{}/v1/admin/grants", door(cluster, gateway).0),
                    &admin,
                    &key_of_grant,
                    &body,
                )
                .0 == 201
            });
            return (account, key);
        }
        assert!(opened.fetch_add(1, Ordering::Relaxed) < 1_000, "no account: {status} {answer}");
        std::thread::park_timeout(CLIENT_PAUSE * 4);
    }
}

/// What the prompter was told.
struct Spent {
    key: String,
    answers: u64,
    tokens: u64,
    asked: u64,
}

/// Sends short prompts one after the other.
fn prompt(cluster: &RwLock<Cluster>, stop: &AtomicBool) -> Spent {
    let (_, key) = customer(cluster, 0, Some("50"));
    let mut spent = Spent { key, answers: 0, tokens: 0, asked: 0 };
    while !stop.load(Ordering::Relaxed) {
        spent.asked += 1;
        let (url, _) = door(cluster, 0);
        let body = crate::network::chat_body("Name three colours.", 8, false);
        let (status, answer) = http("POST", &format!("{url}/v1/chat/completions"), &spent.key, Some(body));
        if status == 200 {
            spent.answers += 1;
            spent.tokens += answer["usage"]["total_tokens"].as_u64().expect("a count");
        } else {
            assert!(status >= 429, "only unavailability is an excuse: {status} {answer}");
            std::thread::park_timeout(CLIENT_PAUSE * 8);
        }
    }
    spent
}

fn balance(cluster: &Cluster, gateway: usize, key: &str, figure: &str) -> Option<i128> {
    let (status, answer) = http("GET", &format!("{}/v1/balance", cluster.url(gateway)), key, None);
    let text = answer["balances"][0]["base_units"][figure].as_str().map(str::to_owned);
    (status == 200).then(|| text.map_or(0, |text| text.parse().expect("an integer")))
}

fn check_notes(cluster: &Cluster, notes: &Notes) {
    let expected = i128::from(notes.grants * GRANT_BASE_UNITS);
    let mut seen = None;
    wait_until("the balance can be read", || {
        seen = balance(cluster, notes.gateway, &notes.key, "available");
        seen.is_some()
    });
    assert_eq!(seen, Some(expected), "{} grants were acknowledged to {}", notes.grants, notes.account);
    for key in &notes.accounts {
        let mut status = 0;
        wait_until("an account can be asked", || {
            status = http("GET", &format!("{}/v1/balance", cluster.url(notes.gateway)), key, None).0;
            status < 500
        });
        assert_eq!(status, 200, "an account that was promised is not there");
    }
}

fn check_spending(cluster: &Cluster, spent: &Spent) {
    // Captured, released, or expired: what a process left open when it died ends with its deadline.
    wait_until("no hold is left", || balance(cluster, 0, &spent.key, "held") == Some(0));
    let left = balance(cluster, 0, &spent.key, "available").expect("the gateway answers");
    let paid = 50_000_000_000 - left;
    let whole = i128::from(spent.tokens) * 4_000;
    assert!(paid >= whole, "every whole answer is charged: {paid} for {whole}");
    // A prompt of at most 60 tokens and 8 more: what broke off is charged for what was delivered, never more.
    let most = whole + i128::from(spent.asked - spent.answers) * 68 * 4_000;
    assert!(paid <= most, "no answer is charged twice: {paid} of at most {most}");
}

fn check_log(mut cluster: Cluster, accounts: u64) {
    let published = cluster.published();
    let size = || {
        let note = std::fs::read_to_string(published.join("tlog/checkpoint")).unwrap_or_default();
        note.lines().nth(1).and_then(|size| size.parse::<u64>().ok()).unwrap_or(0)
    };
    wait_until("everything that was promised is published", || size() > accounts);
    for role in cluster.gateways.iter_mut().chain([&mut cluster.projector]).chain(&mut cluster.sequencers) {
        if let Some(role) = role.take() {
            assert!(role.interrupt().success(), "it ends in order");
        }
    }
    let report = audit_replay(&published);
    assert!(report["events"].as_u64() > Some(accounts), "{report}");
}
