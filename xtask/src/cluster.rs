//! `cargo xtask cluster`: the arrangement of `deploy/cluster` as processes on this machine, two deaths, an audit
//! (`tests/tests/chaos_cluster.rs`).

use std::process::ExitCode;

use anyhow::Result;

use crate::chaos;
use crate::workspace::Workspace;

pub fn run(workspace: &Workspace) -> Result<ExitCode> {
    chaos::network_test(workspace, "chaos_cluster", &[])
}
