//! `counterfoil exit`: a user takes funds out, an operator claims earnings, with nothing but a wallet and a node. Reads no
//! configuration, asks none of our processes.

use crate::exit_code::Failure;
use crate::output::Output;
use anyhow::{Context, Result};
use contracts::chain::{Chain, Mined};
use contracts::exit::{Exit as Door, ExitStage};
use contracts::fixed_bytes::Address20;
use contracts::key::EvmKey;
use contracts::settlement::read_published;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::runtime::Runtime;

/// How often the node is asked whether a transaction is in a block.
const POLL_MS: u64 = 250;
/// The environment variable with a wallet's key.
const KEY_VARIABLE: &str = "COUNTERFOIL_WALLET_KEY";
/// Vault units have six decimals.
const UNITS_PER_WHOLE: u64 = 1_000_000;

/// Verbs of `counterfoil exit`.
#[derive(clap::Subcommand)]
pub enum Exit {
    /// What the vault holds for an account, and how far its exit is.
    ///
    /// Example: counterfoil exit status --rpc http://127.0.0.1:8545 --vault 0x... --account 0x...
    Status(Status),
    /// Ask to leave. The vault pays after its delay; asking again does not move the date.
    Request(Sent),
    /// Take the request back.
    Cancel(Sent),
    /// Take everything out, once the delay has passed.
    Finalize(Finalize),
    /// Claim an operator's earnings by a published settlement file (settlements/batch-N.json).
    Claim(Claim),
}

/// Which vault, through which node.
#[derive(clap::Args)]
struct Place {
    /// JSON-RPC of any node of the chain.
    #[arg(long, env = "COUNTERFOIL_RPC", value_name = "URL")]
    rpc: String,
    /// The vault's address: in the deposit page, and in the wallet's history of deposits.
    #[arg(long, env = "COUNTERFOIL_VAULT", value_name = "ADDRESS")]
    vault: Address20,
}

/// Whose wallet. The key is never an argument: arguments are seen by everybody on the machine.
#[derive(clap::Args)]
pub(super) struct Wallet {
    /// File with the wallet's private key, 64 hex digits; without it, the variable COUNTERFOIL_WALLET_KEY.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// See [`Exit::Status`].
#[derive(clap::Args)]
pub struct Status {
    #[command(flatten)]
    place: Place,
    /// The account; the wallet's own by default.
    #[arg(long, value_name = "ADDRESS")]
    account: Option<Address20>,
    #[command(flatten)]
    wallet: Wallet,
}

/// See [`Exit::Request`] and [`Exit::Cancel`].
#[derive(clap::Args)]
pub struct Sent {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    wallet: Wallet,
}

/// See [`Exit::Finalize`].
#[derive(clap::Args)]
pub struct Finalize {
    #[command(flatten)]
    sent: Sent,
    /// Where the money goes; the wallet itself by default.
    #[arg(long, value_name = "ADDRESS")]
    to: Option<Address20>,
}

/// See [`Exit::Claim`].
#[derive(clap::Args)]
pub struct Claim {
    #[command(flatten)]
    sent: Sent,
    /// The published settlement.
    #[arg(long, value_name = "FILE")]
    batch: PathBuf,
    /// The operator's payout address; the wallet's own by default. Anybody may claim for it, it alone is paid.
    #[arg(long, value_name = "ADDRESS")]
    operator: Option<Address20>,
}

impl Exit {
    /// Runs the verb.
    pub fn run(self, output: Output) -> Result<ExitCode> {
        let runtime = Runtime::new()?;
        let (text, value) = match self {
            Exit::Status(status) => runtime.block_on(status.run())?,
            Exit::Request(sent) => runtime.block_on(sent.request())?,
            Exit::Cancel(sent) => runtime.block_on(sent.cancel())?,
            Exit::Finalize(finalize) => runtime.block_on(finalize.run())?,
            Exit::Claim(claim) => runtime.block_on(claim.run())?,
        };
        output.result(&text, &value);
        Ok(ExitCode::SUCCESS)
    }
}

impl Place {
    async fn open(&self) -> Result<Door> {
        let chain = Chain::discover(&self.rpc, POLL_MS).await?;
        Ok(Door::open(chain, self.vault).await?)
    }
}

impl Wallet {
    pub(super) fn key(&self) -> Result<EvmKey> {
        let text = match &self.key_file {
            Some(path) => std::fs::read_to_string(path).with_context(|| path.display().to_string())?,
            None => std::env::var(KEY_VARIABLE)
                .with_context(|| format!("no wallet: give --key-file FILE, or set {KEY_VARIABLE}"))
                .context(Failure::Usage)?,
        };
        EvmKey::from_hex(&text).context(Failure::Usage)
    }
}

impl Status {
    async fn run(self) -> Result<(String, Value)> {
        let account = match self.account {
            Some(account) => account,
            None => self.wallet.key()?.address(),
        };
        let door = self.place.open().await?;
        let status = door.status(account).await?;
        let (stage, next) = match status.stage {
            ExitStage::NotRequested => (
                "not_requested",
                format!("no exit is requested; the delay is {}", duration(door.delay_s().into())),
            ),
            ExitStage::Waiting { wait_s, .. } => {
                ("waiting", format!("the exit may be finalized in {}", duration(wait_s)))
            }
            ExitStage::Due => ("due", "the exit may be finalized now".to_owned()),
        };
        let balance = decimal(status.account.balance);
        let text = format!("{account} has {balance} of token {} in the vault; {next}", door.token());
        let value = json!({
            "account": account,
            "balance": balance,
            "charged": decimal(status.account.charged),
            "cap": decimal(status.account.cap),
            "token": door.token(),
            "token_base_units_per_unit": door.unit_base_units().to_string(),
            "stage": stage,
            "exit_at_s": status.account.exit_at,
            "delay_s": door.delay_s(),
        });
        Ok((text, value))
    }
}

impl Sent {
    async fn request(self) -> Result<(String, Value)> {
        let (key, door) = (self.wallet.key()?, self.place.open().await?);
        let mined = door.request(&key).await?;
        let status = door.status(key.address()).await?;
        let wait_s = match status.stage {
            ExitStage::Waiting { wait_s, .. } => wait_s,
            ExitStage::NotRequested | ExitStage::Due => 0,
        };
        let text = format!(
            "{} has asked to leave (transaction {}); finalize in {}",
            key.address(),
            mined.tx,
            duration(wait_s)
        );
        Ok((text, done(&key, &mined, json!({ "exit_at_s": status.account.exit_at, "wait_s": wait_s }))))
    }

