//! The archive's keeper: one thread of the idle class beside the writer. It makes snapshots, seals complete tail files, reads
//! everything that is closed, and heals what is rotten from the stream. Must not: hold up the writer, or write to the stream.

use crate::auth::{self, Credentials};
use crate::pipeline::{Input, Position, ReadBack, StopReason};
use crate::reader::{RawCheck, ReadError, Reader, ReaderOptions, Until};
use crate::segment::{Courier, Sealer, SegmentBuilder, SegmentError, Wound};
use crate::snapshotter::Snapshotter;
use crate::stream::LEDGER_STREAM;
use crate::tail::{CommitHead, TailError};
use crate::writer::Message;
use futures::StreamExt;
use std::fs::File;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

/// How often the keeper looks whether there is something to do; the writer is never woken, nor wakes it.
const LOOK_PERIOD: Duration = Duration::from_millis(250);
/// How often everything that is closed is read again.
pub const SCRUB_PERIOD: Duration = Duration::from_secs(24 * 3600);
/// Compressed bytes of one segment that is taken from the stream; a longer range becomes several.
const HEALED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What the keeper needs.
pub(crate) struct KeeperOptions {
    pub(crate) url: String,
    pub(crate) credentials: Credentials,
    pub(crate) sealer: Sealer,
    pub(crate) snapshotter: Snapshotter,
    pub(crate) position: watch::Receiver<Position>,
    pub(crate) stopped: watch::Receiver<Option<StopReason>>,
    /// To the writer: what the watchdog would say.
    pub(crate) queue: UnboundedSender<Message>,
    /// Commits before this one were not read back at the start.
    pub(crate) swept_from: u64,
    /// Brings what is sealed elsewhere.
    pub(crate) courier: Option<Courier>,
    /// The data folder's lock, a copy: it is free when both are gone.
    pub(crate) lock: File,
}

/// The running thread. It ends with the writer.
pub(crate) struct Keeper {
    thread: std::thread::JoinHandle<()>,
}

/// Why a look did not end well.
#[derive(Debug, thiserror::Error)]
enum KeeperError {
    #[error(transparent)]
    Tail(#[from] TailError),
    #[error(transparent)]
    Segment(#[from] SegmentError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Auth(#[from] crate::auth::AuthError),
    #[error(
        "the archive's commits {first} to {last} are rotten, and the stream's do not fit the archive's commit {at}: `counterfoil restore` names what both hold"
    )]
    NoFit { first: u64, last: u64, at: u64 },
}

impl Keeper {
    /// Starts the thread.
    pub(crate) fn start(options: KeeperOptions) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("ledger-keeper".into()).spawn(move || {
            crate::background::step_back();
            runtime.block_on(Running { options, reader: None, scrubbed: None }.run());
        })?;
        Ok(Self { thread })
    }

    /// Waits until it ended: soon after the writer did, with the last snapshot written.
    pub(crate) async fn ended(self) {
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!(target: "journal", "the keeper's thread died; its panic stands in the log output");
        }
    }
}

struct Running {
    options: KeeperOptions,
    reader: Option<Reader>,
    scrubbed: Option<Instant>,
}

impl Running {
    async fn run(mut self) {
        if let Err(error) = self.options.sealer.tidy() {
            tracing::warn!(target: "journal", "{error}");
        }
        let mut look = tokio::time::interval(LOOK_PERIOD);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stopped = self.options.stopped.clone();
        loop {
            tokio::select! {
                ended = stopped.wait_for(Option::is_some) => {
                    let reason = ended.ok().and_then(|reason| reason.clone());
                    return self.end(reason.as_ref());
                }
                _ = look.tick() => {}
            }
            tokio::select! {
                _ = stopped.wait_for(Option::is_some) => {}
                () = self.look() => {}
            }
        }
    }

    fn end(mut self, reason: Option<&StopReason>) {
        if reason == Some(&StopReason::Closed) {
            let position = *self.options.position.borrow();
            if let Err(error) = self.options.snapshotter.make_last(position) {
                tracing::warn!(target: "journal", "no snapshot at the end: {error}");
            }
        }
        drop(self.options.lock);
    }

    async fn look(&mut self) {
        let position = *self.options.position.borrow();
        if self.options.snapshotter.due(position)
            && let Err(error) = self.options.snapshotter.make(position)
        {
            tracing::warn!(target: "journal", "no snapshot: {error}");
        }
        let rotten = self.seal();
        if rotten || self.scrubbed.is_none_or(|at| at.elapsed() >= SCRUB_PERIOD) {
            let first_time = self.scrubbed.replace(Instant::now()).is_none();
            if let Err(error) = self.scrub(first_time).await {
                tracing::error!(target: "journal", "{error}");
            }
        }
    }

