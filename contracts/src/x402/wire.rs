//! The JSON of x402 version 2 and its base64 headers. Parsing and writing; unknown fields of outsiders are passed over.

use data_encoding::BASE64;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::X402_VERSION;
use crate::error::ChainError;
use crate::fixed_bytes::{Address20, Hash32};

/// A longer header is not looked at.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// A token's EIP-712 name and version: clients sign with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenDomain {
    /// The name.
    pub name: String,
    /// The version.
    pub version: String,
}

/// One way to pay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequirements {
    /// `exact`.
    pub scheme: String,
    /// CAIP-2, as `eip155:8453`.
    pub network: String,
    /// Token base units, decimal.
    pub amount: String,
    /// The token.
    pub asset: Address20,
    /// The vault.
    pub pay_to: Address20,
    /// For how long the client's signature is to be good.
    pub max_timeout_seconds: u64,
    /// The token's domain.
    pub extra: TokenDomain,
}

/// What is paid for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// Its address.
    pub url: String,
    /// In words.
    pub description: String,
    /// What it answers with.
    pub mime_type: String,
}

/// The content of `PAYMENT-REQUIRED`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequired {
    /// 2.
    pub x402_version: u32,
    /// Why the request was not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is paid for.
    pub resource: Resource,
    /// The ways to pay.
    pub accepts: Vec<PaymentRequirements>,
}

/// The content of `PAYMENT-SIGNATURE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentPayload {
    /// 2.
    pub x402_version: u32,
    /// Which of the offered ways was chosen.
    pub accepted: PaymentRequirements,
    /// The signed transfer.
    pub payload: ExactPayload,
    /// What is paid for, as the client repeats it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Value>,
}

/// A signed EIP-3009 transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExactPayload {
    /// The signature, hex.
    pub signature: String,
    /// What was signed.
    pub authorization: Authorization,
}

/// `TransferWithAuthorization`, figures in decimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authorization {
    /// The payer.
    pub from: Address20,
    /// The vault.
    pub to: Address20,
    /// Token base units.
    pub value: String,
    /// Not good until after this time (seconds).
    pub valid_after: String,
    /// Good before this time (seconds).
    pub valid_before: String,
    /// Good once.
    pub nonce: Hash32,
}

/// The content of `PAYMENT-RESPONSE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SettleResponse {
    /// Whether the money moved.
    pub success: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_reason: Option<String>,
    /// Who paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payer: Option<Address20>,
    /// The transaction; empty without one.
    pub transaction: String,
    /// CAIP-2.
    pub network: String,
}

impl PaymentRequired {
    /// An offer of one way to pay.
    pub fn new(resource: Resource, requirements: PaymentRequirements, error: Option<String>) -> Self {
        Self { x402_version: X402_VERSION, error, resource, accepts: vec![requirements] }
    }

    /// The header's text.
    pub fn to_header(&self) -> String {
        to_header(self)
    }

    /// Reads the header's text.
    pub fn from_header(text: &str) -> Result<Self, ChainError> {
        from_header(text)
    }
}

impl PaymentPayload {
    /// The header's text.
    pub fn to_header(&self) -> String {
        to_header(self)
    }

    /// Reads the header's text. What it says is not checked here.
    pub fn from_header(text: &str) -> Result<Self, ChainError> {
        from_header(text)
    }
}

impl SettleResponse {
    /// The header's text.
    pub fn to_header(&self) -> String {
        to_header(self)
    }
}

impl ExactPayload {
    pub(super) fn signature_bytes(&self) -> Result<[u8; 65], ChainError> {
        let digits = self.signature.strip_prefix("0x").unwrap_or(&self.signature);
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok();
        bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| ChainError::BadPayment {
            reason: "invalid_exact_evm_payload_signature",
            cause: "expected the 65 bytes of a key's signature, in hex (contract wallets are not taken)"
                .to_string(),
        })
    }
}

fn to_header(content: &impl Serialize) -> String {
    BASE64.encode(&serde_json::to_vec(content).expect("it has a JSON form"))
}

fn from_header<T: DeserializeOwned>(text: &str) -> Result<T, ChainError> {
    let bad = |cause: String| ChainError::BadPayment { reason: "invalid_payload", cause };
    if text.len() > HEADER_BYTES_MAX {
        return Err(bad(format!("a header of {} bytes, at most {HEADER_BYTES_MAX} are read", text.len())));
    }
    let bytes = BASE64.decode(text.trim().as_bytes()).map_err(|error| bad(format!("no base64: {error}")))?;
    serde_json::from_slice(&bytes).map_err(|error| bad(format!("not an x402 version 2 object: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        PaymentPayload::from_header(text).expect_err("not a payment").to_string()
    }

    #[test]
    fn what_is_no_payment_is_refused_with_the_reason() {
        assert!(refused("***").contains("no base64"));
        assert!(refused(&BASE64.encode(b"{}")).contains("not an x402"));
        assert!(refused(&"A".repeat(HEADER_BYTES_MAX + 1)).contains("at most"));
        assert!(
            refused(&BASE64.encode(br#"{"x402Version":2,"payload":{"signature":1}}"#))
                .contains("not an x402")
        );
    }

    #[test]
    fn an_offer_reads_as_it_was_written() {
        let domain = TokenDomain { name: "USD Coin".to_string(), version: "2".to_string() };
        let requirements = PaymentRequirements {
            scheme: "exact".to_string(),
            network: "eip155:8453".to_string(),
            amount: "10000".to_string(),
            asset: Address20([1; 20]),
            pay_to: Address20([2; 20]),
            max_timeout_seconds: 60,
            extra: domain,
        };
        let resource = Resource {
            url: "https://example.org/v1/chat/completions".to_string(),
            description: "a prompt".to_string(),
            mime_type: "application/json".to_string(),
        };
        let offer = PaymentRequired::new(resource, requirements, None);
        let header = offer.to_header();
        assert_eq!(PaymentRequired::from_header(&header).expect("its own header"), offer);
        let json: Value =
            serde_json::from_slice(&BASE64.decode(header.as_bytes()).expect("base64")).expect("JSON");
        assert_eq!(json["x402Version"], 2);
        assert_eq!(json["accepts"][0]["payTo"], Address20([2; 20]).to_string());
        assert_eq!(json["accepts"][0]["maxTimeoutSeconds"], 60);
    }
}
