//! One admitted job from its first offer to its end: attempts at nodes, the answer's relay, the charge or the release.
//! A node that fails is replaced by another: before any text reached the client in any case, afterwards when the answer can be
//! made again bit for bit. Else it breaks off with an error and nothing is charged.

use crate::access::contents::Contents;
use crate::access::settling::Progress;
use crate::api::error::ApiError;
use crate::clock::now_us;
use crate::delivery::{self, judge::Dispatched};
use crate::failover::Sent;
use crate::gateway::{RunningGuard, Shared};
use crate::relay::attempt::{Answered, Attempt, Cut, End, Fault, Pace, ToClient};
use crate::relay::outgoing::{self, Address, OfferTerms};
use crate::relay::transcript::{Mark, Transcript};
use crate::router::{Chosen, Lane, Pick, Report};
use ledger::command::{Command, Redispatch};
use protocol::event::Actor;
use protocol::event::hold::VoidReason;
use protocol::id::{AccountId, IdempotencyKey, JobId, NodeId};
use protocol::job_message::{JobBody, NakReason};
use protocol::rate::{ModelRate, ProofClass};
use protocol::receipt::Receipt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Most nodes that one job is offered to.
pub const ATTEMPTS_MAX: u32 = 4;

/// How long a job that lost its node waits for a slot of another.
const ANOTHER_MS_MAX: u64 = 5_000;

/// How the client takes the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// Piece by piece: every piece is delivered when it is out.
    Stream,
    /// In one object at the end: nothing is delivered before.
    Whole,
}

/// A job whose hold and first dispatch are committed.
pub(crate) struct Job {
    pub id: JobId,
    pub account: AccountId,
    /// The rate it is priced by, with the weights it must be run on.
    pub rate: ModelRate,
    /// With the sampling key of its commit.
    pub body: JobBody,
    /// Where the first attempt goes.
    pub chosen: Chosen,
    pub deadline_us: u64,
    pub delivery: Delivery,
}

/// What is known across the attempts of one job.
struct Run<'a> {
    shared: &'a Shared,
    job: &'a Job,
    client: &'a mpsc::Sender<ToClient>,
    tried: Vec<NodeId>,
    /// Of those, the ones that said the request was beyond them.
    unsupported: Vec<Chosen>,
    begun: bool,
    sent: Sent,
    /// Output tokens that the client had when the present attempt began: what comes after them is that attempt's to be paid.
    cut: u64,
    contents_stored: bool,
}

/// How one attempt came out.
enum Tried {
    /// With an answer whose receipt stands.
    Answered { answered: Answered, receipt: Box<Receipt>, transcript: Box<Transcript> },
    /// Cut, without a receipt.
    NoReceipt(Cut),
    /// By a fault.
    Fault(Fault),
}

/// Runs the job; tells the client's side how it ended.
pub(crate) async fn run(
    shared: Arc<Shared>,
    job: Job,
    running: RunningGuard,
    client: mpsc::Sender<ToClient>,
) {
    let mut run = Run {
        shared: &shared,
        job: &job,
        client: &client,
        tried: Vec::new(),
        unsupported: Vec::new(),
        begun: false,
        sent: Sent::default(),
        cut: 0,
        contents_stored: false,
    };
    let last = run.until_over().await;
    let used =
        if let ToClient::Finished(finished) = &last { finished.output_units } else { run.sent.count() };
    shared.lines.settle(&job.rate.model, job.account, u64::from(job.body.max_tokens), used);
    drop(running);
    // A client that left does not hear it.
    let _ = client.send(last).await;
}

