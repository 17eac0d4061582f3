//! A worker that does no work: takes every offer, sends tokens as it is told, signs a true receipt. Its nodes can die.

use async_nats::Client;
use dispatcher::seal;
use futures::StreamExt;
use nkeys::KeyPair;
use protocol::commitment::{Committed, commit, token_bytes};
use protocol::id::{Hash32, NodeId, OperatorId};
use protocol::job_message::{
    Cancel, Frame, Heartbeat, JOB_PROTOCOL, JobBody, JobOffer, ResultMessage, heartbeat_subject,
    result_subject,
};
use protocol::rate::ProofClass;
use protocol::receipt::{Finish, Receipt};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot, watch};

/// How tokens come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// Eight a frame, without a pause.
    AtOnce,
    /// One a frame, so far apart.
    Paced(Duration),
    /// One, and then nothing until it is cancelled.
    Silent,
}

/// When tokens were published and cancels came, by job.
#[derive(Clone, Default)]
pub struct Stamps {
    published: Arc<Mutex<HashMap<String, Vec<Instant>>>>,
    cancelled: Arc<Mutex<HashMap<String, Instant>>>,
    pub news: Arc<Notify>,
}

impl Stamps {
    pub fn of(&self, job: &str, number: usize) -> Option<Instant> {
        let published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        published.get(job)?.get(number).copied()
    }

    pub fn cancelled(&self, job: &str) -> Option<Instant> {
        self.cancelled.lock().unwrap_or_else(PoisonError::into_inner).get(job).copied()
    }

    fn note(&self, job: &str) {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        published.entry(job.to_owned()).or_default().push(Instant::now());
    }
}

/// One node of the operator.
pub struct ZeroWorker {
    pub client: Client,
    pub operator: OperatorId,
    pub node: NodeId,
    pub signer: Arc<KeyPair>,
    pub sealing_secret: [u8; 32],
    pub slots: u32,
    /// A token whose text is `x`.
    pub token: u32,
    pub models: Vec<String>,
    pub manner: watch::Receiver<Manner>,
    pub stamps: Stamps,
    pub cancels: watch::Sender<u64>,
    pub draining: AtomicBool,
    /// Whether the gateway said that it is routed.
    pub routed: watch::Sender<bool>,
    pub beats: AtomicU64,
    /// Told when it dies; a mortal dies at its first job.
    pub death: Mutex<Option<oneshot::Sender<Instant>>>,
    /// Who takes over from a mortal.
    pub heir: Option<Arc<ZeroWorker>>,
}

impl ZeroWorker {
    pub async fn beat(&self) {
        let beat = Heartbeat {
            protocol: JOB_PROTOCOL,
            node: self.node,
            seq: self.beats.fetch_add(1, Ordering::Relaxed),
            inflight: 0,
            slots: self.slots,
            models: self.models.clone(),
            draining: self.draining.load(Ordering::Relaxed),
        };
        let payload = serde_json::to_vec(&beat).unwrap_or_default();
        let _ = self.client.publish(heartbeat_subject(&self.operator, &self.node), payload.into()).await;
        let _ = self.client.flush().await;
    }

    /// Takes jobs until its connection ends.
    pub async fn serve(self: Arc<Self>) {
        let subject = format!("job.{}.{}.*", self.operator, self.node);
        let Ok(mut messages) = self.client.subscribe(subject).await else { return };
        let _ = self.client.flush().await;
        let mut beats = tokio::time::interval(Duration::from_millis(1_000));
        loop {
            tokio::select! {
                _ = beats.tick() => self.beat().await,
                message = messages.next() => match message {
                    None => return,
                    Some(message) if message.subject.ends_with(".cancel") => self.on_cancel(&message.payload),
                    Some(message) if message.subject.ends_with(".standing") => self.on_standing(&message.payload),
                    Some(message) => {
                        let worker = Arc::clone(&self);
                        tokio::spawn(async move { worker.work(&message.payload).await });
                    }
                },
            }
        }
    }

    fn on_cancel(&self, payload: &[u8]) {
        let Ok(cancel) = serde_json::from_slice::<Cancel>(payload) else { return };
        let mut cancelled = self.stamps.cancelled.lock().unwrap_or_else(PoisonError::into_inner);
        cancelled.entry(cancel.job.to_string()).or_insert_with(Instant::now);
        drop(cancelled);
        self.cancels.send_modify(|count| *count += 1);
        self.stamps.news.notify_waiters();
    }

