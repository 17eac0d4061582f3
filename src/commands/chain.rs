//! `counterfoil chain`: puts a network's contracts on a chain, once, and says whether a manifest is true. What it writes is
//! what a coordinator verifies at every start.

use super::exit::Wallet;
use crate::output::Output;
use anyhow::{Context, Result, ensure};
use contracts::chain::Chain;
use contracts::deploy::{DeployOptions, deploy};
use contracts::deployment::Deployment;
use contracts::economy::{EconomyOptions, deploy_economy};
use contracts::fixed_bytes::{Address20, Hash32};
use contracts::manifest::Manifest;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::runtime::Runtime;

/// How often the node is asked whether a transaction is in a block.
const POLL_MS: u64 = 250;
/// Blocks above a transfer before it is believed.
const CONFIRMATIONS: u64 = 12;
/// Seconds between an exit's request and its payment.
const EXIT_DELAY_S: u32 = 7 * 86_400;
/// A payout root can be refused for so long before the first claim.
const ROOT_DELAY_S: u32 = 86_400;

/// Verbs of `counterfoil chain`.
#[derive(clap::Subcommand)]
pub enum ChainCommand {
    /// Deploy vault, pot and anchor (with --stake: stake, votes, treasury, packages too) and write their manifest.
    ///
    /// Example: counterfoil chain deploy --rpc http://127.0.0.1:8545 --key-file deployer.key --coordinator 0x... --settler 0x... --guardian 0x... --out manifest.json
    Deploy(Deploy),
    /// Whether the contracts of a manifest are on the chain, are this release's, and are wired as it says.
    ///
    /// Example: counterfoil chain verify --rpc http://127.0.0.1:8545 --manifest manifest.json
    Verify(Verify),
    /// Credit a payer whose signed transfer (x402) somebody handed straight to the token, past the vault; the settler's key.
    ///
    /// Example: counterfoil chain attribute --rpc URL --manifest manifest.json --key-file settler.key --payer 0x... --nonce 0x...
    Attribute(Attribute),
}

