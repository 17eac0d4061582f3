//! `counterfoil model`: the model alone, without network or money.

use crate::exit_code::Failure;
use crate::output::Output;
use anyhow::{Context, Result, bail};
use kernels::{
    ChatMessage, Claim, Controls, Dispute, Engine, EngineOptions, Finding, JobEvent, JobRequest, JobSpec,
    Level as KernelsLevel, LoadOptions, Model as Weights, OutputFormat, QuantizeType, SamplingParams,
    Verdict, prompt_ids,
};
use protocol::id::{Hash32, JobId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// Verbs of `counterfoil model`.
#[derive(clap::Subcommand)]
pub enum Model {
    /// Generate text. Example: counterfoil model generate --prompt "What is a ledger?" --max-tokens 60
    Generate(Box<Generate>),
    /// Re-execute a receipt that `generate --receipt` wrote; names the first token that differs.
    Verify(Box<Verify>),
    /// Describe a model file.
    Info(Info),
    /// Make a smaller model file. Example: counterfoil model quantize in.gguf out.gguf --type q4_0
    Quantize(Quantize),
}

/// Which file, and how.
#[derive(clap::Args)]
struct Weight {
    /// GGUF file.
    #[arg(long, env = "COUNTERFOIL_MODEL", value_name = "FILE")]
    model: PathBuf,
    /// Threads; all cores by default.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// See [`Model::Generate`].
#[derive(clap::Args)]
pub struct Generate {
    #[command(flatten)]
    weight: Weight,
    /// The user's message.
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// Most output tokens.
    #[arg(long, default_value_t = 128, value_name = "N")]
    max_tokens: u32,
    /// Seed of the sampling; without it, 0.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// 0 takes the most likely token each time.
    #[arg(long, default_value_t = 0.0, value_name = "T")]
    temperature: f64,
    /// Keep the most likely tokens that together have this probability, 0 to 1.
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    top_p: f64,
    /// Keep this many most likely tokens; 0 keeps all.
    #[arg(long, default_value_t = 0, value_name = "K")]
    top_k: u32,
    #[command(flatten)]
    control: Control,
    /// Report log-probabilities of each token and of this many most likely ones (with --json).
    #[arg(long, value_name = "N")]
    logprobs: Option<u8>,
    /// Where the kernels run; only `cpu` is built in so far.
    #[arg(long, default_value = "cpu", value_parser = ["cpu"])]
    device: String,
    /// Write what is needed to re-execute the job.
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
}

/// What steers the choice of tokens beyond temperature, top-p and top-k.
#[derive(clap::Args)]
struct Control {
    /// Leave out tokens below this share of the most likely one's probability, 0 to 1.
    #[arg(long, default_value_t = 0.0, value_name = "P")]
    min_p: f64,
    /// Make tokens that occurred less likely, 0.01 to 100; 1 changes nothing.
    #[arg(long, default_value_t = 1.0, value_name = "R")]
    repetition_penalty: f64,
    /// Taken off a token's logit for each time it occurred in the output, -10 to 10.
    #[arg(long, default_value_t = 0.0, value_name = "F", allow_negative_numbers = true)]
    frequency_penalty: f64,
    /// Taken off the logit of tokens that occurred in the output, -10 to 10.
    #[arg(long, default_value_t = 0.0, value_name = "F", allow_negative_numbers = true)]
    presence_penalty: f64,
    /// Add VALUE, -100 to 100, to the logit of token ID; may be given often.
    #[arg(long, value_name = "ID=VALUE", value_parser = logit_bias)]
    logit_bias: Vec<(u32, i32)>,
    /// End the answer after this text; may be given often.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Answer with one JSON object.
    #[arg(long, conflicts_with = "json_schema")]
    json_object: bool,
    /// Answer with JSON that satisfies the JSON schema in this file.
    #[arg(long, value_name = "FILE")]
    json_schema: Option<PathBuf>,
}

/// How much of a receipt is re-executed.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Level {
    /// The digest chain alone; no model arithmetic.
    L0,
    /// L0 and some tokens at a random place.
    L1,
    /// Everything.
    L2,
    /// One token, operation by operation: against --trace, or prints the trace that the other side needs.
    L3,
}

/// See [`Model::Verify`].
#[derive(clap::Args)]
pub struct Verify {
    #[command(flatten)]
    weight: Weight,
    /// The file that `generate --receipt` wrote.
    receipt: PathBuf,
    /// How much to check: l0, l1, l2 or l3.
    #[arg(long, default_value = "l2", value_name = "LEVEL")]
    level: Level,
    /// Output tokens that l1 recomputes.
    #[arg(long, default_value_t = 16, value_name = "N")]
    window_tokens: u32,
    /// Output token that l3 is about, from 0.
    #[arg(long, default_value_t = 0, value_name = "I")]
    token: u32,
    /// The other side's trace, as its `verify --level l3 --json` printed it.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Only ask whether the output is plausible for these weights, whoever computed it.
    #[arg(long, conflicts_with_all = ["level", "trace"])]
    plausible: bool,
}

/// See [`Model::Quantize`].
#[derive(clap::Args)]
pub struct Quantize {
    /// GGUF file to read.
    input: PathBuf,
    /// File to write; must not exist.
    output: PathBuf,
    /// What matrices become; the token tables become q8_0 in any case.
    #[arg(long = "type", value_name = "TYPE")]
    kind: QuantizeKind,
}

/// Types that files are quantised to.
#[derive(Clone, Copy, clap::ValueEnum)]
enum QuantizeKind {
    /// 8 bits.
    #[value(name = "q8_0")]
    Q8_0,
    /// 4 bits around zero.
    #[value(name = "q4_0")]
    Q4_0,
    /// 4 bits above a minimum.
    #[value(name = "q4_1")]
    Q4_1,
}

/// See [`Model::Info`].
#[derive(clap::Args)]
pub struct Info {
    #[command(flatten)]
    weight: Weight,
}

/// A job that anybody with the model re-executes: unsigned, for one person's own use. Networks use signed receipts.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LocalReceipt {
    numerics: String,
    weights: Hash32,
    job: JobId,
    prompt_ids: Vec<u32>,
    max_tokens: u32,
    temperature_millionths: u32,
    #[serde(default = "one_million")]
    top_p_millionths: u32,
    #[serde(default)]
    top_k: u32,
    #[serde(default)]
    controls: LocalControls,
    sampling_key: Hash32,
    output_ids: Vec<u32>,
    chain_head: Hash32,
    /// D of each output token; levels l0 and l1 need them.
    #[serde(default)]
    activations: Vec<Hash32>,
    /// Roots of full pages of keys and values.
    #[serde(default)]
    kv_roots: Vec<Hash32>,
}

