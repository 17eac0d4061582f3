//! Routing: which node gets a job. Pure: time and chance are arguments, so that simulation and benchmark run this code.
//! Must not: the network, the clock, the log.

pub mod breaker;
pub mod health;
pub mod reason;
pub mod table;

pub use reason::Reason;
pub use table::{Chosen, NodeSpec, Pick, Report, Table};
