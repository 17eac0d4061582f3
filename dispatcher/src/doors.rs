//! What the gateway needs from rooms it must not know: the chain, operators' credentials, inclusion proofs. The binary
//! brings implementations. Must not: logic.

use futures::future::BoxFuture;
use protocol::asset::VaultRef;
use protocol::id::{EvmAddress, EvmSignature, Hash32, JobId, OperatorId, Word32};
use protocol::job_message::JobBody;
use serde_json::Value;
use std::sync::Arc;

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

    /// Takes payments of wallets without an account (x402); `None` where the token cannot be paid with by signature.
    fn payments(&self) -> Option<Arc<dyn PaymentDoor>> {
        None
    }
}

/// What is asked of a wallet without an account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PaymentAsk {
    /// At least so many vault units.
    pub units: u64,
    /// What is paid for.
    pub url: String,
    /// Why the request was not served, when it tried to pay.
    pub error: Option<String>,
}

/// A payment whose terms and signature are good. Nothing has moved yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PaymentSeen {
    /// Who pays.
    pub payer: EvmAddress,
    /// The payer's nonce: one payment, once.
    pub nonce: Word32,
    /// Whether the chain has seen it used.
    pub is_used: bool,
}

/// A payment that is in a block, and what the vault lets us charge by it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PaymentMade {
    /// The transaction.
    pub tx: Word32,
    /// The deposit's place in it.
    pub ordinal: u32,
    /// The wallet's cap now, cumulative for life, vault units.
    pub cap_units: u64,
    /// Its end, seconds UTC.
    pub valid_until_s: u32,
    /// The vault's authorisation nonce of the wallet.
    pub authorisation_nonce: u64,
    /// The text of `PAYMENT-RESPONSE`.
    pub response: String,
}

/// Payments by x402: what is asked for, what came, its deposit for the payer.
pub trait PaymentDoor: Send + Sync + 'static {
    /// The vault that is paid into.
    fn vault(&self) -> VaultRef;

    /// The text of `PAYMENT-REQUIRED`.
    fn required(&self, ask: &PaymentAsk) -> String;

    /// Checks the text of `PAYMENT-SIGNATURE` against what was asked.
    fn read<'a>(&'a self, header: &'a str, ask: &'a PaymentAsk) -> DoorFuture<'a, PaymentSeen>;

    /// Deposits it for its payer; returns when that is in a block.
    fn deposit<'a>(&'a self, header: &'a str, ask: &'a PaymentAsk) -> DoorFuture<'a, PaymentMade>;
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

/// A charged answer that is to be run again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recheck {
    /// The job.
    pub job: JobId,
    /// SHA-256 of the weights that it must have run on.
    pub weights: Hash32,
    /// What was asked, with the sampling key.
    pub body: JobBody,
    /// What the receipt says came out.
    pub output_ids: Vec<u32>,
    /// The digest chain after it.
    pub chain_head: Hash32,
}

/// What came out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rechecked {
    /// The same, bit for bit.
    Same,
    /// Something else.
    Differs {
        /// The first token that differs; `None` when only the computation does.
        token: Option<u64>,
    },
}

/// Runs answers again on the canonical numerics.
pub trait ReexecutionDoor: Send + Sync + 'static {
    /// Takes as long as it takes; [`DoorError::Unavailable`] when these weights are not here.
    fn reexecute(&self, what: Recheck) -> DoorFuture<'_, Rechecked>;
}

/// Proves events to whoever holds a checkpoint.
pub trait ProofDoor: Send + Sync + 'static {
    /// Inclusion proof of a leaf and the checkpoint it leads to; `None` while no checkpoint covers it.
    fn inclusion(&self, leaf: u64) -> DoorFuture<'_, Option<Value>>;
}
