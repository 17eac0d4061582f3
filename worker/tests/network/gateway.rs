//! What the tests stand on: a server, a gateway that says what each test wants, one worker.

use async_nats::jetstream::consumer::{PullConsumer, pull};
use async_nats::{Client, Subscriber};
use crypto_box::PublicKey;
use futures::StreamExt;
use journal::auth::{self, Role};
use journal::server::{NatsServer, NatsServerOptions, PortChoice, find_nats_server};
use journal::stream::{RECEIPTS_CONSUMER, RECEIPTS_STREAM, init_streams};
use kernels::{ChatMessage, LoadOptions, Model, Verdict, prompt_ids, verify};
use nkeys::KeyPair;
use protocol::commitment::{Committed, commit, token_bytes};
use protocol::id::{Hash32, JobId, NodeId, SealingKey};
use protocol::job_message::{
    Cancel, Frame, Heartbeat, JOB_PROTOCOL, JobBody, JobOffer, ResultMessage, cancel_subject, offer_subject,
};
use protocol::receipt::{Receipt, SignedReceipt};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use worker::backend::job_request;
use worker::keys::OperatorKey;
use worker::{BackendOptions, ModelOptions, NodeOptions, Worker, WorkerOptions};

pub const MODEL_NAME: &str = "smollm2-135m";
pub const NODE: NodeId = NodeId([7; 16]);
const GATEWAY: &str = "gw1";
/// No test waits longer for one thing.
const WAIT: Duration = Duration::from_secs(60);

pub fn model_path() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf();
    let path = root.join(".tools/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    assert!(path.is_file(), "{} is missing: run cargo xtask tools", path.display());
    path
}

/// The model once more, for checking; loaded once for all tests.
pub fn model() -> &'static Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    MODEL.get_or_init(|| Model::load(&model_path(), LoadOptions::from_environment().unwrap()).unwrap())
}

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT, future).await.unwrap_or_else(|_| panic!("waited {WAIT:?} for {what}"))
}

pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// A server, its gateway and one operator.
pub struct Network {
    pub server: NatsServer,
    pub gateway: Client,
    pub results: Subscriber,
    pub heartbeats: Subscriber,
    pub receipts: pull::Stream,
    pub operator: KeyPair,
    pub dir: TempDir,
}

impl Network {
    pub async fn start() -> Network {
        let dir = tempfile::tempdir().unwrap();
        let binary = find_nats_server().expect("run cargo xtask tools");
        let options = NatsServerOptions { binary, data_dir: dir.path().join("net"), port: PortChoice::Any };
        let server = NatsServer::start(options).await.unwrap();
        let init = auth::connect(&server.url(), &server.keys().init_credentials().unwrap()).await.unwrap();
        init_streams(&init).await.unwrap();
        let gateway = auth::connect(&server.url(), server.keys().credentials(Role::Gateway)).await.unwrap();
        let results = gateway.subscribe(format!("result.*.*.{GATEWAY}.>")).await.unwrap();
        let heartbeats = gateway.subscribe("hb.>").await.unwrap();
        let stream = async_nats::jetstream::new(gateway.clone()).get_stream(RECEIPTS_STREAM).await.unwrap();
        let consumer: PullConsumer = stream.get_consumer(RECEIPTS_CONSUMER).await.unwrap();
        let receipts = consumer.messages().await.unwrap();
        gateway.flush().await.unwrap();
        Network { server, gateway, results, heartbeats, receipts, operator: KeyPair::new_user(), dir }
    }

    pub fn worker_options(&self, slots: u32) -> WorkerOptions {
        let backend = BackendOptions::Builtin { path: model_path() };
        WorkerOptions {
            nats_url: self.server.url(),
            operator_key: OperatorKey::from_seed(&self.operator.seed().unwrap()).unwrap(),
            operator_jwt: self.server.keys().issue_operator(&self.operator.public_key()).unwrap(),
            data_dir: self.dir.path().join("w"),
            nodes: vec![NodeOptions {
                id: NODE,
                slots,
                models: vec![ModelOptions { name: MODEL_NAME.into(), backend }],
            }],
            threads: 1,
            metrics: None,
        }
    }

    pub async fn worker(&self, slots: u32) -> Worker {
        within("the worker's start", Worker::start(self.worker_options(slots))).await.unwrap()
    }

    pub async fn send(&self, job: &Job) {
        let payload = serde_json::to_vec(&job.offer).unwrap();
        let operator = self.operator.public_key().parse().unwrap();
        self.gateway.publish(offer_subject(&operator, &NODE), payload.into()).await.unwrap();
    }

    pub async fn cancel(&self, job: &Job) {
        let cancel = Cancel { job: job.offer.job, attempt: job.offer.attempt };
        let operator = self.operator.public_key().parse().unwrap();
        let payload = serde_json::to_vec(&cancel).unwrap();
        self.gateway.publish(cancel_subject(&operator, &NODE), payload.into()).await.unwrap();
    }

    /// The next message about `job`; those of other jobs are passed over.
    pub async fn next_result(&mut self, job: &Job) -> ResultMessage {
        let tail = format!("{NODE}.{GATEWAY}.{}.{}", job.offer.job, job.offer.attempt);
        let message = within("a result", async {
            loop {
                let message = self.results.next().await.expect("the gateway's subscription");
                if message.subject.ends_with(&tail) {
                    return message;
                }
            }
        });
        serde_json::from_slice(&message.await.payload).unwrap()
    }

