//! One-sided looks: proofs, cut-off, completeness, duties, privacy, liabilities. Each honest and with something found.

use crate::log::{self, put};
use crate::story::*;
use auditor::checks::CheckKind;
use auditor::completeness::{CompletenessOptions, completeness};
use auditor::cutoff::{CutoffOptions, cutoff};
use auditor::duties::{DutiesOptions, duties};
use auditor::liabilities::*;
use auditor::period::Period;
use auditor::privacy::{PrivacyOptions, privacy};
use auditor::prove::{CheckProofOptions, ProveOptions, Proven, Wanted, check_proof, prove};
use auditor::report::Outcome;
use auditor::{AuditError, Report};
use protocol::codec::encode_event;
use protocol::event::batch::BatchFailed;
use protocol::event::*;
use protocol::id::*;
use std::path::{Path, PathBuf};

fn copy_of(story: &Story) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    story.write(directory.path());
    directory
}

fn first_finding(report: &Report, kind: CheckKind) -> String {
    let check = report.check(kind).unwrap();
    check.findings.first().unwrap_or_else(|| panic!("{check:#?}")).message.clone()
}

/// Receipts of both charges, as `fetch` leaves them.
fn put_receipts(directory: &Path) {
    for (n, job) in JOBS.iter().take(2).enumerate() {
        put(&directory.join(format!("receipts/{job}.cbor")), &receipt_bytes(n));
    }
}

// ---- proofs

fn proven(directory: &Path, wanted: &str) -> (Report, Option<Proven>) {
    let wanted: Wanted = wanted.parse().unwrap();
    prove(&ProveOptions { directory: directory.to_owned(), policy: None, wanted }).unwrap()
}

/// Writes a proof down and checks it with nothing but its files.
fn checked(proven: &Proven, receipt: Option<&[u8]>) -> Report {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        put(&directory.path().join(name), bytes);
        directory.path().join(name)
    };
    let policy = protocol::checkpoint::Policy::of_log(log::verifier_key(&log::key())).text();
    check_proof(&CheckProofOptions {
        proof: file("proof", proven.proof.as_bytes()),
        event: file("event", &proven.event),
        policy: file("policy", policy.as_bytes()),
        receipt: receipt.map(|bytes| file("receipt", bytes)),
    })
    .unwrap()
}

#[test]
fn every_leaf_is_proved_at_every_edge_of_a_tile() {
    for size in [1u64, 2, 3, 7, 255, 256, 257, 600, 66_000] {
        let directory = tempfile::tempdir().unwrap();
        let entries: Vec<Vec<u8>> = (0..size).map(|n| format!("entry {n}").into_bytes()).collect();
        log::write(directory.path(), &entries);
        let leaves = [0, 1, 2, 254, 255, 256, 257, 511, 512, 599, 65_535, 65_536, size - 1];
        for leaf in leaves.into_iter().filter(|leaf| *leaf < size) {
            let (report, found) = proven(directory.path(), &leaf.to_string());
            assert_eq!(report.exit_code, 0, "{leaf} of {size}: {:#?}", report.checks);
            let found = found.unwrap();
            assert_eq!(found.event, entries[leaf as usize]);
            assert_eq!(checked(&found, None).exit_code, 0, "{leaf} of {size}");
        }
    }
}

#[test]
fn a_charge_is_proved_by_its_job_and_by_its_receipt() {
    let story = honest();
    let directory = copy_of(&story);
    let at = story.find("usage_captured", 1);
    let (_, by_job) = proven(directory.path(), &JOBS[1].to_string());
    let by_job = by_job.unwrap();
    assert_eq!((by_job.leaf, &by_job.event), (at as u64, &encode_event(&story.events[at]).unwrap()));
    let path = directory.path().join("mine.receipt");
    put(&path, &receipt_bytes(1));
    let (_, by_receipt) = proven(directory.path(), path.to_str().unwrap());
    assert_eq!(by_receipt.as_ref(), Some(&by_job));
    assert_eq!(proven(directory.path(), &format!("0.{at}")).1.as_ref(), Some(&by_job));
    assert_eq!(checked(&by_job, Some(&receipt_bytes(1))).exit_code, 0);
    assert_eq!(checked(&by_job, Some(&receipt_bytes(0))).exit_code, 4, "another job's receipt");
    let mut altered = by_job.clone();
    altered.event[30] ^= 1;
    assert_eq!(checked(&altered, None).exit_code, 4, "another event");
    let mut moved = by_job;
    moved.proof = moved.proof.replacen(&format!("index {at}"), &format!("index {}", at - 1), 1);
    assert_eq!(checked(&moved, None).exit_code, 4, "another place");
}

