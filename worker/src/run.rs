//! Drives one attempt from its acceptance to its receipt: frames out, cancel and deadline obeyed, one end.
//! Must not: judge offers.

use crate::backend::{Canceller, Running, Step};
use crate::frame::FrameBatcher;
use crate::metrics::add;
use crate::node::Node;
use crate::receipt::{Attempt, Outcome, now_us, signed_bytes};
use crate::stop::StopScan;
use protocol::id::Hash32;
use protocol::job_message::{Frame, JobBody, JobOffer, ResultMessage, result_subject};
use protocol::receipt::Finish;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

/// How long a backend may take to stop after it was told to.
const STOP_MS_MAX: u64 = 10_000;
/// Longest deadline a node keeps, so that a wrong clock cannot occupy a slot for ever: a day.
const DEADLINE_MS_MAX: u64 = 24 * 3_600 * 1_000;

/// A job that was taken.
pub(crate) struct Job {
    pub(crate) node: Arc<Node>,
    pub(crate) offer: JobOffer,
    pub(crate) body: JobBody,
    pub(crate) running: Running,
    /// `true` = the gateway wants no more.
    pub(crate) cancelled: watch::Receiver<bool>,
    /// Freed before the gateway hears of the end: it may send the next job at once.
    pub(crate) slot: OwnedSemaphorePermit,
}

/// How an attempt ended.
enum End {
    /// With a receipt.
    Receipt { finish: Finish, chain: Hash32 },
    /// Without; the words are for people and hold nothing of the contents.
    Failed(String),
}

/// What wakes the driver.
enum Wake {
    Cancelled,
    Deadline,
    FrameDue,
    Step(Option<Step>),
}

/// The moving parts of a running attempt.
struct Progress {
    batcher: FrameBatcher,
    stop: StopScan,
    output_ids: Vec<u32>,
    chain: Hash32,
    canceller: Canceller,
    deadline: Instant,
    /// Somebody told the backend to stop; what still comes is the tail of the prefix.
    stopping: bool,
}

/// Runs the job to its end.
pub(crate) async fn run(job: Job) {
    let Job { node, offer, body, running, mut cancelled, slot } = job;
    let subject = result_subject(&node.operator(), &node.id, &offer.gateway, &offer.job, offer.attempt);
    let started_us = now_us();
    node.publish(&subject, &ResultMessage::Accept { attempt: offer.attempt }).await;
    let Running { mut steps, canceller } = running;
    let mut progress = Progress::new(&offer, &body, canceller, started_us);
    add(&node.counters.input_tokens, body.prompt_ids.len() as u64);
    let (begun, mut first) = (Instant::now(), true);
    let end = loop {
        let wake = progress.next(&mut steps, &mut cancelled).await;
        let (frame, end) = progress.take(wake);
        if first && !progress.output_ids.is_empty() {
            first = false;
            node.counters.note_first_token(begun.elapsed());
        }
        if let Some(frame) = frame {
            node.publish(&subject, &ResultMessage::Frame(frame)).await;
        }
        if let Some(end) = end {
            break end;
        }
    };
    let seq = progress.batcher.frame_count();
    progress.canceller.cancel();
    count(&node, &end, &progress);
    match end {
        End::Failed(detail) => {
            tracing::warn!(target: "worker", job = %offer.job, attempt = offer.attempt, detail, "job failed");
            node.publish(&subject, &ResultMessage::Failed { seq, detail }).await;
            // The slot stays taken until a backend that failed has really stopped.
            while steps.recv().await.is_some() {}
            drop(slot);
        }
        End::Receipt { finish, chain } => {
            let output_ids = std::mem::take(&mut progress.output_ids);
            let outcome = Outcome { output_ids, chain_head: chain, finish, started_us, ended_us: now_us() };
            let receipt = sign_and_store(&node, &offer, &body, &outcome).await;
            // What the backend still does after a stop text is over within a step; its own queue bridges that.
            drop(slot);
            node.publish(&subject, &ResultMessage::Done { seq, receipt }).await;
        }
    }
}

fn count(node: &Node, end: &End, progress: &Progress) {
    let counters = &node.counters;
    add(&counters.output_tokens, progress.output_ids.len() as u64);
    match end {
        End::Failed(_) => add(&counters.failed, 1),
        End::Receipt { finish: Finish::Cancelled, .. } => add(&counters.cancelled, 1),
        End::Receipt { .. } => add(&counters.finished, 1),
    }
}

