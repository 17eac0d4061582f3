//! Samples: drawn by seed, recomputed, opened, run again.

use crate::fetching::commits;
use crate::log::put;
use crate::story::*;
use auditor::Report;
use auditor::checks::CheckKind;
use auditor::sample::*;
use crypto_box::SecretKey;
use crypto_box::aead::OsRng;
use data_encoding::BASE64;
use protocol::commit::Commit;
use protocol::event::EventBody;
use protocol::id::Hash32;
use std::path::Path;

const SECRET: [u8; 32] = [77; 32];

/// Kernels that know the answer.
struct Kernels {
    off_at: Option<u64>,
}

impl Reexecutor for Kernels {
    fn reexecute(&self, job: &Reexecution<'_>) -> Verdict {
        let n = JOBS.iter().position(|id| *id == job.job).unwrap();
        assert_eq!((job.weights, job.model), (WEIGHTS, MODEL));
        assert_eq!((job.output_ids, job.chain_head), (&output_ids(n)[..], Hash32([30 + n as u8; 32])));
        match self.off_at {
            Some(token) => Verdict::Differs { token: Some(token), expected: "1".into(), actual: "2".into() },
            None => Verdict::Identical,
        }
    }
}

fn sampled(directory: &Path, selection: Selection, kernels: Option<&Kernels>) -> Report {
    let reexecute = kernels.map(|engine| ReexecuteOptions { engine, audit_secret: SECRET });
    sample(&SampleOptions { directory: directory.to_owned(), policy: None, selection, reexecute }).unwrap()
}

fn seal(directory: &Path, n: usize, body: &protocol::job_message::JobBody, ids: &[u32]) {
    let contents =
        serde_json::json!({"version": 1, "body": body, "attempt": 0, "output_ids": ids, "finish": "stop"});
    let sealed =
        SecretKey::from(SECRET).public_key().seal(&mut OsRng, contents.to_string().as_bytes()).unwrap();
    put(&directory.join(format!("contents/{}.sealed", JOBS[n])), &sealed);
}

/// A copy with contents, receipts and commits.
fn copy() -> (tempfile::TempDir, Story, Hash32) {
    let directory = tempfile::tempdir().unwrap();
    let story = honest();
    story.write(directory.path());
    let all = commits(&story.events);
    let lines: String = all
        .iter()
        .enumerate()
        .map(|(n, bytes)| format!("{{\"number\":{},\"bytes\":\"{}\"}}\n", n + 1, BASE64.encode(bytes)))
        .collect();
    put(&directory.path().join("commits/1.ndjson"), lines.as_bytes());
    let placed = story.events[story.find("hold_placed", 1)].header.commit;
    let hash = Commit::hash(&all[placed as usize - 1]);
    for (n, job) in JOBS.iter().enumerate().take(2) {
        put(&directory.path().join(format!("receipts/{job}.cbor")), &receipt_bytes(n));
        seal(directory.path(), n, &body(n, hash), &output_ids(n));
    }
    (directory, story, hash)
}

#[test]
fn all_jobs_run_again_to_the_same_digest() {
    let (directory, _, _) = copy();
    let report = sampled(directory.path(), Selection::All, Some(&Kernels { off_at: None }));
    assert_eq!(report.exit_code, 0, "{:#?}", report.checks);
    let words: Vec<_> = report.sample.iter().map(|row| row.reexecuted.as_deref().unwrap()).collect();
    assert_eq!(words, ["identical", "identical"]);
    assert_eq!(report.sample[0].recomputed.as_deref(), Some("2840710"));
}

#[test]
fn another_token_is_a_finding() {
    let (directory, story, _) = copy();
    let report = sampled(directory.path(), Selection::All, Some(&Kernels { off_at: Some(3) }));
    assert_eq!(report.exit_code, 1);
    let finding = &report.check(CheckKind::Reexecuted).unwrap().findings[0];
    assert_eq!(finding.leaf, Some(story.find("usage_captured", 0) as u64));
    assert!(finding.message.contains("token 3"), "{finding:?}");
}

