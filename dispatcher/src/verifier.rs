//! The verifier: a random share of the charges of re-executable models is run again on the coordinator before it can become
//! payable. The chance is drawn after the receipt is signed. A charge whose answer comes out different is reversed, and its
//! operator's nodes get no more jobs. Must not: hold up an answer; judge what other backends made.

use crate::clock::now_us;
use crate::delivery::{command, submit_until_known};
use crate::doors::{Recheck, Rechecked, ReexecutionDoor};
use crate::gateway::{Shared, until_raised};
use crate::router::Report;
use journal::SubmitError;
use ledger::command::ReverseCapture;
use protocol::id::{IdempotencyKey, JobId, NodeId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Charges that may wait to be run again; what comes while so many wait is not looked at, and counted.
pub const WAITING_MAX: usize = 256;
const MILLION: u64 = 1_000_000;

/// What a gateway is given to verify with.
#[derive(Clone)]
pub struct VerifierOptions {
    /// Runs jobs again.
    pub door: Arc<dyn ReexecutionDoor>,
    /// Share of the charges, millionths.
    pub share_ppm: u32,
    /// Whose first job is the network's own.
    pub challenges: Challenges,
}

/// Who is challenged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Challenges {
    /// Every node that this gateway sees for the first time.
    Newcomers,
    /// Nobody.
    Nobody,
}

/// One charge to look at.
pub(crate) struct Charged {
    pub node: NodeId,
    pub recheck: Recheck,
    /// Whether there is a charge to reverse; a challenge has none.
    pub is_charged: bool,
}

/// What came out, for the metrics.
#[derive(Default)]
pub(crate) struct Counts {
    pub same: AtomicU64,
    pub differs: AtomicU64,
    pub unavailable: AtomicU64,
    /// Drawn, and not looked at because too many waited.
    pub skipped: AtomicU64,
}

/// See the module.
pub(crate) struct Verifier {
    door: Arc<dyn ReexecutionDoor>,
    share_ppm: u32,
    pub challenges: Challenges,
    queue: mpsc::Sender<Charged>,
    pub counts: Counts,
}

impl Verifier {
    /// The verifier and the charges that it drew, for [`run`].
    pub fn new(options: VerifierOptions) -> (Verifier, mpsc::Receiver<Charged>) {
        let (queue, charges) = mpsc::channel(WAITING_MAX);
        let VerifierOptions { door, share_ppm, challenges } = options;
        (Verifier { door, share_ppm, challenges, queue, counts: Counts::default() }, charges)
    }

    /// Draws whether a charge is looked at; what it needs is made only then.
    pub fn offer(&self, draw: u64, charged: impl FnOnce() -> Charged) {
        if ((draw >> 32) * MILLION) >> 32 >= u64::from(self.share_ppm) {
            return;
        }
        self.look_at(charged());
    }

    /// Looks at this one.
    pub fn look_at(&self, charged: Charged) {
        if self.queue.try_send(charged).is_err() {
            self.counts.skipped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Runs charges again, one after another, until the coordinator stops.
pub(crate) async fn run(shared: Arc<Shared>, mut charges: mpsc::Receiver<Charged>) {
    let Some(verifier) = &shared.verifier else { return };
    let mut stopping = shared.stopping.subscribe();
    loop {
        let charged = tokio::select! {
            () = until_raised(&mut stopping) => return,
            charged = charges.recv() => charged,
        };
        let Some(Charged { node, recheck, is_charged }) = charged else { return };
        let job = recheck.job;
        let counts = &verifier.counts;
        match verifier.door.reexecute(recheck).await {
            Ok(Rechecked::Same) => {
                counts.same.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(target: "verifier", %job, %node, "the same again");
            }
            Ok(Rechecked::Differs { token }) => {
                counts.differs.fetch_add(1, Ordering::Relaxed);
                tracing::error!(target: "verifier", %job, %node, ?token, is_charged, "another answer");
                shared.table().report(&node, Report::Refuted, now_us());
                if is_charged {
                    reverse(&shared, job).await;
                }
            }
            Err(error) => {
                counts.unavailable.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(target: "verifier", %job, %error, "not run again");
            }
        }
    }
}

async fn reverse(shared: &Shared, job: JobId) {
    let key = IdempotencyKey::internal("reverse", &[&job.0]);
    match submit_until_known(shared, command(key, ReverseCapture { job })).await {
        Ok(_) => {}
        Err(SubmitError::Refused { refusal, .. }) => {
            tracing::error!(target: "verifier", %job, refusal = refusal.name(), "the charge cannot be reversed any more: grant the customer the amount");
        }
        Err(error) => tracing::error!(target: "verifier", %job, %error, "the charge is not reversed"),
    }
}
