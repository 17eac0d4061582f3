//! `cargo xtask chaos`: rounds of killed and stopped processes on a network under load. What a round is, and what must hold
//! after it, is `tests/src/chaos.rs`.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::tools::{self, Tool};
use crate::workspace::Workspace;

#[derive(Args)]
pub struct Arguments {
    /// How many rounds.
    #[arg(long, default_value_t = 30, value_name = "N")]
    rounds: u64,
    /// Chooses the blows.
    #[arg(long, default_value_t = 1, value_name = "S")]
    seed: u64,
}

pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    let numbers = [
        ("COUNTERFOIL_CHAOS_ROUNDS", arguments.rounds.to_string()),
        ("COUNTERFOIL_CHAOS_SEED", arguments.seed.to_string()),
    ];
    network_test(workspace, "chaos_rounds", &numbers)
}

/// Builds everything and runs one suite of `tests/` with its output shown.
pub fn network_test(workspace: &Workspace, suite: &str, variables: &[(&str, String)]) -> Result<ExitCode> {
    let tools = tools::ensure(workspace, &[Tool::NatsServer, Tool::Anvil, Tool::Model])?;
    // The suite starts `counterfoil`, which cargo does not know.
    let built = workspace
        .cargo()
        .args(["build", "--workspace", "--bins"])
        .status()
        .context("cargo could not be started")?;
    if !built.success() {
        bail!("the network does not build: see above");
    }
    let mut cargo = workspace.cargo();
    cargo.args([
        "test",
        "--quiet",
        "--workspace",
        "--test",
        suite,
        "--",
        "--nocapture",
        "--test-threads",
        "1",
    ]);
    tools.export(&mut cargo);
    cargo.envs(variables.iter().map(|(name, value)| (name, value)));
    let status = cargo.status().context("cargo could not be started")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