#[test]
fn contents_that_do_not_match_are_a_cryptographic_failure() {
    let (directory, _, hash) = copy();
    let mut other = body(0, hash);
    other.prompt_ids[0] = 9;
    seal(directory.path(), 0, &other, &output_ids(0));
    assert_eq!(sampled(directory.path(), Selection::All, Some(&Kernels { off_at: None })).exit_code, 4);
    let mut ids = output_ids(0);
    ids[0] = 9;
    seal(directory.path(), 0, &body(0, hash), &ids);
    assert_eq!(sampled(directory.path(), Selection::All, Some(&Kernels { off_at: None })).exit_code, 4);
    seal(directory.path(), 0, &body(0, hash), &output_ids(0));
    let mut key = body(1, hash);
    key.sampling_key = Hash32([0; 32]);
    seal(directory.path(), 1, &key, &output_ids(1));
    assert_eq!(sampled(directory.path(), Selection::All, Some(&Kernels { off_at: None })).exit_code, 4);
}

#[test]
fn what_is_missing_is_inconclusive() {
    let (directory, _, _) = copy();
    std::fs::remove_dir_all(directory.path().join("commits")).unwrap();
    let report = sampled(directory.path(), Selection::All, Some(&Kernels { off_at: None }));
    assert_eq!(report.exit_code, 3, "the seedless job's key needs its commit");
    assert_eq!(report.sample[0].reexecuted.as_deref(), Some("identical"), "the seeded one does not");
    std::fs::remove_dir_all(directory.path().join("contents")).unwrap();
    assert_eq!(sampled(directory.path(), Selection::All, Some(&Kernels { off_at: None })).exit_code, 3);
    assert_eq!(sampled(directory.path(), Selection::All, None).exit_code, 0, "recomputing needs no contents");
}

#[test]
fn a_sample_is_reproducible_and_its_size_is_the_textbook_s() {
    let (directory, _, _) = copy();
    let draw = |nonce: &str| {
        let selection = Selection::Attribute { rows: 1, nonce: nonce.into() };
        let report = sampled(directory.path(), selection, None);
        assert_eq!(report.sample.len(), 1);
        (report.seed.unwrap(), report.sample[0].leaf)
    };
    assert_eq!(draw("a nonce"), draw("a nonce"));
    let leaves: std::collections::BTreeSet<u64> = (0..20).map(|n| draw(&n.to_string()).1).collect();
    assert_eq!(leaves.len(), 2, "another nonce draws other rows");
    assert_eq!([(950, 50), (950, 10), (990, 10)].map(|(c, t)| attribute_size(c, t)), [59, 299, 459]);
}

#[test]
fn a_monetary_sample_draws_by_money_and_projects_what_it_finds() {
    let (directory, story, _) = copy();
    let draw = |rows: u64, nonce: &str| {
        let report = sampled(directory.path(), Selection::Monetary { rows, nonce: nonce.into() }, None);
        assert_eq!(report.exit_code, 0, "{:#?}", report.checks);
        (report.sample.iter().map(|row| row.leaf).collect::<Vec<_>>(), report.items[0].note.clone())
    };
    assert_eq!(draw(1, "a nonce"), draw(1, "a nonce"));
    // Two charges, of 2 840 710 and 42 011: by rows they would be drawn equally often.
    let large = story.find("usage_captured", 0) as u64;
    let hits = (0..100).filter(|n| draw(1, &n.to_string()).0 == [large]).count();
    assert!((90..=100).contains(&hits), "{hits} of 100");
    assert_eq!(draw(1_000, "all").0.len(), 2, "what is larger than the interval is always drawn");
    assert!(draw(2, "x").1.contains("projected error 0 base units"));
    // One unit too much on the large charge, in a log that ends before it is settled.
    let mut cheat = honest();
    cheat.events.truncate(cheat.find("batch_closed", 0));
    let EventBody::UsageCaptured(charge) = &mut cheat.events[large as usize].body else { unreachable!() };
    charge.cost.0 += 1_000;
    cheat.seal();
    let directory = tempfile::tempdir().unwrap();
    cheat.write(directory.path());
    let report = sampled(directory.path(), Selection::Monetary { rows: 60, nonce: "x".into() }, None);
    assert_eq!(report.exit_code, 1);
    assert!(report.items[0].note.contains("projected error 1000 base units"), "{}", report.items[0].note);
}
