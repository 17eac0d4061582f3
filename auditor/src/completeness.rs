//! `audit completeness`: nothing is left hanging, and nothing that was served is missing. What was begun has ended when it
//! had to; every signed receipt that is shown, the gateway's or an operator's own, is charged in the log.

use crate::checks::CheckKind;
use crate::copy::LogCopy;
use crate::error::AuditError;
use crate::replay::{self, ReplayOptions, Replayed, World};
use crate::report::{Checks, Finding, Item, Report};
use protocol::receipt::{Receipt, SignedReceipt};
use std::path::{Path, PathBuf};

/// How late the end of something may be logged: timers run by minutes, and a stopped network does not run them.
const LATE_US: u64 = 3_600 * 1_000_000;
/// Settlement periods after which a batch that was closed must be confirmed or failed.
const BATCH_EPOCHS_MAX: u64 = 4;

/// What to look at.
pub struct CompletenessOptions {
    /// A fetched copy, or a data directory.
    pub directory: PathBuf,
    /// The policy file; a fetched copy keeps its own.
    pub policy: Option<PathBuf>,
    /// Receipts that somebody else kept, such as an operator: one file each.
    pub receipts: Option<PathBuf>,
}

/// Replays, and looks for what is missing. Never prints.
pub fn completeness(options: &CompletenessOptions) -> Result<Report, AuditError> {
    let copy = LogCopy::open(&options.directory)?;
    let replay_options =
        ReplayOptions { directory: options.directory.clone(), policy: options.policy.clone(), at: None };
    let Replayed { mut report, judge, world } = replay::run(&copy, "completeness", &replay_options)?;
    let mut checks = judge.into_checks();
    lifecycle(&world, &mut checks);
    let folders = [copy.beside("receipts")].into_iter().chain(options.receipts.clone());
    let mut any = false;
    for folder in folders.filter(|folder| folder.is_dir()) {
        any = true;
        for path in crate::copy::list(&folder)? {
            metered(&world, &path, &mut report, &mut checks)?;
        }
    }
    if !any {
        checks
            .of(CheckKind::Metered)
            .inconclusive("no receipts to compare with: give --receipts, or fetch them");
    }
    Ok(report.end(checks))
}

/// Everything that had to end by now has ended.
fn lifecycle(world: &World, checks: &mut Checks) {
    let check = checks.of(CheckKind::Lifecycle);
    let now_us = world.time_us();
    let mut look = |what: &str, id: String, due_us: u64| {
        check.examine();
        if due_us.saturating_add(LATE_US) < now_us {
            let (expected, actual) = (format!("an end by {due_us} us"), format!("none by {now_us} us"));
            let message = format!("{what} {id} never ended");
            check.fail(Finding { leaf: None, event_id: None, expected, actual, message });
        }
    };
    let (grace_us, epoch_us) = world.settings().map_or((0, 0), |s| (s.hold_grace_us, s.epoch_us));
    let mut open: Vec<_> = world.jobs.iter().filter(|(_, job)| job.is_open).collect();
    open.sort_by_key(|(id, _)| **id);
    for (id, job) in open {
        look("the hold of", id.to_string(), job.deadline_us.saturating_add(grace_us));
    }
    for (number, grant) in world.grants.iter().enumerate().filter(|(_, grant)| !grant.ended) {
        if let Some(expires_us) = grant.expires_us {
            look("grant", number.to_string(), expires_us);
        }
    }
    for (id, batch) in world.batches.iter().filter(|(_, batch)| batch.ended_us.is_none()) {
        look(
            "batch",
            id.to_string(),
            batch.closed_us.saturating_add(epoch_us.saturating_mul(BATCH_EPOCHS_MAX)),
        );
    }
}

/// A receipt that an operator of this network signed is that of a charge.
fn metered(world: &World, path: &Path, report: &mut Report, checks: &mut Checks) -> Result<(), AuditError> {
    let bytes = std::fs::read(path).map_err(|e| AuditError::file(path, e))?;
    let Ok(receipt) = SignedReceipt::open(&bytes) else {
        report.items.push(item("not a receipt", path.display().to_string(), "passed over"));
        return Ok(());
    };
    if !world.operators.contains_key(&receipt.operator) {
        let id = receipt.job.to_string();
        report.items.push(item("receipt of a stranger", id, "its signer is no operator of this log"));
        return Ok(());
    }
    let check = checks.of(CheckKind::Metered);
    check.examine();
    let hash = SignedReceipt::hash(&bytes);
    let fail = |actual: &str, leaf| {
        let Receipt { job, output_tokens, .. } = &receipt;
        let (expected, actual) = (format!("a charge of receipt {hash}"), actual.to_owned());
        let message = format!("{job}: {output_tokens} tokens were served and are not charged");
        Finding { leaf, event_id: None, expected, actual, message }
    };
    match world.jobs.get(&receipt.job) {
        None => check.fail(fail("the log does not know the job", None)),
        Some(job) if job.charges.iter().any(|charge| charge.event.receipt == hash) => {}
        Some(job) if !job.charges.is_empty() => {
            // Of an earlier attempt, or of a part that a later receipt replaced.
            let last = job.charges.last().filter(|charge| charge.event.attempt == receipt.attempt);
            match last.filter(|charge| charge.event.part.is_none()) {
                Some(charge) => check.fail(fail("it is charged by another receipt", Some(charge.leaf))),
                None => report.items.push(item(
                    "not charged",
                    receipt.job.to_string(),
                    "another attempt or part was",
                )),
            }
        }
        Some(job) => {
            let note = if job.is_open { "its hold is still open" } else { "its hold was released" };
            report.items.push(item("not charged", receipt.job.to_string(), note));
        }
    }
    Ok(())
}

fn item(what: &str, id: String, note: &str) -> Item {
    Item { what: what.to_owned(), id: Some(id), note: note.to_owned(), ..Item::default() }
}
