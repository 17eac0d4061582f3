//! The transparency log from outside: roots and proofs against another implementation, crash and damage, the signer's
//! memory, one flipped byte. Files are read here as an auditor reads them, through `protocol` alone.

use bytes::Bytes;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use journal::transparency::{POLICY_PATH, Signer, Transparency, TransparencyError, spawn};
use protocol::checkpoint::{Checkpoint, CheckpointError, Policy};
use protocol::id::Hash32;
use protocol::proof::{ProofError, ProofFile, RootBuilder, leaf_hash, verify_consistency};
use protocol::tile::{CHECKPOINT_PATH, Tile, TileKind, parse_entries, parse_hashes, tiles_of_size};
use sha2::Sha256;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ORIGIN: &str = "ledger.example/log1";

fn leaf(n: u64) -> Vec<u8> {
    // Sizes vary, some are empty, as nothing here should depend on that.
    format!("event {n}").into_bytes().repeat((n % 5) as usize)
}

fn leaves(range: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    range.map(leaf).collect()
}

fn append(log: &mut Transparency, range: std::ops::Range<u64>) {
    for first in range.clone().step_by(700) {
        let owned = leaves(first..(first + 700).min(range.end));
        let slices: Vec<&[u8]> = owned.iter().map(Vec::as_slice).collect();
        log.append_commit(first, &slices).unwrap();
    }
}

fn oracle(size: u64) -> MemoryBackedTree<Sha256, Vec<u8>> {
    let mut tree = MemoryBackedTree::new();
    leaves(0..size).into_iter().for_each(|leaf| tree.push(leaf));
    tree
}

fn oracle_root(size: u64) -> Hash32 {
    Hash32(oracle(size).root().as_bytes()[..].try_into().unwrap())
}

struct Place {
    _dir: tempfile::TempDir,
    tlog: PathBuf,
    keys: PathBuf,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        Place { tlog: dir.path().join("tlog"), keys: dir.path().join("keys"), _dir: dir }
    }

    fn try_open(&self) -> Result<Transparency, TransparencyError> {
        Transparency::open(&self.tlog, Signer::load_or_create(&self.keys, ORIGIN)?)
    }

    fn open(&self) -> Transparency {
        self.try_open().unwrap()
    }
}

fn policy(dir: &Path) -> Policy {
    Policy::parse(&std::fs::read_to_string(dir.join(POLICY_PATH)).unwrap()).unwrap()
}

