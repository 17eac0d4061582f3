//! Role sequencer: stands by, leads, stands by again when another one's term began. Must not: decide who leads (the lease
//! asks, the log answers).

use super::config::{RoleName, SequencerConfig, ServeConfig, StuckLeader, TailSync, Watchdog};
use super::{asked_to_end, say};
use crate::output::Output;
use anyhow::{Context, Result};
use journal::JournalOptions;
use journal::auth::Credentials;
use journal::pipeline::StopReason;
use journal::standby::{Leader, Standby, StandbyOptions, StuckOwner};
use journal::watchdog::WatchdogOptions;
use journal::writer::TailSyncMode;
use ledger::preset::Preset;
use serde_json::json;
use tokio::sync::watch;

const ROLE: RoleName = RoleName::Sequencer;

/// Until it is asked to end, or cannot go on.
pub async fn run(config: &ServeConfig, mut stop: watch::Receiver<bool>, output: Output) -> Result<()> {
    let own = config.sequencer.as_ref().context("role sequencer needs the table [sequencer]")?;
    let options = options(config, own)?;
    loop {
        say(output, ROLE, "stands_by", json!({}));
        let leader = tokio::select! {
            leader = Standby::run(options.clone()) => leader?,
            () = asked_to_end(&mut stop) => return Ok(()),
        };
        say(output, ROLE, "leads", json!({"term": leader.journal().epoch()}));
        let reason = tokio::select! {
            reason = leader.ended() => reason,
            () = asked_to_end(&mut stop) => {
                let closed = leader.shutdown().await;
                return closed.map_err(|reason| anyhow::anyhow!("the journal did not close in order: {reason}"));
            }
        };
        end(leader, &reason).await?;
        say(output, ROLE, "was_superseded", json!({"reason": reason.to_string()}));
    }
}

/// Another one leads: that is how it should be. Anything else needs hands.
async fn end(leader: Leader, reason: &StopReason) -> Result<()> {
    // It has stopped already; this frees the data directory.
    let _ = leader.shutdown().await;
    match reason {
        StopReason::Fenced { .. } | StopReason::Abandoned => Ok(()),
        other => Err(anyhow::anyhow!("the sequencer stopped: {other}")),
    }
}

fn options(config: &ServeConfig, own: &SequencerConfig) -> Result<StandbyOptions> {
    let credentials = Credentials::read(&own.credentials_file)?;
    std::fs::create_dir_all(&own.data_dir).with_context(|| own.data_dir.display().to_string())?;
    let mut journal = JournalOptions::new(config.nats_url.clone(), credentials, own.data_dir.clone());
    if let Some(genesis) = &own.genesis {
        let preset = read_preset(&genesis.preset_file)?;
        journal.genesis = Some(preset.network(&genesis.origin)?);
    }
    journal.tail_sync = match own.tail_sync {
        TailSync::Soon => TailSyncMode::Soon,
        TailSync::Always => TailSyncMode::Always,
    };
    journal.replicas_min = own.replicas_min;
    if own.watchdog == Watchdog::On {
        journal.watchdog = Some(WatchdogOptions::usual(0));
    }
    journal.archive_copy = own.archive_copy.as_ref().map(|copy| copy.parse()).transpose()?;
    let mut options = StandbyOptions::new(journal);
    options.stuck_owner = match own.stuck_leader {
        StuckLeader::Kill => StuckOwner::Kill,
        StuckLeader::Leave => StuckOwner::Leave,
    };
    Ok(options)
}

/// A preset's file.
pub(super) fn read_preset(path: &std::path::Path) -> Result<Preset> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    toml::from_str(&text).with_context(|| path.display().to_string())
}
