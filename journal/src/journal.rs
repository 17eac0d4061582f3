//! The journal as one thing: opens the log (lock, compare, replay), starts the writer, hands out the client, the reader,
//! the position and the live commits. Must not: start FEED, the transparency log or nats-server (who composes does).

mod start;

pub use start::{StartError, lock_data_dir};

use crate::auth::{self, Credentials};
use crate::client::{LedgerClient, LocalLedger};
use crate::keeper::{Keeper, KeeperOptions};
use crate::pipeline::{Boot, Input, Pipeline, PipelineOptions, Position, StopReason};
use crate::reader::{ArchiveFollower, Reader, ReaderOptions};
use crate::segment::{Courier, DirectoryStore, Sealer, StoreLocation};
use crate::snapshot_store::SnapshotStore;
use crate::snapshotter::{SnapshotOptions, Snapshotter};
use crate::stream::{self, LEDGER_STREAM, LEDGER_SUBJECT};
use crate::tail::TailSyncer;
use crate::watchdog::{Watchdog, WatchdogOptions, Watched};
use crate::writer::{Committed, Gate, Link, LinkOptions, LinkRequest, Message, TailSyncMode, Ticket, Writer};
use protocol::event::policy::NetworkOpened;
use protocol::id::Hash32;
use start::Recovered;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// Live commits that a follower may be behind before it must read them from the log.
pub const COMMITS_ANNOUNCED_MAX: usize = 256;
/// How often the stream's last acknowledged commit is compared with ours.
pub const WATCH_PERIOD: Duration = Duration::from_secs(10);
/// How long [`Journal::shutdown`] waits for the log before it gives up on it.
pub const SHUTDOWN_WAIT: Duration = Duration::from_secs(10);

/// What [`Journal::open`] needs.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// The broker, `nats://host:port`.
    pub url: String,
    /// Of [`crate::auth::Role::Writer`].
    pub credentials: Credentials,
    /// Archive tail, snapshots, lock.
    pub data_dir: PathBuf,
    /// The network to open when the log is empty.
    pub genesis: Option<NetworkOpened>,
    /// When answers leave.
    pub tail_sync: TailSyncMode,
    /// Largest size of one tail file, bytes.
    pub tail_file_bytes_max: u64,
    /// Shard, queue length.
    pub pipeline: PipelineOptions,
    /// See [`WATCH_PERIOD`].
    pub watch_period: Duration,
    /// Servers that every stream must stand on, verified at every start; 1 without a cluster, else 3 or 5.
    pub replicas_min: usize,
    /// A state that was folded from this log: used instead of a snapshot when it stands in the log's chain.
    pub warm: Option<Arc<ledger::State>>,
    /// When the keeper makes snapshots.
    pub snapshots: SnapshotOptions,
    /// Complete tail files that stay unsealed.
    pub unsealed_files: usize,
    /// Where the newest signed checkpoint is published, for the segments; `tlog/checkpoint` under the data folder.
    pub checkpoint: PathBuf,
    /// Where sealed segments are copied to besides.
    pub archive_copy: Option<StoreLocation>,
    /// Compares the writer's state with what the log gives; costs the memory of a second state. `None` = nobody does.
    pub watchdog: Option<WatchdogOptions>,
}

impl JournalOptions {
    /// Shard 0 with the usual figures.
    pub fn new(url: String, credentials: Credentials, data_dir: PathBuf) -> Self {
        let checkpoint = data_dir.join("tlog").join(protocol::tile::CHECKPOINT_PATH);
        Self {
            url,
            credentials,
            data_dir,
            genesis: None,
            tail_sync: TailSyncMode::Soon,
            tail_file_bytes_max: crate::tail::TAIL_FILE_BYTES_MAX,
            pipeline: PipelineOptions::new(0),
            watch_period: WATCH_PERIOD,
            replicas_min: 1,
            warm: None,
            snapshots: SnapshotOptions::usual(),
            unsealed_files: crate::segment::SEALED_AFTER_FILES,
            checkpoint,
            archive_copy: None,
            watchdog: None,
        }
    }
}

