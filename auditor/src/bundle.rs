//! `audit bundle`: every audit that needs nothing but a copy, and one folder as evidence: reports, a page, a signed
//! statement, the checkpoint, and how somebody checks all this with tools that are not ours.

use crate::checks::CheckKind;
use crate::completeness::{CompletenessOptions, completeness};
use crate::copy::LogCopy;
use crate::cutoff::{CutoffOptions, cutoff};
use crate::duties::{DutiesOptions, duties};
use crate::error::AuditError;
use crate::fetch::write;
use crate::period::Period;
use crate::privacy::{PrivacyOptions, privacy};
use crate::replay::{ReplayOptions, replay};
use crate::report::{Checks, Report, dsse, gravest, html, json};
use crate::sample::{SampleOptions, Selection, sample};
use crate::verify::{VerifyOptions, verify};
use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::path::PathBuf;

const VERIFY_TEXT: &str = include_str!("bundle/VERIFY.md");

/// What to bundle, and whereto.
pub struct BundleOptions {
    /// A fetched copy.
    pub directory: PathBuf,
    /// The policy file; a fetched copy keeps its own.
    pub policy: Option<PathBuf>,
    /// A period whose edges are looked at.
    pub period: Option<Period>,
    /// Ed25519 seed of the auditor's own key, which signs the statement.
    pub seed: Option<[u8; 32]>,
    /// Where the package goes.
    pub out: PathBuf,
}

/// Runs all, writes the package, and gives the report about the whole: its code is the gravest of all.
pub fn bundle(options: &BundleOptions) -> Result<Report, AuditError> {
    let copy = LogCopy::open(&options.directory)?;
    let reports = audits(options)?;
    let mut whole = Report::begin("bundle");
    if let Some(first) = reports.first() {
        (whole.subject, whole.inputs, whole.events) =
            (first.subject.clone(), first.inputs.clone(), first.events);
        whole.remark = first.remark.clone();
    }
    let mut whole = whole.end(merged(&reports));
    whole.started_us = reports.first().map_or(whole.started_us, |first| first.started_us);
    whole.exit_code = gravest(reports.iter().map(|report| report.exit_code));
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for report in [&whole].into_iter().chain(&reports) {
        let name = if report.command == "bundle" {
            "report".to_owned()
        } else {
            format!("reports/{}", report.command)
        };
        files.push((format!("{name}.json"), json::render(report).into_bytes()));
    }
    let pages: Vec<&Report> = [&whole].into_iter().chain(&reports).collect();
    files.push(("index.html".to_owned(), html::render(&pages).into_bytes()));
    files.push(("checkpoint".to_owned(), whole.subject.checkpoint.clone().into_bytes()));
    files.push(("VERIFY.md".to_owned(), VERIFY_TEXT.as_bytes().to_vec()));
    let policy = options.policy.clone().unwrap_or_else(|| copy.beside("policy"));
    if let Ok(text) = std::fs::read(policy) {
        files.push(("policy".to_owned(), text));
    }
    if let Some(seed) = &options.seed {
        let key = &SigningKey::from_bytes(seed);
        let report_json = &files[0].1;
        files.push(("report.dsse.json".to_owned(), dsse::envelope(&whole, report_json, key).into_bytes()));
    }
    write_all(options, &files)?;
    Ok(whole)
}

fn audits(options: &BundleOptions) -> Result<Vec<Report>, AuditError> {
    let (directory, policy) = (|| options.directory.clone(), || options.policy.clone());
    let mut reports = vec![
        verify(&VerifyOptions { directory: directory(), policy: policy(), since: None, chain: None })?,
        replay(&ReplayOptions { directory: directory(), policy: policy(), at: None })?,
        sample(&SampleOptions {
            directory: directory(),
            policy: policy(),
            selection: Selection::All,
            reexecute: None,
        })?,
        completeness(&CompletenessOptions { directory: directory(), policy: policy(), receipts: None })?,
        duties(&DutiesOptions { directory: directory(), policy: policy() })?,
        privacy(&PrivacyOptions { directory: directory(), policy: policy() })?,
    ];
    if let Some(period) = options.period {
        reports.push(cutoff(&CutoffOptions {
            directory: directory(),
            policy: policy(),
            period,
            lag_us: None,
        })?);
    }
    Ok(reports)
}

/// Every check once, as it went worst.
fn merged(reports: &[Report]) -> Checks {
    let mut checks = Checks::default();
    for kind in CheckKind::ALL {
        let made = reports.iter().filter_map(|report| report.check(*kind));
        let rank = |code: u8| [0u8, 3, 1, 4].iter().position(|known| *known == code);
        if let Some(worst) = made.max_by_key(|check| (rank(check.exit_code()), check.examined)) {
            *checks.of(*kind) = worst.clone();
        }
    }
    checks
}

/// Writes the files and, last, the manifest that names them all.
fn write_all(options: &BundleOptions, files: &[(String, Vec<u8>)]) -> Result<(), AuditError> {
    let mut entries = Vec::new();
    for (name, bytes) in files {
        write(&options.out.join(name), bytes)?;
        let sha256 = HEXLOWER.encode(&Sha256::digest(bytes));
        entries.push(json!({"name": name, "bytes": bytes.len(), "sha256": sha256}));
    }
    let manifest = json!({"schema": "counterfoil-audit-bundle-1", "files": entries});
    let mut text = serde_json::to_string_pretty(&manifest).expect("a manifest is always JSON");
    text.push('\n');
    write(&options.out.join("manifest.json"), text.as_bytes())
}