/// [`Controls`] as they stand in a receipt.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LocalControls {
    min_p_millionths: u32,
    repetition_penalty_millionths: u32,
    frequency_penalty_millionths: i32,
    presence_penalty_millionths: i32,
    logit_bias: Vec<(u32, i32)>,
    stop: Vec<String>,
    /// None: any text. Empty: one JSON object. Else a JSON schema.
    json_schema: Option<String>,
}

fn one_million() -> u32 {
    1_000_000
}

impl Default for LocalControls {
    fn default() -> LocalControls {
        LocalControls {
            min_p_millionths: 0,
            repetition_penalty_millionths: one_million(),
            frequency_penalty_millionths: 0,
            presence_penalty_millionths: 0,
            logit_bias: Vec::new(),
            stop: Vec::new(),
            json_schema: None,
        }
    }
}

impl LocalControls {
    fn controls(&self) -> Controls {
        Controls {
            min_p_millionths: self.min_p_millionths,
            repetition_penalty_millionths: self.repetition_penalty_millionths,
            frequency_penalty_millionths: self.frequency_penalty_millionths,
            presence_penalty_millionths: self.presence_penalty_millionths,
            logit_bias: self.logit_bias.clone(),
            stop_texts: self.stop.clone(),
            format: match self.json_schema.as_deref() {
                None => OutputFormat::Text,
                Some("") => OutputFormat::JsonObject,
                Some(schema) => OutputFormat::JsonSchema(schema.to_owned()),
            },
        }
    }
}

impl Control {
    fn local(&self) -> Result<LocalControls> {
        let mut logit_bias = self.logit_bias.clone();
        logit_bias.sort_unstable();
        let json_schema = match &self.json_schema {
            Some(path) => {
                let schema =
                    std::fs::read_to_string(path).with_context(|| format!("schema {}", path.display()))?;
                if schema.is_empty() {
                    bail!("schema {}: the file is empty; expected a JSON schema", path.display());
                }
                Some(schema)
            }
            None => self.json_object.then(String::new),
        };
        Ok(LocalControls {
            min_p_millionths: millionths("--min-p", self.min_p, 0.0..=1.0)? as u32,
            repetition_penalty_millionths: millionths(
                "--repetition-penalty",
                self.repetition_penalty,
                0.01..=100.0,
            )? as u32,
            frequency_penalty_millionths: millionths(
                "--frequency-penalty",
                self.frequency_penalty,
                -10.0..=10.0,
            )?,
            presence_penalty_millionths: millionths(
                "--presence-penalty",
                self.presence_penalty,
                -10.0..=10.0,
            )?,
            logit_bias,
            stop: self.stop.clone(),
            json_schema,
        })
    }
}

