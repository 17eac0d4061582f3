//! Plots made here: bars over days. No text inside the drawing, so that it keeps its size on a phone; scales are beside it,
//! and the exact figures in a table below. Must not: decide what is drawn.

use crate::figures;
use crate::layout::scroll;
use maud::{Markup, html};

/// One bar.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Bar {
    /// Below it.
    pub label: String,
    /// How high, base units.
    pub height: i128,
    /// The figure as text.
    pub figure: String,
}

/// What a plot shows.
pub(crate) struct Bars<'a> {
    /// Said to whoever does not see it: the finding, not the form.
    pub finding: &'a str,
    /// Heads of the table's columns.
    pub columns: [&'a str; 2],
    /// In order.
    pub bars: &'a [Bar],
}

/// Of the plot's hundred.
const GAP: i128 = 20;

impl Bars<'_> {
    /// The drawing, its scales, and its figures.
    pub fn markup(&self) -> Markup {
        let highest = self.bars.iter().max_by_key(|bar| bar.height);
        let top = highest.map_or(0, |bar| bar.height).max(1);
        let width = 10_000 / i128::try_from(self.bars.len().max(1)).unwrap_or(1);
        html! {
            div.plot {
                div.y aria-hidden="true" {
                    span { (highest.map_or("0", |bar| bar.figure.as_str())) }
                    span { "0" }
                }
                svg viewBox="0 0 10000 10000" preserveAspectRatio="none" role="img" aria-label=(self.finding) {
                    line.g x1="0" x2="10000" y1="5000" y2="5000" {}
                    @for (at, bar) in self.bars.iter().enumerate() {
                        @let height = bar.height.max(0) * 10_000 / top;
                        @let left = i128::try_from(at).unwrap_or(0) * width;
                        rect.a x=(left + width * GAP / 200) y=(10_000 - height) width=(width * (100 - GAP) / 100) height=(height) {}
                    }
                }
                div.x aria-hidden="true" {
                    @for bar in [self.bars.first(), self.bars.get(self.bars.len() / 2), self.bars.last()].into_iter().flatten() {
                        span { (bar.label) }
                    }
                }
            }
            details {
                summary { "The same as a table" }
                (scroll(self.finding, html! {
                    table {
                        thead { tr { th scope="col" { (self.columns[0]) } th.n scope="col" { (self.columns[1]) } } }
                        tbody { @for bar in self.bars { tr { td { (bar.label) } td.n { (bar.figure) } } } }
                    }
                }))
            }
        }
    }
}

/// The last days up to now as dates, oldest first.
pub(crate) fn last_days(now_us: u64, count: u64) -> Vec<String> {
    const DAY_US: u64 = 86_400_000_000;
    (0..count).rev().map(|back| projector::time::date(now_us.saturating_sub(back * DAY_US))).collect()
}

/// `2026-11-21` as `11-21`.
pub(crate) fn day_label(date: &str) -> String {
    date.get(5..).unwrap_or(date).to_owned()
}

/// A figure of base units in an asset's decimals.
pub(crate) fn figure(base_units: i128, scale: u8) -> String {
    figures::exact(&protocol::amount::Amount(base_units).to_decimal_string(scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(height: i128) -> Bar {
        Bar { label: format!("d{height}"), height, figure: height.to_string() }
    }

    #[test]
    fn the_highest_bar_fills_the_plot_and_zero_is_the_ground() {
        let bars = [bar(0), bar(5), bar(10)];
        let shown = Bars { finding: "f", columns: ["Day", "Cost"], bars: &bars }.markup().into_string();
        for height in ["height=\"0\"", "height=\"5000\"", "height=\"10000\""] {
            assert!(shown.contains(height), "{height} in {shown}");
        }
        let none = Bars { finding: "f", columns: ["Day", "Cost"], bars: &[] }.markup().into_string();
        assert!(!none.contains("<rect"), "nothing is drawn of nothing: {none}");
    }

    #[test]
    fn days_end_today() {
        assert_eq!(last_days(1_790_000_000_000_000, 2), ["2026-09-20", "2026-09-21"]);
        assert_eq!(day_label("2026-09-21"), "09-21");
    }
}
