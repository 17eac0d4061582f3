//! Events about holds: funds reserved for a job before it is dispatched.

use crate::amount::Amount;
use crate::asset::AssetId;
use crate::event::GrantId;
use crate::few::Few;
use crate::id::{AccountId, Hash32, HoldId, JobId, SpenderId};
use minicbor::{Decode, Encode};
use serde::Serialize;

/// A part of a hold or capture that one grant pays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct Slice {
    /// The bucket.
    #[n(0)]
    pub grant: GrantId,
    /// Its part.
    #[n(1)]
    pub amount: Amount,
}

/// Which grants pay, in consumption order; one or two, as a rule.
pub type Slices = Few<Slice, 2>;

/// The worst-case cost was reserved, slice by slice in consumption order.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct HoldPlaced {
    /// The hold.
    #[n(0)]
    pub hold: HoldId,
    /// The job it is for.
    #[n(1)]
    pub job: JobId,
    /// Who pays.
    #[n(2)]
    pub account: AccountId,
    /// In which asset.
    #[n(3)]
    pub asset: AssetId,
    /// Worst-case cost = sum of the slices.
    #[n(4)]
    pub amount: Amount,
    /// Which grants.
    #[n(5)]
    pub slices: Slices,
    /// Pinned price list.
    #[n(6)]
    pub rate_card_version: u32,
    /// Its hash.
    #[n(7)]
    pub rate_card_hash: Hash32,
    /// The model, by its name on the card.
    #[n(8)]
    pub model: String,
    /// Tokens of the prompt, as the gateway counted them.
    #[n(9)]
    pub input_units: u64,
    /// Bound on output tokens.
    #[n(10)]
    pub output_units_max: u64,
    /// When the job must have ended, microseconds UTC; the hold lives `hold_grace_us` longer.
    #[n(11)]
    pub deadline_us: u64,
    /// The key that spends, when the account caps its keys. Since version 2.
    #[n(12)]
    pub spender: Option<SpenderId>,
}

/// Why a hold was released without a charge. Numbers are stable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum VoidReason {
    /// The node vanished, failed or timed out; the consumer pays nothing.
    #[n(0)]
    OperatorFault,
    /// The receipt did not verify.
    #[n(1)]
    ReceiptInvalid,
    /// Nothing was delivered.
    #[n(2)]
    NoUsage,
    /// The node refused the job and none other took it.
    #[n(3)]
    NotAccepted,
    /// The client left before anything was delivered.
    #[n(4)]
    ClientGone,
}

/// The reservation was released.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct HoldVoided {
    /// The hold.
    #[n(0)]
    pub hold: HoldId,
    /// Why.
    #[n(1)]
    pub reason: VoidReason,
}

/// The reservation outlived its job's deadline and grace.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct HoldExpired {
    /// The hold.
    #[n(0)]
    pub hold: HoldId,
}

/// An open reservation grew, or got more time. Since version 2.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct HoldExtended {
    /// The hold.
    #[n(0)]
    pub hold: HoldId,
    /// What was added; 0 when only the time changed.
    #[n(1)]
    pub amount: Amount,
    /// Which grants pay the addition, in consumption order; they follow the hold's own slices.
    #[n(2)]
    pub slices: Slices,
    /// The new bound on output tokens, for the whole job.
    #[n(3)]
    pub output_units_max: u64,
    /// The new deadline, microseconds UTC.
    #[n(4)]
    pub deadline_us: u64,
}
