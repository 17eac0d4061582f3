//! The gateway as a whole: what it is given, what its parts share, how it starts and stops.
//! Must not: endpoints, rules.

use crate::access::{AccessError, Store};
use crate::api::once::Recent;
use crate::api::people::Welcome;
use crate::api::server::{self, Server};
use crate::books::Books;
use crate::clock::now_us;
use crate::delivery::recovery::{self, RecoveryError};
use crate::desk::Pages;
use crate::doors::{ChainDoor, OperatorIssuer, ProofDoor};
use crate::metrics::{Metrics, Readings};
use crate::progress::ProgressNotes;
use crate::relay::outgoing::{self, Address};
use crate::relay::transcript::Detokenise;
use crate::relay::{self, Hub};
use crate::router::{Chosen, Table, TableOptions};
use crate::turn::Lines;
use crate::verifier::{self, Challenges, Charged, Verifier, VerifierOptions};
use crate::{challenge, expiry, roster, standing};
use journal::{LedgerClient, SubmitError};
use kernels::{ChatTemplate, Tokenizer};
use ledger::query;
use protocol::id::{JobId, NodeId, SealingKey};
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

/// How long running answers have to end when the gateway stops: a cancel and a receipt.
pub const SHUTDOWN_MS_MAX: u64 = 15_000;

/// A model whose prompts this gateway can count.
#[derive(Clone)]
pub struct ServedModel {
    /// By its name on the rate card.
    pub model: String,
    /// Of the weights that the card names.
    pub tokenizer: Tokenizer,
    /// Of the same file.
    pub template: ChatTemplate,
}

/// What a gateway is given.
pub struct GatewayOptions {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Token in result subjects: letters and digits, one per gateway, the same after a restart.
    pub name: String,
    /// The ledger.
    pub client: LedgerClient,
    /// Connected as role gateway.
    pub nats: async_nats::Client,
    /// Models whose tokenizer is loaded.
    pub models: Vec<ServedModel>,
    /// Folder of `access.redb` and its companions; `tlog/` and `archive/` in it are served to auditors.
    pub data_dir: PathBuf,
    /// Contents are sealed to it until the challenge window closes.
    pub audit_sealing_key: SealingKey,
    /// The administration's bearer key.
    pub admin_key: String,
    /// The auditors' bearer key; `None` leaves the audit calls to the administration.
    pub auditor_key: Option<String>,
    /// The chain; `None` where no vault is.
    pub chain: Option<Arc<dyn ChainDoor>>,
    /// Credentials for operators; `None` where none can be issued.
    pub operators: Option<Arc<dyn OperatorIssuer>>,
    /// Inclusion proofs for receipts.
    pub proofs: Option<Arc<dyn ProofDoor>>,
    /// Lane that jobs run in, as in `x-counterfoil-lane`.
    pub lane: String,
    /// Figures of other parts for `GET /metrics`.
    pub readings: Readings,
    /// How nodes are chosen.
    pub routing: TableOptions,
    /// Pages beside the API; `None` serves the API alone.
    pub pages: Option<Pages>,
    /// Credit for people who sign up without a wallet; `None` gives none.
    pub welcome: Option<Welcome>,
    /// Runs a share of the charges again; `None` where nobody does.
    pub verifier: Option<VerifierOptions>,
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// An option cannot be.
    #[error("{field}: {expected}, got {given:?}")]
    Option {
        /// Which.
        field: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        given: String,
    },
    /// The store.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The log.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// Receipts of the last run.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// A subscription was refused.
    #[error("cannot subscribe to {subject}: {reason}; does this connection have the gateway's role?")]
    Subscribe {
        /// To what.
        subject: String,
        /// The client's words.
        reason: String,
    },
    /// The port.
    #[error("cannot listen on {address}: {reason}; choose another port, or 0 for any free one")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The system's words.
        reason: String,
    },
}

