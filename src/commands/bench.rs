//! `counterfoil bench`: measure beside the limit of this machine, or beside a peer.

use super::up::FETCHED_MODEL;
use crate::output::Output;
use anyhow::{Context, Result};
use bench::Report;
use bench::journal::JournalPart;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Verbs of `counterfoil bench`.
#[derive(clap::Subcommand)]
pub enum Bench {
    /// The rules in memory, on one core. Example: counterfoil bench ledger --accounts 1000000
    Ledger(Ledger),
    /// The durable log on a real nats-server. Example: counterfoil bench journal --json
    Journal(Journal),
    /// Replaying the log, live and from the archive. Example: counterfoil bench replay --events 2000000
    Replay(Replay),
    /// Verifying and replaying a whole log from its files, beside the SHA-256 of this machine. Example: counterfoil bench audit --events 10000000
    Audit(Books),
    /// Postings as CSV and Parquet, statements of accounts. Example: counterfoil bench export --json
    Export(Books),
    /// The same figures at one size after another. Example: counterfoil bench growth --accounts 10000,1000000
    Growth(Growth),
    /// The router's table, and ten thousand nodes on it. Example: counterfoil bench route --json
    Route(Route),
    /// The gateway before a worker that does no work. Example: counterfoil bench gateway --json
    Gateway(Gateway),
    /// A process that opens a log; `bench growth` and `bench journal` start it.
    #[command(hide = true)]
    OpenLog(OpenLog),
    /// Inference on the processor. Example: counterfoil bench kernels --peer llama.cpp
    Kernels(Kernels),
    /// A job in a process of its own; `bench kernels` starts it.
    #[command(hide = true)]
    KernelsJob(KernelsJob),
    /// A gateway in a process of its own; `bench journal` starts it.
    #[command(hide = true)]
    GatewayLoad(GatewayLoad),
}

/// See [`Bench::Growth`].
#[derive(clap::Args)]
pub struct Growth {
    /// Sizes: accounts, each with one grant.
    #[arg(long, default_value = "10000,1000000,10000000", value_name = "N", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(2..))]
    accounts: Vec<u32>,
    /// Least events of the log that is opened again.
    #[arg(long, default_value_t = 0, value_name = "N")]
    events: u64,
    /// Operations of each measurement in memory.
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    operations: u32,
    /// Length of each durable part.
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Where the server keeps its data while it runs: a folder on the disk that is measured.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// See [`Bench::Gateway`].
#[derive(clap::Args)]
pub struct Gateway {
    /// Length of each timed part.
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// GGUF file whose tokenizer counts.
    #[arg(long, env = "COUNTERFOIL_MODEL", default_value = FETCHED_MODEL, value_name = "FILE")]
    model: PathBuf,
    /// Where the server keeps its data while it runs: a folder on the disk that is measured.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// See [`Bench::Route`].
#[derive(clap::Args)]
pub struct Route {
    /// Length of each timed part.
    #[arg(long, default_value_t = 2, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Jobs of each simulated load.
    #[arg(long, default_value_t = 600_000, value_name = "N", value_parser = clap::value_parser!(u32).range(100..))]
    jobs: u32,
    /// Nodes of the simulation.
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(10..))]
    nodes: u32,
    /// Chance.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Only these parts, with commas between them; both when left out.
    #[arg(long, value_name = "PARTS", value_delimiter = ',')]
    only: Vec<RoutePart>,
    /// Also draw the simulation: SVG files in this folder.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
}

/// A part of `bench route`.
#[derive(Clone, Copy, clap::ValueEnum)]
enum RoutePart {
    /// Decisions a second.
    Table,
    /// Ten thousand nodes.
    Simulation,
}

impl From<RoutePart> for bench::route::RoutePart {
    fn from(part: RoutePart) -> Self {
        match part {
            RoutePart::Table => bench::route::RoutePart::Table,
            RoutePart::Simulation => bench::route::RoutePart::Simulation,
        }
    }
}

/// See [`Bench::OpenLog`].
#[derive(clap::Args)]
pub struct OpenLog {
    url: String,
    credentials: PathBuf,
    data_dir: PathBuf,
}

/// See [`Bench::GatewayLoad`].
#[derive(clap::Args)]
pub struct GatewayLoad {
    url: String,
    credentials: PathBuf,
    seconds: u64,
    accounts: u32,
    number: u32,
}

/// See [`Bench::Ledger`].
#[derive(clap::Args)]
pub struct Ledger {
    /// Accounts, each with one grant.
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    accounts: u32,
    /// Transfers, and hold and capture pairs, that are timed.
    #[arg(long, default_value_t = 2_000_000, value_name = "N")]
    operations: u32,
}

/// See [`Bench::Journal`].
#[derive(clap::Args)]
pub struct Journal {
    /// Accounts, each with one grant.
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    accounts: u32,
    /// Length of each part.
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Only these parts, with commas between them; all when left out.
    #[arg(long, value_name = "PARTS", value_delimiter = ',')]
    only: Vec<Part>,
    /// Where the servers keep their data while it runs: a folder on the disk that is measured.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Accounts of the log that is opened again; 0 leaves this part out.
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    start_accounts: u32,
    /// Events of that log.
    #[arg(long, default_value_t = 10_000_000, value_name = "N")]
    start_events: u64,
}

/// A part of `bench journal`.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Part {
    /// Eight thousand commands in flight.
    Inflight,
    /// A hundred at a time, 32 clients, one client.
    Small,
    /// With FEED, transparency log and snapshots; `inflight` runs before it.
    Followed,
    /// Four gateways in processes of their own.
    Remote,
    /// Three servers.
    R3,
    /// A large log opened again.
    Start,
}

