//! Room `auditor`: the second, independently written replayer. It reads what outsiders read (tiles, receipts, sealed
//! contents, a chain) and says whether the books follow from it. Normative text: `specs/audit.md`.
//!
//! Invariant: this room uses `protocol` and no other room. Nothing is printed here; every command returns a [`Report`].

#![forbid(unsafe_code)]

pub mod archive;
pub mod bundle;
pub mod chain;
pub mod checks;
pub mod commits;
pub mod completeness;
pub mod copy;
pub mod cutoff;
pub mod duties;
pub mod error;
pub mod fetch;
pub mod liabilities;
pub mod log;
pub mod merkle;
pub mod note;
pub mod period;
pub mod privacy;
pub mod prove;
pub mod reconcile;
pub mod replay;
pub mod report;
pub mod sample;
pub mod settlement;
pub mod verify;

pub use error::AuditError;
pub use report::Report;
