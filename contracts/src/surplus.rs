//! Money that came past the vault: somebody handed a payer's signed transfer straight to the token, so the vault holds it and
//! knows nobody to credit. Found by two events of one confirmed transaction, never inferred from a balance (rulings 3.8).

use alloy::primitives::{Address, B256, U256};
use alloy::rpc::types::Filter;
use alloy::sol_types::SolEvent;
use serde::{Deserialize, Serialize};

use crate::bindings::dollar::DollarToken;
use crate::bindings::vault::CreditVault;
use crate::chain::Mined;
use crate::deployment::Deployment;
use crate::error::ChainError;
use crate::fixed_bytes::{Address20, Hash32};
use crate::key::EvmKey;

/// A signed transfer to the vault that was not deposited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrayPayment {
    /// Who paid.
    pub payer: Address20,
    /// The signed transfer's nonce.
    pub nonce: Hash32,
    /// Whole vault units that came.
    pub units: u64,
    /// The transaction.
    pub tx: Hash32,
}

impl Deployment {
    /// Looks a payer's nonce up: `None` unless a transaction with so many blocks above it used it and in the same transaction moved the payer's
    /// tokens to the vault, once, without a deposit.
    pub async fn find_stray(
        &self,
        payer: Address20,
        nonce: Hash32,
        confirmations: u64,
    ) -> Result<Option<StrayPayment>, ChainError> {
        let manifest = self.manifest();
        let used = Filter::new()
            .address(Address::from(manifest.token))
            .event_signature(DollarToken::AuthorizationUsed::SIGNATURE_HASH)
            .topic1(Address::from(payer).into_word())
            .topic2(B256::from(nonce))
            .from_block(manifest.deployed_block);
        let Some(log) = self.logs(&used).await?.pop() else { return Ok(None) };
        let tx = Hash32::from(log.transaction_hash.unwrap_or_default());
        let Some(receipt) = self.chain().receipt(tx).await? else { return Ok(None) };
        let head = self.chain().head().await?.number;
        let block = receipt.block_number.unwrap_or(u64::MAX);
        if !receipt.status() || block.saturating_add(confirmations) > head {
            return Ok(None);
        }
        let logs = receipt.inner.logs();
        let deposited = logs.iter().any(|log| {
            log.address() == Address::from(manifest.vault)
                && log.topic0() == Some(&CreditVault::Deposited::SIGNATURE_HASH)
        });
        let moved: Vec<U256> = logs
            .iter()
            .filter(|log| log.address() == Address::from(manifest.token))
            .filter_map(|log| DollarToken::Transfer::decode_log_data(log.data()).ok())
            .filter(|moved| moved.from == Address::from(payer) && moved.to == Address::from(manifest.vault))
            .map(|moved| moved.value)
            .collect();
        let [value] = moved[..] else { return Ok(None) };
        let units: u64 = (value / U256::from(manifest.unit_base_units())).saturating_to();
        Ok((!deposited && units > 0).then_some(StrayPayment { payer, nonce, units, tx }))
    }

    /// Credits a stray payment to its payer; the settler's key. The vault takes each nonce once, and never more than it
    /// holds beyond what it owes.
    pub async fn attribute(&self, settler: &EvmKey, stray: &StrayPayment) -> Result<Mined, ChainError> {
        let call = CreditVault::attributeSurplusCall {
            account: stray.payer.into(),
            units: stray.units,
            nonce: stray.nonce.into(),
        };
        self.send(settler, "attributeSurplus", self.manifest().vault, call).await
    }
}