    pub async fn expect_accept(&mut self, job: &Job) {
        let message = self.next_result(job).await;
        assert_eq!(message, ResultMessage::Accept { attempt: job.offer.attempt });
    }

    /// Everything from the first frame to the receipt, checked for gaps.
    pub async fn answer_of(&mut self, job: &Job) -> Answer {
        let mut frames: Vec<Frame> = Vec::new();
        loop {
            match self.next_result(job).await {
                ResultMessage::Frame(frame) => {
                    assert_eq!(frame.seq, frames.len() as u64, "contiguous");
                    frames.push(frame);
                }
                ResultMessage::Done { seq, receipt } => {
                    assert_eq!(seq, frames.len() as u64);
                    let signed = data_encoding::BASE64.decode(receipt.as_bytes()).unwrap();
                    return Answer { frames, signed };
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next receipt out of the stream RECEIPTS.
    pub async fn next_receipt(&mut self) -> (String, Vec<u8>) {
        let message = within("a receipt in the stream", async {
            loop {
                // A server that was killed ends some pulls with an error; the next one goes on.
                if let Some(Ok(message)) = self.receipts.next().await {
                    return message;
                }
            }
        })
        .await;
        message.ack().await.unwrap();
        (message.subject.to_string(), message.payload.to_vec())
    }

    pub async fn next_heartbeat(&mut self) -> Heartbeat {
        let message = within("a heartbeat", self.heartbeats.next()).await.unwrap();
        serde_json::from_slice(&message.payload).unwrap()
    }
}

/// A job, as a gateway makes it.
pub struct Job {
    pub body: JobBody,
    pub offer: JobOffer,
    sealing: SealingKey,
}

impl Job {
    /// A greedy answer to `prompt` of at most `max_tokens`.
    pub fn new(sealing: SealingKey, prompt: &str, max_tokens: u32) -> Job {
        let message = ChatMessage { role: "user".into(), content: prompt.into() };
        let job = JobId(random());
        let body = JobBody {
            job,
            prompt_ids: prompt_ids(model().tokenizer(), model().template(), &[message]).unwrap(),
            messages: serde_json::json!([{"role": "user", "content": prompt}]),
            max_tokens,
            temperature_millionths: 0,
            top_p_millionths: 1_000_000,
            top_k: 0,
            seed: None,
            sampling_key: Hash32(random()),
            stop: vec![],
            controls: Default::default(),
            salt: Hash32(random()),
        };
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
        let offer = JobOffer {
            protocol: JOB_PROTOCOL,
            job,
            attempt: 1,
            node: NODE,
            gateway: GATEWAY.into(),
            model: MODEL_NAME.into(),
            weights: Hash32(model().id()),
            deadline_us: now_us + 120_000_000,
            body_commitment: Hash32([0; 32]),
            sealed_body: String::new(),
        };
        let mut job = Job { body, offer, sealing };
        job.commit_and_seal();
        job
    }

    pub fn commit_and_seal(&mut self) {
        self.offer.body_commitment = self.body.commitment();
        self.seal();
    }

    pub fn seal(&mut self) {
        let public = PublicKey::from(self.sealing.0);
        let body = serde_json::to_vec(&self.body).unwrap();
        let sealed = public.seal(&mut crypto_box::aead::OsRng, &body).unwrap();
        self.offer.sealed_body = data_encoding::BASE64.encode(&sealed);
    }
}

/// What a worker delivered.
pub struct Answer {
    pub frames: Vec<Frame>,
    pub signed: Vec<u8>,
}

impl Answer {
    pub fn ids(&self) -> Vec<u32> {
        self.frames.iter().flat_map(|frame| frame.ids.clone()).collect()
    }

    pub fn text(&self) -> String {
        self.frames.iter().map(|frame| frame.text.as_str()).collect()
    }

    /// The receipt, after everything that an outsider can check about it: signature, commitments, counts, and the model
    /// run again.
    pub fn checked_receipt(&self, job: &Job, network: &Network) -> Receipt {
        let receipt = SignedReceipt::open(&self.signed).expect("signed by its operator");
        let ids = self.ids();
        assert_eq!(receipt.operator.to_string(), network.operator.public_key());
        assert_eq!((receipt.job, receipt.attempt, receipt.node), (job.offer.job, job.offer.attempt, NODE));
        assert_eq!((receipt.body, receipt.weights), (job.body.commitment(), Hash32(model().id())));
        assert_eq!(receipt.numerics, kernels::NUMERICS_ID);
        assert_eq!(receipt.input_tokens, job.body.prompt_ids.len() as u64);
        assert_eq!(receipt.output_tokens, ids.len() as u64);
        assert_eq!(receipt.output, commit(Committed::Output, &job.body.salt.0, &token_bytes(&ids)));
        if let Some(last) = self.frames.last() {
            assert_eq!(last.chain, receipt.chain_head, "the last frame's chain is the receipt's head");
        }
        let verdict = verify(model(), 1, &job_request(&job.body).spec, &ids, &receipt.chain_head.0).unwrap();
        assert_eq!(verdict, Verdict::Identical { chain_head: receipt.chain_head.0 });
        receipt
    }
}

pub fn sealing_key(worker: &Worker) -> SealingKey {
    worker.handle().status().nodes[0].sealing_key
}
