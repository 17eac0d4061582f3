//! x402 version 2, scheme `exact` on EVM: a wallet without an account pays by signing an EIP-3009 transfer to the vault.
//! What is offered, what a client's header must hold, whether it is signed, and its deposit. Which request it pays for is
//! the gateway's business.

mod wire;

use alloy::primitives::{Address, B256, U256};
use alloy::sol_types::{Eip712Domain, SolStruct, eip712_domain};

use crate::bindings::dollar::DollarToken;
use crate::bindings::signed;
use crate::bindings::vault::{CreditVault, ICreditVault};
use crate::chain::Mined;
use crate::deployment::Deployment;
use crate::error::ChainError;
use crate::event::ChainFact;
use crate::fixed_bytes::{Address20, Hash32};
use crate::key::EvmKey;
use crate::reader::ChainReader;
use crate::vouchers::recover_signer;

pub use wire::{
    Authorization, ExactPayload, PaymentPayload, PaymentRequired, PaymentRequirements, Resource,
    SettleResponse, TokenDomain,
};

/// The header of a 402 answer that says what to pay.
pub const PAYMENT_REQUIRED_HEADER: &str = "payment-required";
/// The header of a request that pays.
pub const PAYMENT_SIGNATURE_HEADER: &str = "payment-signature";
/// The header of an answer that says what was paid.
pub const PAYMENT_RESPONSE_HEADER: &str = "payment-response";
/// The protocol's version.
pub const X402_VERSION: u32 = 2;
/// The only scheme that is offered.
pub const SCHEME: &str = "exact";
/// A payment must stay good for this long after it was checked: it still has to get into a block.
const TIME_TO_MINE_S: u64 = 6;

/// Takes payments into one vault.
#[derive(Debug, Clone)]
pub struct Cashier {
    deployment: Deployment,
    domain: TokenDomain,
}

/// A payment whose terms and signature are good. Nothing has moved yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedPayment {
    /// Who pays; the account that is credited.
    pub payer: Address20,
    /// Vault units.
    pub units: u64,
    /// The payer's nonce: one payment.
    pub nonce: Hash32,
    /// The payment is void from this time (seconds) on.
    pub valid_before: u64,
    authorization: Authorization,
    signature: [u8; 65],
}

impl Cashier {
    /// Refuses a token domain that is not the token's own: clients would sign for nothing.
    pub async fn open(deployment: Deployment, domain: TokenDomain) -> Result<Self, ChainError> {
        let token = DollarToken::new(deployment.manifest().token.into(), deployment.chain().provider());
        let got = token.DOMAIN_SEPARATOR().call().await;
        let got = got.map_err(|error| deployment.chain().call_failed("DOMAIN_SEPARATOR", error))?;
        let cashier = Self { deployment, domain };
        let expected = cashier.eip712().separator();
        if expected != got {
            let what = "the token's EIP-712 domain";
            return Err(ChainError::WrongWiring {
                what,
                expected: expected.to_string(),
                got: got.to_string(),
            });
        }
        Ok(cashier)
    }

    /// With the domain that the vault's token names itself (EIP-5267); `None` for a token without signed transfers.
    pub async fn of_token(deployment: Deployment) -> Result<Option<Self>, ChainError> {
        let token = DollarToken::new(deployment.manifest().token.into(), deployment.chain().provider());
        let domain = token.eip712Domain().call().await;
        let state = token.authorizationState(Address::ZERO, B256::ZERO).call().await;
        match (domain, state) {
            (Ok(named), Ok(_)) => {
                let domain = TokenDomain { name: named.name, version: named.version };
                Self::open(deployment, domain).await.map(Some)
            }
            (Err(error), _) | (_, Err(error)) => {
                match deployment.chain().call_failed("eip712Domain", error) {
                    failed @ ChainError::Rpc { call: "eth_call", .. } => Err(failed),
                    _ => Ok(None),
                }
            }
        }
    }

