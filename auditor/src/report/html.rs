//! The report as one page that stands by itself: no script, nothing loaded, prints. A verdict, the checks with what they
//! found, the books, and where it all came from.

use crate::report::text::{closing_line, decimal};
use crate::report::{Check, Outcome, Report};
use std::fmt::Write;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}\
h1{font-size:1.6rem}h2{font-size:1.15rem;margin-top:2rem;border-bottom:1px solid #ccc}\
table{border-collapse:collapse;width:100%;font-size:.9rem}th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #e4e4e4;vertical-align:top}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}\
.verdict{padding:1rem 1.2rem;border-radius:.4rem;font-weight:600;font-size:1.1rem}\
.passed{background:#e3f4e6;color:#0c5c1d}.finding,.cryptographic_failure{background:#fbe3e1;color:#8a1209}.inconclusive{background:#fdf3d3;color:#6b4e00}\
.fail td:first-child{color:#8a1209;font-weight:600}.skipped{color:#666}code,pre{font:13px ui-monospace,monospace;overflow-wrap:anywhere;white-space:pre-wrap}\
footer{margin-top:3rem;font-size:.85rem;color:#444}@media print{body{margin:0;max-width:none}tr{break-inside:avoid}}";

/// Reports of one audit as one page; the first is about the whole.
pub fn render(reports: &[&Report]) -> String {
    let mut page = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    let Some(whole) = reports.first() else { return page };
    let title = escape(&format!("Audit of {}", whole.subject.origin));
    let _ = write!(page, "<meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>");
    let _ = write!(page, "<style>{STYLE}</style></head><body><main><h1>{title}</h1>");
    verdict(&mut page, whole);
    for report in reports {
        let _ = write!(page, "<h2>{}</h2>", escape(&format!("{}: {}", report.command, closing_line(report))));
        if let Some(period) = &report.period {
            let _ = write!(page, "<p>Limited to {}.</p>", escape(period));
        }
        checks(&mut page, report);
        books(&mut page, report);
        items(&mut page, report);
    }
    provenance(&mut page, whole);
    page.push_str("</main></body></html>\n");
    page
}

fn verdict(page: &mut String, report: &Report) {
    let words = match report.exit_code {
        0 => "Every check passed.",
        1 => "The books do not follow their own rules: see the findings.",
        3 => "Inconclusive: something needed was not there.",
        _ => "A signature, hash or history is wrong: the copy proves nothing but that.",
    };
    let _ = write!(page, "<p class=\"verdict {}\" data-testid=\"verdict\">{words}", report.verdict);
    if let Some(remark) = &report.remark {
        let _ = write!(page, " {}", escape(remark));
    }
    page.push_str("</p>");
    let subject = &report.subject;
    let _ = write!(
        page,
        "<p>Log <code>{}</code>, {} events, root <code>{}</code>.</p>",
        escape(&subject.origin),
        subject.size,
        escape(&subject.root)
    );
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "fail",
        Outcome::Inconclusive => "inconclusive",
        Outcome::Skipped => "skipped",
    }
}

fn checks(page: &mut String, report: &Report) {
    page.push_str("<table><thead><tr><th>Result</th><th>Check</th><th class=\"n\">Examined</th><th class=\"n\">Findings</th></tr></thead><tbody>");
    for check in &report.checks {
        let _ = write!(
            page,
            "<tr class=\"{0}\"><td>{0}</td><td>{1} <code>{2}</code>",
            word(check.result),
            escape(check.title),
            check.id
        );
        if let Some(note) = &check.note {
            let _ = write!(page, "<br><small>{}</small>", escape(note));
        }
        findings(page, check);
        let _ = write!(
            page,
            "</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            check.examined, check.findings_total
        );
    }
    page.push_str("</tbody></table>");
}

fn findings(page: &mut String, check: &Check) {
    if check.findings.is_empty() {
        return;
    }
    page.push_str("<ul>");
    for finding in &check.findings {
        let leaf = finding.leaf.map(|leaf| format!("leaf {leaf}: ")).unwrap_or_default();
        let _ = write!(
            page,
            "<li>{leaf}{}<br><small>expected <code>{}</code>, found <code>{}</code></small></li>",
            escape(&finding.message),
            escape(&finding.expected),
            escape(&finding.actual)
        );
    }
    page.push_str("</ul>");
}

fn books(page: &mut String, report: &Report) {
    if report.trial_balance.is_empty() {
        return;
    }
    page.push_str("<h3>Trial balance</h3><table><thead><tr><th>Account</th><th>Asset</th><th class=\"n\">Accounts</th><th class=\"n\">Debits</th><th class=\"n\">Credits</th><th class=\"n\">Reserved</th></tr></thead><tbody>");
    for line in &report.trial_balance {
        let amount = |units: &str| decimal(units, line.scale);
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            line.kind,
            escape(&line.asset),
            line.accounts,
            amount(&line.debits),
            amount(&line.credits),
            amount(&line.reserved)
        );
    }
    page.push_str("</tbody></table>");
}

fn items(page: &mut String, report: &Report) {
    if report.items.is_empty() {
        return;
    }
    page.push_str("<table><thead><tr><th>What</th><th class=\"n\">Leaf</th><th>Which</th><th class=\"n\">Base units</th><th></th></tr></thead><tbody>");
    for item in &report.items {
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
}

fn provenance(page: &mut String, report: &Report) {
    let tool = &report.tool;
    let commit = tool.commit.unwrap_or("unknown source");
    let _ = write!(
        page,
        "<footer><h2>Where this comes from</h2><p>{} {} ({commit}), run from {} to {} (microseconds UTC).</p><pre>{}</pre>",
        tool.name,
        tool.version,
        report.started_us,
        report.finished_us,
        escape(&report.subject.checkpoint)
    );
    page.push_str("<table><tbody>");
    for input in &report.inputs {
        let _ =
            write!(page, "<tr><td>{}</td><td><code>{}</code></td></tr>", escape(&input.name), input.sha256);
    }
    page.push_str("</tbody></table></footer>");
}

/// Text that a log's host chose must stay text.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() && c != '\n' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}
