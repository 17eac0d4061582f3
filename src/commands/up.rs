//! `counterfoil up`: the whole network on this machine, and one customer's story on it.

use crate::network::chain_options::ChainOptions;
use crate::network::{AfterReorg, Network, NetworkOptions};
use crate::output::Output;
use crate::story;
use crate::story::customer::Customer;
use crate::story::events::EventLog;
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use ledger::preset::Preset;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Where `cargo xtask tools` puts the model.
pub(super) const FETCHED_MODEL: &str = ".tools/models/SmolLM2-135M-Instruct.Q4_1.gguf";

/// The story of an allotment ends with its day: so long it is then, unless `--day-s` says otherwise.
const STORY_DAY_S: u64 = 40;
/// Settlement epochs of a day.
const EPOCHS_A_DAY: u64 = 4;

/// See [`super::Command::Up`]. Example: counterfoil up --data data
#[derive(clap::Args)]
pub struct Up {
    /// Which network: `prepaid`, `allotment`, `circular`, `mixed`, or a preset file.
    #[arg(long, default_value = "prepaid", value_name = "NAME|FILE")]
    preset: String,
    /// Length of the economy's day, for development: the story of an allotment waits for its end.
    #[arg(long, value_name = "S")]
    day_s: Option<u64>,
    /// Everything lies under it; used again, the same ledger goes on.
    #[arg(long, default_value = "data", value_name = "DIR")]
    data: PathBuf,
    /// Gateway's port; busy is an error. 0 takes free ports for everything.
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// End after the story, with 0 only if every step held.
    #[arg(long)]
    once: bool,
    /// Serve without walking the story first.
    #[arg(long, conflicts_with = "once")]
    no_story: bool,
    /// Write where everything is, as JSON, once it answers.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// What runs the model: `builtin`.
    #[arg(long, default_value = "builtin", value_parser = ["builtin"])]
    backend: String,
    /// GGUF file; by default what `cargo xtask tools` fetched.
    #[arg(long, env = "COUNTERFOIL_MODEL", value_name = "FILE", default_value = FETCHED_MODEL)]
    model: PathBuf,
    /// How the chain is read: confirmations, other nodes that must agree, depth of large deposits.
    #[arg(long, value_name = "FILE")]
    chain: Option<PathBuf>,
    /// Go on after a chain reorganisation that took deposits which were spent already: somebody has looked.
    #[arg(long)]
    resume_after_reorg: bool,
    /// Print the preset's configuration and end.
    #[arg(long)]
    print_config: bool,
}

impl Up {
    /// Runs it.
    pub fn run(self, output: Output) -> Result<ExitCode> {
        let (text, preset) = self.read_preset()?;
        if self.print_config {
            output.bytes(text.as_bytes());
            return Ok(ExitCode::SUCCESS);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(self.serve(preset, output))
    }

    async fn serve(self, preset: Preset, output: Output) -> Result<ExitCode> {
        let mut interrupt = std::pin::pin!(interrupted());
        let bar = spinner();
        let options = NetworkOptions {
            data: self.data.clone(),
            port: self.port,
            model: self.model.clone(),
            preset,
            chain: ChainOptions::load(self.chain.as_deref())?,
            after_reorg: if self.resume_after_reorg { AfterReorg::Resume } else { AfterReorg::Wait },
        };
        let progress = |part: &str| bar.set_message(format!("starting: {part}"));
        let network = tokio::select! {
            started = Network::start(options, &progress) => started?,
            () = &mut interrupt => return Ok(ExitCode::from(130)),
        };
        bar.finish_and_clear();
        for note in &network.notes {
            eprintln!("  {note}");
        }
        let told = tokio::select! {
            told = self.tell(&network, output) => told,
            () = &mut interrupt => Ok(()),
        };
        if told.is_ok() && !self.once {
            interrupt.await;
        }
        let ended = network.shutdown().await;
        told?;
        ended?;
        Ok(ExitCode::SUCCESS)
    }

    async fn tell(&self, network: &Network, output: Output) -> Result<()> {
        if !self.no_story {
            story::tell(network, &output).await?;
        }
        let events = EventLog::follow(&network.journal);
        let customer = Customer::of_this_directory(network, &events).await?;
        let ready = ready(network, &customer);
        if let Some(path) = &self.ready_file {
            crate::network::secrets::write_secret(path, &ready.to_string())
                .with_context(|| path.display().to_string())?;
        }
        if !self.once {
            let text = invitation(network, &customer).await?;
            output.result(&text, &json!({"step": "ready", "ready": ready}));
        }
        Ok(())
    }
}

impl Up {
    fn read_preset(&self) -> Result<(String, Preset)> {
        let (file, text) = match economy::shipped(&self.preset) {
            Some(text) => (format!("presets/{}.toml", self.preset), text.to_owned()),
            None => {
                let unknown = || format!("{} is neither a preset nor a file", self.preset);
                (self.preset.clone(), std::fs::read_to_string(&self.preset).with_context(unknown)?)
            }
        };
        let mut preset = economy::preset_file::read(&file, &text)?;
        let has_allotment = preset.economy.as_ref().is_some_and(|economy| economy.allotment.is_some());
        let day_s = self.day_s.or((self.once && has_allotment).then_some(STORY_DAY_S));
        if let (Some(day_s), Some(economy)) = (day_s, &mut preset.economy) {
            economy.day_s = day_s;
            preset.settings.epoch_s = (day_s / EPOCHS_A_DAY).max(1);
            preset.check()?;
        }
        Ok((text, preset))
    }
}

fn ready(network: &Network, customer: &Customer) -> Value {
    json!({
        "gateway": network.gateway_url,
        "api_key": customer.api_key,
        "admin_key": network.secrets.admin_key,
        "auditor_key": network.secrets.auditor_key,
        "nats": network.nats_url,
        "chain_rpc": network.chain_url,
        "data_dir": network.data,
        "auditor_policy": network.data.join("auditor.policy"),
        "pids": network.pids(),
    })
}

async fn invitation(network: &Network, customer: &Customer) -> Result<String> {
    let (url, key, model) = (&network.gateway_url, &customer.api_key, network.first_model().await?);
    Ok(format!(
        "Up. Open {url} in a browser: chat, money, nodes, books.\n\
         Gateway {url}  (OpenAI base URL {url}/v1)\n\
         API key of a funded account: {key}\n\n\
         curl {url}/v1/chat/completions -H 'authorization: Bearer {key}' -H 'content-type: application/json' \\\n  \
         -d '{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello!\"}}]}}'\n\n\
         Ctrl-C ends everything; the ledger in {} goes on next time.",
        network.data.display()
    ))
}

/// Ctrl-C or SIGTERM.
pub async fn interrupted() {
    let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(_) => return std::future::pending().await,
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
