//! A whole network on one machine: children, rooms and their wiring. What each room does is the room's; here is only the
//! order in which they are started, and ended again.

mod broker;
pub mod chain_door;
pub mod chain_options;
pub mod operator;
pub mod pages;
mod payment_door;
mod readings;
pub mod secrets;
pub mod supervisor;
mod verifier_door;

use anyhow::{Context, Result};
use broker::Broker;
use chain_door::{VaultDoor, vault_ref};
use chain_options::ChainOptions;
use contracts::anvil::{Anvil, AnvilOptions, Mining, find_anvil};
use contracts::chain::Chain;
use contracts::deploy::{DeployOptions, deploy};
use contracts::deployment::Deployment;
use contracts::manifest::Manifest;
use contracts::mirror::{Mirror, MirrorOptions, MirrorStatus};
use contracts::settlement::{CheckpointSource, SettlementOptions, SettlementRun};
use contracts::settler::{Settler, SettlerOptions};
use contracts::x402::Cashier;
use contracts::{EconomyOptions, deploy_economy};
use dispatcher::{Gateway, GatewayOptions, ServedModel};
use journal::auth::{self, Role};
use journal::background::Background;
use journal::feed::{self, FeedThread};
use journal::server::{NatsServer, NatsServerOptions, PortChoice, find_nats_server};
use journal::transparency::{self, Signer, Transparency, TransparencyHandle};
use journal::{Journal, JournalOptions, LedgerClient};
use kernels::Tokenizer;
use ledger::command::{Command, CommandBody, PublishRateCard};
use ledger::preset::{ModelHashes, Preset};
use payment_door::Till;
use protocol::amount::Amount;
use protocol::asset::{AssetId, VAULT_SCALE};
use protocol::event::Actor;
use protocol::event::chain::VaultRegistered;
use protocol::id::{EvmAddress, Hash32, IdempotencyKey};
use readings::Followers;
use secrets::{ChainRoles, Secrets};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use supervisor::Supervised;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Default port of the gateway.
const GATEWAY_PORT: u16 = 8080;
/// Default port of the development chain.
const CHAIN_PORT: u16 = 8545;
/// Share of the charges that are run again, millionths; set, newcomers are challenged too. Nothing of both where it is not set.
const VERIFIED_SHARE_VARIABLE: &str = "COUNTERFOIL_VERIFIED_SHARE_PPM";
/// Chain id of development chains.
const CHAIN_ID: u64 = 31_337;
/// The development chain makes a block every so many seconds, and one for each transaction.
const BLOCK_TIME_S: u64 = 1;
/// The chain's own coin for the relayer's gas: 10, with 18 digits.
const RELAYER_GAS_WEI: u128 = 10_000_000_000_000_000_000;
/// A user leaves without us after this long (7 days, as on a real chain).
const EXIT_DELAY_S: u32 = 7 * 86_400;
/// A payout root can be refused for this long before claims; short, because the story waits for it.
const ROOT_DELAY_S: u32 = 60;
/// The asset that the vault's token is, by its symbol; the first one where none has it.
const VAULT_SYMBOL: &str = "FOIL";
/// Digits of the network's own token.
const TOKEN_SCALE: u8 = 18;

/// How to start.
pub struct NetworkOptions {
    /// Everything lies under it.
    pub data: PathBuf,
    /// Gateway's port; `None` takes the default one or, when that is busy, a free one. 0 takes a free one.
    pub port: Option<u16>,
    /// GGUF file.
    pub model: PathBuf,
    /// What the network is.
    pub preset: Preset,
    /// How the chain is read.
    pub chain: ChainOptions,
    /// What follows a reorganisation deeper than the confirmations.
    pub after_reorg: AfterReorg,
}

/// What is done about a reorganisation deeper than the confirmations by which something spent was lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AfterReorg {
    /// Nothing more is mirrored until a person has looked.
    Wait,
    /// A person has looked: go on.
    Resume,
}

/// A running network.
pub struct Network {
    pub data: PathBuf,
    /// The weights that the worker serves.
    pub model: PathBuf,
    pub client: LedgerClient,
    pub journal: Journal,
    pub preset: Preset,
    pub deployment: Deployment,
    pub roles: ChainRoles,
    pub secrets: Secrets,
    pub gateway_url: String,
    pub nats_url: String,
    pub chain_url: String,
    pub mirror: watch::Receiver<MirrorStatus>,
    pub transparency: TransparencyHandle,
    pub settlement: Arc<SettlementRun<Checkpoints>>,
    /// Ports that are not the default ones, in words.
    pub notes: Vec<String>,
    gateway: Gateway,
    worker: Supervised,
    tasks: JoinSet<()>,
    behind: Behind,
    stop: watch::Sender<bool>,
    broker: Broker,
    anvil: Anvil,
}