/// A running gateway.
pub struct Gateway {
    shared: Arc<Shared>,
    server: Server,
    tasks: JoinSet<()>,
}

/// Whose jobs the log may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Company {
    /// All of them are this gateway's.
    Alone,
    /// Other gateways' too.
    Others,
}

/// What the gateway's parts share.
pub(crate) struct Shared {
    pub name: String,
    pub company: Company,
    pub client: LedgerClient,
    pub nats: async_nats::Client,
    pub models: BTreeMap<String, ServedModel>,
    pub store: Store,
    pub data_dir: PathBuf,
    pub books: Books,
    pub audit_sealing_key: SealingKey,
    pub admin_key: blake3::Hash,
    pub auditor_key: Option<blake3::Hash>,
    pub chain: Option<Arc<dyn ChainDoor>>,
    pub operators: Option<Arc<dyn OperatorIssuer>>,
    pub proofs: Option<Arc<dyn ProofDoor>>,
    pub lane: String,
    pub readings: Readings,
    pub welcome: Option<Welcome>,
    pub metrics: Metrics,
    pub hub: Hub,
    pub progress: ProgressNotes,
    pub running: RunningJobs,
    /// Requests without a key, for their retries.
    pub recent: Recent,
    /// Woken when a slot may have become free.
    pub slot_freed: Notify,
    /// Requests that wait for one.
    pub lines: Lines,
    pub verifier: Option<Verifier>,
    /// Nodes that are to be challenged.
    pub newcomers: Option<mpsc::Sender<NodeId>>,
    /// `true` once the gateway stops: answers are cut.
    pub stopping: watch::Sender<bool>,
    /// Held for one choice or report; never across an await.
    table: Mutex<Table>,
}

impl Gateway {
    /// Opens the store, finishes what the last run left, drains the receipts, then listens.
    ///
    /// # Errors
    /// [`GatewayError`]; nothing is left running.
    pub async fn start(options: GatewayOptions) -> Result<Gateway, GatewayError> {
        Gateway::start_in(options, Company::Alone).await
    }

    /// The same for one of several gateways on one log: jobs that its own store does not know are another's, and left to
    /// it; of a job that it lost before anything of it was delivered, the hold ends by its expiry.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub async fn start_among_others(options: GatewayOptions) -> Result<Gateway, GatewayError> {
        Gateway::start_in(options, Company::Others).await
    }

    async fn start_in(options: GatewayOptions, company: Company) -> Result<Gateway, GatewayError> {
        let token = options.name.as_bytes();
        if token.is_empty() || token.len() > 64 || !token.iter().all(u8::is_ascii_alphanumeric) {
            let (field, expected) = ("name", "1 to 64 letters and digits");
            return Err(GatewayError::Option { field, expected, given: options.name });
        }
        let listen = options.listen;
        let pages = options.pages.clone();
        let (shared, drawn) = Shared::new(options, company)?;
        let shared = Arc::new(shared);
        let mut tasks = JoinSet::new();
        if let Some(charges) = drawn.charges {
            tasks.spawn(verifier::run(Arc::clone(&shared), charges));
        }
        if let Some(newcomers) = drawn.newcomers {
            tasks.spawn(challenge::run(Arc::clone(&shared), newcomers));
        }
        listen_to_workers(&shared, &mut tasks).await?;
        roster::load(&shared).await?;
        standing::restore(&shared);
        tasks.spawn(standing::keep(Arc::clone(&shared)));
        recover(&shared, &mut tasks).await?;
        let writing = Arc::clone(&shared);
        let stopped = shared.stopping.subscribe();
        tasks.spawn(async move { writing.progress.write_until(&writing.store, stopped).await });
        tasks.spawn(expiry::run(Arc::clone(&shared)));
        let server = server::start(Arc::clone(&shared), pages, listen)
            .await
            .map_err(|e| GatewayError::Listen { address: listen, reason: e.to_string() })?;
        tracing::info!(target: "gateway", address = %server.local_addr(), "listening");
        Ok(Gateway { shared, server, tasks })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Takes no new requests, ends running streams with an error frame, charges what they delivered, stops.
    pub async fn shutdown(mut self) {
        self.shared.stopping.send_replace(true);
        let limit = Duration::from_millis(SHUTDOWN_MS_MAX);
        if tokio::time::timeout(limit, self.shared.running.all_ended()).await.is_err() {
            tracing::warn!(target: "gateway", "some answers did not end in time; their receipts are taken at the next start");
        }
        self.server.shutdown(limit).await;
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        standing::save(&self.shared);
    }
}

