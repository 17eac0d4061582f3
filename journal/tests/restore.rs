//! Bit rot for real in a live JetStream store: noticed at every start, never continued at a lower sequence, and restored from
//! archive and survivors with nothing lost, proved against a signed checkpoint.

mod harness;

use harness::*;
use journal::auth::connect;
use journal::restore::{
    Evidence, Plan, Restore, RestoreError, RestoreOptions, Restored, Step, move_stream_aside,
};
use journal::stream::init_streams;
use journal::tail::ARCHIVE_FOLDER;
use journal::transparency::{Signer, Transparency};
use journal::{CommittedCommit, Journal, StartError, SubmitError};
use std::path::{Path, PathBuf};

const STREAM: &str = "LEDGER_0";

/// A network with a log, a signed checkpoint and several archive files; stopped, with a copy of everything.
struct Baseline {
    harness: Harness,
    log: Vec<CommittedCommit>,
}

impl Baseline {
    async fn new() -> Self {
        let mut harness = Harness::start().await;
        let mut options = harness.options("a");
        options.tail_file_bytes_max = 8_000;
        let journal = Journal::open(options).await.unwrap();
        submit_many(&journal, 0..150, 1).await;
        submit_many(&journal, 150..3_000, 512).await;
        let log = whole_log(&journal).await;
        sign(&harness.data_dir("a"), &log);
        journal.shutdown().await.unwrap();
        harness.server.stop().await.unwrap();
        copy_dir(&harness.dir.path().join("broker/nats/store"), &harness.dir.path().join("kept/store"));
        copy_dir(&harness.data_dir("a"), &harness.dir.path().join("kept/a"));
        Self { harness, log }
    }

    fn store(&self) -> PathBuf {
        self.harness.dir.path().join("broker/nats/store")
    }

    /// Everything as it was; the server is stopped.
    async fn reset(&mut self) {
        self.harness.server.stop().await.unwrap();
        for (kept, place) in [("kept/store", self.store()), ("kept/a", self.harness.data_dir("a"))] {
            std::fs::remove_dir_all(&place).unwrap();
            copy_dir(&self.harness.dir.path().join(kept), &place);
        }
    }

    /// The files of the stream in the server's store.
    fn stream_files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let accounts = std::fs::read_dir(self.store().join("jetstream")).unwrap();
        for account in accounts {
            list(&account.unwrap().path().join("streams").join(STREAM), &mut files);
        }
        files.sort();
        files
    }

    async fn look(&self, archive: &Path) -> Result<(Restore, Plan), RestoreError> {
        let server = &self.harness.server;
        let credentials = server.keys().restore_credentials().unwrap();
        let client = connect(&server.url(), &credentials).await.unwrap();
        let evidence = Evidence::gather(&self.harness.data_dir("a"), archive)?;
        let restore = Restore::open(RestoreOptions { archive: archive.to_owned(), client, evidence })?;
        let plan = restore.plan().await?;
        Ok((restore, plan))
    }

    /// What the command does with a data directory.
    async fn restore(&mut self) -> Restored {
        let archive = self.harness.data_dir("a").join(ARCHIVE_FOLDER);
        let (mut restore, plan) = self.look(&archive).await.unwrap();
        if matches!(plan.step, Step::MoveAside { .. } | Step::Create) {
            self.harness.server.stop().await.unwrap();
            move_stream_aside(&self.harness.dir.path().join("broker")).unwrap();
            self.harness.server.restart().await.unwrap();
            restore = self.look(&archive).await.unwrap().0;
        }
        restore.carry_out(&plan).await.unwrap()
    }

    /// A journal opens again and has everything.
    async fn serves_everything(&self, what: &str) {
        let journal =
            Journal::open(self.harness.options("a")).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        let now = whole_log(&journal).await;
        assert_eq!(now.len(), self.log.len() + 1, "{what}: a new term is one commit");
        for (ours, theirs) in self.log.iter().zip(&now) {
            assert_eq!(ours.bytes, theirs.bytes, "{what}");
        }
        let mut look = tokio::time::interval(std::time::Duration::from_millis(50));
        let again = loop {
            look.tick().await;
            match journal.client().submit(open_account(7, 7)).await {
                // Its first outcome is read from the archive: the keeper is healing it.
                Err(SubmitError::Unreadable { .. }) => {}
                other => break other.unwrap(),
            }
        };
        assert!(again.repeated, "{what}");
        journal.shutdown().await.unwrap();
    }
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { list(&path, files) } else { files.push(path) }
    }
}