    fn on_standing(&self, payload: &[u8]) {
        let told: serde_json::Value = serde_json::from_slice(payload).unwrap_or_default();
        self.routed.send_replace(self.models.iter().any(|model| told["why"][model] == "eligible"));
    }

    async fn say(&self, subject: &str, message: &ResultMessage) {
        let payload = serde_json::to_vec(message).unwrap_or_default();
        let _ = self.client.publish(subject.to_owned(), payload.into()).await;
    }

    async fn work(&self, payload: &[u8]) {
        let Ok(offer) = serde_json::from_slice::<JobOffer>(payload) else { return };
        let sealed = data_encoding::BASE64.decode(offer.sealed_body.as_bytes()).unwrap_or_default();
        let opened = seal::open(&self.sealing_secret, &sealed).ok();
        let Some(body) = opened.and_then(|plain| serde_json::from_slice::<JobBody>(&plain).ok()) else {
            return;
        };
        let subject = result_subject(&self.operator, &self.node, &offer.gateway, &offer.job, offer.attempt);
        self.say(&subject, &ResultMessage::Accept { attempt: offer.attempt }).await;
        let death = self.death.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(death) = death {
            return self.die(death).await;
        }
        let manner = *self.manner.borrow();
        let job = offer.job.to_string();
        let (mut sent, mut seq) = (0u32, 0u64);
        let mut finish = Finish::Length;
        let mut ticks = tokio::time::interval(match manner {
            Manner::Paced(pause) => pause,
            Manner::AtOnce | Manner::Silent => Duration::from_secs(3_600),
        });
        let mut cancels = self.cancels.subscribe();
        while sent < body.max_tokens {
            let count = if manner == Manner::AtOnce { 8.min(body.max_tokens - sent) } else { 1 };
            let rest = manner == Manner::Silent && sent > 0;
            if matches!(manner, Manner::Paced(_)) {
                ticks.tick().await;
            }
            while rest && self.stamps.cancelled(&job).is_none() {
                let _ = cancels.changed().await;
            }
            if self.stamps.cancelled(&job).is_some() {
                finish = Finish::Cancelled;
                break;
            }
            sent += count;
            let ids = vec![self.token; count as usize];
            let frame = Frame { seq, ids, text: String::new(), chain: chain(sent), logprobs: Vec::new() };
            if matches!(manner, Manner::Paced(_)) {
                self.stamps.note(&job);
            }
            self.say(&subject, &ResultMessage::Frame(frame)).await;
            seq += 1;
        }
        let receipt = data_encoding::BASE64.encode(&self.receipt(&offer, &body, sent, finish));
        self.say(&subject, &ResultMessage::Done { seq, receipt }).await;
    }

    /// The connection ends as that of a killed process does, once somebody is there to take over.
    async fn die(&self, death: oneshot::Sender<Instant>) {
        let _ = self.client.flush().await;
        if let Some(heir) = &self.heir {
            heir.draining.store(false, Ordering::Relaxed);
            heir.beat().await;
            // The gateway shall know of it: what is measured begins with the death.
            let _ = heir.routed.subscribe().wait_for(|routed| *routed).await;
        }
        let died = Instant::now();
        let _ = self.client.drain().await;
        let _ = death.send(died);
    }

    fn receipt(&self, offer: &JobOffer, body: &JobBody, sent: u32, finish: Finish) -> Vec<u8> {
        let ids = vec![self.token; sent as usize];
        let receipt = Receipt {
            version: 1,
            job: offer.job,
            attempt: offer.attempt,
            node: self.node,
            operator: self.operator,
            weights: offer.weights,
            numerics: "none".to_owned(),
            proof_class: ProofClass::ReExecutable,
            body: offer.body_commitment,
            input_tokens: body.prompt_ids.len() as u64,
            output_tokens: u64::from(sent),
            output: commit(Committed::Output, &body.salt.0, &token_bytes(&ids)),
            chain_head: chain(sent),
            finish,
            started_us: 1,
            ended_us: 2,
            backend: "zero work".to_owned(),
        };
        let sign = |bytes: &[u8]| {
            let signature = self.signer.sign(bytes).unwrap_or_default();
            signature.try_into().unwrap_or([0; 64])
        };
        receipt.sign(sign).to_bytes()
    }
}

fn chain(count: u32) -> Hash32 {
    Hash32(*blake3::hash(&count.to_le_bytes()).as_bytes())
}
