//! `cargo xtask load`: the floods of `tests/tests/load_floods.rs` in full, with figures.

use std::process::ExitCode;

use anyhow::Result;

use crate::chaos;
use crate::workspace::Workspace;

pub fn run(workspace: &Workspace) -> Result<ExitCode> {
    chaos::network_test(workspace, "load_floods", &[("COUNTERFOIL_LOAD", "full".to_owned())])
}
