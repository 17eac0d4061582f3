//! A running worker: what it is made of, how it starts, what it is asked.

use crate::backend::Backend;
use crate::backend::builtin::{Builtin, BuiltinOptions};
use crate::backend::openai::{OpenAi, OpenAiOptions};
use crate::connection::{ConnectRequest, EVENTS_WAITING_MAX, connect};
use crate::error::WorkerError;
use crate::keys::{NodeKey, OperatorKey, jwt_subject};
use crate::metrics::{self, Counters};
use crate::node::{Node, NodeParts};
use crate::outbox::{self, OutboxOptions};
use crate::{control, subscribe};
use async_nats::{Client, Event};
use protocol::id::{NodeId, OperatorId, SealingKey};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Most nodes of one worker: each takes a subscription, and a credential has a bounded number of them.
const NODES_MAX: usize = 64;
/// Most jobs at once that a node may declare.
const SLOTS_MAX: u32 = 1_024;

/// Everything a worker is started with. [`crate::WorkerConfig`] makes it from a file.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// `nats://HOST:PORT`, several separated by commas.
    pub nats_url: String,
    /// The operator's key.
    pub operator_key: OperatorKey,
    /// The user JWT that the network issued to that key.
    pub operator_jwt: String,
    /// Node keys, receipts not yet acknowledged, the control socket. One worker at a time.
    pub data_dir: PathBuf,
    /// At least one.
    pub nodes: Vec<NodeOptions>,
    /// Threads that compute, for each model file.
    pub threads: u32,
    /// Loopback address of `/metrics`, `/healthz` and `/readyz`; `None` for none.
    pub metrics: Option<SocketAddr>,
}

/// One node.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Its id from registration.
    pub id: NodeId,
    /// Jobs at once.
    pub slots: u32,
    /// At least one.
    pub models: Vec<ModelOptions>,
}

/// One model of a node.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    /// Its name on the rate card.
    pub name: String,
    /// What runs it.
    pub backend: BackendOptions,
}

/// What runs a model.
#[derive(Clone, Debug)]
pub enum BackendOptions {
    /// Our kernels.
    Builtin {
        /// The GGUF file.
        path: PathBuf,
    },
    /// An OpenAI-compatible server.
    OpenAi(OpenAiOptions),
}

/// What a worker says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Whose worker.
    pub operator: OperatorId,
    /// Whether the server is connected now.
    pub connected: bool,
    /// No new jobs.
    pub draining: bool,
    /// Receipts that the network has not acknowledged yet.
    pub receipts_unsent: u64,
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
}

/// What a worker says about one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// Public key that job bodies are sealed to; registration takes it.
    pub sealing_key: SealingKey,
    /// Jobs running now.
    pub inflight: u32,
    /// Jobs it can run at once.
    pub slots: u32,
    /// By their names on the rate card.
    pub models: Vec<String>,
    /// Why a gateway does or does not route it, by model, as it said last.
    pub why: BTreeMap<String, String>,
}

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Receipts that the network had not acknowledged; they are on disk and the next start sends them.
    pub receipts_unsent: u64,
}

/// A worker that takes jobs. Dropping it stops it at once; [`Worker::run`] and [`WorkerHandle::drain`] end it well.
pub struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tasks: JoinSet<()>,
    _lock: File,
}

/// Asks a running worker.
#[derive(Clone)]
pub struct WorkerHandle {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) operator: OperatorId,
    pub(crate) client: Client,
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) drain: watch::Sender<bool>,
    pub(crate) unsent: watch::Receiver<usize>,
    pub(crate) counters: Arc<Counters>,
    /// Where the metrics port really is.
    pub(crate) metrics_address: Option<SocketAddr>,
}

