//! The sections of `cargo xtask test`, in order. Each prepares one command and says how it ended.
//!
//! Everything is built once, for the whole workspace: asking for single packages would make cargo unify features
//! anew and compile half the tree again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

use super::runner::{self, Ran, Tally};
use crate::tools::{self, Tool, Tools};
use crate::workspace::Workspace;
use crate::{contracts, foreign, ptx, sim, slither, tidy};

/// The crate whose tests start whole networks; it lies in `tests/`.
const NETWORK_TESTS: &str = "network-tests";

/// Each such test starts a broker, a chain and a model: more at a time than cores only makes them late.
const NETWORK_TEST_THREADS: &str = "2";

/// The event store mirror: nobody else pays for its dependencies.
const MIRROR_MANIFEST: &str = "mirror/Cargo.toml";
const MIRROR_TARGET: &str = "target/mirror";

pub struct Section {
    pub name: &'static str,
    /// Left out by `--quick`.
    pub long: bool,
    pub run: fn(&mut Session) -> Result<Outcome>,
}

pub const SECTIONS: &[Section] = &[
    Section { name: "tools", long: false, run: Session::tools },
    Section { name: "format", long: false, run: Session::format },
    Section { name: "tidy", long: false, run: Session::tidy },
    Section { name: "dependencies", long: false, run: Session::dependencies },
    Section { name: "foreign tools", long: true, run: Session::foreign },
    Section { name: "contracts", long: true, run: Session::contracts },
    Section { name: "slither", long: true, run: Session::slither },
    Section { name: "cuda ptx", long: true, run: Session::cuda_ptx },
    Section { name: "lint", long: false, run: Session::lint },
    Section { name: "build", long: false, run: Session::build },
    Section { name: "tests", long: false, run: Session::tests },
    Section { name: "simulation", long: false, run: Session::simulation },
    Section { name: "doc tests", long: false, run: Session::doc_tests },
    Section { name: "mirror", long: true, run: Session::mirror },
    Section { name: "end to end", long: true, run: Session::end_to_end },
];

pub enum Outcome {
    Done,
    Counted(Tally),
    Skipped(String),
    Failed { why: String, tally: Tally },
}

/// What sections hand on to later ones.
pub struct Session {
    workspace: Workspace,
    quick: bool,
    tools: Option<Tools>,
    variables: Vec<(&'static str, PathBuf)>,
    nextest: bool,
}

impl Session {
    pub fn new(workspace: &Workspace, quick: bool) -> Session {
        Session {
            workspace: workspace.clone(),
            quick,
            tools: None,
            variables: Vec::new(),
            nextest: has_subcommand(workspace, "nextest"),
        }
    }

    fn tools(&mut self) -> Result<Outcome> {
        let long: &[Tool] = if self.quick { &[] } else { &[Tool::Forge, Tool::Solidity] };
        let wanted = [&[Tool::NatsServer, Tool::Anvil, Tool::Model], long].concat();
        self.tools = Some(tools::ensure(&self.workspace, &wanted)?);
        Ok(Outcome::Done)
    }

    fn format(&mut self) -> Result<Outcome> {
        self.plain(&["fmt", "--all", "--check"], "run `cargo fmt --all`")
    }

    fn tidy(&mut self) -> Result<Outcome> {
        let findings = tidy::findings(&self.workspace)?;
        for finding in &findings {
            println!("{finding}");
        }
        if findings.is_empty() {
            return Ok(Outcome::Done);
        }
        Ok(Outcome::Failed { why: format!("{} findings", findings.len()), tally: Tally::default() })
    }

    fn dependencies(&mut self) -> Result<Outcome> {
        if !has_subcommand(&self.workspace, "deny") {
            return Ok(Outcome::Skipped("cargo-deny is not installed".to_owned()));
        }
        self.plain(&["deny", "check"], "the reasons stand in deny.toml")
    }

    fn foreign(&mut self) -> Result<Outcome> {
        let foreign = foreign::ensure(&self.workspace)?;
        self.variables.extend(foreign.variables);
        if foreign.left_out.is_empty() {
            return Ok(Outcome::Done);
        }
        Ok(Outcome::Skipped(foreign.left_out.join("; ")))
    }

