//! llama.cpp through the package `llama-cpp-python`, compiled for this processor from its sources. Only on request.

use crate::{BenchError, Tried};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Pinned, because figures of different versions differ.
const PACKAGE: &str = "llama-cpp-python==0.3.36";
/// What is left out of the build: nothing of it is measured.
const CMAKE: &str = "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF -DMTMD_BUILD=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF";
/// What runs there.
const SCRIPT: &str = include_str!("llama.py");

/// What is measured, once a run.
#[derive(Clone, Copy)]
pub(super) struct Work {
    pub threads: usize,
    pub prefill: usize,
    pub decode: u32,
}

/// Medians, in tokens per second.
#[derive(Deserialize)]
pub(super) struct Measured {
    pub version: String,
    pub decode: f64,
    pub prefill: f64,
}

/// The Python of `.tools/venv-llama` below `root`; made, and llama.cpp compiled (some minutes), if it is not there.
///
/// # Errors
/// [`BenchError::Failed`] with the installer's last words.
pub fn find_or_build(root: &Path) -> Result<PathBuf, BenchError> {
    let folder = root.join(".tools/venv-llama");
    let python = folder.join("bin/python");
    let works = |python: &Path| {
        Command::new(python).args(["-c", "import llama_cpp"]).output().is_ok_and(|out| out.status.success())
    };
    if works(&python) {
        return Ok(python);
    }
    eprintln!("compiling {PACKAGE} into {}: some minutes", folder.display());
    succeed(Command::new("python3").args(["-m", "venv"]).arg(&folder), "make a Python environment")?;
    let install = ["-m", "pip", "install", "--quiet", "--no-binary", "llama-cpp-python", PACKAGE];
    succeed(Command::new(&python).args(install).env("CMAKE_ARGS", CMAKE), "compile llama.cpp")?;
    Ok(python)
}

pub(super) fn measure(python: &Path, model: &Path, work: Work, runs: usize) -> Result<Measured, BenchError> {
    let numbers = [work.threads, work.prefill, work.decode as usize, runs].map(|n| n.to_string());
    let output =
        succeed(Command::new(python).args(["-c", SCRIPT]).arg(model).args(numbers), "measure llama.cpp")?;
    serde_json::from_slice(&output).tried("read llama.cpp's figures")
}

/// What the command printed.
fn succeed(command: &mut Command, what: &'static str) -> Result<Vec<u8>, BenchError> {
    let output = command.output().tried(what)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = words.lines().rev().take(5).collect();
    Err(BenchError::failed(what)(last.into_iter().rev().collect::<Vec<_>>().join("\n")))
}
