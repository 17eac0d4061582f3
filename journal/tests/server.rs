//! The real nats-server: start, stop, kill, ports, orphans; streams made and verified; what each role may not do.

use async_nats::jetstream;
use futures::StreamExt;
use journal::auth::{Credentials, Denials, Keys, Role, connect, connect_noting};
use journal::server::{NatsServer, NatsServerOptions, PortChoice, ServerError, find_nats_server};
use journal::stream::{
    FEED_STREAM, LEDGER_STREAM, LEDGER_SUBJECT, RECEIPTS_CONSUMER, RECEIPTS_STREAM, init_streams,
    stream_configs, verify_streams, verify_sync_always,
};
use std::path::Path;
use std::time::Duration;

/// How long a denied request is waited for; the denial itself arrives at once.
const DENIED_REQUEST: Duration = Duration::from_millis(1_500);

fn options(data_dir: &Path, port: PortChoice) -> NatsServerOptions {
    let binary = find_nats_server().expect("run cargo xtask tools");
    NatsServerOptions { binary, data_dir: data_dir.to_owned(), port }
}

async fn server(data_dir: &Path) -> NatsServer {
    NatsServer::start(options(data_dir, PortChoice::Any)).await.expect("nats-server starts")
}

async fn with_streams(data_dir: &Path) -> NatsServer {
    let server = server(data_dir).await;
    let init = connect(&server.url(), &server.keys().init_credentials().unwrap()).await.unwrap();
    init_streams(&init).await.unwrap();
    server
}

async fn client(server: &NatsServer, role: Role) -> async_nats::Client {
    connect(&server.url(), server.keys().credentials(role)).await.unwrap()
}

fn operator(server: &NatsServer) -> (Credentials, String) {
    let pair = nkeys::KeyPair::new_user();
    let jwt = server.keys().issue_operator(&pair.public_key()).unwrap();
    (Credentials::new("operator", &jwt, &pair.seed().unwrap()).unwrap(), pair.public_key())
}

/// Publishes and expects the server to deny it.
async fn expect_publish_denied(client: &async_nats::Client, denials: &Denials, subject: &str) {
    client.publish(subject.to_owned(), "{}".into()).await.unwrap();
    client.flush().await.unwrap();
    let text = tokio::time::timeout(Duration::from_secs(5), denials.next()).await;
    let text = text.unwrap_or_else(|_| panic!("publish to {subject} was not denied"));
    assert!(text.to_lowercase().contains("publish") && text.contains(subject), "{subject}: {text}");
}

async fn expect_subscribe_denied(client: &async_nats::Client, denials: &Denials, subject: &str) {
    let _subscription = client.subscribe(subject.to_owned()).await.unwrap();
    client.flush().await.unwrap();
    let text = tokio::time::timeout(Duration::from_secs(5), denials.next()).await;
    let text = text.unwrap_or_else(|_| panic!("subscribe to {subject} was not denied"));
    assert!(text.to_lowercase().contains("subscription") && text.contains(subject), "{subject}: {text}");
}

#[tokio::test]
async fn kill_and_restart_keep_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = with_streams(dir.path()).await;
    let writer = client(&server, Role::Writer).await;
    let js = jetstream::new(writer.clone());
    let (port, pid) = (server.port(), server.pid());
    for n in 1..=50u64 {
        let ack = js.publish(LEDGER_SUBJECT, format!("commit {n}").into()).await.unwrap().await.unwrap();
        assert_eq!(ack.sequence, n);
        if n % 20 == 0 {
            server.restart().await.unwrap();
        }
    }
    assert_eq!(server.port(), port);
    assert_ne!(server.pid(), pid);
    verify_streams(&writer).await.unwrap();
    let stream = js.get_stream(LEDGER_STREAM).await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 50);
    for n in 1..=50u64 {
        let message = stream.get_raw_message(n).await.unwrap();
        assert_eq!(message.payload, format!("commit {n}"));
    }
    server.stop().await.unwrap();
    assert_eq!(server.pid(), None);
    server.restart().await.unwrap();
    assert_eq!(js.get_stream(LEDGER_STREAM).await.unwrap().cached_info().state.messages, 50);
}