/// The open journal. Dropping it asks the writer to finish; [`Journal::shutdown`] also waits for that.
pub struct Journal {
    client: LocalLedger,
    reader: Reader,
    commits: broadcast::Sender<Committed>,
    epoch: u64,
    data_dir: PathBuf,
    ended: Option<oneshot::Receiver<()>>,
    keeper: Option<Keeper>,
    watchdog: Option<Watchdog>,
}

/// What the threads share from the beginning.
struct Wires {
    queue: mpsc::UnboundedSender<Message>,
    position: watch::Sender<Position>,
    commits: broadcast::Sender<Committed>,
    stopped: watch::Sender<Option<StopReason>>,
}

/// Reported by the log's thread once the writer runs.
struct Started {
    tail: Arc<crate::tail::TailIndex>,
    led: oneshot::Receiver<u64>,
    keeper: Keeper,
}

impl Journal {
    /// Locks the data folder, compares archive and stream, replays, begins a term. Returns once this writer leads.
    pub async fn open(options: JournalOptions) -> Result<Journal, StartError> {
        let lock = start::lock_data_dir(&options.data_dir)?;
        let data_dir = options.data_dir.clone();
        let watchdog = options.watchdog.clone();
        let (queue, inbox) = mpsc::unbounded_channel();
        let (position, position_rx) = watch::channel(Position::default());
        let (commits, _) = broadcast::channel(COMMITS_ANNOUNCED_MAX);
        let (stopped, mut stopped_rx) = watch::channel(None);
        let gate = Gate::new(options.pipeline.queue_requests_max);
        let wires = Wires { queue: queue.clone(), position, commits: commits.clone(), stopped };
        let reader_client = auth::connect(&options.url, &options.credentials).await?;
        let reader = Reader::new(ReaderOptions {
            client: reader_client,
            stream: LEDGER_STREAM.to_owned(),
            shard: options.pipeline.shard,
            position: Some(position_rx.clone()),
        });
        let (report, reported) = oneshot::channel();
        let (ended_tx, ended) = oneshot::channel();
        let log = LogThread { options, lock, inbox, wires, report, ended: ended_tx };
        std::thread::Builder::new()
            .name("ledger-log".into())
            .spawn(move || log.run())
            .map_err(StartError::Thread)?;
        let Started { tail, led, keeper } = reported.await.map_err(|_| StartError::Died)??;
        let client = LocalLedger { queue, gate, position: position_rx, stopped: stopped_rx.clone(), tail };
        let epoch = tokio::select! {
            Ok(epoch) = led => epoch,
            reason = stop_reason(&mut stopped_rx) => {
                // The lock must be free when the caller hears of it.
                let _ = ended.await;
                keeper.ended().await;
                return Err(StartError::Stopped(reason));
            }
        };
        let (ended, keeper) = (Some(ended), Some(keeper));
        let mut journal = Journal { client, reader, commits, epoch, data_dir, ended, keeper, watchdog: None };
        if let Some(options) = watchdog {
            let watchdog = Watchdog::start(journal.client.clone(), journal.follower(), options);
            journal.watchdog = Some(watchdog.map_err(StartError::Thread)?);
        }
        Ok(journal)
    }

    /// What the watchdog has compared; `None` without one.
    pub fn watched(&self) -> Option<watch::Receiver<Watched>> {
        self.watchdog.as_ref().map(Watchdog::watched)
    }

    /// The door for commands.
    pub fn client(&self) -> LedgerClient {
        self.client.clone().into()
    }

