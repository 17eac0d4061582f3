//! Load of gateways in processes of their own on one sequencer: a real nats-server (fsync before every acknowledgement),
//! the sequencer in this process, gateways as children.
//! `cargo run --release -p journal --example gateway_load -- [SECONDS] [GATEWAYS] [CLIENTS] [BATCH]`; `BATCH` 1: single
//! commands, grouped into messages by the gateway alone. Must not: be a test.

#[path = "../tests/harness/mod.rs"]
mod harness;
mod moves;

use harness::Harness;
use journal::auth::{Credentials, Role};
use journal::standby::Leader;
use journal::{RemoteLedger, RemoteOptions, SubmitError};
use moves::{Failure, Moves, all_done, quantile, set_up};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

/// Of the issue.
const BAR_PER_SECOND: f64 = 300_000.0;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "gateway") {
        return gateway(&arguments[1..]).await;
    }
    let number = |k: usize, usual: u64| arguments.get(k).map_or(Ok(usual), |text| text.parse());
    let (seconds, gateways) = (number(0, 5)?, number(1, 4)?);
    let (clients, batch) = (number(2, 16)?, number(3, 128)?);
    let harness = Harness::start().await;
    let writer = harness.server.keys().credentials(Role::Writer);
    let leader = Leader::start(harness.open("a").await, &harness.server.url(), writer, 0).await?;
    for part in set_up().chunks(1_000) {
        all_done(leader.journal().client().submit_many(part.to_vec()).await?)?;
    }
    println!("{gateways} gateways, {clients} clients each, {batch} commands at a time, {seconds} s");
    let before = *leader.journal().position().borrow();
    let mut children = Vec::new();
    for k in 0..gateways {
        children.push(start_gateway(&harness, [seconds, clients, batch, k])?);
    }
    // All are connected before the first begins.
    for child in &mut children {
        child.says("ready").await?;
    }
    let begin = Instant::now();
    for child in &mut children {
        child.tell("go\n").await?;
    }
    let (mut commands, mut p99) = (0, 0);
    for child in &mut children {
        let said = child.says("done").await?;
        println!("  gateway: {said}");
        let mut words = said.split_whitespace();
        commands += words.next().ok_or("no figure")?.parse::<u64>()?;
        p99 = p99.max(words.nth(3).ok_or("no figure")?.parse::<u64>()?);
    }
    let rate = commands as f64 / begin.elapsed().as_secs_f64();
    let commits = leader.journal().position().borrow().commit - before.commit;
    println!(
        "together {rate:.0} operations/s (bar {BAR_PER_SECOND:.0}, ratio {:.2}), worst p99 {p99} us, {commits} commits",
        rate / BAR_PER_SECOND
    );
    leader.shutdown().await?;
    Ok(())
}

struct Gateway {
    child: Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

fn start_gateway(harness: &Harness, figures: [u64; 4]) -> Result<Gateway, Failure> {
    let credentials = harness.dir.path().join("broker/keys/gateway.creds");
    let mut child = Command::new(std::env::current_exe()?)
        .arg("gateway")
        .arg(harness.server.url())
        .arg(credentials)
        .args(figures.map(|figure| figure.to_string()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    Ok(Gateway { child, lines })
}

impl Gateway {
    async fn says(&mut self, word: &str) -> Result<String, Failure> {
        while let Some(line) = self.lines.next_line().await? {
            if let Some(rest) = line.strip_prefix(word) {
                return Ok(rest.trim().to_owned());
            }
        }
        Err(format!("a gateway ended before it said {word:?}").into())
    }

    async fn tell(&mut self, text: &str) -> Result<(), Failure> {
        let input = self.child.stdin.as_mut().ok_or("no input")?;
        Ok(input.write_all(text.as_bytes()).await?)
    }
}

/// The child: says `ready`, waits for a line, loads, says `done <commands> p50 <us> p99 <us>`.
async fn gateway(arguments: &[String]) -> Result<(), Failure> {
    let [url, credentials, seconds, clients, batch, number] = arguments else {
        return Err("expected: <url> <.creds> <seconds> <clients> <batch> <number>".into());
    };
    let credentials = Credentials::read(&PathBuf::from(credentials))?;
    let ledger = RemoteLedger::connect(RemoteOptions::new(url.clone(), credentials)).await?;
    let (clients, batch, number): (u64, usize, u64) = (clients.parse()?, batch.parse()?, number.parse()?);
    println!("ready");
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    let until = Instant::now() + Duration::from_secs(seconds.parse()?);
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            tokio::spawn(run_client(ledger.clone(), Moves::new(number << 32 | client), batch, until))
        })
        .collect();
    let (mut commands, mut latencies) = (0, Vec::new());
    for task in tasks {
        let (count, times) = task.await??;
        commands += count;
        latencies.extend(times);
    }
    latencies.sort_unstable();
    println!("done {commands} p50 {} p99 {}", quantile(&latencies, 0.5), quantile(&latencies, 0.99));
    Ok(())
}

async fn run_client(
    ledger: RemoteLedger,
    mut source: Moves,
    batch: usize,
    until: Instant,
) -> Result<(u64, Vec<u32>), SubmitError> {
    let (mut count, mut latencies) = (0, Vec::new());
    while Instant::now() < until {
        let begin = Instant::now();
        if batch == 1 {
            ledger.submit_placed(source.next()).await?;
            count += 1;
        } else {
            let commands = (0..batch).map(|_| source.next()).collect();
            count += all_done(ledger.submit_many(commands).await?)?;
        }
        latencies.push(begin.elapsed().as_micros() as u32);
    }
    Ok((count, latencies))
}