impl Worker {
    /// Loads the models, connects and takes jobs. Waits as long as the server cannot be reached.
    ///
    /// # Errors
    /// Any [`WorkerError`]; in particular refused credentials, models that do not load and a data directory in use.
    pub async fn start(options: WorkerOptions) -> Result<Worker, WorkerError> {
        check(&options)?;
        fs::create_dir_all(&options.data_dir).map_err(|e| WorkerError::file(&options.data_dir, e))?;
        let lock = lock(&options.data_dir)?;
        let for_loading = options.clone();
        let loading = tokio::task::spawn_blocking(move || load_models(&for_loading)).await;
        let backends = loading.map_err(|e| WorkerError::Options(format!("loading the models: {e}")))??;
        let (events, event_queue) = mpsc::channel(EVENTS_WAITING_MAX);
        let client = connect(&ConnectRequest {
            url: &options.nats_url,
            key: &options.operator_key,
            jwt: &options.operator_jwt,
            name: "counterfoil worker",
            events,
        })
        .await?;
        let (connects_sender, connects) = watch::channel(0);
        let (outbox, sender) = outbox::open(OutboxOptions {
            dir: options.data_dir.join("receipts"),
            operator: options.operator_key.operator(),
            client: client.clone(),
            connects,
        })?;
        let (drain, draining) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(watch_connection(event_queue, connects_sender));
        tasks.spawn(sender.run());
        let unsent = outbox.unsent();
        let counters = Arc::<Counters>::default();
        let metrics_port = match options.metrics {
            Some(address) => Some(metrics::bind(address).await?),
            None => None,
        };
        let metrics_address = metrics_port.as_ref().and_then(|port| port.local_addr().ok());
        let mut nodes = Vec::with_capacity(options.nodes.len());
        for node in &options.nodes {
            let parts = NodeParts {
                id: node.id,
                outbox: outbox.clone(),
                counters: Arc::clone(&counters),
                operator: options.operator_key.clone(),
                sealing: NodeKey::open_or_create(&options.data_dir, &node.id)?,
                models: node.models.iter().map(|m| (m.name.clone(), backends[&key_of(m)].clone())).collect(),
                slot_count: node.slots,
                draining: draining.clone(),
                client: client.clone(),
            };
            nodes.push(Arc::new(Node::new(parts)));
        }
        let operator = options.operator_key.operator();
        let shared = Shared { operator, client, nodes, drain, unsent, counters, metrics_address };
        let mut worker = Worker { shared: Arc::new(shared), tasks, _lock: lock };
        worker.listen(&options.data_dir, draining).await?;
        if let Some(port) = metrics_port {
            let handle = worker.handle();
            worker.tasks.spawn(metrics::serve(port, handle));
        }
        Ok(worker)
    }

    async fn listen(&mut self, data_dir: &Path, draining: watch::Receiver<bool>) -> Result<(), WorkerError> {
        let client = &self.shared.client;
        for node in &self.shared.nodes {
            let messages = subscribe::subscribe(client, node).await?;
            self.tasks.spawn(subscribe::listen(messages, Arc::clone(node)));
            self.tasks.spawn(subscribe::beat(client.clone(), Arc::clone(node), draining.clone()));
        }
        // Offers that come after this returns must find the subscriptions.
        client.flush().await.map_err(|e| WorkerError::Nats(e.to_string()))?;
        self.tasks.spawn(control::serve(control::bind(data_dir)?, self.handle()));
        Ok(())
    }

    /// A handle for other tasks.
    pub fn handle(&self) -> WorkerHandle {
        WorkerHandle { shared: Arc::clone(&self.shared) }
    }
}

impl WorkerHandle {
    /// Asks the worker to take no new jobs, finish those it has and end. Returns at once.
    pub fn drain(&self) {
        self.shared.drain.send_replace(true);
    }

    /// Where `/metrics` is, with the port that the system chose for 0.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.shared.metrics_address
    }

    /// What it does now.
    pub fn status(&self) -> Status {
        let shared = &self.shared;
        let nodes = shared.nodes.iter().map(|node| NodeStatus {
            node: node.id,
            sealing_key: node.sealing().public(),
            inflight: node.inflight(),
            slots: node.slot_count(),
            models: node.model_names(),
            why: node.why(),
        });
        Status {
            operator: shared.operator,
            connected: shared.client.connection_state() == async_nats::connection::State::Connected,
            draining: *shared.drain.borrow(),
            receipts_unsent: *shared.unsent.borrow() as u64,
            nodes: nodes.collect(),
        }
    }
}

