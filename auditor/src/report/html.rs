//! The report as one page that stands by itself: no script, nothing loaded, prints. An opinion in a sentence, what was found,
//! what was not looked at, the checks, the books, and where it all came from; a place to sign.

mod parts;

use crate::report::text::closing_line;
use crate::report::{Check, Outcome, Report};
use std::fmt::Write;

const STYLE: &str = "@page{margin:18mm}*{box-sizing:border-box}\
body{font:15px/1.55 system-ui,-apple-system,'Segoe UI',sans-serif;max-width:64rem;margin:2.5rem auto;padding:0 1.5rem;color:#1b1f24;background:#fff}\
h1{font-size:1.7rem;margin:0 0 .2rem}h2{font-size:1.15rem;margin:2.4rem 0 .6rem;padding-bottom:.25rem;border-bottom:2px solid #1b1f24}h3{font-size:1rem;margin:1.4rem 0 .4rem}\
table{border-collapse:collapse;width:100%;font-size:.88rem}th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #e3e6ea;vertical-align:top}\
th{font-weight:600;color:#4a525c;border-bottom-color:#9aa3ad}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}tr.sum td{font-weight:600;border-top:1px solid #9aa3ad}\
dl{display:grid;grid-template-columns:9rem 1fr;gap:.25rem 1rem;margin:1rem 0}dt{color:#4a525c}dd{margin:0;overflow-wrap:anywhere}\
.verdict{padding:1rem 1.3rem;border-radius:.4rem;margin:1.2rem 0;border-left:.45rem solid}.verdict b{display:block;font-size:1.15rem}\
.passed{background:#e8f5ea;border-color:#1a7f37}.finding,.cryptographic_failure{background:#fdecea;border-color:#b42318}.inconclusive{background:#fff6dc;border-color:#b7791f}\
.tag{display:inline-block;min-width:6.2rem;padding:.05rem .5rem;border-radius:.3rem;font-size:.8rem;font-weight:600;text-align:center}\
.tag.pass{background:#e8f5ea;color:#1a7f37}.tag.fail{background:#fdecea;color:#b42318}.tag.warn{background:#fff6dc;color:#8a5a00}.tag.skipped{background:#eef0f2;color:#59636e}\
code,pre{font:12.5px/1.5 ui-monospace,'SF Mono',Menlo,monospace;overflow-wrap:anywhere;white-space:pre-wrap}pre{background:#f6f8fa;padding:.8rem 1rem;border-radius:.4rem}\
small,.quiet{color:#59636e}.found{border:1px solid #f0c2bd;border-radius:.4rem;padding:.7rem 1rem;margin:.7rem 0}.found p{margin:.2rem 0}\
.bar{display:flex;height:1.1rem;border-radius:.25rem;overflow:hidden;background:#eef0f2;margin:.3rem 0}.bar span{display:block}.a{background:#2f6fab}.b{background:#e0a32e}\
.sign{display:grid;grid-template-columns:1fr 1fr 1fr;gap:2rem;margin-top:3rem}.sign div{border-top:1px solid #1b1f24;padding-top:.3rem;font-size:.85rem}\
@media print{body{margin:0;max-width:none;padding:0;font-size:11pt}tr,.found,.verdict{break-inside:avoid}h2{break-after:avoid}}";

/// Reports of one audit as one page; the first is about the whole.
pub fn render(reports: &[&Report]) -> String {
    let mut page = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    let Some(whole) = reports.first() else { return page };
    let title = escape(&format!("Audit of {}", whole.subject.origin));
    let _ = write!(page, "<meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>");
    let _ = write!(page, "<style>{STYLE}</style></head><body><main><h1>{title}</h1>");
    let _ = write!(
        page,
        "<p class=\"quiet\">{} events, read and recomputed by {} {} on {}</p>",
        grouped(whole.subject.size),
        whole.tool.name,
        whole.tool.version,
        parts::time(whole.started_us)
    );
    verdict(&mut page, whole);
    subject(&mut page, reports);
    findings(&mut page, whole);
    limits(&mut page, whole);
    checks(&mut page, whole);
    parts::books(&mut page, reports);
    parts::drift(&mut page, reports);
    parts::sample(&mut page, reports);
    parts::items(&mut page, reports);
    provenance(&mut page, reports);
    page.push_str(
        "<div class=\"sign\"><div>Name</div><div>Date</div><div>Signature</div></div></main></body></html>\n",
    );
    page
}

fn verdict(page: &mut String, report: &Report) {
    let words = match report.exit_code {
        0 => "Every check passed.",
        1 => "The books do not follow their own rules.",
        3 => "Inconclusive: something needed was not there.",
        _ => "A signature, a hash or the history is wrong.",
    };
    let count = |outcome: Outcome| report.checks.iter().filter(|check| check.result == outcome).count();
    let said = format!(
        "{} checks passed, {} failed, {} could not be decided, {} did not apply.",
        count(Outcome::Pass),
        count(Outcome::Fail),
        count(Outcome::Inconclusive),
        count(Outcome::Skipped)
    );
    let opinion = match report.exit_code {
        0 => {
            "From the files named below, every balance, charge, split and settlement of this log was recomputed from its \
              first event on and is what the log says it is."
        }
        1 => {
            "The log is whole and signed, but events in it break the rules that it states; each is named below."
        }
        3 => {
            "Nothing was found to be wrong, but not everything could be looked at; see what was not looked at."
        }
        _ => "The copy is not one unaltered, signed log. Its figures prove nothing until this is explained.",
    };
    let _ = write!(
        page,
        "<div class=\"verdict {}\" data-testid=\"verdict\"><b>{words}</b>{said}<br>{opinion}",
        report.verdict
    );
    if let Some(remark) = &report.remark {
        let _ = write!(page, "<br>{}", escape(remark));
    }
    page.push_str("</div>");
}

