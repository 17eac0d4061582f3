//! Three real nats-servers with replicated streams, and journals on them.
#![allow(dead_code, reason = "each user takes its part")]

use crate::harness::genesis;
use journal::JournalOptions;
use journal::auth::{Role, connect};
use journal::server::{NatsCluster, NatsClusterOptions, find_nats_server};
use journal::stream::{LEDGER_STREAM, StreamError, init_streams_replicated};
use std::time::Duration;
use tempfile::TempDir;

/// Servers that each stream stands on.
pub const REPLICAS: usize = 3;

/// How long three servers may take to elect their first leaders.
const ELECTION_WAIT: Duration = Duration::from_secs(60);

pub struct ClusterHarness {
    pub dir: TempDir,
    pub cluster: NatsCluster,
}

impl ClusterHarness {
    pub async fn start() -> ClusterHarness {
        let dir = tempfile::tempdir().unwrap();
        let binary = find_nats_server().expect("run cargo xtask tools");
        let options = NatsClusterOptions { binary, data_dir: dir.path().join("broker") };
        let cluster = NatsCluster::start(options).await.unwrap();
        let harness = ClusterHarness { dir, cluster };
        let mut last = String::new();
        let made = tokio::time::timeout(ELECTION_WAIT, harness.make_streams(&mut last)).await;
        assert!(made.is_ok(), "the cluster has no leader: {last}");
        harness
    }

    /// Until the servers have elected who may make streams, they say no.
    async fn make_streams(&self, last: &mut String) {
        let credentials = self.cluster.keys().init_credentials().unwrap();
        let init = connect(&self.cluster.url(), &credentials).await.unwrap();
        let mut again = tokio::time::interval(Duration::from_millis(100));
        loop {
            again.tick().await;
            match init_streams_replicated(&init, REPLICAS).await {
                Ok(()) => return,
                Err(error @ StreamError::NotCreated { .. }) => *last = error.to_string(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub fn options(&self, name: &str) -> JournalOptions {
        let credentials = self.cluster.keys().credentials(Role::Writer).clone();
        let mut options = JournalOptions::new(self.cluster.url(), credentials, self.dir.path().join(name));
        options.genesis = Some(genesis());
        options.replicas_min = REPLICAS;
        options
    }

    /// Who leads the log's stream, as `client`'s server knows.
    pub async fn stream_leader(&self, client: &async_nats::Client) -> Option<String> {
        let context = async_nats::jetstream::new(client.clone());
        let stream = context.get_stream(LEDGER_STREAM).await.ok()?;
        stream.cached_info().cluster.as_ref()?.leader.clone()
    }
}
