//! What somebody does to files: every change of a copy is a cryptographic failure, exit 4.

use crate::log::{self, key, note, put};
use auditor::checks::CheckKind;
use auditor::report::Outcome;
use auditor::{Report, verify};
use protocol::id::Hash32;
use protocol::proof::leaf_hash;
use protocol::tile::{TILE_WIDTH, Tile, TileKind, push_entry};
use std::path::{Path, PathBuf};

fn entries(count: u64) -> Vec<Vec<u8>> {
    (0..count).map(|n| format!("entry {n}").into_bytes()).collect()
}

fn root(entries: &[Vec<u8>]) -> Hash32 {
    log::root(&entries.iter().map(|entry| leaf_hash(entry)).collect::<Vec<_>>())
}

fn verified(directory: &Path) -> Report {
    verified_since(directory, None)
}

fn verified_since(directory: &Path, since: Option<PathBuf>) -> Report {
    let options = verify::VerifyOptions { directory: directory.to_owned(), policy: None, since, chain: None };
    verify::verify(&options).unwrap()
}

fn bundle_path(index: u64, width: u64) -> String {
    Tile { kind: TileKind::Entries, index, width }.path()
}

#[test]
fn an_untouched_copy_passes_at_every_edge_of_a_tile() {
    for size in [1, 255, 256, 257, 600] {
        let directory = tempfile::tempdir().unwrap();
        log::write(directory.path(), &entries(size));
        let report = verified(directory.path());
        assert_eq!(report.exit_code, 0, "{size}: {:#?}", report.checks);
        assert_eq!((report.events, report.subject.size), (size, size));
    }
}

#[test]
fn tiles_above_the_second_level_are_checked() {
    let directory = tempfile::tempdir().unwrap();
    log::write(directory.path(), &entries(TILE_WIDTH * TILE_WIDTH + 300));
    assert_eq!(verified(directory.path()).exit_code, 0);
    let path = directory.path().join("tile/2/000.p/1");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[0] ^= 1;
    put(&path, &bytes);
    assert_eq!(verified(directory.path()).exit_code, 4);
}

/// Changes the files of a copy of 600 entries and verifies.
fn mutated(change: impl FnOnce(&Path, &mut Vec<Vec<u8>>)) -> Report {
    let directory = tempfile::tempdir().unwrap();
    let mut all = entries(600);
    log::write(directory.path(), &all);
    change(directory.path(), &mut all);
    verified(directory.path())
}

fn rewrite_bundle(directory: &Path, index: u64, entries: &[Vec<u8>]) {
    let mut bytes = Vec::new();
    entries.iter().for_each(|entry| push_entry(&mut bytes, entry).unwrap());
    put(&directory.join(bundle_path(index, TILE_WIDTH)), &bytes);
}

#[test]
fn every_byte_of_a_bundle_and_of_the_checkpoint_matters() {
    let directory = tempfile::tempdir().unwrap();
    log::write(directory.path(), &entries(3));
    for path in [bundle_path(0, 3), "checkpoint".to_owned(), "tile/0/000.p/3".to_owned()] {
        let path = directory.path().join(path);
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            put(&path, &bad);
            assert_eq!(verified(directory.path()).exit_code, 4, "{} byte {at}", path.display());
        }
        put(&path, &good);
    }
    assert_eq!(verified(directory.path()).exit_code, 0);
}

#[test]
fn a_dropped_a_swapped_and_a_changed_leaf() {
    let dropped = mutated(|directory, all| {
        all.remove(300);
        rewrite_bundle(directory, 1, &all[256..511]);
    });
    let swapped = mutated(|directory, all| {
        all.swap(300, 301);
        rewrite_bundle(directory, 1, &all[256..512]);
    });
    let changed = mutated(|directory, all| {
        all[300][0] ^= 1;
        rewrite_bundle(directory, 1, &all[256..512]);
    });
    for report in [dropped, swapped, changed] {
        assert_eq!(report.exit_code, 4);
        assert_eq!(report.check(CheckKind::Entries).unwrap().result, Outcome::Fail);
    }
}

#[test]
fn a_truncated_bundle_and_a_missing_one() {
    let cut = mutated(|directory, _| {
        let path = directory.join(bundle_path(2, 600 - 512));
        let bytes = std::fs::read(&path).unwrap();
        put(&path, &bytes[..bytes.len() - 3]);
    });
    let gone =
        mutated(|directory, _| std::fs::remove_file(directory.join(bundle_path(1, TILE_WIDTH))).unwrap());
    assert_eq!((cut.exit_code, gone.exit_code), (4, 4));
}

