//! Events about the network itself: how the log begins, who writes, what prices hold.

use crate::asset::Asset;
use crate::id::Hash32;
use crate::rate::RateCard;
use minicbor::{Decode, Encode};
use serde::Serialize;

/// The first event of every log: what the network is. All later rules refer to these settings.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct NetworkOpened {
    /// Origin of the transparency log, a schemaless URL such as `counterfoil.example/prepaid/0`.
    #[n(0)]
    pub origin: String,
    /// The preset's name.
    #[n(1)]
    pub preset: String,
    /// Hash of the preset's canonical text.
    #[n(2)]
    pub preset_hash: Hash32,
    /// The assets, in the order of their numbers.
    #[n(3)]
    pub assets: Vec<Asset>,
    /// Rules in force from the start.
    #[n(4)]
    pub settings: Settings,
}

/// Numbers that the ledger's rules use; each has its unit in its name.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct Settings {
    /// Length of a settlement period.
    #[n(0)]
    pub epoch_us: u64,
    /// How long a hold outlives its job's deadline.
    #[n(1)]
    pub hold_grace_us: u64,
    /// Longest time between dispatch and a job's deadline.
    #[n(2)]
    pub job_deadline_us_max: u64,
    /// How long a client's idempotency key is remembered; older ones are refused as `too_old`.
    #[n(3)]
    pub idempotency_us: u64,
    /// Charges below this many vault units wait for more (at most 4 epochs); 0 settles everything.
    #[n(4)]
    pub settle_units_min: u64,
    /// How long a withdrawal voucher can be used.
    #[n(5)]
    pub voucher_us: u64,
    /// Spending stops this many epochs before a spend authorisation's `valid_until`.
    #[n(6)]
    pub authorisation_margin_epochs: u32,
    /// How far a capture may go beyond its hold, in millionths of the hold; what goes beyond is paid from funds that
    /// are available then. `None` = not at all. Since version 2.
    #[n(7)]
    pub capture_tolerance_ppm: Option<u32>,
}

/// A writer took the log over. The nonce makes the terms of two writers differ even with equal clocks.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct WriterChanged {
    /// The term; grows by one.
    #[n(0)]
    pub epoch: u64,
    /// Random, drawn at boot.
    #[n(1)]
    pub nonce: Hash32,
}

/// A price list in force from its date.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct RateCardPublished {
    /// The list, whole.
    #[n(0)]
    pub card: RateCard,
    /// [`RateCard::hash`] of it.
    #[n(1)]
    pub hash: Hash32,
}
