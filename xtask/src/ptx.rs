//! `cargo xtask ptx`: the committed PTX of the CUDA kernels, the proof that compiling gives the same bytes, and what must
//! not stand in it. Needs no GPU. What the kernels compute is their own matter.

mod lint;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::tools::{self, Tool};
use crate::workspace::Workspace;

const SOURCE: &str = "kernels/cuda/kernels.cu";
const PTX: &str = "kernels/cuda/kernels.ptx";

/// Below `.tools/`: where the pinned NVRTC lies.
const LIBRARIES: &str = "nvrtc";
const LIBRARY: &str = "libnvrtc.so.13";

/// The oldest GPU with the integer tensor cores and asynchronous copies that the kernels use.
const VIRTUAL_ARCHITECTURE: &str = "compute_80";
/// The GPU whose registers are counted.
const REAL_ARCHITECTURE: &str = "sm_90";

/// Part of the numerics' safety net: even a plain `a*b+c` that slipped in would keep two roundings.
const OPTIONS: &[&str] =
    &["--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true"];

pub fn run(workspace: &Workspace, check: bool) -> Result<ExitCode> {
    if let Some(reason) = unfit() {
        bail!("{reason}");
    }
    tools::ensure(workspace, &[Tool::Nvrtc])?;
    if check {
        println!("ptx: {}", self::check(workspace)?);
        return Ok(ExitCode::SUCCESS);
    }
    let built = build(workspace)?;
    let findings = lint::findings(&built);
    fs::write(workspace.root.join(PTX), &built).with_context(|| format!("{PTX} cannot be written"))?;
    println!("ptx: {} bytes written to {PTX}", built.len());
    tell(&findings)?;
    println!("ptx: {}", spills(workspace)?);
    Ok(ExitCode::SUCCESS)
}

/// Why this machine cannot check, if it cannot: NVRTC is pinned for one platform.
pub fn unfit() -> Option<String> {
    let here = (std::env::consts::OS, std::env::consts::ARCH);
    if here != ("linux", "x86_64") {
        return Some(format!("NVRTC is pinned for linux x86_64 only, and this is {} {}", here.0, here.1));
    }
    tools::python().err().map(|error| error.to_string())
}

/// Compiles anew, compares, lints, counts spills; says what held. The caller has ensured NVRTC.
pub fn check(workspace: &Workspace) -> Result<String> {
    let built = build(workspace)?;
    let committed =
        fs::read_to_string(workspace.root.join(PTX)).with_context(|| format!("{PTX} is missing"))?;
    if built != committed {
        let line = built.lines().zip(committed.lines()).take_while(|(one, two)| one == two).count() + 1;
        bail!(
            "{PTX} is not what {SOURCE} gives (first difference: line {line}); rebuild and commit it: cargo xtask ptx"
        );
    }
    tell(&lint::findings(&built))?;
    Ok(format!("{} bytes, compiling gives the same; lint clean; {}", built.len(), spills(workspace)?))
}

fn tell(findings: &[String]) -> Result<()> {
    if findings.is_empty() {
        return Ok(());
    }
    bail!("{PTX} holds what changes bits from one GPU or compiler to another:\n  {}", findings.join("\n  "))
}

fn build(workspace: &Workspace) -> Result<String> {
    let output = workspace.target().join("xtask-kernels.ptx");
    compile(workspace, VIRTUAL_ARCHITECTURE, &output, OPTIONS)?;
    let text = fs::read_to_string(&output).context("NVRTC wrote no PTX")?;
    fs::remove_file(&output)?;
    // NVRTC ends its text with a zero byte or without a line end, depending on the version.
    Ok(format!("{}\n", text.trim_end_matches(['\0', '\n'])))
}

/// Registers that did not fit would go to memory: slow, and a sign that a kernel outgrew its design.
fn spills(workspace: &Workspace) -> Result<String> {
    let options = [OPTIONS, &["--ptxas-options=-v"]].concat();
    let log = compile(workspace, REAL_ARCHITECTURE, Path::new("none"), &options)?;
    let (kernel_count, spilled) = spilled_bytes(&log);
    if kernel_count == 0 {
        bail!("the assembler's log names no kernel:\n{log}");
    }
    if spilled > 0 {
        bail!("{spilled} bytes of registers are spilled on {REAL_ARCHITECTURE}:\n{log}");
    }
    Ok(format!("{kernel_count} kernels, 0 spills on {REAL_ARCHITECTURE}"))
}

/// Kernels in ptxas's log, and bytes they store and load because registers ran out.
fn spilled_bytes(log: &str) -> (usize, u64) {
    let bytes_before = |what: &str| {
        let parts = log.match_indices(what).map(|(at, _)| &log[..at]);
        parts.filter_map(|before| before.trim_end().rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    let kernels = log.matches("Compiling entry function").count();
    (kernels, bytes_before("bytes spill stores") + bytes_before("bytes spill loads"))
}

fn compile(workspace: &Workspace, architecture: &str, output: &Path, options: &[&str]) -> Result<String> {
    let libraries: PathBuf = workspace.tools().join(LIBRARIES);
    let mut command = Command::new(tools::python()?);
    command.arg(workspace.root.join("xtask/src/ptx/nvrtc.py")).arg(libraries.join(LIBRARY));
    command.arg(workspace.root.join(SOURCE)).arg(output).arg(architecture).args(options);
    // NVRTC looks for its second half by name.
    let result = command.env("LD_LIBRARY_PATH", OsStr::new(&libraries)).output()?;
    if !result.status.success() {
        bail!("{SOURCE} does not compile: {}", String::from_utf8_lossy(&result.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spills_are_summed_over_kernels() {
        let log = "ptxas info : Compiling entry function 'a' for 'sm_90'\n\
                   ptxas . 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
                   ptxas info : Compiling entry function 'b' for 'sm_90'\n\
                   ptxas . 8 bytes stack frame, 12 bytes spill stores, 4 bytes spill loads\n";
        assert_eq!(spilled_bytes(log), (2, 16));
    }
}
