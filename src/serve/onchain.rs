//! Roles watcher and settler: the chain into the log, batches from the log to the chain. Must not: judge what is confirmed
//! or payable (the contracts room and the ledger do).

use super::config::{ChainTable, RoleName, ServeConfig};
use super::{asked_to_end, connect, origin, say};
use crate::network::chain_door::vault_ref;
use crate::output::Output;
use anyhow::{Context, Result};
use contracts::chain::{Chain, ChainConfig};
use contracts::deployment::Deployment;
use contracts::key::EvmKey;
use contracts::manifest::Manifest;
use contracts::mirror::{Mirror, MirrorOptions};
use contracts::settlement::{CheckpointSource, SettlementOptions, SettlementRun};
use contracts::settler::{Settler, SettlerOptions};
use journal::LedgerClient;
use ledger::command::{Command, CommandBody};
use protocol::asset::AssetId;
use protocol::checkpoint::Checkpoint;
use protocol::event::Actor;
use protocol::event::chain::VaultRegistered;
use protocol::id::{EvmAddress, Hash32, IdempotencyKey};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;

/// Between two looks at the checkpoint's file.
const CHECKPOINT_LOOK: Duration = Duration::from_millis(500);
/// A transaction that is not mined for so long is sent again with a higher fee, and given up.
const PATIENCE: SettlerOptions = SettlerOptions { stuck_after_ms: 60_000, give_up_after_ms: 600_000 };

/// The verified contracts.
pub(super) async fn open_deployment(table: &ChainTable) -> Result<Deployment> {
    let manifest = Manifest::load(&table.manifest_file)?;
    let chain = Chain::connect(ChainConfig {
        rpc_url: table.rpc_url.clone(),
        chain_id: manifest.chain_id,
        confirmations: table.confirmations,
        poll_interval_ms: table.poll_interval_ms,
    });
    Ok(Deployment::open(chain.await?, manifest).await?)
}

/// A key from a file with 64 hex digits.
pub(super) fn read_key(path: &Path) -> Result<EvmKey> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    EvmKey::from_hex(text.trim()).with_context(|| path.display().to_string())
}

/// Role watcher, until it is asked to end.
pub async fn watch(config: &ServeConfig, mut stop: watch::Receiver<bool>, output: Output) -> Result<()> {
    let own = config.watcher.as_ref().context("role watcher needs the table [watcher]")?;
    let chain = config.chain.as_ref().context("role watcher needs the table [chain]")?;
    let client = connect(config, &own.credentials_file, None).await?;
    let origin = tokio::select! {
        origin = origin(&client) => origin?,
        () = asked_to_end(&mut stop) => return Ok(()),
    };
    let deployment = open_deployment(chain).await?;
    if let Some(platform) = &own.platform_address {
        register_vault(&client, &deployment, platform).await?;
    }
    let mirror = Mirror::open(MirrorOptions {
        deployment,
        confirmations: chain.confirmations,
        state_file: own.state_file.clone(),
        client,
        origin: contracts::fixed_bytes::Hash32::keccak(origin.as_bytes()),
    })?;
    say(output, RoleName::Watcher, "watches", json!({"rpc_url": chain.rpc_url}));
    mirror.run(stop).await;
    Ok(())
}

/// Once; several may try: it is one command under one key.
async fn register_vault(client: &LedgerClient, deployment: &Deployment, platform: &str) -> Result<()> {
    let vault = vault_ref(deployment);
    let known =
        client.read(move |state| ledger::query::vaults(state).iter().any(|v| v.vault == vault)).await?;
    if known {
        return Ok(());
    }
    let platform = platform.parse::<EvmAddress>().context("watcher.platform_address")?;
    let manifest = deployment.manifest();
    let registered = VaultRegistered {
        vault,
        payouts: EvmAddress(manifest.payouts.0),
        token: EvmAddress(manifest.token.0),
        asset: AssetId(0),
        deployed_block: manifest.deployed_block,
        coordinator: EvmAddress(manifest.coordinator.0),
        platform,
    };
    let key = IdempotencyKey::internal("register vault", &[]);
    client.submit(Command::new(key, Actor::Admin, CommandBody::from(registered))).await?;
    Ok(())
}

/// Role settler: at the end of every epoch of the network's settings, until it is asked to end.
pub async fn settle(config: &ServeConfig, mut stop: watch::Receiver<bool>, output: Output) -> Result<()> {
    let own = config.settler.as_ref().context("role settler needs the table [settler]")?;
    let chain = config.chain.as_ref().context("role settler needs the table [chain]")?;
    let client = connect(config, &own.credentials_file, None).await?;
    tokio::select! {
        origin = origin(&client) => origin.map(drop)?,
        () = asked_to_end(&mut stop) => return Ok(()),
    }
    let deployment = open_deployment(chain).await?;
    let key = read_key(&own.key_file)?;
    let settler = Settler::open(deployment.clone(), key, &own.data_dir.join("settlements"), PATIENCE).await?;
    let epoch_us =
        client.read(|state| ledger::query::settings(state).map(|settings| settings.epoch_us)).await?;
    let period = Duration::from_micros(epoch_us.context("the network has no settings")?);
    let run = SettlementRun::new(SettlementOptions {
        deployment,
        settler,
        client,
        checkpoints: CheckpointFile { path: own.checkpoint_file.clone() },
        directory: own.data_dir.join("batches"),
    });
    say(output, RoleName::Settler, "settles", json!({"every_s": period.as_secs()}));
    // A batch that an earlier run left open is finished at once.
    let mut epochs = tokio::time::interval(period);
    loop {
        tokio::select! {
            _ = epochs.tick() => {}
            () = asked_to_end(&mut stop) => return Ok(()),
        }
        tokio::select! {
            settled = run.settle_once() => match settled {
                Ok(Some((batch, _))) => say(output, RoleName::Settler, "settled", json!({"batch": batch})),
                Ok(None) => {}
                Err(error) => tracing::error!(target: "settler", %error, "the epoch was not settled; the next one tries again"),
            },
            // Every step is found again at the next start.
            () = asked_to_end(&mut stop) => return Ok(()),
        }
    }
}

/// Checkpoints as the projector publishes them: the newest in one file, replaced whole.
struct CheckpointFile {
    path: PathBuf,
}

impl CheckpointSource for CheckpointFile {
    async fn covering(&self, size: u64) -> Result<(u64, Hash32), String> {
        let mut look = tokio::time::interval(CHECKPOINT_LOOK);
        loop {
            look.tick().await;
            let note = match tokio::fs::read_to_string(&self.path).await {
                Ok(note) => note,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(format!("{}: {error}", self.path.display())),
            };
            let text = note.split_once("\n\n").map_or(note.as_str(), |(text, _)| text);
            let checkpoint = Checkpoint::parse(&format!("{}\n", text.trim_end()));
            let checkpoint = checkpoint.map_err(|error| format!("{}: {error}", self.path.display()))?;
            if checkpoint.size >= size {
                return Ok((checkpoint.size, checkpoint.root));
            }
        }
    }
}
