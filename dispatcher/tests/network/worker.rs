//! A worker that follows a script: true, lying, silent, vanishing. Speaks the job protocol with its own NKEY and JWT.

use super::{Customer, MODEL, SERVED, http};
use async_nats::Client;
use dispatcher::seal;
use ed25519_dalek::{Signer, SigningKey};
use futures::StreamExt;
use nkeys::{KeyPair, KeyPairType};
use protocol::commitment::{Committed, commit, token_bytes};
use protocol::id::{Hash32, JobId, NodeId, OperatorId};
use protocol::job_message::{
    Cancel, Frame, Heartbeat, JOB_PROTOCOL, JobBody, JobOffer, NakReason, ResultMessage, TokenLogprobs,
    heartbeat_subject, receipt_subject, result_subject,
};
use protocol::rate::ProofClass;
use protocol::receipt::{Finish, Receipt};
use serde_json::json;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// What the worker does with the next job.
#[derive(Clone, Debug)]
pub enum Script {
    /// Answers this text, one token a frame.
    Say(&'static str),
    /// The same, so many milliseconds between tokens; stops when cancelled.
    Slowly(&'static str, u64),
    /// Refuses.
    Nak(NakReason),
    /// Sends so many tokens and says that it failed.
    FailAfter(usize),
    /// Sends so many tokens and falls silent, heartbeats too.
    VanishAfter(usize),
    /// Sends so many tokens of the text and is gone, connection and all.
    DieAfter(&'static str, usize),
    /// Leaves a frame out.
    Gap,
    /// Signs twice the tokens it sent.
    LieAboutCount,
    /// Signs other tokens than it sent.
    LieAboutOutput,
    /// Sends everything but the end; its receipt goes to the stream only.
    ReceiptToStreamOnly(&'static str),
}

#[derive(Clone)]
pub struct Worker {
    pub node: NodeId,
    pub operator: OperatorId,
    pub scripts: Arc<Mutex<VecDeque<Script>>>,
    pub cancels: Arc<Mutex<Vec<JobId>>>,
    /// Every body that was opened.
    pub bodies: Arc<Mutex<Vec<JobBody>>>,
    /// What it was told of its standing.
    pub told: Arc<Mutex<Vec<serde_json::Value>>>,
    key: SigningKey,
    sealing_secret: [u8; 32],
    client: Client,
    beating: Arc<AtomicBool>,
    cancelled: watch::Sender<Option<JobId>>,
    slots: u32,
}

impl Worker {
    /// Registers over HTTP and begins to serve.
    pub async fn start(owner: &Customer, number: u8, slots: u32) -> Worker {
        Worker::start_with(owner, number, slots, Arc::default()).await
    }

    /// The same, following a list of scripts that others may follow too.
    pub async fn start_with(
        owner: &Customer,
        number: u8,
        slots: u32,
        scripts: Arc<Mutex<VecDeque<Script>>>,
    ) -> Worker {
        let worker = Worker::join(owner, number, slots, scripts).await;
        let why = format!("/v1/nodes/{}", worker.node);
        super::eventually("the node is routed", || async {
            http::request(owner.address, "GET", &why, None, &[], b"").await.json()["why"][MODEL] == "eligible"
        })
        .await;
        worker
    }

    /// The same, without waiting until it is routed.
    pub async fn join(
        owner: &Customer,
        number: u8,
        slots: u32,
        scripts: Arc<Mutex<VecDeque<Script>>>,
    ) -> Worker {
        let key = SigningKey::from_bytes(&[number; 32]);
        let pair = KeyPair::new_from_raw(KeyPairType::User, [number; 32]).unwrap();
        let operator = OperatorId(key.verifying_key().to_bytes());
        assert_eq!(pair.public_key(), operator.to_string());
        let body = json!({ "operator": operator.to_string(), "payout_address": format!("0x{}", format!("{number:02x}").repeat(20)) });
        let registered = http::post(owner.address, "/v1/operators", Some(&owner.key), &body).await;
        assert_eq!(registered.status, 201, "{}", registered.text());
        let registered = registered.json();
        let sealing_secret = [number + 100; 32];
        let node = NodeId([number; 16]);
        let body = json!({
            "node": node, "operator": operator.to_string(), "models": [MODEL], "slots": slots,
            "sealing_key": seal::public_key(&sealing_secret),
        });
        let answer = http::post(owner.address, "/v1/nodes", Some(&owner.key), &body).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        let jwt = registered["nats_jwt"].as_str().unwrap().to_owned();
        let pair = Arc::new(pair);
        let client = async_nats::ConnectOptions::with_jwt(jwt, move |nonce| {
            let pair = pair.clone();
            async move { pair.sign(&nonce).map_err(async_nats::AuthError::new) }
        })
        .custom_inbox_prefix(format!("_INBOX_{operator}"))
        .connect(registered["nats_url"].as_str().unwrap())
        .await
        .unwrap();
        let worker = Worker {
            node,
            operator,
            scripts,
            cancels: Arc::default(),
            bodies: Arc::default(),
            told: Arc::default(),
            key,
            sealing_secret,
            client,
            beating: Arc::new(AtomicBool::new(true)),
            cancelled: watch::Sender::new(None),
            slots,
        };
        worker.serve().await;
        worker
    }

    pub fn then(&self, script: Script) {
        self.scripts.lock().unwrap().push_back(script);
    }

    pub fn silence(&self) {
        self.beating.store(false, Ordering::SeqCst);
    }

    async fn serve(&self) {
        let jobs = format!("job.{}.{}.*", self.operator, self.node);
        let mut subscription = self.client.subscribe(jobs).await.unwrap();
        self.client.flush().await.unwrap();
        let worker = self.clone();
        tokio::spawn(async move {
            while let Some(message) = subscription.next().await {
                if message.subject.ends_with(".standing") {
                    worker.told.lock().unwrap().push(serde_json::from_slice(&message.payload).unwrap());
                } else if message.subject.ends_with(".cancel") {
                    let cancel: Cancel = serde_json::from_slice(&message.payload).unwrap();
                    if cancel.job == JobId([0; 16]) {
                        continue;
                    }
                    worker.cancels.lock().unwrap().push(cancel.job);
                    worker.cancelled.send_replace(Some(cancel.job));
                } else {
                    let offer: JobOffer = serde_json::from_slice(&message.payload).unwrap();
                    let script = worker.scripts.lock().unwrap().pop_front();
                    let worker = worker.clone();
                    tokio::spawn(
                        async move { worker.work(offer, script.unwrap_or(Script::Say("Hello!"))).await },
                    );
                }
            }
        });
        let worker = self.clone();
        tokio::spawn(async move {
            let mut beats = tokio::time::interval(Duration::from_millis(200));
            for seq in 0.. {
                beats.tick().await;
                if worker.beating.load(Ordering::SeqCst) {
                    worker.beat(seq).await;
                }
            }
        });
    }

    async fn beat(&self, seq: u64) {
        let beat = Heartbeat {
            protocol: JOB_PROTOCOL,
            node: self.node,
            seq,
            inflight: 0,
            slots: self.slots,
            models: vec![MODEL.to_owned()],
            draining: false,
        };
        let subject = heartbeat_subject(&self.operator, &self.node);
        let _ = self.client.publish(subject, serde_json::to_vec(&beat).unwrap().into()).await;
    }

    async fn say(&self, offer: &JobOffer, message: ResultMessage) {
        let subject = result_subject(&self.operator, &self.node, &offer.gateway, &offer.job, offer.attempt);
        self.client.publish(subject, serde_json::to_vec(&message).unwrap().into()).await.unwrap();
    }

    async fn frame(&self, offer: &JobOffer, seq: u64, ids: &[u32], top: Option<u8>) {
        let told = |id: &u32| TokenLogprobs {
            id: *id,
            millionths: -250_000,
            top: vec![(*id, -250_000); usize::from(top.unwrap_or(0))],
        };
        let logprobs = if top.is_some() { ids.iter().map(told).collect() } else { vec![] };
        let frame =
            Frame { seq, ids: ids.to_vec(), text: "not believed".into(), chain: chain(seq + 1), logprobs };
        self.say(offer, ResultMessage::Frame(frame)).await;
    }

    async fn work(&self, offer: JobOffer, script: Script) {
        let sealed = data_encoding::BASE64.decode(offer.sealed_body.as_bytes()).unwrap();
        let body: JobBody =
            serde_json::from_slice(&seal::open(&self.sealing_secret, &sealed).unwrap()).unwrap();
        assert_eq!(body.commitment(), offer.body_commitment);
        self.bodies.lock().unwrap().push(body.clone());
        if let Script::Nak(reason) = script {
            let attempt = offer.attempt;
            return self.say(&offer, ResultMessage::Nak { attempt, reason, detail: String::new() }).await;
        }
        self.say(&offer, ResultMessage::Accept { attempt: offer.attempt }).await;
        let (text, count, wait_ms) = match script {
            Script::Say(text) | Script::ReceiptToStreamOnly(text) => (text, usize::MAX, 0),
            Script::Slowly(text, ms) => (text, usize::MAX, ms),
            Script::DieAfter(text, n) => (text, n, 0),
            Script::FailAfter(n) | Script::VanishAfter(n) => ("one two three four five six", n, 0),
            _ => ("one two three", usize::MAX, 0),
        };
        let mut ids = SERVED.tokenizer.encode(text);
        ids.truncate(count.min(body.max_tokens as usize));
        let mut cancelled = self.cancelled.subscribe();
        let mut sent = 0;
        for id in &ids {
            if matches!(script, Script::Gap) && sent == 1 {
                sent += 1;
            }
            self.frame(&offer, sent as u64, &[*id], body.controls.logprobs).await;
            sent += 1;
            if wait_ms > 0 {
                let pause = Duration::from_millis(wait_ms);
                let cancel = cancelled.wait_for(|job| *job == Some(offer.job));
                if tokio::time::timeout(pause, cancel).await.is_ok() {
                    break;
                }
            }
        }
        let finish = if *cancelled.borrow() == Some(offer.job) { Finish::Cancelled } else { Finish::Stop };
        ids.truncate(sent);
        match script {
            Script::FailAfter(_) => {
                self.say(&offer, ResultMessage::Failed { seq: sent as u64, detail: "broken".into() }).await;
            }
            Script::VanishAfter(_) => self.silence(),
            Script::DieAfter(..) => {
                self.silence();
                self.client.flush().await.unwrap();
                self.client.drain().await.unwrap();
            }
            Script::LieAboutCount => {
                let twice = [&ids[..], &ids[..]].concat();
                self.done(&offer, &body, sent, &twice, finish).await;
            }
            Script::LieAboutOutput => {
                let others: Vec<u32> = ids.iter().map(|id| id + 1).collect();
                self.done(&offer, &body, sent, &others, finish).await;
            }
            Script::ReceiptToStreamOnly(_) => {
                let bytes = self.receipt(&offer, &body, &ids, finish);
                let subject = receipt_subject(&self.operator, &offer.job, offer.attempt);
                let context = async_nats::jetstream::new(self.client.clone());
                context.publish(subject, bytes.into()).await.unwrap().await.unwrap();
            }
            _ => self.done(&offer, &body, sent, &ids, finish).await,
        }
    }

    async fn done(&self, offer: &JobOffer, body: &JobBody, sent: usize, ids: &[u32], finish: Finish) {
        let receipt = data_encoding::BASE64.encode(&self.receipt(offer, body, ids, finish));
        self.say(offer, ResultMessage::Done { seq: sent as u64, receipt }).await;
    }

    fn receipt(&self, offer: &JobOffer, body: &JobBody, ids: &[u32], finish: Finish) -> Vec<u8> {
        let receipt = Receipt {
            version: 1,
            job: offer.job,
            attempt: offer.attempt,
            node: self.node,
            operator: self.operator,
            weights: offer.weights,
            numerics: "counterfoil-numerics-1".to_owned(),
            proof_class: ProofClass::ReExecutable,
            body: offer.body_commitment,
            input_tokens: body.prompt_ids.len() as u64,
            output_tokens: ids.len() as u64,
            output: commit(Committed::Output, &body.salt.0, &token_bytes(ids)),
            chain_head: chain(ids.len() as u64),
            finish,
            started_us: 1,
            ended_us: 2,
            backend: "script".to_owned(),
        };
        receipt.sign(|bytes| self.key.sign(bytes).to_bytes()).to_bytes()
    }
}

fn chain(count: u64) -> Hash32 {
    Hash32(*blake3::hash(&count.to_le_bytes()).as_bytes())
}