#[test]
fn what_is_not_in_the_log_is_not_proved() {
    let directory = copy_of(&honest());
    for wanted in ["5000", &JobId([99; 16]).to_string()] {
        let (report, found) = proven(directory.path(), wanted);
        assert_eq!((report.exit_code, found), (4, None), "{wanted}");
    }
    assert_eq!("nonsense".parse::<Wanted>().unwrap_err().exit_code(), 2);
}

// ---- cut-off

fn cut(directory: &Path, period: Period, lag_us: Option<u64>) -> Report {
    cutoff(&CutoffOptions { directory: directory.to_owned(), policy: None, period, lag_us }).unwrap()
}

#[test]
fn what_straddles_a_period_is_listed_and_what_is_late_is_found() {
    let mut story = honest();
    // The second prompt is held before the edge and charged after it.
    let held = story.find("hold_placed", 1);
    let edge = story.events[held].header.time_us + 1;
    let directory = copy_of(&story);
    let period = Period { from_us: 0, to_us: edge };
    let report = cut(directory.path(), period, None);
    assert_eq!(report.exit_code, 0, "{:#?}", report.checks);
    assert_eq!(report.check(CheckKind::Cutoff).unwrap().result, Outcome::Skipped, "no receipts here");
    let amount = |what: &str| {
        let item = report.items.iter().find(|item| item.what == what);
        item.unwrap_or_else(|| panic!("{what}: {:?}", report.items)).amount.clone().unwrap()
    };
    assert_eq!(amount("held before, charged after"), COSTS[1].to_string());
    assert_eq!(amount("charged before the edge"), COSTS[0].to_string());
    // Receipts of the story say that it was served at microsecond 2: long before.
    put_receipts(directory.path());
    let early = Period { from_us: 1_000, to_us: u64::MAX };
    let report = cut(directory.path(), early, None);
    assert_eq!(report.exit_code, 1);
    assert!(first_finding(&report, CheckKind::Cutoff).contains("another period"));
    assert_eq!(cut(directory.path(), early, Some(u64::MAX)).exit_code, 0, "as late as allowed");
    story.events.clear();
}

// ---- completeness

fn complete(directory: &Path, receipts: Option<PathBuf>) -> Report {
    completeness(&CompletenessOptions { directory: directory.to_owned(), policy: None, receipts }).unwrap()
}

#[test]
fn an_operators_receipt_that_the_log_left_out() {
    let story = honest();
    let directory = copy_of(&story);
    assert_eq!(complete(directory.path(), None).exit_code, 3, "nothing to compare with");
    let kept = tempfile::tempdir().unwrap();
    for n in 0..2 {
        put(&kept.path().join(format!("{n}.cbor")), &receipt_bytes(n));
    }
    let report = complete(directory.path(), Some(kept.path().to_owned()));
    assert_eq!((report.exit_code, report.check(CheckKind::Metered).unwrap().examined), (0, 2));
    // A coordinator that never logs the second prompt.
    let mut omitted = honest();
    let at = omitted.find("hold_placed", 1);
    omitted.rewind(at);
    let directory = copy_of(&omitted);
    let report = complete(directory.path(), Some(kept.path().to_owned()));
    assert_eq!(report.exit_code, 1);
    assert!(first_finding(&report, CheckKind::Metered).contains("10 tokens were served and are not charged"));
}

#[test]
fn a_hold_that_never_ended() {
    let mut story = honest();
    let at = story.find("hold_voided", 0);
    story.rewind(at);
    let directory = copy_of(&story);
    let receipts = directory.path().join("receipts");
    put(&receipts.join(format!("{}.cbor", JOBS[0])), &receipt_bytes(0));
    put(&receipts.join(format!("{}.cbor", JOBS[1])), &receipt_bytes(1));
    assert_eq!(complete(directory.path(), None).exit_code, 0, "it may still end");
    let opened = story.tell(fresh_account(), &[], &[]);
    story.events[opened].header.time_us = START_US + 24 * 3_600 * 1_000_000;
    story.write(directory.path());
    let report = complete(directory.path(), None);
    assert_eq!(report.exit_code, 1);
    assert!(first_finding(&report, CheckKind::Lifecycle).contains(&JOBS[2].to_string()));
}

// ---- segregation of duties

