//! The commands of the economies beside deposits. Their rules stand in `economy/`.

use minicbor::{Decode, Encode};
use protocol::event::GrantId;
use protocol::id::{AccountId, BatchId, EvmAddress, JobId, Word32};

/// See [`super::CommandBody::OpenAllotmentDay`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct OpenAllotmentDay {
    /// Today or tomorrow, by its number.
    #[n(0)]
    pub day: u64,
    /// The final block at which stakes are read.
    #[n(1)]
    pub block: u64,
    /// Its hash.
    #[n(2)]
    pub block_hash: Word32,
    /// All stake at that block, 10^-6 of a token.
    #[n(3)]
    pub stake_units_total: u64,
    /// Units in the treasury that no day has reserved.
    #[n(4)]
    pub reserve_units: u64,
}

/// See [`super::CommandBody::AllotStakes`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct AllotStakes {
    /// The open day.
    #[n(0)]
    pub day: u64,
    /// Stakes at its block, at most [`crate::economy::allotment::STAKES_MAX`].
    #[n(1)]
    pub stakes: Vec<SeenStake>,
}

/// A wallet's stake as the chain had it at the day's block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct SeenStake {
    /// Whose.
    #[n(0)]
    pub account: AccountId,
    /// Whose stake.
    #[n(1)]
    pub wallet: EvmAddress,
    /// 10^-6 of a token, rounded down.
    #[n(2)]
    pub stake_units: u64,
}

/// See [`super::CommandBody::GrantSignUp`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct GrantSignUp {
    /// Whose.
    #[n(0)]
    pub account: AccountId,
}

/// See [`super::CommandBody::PublishBounty`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct PublishBounty {
    /// A model of the card in force.
    #[n(0)]
    pub model: String,
    /// Its queue's time, as measured.
    #[n(1)]
    pub queue_ms: u64,
    /// Share of its jobs on fallback hardware, as measured, millionths.
    #[n(2)]
    pub fallback_ppm: u32,
}

/// See [`super::CommandBody::StrikeOperator`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct StrikeOperator {
    /// The job; its charge was undone before.
    #[n(0)]
    pub job: JobId,
}

/// See [`super::CommandBody::MeasureService`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct MeasureService {
    /// The package's bucket.
    #[n(0)]
    pub package: GrantId,
    /// A full day of the last week.
    #[n(1)]
    pub day: u64,
    /// Requests that the package paid for.
    #[n(2)]
    pub requests: u64,
    /// Those that started within the promised time.
    #[n(3)]
    pub requests_met: u64,
}

/// See [`super::CommandBody::CloseTreasuryEpoch`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct CloseTreasuryEpoch {
    /// The new id.
    #[n(0)]
    pub batch: BatchId,
}
