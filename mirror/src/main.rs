//! `counterfoil-mirror`: what `counterfoil mirror` runs. Arguments, the loop, exit codes.

use anyhow::{Context, Result, bail};
use clap::Parser;
use journal::reader::ArchiveReader;
use mirror::{Kurrent, Mirror, MirrorError};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// How often a following mirror looks into the archive.
const FOLLOW_PERIOD: Duration = Duration::from_secs(1);

/// Follows the log into an event store server, one stream a shard, resumable.
/// Example: counterfoil-mirror --to kurrentdb --data data
#[derive(Parser)]
#[command(name = "counterfoil-mirror", version)]
struct Arguments {
    /// Which kind of server.
    #[arg(long, value_enum)]
    to: Target,
    /// Data directory of the network; beside a running one, what is whole is mirrored.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Connection string, such as kurrentdb://admin:changeit@localhost:2113?tls=false.
    #[arg(long, env = "KURRENTDB_URL", hide_env_values = true, value_name = "URL")]
    url: String,
    /// Goes on until Ctrl-C.
    #[arg(long, conflicts_with = "compare")]
    follow: bool,
    /// Only reads stream and log side by side and says whether they are the same.
    #[arg(long)]
    compare: bool,
    /// One JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// The servers there are.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Target {
    /// KurrentDB, and EventStoreDB from 21.10 on.
    Kurrentdb,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("counterfoil-mirror: {error:#}");
            // A stream that is not this log is a finding; a store that does not answer says nothing.
            match error.downcast_ref::<MirrorError>() {
                Some(MirrorError::Store(_)) => ExitCode::from(3),
                _ => ExitCode::from(1),
            }
        }
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Target::Kurrentdb = arguments.to;
    if !arguments.data.is_dir() {
        bail!("{} is no directory; give the one that `up --data` had", arguments.data.display());
    }
    let shard = archive(&arguments.data)?.shard();
    let mirror = Mirror::new(Kurrent::connect(&arguments.url)?, shard);
    if arguments.compare {
        let compared = mirror.compare(archive(&arguments.data)?.commits(1)).await?;
        let text = format!(
            "stream {} is the log: {} events, {} commits, chain head {}",
            mirror::event::stream(shard),
            compared.events,
            compared.commits,
            compared.chain_head
        );
        print(arguments.json, &text, &serde_json::to_value(compared)?);
        return Ok(ExitCode::SUCCESS);
    }
    if !arguments.follow {
        let archive = archive(&arguments.data)?;
        let position = mirror.catch_up(|first| archive.commits(first)).await?;
        let text = format!("stream {} has {} events", mirror::event::stream(shard), position.events);
        print(arguments.json, &text, &serde_json::json!({"events": position.events}));
        return Ok(ExitCode::SUCCESS);
    }
    tokio::select! {
        ended = follow(&mirror, &arguments.data) => ended,
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::SUCCESS),
    }
}

/// Until something is wrong; a store that does not answer is asked again. An append that Ctrl-C cuts off is found out
/// about at the next start.
async fn follow(mirror: &Mirror<Kurrent>, data: &Path) -> Result<ExitCode> {
    let mut period = tokio::time::interval(FOLLOW_PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        let archive = archive(data)?;
        match mirror.catch_up(|first| archive.commits(first)).await {
            Ok(_) => {}
            Err(MirrorError::Store(error)) => eprintln!("counterfoil-mirror: {error}"),
            Err(error) => return Err(error.into()),
        }
    }
}

fn archive(data: &Path) -> Result<ArchiveReader> {
    ArchiveReader::open(data).with_context(|| data.display().to_string())
}

fn print(json: bool, text: &str, value: &serde_json::Value) {
    if json { println!("{value}") } else { println!("{text}") }
}
