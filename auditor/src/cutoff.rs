//! `audit cutoff`: what lies across the edges of a period. Three clocks: when a worker says it served (receipts), when the
//! log charged, when a batch was confirmed. What is charged in another period than it was served in, later than the
//! network's own deadlines allow, is a finding; what is merely under way at an edge is listed with its total.

use crate::checks::CheckKind;
use crate::copy::LogCopy;
use crate::error::AuditError;
use crate::period::Period;
use crate::replay::{self, ReplayOptions, Replayed, World};
use crate::report::{Checks, Finding, Item, Report};
use protocol::asset::AssetId;
use protocol::receipt::SignedReceipt;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What to look at.
pub struct CutoffOptions {
    /// A fetched copy, or a data directory.
    pub directory: PathBuf,
    /// The policy file; a fetched copy keeps its own.
    pub policy: Option<PathBuf>,
    /// Whose edges.
    pub period: Period,
    /// How much later than it was served a charge may be logged; the network's longest deadline and grace otherwise.
    pub lag_us: Option<u64>,
}

/// Replays, and lists what straddles. Never prints.
pub fn cutoff(options: &CutoffOptions) -> Result<Report, AuditError> {
    let copy = LogCopy::open(&options.directory)?;
    let replay_options =
        ReplayOptions { directory: options.directory.clone(), policy: options.policy.clone(), at: None };
    let Replayed { mut report, judge, world } = replay::run(&copy, "cutoff", &replay_options)?;
    let mut checks = judge.into_checks();
    let Period { from_us, to_us } = options.period;
    report.period = Some(format!("{from_us} to {to_us} us"));
    for edge_us in [from_us, to_us] {
        under_way(&world, edge_us, &mut report);
    }
    served(&copy, &world, options, &mut report, &mut checks);
    Ok(report.end(checks))
}

#[derive(Default)]
struct Sum {
    count: u64,
    amount: i128,
}

impl Sum {
    fn add(&mut self, amount: i128) {
        self.count += 1;
        self.amount = self.amount.saturating_add(amount);
    }
}

/// What had begun before an edge and ended after it, summed.
fn under_way(world: &World, edge_us: u64, report: &mut Report) {
    let mut sums: BTreeMap<(&'static str, AssetId), Sum> = BTreeMap::new();
    let mut add = |what, asset, amount| sums.entry((what, asset)).or_default().add(amount);
    let across = |begun: u64, ended: Option<u64>| begun < edge_us && ended.is_none_or(|us| us >= edge_us);
    for job in world.jobs.values() {
        if across(job.placed_us, job.ended_us) {
            add("hold open", job.asset, job.amount);
        }
        for charge in job.charges.iter().filter(|_| job.is_charged()) {
            if job.placed_us < edge_us && charge.time_us >= edge_us {
                add("held before, charged after", job.asset, charge.event.cost.0);
            }
            if charge.time_us < edge_us {
                add("charged before the edge", job.asset, charge.event.cost.0);
            }
        }
    }
    for batch in world.batches.values() {
        let units =
            i128::from(batch.charged_units()).saturating_mul(world.vault_unit(batch.asset).unwrap_or(1));
        if batch.confirmed.is_some() && batch.ended_us.is_some_and(|us| us < edge_us) {
            add("settled before the edge", batch.asset, units);
        }
        if across(batch.closed_us, batch.ended_us) {
            add("batch under way", batch.asset, units);
        }
    }
    for voucher in world.vouchers.values().filter(|voucher| across(voucher.issued_us, voucher.ended_us)) {
        let asset = world.vaults.get(&voucher.vault).map_or(AssetId(0), |vault| vault.asset);
        add("voucher open", asset, voucher.amount);
    }
    for ((what, asset), sum) in sums {
        report.items.push(Item {
            what: what.to_owned(),
            asset: Some(replay::symbol(world, asset).0),
            amount: Some(sum.amount.to_string()),
            note: format!("{} at the edge of {edge_us} us", sum.count),
            ..Item::default()
        });
    }
}

/// Receipts say when something was served: the charge belongs into the same period.
fn served(copy: &LogCopy, world: &World, options: &CutoffOptions, report: &mut Report, checks: &mut Checks) {
    let check = checks.of(CheckKind::Cutoff);
    if !copy.has_receipts() {
        return check.skip("no receipts in this copy: when something was served is not known");
    }
    let longest_us = world.settings().map_or(0, |s| s.job_deadline_us_max.saturating_add(s.hold_grace_us));
    let lag_us = options.lag_us.unwrap_or(longest_us);
    let edges = [options.period.from_us, options.period.to_us];
    for charge in world.charges() {
        let Some(bytes) = copy.receipt(&charge.event.job) else { continue };
        let Ok(receipt) = SignedReceipt::open(&bytes) else { continue };
        check.examine();
        let (served_us, charged_us) = (receipt.ended_us, charge.time_us);
        let straddles = edges.iter().any(|edge| (served_us < *edge) != (charged_us < *edge));
        if !straddles {
            continue;
        }
        let late = served_us > charged_us || charged_us - served_us > lag_us;
        let id = charge.event.job.to_string();
        if late {
            check.fail(Finding {
                leaf: Some(charge.leaf),
                event_id: None,
                expected: format!("at most {lag_us} us after it was served, at {served_us}"),
                actual: charged_us.to_string(),
                message: format!("{id} was served in another period than it was charged in"),
            });
        }
        report.items.push(Item {
            what: "served across the edge".to_owned(),
            leaf: Some(charge.leaf),
            id: Some(id),
            amount: Some(charge.event.cost.0.to_string()),
            note: format!("served {served_us} us, charged {charged_us} us"),
            ..Item::default()
        });
    }
}