#[tokio::test]
async fn fencing_refuses_a_second_message_at_the_same_place() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_streams(dir.path()).await;
    let js = jetstream::new(client(&server, Role::Writer).await);
    let at_zero = || jetstream::message::PublishMessage::build().expected_last_sequence(0);
    let first = js.send_publish(LEDGER_SUBJECT, at_zero().payload("a".into())).await.unwrap().await;
    assert_eq!(first.unwrap().sequence, 1);
    let second = js.send_publish(LEDGER_SUBJECT, at_zero().payload("b".into())).await.unwrap().await;
    let error = second.expect_err("fenced");
    assert_eq!(error.kind(), jetstream::context::PublishErrorKind::WrongLastSequence);
}

#[tokio::test]
async fn two_on_one_directory_and_ports() {
    let dir = tempfile::tempdir().unwrap();
    let first = server(dir.path()).await;
    let second = NatsServer::start(options(dir.path(), PortChoice::Any)).await;
    assert!(matches!(second, Err(ServerError::InUse { .. })), "{second:?}");
    let elsewhere = tempfile::tempdir().unwrap();
    let busy = NatsServer::start(options(elsewhere.path(), PortChoice::Explicit(first.port()))).await;
    let text = busy.expect_err("the port is taken").to_string();
    assert!(text.contains(&first.port().to_string()), "{text}");
}

#[tokio::test]
async fn default_port_falls_back_and_says_so() {
    // Whether 4222 is free here is not ours to say: take it when it is.
    let _taken = std::net::TcpListener::bind(("127.0.0.1", 4222));
    let dir = tempfile::tempdir().unwrap();
    let server = NatsServer::start(options(dir.path(), PortChoice::Default)).await.unwrap();
    assert_ne!(server.port(), 4222);
    assert!(server.port_note().is_some_and(|note| note.contains("4222")), "{:?}", server.port_note());
}

#[tokio::test]
async fn an_orphan_is_ended_and_its_data_served() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_streams(dir.path()).await;
    let js = jetstream::new(client(&server, Role::Writer).await);
    js.publish(LEDGER_SUBJECT, "kept".into()).await.unwrap().await.unwrap();
    let pid = server.pid().unwrap();
    let copy = tempfile::tempdir().unwrap();
    // A coordinator killed with -9 runs no destructor: the lock goes, the child stays. Here: a copy of the directory's
    // contents without the lock, in which the pid file and the command line point to a live server of that directory.
    std::fs::create_dir_all(copy.path().join("nats")).unwrap();
    let config = dir.path().join("nats/server.conf");
    let text = std::fs::read_to_string(&config).unwrap();
    let (from, to) = (dir.path().to_string_lossy(), copy.path().to_string_lossy());
    let other_port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let text = text
        .replace(&*from, &to)
        .replace(&format!("127.0.0.1:{}", server.port()), &format!("127.0.0.1:{other_port}"));
    let orphan_config = copy.path().join("nats/server.conf");
    std::fs::write(&orphan_config, text).unwrap();
    let mut orphan = tokio::process::Command::new(find_nats_server().unwrap())
        .arg("--config")
        .arg(&orphan_config)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    while !copy.path().join("nats/nats-server.pid").exists() {
        tokio::task::yield_now().await;
        assert!(orphan.try_wait().unwrap().is_none(), "the orphan ended by itself");
    }
    let reaper = tokio::spawn(async move { orphan.wait().await.unwrap() });
    let mut heir = NatsServer::start(options(copy.path(), PortChoice::Any)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), reaper).await.expect("the orphan was ended").unwrap();
    assert!(heir.pid().is_some());
    assert_eq!(server.pid(), Some(pid), "the other directory's server lives");
    heir.stop().await.unwrap();
}

#[tokio::test]
async fn a_stale_pid_file_hurts_nobody() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("nats")).unwrap();
    // Our own process number: alive, and not a nats-server.
    std::fs::write(dir.path().join("nats/nats-server.pid"), std::process::id().to_string()).unwrap();
    let server = server(dir.path()).await;
    assert!(server.pid().is_some());
}

