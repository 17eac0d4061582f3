//! Why an audit could not be begun or finished. What an audit *finds* is no error: it stands in the report.

use std::path::{Path, PathBuf};

/// The audit has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Nothing to audit there.
    #[error(
        "{path}: no transparency log here: expected `checkpoint` or `tlog/checkpoint`; run `counterfoil audit fetch` first"
    )]
    NoLog {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// An archive that no checkpoint speaks for.
    #[error(
        "{path}: no segment of this archive carries a checkpoint: fetch the log's tiles, or wait for the next segment"
    )]
    NoCheckpoint {
        /// The archive.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// A server did not give what was asked.
    #[error("{url}: {reason}; is the gateway up, and is the key an auditor's?")]
    Source {
        /// What was asked for.
        url: String,
        /// Why not.
        reason: String,
    },
    /// An argument makes no sense.
    #[error("{what}: expected {expected}, got {given:?}")]
    Usage {
        /// Which argument.
        what: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What came.
        given: String,
    },
}

impl AuditError {
    /// The process exit code: 2 for a wrong argument, 3 where a source is missing.
    pub fn exit_code(&self) -> u8 {
        match self {
            AuditError::Usage { .. } => 2,
            AuditError::NoLog { .. }
            | AuditError::NoCheckpoint { .. }
            | AuditError::File { .. }
            | AuditError::Source { .. } => 3,
        }
    }

    pub(crate) fn file(path: &Path, error: impl std::fmt::Display) -> AuditError {
        AuditError::File { path: path.to_owned(), reason: error.to_string() }
    }
}
