//! The harness of the end-to-end suites: starts a whole network as its user would, talks to it over HTTP, breaks it, and
//! checks it from outside with the product's own audit and with tools that are not ours.
//!
//! Invariant: nothing here reaches into a running process; everything goes through ports, files and exit codes.

#![forbid(unsafe_code)]

pub mod chaos;
pub mod check;
pub mod cluster;
pub mod faults;
pub mod hostile;
pub mod load;
pub mod network;
pub mod operator;
pub mod raw;
pub mod roles;

pub use network::{Network, NetworkOptions};