/// A flag's value in millionths.
fn millionths(flag: &str, value: f64, range: std::ops::RangeInclusive<f64>) -> Result<i32> {
    if !range.contains(&value) {
        let (low, high) = (range.start(), range.end());
        return Err(anyhow::anyhow!("{flag} {value}: expected {low} to {high}").context(Failure::Usage));
    }
    Ok((value * 1e6).round() as i32)
}

/// `ID=VALUE` of `--logit-bias`.
fn logit_bias(text: &str) -> Result<(u32, i32), String> {
    let parts =
        text.split_once('=').and_then(|(id, value)| Some((id.parse().ok()?, value.parse::<f64>().ok()?)));
    match parts {
        Some((id, value)) if (-100.0..=100.0).contains(&value) => Ok((id, (value * 1e6).round() as i32)),
        _ => Err("expected ID=VALUE, for example 42=-1.5, VALUE from -100 to 100".to_owned()),
    }
}

impl LocalReceipt {
    fn request(&self) -> JobRequest {
        let params = SamplingParams {
            temperature_millionths: self.temperature_millionths,
            top_p_millionths: self.top_p_millionths,
            top_k: self.top_k,
            sampling_key: self.sampling_key.0,
        };
        let spec = JobSpec {
            job_id: self.job.0,
            prompt_ids: self.prompt_ids.clone(),
            max_tokens: self.max_tokens,
            params,
            stop_ids: Vec::new(),
        };
        JobRequest { controls: self.controls.controls(), ..spec.into() }
    }

    fn claim(&self) -> Claim {
        let plain = |hashes: &[Hash32]| hashes.iter().map(|hash| hash.0).collect();
        Claim {
            output_ids: self.output_ids.clone(),
            chain_head: self.chain_head.0,
            activations: plain(&self.activations),
            kv_roots: plain(&self.kv_roots),
        }
    }
}

impl Model {
    /// Runs the verb.
    pub fn run(self, output: Output) -> Result<ExitCode> {
        match self {
            Model::Generate(generate) => generate.run(output),
            Model::Verify(verify) => verify.run(output),
            Model::Info(info) => info.run(output),
            Model::Quantize(quantize) => quantize.run(output),
        }
    }
}

impl Weight {
    fn load(&self) -> Result<Arc<Weights>> {
        let options = LoadOptions::from_environment()?;
        Weights::load(&self.model, options).with_context(|| format!("model file {}", self.model.display()))
    }

    fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}

