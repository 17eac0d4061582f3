//! Every failure of the log, on the real nats-server through a proxy: each ends with every acknowledged command in the
//! log exactly once, checked by reading the stream from outside. And two sequencers that race for one log.
//! `COUNTERFOIL_LONG=1`: the race takes 60 s.

mod harness;
mod processes;
mod proxy;

use harness::*;
use journal::auth::{Role, connect};
use journal::pipeline::StopReason;
use journal::stream::LEDGER_SUBJECT;
use journal::{Journal, LedgerClient, Outcome, StartError, SubmitError};
use proxy::{Fault, Proxy};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Beyond the writer's own patience with an acknowledgement (2.5 s).
const LATE: Duration = Duration::from_millis(3_600);

/// Clients on the writer's own door, each with one command after the other until it is acknowledged.
struct LocalLoad {
    going: Arc<AtomicBool>,
    acknowledged: watch::Receiver<u64>,
    clients: JoinSet<Vec<(u64, Outcome)>>,
}

impl LocalLoad {
    fn start(ledger: &LedgerClient, clients: u64) -> LocalLoad {
        let going = Arc::new(AtomicBool::new(true));
        let (count, acknowledged) = watch::channel(0);
        let count = Arc::new(count);
        let mut tasks = JoinSet::new();
        for client in 0..clients {
            let (ledger, going, count) = (ledger.clone(), going.clone(), count.clone());
            tasks.spawn(async move {
                let (mut told, mut number) = (Vec::new(), client * 10_000_000);
                while going.load(Ordering::Relaxed) {
                    match ledger.submit(open_account(number, number)).await {
                        Ok(outcome) => {
                            told.push((number, outcome));
                            count.send_modify(|count| *count += 1);
                            number += 1;
                        }
                        Err(SubmitError::Unknown | SubmitError::Overloaded) => {}
                        // Fenced: what was told before is what counts.
                        Err(SubmitError::Stopped(_)) => break,
                        Err(error) => panic!("{error}"),
                    }
                }
                told
            });
        }
        LocalLoad { going, acknowledged, clients: tasks }
    }

    async fn more(&mut self, count: u64) {
        let target = *self.acknowledged.borrow() + count;
        let wait = self.acknowledged.wait_for(|acknowledged| *acknowledged >= target);
        tokio::time::timeout(processes::PATIENCE, wait).await.expect("it recovers by itself").unwrap();
    }

