//! Archives written here by hand, from the specification: read whole, and every flipped byte noticed with its place.

use crate::fetching;
use crate::log::{self, key, note};
use crate::story::{self, honest, replay_of};
use auditor::archive::{Archive, ArchiveFault};
use auditor::checks::CheckKind;
use auditor::fetch::{Beside, FetchOptions, FetchSource, fetch};
use auditor::report::Outcome;
use auditor::verify;
use minicbor::bytes::ByteVec;
use proptest::prelude::*;
use protocol::codec;
use protocol::commit::Commit;
use protocol::id::Hash32;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use std::path::{Path, PathBuf};

/// Commits that chain, with one or two entries each.
fn commits(count: u64) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let (mut previous, mut first_leaf) = (Hash32([0; 32]), 0);
    for number in 1..=count {
        let entries = 1 + number % 2;
        let events = (0..entries).map(|n| ByteVec::from(format!("entry {number}.{n}").into_bytes()));
        let commit = Commit {
            version: 1,
            shard: 0,
            writer_epoch: 1,
            number,
            first_leaf,
            time_us: number,
            previous,
            events: events.collect(),
        };
        let bytes = codec::encode(&commit);
        (previous, first_leaf) = (Commit::hash(&bytes), first_leaf + entries);
        all.push(bytes);
    }
    all
}

fn leaves(commits: &[Vec<u8>]) -> u64 {
    commits.iter().map(|bytes| codec::decode::<Commit>("commit", bytes).unwrap().events.len() as u64).sum()
}

fn tail(folder: &Path, all: &[Vec<u8>], first: usize, last: usize) -> PathBuf {
    let mut bytes = [&b"cf-tail1"[..], &[0; 8], &(first as u64).to_le_bytes()].concat();
    for commit in &all[first - 1..last] {
        bytes.extend((commit.len() as u32).to_le_bytes());
        bytes.extend(Commit::hash(commit).0);
        bytes.extend(commit);
    }
    let path = folder.join(format!("tail-{first:020}.cft"));
    std::fs::write(&path, bytes).unwrap();
    path
}

fn segment(folder: &Path, all: &[Vec<u8>], first: usize, last: usize, note: &[u8]) -> PathBuf {
    let mut frames = Vec::new();
    let mut index = Vec::new();
    for (k, chunk) in all[first - 1..last].chunks(3).enumerate() {
        let content: Vec<u8> =
            chunk.iter().flat_map(|c| [&(c.len() as u32).to_le_bytes()[..], c].concat()).collect();
        let frame = compress_to_vec(&content[..], CompressionLevel::Fastest);
        index.extend(((first + 3 * k) as u64).to_le_bytes());
        index.extend((chunk.len() as u32).to_le_bytes());
        index.extend([0; 4]);
        index.extend((128 + frames.len() as u64).to_le_bytes());
        index.extend((frame.len() as u32).to_le_bytes());
        index.extend((content.len() as u32).to_le_bytes());
        index.extend(blake3::hash(&frame).as_bytes());
        frames.extend(frame);
    }
    let before = all[..first - 1].last().map_or(Hash32([0; 32]), |bytes| Commit::hash(bytes));
    let mut file = [&b"cf-seg01"[..], &1u32.to_le_bytes(), &[0; 4]].concat();
    for number in [first as u64, last as u64, leaves(&all[..first - 1]), leaves(&all[..last])] {
        file.extend(number.to_le_bytes());
    }
    file.extend(before.0);
    file.extend(Commit::hash(&all[last - 1]).0);
    file.extend((last as u64).to_le_bytes());
    file.extend([0; 8]);
    file.extend(&frames);
    let at = file.len() as u64;
    file.extend(&index);
    file.extend(note);
    file.extend(at.to_le_bytes());
    file.extend(((index.len() / 64) as u32).to_le_bytes());
    file.extend((note.len() as u32).to_le_bytes());
    let hash = blake3::hash(&file);
    file.extend(hash.as_bytes());
    file.extend(b"cf-segen");
    let path = folder.join(format!("segment-{first:020}-{last:020}-{}.cfs", hash.to_hex()));
    std::fs::write(&path, file).unwrap();
    path
}

fn read(folder: &Path) -> Result<Vec<Vec<u8>>, ArchiveFault> {
    Archive::find(folder).unwrap().unwrap().commits().map(|commit| commit.map(|c| c.bytes)).collect()
}