/// A checkpoint of the whole log, as the running network publishes it.
fn sign(data_dir: &Path, log: &[CommittedCommit]) {
    let signer = Signer::load_or_create(&data_dir.join("keys"), "counterfoil.example/test/0").unwrap();
    let mut tlog = Transparency::open(&data_dir.join("tlog"), signer).unwrap();
    for commit in log {
        let leaves: Vec<&[u8]> = commit.commit.events.iter().map(|event| &event[..]).collect();
        tlog.append_commit(commit.commit.first_leaf, &leaves).unwrap();
    }
    tlog.checkpoint().unwrap();
}

fn flip(path: &Path, part: f64) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = ((bytes.len() - 1) as f64 * part) as usize;
    bytes[at] ^= 0x08;
    std::fs::write(path, bytes).unwrap();
}

fn cut(path: &Path, part: f64) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len((file.metadata().unwrap().len() as f64 * part) as u64).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rot_in_every_file_of_the_store_is_noticed_and_restored() {
    let mut baseline = Baseline::new().await;
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 7] = [
        ("flipped at 0.1", |path| flip(path, 0.1)),
        ("flipped at 0.5", |path| flip(path, 0.5)),
        ("flipped in the last bytes", |path| flip(path, 0.9999)),
        ("cut to half", |path| cut(path, 0.5)),
        ("cut by a little", |path| cut(path, 0.999)),
        ("emptied", |path| cut(path, 0.0)),
        ("deleted", |path| std::fs::remove_file(path).unwrap()),
    ];
    let kinds = baseline.stream_files();
    let names: Vec<_> =
        kinds.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    for expected in ["1.blk", "index.db", "meta.inf", "meta.sum"] {
        assert!(names.iter().any(|name| name == expected), "{names:?}");
    }
    let (mut noticed, mut harmless, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for (path, name) in kinds.iter().zip(&names) {
        for (how, damage) in damages {
            let what = format!("{name} {how}");
            baseline.reset().await;
            damage(path);
            baseline.harness.server.restart().await.unwrap();
            match Journal::open(baseline.harness.options("a")).await {
                // The server had it elsewhere too: then everything must be there.
                Ok(journal) => {
                    journal.shutdown().await.unwrap();
                    harmless.push(what);
                    continue;
                }
                Err(error) => {
                    assert!(error.to_string().contains("counterfoil restore"), "{what}: {error}");
                    noticed.push(what.clone());
                }
            }
            let restored = baseline.restore().await;
            assert_eq!(restored.commits, baseline.log.len() as u64, "{what}");
            assert!(
                restored.proved.checkpoint_signature && restored.proved.snapshot_commit.is_some(),
                "{what}"
            );
            rates.push(restored.commits_per_second);
            baseline.serves_everything(&what).await;
        }
    }
    println!("noticed and restored: {noticed:?}\nharmless to the server itself: {harmless:?}");
    let blocks = |list: &[String]| list.iter().filter(|what| what.starts_with("1.blk")).count();
    assert_eq!(
        (blocks(&noticed), blocks(&harmless)),
        (damages.len(), 0),
        "a block holds the messages themselves"
    );
    assert!(noticed.iter().any(|what| what.starts_with("meta")), "{noticed:?}");
    let rate = rates.iter().sum::<f64>() / rates.len() as f64;
    println!("{} restores, {rate:.0} commits/s", rates.len());
    // What was harmless left everything in place.
    baseline.reset().await;
    baseline.harness.server.restart().await.unwrap();
    baseline.serves_everything("untouched").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn harmless_damage_leaves_every_commit_in_place() {
    let mut baseline = Baseline::new().await;
    let index = baseline.stream_files().into_iter().find(|path| path.ends_with("index.db")).unwrap();
    for damage in [|path: &Path| flip(path, 0.5), |path: &Path| std::fs::remove_file(path).unwrap()] {
        baseline.reset().await;
        damage(&index);
        baseline.harness.server.restart().await.unwrap();
        baseline.serves_everything("index.db is derived").await;
    }
}

/// `up` makes missing streams before it opens the journal: on rotten files that must not look like a fresh beginning.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_made_again_on_rotten_files_is_whole_or_refused() {
    let mut baseline = Baseline::new().await;
    let of = |name: &str| baseline.stream_files().into_iter().find(|path| path.ends_with(name)).unwrap();
    let (meta, block) = (of("meta.inf"), of("1.blk"));
    for both in [false, true] {
        baseline.reset().await;
        std::fs::remove_file(&meta).unwrap();
        if both {
            cut(&block, 0.7);
        }
        baseline.harness.server.restart().await.unwrap();
        let server = &baseline.harness.server;
        let init = connect(&server.url(), &server.keys().init_credentials().unwrap()).await.unwrap();
        // Whether the server takes it is its own affair.
        let made = init_streams(&init).await;
        match Journal::open(baseline.harness.options("a")).await {
            Ok(journal) => {
                assert!(!both, "messages are missing");
                println!("made again: {made:?}, and the server found its messages");
                assert!(journal.position().borrow().commit > baseline.log.len() as u64);
                journal.shutdown().await.unwrap();
            }
            Err(error) => {
                println!("made again: {made:?}; {error}");
                assert!(error.to_string().contains("counterfoil restore"), "{error}");
                baseline.restore().await;
                baseline.serves_everything("made again, then restored").await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_server_gets_the_whole_log_and_a_longer_one_is_not_touched() {
    let mut baseline = Baseline::new().await;
    let archive = baseline.harness.data_dir("a").join(ARCHIVE_FOLDER);
    // Nothing there at all.
    std::fs::remove_dir_all(baseline.store().join("jetstream")).unwrap();
    baseline.harness.server.restart().await.unwrap();
    let error = Journal::open(baseline.harness.options("a")).await.err().expect("refused");
    assert!(matches!(error, StartError::Vanished { .. }), "{error}");
    let restored = baseline.restore().await;
    assert_eq!(restored.republished_commits, baseline.log.len() as u64);
    assert_eq!(restored.events, baseline.log.last().unwrap().position().leaf);
    println!("{:.0} commits/s, {:.0} events/s", restored.commits_per_second, restored.events_per_second);
    baseline.serves_everything("restored into nothing").await;
    // The stream is now longer than an older copy of the archive, and chains on: nothing to do, nothing lost.
    let kept = baseline.harness.dir.path().join("kept/a").join(ARCHIVE_FOLDER);
    let (restore, plan) = baseline.look(&kept).await.unwrap();
    assert_eq!((&plan.step, plan.head.commit), (&Step::Nothing, baseline.log.len() as u64 + 1));
    assert_eq!(restore.carry_out(&plan).await.unwrap().republished_commits, 0);
    // Another log in the stream is refused, and stays.
    let elsewhere = Baseline::new().await;
    let theirs = elsewhere.harness.data_dir("a").join(ARCHIVE_FOLDER);
    let credentials = baseline.harness.server.keys().restore_credentials().unwrap();
    let client = connect(&baseline.harness.server.url(), &credentials).await.unwrap();
    let evidence = Evidence::default();
    let restore = Restore::open(RestoreOptions { archive: theirs, client, evidence }).unwrap();
    let plan = restore.plan().await.unwrap();
    let refusal = plan.refusal().expect("another log");
    assert!(refusal.to_string().contains("--force"), "{refusal}");
    assert!(archive.is_dir());
    let journal = Journal::open(baseline.harness.options("a")).await.unwrap();
    journal.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archive_and_stream_both_damaged_complete_each_other() {
    let mut baseline = Baseline::new().await;
    let archive = baseline.harness.data_dir("a").join(ARCHIVE_FOLDER);
    let mut files = Vec::new();
    list(&archive, &mut files);
    files.sort();
    // The archive loses its beginning, the stream its end.
    let is_first =
        |path: &&PathBuf| path.file_name().unwrap().to_str().unwrap().contains("-00000000000000000001");
    let first = files.iter().find(is_first).unwrap();
    flip(first, 0.5);
    let block = baseline.stream_files().into_iter().find(|path| path.ends_with("1.blk")).unwrap();
    let index = baseline.stream_files().into_iter().find(|path| path.ends_with("index.db")).unwrap();
    cut(&block, 0.9);
    std::fs::remove_file(index).unwrap();
    baseline.harness.server.restart().await.unwrap();
    let error = Journal::open(baseline.harness.options("a")).await.err().expect("refused");
    assert!(error.to_string().contains("counterfoil restore"), "{error}");
    let restored = baseline.restore().await;
    assert_eq!(restored.commits, baseline.log.len() as u64);
    assert!(restored.from_stream > 0, "{restored:?}");
    baseline.serves_everything("both damaged").await;
    // Both lose the same commits: named, nothing written.
    baseline.reset().await;
    flip(first, 0.5);
    cut(&block, 0.001);
    baseline.harness.server.restart().await.unwrap();
    let Err(error) = baseline.look(&archive).await else { panic!("nowhere") };
    assert!(matches!(error, RestoreError::Missing { .. }), "{error}");
}
