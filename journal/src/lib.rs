//! Room `journal`: the log. The supervised nats-server, its streams and roles, the writer, readers, the archive tail,
//! snapshots, FEED and the transparency log. Must not: rules of money (those are the ledger's).

#![forbid(unsafe_code)]

pub mod auth;
pub mod background;
pub mod client;
pub mod feed;
pub mod journal;
mod keeper;
pub mod lease;
pub mod pipeline;
pub mod reader;
pub mod remote;
pub mod restore;
pub mod segment;
pub mod server;
pub mod snapshot_store;
pub mod snapshotter;
pub mod standby;
pub mod stream;
pub mod tail;
pub mod transparency;
pub mod watchdog;
pub mod writer;

pub use client::{LedgerClient, SubmitError};
pub use journal::{Journal, JournalOptions, StartError};
pub use pipeline::{Outcome, Placed, Position};
pub use reader::{ArchiveReader, CommittedCommit, ReadError, Reader, Until};
pub use remote::{CommandDoor, DoorOptions, RemoteLedger, RemoteOptions};
pub use standby::{Leader, Standby, StandbyError, StandbyOptions};
