//! The verbs. One file a command: its arguments, its help, its call.

pub mod audit;
pub mod export;
mod ledger;
pub mod log_source;
mod model;
mod restore;
mod up;
mod worker;

use crate::output::Output;
use std::process::ExitCode;

/// What can be asked.
#[derive(clap::Subcommand)]
pub enum Command {
    /// The whole network on this machine, and one customer's story on it.
    Up(up::Up),
    /// The operator's side.
    #[command(subcommand)]
    Worker(worker::Worker),
    /// The model alone: generate, verify, describe.
    #[command(subcommand)]
    Model(model::Model),
    /// Read the books.
    #[command(subcommand)]
    Ledger(ledger::Ledger),
    /// Rebuild the log's stream from the archive, and prove the result.
    Restore(restore::RestoreCommand),
    /// Files for finance.
    Export(export::Export),
    /// Fetch, verify and replay the log without trusting anybody.
    #[command(subcommand)]
    Audit(audit::Audit),
}

/// Runs one.
pub fn run(command: Command, output: Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(up) => up.run(output),
        Command::Worker(worker) => worker.run(output),
        Command::Model(model) => model.run(output),
        Command::Ledger(ledger) => ledger.run(output),
        Command::Restore(restore) => restore.run(output),
        Command::Export(export) => export.run(output),
        Command::Audit(audit) => audit.run(output),
    }
}
