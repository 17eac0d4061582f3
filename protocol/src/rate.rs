//! Rate cards: versioned price lists, pinned by version and hash in every hold. The arithmetic of a price is here
//! because outsiders re-perform it; the rules of when a card may be published are the ledger's.

use crate::amount::Amount;
use crate::asset::AssetId;
use crate::id::Hash32;
use minicbor::{Decode, Encode};
use serde::Serialize;

/// What a rate counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum Unit {
    /// Input plus output tokens of a language model.
    #[n(0)]
    Token,
    /// Generated images.
    #[n(1)]
    Image,
    /// Seconds of audio.
    #[n(2)]
    Second,
    /// Calls.
    #[n(3)]
    Request,
}

/// How an output can be checked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum ProofClass {
    /// Canonical numerics: anybody re-runs the job and gets the same bits.
    #[n(0)]
    ReExecutable,
    /// A foreign backend signed what it delivered; nothing more is proved.
    #[n(1)]
    Attested,
}

/// The price of one model, and everything about the model that a job is pinned to.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct ModelRate {
    /// The name clients send as `model`.
    #[n(0)]
    pub model: String,
    /// SHA-256 of the weights' file.
    #[n(1)]
    pub weights: Hash32,
    /// Hash of the tokenizer's tables.
    #[n(2)]
    pub tokenizer: Hash32,
    /// Hash of the chat template.
    #[n(3)]
    pub template: Hash32,
    /// SPDX expression of the weights' open licence.
    #[n(4)]
    pub licence: String,
    /// Proof class a job of this model must reach.
    #[n(5)]
    pub proof_class: ProofClass,
    /// The asset prices are in.
    #[n(6)]
    pub asset: AssetId,
    /// What is counted.
    #[n(7)]
    pub unit: Unit,
    /// Price of `per_units` units, in the asset's base units.
    #[n(8)]
    pub price: Amount,
    /// The denominator: 1 000 000 for "per million tokens". At least 1.
    #[n(9)]
    pub per_units: u64,
    /// The operator's share of each charge, in millionths; the rest is the platform's.
    #[n(10)]
    pub operator_share_ppm: u32,
    /// Longest prompt plus output, in tokens.
    #[n(11)]
    pub context_tokens: u32,
}

/// A published list of prices. Its hash is BLAKE3 over its canonical CBOR.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct RateCard {
    /// Grows by one with every publication; the first is 1.
    #[n(0)]
    pub version: u32,
    /// From when holds are priced by it, microseconds UTC.
    #[n(1)]
    pub effective_us: u64,
    /// What a rate must leave for the platform after the operator's share, in millionths of the price.
    #[n(2)]
    pub headroom_ppm: u32,
    /// One entry a model, sorted by name, no name twice.
    #[n(3)]
    pub models: Vec<ModelRate>,
}

impl RateCard {
    /// The hash that holds are pinned to.
    pub fn hash(&self) -> Hash32 {
        let bytes = minicbor::to_vec(self).expect("encoding to memory cannot fail");
        Hash32(blake3::derive_key("counterfoil rate card 1", &bytes))
    }

    /// The entry of a model.
    pub fn model(&self, name: &str) -> Option<&ModelRate> {
        self.models.binary_search_by(|m| m.model.as_str().cmp(name)).ok().map(|at| &self.models[at])
    }
}

/// `ceil(price x units / per_units)`: one rounding per hold, over the cumulative usage, in the platform's favour by
/// less than one base unit (rulings: cumulative, never per token class). `None` beyond 128 bits or at `per_units` 0.
pub fn price_ceil(price: Amount, per_units: u64, units: u64) -> Option<Amount> {
    // Nearly every price; a division of 128 bits is a loop.
    if let Ok(price) = u64::try_from(price.0)
        && let Some(gross) = price.checked_mul(units)
        && per_units > 0
    {
        return Some(Amount(gross.div_ceil(per_units).into()));
    }
    let gross = price.0.checked_mul(i128::from(units))?;
    let per = i128::from(per_units);
    if per == 0 || gross < 0 {
        return None;
    }
    Some(Amount(gross / per + i128::from(gross % per != 0)))
}

/// Cumulative share with carried remainder: `floor(gross_total x share / 1 000 000) - paid_before`. Over any number of
/// charges nobody is off by a whole base unit.
pub fn share_floor(gross_total: Amount, share_ppm: u32, paid_before: Amount) -> Option<Amount> {
    let share = i128::from(share_ppm);
    let due = match u64::try_from(gross_total.0) {
        // The same, by divisions of 64 bits: whole millions and the rest are shared apart, and only the rest rounds.
        Ok(gross) => {
            i128::from(gross / 1_000_000) * share
                + i128::from(gross % 1_000_000 * u64::from(share_ppm) / 1_000_000)
        }
        Err(_) => gross_total.0.checked_mul(share)?.div_euclid(1_000_000),
    };
    Amount(due).checked_sub(paid_before)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked figures of requirement P4, at nine digits.
    #[test]
    fn p4_worked_figures_come_out_exactly() {
        let figure = |price: &str, per: u64, tokens: u64| {
            let price = Amount::parse_decimal(price, 9).unwrap();
            price_ceil(price, per, tokens).unwrap().to_decimal_string(9)
        };
        assert_eq!(figure("0.0000040", 1, 1_420), "0.00568");
        assert_eq!(figure("0.002", 1_000, 1_200), "0.0024");
        assert_eq!(figure("0.02", 1_000, 9_000), "0.18");
    }

    #[test]
    fn rounding_goes_up_once_and_shares_carry() {
        assert_eq!(price_ceil(Amount(1), 3, 1), Some(Amount(1)));
        assert_eq!(price_ceil(Amount(1), 3, 3), Some(Amount(1)));
        assert_eq!(price_ceil(Amount(1), 0, 3), None);
        let mut paid = Amount::ZERO;
        for total in 1..=1000 {
            let share = share_floor(Amount(total), 333_333, paid).unwrap();
            assert!(share.0 == 0 || share.0 == 1);
            paid = paid.checked_add(share).unwrap();
        }
        assert_eq!(paid, Amount(333));
    }
}
