//! What programs that are not ours say of the same files: Go's sumdb library (COUNTERFOIL_LOG_VERIFIER), PyPI's aics-tlog,
//! jsonschema and securesystemslib (COUNTERFOIL_BOOKS_PYTHON). Where one is not installed, its part says so and is left out.
//! Every change of a log must be noticed by all of them, ours included.

use crate::log::{self, key, note, put, verifier_key};
use auditor::prove::{ProveOptions, prove};
use auditor::verify::{VerifyOptions, verify};
use protocol::id::Hash32;
use protocol::proof::leaf_hash;
use protocol::tile::{TILE_WIDTH, Tile, TileKind, push_entry};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SIZE: u64 = 600;
/// Checkpoint that an auditor kept.
const KEPT: u64 = 500;
/// The leaf that is changed, dropped, swapped.
const LEAF: usize = 300;

fn entries(count: u64) -> Vec<Vec<u8>> {
    (0..count).map(|n| format!("entry {n}").into_bytes()).collect()
}

fn root(entries: &[Vec<u8>]) -> Hash32 {
    log::root(&entries.iter().map(|entry| leaf_hash(entry)).collect::<Vec<_>>())
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// An evidence check of the foreign readers; `None` where there is no Python for it.
fn evidence(arguments: &[&str]) -> Option<Output> {
    let Some(python) = std::env::var_os("COUNTERFOIL_BOOKS_PYTHON") else {
        eprintln!("skipped: no Python of the readers (COUNTERFOIL_BOOKS_PYTHON is not set)");
        return None;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/foreign/audit_evidence.py");
    Some(Command::new(python).arg(script).args(arguments).output().unwrap())
}

/// A copy of the log, with the checkpoint that the auditor kept beside it.
struct Place {
    directory: tempfile::TempDir,
    kept: PathBuf,
}

impl Place {
    fn new() -> Place {
        let directory = tempfile::tempdir().unwrap();
        log::write(directory.path(), &entries(SIZE));
        let kept = directory.path().join("kept.note");
        put(&kept, note(KEPT, root(&entries(KEPT)), &key()).as_bytes());
        Place { directory, kept }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Whether each verifier accepts the log: ours, Go's, aics'.
    fn verdicts(&self) -> Vec<(&'static str, bool, String)> {
        let since = Some(self.kept.clone());
        let directory = self.path().to_owned();
        let report = verify(&VerifyOptions { directory, policy: None, since, chain: None }).unwrap();
        let mut verdicts = vec![("ours", report.exit_code == 0, format!("exit {}", report.exit_code))];
        let (path, kept) = (self.path().to_str().unwrap(), self.kept.to_str().unwrap());
        let key = verifier_key(&key()).to_string();
        match std::env::var_os("COUNTERFOIL_LOG_VERIFIER") {
            Some(go) => {
                let output = Command::new(go).args([path, &key, "-since", kept]).output().unwrap();
                verdicts.push(("Go", output.status.success(), told(&output)));
            }
            None => eprintln!("skipped: Go's verifier is not built (COUNTERFOIL_LOG_VERIFIER is not set)"),
        }
        if let Some(output) = evidence(&["log", path, &key, kept, &LEAF.to_string()]) {
            let words = told(&output);
            if words.starts_with("skipped") {
                eprintln!("{words}");
            } else {
                verdicts.push(("aics-tlog", output.status.success(), words));
            }
        }
        verdicts
    }

    fn rewrite_bundle(&self, entries: &[Vec<u8>]) {
        let index = LEAF as u64 / TILE_WIDTH;
        let first = (index * TILE_WIDTH) as usize;
        let mut bytes = Vec::new();
        let end = (first + TILE_WIDTH as usize).min(entries.len());
        entries[first..end].iter().for_each(|entry| push_entry(&mut bytes, entry).unwrap());
        let tile = Tile { kind: TileKind::Entries, index, width: TILE_WIDTH };
        put(&self.path().join(tile.path()), &bytes);
    }
}

#[test]
fn a_whole_log_is_accepted_by_all() {
    for (name, accepted, words) in Place::new().verdicts() {
        assert!(accepted, "{name}: {words}");
    }
}

/// Changes the copy and expects everybody to refuse it.
fn refused_by_all(what: &str, change: impl FnOnce(&Place, Vec<Vec<u8>>)) {
    let place = Place::new();
    change(&place, entries(SIZE));
    for (name, accepted, words) in place.verdicts() {
        assert!(!accepted, "{name} accepted a log with {what}: {words}");
    }
}

#[test]
fn every_change_is_noticed_by_all() {
    refused_by_all("a flipped bit", |place, mut all| {
        all[LEAF][0] ^= 1;
        place.rewrite_bundle(&all);
    });
    refused_by_all("two leaves swapped", |place, mut all| {
        all.swap(LEAF, LEAF + 1);
        place.rewrite_bundle(&all);
    });
    refused_by_all("a leaf dropped", |place, mut all| {
        all.remove(LEAF);
        place.rewrite_bundle(&all);
    });
    refused_by_all("a bundle cut short", |place, all| place.rewrite_bundle(&all[..LEAF - 2]));
    refused_by_all("a head of nobody's key", |place, all| {
        let stranger = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
        put(&place.path().join("checkpoint"), note(SIZE, root(&all), &stranger).as_bytes());
    });
    refused_by_all("its end rolled back", |place, all| log::write(place.path(), &all[..KEPT as usize - 10]));
    refused_by_all("a rewritten past, signed again with the right key", |place, mut all| {
        all[LEAF] = b"another history".to_vec();
        log::write(place.path(), &all);
    });
    refused_by_all("another head of one size, signed with the right key", |place, mut all| {
        all.truncate(KEPT as usize);
        all[LEAF] = b"another history".to_vec();
        log::write(place.path(), &all);
    });
}

#[test]
fn go_accepts_our_proofs_and_no_others() {
    let Some(go) = std::env::var_os("COUNTERFOIL_LOG_VERIFIER") else {
        eprintln!("skipped: Go's verifier is not built (COUNTERFOIL_LOG_VERIFIER is not set)");
        return;
    };
    let place = Place::new();
    let (proof, event) = (place.path().join("proof"), place.path().join("event"));
    for leaf in [0, 255, LEAF as u64, SIZE - 1] {
        let wanted = leaf.to_string().parse().unwrap();
        let options = ProveOptions { directory: place.path().to_owned(), policy: None, wanted };
        let proven = prove(&options).unwrap().1.unwrap();
        put(&proof, proven.proof.as_bytes());
        let checked = |bytes: &[u8]| {
            put(&event, bytes);
            let key = verifier_key(&key()).to_string();
            let mut command = Command::new(&go);
            command.arg(place.path()).arg(key).arg("-proof").arg(&proof).arg("-event").arg(&event);
            command.output().unwrap()
        };
        let fine = checked(&proven.event);
        assert!(fine.status.success(), "leaf {leaf}: {}", told(&fine));
        let other = [&proven.event[..], b"x"].concat();
        assert!(!checked(&other).status.success(), "leaf {leaf}: another event was accepted");
    }
}

#[test]
fn reports_fit_their_schema_and_the_statement_is_signed() {
    let story = crate::story::honest();
    let (directory, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    story.write(directory.path());
    let options = auditor::bundle::BundleOptions {
        directory: directory.path().to_owned(),
        policy: None,
        period: Some("2026".parse().unwrap()),
        seed: Some([5; 32]),
        out: out.path().to_owned(),
    };
    auditor::bundle::bundle(&options).unwrap();
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../specs/audit-report.schema.json");
    let schema = schema.to_str().unwrap();
    let reports = std::fs::read_dir(out.path().join("reports")).unwrap();
    let mut files: Vec<String> = vec![out.path().join("report.json").to_str().unwrap().to_owned()];
    files.extend(reports.map(|file| file.unwrap().path().to_str().unwrap().to_owned()));
    let arguments: Vec<&str> =
        ["report", schema].into_iter().chain(files.iter().map(String::as_str)).collect();
    let Some(output) = evidence(&arguments) else { return };
    assert_eq!(told(&output).trim(), format!("{} valid", files.len()));
    let text = std::fs::read_to_string(&files[0]).unwrap();
    let wrong = out.path().join("wrong.json");
    for (from, to) in
        [("\"examined\"", "\"looked\""), ("\"pass\"", "\"perhaps\""), ("audit-report-1", "audit-report-2")]
    {
        put(&wrong, text.replacen(from, to, 1).as_bytes());
        let output = evidence(&["report", schema, wrong.to_str().unwrap()]).unwrap();
        assert!(!output.status.success(), "the schema takes {to}");
    }
    let public = data_encoding::HEXLOWER
        .encode(ed25519_dalek::SigningKey::from_bytes(&[5; 32]).verifying_key().as_bytes());
    let envelope = out.path().join("report.dsse.json");
    let signed =
        |public: &str, report: &str| evidence(&["dsse", envelope.to_str().unwrap(), public, report]).unwrap();
    let fine = signed(&public, &files[0]);
    assert!(fine.status.success(), "{}", told(&fine));
    assert!(told(&fine).starts_with("https://in-toto.io/attestation/test-result/v0.1"), "{}", told(&fine));
    assert!(!signed(&public, &files[1]).status.success(), "about another report");
    let stranger = data_encoding::HEXLOWER
        .encode(ed25519_dalek::SigningKey::from_bytes(&[6; 32]).verifying_key().as_bytes());
    assert!(!signed(&stranger, &files[0]).status.success(), "signed by somebody else");
}
