//! What a job is, what comes out of it. Types only; every rule about them is checked in one place, `JobSpec::check`.

use crate::error::Error;
use crate::model::Model;
use crate::sampling::TokenLogprobs;

/// Temperatures above this make no sense: 100.
const TEMPERATURE_MILLIONTHS_MAX: u32 = 100_000_000;
/// A probability of one, in millionths.
pub(crate) const MILLION: u32 = 1_000_000;
/// Stop tokens of one job.
const STOP_IDS_MAX: usize = 64;

/// How tokens are chosen, as pinned in a job. Millionths, so that they hash and serialise canonically.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SamplingParams {
    /// Temperature in millionths, at most 100 000 000; 0 = the most likely token, ties to the lowest id.
    pub temperature_millionths: u32,
    /// Smallest set of most likely tokens whose weight reaches this share of all, in millionths; 1 000 000 = off.
    pub top_p_millionths: u32,
    /// The so many most likely tokens; 0 = off.
    pub top_k: u32,
    /// Key of the random numbers; its first eight bytes are used. Not the worker's to choose.
    pub sampling_key: [u8; 32],
}

impl SamplingParams {
    /// The most likely token, always.
    pub fn greedy() -> SamplingParams {
        SamplingParams {
            temperature_millionths: 0,
            top_p_millionths: MILLION,
            top_k: 0,
            sampling_key: [0; 32],
        }
    }
}

/// Everything that fixes the output of a job bit for bit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// 16 random bytes; the digest chain starts with them.
    pub job_id: [u8; 16],
    /// At least one.
    pub prompt_ids: Vec<u32>,
    /// At least one; with the prompt at most the context.
    pub max_tokens: u32,
    /// How tokens are chosen.
    pub params: SamplingParams,
    /// Tokens that end the job, besides the model's own eos; at most 64.
    pub stop_ids: Vec<u32>,
}

impl JobSpec {
    /// Everything about the job that a model of this vocabulary and context refuses.
    pub(crate) fn check(&self, model: &Model, context_tokens: u32) -> Result<(), Error> {
        let refuse = |what: String| Err(Error::InvalidJob { what });
        let params = &self.params;
        if self.prompt_ids.is_empty() {
            return refuse("the prompt is empty; send at least one token".to_owned());
        }
        if self.max_tokens == 0 {
            return refuse("max_tokens is 0; ask for at least 1".to_owned());
        }
        if let Some(id) = self.prompt_ids.iter().find(|id| **id as usize >= model.shape.vocabulary) {
            return refuse(format!(
                "prompt token {id} is outside the vocabulary of {}",
                model.shape.vocabulary
            ));
        }
        if self.stop_ids.len() > STOP_IDS_MAX {
            return refuse(format!("{} stop tokens, at most {STOP_IDS_MAX}", self.stop_ids.len()));
        }
        if params.temperature_millionths > TEMPERATURE_MILLIONTHS_MAX {
            return refuse(format!(
                "temperature of {} millionths, at most {TEMPERATURE_MILLIONTHS_MAX}",
                params.temperature_millionths
            ));
        }
        if !(1..=MILLION).contains(&params.top_p_millionths) {
            return refuse(format!(
                "top_p of {} millionths, expected 1 to {MILLION}",
                params.top_p_millionths
            ));
        }
        let prompt_tokens = u32::try_from(self.prompt_ids.len()).unwrap_or(u32::MAX);
        if prompt_tokens.saturating_add(self.max_tokens) > context_tokens {
            return Err(Error::ContextExceeded {
                prompt_tokens,
                max_tokens: self.max_tokens,
                context_tokens,
            });
        }
        Ok(())
    }

    /// Whether `id` ends the job.
    pub(crate) fn is_stop(&self, model: &Model, id: u32) -> bool {
        id == model.eos() || self.stop_ids.contains(&id)
    }
}

/// One output token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOut {
    /// From 0.
    pub index: u32,
    /// The token; a stop token is delivered too, as the last.
    pub id: u32,
    /// The digest chain after this token: h of index + 1.
    pub chain: [u8; 32],
    /// D: the digest of the activations it was chosen from.
    pub activations: [u8; 32],
    /// Where the request asks for them.
    pub logprobs: Option<TokenLogprobs>,
}

/// Why a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model's eos or a stop token, which is the last output token.
    Stop,
    /// `max_tokens` tokens.
    Length,
    /// Cancelled by its owner, or by the end of the engine.
    Cancelled,
}

/// What a job reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobEvent {
    /// The next token.
    Token(TokenOut),
    /// The end.
    Done {
        /// Why.
        finish: Finish,
        /// The digest chain after the last token delivered; its start if there was none.
        chain_head: [u8; 32],
    },
    /// The end, without a result: nothing after the tokens already delivered is valid.
    Failed(Error),
}
