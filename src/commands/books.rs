//! The books of a log at any point: the index in `books/` of a data directory, made or caught up when needed, or one in
//! memory for a gateway's log; and single events out of the log behind it.

use super::log_source::{LogSource, Place, archive_commits};
use crate::exit_code::Failure;
use anyhow::{Context, Result};
use journal::reader::ArchiveReader;
use projector::index::{Caught, IndexError, LogCommit};
use projector::subject::{Finder, Subject};
use projector::{At, Index};
use protocol::event::Event;
use std::cell::RefCell;
use std::path::Path;

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
    Archive(ArchiveReader, RefCell<Cursor>),
    Fetched(Vec<Event>),
}

/// Commits are skipped faster than they are decoded: from here on the archive is better opened anew.
const READ_ON_COMMITS_MAX: u64 = 1_000;

/// Where the archive was read last. Borrowed for one look-up.
#[derive(Default)]
struct Cursor {
    commits: Option<Box<dyn Iterator<Item = Result<LogCommit, String>>>>,
    last: Option<LogCommit>,
}

impl Cursor {
    /// The events of a commit; those of a log that ends before it are none.
    fn events(&mut self, archive: &ArchiveReader, number: u64) -> Result<&[Event], IndexError> {
        let at = self.last.as_ref().map_or(0, |commit| commit.number);
        if at > number || at + READ_ON_COMMITS_MAX < number || self.commits.is_none() {
            self.commits = Some(Box::new(archive_commits(archive, number)));
            self.last = None;
        }
        while self.last.as_ref().is_none_or(|commit| commit.number < number) {
            let next = self.commits.as_mut().and_then(Iterator::next).transpose();
            match next.map_err(IndexError::Log)? {
                Some(commit) => self.last = Some(commit),
                None => return Ok(&[]),
            }
        }
        Ok(self.last.as_ref().map_or(&[], |commit| commit.events.as_slice()))
    }
}

impl OpenBooks {
    /// Opens the books of a source; builds or catches up the index first.
    pub fn open(source: &LogSource) -> Result<OpenBooks> {
        let at = source.at()?;
        match source.place()? {
            Place::Data(dir) => {
                let archive = ArchiveReader::open(dir)?;
                let index = index_of(&archive, &dir.join(INDEX_FOLDER))?;
                Ok(OpenBooks { index, at, log: Log::Archive(archive, RefCell::default()) })
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

/// The index in a folder; one in memory where the folder cannot be written or another process has it open.
fn index_of(archive: &ArchiveReader, folder: &Path) -> Result<Index> {
    let in_memory = |reason: String| {
        tracing::warn!(target: "books", reason, "no index on disk, the log is read whole");
        let mut index = Index::in_memory()?;
        index.follow(archive_commits(archive, 1))?;
        Ok(index)
    };
    if let Err(error) = std::fs::create_dir_all(folder) {
        return in_memory(error.to_string());
    }
    match Index::catch_up(folder, |first| archive_commits(archive, first)) {
        Ok((index, caught)) => {
            if caught == Caught::Rebuilt {
                tracing::warn!(target: "books", "the index did not fit the log and was built anew");
            }
            Ok(index)
        }
        Err(IndexError::InUse(path)) => in_memory(format!("{} is open elsewhere", path.display())),
        Err(error) => Err(error.into()),
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
            Log::Archive(archive, cursor) => {
                let Some(number) = self.index.commit_of(leaf)? else { return Ok(None) };
                let mut cursor = cursor.borrow_mut();
                let events = cursor.events(archive, number)?;
                Ok(events.iter().find(|event| event.header.leaf == leaf).cloned())
            }
        }
    }

    fn batch_after(&self, leaf: u64) -> Result<Option<u64>> {
        Ok(self.index.batch_after(leaf)?)
    }
}