/// Two segments, a complete tail file and an open one.
fn archive() -> (tempfile::TempDir, Vec<Vec<u8>>, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let all = commits(40);
    let files = vec![
        segment(folder.path(), &all, 1, 10, b""),
        segment(folder.path(), &all, 11, 20, b"a note"),
        tail(folder.path(), &all, 21, 30),
        tail(folder.path(), &all, 31, 40),
    ];
    (folder, all, files)
}

#[test]
fn segments_and_tail_files_are_one_log() {
    let (folder, all, _) = archive();
    assert_eq!(read(folder.path()).unwrap(), all);
    let archive = Archive::find(folder.path()).unwrap().unwrap();
    assert_eq!(archive.checkpoint().unwrap(), b"a note");
    // From the part that holds a leaf on.
    let first = archive.commits_before(leaves(&all[..15])).next().unwrap().unwrap();
    assert_eq!(first.commit.number, 11);
}

#[test]
fn a_tail_file_that_was_sealed_is_a_leftover_and_must_say_the_same() {
    let (folder, all, _) = archive();
    let path = tail(folder.path(), &all, 11, 20);
    assert_eq!(read(folder.path()).unwrap(), all);
    // A longer segment replaces a shorter one.
    segment(folder.path(), &all, 11, 12, b"");
    assert_eq!(read(folder.path()).unwrap(), all);
    let mut others = commits(40);
    others[14] = b"another commit".to_vec();
    std::fs::remove_file(path).unwrap();
    tail(folder.path(), &others, 11, 20);
    let fault = read(folder.path()).unwrap_err();
    assert!(fault.reason.contains("commit 15 is another one"), "{fault}");
}

#[test]
fn a_torn_record_ends_the_last_tail_file_only() {
    let (folder, all, files) = archive();
    let cut = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() - 3]).unwrap();
    };
    cut(&files[3]);
    assert_eq!(read(folder.path()).unwrap(), all[..39]);
    cut(&files[2]);
    let fault = read(folder.path()).unwrap_err();
    assert!(fault.file.starts_with("tail-") && fault.reason.contains("commit 30 is not whole"), "{fault}");
}

#[test]
fn a_missing_part_is_named() {
    let (folder, _, files) = archive();
    std::fs::remove_file(&files[1]).unwrap();
    let fault = read(folder.path()).unwrap_err();
    assert!(fault.reason.contains("commit 11 is missing"), "{fault}");
}

#[test]
fn every_flipped_byte_is_noticed_with_its_place() {
    let (folder, all, files) = archive();
    for path in &files[..3] {
        let good = std::fs::read(path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            std::fs::write(path, &bad).unwrap();
            let fault = read(folder.path()).expect_err("a flipped byte");
            assert_eq!(fault.file, path.file_name().unwrap().to_str().unwrap(), "byte {at}: {fault}");
            assert!(fault.offset <= good.len() as u64, "byte {at}: {fault}");
        }
        std::fs::write(path, &good).unwrap();
    }
    assert_eq!(read(folder.path()).unwrap(), all);
}

#[test]
fn a_damaged_frame_is_named_by_its_commits() {
    let (folder, _, files) = archive();
    let mut bytes = std::fs::read(&files[1]).unwrap();
    bytes[128 + 5] ^= 0x40;
    std::fs::write(&files[1], &bytes).unwrap();
    let fault = read(folder.path()).unwrap_err();
    assert_eq!((fault.offset, fault.reason.as_str()), (128, "the frame of commits 11 to 13 was altered"));
}

/// The honest story as an archive: a segment with a checkpoint over everything, and the last commits in a tail file.
fn story_archive(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let events = honest().events;
    let all = fetching::commits(&events);
    let hashes: Vec<Hash32> =
        log::entries_of(&events).iter().map(|entry| protocol::proof::leaf_hash(entry)).collect();
    let head = note(hashes.len() as u64, log::root(&hashes), &key());
    segment(folder, &all, 1, 9, b"");
    segment(folder, &all, 10, all.len() - 4, head.as_bytes());
    tail(folder, &all, all.len() - 3, all.len());
}

fn flip_middle(folder: &Path, prefix: &str) {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let path =
        files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix)).max().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn verified(directory: &Path, policy: Option<PathBuf>) -> auditor::Report {
    let options = verify::VerifyOptions { directory: directory.to_owned(), policy, since: None, chain: None };
    verify::verify(&options).unwrap()
}

