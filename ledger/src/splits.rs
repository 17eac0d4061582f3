//! Who gets what of a charge: the operator's share by cumulative remainder carry, and its spread over the slices that
//! paid. Nobody is ever off by a whole base unit, over any number of charges.

use crate::nodes::OperatorNo;
use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::rate::share_floor;
use smallvec::SmallVec;

/// One running split: an operator, an asset, a share in millionths.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct CarryKey {
    #[n(0)]
    pub(crate) operator: OperatorNo,
    #[n(1)]
    pub(crate) asset: AssetId,
    #[n(2)]
    pub(crate) share_ppm: u32,
}

/// What was charged and what the operator got of it, for life. A reversal takes both back.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Carry {
    #[n(0)]
    pub(crate) gross: Amount,
    #[n(1)]
    pub(crate) paid: Amount,
}

/// The operator's share of the next charge; `None` beyond 128 bits. A reversed charge took its own rounding with it,
/// so the carry may be off by that until the next charge; the share itself stays within the charge.
pub(crate) fn operator_share(carry: Carry, share_ppm: u32, cost: Amount) -> Option<Amount> {
    let gross = carry.gross.checked_add(cost)?;
    let share = share_floor(gross, share_ppm, carry.paid)?;
    Some(share.clamp(Amount::ZERO, cost))
}

/// `floor(whole x part / of)`, exact to 128 bits; `None` beyond. `of` is above zero, `part` at most `of`.
pub(crate) fn proportion(whole: Amount, part: i128, of: i128) -> Option<i128> {
    if part == of {
        return Some(whole.0);
    }
    if let (Ok(whole), Ok(part), Ok(of)) = (u64::try_from(whole.0), u64::try_from(part), u64::try_from(of))
        && let Some(product) = whole.checked_mul(part)
    {
        return product.checked_div(of).map(i128::from);
    }
    whole.0.checked_mul(part)?.checked_div(of)
}

/// Spreads a share over the parts of a cost, cumulatively: the parts sum to the share exactly.
pub(crate) fn spread(
    share: Amount,
    cost: Amount,
    parts: impl Iterator<Item = Amount>,
) -> Option<SmallVec<[Amount; 4]>> {
    let (mut covered, mut given) = (0i128, 0i128);
    let mut shares = SmallVec::new();
    for part in parts {
        covered = covered.checked_add(part.0)?;
        let due = proportion(share, covered, cost.0)?;
        shares.push(Amount(due - given));
        given = due;
    }
    Some(shares)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// After every prefix of random charges operator and platform together have exactly the gross, and the
        /// operator is within one base unit of the ideal.
        #[test]
        fn shares_are_exact_after_every_prefix(
            share_ppm in 0u32..=1_000_000,
            costs in prop::collection::vec(0i128..1_000_000_000_000, 1..200),
        ) {
            let mut carry = Carry::default();
            let mut platform = 0;
            for cost in costs {
                let share = operator_share(carry, share_ppm, Amount(cost)).unwrap();
                prop_assert!((0..=cost).contains(&share.0));
                carry = Carry { gross: Amount(carry.gross.0 + cost), paid: Amount(carry.paid.0 + share.0) };
                platform += cost - share.0;
                prop_assert_eq!(carry.paid.0 + platform, carry.gross.0);
                let off_millionths = carry.gross.0 * i128::from(share_ppm) - carry.paid.0 * 1_000_000;
                prop_assert!((0..1_000_000).contains(&off_millionths));
            }
        }

        /// Spreading loses nothing and gives no part more than it paid.
        #[test]
        fn spread_sums_exactly(
            parts in prop::collection::vec(1i128..1_000_000_000, 1..20),
            share_ppm in 0i128..=1_000_000,
        ) {
            let cost: i128 = parts.iter().sum();
            let share = cost * share_ppm / 1_000_000;
            let shares = spread(Amount(share), Amount(cost), parts.iter().map(|p| Amount(*p))).unwrap();
            prop_assert_eq!(shares.iter().map(|s| s.0).sum::<i128>(), share);
            prop_assert!(shares.iter().zip(&parts).all(|(s, p)| (0..=*p).contains(&s.0)));
        }
    }
}
