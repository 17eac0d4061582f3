//! The coordinator's configuration: one TOML file, a table for each role, secrets only as names of files. Must not: open
//! what it names.

use crate::exit_code::Failure;
use anyhow::{Context, Result, bail};
use dispatcher::router::{Pool, RouteBy, TableOptions, ramp};
use journal::segment::StoreLocation;
use protocol::id::OperatorId;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What one process can be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum RoleName {
    /// Decides and writes the log; or stands by for the one that does.
    Sequencer,
    /// HTTP in, jobs out; with router and verification of receipts.
    Gateway,
    /// FEED and the transparency log.
    Projector,
    /// Mirrors the chain into the log.
    Watcher,
    /// Closes batches and sends them to the chain.
    Settler,
}

impl RoleName {
    /// As in configuration and flags.
    pub fn name(self) -> &'static str {
        match self {
            RoleName::Sequencer => "sequencer",
            RoleName::Gateway => "gateway",
            RoleName::Projector => "projector",
            RoleName::Watcher => "watcher",
            RoleName::Settler => "settler",
        }
    }
}

/// The file. Relative paths count from its own directory.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServeConfig {
    /// `nats://HOST:PORT`; several, separated by commas, on a cluster.
    pub nats_url: String,
    /// What this process is, unless `--roles` says otherwise.
    #[serde(default)]
    pub roles: Vec<RoleName>,
    /// See [`SequencerConfig`].
    pub sequencer: Option<SequencerConfig>,
    /// See [`GatewayConfig`].
    pub gateway: Option<GatewayConfig>,
    /// See [`ProjectorConfig`].
    pub projector: Option<ProjectorConfig>,
    /// The contracts; needed by watcher and settler, and by a gateway that takes deposits.
    pub chain: Option<ChainTable>,
    /// See [`WatcherConfig`].
    pub watcher: Option<WatcherConfig>,
    /// See [`SettlerConfig`].
    pub settler: Option<SettlerConfig>,
}

/// Several sequencers may run: one leads, the others stand by.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SequencerConfig {
    /// `.creds` of NATS role writer.
    pub credentials_file: PathBuf,
    /// Archive tail, segments, snapshots. A standby on another machine has its own.
    pub data_dir: PathBuf,
    /// Opens an empty log; without it an empty log is an error.
    pub genesis: Option<GenesisConfig>,
    /// When replies leave: `soon` (tail written, synced within 10 ms) or `always` (tail synced). Default `soon`.
    #[serde(default)]
    pub tail_sync: TailSync,
    /// Servers that every stream must stand on: 1, 3 or 5. Default 1.
    #[serde(default = "one")]
    pub replicas_min: usize,
    /// Where sealed segments are copied to: `file:///folder` or `s3://bucket/prefix[?endpoint=...]`. Default: nowhere.
    pub archive_copy: Option<String>,
    /// A leader in the same data directory that is silent: `kill` or `leave` it. Default `kill`.
    #[serde(default)]
    pub stuck_leader: StuckLeader,
    /// Whether a second fold of the log is compared with the books while it runs: `on` or `off`. Default `on`; it takes the
    /// memory of a second state.
    #[serde(default)]
    pub watchdog: Watchdog,
}

/// See [`SequencerConfig::watchdog`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Watchdog {
    /// Spending stops where the two differ.
    #[default]
    On,
    /// Nobody compares.
    Off,
}

/// How a new network opens.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisConfig {
    /// Name of the log for ever, as in its checkpoints: `<host>/<preset>/<shard>`.
    pub origin: String,
    /// Assets and rules.
    pub preset_file: PathBuf,
}

/// See [`SequencerConfig::tail_sync`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TailSync {
    /// Written.
    #[default]
    Soon,
    /// Synced.
    Always,
}

/// See [`SequencerConfig::stuck_leader`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StuckLeader {
    /// It would be fenced anyway.
    #[default]
    Kill,
    /// Until somebody looks.
    Leave,
}

