//! One node: its keys, models and slots; answers offers and cancels.

use crate::backend::{Backend, BackendIdentity};
use crate::job_table::JobTable;
use crate::keys::{NodeKey, OperatorKey};
use crate::metrics::{Counters, add};
use crate::offer::{self, Refusal};
use crate::outbox::{Outbox, RECEIPTS_UNSENT_MAX};
use crate::receipt::now_us;
use crate::run::{self, Job};
use async_nats::Client;
use protocol::id::{NodeId, OperatorId};
use protocol::job_message::{
    Cancel, Heartbeat, JOB_PROTOCOL, JobOffer, NakReason, ResultMessage, heartbeat_subject, result_subject,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// See the module.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) outbox: Outbox,
    operator: OperatorKey,
    sealing: NodeKey,
    models: BTreeMap<String, Backend>,
    slot_count: u32,
    slots: Arc<Semaphore>,
    jobs: JobTable,
    pub(crate) counters: Arc<Counters>,
    /// By model; held for one look.
    why: Mutex<BTreeMap<String, String>>,
    heartbeat_count: AtomicU64,
    draining: watch::Receiver<bool>,
    client: Client,
}

/// What a node is made of.
pub(crate) struct NodeParts {
    pub(crate) id: NodeId,
    pub(crate) outbox: Outbox,
    pub(crate) counters: Arc<Counters>,
    pub(crate) operator: OperatorKey,
    pub(crate) sealing: NodeKey,
    /// By their names on the rate card.
    pub(crate) models: BTreeMap<String, Backend>,
    /// Jobs at once.
    pub(crate) slot_count: u32,
    pub(crate) draining: watch::Receiver<bool>,
    pub(crate) client: Client,
}

impl Node {
    pub(crate) fn new(parts: NodeParts) -> Node {
        Node {
            id: parts.id,
            outbox: parts.outbox,
            counters: parts.counters,
            operator: parts.operator,
            sealing: parts.sealing,
            models: parts.models,
            slot_count: parts.slot_count,
            slots: Arc::new(Semaphore::new(parts.slot_count as usize)),
            jobs: JobTable::default(),
            why: Mutex::default(),
            heartbeat_count: AtomicU64::new(0),
            draining: parts.draining,
            client: parts.client,
        }
    }

    pub(crate) fn operator(&self) -> OperatorId {
        self.operator.operator()
    }

    pub(crate) fn key(&self) -> &OperatorKey {
        &self.operator
    }

    pub(crate) fn sealing(&self) -> &NodeKey {
        &self.sealing
    }

    pub(crate) fn model_names(&self) -> Vec<String> {
        self.models.keys().cloned().collect()
    }

    pub(crate) fn slot_count(&self) -> u32 {
        self.slot_count
    }

    /// Slots taken now.
    pub(crate) fn inflight(&self) -> u32 {
        let free = u32::try_from(self.slots.available_permits()).unwrap_or(u32::MAX);
        self.slot_count.saturating_sub(free)
    }

    /// What receipts of this model say. Only for models of offers that were taken.
    pub(crate) fn identity(&self, model: &str) -> &BackendIdentity {
        self.models.get(model).expect("an offer is taken only for a model of this node").identity()
    }

    /// Waits until no job runs and each has said its last word.
    pub(crate) async fn idle(&self) {
        self.jobs.idle().await;
    }

    /// A message for the gateway. Waits while the connection is gone and its buffer is full.
    pub(crate) async fn publish(&self, subject: &str, message: &ResultMessage) {
        let payload = serde_json::to_vec(message).expect("our messages have only text keys");
        if let Err(error) = self.client.publish(subject.to_owned(), payload.into()).await {
            tracing::warn!(target: "worker", subject, %error, "message not sent");
        }
    }

    /// Says that the node lives.
    pub(crate) async fn publish_heartbeat(&self) {
        let heartbeat = Heartbeat {
            protocol: JOB_PROTOCOL,
            node: self.id,
            seq: self.heartbeat_count.fetch_add(1, Ordering::Relaxed),
            inflight: self.inflight(),
            slots: self.slot_count,
            models: self.model_names(),
            draining: *self.draining.borrow(),
        };
        let payload = serde_json::to_vec(&heartbeat).expect("our messages have only text keys");
        let subject = heartbeat_subject(&self.operator(), &self.id);
        if let Err(error) = self.client.publish(subject, payload.into()).await {
            tracing::warn!(target: "worker", node = %self.id, %error, "heartbeat not sent");
        }
    }

