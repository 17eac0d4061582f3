//! The deployment's manifest: written once by deploy, verified against the chain at every start. Addresses that were
//! swapped, another chain, or code that is not this release's are refused before anything is served.

use std::path::Path;

use alloy::primitives::{Address, Bytes};
use alloy::providers::Provider;
use serde::{Deserialize, Serialize};

use crate::bindings::{payouts::OperatorPayouts, token::FoilToken, vault::CreditVault};
use crate::chain::Chain;
use crate::economy::EconomyManifest;
use crate::error::ChainError;
use crate::fixed_bytes::{Address20, Hash32};

/// Where the contracts of one network are, and with which fixed parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The chain.
    pub chain_id: u64,
    /// The block of the first deployment transaction: scans start here.
    pub deployed_block: u64,
    /// That block's hash: tells a chain from another with the same id.
    pub deployed_block_hash: Hash32,
    /// The deposited token.
    pub token: Address20,
    /// The token's decimals.
    pub token_decimals: u8,
    /// The users' vault.
    pub vault: Address20,
    /// The operators' pot.
    pub payouts: Address20,
    /// The heads of transparency logs.
    pub anchor: Address20,
    /// The cold identity that spend authorisations name.
    pub coordinator: Address20,
    /// Who may refuse a payout root before it becomes active.
    pub guardian: Address20,
    /// Seconds between an exit's request and its payment.
    pub exit_delay_s: u32,
    /// Seconds between a payout root and its first claim.
    pub root_delay_s: u32,
    /// keccak256 of the code at each address.
    pub code_hashes: CodeHashes,
    /// Stake, votes, treasury and packages, in a network that has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub economy: Option<EconomyManifest>,
}

/// keccak256 of the code at each of the manifest's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodeHashes {
    /// Of the token.
    pub token: Hash32,
    /// Of the vault.
    pub vault: Hash32,
    /// Of the payouts.
    pub payouts: Hash32,
    /// Of the anchor.
    pub anchor: Hash32,
}

impl Manifest {
    /// Reads a manifest file.
    pub fn load(path: &Path) -> Result<Self, ChainError> {
        let text = std::fs::read_to_string(path).map_err(|error| ChainError::file(path, error))?;
        serde_json::from_str(&text).map_err(|error| ChainError::file(path, error))
    }

    /// Writes a manifest file; a reader sees the old one or the new one whole.
    pub fn save(&self, path: &Path) -> Result<(), ChainError> {
        let mut text = serde_json::to_string_pretty(self).expect("a manifest has a JSON form");
        text.push('\n');
        crate::durable::write_whole(path, text.as_bytes())
    }

    /// Token base units in one vault unit.
    pub fn unit_base_units(&self) -> u128 {
        10u128.pow(u32::from(self.token_decimals).saturating_sub(6))
    }

    /// Checks the manifest against the chain: same chain and history, this release's code at every address, and the
    /// contracts wired to each other as it says.
    pub async fn verify(&self, chain: &Chain) -> Result<(), ChainError> {
        self.verify_history(chain).await?;
        require_artefact(chain, Artefact::Vault, self.vault).await?;
        require_artefact(chain, Artefact::Payouts, self.payouts).await?;
        require_artefact(chain, Artefact::Anchor, self.anchor).await?;
        let found = read_code_hashes(chain, self).await?;
        let expected = &self.code_hashes;
        for (contract, address, expected, found) in [
            ("token", self.token, expected.token, found.token),
            ("vault", self.vault, expected.vault, found.vault),
            ("payouts", self.payouts, expected.payouts, found.payouts),
            ("anchor", self.anchor, expected.anchor, found.anchor),
        ] {
            if expected != found {
                let found = format!("code with hash {found}, the manifest says {expected}");
                return Err(ChainError::ForeignCode { contract, address, found });
            }
        }
        self.verify_wiring(chain).await?;
        match &self.economy {
            Some(economy) => economy.verify(chain, self).await,
            None => Ok(()),
        }
    }

    async fn verify_history(&self, chain: &Chain) -> Result<(), ChainError> {
        let got = chain.config().chain_id;
        if got != self.chain_id {
            let endpoint = chain.endpoint().to_string();
            return Err(ChainError::WrongChain { endpoint, expected: self.chain_id, got });
        }
        let block = chain.block(self.deployed_block).await?;
        match block {
            Some(block) if block.hash == self.deployed_block_hash => Ok(()),
            other => Err(ChainError::WrongHistory {
                number: self.deployed_block,
                expected: self.deployed_block_hash,
                got: other.map_or("none".to_string(), |block| block.hash.to_string()),
            }),
        }
    }

    async fn verify_wiring(&self, chain: &Chain) -> Result<(), ChainError> {
        let found = read_wiring(chain, self.vault).await?;
        require_equal("the vault's token", self.token, found.token)?;
        require_equal("the vault's payouts", self.payouts, found.payouts)?;
        require_equal("the coordinator", self.coordinator, found.coordinator)?;
        require_equal("the guardian", self.guardian, found.guardian)?;
        require_equal("the exit delay in seconds", self.exit_delay_s, found.exit_delay_s)?;
        require_equal("the root delay in seconds", self.root_delay_s, found.root_delay_s)?;
        require_equal("the vault's unit in base units", self.unit_base_units(), found.unit_base_units)
    }
}

