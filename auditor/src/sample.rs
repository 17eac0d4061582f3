//! `audit sample`: charges drawn by a seed that neither side chose, recomputed, and on demand run again from their sealed
//! contents.

mod monetary;

pub use monetary::monetary_size;

use crate::checks::CheckKind;
use crate::commits;
use crate::copy::LogCopy;
use crate::error::AuditError;
use crate::replay::{self, ReplayOptions, SampledCharge, World};
use crate::report::{Checks, Finding, Report, SampledRow};
use crypto_box::SecretKey;
use monetary::Stratum;
use protocol::commitment::{Committed, commit, token_bytes};
use protocol::id::{Hash32, JobId};
use protocol::job_message::{JobBody, sampling_key};
use protocol::receipt::SignedReceipt;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// Layout of sealed contents that this program reads.
const CONTENTS_VERSION: u32 = 1;

/// Which charges are drawn.
#[derive(Clone, Debug)]
pub enum Selection {
    /// All of them.
    All,
    /// An attribute sample of so many rows. The seed is SHA-256 of the auditor's nonce and the root of a checkpoint that
    /// was signed after the nonce was published: neither side picks the rows.
    Attribute {
        /// How many; [`attribute_size`] says how many are needed.
        rows: u64,
        /// The auditor's words, published before the checkpoint was signed.
        nonce: String,
    },
    /// A sample by monetary units, of so many units a model, with the same seed; [`monetary_size`] says how many.
    Monetary {
        /// How many units of each model's charges.
        rows: u64,
        /// The auditor's words, published before the checkpoint was signed.
        nonce: String,
    },
}

/// The size of an attribute sample without an expected error: `ln(1 - confidence) / ln(1 - tolerance)`, rounded up.
/// Both in thousandths; 950 and 50 give 59.
pub fn attribute_size(confidence_thousandths: u32, tolerance_thousandths: u32) -> u64 {
    let part = |thousandths: u32| f64::from(thousandths.clamp(1, 999)) / 1000.0;
    ((1.0 - part(confidence_thousandths)).ln() / (1.0 - part(tolerance_thousandths)).ln()).ceil() as u64
}

/// One job to run again.
#[derive(Clone, Debug)]
pub struct Reexecution<'a> {
    /// The job.
    pub job: JobId,
    /// Model's name on the card.
    pub model: &'a str,
    /// SHA-256 of the weights.
    pub weights: Hash32,
    /// What was asked.
    pub body: &'a JobBody,
    /// The sampling key, derived by the auditor.
    pub sampling_key: Hash32,
    /// Output ids that were billed.
    pub output_ids: &'a [u32],
    /// The digest chain after them, from the log.
    pub chain_head: Hash32,
}

/// What running it again gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same tokens and the same digest.
    Identical,
    /// Something else.
    Differs {
        /// The first token that differs; `None` when only the digest does.
        token: Option<u64>,
        /// What should be there.
        expected: String,
        /// What the contents or the log say.
        actual: String,
    },
    /// It could not be run here, such as without the weights.
    Unavailable(String),
}

/// Runs jobs again on canonical kernels; the program injects its own.
pub trait Reexecutor {
    /// Runs one job.
    fn reexecute(&self, job: &Reexecution<'_>) -> Verdict;
}

/// What to sample, and how deep to look.
pub struct SampleOptions<'a> {
    /// A fetched copy, or a data directory.
    pub directory: PathBuf,
    /// The policy file; a fetched copy keeps its own.
    pub policy: Option<PathBuf>,
    /// Which charges.
    pub selection: Selection,
    /// Runs them again, with the secret half of the audit key; `None` only recomputes the charges.
    pub reexecute: Option<ReexecuteOptions<'a>>,
}

/// What running again needs.
pub struct ReexecuteOptions<'a> {
    /// The kernels.
    pub engine: &'a dyn Reexecutor,
    /// Secret X25519 key that contents were sealed to.
    pub audit_secret: [u8; 32],
}

/// What the gateway sealed to the audit key.
#[derive(Deserialize)]
struct Contents {
    version: u32,
    body: JobBody,
    attempt: u32,
    output_ids: Option<Vec<u32>>,
}

