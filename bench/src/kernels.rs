//! `bench kernels`: inference on this machine's processor, beside the speed at which the same threads read memory, and on
//! request beside llama.cpp with the same file. Real jobs through the engine's door; nothing here knows how it computes.

mod bandwidth;
mod cold;
mod jobs;
mod llama;

pub use cold::{JobOptions, job};
pub use llama::find_or_build as llama_python;

use crate::report::{Better, Report, ResultLine, Source};
use crate::{BenchError, Tried};
use jobs::Jobs;
use kernels::{LoadOptions, Model};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Tokens that one decoding run is timed over.
const DECODE_TOKENS: u32 = 128;
/// Prompt of the decoding runs.
const PROMPT_TOKENS: usize = 16;
/// Prompt of the prefill runs.
const PREFILL_TOKENS: usize = 512;
/// Jobs that run together.
const JOBS: usize = 4;
/// Prompt and output of the job that is verified.
const VERIFY_TOKENS: (usize, u32) = (64, 192);
/// Positions of the job whose memory is measured.
const CONTEXT_TOKENS: u32 = 512;

/// How much is measured.
#[derive(Clone, Debug)]
pub struct KernelsOptions {
    /// GGUF file.
    pub model: PathBuf,
    /// Most threads; figures are of one thread and of these.
    pub threads: usize,
    /// Runs of each figure, of which the median counts.
    pub runs: usize,
    /// This program: cold processes are started by it, as `bench kernels-job`.
    pub program: PathBuf,
    /// A Python that has `llama_cpp`, to measure beside.
    pub llama: Option<PathBuf>,
}

/// What one number of threads gives, in tokens per second.
struct Speeds {
    threads: usize,
    decode: f64,
    prefill: f64,
}

/// Runs it.
pub fn run(options: KernelsOptions) -> Result<Report, BenchError> {
    let model = Model::load(&options.model, LoadOptions::from_environment().tried("choose kernels")?)
        .tried("load the model")?;
    let settings = serde_json::json!({
        "model": model.name(), "weight_bytes": model.weight_bytes(), "backend": model.backend(),
        "runs": options.runs, "counts": "median", "decode": [PROMPT_TOKENS, DECODE_TOKENS],
        "prefill": PREFILL_TOKENS, "jobs": JOBS, "verified": VERIFY_TOKENS, "amx_int8": has_amx(),
    });
    let mut report = Report::new("kernels", settings);
    let mut threads = vec![1, options.threads.max(1)];
    threads.dedup();
    let mut speeds = Vec::new();
    for threads in threads {
        speeds.push(with_threads(&model, threads, &options, &mut report)?);
    }
    order(&model, &options, &mut report);
    drop(model);
    cold(&options, &mut report)?;
    if let Some(python) = &options.llama {
        peer(python, &options, &speeds, &mut report)?;
    }
    Ok(report)
}

/// Everything that depends on the number of threads.
fn with_threads(
    model: &Arc<Model>,
    threads: usize,
    options: &KernelsOptions,
    report: &mut Report,
) -> Result<Speeds, BenchError> {
    let bytes = model.weight_bytes();
    let buffer = bandwidth::Buffer::new(bytes)?;
    let (mut reads, mut decodes, mut prefills, mut together) = (vec![], vec![], vec![], vec![]);
    // Interleaved: a neighbour that slows a round down slows down limit and figure alike.
    for _ in 0..options.runs {
        reads.push(bytes as f64 / buffer.read_seconds(threads));
        decodes.push(Jobs { threads, count: 1 }.decode(model, PROMPT_TOKENS, DECODE_TOKENS)?);
        prefills.push(Jobs { threads, count: 1 }.prefill(model, PREFILL_TOKENS)?);
        together.push(Jobs { threads, count: JOBS }.decode(model, PROMPT_TOKENS, DECODE_TOKENS)?);
    }
    let (read, decode, prefill) = (median(&mut reads), median(&mut decodes), median(&mut prefills));
    let name = |figure: &str| format!("{figure}.threads_{threads}");
    let results = &mut report.results;
    results.push(ResultLine::new(name("read"), read, "B/s", Better::Higher));
    let limit = "weights read at that speed";
    results.push(ResultLine::rate(name("decode"), decode).against(limit, read / bytes as f64));
    results.push(ResultLine::rate(name("prefill_512"), prefill));
    results.push(ResultLine::rate(name("batch_4"), median(&mut together)).beside(
        "one job",
        decode,
        Source::SameRun,
    ));
    let (mut runs, mut verified) = (vec![], vec![]);
    for _ in 0..options.runs {
        let whole = jobs::Whole::run(model, threads, VERIFY_TOKENS)?;
        runs.push(f64::from(VERIFY_TOKENS.1) / whole.seconds);
        verified.push(f64::from(VERIFY_TOKENS.1) / whole.verify_seconds(model, threads)?);
    }
    report.results.push(ResultLine::rate(name("verify"), median(&mut verified)).beside(
        "running that job",
        median(&mut runs),
        Source::SameRun,
    ));
    Ok(Speeds { threads, decode, prefill })
}

