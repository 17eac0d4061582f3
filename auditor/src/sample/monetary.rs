//! Monetary-unit sampling: every unit of money has the same chance, so a large charge is drawn more often than a small one,
//! and one of at least an interval always. Each model is a stratum of its own: its charges are in one asset.

use crate::replay::SampledCharge;
use crate::report::Item;
use std::collections::BTreeMap;

/// Basic precision at 95 % without an error, in hundredths of an interval: `-ln(0.05)` is 2.996.
const BASIC_PRECISION_HUNDREDTHS: i128 = 300;

/// The size of a monetary-unit sample without an expected error: `-ln(1 - confidence) / tolerance`, rounded up. Both in
/// thousandths; 950 and 50 give 60.
pub fn monetary_size(confidence_thousandths: u32, tolerance_thousandths: u32) -> u64 {
    let part = |thousandths: u32| f64::from(thousandths.clamp(1, 999)) / 1000.0;
    (-(1.0 - part(confidence_thousandths)).ln() / part(tolerance_thousandths)).ceil() as u64
}

/// The charges of one model and how they were drawn.
#[derive(Clone, Debug)]
pub(super) struct Stratum {
    model: String,
    total: i128,
    interval: i128,
    start: i128,
    drawn: Vec<u64>,
    /// What the drawn charges' differences come to over the whole stratum.
    projected: i128,
}

/// Draws `rows` units of each model's charges, evenly apart, from a start that the seed gives. Gives the charges, by leaf.
pub(super) fn draw(
    charges: Vec<SampledCharge>,
    rows: u64,
    seed: &[u8; 32],
) -> (Vec<SampledCharge>, Vec<Stratum>) {
    let mut models: BTreeMap<String, Vec<SampledCharge>> = BTreeMap::new();
    for charge in charges {
        models.entry(charge.model.clone()).or_default().push(charge);
    }
    let (mut drawn, mut strata) = (Vec::new(), Vec::new());
    for (model, charges) in models {
        let total: i128 = charges.iter().map(|charge| charge.event.cost.0.max(0)).sum();
        let interval = (total / i128::from(rows.max(1))).max(1);
        let random = u128::from_be_bytes(*seed.first_chunk().expect("a seed has 32 bytes"));
        let start = (random % interval.unsigned_abs()) as i128;
        let mut stratum = Stratum { model, total, interval, start, drawn: Vec::new(), projected: 0 };
        let (mut before, mut next) = (0, start);
        for charge in charges {
            before += charge.event.cost.0.max(0);
            if next < before {
                // A charge that holds several of the units is one row.
                next += ((before - 1 - next) / interval + 1) * interval;
                stratum.drawn.push(charge.leaf);
                drawn.push(charge);
            }
        }
        strata.push(stratum);
    }
    drawn.sort_by_key(|charge| charge.leaf);
    (drawn, strata)
}

impl Stratum {
    /// Adds a drawn charge that was recomputed: its share of error stands for the whole interval that it was drawn from.
    pub(super) fn recomputed(&mut self, charge: &SampledCharge) {
        let (charged, Some(right)) = (charge.event.cost.0, charge.recomputed) else { return };
        if charge.model != self.model || charged <= 0 {
            return;
        }
        let off = charged - right;
        let over = if charged >= self.interval {
            Some(off)
        } else {
            off.checked_mul(self.interval).map(|p| p / charged)
        };
        self.projected = self.projected.saturating_add(over.unwrap_or(off));
    }

    /// As the report lists it.
    pub(super) fn item(&self) -> Item {
        let precision = self.interval.saturating_mul(BASIC_PRECISION_HUNDREDTHS) / 100;
        let note = format!(
            "interval {}, start {}, {} rows drawn; projected error {} base units, basic precision at 95 % {precision}",
            self.interval,
            self.start,
            self.drawn.len(),
            self.projected
        );
        let (what, id) = ("monetary-unit sample of a model".to_owned(), Some(self.model.clone()));
        Item { what, id, amount: Some(self.total.to_string()), note, ..Item::default() }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_size_is_the_textbook_s() {
        let sizes = [(950, 50), (950, 10), (990, 10)].map(|(c, t)| super::monetary_size(c, t));
        assert_eq!(sizes, [60, 300, 461]);
    }
}
