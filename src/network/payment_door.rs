//! The gateway's till: payments of wallets without an account (x402), over the contracts room.

use super::chain_door::{unavailable, vault_ref};
use contracts::error::ChainError;
use contracts::key::EvmKey;
use contracts::x402::{
    Cashier, PaymentPayload, PaymentRequired, PaymentRequirements, Resource, VerifiedPayment,
};
use dispatcher::doors::{DoorError, DoorFuture, PaymentAsk, PaymentDoor, PaymentMade, PaymentSeen};
use protocol::asset::VaultRef;
use protocol::id::{EvmAddress, Word32};

/// How long a client's signature is to be good: confirmations and a queue have room in it.
const SIGNATURE_S: u64 = 300;

/// One vault's till.
pub struct Till {
    cashier: Cashier,
    /// Pays the gas of deposits; can do nothing else.
    relayer: EvmKey,
}

impl Till {
    /// Over the vault's cashier.
    pub fn new(cashier: Cashier, relayer: EvmKey) -> Till {
        Till { cashier, relayer }
    }

    /// What the client chose, if it is ours and enough; its signature checked at the chain's time.
    async fn checked(&self, header: &str, ask: &PaymentAsk) -> Result<VerifiedPayment, ChainError> {
        let payload = PaymentPayload::from_header(header)?;
        let offered = self.cashier.units(&payload.accepted)?;
        // More than is asked for is welcome: it is the payer's own deposit.
        let terms: PaymentRequirements = self.cashier.requirements(ask.units.max(offered), SIGNATURE_S);
        let now_s = self.cashier.deployment().chain().head().await?.timestamp;
        self.cashier.verify(&payload, &terms, now_s)
    }
}

/// What a payment's refusal is to the gateway: its client's business, or the chain's.
fn door_error(error: ChainError) -> DoorError {
    match error {
        ChainError::BadPayment { reason, .. } => DoorError::Refused(reason.to_owned()),
        error @ ChainError::Reverted { .. } => DoorError::Refused(error.to_string()),
        error => unavailable(error),
    }
}

impl PaymentDoor for Till {
    fn vault(&self) -> VaultRef {
        vault_ref(self.cashier.deployment())
    }

    fn required(&self, ask: &PaymentAsk) -> String {
        let resource = Resource {
            url: ask.url.clone(),
            description: "one chat completion; what it does not use stays yours in the vault".to_owned(),
            mime_type: "application/json".to_owned(),
        };
        let terms = self.cashier.requirements(ask.units, SIGNATURE_S);
        PaymentRequired::new(resource, terms, ask.error.clone()).to_header()
    }

    fn read<'a>(&'a self, header: &'a str, ask: &'a PaymentAsk) -> DoorFuture<'a, PaymentSeen> {
        Box::pin(async move {
            let payment = self.checked(header, ask).await.map_err(door_error)?;
            let is_used = self.cashier.is_used(payment.payer, payment.nonce).await.map_err(door_error)?;
            let payer = EvmAddress(payment.payer.0);
            Ok(PaymentSeen { payer, nonce: Word32(payment.nonce.0), is_used })
        })
    }

    fn deposit<'a>(&'a self, header: &'a str, ask: &'a PaymentAsk) -> DoorFuture<'a, PaymentMade> {
        Box::pin(async move {
            let payment = self.checked(header, ask).await.map_err(door_error)?;
            self.cashier.check(&payment).await.map_err(door_error)?;
            let mined = self.cashier.deposit(&self.relayer, &payment).await.map_err(door_error)?;
            let ordinal = self.cashier.ordinal(&mined).await.map_err(door_error)?;
            let account = self.cashier.deployment().account(payment.payer).await.map_err(door_error)?;
            Ok(PaymentMade {
                tx: Word32(mined.tx.0),
                ordinal,
                cap_units: account.cap,
                valid_until_s: account.valid_until,
                authorisation_nonce: account.authorisation_nonce,
                response: self.cashier.settled(&payment, &mined).to_header(),
            })
        })
    }
}
