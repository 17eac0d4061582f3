//! What the gateway needs from rooms it must not know: the chain, operators' credentials, inclusion proofs. The binary
//! brings implementations. Must not: logic.

use futures::future::BoxFuture;
use protocol::asset::VaultRef;
use protocol::id::{EvmAddress, EvmSignature, Hash32, OperatorId};
use serde_json::Value;

/// An answer that takes time.
pub type DoorFuture<'a, T> = BoxFuture<'a, Result<T, DoorError>>;

/// Why a door did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DoorError {
    /// What was asked is wrong; the caller can do something about it.
    #[error("{0}")]
    Refused(String),
    /// Not now: the chain or a signer cannot be reached.
    #[error("{0}")]
    Unavailable(String),
}

/// What a wallet is to sign, or has signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthorisationTerms {
    /// Where the funds lie.
    pub vault: VaultRef,
    /// Whose.
    pub wallet: EvmAddress,
    /// Cumulative for life, vault units.
    pub max_cumulative_units: u64,
    /// Seconds UTC.
    pub valid_until_s: u32,
    /// Hash of our sign-in nonce.
    pub session: Hash32,
}

/// EIP-712 typed data for a wallet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TypedData {
    /// As `eth_signTypedData_v4` takes it.
    pub json: Value,
    /// The vault's nonce of the wallet that is in it.
    pub nonce: u64,
}

/// A signature that the chain's rules accept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AcceptedAuthorisation {
    /// For the log; `None` when a contract wallet's authorisation was read from the chain.
    pub signature: Option<EvmSignature>,
    /// The vault's nonce it holds for.
    pub nonce: u64,
}

/// What the chain says about a wallet's withdrawals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WithdrawalMoment {
    /// The next unused nonce.
    pub nonce: u64,
    /// The newest block's time, seconds UTC: deadlines follow it, not our clock.
    pub chain_time_s: u64,
}

/// What a withdrawal voucher says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VoucherTerms {
    /// From where.
    pub vault: VaultRef,
    /// Who may use it.
    pub wallet: EvmAddress,
    /// Where the funds go.
    pub to: EvmAddress,
    /// Vault units.
    pub units: u64,
    /// The wallet's withdrawal nonce.
    pub nonce: u64,
    /// Seconds UTC on the chain's clock.
    pub deadline_s: u64,
}

/// A voucher that the vault accepts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedVoucher {
    /// The settler's signature.
    pub signature: EvmSignature,
    /// The contract to call.
    pub contract: EvmAddress,
    /// The call's data.
    pub calldata: Vec<u8>,
}

/// The chain, as far as the API needs it.
pub trait ChainDoor: Send + Sync + 'static {
    /// Chain ids, contracts, token, confirmations: what a client needs to deposit and to leave without us.
    fn manifest(&self) -> Value;

    /// The vault that is meant when a request names none.
    fn default_vault(&self) -> Option<VaultRef>;

    /// What the wallet shall sign.
    fn typed_data(&self, terms: AuthorisationTerms) -> DoorFuture<'_, TypedData>;

    /// Verifies the signature (ECDSA, else ERC-1271) and hands it to the chain when that is this network's way. Returns
    /// when the cap may be counted on.
    fn authorise(
        &self,
        terms: AuthorisationTerms,
        nonce: u64,
        signature: EvmSignature,
    ) -> DoorFuture<'_, AcceptedAuthorisation>;

    /// Nonce and time for a voucher.
    fn withdrawal_moment(&self, vault: VaultRef, wallet: EvmAddress) -> DoorFuture<'_, WithdrawalMoment>;

    /// Signs a voucher whose amount the ledger has reserved.
    fn sign_voucher(&self, terms: VoucherTerms) -> DoorFuture<'_, SignedVoucher>;
}

/// What an operator connects with.
#[derive(Clone, PartialEq, Eq)]
pub struct OperatorCredentials {
    /// The user JWT for its NKEY; useless without the seed, which the operator alone has.
    pub jwt: String,
    /// Where to connect.
    pub nats_url: String,
}

/// Issues credentials at registration.
pub trait OperatorIssuer: Send + Sync + 'static {
    /// Credentials that reach the operator's own subjects only.
    fn issue(&self, operator: &OperatorId) -> DoorFuture<'_, OperatorCredentials>;
}

/// Proves events to whoever holds a checkpoint.
pub trait ProofDoor: Send + Sync + 'static {
    /// Inclusion proof of a leaf and the checkpoint it leads to; `None` while no checkpoint covers it.
    fn inclusion(&self, leaf: u64) -> DoorFuture<'_, Option<Value>>;
}
