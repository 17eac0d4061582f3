//! A journal on a server of its own, opened with accounts that hold credit; beside it a second server for raw figures.

use super::JournalOptions;
use crate::growth::{Opened, open_elsewhere};
use crate::load::{Load, Spread, genesis};
use crate::raw::start_server;
use crate::{BenchError, Tried};
use journal::auth::{self, Credentials, Role};
use journal::background::Background;
use journal::feed::{self, FeedThread};
use journal::server::NatsServer;
use journal::transparency::{self, Signer, Transparency, TransparencyHandle};
use journal::{Journal, JournalOptions as Options, LedgerClient};
use ledger::command::Command;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// Commands of one opening batch.
const OPENING_COMMANDS: usize = 2_000;

/// See the module.
pub(crate) struct Bench {
    pub(crate) server: NatsServer,
    pub(crate) raw: NatsServer,
    pub(crate) client: LedgerClient,
    pub(crate) accounts: u32,
    pub(crate) journal: Journal,
    lanes: AtomicU32,
    dir: TempDir,
}

impl Bench {
    pub(crate) async fn open(options: &JournalOptions) -> Result<Bench, BenchError> {
        let dir = tempfile::tempdir_in(&options.dir).tried("make a folder")?;
        let server = start_server(&dir.path().join("broker")).await?;
        let raw = start_server(&dir.path().join("raw")).await?;
        let journal = open_journal(&server, dir.path().join("data")).await?;
        let bench = Bench {
            client: journal.client(),
            accounts: options.accounts,
            lanes: AtomicU32::new(0),
            server,
            raw,
            journal,
            dir,
        };
        bench.fill().await?;
        Ok(bench)
    }

    /// A sender of its own.
    pub(crate) fn load(&self) -> Load {
        Load::new(self.accounts, self.lanes.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    async fn fill(&self) -> Result<(), BenchError> {
        let mut load = self.load();
        submit_all(&self.client, load.opening()).await?;
        let mut batch = Vec::with_capacity(OPENING_COMMANDS);
        for number in 0..self.accounts {
            batch.extend(load.account(number));
            if batch.len() >= OPENING_COMMANDS || number + 1 == self.accounts {
                submit_all(&self.client, std::mem::take(&mut batch)).await?;
            }
        }
        Ok(())
    }

    /// Transfers until the log has so many events.
    pub(crate) async fn transfer_until(&self, events: u64) -> Result<(), BenchError> {
        let mut load = self.load();
        while self.client.position().borrow().leaf < events {
            submit_all(&self.client, load.batch(OPENING_COMMANDS, 0, Spread::Uniform)).await?;
        }
        Ok(())
    }

    /// Closes the log, lets another process open it and close it, opens it again here.
    pub(crate) async fn opened_elsewhere(self, program: &Path) -> Result<(Bench, Opened), BenchError> {
        let Bench { server, raw, client, accounts, journal, lanes, dir } = self;
        drop(client);
        journal.shutdown().await.tried("shut the journal down")?;
        let (broker, data_dir) = (dir.path().join("broker"), dir.path().join("data"));
        let opened = open_elsewhere(program, &server, &broker, &data_dir).await?;
        let journal = open_journal(&server, data_dir).await?;
        Ok((Bench { server, raw, client: journal.client(), accounts, journal, lanes, dir }, opened))
    }

    /// Starts what follows the log.
    pub(crate) async fn follow(&self) -> Result<Following, BenchError> {
        let origin = genesis().origin;
        let signer = Signer::load_or_create(&self.dir.path().join("keys"), &origin).tried("make a signer")?;
        let log = Transparency::open(&self.dir.path().join("tlog"), signer).tried("open the tiles")?;
        let tlog = transparency::spawn(log, transparency::CHECKPOINT_INTERVAL).tried("start the tiles")?;
        let follower = self.journal.follower();
        let tiles = tlog.follow_behind(&follower).tried("follow the log")?;
        let (url, credentials) = (self.server.url(), self.server.keys().credentials(Role::Projector).clone());
        let connect = move || async move { auth::connect(&url, &credentials).await };
        let feed = feed::spawn(origin, connect, follower).await.tried("start FEED")?;
        Ok(Following { tlog, feed, tiles })
    }

    pub(crate) async fn close(self) -> Result<(), BenchError> {
        self.journal.shutdown().await.tried("shut the journal down")?;
        let (mut server, mut raw) = (self.server, self.raw);
        server.stop().await.tried("stop nats-server")?;
        raw.stop().await.tried("stop nats-server")
    }
}

pub(crate) async fn open_journal(server: &NatsServer, data_dir: PathBuf) -> Result<Journal, BenchError> {
    open_journal_with(server, data_dir, |_| {}).await
}

/// Opens the journal on a server, with other options where wanted.
pub(crate) async fn open_journal_with(
    server: &NatsServer,
    data_dir: PathBuf,
    change: impl FnOnce(&mut Options),
) -> Result<Journal, BenchError> {
    let credentials = server.keys().credentials(Role::Writer).clone();
    let mut options = Options::new(server.url(), credentials, data_dir);
    options.genesis = Some(genesis());
    change(&mut options);
    Journal::open(options).await.tried("open the journal")
}

/// Opens a log that is there.
pub(crate) async fn open_journal_as(
    url: String,
    credentials: Credentials,
    data_dir: PathBuf,
) -> Result<Journal, BenchError> {
    Journal::open(Options::new(url, credentials, data_dir)).await.tried("open the journal")
}

/// Submits and insists.
pub(crate) async fn submit_all(client: &LedgerClient, commands: Vec<Command>) -> Result<(), BenchError> {
    for outcome in client.submit_many(commands).await.tried("submit")? {
        outcome.tried("carry out a command")?;
    }
    Ok(())
}

/// What follows the log.
pub(crate) struct Following {
    tlog: TransparencyHandle,
    feed: FeedThread,
    tiles: Background,
}

/// Events behind the log.
pub(crate) struct Lag {
    pub(crate) feed: f64,
    pub(crate) tlog: f64,
}

impl Following {
    pub(crate) fn lag(&self, bench: &Bench) -> Lag {
        let leaves = bench.client.position().borrow().leaf;
        let signed = self.tlog.published().borrow().as_ref().map_or(0, |checkpoint| checkpoint.size);
        let behind = |at: u64| leaves.saturating_sub(at) as f64;
        Lag { feed: behind(*self.feed.position.borrow()), tlog: behind(signed) }
    }

    /// Ends both; the tiles' folder may go then.
    pub(crate) async fn end(self) -> Result<(), BenchError> {
        self.feed.thread.end().await;
        self.tiles.end().await;
        self.tlog.shutdown().await.tried("stop the tiles")
    }
}

impl Bench {
    /// Bytes that the server keeps for a stream.
    pub(crate) async fn stored_bytes(&self, stream: &str) -> Result<u64, BenchError> {
        let credentials = self.server.keys().credentials(Role::Writer);
        let client = auth::connect(&self.server.url(), credentials).await.tried("connect as writer")?;
        let context = async_nats::jetstream::new(client);
        let stream = context.get_stream(stream).await.tried("look at the stream")?;
        Ok(stream.cached_info().state.bytes)
    }
}
