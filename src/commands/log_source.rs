//! Where read-only commands take the log from: a data directory with everything stopped, or a gateway.

use anyhow::{Context, Result, bail};
use journal::reader::ArchiveReader;
use projector::export::Provenance;
use projector::{Books, time};
use protocol::codec;
use protocol::commit::Commit;
use protocol::event::Event;
use protocol::proof::{RootBuilder, leaf_hash};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use crate::exit_code::Failure;

/// Flags of `ledger` and `export`.
#[derive(clap::Args)]
pub struct LogSource {
    /// Data directory; works with everything stopped.
    #[arg(long, value_name = "DIR", required_unless_present = "url")]
    data: Option<PathBuf>,
    /// Gateway to read from instead.
    #[arg(long, value_name = "URL", conflicts_with = "data", requires = "key")]
    url: Option<String>,
    /// Auditor's key for --url.
    #[arg(long, env = "COUNTERFOIL_KEY", value_name = "KEY", hide_env_values = true)]
    key: Option<String>,
    /// As of this size (number of events) or time (RFC 3339, UTC); all of it by default.
    #[arg(long, value_name = "SIZE|TIME")]
    at: Option<String>,
}

/// Up to where.
enum At {
    Size(u64),
    TimeUs(u64),
    End,
}

impl LogSource {
    /// The events, in order, up to `--at`.
    pub fn events(&self) -> Result<Vec<Event>> {
        let at = self.at()?;
        let mut events = Vec::new();
        let mut take = |commit: Vec<Event>| {
            for event in commit {
                let within = match at {
                    At::Size(size) => event.header.leaf < size,
                    At::TimeUs(us) => event.header.time_us <= us,
                    At::End => true,
                };
                if !within {
                    return false;
                }
                events.push(event);
            }
            true
        };
        match (&self.data, &self.url) {
            (Some(dir), _) => {
                if !dir.is_dir() {
                    let missing = anyhow::anyhow!(
                        "{} is no directory; give the one that `up --data` had",
                        dir.display()
                    );
                    return Err(missing.context(Failure::Inconclusive));
                }
                for commit in ArchiveReader::open(dir)?.commits(1) {
                    if !take(commit?.events) {
                        break;
                    }
                }
            }
            (None, Some(url)) => self.fetch(url, &mut take)?,
            (None, None) => bail!("give --data DIR or --url URL"),
        }
        Ok(events)
    }

    fn fetch(&self, url: &str, take: &mut dyn FnMut(Vec<Event>) -> bool) -> Result<()> {
        let key = self.key.as_deref().unwrap_or_default();
        let mut next = 1u64;
        let mut previous = None;
        loop {
            let page = format!("{url}/v1/audit/commits?from={next}");
            let answer = ureq::get(&page).header("authorization", format!("Bearer {key}")).call();
            let body = answer.with_context(|| page.clone()).context(Failure::Inconclusive)?.into_body();
            let before = next;
            for line in BufReader::new(body.into_reader()).lines() {
                let commit = CommitLine::parse(&line?)?;
                let decoded: Commit = codec::decode("commit", &commit.bytes)?;
                if decoded.number != next || previous.is_some_and(|hash| decoded.previous != hash) {
                    bail!("commit {}: does not follow the one before: not one unaltered log", decoded.number);
                }
                previous = Some(Commit::hash(&commit.bytes));
                next += 1;
                if !take(decoded.decode_events()?) {
                    return Ok(());
                }
            }
            if next == before {
                return Ok(());
            }
        }
    }

    fn at(&self) -> Result<At> {
        let Some(text) = &self.at else { return Ok(At::End) };
        if let Ok(size) = text.parse() {
            return Ok(At::Size(size));
        }
        let time = time::parse_rfc3339(text).map(At::TimeUs);
        time.ok_or_else(|| {
            anyhow::anyhow!(
                "--at {text:?}: expected a number of events or a time such as 2026-11-21T10:00:00Z"
            )
            .context(Failure::Usage)
        })
    }

    /// The books over the events.
    pub fn books(events: &[Event]) -> Result<Books> {
        let mut books = Books::new();
        for event in events {
            books.apply(event)?;
        }
        Ok(books)
    }

    /// What an exported file says about where it comes from. The root is recomputed from the events themselves.
    pub fn provenance(events: &[Event]) -> Result<Provenance> {
        let books = Self::books(events)?;
        let mut root = RootBuilder::new();
        for event in events {
            root.push(leaf_hash(&codec::encode(event)));
        }
        Ok(Provenance { origin: books.origin().to_owned(), size: books.size(), root: Some(root.root()) })
    }
}

/// One line of `/v1/audit/commits`.
struct CommitLine {
    bytes: Vec<u8>,
}

impl CommitLine {
    fn parse(line: &str) -> Result<CommitLine> {
        #[derive(serde::Deserialize)]
        struct Wire {
            bytes: String,
        }
        let wire: Wire = serde_json::from_str(line).context("a line of /v1/audit/commits")?;
        Ok(CommitLine { bytes: data_encoding::BASE64.decode(wire.bytes.as_bytes())? })
    }
}
