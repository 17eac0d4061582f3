//! A job with everything that may steer its output beyond `JobSpec`: penalties, biases, cuts, stop texts, an output format, and
//! the tokens that another worker has delivered already. Types and their limits; what they do stands in `specs/numerics.md`, I.

use crate::error::Error;
use crate::job::{JobSpec, MILLION};
use crate::model::Model;

/// Pairs of a logit bias.
const BIASES_MAX: usize = 1_024;
/// Largest bias, 100, in millionths.
const BIAS_MAX: u32 = 100 * MILLION;
/// Largest frequency or presence penalty, 10, in millionths.
const PENALTY_MAX: u32 = 10 * MILLION;
/// Repetition penalties in use, in millionths.
const REPETITION: std::ops::RangeInclusive<u32> = MILLION / 100..=100 * MILLION;
/// Stop texts of one job.
const STOP_TEXTS_MAX: usize = 16;
/// Bytes of one stop text.
const STOP_TEXT_BYTES_MAX: usize = 256;
/// Bytes of a schema.
pub(crate) const SCHEMA_BYTES_MAX: usize = 64 << 10;
/// Alternatives that a token may be reported with.
const ALTERNATIVES_MAX: u8 = 20;

/// What the output must look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OutputFormat {
    /// Anything.
    #[default]
    Text,
    /// One JSON object.
    JsonObject,
    /// JSON that satisfies this JSON schema.
    JsonSchema(String),
}

/// What changes logits and candidates before a token is chosen. The default changes nothing, and jobs with the default have the
/// digest chain of a plain [`JobSpec`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controls {
    /// Candidates below this share of the largest weight are left out, in millionths; 0 = off.
    pub min_p_millionths: u32,
    /// Divides positive and multiplies other logits of tokens that occurred in prompt or output; 1 000 000 = off.
    pub repetition_penalty_millionths: u32,
    /// Subtracted once per occurrence in the output, in millionths of a logit.
    pub frequency_penalty_millionths: i32,
    /// Subtracted from tokens that occurred in the output, in millionths of a logit.
    pub presence_penalty_millionths: i32,
    /// Token and what is added to its logit, in millionths; ascending by token.
    pub logit_bias: Vec<(u32, i32)>,
    /// Texts that end the job; the token that completes one is the last output token.
    pub stop_texts: Vec<String>,
    /// What the output must look like.
    pub format: OutputFormat,
}

impl Default for Controls {
    fn default() -> Controls {
        Controls {
            min_p_millionths: 0,
            repetition_penalty_millionths: MILLION,
            frequency_penalty_millionths: 0,
            presence_penalty_millionths: 0,
            logit_bias: Vec::new(),
            stop_texts: Vec::new(),
            format: OutputFormat::Text,
        }
    }
}

/// A job for [`crate::Engine::submit`] and [`crate::verify_job`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRequest {
    /// Prompt, bounds, sampling.
    pub spec: JobSpec,
    /// What steers the choice beyond it.
    pub controls: Controls,
    /// Output tokens delivered already, by whomever: the job goes on after them, along the same chain.
    pub resume: Vec<u32>,
    /// Report log-probabilities of each token and of so many most likely ones, 0 to 20. Changes no bit of the output.
    pub logprobs: Option<u8>,
}

impl From<JobSpec> for JobRequest {
    fn from(spec: JobSpec) -> JobRequest {
        JobRequest { spec, controls: Controls::default(), resume: Vec::new(), logprobs: None }
    }
}

