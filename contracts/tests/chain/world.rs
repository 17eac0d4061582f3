//! A chain with our contracts and some people on it.

use std::path::{Path, PathBuf};

use contracts::{
    Anvil, AnvilOptions, Chain, ChainEvent, ChainFact, DeployOptions, Deployment, EvmKey, Hash32, Mining,
    Poll, SignedAuthorisation, SpendAuthorisation, Watcher, WatcherState, deploy, dev, find_anvil,
};
use tempfile::TempDir;

pub const CHAIN_ID: u64 = 31_337;
pub const EXIT_DELAY_S: u32 = 7 * 86_400;
pub const ROOT_DELAY_S: u32 = 3_600;
pub const POLL_INTERVAL_MS: u64 = 5;

pub struct World {
    pub anvil: Anvil,
    pub chain: Chain,
    pub deployment: Deployment,
    pub directory: TempDir,
    pub deployer: EvmKey,
    pub settler: EvmKey,
    pub guardian: EvmKey,
    pub user: EvmKey,
    pub other_user: EvmKey,
    pub operator: EvmKey,
}

pub fn repository_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a room lies in the repository").to_path_buf()
}

pub fn anvil_options(state_file: Option<PathBuf>) -> AnvilOptions {
    let program = find_anvil(&repository_root()).unwrap_or_else(|error| panic!("{error}"));
    AnvilOptions { program, port: 0, chain_id: CHAIN_ID, mining: Mining::Instant, state_file }
}

pub async fn start_anvil() -> Anvil {
    Anvil::start(&anvil_options(None)).await.expect("anvil starts")
}

pub async fn connect(anvil: &Anvil, confirmations: u64) -> Chain {
    Chain::connect(anvil.config(confirmations, POLL_INTERVAL_MS)).await.expect("anvil answers")
}

pub fn deploy_options() -> DeployOptions {
    DeployOptions {
        deployer: EvmKey::development(0),
        coordinator: EvmKey::development(0).address(),
        settler: EvmKey::development(1).address(),
        guardian: EvmKey::development(2).address(),
        exit_delay_s: EXIT_DELAY_S,
        root_delay_s: ROOT_DELAY_S,
        token: None,
    }
}

impl World {
    pub async fn new(confirmations: u64) -> Self {
        Self::over(start_anvil().await, confirmations).await
    }

    pub async fn over(anvil: Anvil, confirmations: u64) -> Self {
        let chain = connect(&anvil, confirmations).await;
        let manifest = deploy(&chain, &deploy_options()).await.expect("the artefacts deploy");
        let deployment = Deployment::open(chain.clone(), manifest).await.expect("what was just deployed");
        Self {
            anvil,
            chain,
            deployment,
            directory: TempDir::new().expect("a directory for the test"),
            deployer: EvmKey::development(0),
            settler: EvmKey::development(1),
            guardian: EvmKey::development(2),
            user: EvmKey::development(3),
            other_user: EvmKey::development(4),
            operator: EvmKey::development(5),
        }
    }

    pub fn watcher(&self) -> Watcher {
        let confirmations = self.chain.config().confirmations;
        Watcher::new(WatcherState::new(self.deployment.manifest(), confirmations))
    }

    /// Mints and deposits; the deposit's transaction.
    pub async fn fund(&self, key: &EvmKey, units: u64) -> Hash32 {
        dev::mint(&self.deployment, &self.deployer, key.address(), units).await.expect("minted");
        let deposit = dev::approve_and_deposit(&self.deployment, key, key.address(), units).await;
        deposit.expect("deposited").tx
    }

    pub async fn sign_cap(&self, key: &EvmKey, max_cumulative: u64) -> SignedAuthorisation {
        let account = self.deployment.account(key.address()).await.expect("an account");
        let head = self.chain.head().await.expect("a head");
        let authorisation = SpendAuthorisation {
            account: key.address(),
            coordinator: self.deployment.manifest().coordinator,
            max_cumulative,
            valid_until: u32::try_from(head.timestamp).expect("before 2106") + 90 * 86_400,
            nonce: account.authorisation_nonce,
            session: Hash32([9; 32]),
        };
        authorisation.sign(key, &self.deployment.domain())
    }

    pub async fn authorise(&self, key: &EvmKey, max_cumulative: u64) {
        let signed = self.sign_cap(key, max_cumulative).await;
        signed.verify_key(&self.deployment.domain()).expect("signed by its account");
        self.deployment.authorise(&self.settler, &[signed]).await.expect("authorised");
    }

    pub async fn mine(&self, block_count: u64) {
        dev::mine(&self.chain, block_count).await.expect("mined");
    }

    pub async fn poll(&self, watcher: &mut Watcher) -> Poll {
        watcher.poll(&self.deployment).await.expect("the chain answers")
    }
}

pub fn deposits(events: &[ChainEvent]) -> Vec<(Hash32, u64)> {
    let units = |event: &ChainEvent| match event.fact {
        ChainFact::Deposited { units, .. } => Some((event.origin.key.tx, units)),
        _ => None,
    };
    events.iter().filter_map(units).collect()
}
