//! The archive beside a real writer: segments are sealed and read as one log with the tail, rot in our own files is healed
//! from the stream, snapshots are made beside the writer and rebuilt byte for byte.

mod harness;

use harness::*;
use journal::segment::{DirectoryStore, Segment, SegmentName, SegmentStore};
use journal::snapshot_store::{SNAPSHOT_FOLDER, SnapshotStore};
use journal::snapshotter::rebuild;
use journal::tail::ARCHIVE_FOLDER;
use journal::{ArchiveReader, Journal, JournalOptions};
use protocol::id::Hash32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Long enough for the keeper on a busy machine; nobody waits that long when it works.
const KEEPER_WAIT: Duration = Duration::from_secs(60);

fn files(data_dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data_dir.join(ARCHIVE_FOLDER)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}

fn hashes(data_dir: &Path) -> Vec<Hash32> {
    ArchiveReader::open(data_dir).unwrap().commits(1).map(|commit| commit.unwrap().hash).collect()
}

/// Small tail files, so that there are many.
fn options(harness: &Harness) -> JournalOptions {
    let mut options = harness.options("a");
    options.tail_file_bytes_max = 4_000;
    options
}

/// Waits until the folder looks as it should: the keeper is another thread, and the folder is what it shows.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let mut look = tokio::time::interval(Duration::from_millis(20));
    let waited = async {
        while !done() {
            look.tick().await;
        }
    };
    tokio::time::timeout(KEEPER_WAIT, waited).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// One open tail file and one complete one stay; everything else is sealed.
async fn sealed(data_dir: &Path) {
    until("everything is sealed", || files(data_dir, "cft").len() <= 2).await;
}