    /// Where payments go.
    pub fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// Vault units of an offer's amount; an error for one that is no whole figure of them.
    pub fn units(&self, offered: &PaymentRequirements) -> Result<u64, ChainError> {
        let base = figure("amount", &offered.amount)?;
        let unit = U256::from(self.deployment.manifest().unit_base_units());
        let whole = u64::try_from(base / unit).ok().filter(|units| *units > 0 && (base % unit).is_zero());
        whole.ok_or_else(|| ChainError::BadPayment {
            reason: "invalid_payment_requirements",
            cause: format!("expected whole vault units of {unit}, got {base}"),
        })
    }

    /// Whether a payer's nonce was used, in the newest block.
    pub async fn is_used(&self, payer: Address20, nonce: Hash32) -> Result<bool, ChainError> {
        let chain = self.deployment.chain();
        let token = DollarToken::new(self.deployment.manifest().token.into(), chain.provider());
        let used = token.authorizationState(Address::from(payer), nonce.into()).call().await;
        used.map_err(|error| chain.call_failed("authorizationState", error))
    }

    /// What a client is asked to sign for so many units.
    pub fn requirements(&self, units: u64, timeout_s: u64) -> PaymentRequirements {
        let manifest = self.deployment.manifest();
        PaymentRequirements {
            scheme: SCHEME.to_string(),
            network: network(manifest.chain_id),
            amount: self.deployment.base_units(units).to_string(),
            asset: manifest.token,
            pay_to: manifest.vault,
            max_timeout_seconds: timeout_s,
            extra: self.domain.clone(),
        }
    }

    /// Checks a client's payment against what was asked, at a time in seconds (the chain's), without asking the chain.
    pub fn verify(
        &self,
        payload: &PaymentPayload,
        asked: &PaymentRequirements,
        now_s: u64,
    ) -> Result<VerifiedPayment, ChainError> {
        require("invalid_x402_version", X402_VERSION, payload.x402_version)?;
        require("invalid_scheme", asked.scheme.as_str(), payload.accepted.scheme.as_str())?;
        require("invalid_network", asked.network.as_str(), payload.accepted.network.as_str())?;
        require("invalid_payment_requirements", asked.asset, payload.accepted.asset)?;
        require("invalid_payment_requirements", asked.pay_to, payload.accepted.pay_to)?;
        require("invalid_payment_requirements", asked.amount.as_str(), payload.accepted.amount.as_str())?;
        let authorization = &payload.payload.authorization;
        require("invalid_exact_evm_payload_recipient_mismatch", asked.pay_to, authorization.to)?;
        require(
            "invalid_exact_evm_payload_authorization_value",
            asked.amount.as_str(),
            authorization.value.as_str(),
        )?;
        let value = figure("value", &authorization.value)?;
        let valid_after = figure("validAfter", &authorization.valid_after)?;
        let valid_before = figure("validBefore", &authorization.valid_before)?;
        if valid_after >= U256::from(now_s) {
            return bad("invalid_exact_evm_payload_authorization_valid_after", valid_after, now_s);
        }
        if valid_before <= U256::from(now_s + TIME_TO_MINE_S) {
            return bad("invalid_exact_evm_payload_authorization_valid_before", valid_before, now_s);
        }
        let signature = payload.payload.signature_bytes()?;
        let digest = self.digest(authorization, value, valid_after, valid_before);
        let signer = recover_signer(digest, &signature).map_err(|cause| ChainError::BadPayment {
            reason: "invalid_exact_evm_payload_signature",
            cause,
        })?;
        require("invalid_exact_evm_payload_signature", authorization.from, signer)?;
        let unit = U256::from(self.deployment.manifest().unit_base_units());
        Ok(VerifiedPayment {
            payer: authorization.from,
            units: (value / unit).saturating_to(),
            nonce: authorization.nonce,
            valid_before: valid_before.saturating_to(),
            authorization: authorization.clone(),
            signature,
        })
    }

    /// Asks the chain whether the deposit would succeed now: funds are there, the nonce is open, no exit is pending.
    pub async fn check(&self, payment: &VerifiedPayment) -> Result<(), ChainError> {
        let chain = self.deployment.chain();
        let token = DollarToken::new(self.deployment.manifest().token.into(), chain.provider());
        let payer = Address::from(payment.payer);
        if self.is_used(payment.payer, payment.nonce).await? {
            return bad("invalid_exact_evm_nonce_already_used", "an open nonce", payment.nonce);
        }
        let held = token.balanceOf(payer).call().await;
        let held = held.map_err(|error| chain.call_failed("balanceOf", error))?;
        let asked = self.deployment.base_units(payment.units);
        if held < asked {
            return bad("insufficient_funds", asked, held);
        }
        if self.deployment.account(payment.payer).await?.exit_at.is_some() {
            return bad("exit_pending", "an account that stays", payment.payer);
        }
        Ok(())
    }