/// Process numbers of the children.
#[derive(Clone, Copy, serde::Serialize)]
pub struct Pids {
    pub nats: u32,
    pub chain: u32,
    pub worker: u32,
}

/// Checkpoints for settlements: a fresh one that covers what was asked for.
#[derive(Clone)]
pub struct Checkpoints(TransparencyHandle);

impl CheckpointSource for Checkpoints {
    async fn covering(&self, size: u64) -> Result<(u64, Hash32), String> {
        let mut published = self.0.published();
        let covered = published.wait_for(|signed| signed.as_ref().is_some_and(|s| s.size >= size)).await;
        let covered = covered.map_err(|_| "the transparency log has stopped".to_owned())?;
        covered.as_ref().map(|s| (s.size, s.root)).ok_or_else(|| "no checkpoint yet".to_owned())
    }
}

/// What everything else stands on.
struct Ground {
    data: PathBuf,
    model: PathBuf,
    chain: ChainOptions,
    after_reorg: AfterReorg,
    port: Option<u16>,
    preset: Preset,
    roles: ChainRoles,
    secrets: Secrets,
    nats: NatsServer,
    anvil: Anvil,
    deployment: Deployment,
    notes: Vec<String>,
}

/// The open log and what follows it.
struct Log {
    journal: Journal,
    client: LedgerClient,
    origin: String,
    transparency: TransparencyHandle,
    behind: Behind,
    tasks: JoinSet<()>,
}

/// What follows the log on threads that step back for it.
struct Behind {
    feed: FeedThread,
    tiles: Background,
}

impl Ground {
    async fn start(options: NetworkOptions, progress: &dyn Fn(&str)) -> Result<Ground> {
        let NetworkOptions { data, port, model, preset, chain, after_reorg } = options;
        check_port(port)?;
        std::fs::create_dir_all(&data).with_context(|| data.display().to_string())?;
        let data = data.canonicalize()?;
        let mut notes = Vec::new();
        let roles = ChainRoles::development();
        progress("nats-server");
        let nats = start_nats(&data, port, &mut notes).await?;
        broker::verify_durability(&nats).await?;
        let secrets = Secrets::load_or_create(&data.join("keys"))?;
        progress("development chain and contracts");
        let anvil = start_anvil(&data, port, &mut notes).await?;
        let deployment = open_contracts(&data, &anvil, &roles, (&chain, &preset)).await?;
        Ok(Ground {
            data,
            model,
            chain,
            after_reorg,
            port,
            preset,
            roles,
            secrets,
            nats,
            anvil,
            deployment,
            notes,
        })
    }
}

impl Log {
    async fn open(ground: &Ground) -> Result<Log> {
        let journal = open_journal(&ground.data, &ground.nats, &ground.preset).await?;
        let client = journal.client();
        let origin = origin_of(&client).await?;
        let (transparency, tiles) = start_transparency(&ground.data, &origin, &journal)?;
        let feed = start_feed(&ground.nats, &origin, &journal).await?;
        let behind = Behind { feed, tiles };
        Ok(Log { journal, client, origin, transparency, behind, tasks: JoinSet::new() })
    }
}

impl Network {
    /// Starts every part in order; what was started before a failure ends with it.
    pub async fn start(options: NetworkOptions, progress: &dyn Fn(&str)) -> Result<Network> {
        let mut ground = Ground::start(options, progress).await?;
        progress("journal");
        let mut log = Log::open(&ground).await?;
        progress("model file");
        let served = read_model(&ground, &log.client).await?;
        progress("watcher and settler");
        let (stop, stopped) = watch::channel(false);
        let mirror = start_mirror(&ground, &mut log, &stopped).await?;
        let settlement = start_settlement(&ground, &mut log).await?;
        progress("gateway");
        let gateway = start_gateway(&mut ground, &log, served).await?;
        let gateway_url = format!("http://{}", gateway.local_addr());
        progress("worker");
        let nats_url = ground.nats.url();
        let desk = operator::Desk {
            data: &ground.data,
            gateway_url: &gateway_url,
            nats_url: &nats_url,
            model: &ground.model,
        };
        let worker = operator::start_worker(desk, &ground.roles, &ground.preset).await?;
        let Ground { data, model, preset, roles, secrets, nats, anvil, deployment, notes, .. } = ground;
        let Log { journal, client, transparency, behind, tasks, .. } = log;
        Ok(Network {
            gateway_url,
            nats_url,
            chain_url: anvil.rpc_url(),
            broker: Broker::keep(nats),
            data,
            model,
            preset,
            client,
            journal,
            deployment,
            roles,
            secrets,
            mirror,
            transparency,
            settlement,
            notes,
            gateway,
            worker,
            tasks,
            behind,
            stop,
            anvil,
        })
    }