impl Run<'_> {
    async fn until_over(&mut self) -> ToClient {
        let mut chosen = self.job.chosen.clone();
        for number in 0.. {
            self.tried.push(chosen.node);
            let tried = self.attempt(number, &chosen).await;
            self.shared.release(&chosen);
            let fault = match tried {
                Tried::Answered { answered, receipt, transcript } => {
                    self.report(&chosen, self.standing_after(&answered));
                    // Another could, so it was not the request.
                    for liar in std::mem::take(&mut self.unsupported) {
                        self.report(&liar, Report::BadFor(self.job.account));
                    }
                    return self.settle(answered, &receipt, &transcript).await;
                }
                Tried::NoReceipt(cut) => {
                    self.report(&chosen, Report::Bad);
                    return self.give_up(VoidReason::OperatorFault, no_receipt(cut)).await;
                }
                Tried::Fault(fault) => fault,
            };
            match fault {
                Fault::Nak(NakReason::Unsupported) => self.unsupported.push(chosen.clone()),
                _ => self.report(&chosen, fault.report(self.job.account)),
            }
            tracing::warn!(target: "job", job = %self.job.id, attempt = number, node = %chosen.node,
                fault = fault.code(), detail = ?fault, "attempt failed");
            match self.next_node(number, &fault).await {
                Some(next) => chosen = next,
                None => {
                    for agreed in std::mem::take(&mut self.unsupported) {
                        self.report(&agreed, Report::Neutral);
                    }
                    return self.give_up(self.void_reason(&fault), self.failure(&fault)).await;
                }
            }
        }
        unreachable!("attempts are counted and end")
    }

    async fn attempt(&mut self, number: u32, chosen: &Chosen) -> Tried {
        let (shared, job) = (self.shared, self.job);
        let address = Address { operator: chosen.operator, node: chosen.node, job: job.id, attempt: number };
        let inbox = shared.hub.open(job.id, number, chosen.node, chosen.operator);
        let terms = OfferTerms {
            gateway: &shared.name,
            model: &job.rate.model,
            weights: job.rate.weights,
            deadline_us: job.deadline_us,
            sealing_key: chosen.sealing_key,
        };
        if let Err(error) = outgoing::offer(&shared.nats, &address, terms, &job.body).await {
            return Tried::Fault(Fault::Broken(error.to_string()));
        }
        let node = chosen.node;
        let dispatched = self.dispatched(number, chosen);
        let life = shared.table().life(&node);
        let is_alive = move || {
            let table = shared.table();
            table.is_alive(&node, now_us()) && table.life(&node) == life
        };
        let note_progress = |mark: Mark| self.job.note_progress(shared, number, mark);
        let judge = |ended: crate::relay::attempt::Ended<'_>| {
            delivery::verify(ended, &dispatched, &job.body.salt).map(drop)
        };
        let mut attempt = Attempt {
            address,
            inbox,
            gateway: &shared.name,
            nats: &shared.nats,
            connects: shared.nats.statistics().connects.load(Ordering::Relaxed),
            client: self.client,
            stopping: shared.stopping.subscribe(),
            deadline: job.deadline(),
            is_alive: &is_alive,
            note_progress: &note_progress,
            sent: &mut self.sent,
            judge: &judge,
        };
        let (accepted, stored) =
            tokio::join!(attempt.accepted(), store_contents(shared, job, self.contents_stored));
        self.contents_stored |= stored;
        if let Err(fault) = accepted {
            outgoing::cancel(&shared.nats, &attempt.address).await;
            return Tried::Fault(fault);
        }
        if !self.begun {
            self.begun = true;
            let _ = self.client.send(ToClient::Begun).await;
        }
        let stops = job.body.stop.clone();
        let detokeniser = shared.detokeniser(&job.rate.model);
        let mut transcript = Transcript::new(detokeniser, stops, u64::from(job.body.max_tokens));
        let mut pace = Pace::default();
        let end = attempt.relay(&mut transcript, &mut pace).await;
        if let Some((tokens, took_us)) = pace.tokens_and_us() {
            shared.table().note_pace(&node, tokens, took_us, now_us());
        }
        self.tried_by(end, transcript, &dispatched)
    }

    fn tried_by(&mut self, end: End, transcript: Transcript, dispatched: &Dispatched) -> Tried {
        let fault = match end {
            End::Fault(fault) => fault,
            End::NoReceipt(cut) => return Tried::NoReceipt(cut),
            End::Answered(answered) => match delivery::judge::open(&answered.receipt, dispatched) {
                Ok(receipt) => {
                    let (receipt, transcript) = (Box::new(receipt), Box::new(transcript));
                    return Tried::Answered { answered, receipt, transcript };
                }
                Err(fault) => Fault::ReceiptInvalid(fault.to_string()),
            },
        };
        self.sent.broke_off(&transcript);
        Tried::Fault(fault)
    }

    /// Whether another node may go on. What a client of a stream has can be gone on with only when the answer is the same on
    /// every node; a client that waits for one whole object has nothing yet.
    fn may_go_on(&self, fault: &Fault) -> bool {
        let repeatable = self.job.rate.proof_class == ProofClass::ReExecutable;
        let fresh = self.job.delivery == Delivery::Whole || !self.sent.any_text();
        (fresh || repeatable) && !matches!(fault, Fault::Late | Fault::Seam(_))
    }

    fn dispatched(&self, number: u32, chosen: &Chosen) -> Dispatched {
        let Job { id, rate, body, .. } = self.job;
        Dispatched {
            job: *id,
            attempt: number,
            node: chosen.node,
            operator: chosen.operator,
            body: body.commitment(),
            weights: rate.weights,
            proof_class: rate.proof_class,
            input_units: body.prompt_ids.len() as u64,
            output_units_max: u64::from(body.max_tokens),
        }
    }

    /// Another node, committed as the next attempt; `None` when the job ends here.
    async fn next_node(&mut self, number: u32, fault: &Fault) -> Option<Chosen> {
        let over = self.client.is_closed() || self.shared.is_stopping();
        if !self.may_go_on(fault) || over || number + 1 >= ATTEMPTS_MAX {
            return None;
        }
        // Who has nothing may get another answer; only what is with the client binds the next node.
        if self.job.delivery == Delivery::Whole || !self.sent.any_text() {
            if self.sent.any_text() {
                let _ = self.client.send(ToClient::Again).await;
            }
            self.sent.forget();
        }
        let chosen = self.another().await?;
        let attempt = number + 1;
        let cut = self.sent.count();
        let body = Redispatch {
            job: self.job.id,
            attempt,
            node: chosen.node,
            body: self.job.body.commitment(),
            continues_at: cut,
        };
        let key = IdempotencyKey::internal("redispatch", &[&self.job.id.0, &attempt.to_le_bytes()]);
        let command = Command::new(key, Actor::Gateway, body);
        if let Err(error) = delivery::submit_until_known(self.shared, command).await {
            tracing::warn!(target: "job", job = %self.job.id, %error, "not given to another node");
            self.shared.release(&chosen);
            self.report(&chosen, Report::Neutral);
            return None;
        }
        self.cut = cut;
        Some(chosen)
    }

    /// A node that was not tried yet; waits a moment for a slot when all are taken.
    async fn another(&self) -> Option<Chosen> {
        let until = Instant::now() + Duration::from_millis(ANOTHER_MS_MAX);
        loop {
            let freed = self.shared.slot_freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let pick = Pick {
                model: &self.job.rate.model,
                tried: &self.tried,
                lane: Lane::of(&self.shared.lane),
                prefix: None,
                draw: self.shared.draw(),
            };
            let reason = match self.shared.table().choose(pick, now_us()) {
                Ok(chosen) => return Some(chosen),
                Err(reason) => reason,
            };
            let left = self.client.is_closed() || self.shared.is_stopping();
            if left || !reason.passes_by_itself() || tokio::time::timeout_at(until, freed).await.is_err() {
                return None;
            }
        }
    }

    async fn settle(&self, answered: Answered, receipt: &Receipt, transcript: &Transcript) -> ToClient {
        let cut = answered.cut;
        match delivery::settle(self.shared, self.job, answered, receipt, transcript, self.cut).await {
            Ok(_) if cut == Some(Cut::Shutdown) => ToClient::Failed(Box::new(stopping())),
            Ok(finished) => ToClient::Finished(Box::new(finished)),
            Err(error) => {
                tracing::error!(target: "job", job = %self.job.id, %error, "answer not charged yet");
                ToClient::Failed(Box::new(ApiError::unavailable(
                    "ledger_unavailable",
                    "The answer is complete, but the ledger cannot book it now; it will be charged once it can.",
                    5,
                )))
            }
        }
    }

    async fn give_up(&self, reason: VoidReason, error: ApiError) -> ToClient {
        if let Err(error) = delivery::void(self.shared, self.job.id, reason).await {
            tracing::error!(target: "job", job = %self.job.id, %error, "hold not released; it will expire");
        }
        ToClient::Failed(Box::new(error))
    }

    fn void_reason(&self, fault: &Fault) -> VoidReason {
        match fault {
            Fault::ReceiptInvalid(_) => VoidReason::ReceiptInvalid,
            Fault::Nak(_) | Fault::NoResponders | Fault::NotAnswered if !self.begun => {
                VoidReason::NotAccepted
            }
            _ => VoidReason::OperatorFault,
        }
    }

    fn failure(&self, fault: &Fault) -> ApiError {
        let job = serde_json::json!(self.job.id);
        let error = match fault {
            Fault::Late => {
                ApiError::node_failed("The answer was not ready by its deadline; nothing is charged.")
            }
            _ if !self.begun => ApiError::unavailable(
                "no_node_accepted",
                "No node took the request; nothing is charged. Try again in a moment.",
                1,
            ),
            _ => ApiError::node_failed("The node failed in the middle of the answer; nothing is charged."),
        };
        error.with("job", job)
    }

    /// A client that leaves says nothing about the node.
    fn standing_after(&self, answered: &Answered) -> Report {
        match answered.cut {
            None | Some(Cut::Stop) => Report::Good,
            Some(Cut::ClientGone | Cut::Shutdown) => Report::Neutral,
        }
    }

    fn report(&self, chosen: &Chosen, report: Report) {
        self.shared.table().report(&chosen.node, report, now_us());
    }
}