#[tokio::test]
async fn streams_are_as_they_must_be_and_the_server_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_streams(dir.path()).await;
    verify_streams(&client(&server, Role::Writer).await).await.unwrap();
    verify_sync_always(&client(&server, Role::Monitor).await).await.unwrap();
    // Again: nothing is altered, nothing fails.
    let init = connect(&server.url(), &server.keys().init_credentials().unwrap()).await.unwrap();
    init_streams(&init).await.unwrap();
}

#[tokio::test]
async fn a_weaker_stream_is_refused_with_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path()).await;
    let writer = client(&server, Role::Writer).await;
    let absent = verify_streams(&writer).await.unwrap_err().to_string();
    assert!(absent.contains(LEDGER_STREAM) && absent.contains("init_streams"), "{absent}");
    let init = connect(&server.url(), &server.keys().init_credentials().unwrap()).await.unwrap();
    let js = jetstream::new(init.clone());
    let [mut ledger, feed, receipts] = stream_configs();
    ledger.deny_purge = false;
    for config in [ledger, feed, receipts] {
        js.create_stream(config).await.unwrap();
    }
    let error = verify_streams(&writer).await.unwrap_err().to_string();
    assert!(error.contains(LEDGER_STREAM) && error.contains("\"deny_purge\": true"), "{error}");
    let error = init_streams(&init).await.unwrap_err().to_string();
    assert!(error.contains(LEDGER_STREAM), "{error}");
}

#[tokio::test]
async fn no_running_role_can_weaken_or_cut_a_stream() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_streams(dir.path()).await;
    for role in [Role::Writer, Role::Projector, Role::Gateway, Role::Auditor] {
        let denials = Denials::default();
        let credentials = server.keys().credentials(role);
        let client = connect_noting(&server.url(), credentials, denials.clone()).await.unwrap();
        for stream in [LEDGER_STREAM, FEED_STREAM, RECEIPTS_STREAM] {
            for call in [
                "STREAM.CREATE",
                "STREAM.UPDATE",
                "STREAM.DELETE",
                "STREAM.PURGE",
                "STREAM.RESTORE",
                "STREAM.MSG.DELETE",
                "STREAM.PEER.REMOVE",
                "STREAM.LEADER.STEPDOWN",
            ] {
                expect_publish_denied(&client, &denials, &format!("$JS.API.{call}.{stream}")).await;
            }
        }
        if role != Role::Writer {
            expect_publish_denied(&client, &denials, LEDGER_SUBJECT).await;
        }
        if role != Role::Projector {
            expect_publish_denied(&client, &denials, "feed.log.hold_placed").await;
        }
        expect_subscribe_denied(&client, &denials, ">").await;
        expect_subscribe_denied(&client, &denials, "_INBOX_*.>").await;
        expect_publish_denied(&client, &denials, "$SYS.REQ.SERVER.PING").await;
    }
    let info = jetstream::new(client(&server, Role::Writer).await);
    assert!(info.get_stream(LEDGER_STREAM).await.is_ok(), "all streams still stand");
}

#[tokio::test]
async fn nobody_can_make_consumers_that_write() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_streams(dir.path()).await;
    for role in [Role::Auditor, Role::Gateway, Role::Projector, Role::Writer] {
        let denials = Denials::default();
        let credentials = server.keys().credentials(role);
        let client = connect_noting(&server.url(), credentials, denials.clone()).await.unwrap();
        for stream in [LEDGER_STREAM, FEED_STREAM, RECEIPTS_STREAM] {
            for call in
                ["CREATE.STREAM", "CREATE.STREAM.x", "DURABLE.CREATE.STREAM.x", "DELETE.STREAM.settlement"]
            {
                let subject = format!("$JS.API.CONSUMER.{}", call.replace("STREAM", stream));
                expect_publish_denied(&client, &denials, &subject).await;
            }
        }
    }
}

