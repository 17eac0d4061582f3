//! Role projector: FEED and the transparency log, in one process of the network. Must not: decide or write the log.

use super::config::{RoleName, ServeConfig};
use super::{asked_to_end, say};
use crate::output::Output;
use anyhow::{Context, Result};
use futures::StreamExt;
use journal::auth::{self, Credentials};
use journal::feed::{FeedOptions, FeedPublisher, commits_from_leaf};
use journal::reader::{Reader, ReaderOptions, Until};
use journal::stream::LEDGER_STREAM;
use journal::transparency::{self, Signer, Transparency};
use protocol::event::EventBody;
use serde_json::json;
use tokio::sync::watch;

const ROLE: RoleName = RoleName::Projector;

/// Until it is asked to end, or the log cannot be followed.
pub async fn run(config: &ServeConfig, mut stop: watch::Receiver<bool>, output: Output) -> Result<()> {
    let own = config.projector.as_ref().context("role projector needs the table [projector]")?;
    let client = auth::connect(&config.nats_url, &Credentials::read(&own.credentials_file)?).await?;
    let reader = Reader::new(ReaderOptions {
        client: client.clone(),
        stream: LEDGER_STREAM.to_owned(),
        shard: 0,
        position: None,
    });
    let origin = tokio::select! {
        origin = first_origin(&reader) => origin?,
        () = asked_to_end(&mut stop) => return Ok(()),
    };
    std::fs::create_dir_all(&own.data_dir).with_context(|| own.data_dir.display().to_string())?;
    let signer = Signer::load_or_create(&own.keys_dir, &origin)?;
    let log = Transparency::open(&own.data_dir.join("tlog"), signer)?;
    let handle = transparency::spawn(log, transparency::CHECKPOINT_INTERVAL)?;
    let policy = protocol::checkpoint::Policy::of_log(handle.verifier_key().clone()).text();
    std::fs::write(own.data_dir.join("auditor.policy"), policy)?;
    let publisher = FeedPublisher::new(FeedOptions { client, origin: origin.clone(), head: None });
    say(output, ROLE, "follows", json!({"origin": origin}));
    tokio::select! {
        ended = publisher.run(|leaf| commits_from_leaf(&reader, leaf)) => ended.context("FEED"),
        ended = handle.follow(commits_from_leaf(&reader, handle.first_needed())) => {
            ended.context("the transparency log")
        }
        () = asked_to_end(&mut stop) => {
            // What was read is signed before we go.
            let _ = handle.checkpoint().await;
            Ok(())
        }
    }
}

/// The log's name, from its first event.
async fn first_origin(reader: &Reader) -> Result<String> {
    let mut commits = reader.from_commit(1, Until::Forever);
    let first = commits.next().await.context("the log ended before it began")??;
    let opened = first.events.iter().find_map(|event| match &event.body {
        EventBody::NetworkOpened(opened) => Some(opened.origin.clone()),
        _ => None,
    });
    opened.context("the log does not begin with NetworkOpened")
}
