//! The archive's copy in another place: sealed segments arrive in a folder and in the bucket of a foreign S3 server while the
//! writer runs, what was damaged there is replaced or refused, and the whole log comes back from there alone.

mod harness;

use harness::*;
use journal::auth::connect;
use journal::restore::{Evidence, Restore, RestoreOptions, Step, fetch_segments};
use journal::segment::{Bucket, BucketKeys, SegmentName, SegmentStore, StoreLocation};
use journal::tail::ARCHIVE_FOLDER;
use journal::{ArchiveReader, Journal};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Long enough for the keeper and the courier on a busy machine; nobody waits that long when they work.
const COPY_WAIT: Duration = Duration::from_secs(60);
const BUCKET: &str = "books";

/// moto, the S3 server that AWS clients are tested against: written by other hands.
struct S3 {
    process: Child,
    endpoint: String,
}

impl S3 {
    fn start() -> S3 {
        let mut process = Command::new(python())
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("python starts");
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let said = |line: &String| line.split_once("Running on ").map(|(_, url)| url.trim().to_owned());
        let endpoint = lines.by_ref().map_while(Result::ok).find_map(|line| said(&line));
        let endpoint = endpoint.expect("moto says where it listens: is it in the tests' Python?");
        // Its log is read to the end, or it would stop at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        S3 { process, endpoint }
    }

    fn location(&self, prefix: &str) -> StoreLocation {
        let location = format!("s3://{BUCKET}/{prefix}?endpoint={}", self.endpoint).parse().unwrap();
        let StoreLocation::Bucket(bucket) = location else { panic!("a bucket's URL is a bucket") };
        let keys = BucketKeys { id: "id".into(), secret: "secret".into() };
        StoreLocation::Bucket(Bucket { keys: Some(keys), ..bucket })
    }

    /// Amazon's own client: makes the bucket, gets an object to stdout, or puts one from stdin.
    fn boto(&self, act: &str, key: &str, body: &[u8]) -> Vec<u8> {
        let script = format!("{BOTO}\n{act}");
        let mut client = Command::new(python())
            .args(["-c", &script, &self.endpoint, BUCKET, key])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        client.stdin.take().unwrap().write_all(body).unwrap();
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success(), "{act} {key}");
        output.stdout
    }
}

const BOTO: &str = "import boto3, sys
endpoint, bucket, key = sys.argv[1:]
s3 = boto3.client('s3', endpoint_url=endpoint, aws_access_key_id='id', aws_secret_access_key='secret', region_name='us-east-1')";
const MAKE: &str = "s3.create_bucket(Bucket=bucket)";
const GET: &str = "sys.stdout.buffer.write(s3.get_object(Bucket=bucket, Key=key)['Body'].read())";
const PUT: &str = "s3.put_object(Bucket=bucket, Key=key, Body=sys.stdin.buffer.read())";

