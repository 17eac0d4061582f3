//! What is signed off-chain (EIP-712): the user's spend authorisation, which is also the sign-in, and the settler's
//! withdrawal voucher. Building, signing and checking; the only question to the chain is a contract wallet's.

use alloy::primitives::{Address, B256, Bytes, Signature};
use alloy::providers::Provider;
use alloy::sol_types::{Eip712Domain, SolCall, SolStruct, eip712_domain};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::bindings::signed;
use crate::bindings::vault::{CreditVault, ICreditVault};
use crate::chain::Chain;
use crate::error::ChainError;
use crate::fixed_bytes::Address20;
use crate::fixed_bytes::Hash32;
use crate::key::EvmKey;

/// The EIP-712 name of the vault's domain.
pub const DOMAIN_NAME: &str = "Counterfoil CreditVault";
/// The EIP-712 version of the vault's domain.
pub const DOMAIN_VERSION: &str = "1";
/// What a contract wallet answers for a good signature (ERC-1271).
const ERC1271_MAGIC: [u8; 4] = [0x16, 0x26, 0xba, 0x7e];

/// The vault and chain that a signature is for. On any other it is worthless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultDomain {
    /// The chain.
    pub chain_id: u64,
    /// The vault.
    pub vault: Address20,
}

/// A user's leave to be charged up to `max_cumulative` units in all; signing it is also signing in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpendAuthorisation {
    /// The user.
    pub account: Address20,
    /// The vault's coordinator.
    pub coordinator: Address20,
    /// The highest cumulative charge, in vault units.
    pub max_cumulative: u64,
    /// The last time (seconds) of a settlement under it.
    pub valid_until: u32,
    /// The account's authorisation nonce.
    pub nonce: u64,
    /// Hash of the server's sign-in nonce.
    pub session: Hash32,
}

/// A spend authorisation with its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedAuthorisation {
    /// What was signed.
    pub authorisation: SpendAuthorisation,
    /// The signature: 65 bytes of a key, or whatever a contract wallet wants.
    pub signature: Vec<u8>,
}

/// The settler's leave for one account to take `units` out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithdrawalVoucher {
    /// Who alone may use it.
    pub account: Address20,
    /// How much, in vault units.
    pub units: u64,
    /// The account's withdrawal nonce.
    pub nonce: u64,
    /// The last time (seconds) of its use.
    pub deadline: u32,
}

/// A voucher with the settler's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedVoucher {
    /// What was signed.
    pub voucher: WithdrawalVoucher,
    /// The settler's signature.
    pub signature: Vec<u8>,
}

impl VaultDomain {
    /// The EIP-712 domain separator.
    pub fn separator(&self) -> Hash32 {
        self.eip712().separator().into()
    }

    fn eip712(&self) -> Eip712Domain {
        eip712_domain! {
            name: DOMAIN_NAME,
            version: DOMAIN_VERSION,
            chain_id: self.chain_id,
            verifying_contract: Address::from(self.vault),
        }
    }

    fn typed_data(&self) -> Value {
        json!({
            "name": DOMAIN_NAME,
            "version": DOMAIN_VERSION,
            "chainId": self.chain_id,
            "verifyingContract": self.vault,
        })
    }
}

impl SpendAuthorisation {
    /// The digest that is signed.
    pub fn digest(&self, domain: &VaultDomain) -> [u8; 32] {
        let typed = signed::SpendAuthorisation {
            account: self.account.into(),
            coordinator: self.coordinator.into(),
            maxCumulative: self.max_cumulative,
            validUntil: self.valid_until,
            nonce: self.nonce,
            session: self.session.into(),
        };
        typed.eip712_signing_hash(&domain.eip712()).0
    }

    /// The JSON for a wallet's `eth_signTypedData_v4`.
    pub fn typed_data(&self, domain: &VaultDomain) -> Value {
        json!({
            "types": {
                "EIP712Domain": domain_fields(),
                "SpendAuthorisation": [
                    field("account", "address"),
                    field("coordinator", "address"),
                    field("maxCumulative", "uint64"),
                    field("validUntil", "uint32"),
                    field("nonce", "uint64"),
                    field("session", "bytes32"),
                ],
            },
            "primaryType": "SpendAuthorisation",
            "domain": domain.typed_data(),
            // Numbers as strings: a wallet's JavaScript would round large ones.
            "message": {
                "account": self.account,
                "coordinator": self.coordinator,
                "maxCumulative": self.max_cumulative.to_string(),
                "validUntil": self.valid_until.to_string(),
                "nonce": self.nonce.to_string(),
                "session": self.session,
            },
        })
    }

