//! `counterfoil restore`: rebuilds the log's stream from the archive, and proves the result.

use crate::exit_code::Failure;
use crate::output::Output;
use anyhow::{Context, Result, bail};
use journal::auth::{self, Credentials};
use journal::restore::{
    Evidence, Plan, Restore, RestoreError, RestoreOptions, Restored, Step, fetch_segments, move_stream_aside,
};
use journal::segment::{Copied, StoreLocation};
use journal::server::{NatsServer, NatsServerOptions, PortChoice, find_nats_server};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Rebuild the stream of an empty or damaged nats-server from segments, tail and what survived in it.
///
/// Example, with everything stopped: counterfoil restore --archive data/archive --data data
/// From a copy in a bucket: counterfoil restore --from s3://books/first --data data
#[derive(clap::Args)]
pub struct RestoreCommand {
    /// Folder with segment-*.cfs and tail-*.cft files, or a data directory that has it; with --from, where its segments
    /// go, by default the data directory's own archive.
    #[arg(long, value_name = "DIR", required_unless_present = "from")]
    archive: Option<PathBuf>,
    /// First bring the segments from a copy elsewhere: file:///folder or s3://bucket/prefix, with
    /// ?endpoint=https://host:port for a server that is not Amazon's. Keys: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.
    #[arg(long, value_name = "URL")]
    from: Option<StoreLocation>,
    /// Data directory whose nats-server is to be rebuilt; nothing else may run on it.
    #[arg(long, value_name = "DIR", required_unless_present = "nats")]
    data: Option<PathBuf>,
    /// A running nats-server instead.
    #[arg(long, value_name = "URL", conflicts_with = "data", requires = "credentials")]
    nats: Option<String>,
    /// .creds file for --nats: may create, write and read LEDGER_0.
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
    /// Move a stream aside that is longer than the archive, or another log. Its files are kept.
    #[arg(long)]
    force: bool,
}

/// What was written is not what was signed.
const EXIT_NOT_PROVED: u8 = 4;

/// What happened to the stream that was there.
#[derive(Default)]
struct Moved {
    reason: Option<String>,
    path: Option<PathBuf>,
}

impl RestoreCommand {
    /// Runs it.
    pub fn run(self, output: Output) -> Result<ExitCode> {
        let archive = self.archive()?;
        let fetched = match &self.from {
            Some(from) => fetch_segments(from, &archive)?,
            None => Copied::default(),
        };
        let runtime = tokio::runtime::Runtime::new()?;
        let (restored, moved) = match runtime.block_on(self.restore(&archive)) {
            Err(error) if matches!(error.downcast_ref(), Some(RestoreError::NotProved(_))) => {
                eprintln!("counterfoil: {error:#}");
                return Ok(ExitCode::from(EXIT_NOT_PROVED));
            }
            other => other?,
        };
        let mut value = serde_json::to_value(&restored)?;
        value["fetched_segments"] = json!(fetched.segments);
        value["fetched_bytes"] = json!(fetched.bytes);
        value["moved_aside"] = json!(moved.path);
        value["moved_because"] = json!(moved.reason);
        output.result(&describe(&restored, &moved), &value);
        Ok(ExitCode::SUCCESS)
    }

    /// Where the archive lies, or will lie.
    fn archive(&self) -> Result<PathBuf> {
        let own = || self.data.as_ref().map(|data| data.join(journal::tail::ARCHIVE_FOLDER));
        let archive = self.archive.clone().or_else(own);
        archive.context("give --archive DIR, where the segments of --from go").context(Failure::Usage)
    }

    async fn restore(&self, archive: &Path) -> Result<(Restored, Moved)> {
        match (&self.data, &self.nats, &self.credentials) {
            (Some(data), _, _) => self.rebuild_under(data, archive).await,
            (None, Some(url), Some(file)) => self.rebuild_at(url, file, archive).await,
            (None, _, _) => bail!("give --data DIR, or --nats URL with --credentials FILE"),
        }
    }

