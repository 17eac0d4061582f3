//! Events: what happened, for ever. One family a file. An event's bytes are a leaf of the transparency log; they are
//! written once and never re-encoded. Must not: rules of money (those are the ledger's).

pub mod account;
pub mod batch;
pub mod chain;
pub mod economy;
pub mod grant;
pub mod hold;
pub mod job;
pub mod node;
pub mod policy;

use crate::amount::Amount;
use crate::few::Few;
use crate::id::{AccountId, IdempotencyKey, OperatorId};
use minicbor::{Decode, Encode};
use serde::Serialize;

/// The version of the event layout that is written today. Version 2 added kinds 14-16, 32, 33, 43 and 75-91 and the trailing
/// optional fields of `Settings`, `HoldPlaced` and `UsageCaptured`; version 1 is read for ever (`codec::decode_event`).
pub const EVENT_VERSION: u32 = 2;

/// Largest event in bytes; entry bundles of the transparency log carry 16-bit lengths.
pub const EVENT_BYTES_MAX: usize = 60 * 1024;

/// A dense ledger account number, assigned by `LedgerAccountsOpened`; 0 is the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode, Serialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct LedgerAccount(#[n(0)] pub u32);

/// A dense grant number, assigned by the event that opens the bucket; 0 is the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode, Serialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct GrantId(#[n(0)] pub u32);

/// Who caused an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(flat)]
pub enum Actor {
    /// The writer itself: terms, expiry.
    #[n(0)]
    Writer,
    /// The network's administration.
    #[n(1)]
    Admin,
    /// A customer, through a gateway.
    #[n(2)]
    Account(#[n(0)] AccountId),
    /// A gateway on its own behalf.
    #[n(3)]
    Gateway,
    /// The chain watcher.
    #[n(4)]
    Watcher,
    /// The settler.
    #[n(5)]
    Settler,
    /// An operator, through its worker or the API.
    #[n(6)]
    Operator(#[n(0)] OperatorId),
    /// The verifier that re-executes samples.
    #[n(7)]
    Verifier,
}

/// What every event carries inside its own bytes, so that the transparency log covers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct Header {
    /// Shard of the log.
    #[n(0)]
    pub shard: u32,
    /// Leaf index in the transparency log: the order of events.
    #[n(1)]
    pub leaf: u64,
    /// The commit it belongs to; equals the stream sequence.
    #[n(2)]
    pub commit: u64,
    /// Microseconds UTC, never going back.
    #[n(3)]
    pub time_us: u64,
    /// Who caused it.
    #[n(4)]
    pub actor: Actor,
    /// The command's key: all events of one command share it.
    #[n(5)]
    pub key: IdempotencyKey,
    /// Fingerprint of the command's body, as the ledger makes it: "same key, other body" is a conflict that replay
    /// rebuilds. Commands are not in the log, so nobody else can or need make it.
    #[n(6)]
    pub command: u64,
}

/// One leg: `amount` base units of the ledger account's asset; positive debits, negative credits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct Posting {
    /// Which ledger account.
    #[n(0)]
    pub account: LedgerAccount,
    /// How much.
    #[n(1)]
    pub amount: Amount,
}

/// The legs of an event, two to four as a rule.
pub type Legs = Few<Posting, 4>;

/// One event.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct Event {
    /// Layout version, [`EVENT_VERSION`].
    #[n(0)]
    pub version: u32,
    /// Where, when, who.
    #[n(1)]
    pub header: Header,
    /// What.
    #[n(2)]
    pub body: EventBody,
    /// Legs that are booked; they sum to zero per asset.
    #[n(3)]
    pub postings: Legs,
    /// Legs that only reserve (holds and their release); they sum to zero per asset.
    #[n(4)]
    pub pending: Legs,
}

