//! The backend of our own kernels: canonical numerics, so its receipts can be re-executed by anybody.
//!
//! The kernels' job follows from the body alone: id, prompt ids, bound, sampling parameters and key as they stand, and
//! *no* stop ids (the model's end token always ends a job; stop texts are searched by the driver, which cuts the output
//! after the token that completes one and cancels the rest). A verifier builds the same job.

use super::{Backend, BackendIdentity, BackendRefusal, Canceller, Running, STEPS_WAITING_MAX, Step};
use kernels::{
    Controls, Engine, EngineOptions, Error, Finish, JobEvent, JobHandle, JobRequest, JobSpec, LoadOptions,
    Model, NUMERICS_ID, SamplingParams, Tokenizer,
};
use protocol::id::Hash32;
use protocol::job_message::{JobBody, NakReason, OutputFormat, TokenLogprobs};
use protocol::rate::ProofClass;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;

/// A model in our kernels.
#[derive(Clone)]
pub(crate) struct Builtin {
    engine: Arc<Engine>,
    tokenizer: Tokenizer,
    identity: BackendIdentity,
}

/// How to run a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BuiltinOptions {
    /// Jobs at once.
    pub(crate) slots: u32,
    /// Threads that compute.
    pub(crate) threads: u32,
}

impl Builtin {
    /// Loads the file and starts its engine; blocks for as long as reading and repacking takes.
    pub(crate) fn load(path: &Path, options: BuiltinOptions) -> Result<Builtin, Error> {
        let model = Model::load(path, LoadOptions::from_environment()?)?;
        let identity = BackendIdentity {
            weights: Hash32(model.id()),
            numerics: NUMERICS_ID.to_owned(),
            proof_class: ProofClass::ReExecutable,
            words: format!(
                "counterfoil {} {} x{}",
                env!("CARGO_PKG_VERSION"),
                model.backend(),
                options.threads
            ),
        };
        let tokenizer = model.tokenizer().clone();
        let slots = options.slots as usize;
        let engine = Engine::start(
            model,
            EngineOptions {
                threads: options.threads as usize,
                jobs_max: slots,
                // A slot of ours may be free an instant before the engine's is.
                queue_max: slots,
                context_tokens_max: u32::MAX,
            },
        );
        Ok(Builtin { engine: Arc::new(engine), tokenizer, identity })
    }

    pub(crate) fn identity(&self) -> &BackendIdentity {
        &self.identity
    }

    pub(crate) fn begin(&self, body: &JobBody) -> Result<Running, BackendRefusal> {
        let handle = self.engine.submit(job_request(body)).map_err(|error| refusal(&error))?;
        let canceller = handle.canceller();
        let (sender, steps) = mpsc::channel(STEPS_WAITING_MAX);
        let tokenizer = self.tokenizer.clone();
        // The kernels' handle blocks, so a thread of its own carries its events over.
        let thread = std::thread::Builder::new().name("job-steps".into());
        match thread.spawn(move || carry_over(handle, &tokenizer, &sender)) {
            Ok(_) => Ok(Running { steps, canceller: Canceller::new(move || canceller.cancel()) }),
            Err(error) => {
                canceller.cancel();
                let detail = format!("no thread for the job: {error}");
                Err(BackendRefusal { reason: NakReason::Busy, detail })
            }
        }
    }
}

impl From<Builtin> for Backend {
    fn from(builtin: Builtin) -> Backend {
        Backend::Builtin(builtin)
    }
}

/// The kernels' job of a body; the same for worker and verifier. Stop texts are not in it: the driver looks for them.
pub fn job_request(body: &JobBody) -> JobRequest {
    let spec = JobSpec {
        job_id: body.job.0,
        prompt_ids: body.prompt_ids.clone(),
        max_tokens: body.max_tokens,
        params: SamplingParams {
            temperature_millionths: body.temperature_millionths,
            top_p_millionths: body.top_p_millionths,
            top_k: body.top_k,
            sampling_key: body.sampling_key.0,
        },
        stop_ids: Vec::new(),
    };
    let wanted = &body.controls;
    let controls = Controls {
        min_p_millionths: wanted.min_p_millionths,
        repetition_penalty_millionths: wanted.repetition_penalty_millionths,
        frequency_penalty_millionths: wanted.frequency_penalty_millionths,
        presence_penalty_millionths: wanted.presence_penalty_millionths,
        logit_bias: wanted.logit_bias.clone(),
        stop_texts: Vec::new(),
        format: match &wanted.format {
            OutputFormat::Text => kernels::OutputFormat::Text,
            OutputFormat::JsonObject => kernels::OutputFormat::JsonObject,
            OutputFormat::JsonSchema { schema } => kernels::OutputFormat::JsonSchema(schema.clone()),
        },
    };
    JobRequest { controls, logprobs: wanted.logprobs, ..JobRequest::from(spec) }
}

fn carry_over(mut handle: JobHandle, tokenizer: &Tokenizer, sender: &mpsc::Sender<Step>) {
    let mut decoder = tokenizer.decoder();
    while let Some(event) = handle.next() {
        let step = match event {
            JobEvent::Token(token) => {
                let text = decoder.push(token.id);
                let logprobs = token.logprobs.map(|told| TokenLogprobs {
                    id: token.id,
                    millionths: told.chosen_millionths,
                    top: told.top,
                });
                Step::Token { id: token.id, text, chain: Hash32(token.chain), logprobs }
            }
            JobEvent::Done { finish, chain_head } => {
                Step::End { finish: finish_of(finish), text: decoder.finish(), chain: Hash32(chain_head) }
            }
            JobEvent::Failed(error) => Step::Failed(words(&error)),
        };
        if sender.blocking_send(step).is_err() {
            // The driver is gone. The engine must not decode for nobody.
            handle.canceller().cancel();
            return;
        }
    }
}

fn finish_of(finish: Finish) -> protocol::receipt::Finish {
    match finish {
        Finish::Stop => protocol::receipt::Finish::Stop,
        Finish::Length => protocol::receipt::Finish::Length,
        Finish::Cancelled => protocol::receipt::Finish::Cancelled,
    }
}

fn refusal(error: &Error) -> BackendRefusal {
    let reason = match error {
        Error::Busy { .. } | Error::Stopped => NakReason::Busy,
        _ => NakReason::Unsupported,
    };
    BackendRefusal { reason, detail: words(error) }
}

/// An error for the gateway. What the kernels say about a job may quote a token of it, so that text stays here.
fn words(error: &Error) -> String {
    match error {
        Error::InvalidJob { .. } => {
            "the job is outside what this model accepts (empty, or a token or parameter out of range)".into()
        }
        other => other.to_string(),
    }
}
