//! The room's errors: what was expected, what came, what to do. No texts of jobs in any of them.

use std::path::{Path, PathBuf};

/// Why a worker cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The options contradict themselves.
    #[error("worker configuration: {0}")]
    Options(String),
    /// A file or directory of the worker.
    #[error("{path}: {detail}")]
    File {
        /// Which.
        path: PathBuf,
        /// The operating system's words, or what was expected of the content.
        detail: String,
    },
    /// The operator's seed is not one.
    #[error(
        "operator seed: expected a user NKEY seed (SU and 56 letters and digits): {0}; take the file that registration wrote"
    )]
    Seed(String),
    /// The JWT is not one, or another's.
    #[error(
        "operator JWT: {0}; take the file that registration wrote beside the seed, or ask the network for a new one"
    )]
    Jwt(String),
    /// The server does not let us in.
    #[error("{url} refuses these credentials: {detail}; if they were revoked, ask the network for new ones")]
    Credentials {
        /// The server.
        url: String,
        /// Its words.
        detail: String,
    },
    /// A model does not load.
    #[error("model {model}: {source}")]
    Model {
        /// Name on the rate card.
        model: String,
        /// What the kernels say.
        source: kernels::Error,
    },
    /// The server connection is closed for good.
    #[error("NATS: {0}")]
    Nats(String),
    /// Another worker runs on this data directory.
    #[error("{0} is in use by another worker; stop it (`counterfoil worker drain`) or set another data_dir")]
    InUse(PathBuf),
    /// No worker answers on the control socket.
    #[error("no worker answers on {path}: {detail}; is it running with this configuration?")]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// The operating system's words.
        detail: String,
    },
}

impl WorkerError {
    pub(crate) fn file(path: &Path, detail: impl ToString) -> WorkerError {
        WorkerError::File { path: path.to_path_buf(), detail: detail.to_string() }
    }
}