    /// Process numbers of the children now.
    pub fn pids(&self) -> Pids {
        Pids {
            nats: self.broker.pid(),
            chain: self.anvil.process_id().unwrap_or_default(),
            worker: self.worker.pid(),
        }
    }

    /// Ends every part in the opposite order: running answers first, the log last.
    pub async fn shutdown(self) -> Result<()> {
        let Network {
            gateway, worker, mut tasks, behind, stop, journal, broker, anvil, transparency, ..
        } = self;
        gateway.shutdown().await;
        worker.stop().await;
        stop.send_replace(true);
        // What the last commits hold is published before the log goes.
        let _ = transparency.checkpoint().await;
        let closed = journal.shutdown().await;
        behind.feed.thread.end().await;
        behind.tiles.end().await;
        tasks.abort_all();
        while tasks.join_next().await.is_some() {}
        broker.stop().await?;
        anvil.stop().await?;
        closed.map_err(|reason| anyhow::anyhow!("the journal did not close in order: {reason}"))
    }

    /// Checkpoints of the log, to wait for.
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints(self.transparency.clone())
    }

    /// Digits of the first asset.
    pub async fn asset_scale(&self) -> Result<u8> {
        let scale = self.client.read(|state| ledger::query::assets(state).first().map(|a| a.ledger_scale));
        scale.await?.context("the network has no asset")
    }

    /// Symbol of the asset that prices are in.
    pub fn price_symbol(&self) -> &str {
        self.preset.rate_card.models.first().map_or("", |rate| rate.asset.as_str())
    }

    /// The rate card's first model.
    pub async fn first_model(&self) -> Result<String> {
        let name = self.client.read(|state| {
            let card = ledger::query::rate_card(state, u64::MAX)?;
            card.card.models.first().map(|m| m.model.clone())
        });
        name.await?.context("no rate card is in force")
    }
}

/// A port that was asked for and is busy is an error before anything is started.
fn check_port(port: Option<u16>) -> Result<()> {
    let Some(port) = port.filter(|port| *port != 0) else { return Ok(()) };
    let bound = std::net::TcpListener::bind(("127.0.0.1", port));
    bound.map(drop).with_context(|| {
        format!("port {port} cannot be used; stop what listens there, choose another, or give --port 0 for free ones")
    })
}

async fn start_nats(data: &Path, port: Option<u16>, notes: &mut Vec<String>) -> Result<NatsServer> {
    let binary = find_nats_server()?;
    let choice = if port.is_some() { PortChoice::Any } else { PortChoice::Default };
    let server =
        NatsServer::start(NatsServerOptions { binary, data_dir: data.to_owned(), port: choice }).await?;
    notes.extend(server.port_note().map(str::to_owned));
    let keys = server.keys();
    let init = auth::connect(&server.url(), &keys.init_credentials()?).await?;
    journal::stream::init_streams(&init).await?;
    // Auditors connect with a file, as any NATS client does.
    let creds = keys.credentials(Role::Auditor).to_creds_text();
    secrets::write_secret(&data.join("keys/auditor.creds"), &creds)?;
    Ok(server)
}

async fn start_anvil(data: &Path, port: Option<u16>, notes: &mut Vec<String>) -> Result<Anvil> {
    let chain_dir = data.join("chain");
    std::fs::create_dir_all(&chain_dir)?;
    let mut options = AnvilOptions {
        program: find_anvil(Path::new("."))?,
        port: if port.is_some() { 0 } else { CHAIN_PORT },
        chain_id: CHAIN_ID,
        mining: Mining::Mixed { block_time_s: BLOCK_TIME_S },
        state_file: Some(chain_dir.join("anvil.json")),
    };
    match Anvil::start(&options).await {
        Err(error) if options.port != 0 => {
            tracing::debug!(target: "up", %error, "default port of the chain");
            options.port = 0;
            let anvil = Anvil::start(&options).await?;
            notes.push(format!("chain: port {CHAIN_PORT} is busy, using {}", anvil.port()));
            Ok(anvil)
        }
        started => Ok(started?),
    }
}

