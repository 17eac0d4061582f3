//! Attacks by an operator, on a running network: subjects that are not its own, receipts that it forges, answers that it
//! repeats, jobs of others. Nobody is charged, nobody is paid, and the customer gets an answer or a clear error.

use futures::StreamExt;
use network_tests::faults::signal;
use network_tests::hostile::{Hostile, connect, frame, sign_with};
use network_tests::network::chat_body;
use network_tests::{Network, NetworkOptions};
use nkeys::KeyPair;
use protocol::id::{Hash32, JobId};
use protocol::job_message::{JobOffer, ResultMessage};
use protocol::receipt::Receipt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the server may take to say no, or a message to arrive where it must not.
const QUIET: Duration = Duration::from_millis(300);

fn account(network: &Network) -> String {
    let (status, opened) = network.call_as("", "POST", "/v1/accounts", Some(json!({})));
    assert_eq!(status, 201, "{opened}");
    opened["api_key"].as_str().expect("a key").to_owned()
}

/// Until every job goes to the hostile node: the network's own worker is silent, others have left.
fn wait_alone(network: &Network, hostile: &Hostile, left: &[String]) {
    let begun = Instant::now();
    loop {
        let (_, nodes) = network.call("GET", "/v1/nodes", None);
        let nodes_online =
            nodes["data"].as_array().expect("nodes").iter().filter(|node| node["online"] == true);
        let online = nodes_online.filter_map(|node| node["node"].as_str());
        let online: Vec<&str> = online.filter(|node| !left.iter().any(|gone| gone == node)).collect();
        if online == [hostile.node.to_string()] {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{nodes}");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

type Cheat<'a> = (&'a str, &'a dyn Fn(&Hostile, &JobOffer));

#[test]
fn a_lying_node_is_not_paid_and_nobody_is_charged() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let network = Network::up(NetworkOptions { data: &data, story: false });
    signal(network.ready.pids.worker, "STOP");
    let before = network.available();
    let input = |network: &Network| {
        let (status, quote) = network.call("POST", "/v1/quote", Some(chat_body("Say yes.", 8, false)));
        assert_eq!(status, 200, "{quote}");
        quote["input_tokens"].as_u64().or(quote["usage"]["prompt_tokens"].as_u64()).unwrap_or(0)
    };
    let input = input(&network);
    let another = Arc::new(KeyPair::new_user());
    let honest = |h: &Hostile, o: &JobOffer, tokens| h.receipt(o, input, tokens);
    let end = |h: &Hostile, o: &JobOffer, receipt: &Receipt| {
        h.send(o, &[frame(0, 5), Hostile::done(1, &h.sign(receipt))])
    };
    let cheats: [Cheat<'_>; 9] = [
        ("more tokens than came", &|h, o| end(h, o, &honest(h, o, 7))),
        ("an output that was not relayed", &|h, o| end(h, o, &honest(h, o, 1))),
        ("another job's receipt", &|h, o| end(h, o, &Receipt { job: JobId([7; 16]), ..honest(h, o, 1) })),
        ("another attempt's receipt", &|h, o| {
            end(h, o, &Receipt { attempt: o.attempt + 1, ..honest(h, o, 1) })
        }),
        ("another body", &|h, o| end(h, o, &Receipt { body: Hash32([1; 32]), ..honest(h, o, 1) })),
        ("another's signature", &|h, o| {
            let signed = sign_with(&another, &honest(h, o, 1));
            h.send(o, &[frame(0, 5), Hostile::done(1, &signed)]);
        }),
        ("a frame again", &|h, o| {
            h.send(o, &[frame(0, 5), frame(0, 5), Hostile::done(2, &h.sign(&honest(h, o, 2)))])
        }),
        ("a frame left out", &|h, o| h.send(o, &[frame(1, 5), Hostile::done(1, &h.sign(&honest(h, o, 1)))])),
        ("noise", &|h, o| {
            h.send(
                o,
                &[
                    Hostile::done(0, b"\xff\xff\xff"),
                    ResultMessage::Failed { seq: 9, detail: "x".repeat(70_000) },
                ],
            )
        }),
    ];
    let mut left = Vec::new();
    for (what, cheat) in &cheats {
        // Somebody new each time: after a few failures a node gets no jobs.
        let mut hostile = Hostile::register(&network, &account(&network));
        wait_alone(&network, &hostile, &left);
        let cheated = cheat_once(&network, &mut hostile, input, cheat);
        left.push(hostile.node.to_string());
        hostile.leave();
        let (status, answer) = cheated;
        assert!(status >= 500, "{what}: {status} {answer}");
        eventually(what, || network.held() == 0);
        assert_eq!(network.available(), before, "{what}: somebody was charged");
    }
    signal(network.ready.pids.worker, "CONT");
    eventually("the honest worker serves", || network.chat("Say yes.", 4).0 == 200);
    assert!(network.interrupt().success());
    let report = network_tests::check::audit_replay(&data);
    assert_eq!(report["verdict"], "passed", "{report}");
}

/// One call; every attempt of its job comes to the hostile node, and is cheated on.
fn cheat_once(
    network: &Network,
    hostile: &mut Hostile,
    input: u64,
    cheat: &dyn Fn(&Hostile, &JobOffer),
) -> (u16, Value) {
    let mut offers = 0;
    let answer = std::thread::scope(|scope| {
        let call = scope.spawn(|| network.chat("Say yes.", 8));
        while !call.is_finished() {
            let Some(offer) = hostile.offer_within(Duration::from_millis(50)) else { continue };
            offers += 1;
            hostile.accept(&offer);
            cheat(hostile, &offer);
            // A late copy on the receipt subject, as after a crash.
            hostile.publish_receipt(&offer, hostile.sign(&hostile.receipt(&offer, input, 8)));
        }
        call.join().expect("the call ends")
    });
    assert!(offers > 0, "no offer came: nothing was tried");
    answer
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

#[test]
fn an_operators_credentials_reach_its_own_subjects_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let network = Network::up(NetworkOptions { data: &dir.path().join("data"), story: false });
    let (a_owner, b_owner) = (account(&network), account(&network));
    let a = Hostile::register(&network, &a_owner);
    let b = Hostile::register(&network, &b_owner);
    let before = position(&network);
    subjects_of_others_are_denied(&a, &b);
    keys_must_fit(&network, &a, &b);
    someone_elses_node_is_not_taken_over(&network, &a_owner, &b);
    assert_eq!(position(&network), before, "no event came of it");
    let (status, answer) = network.chat("Name the capital of France.", 4);
    assert_eq!(status, 200, "{answer}");
}

/// Events in the log, as the gateway counts them.
fn position(network: &Network) -> u64 {
    let (_, metrics) = network.call("GET", "/metrics", None);
    let text = metrics.as_str().expect("text");
    let line = text.lines().find(|line| line.starts_with("counterfoil_log_events ")).expect("a position");
    line.rsplit(' ').next().and_then(|number| number.parse::<f64>().ok()).expect("a number") as u64
}

fn subjects_of_others_are_denied(a: &Hostile, b: &Hostile) {
    let forbidden = [
        "ledger.0".to_owned(),
        "cmd.0".into(),
        "lease.0".into(),
        "feed.log.deposit_confirmed".into(),
        format!("feed.operator.{}.usage_captured", a.operator),
        format!("feed.operator.{}.x", b.operator),
        format!("job.{}.{}.offer", a.operator, a.node),
        format!("job.{}.{}.offer", b.operator, b.node),
        format!("result.{}.{}.gw0.job_x.0", b.operator, b.node),
        format!("hb.{}.{}", b.operator, b.node),
        format!("receipt.{}.job_x.0", b.operator),
        format!("_INBOX_{}.x", b.operator),
        "$JS.API.STREAM.DELETE.LEDGER_0".into(),
        "$JS.API.STREAM.PURGE.LEDGER_0".into(),
        "$JS.API.STREAM.MSG.GET.LEDGER_0".into(),
        "$JS.API.STREAM.MSG.GET.RECEIPTS".into(),
        "$JS.API.CONSUMER.CREATE.LEDGER_0".into(),
        "$SYS.REQ.SERVER.PING".into(),
        "$SYS.ACCOUNT.LEDGER.CLAIMS.UPDATE".into(),
    ];
    b.block_on(async {
        for subject in &forbidden {
            a.client.publish(subject.clone(), "x".into()).await.expect("it leaves us");
            let wait = tokio::time::timeout(QUIET, a.client.request(subject.clone(), "{}".into())).await;
            assert!(!matches!(wait, Ok(Ok(_))), "{subject} was answered");
        }
        // Everything that b and the network say: nothing of it reaches a.
        for subject in [
            ">",
            "job.>",
            "result.>",
            "hb.>",
            "receipt.>",
            "cmd.>",
            "feed.>",
            "ledger.>",
            "_INBOX.>",
            "$SYS.>",
        ] {
            let mut heard = a.client.subscribe(subject.to_owned()).await.expect("it leaves us");
            b.client.publish(format!("hb.{}.{}", b.operator, b.node), "{}".into()).await.expect("its own");
            b.client.flush().await.expect("the server answers");
            let wait = tokio::time::timeout(QUIET, heard.next()).await;
            assert!(!matches!(wait, Ok(Some(_))), "{subject} was heard");
        }
    });
}

fn keys_must_fit(network: &Network, a: &Hostile, b: &Hostile) {
    let url = &network.ready.nats;
    let stranger = Arc::new(KeyPair::new_user());
    let forged = {
        let mut parts: Vec<String> = a.jwt.split('.').map(str::to_owned).collect();
        let base64 = data_encoding::BASE64URL_NOPAD;
        let claims = base64.decode(parts[1].as_bytes()).expect("a JWT");
        let claims = String::from_utf8(claims)
            .expect("text")
            .replace(&a.operator.to_string(), &b.operator.to_string());
        parts[1] = base64.encode(claims.as_bytes());
        parts.join(".")
    };
    a.block_on(async {
        let tries = [
            ("a's JWT with b's key", connect(url, &a.jwt, &b.key, &a.operator).await),
            ("a's JWT with a new key", connect(url, &a.jwt, &stranger, &a.operator).await),
            ("claims that were changed after signing", connect(url, &forged, &b.key, &b.operator).await),
            ("no JWT", async_nats::connect(url).await),
            (
                "a password",
                async_nats::ConnectOptions::with_user_and_password("a".into(), "b".into()).connect(url).await,
            ),
        ];
        for (what, tried) in tries {
            assert!(tried.is_err(), "{what} was let in");
        }
    });
}

fn someone_elses_node_is_not_taken_over(network: &Network, a_owner: &str, b: &Hostile) {
    for operator in [b.operator.to_string(), KeyPair::new_user().public_key()] {
        let body = json!({"node": b.node, "operator": operator, "models": ["x"], "slots": 1, "sealing_key": "33".repeat(32)});
        let (status, answer) = network.call_as(a_owner, "POST", "/v1/nodes", Some(body));
        assert_eq!(status, 403, "{answer}");
    }
    let body =
        json!({"operator": b.operator, "payout_address": "0x00000000000000000000000000000000000000ff"});
    let (status, answer) = network.call_as(a_owner, "POST", "/v1/operators", Some(body));
    assert!([400, 403, 409, 422].contains(&status), "{status} {answer}");
    assert!(answer.get("nats_jwt").is_none() && !Value::to_string(&answer).contains("eyJ"), "{answer}");
}
