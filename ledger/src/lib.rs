//! Room `ledger`: the pure core. Money, grants, holds, prices, splits, batches; two doors, [`decide`] and [`apply`].
//! No I/O, no clock, no randomness, no floats, no iteration over hash maps: the same events give the same bytes.
//!
//! Invariant: state changes only in `apply`, and everything that `apply` needs is in the event.
#![forbid(unsafe_code)]

pub mod accounts;
mod ahead;
mod apply;
pub mod batches;
mod books;
mod captures;
pub mod command;
mod credit_lines;
mod decide;
pub mod deposits;
mod earnings;
pub mod economy;
mod fingerprint;
pub mod grants;
pub mod holds;
mod idempotency;
mod index;
pub mod invariants;
pub mod jobs;
mod lines;
mod moves;
pub mod nodes;
pub mod preset;
pub mod query;
pub mod rates;
mod refusal;
mod slab;
pub mod snapshot;
mod spend_caps;
mod splits;
mod state;
pub mod timers;
pub mod vouchers;
mod wallets;

pub use ahead::look_ahead;
pub use apply::{ApplyError, apply, end_commit};
pub use command::{Command, CommandBody};
pub use decide::{Decided, Decision, decide, decide_into};
pub use idempotency::KEY_AHEAD_US_MAX;
pub use refusal::Refusal;
pub use state::State;