/// The story with everybody at their own duty.
fn by_roles() -> Story {
    let mut story = honest();
    for event in &mut story.events {
        event.header.actor = match &event.body {
            EventBody::NetworkOpened(_) | EventBody::WriterChanged(_) => Actor::Writer,
            EventBody::RateCardPublished(_) | EventBody::VaultRegistered(_) | EventBody::AccountOpened(_) => {
                Actor::Admin
            }
            EventBody::OperatorRegistered(_) | EventBody::NodeRegistered(_) => Actor::Operator(operator()),
            EventBody::SpendAuthorised(_)
            | EventBody::HoldPlaced(_)
            | EventBody::JobDispatched(_)
            | EventBody::VoucherIssued(_) => Actor::Account(CUSTOMER),
            EventBody::UsageCaptured(_) | EventBody::HoldVoided(_) => Actor::Gateway,
            EventBody::BatchClosed(_) | EventBody::BatchSubmitted(_) | EventBody::BatchConfirmed(_) => {
                Actor::Settler
            }
            _ => Actor::Watcher,
        };
    }
    story.seal();
    story
}

fn sod(story: &Story) -> Report {
    let directory = copy_of(story);
    duties(&DutiesOptions { directory: directory.path().to_owned(), policy: None }).unwrap()
}

#[test]
fn everybody_at_their_own_duty() {
    let report = sod(&by_roles());
    assert_eq!(report.exit_code, 0, "{:#?}", report.checks);
    let settles = report.items.iter().any(|item| item.what == "settler" && item.note == "batch_closed: 1");
    assert!(settles, "{:?}", report.items);
}

#[test]
fn a_duty_of_somebody_else() {
    let mut story = by_roles();
    let closed = story.find("batch_closed", 0);
    story.events[closed].header.actor = Actor::Gateway;
    let report = sod(&story);
    assert_eq!(report.exit_code, 1);
    assert_eq!(report.check(CheckKind::Duties).unwrap().findings[0].leaf, Some(closed as u64));
    let mut story = by_roles();
    let hold = story.find("hold_placed", 0);
    story.events[hold].header.actor = Actor::Account(OWNER);
    assert!(first_finding(&sod(&story), CheckKind::Duties).contains("for another"));
}

#[test]
fn an_operator_that_serves_itself() {
    let mut story = by_roles();
    for at in [story.find("hold_placed", 0), story.find("operator_registered", 0)] {
        match &mut story.events[at].body {
            EventBody::HoldPlaced(e) => e.account = CUSTOMER,
            EventBody::OperatorRegistered(e) => e.account = CUSTOMER,
            _ => unreachable!(),
        }
    }
    assert!(first_finding(&sod(&story), CheckKind::BothSides).contains("its own account"));
}

// ---- privacy

fn linted(story: &Story) -> Report {
    let directory = copy_of(story);
    privacy(&PrivacyOptions { directory: directory.path().to_owned(), policy: None }).unwrap()
}

#[test]
fn nothing_about_a_person_or_a_finding() {
    // Ids of the story are bytes of one kind; those of letters are what the check is there to find.
    let mut story = honest();
    let report = linted(&story);
    assert_eq!(report.exit_code, 0, "{:#?}", report.check(CheckKind::Privacy));
    assert!(report.check(CheckKind::Privacy).unwrap().examined > 50);
    for reason in ["write to jane.doe@example.com", "from 192.168.1.17:443", "+49 30 1234567"] {
        let at = story.tell(BatchFailed { batch: BATCH, reason: reason.into() }, &[], &[]);
        let report = linted(&story);
        assert_eq!(report.exit_code, 1, "{reason}");
        assert_eq!(report.check(CheckKind::Privacy).unwrap().findings[0].leaf, Some(at as u64));
        story.rewind(at);
    }
    let at = story.tell(BatchFailed { batch: BATCH, reason: "the vault would charge less".into() }, &[], &[]);
    assert_eq!(linted(&story).exit_code, 0);
    story.rewind(at);
    story.tell(account::AccountOpened { account: AccountId(*b"jane.doe.example") }, &[], &[]);
    assert!(first_finding(&linted(&story), CheckKind::Privacy).contains("spells something"));
}

// ---- liabilities

fn of(directory: &Path, at: Option<u64>) -> LiabilitiesOptions {
    LiabilitiesOptions { directory: directory.to_owned(), policy: None, at, salt: [9; 32] }
}

