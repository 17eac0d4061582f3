//! How deep a deposit must lie, by its amount: what a reorg could take is worth more patience.

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::ChainError;

/// Steps of a policy.
pub const STEPS_MAX: usize = 16;

/// Deposits from an amount on need this many blocks above them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmationStep {
    /// Vault units from which the step applies.
    pub from_units: u64,
    /// Blocks that must lie above.
    pub confirmations: u64,
}

/// What larger deposits need beyond the watcher's own confirmations. Empty: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ConfirmationPolicy(Vec<ConfirmationStep>);

impl ConfirmationPolicy {
    /// Steps must rise in both amount and confirmations.
    pub fn new(steps: Vec<ConfirmationStep>) -> Result<Self, ChainError> {
        let rises = |pair: &[ConfirmationStep]| {
            pair[0].from_units < pair[1].from_units && pair[0].confirmations < pair[1].confirmations
        };
        if steps.len() > STEPS_MAX || !steps.windows(2).all(rises) {
            return Err(ChainError::BadPolicy { step_count: steps.len() });
        }
        Ok(Self(steps))
    }

    /// Blocks that must lie above a deposit of so many units; `base` for all others.
    pub fn needed(&self, units: u64, base: u64) -> u64 {
        let step = self.0.iter().rev().find(|step| step.from_units <= units);
        step.map_or(base, |step| step.confirmations.max(base))
    }
}

impl<'de> Deserialize<'de> for ConfirmationPolicy {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::new(Vec::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_deposits_need_more() {
        let step = |from_units, confirmations| ConfirmationStep { from_units, confirmations };
        let policy = ConfirmationPolicy::new(vec![step(100, 5), step(1_000, 20)]).expect("rises");
        for (units, needed) in [(0, 2), (99, 2), (100, 5), (999, 5), (1_000, 20), (u64::MAX, 20)] {
            assert_eq!(policy.needed(units, 2), needed, "{units}");
        }
        assert_eq!(policy.needed(100, 9), 9, "never fewer than the watcher's own");
        assert!(ConfirmationPolicy::new(vec![step(100, 5), step(100, 6)]).is_err());
        assert!(ConfirmationPolicy::new(vec![step(100, 5), step(200, 5)]).is_err());
        let text = serde_json::to_string(&policy).expect("json");
        assert_eq!(serde_json::from_str::<ConfirmationPolicy>(&text).expect("its own json"), policy);
    }
}
