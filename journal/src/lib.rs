//! Room `journal`: the log. The supervised nats-server, its streams and roles, the writer, readers, the archive tail,
//! snapshots, FEED and the transparency log. Must not: rules of money (those are the ledger's).

#![forbid(unsafe_code)]

pub mod auth;
pub mod client;
pub mod feed;
pub mod journal;
mod keeper;
pub mod pipeline;
pub mod reader;
pub mod restore;
pub mod segment;
pub mod server;
pub mod snapshot_store;
pub mod snapshotter;
pub mod stream;
pub mod tail;
pub mod transparency;
pub mod writer;

pub use client::{LedgerClient, SubmitError};
pub use journal::{Journal, JournalOptions, StartError};
pub use pipeline::{Outcome, Position};
pub use reader::{ArchiveReader, CommittedCommit, ReadError, Reader, Until};
