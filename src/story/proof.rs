//! The story's last steps: files for finance, then the audit from nothing but a URL, a key, a policy and a chain.

use super::Teller;
use crate::audit_doors::{ChainAtBlock, CpuKernels};
use crate::commands::export::{File, render};
use crate::commands::log_source::LogSource;
use crate::network::Network;
use anyhow::{Context, Result};
use auditor::fetch::{Beside, FetchOptions, FetchSource, fetch};
use auditor::reconcile::{ReconcileOptions, reconcile};
use auditor::replay::{ReplayOptions, replay};
use auditor::report::Report;
use auditor::sample::{ReexecuteOptions, SampleOptions, Selection, sample};
use auditor::verify::{VerifyOptions, verify};
use contracts::settlement::CheckpointSource;
use protocol::event::Event;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Writes the postings and the journal of everything so far.
pub async fn export(network: &Network, tell: &Teller<'_>) -> Result<()> {
    let data = network.data.clone();
    let written = tokio::task::spawn_blocking(move || write_files(&data));
    let (events, files) = written.await??;
    let names: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
    let text = format!("Written for finance: {} ({events} events).", names.join(" and "));
    tell.step("exports", &text, None, json!({"files": names, "events": events}));
    Ok(())
}

fn write_files(data: &Path) -> Result<(usize, Vec<PathBuf>)> {
    let mut events: Vec<Event> = Vec::new();
    for commit in journal::ArchiveReader::open(data)?.commits(1) {
        events.extend(commit?.events);
    }
    let provenance = LogSource::provenance(&events)?;
    let dir = data.join("exports");
    std::fs::create_dir_all(&dir)?;
    let mut files = Vec::new();
    for (file, name) in [(File::Postings, "postings.csv"), (File::Hledger, "books.journal")] {
        let path = dir.join(name);
        std::fs::write(&path, render(file, &events, &provenance)?)?;
        files.push(path);
    }
    Ok((events.len(), files))
}

/// What the audit is made with.
struct AuditPlan {
    gateway_url: String,
    auditor_key: String,
    data: PathBuf,
    chain_url: String,
    model: PathBuf,
    confirmations: u64,
}

/// Fetches the log over HTTP and runs every check there is so far; all must pass.
pub async fn audit(network: &Network, tell: &Teller<'_>) -> Result<()> {
    // The audit sees what a checkpoint covers: wait for one over the story's last event.
    let size = network.client.position().borrow().leaf;
    let covered = network.checkpoints().covering(size).await;
    covered.map_err(|reason| anyhow::anyhow!("no checkpoint covers the story: {reason}"))?;
    let plan = AuditPlan {
        gateway_url: network.gateway_url.clone(),
        auditor_key: network.secrets.auditor_key.clone(),
        data: network.data.clone(),
        chain_url: network.chain_url.clone(),
        model: network.model.clone(),
        confirmations: network.deployment.chain().config().confirmations,
    };
    let reports = tokio::task::spawn_blocking(move || plan.run()).await??;
    for report in &reports {
        tell.note(auditor::report::text::closing_line(report).as_str());
        anyhow::ensure!(
            report.exit_code == 0,
            "audit {} did not pass:\n{}",
            report.command,
            auditor::report::text::render(report)
        );
    }
    let checks: usize = reports.iter().map(|report| report.checks.len()).sum();
    let last = reports.last().context("at least one audit ran")?;
    let text = format!(
        "The audit fetched the log over HTTP and verified signature and root, rebuilt all books in its own code, reconciled \
         with the chain, and ran the job again on this CPU to the same digest: {checks} checks passed, size {} root {}.",
        last.subject.size, last.subject.root
    );
    let figures = json!({"checks": checks, "size": last.subject.size, "root": last.subject.root});
    tell.step("audit", &text, None, figures);
    Ok(())
}

impl AuditPlan {
    fn run(&self) -> Result<Vec<Report>> {
        let directory = self.data.join("audit");
        let policy = Some(self.data.join("auditor.policy"));
        let source = FetchSource::Url { base: self.gateway_url.clone(), key: Some(self.auditor_key.clone()) };
        let fetched = fetch(&FetchOptions {
            source,
            directory: directory.clone(),
            policy: policy.clone(),
            beside: Beside::Contents,
            progress: None,
        })?;
        let chain = ChainAtBlock::open(&self.chain_url, &self.data.join("chain/manifest.json"), None)?;
        let verified = verify(&VerifyOptions {
            directory: directory.clone(),
            policy: policy.clone(),
            since: None,
            chain: Some(&chain),
        })?;
        let replayed =
            replay(&ReplayOptions { directory: directory.clone(), policy: policy.clone(), at: None })?;
        let reconciled = reconcile(&ReconcileOptions {
            directory: directory.clone(),
            policy: policy.clone(),
            chain: &chain,
            confirmations: self.confirmations,
        })?;
        let engine = CpuKernels::load(&self.model)?;
        let audit_secret = crate::commands::audit::read_secret(&self.data.join("keys/audit.key"))?;
        let sampled = sample(&SampleOptions {
            directory,
            policy,
            selection: Selection::All,
            reexecute: Some(ReexecuteOptions { engine: &engine, audit_secret }),
        })?;
        Ok(vec![fetched, verified, replayed, reconciled, sampled])
    }
}
