//! The watchdog: quiet while books and log agree, in the middle of commits and over restarts; where they differ the writer
//! stops, says why, and takes nothing more.

mod harness;

use harness::*;
use journal::pipeline::StopReason;
use journal::watchdog::{WatchdogOptions, Watched};
use journal::{CommittedCommit, Journal, SubmitError};
use ledger::State;
use protocol::EventBody;

/// As often as it can.
fn eager(begin: State) -> Option<WatchdogOptions> {
    Some(WatchdogOptions { commits: 1, begin })
}

async fn compared(journal: &Journal, leaf: u64) -> Watched {
    let mut watched = journal.watched().expect("it has a watchdog");
    *watched.wait_for(|watched| watched.leaf >= leaf).await.expect("it runs")
}

#[tokio::test]
async fn books_that_agree_are_left_alone() {
    let harness = Harness::start().await;
    for (start, count) in [(0, 200), (200, 100)] {
        let mut options = harness.options("a");
        options.watchdog = eager(State::new(0));
        let journal = Journal::open(options).await.unwrap();
        submit_many(&journal, start..start + count, 32).await;
        let leaf = journal.position().borrow().leaf;
        // One more commit, so that a comparison begins after all of these.
        submit_many(&journal, 10_000 + start..10_001 + start, 1).await;
        assert!(compared(&journal, leaf).await.compared > 0);
        assert_eq!(*journal.stopped().borrow(), None);
        journal.shutdown().await.unwrap();
    }
}

/// As a reader would have it that takes one event for another.
fn fold_wrongly(log: &[CommittedCommit]) -> State {
    let mut state = State::new(0);
    let mut wrong = 0;
    for commit in log {
        for event in &commit.events {
            let mut event = event.clone();
            if let EventBody::AccountOpened(opened) = &mut event.body
                && opened.account == account(5)
            {
                opened.account = account(999_999);
                wrong += 1;
            }
            ledger::apply(&mut state, &event).unwrap();
        }
        ledger::end_commit(&mut state, commit.number, commit.hash, commit.commit.time_us).unwrap();
    }
    assert_eq!(wrong, 1, "one event was misread, or this proves nothing");
    state
}

#[tokio::test]
async fn books_that_differ_from_the_log_stop_spending_and_say_why() {
    let harness = Harness::start().await;
    let first = harness.open("a").await;
    submit_many(&first, 0..20, 8).await;
    let log = whole_log(&first).await;
    first.shutdown().await.unwrap();

    let mut options = harness.options("a");
    options.watchdog = eager(fold_wrongly(&log));
    let journal = Journal::open(options).await.unwrap();
    let mut stopped = journal.stopped();
    let reason = stopped.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    let StopReason::Diverged { leaf, writer, log: found, .. } = &reason else { panic!("{reason}") };
    assert!(*leaf >= 20 && writer != found, "{reason}");
    assert!(reason.to_string().contains("runbook"), "it says what to do: {reason}");
    let refused = journal.client().submit(open_account(500, 500)).await.unwrap_err();
    assert!(matches!(&refused, SubmitError::Stopped(_)), "{refused}");
    assert_eq!(journal.shutdown().await.unwrap_err(), reason);
}