/// What `audit verify` does: signature, every entry, every hash tile, the root.
fn audit(dir: &Path) -> Result<Checkpoint, String> {
    let read = |path: &str| std::fs::read(dir.join(path));
    let tile = |tile: Tile| -> Result<Vec<u8>, String> {
        // A full tile serves for a partial one (c2sp.org/tlog-tiles).
        read(&tile.path()).or_else(|_| read(&tile.full().path())).map_err(|e| format!("{}: {e}", tile.path()))
    };
    let text =
        String::from_utf8(read(CHECKPOINT_PATH).map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    let checkpoint = policy(dir).open(&text).map_err(|e| e.to_string())?;
    let mut builder = RootBuilder::new();
    let mut level_hashes: Vec<Vec<Hash32>> = vec![Vec::new()];
    for part in tiles_of_size(checkpoint.size) {
        let bytes = tile(part)?;
        match part.kind {
            TileKind::Entries => {
                for entry in parse_entries(&bytes, part.width).map_err(|e| e.to_string())? {
                    builder.push(leaf_hash(entry));
                    level_hashes[0].push(leaf_hash(entry));
                }
            }
            TileKind::Hashes { level } => {
                let hashes = parse_hashes(&bytes, part.width).map_err(|e| e.to_string())?;
                let from = part.index as usize * 256;
                let expected = &level_hashes[level as usize][from..from + hashes.len()];
                if hashes != expected {
                    return Err(format!("{} does not follow from the entries", part.path()));
                }
                if level_hashes.len() == level as usize + 1 {
                    level_hashes.push(Vec::new());
                }
                if part.width == 256 {
                    let mut subtree = RootBuilder::new();
                    hashes.iter().for_each(|h| subtree.push(*h));
                    level_hashes[level as usize + 1].push(subtree.root());
                }
            }
        }
    }
    if (builder.size(), builder.root()) != (checkpoint.size, checkpoint.root) {
        return Err(format!("root of the entries is {}, signed was {}", builder.root(), checkpoint.root));
    }
    Ok(checkpoint)
}

#[test]
fn seventy_thousand_leaves_have_the_oracles_root_and_proofs() {
    let place = Place::new();
    let mut log = place.open();
    append(&mut log, 0..65_000);
    let first = log.checkpoint().unwrap();
    append(&mut log, 65_000..70_000);
    let second = log.checkpoint().unwrap();
    assert_eq!((first.size, first.root), (65_000, oracle_root(65_000)));
    assert_eq!((second.size, second.root), (70_000, oracle_root(70_000)));
    assert_eq!(audit(&place.tlog).unwrap().size, 70_000);
    let tree = oracle(70_000);
    for index in [0, 1, 255, 256, 257, 64_999, 65_535, 65_536, 69_999] {
        let theirs = tree.prove_inclusion(index as usize);
        let theirs = parse_hashes(theirs.as_bytes(), theirs.as_bytes().len() as u64 / 32).unwrap();
        assert_eq!(log.prove_inclusion(index, 70_000).unwrap(), theirs, "{index}");
        let file = ProofFile::parse(&log.proof_file(index).unwrap().text()).unwrap();
        assert_eq!(file.check(&leaf(index), &policy(&place.tlog)).unwrap().size, 70_000);
    }
    let proof = log.prove_consistency(65_000, 70_000).unwrap();
    verify_consistency(65_000, &first.root, 70_000, &second.root, &proof).unwrap();
    let partial: Vec<_> = std::fs::read_dir(place.tlog.join("tile/entries")).unwrap().collect();
    assert_eq!(partial.len(), 274, "273 full bundles and one partial; superfluous ones are gone");
}

#[test]
fn every_size_signs_a_root_that_others_compute() {
    let place = Place::new();
    let mut log = place.open();
    let empty = log.checkpoint().unwrap();
    assert_eq!((empty.size, empty.root), (0, protocol::proof::empty_root()));
    for size in (1..=20).chain(250..=260).chain(510..=514) {
        let next = log.next_leaf();
        append(&mut log, next..size);
        let signed = log.checkpoint().unwrap();
        assert_eq!((signed.size, signed.root), (size, oracle_root(size)));
        assert_eq!(audit(&place.tlog), Ok(Checkpoint { origin: ORIGIN.to_owned(), size, root: signed.root }));
        assert_eq!(log.checkpoint().unwrap(), signed, "nothing new, nothing signed");
    }
}

#[test]
fn after_a_crash_it_goes_on_where_it_signed() {
    let place = Place::new();
    let mut log = place.open();
    append(&mut log, 0..1_000);
    log.checkpoint().unwrap();
    // Fed, never signed: full tiles reach the disk, the rest is lost with the process.
    append(&mut log, 1_000..1_900);
    drop(log);
    let mut log = place.open();
    assert_eq!((log.next_leaf(), log.rebuilding()), (1_000, None));
    let error = log.append_commit(1_001, &[b"x"]).unwrap_err();
    assert!(matches!(error, TransparencyError::Gap { expected: 1_000, came: 1_001 }), "{error}");
    append(&mut log, 300..2_000);
    assert_eq!(log.checkpoint().unwrap().root, oracle_root(2_000));
    assert_eq!(audit(&place.tlog).unwrap().size, 2_000);
}

#[test]
fn damaged_edges_are_built_again_and_must_lead_to_what_was_signed() {
    for (path, bytes) in
        [("tile/0/003.p/232", &b""[..]), ("tile/1/000.p/3", &[7; 96]), ("tile/entries/003.p/232", b"\xff")]
    {
        let place = Place::new();
        let mut log = place.open();
        append(&mut log, 0..1_000);
        log.checkpoint().unwrap();
        drop(log);
        std::fs::write(place.tlog.join(path), bytes).unwrap();
        let mut log = place.open();
        assert_eq!(log.next_leaf(), 0, "{path}");
        assert!(
            log.rebuilding().is_some_and(|r| r.contains("tile") || r.contains("tlog")),
            "{:?}",
            log.rebuilding()
        );
        append(&mut log, 0..1_000);
        assert_eq!(log.checkpoint().unwrap().root, oracle_root(1_000));
        assert_eq!(audit(&place.tlog).unwrap().size, 1_000);
    }
}

#[test]
fn the_whole_directory_can_be_lost() {
    let place = Place::new();
    let mut log = place.open();
    append(&mut log, 0..600);
    let signed = log.checkpoint().unwrap();
    drop(log);
    std::fs::remove_dir_all(&place.tlog).unwrap();
    let mut log = place.open();
    assert_eq!(log.next_leaf(), 0);
    append(&mut log, 0..500);
    let error = log.checkpoint().unwrap_err();
    assert!(matches!(&error, TransparencyError::Inconsistent(r) if r.contains("went back")), "{error}");
    assert!(!place.tlog.join(CHECKPOINT_PATH).exists(), "nothing was published");
    append(&mut log, 500..600);
    assert_eq!(log.checkpoint().unwrap(), signed, "the very same signature");
}

#[test]
fn two_heads_are_never_signed() {
    let place = Place::new();
    let mut log = place.open();
    append(&mut log, 0..300);
    let signed = log.checkpoint().unwrap();
    drop(log);
    // A rewritten history: leaf 100 altered, everything else as it was, tree built anew.
    for size in [300, 301, 512, 700] {
        std::fs::remove_dir_all(&place.tlog).unwrap();
        let mut log = place.open();
        append(&mut log, 0..100);
        log.append_commit(100, &[b"altered"]).unwrap();
        append(&mut log, 101..size);
        let error = log.checkpoint().unwrap_err();
        assert!(matches!(error, TransparencyError::Inconsistent(_)), "{size}: {error}");
        assert!(!place.tlog.join(CHECKPOINT_PATH).exists(), "{size}");
    }
    let head = std::fs::read_to_string(place.keys.join("checkpoint.head")).unwrap();
    assert_eq!(Checkpoint::parse(&head).unwrap().root, signed.root, "the memory is what it was");
}

#[test]
fn a_signer_that_forgot_does_not_sign() {
    let place = Place::new();
    let mut log = place.open();
    append(&mut log, 0..10);
    log.checkpoint().unwrap();
    drop(log);
    let head = place.keys.join("checkpoint.head");
    let remembered = std::fs::read_to_string(&head).unwrap();
    std::fs::write(&head, "").unwrap();
    let error = place.try_open().unwrap_err();
    assert!(error.to_string().contains("checkpoint.head"), "{error}");
    std::fs::remove_file(&head).unwrap();
    let error = place.try_open().unwrap_err();
    assert!(matches!(error, TransparencyError::Inconsistent(_)), "{error}");
    std::fs::write(&head, remembered).unwrap();
    place.open();
}

#[test]
fn one_key_one_signer_one_log() {
    let place = Place::new();
    let first = Signer::load_or_create(&place.keys, ORIGIN).unwrap();
    let second = Signer::load_or_create(&place.keys, ORIGIN).unwrap_err();
    assert!(matches!(second, TransparencyError::InUse { .. }), "{second}");
    let key = first.verifier_key().clone();
    drop(first);
    let other = Signer::load_or_create(&place.keys, "other.example").unwrap_err();
    assert!(other.to_string().contains("other.example"), "{other}");
    assert_eq!(Signer::load_or_create(&place.keys, ORIGIN).unwrap().verifier_key(), &key);
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(place.keys.join("checkpoint.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for wrong in ["", "with space", "with+plus", "line\nfeed"] {
        assert!(Signer::load_or_create(&place._dir.path().join("others"), wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn one_flipped_byte_anywhere_is_noticed() {
    let place = Place::new();
    let mut log = place.open();
    append(&mut log, 0..600);
    log.checkpoint().unwrap();
    let policy = policy(&place.tlog);
    let file = log.proof_file(301).unwrap();
    assert_eq!(audit(&place.tlog).unwrap().size, 600);
    let mut flipped = 0;
    for tile in tiles_of_size(600) {
        let path = place.tlog.join(tile.path());
        let good = std::fs::read(&path).unwrap();
        for at in [0, good.len() / 3, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, bad).unwrap();
            assert!(audit(&place.tlog).is_err(), "{} byte {at}", tile.path());
            flipped += 1;
        }
        std::fs::write(&path, good).unwrap();
    }
    assert_eq!(flipped, 3 * 7, "three bundles, three tiles of level 0, one of level 1");
    let mut other = leaf(301);
    other[0] ^= 1;
    assert!(matches!(file.check(&other, &policy), Err(ProofError::Root { .. })));
    let text = file.text();
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(text) = String::from_utf8(bytes) else { continue };
        let checked = ProofFile::parse(&text).and_then(|f| f.check(&leaf(301), &policy));
        assert!(checked.is_err(), "byte {at}");
    }
    // A damaged interior tile does not become a wrong proof.
    let path = place.tlog.join("tile/0/000");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(log.prove_inclusion(3, 600).is_err());
    assert!(log.proof_file(3).is_err());
    assert!(log.prove_inclusion(301, 600).is_ok(), "its siblings are not in that tile");
}

#[test]
fn another_logs_checkpoint_is_not_ours() {
    let (ours, theirs) = (Place::new(), Place::new());
    let mut log = theirs.open();
    append(&mut log, 0..3);
    let text = log.checkpoint().unwrap().text;
    drop(ours.open());
    std::fs::write(ours.tlog.join(CHECKPOINT_PATH), &text).unwrap();
    let error = ours.try_open().unwrap_err();
    assert!(matches!(error, TransparencyError::Damaged { .. }), "{error}");
    assert_eq!(
        policy(&ours.tlog).open(&text),
        Err(CheckpointError::NotSigned("any log of the policy".to_owned()))
    );
}

#[test]
fn leaves_too_large_and_proofs_too_far_are_refused() {
    let place = Place::new();
    let mut log = place.open();
    let error = log.append_commit(0, &[&[0u8; 65_536]]).unwrap_err();
    assert!(matches!(error, TransparencyError::Leaf { leaf: 0, .. }), "{error}");
    append(&mut log, 0..5);
    assert!(matches!(log.proof_file(0), Err(TransparencyError::NotCovered { leaf: 0, size: 0 })));
    log.checkpoint().unwrap();
    append(&mut log, 5..9);
    assert!(matches!(log.proof_file(5), Err(TransparencyError::NotCovered { leaf: 5, size: 5 })));
    assert!(log.proof_file(4).is_ok());
    assert!(log.prove_inclusion(3, 10).is_err());
    assert!(log.prove_consistency(5, 10).is_err());
    assert!(log.prove_consistency(6, 5).is_err());
}

#[tokio::test]
async fn on_its_own_thread_it_signs_by_itself() {
    let place = Place::new();
    let handle = spawn(place.open(), Duration::from_millis(20)).unwrap();
    assert_eq!(handle.first_needed(), 0);
    let bytes = |range| leaves(range).into_iter().map(Bytes::from).collect::<Vec<_>>();
    handle.append(0, bytes(0..300)).await.unwrap();
    let mut published = handle.published();
    published.wait_for(|p| p.as_ref().is_some_and(|p| p.size == 300)).await.unwrap();
    handle.append(300, bytes(300..400)).await.unwrap();
    let asked = handle.checkpoint().await.unwrap();
    assert_eq!((asked.size, asked.root), (400, oracle_root(400)));
    let file = handle.proof_file(399).await.unwrap();
    file.check(&leaf(399), &policy(&place.tlog)).unwrap();
    handle.append(500, bytes(500..501)).await.unwrap();
    let error = loop {
        if let Err(error) = handle.append(400, bytes(400..401)).await {
            break error;
        }
    };
    assert!(error.to_string().contains("leaf 400"), "the thread says why it stopped: {error}");
}
