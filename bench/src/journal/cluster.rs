//! The same log on three servers of one machine: each commit stands on the disks of two of three before it is acknowledged.

use super::JournalOptions;
use super::setup::submit_all;
use crate::load::{Load, Spread, genesis};
use crate::report::{Report, ResultLine};
use crate::samples::Samples;
use crate::{BenchError, Tried};
use futures::future::try_join_all;
use journal::auth::{self, Role};
use journal::server::{NatsCluster, NatsClusterOptions, find_nats_server};
use journal::stream::{StreamError, init_streams_replicated};
use journal::{Journal, JournalOptions as Options, LedgerClient};
use std::time::{Duration, Instant};

const REPLICAS: usize = 3;
const ACCOUNTS: u32 = 10_000;
const SENDERS: u32 = 8;
const BATCH: usize = 1_000;
/// How long the servers may take to elect their first leaders.
const ELECTION_WAIT: Duration = Duration::from_secs(60);

/// 8 k in flight on three servers.
pub(super) async fn measure(options: &JournalOptions, report: &mut Report) -> Result<(), BenchError> {
    let dir = tempfile::tempdir_in(&options.dir).tried("make a folder")?;
    let binary = find_nats_server().tried("find nats-server")?;
    let start = NatsClusterOptions { binary, data_dir: dir.path().join("broker") };
    let cluster = NatsCluster::start(start).await.tried("start three servers")?;
    make_streams(&cluster).await?;
    let credentials = cluster.keys().credentials(Role::Writer).clone();
    let mut opening = Options::new(cluster.url(), credentials, dir.path().join("data"));
    opening.genesis = Some(genesis());
    opening.replicas_min = REPLICAS;
    let journal = Journal::open(opening).await.tried("open the journal")?;
    let client = journal.client();
    let mut load = Load::new(ACCOUNTS, 0);
    submit_all(&client, load.opening()).await?;
    for first in (0..ACCOUNTS).step_by(BATCH) {
        let accounts = first..(first + BATCH as u32).min(ACCOUNTS);
        submit_all(&client, accounts.flat_map(|number| load.account(number)).collect()).await?;
    }
    let end = Instant::now() + options.part;
    let started = Instant::now();
    let senders = (1..=SENDERS).map(|lane| tokio::spawn(send(client.clone(), lane, end)));
    let mut latency = Samples::default();
    for samples in try_join_all(senders).await.tried("run the senders")? {
        latency.extend(samples?);
    }
    let rate = (latency.len() * BATCH) as f64 / started.elapsed().as_secs_f64();
    let one = report.results.iter().find(|line| line.name == "durable.inflight_8k.uniform");
    let one = one.map_or(0.0, |line| line.value);
    report.results.push(ResultLine::rate("r3.inflight_8k", rate).against("one server", one));
    report.results.push(ResultLine::time_ms("r3.inflight_8k.p50", latency.quantile_ms(0.5)));
    report.results.push(ResultLine::time_ms("r3.inflight_8k.p99", latency.quantile_ms(0.99)));
    journal.shutdown().await.tried("shut the journal down")
}

async fn send(client: LedgerClient, lane: u32, end: Instant) -> Result<Samples, BenchError> {
    let mut load = Load::new(ACCOUNTS, lane);
    let mut latency = Samples::default();
    while Instant::now() < end {
        let commands = load.batch(BATCH, 0, Spread::Uniform);
        let started = Instant::now();
        submit_all(&client, commands).await?;
        latency.push(started.elapsed());
    }
    Ok(latency)
}

/// Until the servers have elected who may make streams, they say no.
async fn make_streams(cluster: &NatsCluster) -> Result<(), BenchError> {
    let credentials = cluster.keys().init_credentials().tried("make an init credential")?;
    let init = auth::connect(&cluster.url(), &credentials).await.tried("connect as init")?;
    let making = async {
        let mut again = tokio::time::interval(Duration::from_millis(100));
        loop {
            again.tick().await;
            match init_streams_replicated(&init, REPLICAS).await {
                Err(StreamError::NotCreated { .. }) => {}
                made => return made,
            }
        }
    };
    let made = tokio::time::timeout(ELECTION_WAIT, making).await;
    made.tried("wait for the first leaders")?.tried("make the streams")
}
