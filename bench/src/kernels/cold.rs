//! A process that has just started: when its first token comes, and what it holds when a job has filled its context.

use super::{CONTEXT_TOKENS, jobs};
use crate::machine::{peak_resident_bytes, resident_bytes};
use crate::{BenchError, Tried};
use kernels::{
    ChatMessage, Controls, Engine, EngineOptions, JobRequest, JobSpec, LoadOptions, Model, SamplingParams,
    prompt_ids,
};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

/// What `bench kernels-job` is told.
#[derive(Clone, Debug)]
pub struct JobOptions {
    /// GGUF file.
    pub model: PathBuf,
    /// Threads that compute.
    pub threads: usize,
}

/// What it says at the end.
#[derive(Serialize, Deserialize)]
struct Memory {
    resident_bytes: u64,
    peak_bytes: u64,
}

/// One cold process.
pub(super) struct Cold {
    /// From its start to its first token.
    pub first_token_ms: f64,
    pub resident_bytes: f64,
    pub peak_bytes: f64,
}

/// The process itself: a short question, then tokens until the context is full. A line for the first token, a line of JSON at
/// the end.
pub fn job(options: JobOptions) -> Result<(), BenchError> {
    let model = Model::load(&options.model, LoadOptions::from_environment().tried("choose kernels")?)
        .tried("load the model")?;
    let engine = Engine::start(
        Arc::clone(&model),
        EngineOptions {
            threads: options.threads,
            jobs_max: 1,
            queue_max: 1,
            context_tokens_max: CONTEXT_TOKENS,
        },
    );
    let question = ChatMessage { role: "user".into(), content: "What is a ledger?".into() };
    let prompt_ids = prompt_ids(model.tokenizer(), model.template(), &[question]).tried("make a prompt")?;
    let max_tokens = CONTEXT_TOKENS - prompt_ids.len() as u32;
    let params = SamplingParams::greedy();
    let spec = JobSpec { job_id: [1; 16], prompt_ids, max_tokens, params, stop_ids: vec![] };
    let controls = Controls { logit_bias: vec![(model.eos(), -100_000_000)], ..Controls::default() };
    let mut handle = engine.submit(JobRequest { controls, ..spec.into() }).tried("submit a job")?;
    jobs::token(&mut handle)?;
    say("token")?;
    while jobs::token(&mut handle)?.is_some() {}
    let memory = Memory { resident_bytes: resident_bytes(), peak_bytes: peak_resident_bytes() };
    say(&serde_json::to_string(&memory).tried("write JSON")?)
}

fn say(line: &str) -> Result<(), BenchError> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).tried("answer the bench")
}

/// Starts one and listens.
pub(super) fn start(program: &Path, model: &Path, threads: usize) -> Result<Cold, BenchError> {
    let started = Instant::now();
    let mut child = Command::new(program)
        .args(["bench", "kernels-job"])
        .arg(model)
        .arg(threads.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .tried("start a process")?;
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let first = lines.next().transpose().tried("read the first token")?;
    let first_token_ms = started.elapsed().as_secs_f64() * 1e3;
    let last = lines.next().transpose().tried("read the memory")?;
    child.wait().tried("wait for the process")?;
    let (Some(_), Some(last)) = (first, last) else {
        return Err(BenchError::failed("a job in a process of its own")("it said nothing; see above".into()));
    };
    let Memory { resident_bytes, peak_bytes } = serde_json::from_str(&last).tried("read the memory")?;
    Ok(Cold { first_token_ms, resident_bytes: resident_bytes as f64, peak_bytes: peak_bytes as f64 })
}
