//! What the measurement stands on: a broker, a ledger, a gateway, a customer with credit, an operator with nodes.

use super::GatewayOptions;
use super::worker::{Manner, Stamps, ZeroWorker};
use crate::journal::setup::open_journal;
use crate::raw::start_server;
use crate::{BenchError, Tried};
use dispatcher::router::TableOptions;
use dispatcher::{Gateway, GatewayOptions as Door, ServedModel, seal};
use journal::Journal;
use journal::auth::{Role, connect};
use journal::server::NatsServer;
use kernels::Tokenizer;
use ledger::command::{Command, CommandBody, OpenAccount, PublishRateCard};
use nkeys::KeyPair;
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::Actor;
use protocol::event::node::{NodeRegistered, OperatorRegistered};
use protocol::id::{AccountId, EvmAddress, Hash32, IdempotencyKey, NodeId, OperatorId, SealingKey};
use protocol::rate::{ModelRate, ProofClass, RateCard, Unit};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};

pub const MODEL: &str = "zero-work";
const WEIGHTS: Hash32 = Hash32([7; 32]);
const ADMIN_KEY: &str = "bench-admin-key";
const SLOTS: u32 = 4_096;
const SECRET: [u8; 32] = [6; 32];
const OWNER: AccountId = AccountId([8; 16]);
/// Node number of the one that lives.
const LASTING: u8 = 255;
/// How long anything may take to be there.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Network {
    pub address: SocketAddr,
    pub api_key: String,
    pub stamps: Stamps,
    manner: watch::Sender<Manner>,
    lasting: Arc<ZeroWorker>,
    signer: Arc<KeyPair>,
    jwt: String,
    token: u32,
    gateway: Gateway,
    journal: Journal,
    server: NatsServer,
    _dir: TempDir,
}

impl Network {
    pub async fn start(options: &GatewayOptions) -> Result<Network, BenchError> {
        let dir = tempfile::tempdir_in(&options.dir).tried("make a folder")?;
        let server = start_server(&dir.path().join("broker")).await?;
        let journal = open_journal(&server, dir.path().join("ledger")).await?;
        let (tokenizer, template, _) =
            Tokenizer::from_gguf(&options.model).tried("read the model's tokenizer")?;
        let token = single_token(&tokenizer)?;
        submit(&journal, PublishRateCard { card: rate_card() }).await?;
        let served = ServedModel { model: MODEL.to_owned(), tokenizer, template };
        let gateway = start_gateway(&server, &journal, dir.path(), served).await?;
        let address = gateway.local_addr();
        let signer = Arc::new(KeyPair::new_user());
        let operator: OperatorId = signer.public_key().parse().tried("an operator's id")?;
        submit(&journal, OpenAccount { account: OWNER }).await?;
        let payout_address = EvmAddress([4; 20]);
        submit(&journal, OperatorRegistered { operator, account: OWNER, payout_address }).await?;
        let jwt = server.keys().issue_operator(&signer.public_key()).tried("issue credentials")?;
        let api_key = funded(address).await?;
        let (manner, _) = watch::channel(Manner::AtOnce);
        let stamps = Stamps::default();
        let seed = Seed { server: &server, journal: &journal, signer: &signer, jwt: &jwt, token };
        let lasting = seed.node(LASTING, SLOTS, manner.subscribe(), stamps.clone()).await?;
        let lasting = Arc::new(lasting);
        tokio::spawn(Arc::clone(&lasting).serve());
        let network = Network {
            address,
            api_key,
            stamps,
            manner,
            lasting,
            signer,
            jwt,
            token,
            gateway,
            journal,
            server,
            _dir: dir,
        };
        network.until_why(network.lasting.node, "eligible").await?;
        Ok(network)
    }

    pub fn manner(&self, manner: Manner) {
        self.manner.send_replace(manner);
    }

    /// Ends the streams that wait.
    pub fn let_go(&self) {
        self.manner.send_replace(Manner::AtOnce);
    }

