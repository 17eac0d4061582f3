//! `counterfoil worker`: the operator's side.

use crate::exit_code::Failure;
use crate::output::Output;
use anyhow::{Context, Result};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
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
}

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
            }
        })
    }
}

async fn run(options: WorkerOptions, output: Output) -> Result<ExitCode> {
    let worker = worker::Worker::start(options).await?;
    let handle = worker.handle();
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
    }
    output.result(&text, &json!(status));
    Ok(ExitCode::SUCCESS)
}