/// See [`ChainCommand::Deploy`].
#[derive(clap::Args)]
pub struct Deploy {
    /// JSON-RPC of a node of the chain.
    #[arg(long, env = "COUNTERFOIL_RPC", value_name = "URL")]
    rpc: String,
    /// Whose key pays; it has no role afterwards.
    #[command(flatten)]
    deployer: Wallet,
    /// The cold identity that spend authorisations name: a multisig.
    #[arg(long, value_name = "ADDRESS")]
    coordinator: Address20,
    /// The hot key that settles and signs vouchers.
    #[arg(long, value_name = "ADDRESS")]
    settler: Address20,
    /// Who may refuse a payout root before it is active.
    #[arg(long, value_name = "ADDRESS")]
    guardian: Address20,
    /// The token that is deposited, 6 to 18 decimals; without it, the development token, which its deployer mints at will.
    #[arg(long, value_name = "ADDRESS")]
    token: Option<Address20>,
    /// Seconds between an exit's request and its payment.
    #[arg(long, default_value_t = EXIT_DELAY_S, value_name = "SECONDS")]
    exit_delay_s: u32,
    /// Seconds between a payout root and its first claim.
    #[arg(long, default_value_t = ROOT_DELAY_S, value_name = "SECONDS")]
    root_delay_s: u32,
    #[command(flatten)]
    stake: StakeTerms,
    /// Where the manifest goes; a file that is there is not replaced.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Stake, votes, treasury and packages beside the vault.
#[derive(clap::Args)]
struct StakeTerms {
    /// Deploy them too: the settler opens days and pays, the guardian refuses roots, the network token is staked.
    #[arg(long)]
    stake: bool,
    /// The stable token that packages and workers are paid in; without it, the development dollar.
    #[arg(long, value_name = "ADDRESS", requires = "stake")]
    dollar: Option<Address20>,
    /// Who keeps the price list of packages; the coordinator by default.
    #[arg(long, value_name = "ADDRESS", requires = "stake")]
    publisher: Option<Address20>,
    /// The stake from which an account is eligible, token base units.
    #[arg(long, default_value_t = 100_000_000_000_000_000_000, value_name = "N", requires = "stake")]
    stake_base_units_min: u128,
    /// Seconds between the start of an unbonding and its payment.
    #[arg(long, default_value_t = 7 * 86_400, value_name = "SECONDS", requires = "stake")]
    unbond_delay_s: u32,
    /// Seconds between a proposal and its snapshot.
    #[arg(long, default_value_t = 86_400, value_name = "SECONDS", requires = "stake")]
    voting_delay_s: u32,
    /// Seconds that a vote takes.
    #[arg(long, default_value_t = 3 * 86_400, value_name = "SECONDS", requires = "stake")]
    voting_period_s: u32,
    /// Percent of all stake that must take part.
    #[arg(long, default_value_t = 20, value_name = "PERCENT", requires = "stake")]
    quorum_percent: u8,
    /// The first lower and upper bound of a day's pool, units of 1e-6.
    #[arg(long, num_args = 2, default_values_t = [1_000_000, 50_000_000], value_names = ["FLOOR", "CEILING"], requires = "stake")]
    bounds_units: Vec<u64>,
}

/// See [`ChainCommand::Verify`].
#[derive(clap::Args)]
pub struct Verify {
    /// JSON-RPC of a node of the chain.
    #[arg(long, env = "COUNTERFOIL_RPC", value_name = "URL")]
    rpc: String,
    /// What `deploy` wrote.
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
}

/// See [`ChainCommand::Attribute`].
#[derive(clap::Args)]
pub struct Attribute {
    #[command(flatten)]
    place: Verify,
    #[command(flatten)]
    settler: Wallet,
    /// Who paid.
    #[arg(long, value_name = "ADDRESS")]
    payer: Address20,
    /// The signed transfer's nonce, 32 bytes in hex.
    #[arg(long, value_name = "NONCE")]
    nonce: Hash32,
    /// Blocks that must lie above the transfer.
    #[arg(long, default_value_t = CONFIRMATIONS, value_name = "N")]
    confirmations: u64,
}

impl ChainCommand {
    /// Runs the verb.
    pub fn run(self, output: Output) -> Result<ExitCode> {
        let runtime = Runtime::new()?;
        let (text, value) = match self {
            ChainCommand::Deploy(deploy) => runtime.block_on(deploy.run())?,
            ChainCommand::Verify(verify) => runtime.block_on(verify.run())?,
            ChainCommand::Attribute(attribute) => runtime.block_on(attribute.run())?,
        };
        output.result(&text, &value);
        Ok(ExitCode::SUCCESS)
    }
}

impl Deploy {
    async fn run(self) -> Result<(String, Value)> {
        let out = &self.out;
        ensure!(
            !out.exists(),
            "{} is there already; a network is deployed once: name another file",
            out.display()
        );
        let deployer = self.deployer.key()?;
        let chain = Chain::discover(&self.rpc, POLL_MS).await?;
        let options = DeployOptions {
            deployer: deployer.clone(),
            coordinator: self.coordinator,
            settler: self.settler,
            guardian: self.guardian,
            exit_delay_s: self.exit_delay_s,
            root_delay_s: self.root_delay_s,
            token: self.token,
        };
        let mut manifest = deploy(&chain, &options).await?;
        // On disk before anything else is deployed: what is there already is not lost with a failure.
        manifest.save(out)?;
        if self.stake.stake {
            let terms = &self.stake;
            let economy = EconomyOptions {
                deployer,
                dollar: terms.dollar,
                settler: self.settler,
                publisher: terms.publisher.unwrap_or(self.coordinator),
                minimum_stake_base_units: terms.stake_base_units_min,
                unbond_delay_s: terms.unbond_delay_s,
                voting_delay_s: terms.voting_delay_s,
                voting_period_s: terms.voting_period_s,
                quorum_percent: terms.quorum_percent,
                floor_units: terms.bounds_units[0],
                ceiling_units: terms.bounds_units[1],
            };
            manifest = deploy_economy(&chain, &manifest, &economy).await?;
            manifest.save(out)?;
        }
        Ok(told(&manifest, &format!("Deployed; the manifest is {}.", out.display())))
    }
}

impl Verify {
    async fn run(self) -> Result<(String, Value)> {
        let manifest = Manifest::load(&self.manifest)?;
        let chain = Chain::discover(&self.rpc, POLL_MS).await?;
        let deployment = Deployment::open(chain, manifest).await?;
        Ok(told(
            deployment.manifest(),
            "Every contract is there, is this release's, and is wired as the manifest says.",
        ))
    }
}

impl Attribute {
    async fn run(self) -> Result<(String, Value)> {
        let settler = self.settler.key()?;
        let manifest = Manifest::load(&self.place.manifest)?;
        let deployment = Deployment::open(Chain::discover(&self.place.rpc, POLL_MS).await?, manifest).await?;
        let stray =
            deployment.find_stray(self.payer, self.nonce, self.confirmations).await?.with_context(|| {
                format!(
                    "no transfer of {} to the vault by nonce {} came past it, or it is not mined yet",
                    self.payer, self.nonce
                )
            })?;
        let mined = deployment.attribute(&settler, &stray).await?;
        let text =
            format!("{} vault units are credited to {} (transaction {})", stray.units, stray.payer, mined.tx);
        Ok((text, json!({ "payer": stray.payer, "units": stray.units, "tx": mined.tx })))
    }
}

fn told(manifest: &Manifest, first: &str) -> (String, Value) {
    let text = format!(
        "{first}\nchain {}, block {}\nvault {}\npot {}\nanchor {}\ntoken {} ({} decimals)",
        manifest.chain_id,
        manifest.deployed_block,
        manifest.vault,
        manifest.payouts,
        manifest.anchor,
        manifest.token,
        manifest.token_decimals
    );
    (text, json!(manifest))
}
