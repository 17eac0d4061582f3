//! Room `worker`: the operator's side. Takes jobs on its own NATS subjects, opens their sealed bodies, runs a backend,
//! streams tokens, signs receipts and re-sends them until the log has them.
//!
//! Invariant: knows the job protocol (`protocol`) and the model (`kernels`); never the ledger, the log or the gateway's
//! insides. Whoever speaks `specs/job-protocol.md` can stand in its place.

#![forbid(unsafe_code)]

pub mod backend;
pub mod config;
pub mod conformance;
mod connection;
pub mod control;
pub mod doctor;
pub mod drain;
mod error;
pub mod follow;
mod frame;
mod job_table;
pub mod keys;
mod metrics;
mod node;
pub mod notify;
mod offer;
mod outbox;
mod receipt;
mod run;
mod stop;
mod subscribe;
mod worker;

pub use crate::config::WorkerConfig;
pub use crate::error::WorkerError;
pub use crate::worker::{
    BackendOptions, Drained, ModelOptions, NodeOptions, NodeStatus, Status, Worker, WorkerHandle,
    WorkerOptions,
};