    async fn rebuild_under(&self, data: &Path, archive: &Path) -> Result<(Restored, Moved)> {
        let _lock = journal::journal::lock_data_dir(data)?;
        let binary = find_nats_server()?;
        let options = NatsServerOptions { binary, data_dir: data.to_owned(), port: PortChoice::Any };
        let mut server = NatsServer::start(options).await?;
        let credentials = server.keys().restore_credentials()?;
        let evidence = Evidence::gather(data, archive)?;
        let mut restore = open(&server.url(), &credentials, archive, evidence.clone()).await?;
        let plan = restore.plan().await?;
        let mut moved = Moved::default();
        if let Some(reason) = self.reason_to_move(&plan)? {
            server.stop().await?;
            moved = Moved { reason: Some(reason), path: move_stream_aside(data)? };
            server.restart().await?;
            restore = open(&server.url(), &credentials, archive, evidence).await?;
        } else if plan.step == Step::Create {
            // A stream that the server could not load is not there for it, but its files are.
            server.stop().await?;
            moved.path = move_stream_aside(data)?;
            server.restart().await?;
            restore = open(&server.url(), &credentials, archive, evidence).await?;
        }
        let restored = restore.carry_out(&plan).await?;
        server.stop().await?;
        Ok((restored, moved))
    }

    async fn rebuild_at(&self, url: &str, file: &Path, archive: &Path) -> Result<(Restored, Moved)> {
        let credentials = Credentials::read(file)?;
        let data = archive.parent().unwrap_or(archive);
        let evidence = Evidence::gather(data, archive)?;
        let restore = open(url, &credentials, archive, evidence).await?;
        let plan = restore.plan().await?;
        if let Some(reason) = self.reason_to_move(&plan)? {
            let stream = journal::stream::LEDGER_STREAM.to_owned();
            let refused = RestoreError::NeedsMove { stream, reason };
            return Err(anyhow::Error::new(refused).context(Failure::Finding));
        }
        Ok((restore.carry_out(&plan).await?, Moved::default()))
    }

    /// Why the stream must be moved away first; an error when that takes --force.
    fn reason_to_move(&self, plan: &Plan) -> Result<Option<String>> {
        match (&plan.step, plan.refusal()) {
            (Step::MoveAside { reason }, _) => Ok(Some(reason.clone())),
            (_, Some(refusal)) if self.force => Ok(Some(refusal.to_string())),
            (_, Some(refusal)) => Err(anyhow::Error::new(refusal).context(Failure::Finding)),
            (Step::Nothing | Step::Append { .. } | Step::Create | Step::Refuse { .. }, None) => Ok(None),
        }
    }
}

async fn open(url: &str, credentials: &Credentials, archive: &Path, evidence: Evidence) -> Result<Restore> {
    let client = auth::connect(url, credentials).await?;
    let options = RestoreOptions { archive: archive.to_owned(), client, evidence };
    Restore::open(options).context(Failure::Finding)
}

fn describe(restored: &Restored, moved: &Moved) -> String {
    let Restored { commits, events, head, proved, .. } = restored;
    let mut text = match restored.republished_commits {
        0 => "The stream holds the whole log; nothing was written.".to_owned(),
        count => format!(
            "Wrote {count} commits ({} events) in {:.1} s: {:.0} commits/s, {:.0} events/s.",
            restored.republished_events,
            restored.seconds,
            restored.commits_per_second,
            restored.events_per_second
        ),
    };
    if let Some(path) = &moved.path {
        text += &format!("\nThe stream's former files were moved to {}.", path.display());
    }
    if restored.from_stream > 0 {
        text += &format!("\n{} commits were only in the stream; kept.", restored.from_stream);
    }
    text += &format!("\nHead: commit {commits}, {events} events, {head}. The chain holds from commit 1.");
    match (&proved.checkpoint_size, proved.checkpoint_signature) {
        (Some(size), true) => text += &format!("\nThe root at size {size} is the signed one."),
        (Some(size), false) => {
            text += &format!(
                "\nThe root at size {size} is the checkpoint's; no policy, so nobody's signature was checked."
            );
        }
        (None, _) => text += "\nThere was no checkpoint to compare with.",
    }
    if let Some(commit) = proved.snapshot_commit {
        text += &format!("\nThe state at commit {commit} equals the snapshot byte for byte.");
    }
    text
}