#[tokio::test]
async fn a_denied_request_is_a_time_out_and_a_denial() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_streams(dir.path()).await;
    let denials = Denials::default();
    let auditor = server.keys().credentials(Role::Auditor);
    let client = connect_noting(&server.url(), auditor, denials.clone()).await.unwrap();
    let mut js = jetstream::new(client);
    js.set_timeout(DENIED_REQUEST);
    assert!(js.delete_stream(LEDGER_STREAM).await.is_err());
    let texts = denials.take();
    assert!(texts.iter().any(|t| t.contains("STREAM.DELETE.LEDGER_0")), "{texts:?}");
}

#[tokio::test]
async fn an_auditor_reads_log_and_feed() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_streams(dir.path()).await;
    let writer = jetstream::new(client(&server, Role::Writer).await);
    writer.publish(LEDGER_SUBJECT, "commit".into()).await.unwrap().await.unwrap();
    let auditor = client(&server, Role::Auditor).await;
    let mut live = auditor.subscribe("feed.log.>").await.unwrap();
    auditor.flush().await.unwrap();
    let projector = jetstream::new(client(&server, Role::Projector).await);
    projector.publish("feed.log.x", "event".into()).await.unwrap().await.unwrap();
    assert_eq!(live.next().await.unwrap().payload, "event");
    let js = jetstream::new(auditor);
    let ledger = js.get_stream(LEDGER_STREAM).await.unwrap();
    assert_eq!(ledger.direct_get(1).await.unwrap().payload, "commit");
    assert_eq!(ledger.get_raw_message(1).await.unwrap().payload, "commit");
    let feed = js.get_stream(FEED_STREAM).await.unwrap();
    assert_eq!(feed.direct_get_last_for_subject("feed.log.x").await.unwrap().payload, "event");
}

#[tokio::test]
async fn operators_meet_gateways_and_never_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_streams(dir.path()).await;
    let ((a, a_key), (b, b_key)) = (operator(&server), operator(&server));
    let (a_denials, b_denials) = (Denials::default(), Denials::default());
    let a = connect_noting(&server.url(), &a, a_denials.clone()).await.unwrap();
    let b = connect_noting(&server.url(), &b, b_denials.clone()).await.unwrap();
    let gateway = client(&server, Role::Gateway).await;

    let mut results = gateway.subscribe("result.*.*.>").await.unwrap();
    let mut beats = gateway.subscribe("hb.>").await.unwrap();
    gateway.flush().await.unwrap();
    let mut jobs = b.subscribe(format!("job.{b_key}.>")).await.unwrap();
    let mut feed = b.subscribe(format!("feed.operator.{b_key}.>")).await.unwrap();
    b.flush().await.unwrap();
    for subject in [
        format!("job.{b_key}.>"),
        "job.*.>".into(),
        format!("job.{b_key}.node_1.offer"),
        ">".into(),
        "feed.log.>".into(),
        "feed.>".into(),
        format!("feed.operator.{b_key}.>"),
        "_INBOX.>".into(),
        format!("_INBOX_{b_key}.>"),
        "ledger.0".into(),
        "receipt.>".into(),
        format!("result.{a_key}.>"),
        "cmd.>".into(),
        "$SYS.>".into(),
    ] {
        expect_subscribe_denied(&a, &a_denials, &subject).await;
    }
    for subject in [
        format!("result.{b_key}.n.g.j.1"),
        format!("hb.{b_key}.n"),
        format!("receipt.{b_key}.j.1"),
        "cmd.0".into(),
        format!("job.{a_key}.n.offer"),
        "ledger.0".into(),
        "feed.log.x".into(),
        format!("feed.operator.{a_key}.x"),
        format!("$JS.API.STREAM.INFO.{RECEIPTS_STREAM}"),
        format!("$JS.API.DIRECT.GET.{RECEIPTS_STREAM}"),
        format!("$JS.API.CONSUMER.CREATE.{RECEIPTS_STREAM}"),
        "$JS.API.INFO".into(),
        format!("_INBOX_{b_key}.x"),
    ] {
        expect_publish_denied(&a, &a_denials, &subject).await;
    }

    gateway.publish(format!("job.{b_key}.node_1.offer"), "offer".into()).await.unwrap();
    assert_eq!(jobs.next().await.unwrap().payload, "offer");
    b.publish(format!("result.{b_key}.node_1.gw.job_1.1"), "frame".into()).await.unwrap();
    assert_eq!(results.next().await.unwrap().payload, "frame");
    b.publish(format!("hb.{b_key}.node_1"), "beat".into()).await.unwrap();
    assert_eq!(beats.next().await.unwrap().payload, "beat");
    let projector = jetstream::new(client(&server, Role::Projector).await);
    projector.publish(format!("feed.operator.{b_key}.x"), "mine".into()).await.unwrap().await.unwrap();
    assert_eq!(feed.next().await.unwrap().payload, "mine");
    assert!(b_denials.take().is_empty());
}

