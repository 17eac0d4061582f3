//! The simulation's plots, as SVG that needs nothing to be looked at.

use super::simulation::Outcome;
use crate::{BenchError, Tried};
use std::fmt::Write;
use std::path::Path;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const MARGIN: f64 = 56.0;
const COLOURS: [&str; 3] = ["#2563eb", "#059669", "#dc2626"];

/// Writes `route-latency.svg` and `route-fairness.svg`.
pub fn write(dir: &Path, runs: &[Outcome]) -> Result<(), BenchError> {
    std::fs::create_dir_all(dir).tried("the folder for plots")?;
    std::fs::write(dir.join("route-latency.svg"), latency(runs)).tried("route-latency.svg")?;
    std::fs::write(dir.join("route-fairness.svg"), fairness(runs)).tried("route-fairness.svg")
}

/// Part of the jobs that ended within a time, a line for each load.
fn latency(runs: &[Outcome]) -> String {
    let most = runs.iter().filter_map(|run| quantile(&run.latency_s, 0.995)).fold(1.0, f64::max);
    let mut svg = frame(
        "Jobs ended within a time, 10 000 nodes",
        "seconds from arrival to the end",
        "part of the jobs",
    );
    for (run, colour) in runs.iter().zip(COLOURS) {
        let points: String = (0..=100).fold(String::new(), |mut points, percent| {
            let part = f64::from(percent) / 100.0 * 0.995;
            let seconds = quantile(&run.latency_s, part).unwrap_or(0.0);
            let _ = write!(points, "{:.1},{:.1} ", x(seconds / most), y(part));
            points
        });
        let _ = write!(svg, "<polyline fill='none' stroke='{colour}' stroke-width='2' points='{points}'/>");
    }
    for step in 0..=4 {
        let part = f64::from(step) / 4.0;
        let _ = write!(
            svg,
            "<text x='{:.0}' y='{:.0}' text-anchor='middle'>{:.0}</text>",
            x(part),
            y(0.0) + 18.0,
            part * most
        );
        let _ = write!(
            svg,
            "<text x='{:.0}' y='{:.0}' text-anchor='end'>{part:.2}</text>",
            x(0.0) - 6.0,
            y(part) + 4.0
        );
    }
    legend(&mut svg, runs);
    svg + "</svg>\n"
}

/// Busy time for each slot by size of the node: equal bars are equal treatment.
fn fairness(runs: &[Outcome]) -> String {
    let mut svg =
        frame("Work for each slot by size of the node", "slots of the node", "mean of its load = 1");
    for (number, (run, colour)) in runs.iter().zip(COLOURS).enumerate() {
        let mean = run.by_slots.iter().map(|(_, work)| work).sum::<f64>() / run.by_slots.len().max(1) as f64;
        for (class, (slots, work)) in run.by_slots.iter().enumerate() {
            let height = (work / mean.max(f64::MIN_POSITIVE) / 1.6).min(1.0);
            let left = x((class as f64 + 0.15 + 0.24 * number as f64) / 5.0);
            let (top, bar) = (y(height), y(0.0) - y(height));
            let _ = write!(
                svg,
                "<rect x='{left:.1}' y='{top:.1}' width='22' height='{bar:.1}' fill='{colour}'/>"
            );
            if number == 1 {
                let _ = write!(svg, "<text x='{left:.1}' y='{:.0}'>{slots}</text>", y(0.0) + 18.0);
            }
        }
    }
    let line = y(1.0 / 1.6);
    let _ = write!(
        svg,
        "<line x1='{:.0}' x2='{:.0}' y1='{line:.1}' y2='{line:.1}' stroke='#888' stroke-dasharray='4 4'/>",
        x(0.0),
        x(1.0)
    );
    legend(&mut svg, runs);
    svg + "</svg>\n"
}

fn frame(title: &str, below: &str, beside: &str) -> String {
    let mut svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' font-family='sans-serif' font-size='12'>\
         <rect width='{WIDTH}' height='{HEIGHT}' fill='white'/><text x='{MARGIN}' y='24' font-size='15'>{title}</text>"
    );
    let (left, bottom) = (x(0.0), y(0.0));
    let _ = write!(svg, "<path d='M{left} {} V{bottom} H{}' fill='none' stroke='#444'/>", y(1.0), x(1.0));
    let _ =
        write!(svg, "<text x='{}' y='{}' text-anchor='end' fill='#444'>{below}</text>", x(1.0), HEIGHT - 8.0);
    let _ = write!(svg, "<text x='{MARGIN}' y='42' fill='#444'>{beside}</text>");
    svg
}

fn legend(svg: &mut String, runs: &[Outcome]) {
    for (number, (run, colour)) in runs.iter().zip(COLOURS).enumerate() {
        let left = WIDTH - 330.0 + 110.0 * number as f64;
        let _ = write!(svg, "<rect x='{left}' y='32' width='12' height='12' fill='{colour}'/>");
        let _ = write!(svg, "<text x='{}' y='42'>load {} %</text>", left + 18.0, run.load);
    }
}

fn x(part: f64) -> f64 {
    MARGIN + part * (WIDTH - 1.5 * MARGIN)
}

fn y(part: f64) -> f64 {
    HEIGHT - MARGIN - part * (HEIGHT - 2.0 * MARGIN)
}

fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    sorted.get(((sorted.len() as f64 * part) as usize).min(sorted.len().checked_sub(1)?)).copied()
}