async fn open_contracts(
    data: &Path,
    anvil: &Anvil,
    roles: &ChainRoles,
    (options, preset): (&ChainOptions, &Preset),
) -> Result<Deployment> {
    let chain = Chain::connect(anvil.config(options.confirmations, options.poll_ms)).await?;
    let path = data.join("chain/manifest.json");
    if !path.exists() {
        let options = DeployOptions {
            deployer: roles.deployer.clone(),
            coordinator: roles.coordinator.address(),
            settler: roles.settler.address(),
            guardian: roles.guardian.address(),
            exit_delay_s: EXIT_DELAY_S,
            root_delay_s: ROOT_DELAY_S,
            token: None,
        };
        let manifest = deploy(&chain, &options).await?;
        let manifest = match economy_options(preset, roles)? {
            Some(options) => deploy_economy(&chain, &manifest, &options).await?,
            None => manifest,
        };
        manifest.save(&path)?;
    }
    Ok(Deployment::open(chain, Manifest::load(&path)?).await?)
}

/// Stake, votes, treasury and packages as the preset wants them; `None` for a network without.
fn economy_options(preset: &Preset, roles: &ChainRoles) -> Result<Option<EconomyOptions>> {
    let Some(chain) = &preset.chain else { return Ok(None) };
    let allotment = preset.economy.as_ref().and_then(|economy| economy.allotment.as_ref());
    let minimum = allotment.map_or("1", |allotment| allotment.stake_min.as_str());
    let minimum = Amount::parse_decimal(minimum, TOKEN_SCALE)?;
    let units = |text: Option<&str>, absent: u64| -> Result<u64> {
        let Some(text) = text else { return Ok(absent) };
        Ok(u64::try_from(Amount::parse_decimal(text, VAULT_SCALE)?.0)?)
    };
    Ok(Some(EconomyOptions {
        deployer: roles.deployer.clone(),
        dollar: None,
        settler: roles.settler.address(),
        publisher: roles.guardian.address(),
        minimum_stake_base_units: u128::try_from(minimum.0)?,
        unbond_delay_s: chain.unbond_delay_s,
        voting_delay_s: chain.voting_delay_s,
        voting_period_s: chain.voting_period_s,
        quorum_percent: chain.quorum_percent,
        floor_units: units(allotment.map(|allotment| allotment.pool_floor.as_str()), 0)?,
        ceiling_units: units(allotment.map(|allotment| allotment.pool_bound.as_str()), 1)?,
    }))
}

async fn open_journal(data: &Path, nats: &NatsServer, preset: &Preset) -> Result<Journal> {
    let mark = data_encoding::HEXLOWER.encode(&secrets::random_id()?[..4]);
    let origin = format!("counterfoil.localhost/{}/{mark}/0", preset.name);
    let credentials = nats.keys().credentials(Role::Writer).clone();
    let options = JournalOptions {
        genesis: Some(preset.network(&origin)?),
        watchdog: Some(journal::watchdog::WatchdogOptions::usual(0)),
        ..JournalOptions::new(nats.url(), credentials, data.to_owned())
    };
    Ok(Journal::open(options).await?)
}

async fn origin_of(client: &LedgerClient) -> Result<String> {
    let origin = client.read(|state| ledger::query::network(state).map(|network| network.origin.clone()));
    origin.await?.context("the log has no NetworkOpened: a bug of ours")
}

fn start_transparency(
    data: &Path,
    origin: &str,
    journal: &Journal,
) -> Result<(TransparencyHandle, Background)> {
    let signer = Signer::load_or_create(&data.join("keys"), origin)?;
    let log = Transparency::open(&data.join("tlog"), signer)?;
    let handle = transparency::spawn(log, transparency::CHECKPOINT_INTERVAL)?;
    let policy = protocol::checkpoint::Policy::of_log(handle.verifier_key().clone()).text();
    std::fs::write(data.join("auditor.policy"), policy)?;
    let follower = handle.follow_behind(&journal.follower())?;
    Ok((handle, follower))
}

