//! The pages' own index over the archive of the log, caught up when somebody looks; entries out of the archive. It never
//! shows more than is committed. Deleting its folder is safe.

use crate::error::PageError;
use dispatcher::Desk;
use journal::reader::ArchiveReader;
use projector::Index;
use projector::index::{IndexError, IndexPosition, LogCommit};
use projector::subject::{Finder, Subject};
use protocol::codec;
use protocol::event::Event;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// In the data directory; beside the command's own index, because one process has one open.
const FOLDER: &str = "pages";

/// Index and archive, open.
pub(crate) struct OpenBooks {
    /// Caught up to what was committed when it was asked for.
    pub index: Index,
    archive: ArchiveReader,
}

/// Where the books lie. Opened at the first look.
#[derive(Clone)]
pub(crate) struct Shelf {
    data_dir: PathBuf,
    /// Held for one page's look-ups, on a thread that may wait; never across an await.
    open: Arc<Mutex<Option<OpenBooks>>>,
}

impl Shelf {
    pub fn of(desk: &Desk) -> Shelf {
        Shelf { data_dir: desk.data_dir().to_owned(), open: Arc::default() }
    }

    /// Catches up and asks.
    pub async fn ask<T: Send + 'static>(
        &self,
        desk: &Desk,
        question: impl FnOnce(&OpenBooks) -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, PageError> {
        let last = desk.ledger().position().borrow().commit;
        let shelf = self.clone();
        let asked = tokio::task::spawn_blocking(move || shelf.ask_now(last, question)).await;
        let answered =
            asked.map_err(|_| PageError::Unavailable("Reading the books broke off.".to_owned()))?;
        answered.map_err(|error| match error {
            BooksError::NotHere => PageError::Missing(NOT_HERE.to_owned()),
            error @ (BooksError::Index(_) | BooksError::Archive(_)) => {
                tracing::error!(target: "pages", %error, "the books cannot be read");
                PageError::Unavailable("The books cannot be read now; nothing was changed.".to_owned())
            }
        })
    }

    fn ask_now<T>(
        &self,
        last: u64,
        question: impl FnOnce(&OpenBooks) -> Result<T, IndexError>,
    ) -> Result<T, BooksError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let caught_up = match open.take() {
            Some(books) => books.caught_up(last),
            None => OpenBooks::open(&self.data_dir, last),
        };
        let books = open.insert(caught_up?);
        Ok(question(books)?)
    }

    /// The canonical bytes of one entry: the leaf of the transparency log.
    pub async fn entry_bytes(&self, desk: &Desk, leaf: u64) -> Result<Vec<u8>, PageError> {
        let found = self.ask(desk, move |books| books.event(leaf)).await?;
        let event = found.ok_or_else(|| no_entry(leaf))?;
        Ok(codec::encode(&event))
    }
}

const NOT_HERE: &str =
    "The log's archive is not on this machine; another process of this network keeps the books.";

/// What a page says about a number that is too large.
pub(crate) fn no_entry(leaf: u64) -> PageError {
    PageError::Missing(format!("The log has no entry {leaf} yet."))
}

/// Why the books were not opened.
#[derive(Debug, thiserror::Error)]
enum BooksError {
    #[error("{NOT_HERE}")]
    NotHere,
    #[error("the archive: {0}")]
    Archive(String),
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl OpenBooks {
    fn open(data_dir: &Path, last: u64) -> Result<OpenBooks, BooksError> {
        if !data_dir.join("archive").is_dir() {
            return Err(BooksError::NotHere);
        }
        let archive = ArchiveReader::open(data_dir).map_err(|e| BooksError::Archive(e.to_string()))?;
        let folder = data_dir.join(FOLDER);
        let (index, _) = Index::catch_up(&folder, |first| commits(&archive, first, last))?;
        Ok(OpenBooks { index, archive })
    }

    fn caught_up(mut self, last: u64) -> Result<OpenBooks, BooksError> {
        if self.index.position().commit < last {
            let first = self.index.next_commit();
            let following = commits(&self.archive, first, last);
            self.index.follow(following)?;
        }
        Ok(self)
    }

    /// Where it stands.
    pub fn position(&self) -> IndexPosition {
        self.index.position()
    }
}

/// Commits from a number on, no further than what is committed: the archive's open record may still be on its way.
fn commits(
    archive: &ArchiveReader,
    first: u64,
    last: u64,
) -> impl Iterator<Item = Result<LogCommit, String>> + use<> {
    let read = archive.commits(first).map(|commit| {
        let commit = commit.map_err(|e| e.to_string())?;
        let previous = commit.commit.previous;
        Ok(LogCommit { number: commit.number, hash: commit.hash, previous, events: commit.events })
    });
    read.take_while(move |commit: &Result<LogCommit, String>| {
        commit.as_ref().map_or(true, |c| c.number <= last)
    })
}

impl Finder for OpenBooks {
    type Error = IndexError;

    fn leaves(&self, subject: &Subject) -> Result<Vec<u64>, IndexError> {
        self.index.leaves(subject)
    }

    fn event(&self, leaf: u64) -> Result<Option<Event>, IndexError> {
        let Some(number) = self.index.commit_of(leaf)? else { return Ok(None) };
        let commit = commits(&self.archive, number, number).next().transpose().map_err(IndexError::Log)?;
        Ok(commit.and_then(|c| c.events.into_iter().find(|event| event.header.leaf == leaf)))
    }

    fn batch_after(&self, leaf: u64) -> Result<Option<u64>, IndexError> {
        self.index.batch_after(leaf)
    }
}
