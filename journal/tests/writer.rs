//! The writer on a real nats-server: outcomes, group commit, kill -9 of the server under load, two writers on one log.

mod harness;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use harness::*;
use journal::pipeline::StopReason;
use journal::writer::TailSyncMode;
use journal::{Journal, Placed, StartError, SubmitError, Until};
use protocol::EventBody;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_repeats_refusals_and_reads() {
    let harness = Harness::start().await;
    let journal = harness.open("a").await;
    let client = journal.client();
    assert_eq!(journal.epoch(), 1);
    assert_eq!(journal.position().borrow().commit, 2, "genesis, then this writer's term");
    let outcome = client.submit(open_account(1, 1)).await.unwrap();
    assert_eq!((outcome.commit, outcome.first_leaf, outcome.repeated), (3, 2, false));
    assert!(matches!(outcome.events[0].body, EventBody::AccountOpened(_)));
    assert!(journal.position().borrow().commit >= 3, "the position is there before the reply");
    let again = client.submit(open_account(1, 1)).await.unwrap();
    assert!(again.repeated);
    assert_eq!((again.commit, again.commit_hash, again.first_leaf), (3, outcome.commit_hash, 2));
    assert_eq!(again.events, outcome.events, "the first outcome's events");
    let refused = client.submit(open_account(2, 1)).await;
    assert!(matches!(refused, Err(SubmitError::Refused { at_leaf: 3, .. })), "{refused:?}");
    let count = client.read(|state| ledger::query::accounts(state).len()).await.unwrap();
    assert_eq!(count, whole_log(&journal).await.iter().filter(|c| c.number == 3).count() + count - 1);
    let panicked = tokio::spawn({
        let client = client.clone();
        async move { client.read(|_| -> u32 { panic!("a reader's own bug") }).await }
    });
    assert!(panicked.await.is_err());
    assert!(client.submit(open_account(3, 3)).await.is_ok(), "the writer lives");
    journal.shutdown().await.unwrap();
    assert!(matches!(client.submit(open_account(4, 4)).await, Err(SubmitError::Stopped(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_tell_where_each_command_stands() {
    let harness = Harness::start().await;
    let mut options = harness.options("a");
    options.pipeline.queue_requests_max = 3_000;
    let journal = Journal::open(options).await.unwrap();
    let client = journal.client();
    let single = client.submit_placed(open_account(1, 1)).await.unwrap();
    assert_eq!((single.commit, single.first_leaf, single.count, single.repeated), (3, 2, 1, false));
    let again = client.submit_placed(open_account(1, 1)).await.unwrap();
    assert_eq!(again, Placed { repeated: true, ..single });
    assert!(client.submit_many(Vec::new()).await.unwrap().is_empty());
    // Over several commits; one refused, one repeated.
    let commands = (2..=2_500).chain([1]).map(|n| open_account(n, n)).chain([open_account(9_999, 2)]);
    let results = client.submit_many(commands.collect()).await.unwrap();
    let log = whole_log(&journal).await;
    for (k, result) in results.iter().take(2_499).enumerate() {
        let placed = result.as_ref().unwrap();
        let commit = &log[placed.commit as usize - 1];
        assert_eq!(
            (placed.commit_hash, placed.time_us, placed.count),
            (commit.hash, commit.commit.time_us, 1)
        );
        let event = &commit.events[(placed.first_leaf - commit.commit.first_leaf) as usize];
        assert!(matches!(&event.body, EventBody::AccountOpened(e) if e.account == account(k as u64 + 2)));
    }
    assert_eq!(results[2_499].as_ref().unwrap(), &again);
    assert!(matches!(results[2_500], Err(SubmitError::Refused { .. })));
    let too_many = client.submit_many((0..3_001).map(|n| open_account(n, n)).collect()).await;
    assert!(matches!(too_many, Err(SubmitError::TooLarge(_))), "{too_many:?}");
    let before = journal.position().borrow().leaf;
    let batch = |base: u64| (base..base + 2_000).map(|n| open_account(n, n)).collect::<Vec<_>>();
    let (first, second) = tokio::join!(client.submit_many(batch(10_000)), client.submit_many(batch(20_000)));
    assert!(first.unwrap().iter().all(Result::is_ok));
    assert!(matches!(second, Err(SubmitError::Overloaded)), "{second:?}");
    assert_eq!(journal.position().borrow().leaf, before + 2_000, "nothing of the second happened");
    journal.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_is_grouped_and_followers_see_every_commit() {
    let harness = Harness::start().await;
    let journal = harness.open("a").await;
    let mut live = journal.reader().from_commit(1, Until::Forever);
    let mut announced = journal.commits();
    journal.client().submit(open_account(999, 999)).await.unwrap();
    let announced = announced.recv().await.unwrap();
    assert_eq!((announced.position.commit, announced.decode().unwrap().events.len()), (3, 1));
    let mut single_us = Vec::new();
    for number in 0..300 {
        let begin = Instant::now();
        journal.client().submit(open_account(number, number)).await.unwrap();
        single_us.push(begin.elapsed().as_micros());
    }
    let before = journal.position().borrow().commit;
    let commands = 20_000;
    let begin = Instant::now();
    let outcomes = submit_many(&journal, 1_000..1_000 + commands, 1_024).await;
    let seconds = begin.elapsed().as_secs_f64();
    let commits = journal.position().borrow().commit - before;
    assert_eq!(outcomes.len() as u64, commands);
    assert!(commits * 4 < commands, "{commits} commits for {commands} commands");
    single_us.sort_unstable();
    println!(
        "one at a time: p50 {} us, p99 {} us; 1024 at once: {:.0} commands/s in {commits} commits",
        single_us[150],
        single_us[297],
        commands as f64 / seconds
    );
    let last = journal.position().borrow().commit;
    for number in 1..=last {
        assert_eq!(live.next().await.unwrap().unwrap().number, number);
    }
    check_acknowledged(&whole_log(&journal).await, &outcomes);
    journal.shutdown().await.unwrap();
    assert!(live.next().await.is_none(), "a live read ends with its journal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_after_a_synced_tail() {
    let harness = Harness::start().await;
    let mut options = harness.options("a");
    options.tail_sync = TailSyncMode::Always;
    let journal = Journal::open(options).await.unwrap();
    let outcomes = submit_many(&journal, 0..2_000, 64).await;
    check_acknowledged(&whole_log(&journal).await, &outcomes);
    journal.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_nats_server_under_load_loses_and_repeats_nothing() {
    let mut harness = Harness::start().await;
    let journal = Arc::new(harness.open("a").await);
    let going = Arc::new(AtomicBool::new(true));
    let clients: Vec<_> = (0..16u64)
        .map(|client| {
            let (journal, going) = (journal.clone(), going.clone());
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                let mut number = client * 1_000_000;
                while going.load(Ordering::Relaxed) {
                    // A lasting "unknown" is asked again with the same key, as the docs say.
                    match journal.client().submit(open_account(number, number)).await {
                        Ok(outcome) => {
                            acknowledged.push((number, outcome));
                            number += 1;
                        }
                        Err(SubmitError::Unknown | SubmitError::Overloaded) => tokio::task::yield_now().await,
                        Err(error) => panic!("{error}"),
                    }
                }
                acknowledged
            })
        })
        .collect();
    let mut position = journal.position();
    let mut recovered_ms = Vec::new();
    for _ in 0..3 {
        let target = position.borrow().commit + 50;
        position.wait_for(|position| position.commit >= target).await.unwrap();
        harness.server.kill().await.unwrap();
        let killed_at = position.borrow().commit;
        harness.server.restart().await.unwrap();
        let begin = Instant::now();
        let more = position.wait_for(|position| position.commit > killed_at + 1);
        tokio::time::timeout(Duration::from_secs(30), more).await.expect("recovers by itself").unwrap();
        recovered_ms.push(begin.elapsed().as_millis());
    }
    going.store(false, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for client in clients {
        acknowledged.extend(client.await.unwrap());
    }
    println!("{} acknowledged over 3 kills; serving again after {recovered_ms:?} ms", acknowledged.len());
    check_acknowledged(&whole_log(&journal).await, &acknowledged);
    let opened = opened(&whole_log(&journal).await).len();
    assert_eq!(opened, acknowledged.len(), "every command was repeated until it was acknowledged");
    let Ok(journal) = Arc::try_unwrap(journal) else { panic!("clients are gone") };
    journal.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_writers_on_one_log_one_is_fenced_and_the_chain_stays_whole() {
    let harness = Harness::start().await;
    let first = Arc::new(harness.open("first").await);
    let load = tokio::spawn({
        let first = first.clone();
        async move {
            let mut acknowledged = Vec::new();
            // Without a breath in between, a newcomer would lose every race.
            let mut pace = tokio::time::interval(Duration::from_millis(40));
            for number in 0..1_000_000 {
                pace.tick().await;
                match first.client().submit(open_account(number, number)).await {
                    Ok(outcome) => acknowledged.push((number, outcome)),
                    Err(error) => return (acknowledged, number, error),
                }
            }
            panic!("never fenced");
        }
    });
    let mut position = first.position();
    position.wait_for(|position| position.commit > 5).await.unwrap();
    // The newcomer may be the one that loses the race; a supervisor would start it again.
    let mut tries = 0;
    let second = loop {
        tries += 1;
        match Journal::open(harness.options("second")).await {
            Ok(journal) => break journal,
            Err(StartError::Stopped(StopReason::Fenced { .. })) if tries < 50 => {}
            Err(error) => panic!("{error}"),
        }
    };
    println!("the newcomer leads at its try number {tries}");
    let (acknowledged, number, error) = load.await.unwrap();
    assert!(matches!(error, SubmitError::Unknown | SubmitError::Stopped(_)), "{error}");
    assert!(matches!(*first.stopped().borrow(), Some(StopReason::Fenced { .. })));
    let read = first.client().read(ledger::State::next_leaf).await;
    assert!(matches!(read, Err(SubmitError::Stopped(_))), "a fenced writer answers nothing");
    // What the first one did not know, the second one does.
    let mut acknowledged = acknowledged;
    let outcome = second.client().submit(open_account(number, number)).await.unwrap();
    acknowledged.push((number, outcome));
    acknowledged.extend(submit_many(&second, 2_000_000..2_000_050, 8).await);
    let log = whole_log(&second).await;
    check_acknowledged(&log, &acknowledged);
    second.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_coordinator_on_the_same_data_is_refused() {
    let harness = Harness::start().await;
    let journal = harness.open("a").await;
    let error = Journal::open(harness.options("a")).await.err().expect("refused");
    assert!(matches!(error, StartError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("another coordinator"), "{error}");
    journal.shutdown().await.unwrap();
    harness.open("a").await.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_gate_says_overloaded() {
    let mut harness = Harness::start().await;
    let mut options = harness.options("a");
    options.pipeline.queue_requests_max = 4;
    let journal = Journal::open(options).await.unwrap();
    harness.server.kill().await.unwrap();
    let client = journal.client();
    let mut waiting: FuturesUnordered<_> =
        (0..4).map(|number| client.submit(open_account(number, number))).collect();
    assert!(futures::poll!(waiting.next()).is_pending(), "four are inside");
    let refused = client.read(|_| ()).await;
    assert!(matches!(refused, Err(SubmitError::Overloaded)), "{refused:?}");
    harness.server.restart().await.unwrap();
    while let Some(submitted) = waiting.next().await {
        submitted.expect("it waited for the log");
    }
    drop(waiting);
    journal.shutdown().await.unwrap();
}