async fn log_of(count: u64, harness: &Harness) -> Vec<Hash32> {
    let journal = Journal::open(options(harness)).await.unwrap();
    submit_many(&journal, 0..count, 1).await;
    sealed(&harness.data_dir("a")).await;
    let log = whole_log(&journal).await;
    journal.shutdown().await.unwrap();
    log.iter().map(|commit| commit.hash).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_and_tail_read_as_one_log() {
    let harness = Harness::start().await;
    let data_dir = harness.data_dir("a");
    let mut options = options(&harness);
    let note = format!("counterfoil.example/test/0\n1000000\n{}\n\n", "x".repeat(44));
    std::fs::create_dir_all(data_dir.join("tlog")).unwrap();
    std::fs::write(data_dir.join("tlog/checkpoint"), &note).unwrap();
    options.checkpoint = data_dir.join("tlog/checkpoint");
    let journal = Journal::open(options.clone()).await.unwrap();
    let outcomes = submit_many(&journal, 0..150, 1).await;
    // Reads go on while files are sealed under the reader.
    let reading = std::thread::spawn({
        let data_dir = data_dir.clone();
        move || (0..200).map(|_| hashes(&data_dir).len()).max()
    });
    let more = submit_many(&journal, 150..300, 1).await;
    sealed(&data_dir).await;
    assert!(reading.join().unwrap() >= Some(150));
    let segments = files(&data_dir, "cfs");
    assert!(segments.len() > 5, "{segments:?}");
    let log = whole_log(&journal).await;
    assert_eq!(hashes(&data_dir), log.iter().map(|commit| commit.hash).collect::<Vec<_>>());
    let archive = ArchiveReader::open(&data_dir).unwrap();
    for first in [1, 2, 77, 151, log.len() as u64] {
        let numbers: Vec<_> = archive.commits(first).map(|commit| commit.unwrap().number).collect();
        assert_eq!(numbers, (first..=log.len() as u64).collect::<Vec<_>>());
        let ahead: Vec<_> = archive.commits_ahead(first).map(|commit| commit.unwrap().number).collect();
        assert_eq!(ahead, numbers);
    }
    // A repeated command is answered from a segment, before and after a restart.
    let again = journal.client().submit(open_account(3, 3)).await.unwrap();
    assert!(again.repeated && again.commit_hash == outcomes[3].1.commit_hash);
    assert_eq!(again.events, outcomes[3].1.events);
    journal.shutdown().await.unwrap();
    let journal = Journal::open(options).await.unwrap();
    let again = journal.client().submit(open_account(160, 160)).await.unwrap();
    assert!(again.repeated && again.events == more[10].1.events);
    journal.shutdown().await.unwrap();
    let store: Arc<dyn SegmentStore> = Arc::new(DirectoryStore::new(&data_dir.join(ARCHIVE_FOLDER)));
    let name = SegmentName::parse(&segments[1]).unwrap();
    let segment = Segment::open(store, name).unwrap();
    assert_eq!(segment.checkpoint(), note.as_bytes());
    assert_eq!(segment.head().previous, log[name.first as usize - 2].hash);
    assert_eq!(segment.verify().unwrap(), log[name.last as usize - 1].position());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_sealing_and_deleting_leaves_both_and_is_finished() {
    let harness = Harness::start().await;
    let data_dir = harness.data_dir("a");
    let mut unsealed = options(&harness);
    unsealed.unsealed_files = usize::MAX;
    let journal = Journal::open(unsealed).await.unwrap();
    submit_many(&journal, 0..200, 1).await;
    journal.shutdown().await.unwrap();
    let before = hashes(&data_dir);
    let tails = files(&data_dir, "cft");
    assert!(tails.len() > 5 && files(&data_dir, "cfs").is_empty());
    let kept: Vec<_> = tails.iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    let journal = Journal::open(options(&harness)).await.unwrap();
    sealed(&data_dir).await;
    journal.shutdown().await.unwrap();
    // The tail files are back, as if the process had been killed before it deleted them; one segment is rotten; something
    // was never finished.
    for (path, bytes) in kept.iter().take(3) {
        std::fs::write(path, bytes).unwrap();
    }
    let segments = files(&data_dir, "cfs");
    flip(&segments[1], 200);
    std::fs::write(segments[2].with_extension("partial"), b"half").unwrap();
    let journal = Journal::open(options(&harness)).await.unwrap();
    until("leftovers go", || files(&data_dir, "cft").len() <= 2 && files(&data_dir, "partial").is_empty())
        .await;
    until("the rotten one is replaced", || hashes_or_empty(&data_dir).len() >= before.len()).await;
    journal.shutdown().await.unwrap();
    assert_eq!(hashes(&data_dir)[..before.len()], before);
}

fn hashes_or_empty(data_dir: &Path) -> Vec<Hash32> {
    let archive = ArchiveReader::open(data_dir).unwrap();
    let commits: Result<Vec<_>, _> = archive.commits(1).collect();
    commits.map_or_else(|_| Vec::new(), |commits| commits.iter().map(|commit| commit.hash).collect())
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = at.min(bytes.len() - 1);
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rot_in_our_own_files_is_noticed_and_healed_from_the_stream() {
    let harness = Harness::start().await;
    let data_dir = harness.data_dir("a");
    let log = log_of(200, &harness).await;
    type Damage = fn(&Path);
    let cut: Damage = |path| {
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    };
    let damages: [(&str, &str, Damage); 8] = [
        ("segment flipped in a frame", "cfs", |path| flip(path, 300)),
        ("segment flipped in its head", "cfs", |path| flip(path, 90)),
        ("segment flipped at its end", "cfs", |path| flip(path, usize::MAX)),
        ("segment cut", "cfs", cut),
        ("segment gone", "cfs", |path| std::fs::remove_file(path).unwrap()),
        ("tail flipped", "cft", |path| flip(path, 100)),
        ("tail flipped in its head", "cft", |path| flip(path, 3)),
        ("tail gone", "cft", |path| std::fs::remove_file(path).unwrap()),
    ];
    for (what, extension, damage) in damages {
        for place in [0, usize::MAX] {
            let all = files(&data_dir, extension);
            let hit = &all[place.min(all.len() - 1)];
            damage(hit);
            let journal = Journal::open(options(&harness)).await.unwrap_or_else(|e| panic!("{what}: {e}"));
            until(what, || hashes_or_empty(&data_dir).len() >= log.len()).await;
            journal.shutdown().await.unwrap();
            assert_eq!(hashes(&data_dir)[..log.len()], log, "{what}");
        }
    }
    assert!(data_dir.join(ARCHIVE_FOLDER).join("damaged").is_dir(), "what was rotten is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_are_made_beside_the_writer_and_a_rebuild_gives_the_same_bytes() {
    let harness = Harness::start().await;
    let data_dir = harness.data_dir("a");
    let mut options = harness.options("a");
    options.snapshots.commits = 20;
    let journal = Journal::open(options.clone()).await.unwrap();
    let store = SnapshotStore::open(&data_dir).unwrap();
    for round in 0..3 {
        let newest = store.list().unwrap().first().map_or(0, |file| file.commit);
        submit_many(&journal, round * 100..round * 100 + 100, 1).await;
        until("a snapshot while the writer runs", || {
            store.list().unwrap().first().is_some_and(|file| file.commit > newest)
        })
        .await;
    }
    let hash = state_hash(&journal).await;
    let last = journal.position().borrow().commit;
    journal.shutdown().await.unwrap();
    let newest = store.list().unwrap().remove(0);
    assert_eq!(
        (newest.commit, newest.read().unwrap().hash()),
        (last, hash),
        "the last one stands at the end"
    );
    let rebuilt = rebuild(&data_dir, |_| {}).unwrap();
    let compared = rebuilt.compared.unwrap();
    assert_eq!((rebuilt.end.commit, compared.difference), (last, None));
    // The two newest are damaged: the older one serves, and the start says the same state.
    let all = store.list().unwrap();
    assert!(all.len() >= 2);
    for file in &all[..all.len() - 1] {
        flip(&file.path, 50);
    }
    let journal = Journal::open(options.clone()).await.unwrap();
    submit_many(&journal, 900..930, 1).await;
    journal.shutdown().await.unwrap();
    let compared = rebuild(&data_dir, |_| {}).unwrap().compared.unwrap();
    assert_eq!(compared.difference, None);
    // A snapshot of another log under this commit's number: named.
    let newest = store.list().unwrap().remove(0);
    let elsewhere = Harness::start().await;
    let other = elsewhere.open("b").await;
    while other.position().borrow().commit < newest.commit {
        let next = other.position().borrow().commit;
        other.client().submit(open_account(5_000 + next, 5_000 + next)).await.unwrap();
    }
    other.shutdown().await.unwrap();
    let theirs = SnapshotStore::open(&elsewhere.data_dir("b")).unwrap().list().unwrap().remove(0);
    assert_eq!(theirs.commit, newest.commit);
    std::fs::remove_dir_all(data_dir.join(SNAPSHOT_FOLDER)).unwrap();
    std::fs::create_dir_all(data_dir.join(SNAPSHOT_FOLDER)).unwrap();
    let target = data_dir.join(SNAPSHOT_FOLDER).join(theirs.path.file_name().unwrap());
    std::fs::copy(&theirs.path, target).unwrap();
    let compared = rebuild(&data_dir, |_| {}).unwrap().compared.unwrap();
    let difference = compared.difference.expect("another log's state");
    assert!(difference.contains("at ") && difference.contains("byte"), "{difference}");
}
