//! `counterfoil audit`: fetch, verify, replay, sample, reconcile; one-sided looks are in `examine`. The judging is the
//! auditor room's; here are flags, sources and exit codes.

mod examine;

use crate::audit_doors::{ChainAtBlock, CpuKernels};
use crate::output::Output;
use anyhow::{Context, Result};
use auditor::fetch::{Beside, FetchOptions, FetchSource, fetch};
use auditor::reconcile::{ReconcileOptions, reconcile};
use auditor::replay::{ReplayOptions, replay};
use auditor::report::Report;
use auditor::sample::{ReexecuteOptions, SampleOptions, Selection, sample};
use auditor::verify::{VerifyOptions, verify};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Rows of a sample unless told otherwise: 95 % confidence of at most 5 % errors.
const SAMPLE_ROWS: u64 = 59;
/// The same of a sample by monetary units.
const SAMPLE_UNITS: u64 = 60;
/// Blocks that a log usually waits before it mirrors.
const CONFIRMATIONS: u64 = 2;

/// Verbs of `counterfoil audit`. Exit codes: 0 all passed, 1 a finding, 3 inconclusive, 4 cryptographic failure.
#[derive(clap::Subcommand)]
pub enum Audit {
    /// Mirror a log: checkpoint, tiles, receipts. Example: counterfoil audit fetch http://127.0.0.1:8080 copy --key cf_audit_...
    Fetch(Fetch),
    /// Signatures, root from every entry, consistency with older checkpoints, anchors.
    Verify(Verify),
    /// Rebuild all books from the first event on, in a code path of its own.
    Replay(Replay),
    /// Recompute charges of drawn jobs, and run them again.
    Sample(Sample),
    /// Compare the books with the chain.
    Reconcile(Reconcile),
    /// Prove that one event or receipt is in the log, for somebody who has nothing else. Example: counterfoil audit prove copy job_...
    Prove(examine::Prove),
    /// Check such a proof, offline.
    CheckProof(examine::CheckProof),
    /// What lies across the edges of a period.
    Cutoff(examine::Cutoff),
    /// Nothing left hanging, nothing served and not charged.
    Completeness(examine::Completeness),
    /// Segregation of duties: who did what, and what was another's.
    Sod(examine::Source),
    /// Nothing in the log is about a person.
    Privacy(examine::Source),
    /// What is owed, as a tree whose root and total can be published.
    Liabilities(examine::Liabilities),
    /// One account's place in that tree, for its owner.
    ProveBalance(examine::ProveBalance),
    /// Every audit that needs nothing but a copy, and a folder of evidence.
    Bundle(examine::Bundle),
    /// Check such a place against the published root and total, offline.
    CheckBalance(examine::CheckBalance),
}

