//! slither over the contracts: every finding must have an answer, every answer its finding.
//! Knows how to get and call it; what is compared stands in its driver beside the contracts.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::foreign;
use crate::workspace::Workspace;

const SOURCES: &str = "contracts/solidity";
const DRIVER: &str = "script/slither.py";

/// Builds with forge, then compares. The caller has ensured forge and the compiler.
pub fn check(workspace: &Workspace, forge: &Path) -> Result<()> {
    let python = foreign::slither(workspace)?;
    let sources = workspace.root.join(SOURCES);
    let built = workspace.target().join("slither");
    let forge_folder = forge.parent().context("forge has no folder")?;
    let mut build = Command::new(forge);
    build.current_dir(&sources).env("FOUNDRY_OFFLINE", "true").stdin(Stdio::null());
    build.args(["build", "--quiet", "--build-info", "--skip", "test", "--skip", "script", "--out"]);
    build.arg(built.join("out")).arg("--cache-path").arg(built.join("cache"));
    build.arg("--build-info-path").arg(built.join("out/build-info"));
    let output = build.output().context("forge could not be started")?;
    if !output.status.success() {
        bail!("forge build ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    let mut driver = Command::new(python);
    driver.current_dir(&sources).arg(DRIVER).arg(built.join("out")).stdin(Stdio::null());
    driver.env("PATH", path_with(forge_folder)?);
    let status = driver.status().context("slither's driver could not be started")?;
    if !status.success() {
        bail!("slither and the answers to it differ; see above");
    }
    Ok(())
}

/// slither asks forge for the configuration.
fn path_with(folder: &Path) -> Result<std::ffi::OsString> {
    let present = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(folder.to_path_buf()).chain(std::env::split_paths(&present));
    std::env::join_paths(all).context("PATH cannot be extended")
}
