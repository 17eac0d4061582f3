//! Lanes: who goes first, and how much is kept for whom. Must not: money.

use serde::{Deserialize, Serialize};

/// What a request runs in, the least urgent first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// A daily allotment.
    Included,
    /// Paid from a balance.
    Prepaid,
    /// A capacity package: priority and slots of its own.
    Dedicated,
}

/// How many lanes there are.
pub const LANES: usize = 3;

impl Lane {
    /// By its name, as in `x-counterfoil-lane`; an unknown one is the ordinary lane.
    pub fn of(name: &str) -> Lane {
        match name {
            "included" | "allotment" => Lane::Included,
            "dedicated" => Lane::Dedicated,
            _ => Lane::Prepaid,
        }
    }

    /// Its name.
    pub fn code(self) -> &'static str {
        match self {
            Lane::Included => "included",
            Lane::Prepaid => "prepaid",
            Lane::Dedicated => "dedicated",
        }
    }

    /// Where it stands among its fellows.
    pub(super) fn rank(self) -> usize {
        self as usize
    }
}

/// Slots of one model that must stay free for the dedicated lane: what is reserved of the capacity and not in use by it.
pub(super) fn reserved(capacity: u64, reserve_ppm: u64, dedicated_inflight: u64) -> u64 {
    (capacity * reserve_ppm).div_ceil(1_000_000).saturating_sub(dedicated_inflight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_what_the_lane_does_not_use_itself() {
        assert_eq!([reserved(10, 200_000, 0), reserved(10, 200_000, 1), reserved(10, 200_000, 5)], [2, 1, 0]);
        assert_eq!(reserved(3, 100_000, 0), 1, "a reserve of anything is at least one slot");
        assert_eq!(reserved(10, 0, 0), 0);
    }

    #[test]
    fn names() {
        for lane in [Lane::Included, Lane::Prepaid, Lane::Dedicated] {
            assert_eq!(Lane::of(lane.code()), lane);
        }
        assert!(Lane::Dedicated > Lane::Prepaid && Lane::Prepaid > Lane::Included);
    }
}
