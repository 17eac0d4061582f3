//! Checks from outside: the product's own commands on a data directory, and tools that are not ours.

use crate::network::{command, root};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A finished command.
pub struct Finished {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs `counterfoil` with arguments to its end.
pub fn counterfoil(arguments: &[&str]) -> Finished {
    finished(command().args(arguments).output().expect("the command starts"))
}

fn finished(output: Output) -> Finished {
    Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a foreign script with the tests' Python; panics with both outputs when it fails.
pub fn python(script: &str, arguments: &[&str]) -> String {
    let python = std::env::var_os("COUNTERFOIL_PYTHON")
        .map_or_else(|| root().join(".tools/venv/bin/python"), PathBuf::from);
    assert!(python.exists(), "{} is missing: run cargo xtask test, which installs it", python.display());
    let script = root().join("tests/foreign").join(script);
    let done = finished(Command::new(python).arg(script).args(arguments).output().expect("python starts"));
    assert_eq!(done.code, 0, "stdout: {}\nstderr: {}", done.stdout, done.stderr);
    done.stdout
}

/// Replays the log of a data directory with the auditor's own code; every check must pass.
pub fn audit_replay(data: &Path) -> Value {
    let data = data.to_str().expect("test paths are text");
    let done = counterfoil(&["--json", "audit", "replay", "--data", data]);
    assert_eq!(done.code, 0, "audit replay: {}\n{}", done.stdout, done.stderr);
    serde_json::from_str(done.stdout.trim()).expect("a report is JSON")
}
