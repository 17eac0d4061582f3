//! `bench audit`: verifying and replaying a whole log from its files, beside the SHA-256 rate of this machine's cores in the
//! same run; what memory that takes; and one inclusion proof.

use crate::books::{Books, BooksOptions, forget_peak, peak_bytes};
use crate::report::{Better, Report, ResultLine};
use crate::samples::Samples;
use crate::{BenchError, Tried};
use auditor::replay::{ReplayOptions, replay};
use auditor::verify::{VerifyOptions, verify};
use std::time::Instant;

/// Leaves whose hashing is measured as the limit.
const LIMIT_LEAVES: usize = 200_000;
/// Proofs that are measured.
const PROOFS: u64 = 2_000;

/// Runs it.
pub async fn run(options: BooksOptions) -> Result<Report, BenchError> {
    let settings = serde_json::json!({
        "events": options.events, "accounts": options.accounts, "what": "holds and charges, verified and replayed",
    });
    let mut report = Report::new("audit", settings);
    let books = Books::write(&options).await?;
    let work = move || measure(&books, &mut report).map(|()| report);
    tokio::task::spawn_blocking(work).await.tried("run the audit")?
}

fn measure(books: &Books, report: &mut Report) -> Result<(), BenchError> {
    let events = books.events as f64;
    let (directory, policy) = (books.data(), Some(books.policy()));
    let limit = hashing_rate(books)?;
    let name = "SHA-256 of the same leaves and nodes, one core";
    forget_peak();
    let begin = Instant::now();
    let options =
        VerifyOptions { directory: directory.clone(), policy: policy.clone(), since: None, chain: None };
    passed(verify(&options).tried("verify")?)?;
    let rate = events / begin.elapsed().as_secs_f64();
    report.results.push(ResultLine::rate("verify.events_per_second", rate).against(name, limit));
    memory(report, "verify.resident_bytes");
    forget_peak();
    let begin = Instant::now();
    passed(replay(&ReplayOptions { directory, policy, at: None }).tried("replay")?)?;
    let rate = events / begin.elapsed().as_secs_f64();
    report.results.push(ResultLine::rate("replay.events_per_second", rate).against(name, limit));
    memory(report, "replay.resident_bytes");
    proofs(books, report)
}

/// What does not pass measures something else.
fn passed(report: auditor::Report) -> Result<(), BenchError> {
    if report.exit_code == 0 {
        return Ok(());
    }
    let worst = report.checks.iter().find(|check| check.exit_code() != 0);
    let words = worst.map_or_else(String::new, |check| {
        let finding = check.findings.first().map(|finding| finding.message.clone());
        format!("{}: {}", check.id, finding.or(check.note.clone()).unwrap_or_default())
    });
    Err(BenchError::failed("audit the measured log")(words))
}

fn memory(report: &mut Report, name: &str) {
    if let Some(bytes) = peak_bytes() {
        report.results.push(ResultLine::bytes(name, bytes));
    }
}

/// Leaves a second that this core hashes into a tree when it does nothing else.
fn hashing_rate(books: &Books) -> Result<f64, BenchError> {
    let mut leaves: Vec<Vec<u8>> = Vec::with_capacity(LIMIT_LEAVES);
    for commit in books.archive()?.commits(1) {
        let commit = commit.tried("read a commit")?.commit;
        leaves.extend(commit.events.into_iter().map(Vec::from));
        if leaves.len() >= LIMIT_LEAVES {
            break;
        }
    }
    let begin = Instant::now();
    let mut root = protocol::proof::RootBuilder::new();
    for leaf in &leaves {
        root.push(protocol::proof::leaf_hash(leaf));
    }
    std::hint::black_box(root.root());
    Ok(leaves.len() as f64 / begin.elapsed().as_secs_f64())
}

fn proofs(books: &Books, report: &mut Report) -> Result<(), BenchError> {
    let mut times = Samples::default();
    for n in 0..PROOFS {
        let leaf = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % books.events;
        let begin = Instant::now();
        let proof = books.tlog.proof_file(leaf).tried("prove a leaf")?;
        times.push(begin.elapsed());
        std::hint::black_box(proof.hashes.len());
    }
    for (name, share) in [("proof.p50", 0.5), ("proof.p99", 0.99)] {
        report.results.push(ResultLine::new(name, times.quantile_ms(share), "ms", Better::Lower));
    }
    Ok(())
}
