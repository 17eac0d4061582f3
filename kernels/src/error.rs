//! Errors of this room: what was expected, what came, what to do. No other room's types.

use std::path::Path;

/// Everything that can go wrong in `kernels`. Cloneable, so that it can travel inside a [`crate::JobEvent`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file could not be opened or read.
    #[error("cannot read model file {path}: {detail}; check that the path exists and is readable")]
    Io {
        /// Path as given.
        path: String,
        /// The operating system's words.
        detail: String,
    },
    /// The output file could not be written.
    #[error("cannot write {path}: {detail}; nothing is left there")]
    Write {
        /// Path as given.
        path: String,
        /// What went wrong.
        detail: String,
    },
    /// The bytes are not a well-formed GGUF v3 file.
    #[error(
        "malformed model file near byte {offset}: {detail}; fetch the file again and compare its checksum"
    )]
    MalformedModel {
        /// Position in the file, in bytes, where reading stopped.
        offset: u64,
        /// What was expected and what came.
        detail: String,
    },
    /// The file is well formed, but needs something this version does not implement.
    #[error("unsupported model: {what}")]
    UnsupportedModel {
        /// Names the architecture, tensor, type or key that is not supported.
        what: String,
    },
    /// `COUNTERFOIL_KERNELS` or the options ask for instructions that this processor lacks.
    #[error(
        "unsupported kernels backend: {what}; use scalar, avx2, avx512, neon, cuda or emulated, or unset COUNTERFOIL_KERNELS"
    )]
    UnsupportedBackend {
        /// Names the backend and what is missing.
        what: String,
    },
    /// There is no CUDA driver or no GPU.
    #[error(
        "no CUDA device: {what}; install the NVIDIA driver (CUDA 13.0 or newer), or unset COUNTERFOIL_KERNELS"
    )]
    NoCuda {
        /// What is missing.
        what: String,
    },
    /// A device failed; nothing of the pass was delivered.
    #[error("device failed: {what}; start the worker again, on another backend if it stays so")]
    Device {
        /// What failed, in the device's words.
        what: String,
    },
    /// The processor does not round to nearest or flushes subnormals: results would not be canonical.
    #[error(
        "floating-point environment is not IEEE default ({what}); do not link code that sets FTZ/DAZ or rounding modes"
    )]
    FloatEnvironment {
        /// Which property failed.
        what: &'static str,
    },
    /// The job itself is wrong; no worker can run it.
    #[error("invalid job: {what}")]
    InvalidJob {
        /// What was expected and what came.
        what: String,
    },
    /// Prompt and output do not fit into the context.
    #[error(
        "prompt of {prompt_tokens} tokens plus max_tokens {max_tokens} exceeds the context of {context_tokens} tokens; shorten the prompt or lower max_tokens"
    )]
    ContextExceeded {
        /// Tokens of the prompt.
        prompt_tokens: u32,
        /// Tokens asked for.
        max_tokens: u32,
        /// Positions available.
        context_tokens: u32,
    },
    /// All job slots and the queue are full.
    #[error(
        "engine is busy: {waiting} jobs wait, the queue holds at most {queue_max}; retry later or choose another node"
    )]
    Busy {
        /// Jobs waiting now.
        waiting: usize,
        /// Length of the queue.
        queue_max: usize,
    },
    /// The engine was shut down.
    #[error("engine has stopped; start a new one")]
    Stopped,
    /// NaN or infinity in an activation, scale or logit. Never hashed, never delivered.
    #[error(
        "non-finite value (NaN or infinity) at position {position}: the model file is damaged or not fit for these numerics"
    )]
    NonFinite {
        /// Position in prompt + output, in tokens.
        position: u32,
    },
    /// The grammar of a structured output went beyond its limits.
    #[error("structured output failed: {detail}; simplify the schema")]
    Grammar {
        /// The grammar engine's words.
        detail: String,
    },
    /// The engine finishes what it has and takes nothing new.
    #[error("engine is draining; choose another node")]
    Draining,
    /// The chat template failed.
    #[error("chat template failed: {detail}")]
    Template {
        /// The template engine's words.
        detail: String,
    },
    /// A chat message is not acceptable.
    #[error("invalid chat message: {what}")]
    InvalidMessage {
        /// What was expected and what came.
        what: String,
    },
}

impl Error {
    pub(crate) fn io(path: &Path, error: &std::io::Error) -> Error {
        Error::Io { path: path.display().to_string(), detail: error.to_string() }
    }

    pub(crate) fn write(path: &Path, detail: impl ToString) -> Error {
        Error::Write { path: path.display().to_string(), detail: detail.to_string() }
    }

    pub(crate) fn malformed(offset: u64, detail: impl Into<String>) -> Error {
        Error::MalformedModel { offset, detail: detail.into() }
    }

    pub(crate) fn unsupported(what: impl Into<String>) -> Error {
        Error::UnsupportedModel { what: what.into() }
    }
}
