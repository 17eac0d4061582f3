//! `cargo xtask sim`: builds the simulator with its mutants and becomes it. The histories are its own matter.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::workspace::Workspace;

/// Seeds that the test command runs.
pub const SEEDS: u64 = 10_000;

#[derive(Args)]
pub struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = SEEDS, value_name = "N")]
    seeds: u64,
    /// The first one. With `--seeds 1`: one history again.
    #[arg(long, default_value_t = 0, value_name = "S")]
    seed: u64,
    /// Run with this mistake until a seed catches it; `list` names them.
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// After the healthy seeds every mistake, each until it is caught.
    #[arg(long)]
    mutants: bool,
}

impl Arguments {
    /// What the test command runs.
    pub fn for_test() -> Arguments {
        Arguments { seeds: SEEDS, seed: 0, mutant: None, mutants: true }
    }
}

pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    let binary = build(workspace)?;
    let mut command = workspace.command(&binary);
    command.args(["--seeds", &arguments.seeds.to_string(), "--seed", &arguments.seed.to_string()]);
    if let Some(name) = &arguments.mutant {
        command.args(["--mutant", name]);
    }
    if arguments.mutants {
        command.arg("--mutants");
    }
    let status = command.status().with_context(|| format!("{} did not start", workspace.shown(&binary)))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// For the whole workspace, so that other crates keep the features they were built with; only the pipeline is built again,
/// with its mutants.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let status = workspace
        .cargo()
        .args(["build", "--workspace", "--bin", "simulator", "--features", "simulator/mutants"])
        .status()
        .context("cargo could not be started")?;
    if !status.success() {
        bail!("the simulator does not build: see above");
    }
    Ok(workspace.target().join("debug").join(format!("simulator{}", std::env::consts::EXE_SUFFIX)))
}
