//! Exact amounts: integers of an asset's base units. Decimals appear only at the edges, through `rust_decimal`.
//! Must not: floats, silent rounding.

use minicbor::data::{Int, Tag, Type};
use minicbor::{Decode, Decoder, Encode, Encoder};
use rust_decimal::Decimal;

/// An integer number of base units of some asset. Positive is a debit in a posting, negative a credit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Amount(pub i128);

/// Why an amount could not be read or computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Text that is not a decimal number.
    #[error("not an amount: {0:?}; expected digits with at most one point")]
    NotANumber(String),
    /// More digits after the point than the asset has.
    #[error("{text:?} has more than {scale} digits after the point, the asset's scale")]
    TooFine {
        /// What came.
        text: String,
        /// The asset's ledger scale.
        scale: u8,
    },
    /// Beyond 128 bits.
    #[error("amount out of range")]
    OutOfRange,
}

impl Amount {
    /// Nothing.
    pub const ZERO: Amount = Amount(0);

    /// Sum, or `None` beyond 128 bits.
    pub fn checked_add(self, other: Amount) -> Option<Amount> {
        self.0.checked_add(other.0).map(Amount)
    }

    /// Difference, or `None` beyond 128 bits.
    pub fn checked_sub(self, other: Amount) -> Option<Amount> {
        self.0.checked_sub(other.0).map(Amount)
    }

    /// Whether it is zero.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Exact decimal text with `scale` digits at most, trailing zeros dropped: `5680000` at 9 is `0.00568`.
    pub fn to_decimal_string(self, scale: u8) -> String {
        let digits = format!("{:0width$}", self.0.unsigned_abs(), width = usize::from(scale) + 1);
        let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
        let fraction = fraction.trim_end_matches('0');
        let sign = if self.0 < 0 { "-" } else { "" };
        if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
    }

    /// Reads decimal text exactly; more digits than `scale` is refused, never rounded.
    pub fn parse_decimal(text: &str, scale: u8) -> Result<Amount, AmountError> {
        let not_a_number = || AmountError::NotANumber(text.chars().take(80).collect());
        let (negative, body) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, fraction) = body.split_once('.').unwrap_or((body, ""));
        let digits_only = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !digits_only(whole) || !digits_only(fraction) {
            return Err(not_a_number());
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > usize::from(scale) {
            return Err(AmountError::TooFine { text: text.chars().take(80).collect(), scale });
        }
        let all = format!("{whole}{fraction:0<width$}", width = usize::from(scale));
        let value: i128 = all.parse().map_err(|_| AmountError::OutOfRange)?;
        Ok(Amount(if negative { -value } else { value }))
    }

    /// The decimal for display and files; `None` when `rust_decimal`'s 96 bits do not hold it.
    pub fn to_decimal(self, scale: u8) -> Option<Decimal> {
        Decimal::try_from_i128_with_scale(self.0, u32::from(scale)).ok()
    }
}

impl std::iter::Sum for Amount {
    /// Panics beyond 128 bits: sums of postings that fit one by one and overflow together are a bug of ours.
    fn sum<I: Iterator<Item = Amount>>(iter: I) -> Amount {
        iter.fold(Amount::ZERO, |a, b| a.checked_add(b).expect("sum of amounts within 128 bits"))
    }
}

impl std::ops::Neg for Amount {
    type Output = Amount;
    fn neg(self) -> Amount {
        Amount(-self.0)
    }
}

/// CBOR: a plain integer within 64 bits and sign, else the shortest bignum (tags 2 and 3, RFC 8949 3.4.3).
impl<C> Encode<C> for Amount {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        // Nearly every amount; the bytes are those of the general way.
        if let Ok(small) = i64::try_from(self.0) {
            return e.i64(small)?.ok();
        }
        if let Ok(int) = Int::try_from(self.0) {
            return e.int(int)?.ok();
        }
        let (tag, magnitude) = if self.0 < 0 { (3, !self.0 as u128) } else { (2, self.0 as u128) };
        let bytes = magnitude.to_be_bytes();
        let skip = bytes.iter().take_while(|b| **b == 0).count();
        e.tag(Tag::new(tag))?.bytes(&bytes[skip..])?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Amount {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let at = d.position();
        if d.datatype()? != Type::Tag {
            return Ok(Amount(i128::from(d.int()?)));
        }
        let tag = d.tag()?.as_u64();
        let bytes = d.bytes()?;
        let wrong = || minicbor::decode::Error::message("expected a bignum of 9 to 16 bytes").at(at);
        if !(9..=16).contains(&bytes.len()) || bytes[0] == 0 {
            return Err(wrong());
        }
        let magnitude = bytes.iter().fold(0u128, |all, byte| all << 8 | u128::from(*byte));
        let value = i128::try_from(magnitude).map_err(|_| wrong())?;
        match tag {
            2 => Ok(Amount(value)),
            3 => Ok(Amount(!value)),
            _ => Err(wrong()),
        }
    }
}

/// JSON: a string of base units, so that no reader turns it into a double.
impl serde::Serialize for Amount {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decimal_text_is_exact() {
        assert_eq!(Amount(5_680_000).to_decimal_string(9), "0.00568");
        assert_eq!(Amount(-1).to_decimal_string(9), "-0.000000001");
        assert_eq!(Amount(3_000_000_000).to_decimal_string(9), "3");
        assert_eq!(Amount::parse_decimal("0.00568", 9), Ok(Amount(5_680_000)));
        assert_eq!(Amount::parse_decimal(".5", 1), Ok(Amount(5)));
        assert!(matches!(Amount::parse_decimal("0.0000000001", 9), Err(AmountError::TooFine { .. })));
        for wrong in ["", ".", "1e9", "1,0", "--1", "+1", " 1"] {
            assert!(Amount::parse_decimal(wrong, 9).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn cbor_and_text_round_trip(value in any::<i128>(), scale in 0u8..=18) {
            let amount = Amount(value);
            let bytes = minicbor::to_vec(amount).unwrap();
            prop_assert_eq!(minicbor::decode::<Amount>(&bytes).unwrap(), amount);
            if value != i128::MIN {
                prop_assert_eq!(Amount::parse_decimal(&amount.to_decimal_string(scale), scale), Ok(amount));
            }
        }
    }
}
