//! Starting again on a real nats-server: the same state from snapshot, log and archive; damage noticed and refused.

mod harness;

use harness::*;
use journal::snapshot_store::{SNAPSHOT_FOLDER, SnapshotStore};
use journal::tail::ARCHIVE_FOLDER;
use journal::{ArchiveReader, CommittedCommit, Journal, JournalOptions, StartError};
use ledger::State;
use std::path::{Path, PathBuf};

/// The newest tail file under a data folder.
fn tail_file(data_dir: &Path) -> PathBuf {
    let files = std::fs::read_dir(data_dir.join(ARCHIVE_FOLDER)).unwrap();
    let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "cft"));
    files.sort();
    files.pop().unwrap()
}

fn cut(path: &Path, bytes: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - bytes).unwrap();
}

fn archived(data_dir: &Path) -> Vec<CommittedCommit> {
    ArchiveReader::open(data_dir).unwrap().commits(1).map(Result::unwrap).collect()
}

async fn refused(options: JournalOptions) -> StartError {
    Journal::open(options).await.err().expect("refused")
}

/// Opens, compares the state with the log folded from the beginning, returns log and state's hash.
async fn reopened(harness: &Harness, name: &str) -> usize {
    let journal = harness.open(name).await;
    let log = whole_log(&journal).await;
    let mut state = State::new(0);
    for commit in &log {
        commit.apply_to(&mut state).unwrap();
    }
    assert_eq!(state_hash(&journal).await, state.hash(), "live state differs from the log");
    journal.shutdown().await.unwrap();
    let archived = archived(&harness.data_dir(name));
    let bytes = |log: &[CommittedCommit]| log.iter().map(|c| c.bytes.clone()).collect::<Vec<_>>();
    assert_eq!(bytes(&archived), bytes(&log), "the archive differs from the log");
    log.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_and_replay_give_the_same_state() {
    let harness = Harness::start().await;
    let journal = harness.open("a").await;
    submit_many(&journal, 0..200, 2).await;
    let state = journal.client().read(State::clone).await.unwrap();
    let last = journal.position().borrow().commit;
    journal.shutdown().await.unwrap();
    let data_dir = harness.data_dir("a");
    let snapshots = SnapshotStore::open(&data_dir).unwrap();
    snapshots.write(&state).unwrap();
    let newest = snapshots.list().unwrap().remove(0);
    assert_eq!((newest.commit, newest.read().unwrap().hash()), (last, state.hash()));
    // From the snapshot; without any; with one of another log; with a damaged one.
    assert_eq!(reopened(&harness, "a").await as u64, last + 1, "a new term is one commit");
    std::fs::remove_dir_all(data_dir.join(SNAPSHOT_FOLDER)).unwrap();
    reopened(&harness, "a").await;
    let newest = snapshots.write(&state).unwrap();
    std::fs::write(&newest.path, b"not a state").unwrap();
    reopened(&harness, "a").await;
    std::fs::remove_dir_all(data_dir.join(SNAPSHOT_FOLDER)).unwrap();
    let elsewhere = Harness::start().await;
    let other = elsewhere.open("b").await;
    submit_many(&other, 900..905, 1).await;
    let foreign = other.client().read(State::clone).await.unwrap();
    other.shutdown().await.unwrap();
    SnapshotStore::open(&elsewhere.data_dir("b")).unwrap().write(&foreign).unwrap();
    copy_dir(&elsewhere.data_dir("b").join(SNAPSHOT_FOLDER), &data_dir.join(SNAPSHOT_FOLDER));
    reopened(&harness, "a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shorter_tail_is_backfilled() {
    let harness = Harness::start().await;
    let mut options = harness.options("a");
    options.tail_file_bytes_max = 2_000;
    let journal = Journal::open(options).await.unwrap();
    let outcomes = submit_many(&journal, 0..100, 1).await;
    journal.shutdown().await.unwrap();
    let data_dir = harness.data_dir("a");
    let whole = archived(&data_dir);
    assert!(std::fs::read_dir(data_dir.join(ARCHIVE_FOLDER)).unwrap().count() > 5, "several files");
    // A torn record, a lost file, everything lost.
    cut(&tail_file(&data_dir), 10);
    assert_eq!(archived(&data_dir).len(), whole.len() - 1, "a torn record ends the reading quietly");
    reopened(&harness, "a").await;
    std::fs::remove_file(tail_file(&data_dir)).unwrap();
    reopened(&harness, "a").await;
    std::fs::remove_dir_all(data_dir.join(ARCHIVE_FOLDER)).unwrap();
    reopened(&harness, "a").await;
    let tail = ArchiveReader::open(&data_dir).unwrap();
    let from_50: Vec<_> = tail.commits(50).map(|commit| commit.unwrap().number).collect();
    assert_eq!((from_50[0], from_50.len()), (50, archived(&data_dir).len() - 49));
    let journal = harness.open("a").await;
    check_acknowledged(&whole_log(&journal).await, &outcomes);
    let again = journal.client().submit(open_account(7, 7)).await.unwrap();
    assert!(again.repeated && again.commit == outcomes[7].1.commit, "keys and archive survive");
    journal.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_went_back_is_refused() {
    let mut harness = Harness::start().await;
    let journal = harness.open("a").await;
    submit_many(&journal, 0..10, 1).await;
    journal.shutdown().await.unwrap();
    harness.server.stop().await.unwrap();
    let store = harness.dir.path().join("broker/nats");
    let copy = harness.dir.path().join("copy");
    copy_dir(&store, &copy);
    harness.server.restart().await.unwrap();
    let journal = harness.open("a").await;
    submit_many(&journal, 10..20, 1).await;
    let last = journal.position().borrow().commit;
    journal.shutdown().await.unwrap();
    // The disk comes back as it was earlier.
    harness.server.stop().await.unwrap();
    let jetstream = std::fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().path());
    let jetstream = jetstream.filter(|path| path.is_dir()).collect::<Vec<_>>();
    assert!(!jetstream.is_empty());
    for dir in jetstream {
        std::fs::remove_dir_all(&dir).unwrap();
        copy_dir(&copy.join(dir.file_name().unwrap()), &dir);
    }
    harness.server.restart().await.unwrap();
    let error = refused(harness.options("a")).await;
    assert!(matches!(error, StartError::Shorter { stream_last: 12, ours, .. } if ours == last), "{error}");
    assert!(error.to_string().contains("counterfoil restore"), "{error}");
    // The high-water mark alone notices it too.
    std::fs::remove_file(tail_file(&harness.data_dir("a"))).unwrap();
    let error = refused(harness.options("a")).await;
    assert!(matches!(error, StartError::Shorter { ours, .. } if ours == last), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_log_than_the_archives_is_refused() {
    let harness = Harness::start().await;
    let journal = harness.open("a").await;
    submit_many(&journal, 0..10, 1).await;
    journal.shutdown().await.unwrap();
    let elsewhere = Harness::start().await;
    let journal = elsewhere.open("b").await;
    submit_many(&journal, 0..20, 1).await;
    journal.shutdown().await.unwrap();
    copy_dir(&harness.data_dir("a"), &elsewhere.data_dir("a"));
    let error = refused(elsewhere.options("a")).await;
    assert!(matches!(error, StartError::Differs { at: 12, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_log_without_genesis_is_refused() {
    let harness = Harness::start().await;
    let mut options = harness.options("a");
    options.genesis = None;
    let error = refused(options).await;
    assert!(matches!(error, StartError::Stopped(_)) && error.to_string().contains("genesis"), "{error}");
    harness.open("a").await.shutdown().await.unwrap();
}