/// Declares the body enum once, with its stable number, its FEED name and its payload.
macro_rules! bodies {
    ($($(#[$doc:meta])* $number:literal $name:ident = $feed:literal ($payload:ty),)*) => {
        /// Every kind of event. The numbers are stable and never reused.
        #[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
        #[serde(tag = "type", content = "data", rename_all = "snake_case")]
        #[cbor(flat)]
        pub enum EventBody {
            $($(#[$doc])* #[n($number)] $name(#[n(0)] $payload),)*
        }
        impl EventBody {
            /// The name on FEED subjects, in CloudEvents types and in exports.
            pub fn kind(&self) -> &'static str {
                match self { $(EventBody::$name(_) => $feed,)* }
            }
            /// Every kind there is.
            pub const KINDS: &'static [&'static str] = &[$($feed),*];
        }
        $(impl From<$payload> for EventBody {
            fn from(payload: $payload) -> Self { EventBody::$name(payload) }
        })*
    };
}

bodies! {
    /// The log begins.
    1 NetworkOpened = "network_opened" (policy::NetworkOpened),
    /// A writer took over.
    2 WriterChanged = "writer_changed" (policy::WriterChanged),
    /// A rate card was published.
    3 RateCardPublished = "rate_card_published" (policy::RateCardPublished),
    /// A vault was registered.
    4 VaultRegistered = "vault_registered" (chain::VaultRegistered),
    /// An account was opened.
    10 AccountOpened = "account_opened" (account::AccountOpened),
    /// Ledger accounts got their numbers.
    11 LedgerAccountsOpened = "ledger_accounts_opened" (account::LedgerAccountsOpened),
    /// A wallet was linked and authorised spending.
    12 SpendAuthorised = "spend_authorised" (account::SpendAuthorised),
    /// An account was closed.
    13 AccountClosed = "account_closed" (account::AccountClosed),
    /// A key's spending got a cap, or lost it.
    14 SpendCapSet = "spend_cap_set" (account::SpendCapSet),
    /// An account may owe up to a limit.
    15 CreditLineSet = "credit_line_set" (account::CreditLineSet),
    /// What was drawn from a credit line was paid, outside the ledger.
    16 CreditRepaid = "credit_repaid" (account::CreditRepaid),
    /// A deposit reached its confirmations.
    20 DepositConfirmed = "deposit_confirmed" (chain::DepositConfirmed),
    /// A deposit of an unknown wallet found its account.
    21 DepositAttributed = "deposit_attributed" (chain::DepositAttributed),
    /// A deposit vanished in a reorganisation.
    22 DepositReversed = "deposit_reversed" (chain::DepositReversed),
    /// A user asked the vault to leave without us.
    23 ExitRequested = "exit_requested" (chain::ExitRequested),
    /// The exit was cancelled.
    24 ExitCancelled = "exit_cancelled" (chain::ExitCancelled),
    /// The exit was carried out.
    25 ExitFinalised = "exit_finalised" (chain::ExitFinalised),
    /// A withdrawal voucher was issued; its amount is reserved.
    26 VoucherIssued = "voucher_issued" (chain::VoucherIssued),
    /// The voucher was used on the chain.
    27 VoucherRedeemed = "voucher_redeemed" (chain::VoucherRedeemed),
    /// The voucher can no longer be used.
    28 VoucherLapsed = "voucher_lapsed" (chain::VoucherLapsed),
    /// A checkpoint was anchored between settlements.
    29 CheckpointAnchored = "checkpoint_anchored" (chain::CheckpointAnchored),
    /// Credit was granted.
    30 GrantIssued = "grant_issued" (grant::GrantIssued),
    /// A grant expired; what was left is breakage.
    31 GrantExpired = "grant_expired" (grant::GrantExpired),
    /// Credit moved from one bucket to another.
    32 CreditMoved = "credit_moved" (grant::CreditMoved),
    /// What an operator earned by credit that no vault backs became spendable.
    33 EarningsTaken = "earnings_taken" (grant::EarningsTaken),
    /// Funds were reserved for a job.
    40 HoldPlaced = "hold_placed" (hold::HoldPlaced),
    /// A reservation was released without a charge.
    41 HoldVoided = "hold_voided" (hold::HoldVoided),
    /// A reservation ran out.
    42 HoldExpired = "hold_expired" (hold::HoldExpired),
    /// A reservation grew, or got more time.
    43 HoldExtended = "hold_extended" (hold::HoldExtended),
    /// A job was given to a node.
    50 JobDispatched = "job_dispatched" (job::JobDispatched),
    /// A job was charged.
    51 UsageCaptured = "usage_captured" (job::UsageCaptured),
    /// A charge was undone.
    52 CaptureReversed = "capture_reversed" (job::CaptureReversed),
    /// An operator registered.
    60 OperatorRegistered = "operator_registered" (node::OperatorRegistered),
    /// A node registered.
    61 NodeRegistered = "node_registered" (node::NodeRegistered),
    /// A node left.
    62 NodeRetired = "node_retired" (node::NodeRetired),
    /// A batch got its cut-off, charges and payouts.
    70 BatchClosed = "batch_closed" (batch::BatchClosed),
    /// A batch got its roots and commitment and may be sent.
    71 BatchSubmitted = "batch_submitted" (batch::BatchSubmitted),
    /// A batch is final on the chain.
    72 BatchConfirmed = "batch_confirmed" (batch::BatchConfirmed),
    /// A batch will not be sent as it was; its amounts wait again.
    73 BatchFailed = "batch_failed" (batch::BatchFailed),
    /// An operator's claim was paid by the pot.
    74 PayoutClaimed = "payout_claimed" (batch::PayoutClaimed),
    /// A stuck transaction of a batch was replaced.
    75 BatchReplaced = "batch_replaced" (batch::BatchReplaced),
    /// A vault's holdings were compared with what it owes.
    76 SolvencyChecked = "solvency_checked" (chain::SolvencyChecked),
    /// The rules of the economies came into force.
    77 EconomyPublished = "economy_published" (economy::EconomyPublished),
    /// A day's pool was computed and opened.
    78 AllotmentDayOpened = "allotment_day_opened" (economy::AllotmentDayOpened),
    /// A staker got its part of the day.
    79 StakeAllotted = "stake_allotted" (economy::StakeAllotted),
    /// A new account got its sign-up credit.
    80 SignUpCredited = "sign_up_credited" (economy::SignUpCredited),
    /// Serving a model earns more for a while.
    81 BountyPublished = "bounty_published" (economy::BountyPublished),
    /// The platform paid a bounty from its own share.
    82 BountyPaid = "bounty_paid" (economy::BountyPaid),
    /// A bounty went back with its charge.
    83 BountyTakenBack = "bounty_taken_back" (economy::BountyTakenBack),
    /// An operator switched models: its share is cut for a while.
    84 PayoutCutStarted = "payout_cut_started" (economy::PayoutCutStarted),
    /// A job's charges are split by another share than the card's.
    85 JobShareSet = "job_share_set" (economy::JobShareSet),
    /// An operator is fallback hardware, or is not any more.
    86 FallbackMarked = "fallback_marked" (economy::FallbackMarked),
    /// Probes and online time of an operator.
    87 UptimeNoted = "uptime_noted" (economy::UptimeNoted),
    /// An operator failed verification.
    88 OperatorStruck = "operator_struck" (economy::OperatorStruck),
    /// A package's service level of a day.
    89 ServiceMeasured = "service_measured" (economy::ServiceMeasured),
    /// What the treasury owes workers was fixed.
    90 TreasuryEpochClosed = "treasury_epoch_closed" (economy::TreasuryEpochClosed),
    /// The treasury paid it.
    91 TreasuryEpochPaid = "treasury_epoch_paid" (economy::TreasuryEpochPaid),
}
