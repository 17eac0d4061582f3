//! The books of a log at any point: the index in `books/` of a data directory, made or caught up when needed, or one in
//! memory for a gateway's log; and single events out of the log behind it.

use super::log_source::{LogSource, Place, archive_commits};
use crate::exit_code::Failure;
use anyhow::{Context, Result};
use journal::reader::ArchiveReader;
use projector::index::{Caught, IndexError};
use projector::subject::{Finder, Subject};
use projector::{At, Index};
use protocol::event::Event;

/// Where a data directory keeps the index; deleting it is safe.
const INDEX_FOLDER: &str = "books";

/// An index and its log.
pub struct OpenBooks {
    /// The index, caught up.
    pub index: Index,
    /// The point that `--at` names.
    pub at: At,
    log: Log,
}

enum Log {
    Archive(ArchiveReader),
    Fetched(Vec<Event>),
}

impl OpenBooks {
    /// Opens the books of a source; builds or catches up the index first.
    pub fn open(source: &LogSource) -> Result<OpenBooks> {
        let at = source.at()?;
        match source.place()? {
            Place::Data(dir) => {
                let archive = ArchiveReader::open(dir)?;
                let (index, caught) =
                    Index::catch_up(&dir.join(INDEX_FOLDER), |first| archive_commits(&archive, first))?;
                if caught == Caught::Rebuilt {
                    tracing::warn!(target: "books", "the index did not fit the log and was built anew");
                }
                Ok(OpenBooks { index, at, log: Log::Archive(archive) })
            }
            Place::Gateway(url) => {
                let commits = source.fetch_commits(url)?;
                let events = commits.iter().flat_map(|commit| commit.events.clone()).collect();
                let mut index = Index::in_memory()?;
                index.follow(commits.into_iter().map(Ok::<_, String>))?;
                Ok(OpenBooks { index, at, log: Log::Fetched(events) })
            }
        }
    }

    /// The size that `--at` names; a point that does not exist is a finding.
    pub fn size(&self) -> Result<u64> {
        self.index.size_at(self.at).context(Failure::Finding)
    }
}

impl Finder for OpenBooks {
    type Error = anyhow::Error;

    fn leaves(&self, subject: &Subject) -> Result<Vec<u64>> {
        Ok(self.index.leaves(subject)?)
    }

    fn event(&self, leaf: u64) -> Result<Option<Event>> {
        match &self.log {
            Log::Fetched(events) => Ok(events.get(leaf as usize).cloned()),
            Log::Archive(archive) => {
                let Some(number) = self.index.commit_of(leaf)? else { return Ok(None) };
                let commit = archive_commits(archive, number).next().transpose().map_err(IndexError::Log)?;
                let mut events = commit.into_iter().flat_map(|commit| commit.events);
                Ok(events.find(|event| event.header.leaf == leaf))
            }
        }
    }

    fn batch_after(&self, leaf: u64) -> Result<Option<u64>> {
        Ok(self.index.batch_after(leaf)?)
    }
}