    /// Signs with a key at hand (development users).
    pub fn sign(self, key: &EvmKey, domain: &VaultDomain) -> SignedAuthorisation {
        let signature = key.sign_digest(self.digest(domain)).to_vec();
        SignedAuthorisation { authorisation: self, signature }
    }
}

impl SignedAuthorisation {
    /// Checks a key's signature without asking the chain.
    pub fn verify_key(&self, domain: &VaultDomain) -> Result<(), ChainError> {
        let digest = self.authorisation.digest(domain);
        require_signer(self.authorisation.account, digest, &self.signature)
    }

    /// Checks the signature as the vault does: the key's first, then the contract wallet's (ERC-1271).
    pub async fn verify(&self, chain: &Chain, domain: &VaultDomain) -> Result<(), ChainError> {
        let Err(by_key) = self.verify_key(domain) else { return Ok(()) };
        let digest = self.authorisation.digest(domain);
        match wallet_accepts(chain, self.authorisation.account, digest, &self.signature).await? {
            true => Ok(()),
            false => Err(by_key),
        }
    }
}

impl From<&SignedAuthorisation> for ICreditVault::SpendAuthorisation {
    fn from(signed: &SignedAuthorisation) -> Self {
        let authorisation = &signed.authorisation;
        Self {
            account: authorisation.account.into(),
            maxCumulative: authorisation.max_cumulative,
            validUntil: authorisation.valid_until,
            session: authorisation.session.into(),
            signature: signed.signature.clone().into(),
        }
    }
}

impl WithdrawalVoucher {
    /// The digest that is signed.
    pub fn digest(&self, domain: &VaultDomain) -> [u8; 32] {
        let typed = signed::WithdrawalVoucher {
            account: self.account.into(),
            units: self.units,
            nonce: self.nonce,
            deadline: self.deadline,
        };
        typed.eip712_signing_hash(&domain.eip712()).0
    }

    /// Signs with the settler's key.
    pub fn sign(self, key: &EvmKey, domain: &VaultDomain) -> SignedVoucher {
        let signature = key.sign_digest(self.digest(domain)).to_vec();
        SignedVoucher { voucher: self, signature }
    }
}

impl SignedVoucher {
    /// The call that the account sends to the vault, paying out to `to`.
    pub fn calldata(&self, to: Address20) -> Vec<u8> {
        self.call(to).abi_encode()
    }

    pub(crate) fn call(&self, to: Address20) -> CreditVault::withdrawCall {
        CreditVault::withdrawCall {
            to: to.into(),
            units: self.voucher.units,
            deadline: self.voucher.deadline,
            signature: self.signature.clone().into(),
        }
    }
}

/// Who signed a digest with a key. High-s signatures are refused, as the vault refuses them.
pub fn recover_signer(digest: [u8; 32], signature: &[u8]) -> Result<Address20, String> {
    if signature.len() != 65 {
        return Err(format!("a signature of {} bytes, not 65", signature.len()));
    }
    if !matches!(signature[64], 27 | 28) {
        return Err(format!("a signature with v = {}, not 27 or 28", signature[64]));
    }
    let signature = Signature::from_raw(signature).map_err(|error| error.to_string())?;
    if signature.normalize_s().is_some() {
        return Err("a signature with high s".to_string());
    }
    let signer = signature.recover_address_from_prehash(&B256::from(digest));
    signer.map(Address20::from).map_err(|error| error.to_string())
}

/// Asks a contract wallet whether it stands for a signature (ERC-1271). An account without code never does.
pub async fn wallet_accepts(
    chain: &Chain,
    account: Address20,
    digest: [u8; 32],
    signature: &[u8],
) -> Result<bool, ChainError> {
    let code = chain.provider().get_code_at(Address::from(account)).await;
    if code.map_err(|error| chain.rpc("eth_getCode", error))?.is_empty() {
        return Ok(false);
    }
    let wallet = signed::ContractWallet::new(account.into(), chain.provider());
    let signature = Bytes::copy_from_slice(signature);
    match wallet.isValidSignature(B256::from(digest), signature).call().await {
        Ok(answer) => Ok(answer.0 == ERC1271_MAGIC),
        Err(error) => match chain.call_failed("isValidSignature", error) {
            // The node failed: nothing is known. Anything else is the wallet's own refusal.
            failed @ ChainError::Rpc { call: "eth_call", .. } => Err(failed),
            _ => Ok(false),
        },
    }
}

