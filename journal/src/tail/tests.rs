//! The tail's files: append, rotate, torn and damaged records, the high-water mark.

use super::*;
use crate::reader::ArchiveReader;
use minicbor::bytes::ByteVec;
use protocol::codec::encode;
use protocol::commit::Commit;
use protocol::id::Hash32;

/// A chain of commits without events.
fn chain(count: u64) -> Vec<(Position, Vec<u8>)> {
    let mut previous = Hash32([0; 32]);
    let commits = (1..=count).map(|number| {
        let events: Vec<ByteVec> = Vec::new();
        let commit = Commit {
            version: 1,
            shard: 0,
            writer_epoch: 1,
            number,
            first_leaf: 0,
            time_us: number,
            previous,
            events,
        };
        let bytes = encode(&commit);
        previous = Commit::hash(&bytes);
        (Position { commit: number, leaf: 0, hash: previous, time_us: number }, bytes)
    });
    commits.collect()
}

fn open(dir: &Path) -> Tail {
    let options = TailOptions { data_dir: dir.to_owned(), shard: 0, file_bytes_max: 400 };
    Tail::open(options).unwrap()
}

fn last_file(dir: &Path) -> PathBuf {
    list_files(&dir.join(ARCHIVE_FOLDER)).unwrap().pop().unwrap().1
}

#[test]
fn appends_are_read_back_across_files_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let commits = chain(20);
    let mut tail = open(dir.path());
    for (position, bytes) in &commits[..15] {
        tail.append(*position, bytes).unwrap();
    }
    drop(tail);
    let mut tail = open(dir.path());
    assert_eq!((tail.head(), tail.torn()), (commits[14].0, None));
    for (position, bytes) in &commits[10..] {
        tail.append(*position, bytes).unwrap();
    }
    let index = tail.index();
    for (position, bytes) in &commits {
        assert_eq!(index.read(position.commit).unwrap().unwrap(), bytes);
    }
    assert_eq!(index.read(21).unwrap(), None);
    assert_eq!(index.position_of(20).unwrap(), commits[19].0);
    assert!(list_files(&dir.path().join(ARCHIVE_FOLDER)).unwrap().len() > 3);
    let read = ArchiveReader::open(dir.path()).unwrap();
    assert_eq!(
        read.commits(1).map(|commit| commit.unwrap().number).collect::<Vec<_>>(),
        (1..=20).collect::<Vec<_>>()
    );
    assert_eq!(read.commits(18).count(), 3);
    assert_eq!(read.commits(21).count(), 0);
}

#[test]
fn gaps_and_other_bytes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let commits = chain(3);
    let mut tail = open(dir.path());
    tail.append(commits[0].0, &commits[0].1).unwrap();
    assert!(matches!(tail.append(commits[2].0, &commits[2].1), Err(TailError::Gap { head: 1, number: 3 })));
    let other = Position { hash: Hash32([5; 32]), ..commits[0].0 };
    assert!(matches!(tail.append(other, b"x"), Err(TailError::Differs { number: 1 })));
    tail.append(commits[0].0, &commits[0].1).unwrap();
}

#[test]
fn every_cut_and_every_flip_in_the_last_record_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    let commits = chain(3);
    let mut tail = open(dir.path());
    for (position, bytes) in &commits {
        tail.append(*position, bytes).unwrap();
    }
    drop(tail);
    let path = last_file(dir.path());
    let whole = std::fs::read(&path).unwrap();
    let record = record::RECORD_HEAD_BYTES + commits[2].1.len();
    let begin = whole.len() - record;
    let damaged = (1..record).map(|cut| whole[..whole.len() - cut].to_vec());
    let flipped = (begin + 4..whole.len()).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    });
    for bytes in damaged.chain(flipped) {
        std::fs::write(&path, &bytes).unwrap();
        let mut tail = open(dir.path());
        assert_eq!(tail.torn().map(|torn| torn.number), Some(3));
        assert_eq!(tail.head(), commits[1].0);
        let read = ArchiveReader::open(dir.path()).unwrap();
        assert_eq!(read.commits(1).map(Result::unwrap).count(), 2);
        tail.cut_torn().unwrap();
        tail.append(commits[2].0, &commits[2].1).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn damage_before_other_records_is_an_error_for_readers() {
    let dir = tempfile::tempdir().unwrap();
    let commits = chain(3);
    let mut tail = open(dir.path());
    for (position, bytes) in &commits {
        tail.append(*position, bytes).unwrap();
    }
    let path = last_file(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[FILE_HEAD_BYTES as usize + 50] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let read: Vec<_> = ArchiveReader::open(dir.path()).unwrap().commits(1).collect();
    assert!(matches!(
        read.as_slice(),
        [Err(crate::reader::ReadError::Archive(TailError::Damaged { number: 1, .. }))]
    ));
}

#[test]
fn the_mark_survives_a_torn_write_and_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join(ARCHIVE_FOLDER)).unwrap();
    let commits = chain(3);
    let mut mark = HighWater::open(dir.path()).unwrap();
    assert_eq!(mark.last(), Position::default());
    for (position, _) in [&commits[0], &commits[2], &commits[1]] {
        mark.write(*position).unwrap();
    }
    let path = dir.path().join(ARCHIVE_FOLDER).join("high-water");
    assert_eq!(HighWater::open(dir.path()).unwrap().last(), commits[2].0);
    let mut bytes = std::fs::read(&path).unwrap();
    // The newer slot is the second one: two writes went to slots 0 and 1.
    let at = bytes.len() - 50;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(HighWater::open(dir.path()).unwrap().last(), commits[0].0);
}
