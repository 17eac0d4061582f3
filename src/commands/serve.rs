//! `counterfoil serve`: the coordinator, or some of its roles.

use crate::output::Output;
use crate::serve::config::{RoleName, ServeConfig};
use anyhow::Result;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// See [`super::Command::Serve`]. Example: counterfoil serve --config serve.toml --roles gateway
#[derive(clap::Args)]
pub struct Serve {
    /// Configuration, TOML; secrets are in files that it names.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What this process is; by default what the file says.
    #[arg(long, value_name = "ROLE", value_delimiter = ',')]
    roles: Vec<RoleName>,
    /// Read and check the configuration, then end.
    #[arg(long)]
    check: bool,
}

impl Serve {
    /// Runs it.
    pub fn run(self, output: Output) -> Result<ExitCode> {
        let config = ServeConfig::load(&self.config)?;
        let roles = config.roles(&self.roles).map_err(|e| e.context(crate::exit_code::Failure::Usage))?;
        if self.check {
            let names: Vec<&str> = roles.iter().map(|role| role.name()).collect();
            output.result(
                &format!("{}: good for {}", self.config.display(), names.join(", ")),
                &json!({"roles": names}),
            );
            return Ok(ExitCode::SUCCESS);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(crate::serve::run(config, &roles, output))?;
        Ok(ExitCode::SUCCESS)
    }
}
