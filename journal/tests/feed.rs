//! FEED on the real nats-server: every leaf once and in order, operators' copies, taking up after a crash at any point.

use async_nats::jetstream;
use bytes::Bytes;
use futures::StreamExt;
use journal::CommittedCommit;
use journal::auth::{Role, connect};
use journal::feed::{CommitStream, FeedError, FeedOptions, FeedPublisher};
use journal::server::{NatsServer, NatsServerOptions, PortChoice, find_nats_server};
use journal::stream::{FEED_STREAM, init_streams};
use protocol::codec;
use protocol::commit::{COMMIT_VERSION, Commit};
use protocol::event::node::OperatorRegistered;
use protocol::event::policy::WriterChanged;
use protocol::event::{Actor, EVENT_VERSION, Event, EventBody, Header};
use protocol::id::{AccountId, EvmAddress, Hash32, IdempotencyKey, OperatorId};
use std::path::Path;

const OPERATOR: OperatorId = OperatorId([1; 32]);

async fn server(dir: &Path) -> NatsServer {
    let binary = find_nats_server().expect("run cargo xtask tools");
    let options = NatsServerOptions { binary, data_dir: dir.to_owned(), port: PortChoice::Any };
    let server = NatsServer::start(options).await.unwrap();
    let init = connect(&server.url(), &server.keys().init_credentials().unwrap()).await.unwrap();
    init_streams(&init).await.unwrap();
    server
}

async fn projector(server: &NatsServer) -> async_nats::Client {
    connect(&server.url(), server.keys().credentials(Role::Projector)).await.unwrap()
}

/// Every third leaf concerns an operator.
fn body(leaf: u64) -> EventBody {
    if leaf % 3 == 1 {
        let payout_address = EvmAddress([3; 20]);
        OperatorRegistered { operator: OPERATOR, account: AccountId([2; 16]), payout_address }.into()
    } else {
        WriterChanged { epoch: leaf, nonce: Hash32([9; 32]) }.into()
    }
}

/// Commits of four events each, up to `commits` of them.
fn log(commits: u64) -> Vec<CommittedCommit> {
    let mut previous = Hash32([0; 32]);
    (1..=commits)
        .map(|number| {
            let first_leaf = (number - 1) * 4;
            let event = |leaf| {
                let key = IdempotencyKey::internal("test", &[&leaf_bytes(leaf)]);
                let header = Header {
                    shard: 0,
                    leaf,
                    commit: number,
                    time_us: number,
                    actor: Actor::Writer,
                    key,
                    command: 0,
                };
                let event = Event {
                    version: EVENT_VERSION,
                    header,
                    body: body(leaf),
                    postings: Default::default(),
                    pending: Default::default(),
                };
                codec::encode_event(&event).unwrap().into()
            };
            let events = (first_leaf..first_leaf + 4).map(event).collect();
            let commit = Commit {
                version: COMMIT_VERSION,
                shard: 0,
                writer_epoch: 1,
                number,
                first_leaf,
                time_us: number,
                previous,
                events,
            };
            let bytes = Bytes::from(codec::encode(&commit));
            previous = Commit::hash(&bytes);
            CommittedCommit::decode(number, bytes).unwrap()
        })
        .collect()
}

fn leaf_bytes(leaf: u64) -> [u8; 8] {
    leaf.to_le_bytes()
}

/// The commits of `log` from the one that holds a leaf.
fn from_leaf(log: &[CommittedCommit], leaf: u64) -> CommitStream {
    let commits: Vec<_> = log.iter().skip((leaf / 4) as usize).cloned().map(Ok).collect();
    futures::stream::iter(commits).boxed()
}

fn publisher(client: async_nats::Client) -> FeedPublisher {
    FeedPublisher::new(FeedOptions { client, origin: "ledger.example/log1".to_owned(), head: None })
}

