//! Jobs of fixed length through the engine, timed.

use crate::{BenchError, Tried};
use kernels::{
    Claim, Engine, EngineOptions, EngineTuning, JobEvent, JobHandle, JobRequest, JobSpec, Level, Model,
    SamplingParams, verify_job,
};
use std::sync::Arc;
use std::time::Instant;

/// Positions that the engines of the measurements hold a job.
const CONTEXT_TOKENS: u32 = 2_048;

/// How many jobs run together on how many threads.
#[derive(Clone, Copy)]
pub(super) struct Jobs {
    pub threads: usize,
    pub count: usize,
}

impl Jobs {
    /// Tokens per second of all jobs together, from the first token to the last.
    pub(super) fn decode(self, model: &Arc<Model>, prompt: usize, tokens: u32) -> Result<f64, BenchError> {
        let engine = self.engine(model);
        let mut handles = self.submit(&engine, model, prompt, tokens)?;
        // All jobs have their first token before the clock starts, so each has `tokens - 1` to go.
        for handle in &mut handles {
            token(handle)?;
        }
        let started = Instant::now();
        let mut count = 0u32;
        for handle in &mut handles {
            while token(handle)?.is_some() {
                count += 1;
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let whole = (tokens - 1) * self.count as u32;
        if count < whole {
            let reason = format!("{count} tokens of {whole}: the model ended early");
            return Err(BenchError::failed("decode to a fixed length")(reason));
        }
        Ok(f64::from(count) / seconds)
    }

    /// Prompt tokens per second, from the submission to the first token.
    pub(super) fn prefill(self, model: &Arc<Model>, prompt: usize) -> Result<f64, BenchError> {
        let engine = self.engine(model);
        let started = Instant::now();
        for handle in &mut self.submit(&engine, model, prompt, 1)? {
            token(handle)?;
        }
        Ok((prompt * self.count) as f64 / started.elapsed().as_secs_f64())
    }

    fn engine(self, model: &Arc<Model>) -> Engine {
        let options = EngineOptions {
            threads: self.threads,
            jobs_max: self.count,
            queue_max: self.count,
            context_tokens_max: CONTEXT_TOKENS,
        };
        // Without prefixes kept: every prompt token is run.
        let tuning = EngineTuning { prefix_pages: 0, ..EngineTuning::default() };
        Engine::start_tuned(Arc::clone(model), options, tuning)
    }

    fn submit(
        self,
        engine: &Engine,
        model: &Model,
        prompt: usize,
        tokens: u32,
    ) -> Result<Vec<JobHandle>, BenchError> {
        let jobs = 0..self.count;
        jobs.map(|job| engine.submit(request(model, job as u8, prompt, tokens)).tried("submit a job"))
            .collect()
    }
}

/// A job run alone, and what it takes to verify it.
pub(super) struct Whole {
    /// From the submission to the end.
    pub seconds: f64,
    request: JobRequest,
    claim: Claim,
}

impl Whole {
    pub(super) fn run(model: &Arc<Model>, threads: usize, tokens: (usize, u32)) -> Result<Whole, BenchError> {
        let engine = Jobs { threads, count: 1 }.engine(model);
        let request = request(model, 9, tokens.0, tokens.1);
        let started = Instant::now();
        let mut handle = engine.submit(request.clone()).tried("submit a job")?;
        let mut claim = Claim::default();
        while let Some(event) = handle.next() {
            match event {
                JobEvent::Token(token) => {
                    claim.output_ids.push(token.id);
                    claim.activations.push(token.activations);
                }
                JobEvent::Done { chain_head, .. } => claim.chain_head = chain_head,
                JobEvent::Failed(error) => return Err(error).tried("run a job"),
            }
        }
        Ok(Whole { seconds: started.elapsed().as_secs_f64(), request, claim })
    }

    pub(super) fn verify_seconds(&self, model: &Model, threads: usize) -> Result<f64, BenchError> {
        let started = Instant::now();
        let finding = verify_job(model, threads, &self.request, &self.claim, Level::Whole).tried("verify")?;
        let seconds = started.elapsed().as_secs_f64();
        match finding.is_identical() {
            true => Ok(seconds),
            false => Err(BenchError::failed("verify an honest job")(format!("{finding:?}"))),
        }
    }
}

/// The next token of a job; None after the last.
pub(super) fn token(handle: &mut JobHandle) -> Result<Option<u32>, BenchError> {
    match handle.next() {
        Some(JobEvent::Token(token)) => Ok(Some(token.id)),
        Some(JobEvent::Failed(error)) => Err(error).tried("run a job"),
        Some(JobEvent::Done { .. }) | None => Ok(None),
    }
}

/// The most likely token each time: choosing is no part of what a peer is measured by.
fn request(model: &Model, job: u8, prompt: usize, max_tokens: u32) -> JobRequest {
    let count = model.tokenizer().vocabulary_size() - 64;
    let prompt_ids = (0..prompt as u32).map(|i| 32 + (i * 7919 + u32::from(job) * 101) % count).collect();
    let params = SamplingParams::greedy();
    JobSpec { job_id: [job; 16], prompt_ids, max_tokens, params, stop_ids: vec![] }.into()
}