impl Controls {
    /// The bytes that the start of the chain covers; None for the default.
    pub(crate) fn committed_bytes(&self) -> Option<Vec<u8>> {
        if *self == Controls::default() {
            return None;
        }
        let mut bytes = Vec::new();
        let number = |bytes: &mut Vec<u8>, n: u32| bytes.extend(n.to_le_bytes());
        number(&mut bytes, self.min_p_millionths);
        number(&mut bytes, self.repetition_penalty_millionths);
        bytes.extend(self.frequency_penalty_millionths.to_le_bytes());
        bytes.extend(self.presence_penalty_millionths.to_le_bytes());
        number(&mut bytes, self.logit_bias.len() as u32);
        for (id, bias) in &self.logit_bias {
            number(&mut bytes, *id);
            bytes.extend(bias.to_le_bytes());
        }
        number(&mut bytes, self.stop_texts.len() as u32);
        for text in &self.stop_texts {
            number(&mut bytes, text.len() as u32);
            bytes.extend(text.as_bytes());
        }
        let (format, schema) = match &self.format {
            OutputFormat::Text => (0u32, ""),
            OutputFormat::JsonObject => (1, ""),
            OutputFormat::JsonSchema(schema) => (2, schema.as_str()),
        };
        number(&mut bytes, format);
        number(&mut bytes, schema.len() as u32);
        bytes.extend(schema.as_bytes());
        Some(bytes)
    }

    fn check(&self, model: &Model) -> Result<(), Error> {
        let refuse = |what: String| Err(Error::InvalidJob { what });
        if self.min_p_millionths > MILLION {
            return refuse(format!("min_p of {} millionths, at most {MILLION}", self.min_p_millionths));
        }
        if !REPETITION.contains(&self.repetition_penalty_millionths) {
            return refuse(format!(
                "repetition penalty of {} millionths, expected {REPETITION:?}",
                self.repetition_penalty_millionths
            ));
        }
        for penalty in [self.frequency_penalty_millionths, self.presence_penalty_millionths] {
            if penalty.unsigned_abs() > PENALTY_MAX {
                return refuse(format!("penalty of {penalty} millionths, at most {PENALTY_MAX} either way"));
            }
        }
        if self.logit_bias.len() > BIASES_MAX || !self.logit_bias.is_sorted_by(|a, b| a.0 < b.0) {
            let count = self.logit_bias.len();
            return refuse(format!(
                "{count} logit biases; expected at most {BIASES_MAX}, ascending by token, no token twice"
            ));
        }
        let wrong = |(id, bias): &&(u32, i32)| {
            *id as usize >= model.shape.vocabulary || bias.unsigned_abs() > BIAS_MAX
        };
        if let Some((id, bias)) = self.logit_bias.iter().find(wrong) {
            return refuse(format!(
                "bias of {bias} millionths for token {id}; at most {BIAS_MAX} either way, tokens below {}",
                model.shape.vocabulary
            ));
        }
        let fits = |text: &String| (1..=STOP_TEXT_BYTES_MAX).contains(&text.len());
        if self.stop_texts.len() > STOP_TEXTS_MAX || !self.stop_texts.iter().all(fits) {
            return refuse(format!(
                "stop texts: at most {STOP_TEXTS_MAX}, each of 1 to {STOP_TEXT_BYTES_MAX} bytes"
            ));
        }
        match &self.format {
            OutputFormat::JsonSchema(schema) if schema.len() > SCHEMA_BYTES_MAX => {
                refuse(format!("schema of {} bytes, at most {SCHEMA_BYTES_MAX}", schema.len()))
            }
            _ => Ok(()),
        }
    }
}

impl JobRequest {
    /// Everything about the request that a model of this vocabulary and context refuses; a grammar is checked where it is made.
    pub(crate) fn check(&self, model: &Model, context_tokens: u32) -> Result<(), Error> {
        self.spec.check(model, context_tokens)?;
        self.controls.check(model)?;
        let refuse = |what: String| Err(Error::InvalidJob { what });
        if self.resume.len() >= self.spec.max_tokens as usize {
            return refuse(format!(
                "{} tokens delivered of at most {}; nothing is left to do",
                self.resume.len(),
                self.spec.max_tokens
            ));
        }
        let ends = |id: &&u32| self.spec.is_stop(model, **id) || **id as usize >= model.shape.vocabulary;
        if let Some(id) = self.resume.iter().find(ends) {
            return refuse(format!("delivered token {id} ends the job or is outside the vocabulary"));
        }
        if self.logprobs.is_some_and(|count| count > ALTERNATIVES_MAX) {
            return refuse(format!("more than {ALTERNATIVES_MAX} alternatives to a token"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
