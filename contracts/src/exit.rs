//! The user's way out with nothing but a wallet and a node: no manifest, no gateway, none of our processes.

use alloy::eips::BlockId;
use alloy::primitives::{Bytes, TxKind};
use alloy::sol_types::SolCall;

use crate::bindings::vault::CreditVault;
use crate::chain::{Call, Chain, Mined, mined};
use crate::deployment::{Claim, VaultAccount, read_account};
use crate::error::ChainError;
use crate::fixed_bytes::Address20;
use crate::key::EvmKey;
use crate::manifest::{Artefact, read_wiring, require_artefact};

/// A vault as somebody who wants to leave sees it.
#[derive(Debug, Clone)]
pub struct Exit {
    chain: Chain,
    vault: Address20,
    payouts: Address20,
    token: Address20,
    unit_base_units: u128,
    delay_s: u32,
}

/// How far an account's exit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStage {
    /// Not requested.
    NotRequested,
    /// Requested; may be finalized from this time (seconds) on.
    Waiting {
        /// When.
        exit_at: u32,
        /// How many seconds from the newest block.
        wait_s: u64,
    },
    /// May be finalized now.
    Due,
}

/// An account's exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitStatus {
    /// What the vault knows of the account.
    pub account: VaultAccount,
    /// How far its exit is.
    pub stage: ExitStage,
}

impl Exit {
    /// Checks that the address is a vault of this release: nobody should sign for another contract.
    pub async fn open(chain: Chain, vault: Address20) -> Result<Self, ChainError> {
        require_artefact(&chain, Artefact::Vault, vault).await?;
        let wiring = read_wiring(&chain, vault).await?;
        Ok(Self {
            chain,
            vault,
            payouts: wiring.payouts,
            token: wiring.token,
            unit_base_units: wiring.unit_base_units,
            delay_s: wiring.exit_delay_s,
        })
    }

    /// The token that is paid out.
    pub fn token(&self) -> Address20 {
        self.token
    }

    /// Token base units in one vault unit.
    pub fn unit_base_units(&self) -> u128 {
        self.unit_base_units
    }

    /// Seconds between an exit's request and its payment.
    pub fn delay_s(&self) -> u32 {
        self.delay_s
    }

    /// How far an account's exit is.
    pub async fn status(&self, account: Address20) -> Result<ExitStatus, ChainError> {
        let head = self.chain.head().await?;
        let at = BlockId::hash(head.hash.into());
        let account = read_account(&self.chain, self.vault, account, at).await?;
        let stage = match account.exit_at {
            None => ExitStage::NotRequested,
            Some(exit_at) if u64::from(exit_at) > head.timestamp => {
                ExitStage::Waiting { exit_at, wait_s: u64::from(exit_at) - head.timestamp }
            }
            Some(_) => ExitStage::Due,
        };
        Ok(ExitStatus { account, stage })
    }

    /// Asks to leave. Asking again does not move the date.
    pub async fn request(&self, key: &EvmKey) -> Result<Mined, ChainError> {
        self.send(key, self.vault, "requestExit", CreditVault::requestExitCall {}).await
    }

    /// Takes the request back.
    pub async fn cancel(&self, key: &EvmKey) -> Result<Mined, ChainError> {
        self.send(key, self.vault, "cancelExit", CreditVault::cancelExitCall {}).await
    }

    /// Takes everything out, once the delay has passed.
    pub async fn finalize(&self, key: &EvmKey, to: Address20) -> Result<Mined, ChainError> {
        self.send(key, self.vault, "finalizeExit", CreditVault::finalizeExitCall { to: to.into() }).await
    }

    /// Claims an operator's earnings against a settlement's root; anybody's key may send it, the operator is paid.
    pub async fn claim(&self, key: &EvmKey, claim: &Claim) -> Result<Mined, ChainError> {
        require_artefact(&self.chain, Artefact::Payouts, self.payouts).await?;
        self.send(key, self.payouts, "claim", claim.call()).await
    }

    async fn send(
        &self,
        key: &EvmKey,
        to: Address20,
        name: &'static str,
        call: impl SolCall,
    ) -> Result<Mined, ChainError> {
        let call = Call { name, to: TxKind::Call(to.into()), input: Bytes::from(call.abi_encode()) };
        mined(name, &self.chain.send(key, call).await?)
    }
}
