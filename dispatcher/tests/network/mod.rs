//! A real nats-server, a real ledger on it, a gateway before it, and workers that do what a test tells them.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod http;
pub mod worker;

use dispatcher::{
    DoorError, DoorFuture, Gateway, GatewayOptions, OperatorCredentials, OperatorIssuer, ServedModel, seal,
};
use journal::auth::{Keys, Role, connect};
use journal::server::{NatsServer, NatsServerOptions, PortChoice, find_nats_server};
use journal::stream::init_streams;
use journal::{Journal, JournalOptions, LedgerClient};
use kernels::Tokenizer;
use ledger::command::{Command, CommandBody, PublishRateCard};
use ledger::query::{self, JobView};
use protocol::amount::Amount;
use protocol::asset::{Asset, AssetId};
use protocol::event::Actor;
use protocol::event::policy::{NetworkOpened, Settings};
use protocol::id::{AccountId, Hash32, IdempotencyKey, JobId, OperatorId};
use protocol::rate::{ModelRate, ProofClass, RateCard, Unit};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tempfile::TempDir;

pub const MODEL: &str = "smol";
pub const WEIGHTS: Hash32 = Hash32([7; 32]);
pub const ADMIN_KEY: &str = "admin-key-of-the-test";
pub const AUDIT_SECRET: [u8; 32] = [6; 32];
/// Base units a token costs.
pub const PRICE: i128 = 4_000;
const SECOND_US: u64 = 1_000_000;
/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub static SERVED: LazyLock<ServedModel> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let (tokenizer, template, _) = Tokenizer::from_gguf(&path).expect("run cargo xtask tools");
    ServedModel { model: MODEL.to_owned(), tokenizer, template }
});

pub struct Network {
    pub dir: TempDir,
    pub server: NatsServer,
    pub journal: Journal,
    keys: Arc<Keys>,
}

struct Issuer {
    keys: Arc<Keys>,
    url: String,
}

impl OperatorIssuer for Issuer {
    fn issue(&self, operator: &OperatorId) -> DoorFuture<'_, OperatorCredentials> {
        let jwt = self.keys.issue_operator(&operator.to_string());
        let nats_url = self.url.clone();
        Box::pin(async move {
            let jwt = jwt.map_err(|e| DoorError::Refused(e.to_string()))?;
            Ok(OperatorCredentials { jwt, nats_url })
        })
    }
}

impl Network {
    pub async fn start() -> Network {
        let dir = tempfile::tempdir().unwrap();
        let binary = find_nats_server().expect("run cargo xtask tools");
        let data_dir = dir.path().join("broker");
        let options = NatsServerOptions { binary, data_dir: data_dir.clone(), port: PortChoice::Any };
        let server = NatsServer::start(options).await.unwrap();
        let init = connect(&server.url(), &server.keys().init_credentials().unwrap()).await.unwrap();
        init_streams(&init).await.unwrap();
        let keys = Arc::new(Keys::load_or_create(&data_dir.join("keys")).unwrap());
        let writer = server.keys().credentials(Role::Writer).clone();
        let mut options = JournalOptions::new(server.url(), writer, dir.path().join("ledger"));
        options.genesis = Some(genesis());
        let journal = Journal::open(options).await.unwrap();
        let network = Network { dir, server, journal, keys };
        network.submit(PublishRateCard { card: rate_card() }).await;
        network
    }

    pub async fn gateway(&self) -> Gateway {
        let gateway =
            connect(&self.server.url(), self.server.keys().credentials(Role::Gateway)).await.unwrap();
        Gateway::start(self.options(gateway)).await.unwrap()
    }

    pub fn options(&self, nats: async_nats::Client) -> GatewayOptions {
        GatewayOptions {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            name: "gw1".to_owned(),
            client: self.journal.client(),
            nats,
            models: vec![SERVED.clone()],
            data_dir: self.access_dir(),
            audit_sealing_key: seal::public_key(&AUDIT_SECRET),
            admin_key: ADMIN_KEY.to_owned(),
            auditor_key: None,
            chain: None,
            operators: Some(Arc::new(Issuer { keys: self.keys.clone(), url: self.server.url() })),
            proofs: None,
            lane: "prepaid".to_owned(),
            readings: Arc::new(Vec::new),
            routing: dispatcher::router::TableOptions::open(),
            pages: None,
            welcome: None,
            verifier: None,
        }
    }

