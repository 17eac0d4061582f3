//! One suite on both logs, the simulated and the real nats-server's: whatever the simulation assumes of a stream must hold
//! there. Each step is one call; both logs must answer alike.

use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::RawMessageErrorKind;
use bytes::Bytes;
use journal::auth::{Role, connect};
use journal::pipeline::{Published, ReadBack};
use journal::server::{NatsServer, NatsServerOptions, PortChoice, find_nats_server};
use journal::stream::{LEDGER_STREAM, LEDGER_SUBJECT, init_streams};
use protocol::commit::Commit;
use simulator::log::Log;

/// What somebody does to a stream.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Publishes a text with an expected last sequence, its hash as the message id.
    Publish(&'static str, u64),
    /// Reads a sequence.
    Read(u64),
}
use Step::{Publish, Read};

/// What comes of it, without the words of either log.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Seen {
    Stored(u64),
    Ambiguous,
    Found(Bytes),
    Absent(u64),
}

/// Everything that the simulated log is relied on for.
const SUITE: &[(&str, &[Step])] = &[
    ("an empty stream has nothing and ends at 0", &[Read(1)]),
    ("a publish in its place is stored", &[Publish("a", 0), Publish("b", 1), Read(1), Read(2), Read(3)]),
    ("a publish behind its place is not", &[Publish("a", 0), Publish("b", 0), Read(1), Read(2)]),
    (
        "a publish before its place is not",
        &[Publish("a", 1), Read(1), Publish("a", 0), Publish("c", 2), Read(2)],
    ),
    (
        "the same bytes again are not stored twice",
        &[Publish("a", 0), Publish("a", 0), Publish("a", 0), Read(1), Read(2), Publish("b", 1), Read(2)],
    ),
    (
        "of two writers in one place the second is refused and finds the first's bytes",
        &[Publish("a", 0), Publish("x", 1), Publish("y", 1), Read(2), Publish("z", 2), Read(3)],
    ),
    (
        "a late copy lands in its own place only",
        &[
            Publish("a", 0),
            Publish("b", 1),
            Publish("c", 2),
            Publish("b", 1),
            Publish("a", 0),
            Read(3),
            Read(4),
        ],
    ),
];

fn simulated(steps: &[Step]) -> Vec<Seen> {
    let mut log = Log::default();
    let step = |step: &Step| match *step {
        Publish(text, expected) => published(log.publish(expected, &Bytes::from_static(text.as_bytes()))),
        Read(sequence) => read(log.read(sequence)),
    };
    steps.iter().map(step).collect()
}

fn published(published: Published) -> Seen {
    match published {
        Published::Stored { sequence } => Seen::Stored(sequence),
        Published::Ambiguous { .. } => Seen::Ambiguous,
    }
}

fn read(read: ReadBack) -> Seen {
    match read {
        ReadBack::Found(bytes) => Seen::Found(bytes),
        ReadBack::Absent { last_sequence } => Seen::Absent(last_sequence),
        ReadBack::Failed { reason } => panic!("{reason}"),
    }
}

/// As the writer's link asks: id, expected sequence, a duplicate taken as ambiguous, reads from the stream's leader.
async fn real(server: &NatsServer, steps: &[Step]) -> Vec<Seen> {
    let client = connect(&server.url(), server.keys().credentials(Role::Writer)).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let stream = context.get_stream_no_info(LEDGER_STREAM).await.unwrap();
    let mut seen = Vec::new();
    for step in steps {
        seen.push(match *step {
            Publish(text, expected) => {
                let message = PublishMessage::build()
                    .payload(Bytes::from_static(text.as_bytes()))
                    .expected_last_sequence(expected)
                    .message_id(Commit::hash(text.as_bytes()).to_string());
                match context.send_publish(LEDGER_SUBJECT, message).await.unwrap().await {
                    Ok(ack) if !ack.duplicate => Seen::Stored(ack.sequence),
                    Ok(_) | Err(_) => Seen::Ambiguous,
                }
            }
            Read(sequence) => match stream.get_raw_message(sequence).await {
                Ok(message) => Seen::Found(message.payload),
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
                    Seen::Absent(stream.get_info().await.unwrap().state.last_sequence)
                }
                Err(error) => panic!("{error}"),
            },
        });
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_logs_answer_alike() {
    for (name, steps) in SUITE {
        let dir = tempfile::tempdir().unwrap();
        let binary = find_nats_server().expect("run cargo xtask tools");
        let options = NatsServerOptions { binary, data_dir: dir.path().to_owned(), port: PortChoice::Any };
        let server = NatsServer::start(options).await.unwrap();
        let init = connect(&server.url(), &server.keys().init_credentials().unwrap()).await.unwrap();
        init_streams(&init).await.unwrap();
        assert_eq!(real(&server, steps).await, simulated(steps), "{name}");
    }
}
