//! Developer commands, one file a verb. Only composition here; no verb knows another's insides.
//!
//! `cargo xtask up` and `cargo xtask test` are the two commands of the README; the rest is what they are made of.

mod chaos;
mod contracts;
mod foreign;
mod fuzz;
mod load;
mod ptx;
mod sim;
mod slither;
mod test;
mod tidy;
mod tools;
mod up;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use workspace::Workspace;

/// Developer commands of Counterfoil.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Fetch what is missing, build in release, run `counterfoil up` with the arguments given.
    ///
    /// Example: cargo xtask up --preset prepaid --once
    ///
    /// The help of `counterfoil up` itself: cargo xtask up -- --help
    Up {
        /// Handed to `counterfoil up` as they are.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<OsString>,
    },
    /// Fetch what is missing, format, lint, run every test, the contracts' tests and the end-to-end suite.
    ///
    /// Example: cargo xtask test --quick
    Test(test::Arguments),
    /// Fetch the pinned tools into `.tools/`; nothing that is there and unchanged is fetched again.
    ///
    /// Example: cargo xtask tools --check
    Tools {
        /// Fetch nothing; say what is there, and exit 1 if something is missing or changed.
        #[arg(long)]
        check: bool,
    },
    /// Build the contracts' artefacts, which are committed.
    ///
    /// Example: cargo xtask contracts --check
    Contracts {
        /// Change nothing; exit 1 unless rebuilding gives the committed bytes.
        #[arg(long)]
        check: bool,
    },
    /// Build the PTX of the CUDA kernels, which is committed. Needs no GPU.
    ///
    /// Example: cargo xtask ptx --check
    Ptx {
        /// Change nothing; exit 1 unless compiling gives the committed bytes, the lint is clean and nothing spills.
        #[arg(long)]
        check: bool,
    },
    /// Run the writer's own state machine on a simulated log, one history a seed; all promises must hold in each.
    ///
    /// Example: cargo xtask sim --seeds 1000000
    ///
    /// Example: cargo xtask sim --mutant reply-before-ack
    Sim(sim::Arguments),
    /// Kill and stop the processes of a network under load, round after round; nothing may be lost or happen twice.
    ///
    /// Example: cargo xtask chaos --rounds 1000 --seed 7
    Chaos(chaos::Arguments),
    /// Put a running network under floods, in full, and print figures.
    ///
    /// Example: cargo xtask load
    Load,
    /// Change bytes at random and try them at every door; nothing may break.
    ///
    /// Example: cargo xtask fuzz --seconds 60
    Fuzz(fuzz::Arguments),
    /// Check the house rules a compiler does not know: sizes, headers, arrows between rooms, leftovers.
    ///
    /// Example: cargo xtask tidy
    Tidy,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = Workspace::find().and_then(|workspace| match arguments.verb {
        Verb::Up { arguments } => up::run(&workspace, &arguments),
        Verb::Test(arguments) => test::run(&workspace, &arguments),
        Verb::Tools { check } => tools::run(&workspace, check),
        Verb::Contracts { check } => contracts::run(&workspace, check),
        Verb::Ptx { check } => ptx::run(&workspace, check),
        Verb::Sim(arguments) => sim::run(&workspace, &arguments),
        Verb::Chaos(arguments) => chaos::run(&workspace, &arguments),
        Verb::Load => load::run(&workspace),
        Verb::Fuzz(arguments) => fuzz::run(&workspace, &arguments),
        Verb::Tidy => tidy::run(&workspace),
    });
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
