//! The gateway's door to the chain, over the contracts room.

use super::payment_door::Till;
use contracts::deployment::Deployment;
use contracts::error::ChainError;
use contracts::fixed_bytes::{Address20, Hash32};
use contracts::key::EvmKey;
use contracts::vouchers::{SignedAuthorisation, SpendAuthorisation, WithdrawalVoucher};
use dispatcher::doors::{
    AcceptedAuthorisation, AuthorisationTerms, ChainDoor, DoorError, DoorFuture, PaymentDoor, SignedVoucher,
    TypedData, VoucherTerms, WithdrawalMoment,
};
use protocol::asset::VaultRef;
use protocol::id::{EvmAddress, EvmSignature};
use serde_json::{Value, json};
use std::sync::Arc;

/// One vault's door.
pub struct VaultDoor {
    deployment: Deployment,
    /// Signs vouchers and pays for `authorise`.
    settler: EvmKey,
    confirmations: u64,
    till: Option<Arc<dyn PaymentDoor>>,
}

impl VaultDoor {
    /// Over a verified deployment.
    pub fn new(deployment: Deployment, settler: EvmKey, confirmations: u64) -> VaultDoor {
        VaultDoor { deployment, settler, confirmations, till: None }
    }

    /// Takes payments of wallets without an account too.
    pub fn with_till(mut self, till: Till) -> VaultDoor {
        self.till = Some(Arc::new(till));
        self
    }

    fn check_vault(&self, vault: VaultRef) -> Result<(), DoorError> {
        let ours = vault_ref(&self.deployment);
        if vault == ours {
            return Ok(());
        }
        Err(DoorError::Refused(format!(
            "vault {} on chain {} is not this network's; use {} on chain {}",
            vault.vault, vault.chain_id, ours.vault, ours.chain_id
        )))
    }

    fn authorisation(&self, terms: &AuthorisationTerms, nonce: u64) -> SpendAuthorisation {
        SpendAuthorisation {
            account: Address20(terms.wallet.0),
            coordinator: self.deployment.manifest().coordinator,
            max_cumulative: terms.max_cumulative_units,
            valid_until: terms.valid_until_s,
            nonce,
            session: Hash32(terms.session.0),
        }
    }
}

/// The vault of a deployment, as the log names it.
pub fn vault_ref(deployment: &Deployment) -> VaultRef {
    let manifest = deployment.manifest();
    VaultRef { chain_id: manifest.chain_id, vault: EvmAddress(manifest.vault.0) }
}

pub(super) fn unavailable(error: ChainError) -> DoorError {
    DoorError::Unavailable(error.to_string())
}

impl ChainDoor for VaultDoor {
    fn manifest(&self) -> Value {
        json!({"contracts": self.deployment.manifest(), "confirmations": self.confirmations})
    }

    fn payments(&self) -> Option<Arc<dyn PaymentDoor>> {
        self.till.clone()
    }

    fn default_vault(&self) -> Option<VaultRef> {
        Some(vault_ref(&self.deployment))
    }

    fn typed_data(&self, terms: AuthorisationTerms) -> DoorFuture<'_, TypedData> {
        Box::pin(async move {
            self.check_vault(terms.vault)?;
            let account = self.deployment.account(Address20(terms.wallet.0)).await.map_err(unavailable)?;
            let nonce = account.authorisation_nonce;
            let json = self.authorisation(&terms, nonce).typed_data(&self.deployment.domain());
            Ok(TypedData { json, nonce })
        })
    }

    fn authorise(
        &self,
        terms: AuthorisationTerms,
        nonce: u64,
        signature: EvmSignature,
    ) -> DoorFuture<'_, AcceptedAuthorisation> {
        Box::pin(async move {
            self.check_vault(terms.vault)?;
            let authorisation = self.authorisation(&terms, nonce);
            let signed = SignedAuthorisation { authorisation, signature: signature.0.to_vec() };
            let domain = self.deployment.domain();
            let verified = signed.verify(self.deployment.chain(), &domain).await;
            verified.map_err(|error| DoorError::Refused(error.to_string()))?;
            // The vault must know the cap before it is charged; anybody may tell it, so we do, and pay for it.
            let told = self.deployment.authorise(&self.settler, &[signed]).await;
            told.map_err(unavailable)?;
            Ok(AcceptedAuthorisation { signature: Some(signature), nonce })
        })
    }

    fn withdrawal_moment(&self, vault: VaultRef, wallet: EvmAddress) -> DoorFuture<'_, WithdrawalMoment> {
        Box::pin(async move {
            self.check_vault(vault)?;
            let account = self.deployment.account(Address20(wallet.0)).await.map_err(unavailable)?;
            let head = self.deployment.chain().head().await.map_err(unavailable)?;
            Ok(WithdrawalMoment { nonce: account.withdrawal_nonce, chain_time_s: head.timestamp })
        })
    }

    fn sign_voucher(&self, terms: VoucherTerms) -> DoorFuture<'_, SignedVoucher> {
        Box::pin(async move {
            self.check_vault(terms.vault)?;
            let deadline = u32::try_from(terms.deadline_s);
            let deadline =
                deadline.map_err(|_| DoorError::Refused("the deadline is beyond 2106".to_owned()))?;
            let voucher = WithdrawalVoucher {
                account: Address20(terms.wallet.0),
                units: terms.units,
                nonce: terms.nonce,
                deadline,
            };
            let signed = voucher.sign(&self.settler, &self.deployment.domain());
            let calldata = signed.calldata(Address20(terms.to.0));
            let bytes: [u8; 65] = signed.signature.as_slice().try_into().map_err(|_| {
                DoorError::Unavailable("the settler's signature has not 65 bytes: a bug of ours".to_owned())
            })?;
            let contract = EvmAddress(self.deployment.manifest().vault.0);
            Ok(SignedVoucher { signature: EvmSignature(bytes), contract, calldata })
        })
    }
}