async fn start_feed(nats: &NatsServer, origin: &str, journal: &Journal) -> Result<FeedThread> {
    let (url, credentials) = (nats.url(), nats.keys().credentials(Role::Projector).clone());
    let connect = move || async move { auth::connect(&url, &credentials).await };
    Ok(feed::spawn(origin.to_owned(), connect, journal.follower()).await?)
}

/// Registers vault and first rate card, once.
async fn open_books(
    client: &LedgerClient,
    deployment: &Deployment,
    roles: &ChainRoles,
    preset: &Preset,
    hashes: ModelHashes,
) -> Result<()> {
    let vault = vault_ref(deployment);
    let (has_vault, has_card) = client
        .read(move |state| {
            let vaults = ledger::query::vaults(state);
            (vaults.iter().any(|v| v.vault == vault), ledger::query::rate_card_by_version(state, 1).is_some())
        })
        .await?;
    let submit = |purpose: &str, body: CommandBody| {
        let key = IdempotencyKey::internal(purpose, &[]);
        client.submit(Command::new(key, Actor::Admin, body))
    };
    if !has_vault {
        let manifest = deployment.manifest();
        let registered = VaultRegistered {
            vault,
            payouts: EvmAddress(manifest.payouts.0),
            token: EvmAddress(manifest.token.0),
            asset: vault_asset(preset),
            deployed_block: manifest.deployed_block,
            coordinator: EvmAddress(manifest.coordinator.0),
            platform: EvmAddress(roles.platform.address().0),
        };
        submit("register vault", registered.into()).await?;
    }
    let has_economy = client.read(|state| ledger::economy::views::rules(state).is_some()).await?;
    if let Some(economy) = preset.economy()?.filter(|_| !has_economy) {
        submit("economy", economy.into()).await?;
    }
    if !has_card {
        let card = preset.rate_card(|_| Some(hashes))?;
        submit("first rate card", PublishRateCard { card }.into()).await?;
    }
    Ok(())
}

fn vault_asset(preset: &Preset) -> AssetId {
    let place = preset.assets.iter().position(|asset| asset.symbol == VAULT_SYMBOL);
    AssetId(place.unwrap_or(0) as u32)
}

async fn start_mirror(
    ground: &Ground,
    log: &mut Log,
    stopped: &watch::Receiver<bool>,
) -> Result<watch::Receiver<MirrorStatus>> {
    let mirror = Mirror::open(MirrorOptions {
        deployment: ground.deployment.clone(),
        confirmations: ground.chain.confirmations,
        state_file: ground.data.join("chain/watcher.json"),
        client: log.client.clone(),
        origin: contracts::fixed_bytes::Hash32::keccak(log.origin.as_bytes()),
    })?;
    let mirror = ground.chain.apply(mirror, ground.deployment.manifest()).await?;
    let mirror = match ground.after_reorg {
        AfterReorg::Wait => mirror,
        AfterReorg::Resume => mirror.resume_after_reorg(),
    };
    // Packages are credit in what prices are in.
    let sells = ground.preset.chain.as_ref().is_some_and(|chain| chain.package.is_some());
    let mirror = if sells { mirror.with_packages(AssetId(0)) } else { mirror };
    let status = mirror.status();
    log.tasks.spawn(mirror.run(stopped.clone()));
    Ok(status)
}

async fn start_settlement(ground: &Ground, log: &mut Log) -> Result<Arc<SettlementRun<Checkpoints>>> {
    let patience = SettlerOptions { stuck_after_ms: 10_000, give_up_after_ms: 60_000 };
    let directory = ground.data.join("chain/settlements");
    let (deployment, key) = (ground.deployment.clone(), ground.roles.settler.clone());
    let settler = Settler::open(deployment.clone(), key, &directory, patience).await?;
    let client = log.client.clone();
    let run = Arc::new(SettlementRun::new(SettlementOptions {
        deployment,
        settler,
        client: client.clone(),
        checkpoints: Checkpoints(log.transparency.clone()),
        directory: ground.data.join("chain/batches"),
    }));
    let epoch_us = client.read(|state| ledger::query::settings(state).map(|s| s.epoch_us)).await?;
    let period = std::time::Duration::from_micros(epoch_us.unwrap_or(u64::MAX));
    let role = Arc::clone(&run);
    log.tasks.spawn(async move {
        let mut epochs = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
        loop {
            epochs.tick().await;
            if let Err(error) = role.settle_epoch().await {
                tracing::error!(target: "up", %error, "the epoch was not settled; the next one tries again");
            }
        }
    });
    Ok(run)
}

