//! Point in time: balances, statements, holds and grants at any size, time or batch, from an index on disk that follows
//! the log. Deleting it loses nothing. It is stamped with the position it stands at; one that does not fit the log is
//! noticed by the commit's hash and built anew. Why redb: specs/decisions/0010.
//!
//! Must not: be on the write path, or decide anything. Memory does not grow with the log, only with what is open.

mod activity;
mod ageing;
mod block;
mod events;
mod follow;
mod query;
mod tables;
mod varint;

pub use activity::{Activity, ActivityLine, By};
pub use ageing::{AgeLine, Open};
pub use query::{GrantLine, OpenHold, Range};

use crate::fold::FoldError;
use protocol::asset::Asset;
use protocol::event::Event;
use protocol::id::{BatchId, Hash32};
use redb::{Database, ReadableDatabase};
use std::path::{Path, PathBuf};
use tables::Head;

/// The file in the index's folder.
pub const INDEX_FILE: &str = "index.redb";

/// What redb may keep of the file in memory; the rest is the page cache's.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// Why the index did not answer.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The store's own words.
    #[error("index: {0}; deleting its folder is safe, it is built again from the log")]
    Store(String),
    /// Another process has it open.
    #[error("index {0}: another process has it open; try again, or read with --url")]
    InUse(PathBuf),
    /// It was made from another log, or stands beyond this one.
    #[error(
        "the index stands at commit {commit} with hash {ours}, the log has {theirs} there: not the same log"
    )]
    Foreign {
        /// Where it stands.
        commit: u64,
        /// Hash of that commit in the index.
        ours: Hash32,
        /// What the log says.
        theirs: String,
    },
    /// Events that do not follow each other.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// A point after the log's end.
    #[error("size {asked} is beyond the log's {size} events")]
    Beyond {
        /// What was asked.
        asked: u64,
        /// What there is.
        size: u64,
    },
    /// A batch that the log does not know.
    #[error("{0}: the log has no such batch; `counterfoil settle status` lists them")]
    UnknownBatch(BatchId),
    /// Reading the log failed; nothing of the commit that failed is in.
    #[error("reading the log: {0}")]
    Log(String),
}

macro_rules! store_error {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for IndexError {
            fn from(error: redb::$error) -> IndexError {
                IndexError::Store(error.to_string())
            }
        })*
    };
}
store_error!(TransactionError, TableError, StorageError, CommitError);

/// A point of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// After this many events.
    Size(u64),
    /// After the last event of this log time or earlier, microseconds UTC.
    Time(u64),
    /// At the cut-off of a batch: what it settles is in, the batch's own booking is not.
    Batch(BatchId),
    /// Everything the index has.
    Newest,
}

/// One commit as the index takes it in.
#[derive(Clone, Debug)]
pub struct LogCommit {
    /// Its number; the first is 1.
    pub number: u64,
    /// Hash of its bytes.
    pub hash: Hash32,
    /// Hash of the commit before.
    pub previous: Hash32,
    /// Its events.
    pub events: Vec<Event>,
}

/// Where the index stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct IndexPosition {
    /// The last commit that is in; 0 before the first.
    pub commit: u64,
    /// Events that are in.
    pub size: u64,
    /// Log time of the last event, microseconds.
    pub time_us: u64,
}

/// The index, open.
pub struct Index {
    db: Database,
    head: Head,
    assets: Vec<Asset>,
    origin: String,
    follower: follow::Follower,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("position", &self.position()).finish_non_exhaustive()
    }
}

