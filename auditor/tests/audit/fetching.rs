//! Fetching over HTTP and from a directory: resumed, refused, with what belongs beside the log.

use crate::log::{self, note, put};
use crate::story::{JOBS, honest, receipt_bytes, replay_of};
use auditor::checks::CheckKind;
use auditor::fetch::{Beside, FetchOptions, FetchSource, fetch};
use auditor::report::Outcome;
use auditor::{Report, verify};
use data_encoding::BASE64;
use protocol::commit::{COMMIT_VERSION, Commit};
use protocol::event::Event;
use protocol::id::Hash32;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

fn fetched(source: FetchSource, directory: &Path, policy: Option<PathBuf>, beside: Beside) -> Report {
    fetch(&FetchOptions { source, directory: directory.to_owned(), policy, beside, progress: None }).unwrap()
}

fn from_directory(host: &Path, copy: &Path) -> Report {
    fetched(FetchSource::Directory(host.to_owned()), copy, Some(host.join("policy")), Beside::Nothing)
}

fn entries(count: u64) -> Vec<Vec<u8>> {
    (0..count).map(|n| format!("entry {n}").into_bytes()).collect()
}

#[test]
fn a_growing_log_is_followed_and_every_checkpoint_kept() {
    let (host, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut from = 0;
    for size in [3, 3, 300, 600] {
        log::write(host.path(), &entries(size));
        let report = from_directory(host.path(), copy.path());
        assert_eq!((report.exit_code, report.events), (0, size - from), "{:#?}", report.checks);
        from = size;
    }
    assert_eq!(std::fs::read_dir(copy.path().join("checkpoints")).unwrap().count(), 3);
    let options =
        verify::VerifyOptions { directory: copy.path().to_owned(), policy: None, since: None, chain: None };
    let report = verify::verify(&options).unwrap();
    assert_eq!(report.exit_code, 0, "{:#?}", report.checks);
    assert_eq!(report.check(CheckKind::Consistency).unwrap().examined, 3);
}

#[test]
fn rollback_fork_and_two_roots_of_one_size_are_refused_and_kept() {
    for (size, fork) in [(400u64, false), (600, true), (700, true)] {
        let (host, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        log::write(host.path(), &entries(600));
        assert_eq!(from_directory(host.path(), copy.path()).exit_code, 0);
        let before = std::fs::read(copy.path().join("checkpoint")).unwrap();
        let mut all = entries(size);
        if fork {
            all[599] = b"another history".to_vec();
        }
        log::write(host.path(), &all);
        let report = from_directory(host.path(), copy.path());
        assert_eq!(report.exit_code, 4, "{size}: {:#?}", report.checks);
        assert_eq!(report.check(CheckKind::Consistency).unwrap().result, Outcome::Fail);
        assert_eq!(
            std::fs::read(copy.path().join("checkpoint")).unwrap(),
            before,
            "the copy stays what it was"
        );
        let notes = std::fs::read_dir(copy.path().join("evidence")).unwrap();
        let notes =
            notes.filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|x| x == "note")).count();
        assert_eq!(notes, 2, "both checkpoints are evidence");
        let options = verify::VerifyOptions {
            directory: copy.path().to_owned(),
            policy: None,
            since: None,
            chain: None,
        };
        assert_eq!(verify::verify(&options).unwrap().exit_code, 0, "and still verifies");
    }
}

