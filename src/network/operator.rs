//! The operator of the worker that `up` starts: registered through the API like anybody's, configured by files like
//! anybody's, run as a process of its own.

use super::secrets::{ChainRoles, load_or_create, write_secret};
use super::supervisor::Supervised;
use crate::story::http::Http;
use anyhow::{Context, Result};
use dispatcher::doors::{DoorError, DoorFuture, OperatorCredentials, OperatorIssuer, ProofDoor};
use journal::auth::Keys;
use journal::server::NatsServer;
use journal::transparency::{TransparencyError, TransparencyHandle};
use ledger::preset::Preset;
use protocol::id::{NodeId, OperatorId};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use worker::WorkerConfig;
use worker::config::{ModelConfig, NodeConfig};
use worker::keys::{NodeKey, OperatorKey};

/// Jobs at once.
const SLOTS: u32 = 4;
/// How long the node may take to be routed: a worker that an earlier run left behind first finishes what it has.
const ROUTED_WAIT: Duration = Duration::from_secs(150);

/// Issues operators' NATS credentials.
pub struct Issuer {
    keys: Keys,
    nats_url: String,
}

impl Issuer {
    /// With the server's own keys.
    pub fn new(nats: &NatsServer, data: &Path) -> Result<Issuer> {
        Ok(Issuer { keys: Keys::load_or_create(&data.join("keys"))?, nats_url: nats.url() })
    }
}

impl OperatorIssuer for Issuer {
    fn issue(&self, operator: &OperatorId) -> DoorFuture<'_, OperatorCredentials> {
        let jwt = self.keys.issue_operator(&operator.to_string());
        Box::pin(async move {
            let jwt = jwt.map_err(|e| DoorError::Unavailable(e.to_string()))?;
            Ok(OperatorCredentials { jwt, nats_url: self.nats_url.clone() })
        })
    }
}

/// Inclusion proofs from the transparency log.
pub struct Proofs(pub TransparencyHandle);

impl ProofDoor for Proofs {
    fn inclusion(&self, leaf: u64) -> DoorFuture<'_, Option<Value>> {
        Box::pin(async move {
            match self.0.proof_file(leaf).await {
                Ok(proof) => Ok(Some(json!({"leaf": leaf, "tlog_proof": proof.text()}))),
                Err(TransparencyError::NotCovered { .. }) => Ok(None),
                Err(error) => Err(DoorError::Unavailable(error.to_string())),
            }
        })
    }
}

/// Where the operator registers and what it serves.
pub struct Desk<'a> {
    pub data: &'a Path,
    pub gateway_url: &'a str,
    pub nats_url: &'a str,
    pub model: &'a Path,
}

/// Registers once, writes the configuration, starts the worker and waits until its node is routed.
pub async fn start_worker(desk: Desk<'_>, roles: &ChainRoles, preset: &Preset) -> Result<Supervised> {
    let dir = desk.data.join("worker");
    std::fs::create_dir_all(&dir)?;
    let http = Http::new(desk.gateway_url);
    let seed = load_or_create(&dir.join("operator.seed"), || {
        nkeys::KeyPair::new_user().seed().map_err(|e| anyhow::anyhow!("operator key: {e}"))
    })?;
    let operator = OperatorKey::from_seed(&seed)?.operator();
    let api_key = operator_account(&http, &dir).await?;
    let http = http.with_key(&api_key);
    let payout = roles.operator.address().to_string().to_lowercase();
    let registered = http
        .post("/v1/operators", json!({"operator": operator, "payout_address": payout}))
        .await
        .context("registering the operator")?;
    let jwt = registered["nats_jwt"].as_str().context("no JWT in the operator's registration")?;
    write_secret(&dir.join("operator.jwt"), jwt)?;
    let models: Vec<String> = preset.rate_card.models.iter().map(|rate| rate.model.clone()).collect();
    let node = register_node(&http, &dir, &operator, &models).await?;
    let config = write_config(&desk, &dir, node, models)?;
    let log = std::fs::File::options().create(true).append(true).open(dir.join("worker.log"))?;
    let arguments =
        ["worker", "run", "--config"].map(Into::into).into_iter().chain([config.into()]).collect();
    let worker = Supervised::start(std::env::current_exe()?.into(), arguments, log)?;
    wait_routed(&http, &dir).await?;
    Ok(worker)
}

async fn operator_account(http: &Http, dir: &Path) -> Result<String> {
    let path = dir.join("account.key");
    if !path.exists() {
        let opened = http.post("/v1/accounts", json!({})).await.context("opening the operator's account")?;
        write_secret(&path, opened["api_key"].as_str().context("no key in the answer")?)?;
    }
    load_or_create(&path, || anyhow::bail!("{} vanished", path.display()))
}

/// The node's id is ours to choose; its key lies where the worker looks for it.
async fn register_node(http: &Http, dir: &Path, operator: &OperatorId, models: &[String]) -> Result<NodeId> {
    let id = load_or_create(&dir.join("node.id"), || Ok(NodeId(super::secrets::random_id()?).to_string()))?;
    let node: NodeId = id.parse()?;
    let sealing_key = NodeKey::open_or_create(&dir.join("data"), &node)?.public();
    let body = json!({"node": node, "operator": operator, "models": models, "slots": SLOTS, "sealing_key": sealing_key});
    http.post("/v1/nodes", body).await.context("registering the node")?;
    Ok(node)
}

fn write_config(desk: &Desk<'_>, dir: &Path, node: NodeId, models: Vec<String>) -> Result<PathBuf> {
    let path = desk.model.canonicalize().with_context(|| desk.model.display().to_string())?;
    let builtin = |name| ModelConfig::Builtin { name, path: path.clone() };
    let config = WorkerConfig {
        nats_url: desk.nats_url.to_owned(),
        operator_seed_file: "operator.seed".into(),
        operator_jwt_file: "operator.jwt".into(),
        data_dir: "data".into(),
        metrics: None,
        threads: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        nodes: vec![NodeConfig { id: node, slots: SLOTS, models: models.into_iter().map(builtin).collect() }],
    };
    let file = dir.join("worker.toml");
    std::fs::write(&file, toml::to_string(&config)?)?;
    Ok(file)
}

async fn wait_routed(http: &Http, dir: &Path) -> Result<()> {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let routed = async {
        loop {
            tick.tick().await;
            if http.get("/readyz").await.is_ok() {
                return;
            }
        }
    };
    let log = dir.join("worker.log");
    let waited = tokio::time::timeout(ROUTED_WAIT, routed).await;
    waited.with_context(|| format!("the worker's node is not routed; its log is {}", log.display()))
}
