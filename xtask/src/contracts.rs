//! `cargo xtask contracts`: the committed artefacts, and the proof that rebuilding gives the same bytes.
//! Knows where sources and artefacts lie; the compiler's settings are the build script's own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::tools::{self, Tool};
use crate::workspace::Workspace;

const BUILD_SCRIPT: &str = "contracts/solidity/script/build.cjs";
const ARTEFACTS: &str = "contracts/artefacts";

pub fn run(workspace: &Workspace, check: bool) -> Result<ExitCode> {
    tools::ensure(workspace, &[Tool::Solidity])?;
    if check {
        let count = self::check(workspace)?;
        println!("contracts: {count} artefacts, rebuilding gives the same bytes");
    } else {
        build(workspace, &workspace.root.join(ARTEFACTS))?;
        println!("contracts: artefacts written to {ARTEFACTS}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Rebuilds elsewhere and compares; says how many files agreed. The caller has ensured the compiler.
pub fn check(workspace: &Workspace) -> Result<usize> {
    let rebuilt_at = workspace.target().join("xtask-artefacts");
    if rebuilt_at.exists() {
        fs::remove_dir_all(&rebuilt_at)?;
    }
    fs::create_dir_all(&rebuilt_at)?;
    build(workspace, &rebuilt_at)?;
    let committed = files_of(&workspace.root.join(ARTEFACTS)).context(ARTEFACTS)?;
    let rebuilt = files_of(&rebuilt_at)?;
    let differences = differences(&committed, &rebuilt);
    if differences.is_empty() && !committed.is_empty() {
        fs::remove_dir_all(&rebuilt_at)?;
        return Ok(committed.len());
    }
    bail!(
        "the committed artefacts are not what the sources give:\n  {}\nrebuild and commit them: cargo xtask contracts",
        if committed.is_empty() { format!("{ARTEFACTS} is empty") } else { differences.join("\n  ") }
    )
}

fn build(workspace: &Workspace, into: &Path) -> Result<()> {
    tools::require("node", "Node.js", "apt-get install nodejs npm    (or brew install node)")?;
    let status = workspace.command("node").arg(BUILD_SCRIPT).arg("--out").arg(into).status()?;
    if !status.success() {
        bail!("{BUILD_SCRIPT} ended with {status}");
    }
    Ok(())
}

fn differences(committed: &BTreeMap<PathBuf, Vec<u8>>, rebuilt: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<String> {
    let mut found = Vec::new();
    for (path, bytes) in committed {
        match rebuilt.get(path) {
            None => found.push(format!("{}: committed, but no source gives it", path.display())),
            Some(other) if other != bytes => {
                let at = bytes.iter().zip(other).take_while(|(one, two)| one == two).count();
                found.push(format!("{}: differs from byte {at}", path.display()));
            }
            Some(_) => {}
        }
    }
    for path in rebuilt.keys().filter(|path| !committed.contains_key(*path)) {
        found.push(format!("{}: not committed", path.display()));
    }
    found
}

fn files_of(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(current) = folders.pop() {
        for entry in
            fs::read_dir(&current).with_context(|| format!("{} cannot be listed", current.display()))?
        {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(folder)?.to_path_buf(), fs::read(&path)?);
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_difference_is_named() {
        let files = |list: &[(&str, &str)]| {
            list.iter().map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec())).collect()
        };
        let committed = files(&[("Gone.json", "a"), ("Same.json", "a"), ("Vault.json", "abc")]);
        let rebuilt = files(&[("New.json", "a"), ("Same.json", "a"), ("Vault.json", "abd")]);
        assert_eq!(
            differences(&committed, &rebuilt),
            [
                "Gone.json: committed, but no source gives it",
                "Vault.json: differs from byte 2",
                "New.json: not committed"
            ]
        );
    }
}