#[test]
fn a_stranger_s_checkpoint_is_refused() {
    let (host, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    log::write(host.path(), &entries(3));
    let stranger = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
    put(&host.path().join("checkpoint"), note(3, Hash32([0; 32]), &stranger).as_bytes());
    assert_eq!(from_directory(host.path(), copy.path()).exit_code, 4);
    assert!(!copy.path().join("checkpoint").exists());
}

#[test]
fn a_source_that_changed_an_old_entry_and_its_root_is_found() {
    let (host, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    log::write(host.path(), &entries(300));
    assert_eq!(from_directory(host.path(), copy.path()).exit_code, 0);
    let mut all = entries(600);
    all[5] = b"rewritten".to_vec();
    log::write(host.path(), &all);
    let report = from_directory(host.path(), copy.path());
    assert_eq!(report.exit_code, 4);
    log::write(host.path(), &entries(600));
    assert_eq!(from_directory(host.path(), copy.path()).exit_code, 0, "the honest log is taken afterwards");
}

/// Commits of a story, one a command.
pub fn commits(events: &[Event]) -> Vec<Vec<u8>> {
    let mut previous = Hash32([0; 32]);
    let mut all = Vec::new();
    for group in events.chunk_by(|a, b| a.header.commit == b.header.commit) {
        let header = group[0].header;
        let commit = Commit {
            version: COMMIT_VERSION,
            shard: 0,
            writer_epoch: 1,
            number: header.commit,
            first_leaf: header.leaf,
            time_us: header.time_us,
            previous,
            events: log::entries_of(group).into_iter().map(Into::into).collect(),
        };
        let bytes = protocol::codec::encode(&commit);
        previous = Commit::hash(&bytes);
        all.push(bytes);
    }
    all
}

/// A gateway of a few lines: fixed answers by path and query, files below `tlog/`, and only for the right key.
fn serve(host: PathBuf, answers: HashMap<String, Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut first, mut authorised) = (String::new(), false);
            reader.read_line(&mut first).unwrap();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                authorised |= line.trim().eq_ignore_ascii_case("authorization: Bearer auditor-key");
                if line.trim().is_empty() {
                    break;
                }
            }
            let path = first.split(' ').nth(1).unwrap_or("/").to_owned();
            let body = answers.get(&path).cloned();
            let body = body.or_else(|| std::fs::read(host.join(path.strip_prefix("/tlog/")?)).ok());
            let (status, body) = match (authorised, body) {
                (false, _) => ("401 Unauthorized", Vec::new()),
                (true, Some(body)) => ("200 OK", body),
                (true, None) => ("404 Not Found", Vec::new()),
            };
            let head =
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    base
}

#[test]
fn over_http_with_receipts_commits_and_contents() {
    let (host, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let story = honest();
    story.write(host.path());
    let leaves: Vec<usize> = (0..2).map(|n| story.find("usage_captured", n)).collect();
    let line = |n: usize| {
        let receipt = BASE64.encode(&receipt_bytes(n));
        format!("{{\"leaf\":{},\"job\":\"{}\",\"receipt\":\"{receipt}\"}}\n", leaves[n], JOBS[n])
    };
    let commit_line = |(n, bytes): (usize, Vec<u8>)| {
        format!("{{\"number\":{},\"bytes\":\"{}\"}}\n", n + 1, BASE64.encode(&bytes))
    };
    let all: Vec<String> = commits(&story.events).into_iter().enumerate().map(commit_line).collect();
    let (pages, mut answers) = (all.chunks(16), HashMap::new());
    for (k, page) in pages.enumerate() {
        answers.insert(format!("/v1/audit/commits?from={}&limit=16", k * 16 + 1), page.concat().into_bytes());
    }
    answers.insert(format!("/v1/audit/commits?from={}&limit=16", all.len() + 1), Vec::new());
    answers.insert("/v1/audit/receipts?limit=1000".into(), (line(0) + &line(1)).into_bytes());
    answers.insert(format!("/v1/audit/receipts?after={}&limit=1000", leaves[1]), Vec::new());
    answers.insert(format!("/v1/audit/contents/{}", JOBS[0]), b"sealed".to_vec());
    let base = serve(host.path().to_owned(), answers);
    let wrong = FetchSource::Url { base: base.clone(), key: None };
    let options = FetchOptions {
        source: wrong,
        directory: copy.path().to_owned(),
        policy: None,
        beside: Beside::Nothing,
        progress: None,
    };
    assert_eq!(fetch(&options).unwrap_err().exit_code(), 3, "without the key nothing is given");
    let source = FetchSource::Url { base, key: Some("auditor-key".into()) };
    for _ in 0..2 {
        let policy = Some(host.path().join("policy"));
        let report = fetched(source.clone(), copy.path(), policy, Beside::Contents);
        assert_eq!(report.exit_code, 0, "{:#?}", report.checks);
    }
    assert_eq!(std::fs::read(copy.path().join(format!("contents/{}.sealed", JOBS[0]))).unwrap(), b"sealed");
    let report = replay_of(copy.path());
    assert_eq!(report.exit_code, 0, "{:#?}", report.checks);
    assert_eq!(report.check(CheckKind::Commits).unwrap().examined, all.len() as u64);
    // Commits in another order.
    let path = copy.path().join("commits/1.ndjson");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.swap(2, 3);
    put(&path, (lines.join("\n") + "\n").as_bytes());
    assert_eq!(replay_of(copy.path()).exit_code, 4);
    // Commits that do not name the one before.
    let mut chain = commits(&story.events);
    let mut third: Commit = protocol::codec::decode("commit", &chain[2]).unwrap();
    third.previous = Hash32([1; 32]);
    chain[2] = protocol::codec::encode(&third);
    let text: String = chain.into_iter().enumerate().map(commit_line).collect();
    std::fs::remove_dir_all(copy.path().join("commits")).unwrap();
    put(&path, text.as_bytes());
    assert_eq!(replay_of(copy.path()).exit_code, 4);
}