fn require_signer(expected: Address20, digest: [u8; 32], signature: &[u8]) -> Result<(), ChainError> {
    match recover_signer(digest, signature) {
        Ok(signer) if signer == expected => Ok(()),
        Ok(signer) => Err(ChainError::WrongSigner { expected, got: signer.to_string() }),
        Err(what) => Err(ChainError::WrongSigner { expected, got: what }),
    }
}

fn field(name: &str, kind: &str) -> Value {
    json!({ "name": name, "type": kind })
}

fn domain_fields() -> Value {
    json!([
        field("name", "string"),
        field("version", "string"),
        field("chainId", "uint256"),
        field("verifyingContract", "address"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOMAIN: VaultDomain = VaultDomain { chain_id: 31337, vault: Address20([0xaa; 20]) };

    fn authorisation(account: Address20) -> SpendAuthorisation {
        SpendAuthorisation {
            account,
            coordinator: Address20([0x22; 20]),
            max_cumulative: 20_000_000,
            valid_until: 1_900_000_000,
            nonce: 3,
            session: Hash32([0x33; 32]),
        }
    }

    /// Computed with npm `ethers`.
    #[test]
    fn digests_are_those_of_other_libraries() {
        let digest = Hash32(authorisation(Address20([0x11; 20])).digest(&DOMAIN));
        let expected = "0x54283acdf42eacf91853e18a3cd9ce608af4c4d6dab58e3dc47517845c24c6f0";
        assert_eq!(digest.to_string(), expected);
        let account = Address20([0x11; 20]);
        let voucher = WithdrawalVoucher { account, units: 5_000_000, nonce: 4, deadline: 1_900_000_000 };
        let expected = "0x24cc382a6ab2fc61455e5d50043e0616579ab753f64cb0530f4553e7b231a0d2";
        assert_eq!(Hash32(voucher.digest(&DOMAIN)).to_string(), expected);
    }

    #[test]
    fn a_key_signs_for_itself_only_and_for_one_vault_only() {
        let key = EvmKey::development(3);
        let signed = authorisation(key.address()).sign(&key, &DOMAIN);
        signed.verify_key(&DOMAIN).expect("its own signature");
        let elsewhere = VaultDomain { chain_id: 1, ..DOMAIN };
        assert_eq!(signed.verify_key(&elsewhere).expect_err("another chain").code(), "chain_wrong_signer");
        let other = authorisation(EvmKey::development(4).address()).sign(&key, &DOMAIN);
        assert_eq!(other.verify_key(&DOMAIN).expect_err("another account").code(), "chain_wrong_signer");
    }

    #[test]
    fn malleable_and_odd_signatures_are_refused() {
        let digest = [5; 32];
        let good = EvmKey::development(0).sign_digest(digest);
        assert_eq!(recover_signer(digest, &good), Ok(EvmKey::development(0).address()));
        let parsed = Signature::from_raw(&good).expect("a signature");
        let order = alloy::primitives::U256::from_str_radix(
            "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141",
            16,
        );
        let high = Signature::new(parsed.r(), order.expect("the curve's order") - parsed.s(), !parsed.v());
        assert!(recover_signer(digest, &high.as_bytes()).expect_err("high s").contains("high s"));
        assert!(recover_signer(digest, &good[..64]).is_err());
        let mut odd = good;
        odd[64] = 0;
        assert!(recover_signer(digest, &odd).is_err());
    }

    #[test]
    fn the_wallets_json_names_what_is_signed() {
        let data = authorisation(Address20([0x11; 20])).typed_data(&DOMAIN);
        assert_eq!(data["primaryType"], "SpendAuthorisation");
        assert_eq!(data["message"]["maxCumulative"], "20000000");
        assert_eq!(data["domain"]["chainId"], 31337);
        let typed: alloy::dyn_abi::TypedData = serde_json::from_value(data).expect("EIP-712 JSON");
        let digest = typed.eip712_signing_hash().expect("a digest");
        assert_eq!(digest.0, authorisation(Address20([0x11; 20])).digest(&DOMAIN));
    }
}