#[test]
fn every_balance_leads_to_the_published_total() {
    let story = honest();
    let directory = copy_of(&story);
    let report = liabilities(&of(directory.path(), None)).unwrap();
    assert_eq!(report.exit_code, 0, "{:#?}", report.checks);
    let item = &report.items[0];
    // 5 deposited, 1 withdrawn, the charges' shares: what the customer has left, and the operator's unpaid part.
    let customer = 5_000_000_000 - 1_000_000_000 - COSTS[0] - COSTS[1];
    let owner = SHARES[0] + SHARES[1] - i128::from(OPERATOR_UNITS) * 1_000;
    assert_eq!(item.amount, Some((customer + owner).to_string()));
    let (root, total) = (item.id.clone().unwrap(), item.amount.clone().unwrap());
    for (account, amount) in [(CUSTOMER, customer), (OWNER, owner)] {
        let (report, proofs) = prove_balance(&of(directory.path(), None), account).unwrap();
        assert_eq!((report.exit_code, proofs.len()), (0, 1));
        let proof = &proofs[0];
        assert_eq!(proof.amount, amount.to_string());
        assert_eq!(check_balance(proof, &root, &total).exit_code, 0);
        let mut cheat = proof.clone();
        cheat.amount = (amount + 1).to_string();
        assert_eq!(check_balance(&cheat, &root, &total).exit_code, 4, "another balance");
        assert_eq!(
            check_balance(proof, &root, &(customer + owner - 1).to_string()).exit_code,
            4,
            "a smaller total"
        );
        let json = serde_json::to_string(proof).unwrap();
        assert_eq!(&serde_json::from_str::<BalanceProof>(&json).unwrap(), proof);
    }
    let (report, proofs) = prove_balance(&of(directory.path(), None), AccountId([99; 16])).unwrap();
    assert_eq!((report.exit_code, proofs.len()), (0, 0), "nobody is owed nothing");
    let before = liabilities(&of(directory.path(), Some(story.find("voucher_redeemed", 0) as u64))).unwrap();
    assert_eq!(before.items[0].amount, Some((customer + owner + 1_000_000_000).to_string()));
}

#[test]
fn a_negative_sibling_hides_nothing() {
    // The classic cheat: a negative leaf beside a customer's lowers the total and keeps every path valid.
    let directory = copy_of(&honest());
    let (_, proofs) = prove_balance(&of(directory.path(), None), CUSTOMER).unwrap();
    let mut proof = proofs[0].clone();
    proof.path[0].sum = "-5".to_owned();
    assert!(verify_balance(&proof).unwrap_err().contains("no amount of 0 or more"));
}

#[test]
fn a_period_that_is_none_is_a_wrong_argument() {
    let error: AuditError = "October".parse::<Period>().unwrap_err();
    assert_eq!(error.exit_code(), 2);
}

// ---- the package

#[test]
fn a_bundle_is_whole_signed_and_safe_to_open() {
    use data_encoding::{BASE64, HEXLOWER};
    use ed25519_dalek::{Signature, SigningKey};
    use sha2::{Digest, Sha256};
    let mut story = by_roles();
    // What a host may write into a reason must stay text on the page.
    story.tell(
        BatchFailed { batch: BatchId([88; 16]), reason: "<script>alert(1)</script>".into() },
        &[],
        &[],
    );
    let (directory, out) = (copy_of(&story), tempfile::tempdir().unwrap());
    put_receipts(directory.path());
    let options = auditor::bundle::BundleOptions {
        directory: directory.path().to_owned(),
        policy: None,
        period: Some(Period { from_us: 0, to_us: START_US }),
        seed: Some([5; 32]),
        out: out.path().to_owned(),
    };
    let report = auditor::bundle::bundle(&options).unwrap();
    assert_eq!(report.exit_code, 1, "a batch that nobody closed failed");
    let read = |name: &str| std::fs::read(out.path().join(name)).unwrap();
    let json = |name: &str| -> serde_json::Value { serde_json::from_slice(&read(name)).unwrap() };
    let manifest = json("manifest.json");
    let files = manifest["files"].as_array().unwrap();
    assert!(files.len() > 10, "{manifest:#}");
    for file in files {
        let hash = HEXLOWER.encode(&Sha256::digest(read(file["name"].as_str().unwrap())));
        assert_eq!(file["sha256"], hash.as_str(), "{file}");
    }
    let page = String::from_utf8(read("index.html")).unwrap();
    assert!(page.contains("Trial balance") && page.contains("class=\"verdict finding\""));
    assert!(!page.contains("<script") && !page.contains("http-equiv"), "no script, whatever the log says");
    let envelope = json("report.dsse.json");
    let bytes = |value: &serde_json::Value| BASE64.decode(value.as_str().unwrap().as_bytes()).unwrap();
    let (payload, signature) = (bytes(&envelope["payload"]), bytes(&envelope["signatures"][0]["sig"]));
    let kind = envelope["payloadType"].as_str().unwrap();
    let signed =
        [format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes(), payload.clone()].concat();
    let key = SigningKey::from_bytes(&[5; 32]).verifying_key();
    key.verify_strict(&signed, &Signature::from_slice(&signature).unwrap()).unwrap();
    let statement: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(statement["predicate"]["result"], "FAILED");
    assert_eq!(statement["subject"][0]["digest"]["sha256"], report.subject.root.as_str());
    assert!(statement["predicate"]["failedTests"].as_array().unwrap().contains(&"batches".into()));
}