    async fn finish(self) -> Vec<(u64, Outcome)> {
        self.going.store(false, Ordering::Relaxed);
        self.clients.join_all().await.into_iter().flatten().collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_a_publish_it_is_done_once() {
    let harness = Harness::start().await;
    let mut proxy = Proxy::start(harness.server.port()).await;
    let mut options = harness.options("a");
    options.url = proxy.url();
    let journal = Journal::open(options).await.unwrap();
    let mut load = LocalLoad::start(&journal.client(), 8);
    load.more(50).await;
    let faults = [
        Fault::LoseAck,
        Fault::Double,
        Fault::DelayAck(Duration::from_millis(200)),
        Fault::DelayAck(LATE),
        Fault::CutPublish,
        Fault::CutAfterPublish,
    ];
    for fault in faults.into_iter().chain(faults) {
        proxy.hit(fault).await;
        let begin = Instant::now();
        load.more(30).await;
        println!("{fault:?}: going on after {} ms", begin.elapsed().as_millis());
        assert!(journal.stopped().borrow().is_none(), "{fault:?}");
    }
    let told = load.finish().await;
    processes::check_told(&harness.log().await, &told);
    journal.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_message_in_the_log_ends_the_writer_and_nothing_before_it_is_lost() {
    let harness = Harness::start().await;
    let journal = harness.open("a").await;
    let mut load = LocalLoad::start(&journal.client(), 8);
    load.more(100).await;
    let foreign =
        connect(&harness.server.url(), harness.server.keys().credentials(Role::Writer)).await.unwrap();
    foreign.publish(LEDGER_SUBJECT, "not ours".into()).await.unwrap();
    foreign.flush().await.unwrap();
    let mut stopped = journal.stopped();
    let reason = stopped.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    let StopReason::Fenced { number, .. } = reason else { panic!("{reason}") };
    let told = load.finish().await;
    assert!(told.len() >= 100);
    let reader = journal.reader();
    let log: Vec<_> =
        futures::TryStreamExt::try_collect(reader.from_commit(1, journal::Until::Commit(number - 1)))
            .await
            .unwrap();
    check_acknowledged(&log, &told);
    assert_eq!(reader.read_one(number).await.unwrap().unwrap(), "not ours");
    assert!(reader.last_commit().await.unwrap() == number, "nothing was written behind it");
    drop(journal);
    // Nobody goes on from there either.
    let error = Journal::open(harness.options("b")).await.err().expect("refused");
    assert!(matches!(error, StartError::Read(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_refuses_and_recovers() {
    let mut harness = Harness::start().await;
    let journal = harness.open("a").await;
    let mut load = LocalLoad::start(&journal.client(), 8);
    load.more(50).await;
    let used = journal.reader().info().await.unwrap().bytes;
    // FEED and RECEIPTS are empty: what is left is for the log.
    harness.server.limit_store(Some(used + 40_000));
    harness.server.restart().await.unwrap();
    // Until it is full: nothing is acknowledged any more.
    let full = async {
        loop {
            let before = *load.acknowledged.borrow();
            let more = load.acknowledged.wait_for(|acknowledged| *acknowledged > before);
            if tokio::time::timeout(Duration::from_millis(1_500), more).await.is_err() {
                return before;
            }
        }
    };
    let before = tokio::time::timeout(processes::PATIENCE, full).await.expect("it becomes full");
    let last = journal.reader().last_commit().await.unwrap();
    assert!(journal.stopped().borrow().is_none(), "it waits for room");
    assert_eq!(journal.position().borrow().commit, last, "nothing is half done");
    harness.server.limit_store(None);
    harness.server.restart().await.unwrap();
    load.more(100).await;
    let told = load.finish().await;
    assert!(told.len() as u64 >= before + 100);
    processes::check_told(&harness.log().await, &told);
    journal.shutdown().await.unwrap();
}

/// One of the two: opens the journal in its own folder whenever it can, and serves until it is fenced.
async fn racer(
    options: journal::JournalOptions,
    first_number: u64,
    until: Instant,
    terms: Arc<AtomicU64>,
) -> Vec<(u64, Outcome)> {
    let (mut told, mut number) = (Vec::new(), first_number);
    while Instant::now() < until {
        let journal = match Journal::open(options.clone()).await {
            Ok(journal) => journal,
            Err(StartError::Stopped(StopReason::Fenced { .. })) => continue,
            Err(error) => panic!("{error}"),
        };
        terms.fetch_add(1, Ordering::Relaxed);
        let client = journal.client();
        // Bursts of load; between them a newcomer has a chance.
        let mut burst = tokio::time::interval(Duration::from_millis(60));
        'term: while Instant::now() < until {
            burst.tick().await;
            let commands: Vec<_> = (number..number + 64).collect();
            let submitted = commands.iter().map(|number| client.submit(open_account(*number, *number)));
            for (number, outcome) in commands.iter().zip(futures::future::join_all(submitted).await) {
                match outcome {
                    Ok(outcome) => told.push((*number, outcome)),
                    // Asked again in a later term, under the same key.
                    Err(SubmitError::Unknown | SubmitError::Stopped(_)) => break 'term,
                    Err(error) => panic!("{error}"),
                }
            }
            number += 64;
        }
        match journal.shutdown().await {
            Ok(()) | Err(StopReason::Fenced { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sequencers_race_under_load_and_the_chain_stays_whole() {
    let long = std::env::var_os("COUNTERFOIL_LONG").is_some();
    let until = Instant::now() + Duration::from_secs(if long { 60 } else { 15 });
    let harness = Harness::start().await;
    let terms = Arc::new(AtomicU64::new(0));
    let racers = [(0, "a"), (500_000_000, "b")].map(|(first_number, folder)| {
        tokio::spawn(racer(harness.options(folder), first_number, until, terms.clone()))
    });
    let mut told = Vec::new();
    for racer in racers {
        told.extend(racer.await.unwrap());
    }
    // The reader checks numbers, hashes and leaves of every commit.
    let log = harness.log().await;
    told.sort_by_key(|(number, outcome)| (*number, outcome.commit));
    told.dedup_by_key(|(number, _)| *number);
    check_acknowledged(&log, &told);
    let epochs: Vec<u64> = log.iter().map(|commit| commit.commit.writer_epoch).collect();
    assert!(epochs.is_sorted(), "a writer that was replaced never writes again");
    let terms = terms.load(Ordering::Relaxed);
    println!("{} acknowledged in {} commits, {terms} terms", told.len(), log.len());
    assert!(terms >= 4, "they raced: {terms} terms");
}
