//! How the chain is read: depth, pace, other nodes that must agree, how deep large deposits must lie. From a file of the
//! network's administration; without one, what a development chain needs.

use anyhow::{Context, Result, ensure};
use contracts::chain::{Chain, ChainConfig};
use contracts::deployment::Deployment;
use contracts::manifest::Manifest;
use contracts::mirror::Mirror;
use contracts::{ConfirmationPolicy, ConfirmationStep};
use protocol::amount::Amount;
use protocol::asset::VAULT_SCALE;
use serde::Deserialize;
use std::path::Path;

/// Blocks on top before a deposit counts, on the development chain.
const CONFIRMATIONS: u64 = 2;
/// How often the chain is looked at.
const POLL_MS: u64 = 200;

/// See the file's example in `examples/chain.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChainOptions {
    /// Blocks on top of a block before its facts count.
    pub confirmations: u64,
    /// Pause between two looks.
    pub poll_ms: u64,
    /// Other nodes of the same chain.
    pub witnesses: Vec<String>,
    /// How many of all nodes, our own among them, must agree; more than half. Default: the smallest majority.
    pub quorum: Option<usize>,
    /// Larger deposits wait longer.
    pub steps: Vec<Step>,
}

/// Deposits from an amount on need so many blocks above them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Whole tokens, decimal.
    pub from: String,
    /// Blocks.
    pub confirmations: u64,
}

impl Default for ChainOptions {
    fn default() -> Self {
        let (witnesses, steps) = (Vec::new(), Vec::new());
        ChainOptions { confirmations: CONFIRMATIONS, poll_ms: POLL_MS, witnesses, quorum: None, steps }
    }
}

impl ChainOptions {
    /// Reads the file; without one, the default.
    pub fn load(path: Option<&Path>) -> Result<ChainOptions> {
        let Some(path) = path else { return Ok(ChainOptions::default()) };
        let named = || path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(named)?;
        Self::parse(&text).with_context(named)
    }

    fn parse(text: &str) -> Result<ChainOptions> {
        let options: ChainOptions = toml::from_str(text)?;
        options.policy()?;
        let (nodes, quorum) = (options.witnesses.len() + 1, options.quorum());
        let is_majority = quorum <= nodes && quorum * 2 > nodes;
        ensure!(
            is_majority,
            "quorum {quorum} of {nodes} nodes: expected more than half of them and at most all"
        );
        ensure!(options.poll_ms > 0, "poll_ms must be above zero");
        Ok(options)
    }

    fn quorum(&self) -> usize {
        let nodes = self.witnesses.len() + 1;
        self.quorum.unwrap_or(nodes / 2 + 1)
    }

    /// The steps in vault units.
    fn policy(&self) -> Result<ConfirmationPolicy> {
        let step = |step: &Step| {
            let units = Amount::parse_decimal(&step.from, VAULT_SCALE)?;
            let from_units = u64::try_from(units.0).context("a step's amount is below zero")?;
            Ok(ConfirmationStep { from_units, confirmations: step.confirmations })
        };
        Ok(ConfirmationPolicy::new(self.steps.iter().map(step).collect::<Result<_>>()?)?)
    }

    /// Lets the mirror believe and wait as configured. Each witness must serve the same chain and contracts.
    pub async fn apply(&self, mirror: Mirror, manifest: &Manifest) -> Result<Mirror> {
        let mut witnesses = Vec::new();
        for rpc_url in &self.witnesses {
            let config = ChainConfig {
                rpc_url: rpc_url.clone(),
                chain_id: manifest.chain_id,
                confirmations: self.confirmations,
                poll_interval_ms: self.poll_ms,
            };
            witnesses.push(Deployment::open(Chain::connect(config).await?, manifest.clone()).await?);
        }
        Ok(mirror.with_witnesses(witnesses, self.quorum())?.with_policy(self.policy()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_read_and_contradictions_are_refused() {
        let example = ChainOptions::parse(include_str!("../../examples/chain.toml")).expect("the example");
        assert_eq!((example.witnesses.len(), example.quorum()), (2, 2));
        assert_eq!(example.steps.len(), 2);
        assert_eq!(ChainOptions::parse("").expect("everything has a default"), ChainOptions::default());
        for (nodes, majority) in [(0, 1), (1, 2), (2, 2), (3, 3), (4, 3)] {
            let witnesses = vec![String::new(); nodes];
            assert_eq!(ChainOptions { witnesses, ..ChainOptions::default() }.quorum(), majority, "{nodes}");
        }
        for bad in [
            "quorum = 2",
            "witnesses = ['http://one', 'http://two']\nquorum = 1",
            "poll_ms = 0",
            "confirmation = 1",
            "steps = [{ from = '5', confirmations = 9 }, { from = '4', confirmations = 10 }]",
            "steps = [{ from = '-1', confirmations = 9 }]",
        ] {
            ChainOptions::parse(bad).expect_err(bad);
        }
    }
}