    /// When the worker heard that a job shall stop.
    pub async fn cancelled(&self, job: &str) -> Result<Instant, BenchError> {
        let wait = async {
            loop {
                let news = self.stamps.news.notified();
                tokio::pin!(news);
                news.as_mut().enable();
                if let Some(at) = self.stamps.cancelled(job) {
                    return at;
                }
                news.await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.tried("wait for a cancel")
    }

    /// A node that dies at its first job, alone in taking jobs until then. Tells when it died.
    pub async fn mortal(&self, number: u8) -> Result<oneshot::Receiver<Instant>, BenchError> {
        self.lasting.draining.store(true, Ordering::Relaxed);
        self.lasting.beat().await;
        self.until_why(self.lasting.node, "draining").await?;
        let (death, died) = oneshot::channel();
        let (server, journal) = (&self.server, &self.journal);
        let seed = Seed { server, journal, signer: &self.signer, jwt: &self.jwt, token: self.token };
        let mut mortal = seed.node(number, 1, self.manner.subscribe(), self.stamps.clone()).await?;
        mortal.death = Mutex::new(Some(death));
        mortal.heir = Some(Arc::clone(&self.lasting));
        let node = mortal.node;
        self.manner(Manner::AtOnce);
        tokio::spawn(Arc::new(mortal).serve());
        self.until_why(node, "eligible").await?;
        Ok(died)
    }

    async fn until_why(&self, node: NodeId, reason: &str) -> Result<(), BenchError> {
        let path = format!("/v1/nodes/{node}");
        let mut looks = tokio::time::interval(Duration::from_millis(10));
        let wait = async {
            loop {
                looks.tick().await;
                if let Ok(told) = call(self.address, "GET", &path, "", &Value::Null).await
                    && told["why"][MODEL] == reason
                {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.tried("wait for a node's standing")
    }

    pub async fn stop(self) -> Result<(), BenchError> {
        self.gateway.shutdown().await;
        self.journal.shutdown().await.tried("shut the journal down")?;
        let mut server = self.server;
        server.stop().await.tried("stop nats-server")
    }
}

/// What nodes are made with.
struct Seed<'a> {
    server: &'a NatsServer,
    journal: &'a Journal,
    signer: &'a Arc<KeyPair>,
    jwt: &'a str,
    token: u32,
}

impl Seed<'_> {
    async fn node(
        &self,
        number: u8,
        slots: u32,
        manner: watch::Receiver<Manner>,
        stamps: Stamps,
    ) -> Result<ZeroWorker, BenchError> {
        let operator: OperatorId = self.signer.public_key().parse().tried("an operator's id")?;
        let (node, models) = (NodeId([number; 16]), vec![MODEL.to_owned()]);
        let sealing_key: SealingKey = seal::public_key(&SECRET);
        let registered = NodeRegistered { node, operator, models: models.clone(), slots, sealing_key };
        submit(self.journal, registered).await?;
        let signer = Arc::clone(self.signer);
        let client = async_nats::ConnectOptions::with_jwt(self.jwt.to_owned(), move |nonce| {
            let signer = signer.clone();
            async move { signer.sign(&nonce).map_err(async_nats::AuthError::new) }
        })
        .custom_inbox_prefix(format!("_INBOX_{operator}"))
        .connect(self.server.url())
        .await
        .tried("connect as operator")?;
        let (cancels, _) = watch::channel(0);
        Ok(ZeroWorker {
            client,
            operator,
            node,
            signer: Arc::clone(self.signer),
            sealing_secret: SECRET,
            slots,
            token: self.token,
            models,
            manner,
            stamps,
            cancels,
            draining: AtomicBool::new(false),
            routed: watch::Sender::new(false),
            beats: AtomicU64::new(0),
            death: Mutex::new(None),
            heir: None,
        })
    }
}

async fn start_gateway(
    server: &NatsServer,
    journal: &Journal,
    dir: &Path,
    served: ServedModel,
) -> Result<Gateway, BenchError> {
    let nats =
        connect(&server.url(), server.keys().credentials(Role::Gateway)).await.tried("connect as gateway")?;
    let options = Door {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        name: "bench".to_owned(),
        client: journal.client(),
        nats,
        models: vec![served],
        data_dir: dir.join("access"),
        audit_sealing_key: seal::public_key(&[5; 32]),
        admin_key: ADMIN_KEY.to_owned(),
        auditor_key: None,
        chain: None,
        operators: None,
        proofs: None,
        lane: "prepaid".to_owned(),
        readings: Arc::new(Vec::new),
        pages: None,
        welcome: None,
        routing: TableOptions::open(),
        verifier: None,
    };
    Gateway::start(options).await.tried("start the gateway")
}

async fn submit(journal: &Journal, body: impl Into<CommandBody>) -> Result<(), BenchError> {
    let body = body.into();
    let key = IdempotencyKey::internal("bench", &[format!("{body:?}").as_bytes()]);
    journal
        .client()
        .submit(Command::new(key, Actor::Admin, body))
        .await
        .map(drop)
        .tried("carry out a command")
}

/// An account with a great deal of credit; its key.
async fn funded(address: SocketAddr) -> Result<String, BenchError> {
    let opened = call(address, "POST", "/v1/accounts", "", &json!({})).await?;
    let grant = json!({ "account": opened["account"], "amount": "1000000000" });
    call(address, "POST", "/v1/admin/grants", ADMIN_KEY, &grant).await?;
    Ok(opened["api_key"].as_str().unwrap_or_default().to_owned())
}

/// One call on a connection of its own.
async fn call(
    address: SocketAddr,
    method: &str,
    path: &str,
    key: &str,
    body: &Value,
) -> Result<Value, BenchError> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.tried("connect to the gateway")?;
    stream.write_all((head + &body).as_bytes()).await.tried("send a call")?;
    let mut all = String::new();
    stream.read_to_string(&mut all).await.tried("read an answer")?;
    let (head, body) = all.split_once("\r\n\r\n").unwrap_or_default();
    if !head.starts_with("HTTP/1.1 2") {
        return Err(BenchError::failed("a call")(format!("{method} {path}: {all}")));
    }
    serde_json::from_str(body).tried("read an answer's JSON")
}

/// A token that is an `x` and nothing else.
fn single_token(tokenizer: &Tokenizer) -> Result<u32, BenchError> {
    let ids = tokenizer.encode("x");
    match ids[..] {
        [id] => Ok(id),
        _ => Err(BenchError::failed("the tokenizer")(format!("\"x\" is {} tokens, not one", ids.len()))),
    }
}

fn rate_card() -> RateCard {
    let rate = ModelRate {
        model: MODEL.to_owned(),
        weights: WEIGHTS,
        tokenizer: Hash32([8; 32]),
        template: Hash32([9; 32]),
        licence: "Apache-2.0".to_owned(),
        proof_class: ProofClass::ReExecutable,
        asset: AssetId(0),
        unit: Unit::Token,
        price: Amount(4_000),
        per_units: 1,
        operator_share_ppm: 800_000,
        context_tokens: 2_048,
    };
    RateCard { version: 1, effective_us: 0, headroom_ppm: 150_000, models: vec![rate] }
}
