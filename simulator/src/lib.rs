//! Room `simulator`: the journal's own pipeline (writers), driven by a seeded scheduler on virtual time, on a simulated log
//! and a simulated archive tail that fail in the ways the real ones can; clients that repeat; a checker that remembers every
//! answer. One seed is one history. Must not: real clocks, threads, sockets, randomness from outside.
//!
//! What the log does is compared with the real nats-server by one suite on both: `tests/log.rs`.

#![forbid(unsafe_code)]

pub mod checker;
pub mod clients;
pub mod exhaustive;
pub mod history;
pub mod log;
pub mod mutants;
pub mod random;
pub mod tail;
pub mod writers;

pub use history::{History, run};
pub use mutants::Mistake;