/// Everything about the options that can be said without touching anything.
pub(crate) fn check(options: &WorkerOptions) -> Result<(), WorkerError> {
    let refuse = |what: String| Err(WorkerError::Options(what));
    let owner = jwt_subject(&options.operator_jwt)?;
    if owner != options.operator_key.operator() {
        let ours = options.operator_key.operator();
        return Err(WorkerError::Jwt(format!("it was issued to {owner}, the seed is {ours}'s")));
    }
    if options.nodes.is_empty() || options.nodes.len() > NODES_MAX {
        return refuse(format!("expected 1 to {NODES_MAX} [[nodes]], found {}", options.nodes.len()));
    }
    if options.threads == 0 {
        return refuse("threads must be at least 1".into());
    }
    let mut ids = BTreeSet::new();
    for node in &options.nodes {
        if !ids.insert(node.id) {
            return refuse(format!("{} is listed twice", node.id));
        }
        if node.slots == 0 || node.slots > SLOTS_MAX {
            return refuse(format!("{}: slots must be 1 to {SLOTS_MAX}, found {}", node.id, node.slots));
        }
        let names: BTreeSet<_> = node.models.iter().map(|m| &m.name).collect();
        if names.is_empty() || names.len() != node.models.len() {
            return refuse(format!("{}: expected one or more models with different names", node.id));
        }
    }
    Ok(())
}

/// Models with the same key are one backend.
fn key_of(model: &ModelOptions) -> String {
    match &model.backend {
        BackendOptions::Builtin { path } => format!("builtin {}", path.display()),
        BackendOptions::OpenAi(options) => format!("openai {} {}", options.url, options.model),
    }
}

/// Each backend once, however many nodes serve it, with the slots of all of them.
fn load_models(options: &WorkerOptions) -> Result<HashMap<String, Backend>, WorkerError> {
    let mut wanted: BTreeMap<String, (&ModelOptions, u32)> = BTreeMap::new();
    for node in &options.nodes {
        for model in &node.models {
            wanted.entry(key_of(model)).or_insert((model, 0)).1 += node.slots;
        }
    }
    let load = |(key, (model, slots)): (String, (&ModelOptions, u32))| {
        let name = &model.name;
        let backend = match &model.backend {
            BackendOptions::Builtin { path } => {
                let loaded = Builtin::load(path, BuiltinOptions { slots, threads: options.threads });
                Backend::from(loaded.map_err(|source| WorkerError::Model { model: name.clone(), source })?)
            }
            BackendOptions::OpenAi(server) => Backend::from(OpenAi::load(name, server)?),
        };
        tracing::info!(target: "worker", model = name, weights = %backend.identity().weights, slots, "model ready");
        Ok((key, backend))
    };
    wanted.into_iter().map(load).collect()
}

/// Keeps two workers from one data directory. Freed by the system when this process ends, however it ends.
fn lock(data_dir: &Path) -> Result<File, WorkerError> {
    let path = data_dir.join("worker.lock");
    let file = File::create(&path).map_err(|e| WorkerError::file(&path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(WorkerError::InUse(data_dir.to_path_buf())),
        Err(TryLockError::Error(e)) => Err(WorkerError::file(&path, e)),
    }
}

/// Logs what happens to the connection and counts connects.
async fn watch_connection(mut events: mpsc::Receiver<Event>, connects: watch::Sender<u64>) {
    while let Some(event) = events.recv().await {
        match event {
            Event::Connected => {
                connects.send_modify(|count| *count += 1);
                tracing::info!(target: "worker", "NATS connected");
            }
            // A denied subject shows only here: the client itself just times out.
            Event::ServerError(error) => tracing::error!(target: "worker", %error, "NATS server refuses"),
            other => tracing::warn!(target: "worker", event = %other, "NATS connection"),
        }
    }
}
