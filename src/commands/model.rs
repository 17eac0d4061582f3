//! `counterfoil model`: the model alone, without network or money.

use crate::exit_code::Failure;
use crate::output::Output;
use anyhow::{Context, Result, bail};
use kernels::{
    ChatMessage, Engine, EngineOptions, JobEvent, JobSpec, LoadOptions, Model as Weights, SamplingParams,
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
    Generate(Generate),
    /// Re-execute a receipt that `generate --receipt` wrote; names the first token that differs.
    Verify(Verify),
    /// Describe a model file.
    Info(Info),
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
    /// Where the kernels run; only `cpu` is built in so far.
    #[arg(long, default_value = "cpu", value_parser = ["cpu"])]
    device: String,
    /// Write what is needed to re-execute the job.
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
}

/// See [`Model::Verify`].
#[derive(clap::Args)]
pub struct Verify {
    #[command(flatten)]
    weight: Weight,
    /// The file that `generate --receipt` wrote.
    receipt: PathBuf,
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
    sampling_key: Hash32,
    output_ids: Vec<u32>,
    chain_head: Hash32,
}

impl LocalReceipt {
    fn spec(&self) -> JobSpec {
        let params = SamplingParams {
            temperature_millionths: self.temperature_millionths,
            sampling_key: self.sampling_key.0,
            ..SamplingParams::greedy()
        };
        JobSpec {
            job_id: self.job.0,
            prompt_ids: self.prompt_ids.clone(),
            max_tokens: self.max_tokens,
            params,
            stop_ids: Vec::new(),
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
        let mut job = engine.submit(receipt.spec())?;
        let mut text = weights.tokenizer().decoder();
        let mut all = String::new();
        let mut receipt = receipt;
        while let Some(event) = job.next() {
            match event {
                JobEvent::Token(token) => {
                    receipt.output_ids.push(token.id);
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
        if let Some(path) = &self.receipt {
            write_receipt(path, &receipt)?;
        }
        let tokens = receipt.output_ids.len();
        output.result(
            "",
            &json!({"text": all, "output_tokens": tokens, "prompt_tokens": receipt.prompt_ids.len(),
                    "chain_head": receipt.chain_head, "backend": weights.backend(), "seconds": seconds}),
        );
        eprintln!("{tokens} tokens in {seconds:.2} s on {}", weights.backend());
        Ok(ExitCode::SUCCESS)
    }

    fn begin(&self, weights: &Weights) -> Result<LocalReceipt> {
        if !(0.0..=2.0).contains(&self.temperature) {
            return Err(anyhow::anyhow!("--temperature {}: expected 0 to 2", self.temperature)
                .context(Failure::Usage));
        }
        let message = ChatMessage { role: "user".to_owned(), content: self.prompt.clone() };
        let job = JobId([0; 16]);
        Ok(LocalReceipt {
            numerics: kernels::NUMERICS_ID.to_owned(),
            weights: Hash32(weights.id()),
            job,
            prompt_ids: prompt_ids(weights.tokenizer(), weights.template(), &[message])?,
            max_tokens: self.max_tokens,
            temperature_millionths: (self.temperature * 1e6).round() as u32,
            sampling_key: protocol::job_message::sampling_key(
                Some(self.seed.unwrap_or(0)),
                &job,
                &Hash32([0; 32]),
            ),
            output_ids: Vec::new(),
            chain_head: Hash32([0; 32]),
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
        let verdict = kernels::verify(
            &weights,
            self.weight.threads(),
            &receipt.spec(),
            &receipt.output_ids,
            &receipt.chain_head.0,
        )?;
        let (text, same) = match &verdict {
            Verdict::Identical { .. } => {
                (format!("identical: {} tokens and the digest", receipt.output_ids.len()), true)
            }
            Verdict::Differs { index, expected, claimed } => {
                (format!("token {index} differs: computed {expected}, claimed {claimed}"), false)
            }
            Verdict::HeadDiffers { computed } => (
                format!("the digest differs: computed {}, claimed {}", Hash32(*computed), receipt.chain_head),
                false,
            ),
        };
        output.result(&text, &json!({"identical": same, "verdict": text}));
        Ok(if same { ExitCode::SUCCESS } else { ExitCode::from(1) })
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
