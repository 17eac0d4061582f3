//! Private keys of the chain's accounts: settler, coordinator, development users. Never printed, never logged.

use std::fmt;

use alloy::network::TxSignerSync;
use alloy::primitives::B256;
use alloy::signers::SignerSync;
use alloy::signers::local::{MnemonicBuilder, PrivateKeySigner, coins_bip39::English};

use crate::error::ChainError;
use crate::fixed_bytes::Address20;

/// The phrase that every development chain of this kind starts with. Its accounts are public knowledge.
const DEVELOPMENT_PHRASE: &str = "test test test test test test test test test test test junk";

/// A secp256k1 key that signs transactions and typed data.
#[derive(Clone)]
pub struct EvmKey(PrivateKeySigner);

impl EvmKey {
    /// A key from its 32 bytes.
    pub fn from_bytes(secret: [u8; 32]) -> Result<Self, ChainError> {
        let signer = PrivateKeySigner::from_bytes(&B256::from(secret));
        signer.map(Self).map_err(|cause| ChainError::BadKey { cause: cause.to_string() })
    }

    /// A key from 64 hex digits, with or without `0x` and surrounding white space: the content of a key file.
    pub fn from_hex(text: &str) -> Result<Self, ChainError> {
        // The cause must not repeat the text: it may be most of a secret.
        let wrong = |_| ChainError::BadKey { cause: "expected 64 hex digits".to_string() };
        text.trim().parse::<B256>().map_err(wrong).and_then(|secret| Self::from_bytes(secret.0))
    }

    /// A fresh key from the operating system's randomness.
    pub fn generate() -> Result<Self, ChainError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|cause| ChainError::BadKey { cause: cause.to_string() })?;
        Self::from_bytes(secret)
    }

    /// Account `index` of the development phrase: known to everybody, funded on every development chain.
    pub fn development(index: u32) -> Self {
        let built = MnemonicBuilder::<English>::default().phrase(DEVELOPMENT_PHRASE).index(index);
        let signer = built.and_then(|builder| builder.build());
        Self(signer.expect("the development phrase is valid and any index derives"))
    }

    /// The key's address.
    pub fn address(&self) -> Address20 {
        self.0.address().into()
    }

    /// The key's 32 bytes, for writing a key file.
    pub fn secret_bytes(&self) -> [u8; 32] {
        self.0.to_bytes().0
    }

    /// Signs a digest: r, s, v as wallets give it (v = 27 or 28).
    pub fn sign_digest(&self, digest: [u8; 32]) -> [u8; 65] {
        let signature = self.0.sign_hash_sync(&B256::from(digest));
        signature.expect("a local key signs any digest").as_bytes()
    }

    pub(crate) fn transaction_signer(&self) -> &impl TxSignerSync<alloy::primitives::Signature> {
        &self.0
    }
}

impl fmt::Debug for EvmKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "EvmKey({})", self.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn development_accounts_are_the_well_known_ones() {
        let first = EvmKey::development(0);
        assert_eq!(first.address().to_string(), "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
        let second = EvmKey::development(1);
        assert_eq!(second.address().to_string(), "0x70997970C51812dc3A010C7d01b50e0d17dc79C8");
    }

    #[test]
    fn neither_debug_nor_errors_show_a_secret() {
        let key = EvmKey::from_bytes([7; 32]).expect("a key");
        assert!(!format!("{key:?}").contains("0707"));
        let error = EvmKey::from_hex("07070707").expect_err("too short");
        assert!(!error.to_string().contains("0707"));
    }
}