/// Reads tokenizer and hashes from the model's file and opens the books with them.
async fn read_model(ground: &Ground, client: &LedgerClient) -> Result<Vec<ServedModel>> {
    let file = ground.model.clone();
    let read = tokio::task::spawn_blocking(move || Tokenizer::from_gguf(&file)).await?;
    let (tokenizer, template, weights) = read.with_context(|| ground.model.display().to_string())?;
    let hashes = ModelHashes {
        weights: Hash32(weights),
        tokenizer: Hash32(tokenizer.hash()),
        template: Hash32(template.hash()),
    };
    open_books(client, &ground.deployment, &ground.roles, &ground.preset, hashes).await?;
    let served = |rate: &ledger::preset::PresetRate| ServedModel {
        model: rate.model.clone(),
        tokenizer: tokenizer.clone(),
        template: template.clone(),
    };
    Ok(ground.preset.rate_card.models.iter().map(served).collect())
}

/// The gateway's way to the chain; with a till where the token can be paid with by signature.
async fn open_chain_door(ground: &Ground) -> Result<VaultDoor> {
    let (deployment, roles) = (&ground.deployment, &ground.roles);
    let door = VaultDoor::new(deployment.clone(), roles.settler.clone(), ground.chain.confirmations);
    let Some(cashier) = Cashier::of_token(deployment.clone()).await? else { return Ok(door) };
    let relayer = roles.relayer.clone();
    contracts::dev::set_coin_balance(deployment.chain(), relayer.address(), RELAYER_GAS_WEI).await?;
    Ok(door.with_till(Till::new(cashier, relayer)))
}

/// Runs a share of the charges again, where the environment asks for it.
fn verifier(model: &Path) -> Result<Option<dispatcher::VerifierOptions>> {
    let Ok(share) = std::env::var(VERIFIED_SHARE_VARIABLE) else { return Ok(None) };
    let share_ppm =
        share.parse().with_context(|| format!("{VERIFIED_SHARE_VARIABLE}={share}: expected 0 to 1000000"))?;
    let door = Arc::new(verifier_door::Rerunner::new(model.to_owned()));
    let challenges = dispatcher::Challenges::Newcomers;
    Ok(Some(dispatcher::VerifierOptions { door, share_ppm, challenges }))
}

async fn start_gateway(ground: &mut Ground, log: &Log, models: Vec<ServedModel>) -> Result<Gateway> {
    let (nats, secrets, port) = (&ground.nats, &ground.secrets, ground.port);
    let door = open_chain_door(ground).await?;
    let door: Arc<dyn dispatcher::doors::ChainDoor> = Arc::new(door);
    let issuer: Arc<dyn dispatcher::doors::OperatorIssuer> =
        Arc::new(operator::Issuer::new(nats, &ground.data)?);
    let proofs: Arc<dyn dispatcher::doors::ProofDoor> = Arc::new(operator::Proofs(log.transparency.clone()));
    let wired = auth::connect(&nats.url(), nats.keys().credentials(Role::Gateway)).await?;
    let followers = Followers {
        position: log.client.position(),
        transparency: log.transparency.clone(),
        feed: log.behind.feed.position.clone(),
    };
    let readings = followers.readings();
    let verifier = verifier(&ground.model)?;
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let lane = ground.preset.name.clone();
    let options = |listen: SocketAddr| GatewayOptions {
        listen,
        name: "gw0".to_owned(),
        client: log.client.clone(),
        nats: wired.clone(),
        models: models.clone(),
        data_dir: ground.data.clone(),
        audit_sealing_key: secrets.audit_sealing_key,
        admin_key: secrets.admin_key.clone(),
        auditor_key: Some(secrets.auditor_key.clone()),
        chain: Some(door.clone()),
        operators: Some(issuer.clone()),
        proofs: Some(proofs.clone()),
        lane: lane.clone(),
        readings: readings.clone(),
        routing: dispatcher::router::TableOptions::open(),
        pages: Some(pages::of_development(ground.model.clone())),
        welcome: Some(pages::welcome()),
        verifier: verifier.clone(),
    };
    let wanted = port.unwrap_or(GATEWAY_PORT);
    if port.is_some() || std::net::TcpListener::bind(address(wanted)).is_ok() {
        return Ok(Gateway::start(options(address(wanted))).await?);
    }
    let gateway = Gateway::start(options(address(0))).await?;
    ground.notes.push(format!("gateway: port {wanted} is busy, using {}", gateway.local_addr().port()));
    Ok(gateway)
}