/// Checks that FEED holds leaves 0 to `leaves`, each once, in order, operators' copies included.
async fn check_feed(server: &NatsServer, leaves: u64) {
    let auditor = connect(&server.url(), server.keys().credentials(Role::Auditor)).await.unwrap();
    let stream = jetstream::new(auditor).get_stream(FEED_STREAM).await.unwrap();
    let mut sequence = 0;
    for leaf in 0..leaves {
        let copies = if leaf % 3 == 1 { &[true, false][..] } else { &[false] };
        for operators in copies {
            sequence += 1;
            let message = stream.get_raw_message(sequence).await.unwrap();
            let header = |name: &str| message.headers.get(name).unwrap().as_str().to_owned();
            assert_eq!(header("x-counterfoil-leaf"), leaf.to_string());
            let json: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
            if *operators {
                assert_eq!(message.subject.as_str(), format!("feed.operator.{OPERATOR}.operator_registered"));
                assert_eq!(header("Nats-Msg-Id"), format!("0.{leaf}.{OPERATOR}"));
                assert!(json.get("key").is_none() && json["data"].get("account").is_none(), "{json}");
            } else {
                assert_eq!(message.subject.as_str(), format!("feed.log.{}", body(leaf).kind()));
                assert_eq!(header("Nats-Msg-Id"), format!("0.{leaf}"));
                assert_eq!(header("ce-source"), "//ledger.example/log1");
                assert_eq!(json["header"]["leaf"], leaf);
            }
        }
    }
    let last = stream.cached_info().state.last_sequence;
    assert_eq!(last, sequence, "and nothing more");
}

#[tokio::test]
async fn every_leaf_once_and_again_from_where_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path()).await;
    let log = log(500);
    let feed = publisher(projector(&server).await);
    feed.run(|leaf| from_leaf(&log[..100], leaf)).await.unwrap();
    assert_eq!(*feed.position().borrow(), 400);
    check_feed(&server, 400).await;
    // A new process, nothing remembered: it reads where FEED stands.
    let feed = publisher(projector(&server).await);
    let mut asked = Vec::new();
    let open = |leaf| {
        asked.push(leaf);
        from_leaf(&log, leaf)
    };
    feed.run(open).await.unwrap();
    assert_eq!(asked, [400]);
    check_feed(&server, 2_000).await;
}

#[tokio::test]
async fn an_operators_copy_without_its_log_copy_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path()).await;
    let log = log(1);
    let feed = publisher(projector(&server).await);
    feed.run(|leaf| from_leaf(&log, leaf).map(only_first_leaf).boxed()).await.unwrap();
    // Killed between the two copies of leaf 1: the operator's is there.
    let event = &log[0].events[1];
    let js = jetstream::new(projector(&server).await);
    let mut message = jetstream::message::PublishMessage::build()
        .payload(protocol::feed::operator_json(event).into())
        .message_id(protocol::feed::message_id(event, Some(&OPERATOR)));
    for (name, value) in protocol::feed::headers(event, "ledger.example/log1") {
        message = message.header(name, value.as_str());
    }
    let subject = protocol::feed::operator_subject(&OPERATOR, event);
    js.send_publish(subject, message).await.unwrap().await.unwrap();
    let feed = publisher(projector(&server).await);
    feed.run(|leaf| from_leaf(&log, leaf)).await.unwrap();
    check_feed(&server, 4).await;
}

fn only_first_leaf(
    commit: Result<CommittedCommit, journal::ReadError>,
) -> Result<CommittedCommit, journal::ReadError> {
    commit.map(|mut commit| {
        commit.events.truncate(1);
        commit
    })
}

#[tokio::test]
async fn the_server_killed_in_the_middle_makes_it_late_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = server(dir.path()).await;
    let log = std::sync::Arc::new(log(3_000));
    let feed = publisher(projector(&server).await);
    let mut position = feed.position();
    let running = tokio::spawn({
        let log = log.clone();
        async move { feed.run(|leaf| from_leaf(&log, leaf)).await }
    });
    for killed_at in [500, 4_000, 8_000] {
        position.wait_for(|leaf| *leaf > killed_at).await.unwrap();
        server.restart().await.unwrap();
    }
    running.await.unwrap().unwrap();
    check_feed(&server, 12_000).await;
}

#[tokio::test]
async fn holes_and_strangers_stop_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path()).await;
    let log = log(3);
    let feed = publisher(projector(&server).await);
    let error = feed.run(|_| from_leaf(&log, 4)).await.unwrap_err();
    assert!(matches!(error, FeedError::Gap { expected: 0, came: 4 }), "{error}");
    let js = jetstream::new(projector(&server).await);
    js.publish("feed.log.strange", "x".into()).await.unwrap().await.unwrap();
    let error = feed.run(|leaf| from_leaf(&log, leaf)).await.unwrap_err();
    assert!(matches!(error, FeedError::Foreign { sequence: 1 }), "{error}");
}