    fn contracts(&mut self) -> Result<Outcome> {
        let count = contracts::check(&self.workspace)?;
        println!("contracts: {count} artefacts, rebuilding gives the same bytes");
        let forge = self.tools.as_ref().expect("the first section ran").program(Tool::Forge);
        let mut command = Command::new(forge);
        // From inside, because forge takes the compiler's path from where it stands, not from its root.
        command.current_dir(self.workspace.root.join("contracts/solidity"));
        command.arg("test").env("FOUNDRY_OFFLINE", "true");
        self.counted(command)
    }

    fn slither(&mut self) -> Result<Outcome> {
        let forge = self.tools.as_ref().expect("the first section ran").program(Tool::Forge);
        slither::check(&self.workspace, Path::new(&forge))?;
        Ok(Outcome::Done)
    }

    /// What a GPU would run is what the source says, and holds nothing that differs between GPUs.
    fn cuda_ptx(&mut self) -> Result<Outcome> {
        if let Some(reason) = ptx::unfit() {
            return Ok(Outcome::Skipped(reason));
        }
        tools::ensure(&self.workspace, &[Tool::Nvrtc])?;
        println!("ptx: {}", ptx::check(&self.workspace)?);
        Ok(Outcome::Done)
    }

    fn lint(&mut self) -> Result<Outcome> {
        self.plain(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], "see above")
    }

    fn build(&mut self) -> Result<Outcome> {
        // All targets: the test binaries and the binaries they start, in one go and with the same features.
        self.plain(&["build", "--workspace", "--all-targets"], "see above")
    }

    fn tests(&mut self) -> Result<Outcome> {
        if self.nextest {
            return self.nextest(&format!("not package({NETWORK_TESTS})"), &[]);
        }
        let mut arguments =
            vec!["test".to_owned(), "--workspace".to_owned(), "--lib".to_owned(), "--bins".to_owned()];
        arguments.extend(self.test_targets(false)?);
        self.cargo_test(&arguments)
    }

    fn simulation(&mut self) -> Result<Outcome> {
        if sim::run(&self.workspace, &sim::Arguments::for_test())? == ExitCode::SUCCESS {
            return Ok(Outcome::Done);
        }
        let why = "a promise was broken, or a mutant lives; see above".to_owned();
        Ok(Outcome::Failed { why, tally: Tally::default() })
    }

    fn doc_tests(&mut self) -> Result<Outcome> {
        if !self.any_doc_test()? {
            return Ok(Outcome::Skipped("there are none".to_owned()));
        }
        self.cargo_test(&["test".to_owned(), "--workspace".to_owned(), "--doc".to_owned()])
    }

