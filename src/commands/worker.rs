//! `counterfoil worker`: the operator's side.

use super::node;
use super::up::FETCHED_MODEL;
use crate::exit_code::Failure;
use crate::output::Output;
use anyhow::{Context, Result, bail};
use futures::StreamExt;
use protocol::id::{Hash32, SealingKey};
use protocol::rate::ProofClass;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use worker::conformance::{CaseVerdict, ConformanceOptions};
use worker::control::{Request, ask};
use worker::{WorkerConfig, WorkerOptions, doctor, drain};

/// Verbs of `counterfoil worker`.
#[derive(clap::Subcommand)]
pub enum Worker {
    /// Take jobs until SIGTERM or Ctrl-C, then finish what runs. Example: counterfoil worker run --config worker.toml
    Run(Config),
    /// Check connection, permissions, models and clock; one line each, with what to do.
    Doctor(Config),
    /// What the running worker does now.
    Status(Config),
    /// Take no new jobs, finish, end.
    Drain(Config),
    /// What the nodes' operator earned, and its nodes' standing; with --follow each charge as it is booked.
    Earnings(Earnings),
    /// Play the job protocol's cases against anybody's worker and print what does not hold.
    Conformance(Conformance),
}

/// See [`Worker::Earnings`].
#[derive(clap::Args)]
pub struct Earnings {
    #[command(flatten)]
    config: Config,
    /// Base URL of a gateway.
    #[arg(long, env = "COUNTERFOIL_GATEWAY", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    gateway: String,
    /// Go on: a line for each event of the network that concerns this operator, from now on.
    #[arg(long)]
    follow: bool,
}

/// See [`Worker::Conformance`].
#[derive(clap::Args)]
pub struct Conformance {
    /// Where the broker is.
    #[arg(long, default_value = "nats://127.0.0.1:4222", value_name = "URL")]
    nats: String,
    /// Credentials of role gateway; a network that `counterfoil up` made has them in data/keys/.
    #[arg(long, value_name = "FILE")]
    creds: PathBuf,
    /// The node's subjects: job.OPERATOR.NODE
    #[arg(long, value_name = "SUBJECT")]
    subject: String,
    /// The node's public key, 64 hex digits: `sealing_key` of its registration.
    #[arg(long, value_name = "HEX")]
    sealing_key: SealingKey,
    /// A model that it serves, by its name on the price list.
    #[arg(long, value_name = "NAME")]
    model: String,
    /// That model's GGUF file: its hash is the weights' name, its tokenizer makes the prompt.
    #[arg(long, env = "COUNTERFOIL_MODEL", default_value = FETCHED_MODEL, value_name = "FILE")]
    model_file: PathBuf,
    /// What the price list says of it.
    #[arg(long, default_value = "re-executable", value_name = "CLASS")]
    proof_class: Class,
}

/// [`ProofClass`] as it is written here.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Class {
    /// Canonical numerics.
    ReExecutable,
    /// A foreign backend.
    Attested,
}

/// What the kit's jobs ask.
const CONFORMANCE_PROMPT: &str = "Count from one to a hundred in words.";

/// The operator's configuration file.
#[derive(clap::Args)]
pub struct Config {
    /// TOML file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl Config {
    fn load(&self) -> Result<WorkerOptions> {
        let text =
            std::fs::read_to_string(&self.config).with_context(|| self.config.display().to_string())?;
        let config: WorkerConfig = toml::from_str(&text)
            .with_context(|| self.config.display().to_string())
            .context(Failure::Usage)?;
        Ok(config.options(self.config.parent().unwrap_or(Path::new(".")))?)
    }
}

impl Worker {
    /// Runs the verb.
    pub fn run(self, output: Output) -> Result<ExitCode> {
        let runtime = tokio::runtime::Runtime::new()?;
        runtime.block_on(async {
            match self {
                Worker::Run(config) => run(config.load()?, output).await,
                Worker::Doctor(config) => examine(&config.load()?, output).await,
                Worker::Status(config) => tell(&config.load()?, Request::Status, output).await,
                Worker::Drain(config) => tell(&config.load()?, Request::Drain, output).await,
                Worker::Earnings(earnings) => earnings.run(output).await,
                Worker::Conformance(conformance) => conformance.run(output).await,
            }
        })
    }
}

async fn run(options: WorkerOptions, output: Output) -> Result<ExitCode> {
    let worker = worker::Worker::start(options).await?;
    let handle = worker.handle();
    worker::notify::tell(worker::notify::Moment::Ready);
    output.result("worker: taking jobs", &json!({"worker": "ready", "status": handle.status()}));
    let drained = tokio::select! {
        drained = worker.run() => drained?,
        asked_twice = drain::on_signals(handle) => {
            asked_twice?;
            return Ok(ExitCode::from(130));
        }
    };
    let unsent = drained.receipts_unsent;
    output.result(
        &format!("worker: drained, {unsent} receipts to send later"),
        &json!({"receipts_unsent": unsent}),
    );
    Ok(ExitCode::SUCCESS)
}