/// See [`Audit::Fetch`].
#[derive(clap::Args)]
pub struct Fetch {
    /// Gateway's URL, or a data directory with everything stopped.
    source: String,
    /// Where the copy goes.
    directory: PathBuf,
    /// Auditor's key for a URL.
    #[arg(long, env = "COUNTERFOIL_KEY", value_name = "KEY", hide_env_values = true)]
    key: Option<String>,
    /// Policy file with the log's public key, from somebody other than the log's host.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

/// See [`Audit::Verify`].
#[derive(clap::Args)]
pub struct Verify {
    /// A fetched copy.
    directory: PathBuf,
    /// Policy file with the log's public key.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// A checkpoint of earlier, which must lead to this one.
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
    #[command(flatten)]
    chain: OptionalChain,
}

/// A chain, if the auditor wants to ask one.
#[derive(clap::Args)]
struct OptionalChain {
    /// JSON-RPC of the chain.
    #[arg(long, value_name = "RPC", requires = "manifest")]
    chain: Option<String>,
    /// The contracts' manifest.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

/// See [`Audit::Replay`].
#[derive(clap::Args)]
pub struct Replay {
    /// A fetched copy.
    #[arg(required_unless_present = "data")]
    directory: Option<PathBuf>,
    /// A data directory instead, with everything stopped.
    #[arg(long, value_name = "DIR", conflicts_with = "directory")]
    data: Option<PathBuf>,
    /// Policy file; a fetched copy keeps its own.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Stop after so many events.
    #[arg(long, value_name = "SIZE")]
    at: Option<u64>,
}

/// See [`Audit::Sample`].
#[derive(clap::Args)]
pub struct Sample {
    /// A fetched copy.
    directory: PathBuf,
    /// Which charges.
    #[arg(long, value_enum, default_value = "all")]
    method: Method,
    /// For `attribute` and `mus`: words of yours, published before the checkpoint was signed.
    #[arg(long, value_name = "WORDS", required_if_eq_any([("method", "attribute"), ("method", "mus")]))]
    seed: Option<String>,
    /// For `attribute`: how many; for `mus`: how many units of each model's charges. By default 59 and 60: with 95 %
    /// confidence at most 5 % are wrong when none of the drawn is.
    #[arg(long, value_name = "N")]
    rows: Option<u64>,
    /// Recompute the drawn charges from their price list and counts. That is always done; the flag says so.
    #[arg(long)]
    reperform: bool,
    /// Run the drawn jobs again on this machine's CPU; `--reexecute all` draws every one.
    #[arg(long, requires = "audit_key", num_args = 0..=1, require_equals = false, value_name = "all",
          default_missing_value = "", value_parser = ["", "all"])]
    reexecute: Option<String>,
    /// File with the audit key that contents were sealed to.
    #[arg(long, value_name = "FILE")]
    audit_key: Option<PathBuf>,
    /// The weights, for --reexecute.
    #[arg(long, env = "COUNTERFOIL_MODEL", value_name = "FILE")]
    model: Option<PathBuf>,
    /// Policy file; a fetched copy keeps its own.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

/// How charges are drawn.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Method {
    /// Every one.
    All,
    /// An attribute sample: every charge has the same chance.
    Attribute,
    /// A monetary-unit sample: every unit of money has the same chance.
    Mus,
}

