//! The one output form of every benchmark: names that stay, values with units, and the ratio to a limit or a peer of the
//! same run. Times in milliseconds, rates per second, sizes in bytes.

use crate::machine::Machine;
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write;

/// Which way is better.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Rates.
    Higher,
    /// Times and sizes.
    Lower,
}

/// Where a peer's figure comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Measured beside ours.
    SameRun,
    /// Its vendor's.
    Published,
    /// Measured by us on another machine of this class.
    MeasuredElsewhere,
}

/// A named figure, the limit of this machine for this work.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// In the result's unit.
    pub value: f64,
}

/// Somebody else's figure for the same work.
#[derive(Clone, Debug, Serialize)]
pub struct Peer {
    /// Who and how.
    pub name: String,
    /// In the result's unit.
    pub value: f64,
    /// From where.
    pub source: Source,
}

/// One line.
#[derive(Clone, Debug, Serialize)]
pub struct ResultLine {
    /// Stable name, as `durable.single.p50`.
    pub name: String,
    /// What was measured.
    pub value: f64,
    /// Of the value.
    pub unit: &'static str,
    /// Which way is better.
    pub better: Better,
    /// The limit of the same run.
    pub limit: Option<Figure>,
    /// A peer.
    pub peer: Option<Peer>,
    /// Value over limit, else value over a peer of the same run: the only figure that compares between machines.
    pub ratio: Option<f64>,
}

impl ResultLine {
    /// A rate, per second.
    pub fn rate(name: impl Into<String>, value: f64) -> ResultLine {
        ResultLine::new(name, value, "1/s", Better::Higher)
    }

    /// A time in milliseconds.
    pub fn time_ms(name: impl Into<String>, value: f64) -> ResultLine {
        ResultLine::new(name, value, "ms", Better::Lower)
    }

    /// A size in bytes.
    pub fn bytes(name: impl Into<String>, value: f64) -> ResultLine {
        ResultLine::new(name, value, "bytes", Better::Lower)
    }

    /// Any other figure.
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str, better: Better) -> ResultLine {
        ResultLine { name: name.into(), value, unit, better, limit: None, peer: None, ratio: None }
    }

    /// With the limit that was measured in the same run.
    pub fn against(mut self, name: &str, limit: f64) -> ResultLine {
        self.limit = Some(Figure { name: name.to_owned(), value: limit });
        self.ratio = (limit > 0.0).then(|| self.value / limit);
        self
    }

    /// With a peer's figure.
    pub fn beside(mut self, name: &str, value: f64, source: Source) -> ResultLine {
        if source == Source::SameRun && self.ratio.is_none() && value > 0.0 {
            self.ratio = Some(self.value / value);
        }
        self.peer = Some(Peer { name: name.to_owned(), value, source });
        self
    }
}

/// What one benchmark gives.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Its name.
    pub bench: &'static str,
    /// The program's version.
    pub version: &'static str,
    /// Where it ran.
    pub machine: Machine,
    /// How it ran.
    pub settings: Value,
    /// The figures.
    pub results: Vec<ResultLine>,
}

impl Report {
    /// An empty report of this machine.
    pub fn new(bench: &'static str, settings: Value) -> Report {
        let version = env!("CARGO_PKG_VERSION");
        Report { bench, version, machine: Machine::this(), settings, results: Vec::new() }
    }

    /// The table for people, with a bar for the ratio.
    pub fn text(&self) -> String {
        let Machine { cpu, cores, memory_bytes, os } = &self.machine;
        let gib = *memory_bytes as f64 / f64::from(1 << 30);
        let mut text = format!("bench {} · {cpu}, {cores} cores, {gib:.1} GiB, {os}\n", self.bench);
        let _ = writeln!(text, "settings {}", self.settings);
        let width = self.results.iter().map(|line| line.name.len()).max().unwrap_or(0);
        for line in &self.results {
            let _ = write!(text, "{:width$}  {:>14} {:<6}", line.name, figure(line.value), line.unit);
            if let Some(ratio) = line.ratio {
                let filled = (ratio.clamp(0.0, 1.0) * 10.0).round() as usize;
                let _ = write!(text, " {}{} {ratio:.2} x", "█".repeat(filled), "░".repeat(10 - filled));
            }
            if let Some(limit) = &line.limit {
                let _ = write!(text, " of {} {}", limit.name, figure(limit.value));
            }
            if let Some(peer) = &line.peer {
                let _ = write!(text, "; {} {} ({})", peer.name, figure(peer.value), words(peer.source));
            }
            text.push('\n');
        }
        text
    }
}

fn words(source: Source) -> &'static str {
    match source {
        Source::SameRun => "same run",
        Source::Published => "published",
        Source::MeasuredElsewhere => "measured elsewhere",
    }
}

/// Four significant digits, thousands grouped.
fn figure(value: f64) -> String {
    if value.abs() < 1_000.0 {
        let digits = if value.abs() < 10.0 { 3 } else { 1 };
        return format!("{value:.digits$}");
    }
    let whole = format!("{:.0}", value.abs());
    let grouped: Vec<&str> = whole
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|chunk| std::str::from_utf8(chunk).expect("digits are ASCII"))
        .collect();
    format!("{}{}", if value < 0.0 { "-" } else { "" }, grouped.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_form_has_its_fixed_names() {
        let mut report = Report::new("ledger", serde_json::json!({ "accounts": 10 }));
        report.results.push(ResultLine::rate("apply.transfer", 2e6).against("bare table updates", 4e6));
        report.results.push(ResultLine::rate("durable.batch_100", 3e5).beside(
            "peer",
            5e4,
            Source::MeasuredElsewhere,
        ));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["bench"], "ledger");
        assert!(json["machine"]["cores"].as_u64().unwrap() >= 1);
        assert_eq!(json["results"][0]["ratio"], 0.5);
        assert_eq!(json["results"][0]["better"], "higher");
        assert_eq!(json["results"][0]["limit"]["name"], "bare table updates");
        assert_eq!(json["results"][1]["peer"]["source"], "measured_elsewhere");
        assert!(json["results"][1]["ratio"].is_null(), "a peer of another machine gives no ratio");
    }

    #[test]
    fn figures_are_grouped() {
        assert_eq!(figure(1_234_567.4), "1 234 567");
        assert_eq!(figure(0.3456), "0.346");
        assert_eq!(figure(56.78), "56.8");
    }
}
