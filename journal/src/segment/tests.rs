//! Segments: built, stored, read back; every flipped bit and every cut noticed; a golden one of version 1 read for ever.

use super::*;
use minicbor::bytes::ByteVec;
use protocol::codec::encode;
use protocol::commit::Commit;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes of commits `first` to `last` of one chain, three leaves each.
fn chain(first: u64, last: u64) -> Vec<Vec<u8>> {
    let mut previous = Hash32([0; 32]);
    let commits = (1..=last).map(|number| {
        let events =
            (0..3).map(|leaf| ByteVec::from(format!("event {leaf} of commit {number}").into_bytes()));
        let commit = Commit {
            version: 1,
            shard: 7,
            writer_epoch: 1,
            number,
            first_leaf: (number - 1) * 3,
            time_us: 1_000 + number,
            previous,
            events: events.collect(),
        };
        let bytes = encode(&commit);
        previous = Commit::hash(&bytes);
        bytes
    });
    commits.skip(first as usize - 1).collect()
}

fn build(commits: &[Vec<u8>], checkpoint: &[u8]) -> (SegmentName, Vec<u8>) {
    let mut builder = SegmentBuilder::new(7);
    for commit in commits {
        builder.push(commit).unwrap();
    }
    builder.finish(checkpoint).unwrap()
}

fn put(dir: &Path, name: &SegmentName, bytes: &[u8]) -> Arc<dyn SegmentStore> {
    let store = DirectoryStore::new(dir);
    store.put(name, bytes).unwrap();
    Arc::new(store)
}

const NOTE: &[u8] = b"log.example/1\n300\nqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqo=\n\n";

#[test]
fn what_was_built_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let commits = chain(5, 100);
    let (name, bytes) = build(&commits, NOTE);
    let store = put(dir.path(), &name, &bytes);
    assert_eq!(store.list().unwrap(), vec![name]);
    assert_eq!(SegmentName::parse(Path::new(&name.to_string())), Some(name));
    let segment = Segment::open(store, name).unwrap();
    let head = segment.head();
    assert_eq!(
        (head.shard, head.first, head.last.commit, head.leaves_before, head.last.leaf),
        (7, 5, 100, 12, 300)
    );
    assert_eq!(segment.checkpoint(), NOTE);
    assert_eq!(segment.verify().unwrap(), head.last);
    for (number, commit) in (5..).zip(&commits) {
        assert_eq!(segment.read(number).unwrap().unwrap(), commit);
    }
    assert_eq!((segment.read(4).unwrap(), segment.read(101).unwrap()), (None, None));
    // A checkpoint that does not cover the segment is left out.
    let small = b"log.example/1\n299\nqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqo=\n\n";
    let (name, bytes) = build(&commits, small);
    let segment = Segment::open(put(dir.path(), &name, &bytes), name).unwrap();
    assert!(segment.checkpoint().is_empty());
}

#[test]
fn large_commits_make_several_frames() {
    let dir = tempfile::tempdir().unwrap();
    let mut previous = Hash32([0; 32]);
    let mut builder = SegmentBuilder::new(7);
    let mut hashes = Vec::new();
    for number in 1..=12u64 {
        let noise = blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof();
        let mut event = vec![0; 300_000];
        noise.clone().fill(&mut event);
        let commit = Commit {
            version: 1,
            shard: 7,
            writer_epoch: 1,
            number,
            first_leaf: number - 1,
            time_us: 5,
            previous,
            events: vec![ByteVec::from(event)],
        };
        let bytes = encode(&commit);
        previous = Commit::hash(&bytes);
        hashes.push(previous);
        builder.push(&bytes).unwrap();
    }
    let (name, bytes) = builder.finish(b"").unwrap();
    let segment = Segment::open(put(dir.path(), &name, &bytes), name).unwrap();
    assert_eq!(segment.frame_count(), 3);
    segment.verify().unwrap();
    for (number, hash) in (1..).zip(&hashes) {
        assert_eq!(Commit::hash(&segment.read(number).unwrap().unwrap()), *hash);
    }
}

#[test]
fn every_flipped_byte_and_every_cut_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (name, bytes) = build(&chain(1, 8), NOTE);
    let whole = |bytes: &[u8]| {
        let store = put(dir.path(), &name, bytes);
        Segment::open(store, name).and_then(|segment| segment.verify())
    };
    whole(&bytes).unwrap();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(matches!(whole(&flipped), Err(SegmentError::Damaged { .. })), "byte {at}");
        assert!(whole(&bytes[..at]).is_err(), "cut at {at}");
    }
    assert!(whole(&[&bytes[..], b"x"].concat()).is_err(), "longer");
}

#[test]
fn what_does_not_follow_is_not_sealed() {
    let commits = chain(1, 5);
    let mut builder = SegmentBuilder::new(7);
    builder.push(&commits[0]).unwrap();
    let error = builder.push(&commits[2]).unwrap_err();
    assert!(error.to_string().contains("commit 2"), "{error}");
    assert!(builder.push(b"").is_err() && builder.push(b"no commit").is_err());
    builder.push(&commits[1]).unwrap();
    assert!(SegmentBuilder::new(8).push(&commits[0]).is_err(), "another shard");
    assert!(SegmentBuilder::new(7).finish(b"").is_err(), "nothing in it");
}

#[test]
fn names_have_one_form() {
    let (name, _) = build(&chain(1, 2), b"");
    let text = name.to_string();
    for other in [
        text.replace("cfs", "cft"),
        text.replace("segment-0", "segment-"),
        text.replace('-', "_"),
        text.to_uppercase(),
        text.replacen("-00000000000000000001-", "-00000000000000000003-", 1),
    ] {
        assert_eq!(SegmentName::parse(Path::new(&other)), None, "{other}");
    }
}

#[test]
fn the_longer_segment_counts_and_covered_tail_files_are_leftovers() {
    let dir = tempfile::tempdir().unwrap();
    let (short, short_bytes) = build(&chain(1, 4), b"");
    let (long, long_bytes) = build(&chain(1, 6), b"");
    put(dir.path(), &short, &short_bytes);
    let store = put(dir.path(), &long, &long_bytes);
    for first in [1u64, 5, 7] {
        std::fs::write(dir.path().join(format!("tail-{first:020}.cft")), b"").unwrap();
    }
    let parts = list_parts(&*store, dir.path()).unwrap();
    let tail = Part::Tail { first: 7, path: dir.path().join(format!("tail-{:020}.cft", 7)) };
    assert_eq!(parts.live, vec![Part::Segment(long), tail]);
    assert_eq!(parts.leftovers.iter().map(|(first, _)| *first).collect::<Vec<_>>(), vec![1, 5]);
}

/// A segment that version 1 wrote. Its bytes are never written again: compressors change, the format does not.
#[test]
fn the_golden_segment_is_read() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let (name, bytes) = build(&chain(5, 40), NOTE);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        put(&dir, &name, &bytes);
    }
    let store: Arc<dyn SegmentStore> = Arc::new(DirectoryStore::new(&dir));
    let names = store.list().unwrap();
    assert!(!names.is_empty(), "run once with UPDATE_GOLDEN=1");
    for name in names {
        let segment = Segment::open(store.clone(), name).unwrap();
        segment.verify().unwrap();
        for (number, commit) in (name.first..).zip(chain(name.first, name.last)) {
            assert_eq!(segment.read(number).unwrap().unwrap(), commit);
        }
    }
}
