//! The report for people: a line a check, findings below it, and one closing line.

use crate::report::{Check, Outcome, Report};
use std::fmt::Write;

/// Findings shown of one check; all of them are in the JSON form.
const FINDINGS_SHOWN: usize = 10;

/// The whole report; ends with [`closing_line`].
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    for check in &report.checks {
        check_lines(&mut text, check);
    }
    for line in &report.trial_balance {
        let amount = |units: &str| decimal(units, line.scale);
        let (debits, credits) = (amount(&line.debits), amount(&line.credits));
        let reserved = amount(&line.reserved);
        let _ = writeln!(
            text,
            "  {:<22} {:<8} debits {debits:>24} credits {credits:>24} reserved {reserved:>18}",
            line.kind, line.asset
        );
    }
    for line in &report.drift {
        let _ = writeln!(
            text,
            "  {:<28} log {:>20} chain {:>20} drift {:>12} pending {:>12}",
            line.what, line.log, line.chain, line.drift, line.pending
        );
    }
    for item in &report.items {
        let leaf = item.leaf.map(|leaf| format!("leaf {leaf} ")).unwrap_or_default();
        let id = item.id.as_deref().unwrap_or("");
        let amount = item.amount.as_deref().unwrap_or("");
        let asset = item.asset.as_deref().unwrap_or("");
        let _ = writeln!(text, "  {:<22} {leaf}{id} {amount} {asset} {}", item.what, item.note);
    }
    if let Some(first) = &report.first_divergence {
        let _ = writeln!(text, "first divergence: leaf {} ({}): {}", first.leaf, first.check, first.message);
    }
    if let Some(digest) = &report.state_digest {
        let _ = writeln!(text, "state digest {digest}");
    }
    if let Some(remark) = &report.remark {
        let _ = writeln!(text, "{remark}");
    }
    text.push_str(&closing_line(report));
    text.push('\n');
    text
}

/// `PASSED 14 checks, 70000 events, size 70000 root 1a2b...`
pub fn closing_line(report: &Report) -> String {
    let word = match report.exit_code {
        0 => "PASSED",
        1 => "FAILED",
        3 => "INCONCLUSIVE",
        _ => "BROKEN",
    };
    let made = report.checks.iter().filter(|check| check.result != Outcome::Skipped).count();
    let root = &report.subject.root;
    format!("{word} {made} checks, {} events, size {} root {root}", report.events, report.subject.size)
}

fn check_lines(text: &mut String, check: &Check) {
    let word = match check.result {
        Outcome::Pass => "ok  ",
        Outcome::Fail => "FAIL",
        Outcome::Inconclusive => "?   ",
        Outcome::Skipped => "-   ",
    };
    let _ = writeln!(text, "{word} {:<20} {:>10}  {}", check.id, check.examined, check.title);
    if let Some(note) = &check.note {
        let _ = writeln!(text, "       {note}");
    }
    for finding in check.findings.iter().take(FINDINGS_SHOWN) {
        let place = finding.leaf.map(|leaf| format!("leaf {leaf}: ")).unwrap_or_default();
        let (expected, actual) = (&finding.expected, &finding.actual);
        let _ = writeln!(text, "       {place}{} (expected {expected}, found {actual})", finding.message);
    }
    let hidden = check.findings_total.saturating_sub(check.findings.len().min(FINDINGS_SHOWN) as u64);
    if hidden > 0 {
        let _ = writeln!(text, "       and {hidden} more");
    }
}

pub(crate) fn decimal(base_units: &str, scale: u8) -> String {
    let amount = base_units.parse().map(protocol::Amount);
    amount.map_or_else(|_| base_units.to_owned(), |amount| amount.to_decimal_string(scale))
}
