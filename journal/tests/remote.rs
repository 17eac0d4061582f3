//! The remote door on a real nats-server: the same answers as in the sequencer's own process, and what is refused at it.

mod harness;
mod processes;

use futures::StreamExt;
use harness::*;
use journal::auth::{Denials, Role, connect, connect_noting};
use journal::remote::message::*;
use journal::standby::Leader;
use journal::{Journal, LedgerClient, RemoteLedger, SubmitError};
use ledger::Command;
use minicbor::Encode;
use processes::*;
use protocol::codec::encode;
use std::time::Duration;

async fn leader(harness: &Harness) -> Leader {
    lead(harness, harness.open("a").await).await
}

async fn lead(harness: &Harness, journal: Journal) -> Leader {
    let credentials = harness.server.keys().credentials(Role::Writer);
    Leader::start(journal, &harness.server.url(), credentials, 0).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_door() {
    let harness = Harness::start().await;
    let leader = leader(&harness).await;
    let gateway = harness.gateway().await;
    let (local, remote) = (leader.journal().client(), LedgerClient::from(gateway.clone()));
    let outcome = remote.submit(open_account(1, 1)).await.unwrap();
    let locally = local.submit(open_account(1, 1)).await.unwrap();
    assert_eq!((outcome.repeated, locally.repeated), (false, true));
    assert_eq!(encode(&outcome.events[0]), encode(&locally.events[0]), "the same bytes");
    assert_eq!(
        (outcome.commit, outcome.commit_hash, outcome.time_us),
        (locally.commit, locally.commit_hash, locally.time_us)
    );
    let again = remote.submit(open_account(1, 1)).await.unwrap();
    assert!(again.repeated);
    assert_eq!(again.events, outcome.events);
    let placed = remote.submit_placed(open_account(2, 2)).await.unwrap();
    assert_eq!((placed.count, placed.repeated), (1, false));
    // The same refusal, with its figures.
    let refused = |result: Result<journal::Outcome, SubmitError>| match result {
        Err(SubmitError::Refused { refusal, at_leaf }) => (refusal, at_leaf),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refused(remote.submit(open_account(3, 1)).await),
        refused(local.submit(open_account(3, 1)).await)
    );
    // Many at once, a refusal and a repeat among them, more than one message takes.
    let mut commands: Vec<Command> = (10..5_010).map(|number| open_account(number, number)).collect();
    commands.push(open_account(5_010, 1));
    commands.push(open_account(2, 2));
    let results = remote.submit_many(commands).await.unwrap();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 5_001);
    assert!(matches!(results[5_000], Err(SubmitError::Refused { .. })));
    assert_eq!(results[5_001].as_ref().unwrap().commit, placed.commit);
    let leaves: Vec<u64> =
        results[..5_000].iter().map(|result| result.as_ref().unwrap().first_leaf).collect();
    assert!(leaves.is_sorted(), "decided in this order");
    // What this gateway was told, its replica has.
    let told = results[4_999].as_ref().unwrap().commit;
    let seen = remote.read(|state| state.last_commit()).await.unwrap();
    assert!(seen >= told && remote.position().borrow().commit >= told);
    // And what others did, soon.
    let elsewhere = local.submit(open_account(7_000, 7_000)).await.unwrap();
    assert_eq!(gateway.reached(elsewhere.commit).await.unwrap().hash, elsewhere.commit_hash);
    leader.shutdown().await.unwrap();
}

/// A gateway that has just come must not answer from an empty state, nor from the middle of the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_question_waits_for_the_whole_log() {
    let harness = Harness::start().await;
    let leader = leader(&harness).await;
    submit_many(leader.journal(), 0..3_000, 64).await;
    let committed = leader.journal().position().borrow().commit;
    let gateway = harness.gateway().await;
    assert_eq!(gateway.read(|state| state.last_commit()).await.unwrap(), committed);
    leader.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_wait_for_a_sequencer_and_are_not_lost_with_one() {
    let harness = Harness::start().await;
    let mut impatient = harness.gateway_options();
    impatient.answer_wait = Duration::from_millis(300);
    impatient.commands_max = 2;
    let impatient = RemoteLedger::connect(impatient).await.unwrap();
    // A key of its own: the load below does not use it.
    let own = || open_account(999_999_999, 999_999_999);
    let nobody = impatient.submit(own()).await;
    assert!(matches!(nobody, Err(SubmitError::Stopped(_))), "nobody listens: it did not happen: {nobody:?}");
    let three = impatient.submit_many((0..3).map(|number| open_account(number, number)).collect()).await;
    assert!(matches!(three, Err(SubmitError::TooLarge(_))), "{three:?}");
    let gateway = harness.gateway().await;
    let waiting = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.submit(open_account(2, 2)).await }
    });
    let first = leader(&harness).await;
    assert_eq!(waiting.await.unwrap().unwrap().events.len(), 1);
    // An orderly end, and a beginning: whoever asks meanwhile waits a little.
    let load = Load::start(&gateway, 4);
    load.more(50).await;
    first.shutdown().await.unwrap();
    let second = leader(&harness).await;
    assert_eq!(second.journal().epoch(), 2);
    load.more(50).await;
    let told = load.finish().await;
    check_acknowledged(&harness.log().await, &told);
    // The key of the command that nobody took stands for nothing yet.
    assert!(!impatient.submit(own()).await.unwrap().repeated);
    second.shutdown().await.unwrap();
}

/// Sends raw bytes as a gateway and reads the answer.
async fn ask_raw(client: &async_nats::Client, bytes: Vec<u8>, count: usize) -> AnswerBody {
    let reply = client.request("cmd.0", bytes.into()).await.unwrap();
    AnswerMessage::read(&reply.payload, count).unwrap().body
}