/// The same products without the order of `specs/numerics.md`.
fn order(model: &Model, options: &KernelsOptions, report: &mut Report) {
    let (mut ours, mut free): (Vec<f64>, Vec<f64>) = (vec![], vec![]);
    for _ in 0..options.runs {
        let Some((canonical, unordered)) = kernels::order_cost(model) else { return };
        ours.push(1.0 / canonical);
        free.push(1.0 / unordered);
    }
    report.results.push(ResultLine::rate("products.threads_1", median(&mut ours)).beside(
        "the same without the fixed order",
        median(&mut free),
        Source::SameRun,
    ));
}

/// What a process of its own needs.
fn cold(options: &KernelsOptions, report: &mut Report) -> Result<(), BenchError> {
    let (mut firsts, mut resident, mut peaks) = (vec![], vec![], vec![]);
    for _ in 0..options.runs {
        let cold = cold::start(&options.program, &options.model, options.threads)?;
        firsts.push(cold.first_token_ms);
        resident.push(cold.resident_bytes);
        peaks.push(cold.peak_bytes);
    }
    let file = std::fs::metadata(&options.model).tried("size of the model file")?.len() as f64;
    report.results.push(ResultLine::time_ms("cold.first_token", median(&mut firsts)));
    let line = ResultLine::bytes("cold.resident", median(&mut resident));
    report.results.push(line.against("the file", file));
    let line = ResultLine::bytes("cold.resident_peak", median(&mut peaks));
    report.results.push(line.against("the file", file));
    Ok(())
}

/// llama.cpp with the same file, and with the file as Q4_0, its fast format.
fn peer(
    python: &Path,
    options: &KernelsOptions,
    speeds: &[Speeds],
    report: &mut Report,
) -> Result<(), BenchError> {
    let folder = tempfile::tempdir().tried("a folder for the Q4_0 file")?;
    let q4_0 = folder.path().join("q4_0.gguf");
    kernels::quantize(&options.model, &q4_0, kernels::QuantizeType::Q4_0).tried("quantise to Q4_0")?;
    for (label, path) in [("same_file", &options.model), ("q4_0", &q4_0)] {
        for Speeds { threads, decode, prefill } in speeds {
            let work = llama::Work { threads: *threads, prefill: PREFILL_TOKENS, decode: DECODE_TOKENS };
            let theirs = llama::measure(python, path, work, options.runs)?;
            let name = format!("llama.cpp {}, {label}", theirs.version);
            let line = ResultLine::rate(format!("peer.decode.{label}.threads_{threads}"), *decode);
            report.results.push(line.beside(&name, theirs.decode, Source::SameRun));
            let line = ResultLine::rate(format!("peer.prefill_512.{label}.threads_{threads}"), *prefill);
            report.results.push(line.beside(&name, theirs.prefill, Source::SameRun));
        }
    }
    Ok(())
}

/// The middle one; the mean of the middle two of an even number.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// Whether the processor has int8 tiles, which no kernel uses yet.
fn has_amx() -> bool {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    flags.split_whitespace().any(|flag| flag == "amx_int8")
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&mut []), 0.0);
    }
}