    /// The crate outside the workspace: format, lints and tests, in a target folder of its own.
    fn mirror(&mut self) -> Result<Outcome> {
        let place = ["--manifest-path", MIRROR_MANIFEST];
        let formatted = self.plain(&["fmt", place[0], place[1], "--check"], "run it without --check")?;
        if let Outcome::Failed { .. } = formatted {
            return Ok(formatted);
        }
        let build = ["--target-dir", MIRROR_TARGET];
        let lint = [&["clippy", "--all-targets"][..], &place, &build, &["--", "-D", "warnings"]].concat();
        let linted = self.plain(&lint, "see above")?;
        if let Outcome::Failed { .. } = linted {
            return Ok(linted);
        }
        // No server can be fetched: its test is counted as ignored, with its reason, unless somebody names one.
        let real =
            if std::env::var_os("KURRENTDB_URL").is_some() { &["--", "--include-ignored"][..] } else { &[] };
        let test = [&["test"][..], &place, &build, real].concat();
        self.cargo_test(&test.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    fn end_to_end(&mut self) -> Result<Outcome> {
        if self.nextest {
            return self
                .nextest(&format!("package({NETWORK_TESTS})"), &["--test-threads", NETWORK_TEST_THREADS]);
        }
        let targets = self.test_targets(true)?;
        if targets.is_empty() {
            return Ok(Outcome::Skipped("there are none".to_owned()));
        }
        let mut arguments = vec!["test".to_owned(), "--workspace".to_owned()];
        arguments.extend(targets);
        arguments.extend(["--", "--test-threads", NETWORK_TEST_THREADS].map(str::to_owned));
        self.cargo_test(&arguments)
    }

    /// A cargo command whose end is all that counts; its output goes straight through.
    fn plain(&self, arguments: &[&str], remedy: &str) -> Result<Outcome> {
        let status = self
            .cargo()
            .args(arguments)
            .stdin(Stdio::null())
            .status()
            .context("cargo could not be started")?;
        if status.success() {
            return Ok(Outcome::Done);
        }
        let why = format!("`cargo {}` ended with {status}; {remedy}", arguments.join(" "));
        Ok(Outcome::Failed { why, tally: Tally::default() })
    }

    fn nextest(&self, filter: &str, more: &[&str]) -> Result<Outcome> {
        let mut command = self.cargo();
        command.args(["nextest", "run", "--workspace", "--no-fail-fast", "--no-tests=pass"]);
        command.args(["--config-file", "xtask/nextest.toml", "--filterset", filter]).args(more);
        self.counted(command)
    }

    fn cargo_test(&self, arguments: &[String]) -> Result<Outcome> {
        let mut command = self.cargo();
        // Counts of the targets after a failing one belong in the sum too.
        command.arg(&arguments[0]).arg("--no-fail-fast").args(&arguments[1..]);
        self.counted(command)
    }

    fn counted(&self, command: Command) -> Result<Outcome> {
        let program = command.get_program().to_string_lossy().into_owned();
        let Ran { tally, status } = runner::counted(command)?;
        if status.success() {
            return Ok(Outcome::Counted(tally));
        }
        let why = match tally.failed_count {
            0 => format!("{program} ended with {status} before it counted a failure; see above"),
            count => format!("{count} tests failed"),
        };
        Ok(Outcome::Failed { why, tally })
    }

    fn cargo(&self) -> Command {
        let mut cargo = self.workspace.cargo();
        if let Some(tools) = &self.tools {
            tools.export(&mut cargo);
        }
        cargo.envs(self.variables.iter().map(|(name, path)| (name, path)));
        cargo
    }

    /// `--test NAME` for each integration test: those of `tests/`, or those of the rooms. By name and not by package,
    /// because the selection of packages decides the features.
    fn test_targets(&self, network: bool) -> Result<Vec<String>> {
        let mut names = BTreeSet::new();
        for folder in fs::read_dir(&self.workspace.root)? {
            let folder = folder?.path();
            let tests = folder.join("tests");
            if !folder.join("Cargo.toml").is_file() || !tests.is_dir() || folder.ends_with("tests") != network
            {
                continue;
            }
            for entry in fs::read_dir(&tests)? {
                let path = entry?.path();
                let is_target = path.extension().is_some_and(|extension| extension == "rs")
                    || path.join("main.rs").is_file();
                if let (true, Some(name)) = (is_target, path.file_stem()) {
                    names.insert(name.to_string_lossy().into_owned());
                }
            }
        }
        Ok(names.into_iter().flat_map(|name| ["--test".to_owned(), name]).collect())
    }

    /// rustdoc takes seconds a crate to find nothing, so we look first.
    fn any_doc_test(&self) -> Result<bool> {
        Ok(tidy::tracked_files(&self.workspace)?
            .iter()
            .filter(|path| path.ends_with(".rs"))
            .filter_map(|path| fs::read_to_string(self.workspace.root.join(path)).ok())
            .any(|text| has_doc_test(&text)))
    }
}

fn has_subcommand(workspace: &Workspace, name: &str) -> bool {
    let mut command = workspace.cargo();
    command.args([name, "--version"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A fence without a language, or with Rust's, in a doc comment. Opening and closing fences alternate.
fn has_doc_test(text: &str) -> bool {
    let mut open = false;
    for line in text.lines() {
        let line = line.trim_start();
        let Some(comment) = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) else {
            open = false;
            continue;
        };
        let Some(language) = comment.trim().strip_prefix("```") else { continue };
        if open {
            open = false;
            continue;
        }
        if ["", "rust", "no_run", "should_panic", "compile_fail"].contains(&language) {
            return true;
        }
        open = true;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doc_tests_are_told_from_drawings() {
        assert!(has_doc_test("/// ```\n/// f();\n/// ```\n"));
        assert!(has_doc_test("//! ```rust\n//! f();\n//! ```\n"));
        assert!(!has_doc_test("/// ```text\n/// a -> b\n/// ```\nfn f() {}\n"));
        assert!(!has_doc_test("// ```\nfn f() {}\n"));
    }
}
