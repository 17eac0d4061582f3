//! The story that a new user sees, run as they run it, then checked by the product's audit and by tools that are not ours.

use network_tests::check::{audit_replay, counterfoil, python};
use network_tests::network::root;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

const STEPS: [&str; 10] = [
    "account",
    "authorisation",
    "deposit",
    "prompt",
    "capture",
    "settlement",
    "claim",
    "withdrawal",
    "exports",
    "audit",
];

fn up_once(data: &Path) -> Vec<Value> {
    let data = data.to_str().expect("test paths are text");
    let done = counterfoil(&["--json", "up", "--once", "--port", "0", "--data", data]);
    assert_eq!(done.code, 0, "stdout: {}\nstderr: {}", done.stdout, done.stderr);
    done.stdout.lines().map(|line| serde_json::from_str(line).expect("steps are JSON")).collect()
}

fn step<'a>(steps: &'a [Value], name: &str) -> &'a Value {
    steps.iter().find(|s| s["step"] == name).unwrap_or_else(|| panic!("no step {name} in {steps:#?}"))
}

/// Runs twice on one data directory: the second run continues the same ledger and the audit still passes.
#[test]
fn the_story_holds_and_continues_on_the_same_data() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let first = up_once(&data);
    for name in STEPS {
        let found = step(&first, name);
        assert!(found["text"].as_str().is_some_and(|t| !t.is_empty()), "{found}");
    }
    let size = step(&first, "audit")["size"].as_u64().expect("a size");
    let cost = step(&first, "capture")["cost"].as_str().expect("a decimal");
    assert!(cost.starts_with("0.0"), "one small prompt costs little: {cost}");

    let second = up_once(&data);
    assert!(step(&second, "audit")["size"].as_u64().expect("a size") > size, "the same ledger went on");

    let report = audit_replay(&data);
    assert_eq!(report["verdict"], "passed", "{report:#}");
    hledger_accepts(&data);
    altered_copies_are_found(&data, dir.path());
    reexecution_gives_the_same_digest(&data, dir.path());
}

fn hledger_accepts(data: &Path) {
    let data = data.to_str().expect("test paths are text");
    let journal = counterfoil(&["export", "hledger", "--data", data]);
    assert_eq!(journal.code, 0, "{}", journal.stderr);
    let again = counterfoil(&["export", "hledger", "--data", data]);
    assert_eq!(journal.stdout, again.stdout, "a re-export is byte-identical");
    let Some(hledger) = std::env::var_os("COUNTERFOIL_HLEDGER") else {
        eprintln!("skipped: hledger is not installed (COUNTERFOIL_HLEDGER is not set)");
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("books.journal");
    std::fs::write(&file, &journal.stdout).expect("writable");
    let check = |text: &str| {
        std::fs::write(&file, text).expect("writable");
        let mut hledger = Command::new(&hledger);
        hledger.arg("-f").arg(&file).args(["check", "accounts", "commodities", "payees", "ordereddates"]);
        hledger.env("LC_ALL", "C.UTF-8").output().expect("hledger starts")
    };
    let fine = check(&journal.stdout);
    assert!(fine.status.success(), "{}", String::from_utf8_lossy(&fine.stderr));
    // One base unit more on one leg: hledger must notice, or the check proves nothing.
    let altered = alter_one_amount(&journal.stdout);
    assert!(!check(&altered).status.success(), "hledger accepted an altered leg");
}

/// Adds one to the last digit of the first booked amount.
fn alter_one_amount(journal: &str) -> String {
    let at = journal.find("    assets:").expect("an entry");
    let end = at + journal[at..].find(" FOIL").expect("an amount");
    let mut bytes = journal.as_bytes().to_vec();
    bytes[end - 1] = if bytes[end - 1] == b'9' { b'8' } else { bytes[end - 1] + 1 };
    String::from_utf8(bytes).expect("still text")
}

fn altered_copies_are_found(data: &Path, scratch: &Path) {
    let copy = scratch.join("copy");
    let (data, copy) = (data.to_str().expect("text"), copy.to_str().expect("text"));
    let policy = format!("{data}/auditor.policy");
    let fetched = counterfoil(&["audit", "fetch", data, copy]);
    assert_eq!(fetched.code, 0, "{}", fetched.stderr);
    let verified = counterfoil(&["audit", "verify", copy, "--policy", &policy]);
    assert!([0, 3].contains(&verified.code), "{}{}", verified.stdout, verified.stderr);
    let bundle = first_bundle(&Path::new(copy).join("tile/entries"));
    let mut bytes = std::fs::read(&bundle).expect("a bundle");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&bundle, bytes).expect("writable");
    let found = counterfoil(&["audit", "verify", copy, "--policy", &policy]);
    assert_eq!(found.code, 4, "one flipped byte: {}{}", found.stdout, found.stderr);
}

fn first_bundle(dir: &Path) -> std::path::PathBuf {
    let mut entries: Vec<_> = std::fs::read_dir(dir).expect("tiles").flatten().map(|e| e.path()).collect();
    entries.sort();
    let first = entries.into_iter().next().expect("at least one");
    if first.is_dir() { first_bundle(&first) } else { first }
}

fn reexecution_gives_the_same_digest(data: &Path, scratch: &Path) {
    let copy = scratch.join("sample");
    let (data, copy) = (data.to_str().expect("text"), copy.to_str().expect("text"));
    let policy = format!("{data}/auditor.policy");
    assert_eq!(counterfoil(&["audit", "fetch", data, copy, "--policy", &policy]).code, 0);
    let receipts = format!("{copy}/receipts");
    for more in [&["sod"][..], &["privacy"], &["completeness", "--receipts", &receipts]] {
        let done = counterfoil(&[&["audit", more[0], copy], &more[1..]].concat());
        assert_eq!(done.code, 0, "audit {}: {}{}", more[0], done.stdout, done.stderr);
    }
    let key = format!("{data}/keys/audit.key");
    let sampled =
        counterfoil(&["--json", "audit", "sample", copy, "--reexecute", "all", "--audit-key", &key]);
    assert_eq!(sampled.code, 0, "{}{}", sampled.stdout, sampled.stderr);
    let report: Value = serde_json::from_str(sampled.stdout.trim()).expect("a report");
    let check = report["checks"].as_array().expect("checks").iter().find(|c| c["id"] == "reexecuted");
    assert!(check.expect("the re-execution check")["examined"].as_u64().expect("a count") >= 2, "{report:#}");
}

#[test]
fn event_bytes_satisfy_the_schema_for_a_foreign_validator() {
    let schema = root().join("specs/events.cddl");
    for golden in ["protocol/golden/events_v1.hex", "protocol/golden/events_v2.hex"] {
        let golden = root().join(golden);
        let said =
            python("events_cddl.py", &[schema.to_str().expect("text"), golden.to_str().expect("text")]);
        assert!(said.contains("events decoded, canonical and valid"), "{said}");
    }
}