fn python() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let python = std::env::var_os("COUNTERFOIL_S3_PYTHON").map(PathBuf::from);
    let python = python.unwrap_or_else(|| root.join(".tools/venv-s3/bin/python"));
    assert!(python.exists(), "{} is missing: run cargo xtask test, which installs it", python.display());
    python
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn names(data_dir: &Path) -> Vec<SegmentName> {
    let store = journal::segment::DirectoryStore::new(&data_dir.join(ARCHIVE_FOLDER));
    store.list().unwrap()
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let mut look = tokio::time::interval(Duration::from_millis(20));
    let waited = async {
        while !done() {
            look.tick().await;
        }
    };
    tokio::time::timeout(COPY_WAIT, waited).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// A log whose sealed part is copied while it grows; everything but an empty file's worth is sealed at the end.
async fn copied_log(harness: &Harness, location: &StoreLocation) -> Vec<journal::CommittedCommit> {
    let mut options = harness.options("a");
    options.tail_file_bytes_max = 4_000;
    options.unsealed_files = 0;
    options.archive_copy = Some(location.clone());
    let journal = Journal::open(options).await.unwrap();
    submit_many(&journal, 0..300, 1).await;
    let log = whole_log(&journal).await;
    let (copy, data_dir) = (location.open().unwrap(), harness.data_dir("a"));
    until("every segment is copied", || {
        let sealed = names(&data_dir);
        let reaches = sealed.last().map_or(0, |name| name.last);
        // The writer's last file is sealed when it is full: what it holds at the end stays behind.
        sealed.len() > 5 && reaches > 250 && copy.list().is_ok_and(|copied| copied == sealed)
    })
    .await;
    journal.shutdown().await.unwrap();
    log
}

/// From the copy alone, into an empty folder and an empty server: the log up to the last sealed commit.
async fn comes_back(location: &StoreLocation, log: &[journal::CommittedCommit]) {
    let harness = Harness::start().await;
    let archive = harness.data_dir("b").join(ARCHIVE_FOLDER);
    let fetched = fetch_segments(location, &archive).unwrap();
    assert!(fetched.segments > 5 && fetched.bytes > 10_000, "{fetched:?}");
    let client =
        connect(&harness.server.url(), &harness.server.keys().restore_credentials().unwrap()).await.unwrap();
    let evidence = Evidence::gather(&harness.data_dir("b"), &archive).unwrap();
    let restore = Restore::open(RestoreOptions { archive: archive.clone(), client, evidence }).unwrap();
    let plan = restore.plan().await.unwrap();
    assert!(matches!(plan.step, Step::Append { .. } | Step::Create), "{:?}", plan.step);
    let restored = restore.carry_out(&plan).await.unwrap();
    let sealed = restored.commits as usize;
    assert!(sealed > 250 && sealed <= log.len(), "{sealed} of {}", log.len());
    let hashes = |count| log[..count].iter().map(|commit| commit.hash).collect::<Vec<_>>();
    let archived = ArchiveReader::open(&harness.data_dir("b")).unwrap();
    let replayed: Vec<_> = archived.commits(1).map(|commit| commit.unwrap().hash).collect();
    assert_eq!(replayed, hashes(sealed));
    let journal = harness.open("b").await;
    let now = whole_log(&journal).await;
    assert_eq!(now[..sealed].iter().map(|commit| commit.hash).collect::<Vec<_>>(), hashes(sealed));
    assert!(journal.client().submit(open_account(7, 7)).await.unwrap().repeated);
    journal.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_elsewhere_gets_every_segment_and_gives_the_log_back() {
    let harness = Harness::start().await;
    let copy = harness.dir.path().join("copy");
    let location: StoreLocation = format!("file://{}", copy.display()).parse().unwrap();
    let log = copied_log(&harness, &location).await;
    comes_back(&location, &log).await;
    // A rotten one is named, and nothing of it is taken.
    let store = location.open().unwrap();
    let victim = store.list().unwrap()[2];
    let path = copy.join(victim.to_string());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let empty = tempfile::tempdir().unwrap();
    let refused = fetch_segments(&location, empty.path()).unwrap_err().to_string();
    assert!(refused.contains(&victim.to_string()), "{refused}");
    assert!(!empty.path().join(victim.to_string()).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_of_a_foreign_server_gets_every_segment_and_gives_the_log_back() {
    let s3 = S3::start();
    s3.boto(MAKE, "", b"");
    let location = s3.location("ledgers/first");
    let harness = Harness::start().await;
    let log = copied_log(&harness, &location).await;
    comes_back(&location, &log).await;
    let store: Arc<dyn SegmentStore> = location.open().unwrap();
    let segments = store.list().unwrap();
    // Another server's client sees the very bytes; a prefix of its own has nothing of ours.
    let own = journal::segment::DirectoryStore::new(&harness.data_dir("a").join(ARCHIVE_FOLDER));
    let whole =
        |store: &dyn SegmentStore, name| store.read(name, 0, store.size(name).unwrap() as usize).unwrap();
    let (victim, bytes) = (segments[1], whole(&own, &segments[1]));
    let key = format!("ledgers/first/{victim}");
    assert_eq!(s3.boto(GET, &key, b""), bytes);
    assert!(s3.location("ledgers/second").open().unwrap().list().unwrap().is_empty());
    assert!(
        store.read(&victim, bytes.len() as u64 - 4, 8).is_err(),
        "fewer bytes than asked for are an error"
    );
    // Somebody writes over it: reading back refuses it, storing it again replaces it, and again changes nothing.
    let mut rotten = bytes.clone();
    rotten[300] ^= 1;
    s3.boto(PUT, &key, &rotten);
    let empty = tempfile::tempdir().unwrap();
    let refused = fetch_segments(&location, empty.path()).unwrap_err().to_string();
    assert!(refused.contains(&victim.to_string()), "{refused}");
    store.put(&victim, &bytes).unwrap();
    store.put(&victim, &bytes).unwrap();
    assert_eq!(whole(store.as_ref(), &victim), bytes);
    fetch_segments(&location, empty.path()).unwrap();
    // Nobody there: an error that says where, in good time.
    drop(s3);
    let gone = store.list().unwrap_err().to_string();
    assert!(gone.contains("s3://books"), "{gone}");
}