    /// Seals what is complete; true when a file was found rotten.
    fn seal(&self) -> bool {
        loop {
            match self.options.sealer.seal_next() {
                Ok(Some(_)) => {
                    self.options.courier.iter().for_each(Courier::wake);
                    if self.options.stopped.borrow().is_some() {
                        return false;
                    }
                }
                Ok(None) => return false,
                Err(error) => {
                    tracing::warn!(target: "journal", "{error}");
                    return true;
                }
            }
        }
    }

    /// Reads everything that is closed, heals, and reads the stream's older part.
    async fn scrub(&mut self, first_time: bool) -> Result<(), KeeperError> {
        for wound in self.options.sealer.inspect(&|| self.options.stopped.borrow().is_some())? {
            let (first, last) = (wound.first, wound.last);
            tracing::warn!(target: "journal", first, last, file = ?wound.file, reason = %wound.reason, "the archive is damaged; taking these commits from the stream");
            self.heal(&wound).await?;
            tracing::warn!(target: "journal", first, last, "the archive is whole again here");
        }
        let until =
            if first_time { self.options.swept_from } else { self.options.position.borrow().commit + 1 };
        self.sweep(until).await
    }

    /// Takes a range of commits from the stream; they must fit what stands around them.
    async fn heal(&mut self, wound: &Wound) -> Result<(), KeeperError> {
        let reader = self.reader().await?;
        let sealer = &self.options.sealer;
        let before = sealer.index().position_of(wound.first - 1)?;
        if let Some(file) = &wound.file {
            sealer.keep_aside(file)?;
        }
        let mut stored = Vec::new();
        let mut commits = reader.from_commit(wound.first, Until::Commit(wound.last));
        let (mut builder, mut last) = (SegmentBuilder::new(sealer.shard()), before);
        while let Some(commit) = commits.next().await {
            let commit = commit?;
            if commit.number == before.commit + 1 && commit.commit.previous != before.hash {
                return Err(wound.no_fit(before.commit));
            }
            builder.push(&commit.bytes)?;
            last = commit.position();
            if builder.bytes_len() >= HEALED_BYTES_MAX {
                let full = std::mem::replace(&mut builder, SegmentBuilder::new(sealer.shard()));
                stored.push(sealer.store(full)?);
            }
        }
        if let Some(next) = sealer.index().read(wound.last + 1)?
            && CommitHead::peek(&next).is_ok_and(|head| head.previous != last.hash)
        {
            return Err(wound.no_fit(wound.last + 1));
        }
        if builder.last().is_some() {
            stored.push(sealer.store(builder)?);
        }
        if let Some(file) = &wound.file {
            sealer.remove_rotten(file, &stored)?;
        }
        Ok(())
    }

    /// Reads the stream up to before `until`; what is not as it was acknowledged stops the writer.
    async fn sweep(&mut self, until: u64) -> Result<(), KeeperError> {
        if until <= 1 {
            return Ok(());
        }
        let reader = self.reader().await?;
        let check = RawCheck::after(self.options.sealer.shard(), Position::default());
        let (at, result) = match reader.sweep(check, 1, until - 1, |_, _| {}).await {
            Ok(Some(end)) => {
                let ours = self.options.sealer.index().position_of(end.commit)?;
                if ours.commit == 0 || ours.hash == end.hash {
                    return Ok(());
                }
                let bytes = reader.read_one(end.commit).await?.unwrap_or_default();
                (end.commit, ReadBack::Found(bytes))
            }
            Ok(None) => return Ok(()),
            Err(ReadError::Gap { expected, .. }) => {
                (expected, ReadBack::Absent { last_sequence: expected - 1 })
            }
            Err(ReadError::Broken { at, .. }) => {
                (at, ReadBack::Found(reader.read_one(at).await?.unwrap_or_default()))
            }
            Err(other) => return Err(other.into()),
        };
        let position = self.options.sealer.index().position_of(at)?;
        tracing::error!(target: "journal", commit = at, "the stream does not hold what was acknowledged");
        // A writer that is gone needs no telling.
        let _ = self.options.queue.send(Message::Input(Input::Watched { position, result }));
        Ok(())
    }

    async fn reader(&mut self) -> Result<Reader, KeeperError> {
        if let Some(reader) = &self.reader {
            return Ok(reader.clone());
        }
        let client = auth::connect(&self.options.url, &self.options.credentials).await?;
        let reader = Reader::new(ReaderOptions {
            client,
            stream: LEDGER_STREAM.to_owned(),
            shard: self.options.sealer.shard(),
            position: None,
        });
        self.reader = Some(reader.clone());
        Ok(reader)
    }
}

impl Wound {
    fn no_fit(&self, at: u64) -> KeeperError {
        KeeperError::NoFit { first: self.first, last: self.last, at }
    }
}