/// Draws and looks. Never prints; an error means there was no log.
pub fn sample(options: &SampleOptions<'_>) -> Result<Report, AuditError> {
    let copy = LogCopy::open(&options.directory)?;
    let replay_options =
        ReplayOptions { directory: options.directory.clone(), policy: options.policy.clone(), at: None };
    let replayed = replay::run(&copy, "sample", &replay_options)?;
    let (mut report, world) = (replayed.report, replayed.world);
    let mut checks = replayed.judge.into_checks();
    let (drawn, mut strata) = draw(&options.selection, &world, &mut report, &mut checks);
    let wanted: Vec<u64> = drawn.iter().map(|charge| charge.placed_commit).collect();
    let hashes = match options.reexecute {
        Some(_) => commits::hashes(&copy, &wanted)?,
        None => Default::default(),
    };
    for charge in &drawn {
        let mut row = reperform(charge, &mut checks);
        strata.iter_mut().for_each(|stratum| stratum.recomputed(charge));
        if let Some(again) = &options.reexecute {
            let commit_hash = hashes.get(&charge.placed_commit).copied();
            let run = Run { copy: &copy, charge, again, commit_hash, checks: &mut checks };
            row.reexecuted = Some(run.examine());
        }
        report.sample.push(row);
    }
    report.items = strata.iter().map(Stratum::item).collect();
    Ok(report.end(checks))
}

fn draw(
    selection: &Selection,
    world: &World,
    report: &mut Report,
    checks: &mut Checks,
) -> (Vec<SampledCharge>, Vec<Stratum>) {
    let mut charges = world.charges();
    let check = checks.of(CheckKind::Selection);
    check.examined = charges.len() as u64;
    let (rows, nonce) = match selection {
        Selection::All => {
            report.seed = Some("all".to_owned());
            return (charges, Vec::new());
        }
        Selection::Attribute { rows, nonce } | Selection::Monetary { rows, nonce } => (*rows, nonce),
    };
    let seed: [u8; 32] = Sha256::new()
        .chain_update(nonce.as_bytes())
        .chain_update([0])
        .chain_update(&report.subject.root)
        .finalize()
        .into();
    report.seed = Some(data_encoding::HEXLOWER.encode(&seed));
    if let Selection::Monetary { .. } = selection {
        return monetary::draw(charges, rows, &seed);
    }
    // The rows with the smallest hash of seed and leaf: anybody draws the same, whatever the order of rows.
    charges.sort_by_cached_key(|charge| {
        let hash: [u8; 32] =
            Sha256::new().chain_update(seed).chain_update(charge.leaf.to_be_bytes()).finalize().into();
        (hash, charge.leaf)
    });
    charges.truncate(usize::try_from(rows).unwrap_or(usize::MAX));
    charges.sort_by_key(|charge| charge.leaf);
    (charges, Vec::new())
}

/// The charge again, from card and counts.
fn reperform(charge: &SampledCharge, checks: &mut Checks) -> SampledRow {
    let check = checks.of(CheckKind::Reperformed);
    check.examine();
    let charged = charge.event.cost.0;
    if charge.recomputed != Some(charged) {
        let expected = charge.recomputed.map_or("a price".to_owned(), |cost| cost.to_string());
        check.fail(finding(
            charge,
            expected,
            charged.to_string(),
            "the charge is not the price of its tokens",
        ));
    }
    SampledRow {
        leaf: charge.leaf,
        job: charge.event.job.to_string(),
        charged: charged.to_string(),
        recomputed: charge.recomputed.map(|cost| cost.to_string()),
        reexecuted: None,
    }
}

fn finding(charge: &SampledCharge, expected: String, actual: String, message: &str) -> Finding {
    let message = format!("{}: {message}", charge.event.job);
    Finding { leaf: Some(charge.leaf), event_id: None, expected, actual, message }
}

/// One drawn job.
struct Run<'a, 'b> {
    copy: &'a LogCopy,
    charge: &'a SampledCharge,
    again: &'a ReexecuteOptions<'b>,
    commit_hash: Option<Hash32>,
    checks: &'a mut Checks,
}

