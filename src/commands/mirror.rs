//! `counterfoil mirror`: the log in an event store server. The work is done by `counterfoil-mirror`, a program of its own
//! (crate `mirror/`), so that its dependencies are nobody else's; this verb finds it, or says how to get it.

use crate::exit_code::Failure;
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// The program's name.
const PROGRAM: &str = "counterfoil-mirror";

/// See [`super::Command::Mirror`]. Example: counterfoil mirror --to kurrentdb --data data --follow
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Mirror {
    /// Handed to counterfoil-mirror: --to kurrentdb --data DIR [--url URL] [--follow] [--compare].
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<OsString>,
}

impl Mirror {
    /// Runs it with the same streams; its exit code is ours.
    pub fn run(self) -> Result<ExitCode> {
        let Some(program) = program() else {
            let missing = anyhow::anyhow!(
                "{PROGRAM} is not beside this program; build it from the source tree with \
                 `cargo build --manifest-path mirror/Cargo.toml --release --target-dir target/mirror` and put \
                 target/mirror/release/{PROGRAM} there"
            );
            return Err(missing.context(Failure::Usage));
        };
        let status = Command::new(&program).args(&self.arguments).status();
        let status = status.with_context(|| program.display().to_string())?;
        let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
        Ok(ExitCode::from(code))
    }
}

/// Beside this program, or in the source tree's own build folder.
fn program() -> Option<PathBuf> {
    let here = std::env::current_exe().ok()?.canonicalize().ok()?;
    let folder = here.parent()?;
    let name = format!("{PROGRAM}{}", std::env::consts::EXE_SUFFIX);
    let beside = folder.join(&name);
    let built = folder.parent()?.join("mirror").join(folder.file_name()?).join(&name);
    [beside, built].into_iter().find(|path| path.is_file())
}
