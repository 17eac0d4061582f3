//! An operator who cheats: registered like anybody, with credentials of its own, and a hand on every byte that it sends.
//! Must not: know anything that an operator would not know.

use crate::network::Network;
use async_nats::Client;
use futures::StreamExt;
use nkeys::KeyPair;
use protocol::id::{Hash32, NodeId, OperatorId};
use protocol::job_message::{
    Frame, HEARTBEAT_MS, Heartbeat, JOB_PROTOCOL, JobOffer, ResultMessage, heartbeat_subject,
    receipt_subject, result_subject,
};
use protocol::receipt::{Finish, Receipt};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// The model that the network serves.
pub const MODEL: &str = "SmolLM2-135M-Instruct";

/// Registered, connected, beating.
pub struct Hostile {
    runtime: Runtime,
    /// Its connection.
    pub client: Client,
    /// Its key; signs receipts.
    pub key: Arc<KeyPair>,
    /// Who it is.
    pub operator: OperatorId,
    /// Its node.
    pub node: NodeId,
    /// Its JWT as the gateway issued it.
    pub jwt: String,
    offers: async_nats::Subscriber,
    beats: JoinHandle<()>,
}

impl Hostile {
    /// Registers with the account of `api_key` and begins to beat.
    pub fn register(network: &Network, api_key: &str) -> Hostile {
        let key = Arc::new(KeyPair::new_user());
        let operator: OperatorId = key.public_key().parse().expect("a user key is an operator's id");
        let payout = format!("0x{}", data_encoding::HEXLOWER.encode(&operator.0[12..]));
        let body = json!({"operator": operator, "payout_address": payout});
        let (status, registered) = network.call_as(api_key, "POST", "/v1/operators", Some(body));
        assert_eq!(status, 201, "{registered}");
        let jwt = registered["nats_jwt"].as_str().expect("a JWT").to_owned();
        let node = NodeId(operator.0[..16].try_into().expect("16 bytes"));
        let sealing = "11".repeat(32);
        let body = json!({"node": node, "operator": operator, "models": [MODEL], "slots": 4, "sealing_key": sealing});
        let (status, registered) = network.call_as(api_key, "POST", "/v1/nodes", Some(body));
        assert_eq!(status, 201, "{registered}");
        let runtime = Runtime::new().expect("a runtime");
        let (client, offers) = runtime.block_on(async {
            let client = connect(&network.ready.nats, &jwt, &key, &operator).await.expect("it may connect");
            let offers = client.subscribe(format!("job.{operator}.>")).await.expect("its own subjects");
            client.flush().await.expect("the server answers");
            (client, offers)
        });
        let beats = runtime.spawn(beat(client.clone(), operator, node));
        Hostile { runtime, client, key, operator, node, jwt, offers, beats }
    }

    /// Says that it leaves, and is silent: the next job goes to another node at once.
    pub fn leave(self) {
        self.beats.abort();
        let last = heartbeat(self.node, u64::MAX, Draining::Yes);
        let subject = heartbeat_subject(&self.operator, &self.node);
        self.runtime.block_on(async {
            self.client.publish(subject, last.into()).await.expect("its own subject");
            self.client.flush().await.expect("the server answers");
        });
    }

    /// Runs something on its connection.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// The next offer, if one comes so soon; cancels are passed over.
    pub fn offer_within(&mut self, wait: Duration) -> Option<JobOffer> {
        let offers = &mut self.offers;
        let next = async {
            loop {
                let message = offers.next().await?;
                if message.subject.ends_with(".offer") {
                    return Some(serde_json::from_slice(&message.payload).expect("an offer is JSON"));
                }
            }
        };
        self.runtime.block_on(async { tokio::time::timeout(wait, next).await }).ok().flatten()
    }

    /// Sends messages on an attempt's result subject, in order.
    pub fn send(&self, offer: &JobOffer, messages: &[ResultMessage]) {
        let subject = result_subject(&self.operator, &self.node, &offer.gateway, &offer.job, offer.attempt);
        self.runtime.block_on(async {
            for message in messages {
                let bytes = serde_json::to_vec(message).expect("messages have a JSON form");
                self.client.publish(subject.clone(), bytes.into()).await.expect("its own subject");
            }
            self.client.flush().await.expect("the server answers");
        });
    }

