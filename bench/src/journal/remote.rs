//! Gateways in processes of their own: they group their commands and reach the sequencer on `cmd.<shard>`.

use super::JournalOptions;
use super::setup::Bench;
use crate::load::{Load, Spread};
use crate::report::{Report, ResultLine};
use crate::samples::Samples;
use crate::{BenchError, Tried};
use futures::future::try_join_all;
use journal::auth::{self, Credentials, Role};
use journal::{CommandDoor, DoorOptions, RemoteLedger, RemoteOptions};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// Gateways that are measured together.
const GATEWAYS: u32 = 4;
/// Clients of each, and commands that a client sends at once.
const CLIENTS: u32 = 16;
const BATCH: usize = 128;
/// Senders of a gateway have lanes from here on.
const LANES: u32 = 1 << 16;

/// What a gateway's process is told.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// The broker.
    pub url: String,
    /// File of a gateway's credentials.
    pub credentials: PathBuf,
    /// How long.
    pub length: Duration,
    /// Accounts there are.
    pub accounts: u32,
    /// Which gateway of several.
    pub number: u32,
}

/// The gateway's process: says `ready`, waits for a line, sends, says `done <commands> <p99 in ms>`.
pub async fn gateway(options: GatewayOptions) -> Result<(), BenchError> {
    let credentials = Credentials::read(&options.credentials).tried("read the credentials")?;
    let remote = RemoteOptions::new(options.url.clone(), credentials);
    let ledger = RemoteLedger::connect(remote).await.tried("connect")?;
    println!("ready");
    let line = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await;
    line.tried("wait for the start")?.tried("wait for the start")?;
    let end = Instant::now() + options.length;
    let clients = (0..CLIENTS).map(|client| {
        let (ledger, lane) = (ledger.clone(), LANES + options.number * CLIENTS + client);
        let mut load = Load::new(options.accounts, lane);
        tokio::spawn(async move {
            let mut latency = Samples::default();
            while Instant::now() < end {
                let commands = load.batch(BATCH, 0, Spread::Uniform);
                let started = Instant::now();
                for outcome in ledger.submit_many(commands).await.tried("submit a batch")? {
                    outcome.tried("carry out a command")?;
                }
                latency.push(started.elapsed());
            }
            Ok::<Samples, BenchError>(latency)
        })
    });
    let mut latency = Samples::default();
    for samples in try_join_all(clients).await.tried("run the clients")? {
        latency.extend(samples?);
    }
    println!("done {} {}", latency.len() * BATCH, latency.quantile_ms(0.99));
    Ok(())
}

struct Gateway {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Gateway {
    fn start(bench: &Bench, options: &JournalOptions, number: u32) -> Result<Gateway, BenchError> {
        let credentials = bench.dir().join("broker/keys/gateway.creds");
        let mut child = Command::new(&options.program)
            .args(["bench", "gateway-load", &bench.server.url()])
            .arg(credentials)
            .args([
                options.part.as_secs().max(1).to_string(),
                options.accounts.to_string(),
                number.to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .tried("start a gateway")?;
        let output = child.stdout.take().ok_or("no output").tried("start a gateway")?;
        Ok(Gateway { child, lines: BufReader::new(output).lines() })
    }

    async fn says(&mut self, word: &str) -> Result<String, BenchError> {
        while let Some(line) = self.lines.next_line().await.tried("listen to a gateway")? {
            if let Some(rest) = line.strip_prefix(word) {
                return Ok(rest.trim().to_owned());
            }
        }
        Err(BenchError::failed("listen to a gateway")(format!("it ended before it said {word:?}")))
    }

    async fn go(&mut self) -> Result<(), BenchError> {
        let input = self.child.stdin.as_mut().ok_or("no input").tried("start a gateway")?;
        input.write_all(b"go\n").await.tried("start a gateway")
    }
}

/// Four of them together.
pub(super) async fn measure(
    bench: &Bench,
    options: &JournalOptions,
    report: &mut Report,
) -> Result<(), BenchError> {
    let writer = bench.server.keys().credentials(Role::Writer);
    let client = auth::connect(&bench.server.url(), writer).await.tried("connect as writer")?;
    let epoch = bench.journal.epoch();
    let ledger = bench.client.clone();
    let door = CommandDoor::start(DoorOptions { ledger, client, shard: 0, epoch, lease: None });
    let _door = door.await.tried("open the door for gateways")?;
    let mut gateways = Vec::new();
    for number in 0..GATEWAYS {
        gateways.push(Gateway::start(bench, options, number)?);
    }
    for gateway in &mut gateways {
        gateway.says("ready").await?;
    }
    let started = Instant::now();
    for gateway in &mut gateways {
        gateway.go().await?;
    }
    let (mut commands, mut p99) = (0.0, 0.0f64);
    for gateway in &mut gateways {
        let said = gateway.says("done").await?;
        let figures: Vec<f64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [count, slowest] = figures[..] else {
            return Err(BenchError::failed("listen to a gateway")(format!("it said {said:?}")));
        };
        commands += count;
        p99 = p99.max(slowest);
    }
    let rate = commands / started.elapsed().as_secs_f64();
    let here = report.results.iter().find(|line| line.name == "durable.inflight_8k.uniform");
    let here = here.map_or(0.0, |line| line.value);
    report.results.push(ResultLine::rate("remote.gateways_4", rate).against("callers in the process", here));
    report.results.push(ResultLine::time_ms("remote.gateways_4.p99", p99));
    Ok(())
}