/// The receipt for the `Done` message, base64. It is on disk before this returns.
async fn sign_and_store(node: &Node, offer: &JobOffer, body: &JobBody, outcome: &Outcome) -> String {
    let backend = node.identity(&offer.model);
    let bytes = signed_bytes(&Attempt { node: node.id, offer, body, backend }, outcome, node.key());
    let text = data_encoding::BASE64.encode(&bytes);
    tracing::info!(target: "worker", job = %offer.job, attempt = offer.attempt, finish = ?outcome.finish,
        input_token_count = body.prompt_ids.len(), output_token_count = outcome.output_ids.len(), "job done");
    if let Err(error) = node.outbox.put(offer.job, offer.attempt, bytes).await {
        // The gateway still gets it in `Done`; only the second way is lost.
        tracing::error!(target: "worker", job = %offer.job, %error, "receipt could not be stored");
    }
    text
}

impl Progress {
    fn new(offer: &JobOffer, body: &JobBody, canceller: Canceller, now_us: u64) -> Progress {
        let left_ms = (offer.deadline_us.saturating_sub(now_us) / 1_000).min(DEADLINE_MS_MAX);
        Progress {
            batcher: FrameBatcher::new(),
            stop: StopScan::new(&body.stop),
            output_ids: Vec::new(),
            chain: Hash32([0; 32]),
            canceller,
            deadline: Instant::now() + Duration::from_millis(left_ms),
            stopping: false,
        }
    }

    async fn next(&self, steps: &mut mpsc::Receiver<Step>, cancelled: &mut watch::Receiver<bool>) -> Wake {
        let due = self.batcher.due();
        let cancel = async {
            if self.stopping || cancelled.wait_for(|cancelled| *cancelled).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = cancel => Wake::Cancelled,
            () = tokio::time::sleep_until(self.deadline.into()) => Wake::Deadline,
            () = tokio::time::sleep_until(due.unwrap_or(self.deadline).into()), if due.is_some() => Wake::FrameDue,
            step = steps.recv() => Wake::Step(step),
        }
    }

    /// Digests one wake: a frame that must leave now, and the end if this was it.
    fn take(&mut self, wake: Wake) -> (Option<Frame>, Option<End>) {
        match wake {
            Wake::FrameDue => (self.batcher.flush(), None),
            Wake::Cancelled => {
                self.tell_to_stop();
                (self.batcher.flush(), None)
            }
            Wake::Deadline if self.stopping => {
                (self.batcher.flush(), Some(End::Failed("the backend did not stop when told to".into())))
            }
            Wake::Deadline => {
                self.tell_to_stop();
                (self.batcher.flush(), None)
            }
            Wake::Step(Some(Step::Token { id, text, chain, logprobs })) => {
                self.batcher.push_logprobs(logprobs);
                self.take_token(id, &text, chain)
            }
            Wake::Step(Some(Step::End { finish, text, chain })) => self.take_end(finish, &text, chain),
            Wake::Step(Some(Step::Failed(detail))) => (self.batcher.flush(), Some(End::Failed(detail))),
            Wake::Step(None) => {
                (self.batcher.flush(), Some(End::Failed("the backend ended without saying how".into())))
            }
        }
    }

    fn take_token(&mut self, id: u32, text: &str, chain: Hash32) -> (Option<Frame>, Option<End>) {
        self.output_ids.push(id);
        self.chain = chain;
        let scanned = self.stop.push(text);
        let frame = self.batcher.push(id, &scanned.text, chain, Instant::now());
        if !scanned.stopped {
            return (frame, None);
        }
        // The output ends with the token that completed the stop text, whatever the backend has made since.
        let frame = frame.or_else(|| self.batcher.flush());
        (frame, Some(End::Receipt { finish: Finish::Stop, chain }))
    }

    fn take_end(&mut self, finish: Finish, text: &str, chain: Hash32) -> (Option<Frame>, Option<End>) {
        let last = self.stop.push(text);
        self.batcher.push_text(&last.text);
        if !last.stopped {
            let held = self.stop.finish();
            self.batcher.push_text(&held);
        }
        debug_assert!(
            self.output_ids.is_empty() || self.chain == chain,
            "the chain's head is the last token's"
        );
        (self.batcher.flush(), Some(End::Receipt { finish, chain }))
    }

    fn tell_to_stop(&mut self) {
        self.canceller.cancel();
        self.stopping = true;
        self.deadline = Instant::now() + Duration::from_millis(STOP_MS_MAX);
    }
}

#[cfg(test)]
mod tests;