impl From<Part> for JournalPart {
    fn from(part: Part) -> Self {
        match part {
            Part::Inflight => JournalPart::Inflight,
            Part::Small => JournalPart::Small,
            Part::Followed => JournalPart::Followed,
            Part::Remote => JournalPart::Remote,
            Part::R3 => JournalPart::Cluster,
            Part::Start => JournalPart::Start,
        }
    }
}

/// See [`Bench::Replay`].
#[derive(clap::Args)]
pub struct Replay {
    /// Events in the log.
    #[arg(long, default_value_t = 2_000_000, value_name = "N")]
    events: u64,
    /// Accounts, each with one grant.
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    accounts: u32,
    /// Where the server keeps its data while it runs.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// See [`Bench::Audit`] and [`Bench::Export`].
#[derive(clap::Args)]
pub struct Books {
    /// Events in the log.
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    events: u64,
    /// Accounts, each with one grant.
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    accounts: u32,
    /// Where the server and the log keep their data while it runs.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Books {
    fn options(self) -> Result<bench::BooksOptions> {
        Ok(bench::BooksOptions { events: self.events, accounts: self.accounts, dir: folder(self.dir)? })
    }
}

/// See [`Bench::Kernels`].
#[derive(clap::Args)]
pub struct Kernels {
    /// GGUF file; the one that `cargo xtask tools` fetches by default.
    #[arg(long, env = "COUNTERFOIL_MODEL", default_value = FETCHED_MODEL, value_name = "FILE")]
    model: PathBuf,
    /// Figures are of one thread and of these; all cores by default.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Runs of each figure, of which the median counts.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Measure another engine too; it is compiled into .tools/ the first time, which takes minutes.
    #[arg(long, value_name = "NAME", value_parser = ["llama.cpp"])]
    peer: Option<String>,
}

/// See [`Bench::KernelsJob`].
#[derive(clap::Args)]
pub struct KernelsJob {
    model: PathBuf,
    threads: usize,
}

impl Kernels {
    fn run(self) -> Result<Report> {
        let root = std::env::current_dir()?;
        let options = bench::kernels::KernelsOptions {
            model: self.model,
            threads: self
                .threads
                .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
            runs: self.runs as usize,
            program: std::env::current_exe()?,
            llama: self.peer.map(|_| bench::kernels::llama_python(&root)).transpose()?,
        };
        Ok(bench::kernels::run(options)?)
    }
}

impl Bench {
    /// Measures and prints.
    pub fn run(self, output: Output) -> Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let report = match self {
            Bench::Ledger(Ledger { accounts, operations }) => {
                bench::ledger::run(bench::ledger::LedgerOptions { accounts, operations })?
            }
            Bench::Journal(Journal { accounts, seconds, only, dir, start_accounts, start_events }) => {
                let options = bench::journal::JournalOptions {
                    accounts,
                    part: Duration::from_secs(seconds),
                    dir: folder(dir)?,
                    start_accounts,
                    start_events,
                    only: only.into_iter().map(Part::into).collect(),
                    program: std::env::current_exe()?,
                };
                runtime.block_on(bench::journal::run(options))?
            }
            Bench::Growth(Growth { accounts, events, operations, seconds, dir }) => {
                let options = bench::growth::GrowthOptions {
                    accounts,
                    events,
                    operations,
                    part: Duration::from_secs(seconds),
                    dir: folder(dir)?,
                    program: std::env::current_exe()?,
                };
                runtime.block_on(bench::growth::run(options))?
            }
            Bench::Route(Route { seconds, jobs, nodes, seed, only, plots }) => {
                let part = Duration::from_secs(seconds);
                let only = only.into_iter().map(RoutePart::into).collect();
                bench::route::run(bench::route::RouteOptions { part, jobs, nodes, seed, only, plots })?
            }
            Bench::Gateway(Gateway { seconds, model, dir }) => {
                let part = Duration::from_secs(seconds);
                let options = bench::gateway::GatewayOptions { part, model, dir: folder(dir)? };
                runtime.block_on(bench::gateway::run(options))?
            }
            Bench::OpenLog(OpenLog { url, credentials, data_dir }) => {
                runtime.block_on(bench::growth::open_log(url, credentials, data_dir))?;
                return Ok(ExitCode::SUCCESS);
            }
            Bench::Kernels(kernels) => kernels.run()?,
            Bench::KernelsJob(KernelsJob { model, threads }) => {
                bench::kernels::job(bench::kernels::JobOptions { model, threads })?;
                return Ok(ExitCode::SUCCESS);
            }
            Bench::GatewayLoad(GatewayLoad { url, credentials, seconds, accounts, number }) => {
                let length = Duration::from_secs(seconds);
                let options = bench::journal::GatewayOptions { url, credentials, length, accounts, number };
                runtime.block_on(bench::journal::gateway(options))?;
                return Ok(ExitCode::SUCCESS);
            }
            Bench::Audit(books) => runtime.block_on(bench::audit::run(books.options()?))?,
            Bench::Export(books) => runtime.block_on(bench::export::run(books.options()?))?,
            Bench::Replay(Replay { events, accounts, dir }) => {
                let options = bench::replay::ReplayOptions { events, accounts, dir: folder(dir)? };
                runtime.block_on(bench::replay::run(options))?
            }
        };
        print(&report, output)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn folder(given: Option<PathBuf>) -> Result<PathBuf> {
    let dir = given.unwrap_or_else(std::env::temp_dir);
    std::fs::create_dir_all(&dir).with_context(|| format!("folder {}", dir.display()))?;
    Ok(dir)
}

fn print(report: &Report, output: Output) -> Result<()> {
    output.result(report.text().trim_end(), &serde_json::to_value(report)?);
    Ok(())
}