    /// Stops the writer now, without waiting for the log: another one's term began.
    pub(crate) fn abandoner(&self) -> impl FnOnce() + Send + 'static {
        let client = self.client.clone();
        move || client.abandon()
    }

    /// Reads the log; a live read ends with this journal and never runs ahead of its committed position.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Follows the log from this journal's archive: what stands in files here needs not be asked of the broker again.
    pub fn follower(&self) -> ArchiveFollower {
        let (reader, position) = (self.reader.clone(), self.client.position());
        ArchiveFollower { reader, data_dir: self.data_dir.clone(), position }
    }

    /// The committed position.
    pub fn position(&self) -> watch::Receiver<Position> {
        self.client.position()
    }

    /// Commits as they become safe. A follower that lags ([`COMMITS_ANNOUNCED_MAX`]) reads on with [`Journal::reader`].
    pub fn commits(&self) -> broadcast::Receiver<Committed> {
        self.commits.subscribe()
    }

    /// The writer's term.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Why the writer stopped, once it has.
    pub fn stopped(&self) -> watch::Receiver<Option<StopReason>> {
        self.client.stopped()
    }

    /// Finishes what was accepted, ends the threads and frees the lock. Fails when the writer had
    /// stopped for another reason, or the log did not answer in time.
    pub async fn shutdown(mut self) -> Result<(), StopReason> {
        let Some(mut ended) = self.ended.take() else { return Ok(()) };
        let _ = self.client.queue.send(Message::Input(Input::Shutdown));
        if tokio::time::timeout(SHUTDOWN_WAIT, &mut ended).await.is_err() {
            let _ = self.client.queue.send(Message::Input(Input::Abandon));
            let _ = ended.await;
        }
        if let Some(keeper) = self.keeper.take() {
            keeper.ended().await;
        }
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.end().await;
        }
        match self.client.stopped.borrow().clone() {
            Some(StopReason::Closed) => Ok(()),
            Some(other) => Err(other),
            None => Err(StopReason::Broken("the writer's thread died".to_owned())),
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if self.ended.is_some() {
            let _ = self.client.queue.send(Message::Input(Input::Shutdown));
        }
    }
}

async fn stop_reason(stopped: &mut watch::Receiver<Option<StopReason>>) -> StopReason {
    let reason = stopped.wait_for(Option::is_some).await.map(|reason| reason.clone());
    reason.ok().flatten().unwrap_or_else(|| StopReason::Broken("the writer's thread died".to_owned()))
}

/// The thread that owns the broker's connection: start-up first, then the link.
struct LogThread {
    options: JournalOptions,
    lock: File,
    inbox: mpsc::UnboundedReceiver<Message>,
    wires: Wires,
    report: oneshot::Sender<Result<Started, StartError>>,
    ended: oneshot::Sender<()>,
}

impl LogThread {
    fn run(self) {
        let LogThread { options, lock, inbox, wires, report, ended } = self;
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(report.send(Err(StartError::Thread(error)))),
        };
        runtime.block_on(async move {
            let (link_tx, link_rx) = mpsc::unbounded_channel();
            match prepare(options, lock, inbox, wires, link_tx).await {
                Err(error) => drop(report.send(Err(error))),
                Ok(Prepared { started, writer, boot, link }) => {
                    let _ = report.send(Ok(started));
                    // The link ends with the writer.
                    tokio::join!(writer.run(boot), link.serve(link_rx));
                    let _ = ended.send(());
                }
            }
        });
    }
}

/// Start-up's result on the log's thread.
struct Prepared {
    started: Started,
    writer: Writer,
    boot: Input<Ticket>,
    link: Link,
}

