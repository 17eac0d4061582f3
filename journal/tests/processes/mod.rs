//! Sequencers as processes, gateways that load them, and an outside checker that remembers every acknowledged answer.
#![allow(dead_code, reason = "each test file uses its part")]

use crate::harness::*;
use futures::TryStreamExt;
use journal::auth::{Role, connect};
use journal::reader::ReaderOptions;
use journal::stream::LEDGER_STREAM;
use journal::{CommittedCommit, Outcome, Reader, RemoteLedger, RemoteOptions, SubmitError, Until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;

/// How long anything that must happen may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A `sequencer` process; killed when dropped.
pub struct Sequencer {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// The example beside this test's own binary.
fn sequencer_binary() -> PathBuf {
    let ours = std::env::current_exe().unwrap();
    let path = ours.parent().and_then(Path::parent).unwrap().join("examples/sequencer");
    assert!(path.is_file(), "{} is missing: cargo build -p journal --examples", path.display());
    path
}

impl Sequencer {
    pub fn start(url: &str, keys: &Path, data_dir: &Path, role: &str) -> Sequencer {
        let mut child = Command::new(sequencer_binary())
            .args([url.as_ref(), keys.join("writer.creds").as_os_str(), data_dir.as_os_str(), role.as_ref()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Sequencer { child, lines }
    }

    /// Waits for a line that begins so; returns the rest of it.
    pub async fn says(&mut self, word: &str) -> String {
        let wait = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                if let Some(rest) = line.strip_prefix(word) {
                    return rest.trim().to_owned();
                }
                assert!(!line.starts_with("ended"), "waiting for {word:?}: {line}");
            }
            panic!("the sequencer ended before it said {word:?}");
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("it never said {word:?}"))
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().expect("it runs")).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    pub async fn wait(&mut self) {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap();
    }
}

impl Harness {
    pub fn keys_dir(&self) -> PathBuf {
        self.dir.path().join("broker/keys")
    }

    pub fn sequencer(&self, data: &str, role: &str) -> Sequencer {
        Sequencer::start(&self.server.url(), &self.keys_dir(), &self.data_dir(data), role)
    }

    pub fn gateway_options(&self) -> RemoteOptions {
        RemoteOptions::new(self.server.url(), self.server.keys().credentials(Role::Gateway).clone())
    }

    pub async fn gateway(&self) -> RemoteLedger {
        RemoteLedger::connect(self.gateway_options()).await.unwrap()
    }

    /// The log, read from outside.
    pub async fn log(&self) -> Vec<CommittedCommit> {
        read_log(&self.server.url(), self.server.keys().credentials(Role::Auditor)).await
    }
}

pub async fn read_log(url: &str, auditor: &journal::auth::Credentials) -> Vec<CommittedCommit> {
    let client = connect(url, auditor).await.unwrap();
    let options = ReaderOptions { client, stream: LEDGER_STREAM.to_owned(), shard: 0, position: None };
    let reader = Reader::new(options);
    let last = reader.last_commit().await.unwrap();
    reader.from_commit(1, Until::Commit(last)).try_collect().await.unwrap()
}

/// Clients that submit one command after the other and remember what they were told.
pub struct Load {
    going: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    clients: JoinSet<Vec<(u64, Outcome)>>,
}

impl Load {
    /// Client k opens accounts k x 10 000 000, + 1, + 2 ... through `gateway`.
    pub fn start(gateway: &RemoteLedger, clients: u64) -> Load {
        let (going, acknowledged) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let mut load = Load { going, acknowledged, clients: JoinSet::new() };
        for client in 0..clients {
            let (gateway, going) = (gateway.clone(), load.going.clone());
            let acknowledged = load.acknowledged.clone();
            load.clients.spawn(async move {
                let mut told = Vec::new();
                let mut number = client * 10_000_000;
                while going.load(Ordering::Relaxed) {
                    match gateway.submit(open_account(number, number)).await {
                        Ok(outcome) => {
                            told.push((number, outcome));
                            acknowledged.fetch_add(1, Ordering::Relaxed);
                            number += 1;
                        }
                        // Asked again with the same key, as the docs say.
                        Err(SubmitError::Unknown | SubmitError::Overloaded) => tokio::task::yield_now().await,
                        Err(error) => panic!("{error}"),
                    }
                }
                told
            });
        }
        load
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more commands were acknowledged.
    pub async fn more(&self, count: u64) {
        let target = self.acknowledged() + count;
        let mut look = tokio::time::interval(Duration::from_millis(2));
        let wait = async {
            while self.acknowledged() < target {
                look.tick().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the load goes on by itself");
    }

    /// Lets every client finish what it is at; everything that was acknowledged.
    pub async fn finish(self) -> Vec<(u64, Outcome)> {
        self.going.store(false, Ordering::Relaxed);
        let told =
            tokio::time::timeout(PATIENCE, self.clients.join_all()).await.expect("everybody is answered");
        told.into_iter().flatten().collect()
    }
}

/// Every acknowledged answer stands in the log once, where it said; and nothing stands there that nobody was told of.
pub fn check_told(log: &[CommittedCommit], told: &[(u64, Outcome)]) {
    check_acknowledged(log, told);
    assert_eq!(opened(log).len(), told.len(), "every command was asked again until it was acknowledged");
}
