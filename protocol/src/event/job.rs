//! Events about jobs: dispatch, charge, reversal.

use crate::amount::Amount;
use crate::event::hold::Slices;
use crate::id::{Hash32, HoldId, JobId, NodeId, OperatorId};
use minicbor::{Decode, Encode};
use serde::Serialize;

/// A job was given whole to one node.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct JobDispatched {
    /// The job.
    #[n(0)]
    pub job: JobId,
    /// 0 for the first node, growing by one.
    #[n(1)]
    pub attempt: u32,
    /// The node.
    #[n(2)]
    pub node: NodeId,
    /// Its owner.
    #[n(3)]
    pub operator: OperatorId,
    /// Salted commitment to the body ([`crate::commitment`]).
    #[n(4)]
    pub body: Hash32,
    /// Tokens that earlier attempts delivered and that this one continues from.
    #[n(5)]
    pub continues_at: u64,
}

/// How a job ended, as the charging rule of `specs/outcomes.md` names it. Numbers are stable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum Outcome {
    /// The answer ended by itself or at its bound.
    #[n(0)]
    Completed,
    /// The client left; what was delivered is charged.
    #[n(1)]
    ClientGone,
}

/// Which of several charges of one hold this is. Since version 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct CapturePart {
    /// 0 for the first, growing by one.
    #[n(0)]
    pub number: u32,
    /// Whether the hold stays open for more: then nothing of it is released but what this charge consumed.
    #[n(1)]
    pub open: bool,
}

/// A job was charged against its hold. Without `part`, and with `part.open == false`, the rest of the hold was
/// released in the same event and the hold ended. All parts of one job together cost `ceil(rate x all units)`, once:
/// a part costs that figure up to here, less what the parts before cost.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct UsageCaptured {
    /// The hold.
    #[n(0)]
    pub hold: HoldId,
    /// The job.
    #[n(1)]
    pub job: JobId,
    /// The attempt that delivered.
    #[n(2)]
    pub attempt: u32,
    /// Its node.
    #[n(3)]
    pub node: NodeId,
    /// Its operator, who is paid.
    #[n(4)]
    pub operator: OperatorId,
    /// Which charging rule.
    #[n(5)]
    pub outcome: Outcome,
    /// Prompt tokens billed by this event.
    #[n(6)]
    pub input_units: u64,
    /// Output tokens billed by this event = min of the next two, less what earlier parts billed; fewer only when a
    /// charge beyond the hold found no funds (`specs/outcomes.md`).
    #[n(7)]
    pub output_units: u64,
    /// Output tokens that the worker's receipt claims, from the job's beginning.
    #[n(8)]
    pub output_units_worker: u64,
    /// Output tokens that the gateway saw, from the job's beginning.
    #[n(9)]
    pub output_units_gateway: u64,
    /// `ceil(rate x all input and output so far)` less what earlier parts cost; all of them at most the hold and the
    /// tolerance of the settings.
    #[n(10)]
    pub cost: Amount,
    /// Which grants paid, in consumption order; they sum to the cost.
    #[n(11)]
    pub slices: Slices,
    /// The operator's part.
    #[n(12)]
    pub operator_share: Amount,
    /// The platform's part; both sum to the cost.
    #[n(13)]
    pub platform_share: Amount,
    /// BLAKE3 of the signed receipt's bytes.
    #[n(14)]
    pub receipt: Hash32,
    /// Digest chain at the billed prefix.
    #[n(15)]
    pub chain_head: Hash32,
    /// Which part of the job's charge; `None` = the only one. Since version 2.
    #[n(16)]
    pub part: Option<CapturePart>,
    /// The part of the cost that the hold did not cover; paid by the last of the slices, which are none of the
    /// hold's. `None` = nothing. Since version 2.
    #[n(17)]
    pub beyond_hold: Option<Amount>,
}

/// A charge was undone, leg by leg; a second reversal is refused.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct CaptureReversed {
    /// The job whose charge it was.
    #[n(0)]
    pub job: JobId,
    /// What came back to the customer.
    #[n(1)]
    pub refunded: Amount,
    /// What was taken back from the operator's accrued share.
    #[n(2)]
    pub operator_share: Amount,
    /// What was taken back from the platform's.
    #[n(3)]
    pub platform_share: Amount,
}