#[test]
fn an_archive_alone_is_verified_and_replayed() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("archive");
    story_archive(&folder);
    let policy = directory.path().join("from-elsewhere.policy");
    let text = protocol::checkpoint::Policy::of_log(log::verifier_key(&key())).text();
    std::fs::write(&policy, text).unwrap();
    for place in [directory.path(), &folder] {
        let report = verified(place, Some(policy.clone()));
        assert_eq!(report.exit_code, 0, "{:#?}", report.checks);
        assert_eq!(report.check(CheckKind::Tiles).unwrap().result, Outcome::Skipped);
    }
    assert_eq!(verified(&folder, None).exit_code, 3, "an archive does not vouch for itself");
    let replayed = replay_of(&folder);
    assert_eq!(replayed.check(CheckKind::Legs).unwrap().result, Outcome::Pass);
    assert_eq!(replayed.state_digest, honest().replayed().state_digest, "the same log from its tiles");
    for file in ["segment-", "tail-"] {
        flip_middle(&folder, file);
        let report = verified(&folder, Some(policy.clone()));
        assert_eq!(report.exit_code, 4);
        let finding = &report.check(CheckKind::Entries).unwrap().findings[0];
        assert!(finding.actual.contains(file) && finding.actual.contains("at byte"), "{finding:?}");
        assert_eq!(replay_of(&folder).exit_code, 4);
        std::fs::remove_dir_all(&folder).unwrap();
        story_archive(&folder);
    }
}

#[test]
fn a_fetched_archive_is_compared_with_the_tiles() {
    let data = tempfile::tempdir().unwrap();
    honest().write(&data.path().join("tlog"));
    story_archive(&data.path().join("archive"));
    let copy = tempfile::tempdir().unwrap();
    let options = FetchOptions {
        source: FetchSource::Directory(data.path().to_owned()),
        directory: copy.path().to_owned(),
        policy: Some(data.path().join("tlog/policy")),
        beside: Beside::Nothing,
        progress: None,
    };
    assert_eq!(fetch(&options).unwrap().exit_code, 0);
    let report = verified(copy.path(), None);
    assert_eq!(report.exit_code, 0, "{:#?}", report.checks);
    assert!(report.check(CheckKind::Commits).unwrap().examined > 10);
    flip_middle(&copy.path().join("archive"), "segment-");
    let report = verified(copy.path(), None);
    assert_eq!(report.exit_code, 4);
    assert_eq!(report.check(CheckKind::Entries).unwrap().result, Outcome::Pass, "the tiles are whole");
    let finding = &report.check(CheckKind::Commits).unwrap().findings[0];
    assert!(finding.actual.contains("at byte"), "{finding:?}");
}

#[test]
fn an_archive_of_another_history_than_the_tiles() {
    let copy = tempfile::tempdir().unwrap();
    let mut other = honest();
    let at = other.find("payout_claimed", 0);
    other.rewind(at);
    other.tell(story::fresh_account(), &[], &[]);
    other.write(copy.path());
    story_archive(&copy.path().join("archive"));
    let report = verified(copy.path(), None);
    assert_eq!(report.exit_code, 4);
    let finding = &report.check(CheckKind::Commits).unwrap().findings[0];
    assert!(finding.actual.contains("not the log's entry"), "{finding:?}");
}

proptest! {
    /// Whatever lies in a file with a segment's or a tail file's name, reading it ends with a fault, not a panic.
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600), segment in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let name = match segment {
            true => format!("segment-{:020}-{:020}-{}.cfs", 1, 2, "0".repeat(64)),
            false => format!("tail-{:020}.cft", 1),
        };
        std::fs::write(folder.path().join(name), &bytes).unwrap();
        prop_assert!(read(folder.path()).is_err());
    }
}

/// A segment that the writer itself sealed (`journal/tests/golden`), read here by code that shares nothing with it.
#[test]
fn the_writers_golden_segment_is_read_to_its_end() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let archive = Archive::find(&folder).unwrap().unwrap();
    let fault = archive.commits().next().unwrap().unwrap_err();
    assert!(fault.reason.contains("commit 1 is missing"), "alone it is not a whole log: {fault}");
    let read: Result<Vec<_>, ArchiveFault> = archive.commits_before(u64::MAX).collect();
    let numbers: Vec<u64> = read.unwrap().iter().map(|commit| commit.commit.number).collect();
    assert_eq!(numbers, (5..=40).collect::<Vec<u64>>());
}
