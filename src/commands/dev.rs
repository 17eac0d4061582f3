//! `counterfoil dev`: what only a development network allows.

use crate::output::Output;
use crate::story::http::Http;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::process::ExitCode;

/// See [`super::Command::Dev`]. Example: counterfoil dev advance --seconds 604800
#[derive(clap::Subcommand)]
pub enum Dev {
    /// Move the development chain's clock forward and mine a block: exits, roots and votes become due.
    Advance(Advance),
}

/// See [`Dev::Advance`].
#[derive(clap::Args)]
pub struct Advance {
    /// How far, at most ten years.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=315_360_000))]
    seconds: u64,
    /// The chain's RPC address, as `up --ready-file` writes it.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8545")]
    chain_rpc: String,
}

impl Dev {
    /// Runs it.
    pub fn run(self, output: Output) -> Result<ExitCode> {
        let Dev::Advance(advance) = self;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let time_s = runtime.block_on(advance.run())?;
        let text =
            format!("The chain's clock went {} s forward: its newest block is of {time_s}.", advance.seconds);
        output.result(&text, &json!({"seconds": advance.seconds, "time_s": time_s}));
        Ok(ExitCode::SUCCESS)
    }
}

impl Advance {
    async fn run(&self) -> Result<u64> {
        self.call("evm_increaseTime", json!([self.seconds])).await?;
        self.call("evm_mine", json!([])).await?;
        let block = self.call("eth_getBlockByNumber", json!(["latest", false])).await?;
        let time = block["timestamp"].as_str().and_then(|text| text.strip_prefix("0x"));
        let time = time.and_then(|text| u64::from_str_radix(text, 16).ok());
        time.context("the newest block has no timestamp: is this a chain's RPC address?")
    }

    async fn call(&self, method: &str, params: Value) -> Result<Value> {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let answer = Http::new(&self.chain_rpc).post("/", body).await?;
        match answer.get("error") {
            Some(error) => anyhow::bail!("{method}: {error}: only a development chain's clock can be moved"),
            None => Ok(answer["result"].clone()),
        }
    }
}