    /// Deposits a payment for its payer; any key with coin for gas. Sent twice it moves the money once: the second fails.
    pub async fn deposit(&self, key: &EvmKey, payment: &VerifiedPayment) -> Result<Mined, ChainError> {
        let call = CreditVault::depositWithTransferAuthorisationCall { signed: self.signed(payment)? };
        self.deployment
            .send(key, "depositWithTransferAuthorisation", self.deployment.manifest().vault, call)
            .await
    }

    /// The place of a deposit among the logs of its transaction: with the transaction it names the deposit for ever.
    pub async fn ordinal(&self, mined: &Mined) -> Result<u32, ChainError> {
        let events = self.deployment.events(mined.block, mined.block).await?;
        let ours = events.iter().find(|event| {
            event.origin.key.tx == mined.tx && matches!(event.fact, ChainFact::Deposited { .. })
        });
        let missing = || self.deployment.chain().failed("eth_getLogs", format!("no deposit in {}", mined.tx));
        Ok(ours.ok_or_else(missing)?.origin.key.ordinal)
    }

    /// What the client is told of a deposit that is in a block.
    pub fn settled(&self, payment: &VerifiedPayment, mined: &Mined) -> SettleResponse {
        SettleResponse {
            success: true,
            error_reason: None,
            payer: Some(payment.payer),
            transaction: mined.tx.to_string(),
            network: network(self.deployment.manifest().chain_id),
        }
    }

    fn signed(&self, payment: &VerifiedPayment) -> Result<ICreditVault::TransferAuthorisation, ChainError> {
        let authorization = &payment.authorization;
        Ok(ICreditVault::TransferAuthorisation {
            from: payment.payer.into(),
            value: figure("value", &authorization.value)?,
            validAfter: figure("validAfter", &authorization.valid_after)?,
            validBefore: figure("validBefore", &authorization.valid_before)?,
            nonce: payment.nonce.into(),
            v: payment.signature[64],
            r: B256::from_slice(&payment.signature[..32]),
            s: B256::from_slice(&payment.signature[32..64]),
        })
    }

    fn eip712(&self) -> Eip712Domain {
        let manifest = self.deployment.manifest();
        eip712_domain! {
            name: self.domain.name.clone(),
            version: self.domain.version.clone(),
            chain_id: manifest.chain_id,
            verifying_contract: Address::from(manifest.token),
        }
    }

    fn digest(
        &self,
        authorization: &Authorization,
        value: U256,
        valid_after: U256,
        valid_before: U256,
    ) -> [u8; 32] {
        let typed = signed::TransferWithAuthorization {
            from: authorization.from.into(),
            to: authorization.to.into(),
            value,
            validAfter: valid_after,
            validBefore: valid_before,
            nonce: authorization.nonce.into(),
        };
        typed.eip712_signing_hash(&self.eip712()).0
    }
}

/// A chain's name in CAIP-2.
pub fn network(chain_id: u64) -> String {
    format!("eip155:{chain_id}")
}

fn figure(what: &str, text: &str) -> Result<U256, ChainError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = digits && (text == "0" || !text.starts_with('0'));
    let parsed = if canonical { U256::from_str_radix(text, 10).ok() } else { None };
    parsed.ok_or_else(|| ChainError::BadPayment {
        reason: "invalid_payload",
        cause: format!("{what}: expected a decimal figure, got {text:?}"),
    })
}

fn require<T: PartialEq + ToString>(reason: &'static str, expected: T, got: T) -> Result<(), ChainError> {
    if expected == got { Ok(()) } else { bad(reason, expected, got) }
}

fn bad<T>(reason: &'static str, expected: impl ToString, got: impl ToString) -> Result<T, ChainError> {
    let cause = format!("expected {}, got {}", expected.to_string(), got.to_string());
    Err(ChainError::BadPayment { reason, cause })
}