/// Subscribes before anything is recovered: a node's receipt may come at any time.
async fn listen_to_workers(shared: &Arc<Shared>, tasks: &mut JoinSet<()>) -> Result<(), GatewayError> {
    let refused =
        |subject: &str, reason: String| GatewayError::Subscribe { subject: subject.to_owned(), reason };
    let results = relay::subscribe(&shared.nats, &shared.name).await;
    let results = results.map_err(|e| refused("result.>", e.to_string()))?;
    tasks.spawn(relay::distribute(shared.hub.clone(), results));
    let beats = shared.nats.subscribe(roster::HEARTBEATS).await;
    let beats = beats.map_err(|e| refused(roster::HEARTBEATS, e.to_string()))?;
    tasks.spawn(roster::listen(Arc::clone(shared), beats));
    Ok(())
}

async fn recover(shared: &Arc<Shared>, tasks: &mut JoinSet<()>) -> Result<(), GatewayError> {
    let settled = recovery::finish_settlements(shared).await.map_err(RecoveryError::from)?;
    let drained = recovery::drain(shared).await?;
    let consumer = recovery::consumer(shared).await?;
    tasks.spawn(recovery::follow(Arc::clone(shared), consumer));
    let abandoned = cancel_abandoned(shared).await?;
    tracing::info!(target: "gateway", settled, drained, abandoned, "the last run's jobs are looked after");
    Ok(())
}

/// Jobs that nobody relays any more: their nodes shall stop and hand in what they have.
async fn cancel_abandoned(shared: &Shared) -> Result<usize, GatewayError> {
    let open = shared.client.read(query::open_jobs).await?;
    for job in &open {
        if !recovery::is_ours(shared, &job.job)? {
            continue;
        }
        if let Some((attempt, last)) = job.attempts.iter().enumerate().next_back() {
            let (operator, node, attempt) = (last.operator, last.node, attempt as u32);
            outgoing::cancel(&shared.nats, &Address { operator, node, job: job.job, attempt }).await;
        }
    }
    Ok(open.len())
}

/// What the verifier is to look at.
struct Drawn {
    charges: Option<mpsc::Receiver<Charged>>,
    newcomers: Option<mpsc::Receiver<NodeId>>,
}

impl Shared {
    /// With what the verifier draws, when there is one.
    fn new(options: GatewayOptions, company: Company) -> Result<(Shared, Drawn), GatewayError> {
        let (verifier, drawn) = options.verifier.map(Verifier::new).unzip();
        let challenges = verifier.as_ref().is_some_and(|v| v.challenges == Challenges::Newcomers);
        let (newcomers, waiting) = challenges.then(|| mpsc::channel(challenge::WAITING_MAX)).unzip();
        let drawn = Drawn { charges: drawn, newcomers: waiting };
        let models = options.models.into_iter().map(|m| (m.model.clone(), m)).collect();
        let shared = Shared {
            store: Store::open(&options.data_dir)?,
            books: Books::of(options.data_dir.clone()),
            data_dir: options.data_dir,
            name: options.name,
            company,
            client: options.client,
            nats: options.nats,
            models,
            audit_sealing_key: options.audit_sealing_key,
            admin_key: hash_key(&options.admin_key),
            auditor_key: options.auditor_key.as_deref().map(hash_key),
            chain: options.chain,
            operators: options.operators,
            proofs: options.proofs,
            lane: options.lane,
            readings: options.readings,
            welcome: options.welcome,
            metrics: Metrics::default(),
            hub: Hub::default(),
            progress: ProgressNotes::default(),
            running: RunningJobs::default(),
            recent: Recent::default(),
            slot_freed: Notify::new(),
            lines: Lines::default(),
            verifier,
            newcomers,
            stopping: watch::Sender::new(false),
            table: Mutex::new(Table::new(options.routing)),
        };
        Ok((shared, drawn))
    }

