//! Room `ledger`: the pure core. Money, grants, holds, prices, splits, batches; two doors, [`decide`] and [`apply`].
//! No I/O, no clock, no randomness, no floats, no iteration over hash maps: the same events give the same bytes.
//!
//! Invariant: state changes only in `apply`, and everything that `apply` needs is in the event.
#![forbid(unsafe_code)]

pub mod accounts;
mod apply;
pub mod batches;
pub mod command;
mod decide;
pub mod deposits;
pub mod grants;
pub mod holds;
mod idempotency;
pub mod invariants;
pub mod jobs;
pub mod nodes;
pub mod preset;
pub mod query;
pub mod rates;
mod refusal;
pub mod snapshot;
mod splits;
mod state;
pub mod timers;
pub mod vouchers;

pub use apply::{ApplyError, apply, end_commit};
pub use command::{Command, CommandBody};
pub use decide::{Decided, Decision, decide, decide_into};
pub use refusal::Refusal;
pub use state::State;
