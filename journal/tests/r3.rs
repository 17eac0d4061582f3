//! Three servers: the leader of the log's stream is killed under load, twice; the written configuration is one that the
//! server takes.

mod cluster;
mod harness;
mod processes;

use cluster::ClusterHarness;
use harness::*;
use journal::auth::{Role, connect};
use journal::server::find_nats_server;
use journal::standby::Leader;
use journal::stream::LEDGER_STREAM;
use journal::{Journal, RemoteLedger, RemoteOptions, StartError};
use processes::*;
use std::path::Path;
use std::time::{Duration, Instant};

/// An election was measured at 4 to 9 s; the writer's own patience comes on top, and a busy machine.
const ELECTION_MAX: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fewer_copies_than_asked_for_are_refused() {
    let harness = Harness::start().await;
    let mut options = harness.options("a");
    options.replicas_min = 3;
    let error = Journal::open(options).await.err().expect("refused");
    let text = error.to_string();
    assert!(matches!(error, StartError::Stream(_)), "{text}");
    assert!(text.contains("1 replicas, expected 3"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_streams_leader_is_killed_under_load_and_nothing_is_lost() {
    let mut cluster = ClusterHarness::start().await;
    let url = cluster.cluster.url();
    let journal = Journal::open(cluster.options("a")).await.unwrap();
    let writer = cluster.cluster.keys().credentials(Role::Writer).clone();
    let leader = Leader::start(journal, &url, &writer, 0).await.unwrap();
    let options = RemoteOptions::new(url.clone(), cluster.cluster.keys().credentials(Role::Gateway).clone());
    let gateway = RemoteLedger::connect(options).await.unwrap();
    let auditor = cluster.cluster.keys().credentials(Role::Auditor).clone();
    let observer = connect(&url, &auditor).await.unwrap();
    let load = Load::start(&gateway, 8);
    for round in 0..2 {
        load.more(100).await;
        let name = cluster.stream_leader(&observer).await.expect("a leader");
        let server = cluster.cluster.server_named(&name).expect("one of ours");
        server.kill().await.unwrap();
        let begin = Instant::now();
        load.more(8).await;
        let gap = begin.elapsed();
        println!("round {round}: {name} killed, served again after {} ms", gap.as_millis());
        assert!(gap <= ELECTION_MAX, "{gap:?}");
        load.more(50).await;
        cluster.cluster.server_named(&name).expect("one of ours").restart().await.unwrap();
    }
    // Every copy comes to the log's end by itself.
    load.more(50).await;
    let told = load.finish().await;
    let whole = async {
        let mut look = tokio::time::interval(Duration::from_millis(100));
        loop {
            look.tick().await;
            let context = async_nats::jetstream::new(observer.clone());
            let Ok(stream) = context.get_stream(LEDGER_STREAM).await else { continue };
            let Some(group) = &stream.cached_info().cluster else { continue };
            if group.replicas.len() == 2 && group.replicas.iter().all(|copy| copy.current && !copy.offline) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, whole).await.expect("the servers catch up");
    check_told(&read_log(&url, &auditor).await, &told);
    assert_eq!(leader.journal().epoch(), 1, "the sequencer went on; only its log's leader changed");
    leader.shutdown().await.unwrap();
}

/// `deploy/cluster/nats-<n>.conf`, with what each machine adds (keys, certificates) replaced by what a test has.
#[tokio::test]
async fn the_written_configuration_is_taken_by_the_server() {
    let harness = Harness::start().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/cluster");
    let generated = std::fs::read_to_string(harness.dir.path().join("broker/nats/server.conf")).unwrap();
    // From `operator:` on: the accounts, as deploy/cluster/README.md says.
    let accounts = &generated[generated.find("\noperator:").unwrap()..];
    for number in 1..=3 {
        let dir = tempfile::tempdir().unwrap();
        let name = format!("nats-{number}.conf");
        let text = std::fs::read_to_string(folder.join(&name)).unwrap();
        for setting in
            ["sync_interval: always", "max_payload: 8MB", "unique_tag: \"az:\"", &format!("az:{number}")]
        {
            assert!(text.contains(setting), "{name}: {setting}");
        }
        std::fs::write(dir.path().join(&name), text).unwrap();
        std::fs::write(dir.path().join("accounts.conf"), accounts).unwrap();
        std::fs::write(dir.path().join("tls.conf"), "").unwrap();
        let output = std::process::Command::new(find_nats_server().unwrap())
            .args(["-t", "-c"])
            .arg(dir.path().join(&name))
            .current_dir(dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{name}: {said}");
    }
}