impl Index {
    /// Opens the index in a folder, or begins one. A file that is no index of today's form is deleted and begun anew.
    pub fn open(dir: &Path) -> Result<Index, IndexError> {
        std::fs::create_dir_all(dir).map_err(|e| IndexError::Store(format!("{}: {e}", dir.display())))?;
        let path = dir.join(INDEX_FILE);
        let database = || Database::builder().set_cache_size(CACHE_BYTES).create(&path);
        match database() {
            Ok(db) => match Index::with(db) {
                Ok(index) => return Ok(index),
                // A foreign schema, or a file that is not whole.
                Err(IndexError::Store(_)) => {}
                Err(other) => return Err(other),
            },
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => return Err(IndexError::InUse(path)),
            Err(_) => {}
        }
        remove(&path)?;
        Index::with(database().map_err(|e| IndexError::Store(e.to_string()))?)
    }

    /// An index that lives as long as the process, for a log that is read from afar.
    pub fn in_memory() -> Result<Index, IndexError> {
        let backend = redb::backends::InMemoryBackend::new();
        let db = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend);
        Index::with(db.map_err(|e| IndexError::Store(e.to_string()))?)
    }

    /// Opens the index and brings it up to the log's end; `commits` reads the log from the commit it is given. An index
    /// that does not fit the log is built anew. Says whether it was.
    pub fn catch_up<I>(dir: &Path, mut commits: impl FnMut(u64) -> I) -> Result<(Index, Caught), IndexError>
    where
        I: IntoIterator<Item = Result<LogCommit, String>>,
    {
        let mut index = Index::open(dir)?;
        let from = index.next_commit();
        match index.follow(commits(from)) {
            Ok(_) if from > 1 => Ok((index, Caught::Up)),
            Ok(_) => {
                index.compact()?;
                Ok((index, Caught::Built))
            }
            Err(IndexError::Foreign { .. } | IndexError::Store(_)) => {
                drop(index);
                remove(&dir.join(INDEX_FILE))?;
                let mut index = Index::open(dir)?;
                index.follow(commits(1))?;
                index.compact()?;
                Ok((index, Caught::Rebuilt))
            }
            Err(other) => Err(other),
        }
    }

    /// Gives back the pages that the building's transactions left behind: about half of the file.
    fn compact(&mut self) -> Result<(), IndexError> {
        self.db.compact().map(drop).map_err(|e| IndexError::Store(e.to_string()))
    }

    fn with(db: Database) -> Result<Index, IndexError> {
        let (head, network) = tables::prepare(&db)?;
        let (origin, assets) = network.unwrap_or_default();
        let mut index = Index { db, head, assets, origin, follower: follow::Follower::default() };
        if index.head.size > 0 {
            let open = index.holds(At::Newest)?;
            index.follower = follow::Follower::resume(open);
        }
        Ok(index)
    }

    /// Where it stands.
    pub fn position(&self) -> IndexPosition {
        IndexPosition { commit: self.head.commit, size: self.head.size, time_us: self.head.time_us }
    }

    /// Whether what a client wrote is in: the size to read at, when the event at this leaf is. A client that has the leaf of
    /// its own write asks with it, and is told how far the index is when that is not enough.
    pub fn holding(&self, leaf: u64) -> Result<u64, IndexError> {
        match self.head.size {
            size if leaf < size => Ok(size),
            size => Err(IndexError::Beyond { asked: leaf + 1, size }),
        }
    }

    /// The commit to hand to [`Index::follow`] first: the one it stands at, whose hash is compared, or the log's first.
    pub fn next_commit(&self) -> u64 {
        self.head.commit.max(1)
    }

    /// Origin of the log; empty before the first event.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Assets by number.
    pub fn assets(&self) -> &[Asset] {
        &self.assets
    }

    fn read(&self) -> Result<redb::ReadTransaction, IndexError> {
        Ok(self.db.begin_read()?)
    }
}

/// What [`Index::catch_up`] had to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caught {
    /// Built from the first commit.
    Built,
    /// Took up where it stood.
    Up,
    /// Did not fit the log; deleted and built.
    Rebuilt,
}

fn remove(path: &Path) -> Result<(), IndexError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(IndexError::Store(format!("{}: {e}", path.display())))
        }
        _ => Ok(()),
    }
}
