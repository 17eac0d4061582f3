//! Room `ledger`: the pure core. See `decide` and `apply`.
#![forbid(unsafe_code)]
pub mod command;