/// What a vault says of itself.
pub(crate) struct Wiring {
    pub token: Address20,
    pub token_decimals: u8,
    pub payouts: Address20,
    pub coordinator: Address20,
    pub guardian: Address20,
    pub exit_delay_s: u32,
    pub root_delay_s: u32,
    pub unit_base_units: u128,
}

pub(crate) async fn read_wiring(chain: &Chain, at: Address20) -> Result<Wiring, ChainError> {
    let failed = |error| chain.call_failed("reading the vault", error);
    let vault = CreditVault::new(at.into(), chain.provider());
    let payouts_address = vault.payouts().call().await.map_err(failed)?;
    let payouts = OperatorPayouts::new(payouts_address, chain.provider());
    let token_address = vault.token().call().await.map_err(failed)?;
    let token = FoilToken::new(token_address, chain.provider());
    Ok(Wiring {
        token: token_address.into(),
        token_decimals: token.decimals().call().await.map_err(failed)?,
        payouts: payouts_address.into(),
        coordinator: vault.coordinator().call().await.map_err(failed)?.into(),
        guardian: payouts.guardian().call().await.map_err(failed)?.into(),
        exit_delay_s: vault.exitDelay().call().await.map_err(failed)?,
        root_delay_s: payouts.rootDelay().call().await.map_err(failed)?,
        unit_base_units: vault.UNIT().call().await.map_err(failed)?.saturating_to(),
    })
}

pub(crate) async fn read_code_hashes(chain: &Chain, manifest: &Manifest) -> Result<CodeHashes, ChainError> {
    Ok(CodeHashes {
        token: Hash32::keccak(&code_at(chain, manifest.token).await?),
        vault: Hash32::keccak(&code_at(chain, manifest.vault).await?),
        payouts: Hash32::keccak(&code_at(chain, manifest.payouts).await?),
        anchor: Hash32::keccak(&code_at(chain, manifest.anchor).await?),
    })
}

pub(crate) fn require_equal<T: PartialEq + ToString>(
    what: &'static str,
    expected: T,
    got: T,
) -> Result<(), ChainError> {
    if expected == got {
        return Ok(());
    }
    Err(ChainError::WrongWiring { what, expected: expected.to_string(), got: got.to_string() })
}

/// A contract of this release.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Artefact {
    Vault,
    Payouts,
    Anchor,
    Stake,
    Governor,
    Bounds,
    Treasury,
    Packages,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeployedCode {
    deployed_bytecode: Bytes,
    immutable_places: Vec<ImmutablePlace>,
}

#[derive(Deserialize)]
struct ImmutablePlace {
    start: usize,
    length: usize,
}

impl Artefact {
    pub(crate) fn contract(self) -> &'static str {
        match self {
            Self::Vault => "CreditVault",
            Self::Payouts => "OperatorPayouts",
            Self::Anchor => "CheckpointAnchor",
            Self::Stake => "StakeRegistry",
            Self::Governor => "NetworkGovernor",
            Self::Bounds => "AllotmentBounds",
            Self::Treasury => "Treasury",
            Self::Packages => "Packages",
        }
    }

    fn deployed_code(self) -> DeployedCode {
        let text = match self {
            Self::Vault => include_str!("../artefacts/CreditVault.json"),
            Self::Payouts => include_str!("../artefacts/OperatorPayouts.json"),
            Self::Anchor => include_str!("../artefacts/CheckpointAnchor.json"),
            Self::Stake => include_str!("../artefacts/StakeRegistry.json"),
            Self::Governor => include_str!("../artefacts/NetworkGovernor.json"),
            Self::Bounds => include_str!("../artefacts/AllotmentBounds.json"),
            Self::Treasury => include_str!("../artefacts/Treasury.json"),
            Self::Packages => include_str!("../artefacts/Packages.json"),
        };
        serde_json::from_str(text).expect("the committed artefacts have this form")
    }
}

/// Checks that the code at an address is an artefact of this release; only immutables may differ.
pub(crate) async fn require_artefact(
    chain: &Chain,
    artefact: Artefact,
    address: Address20,
) -> Result<(), ChainError> {
    let foreign = |found: &str| {
        let contract = artefact.contract();
        Err(ChainError::ForeignCode { contract, address, found: found.to_string() })
    };
    let code = code_at(chain, address).await?;
    let expected = artefact.deployed_code();
    if code.is_empty() {
        return foreign("no code at all");
    }
    if code.len() != expected.deployed_bytecode.len() {
        return foreign("other code");
    }
    let mut code = code.to_vec();
    for place in &expected.immutable_places {
        code[place.start..place.start + place.length].fill(0);
    }
    if code[..] != expected.deployed_bytecode[..] {
        return foreign("other code of the same length");
    }
    Ok(())
}

pub(crate) async fn code_at(chain: &Chain, address: Address20) -> Result<Bytes, ChainError> {
    let code = chain.provider().get_code_at(Address::from(address)).await;
    code.map_err(|error| chain.rpc("eth_getCode", error))
}
