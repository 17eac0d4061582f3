//! The thread that syncs the tail: within 10 ms of a write, or at once when a reply waits for it; then the high-water mark.
//! Must not: write records.

use super::{HighWater, TailError};
use crate::pipeline::Position;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How long writes gather before they are synced, when no reply waits; with the sync itself well under 10 ms.
pub const TAIL_SYNC_DELAY: Duration = Duration::from_millis(5);
/// The mark is a second sync, after a sync of the tail, and at most this often.
const MARK_PERIOD: Duration = Duration::from_millis(100);

/// What is to be synced.
#[derive(Clone)]
pub struct TailSync {
    pub(super) file: Arc<File>,
    pub(super) path: PathBuf,
    pub(super) head: Position,
}

impl TailSync {
    /// Syncs now.
    pub fn sync(&self) -> Result<(), TailError> {
        self.file.sync_data().map_err(TailError::io(&self.path, "sync"))
    }
}

/// The sync thread. Closing it (drop) syncs what is left and writes the mark.
pub struct TailSyncer {
    queue: Option<Sender<TailSync>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl TailSyncer {
    /// Starts the thread. `delay` of zero syncs at once; `done` hears of every sync and of a failed one.
    pub fn start(
        mark: HighWater,
        delay: Duration,
        done: impl FnMut(Result<Position, TailError>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (queue, rx) = channel();
        let thread = std::thread::Builder::new()
            .name("tail-sync".into())
            .spawn(move || run(rx, Marker { mark, written: None }, delay, done))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Asks for a sync. Bounded by the pipeline: it has at most `SETTLING_COMMITS_MAX` commits waiting.
    pub fn ask(&self, pending: TailSync) {
        if let Some(queue) = &self.queue {
            // The thread ends only after a failed sync, which it has reported.
            let _ = queue.send(pending);
        }
    }
}

impl Drop for TailSyncer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Marker {
    mark: HighWater,
    written: Option<Instant>,
}

impl Marker {
    fn note(&mut self, head: Position) -> Result<(), TailError> {
        if self.written.is_some_and(|at| at.elapsed() < MARK_PERIOD) {
            return Ok(());
        }
        self.mark.write(head)?;
        self.written = Some(Instant::now());
        Ok(())
    }
}

fn run(
    rx: Receiver<TailSync>,
    mut marker: Marker,
    delay: Duration,
    mut done: impl FnMut(Result<Position, TailError>),
) {
    let mut last = Position::default();
    while let Ok(first) = rx.recv() {
        let pending = gather(&rx, first, delay);
        let synced = pending.sync();
        // The reply comes first; the mark may wait.
        let failed = synced.is_err();
        done(synced.map(|()| pending.head));
        if failed {
            return;
        }
        last = pending.head;
        if let Err(e) = marker.note(last) {
            return done(Err(e));
        }
    }
    if let Err(e) = marker.mark.write(last) {
        done(Err(e));
    }
}

/// The newest of what comes within `delay`; an older file was synced when it was closed.
fn gather(rx: &Receiver<TailSync>, first: TailSync, delay: Duration) -> TailSync {
    let until = Instant::now() + delay;
    let mut newest = first;
    loop {
        match rx.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(pending) => newest = pending,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return newest,
        }
    }
}
