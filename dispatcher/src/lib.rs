//! Room `dispatcher`: the gateway. OpenAI's API and our own in front, workers on NATS behind, the ledger in between:
//! admission by hold, routing, relay, capture by verified receipt.
//!
//! Invariant: nothing self-reported raises a bill or a payout; nothing is charged that was not delivered and verified.
//! Invariant: no prompt, answer or key in a log or on disk in the clear.

#![forbid(unsafe_code)]
#![allow(
    clippy::result_large_err,
    reason = "an error of the API is made once a request and moved a few times"
)]

pub mod access;
mod admission;
pub mod api;
mod books;
mod challenge;
mod clock;
pub mod delivery;
mod desk;
pub mod doors;
mod expiry;
mod failover;
mod gateway;
mod job;
pub mod metrics;
mod progress;
pub mod relay;
mod roster;
pub mod router;
pub mod seal;
mod standing;
mod turn;
mod verifier;

pub use admission::{DEFAULT_OUTPUT_TOKENS_MAX, SLOT_WAIT_MS_MAX};
pub use api::people::{SignedUp, Welcome, WelcomeLeft};
pub use delivery::recovery::RecoveryError;
pub use desk::{Answer, Call, Desk, Pages};
pub use doors::{
    AcceptedAuthorisation, AuthorisationTerms, ChainDoor, DoorError, DoorFuture, OperatorCredentials,
    OperatorIssuer, ProofDoor, Recheck, Rechecked, ReexecutionDoor, SignedVoucher, TypedData, VoucherTerms,
    WithdrawalMoment,
};
pub use gateway::{Gateway, GatewayError, GatewayOptions, ServedModel};
pub use job::Delivery;
pub use verifier::{Challenges, VerifierOptions};