/// See [`Audit::Reconcile`].
#[derive(clap::Args)]
pub struct Reconcile {
    /// A fetched copy.
    directory: PathBuf,
    /// JSON-RPC of the chain.
    #[arg(long, value_name = "RPC")]
    chain: String,
    /// The contracts' manifest.
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// At this block; the newest by default.
    #[arg(long, value_name = "N")]
    at_block: Option<u64>,
    /// Blocks that the log waits before it mirrors; younger facts are pending.
    #[arg(long, default_value_t = CONFIRMATIONS, value_name = "N")]
    confirmations: u64,
    /// Policy file; a fetched copy keeps its own.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

impl Audit {
    /// Runs the verb and prints its report.
    pub fn run(self, output: Output) -> Result<ExitCode> {
        let report = match self {
            Audit::Fetch(fetch) => fetch.run(),
            Audit::Verify(verify) => verify.run(),
            Audit::Replay(replay) => replay.run(),
            Audit::Sample(sample) => sample.run(),
            Audit::Reconcile(reconcile) => reconcile.run(),
            Audit::Prove(prove) => prove.run(),
            Audit::CheckProof(check) => check.run(),
            Audit::Cutoff(cutoff) => cutoff.run(),
            Audit::Completeness(completeness) => completeness.run(),
            Audit::Sod(source) => examine::sod(source),
            Audit::Privacy(source) => examine::look_for_persons(source),
            Audit::Liabilities(liabilities) => liabilities.run(),
            Audit::ProveBalance(prove) => prove.run(),
            Audit::Bundle(bundle) => bundle.run(),
            Audit::CheckBalance(check) => check.run(),
        };
        let report = match report {
            Ok(report) => report,
            Err(error) => {
                eprintln!("counterfoil: {error:#}");
                let code =
                    error.downcast_ref::<auditor::AuditError>().map_or(3, auditor::AuditError::exit_code);
                return Ok(ExitCode::from(code));
            }
        };
        if output.is_json() {
            output.bytes(auditor::report::json::render(&report).as_bytes());
        } else {
            output.bytes(auditor::report::text::render(&report).as_bytes());
        }
        Ok(ExitCode::from(report.exit_code))
    }
}

impl Fetch {
    fn run(self) -> Result<Report> {
        let is_url = self.source.starts_with("http://") || self.source.starts_with("https://");
        let source = match is_url {
            true => FetchSource::Url { base: self.source.clone(), key: self.key },
            false => FetchSource::Directory(PathBuf::from(&self.source)),
        };
        let beside = if is_url { Beside::Contents } else { Beside::Nothing };
        let directory = self.directory.clone();
        let report = fetch(&FetchOptions { source, directory, policy: self.policy, beside, progress: None })?;
        if !is_url {
            beside_from_data(Path::new(&self.source), &self.directory)?;
        }
        Ok(report)
    }
}

/// What the gateway would serve beside the log, read from a stopped network's data directory.
fn beside_from_data(data: &Path, copy: &Path) -> Result<()> {
    if !data.join("access.redb").exists() {
        return Ok(());
    }
    let (receipts, contents) = (copy.join("receipts"), copy.join("contents"));
    for dir in [&receipts, &contents] {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    let store = dispatcher::access::Store::open(data)
        .with_context(|| format!("{}: stop the network first, or fetch from its URL", data.display()))?;
    let mut after = None;
    loop {
        let page = store.receipts_after(after, 1_000)?;
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        for (job, bytes) in &page {
            std::fs::write(receipts.join(format!("{job}.cbor")), bytes)?;
            if let Some(sealed) = store.contents_for_audit(job)? {
                std::fs::write(contents.join(format!("{job}.sealed")), sealed)?;
            }
        }
    }
    Ok(())
}

impl Verify {
    fn run(self) -> Result<Report> {
        let chain = match (&self.chain.chain, &self.chain.manifest) {
            (Some(rpc), Some(manifest)) => Some(ChainAtBlock::open(rpc, manifest, None)?),
            _ => None,
        };
        let chain = chain.as_ref().map(|chain| chain as &dyn auditor::chain::ChainReader);
        Ok(verify(&VerifyOptions {
            directory: self.directory,
            policy: self.policy,
            since: self.since,
            chain,
        })?)
    }
}

impl Replay {
    fn run(self) -> Result<Report> {
        let directory = self.directory.or_else(|| self.data.clone()).context("no directory")?;
        // The network's own policy file is enough to replay; whom to trust is a question of `verify`.
        let policy = self.policy.or_else(|| self.data.map(|data| data.join("auditor.policy")));
        Ok(replay(&ReplayOptions { directory, policy, at: self.at })?)
    }
}

impl Sample {
    fn run(self) -> Result<Report> {
        let every = self.reexecute.as_deref() == Some("all");
        let selection = match (self.method, self.seed) {
            (Method::Attribute, Some(nonce)) if !every => {
                Selection::Attribute { rows: self.rows.unwrap_or(SAMPLE_ROWS), nonce }
            }
            (Method::Mus, Some(nonce)) if !every => {
                Selection::Monetary { rows: self.rows.unwrap_or(SAMPLE_UNITS), nonce }
            }
            _ => Selection::All,
        };
        let engine = match (self.reexecute.is_some(), &self.model) {
            (true, Some(model)) => Some(CpuKernels::load(model)?),
            (true, None) => {
                anyhow::bail!("--reexecute needs the weights: give --model FILE or COUNTERFOIL_MODEL")
            }
            (false, _) => None,
        };
        let secret = self.audit_key.as_deref().map(read_secret).transpose()?;
        let reexecute = match (&engine, secret) {
            (Some(engine), Some(audit_secret)) => Some(ReexecuteOptions { engine, audit_secret }),
            _ => None,
        };
        Ok(sample(&SampleOptions { directory: self.directory, policy: self.policy, selection, reexecute })?)
    }
}

/// Reads an audit key file: 64 hex digits.
pub fn read_secret(path: &Path) -> Result<[u8; 32]> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).ok();
    bytes
        .and_then(|b| b.try_into().ok())
        .with_context(|| format!("{}: expected 64 hex digits", path.display()))
}

impl Reconcile {
    fn run(self) -> Result<Report> {
        let chain = ChainAtBlock::open(&self.chain, &self.manifest, self.at_block)?;
        let confirmations = self.confirmations;
        let options =
            ReconcileOptions { directory: self.directory, policy: self.policy, chain: &chain, confirmations };
        Ok(reconcile(&options)?)
    }
}