    /// The node table, locked.
    pub fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a slot back and wakes who waits for one.
    pub fn release(&self, chosen: &Chosen) {
        self.table().release(chosen, now_us());
        self.slot_freed.notify_waiters();
    }

    /// Whether the gateway stops.
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// A random number for the router; the clock's when the system has none.
    pub fn draw(&self) -> u64 {
        getrandom::u64().unwrap_or_else(|_| now_us())
    }

    /// Turns ids into text as the model's tokenizer does.
    pub fn detokeniser(&self, model: &str) -> Box<dyn Detokenise> {
        match self.models.get(model) {
            Some(served) => Box::new(KernelsDecoder(served.tokenizer.decoder())),
            None => Box::new(NoText),
        }
    }
}

/// Waits until the flag is raised, or whoever could raise it is gone.
pub(crate) async fn until_raised(flag: &mut watch::Receiver<bool>) {
    // The guard must not live across an await of the caller's.
    let _ = flag.wait_for(|raised| *raised).await.is_ok();
}

/// Compared in constant time by [`blake3::Hash`]'s equality.
pub(crate) fn hash_key(key: &str) -> blake3::Hash {
    blake3::hash(key.as_bytes())
}

struct KernelsDecoder(kernels::Detokenizer);

impl Detokenise for KernelsDecoder {
    fn push(&mut self, id: u32) -> String {
        self.0.push(id)
    }
    fn finish(&mut self) -> String {
        self.0.finish()
    }
}

/// For a model without a tokenizer: nothing of it is admitted, so nothing is decoded.
struct NoText;

impl Detokenise for NoText {
    fn push(&mut self, _: u32) -> String {
        String::new()
    }
    fn finish(&mut self) -> String {
        String::new()
    }
}

/// A job is looked after from before its key is claimed until it is charged, voided, or was never admitted.
pub(crate) struct RunningGuard {
    shared: Arc<Shared>,
    job: JobId,
}

impl RunningGuard {
    pub fn new(shared: &Arc<Shared>, job: JobId) -> Self {
        shared.running.lock().insert(job);
        RunningGuard { shared: Arc::clone(shared), job }
    }

    pub fn job(&self) -> JobId {
        self.job
    }
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.shared.running.lock().remove(&self.job);
        self.shared.running.ended.notify_waiters();
    }
}

/// Jobs that this process looks after.
#[derive(Default)]
pub(crate) struct RunningJobs {
    /// Held for one look-up; never across an await.
    jobs: Mutex<HashSet<JobId>>,
    ended: Notify,
}

impl RunningJobs {
    pub fn contains(&self, job: &JobId) -> bool {
        self.lock().contains(job)
    }

    pub fn count(&self) -> usize {
        self.lock().len()
    }

    pub async fn all_ended(&self) {
        self.until(HashSet::is_empty).await;
    }

    /// Until nobody looks after the job any more.
    pub async fn until_ended(&self, job: &JobId) {
        self.until(|jobs| !jobs.contains(job)).await;
    }

    async fn until(&self, is_so: impl Fn(&HashSet<JobId>) -> bool) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // Registered before the look, so that an end in between is not missed.
            ended.as_mut().enable();
            if is_so(&self.lock()) {
                return;
            }
            ended.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<JobId>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