#[tokio::test]
async fn receipts_come_in_with_an_acknowledgement_and_go_out_by_the_consumer() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_streams(dir.path()).await;
    let (credentials, key) = operator(&server);
    let denials = Denials::default();
    let worker = jetstream::new(connect_noting(&server.url(), &credentials, denials.clone()).await.unwrap());
    let subject = format!("receipt.{key}.job_1.1");
    for n in 0..4 {
        let ack = worker.publish(subject.clone(), format!("receipt {n}").into()).await.unwrap().await;
        assert_eq!(ack.unwrap().stream, RECEIPTS_STREAM, "without any right on $JS.API");
    }
    let fifth = worker.publish(subject.clone(), "flood".into()).await.unwrap().await;
    assert!(fifth.is_err(), "four per job and attempt");
    let gateway = jetstream::new(client(&server, Role::Gateway).await);
    let stream = gateway.get_stream(RECEIPTS_STREAM).await.unwrap();
    let last = stream.get_last_raw_message_by_subject(&subject).await.unwrap();
    assert_eq!(last.payload, "receipt 3");
    let consumer: jetstream::consumer::PullConsumer = stream.get_consumer(RECEIPTS_CONSUMER).await.unwrap();
    let mut messages = consumer.fetch().max_messages(4).messages().await.unwrap();
    for n in 0..4 {
        let message = messages.next().await.unwrap().unwrap();
        assert_eq!(message.payload, format!("receipt {n}"));
        message.double_ack().await.unwrap();
    }
    assert!(denials.take().is_empty());
}

#[tokio::test]
async fn strangers_and_wrong_seeds_stay_out() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path()).await;
    assert!(async_nats::connect(server.url()).await.is_err(), "without credentials");
    let other = tempfile::tempdir().unwrap();
    let foreign = Keys::load_or_create(other.path()).unwrap();
    assert!(
        connect(&server.url(), foreign.credentials(Role::Writer)).await.is_err(),
        "another network's writer"
    );
    let (a, _) = operator(&server);
    let jwt = a.to_creds_text();
    let jwt = jwt.lines().nth(1).unwrap();
    let seed = nkeys::KeyPair::new_user().seed().unwrap();
    assert!(Credentials::new("x", jwt, &seed).is_err(), "another's JWT");
    for wrong in ["", "UAAA", "SUAGC3DIJEUM3CTVPGCSJ7GDP2KD7TRCXCWDXNOHKIYJWNJQAZMFDEJQOE", &"U".repeat(56)] {
        assert!(server.keys().issue_operator(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn keys_are_kept_private_and_can_be_put_away() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("keys");
    let first = Keys::load_or_create(&dir).unwrap();
    let writer = first.credentials(Role::Writer).public_key().to_owned();
    for entry in std::fs::read_dir(&dir).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    for seed in ["operator.seed", "system-account.seed", "ledger-account.seed"] {
        std::fs::remove_file(dir.join(seed)).unwrap();
    }
    let second = Keys::load_or_create(&dir).unwrap();
    assert_eq!(second.credentials(Role::Writer).public_key(), writer);
    let error = second.init_credentials().unwrap_err().to_string();
    assert!(error.contains("ledger-account.seed") && error.contains("put the file back"), "{error}");
    let pair = nkeys::KeyPair::new_user();
    assert!(
        second.issue_operator(&pair.public_key()).is_ok(),
        "operators are admitted without the account's seed"
    );
    assert!(!dir.join("operator.seed").exists(), "and nothing new was made in their place");
    let path = dir.join("writer.creds");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = Keys::load_or_create(&dir).unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
}