impl Generate {
    fn run(self, output: Output) -> Result<ExitCode> {
        let weights = self.weight.load()?;
        let receipt = self.begin(&weights)?;
        let context_tokens_max = weights.context_length();
        let options =
            EngineOptions { threads: self.weight.threads(), jobs_max: 1, queue_max: 1, context_tokens_max };
        let engine = Engine::start(weights.clone(), options);
        let started = Instant::now();
        let mut job = engine.submit(JobRequest { logprobs: self.logprobs, ..receipt.request() })?;
        let mut text = weights.tokenizer().decoder();
        let mut all = String::new();
        let (mut receipt, mut logprobs) = (receipt, Vec::new());
        while let Some(event) = job.next() {
            match event {
                JobEvent::Token(token) => {
                    receipt.output_ids.push(token.id);
                    receipt.activations.push(Hash32(token.activations));
                    logprobs.extend(token.logprobs.map(
                        |l| json!({"id": token.id, "logprob_millionths": l.chosen_millionths, "top": l.top}),
                    ));
                    let piece = text.push(token.id);
                    output.piece(&piece);
                    all.push_str(&piece);
                }
                JobEvent::Done { chain_head, .. } => receipt.chain_head = Hash32(chain_head),
                JobEvent::Failed(error) => return Err(error.into()),
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        all.push_str(&text.finish());
        receipt.kv_roots = job.kv_roots().into_iter().map(Hash32).collect();
        if let Some(path) = &self.receipt {
            write_receipt(path, &receipt)?;
        }
        let tokens = receipt.output_ids.len();
        output.result(
            "",
            &json!({"text": all, "output_tokens": tokens, "prompt_tokens": receipt.prompt_ids.len(),
                    "chain_head": receipt.chain_head, "backend": weights.backend(), "seconds": seconds,
                    "logprobs": self.logprobs.map(|_| logprobs)}),
        );
        eprintln!("{tokens} tokens in {seconds:.2} s on {}", weights.backend());
        Ok(ExitCode::SUCCESS)
    }

    fn begin(&self, weights: &Weights) -> Result<LocalReceipt> {
        let message = ChatMessage { role: "user".to_owned(), content: self.prompt.clone() };
        let job = JobId([0; 16]);
        Ok(LocalReceipt {
            numerics: kernels::NUMERICS_ID.to_owned(),
            weights: Hash32(weights.id()),
            job,
            prompt_ids: prompt_ids(weights.tokenizer(), weights.template(), &[message])?,
            max_tokens: self.max_tokens,
            temperature_millionths: millionths("--temperature", self.temperature, 0.0..=2.0)? as u32,
            top_p_millionths: millionths("--top-p", self.top_p, 0.000_001..=1.0)? as u32,
            top_k: self.top_k,
            controls: self.control.local()?,
            sampling_key: protocol::job_message::sampling_key(
                Some(self.seed.unwrap_or(0)),
                &job,
                &Hash32([0; 32]),
            ),
            output_ids: Vec::new(),
            chain_head: Hash32([0; 32]),
            activations: Vec::new(),
            kv_roots: Vec::new(),
        })
    }
}

fn write_receipt(path: &Path, receipt: &LocalReceipt) -> Result<()> {
    let text = serde_json::to_vec_pretty(receipt)?;
    std::fs::write(path, text).with_context(|| format!("receipt {}", path.display()))
}

impl Verify {
    fn run(self, output: Output) -> Result<ExitCode> {
        let bytes =
            std::fs::read(&self.receipt).with_context(|| format!("receipt {}", self.receipt.display()))?;
        let receipt: LocalReceipt =
            serde_json::from_slice(&bytes).with_context(|| format!("receipt {}", self.receipt.display()))?;
        let weights = self.weight.load()?;
        if receipt.weights.0 != weights.id() {
            bail!("the receipt is for weights {}, this file is {}", receipt.weights, Hash32(weights.id()));
        }
        if self.plausible {
            return self.judge(&weights, &receipt, output);
        }
        let level = match self.level {
            Level::L0 => KernelsLevel::Chain,
            Level::L1 => {
                let seed =
                    getrandom::u64().map_err(|e| anyhow::anyhow!("no randomness for the window: {e}"))?;
                KernelsLevel::Window { tokens: self.window_tokens, seed }
            }
            Level::L2 => KernelsLevel::Whole,
            Level::L3 => return self.dispute(&weights, &receipt, output),
        };
        let started = Instant::now();
        let finding = kernels::verify_job(
            &weights,
            self.weight.threads(),
            &receipt.request(),
            &receipt.claim(),
            level,
        )?;
        let (text, same) = (describe(&finding, &receipt), finding.is_identical());
        let value = json!({"identical": same, "verdict": text, "tokens_checked": finding.tokens_checked,
            "seconds": started.elapsed().as_secs_f64()});
        output.result(&text, &value);
        Ok(if same { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }

    fn judge(&self, weights: &Weights, receipt: &LocalReceipt, output: Output) -> Result<ExitCode> {
        let found = kernels::plausibility(
            weights,
            self.weight.threads(),
            &receipt.prompt_ids,
            &receipt.output_ids,
            receipt.temperature_millionths,
        )?;
        let word = match found.plausible {
            Some(true) => "plausible",
            Some(false) => "not plausible",
            None => "too few tokens to say",
        };
        let text = format!(
            "{word}: mean rank {:.3}, {:.1} % most likely, {:.1} % beyond rank 32, mean log-probability {:.3}, {:+.2} deviations, {} tokens",
            found.rank_mean,
            found.first_share * 100.0,
            found.outlier_share * 100.0,
            found.logprob_mean,
            found.deviations,
            found.tokens
        );
        let value = json!({"plausible": found.plausible, "tokens": found.tokens, "rank_mean": found.rank_mean,
            "first_share": found.first_share, "outlier_share": found.outlier_share,
            "logprob_mean": found.logprob_mean, "deviations": found.deviations});
        output.result(&text, &value);
        Ok(ExitCode::from(match found.plausible {
            Some(true) => 0,
            Some(false) => 1,
            None => 3,
        }))
    }

    fn dispute(&self, weights: &Weights, receipt: &LocalReceipt, output: Output) -> Result<ExitCode> {
        let (request, threads) = (receipt.request(), self.weight.threads());
        let Some(path) = &self.trace else {
            let trace = kernels::trace(weights, threads, &request, &receipt.output_ids, self.token)?;
            let chain: Vec<Hash32> = trace.chain.into_iter().map(Hash32).collect();
            let text = format!("{} steps, ending in {}", chain.len(), chain[chain.len() - 1]);
            output.result(&text, &json!({"token": self.token, "chain": chain}));
            return Ok(ExitCode::SUCCESS);
        };
        let bytes = std::fs::read(path).with_context(|| format!("trace {}", path.display()))?;
        let theirs: ForeignTrace =
            serde_json::from_slice(&bytes).with_context(|| format!("trace {}", path.display()))?;
        if theirs.token != self.token {
            bail!("the trace is about output token {}, --token says {}", theirs.token, self.token);
        }
        let answer = |step: usize| theirs.chain.get(step).map_or([0; 32], |hash| hash.0);
        let dispute = kernels::settle(weights, threads, &request, &receipt.output_ids, self.token, answer)?;
        let (text, agreed) = match &dispute {
            Dispute::Agreed => ("agreed: every operation gives the same".to_owned(), true),
            Dispute::Operation { step, layer, operation, ours_stands, theirs_stands } => {
                let layer = layer.map_or(String::new(), |layer| format!(" of layer {layer}"));
                let stands = |stands: &bool| if *stands { "stands" } else { "does not stand" };
                let (ours, theirs) = (stands(ours_stands), stands(theirs_stands));
                (
                    format!(
                        "step {step} differs: {operation:?}{layer}; by the reference ours {ours}, theirs {theirs}"
                    ),
                    false,
                )
            }
        };
        output.result(&text, &json!({"agreed": agreed, "verdict": text}));
        Ok(if agreed { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

/// What `verify --level l3 --json` prints.
#[derive(Deserialize)]
struct ForeignTrace {
    token: u32,
    chain: Vec<Hash32>,
}

fn describe(finding: &Finding, receipt: &LocalReceipt) -> String {
    match &finding.verdict {
        Verdict::Differs { index, expected, .. } if *expected == kernels::NO_TOKEN => {
            format!("token {index} differs: the job had ended before it")
        }
        Verdict::Differs { index, expected, claimed } => {
            format!("token {index} differs: computed {expected}, claimed {claimed}")
        }
        Verdict::HeadDiffers { computed } => {
            format!("the digest differs: computed {}, claimed {}", Hash32(*computed), receipt.chain_head)
        }
        Verdict::Identical { .. } => match (finding.activations_differ_at, finding.kv_page_differs) {
            (Some(index), _) => format!("the digest of token {index} differs"),
            (None, Some(page)) => format!("the root of page {page} of keys and values differs"),
            (None, None) => {
                let count = receipt.output_ids.len();
                format!("identical: {} of {count} tokens recomputed, and the digest", finding.tokens_checked)
            }
        },
    }
}

impl Quantize {
    fn run(self, output: Output) -> Result<ExitCode> {
        let kind = match self.kind {
            QuantizeKind::Q8_0 => QuantizeType::Q8_0,
            QuantizeKind::Q4_0 => QuantizeType::Q4_0,
            QuantizeKind::Q4_1 => QuantizeType::Q4_1,
        };
        let report = kernels::quantize(&self.input, &self.output, kind)?;
        let id = Hash32(report.id);
        let text = format!(
            "{}\nweights    sha256 {id}\nmatrices   {}\nbytes      {}",
            report.name, report.matrices, report.bytes
        );
        let value =
            json!({"name": report.name, "weights": id, "matrices": report.matrices, "bytes": report.bytes});
        output.result(&text, &value);
        Ok(ExitCode::SUCCESS)
    }
}

impl Info {
    fn run(self, output: Output) -> Result<ExitCode> {
        let weights = self.weight.load()?;
        let id = Hash32(weights.id());
        let text = format!(
            "{}\nweights    sha256 {id}\ntokenizer  {}\ntemplate   {}\ncontext    {} tokens\nbackend    {}",
            weights.name(),
            Hash32(weights.tokenizer().hash()),
            Hash32(weights.template().hash()),
            weights.context_length(),
            weights.backend(),
        );
        let value = json!({"name": weights.name(), "weights": id, "tokenizer": Hash32(weights.tokenizer().hash()),
            "template": Hash32(weights.template().hash()), "context_tokens": weights.context_length(),
            "backend": weights.backend(), "numerics": kernels::NUMERICS_ID});
        output.result(&text, &value);
        Ok(ExitCode::SUCCESS)
    }
}
