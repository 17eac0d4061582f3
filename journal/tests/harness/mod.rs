//! A real nats-server with its streams, journals on it, and commands that can be counted again afterwards.
#![allow(dead_code, reason = "each test file uses its part")]

use futures::{StreamExt, TryStreamExt};
use journal::auth::{Role, connect};
use journal::server::{NatsServer, NatsServerOptions, PortChoice, find_nats_server};
use journal::stream::init_streams;
use journal::{CommittedCommit, Journal, JournalOptions, Outcome, Until};
use ledger::Command;
use ledger::command::OpenAccount;
use protocol::EventBody;
use protocol::asset::{Asset, AssetId};
use protocol::event::Actor;
use protocol::event::policy::{NetworkOpened, Settings};
use protocol::id::{AccountId, Hash32, IdempotencyKey};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const HOUR_US: u64 = 3_600_000_000;

/// A server in a folder of its own, and room for journals' data folders beside it.
pub struct Harness {
    pub dir: TempDir,
    pub server: NatsServer,
}

impl Harness {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = start_server(dir.path()).await;
        let init = connect(&server.url(), &server.keys().init_credentials().unwrap()).await.unwrap();
        init_streams(&init).await.unwrap();
        Self { dir, server }
    }

    pub fn data_dir(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn options(&self, name: &str) -> JournalOptions {
        let credentials = self.server.keys().credentials(Role::Writer).clone();
        let mut options = JournalOptions::new(self.server.url(), credentials, self.data_dir(name));
        options.genesis = Some(genesis());
        options
    }

    pub async fn open(&self, name: &str) -> Journal {
        Journal::open(self.options(name)).await.unwrap()
    }
}

pub async fn start_server(dir: &Path) -> NatsServer {
    let binary = find_nats_server().expect("run cargo xtask tools");
    let data_dir = dir.join("broker");
    NatsServer::start(NatsServerOptions { binary, data_dir, port: PortChoice::Any }).await.unwrap()
}

pub fn genesis() -> NetworkOpened {
    NetworkOpened {
        origin: "counterfoil.example/test/0".into(),
        preset: "test".into(),
        preset_hash: Hash32([1; 32]),
        assets: vec![Asset { id: AssetId(0), symbol: "CRED".into(), ledger_scale: 9, chain_scale: None }],
        settings: Settings {
            epoch_us: 6 * HOUR_US,
            hold_grace_us: 60_000_000,
            job_deadline_us_max: HOUR_US,
            idempotency_us: 24 * HOUR_US,
            settle_units_min: 0,
            voucher_us: HOUR_US,
            authorisation_margin_epochs: 2,
            capture_tolerance_ppm: None,
        },
    }
}

pub fn account(number: u64) -> AccountId {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    AccountId(id)
}

/// Opens account `number` under key `key`.
pub fn open_account(key: u64, number: u64) -> Command {
    Command {
        key: IdempotencyKey::internal("test", &[&key.to_be_bytes()]),
        actor: Actor::Admin,
        not_after_us: None,
        key_time_us: None,
        body: OpenAccount { account: account(number) }.into(),
    }
}

/// The whole log, chain-checked by the reader.
pub async fn whole_log(journal: &Journal) -> Vec<CommittedCommit> {
    let reader = journal.reader();
    let last = reader.last_commit().await.unwrap();
    reader.from_commit(1, Until::Commit(last)).try_collect().await.unwrap()
}

/// How often each account was opened, and where.
pub fn opened(log: &[CommittedCommit]) -> BTreeMap<AccountId, Vec<(u64, u64)>> {
    let mut opened: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for event in log.iter().flat_map(|commit| &commit.events) {
        if let EventBody::AccountOpened(body) = &event.body {
            opened.entry(body.account).or_default().push((event.header.commit, event.header.leaf));
        }
    }
    opened
}

/// Every acknowledged outcome stands in the log exactly once, where it said.
pub fn check_acknowledged(log: &[CommittedCommit], acknowledged: &[(u64, Outcome)]) {
    let opened = opened(log);
    assert!(opened.values().all(|places| places.len() == 1), "an account was opened twice");
    for (number, outcome) in acknowledged {
        let places = opened.get(&account(*number)).expect("an acknowledged command is missing");
        assert_eq!(places, &vec![(outcome.commit, outcome.first_leaf)]);
        assert_eq!(log[outcome.commit as usize - 1].hash, outcome.commit_hash);
    }
}

pub async fn state_hash(journal: &Journal) -> Hash32 {
    journal.client().read(ledger::State::hash).await.unwrap()
}

/// Submits `numbers` with as many at once, each under its own number as key.
pub async fn submit_many(
    journal: &Journal,
    numbers: impl Iterator<Item = u64>,
    at_once: usize,
) -> Vec<(u64, Outcome)> {
    let client = journal.client();
    futures::stream::iter(numbers)
        .map(|number| {
            let client = client.clone();
            async move { (number, client.submit(open_account(number, number)).await.unwrap()) }
        })
        .buffer_unordered(at_once)
        .collect()
        .await
}

pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
