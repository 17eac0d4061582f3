//! `cargo xtask up`: fetch, build in release, become `counterfoil up`. No logic of the network here.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::tools::{self, Tool};
use crate::workspace::Workspace;

/// What a whole network needs to run; forge and the compiler stay away, since artefacts are committed.
const NEEDED: &[Tool] = &[Tool::NatsServer, Tool::Anvil, Tool::Model];

pub fn run(workspace: &Workspace, arguments: &[OsString]) -> Result<ExitCode> {
    let tools = tools::ensure(workspace, NEEDED)?;

    // The binary comes last in cargo's progress; stdout stays free for `up --json`.
    let status = workspace
        .cargo()
        .args(["build", "--release", "--bin", "counterfoil"])
        .status()
        .context("cargo could not be started")?;
    if !status.success() {
        return Ok(exit_code(status.code()));
    }

    let binary =
        workspace.target().join("release").join(format!("counterfoil{}", std::env::consts::EXE_SUFFIX));
    // The user's own directory, not the root: `--data ./here` means here.
    let mut command = Command::new(&binary);
    command.arg("up").args(arguments);
    tools.export(&mut command);
    become_child(command).with_context(|| format!("{} could not be started", workspace.shown(&binary)))
}

/// The process is replaced, so that Ctrl-C and the exit code are the child's own.
#[cfg(unix)]
fn become_child(mut command: Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    Err(command.exec().into())
}

#[cfg(not(unix))]
fn become_child(mut command: Command) -> Result<ExitCode> {
    Ok(exit_code(command.status()?.code()))
}

/// A child that was killed by a signal has no code; that is a failure like any other.
fn exit_code(code: Option<i32>) -> ExitCode {
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
