//! The figures of the page: where the money went, the trial balance, log against chain, the sample, what commands listed.

use super::{escape, grouped};
use crate::report::text::decimal;
use crate::report::{AssetTotals, Report, TrialBalanceLine};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Rows of a sample that the page shows; all are in the JSON form.
const SAMPLE_SHOWN: usize = 60;
/// The same of listed items of one command.
const ITEMS_SHOWN: usize = 200;

/// Totals and trial balance, from the first report that has them: they are those of the whole log.
pub(super) fn books(page: &mut String, reports: &[&Report]) {
    let Some(report) = reports.iter().find(|report| !report.trial_balance.is_empty()) else { return };
    page.push_str("<h2>The books, recomputed</h2>");
    for total in &report.totals {
        totals(page, total);
    }
    page.push_str(
        "<h3>Trial balance</h3><table><thead><tr><th>Kind of account</th><th>Asset</th><th class=\"n\">Accounts</th>\
         <th class=\"n\">Debits</th><th class=\"n\">Credits</th><th class=\"n\">Balance</th><th class=\"n\">Reserved</th></tr></thead><tbody>",
    );
    let mut sums: BTreeMap<(&str, u8), (u64, i128, i128)> = BTreeMap::new();
    for line in &report.trial_balance {
        let (debits, credits) = (number(&line.debits), number(&line.credits));
        let sum = sums.entry((&line.asset, line.scale)).or_default();
        *sum = (sum.0 + line.accounts, sum.1 + debits, sum.2 + credits);
        row(page, line, debits - credits);
    }
    for ((asset, scale), (accounts, debits, credits)) in sums {
        let amount = |units: i128| decimal(&units.to_string(), scale);
        let _ = write!(
            page,
            "<tr class=\"sum\"><td>sum</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td></td></tr>",
            escape(asset),
            grouped(accounts),
            amount(debits),
            amount(credits),
            amount(debits - credits)
        );
    }
    page.push_str("</tbody></table>");
}

fn row(page: &mut String, line: &TrialBalanceLine, balance: i128) {
    let amount = |units: &str| decimal(units, line.scale);
    let _ = write!(
        page,
        "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
        line.kind.replace('_', " "),
        escape(&line.asset),
        grouped(line.accounts),
        amount(&line.debits),
        amount(&line.credits),
        amount(&balance.to_string()),
        amount(&line.reserved)
    );
}

/// One asset: what came in, what was charged and to whom it went, what was settled.
fn totals(page: &mut String, total: &AssetTotals) {
    let amount = |units: &str| decimal(units, total.scale);
    let (operators, platform) = (number(&total.operators), number(&total.platform));
    let charged = operators + platform;
    let share = if charged > 0 { (operators * 1_000 / charged).clamp(0, 1_000) } else { 0 };
    let _ = write!(page, "<h3>{}</h3>", escape(&total.asset));
    if charged > 0 {
        let _ = write!(
            page,
            "<p>Customers were charged {}: operators earned {} (blue), the platform kept {} (amber).</p>\
             <div class=\"bar\" role=\"img\" aria-label=\"{3}.{4} percent to operators\"><span class=\"a\" style=\"width:{3}.{4}%\"></span><span class=\"b\" style=\"flex:1\"></span></div>",
            amount(&total.captured),
            amount(&total.operators),
            amount(&total.platform),
            share / 10,
            share % 10
        );
    }
    page.push_str("<table><tbody>");
    for (what, units) in [
        ("deposited, less what vanished from the chain", &total.deposited),
        ("withdrawn", &total.withdrawn),
        ("charged, less what was undone", &total.captured),
        ("settled on the chain", &total.settled),
        ("claimed by those who were paid", &total.claimed),
    ] {
        let _ = write!(page, "<tr><td>{what}</td><td class=\"n\">{}</td></tr>", amount(units));
    }
    page.push_str("</tbody></table>");
}

/// The log against the chain.
pub(super) fn drift(page: &mut String, reports: &[&Report]) {
    let lines = reports.iter().flat_map(|report| &report.drift);
    let mut rows = String::new();
    for line in lines {
        let _ = write!(
            rows,
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            escape(&line.what),
            escape(&line.log),
            escape(&line.chain),
            escape(&line.drift),
            escape(&line.pending)
        );
    }
    if !rows.is_empty() {
        let _ = write!(
            page,
            "<h2>Log against chain</h2><table><thead><tr><th>What</th><th class=\"n\">Log</th><th class=\"n\">Chain</th>\
             <th class=\"n\">Drift</th><th class=\"n\">Of it pending</th></tr></thead><tbody>{rows}</tbody></table>\
             <p class=\"quiet\">In vault units, millionths of a token.</p>"
        );
    }
}

/// The drawn charges.
pub(super) fn sample(page: &mut String, reports: &[&Report]) {
    let Some(report) = reports.iter().find(|report| !report.sample.is_empty()) else { return };
    let seed = report.seed.as_deref().unwrap_or("none");
    let _ = write!(
        page,
        "<h2>Sample</h2><p>{} charges, drawn by <code>{}</code>, recomputed from price list and counts.</p>\
         <table><thead><tr><th class=\"n\">Event</th><th>Job</th><th class=\"n\">Charged</th><th class=\"n\">Recomputed</th><th>Run again</th></tr></thead><tbody>",
        grouped(report.sample.len() as u64),
        escape(seed)
    );
    for row in report.sample.iter().take(SAMPLE_SHOWN) {
        let _ = write!(
            page,
            "<tr><td class=\"n\">{}</td><td><code>{}</code></td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            row.leaf,
            escape(&row.job),
            escape(&row.charged),
            escape(row.recomputed.as_deref().unwrap_or("-")),
            escape(row.reexecuted.as_deref().unwrap_or("-"))
        );
    }
    page.push_str("</tbody></table>");
    more(page, report.sample.len(), SAMPLE_SHOWN);
}

/// What single commands listed: duties, items across a period's edge.
pub(super) fn items(page: &mut String, reports: &[&Report]) {
    for report in reports.iter().filter(|report| !report.items.is_empty()) {
        let _ = write!(
            page,
            "<h2>Listed by {}</h2><table><thead><tr><th>What</th><th class=\"n\">Event</th><th>Which</th>\
             <th class=\"n\">Base units</th><th></th></tr></thead><tbody>",
            escape(report.command)
        );
        for item in report.items.iter().take(ITEMS_SHOWN) {
            let leaf = item.leaf.map(|leaf| leaf.to_string()).unwrap_or_default();
            let _ = write!(
                page,
                "<tr><td>{}</td><td class=\"n\">{leaf}</td><td><code>{}</code></td><td class=\"n\">{} {}</td><td>{}</td></tr>",
                escape(&item.what),
                escape(item.id.as_deref().unwrap_or("")),
                escape(item.amount.as_deref().unwrap_or("")),
                escape(item.asset.as_deref().unwrap_or("")),
                escape(&item.note)
            );
        }
        page.push_str("</tbody></table>");
        more(page, report.items.len(), ITEMS_SHOWN);
    }
}

fn more(page: &mut String, all: usize, shown: usize) {
    if all > shown {
        let _ = write!(
            page,
            "<p class=\"quiet\">and {} more, in the JSON report</p>",
            grouped((all - shown) as u64)
        );
    }
}

/// Figures that are none count as nothing here; the table shows them as they came.
fn number(units: &str) -> i128 {
    units.parse().unwrap_or(0)
}

/// `2026-11-21 10:31:00 UTC`.
pub(super) fn time(us: u64) -> String {
    let seconds = us / 1_000_000;
    let (year, month, day) = crate::period::civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}
