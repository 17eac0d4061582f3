//! Role gateway: its own data directory and name, one of perhaps several on the same log. Must not: relay or admit.

use super::config::{GatewayConfig, ModelFile, RoleName, ServeConfig};
use super::{asked_to_end, connect, onchain, origin, say, sequencer};
use crate::network::chain_door::VaultDoor;
use crate::network::secrets::Secrets;
use crate::output::Output;
use anyhow::{Context, Result};
use dispatcher::doors::{ChainDoor, DoorError, DoorFuture, OperatorCredentials, OperatorIssuer};
use dispatcher::{Gateway, GatewayOptions, ServedModel};
use journal::LedgerClient;
use journal::auth::{self, Credentials, Keys};
use kernels::Tokenizer;
use ledger::command::{Command, PublishRateCard};
use ledger::preset::ModelHashes;
use protocol::event::Actor;
use protocol::id::{Hash32, IdempotencyKey, OperatorId};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

const ROLE: RoleName = RoleName::Gateway;

/// Until it is asked to end.
pub async fn run(config: &ServeConfig, mut stop: watch::Receiver<bool>, output: Output) -> Result<()> {
    let own = config.gateway.as_ref().context("role gateway needs the table [gateway]")?;
    let client = connect(config, &own.credentials_file, own.snapshots_dir.as_deref()).await?;
    tokio::select! {
        network = origin(&client) => network.map(drop)?,
        () = asked_to_end(&mut stop) => return Ok(()),
    }
    let models = read_models(&own.models).await?;
    if own.preset_file.is_some() {
        open_rate_card(&client, own, &models).await?;
    }
    let options = options(config, own, client, models).await?;
    let gateway = Gateway::start_among_others(options).await?;
    say(output, ROLE, "listens", json!({"url": format!("http://{}", gateway.local_addr())}));
    asked_to_end(&mut stop).await;
    gateway.shutdown().await;
    Ok(())
}

async fn options(
    config: &ServeConfig,
    own: &GatewayConfig,
    client: LedgerClient,
    models: Vec<(ServedModel, ModelHashes)>,
) -> Result<GatewayOptions> {
    std::fs::create_dir_all(&own.data_dir).with_context(|| own.data_dir.display().to_string())?;
    let secrets = Secrets::load_or_create(&own.secrets_dir)?;
    let chain: Option<Arc<dyn ChainDoor>> = match (&own.settler_key_file, &config.chain) {
        (Some(key), Some(chain)) => {
            let deployment = onchain::open_deployment(chain).await?;
            Some(Arc::new(VaultDoor::new(deployment, onchain::read_key(key)?, chain.confirmations)))
        }
        _ => None,
    };
    let operators: Option<Arc<dyn OperatorIssuer>> = match &own.operator_keys_dir {
        Some(dir) => {
            let keys = Keys::load_or_create(dir)?;
            Some(Arc::new(Issuer { keys, nats_url: config.nats_url.clone() }))
        }
        None => None,
    };
    let nats = auth::connect(&config.nats_url, &Credentials::read(&own.credentials_file)?).await?;
    Ok(GatewayOptions {
        listen: own.listen,
        name: own.name.clone(),
        client,
        nats,
        models: models.into_iter().map(|(served, _)| served).collect(),
        data_dir: own.data_dir.clone(),
        audit_sealing_key: secrets.audit_sealing_key,
        admin_key: secrets.admin_key,
        auditor_key: Some(secrets.auditor_key),
        chain,
        operators,
        // The transparency log is another process's: its tiles are fetched from there.
        proofs: None,
        lane: own.lane.clone(),
        readings: Arc::new(Vec::new),
        routing: own.routing.options(),
        pages: Some(crate::network::pages::of_gateway()),
        welcome: None,
        verifier: None,
    })
}

/// Issues operators' credentials with the network's signing key.
struct Issuer {
    keys: Keys,
    nats_url: String,
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

async fn read_models(files: &[ModelFile]) -> Result<Vec<(ServedModel, ModelHashes)>> {
    let mut models = Vec::with_capacity(files.len());
    for file in files {
        let path = file.path.clone();
        let read = tokio::task::spawn_blocking(move || Tokenizer::from_gguf(&path)).await?;
        let (tokenizer, template, weights) = read.with_context(|| file.path.display().to_string())?;
        let hashes = ModelHashes {
            weights: Hash32(weights),
            tokenizer: Hash32(tokenizer.hash()),
            template: Hash32(template.hash()),
        };
        models.push((ServedModel { model: file.name.clone(), tokenizer, template }, hashes));
    }
    Ok(models)
}

/// Publishes the preset's card where the network has none. Several gateways may try: it is one command under one key.
async fn open_rate_card(
    client: &LedgerClient,
    own: &GatewayConfig,
    models: &[(ServedModel, ModelHashes)],
) -> Result<()> {
    let known = client.read(|state| ledger::query::rate_card_by_version(state, 1).is_some()).await?;
    let Some(path) = own.preset_file.as_ref().filter(|_| !known) else { return Ok(()) };
    let hashes: BTreeMap<&str, ModelHashes> =
        models.iter().map(|(served, hashes)| (served.model.as_str(), *hashes)).collect();
    let card = sequencer::read_preset(path)?.rate_card(|model| hashes.get(model).copied())?;
    let key = IdempotencyKey::internal("first rate card", &[]);
    client.submit(Command::new(key, Actor::Admin, PublishRateCard { card })).await?;
    Ok(())
}
