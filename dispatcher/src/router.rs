//! Routing: which node gets a job. Pure: time and chance are arguments, so that simulation and benchmark run this code.
//! Must not: the network, the clock, the log.

mod affinity;
pub mod breaker;
pub mod floor;
pub mod health;
mod index;
pub mod lanes;
pub mod line;
mod node;
pub mod ramp;
pub mod reason;
pub mod table;
mod terms;

pub use lanes::Lane;
pub use line::{Line, LineRefusal, Ticket, Waiting};
pub use reason::{Reason, Rule};
pub use table::Table;
pub use terms::{
    Chosen, Decisions, NodeRecord, NodeSpec, NodeStanding, OperatorRecord, Pick, Pool, Report, RouteBy,
    TableOptions,
};
