//! Events about the economies beside deposits: allotment days, sign-up credit, bounties, what operators' conduct costs
//! them, service levels, and the treasury's payments. Each carries what was decided and why (`specs/economies.md`).

use crate::amount::Amount;
use crate::asset::AssetId;
use crate::event::GrantId;
use crate::event::grant::Backing;
use crate::id::{AccountId, BatchId, EvmAddress, JobId, NodeId, OperatorId, Word32};
use minicbor::{Decode, Encode};
use serde::Serialize;

/// The rules of a network's economies, in force from this event on. An absent part is an economy the network has not.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct EconomyPublished {
    /// Grows by one; the first is 1.
    #[n(0)]
    pub version: u32,
    /// Length of a day; days are numbered from 1970-01-01 UTC. Never changes.
    #[n(1)]
    pub day_us: u64,
    /// The daily allotment of stakers.
    #[n(2)]
    pub allotment: Option<AllotmentRules>,
    /// Credit for new accounts.
    #[n(3)]
    pub sign_up: Option<SignUpRules>,
    /// Multipliers on under-supplied models.
    #[n(4)]
    pub bounties: Option<BountyRules>,
    /// What operators' conduct earns and costs them.
    #[n(5)]
    pub conduct: Option<ConductRules>,
    /// What sponsors' packages promise.
    #[n(6)]
    pub packages: Option<PackageRules>,
}

/// How large a day's pool is, and who gets which part of it (rulings 3.9).
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct AllotmentRules {
    /// The asset of allotted credit, which is also the asset workers are paid in.
    #[n(0)]
    pub asset: AssetId,
    /// The stake from which an account is eligible, in 10^-6 of a token.
    #[n(1)]
    pub stake_units_min: u64,
    /// Most credit for one whole staked token, base units.
    #[n(2)]
    pub per_token_max: Amount,
    /// The pool that a shrinking usage does not go below, base units.
    #[n(3)]
    pub pool_floor: Amount,
    /// The pool that nothing goes above, base units.
    #[n(4)]
    pub pool_bound: Amount,
    /// By how much usage moves the pool a day at most, millionths.
    #[n(5)]
    pub step_ppm: u32,
    /// How much of a mean day's revenue the pool may be, millionths.
    #[n(6)]
    pub revenue_ppm: u32,
    /// Models of the included lane, sorted; empty = all.
    #[n(7)]
    pub models: Vec<String>,
    /// Jobs of one account at once in the included lane.
    #[n(8)]
    pub concurrency: u32,
    /// Requests a minute of one account in the included lane.
    #[n(9)]
    pub requests_per_minute: u32,
}

/// What a new account gets while the budget lasts.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct SignUpRules {
    /// In which asset.
    #[n(0)]
    pub asset: AssetId,
    /// For one account, once.
    #[n(1)]
    pub amount: Amount,
    /// For all accounts together, for ever.
    #[n(2)]
    pub budget: Amount,
    /// For all accounts of one day.
    #[n(3)]
    pub day_budget: Amount,
    /// When it ends after it was given.
    #[n(4)]
    pub life_us: u64,
    /// Models it pays for, sorted; empty = all.
    #[n(5)]
    pub models: Vec<String>,
}

/// When a model counts as under-supplied, and what serving it then earns more. Paid out of the platform's own share.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct BountyRules {
    /// In which asset.
    #[n(0)]
    pub asset: AssetId,
    /// For all bounties together, for ever.
    #[n(1)]
    pub budget: Amount,
    /// A longer queue is a lack of supply.
    #[n(2)]
    pub queue_ms_target: u64,
    /// A larger share of jobs on fallback hardware is a lack of supply, millionths.
    #[n(3)]
    pub fallback_ppm_target: u32,
    /// Millionths of multiplier for each millionth of lack.
    #[n(4)]
    pub gain_ppm: u32,
    /// The highest multiplier, millionths (1 000 000 = none).
    #[n(5)]
    pub multiplier_ppm_max: u32,
    /// How long a published bounty holds.
    #[n(6)]
    pub life_us: u64,
    /// What trust unlocks, from the lowest to the highest; an operator that reaches none gets no bounty.
    #[n(7)]
    pub tiers: Vec<TrustTier>,
}

/// A level of trust: all of its conditions hold.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct TrustTier {
    /// Time since the operator registered.
    #[n(0)]
    pub age_us: u64,
    /// Successes among all judged outcomes of the health window, millionths.
    #[n(1)]
    pub health_ppm: u32,
    /// The highest multiplier it unlocks, millionths.
    #[n(2)]
    pub multiplier_ppm_max: u32,
}