    pub fn access_dir(&self) -> PathBuf {
        self.dir.path().join("access")
    }

    pub fn client(&self) -> LedgerClient {
        self.journal.client()
    }

    pub async fn submit(&self, body: impl Into<CommandBody>) {
        let body = body.into();
        let key = IdempotencyKey::internal("test", &[format!("{body:?}").as_bytes()]);
        let command = Command::new(key, Actor::Admin, body);
        self.client().submit(command).await.unwrap();
    }

    pub async fn job(&self, job: JobId) -> JobView {
        self.client().read(move |state| query::job(state, job)).await.unwrap().unwrap()
    }

    pub async fn open_jobs(&self) -> usize {
        self.client().read(|state| query::open_jobs(state).len()).await.unwrap()
    }

    /// Available and held, base units.
    pub async fn balance(&self, account: AccountId) -> (i128, i128) {
        let client = self.client();
        let read = client.read(move |state| query::balance(state, account, u64::MAX / 2));
        read.await.unwrap().first().map_or((0, 0), |b| (b.available.0, b.held.0))
    }
}

/// Waits until something is so.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let until = tokio::time::Instant::now() + PATIENCE;
    let mut looks = tokio::time::interval(Duration::from_millis(20));
    while !is_so().await {
        assert!(tokio::time::Instant::now() < until, "never came: {what}");
        looks.tick().await;
    }
}

/// An account opened over HTTP, with `credit` base units granted.
#[derive(Clone)]
pub struct Customer {
    pub account: AccountId,
    pub key: String,
    pub address: SocketAddr,
}

impl Customer {
    pub async fn open(address: SocketAddr, credit: i128) -> Customer {
        let opened = http::post(address, "/v1/accounts", None, &json!({})).await;
        assert_eq!(opened.status, 201, "{}", opened.text());
        let body = opened.json();
        let account: AccountId = body["account"].as_str().unwrap().parse().unwrap();
        let customer = Customer { account, key: body["api_key"].as_str().unwrap().to_owned(), address };
        if credit > 0 {
            let amount = Amount(credit).to_decimal_string(9);
            let grant = json!({ "account": account, "amount": amount });
            let granted = http::post(address, "/v1/admin/grants", Some(ADMIN_KEY), &grant).await;
            assert_eq!(granted.status, 201, "{}", granted.text());
        }
        customer
    }

    pub async fn chat(&self, extra: Value) -> http::Answer {
        http::post(self.address, "/v1/chat/completions", Some(&self.key), &chat(extra)).await
    }

    pub async fn get(&self, path: &str) -> http::Answer {
        http::request(self.address, "GET", path, Some(&self.key), &[], b"").await
    }
}

pub fn chat(extra: Value) -> Value {
    let mut body = json!({
        "model": MODEL,
        "messages": [{ "role": "user", "content": "Say hello to canary-prompt." }],
        "max_tokens": 32,
    });
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

pub fn job_of(answer: &http::Answer) -> JobId {
    answer.header("x-counterfoil-job-id").expect("a job id").parse().unwrap()
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
        price: Amount(PRICE),
        per_units: 1,
        operator_share_ppm: 800_000,
        context_tokens: 2_048,
    };
    RateCard { version: 1, effective_us: 0, headroom_ppm: 150_000, models: vec![rate] }
}

fn genesis() -> NetworkOpened {
    NetworkOpened {
        origin: "counterfoil.example/test/0".into(),
        preset: "test".into(),
        preset_hash: Hash32([1; 32]),
        assets: vec![Asset { id: AssetId(0), symbol: "CRED".into(), ledger_scale: 9, chain_scale: None }],
        settings: Settings {
            epoch_us: 6 * 3_600 * SECOND_US,
            hold_grace_us: SECOND_US,
            job_deadline_us_max: 60 * SECOND_US,
            idempotency_us: 24 * 3_600 * SECOND_US,
            settle_units_min: 0,
            voucher_us: 3_600 * SECOND_US,
            authorisation_margin_epochs: 2,
            capture_tolerance_ppm: None,
        },
    }
}