async fn examine(options: &WorkerOptions, output: Output) -> Result<ExitCode> {
    let diagnosis = doctor::examine(options).await;
    for check in &diagnosis.checks {
        let remedy =
            if check.remedy.is_empty() { String::new() } else { format!("\n      {}", check.remedy) };
        let text = format!("{:?}  {}: {}{remedy}", check.verdict, check.name, check.detail);
        output.result(&text, &json!(check));
    }
    Ok(match diagnosis.verdict() {
        doctor::Verdict::Passed | doctor::Verdict::Warning => ExitCode::SUCCESS,
        doctor::Verdict::Failed => ExitCode::from(1),
        doctor::Verdict::Inconclusive => ExitCode::from(3),
    })
}

async fn tell(options: &WorkerOptions, request: Request, output: Output) -> Result<ExitCode> {
    let status = ask(&options.data_dir, request).await?;
    let mut text =
        format!("operator {}  connected {}  draining {}", status.operator, status.connected, status.draining);
    for node in &status.nodes {
        text.push_str(&format!(
            "\n{}  {}/{} jobs  {}",
            node.node,
            node.inflight,
            node.slots,
            node.models.join(", ")
        ));
        for (model, why) in &node.why {
            text.push_str(&format!("\n  {model}: {why}"));
        }
    }
    output.result(&text, &json!(status));
    Ok(ExitCode::SUCCESS)
}

impl Earnings {
    async fn run(self, output: Output) -> Result<ExitCode> {
        let options = self.config.load()?;
        for node in &options.nodes {
            let (gateway, id) = (self.gateway.clone(), node.id);
            let told = tokio::task::spawn_blocking(move || node::fetch(&gateway, &id)).await??;
            output.result(&earnings_text(&told), &told);
        }
        if self.follow {
            let mut events = worker::follow::events(&options).await?;
            while let Some((kind, event)) = events.next().await {
                output.result(&format!("{kind}  {event}"), &json!({"type": kind, "event": event}));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn earnings_text(node: &serde_json::Value) -> String {
    let mut text = node["node"].as_str().unwrap_or_default().to_owned();
    for line in node["earnings"].as_array().into_iter().flatten() {
        let figure = |name: &str| line[name].as_str().unwrap_or("0").to_owned();
        text.push_str(&format!(
            "\n{}  accrued {}  settling {}  payable {}  claimed {}",
            line["asset"].as_str().unwrap_or_default(),
            figure("accrued"),
            figure("settling"),
            figure("payable"),
            figure("claimed"),
        ));
    }
    text
}

impl Conformance {
    async fn run(self, output: Output) -> Result<ExitCode> {
        let tokens: Vec<&str> = self.subject.split('.').collect();
        let ["job", operator, node, ..] = tokens[..] else {
            bail!("--subject: expected job.OPERATOR.NODE, found {:?}", self.subject);
        };
        let credentials = journal::auth::Credentials::read(&self.creds)?;
        let (tokenizer, template, weights) = kernels::Tokenizer::from_gguf(&self.model_file)
            .with_context(|| format!("{}: --model-file", self.model_file.display()))?;
        let message = kernels::ChatMessage { role: "user".into(), content: CONFORMANCE_PROMPT.into() };
        let options = ConformanceOptions {
            nats: journal::auth::connect(&self.nats, &credentials).await?,
            operator: operator.parse().context("--subject")?,
            node: node.parse().context("--subject")?,
            sealing_key: self.sealing_key,
            model: self.model,
            weights: Hash32(weights),
            proof_class: match self.proof_class {
                Class::ReExecutable => ProofClass::ReExecutable,
                Class::Attested => ProofClass::Attested,
            },
            prompt_ids: kernels::prompt_ids(&tokenizer, &template, &[message])?,
            prompt: CONFORMANCE_PROMPT.into(),
        };
        let found = worker::conformance::examine(options).await?;
        for case in &found.cases {
            let section = case.section;
            let text = match case.verdict {
                CaseVerdict::Passed => format!("pass  {} (section {section})", case.name),
                CaseVerdict::Skipped => format!("skip  {} (section {section}): {}", case.name, case.detail),
                CaseVerdict::Failed => format!("FAIL  {} (section {section}): {}", case.name, case.detail),
            };
            output.result(&text, &json!(case));
        }
        Ok(if found.holds() { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}
