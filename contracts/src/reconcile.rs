//! What the chain holds at one named block, for `audit reconcile` and the solvency check of each epoch. Reads only.

use alloy::eips::BlockId;
use serde::{Deserialize, Serialize};

use crate::bindings::token::FoilToken;
use crate::chain::Head;
use crate::deployment::{Deployment, VaultAccount, narrow};
use crate::error::ChainError;
use crate::fixed_bytes::Address20;

/// What vault and pot hold at a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdings {
    /// The block.
    pub block: Head,
    /// The vault's tokens, in token base units.
    pub vault_base_units: u128,
    /// The vault's tokens, in whole vault units.
    pub vault_units: u64,
    /// The pot's tokens, in token base units.
    pub pot_base_units: u128,
    /// The pot's tokens, in whole vault units.
    pub pot_units: u64,
    /// Units ever received by the pot.
    pub funded: u64,
    /// Units ever paid out by the pot.
    pub claimed_total: u64,
    /// The last settled epoch.
    pub last_epoch: u64,
}

impl Deployment {
    /// What vault and pot hold at a block; an error when the node does not have it.
    pub async fn holdings_at(&self, number: u64) -> Result<Holdings, ChainError> {
        let block = self.chain().block(number).await?;
        let block =
            block.ok_or_else(|| self.chain().failed("eth_getBlockByNumber", format!("no block {number}")))?;
        let at = BlockId::hash(block.hash.into());
        let failed = |error| self.chain().call_failed("reading the holdings", error);
        let token = FoilToken::new(self.manifest().token.into(), self.chain().provider());
        let vault = token.balanceOf(self.manifest().vault.into()).block(at).call().await.map_err(failed)?;
        let pot = token.balanceOf(self.manifest().payouts.into()).block(at).call().await.map_err(failed)?;
        let unit = self.manifest().unit_base_units();
        let (vault_base_units, pot_base_units): (u128, u128) = (vault.saturating_to(), pot.saturating_to());
        Ok(Holdings {
            block,
            vault_base_units,
            vault_units: narrow(vault_base_units / unit),
            pot_base_units,
            pot_units: narrow(pot_base_units / unit),
            funded: narrow(self.payouts().funded().block(at).call().await.map_err(failed)?),
            claimed_total: narrow(self.payouts().claimedTotal().block(at).call().await.map_err(failed)?),
            last_epoch: self.vault().lastEpoch().block(at).call().await.map_err(failed)?,
        })
    }

    /// Several accounts at one block, in the order asked.
    pub async fn accounts_at(
        &self,
        block: Head,
        accounts: &[Address20],
    ) -> Result<Vec<VaultAccount>, ChainError> {
        let mut found = Vec::with_capacity(accounts.len());
        for account in accounts {
            found.push(self.account_at(*account, block.hash).await?);
        }
        Ok(found)
    }
}