    /// Answers an offer: takes the job, or says why not.
    pub(crate) async fn handle_offer(self: &Arc<Node>, payload: &[u8]) {
        let offer = match offer::parse(payload) {
            Ok(offer) => offer,
            Err(detail) => {
                tracing::warn!(target: "worker", node = %self.id, detail, "offer cannot be answered");
                return;
            }
        };
        let key = (offer.job, offer.attempt);
        let Some(cancelled) = self.jobs.begin(key) else {
            tracing::debug!(target: "worker", job = %offer.job, attempt = offer.attempt, "offer repeated; the first counts");
            return;
        };
        match self.judge(&offer) {
            Ok((slot, body, running)) => {
                let job = Job { node: Arc::clone(self), offer, body, running, cancelled, slot };
                let ended = EndOfAttempt { node: Arc::clone(self), key };
                tokio::spawn(async move {
                    run::run(job).await;
                    drop(ended);
                });
            }
            Err(refusal) => {
                self.jobs.forget(key);
                self.refuse(&offer, refusal).await;
            }
        }
    }

    fn judge(&self, offer: &JobOffer) -> Result<Taken, Refusal> {
        if *self.draining.borrow() {
            return Err(Refusal::new(NakReason::Draining, "this node is leaving"));
        }
        offer::check_envelope(offer, self.id, now_us())?;
        let backend = self.models.get(&offer.model).ok_or_else(|| {
            Refusal::new(NakReason::Model, format!("model {:?} is not served here", clip(&offer.model)))
        })?;
        if backend.identity().weights != offer.weights {
            let ours = backend.identity().weights;
            return Err(Refusal::new(
                NakReason::Model,
                format!("weights here are {ours}, the offer's {}", offer.weights),
            ));
        }
        if *self.outbox.unsent().borrow() >= RECEIPTS_UNSENT_MAX {
            return Err(Refusal::new(
                NakReason::Busy,
                "too many receipts of this node are not acknowledged yet",
            ));
        }
        let slot = Arc::clone(&self.slots)
            .try_acquire_owned()
            .map_err(|_| Refusal::new(NakReason::Busy, format!("all {} slots are taken", self.slot_count)))?;
        let body = offer::open_body(offer, &self.sealing)?;
        let running = backend.begin(&body).map_err(|refused| Refusal::new(refused.reason, refused.detail))?;
        Ok((slot, body, running))
    }

    async fn refuse(&self, offer: &JobOffer, refusal: Refusal) {
        let Refusal { reason, detail } = refusal;
        add(&self.counters.refused, 1);
        tracing::info!(target: "worker", job = %offer.job, attempt = offer.attempt, ?reason, detail, "offer refused");
        let subject = result_subject(&self.operator(), &self.id, &offer.gateway, &offer.job, offer.attempt);
        self.publish(&subject, &ResultMessage::Nak { attempt: offer.attempt, reason, detail }).await;
    }

    /// The network says why it does or does not route this node.
    pub(crate) fn handle_standing(&self, payload: &[u8]) {
        let Ok(standing) = serde_json::from_slice::<Standing>(payload) else { return };
        for (model, why) in &standing.why {
            tracing::info!(target: "worker", node = %self.id, model, why, "standing");
        }
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = standing.why;
    }

    /// What it said last; empty before it said anything.
    pub(crate) fn why(&self) -> BTreeMap<String, String> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops an attempt; one that does not run (any more) needs nothing.
    pub(crate) fn handle_cancel(&self, payload: &[u8]) {
        match serde_json::from_slice::<Cancel>(payload) {
            // Asks only whether anybody listens.
            Ok(cancel) if cancel.job == protocol::id::JobId([0; 16]) => {}
            Ok(cancel) => {
                let running = self.jobs.cancel((cancel.job, cancel.attempt));
                tracing::info!(target: "worker", job = %cancel.job, attempt = cancel.attempt, running, "cancel");
            }
            Err(error) => tracing::warn!(target: "worker", node = %self.id, %error, "not a cancel message"),
        }
    }
}

/// On `job.<operator>.<node>.standing`.
#[derive(Deserialize)]
struct Standing {
    why: BTreeMap<String, String>,
}

type Taken = (OwnedSemaphorePermit, protocol::job_message::JobBody, crate::backend::Running);

/// Ends the table's entry, also when the driver panics.
struct EndOfAttempt {
    node: Arc<Node>,
    key: (protocol::id::JobId, u32),
}

impl Drop for EndOfAttempt {
    fn drop(&mut self) {
        self.node.jobs.end(self.key);
    }
}

fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}
