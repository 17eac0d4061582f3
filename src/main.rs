//! The `counterfoil` command: parse arguments, compose rooms, one exit code. No logic of money, models or the network.

#![forbid(unsafe_code)]

mod audit_doors;
mod commands;
mod exit_code;
mod network;
mod output;
mod serve;
mod story;

use clap::Parser;
use exit_code::Failure;
use std::process::ExitCode;

/// The ledger that networks selling AI inference settle on.
#[derive(Parser)]
#[command(name = "counterfoil", version, arg_required_else_help = true, propagate_version = true)]
struct Arguments {
    /// Machine form on stdout (one object, or one line a step); logs and progress stay on stderr.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    output::start_logs();
    match commands::run(arguments.command, output::Output::new(arguments.json)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("counterfoil: {error:#}");
            Failure::code_of(&error)
        }
    }
}