impl Job {
    fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_micros(self.deadline_us.saturating_sub(now_us()))
    }

    /// Text in the middle of a stream is delivered; text of an answer that is still being collected is not.
    fn note_progress(&self, shared: &Shared, attempt: u32, mark: Mark) {
        if self.delivery == Delivery::Stream {
            let note = Progress { attempt, delivered: mark.count, chain: mark.chain };
            shared.progress.note(self.id, note);
        }
    }
}

/// Stores the sealed body while the node makes up its mind; `true` once it lies there.
async fn store_contents(shared: &Shared, job: &Job, stored: bool) -> bool {
    if stored {
        return true;
    }
    let contents =
        Contents { version: 1, body: job.body.clone(), attempt: 0, output_ids: None, finish: None };
    let written = match shared.store.seal_contents(job.account, &shared.audit_sealing_key, &contents) {
        Ok(sealed) => shared.store.put_contents(job.id, sealed).await,
        Err(error) => Err(error),
    };
    if let Err(error) = &written {
        tracing::error!(target: "job", job = %job.id, %error, "contents not stored");
    }
    written.is_ok()
}

fn no_receipt(cut: Cut) -> ApiError {
    match cut {
        Cut::Shutdown => stopping(),
        Cut::Stop | Cut::ClientGone => {
            ApiError::node_failed("The node did not send a receipt; nothing is charged.")
        }
    }
}

fn stopping() -> ApiError {
    ApiError::unavailable("stopping", "This coordinator is stopping; what was delivered is charged.", 2)
}