impl Run<'_, '_> {
    /// Opens, checks against the commitments, runs. Gives one word for the row.
    fn examine(mut self) -> String {
        let Some(contents) = self.open() else { return "contents unavailable".to_owned() };
        let Some(ids) = self.check_contents(&contents) else { return "contents do not match".to_owned() };
        let body = &contents.body;
        let key = match (body.seed, self.commit_hash) {
            (Some(_), _) => sampling_key(body.seed, &body.job, &Hash32([0; 32])),
            (None, Some(hash)) => sampling_key(None, &body.job, &hash),
            (None, None) => {
                let words =
                    format!("{}: its commit is not in the copy, so its sampling key is unknown", body.job);
                self.checks.of(CheckKind::Reexecuted).inconclusive(words);
                return "commit unavailable".to_owned();
            }
        };
        if key != body.sampling_key {
            let (expected, actual) = (key.to_string(), body.sampling_key.to_string());
            let found = finding(self.charge, expected, actual, "the sampling key is not the derived one");
            self.checks.of(CheckKind::Contents).fail(found);
            return "sampling key differs".to_owned();
        }
        let billed = ids.get(..self.charge.event.output_units as usize).unwrap_or(ids);
        let job = Reexecution {
            job: body.job,
            model: &self.charge.model,
            weights: self.charge.weights,
            body,
            sampling_key: key,
            output_ids: billed,
            chain_head: self.charge.event.chain_head,
        };
        self.judge(self.again.engine.reexecute(&job))
    }

    fn open(&mut self) -> Option<Contents> {
        let job = self.charge.event.job;
        let Some(sealed) = self.copy.contents(&job) else {
            self.checks
                .of(CheckKind::Contents)
                .inconclusive(format!("{job}: no sealed contents in the copy"));
            return None;
        };
        let plain = SecretKey::from(self.again.audit_secret).unseal(&sealed);
        let contents = plain.ok().and_then(|plain| serde_json::from_slice::<Contents>(&plain).ok());
        match contents {
            Some(contents) if contents.version == CONTENTS_VERSION => Some(contents),
            _ => {
                let words = format!("{job}: contents do not open with this key, or have another layout");
                self.checks.of(CheckKind::Contents).inconclusive(words);
                None
            }
        }
    }

    /// Body and output against what was committed to; gives the output ids.
    fn check_contents<'c>(&mut self, contents: &'c Contents) -> Option<&'c [u32]> {
        let charge = self.charge;
        let body = &contents.body;
        let check = self.checks.of(CheckKind::Contents);
        check.examine();
        let place = (body.job, contents.attempt);
        let committed = body.commitment();
        if place != (charge.event.job, charge.event.attempt) || committed != charge.body {
            let (expected, actual) = (charge.body.to_string(), committed.to_string());
            check.fail(finding(charge, expected, actual, "the body is not the one that was committed to"));
            return None;
        }
        let Some(ids) = &contents.output_ids else {
            check.inconclusive(format!("{}: its output was not kept", body.job));
            return None;
        };
        if (ids.len() as u64) < charge.event.output_units {
            let (expected, actual) = (charge.event.output_units.to_string(), ids.len().to_string());
            check.fail(finding(charge, expected, actual, "more output was billed than the contents hold"));
            return None;
        }
        let receipt = self.copy.receipt(&body.job);
        let receipt = receipt.filter(|bytes| SignedReceipt::hash(bytes) == charge.event.receipt);
        let receipt = receipt.and_then(|bytes| SignedReceipt::open(&bytes).ok());
        let Some(receipt) = receipt else { return Some(ids) };
        // What was relayed may be a prefix of what was signed; only the whole output has the signed commitment.
        let whole = commit(Committed::Output, &body.salt.0, &token_bytes(ids));
        let check = self.checks.of(CheckKind::Contents);
        if ids.len() as u64 == receipt.output_tokens && whole != receipt.output {
            let (expected, actual) = (receipt.output.to_string(), whole.to_string());
            check.fail(finding(charge, expected, actual, "the output is not the one that the worker signed"));
            return None;
        }
        Some(ids)
    }

    fn judge(&mut self, verdict: Verdict) -> String {
        let check = self.checks.of(CheckKind::Reexecuted);
        check.examine();
        match verdict {
            Verdict::Identical => "identical".to_owned(),
            Verdict::Differs { token, expected, actual } => {
                let place = token.map_or("the digest".to_owned(), |token| format!("token {token}"));
                let message = format!("{place} differs when the job runs again");
                check.fail(finding(self.charge, expected, actual, &message));
                "differs".to_owned()
            }
            Verdict::Unavailable(reason) => {
                check.inconclusive(format!("{}: {reason}", self.charge.event.job));
                "not run".to_owned()
            }
        }
    }
}