/// Each gateway is a process of its own with a name and a data directory of its own.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// `.creds` of NATS role gateway.
    pub credentials_file: PathBuf,
    /// API keys, receipts, contents: of this gateway alone.
    pub data_dir: PathBuf,
    /// Bearer keys and the audit key, as `up` makes them; gateways of one network share the folder's content.
    pub secrets_dir: PathBuf,
    /// Where to listen. Default `127.0.0.1:8080`; port 0 picks a free one.
    #[serde(default = "listen")]
    pub listen: SocketAddr,
    /// Token in NATS subjects: letters and digits, one per gateway, the same after a restart. Default `gw0`.
    #[serde(default = "gateway_name")]
    pub name: String,
    /// Lane that jobs run in. Default `prepaid`.
    #[serde(default = "lane")]
    pub lane: String,
    /// NATS signing keys for operators' credentials; without it operators cannot register here.
    pub operator_keys_dir: Option<PathBuf>,
    /// A sequencer's data directory on this machine, to begin with its snapshots.
    pub snapshots_dir: Option<PathBuf>,
    /// Publishes the first rate card of a network that has none.
    pub preset_file: Option<PathBuf>,
    /// Models whose prompts it can count; at least one.
    pub models: Vec<ModelFile>,
    /// The settler's key file, for withdrawals; needs `[chain]`.
    pub settler_key_file: Option<PathBuf>,
    /// How nodes are chosen.
    #[serde(default)]
    pub routing: RoutingConfig,
}

/// How nodes are chosen; `specs/job-protocol.md`, section 10.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoutingConfig {
    /// `score`: equals are drawn by the fourth power of their share of good ends. `availability`: by the share itself. Default `score`.
    pub route_by: RouteBy,
    /// Part of the declared slots that is used, millionths. Default all.
    pub capacity_ppm: u64,
    /// Where an operator's first week begins, millionths; 1 000 000 leaves the ramp out. Default 250 000.
    pub ramp_start_ppm: u64,
    /// Part of a model's capacity that is kept for the dedicated lane, millionths. Default 0.
    pub dedicated_reserve_ppm: u64,
    /// Operators whose nodes are the project's accelerators: asked when no other node has a slot.
    pub accelerators: Vec<OperatorId>,
    /// Operators whose nodes are server processors: asked after those.
    pub processors: Vec<OperatorId>,
}

impl Default for RoutingConfig {
    fn default() -> Self {
        RoutingConfig {
            route_by: RouteBy::Score,
            capacity_ppm: 1_000_000,
            ramp_start_ppm: ramp::RAMP_START_PPM,
            dedicated_reserve_ppm: 0,
            accelerators: Vec::new(),
            processors: Vec::new(),
        }
    }
}

impl RoutingConfig {
    /// For the router.
    pub fn options(&self) -> TableOptions {
        let accelerators = self.accelerators.iter().map(|operator| (*operator, Pool::Accelerator));
        let processors = self.processors.iter().map(|operator| (*operator, Pool::Processor));
        TableOptions {
            route_by: self.route_by,
            capacity_ppm: self.capacity_ppm,
            ramp_start_ppm: self.ramp_start_ppm,
            dedicated_reserve_ppm: self.dedicated_reserve_ppm,
            fallback: accelerators.chain(processors).collect(),
        }
    }
}

/// A model's name on the rate card, and its GGUF file.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// As on the rate card.
    pub name: String,
    /// GGUF: tokenizer and template are read.
    pub path: PathBuf,
}

/// One process of a network.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectorConfig {
    /// `.creds` of NATS role projector.
    pub credentials_file: PathBuf,
    /// Tiles and checkpoints go to `tlog/` in it, the auditors' policy beside.
    pub data_dir: PathBuf,
    /// The checkpoint signer's key, made when missing.
    pub keys_dir: PathBuf,
}

/// The contracts.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainTable {
    /// JSON-RPC.
    pub rpc_url: String,
    /// Addresses, block and code hashes of the deployment.
    pub manifest_file: PathBuf,
    /// Blocks on top before a fact counts.
    pub confirmations: u64,
    /// Between two looks. Default 1000.
    #[serde(default = "poll_interval_ms")]
    pub poll_interval_ms: u64,
}

