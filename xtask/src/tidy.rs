//! `cargo xtask tidy`: the house rules a compiler does not know. Reads what git tracks, or would; changes nothing.
//!
//! One line a finding: `tidy: journal/src/append.rs:41 fn append has 83 lines (limit 70) [function append]`.

mod exceptions;
mod masked;
mod rooms;
mod size;
mod text;

use std::fmt;
use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// One broken rule at one place.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Finding {
    pub path: String,
    pub line: usize,
    /// What an exception names, and the measure it would have to allow.
    pub rule: String,
    pub measure: Option<usize>,
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "tidy: {}:{} {} [{}]", self.path, self.line, self.what, self.rule)
    }
}

/// One file, as every rule sees it. `text` is `None` for what is not text.
pub struct Source {
    pub path: String,
    pub bytes: u64,
    pub text: Option<String>,
}

pub fn run(workspace: &Workspace) -> Result<ExitCode> {
    let findings = findings(workspace)?;
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy: nothing to say");
        return Ok(ExitCode::SUCCESS);
    }
    println!("tidy: {} findings; the rules stand in CONTRIBUTING.md", findings.len());
    Ok(ExitCode::FAILURE)
}

/// Everything found, exceptions taken off, in order of path and line.
pub fn findings(workspace: &Workspace) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for path in tracked_files(workspace)? {
        let Some(source) = read(workspace, path)? else { continue };
        found.extend(check_source(&source));
    }
    found.extend(rooms::check(workspace)?);
    let list = fs::read_to_string(workspace.root.join(exceptions::LIST))
        .with_context(|| format!("{} is missing", exceptions::LIST))?;
    let mut left = exceptions::apply(&list, found);
    left.sort();
    Ok(left)
}

/// What git tracks, and what it does not ignore and would be added next; paths with `/`, relative to the root.
pub fn tracked_files(workspace: &Workspace) -> Result<Vec<String>> {
    let output = workspace
        .command("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .output()
        .context("git is missing; tidy asks it which files are ours")?;
    if !output.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let listed = String::from_utf8(output.stdout).context("a file's name is not UTF-8")?;
    let mut paths: Vec<String> =
        listed.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// `None` for a file that git tracks and somebody has just deleted, and for a link to a folder.
fn read(workspace: &Workspace, path: String) -> Result<Option<Source>> {
    let whole = workspace.root.join(&path);
    if !whole.is_file() {
        return Ok(None);
    }
    let bytes = fs::read(&whole).with_context(|| format!("{path} cannot be read"))?;
    let size = bytes.len() as u64;
    let text = if bytes.contains(&0) { None } else { String::from_utf8(bytes).ok() };
    Ok(Some(Source { path, bytes: size, text }))
}

fn check_source(source: &Source) -> Vec<Finding> {
    let mut found = size::check(source);
    found.extend(text::check(source));
    found
}

impl Source {
    /// Written by a program, not by us: only the size of the file counts.
    pub fn is_generated(&self) -> bool {
        self.path.ends_with("Cargo.lock")
            || self.path.ends_with("package-lock.json")
            || self.path.starts_with("contracts/artefacts/")
            || self.path.ends_with(".ptx")
            || self.path.split('/').any(|part| ["generated", "golden"].contains(&part))
    }

    /// Tests may be as long as what they tell.
    pub fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name == "tests.rs" || self.path.split('/').any(|part| part == "tests" || part == "test")
    }

    pub fn extension(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.rsplit_once('.').map_or("", |(_, extension)| extension)
    }

    pub fn finding(&self, line: usize, rule: impl Into<String>, what: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, rule: rule.into(), measure: None, what: what.into() }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// The findings of one small file, as people read them but without `tidy: `.
    pub fn check(path: &str, text: &str, expected: &[&str]) {
        let source = Source { path: path.to_owned(), bytes: text.len() as u64, text: Some(text.to_owned()) };
        let found: Vec<String> = check_source(&source)
            .iter()
            .map(|finding| finding.to_string().replacen("tidy: ", "", 1))
            .collect();
        assert_eq!(found, expected, "{path}:\n{text}");
    }

    #[test]
    fn a_clean_file_is_left_alone() {
        check("ledger/src/hold.rs", "//! Holds.\n\n/// Places one.\nfn place() {\n    return;\n}\n", &[]);
    }

    #[test]
    fn what_programs_write_is_left_alone() {
        let host = ["registry.", "npm", "js.org"].concat();
        check("package-lock.json", &host, &[]);
        check("package.json", &host, &["package.json:1 names the package registry's host [host]"]);
    }
}
