//! The report as JSON; its schema is `specs/audit.md`, section 4.

use crate::report::Report;

/// One JSON object, indented, with a line break at its end.
pub fn render(report: &Report) -> String {
    let mut text = serde_json::to_string_pretty(report).expect("a report is always JSON");
    text.push('\n');
    text
}