/// Health window, ramp, cut for switching, strikes, reserve. All follow the operator, not a registration.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct ConductRules {
    /// Days of the health window.
    #[n(0)]
    pub window_days: u32,
    /// Time from registration to full capacity.
    #[n(1)]
    pub ramp_us: u64,
    /// Part of the declared capacity at registration, millionths.
    #[n(2)]
    pub ramp_start_ppm: u32,
    /// Online time that counts as one success.
    #[n(3)]
    pub uptime_success_us: u64,
    /// Cut of the operator's share right after it switched models, millionths.
    #[n(4)]
    pub cut_ppm: u32,
    /// After this long the cut is nothing.
    #[n(5)]
    pub cut_us: u64,
    /// How often the cut falls on its way.
    #[n(6)]
    pub cut_steps: u32,
    /// With so many strikes an operator gets no more jobs.
    #[n(7)]
    pub strikes_max: u32,
    /// Part of what was earned in the last `reserve_days` that cannot be taken yet, millionths.
    #[n(8)]
    pub reserve_ppm: u32,
    /// See `reserve_ppm`; at most the health window.
    #[n(9)]
    pub reserve_days: u32,
}

/// The service level of sponsors' packages.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct PackageRules {
    /// Requests that must start within the promised time, millionths of all.
    #[n(0)]
    pub service_ppm_target: u32,
    /// The promised time to the first token.
    #[n(1)]
    pub first_token_ms_max: u64,
    /// Credit for a missed day, millionths of what the package paid that day.
    #[n(2)]
    pub credit_ppm: u32,
    /// When the credit ends after it was given.
    #[n(3)]
    pub credit_life_us: u64,
    /// Jobs at once that a package reserves.
    #[n(4)]
    pub concurrency: u32,
}

/// A day's pool was computed and opened: its inputs, and what it can cost at most.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct AllotmentDayOpened {
    /// Number of the day: its start is `day x day_us`.
    #[n(0)]
    pub day: u64,
    /// Stakes are read at this final block.
    #[n(1)]
    pub block: u64,
    /// Its hash.
    #[n(2)]
    pub block_hash: Word32,
    /// All stake at that block, 10^-6 of a token; stake below the minimum is part of it.
    #[n(3)]
    pub stake_units_total: u64,
    /// Units of the stable token in the treasury that no day has reserved.
    #[n(4)]
    pub reserve_units: u64,
    /// Mean daily revenue of the last 7 full days (fewer while the network is younger), base units.
    #[n(5)]
    pub revenue_mean_7: Amount,
    /// Mean daily usage of the last 7 full days.
    #[n(6)]
    pub usage_mean_7: Amount,
    /// Mean daily usage of the last 28 full days.
    #[n(7)]
    pub usage_mean_28: Amount,
    /// The pool of the last day before; the floor for the first.
    #[n(8)]
    pub pool_before: Amount,
    /// What usage made of it: `clamp(mean 7 / mean 28)`, millionths.
    #[n(9)]
    pub ratio_ppm: u32,
    /// The day's pool, and the most that the treasury owes for it.
    #[n(10)]
    pub pool: Amount,
}

/// A staker's part of the day. When it is above nothing, its `GrantIssued` stands before it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct StakeAllotted {
    /// The day.
    #[n(0)]
    pub day: u64,
    /// Whose.
    #[n(1)]
    pub account: AccountId,
    /// Whose stake.
    #[n(2)]
    pub wallet: EvmAddress,
    /// Its stake at the day's block, 10^-6 of a token.
    #[n(3)]
    pub stake_units: u64,
    /// What follows from it; 0 below the minimum.
    #[n(4)]
    pub amount: Amount,
    /// The bucket; `None` for nothing.
    #[n(5)]
    pub grant: Option<GrantId>,
}

/// A new account got its sign-up credit; its `GrantIssued` stands before.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct SignUpCredited {
    /// Whose.
    #[n(0)]
    pub account: AccountId,
    /// The bucket.
    #[n(1)]
    pub grant: GrantId,
    /// What is left of the day's budget.
    #[n(2)]
    pub day_left: Amount,
    /// What is left of the whole budget; below one account's amount it is exhausted.
    #[n(3)]
    pub left: Amount,
}

/// A model lacks supply: serving it earns more for a while.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct BountyPublished {
    /// The model.
    #[n(0)]
    pub model: String,
    /// Its queue's time, as measured.
    #[n(1)]
    pub queue_ms: u64,
    /// Share of its jobs on fallback hardware, as measured, millionths.
    #[n(2)]
    pub fallback_ppm: u32,
    /// The multiplier that follows, millionths; 1 000 000 ends the bounty.
    #[n(3)]
    pub multiplier_ppm: u32,
    /// Until when, microseconds UTC.
    #[n(4)]
    pub until_us: u64,
    /// What is left of the budget: no bounty is paid beyond it.
    #[n(5)]
    pub budget_left: Amount,
}

/// The platform gave an operator more of its own share of a charge.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct BountyPaid {
    /// The charged job.
    #[n(0)]
    pub job: JobId,
    /// Who served it.
    #[n(1)]
    pub operator: OperatorId,
    /// The multiplier that its trust unlocked, millionths.
    #[n(2)]
    pub multiplier_ppm: u32,
    /// Its share of what backed credit paid: the base.
    #[n(3)]
    pub base: Amount,
    /// `floor(base x (multiplier - 1))`, at most what is left of the budget.
    #[n(4)]
    pub amount: Amount,
}

