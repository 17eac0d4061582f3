//! How fast the kernels are on this machine, next to its own limit: prints one JSON object.
//!
//! cargo run --release -p kernels --example kernel_speed -- MODEL [THREADS]
//!
//! The limit is the speed at which the same threads read a buffer of the model's size, measured in the same run. Decoding reads
//! every weight once a token, so its share of the limit is tokens/s x bytes of weights / bytes/s.

use kernels::{
    Claim, Engine, EngineOptions, EngineTuning, JobEvent, JobHandle, JobRequest, JobSpec, Level, LoadOptions,
    Model, SamplingParams, verify_job,
};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Tokens decoded, and prompt tokens of the prefill figure.
const DECODE_TOKENS: u32 = 128;
const PREFILL_TOKENS: usize = 512;
/// Runs of each figure; the best counts, because neighbours only ever slow a run down.
const RUNS: usize = 3;
/// Jobs of the batch figure.
const JOBS: usize = 4;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("expected: speed MODEL [THREADS]")?;
    let threads: usize = arguments.next().map_or(Ok(1), |n| n.parse())?;
    let loading = Instant::now();
    let model = Model::load(Path::new(&path), LoadOptions::from_environment()?)?;
    let load_seconds = loading.elapsed().as_secs_f64();
    let first_seconds = load_seconds + best(1, || decode(&model, threads, 1, 16, 1).0);

    let bytes = model.weight_bytes();
    let bandwidth = bytes as f64 / best(RUNS * 3, || read_seconds(threads, bytes));
    let decoded =
        best(RUNS, || decode(&model, threads, 1, 16, DECODE_TOKENS).0) / f64::from(DECODE_TOKENS - 1);
    let prefilled = best(RUNS, || prefill_seconds(&model, threads)) / PREFILL_TOKENS as f64;
    let together = best(RUNS, || decode(&model, threads, JOBS, 16, DECODE_TOKENS).0)
        / (f64::from(DECODE_TOKENS - 1) * JOBS as f64);
    let (whole_seconds, request, claim) = whole_job(&model, threads);
    let verified = best(RUNS, || {
        let started = Instant::now();
        let finding = verify_job(&model, threads, &request, &claim, Level::Whole).expect("the job just ran");
        assert!(finding.is_identical(), "{finding:?}");
        started.elapsed().as_secs_f64()
    });
    println!(
        "{{\"model\":{:?},\"backend\":{:?},\"threads\":{threads},\"weight_bytes\":{bytes},\"read_bytes_per_second\":{:.0},\
         \"decode_tokens_per_second\":{:.2},\"decode_share_of_read_bandwidth\":{:.3},\"prefill_tokens_per_second\":{:.1},\
         \"batch_jobs\":{JOBS},\"batch_tokens_per_second\":{:.2},\"batch_over_one\":{:.2},\"verify_over_run\":{:.2},\
         \"load_seconds\":{load_seconds:.3},\"first_token_seconds\":{first_seconds:.3}}}",
        model.name(),
        model.backend(),
        bandwidth,
        1.0 / decoded,
        bytes as f64 / decoded / bandwidth,
        1.0 / prefilled,
        1.0 / together,
        decoded / together,
        whole_seconds / verified,
    );
    Ok(())
}

fn best(runs: usize, mut run: impl FnMut() -> f64) -> f64 {
    (0..runs).map(|_| run()).fold(f64::INFINITY, f64::min)
}

/// Seconds in which `threads` threads read a buffer of `bytes` bytes once.
fn read_seconds(threads: usize, bytes: usize) -> f64 {
    let buffer: Vec<u64> = vec![1; bytes / 8];
    let sum = |part: &[u64]| {
        let mut lanes = [0u64; 64];
        for chunk in part.chunks_exact(64) {
            lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane ^= value);
        }
        lanes.into_iter().fold(0, |a, b| a ^ b)
    };
    let started = Instant::now();
    std::thread::scope(|scope| {
        let parts = buffer.chunks(buffer.len().div_ceil(threads));
        let readers: Vec<_> = parts.map(|part| scope.spawn(move || sum(part))).collect();
        for reader in readers {
            black_box(reader.join().unwrap_or_default());
        }
    });
    started.elapsed().as_secs_f64()
}

fn spec(model: &Model, job: u8, prompt: usize, max_tokens: u32) -> JobSpec {
    let count = model.tokenizer().vocabulary_size() - 64;
    let prompt_ids = (0..prompt as u32).map(|i| 32 + (i * 7919 + u32::from(job) * 101) % count).collect();
    let params = SamplingParams {
        temperature_millionths: 1_000_000,
        sampling_key: [job; 32],
        ..SamplingParams::greedy()
    };
    JobSpec { job_id: [job; 16], prompt_ids, max_tokens, params, stop_ids: vec![] }
}

fn engine(model: &Arc<Model>, threads: usize, jobs_max: usize) -> Engine {
    let options = EngineOptions { threads, jobs_max, queue_max: jobs_max, context_tokens_max: 2_048 };
    Engine::start_tuned(
        Arc::clone(model),
        options,
        EngineTuning { prefix_pages: 0, ..EngineTuning::default() },
    )
}

/// Seconds from the first to the last token of `jobs` jobs together (of one token: from the submission).
fn decode(model: &Arc<Model>, threads: usize, jobs: usize, prompt: usize, tokens: u32) -> (f64, u32) {
    let engine = engine(model, threads, jobs);
    let submitted = Instant::now();
    // A job that meets eos early is submitted with another key instead: figures must not depend on luck.
    let without_end = |job: usize| JobRequest {
        controls: kernels::Controls {
            logit_bias: vec![(model.eos(), -100_000_000)],
            ..kernels::Controls::default()
        },
        ..spec(model, job as u8, prompt, tokens).into()
    };
    let mut handles: Vec<JobHandle> =
        (0..jobs).map(|job| engine.submit(without_end(job)).expect("an empty engine takes it")).collect();
    let mut count = 0;
    let mut first = None;
    for handle in &mut handles {
        while let Some(event) = handle.next() {
            match event {
                JobEvent::Token(_) => {
                    count += 1;
                    first.get_or_insert_with(Instant::now);
                }
                JobEvent::Done { .. } => {}
                JobEvent::Failed(error) => panic!("{error}"),
            }
        }
    }
    let start = first.filter(|_| tokens > 1).unwrap_or(submitted);
    (start.elapsed().as_secs_f64(), count)
}

fn prefill_seconds(model: &Arc<Model>, threads: usize) -> f64 {
    decode(model, threads, 1, PREFILL_TOKENS, 1).0
}

/// A job run alone: its seconds, and what is needed to verify it.
fn whole_job(model: &Arc<Model>, threads: usize) -> (f64, JobRequest, Claim) {
    let engine = engine(model, threads, 1);
    let request = JobRequest::from(spec(model, 9, 64, 192));
    let started = Instant::now();
    let mut handle = engine.submit(request.clone()).expect("an empty engine takes it");
    let mut claim = Claim::default();
    while let Some(event) = handle.next() {
        match event {
            JobEvent::Token(token) => {
                claim.output_ids.push(token.id);
                claim.activations.push(token.activations);
            }
            JobEvent::Done { chain_head, .. } => claim.chain_head = chain_head,
            JobEvent::Failed(error) => panic!("{error}"),
        }
    }
    (started.elapsed().as_secs_f64(), request, claim)
}
