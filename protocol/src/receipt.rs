//! Receipts: what a worker signs about one attempt of one job. Commitments only; no prompt, no output.

use crate::codec::{self, CodecError};
use crate::id::{Hash32, JobId, NodeId, OperatorId, Signature64};
use crate::rate::ProofClass;
use ed25519_dalek::{Signature, Verifier, VerifyingKey};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use serde::Serialize;

/// What is prefixed to a receipt's bytes before signing; no other message of ours begins so.
pub const RECEIPT_DOMAIN: &[u8] = b"counterfoil receipt 1\0";

/// How generation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum Finish {
    /// The model's end token or a stop sequence.
    #[n(0)]
    Stop,
    /// The bound on output tokens.
    #[n(1)]
    Length,
    /// Cancelled from outside; the prefix stands.
    #[n(2)]
    Cancelled,
}

/// One attempt's result.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct Receipt {
    /// Layout, 1.
    #[n(0)]
    pub version: u32,
    /// The job.
    #[n(1)]
    pub job: JobId,
    /// The attempt.
    #[n(2)]
    pub attempt: u32,
    /// The node that ran it.
    #[n(3)]
    pub node: NodeId,
    /// Its operator, whose key signs.
    #[n(4)]
    pub operator: OperatorId,
    /// SHA-256 of the weights' file.
    #[n(5)]
    pub weights: Hash32,
    /// The numerics the output follows, `counterfoil-numerics-1`; `attested` when it follows none of ours.
    #[n(6)]
    pub numerics: String,
    /// Whether anybody can re-run it.
    #[n(7)]
    pub proof_class: ProofClass,
    /// The body's salted commitment, equal to `JobDispatched`'s.
    #[n(8)]
    pub body: Hash32,
    /// Prompt tokens.
    #[n(9)]
    pub input_tokens: u64,
    /// Output tokens.
    #[n(10)]
    pub output_tokens: u64,
    /// Salted commitment to the output ids.
    #[n(11)]
    pub output: Hash32,
    /// Digest chain after the last output token.
    #[n(12)]
    pub chain_head: Hash32,
    /// How it ended.
    #[n(13)]
    pub finish: Finish,
    /// The worker's clock, microseconds UTC; informative.
    #[n(14)]
    pub started_us: u64,
    /// The worker's clock, microseconds UTC; informative.
    #[n(15)]
    pub ended_us: u64,
    /// Software and hardware in words; informative.
    #[n(16)]
    pub backend: String,
}

/// `[receipt bytes, signature]`.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct SignedReceipt {
    /// The receipt's canonical bytes, as signed.
    #[n(0)]
    pub receipt: ByteVec,
    /// Ed25519 over [`RECEIPT_DOMAIN`] and those bytes.
    #[n(1)]
    pub signature: Signature64,
}

/// Why a receipt does not stand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not a receipt.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Not signed by the operator it names.
    #[error("receipt of {job}: the signature is not operator {operator}'s")]
    BadSignature {
        /// The job.
        job: JobId,
        /// Who should have signed.
        operator: OperatorId,
    },
}

impl Receipt {
    /// The bytes to sign: domain and canonical receipt.
    pub fn signing_bytes(receipt: &[u8]) -> Vec<u8> {
        [RECEIPT_DOMAIN, receipt].concat()
    }

    /// Signs with whatever holds the operator's key.
    pub fn sign(&self, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> SignedReceipt {
        let receipt = codec::encode(self);
        let signature = Signature64(sign(&Self::signing_bytes(&receipt)));
        SignedReceipt { receipt: receipt.into(), signature }
    }
}

impl SignedReceipt {
    /// Canonical bytes of the pair: what is stored, hashed and sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// BLAKE3 of [`SignedReceipt::to_bytes`]; `UsageCaptured` carries it.
    pub fn hash(bytes: &[u8]) -> Hash32 {
        Hash32(*blake3::hash(bytes).as_bytes())
    }

    /// Parses and checks the signature by the operator the receipt itself names; whether that operator was given the
    /// job is the caller's question.
    pub fn open(bytes: &[u8]) -> Result<Receipt, ReceiptError> {
        let signed: SignedReceipt = codec::decode("signed receipt", bytes)?;
        let receipt: Receipt = codec::decode("receipt", &signed.receipt)?;
        let bad = || ReceiptError::BadSignature { job: receipt.job, operator: receipt.operator };
        let key = VerifyingKey::from_bytes(&receipt.operator.0).map_err(|_| bad())?;
        let signature = Signature::from_bytes(&signed.signature.0);
        key.verify(&Receipt::signing_bytes(&signed.receipt), &signature).map_err(|_| bad())?;
        Ok(receipt)
    }
}