async fn prepare(
    mut options: JournalOptions,
    lock: File,
    inbox: mpsc::UnboundedReceiver<Message>,
    wires: Wires,
    link_tx: mpsc::UnboundedSender<LinkRequest>,
) -> Result<Prepared, StartError> {
    let client = auth::connect(&options.url, &options.credentials).await?;
    let verified = stream::verify_streams(&client).await;
    verified.map_err(|error| start::explain_missing(error, &options.data_dir))?;
    if options.replicas_min > 1 {
        stream::verify_replicas(&client, options.replicas_min).await?;
    }
    let snapshots = SnapshotStore::open(&options.data_dir)?;
    let recovered = {
        let warm = options.warm.take();
        start::recover(&options, &client, &snapshots, warm).await?
    };
    let keeper_options = keeper_options(&options, &recovered, &wires, &snapshots, &lock)?;
    let Recovered { state, tail, mark, .. } = recovered;
    let Wires { queue, position, commits, stopped } = wires;
    position.send_replace(Position::of(&state));
    let link = Link::new(LinkOptions {
        client,
        stream: LEDGER_STREAM.to_owned(),
        subject: LEDGER_SUBJECT.to_owned(),
        answers: queue.clone(),
        position: position.subscribe(),
        watch_period: options.watch_period,
    });
    let link = link.await.map_err(|reason| StartError::Link { reason })?;
    let syncer = start_syncer(mark, options.tail_sync, queue.clone())?;
    let (led_tx, led) = oneshot::channel();
    let index = tail.index();
    let writer = Writer {
        pipeline: Pipeline::new(options.pipeline),
        queue: inbox,
        link: link_tx,
        tail,
        syncer,
        sync_mode: options.tail_sync,
        position,
        commits,
        stopped,
        led: Some(led_tx),
        lock,
    };
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|e| StartError::Link { reason: e.to_string() })?;
    let boot = Input::Boot(Box::new(Boot { state, nonce: Hash32(nonce), genesis: options.genesis }));
    let keeper = Keeper::start(keeper_options).map_err(StartError::Thread)?;
    Ok(Prepared { started: Started { tail: index, led, keeper }, writer, boot, link })
}

fn keeper_options(
    options: &JournalOptions,
    recovered: &Recovered,
    wires: &Wires,
    snapshots: &SnapshotStore,
    lock: &File,
) -> Result<KeeperOptions, StartError> {
    let shard = options.pipeline.shard;
    let archive = options.data_dir.join(crate::tail::ARCHIVE_FOLDER);
    let checkpoint = options.checkpoint.clone();
    let when = options.snapshots.clone();
    let courier = match &options.archive_copy {
        Some(location) => {
            let copy = location.open().map_err(crate::tail::TailError::from)?;
            let own = Arc::new(DirectoryStore::new(&archive));
            Some(Courier::start(own, copy).map_err(StartError::Thread)?)
        }
        None => None,
    };
    Ok(KeeperOptions {
        url: options.url.clone(),
        credentials: options.credentials.clone(),
        sealer: Sealer::new(&archive, shard, recovered.tail.index(), checkpoint, options.unsealed_files),
        snapshotter: Snapshotter::new(&options.data_dir, snapshots.clone(), shard, when, recovered.snapshot),
        position: wires.position.subscribe(),
        stopped: wires.stopped.subscribe(),
        queue: wires.queue.clone(),
        swept_from: recovered.swept_from,
        courier,
        lock: lock.try_clone().map_err(StartError::Thread)?,
    })
}

fn start_syncer(
    mark: crate::tail::HighWater,
    mode: TailSyncMode,
    queue: mpsc::UnboundedSender<Message>,
) -> Result<TailSyncer, StartError> {
    let delay = match mode {
        TailSyncMode::Soon => crate::tail::TAIL_SYNC_DELAY,
        TailSyncMode::Always => Duration::ZERO,
    };
    let done = move |synced: Result<Position, crate::tail::TailError>| {
        let input = match (synced, mode) {
            (Err(error), _) => Input::TailLost { reason: error.to_string() },
            (Ok(head), TailSyncMode::Always) => Input::TailWritten { number: head.commit, result: Ok(()) },
            (Ok(_), TailSyncMode::Soon) => return,
        };
        let _ = queue.send(Message::Input(input));
    };
    TailSyncer::start(mark, delay, done).map_err(StartError::Thread)
}
