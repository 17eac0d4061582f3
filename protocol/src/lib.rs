//! Room `protocol`: what outsiders read and write. Events and their codec, ids, exact amounts, rate cards, commitments,
//! commits, receipts, job messages, FEED. Pure: no I/O, no clock, no randomness.
//!
//! Invariant: this room depends on no other room.

#![forbid(unsafe_code)]

pub mod amount;
pub mod asset;
pub mod checkpoint;
pub mod codec;
pub mod commit;
pub mod commitment;
pub mod event;
pub mod feed;
pub mod few;
pub mod id;
pub mod job_message;
pub mod proof;
pub mod rate;
pub mod receipt;
pub mod tile;
pub mod witness;

pub use amount::Amount;
pub use event::{Event, EventBody};
