//! Lines over days as SVG: what each strategy has. No script, no font of its own; names stand at the lines' ends.

use crate::report::Report;
use crate::simulation::Strategy;
use std::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 40.0;
/// Lines across.
const GRID_LINES: u32 = 5;
/// Least distance of two names.
const NAME_GAP: f64 = 14.0;
/// One colour a strategy, told apart also by who does not see red and green.
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#444444", "#8c564b"];

/// Earnings per strategy over the days.
pub fn earnings(report: &Report) -> String {
    let scale = 10f64.powi(i32::from(report.scale));
    let series: Vec<(Strategy, Vec<f64>)> = report
        .strategies
        .iter()
        .map(|row| {
            let of = |day: &crate::report::DayFigures| {
                let own = day.profits.iter().find(|(strategy, _)| *strategy == row.strategy);
                own.map_or(0.0, |(_, amount)| amount.0 as f64 / scale)
            };
            (row.strategy, report.days.iter().map(of).collect())
        })
        .collect();
    let values = series.iter().flat_map(|(_, values)| values.iter().copied());
    let (low, high) = values.fold((0.0f64, 0.0f64), |(low, high), value| (low.min(value), high.max(value)));
    let high = if high > low { high } else { low + 1.0 };
    let days = report.days.len().max(2) as f64;
    let x = |day: usize| LEFT + (WIDTH - LEFT - RIGHT) * day as f64 / (days - 1.0);
    let y = |value: f64| TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}: what each strategy has, by day</text>\n",
        escape(&report.preset)
    );
    for line in 0..=GRID_LINES {
        let value = low + (high - low) * f64::from(line) / f64::from(GRID_LINES);
        let (at, end) = (y(value), WIDTH - RIGHT);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{end}\" y2=\"{at:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value:.1}</text>",
            LEFT - 6.0,
            at + 4.0
        );
    }
    let mut ends: Vec<(f64, Strategy, &str)> = Vec::new();
    for (strategy, values) in &series {
        let place = Strategy::ALL.iter().position(|known| known == strategy).unwrap_or(0);
        let colour = COLOURS[place % COLOURS.len()];
        let points: Vec<String> =
            values.iter().enumerate().map(|(day, value)| format!("{:.1},{:.1}", x(day), y(*value))).collect();
        let width = if *strategy == Strategy::Honest { 3 } else { 1 };
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
            points.join(" ")
        );
        ends.push((values.last().map_or(TOP, |value| y(*value)), *strategy, colour));
    }
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut last = f64::MIN;
    for (at, strategy, colour) in ends {
        last = at.max(last + NAME_GAP);
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>",
            WIDTH - RIGHT + 6.0,
            last + 4.0,
            strategy.name()
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{:.1}\">day 0</text><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">day {}</text>\n</svg>",
        HEIGHT - 12.0,
        WIDTH - RIGHT,
        HEIGHT - 12.0,
        report.days.len().saturating_sub(1)
    );
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