#[test]
fn a_tile_that_is_not_of_its_entries() {
    let report = mutated(|directory, _| {
        let path = directory.join("tile/0/001");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[40] ^= 0x80;
        put(&path, &bytes);
    });
    assert_eq!(report.exit_code, 4);
    assert_eq!(report.check(CheckKind::Tiles).unwrap().result, Outcome::Fail);
    assert_eq!(report.check(CheckKind::Entries).unwrap().result, Outcome::Pass);
}

#[test]
fn a_checkpoint_signed_by_another_key() {
    let report = mutated(|directory, all| {
        let stranger = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
        put(&directory.join("checkpoint"), note(600, root(all), &stranger).as_bytes());
    });
    assert_eq!(report.exit_code, 4);
    assert_eq!(report.check(CheckKind::Checkpoint).unwrap().result, Outcome::Fail);
}

#[test]
fn a_log_rolled_back_and_signed_again() {
    let report = mutated(|directory, all| {
        put(&directory.join("checkpoints/600.note"), note(600, root(all), &key()).as_bytes());
        log::write(directory, &all[..500]);
    });
    assert_eq!(report.exit_code, 4);
    let finding = &report.check(CheckKind::Consistency).unwrap().findings[0];
    assert!(finding.message.contains("rolled back"), "{finding:?}");
}

#[test]
fn a_fork_signed_with_the_right_key_against_a_kept_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let mut all = entries(500);
    let old = directory.path().join("old.note");
    put(&old, note(500, root(&all), &key()).as_bytes());
    all[100] = b"another history".to_vec();
    all.extend(entries(10));
    log::write(directory.path(), &all);
    assert_eq!(verified(directory.path()).exit_code, 0, "who kept nothing sees nothing");
    let report = verified_since(directory.path(), Some(old));
    assert_eq!(report.exit_code, 4);
    let finding = &report.check(CheckKind::Consistency).unwrap().findings[0];
    assert!(finding.message.contains("rewritten"), "{finding:?}");
}

#[test]
fn without_anything_from_outside_it_is_inconclusive() {
    let directory = tempfile::tempdir().unwrap();
    log::write(directory.path(), &entries(5));
    std::fs::remove_file(directory.path().join("policy")).unwrap();
    let report = verified(directory.path());
    assert_eq!(report.exit_code, 3);
    assert!(report.remark.unwrap().starts_with("internally consistent only"));
}

#[test]
fn a_data_directory_does_not_vouch_for_itself() {
    let directory = tempfile::tempdir().unwrap();
    log::write(&directory.path().join("tlog"), &entries(5));
    put(&directory.path().join("policy"), &std::fs::read(directory.path().join("tlog/policy")).unwrap());
    assert_eq!(verified(directory.path()).exit_code, 3);
    let options = verify::VerifyOptions {
        directory: directory.path().to_owned(),
        policy: Some(directory.path().join("policy")),
        since: None,
        chain: None,
    };
    assert_eq!(verify::verify(&options).unwrap().exit_code, 0, "a policy that somebody hands over counts");
}

#[test]
fn nothing_there_is_a_missing_source() {
    let directory = tempfile::tempdir().unwrap();
    let options = verify::VerifyOptions {
        directory: directory.path().to_owned(),
        policy: None,
        since: None,
        chain: None,
    };
    assert_eq!(verify::verify(&options).unwrap_err().exit_code(), 3);
}

/// A host can write whatever decodes: the auditor says something about it and never falls over.
#[test]
fn no_event_that_decodes_makes_the_replay_fall_over() {
    let story = crate::story::honest();
    let honest = log::entries_of(&story.events);
    let directory = tempfile::tempdir().unwrap();
    let mut decoded = 0;
    for leaf in 0..honest.len() {
        let good = &honest[leaf];
        // A long unsigned integer in place of each byte, then each byte inverted.
        let long = (2..good.len()).map(|at| [&good[..at], &[0x1b; 1], &[0xff; 8], &good[at + 1..]].concat());
        let inverted = (2..good.len()).map(|at| [&good[..at], &[!good[at]], &good[at + 1..]].concat());
        for bad in long.chain(inverted) {
            if protocol::codec::decode_event(&bad).is_err() {
                continue;
            }
            decoded += 1;
            let mut all = honest.clone();
            all[leaf] = bad;
            log::write(directory.path(), &all);
            let report = crate::story::replay_of(directory.path());
            assert!([0, 1, 4].contains(&report.exit_code));
        }
    }
    assert!(decoded > 1_000, "{decoded}");
}
