//! What runs a job: a backend turns a body into steps. One kind a file below; here is what they share.
//! Must not: know NATS, offers or receipts.
//!
//! # The canonical bytes of `attested` receipts
//! A foreign backend (an OpenAI-compatible server) follows no numerics of ours, so its receipts say `numerics = "attested"`
//! and `proof_class = attested`, and their fields mean:
//! * output ids: token ids whose text, decoded by the tokenizer that the rate card pins, is the text delivered. Gateways
//!   read ids, not the frames' `text`; text the server stopped at a stop text holds nothing of it.
//! * digest chain: `c_0 = BLAKE3("counterfoil attested chain 1\0" || job id, 16 bytes || weights, 32 || body commitment, 32)`,
//!   `c_i = BLAKE3(c_(i-1) || id_i as four little-endian bytes)`. It orders and binds what was delivered; it proves nothing
//!   about how it was made.
//! * output commitment, counts, finish: as for our own kernels.
//!
//! [`openai`] and `examples/worker.py` follow this.

pub(crate) mod builtin;
pub(crate) mod openai;

pub use builtin::job_request;
pub use openai::{ATTESTED, ApiKey, OpenAiOptions};

use protocol::id::Hash32;
use protocol::job_message::{JobBody, NakReason, TokenLogprobs};
use protocol::rate::ProofClass;
use protocol::receipt::Finish;
use tokio::sync::mpsc;

/// Steps that may wait between a backend and the job's driver; a backend that is ahead waits.
pub(crate) const STEPS_WAITING_MAX: usize = 256;

/// A loaded model, ready for jobs. Cloning is cheap.
#[derive(Clone)]
pub(crate) enum Backend {
    /// Our kernels.
    Builtin(builtin::Builtin),
    /// An OpenAI-compatible server.
    OpenAi(openai::OpenAi),
}

/// What a job's receipt says about who ran it.
#[derive(Clone, Debug)]
pub(crate) struct BackendIdentity {
    /// SHA-256 of the weights' file.
    pub(crate) weights: Hash32,
    /// Numerics that the output follows.
    pub(crate) numerics: String,
    /// Whether anybody can re-run it.
    pub(crate) proof_class: ProofClass,
    /// Software and hardware in words.
    pub(crate) words: String,
}

/// A job that a backend has taken.
pub(crate) struct Running {
    /// What it produces, in order; ends with [`Step::End`] or [`Step::Failed`] and then closes.
    pub(crate) steps: mpsc::Receiver<Step>,
    /// Asks it to stop.
    pub(crate) canceller: Canceller,
}

/// One thing a backend says about a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// One more output token.
    Token {
        /// Its id.
        id: u32,
        /// Text that it completes, whole characters only.
        text: String,
        /// Digest chain after it.
        chain: Hash32,
        /// Where the body asks for them.
        logprobs: Option<TokenLogprobs>,
    },
    /// The output is complete (or was cancelled: then what came before is a prefix).
    End {
        /// Why.
        finish: Finish,
        /// Text that the last token left incomplete.
        text: String,
        /// Digest chain after the last token; of an empty output, the chain's start.
        chain: Hash32,
    },
    /// No more will come. The text is for people and holds nothing of the job's contents.
    Failed(String),
}

/// Stops one job of a backend; harmless when the job has ended.
pub(crate) struct Canceller(Box<dyn Fn() + Send + Sync>);

impl Canceller {
    pub(crate) fn new(cancel: impl Fn() + Send + Sync + 'static) -> Canceller {
        Canceller(Box::new(cancel))
    }

    pub(crate) fn cancel(&self) {
        (self.0)();
    }
}

/// Why a backend does not take a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackendRefusal {
    pub(crate) reason: NakReason,
    /// For people; nothing of the job's contents.
    pub(crate) detail: String,
}

impl Backend {
    /// What receipts say about it.
    pub(crate) fn identity(&self) -> &BackendIdentity {
        match self {
            Backend::Builtin(builtin) => builtin.identity(),
            Backend::OpenAi(openai) => openai.identity(),
        }
    }

    /// Takes the job or refuses it; does not wait for it.
    pub(crate) fn begin(&self, body: &JobBody) -> Result<Running, BackendRefusal> {
        match self {
            Backend::Builtin(builtin) => builtin.begin(body),
            Backend::OpenAi(openai) => openai.begin(body),
        }
    }
}
