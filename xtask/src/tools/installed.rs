//! What the user already has: a program named by its variable, or one on PATH. Asks versions, fetches nothing.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::pins::Tool;

/// JetStream's atomic batches and the settings we verify came with this one.
const NATS_SERVER_MINIMUM: (u32, u32) = (2, 12);

pub struct Installed {
    pub name: &'static str,
    pub variable: &'static str,
    pub path: PathBuf,
    /// Why this one: for the line people read.
    pub origin: String,
}

/// The variable that names a tool, for those that have one.
pub fn variable(tool: Tool) -> Option<&'static str> {
    match tool {
        Tool::NatsServer => Some("COUNTERFOIL_NATS_SERVER"),
        Tool::Anvil => Some("COUNTERFOIL_ANVIL"),
        Tool::Forge => Some("COUNTERFOIL_FORGE"),
        Tool::Model => Some("COUNTERFOIL_MODEL"),
        Tool::Solidity | Tool::Nvrtc => None,
    }
}

/// A variable that is set wins or is an error, never ignored; an unfit program on PATH is passed over.
pub fn find(tool: Tool) -> Result<Option<Installed>> {
    let (Some(variable), Some(name)) = (variable(tool), name(tool)) else {
        return Ok(None);
    };
    if let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from) {
        let path = std::path::absolute(&path).unwrap_or(path);
        if !path.is_file() {
            bail!("{variable} names {}, which is not a file; correct it or unset it", path.display());
        }
        let origin = match fitness(tool, &path) {
            Ok(version) => format!("{version}, from {variable}"),
            Err(unfit) => bail!("{variable} names {}: {unfit}; correct it or unset it", path.display()),
        };
        return Ok(Some(Installed { name, variable, path, origin }));
    }
    if tool == Tool::Model {
        return Ok(None);
    }
    let Some(path) = on_path(name) else {
        return Ok(None);
    };
    match fitness(tool, &path) {
        Ok(version) => {
            Ok(Some(Installed { name, variable, path, origin: format!("{version}, found on PATH") }))
        }
        Err(unfit) => {
            eprintln!("tools: {name:<16} {} passed over: {unfit}", path.display());
            Ok(None)
        }
    }
}

/// The first executable of this name on PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    let file = format!("{name}{}", env::consts::EXE_SUFFIX);
    env::split_paths(&folders).map(|folder| folder.join(&file)).find(|path| is_executable(path))
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(path: &Path) -> bool {
    path.is_file()
}

fn name(tool: Tool) -> Option<&'static str> {
    match tool {
        Tool::NatsServer => Some("nats-server"),
        Tool::Anvil => Some("anvil"),
        Tool::Forge => Some("forge"),
        Tool::Model => Some("model"),
        Tool::Solidity | Tool::Nvrtc => None,
    }
}

/// Its version when it will do, else why not.
fn fitness(tool: Tool, path: &Path) -> Result<String, String> {
    if tool == Tool::Model {
        return Ok("as it is".to_owned());
    }
    let output = Command::new(path).arg("--version").output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("`--version` ended with {}", output.status));
    }
    let said = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned();
    let Some(version) = version_in(&said) else {
        return Err(format!("no version in {said:?}"));
    };
    if tool == Tool::NatsServer && (version.0, version.1) < NATS_SERVER_MINIMUM {
        let (major, minor) = NATS_SERVER_MINIMUM;
        return Err(format!("version {}.{}, and {major}.{minor} or newer is needed", version.0, version.1));
    }
    Ok(format!("{}.{}.{}", version.0, version.1, version.2))
}

/// The first `a.b.c` of a line, with or without a `v` before it.
fn version_in(line: &str) -> Option<(u32, u32, u32)> {
    line.split(|c: char| c.is_whitespace() || c == '-').find_map(|word| {
        let mut numbers = word.trim_start_matches('v').splitn(3, '.').map(leading_number);
        Some((numbers.next()??, numbers.next()??, numbers.next()??))
    })
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_the_programs_print_them() {
        for (line, expected) in [
            ("nats-server: v2.15.1", Some((2, 15, 1))),
            ("nats-server: v2.12.0-RC.3", Some((2, 12, 0))),
            ("anvil Version: 1.7.1-v1.7.1", Some((1, 7, 1))),
            ("forge Version: 1.7.1+meta", Some((1, 7, 1))),
            ("no version at all", None),
            ("", None),
        ] {
            assert_eq!(version_in(line), expected, "{line}");
        }
    }
}