fn asked(command: impl Encode<()>) -> Asked {
    Asked { want: Want::Place, command: encode(&command).into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_messages_are_answered_and_do_nothing() {
    let harness = Harness::start().await;
    let leader = leader(&harness).await;
    let url = harness.server.url();
    let client = connect(&url, harness.server.keys().credentials(Role::Gateway)).await.unwrap();
    let good = || CommandMessage {
        version: 1,
        shard: 0,
        known_commit: 0,
        commands: vec![asked(open_account(1, 1))],
    };
    let before = leader.journal().position().borrow().commit;
    let fault = async |message: CommandMessage| match ask_raw(&client, message.to_bytes(), 0).await {
        AnswerBody::Fault { fault, .. } => fault,
        other => panic!("{other:?}"),
    };
    assert_eq!(fault(CommandMessage { version: 2, ..good() }).await, Fault::Version);
    assert_eq!(fault(CommandMessage { shard: 3, ..good() }).await, Fault::Shard);
    assert_eq!(fault(CommandMessage { commands: Vec::new(), ..good() }).await, Fault::Malformed);
    let commands = vec![asked(open_account(1, 1)); MESSAGE_COMMANDS_MAX + 1];
    assert_eq!(fault(CommandMessage { commands, ..good() }).await, Fault::TooLarge);
    // It knows of more than this sequencer: this one cannot be the leader.
    assert_eq!(fault(CommandMessage { known_commit: before + 1, ..good() }).await, Fault::NotLeading);
    for bytes in [b"hello".to_vec(), Vec::new(), vec![0; MESSAGE_BYTES_MAX + 1]] {
        assert!(matches!(ask_raw(&client, bytes, 0).await, AnswerBody::Fault { .. }));
    }
    assert_eq!(leader.journal().position().borrow().commit, before, "nothing of it happened");
    // One that is no command does not hurt its neighbours.
    let commands = vec![asked(7u32), asked(open_account(1, 1))];
    match ask_raw(&client, CommandMessage { commands, ..good() }.to_bytes(), 2).await {
        AnswerBody::Answers { answers, .. } => {
            assert!(matches!(answers[..], [Answer::NotUnderstood(_), Answer::Placed { .. }]), "{answers:?}");
        }
        other => panic!("{other:?}"),
    }
    leader.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_connection_leaves_room_for_another() {
    let harness = Harness::start().await;
    let leader = leader(&harness).await;
    let url = harness.server.url();
    let client = connect(&url, harness.server.keys().credentials(Role::Gateway)).await.unwrap();
    let other = harness.gateway().await;
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(format!("{inbox}.>")).await.unwrap();
    let messages = 200;
    for number in 0..messages {
        let first = 1_000_000 + number * MESSAGE_COMMANDS_MAX as u64;
        let commands = (first..first + 512).map(|number| asked(open_account(number, number))).collect();
        let message = CommandMessage { version: 1, shard: 0, known_commit: 0, commands };
        let reply = format!("{inbox}.{number}.1");
        client.publish_with_reply("cmd.0", reply, message.to_bytes().into()).await.unwrap();
    }
    client.flush().await.unwrap();
    other.submit(open_account(1, 1)).await.expect("its own turn");
    let (mut placed, mut overloaded) = (0, 0);
    for _ in 0..messages {
        let answer = answers.next().await.unwrap();
        match AnswerMessage::read(&answer.payload, 512).unwrap().body {
            AnswerBody::Answers { answers, .. } => placed += answers.len(),
            AnswerBody::Fault { fault: Fault::Overloaded, .. } => overloaded += 512,
            fault => panic!("{fault:?}"),
        }
    }
    assert_eq!(placed + overloaded, messages as usize * 512, "every message is answered, whole");
    let opened = opened(&harness.log().await).len();
    assert_eq!(opened, placed + 1, "what was called overloaded did not happen");
    println!("{placed} placed, {overloaded} overloaded");
    leader.shutdown().await.unwrap();
}

#[tokio::test]
async fn only_gateways_command_and_only_the_writer_listens() {
    let harness = Harness::start().await;
    let server = &harness.server;
    let denied = async |credentials: &journal::auth::Credentials, publish: &[&str], subscribe: &[&str]| {
        let denials = Denials::default();
        let client = connect_noting(&server.url(), credentials, denials.clone()).await.unwrap();
        for subject in publish {
            client.publish(subject.to_string(), "x".into()).await.unwrap();
            client.flush().await.unwrap();
            let text = tokio::time::timeout(PATIENCE, denials.next()).await.expect(subject);
            assert!(text.to_lowercase().contains("publish") && text.contains(subject), "{text}");
        }
        for subject in subscribe {
            let _subscription = client.subscribe(subject.to_string()).await.unwrap();
            client.flush().await.unwrap();
            let text = tokio::time::timeout(PATIENCE, denials.next()).await.expect(subject);
            assert!(text.to_lowercase().contains("subscription") && text.contains(subject), "{text}");
        }
    };
    let both = ["cmd.0", "lease.0"];
    for role in [Role::Projector, Role::Auditor] {
        denied(server.keys().credentials(role), &both, &both).await;
    }
    denied(server.keys().credentials(Role::Gateway), &["lease.0", "ledger.0"], &["cmd.0", "cmd.>"]).await;
    denied(server.keys().credentials(Role::Writer), &["cmd.0"], &["ledger.0", ">"]).await;
    let pair = nkeys::KeyPair::new_user();
    let jwt = server.keys().issue_operator(&pair.public_key()).unwrap();
    let operator = journal::auth::Credentials::new("operator", &jwt, &pair.seed().unwrap()).unwrap();
    denied(&operator, &both, &both).await;
}
