//! The mirror: follows a shard's log into the stream `ledger-<shard>` of a KurrentDB or EventStoreDB server, so that a
//! shop that has one sees the log in its own tools. Event n of the stream is leaf n of the log. Never on the commit path;
//! deleting the stream loses nothing.
//!
//! Must not: decide anything, or write anywhere but into that one stream.

#![forbid(unsafe_code)]

pub mod event;
pub mod follow;
pub mod store;

pub use follow::{Mirror, MirrorError, Position};
pub use store::{EventStore, Kurrent, StoreError};
