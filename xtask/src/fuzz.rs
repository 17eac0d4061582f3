//! `cargo xtask fuzz`: builds the hunter and becomes it. The targets are its own matter.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::workspace::Workspace;

#[derive(Args)]
pub struct Arguments {
    /// Seconds for each target.
    #[arg(long, default_value_t = 5, value_name = "N")]
    seconds: u64,
    /// Only this one; `list` names them.
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Where chance begins.
    #[arg(long, default_value_t = 0, value_name = "S")]
    seed: u64,
    /// One file again, and nothing else; needs `--target`.
    #[arg(long, value_name = "FILE", requires = "target")]
    input: Option<PathBuf>,
}

pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    let built = workspace.cargo().args(["build", "--workspace", "--bin", "fuzz"]).status();
    if !built.context("cargo could not be started")?.success() {
        bail!("the hunter does not build: see above");
    }
    let binary = workspace.target().join("debug").join(format!("fuzz{}", std::env::consts::EXE_SUFFIX));
    let mut command = workspace.command(&binary);
    command.args(["--seconds", &arguments.seconds.to_string(), "--seed", &arguments.seed.to_string()]);
    if let Some(target) = &arguments.target {
        command.args(["--target", target]);
    }
    if let Some(input) = &arguments.input {
        command.arg("--input").arg(input);
    }
    let status = command.status().with_context(|| format!("{} did not start", workspace.shown(&binary)))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