/// One process of a network.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatcherConfig {
    /// `.creds` of NATS role gateway: it sends commands as a gateway does.
    pub credentials_file: PathBuf,
    /// How far it looked.
    pub state_file: PathBuf,
    /// The address that the platform's share is paid to; registers the vault once.
    pub platform_address: Option<String>,
}

/// One process of a network.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettlerConfig {
    /// `.creds` of NATS role gateway: it sends commands as a gateway does.
    pub credentials_file: PathBuf,
    /// Signed transactions and published batches.
    pub data_dir: PathBuf,
    /// Its key, 64 hex digits.
    pub key_file: PathBuf,
    /// The projector's newest checkpoint, `tlog/checkpoint` under its data directory.
    pub checkpoint_file: PathBuf,
}

fn one() -> usize {
    1
}
fn listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8080))
}
fn gateway_name() -> String {
    "gw0".to_owned()
}
fn lane() -> String {
    "prepaid".to_owned()
}
fn poll_interval_ms() -> u64 {
    1_000
}

impl ServeConfig {
    /// Reads and checks a file; its paths come back absolute or relative to where we are.
    pub fn load(path: &Path) -> Result<ServeConfig> {
        let wrong = || format!("configuration {}", path.display());
        let text = std::fs::read_to_string(path).with_context(wrong).context(Failure::Usage)?;
        let dir = path.parent().unwrap_or(Path::new("."));
        ServeConfig::parse(&text, dir).with_context(wrong).context(Failure::Usage)
    }

    fn parse(text: &str, dir: &Path) -> Result<ServeConfig> {
        toml::from_str::<ServeConfig>(text)?.rooted(dir).checked()
    }

    /// The roles of this process, each with its table.
    pub fn roles(&self, asked: &[RoleName]) -> Result<Vec<RoleName>> {
        let mut roles = if asked.is_empty() { self.roles.clone() } else { asked.to_vec() };
        roles.sort();
        roles.dedup();
        if roles.is_empty() {
            bail!("no role: name some in `roles = [...]` or by --roles");
        }
        for role in &roles {
            let (table, there) = match role {
                RoleName::Sequencer => ("sequencer", self.sequencer.is_some()),
                RoleName::Gateway => ("gateway", self.gateway.is_some()),
                RoleName::Projector => ("projector", self.projector.is_some()),
                RoleName::Watcher => ("watcher", self.watcher.is_some()),
                RoleName::Settler => ("settler", self.settler.is_some()),
            };
            if !there {
                bail!("role {table} needs the table [{table}]");
            }
        }
        let onchain = roles.iter().any(|role| matches!(role, RoleName::Watcher | RoleName::Settler));
        if onchain && self.chain.is_none() {
            bail!("watcher and settler need the table [chain]");
        }
        Ok(roles)
    }

    fn checked(self) -> Result<ServeConfig> {
        if let Some(copy) = self.sequencer.as_ref().and_then(|sequencer| sequencer.archive_copy.as_ref()) {
            copy.parse::<StoreLocation>().context("sequencer.archive_copy")?;
        }
        if let Some(sequencer) = &self.sequencer
            && ![1, 3, 5].contains(&sequencer.replicas_min)
        {
            bail!("sequencer.replicas_min: expected 1, 3 or 5, got {}", sequencer.replicas_min);
        }
        if let Some(gateway) = &self.gateway {
            if gateway.models.is_empty() {
                bail!("gateway.models: expected at least one [[gateway.models]] with name and path");
            }
            if gateway.settler_key_file.is_some() && self.chain.is_none() {
                bail!("gateway.settler_key_file: it needs the table [chain]");
            }
        }
        Ok(self)
    }

