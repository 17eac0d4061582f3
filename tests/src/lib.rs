//! The harness of the end-to-end suites: starts a whole network as its user would, talks to it over HTTP, breaks it, and
//! checks it from outside with the product's own audit and with tools that are not ours.
//!
//! Invariant: nothing here reaches into a running process; everything goes through ports, files and exit codes.

#![forbid(unsafe_code)]

pub mod check;
pub mod faults;
pub mod network;
pub mod operator;
pub mod roles;

pub use network::{Network, NetworkOptions};