fn subject(page: &mut String, reports: &[&Report]) {
    let Some(whole) = reports.first() else { return };
    let subject = &whole.subject;
    let _ = write!(
        page,
        "<dl><dt>Log</dt><dd><code>{}</code></dd><dt>Size</dt><dd>{} events</dd><dt>Root</dt><dd><code>{}</code></dd>",
        escape(&subject.origin),
        grouped(subject.size),
        escape(&subject.root)
    );
    for period in reports.iter().filter_map(|report| report.period.as_ref()) {
        let _ = write!(page, "<dt>Limited to</dt><dd>{}</dd>", escape(period));
    }
    if let Some(digest) = reports.iter().find_map(|report| report.state_digest.as_ref()) {
        let _ = write!(page, "<dt>State digest</dt><dd><code>{}</code></dd>", escape(digest));
    }
    if let Some(first) = reports.iter().find_map(|report| report.first_divergence.as_ref()) {
        let _ = write!(
            page,
            "<dt>First divergence</dt><dd>event {} (<code>{}</code>): {}</dd>",
            first.leaf,
            first.check,
            escape(&first.message)
        );
    }
    page.push_str("</dl>");
}

fn findings(page: &mut String, whole: &Report) {
    let failed: Vec<&Check> = whole.checks.iter().filter(|check| check.result == Outcome::Fail).collect();
    page.push_str("<h2>Findings</h2>");
    if failed.is_empty() {
        page.push_str("<p>None.</p>");
    }
    for check in failed {
        let _ = write!(
            page,
            "<h3>{} <code>{}</code> <small>{} of {} examined</small></h3>",
            escape(check.title),
            check.id,
            grouped(check.findings_total),
            grouped(check.examined)
        );
        for finding in &check.findings {
            let place = finding.leaf.map(|leaf| format!("Event {leaf}: ")).unwrap_or_default();
            let _ = write!(
                page,
                "<div class=\"found\"><p><b>{place}{}</b></p><p>expected <code>{}</code></p><p>found <code>{}</code></p></div>",
                escape(&finding.message),
                escape(&finding.expected),
                escape(&finding.actual)
            );
        }
        let hidden = check.findings_total.saturating_sub(check.findings.len() as u64);
        if hidden > 0 {
            let _ = write!(page, "<p class=\"quiet\">and {} more like these</p>", grouped(hidden));
        }
    }
}

/// What a reader must not take as looked at.
fn limits(page: &mut String, whole: &Report) {
    let open = |check: &&Check| matches!(check.result, Outcome::Inconclusive | Outcome::Skipped);
    let open: Vec<&Check> = whole.checks.iter().filter(open).collect();
    if open.is_empty() {
        return;
    }
    page.push_str("<h2>What was not looked at</h2><table><tbody>");
    for check in open {
        let note = check.note.as_deref().unwrap_or("nothing of the kind is in the log");
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
            tag(check.result),
            escape(check.title),
            escape(note)
        );
    }
    page.push_str("</tbody></table>");
}

fn tag(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "<span class=\"tag pass\">pass</span>",
        Outcome::Fail => "<span class=\"tag fail\">fail</span>",
        Outcome::Inconclusive => "<span class=\"tag warn\">inconclusive</span>",
        Outcome::Skipped => "<span class=\"tag skipped\">not applied</span>",
    }
}

fn checks(page: &mut String, whole: &Report) {
    page.push_str(
        "<h2>Checks</h2><table><thead><tr><th>Result</th><th>What a pass says</th><th>Id</th>\
         <th class=\"n\">Examined</th><th class=\"n\">Findings</th></tr></thead><tbody>",
    );
    for check in whole.checks.iter().filter(|check| check.result != Outcome::Skipped) {
        let _ = write!(page, "<tr><td>{}</td><td>{}", tag(check.result), escape(check.title));
        if let Some(note) = &check.note {
            let _ = write!(page, "<br><small>{}</small>", escape(note));
        }
        let _ = write!(
            page,
            "</td><td><code>{}</code></td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            check.id,
            grouped(check.examined),
            grouped(check.findings_total)
        );
    }
    page.push_str("</tbody></table>");
}

fn provenance(page: &mut String, reports: &[&Report]) {
    let Some(whole) = reports.first() else { return };
    page.push_str("<footer><h2>Where this comes from</h2><table><thead><tr><th>Audit</th><th>Took</th><th>Ended with</th></tr></thead><tbody>");
    for report in reports.iter().skip(1) {
        let took_ms = report.finished_us.saturating_sub(report.started_us) / 1_000;
        let _ = write!(
            page,
            "<tr><td>{}</td><td class=\"n\">{} ms</td><td><code>{}</code></td></tr>",
            escape(report.command),
            grouped(took_ms),
            escape(&closing_line(report))
        );
    }
    page.push_str("</tbody></table><h3>Files that went in</h3><table><tbody>");
    for input in &whole.inputs {
        let _ =
            write!(page, "<tr><td>{}</td><td><code>{}</code></td></tr>", escape(&input.name), input.sha256);
    }
    let commit = whole.tool.commit.unwrap_or("not recorded");
    let _ = write!(
        page,
        "<tr><td>program</td><td>{} {}, source {commit}</td></tr></tbody></table><h3>Checkpoint</h3><pre>{}</pre>\
         <p class=\"quiet\">How to check all this with programs of others: <code>VERIFY.md</code> beside this page.</p></footer>",
        whole.tool.name,
        whole.tool.version,
        escape(&whole.subject.checkpoint)
    );
}

/// Thousands apart, so that a page of figures can be read.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let parts: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|part| std::str::from_utf8(part).unwrap_or_default())
        .collect();
    parts.join("\u{202f}")
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
