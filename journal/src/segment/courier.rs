//! Brings sealed segments to another place: all that are missing there, each checked against its name before it counts. A
//! thread of its own does it beside a running journal. Must not: seal, delete, or hold anybody up.

use super::{Segment, SegmentError, SegmentStore};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

/// After a failure the next try comes by itself.
const RETRY_PERIOD: Duration = Duration::from_secs(10);

/// What [`copy_missing`] did.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Copied {
    /// Segments that were copied.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Copies every segment that the target lacks, oldest first; each is read whole and verified before it is stored. Asks
/// between two segments whether to go on. Stops at the first damaged one, and names it.
pub fn copy_missing(
    from: &Arc<dyn SegmentStore>,
    to: &Arc<dyn SegmentStore>,
    go_on: &dyn Fn() -> bool,
) -> Result<Copied, SegmentError> {
    let there = to.list()?;
    let mut copied = Copied::default();
    for name in from.list()?.into_iter().filter(|name| there.binary_search(name).is_err()) {
        if !go_on() {
            break;
        }
        let size = usize::try_from(from.size(&name)?).unwrap_or(usize::MAX);
        let bytes = from.read(&name, 0, size)?;
        Segment::open(from.clone(), name)?.verify_bytes(&bytes)?;
        to.put(&name, &bytes)?;
        copied.segments += 1;
        copied.bytes += bytes.len() as u64;
    }
    Ok(copied)
}

/// The thread. It ends soon after this is dropped: with the segment that it has in hand.
pub(crate) struct Courier {
    wake: SyncSender<()>,
}

impl Courier {
    /// Starts it; it begins by looking what is missing.
    pub(crate) fn start(from: Arc<dyn SegmentStore>, to: Arc<dyn SegmentStore>) -> std::io::Result<Courier> {
        // One wish is as good as many.
        let (wake, woken) = sync_channel(1);
        std::thread::Builder::new().name("archive-copy".into()).spawn(move || run(&from, &to, &woken))?;
        Ok(Courier { wake })
    }

    /// A segment was sealed.
    pub(crate) fn wake(&self) {
        let _ = self.wake.try_send(());
    }
}

fn run(from: &Arc<dyn SegmentStore>, to: &Arc<dyn SegmentStore>, woken: &Receiver<()>) {
    // A wish that comes during a copy is for the next one.
    let again = std::cell::Cell::new(false);
    let go_on = || match woken.try_recv() {
        Ok(()) => {
            again.set(true);
            true
        }
        Err(reason) => reason == TryRecvError::Empty,
    };
    loop {
        let waited = match copy_missing(from, to, &go_on) {
            Ok(_) if again.take() => Ok(()),
            Ok(copied) => {
                if copied.segments > 0 {
                    let Copied { segments, bytes } = copied;
                    tracing::info!(target: "journal", segments, bytes, "the archive's copy is complete again");
                }
                woken.recv().map_err(|_| RecvTimeoutError::Disconnected)
            }
            Err(error) => {
                tracing::warn!(target: "journal", "the archive's copy is behind: {error}");
                woken.recv_timeout(RETRY_PERIOD)
            }
        };
        if waited == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}
