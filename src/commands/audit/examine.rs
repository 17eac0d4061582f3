//! Verbs of `counterfoil audit` that look at one side of a log: proofs, cut-off, completeness, duties, privacy, liabilities.

use super::read_secret;
use anyhow::{Context, Result};
use auditor::AuditError;
use auditor::bundle::{BundleOptions, bundle};
use auditor::completeness::{CompletenessOptions, completeness};
use auditor::cutoff::{CutoffOptions, cutoff};
use auditor::duties::{DutiesOptions, duties};
use auditor::liabilities::{BalanceProof, LiabilitiesOptions, check_balance, liabilities, prove_balance};
use auditor::period::Period;
use auditor::privacy::{PrivacyOptions, privacy};
use auditor::prove::{CheckProofOptions, ProveOptions, Wanted, check_proof, prove};
use auditor::report::Report;
use protocol::id::AccountId;
use std::path::{Path, PathBuf};

/// A copy and whose signature counts.
#[derive(clap::Args)]
pub struct Source {
    /// A fetched copy, a data directory with everything stopped, or an archive.
    directory: PathBuf,
    /// Policy file; a fetched copy keeps its own.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

/// See [`super::Audit::Prove`].
#[derive(clap::Args)]
pub struct Prove {
    #[command(flatten)]
    source: Source,
    /// A leaf, an event id such as 0.17, a job, or the file of a signed receipt.
    what: String,
    /// Where `<leaf>.tlog-proof` and `<leaf>.event` go.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

impl Prove {
    pub(super) fn run(self) -> Result<Report> {
        let wanted: Wanted = self.what.parse().map_err(|e: AuditError| e)?;
        let Source { directory, policy } = self.source;
        let (report, proven) = prove(&ProveOptions { directory, policy, wanted })?;
        if let Some(proven) = proven {
            write(&self.out.join(format!("{}.tlog-proof", proven.leaf)), proven.proof.as_bytes())?;
            write(&self.out.join(format!("{}.event", proven.leaf)), &proven.event)?;
        }
        Ok(report)
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    }
    std::fs::write(path, bytes).with_context(|| path.display().to_string())
}

/// See [`super::Audit::CheckProof`].
#[derive(clap::Args)]
pub struct CheckProof {
    /// A `.tlog-proof`.
    proof: PathBuf,
    /// The event's bytes.
    #[arg(long, value_name = "FILE")]
    event: PathBuf,
    /// Policy file with the log's public key.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// The signed receipt that the event must be the charge of.
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
}

impl CheckProof {
    pub(super) fn run(self) -> Result<Report> {
        let CheckProof { proof, event, policy, receipt } = self;
        Ok(check_proof(&CheckProofOptions { proof, event, policy, receipt })?)
    }
}

/// See [`super::Audit::Cutoff`].
#[derive(clap::Args)]
pub struct Cutoff {
    #[command(flatten)]
    source: Source,
    /// A year, quarter, month or day, UTC: 2026, 2026-Q4, 2026-10, 2026-10-31.
    #[arg(long, value_name = "PERIOD")]
    period: String,
    /// Seconds that a charge may come after it was served; the network's longest deadline and grace by default.
    #[arg(long, value_name = "SECONDS")]
    lag: Option<u64>,
}

impl Cutoff {
    pub(super) fn run(self) -> Result<Report> {
        let period: Period = self.period.parse().map_err(|e: AuditError| e)?;
        let Source { directory, policy } = self.source;
        let lag_us = self.lag.map(|seconds| seconds.saturating_mul(1_000_000));
        Ok(cutoff(&CutoffOptions { directory, policy, period, lag_us })?)
    }
}

/// See [`super::Audit::Completeness`].
#[derive(clap::Args)]
pub struct Completeness {
    #[command(flatten)]
    source: Source,
    /// Signed receipts that somebody else kept, one file each.
    #[arg(long, value_name = "DIR")]
    receipts: Option<PathBuf>,
}

impl Completeness {
    pub(super) fn run(self) -> Result<Report> {
        let Source { directory, policy } = self.source;
        Ok(completeness(&CompletenessOptions { directory, policy, receipts: self.receipts })?)
    }
}

pub(super) fn sod(source: Source) -> Result<Report> {
    let Source { directory, policy } = source;
    Ok(duties(&DutiesOptions { directory, policy })?)
}

pub(super) fn look_for_persons(source: Source) -> Result<Report> {
    let Source { directory, policy } = source;
    Ok(privacy(&PrivacyOptions { directory, policy })?)
}

/// See [`super::Audit::Liabilities`].
#[derive(clap::Args)]
pub struct Liabilities {
    #[command(flatten)]
    source: Source,
    /// File of 64 hex digits that the leaves' salts are drawn from; keep it secret, and the same for all proofs.
    #[arg(long, value_name = "FILE")]
    salt: PathBuf,
    /// After so many events.
    #[arg(long, value_name = "SIZE")]
    at: Option<u64>,
}

impl Liabilities {
    fn options(self) -> Result<LiabilitiesOptions> {
        let Source { directory, policy } = self.source;
        Ok(LiabilitiesOptions { directory, policy, at: self.at, salt: read_secret(&self.salt)? })
    }

    pub(super) fn run(self) -> Result<Report> {
        Ok(liabilities(&self.options()?)?)
    }
}

/// See [`super::Audit::ProveBalance`].
#[derive(clap::Args)]
pub struct ProveBalance {
    #[command(flatten)]
    of: Liabilities,
    /// Whose.
    account: AccountId,
    /// Where `<account>-<asset>.balance.json` goes.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

impl ProveBalance {
    pub(super) fn run(self) -> Result<Report> {
        let (report, proofs) = prove_balance(&self.of.options()?, self.account)?;
        for proof in proofs {
            let name = format!("{}-{}.balance.json", proof.account, proof.asset);
            write(&self.out.join(name), &serde_json::to_vec_pretty(&proof)?)?;
        }
        Ok(report)
    }
}

/// See [`super::Audit::Bundle`].
#[derive(clap::Args)]
pub struct Bundle {
    #[command(flatten)]
    source: Source,
    /// Where the package goes.
    #[arg(long, short, value_name = "DIR")]
    out: PathBuf,
    /// Also what lies across the edges of a period.
    #[arg(long, value_name = "PERIOD")]
    period: Option<String>,
    /// File of 64 hex digits, an Ed25519 seed of yours, to sign the statement with.
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,
}

impl Bundle {
    pub(super) fn run(self) -> Result<Report> {
        let Source { directory, policy } = self.source;
        let period = self.period.map(|text| text.parse()).transpose().map_err(|e: AuditError| e)?;
        let seed = self.sign_key.as_deref().map(read_secret).transpose()?;
        Ok(bundle(&BundleOptions { directory, policy, period, seed, out: self.out })?)
    }
}

/// See [`super::Audit::CheckBalance`].
#[derive(clap::Args)]
pub struct CheckBalance {
    /// A `.balance.json`.
    proof: PathBuf,
    /// The root that the network published for everybody.
    #[arg(long, value_name = "HEX")]
    root: String,
    /// The total that it published with it, base units.
    #[arg(long, value_name = "AMOUNT")]
    total: String,
}

impl CheckBalance {
    pub(super) fn run(self) -> Result<Report> {
        let bytes = std::fs::read(&self.proof).with_context(|| self.proof.display().to_string())?;
        let proof: BalanceProof = serde_json::from_slice(&bytes)
            .with_context(|| format!("{}: not a balance proof", self.proof.display()))?;
        Ok(check_balance(&proof, &self.root, &self.total))
    }
}