    async fn cancel(self) -> Result<(String, Value)> {
        let (key, door) = (self.wallet.key()?, self.place.open().await?);
        let mined = door.cancel(&key).await?;
        let text = format!("{} stays (transaction {})", key.address(), mined.tx);
        Ok((text, done(&key, &mined, json!({}))))
    }
}

impl Finalize {
    async fn run(self) -> Result<(String, Value)> {
        let (key, door) = (self.sent.wallet.key()?, self.sent.place.open().await?);
        let to = self.to.unwrap_or(key.address());
        let held = decimal(door.status(key.address()).await?.account.balance);
        let mined = door.finalize(&key, to).await?;
        let text = format!("{held} went to {to} (transaction {})", mined.tx);
        Ok((text, done(&key, &mined, json!({ "to": to, "amount": held }))))
    }
}

impl Claim {
    async fn run(self) -> Result<(String, Value)> {
        let key = self.sent.wallet.key()?;
        let operator = self.operator.unwrap_or(key.address());
        let published = read_published(&self.batch)?;
        let published = published.with_context(|| format!("{}: no such file", self.batch.display()))?;
        let claim = published.plan.claim(operator).with_context(|| {
            format!("{}: operator {operator} earns nothing in this settlement", self.batch.display())
        })?;
        let door = self.sent.place.open().await?;
        let mined = door.claim(&key, &claim).await?;
        let cumulative = decimal(claim.cumulative_units);
        let text = format!(
            "{operator} has been paid up to {cumulative} in all, by the root of epoch {} (transaction {})",
            claim.epoch, mined.tx
        );
        let more = json!({ "operator": operator, "epoch": claim.epoch, "cumulative": cumulative });
        Ok((text, done(&key, &mined, more)))
    }
}

fn done(key: &EvmKey, mined: &Mined, mut more: Value) -> Value {
    more["wallet"] = json!(key.address());
    more["tx"] = json!(mined.tx);
    more["block"] = json!(mined.block);
    more
}

fn decimal(units: u64) -> String {
    format!("{}.{:06}", units / UNITS_PER_WHOLE, units % UNITS_PER_WHOLE)
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_and_durations_are_readable() {
        assert_eq!(decimal(12_000_001), "12.000001");
        assert_eq!(decimal(0), "0.000000");
        for (seconds, text) in [(5, "5 s"), (125, "2 min 5 s"), (7_260, "2 h 1 min"), (604_800, "7 d 0 h")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