    fn rooted(mut self, dir: &Path) -> ServeConfig {
        let root = |path: &mut PathBuf| *path = dir.join(&path);
        let root_each = |paths: Vec<&mut PathBuf>| paths.into_iter().for_each(root);
        if let Some(c) = &mut self.sequencer {
            root_each(vec![&mut c.credentials_file, &mut c.data_dir]);
            root_each(c.genesis.iter_mut().map(|genesis| &mut genesis.preset_file).collect());
        }
        if let Some(c) = &mut self.gateway {
            root_each(vec![&mut c.credentials_file, &mut c.data_dir, &mut c.secrets_dir]);
            let optional =
                [&mut c.operator_keys_dir, &mut c.snapshots_dir, &mut c.preset_file, &mut c.settler_key_file];
            root_each(optional.into_iter().flatten().collect());
            root_each(c.models.iter_mut().map(|model| &mut model.path).collect());
        }
        if let Some(c) = &mut self.projector {
            root_each(vec![&mut c.credentials_file, &mut c.data_dir, &mut c.keys_dir]);
        }
        if let Some(c) = &mut self.chain {
            root(&mut c.manifest_file);
        }
        if let Some(c) = &mut self.watcher {
            root_each(vec![&mut c.credentials_file, &mut c.state_file]);
        }
        if let Some(c) = &mut self.settler {
            root_each(vec![
                &mut c.credentials_file,
                &mut c.data_dir,
                &mut c.key_file,
                &mut c.checkpoint_file,
            ]);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        nats_url = "nats://127.0.0.1:4222"
        roles = ["sequencer", "gateway"]
        [sequencer]
        credentials_file = "keys/writer.creds"
        data_dir = "sequencer"
        archive_copy = "s3://books/first?endpoint=https://store.example"
        genesis = { origin = "example.org/prepaid/0", preset_file = "prepaid.toml" }
        [gateway]
        credentials_file = "keys/gateway.creds"
        data_dir = "/var/gateway"
        secrets_dir = "keys"
        listen = "127.0.0.1:0"
        models = [{ name = "small", path = "small.gguf" }]
    "#;

    fn load(text: &str) -> Result<ServeConfig> {
        let config = ServeConfig::parse(text, Path::new("/etc/here"))?;
        assert!(config.sequencer.as_ref().is_none_or(|c| c.data_dir == Path::new("/etc/here/sequencer")));
        Ok(config)
    }

    #[test]
    fn a_file_gives_roles_defaults_and_paths_of_its_own_directory() {
        let config = load(GOOD).unwrap();
        assert_eq!(config.roles(&[]).unwrap(), [RoleName::Sequencer, RoleName::Gateway]);
        assert_eq!(config.roles(&[RoleName::Gateway]).unwrap(), [RoleName::Gateway]);
        let gateway = config.gateway.as_ref().unwrap();
        assert_eq!((gateway.name.as_str(), gateway.data_dir.as_path()), ("gw0", Path::new("/var/gateway")));
        let refused = config.roles(&[RoleName::Settler]).unwrap_err().to_string();
        assert!(refused.contains("[settler]"), "{refused}");
    }

    #[test]
    fn the_examples_of_deploy_are_good() {
        let examples = [
            include_str!("../../deploy/roles/sequencer.toml"),
            include_str!("../../deploy/roles/gateway.toml"),
            include_str!("../../deploy/roles/followers.toml"),
        ];
        for text in examples {
            let config = load(text).unwrap();
            assert_eq!(config.roles(&[]).unwrap(), config.roles);
        }
    }

    /// Each edit must be refused with words that name the place.
    #[test]
    fn what_cannot_be_is_named() {
        let cases = [
            ("replicas_min = 2\n        archive_copy", "archive_copy", "sequencer.replicas_min"),
            ("archive_cpy", "archive_copy", "archive_cpy"),
            ("archive_copy = \"ftp://x\" #", "archive_copy", "sequencer.archive_copy"),
            ("models = [] #", "models", "gateway.models"),
            ("settler_key_file = \"k\"\n        models", "models", "[chain]"),
            ("roles = [\"king\"] #", "roles", "king"),
        ];
        for (new, old, says) in cases {
            let error = format!("{:#}", load(&GOOD.replacen(old, new, 1)).unwrap_err());
            assert!(error.contains(says), "{says}: {error}");
        }
        let config = load(&GOOD.replace("roles =", "#")).unwrap();
        assert!(config.roles(&[]).unwrap_err().to_string().contains("--roles"));
    }
}
