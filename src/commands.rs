//! The verbs. One file a command: its arguments, its help, its call.

pub mod audit;
mod bench;
mod books;
mod chain;
mod dev;
mod exit;
pub mod export;
mod ledger;
pub mod log_source;
mod mirror;
mod model;
mod node;
mod restore;
mod serve;
mod simulate;
mod up;
mod witness;
mod worker;

pub use up::interrupted;

use crate::output::Output;
use std::process::ExitCode;

/// What can be asked.
#[derive(clap::Subcommand)]
pub enum Command {
    /// The whole network on this machine, and one customer's story on it.
    Up(up::Up),
    /// The coordinator, or some of its roles, each in a process of its own where wanted.
    Serve(serve::Serve),
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
    /// Follow the log into an event store server (KurrentDB, EventStoreDB).
    Mirror(mirror::Mirror),
    /// Fetch, verify and replay the log without trusting anybody.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Measure beside the limit of this machine, or beside a peer.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Put a network's contracts on a chain, and verify a manifest.
    #[command(subcommand)]
    Chain(chain::ChainCommand),
    /// Take money out with nothing but a wallet and a node, also when the network is gone.
    #[command(subcommand)]
    Exit(exit::Exit),
    /// What the network says about a node.
    #[command(subcommand)]
    Node(node::Node),
    /// What would become of a network: its rules on virtual time, against strategies that try to gain.
    Simulate(simulate::Simulate),
    /// The development network's clock.
    #[command(subcommand)]
    Dev(dev::Dev),
    /// Cosign other people's checkpoints, or have one's own cosigned.
    #[command(subcommand)]
    Witness(witness::Witness),
}

/// Runs one.
pub fn run(command: Command, output: Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(up) => up.run(output),
        Command::Serve(serve) => serve.run(output),
        Command::Worker(worker) => worker.run(output),
        Command::Model(model) => model.run(output),
        Command::Ledger(ledger) => ledger.run(output),
        Command::Restore(restore) => restore.run(output),
        Command::Export(export) => export.run(output),
        Command::Mirror(mirror) => mirror.run(),
        Command::Audit(audit) => audit.run(output),
        Command::Bench(bench) => bench.run(output),
        Command::Chain(chain) => chain.run(output),
        Command::Exit(exit) => exit.run(output),
        Command::Node(node) => node.run(output),
        Command::Simulate(simulate) => simulate.run(output),
        Command::Dev(dev) => dev.run(output),
        Command::Witness(witness) => witness.run(output),
    }
}
