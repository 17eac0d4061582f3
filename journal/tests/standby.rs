//! Sequencer and standby as processes: the leader is killed or stopped under load, the standby takes over, nothing that
//! was acknowledged is lost or done twice, and a leader that wakes up again is fenced.

mod harness;
mod processes;

use harness::*;
use journal::StandbyOptions;
use journal::standby::{Standby, StuckOwner};
use nix::sys::signal::Signal;
use processes::*;
use std::time::{Duration, Instant};

/// The promise, from the signal to the next acknowledged command of a waiting gateway.
const TAKEOVER_MAX: Duration = Duration::from_secs(2);

struct Case {
    /// The standby's data folder; the leader's is `a`.
    standby: &'static str,
    signal: Signal,
}

/// Returns how long gateways waited.
async fn take_over(case: Case) -> Duration {
    let harness = Harness::start().await;
    let mut leader = harness.sequencer("a", "lead");
    assert_eq!(leader.says("leads").await, "1");
    let mut standby = harness.sequencer(case.standby, "standby");
    standby.says("standby").await;
    let gateway = harness.gateway().await;
    let load = Load::start(&gateway, 8);
    load.more(200).await;
    leader.signal(case.signal);
    let begin = Instant::now();
    assert_eq!(standby.says("leads").await, "2");
    load.more(8).await;
    let waited = begin.elapsed();
    load.more(200).await;
    if case.signal == Signal::SIGSTOP && case.standby != "a" {
        // It wakes up in the middle of its term and learns that the term is over.
        leader.signal(Signal::SIGCONT);
        let reason = leader.says("ended").await;
        assert!(reason.contains("fenced") || reason.contains("shut down"), "{reason}");
        load.more(200).await;
    } else {
        leader.wait().await;
    }
    let told = load.finish().await;
    check_told(&harness.log().await, &told);
    let count = gateway.read(|state| ledger::query::accounts(state).len()).await.unwrap();
    assert!(count >= told.len(), "the replica has what its gateway was told");
    println!(
        "{} in folder {}: served again after {} ms, {} acknowledged",
        case.signal,
        case.standby,
        waited.as_millis(),
        told.len()
    );
    waited
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_with_one_data_folder() {
    assert!(take_over(Case { standby: "a", signal: Signal::SIGKILL }).await <= TAKEOVER_MAX);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_with_a_folder_each() {
    assert!(take_over(Case { standby: "b", signal: Signal::SIGKILL }).await <= TAKEOVER_MAX);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_with_one_data_folder() {
    assert!(take_over(Case { standby: "a", signal: Signal::SIGSTOP }).await <= TAKEOVER_MAX);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_with_a_folder_each_and_woken_again() {
    assert!(take_over(Case { standby: "b", signal: Signal::SIGSTOP }).await <= TAKEOVER_MAX);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_leader_is_left_alone_and_a_silent_broker_is_no_dead_leader() {
    let mut harness = Harness::start().await;
    let mut leader = harness.sequencer("a", "lead");
    leader.says("leads").await;
    let mut options = StandbyOptions::new(harness.options("b"));
    options.stuck_owner = StuckOwner::Leave;
    let standby = tokio::spawn(Standby::run(options));
    let gateway = harness.gateway().await;
    let load = Load::start(&gateway, 4);
    load.more(100).await;
    harness.server.kill().await.unwrap();
    // Longer than the lease: without a broker nobody hears anybody.
    assert!(tokio::time::timeout(Duration::from_millis(1_500), async { load.more(8).await }).await.is_err());
    harness.server.restart().await.unwrap();
    load.more(100).await;
    assert!(!standby.is_finished(), "the leader lives");
    let told = load.finish().await;
    check_told(&harness.log().await, &told);
    leader.signal(Signal::SIGKILL);
    let second = tokio::time::timeout(PATIENCE, standby).await.unwrap().unwrap().unwrap();
    assert_eq!(second.journal().epoch(), 2);
    // What the standby kept beside the log is a whole second copy.
    let archive = journal::ArchiveReader::open(&harness.data_dir("b")).unwrap();
    let archived: Result<Vec<_>, _> = archive.commits(1).collect();
    let archived = archived.unwrap().len() as u64;
    assert_eq!(archived, second.journal().position().borrow().commit);
    second.shutdown().await.unwrap();
}
