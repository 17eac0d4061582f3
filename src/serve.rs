//! The coordinator as roles: one process, or several, on one log. What a role does is its room's; here are configuration,
//! connections and the order of starting and ending. Must not: start nats-server or a chain (`up` does, for one machine).

pub mod config;
mod follower;
mod gateway;
mod onchain;
mod sequencer;

use crate::output::Output;
use anyhow::{Context, Result};
use config::{RoleName, ServeConfig};
use journal::LedgerClient;
use journal::auth::Credentials;
use journal::remote::{RemoteLedger, RemoteOptions};
use serde_json::json;
use std::path::Path;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Runs the roles until the process is asked to end, or one of them cannot go on: then all end.
pub async fn run(config: ServeConfig, roles: &[RoleName], output: Output) -> Result<()> {
    let (stop, stopped) = watch::channel(false);
    let mut running: JoinSet<(RoleName, Result<()>)> = JoinSet::new();
    for role in roles {
        let (role, config, stopped) = (*role, config.clone(), stopped.clone());
        running.spawn(async move { (role, run_role(role, config, stopped, output).await) });
    }
    let mut interrupt = std::pin::pin!(crate::commands::interrupted());
    let mut failed = None;
    let mut asked = false;
    loop {
        tokio::select! {
            () = &mut interrupt, if !asked => {
                asked = true;
                stop.send_replace(true);
            }
            ended = running.join_next() => {
                let Some(ended) = ended else { break };
                let (role, result) = ended.context("a role's task died: a bug of ours")?;
                if let Err(error) = result {
                    failed.get_or_insert(error.context(format!("role {}", role.name())));
                }
                // One that ends takes the others with it: whoever supervises us starts all again.
                stop.send_replace(true);
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn run_role(
    role: RoleName,
    config: ServeConfig,
    stop: watch::Receiver<bool>,
    output: Output,
) -> Result<()> {
    match role {
        RoleName::Sequencer => sequencer::run(&config, stop, output).await,
        RoleName::Gateway => gateway::run(&config, stop, output).await,
        RoleName::Projector => follower::run(&config, stop, output).await,
        RoleName::Watcher => onchain::watch(&config, stop, output).await,
        RoleName::Settler => onchain::settle(&config, stop, output).await,
    }
}

/// Says what happened: a line for people, an object for machines.
fn say(output: Output, role: RoleName, event: &str, value: serde_json::Value) {
    let mut line = json!({"role": role.name(), "event": event});
    if let (Some(line), Some(more)) = (line.as_object_mut(), value.as_object()) {
        line.extend(more.clone());
    }
    output.result(&format!("{}: {event} {value}", role.name()), &line);
}

/// Returns when the roles shall end.
async fn asked_to_end(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A door to whichever sequencer leads; `snapshots` is a data folder whose snapshots the replica may begin with.
async fn connect(config: &ServeConfig, credentials: &Path, snapshots: Option<&Path>) -> Result<LedgerClient> {
    let credentials = Credentials::read(credentials)?;
    let mut options = RemoteOptions::new(config.nats_url.clone(), credentials);
    options.snapshots = snapshots.map(Path::to_owned);
    Ok(RemoteLedger::connect(options).await?.into())
}

/// The network's origin, once its first event is in the log.
async fn origin(client: &LedgerClient) -> Result<String> {
    let mut position = client.position();
    loop {
        position.borrow_and_update();
        let network =
            client.read(|state| ledger::query::network(state).map(|network| network.origin.clone()));
        match network.await? {
            Some(origin) => return Ok(origin),
            None => position.changed().await.context("the ledger's door is closed")?,
        }
    }
}
