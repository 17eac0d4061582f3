//! The one place that knows exit codes: 0 done; 1 a finding or a refusal; 2 usage (clap's own); 3 inconclusive; 4
//! cryptographic failure; 70 a bug of ours. The gravest wins: 4, then 1, then 3.

use std::process::ExitCode;

/// Marks an error with the code it ends in; put into the chain with `anyhow::Error::context`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The books, a proof or a request were refused.
    #[error("a finding")]
    Finding,
    /// A wrong value in a file or flag that clap cannot see.
    #[error("wrong usage")]
    Usage,
    /// A source was missing.
    #[error("inconclusive: a source is missing")]
    Inconclusive,
}

impl Failure {
    /// The exit code of an error: what it was marked with, else 1.
    pub fn code_of(error: &anyhow::Error) -> ExitCode {
        ExitCode::from(match error.downcast_ref::<Failure>() {
            Some(Failure::Finding) | None => 1,
            Some(Failure::Usage) => 2,
            Some(Failure::Inconclusive) => 3,
        })
    }
}
