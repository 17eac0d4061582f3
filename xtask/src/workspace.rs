//! Where things lie: the root of this checkout, cargo's target directory, `.tools/`. Knows no verb.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// One checkout. Every path is absolute, found at run time, and never compiled in.
#[derive(Clone)]
pub struct Workspace {
    pub root: PathBuf,
}

impl Workspace {
    /// Cargo says where the crate is; a binary started by hand looks upwards from the current directory.
    pub fn find() -> Result<Workspace> {
        let start = match env::var_os("CARGO_MANIFEST_DIR") {
            Some(manifest) => PathBuf::from(manifest),
            None => env::current_dir().context("the current directory cannot be read")?,
        };
        for folder in start.ancestors() {
            if folder.join("Cargo.toml").is_file() && folder.join("xtask/Cargo.toml").is_file() {
                return Ok(Workspace { root: folder.to_path_buf() });
            }
        }
        bail!("no Counterfoil checkout at or above {}; run it as `cargo xtask`", start.display())
    }

    /// The folder of everything fetched. Git ignores it.
    pub fn tools(&self) -> PathBuf {
        self.root.join(".tools")
    }

    /// Cargo's target directory; a relative `CARGO_TARGET_DIR` counts from the current directory, as cargo counts.
    pub fn target(&self) -> PathBuf {
        match env::var_os("CARGO_TARGET_DIR") {
            Some(folder) if !folder.is_empty() => {
                std::path::absolute(PathBuf::from(folder)).unwrap_or_else(|_| self.root.join("target"))
            }
            _ => self.root.join("target"),
        }
    }

    /// A path as people type it: relative to the root when it lies below.
    pub fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }

    /// A cargo command in the root, by the same cargo that started us.
    pub fn cargo(&self) -> Command {
        let mut cargo =
            self.command(env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from));
        if env::var_os("CARGO_TARGET_DIR").is_some() {
            // It may be relative to where the user stands; the child stands in the root.
            cargo.env("CARGO_TARGET_DIR", self.target());
        }
        cargo
    }

    /// Any command in the root.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        command
    }
}