/// A bounty went back with its charge; the `CaptureReversed` follows.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct BountyTakenBack {
    /// The job.
    #[n(0)]
    pub job: JobId,
    /// Who had it.
    #[n(1)]
    pub operator: OperatorId,
    /// How much.
    #[n(2)]
    pub amount: Amount,
}

/// An operator switched what it serves: its share is cut for a while.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct PayoutCutStarted {
    /// Who.
    #[n(0)]
    pub operator: OperatorId,
    /// The node by which it switched.
    #[n(1)]
    pub node: NodeId,
    /// A model that it does not serve any more.
    #[n(2)]
    pub model: String,
    /// The cut at first, millionths.
    #[n(3)]
    pub cut_ppm: u32,
    /// From here on there is none, microseconds UTC.
    #[n(4)]
    pub until_us: u64,
}

/// Why a job's share is not the rate card's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum ShareReason {
    /// The operator switched models.
    #[n(0)]
    Cut,
    /// The project's own fallback hardware served it.
    #[n(1)]
    Fallback,
}

/// The share by which a job's charges are split from here on; its first `UsageCaptured` for this operator follows.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct JobShareSet {
    /// The job.
    #[n(0)]
    pub job: JobId,
    /// Whose share.
    #[n(1)]
    pub operator: OperatorId,
    /// The rate card's, millionths.
    #[n(2)]
    pub card_share_ppm: u32,
    /// In its place, millionths.
    #[n(3)]
    pub share_ppm: u32,
    /// Why.
    #[n(4)]
    pub reason: ShareReason,
}

/// An operator is the project's own fallback hardware: its jobs pay by this share.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct FallbackMarked {
    /// Who.
    #[n(0)]
    pub operator: OperatorId,
    /// Its share of each charge, millionths, at most the rate card's; `None` = it is no fallback any more.
    #[n(1)]
    pub share_ppm: Option<u32>,
}

/// What probes and the clock say of an operator's nodes since the last such event.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct UptimeNoted {
    /// Who.
    #[n(0)]
    pub operator: OperatorId,
    /// Time that its nodes were online, added up.
    #[n(1)]
    pub online_us: u64,
    /// Probes that went well.
    #[n(2)]
    pub probes_passed: u32,
    /// Probes that did not.
    #[n(3)]
    pub probes_failed: u32,
}

/// A job did not stand up to verification: a strike, and what was earned and not taken is lost.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct OperatorStruck {
    /// Who.
    #[n(0)]
    pub operator: OperatorId,
    /// The job; its charge was undone before.
    #[n(1)]
    pub job: JobId,
    /// Strikes so far, with this one.
    #[n(2)]
    pub strikes: u32,
    /// Whether it gets no more jobs.
    #[n(3)]
    pub banned: bool,
    /// What is lost, in the order of asset and backing.
    #[n(4)]
    pub forfeited: Vec<Forfeit>,
}

/// A part of what a struck operator loses.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct Forfeit {
    /// In which asset.
    #[n(0)]
    pub asset: AssetId,
    /// What stood behind the credit it was earned from.
    #[n(1)]
    pub backing: Backing,
    /// How much.
    #[n(2)]
    pub amount: Amount,
}

/// How a package was served on a day; a missed level is credited, and the credit's `GrantIssued` stands before.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct ServiceMeasured {
    /// The package's bucket.
    #[n(0)]
    pub package: GrantId,
    /// The day.
    #[n(1)]
    pub day: u64,
    /// Its requests.
    #[n(2)]
    pub requests: u64,
    /// Those that started within the promised time.
    #[n(3)]
    pub requests_met: u64,
    /// What the package paid that day.
    #[n(4)]
    pub spent: Amount,
    /// `floor(spent x credit_ppm / 1e6)` when the level was missed, else 0.
    #[n(5)]
    pub credit: Amount,
    /// The credit's bucket.
    #[n(6)]
    pub grant: Option<GrantId>,
}

/// What workers earned from allotments since the last epoch will be paid from a day's reserve.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct TreasuryEpochClosed {
    /// The new id.
    #[n(0)]
    pub batch: BatchId,
    /// The treasury's epoch: the last one plus 1.
    #[n(1)]
    pub epoch: u64,
    /// The day whose reserve pays.
    #[n(2)]
    pub day: u64,
    /// In which asset.
    #[n(3)]
    pub asset: AssetId,
    /// Who gets what, by account.
    #[n(4)]
    pub payouts: Vec<crate::event::batch::Payout>,
}

/// The treasury paid an epoch into the workers' pot.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct TreasuryEpochPaid {
    /// Which.
    #[n(0)]
    pub batch: BatchId,
    /// The transaction.
    #[n(1)]
    pub tx: Word32,
    /// Block number.
    #[n(2)]
    pub block: u64,
    /// Units of the stable token, the sum of the epoch's payouts.
    #[n(3)]
    pub units: u64,
}