    /// Takes the job.
    pub fn accept(&self, offer: &JobOffer) {
        self.send(offer, &[ResultMessage::Accept { attempt: offer.attempt }]);
    }

    /// A receipt that says what it must, for so many tokens; whether it is true is another matter.
    pub fn receipt(&self, offer: &JobOffer, input_tokens: u64, output_tokens: u64) -> Receipt {
        Receipt {
            version: 1,
            job: offer.job,
            attempt: offer.attempt,
            node: self.node,
            operator: self.operator,
            weights: offer.weights,
            numerics: "counterfoil-numerics-1".to_owned(),
            proof_class: protocol::rate::ProofClass::ReExecutable,
            body: offer.body_commitment,
            input_tokens,
            output_tokens,
            output: Hash32([9; 32]),
            chain_head: Hash32([output_tokens as u8; 32]),
            finish: Finish::Stop,
            started_us: 1,
            ended_us: 2,
            backend: "hostile".to_owned(),
        }
    }

    /// Signed by its own key.
    pub fn sign(&self, receipt: &Receipt) -> Vec<u8> {
        sign_with(&self.key, receipt)
    }

    /// The end of an answer with this receipt.
    pub fn done(frames: u64, signed: &[u8]) -> ResultMessage {
        ResultMessage::Done { seq: frames, receipt: data_encoding::BASE64.encode(signed) }
    }

    /// Puts a receipt on the receipt subject, as a late copy would come.
    pub fn publish_receipt(&self, offer: &JobOffer, signed: Vec<u8>) {
        let subject = receipt_subject(&self.operator, &offer.job, offer.attempt);
        self.runtime.block_on(async {
            self.client.publish(subject, signed.into()).await.expect("its own subject");
            self.client.flush().await.expect("the server answers");
        });
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.beats.abort();
    }
}

/// A receipt signed by any key.
pub fn sign_with(key: &KeyPair, receipt: &Receipt) -> Vec<u8> {
    let signed = receipt.sign(|bytes| {
        let signature = key.sign(bytes).expect("a pair with its seed signs");
        signature.try_into().expect("64 bytes")
    });
    signed.to_bytes()
}

/// A frame of one token each.
pub fn frame(seq: u64, id: u32) -> ResultMessage {
    let chain = Hash32([seq as u8 + 1; 32]);
    ResultMessage::Frame(Frame { seq, ids: vec![id], text: String::new(), chain, logprobs: Vec::new() })
}

/// Connects with a JWT and the key that should stand behind it.
pub async fn connect(
    url: &str,
    jwt: &str,
    key: &Arc<KeyPair>,
    operator: &OperatorId,
) -> Result<Client, async_nats::ConnectError> {
    let signer = Arc::clone(key);
    async_nats::ConnectOptions::with_jwt(jwt.to_owned(), move |nonce| {
        let signer = Arc::clone(&signer);
        async move { signer.sign(&nonce).map_err(async_nats::AuthError::new) }
    })
    .custom_inbox_prefix(format!("_INBOX_{operator}"))
    .connect(url)
    .await
}

async fn beat(client: Client, operator: OperatorId, node: NodeId) {
    let mut tick = tokio::time::interval(Duration::from_millis(HEARTBEAT_MS / 2));
    for seq in 0.. {
        tick.tick().await;
        let bytes = heartbeat(node, seq, Draining::No);
        if client.publish(heartbeat_subject(&operator, &node), bytes.into()).await.is_err() {
            return;
        }
    }
}

#[derive(PartialEq)]
enum Draining {
    Yes,
    No,
}

fn heartbeat(node: NodeId, seq: u64, draining: Draining) -> Vec<u8> {
    let beat = Heartbeat {
        protocol: JOB_PROTOCOL,
        node,
        seq,
        inflight: 0,
        slots: 4,
        models: vec![MODEL.to_owned()],
        draining: draining == Draining::Yes,
    };
    serde_json::to_vec(&beat).expect("a heartbeat has a JSON form")
}
