//! Room `bench`: what `counterfoil bench` measures. Real parts only; every figure stands beside the limit of this machine
//! or a peer's figure, from the same run where that can be. Must not: assert times, or be used by other rooms.

#![forbid(unsafe_code)]

pub mod audit;
mod books;
pub mod export;
pub mod gateway;
pub mod growth;
pub mod journal;
pub mod kernels;
pub mod ledger;
mod load;
mod machine;
mod raw;
pub mod replay;
mod report;
pub mod route;
mod samples;

pub use books::BooksOptions;
pub use machine::Machine;
pub use report::{Better, Figure, Peer, Report, ResultLine, Source};

/// Why a measurement did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The ledger refused a command that the measurement needs.
    #[error("{what}: the ledger refused it: {refusal}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Its words.
        refusal: String,
    },
    /// A part of the product or the machine said no.
    #[error("{what}: {reason}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// Its words.
        reason: String,
    },
}

impl BenchError {
    pub(crate) fn failed(what: &'static str) -> impl Fn(String) -> BenchError {
        move |reason| BenchError::Failed { what, reason }
    }
}

/// Turns any error into one that says what was tried.
pub(crate) trait Tried<T> {
    fn tried(self, what: &'static str) -> Result<T, BenchError>;
}

impl<T, E: std::fmt::Display> Tried<T> for Result<T, E> {
    fn tried(self, what: &'static str) -> Result<T, BenchError> {
        self.map_err(|error| BenchError::failed(what)(error.to_string()))
    }
}
