//! The mirror's own work: take up where the stream stands, prove that it is this log's, append what is new, compare.

use crate::event::{self, Mirrored};
use crate::store::{EventStore, StoreError, Stored};
use journal::reader::{CommittedCommit, ReadError};
use protocol::id::Hash32;

/// Bytes of one append; servers take 1 MiB by default.
const APPEND_BYTES_MAX: usize = 512 * 1024;
/// Events of one append: metadata weighs too.
const APPEND_EVENTS_MAX: usize = 500;
/// Events of one page when the stream is compared.
const COMPARE_EVENTS_MAX: usize = 500;
/// Tries of one append whose answer got lost.
const APPEND_TRIES_MAX: u32 = 5;

/// Why the mirror stopped.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The store.
    #[error("{0}; the mirror takes up where the stream stands when it is started again")]
    Store(#[from] StoreError),
    /// The log.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// The stream holds something that is not this log.
    #[error(
        "stream {stream}, event {revision}: {reason}; it is not a mirror of this log: mirror into another server, or delete the stream"
    )]
    Foreign {
        /// Which stream.
        stream: String,
        /// Which event.
        revision: u64,
        /// What does not fit.
        reason: String,
    },
    /// The stream is longer than the log.
    #[error(
        "stream {stream} has {events} events, more than this log: the log was cut, or this is an older copy of it"
    )]
    Beyond {
        /// Which stream.
        stream: String,
        /// What it has.
        events: u64,
    },
    /// Somebody else writes into the stream.
    #[error(
        "stream {stream}: {reason}; another mirror runs, or somebody else writes there: stop one of them"
    )]
    Fenced {
        /// Which stream.
        stream: String,
        /// The store's words.
        reason: String,
    },
}

/// Where a stream stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Position {
    /// Events it has = leaves mirrored.
    pub events: u64,
    /// The commit to read first: the one that holds the last mirrored leaf, or the log's first.
    pub commit: u64,
}

/// What a comparison found equal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Compared {
    /// Events of the stream = leaves of the log.
    pub events: u64,
    /// Commits of the log.
    pub commits: u64,
    /// Hash of the last commit.
    #[serde(serialize_with = "as_text")]
    pub chain_head: Hash32,
}

fn as_text<S: serde::Serializer>(hash: &Hash32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(hash)
}

/// One shard's mirror.
pub struct Mirror<S> {
    store: S,
    shard: u32,
    stream: String,
}

impl<S: EventStore> Mirror<S> {
    /// Of a shard, in a store.
    pub fn new(store: S, shard: u32) -> Mirror<S> {
        Mirror { store, shard, stream: event::stream(shard) }
    }

    /// Asks the store how far it is.
    pub async fn position(&self) -> Result<Position, MirrorError> {
        let Some(last) = self.store.last(&self.stream).await? else {
            return Ok(Position { events: 0, commit: 1 });
        };
        let metadata =
            last.metadata.as_ref().ok_or_else(|| self.foreign(&last, "it has not our metadata"))?;
        if last.id != event::id(self.shard, last.revision) || metadata.leaf != last.revision {
            return Err(self.foreign(&last, "its id is not that of the leaf"));
        }
        Ok(Position { events: last.revision + 1, commit: metadata.commit })
    }

    /// Appends what the stream does not have; `commits` reads the log from the commit it is given. Gives the new
    /// position.
    pub async fn catch_up<I>(&self, commits: impl FnOnce(u64) -> I) -> Result<Position, MirrorError>
    where
        I: IntoIterator<Item = Result<CommittedCommit, ReadError>>,
    {
        let mut position = self.position().await?;
        let last = self.store.last(&self.stream).await?;
        let mut log = commits(position.commit).into_iter();
        let mut waiting: Vec<Mirrored> = Vec::new();
        let mut waiting_bytes = 0;
        let mut anchored = position.events == 0;
        for commit in &mut log {
            let commit = commit?;
            for mirrored in mirrored(&commit) {
                let leaves = mirrored.metadata.leaf + 1;
                if leaves < position.events {
                    continue;
                }
                if leaves == position.events && !anchored {
                    self.check(last.as_ref(), &mirrored)?;
                    anchored = true;
                    continue;
                }
                if waiting.len() >= APPEND_EVENTS_MAX || waiting_bytes + mirrored.bytes() > APPEND_BYTES_MAX {
                    self.append(&mut position, &mut waiting).await?;
                    waiting_bytes = 0;
                }
                waiting_bytes += mirrored.bytes();
                waiting.push(mirrored);
            }
            position.commit = commit.number;
        }
        if !anchored {
            let (stream, events) = (self.stream.clone(), position.events);
            return Err(MirrorError::Beyond { stream, events });
        }
        self.append(&mut position, &mut waiting).await?;
        Ok(position)
    }

    /// Reads the stream and the log side by side: counts, ids, leaf hashes, and the chain's head.
    pub async fn compare<I>(&self, commits: I) -> Result<Compared, MirrorError>
    where
        I: IntoIterator<Item = Result<CommittedCommit, ReadError>>,
    {
        let mut compared = Compared { events: 0, commits: 0, chain_head: Hash32([0; 32]) };
        let mut page: std::collections::VecDeque<Stored> = std::collections::VecDeque::new();
        for commit in commits {
            let commit = commit?;
            for mirrored in mirrored(&commit) {
                if page.is_empty() {
                    page = self.store.read(&self.stream, compared.events, COMPARE_EVENTS_MAX).await?.into();
                }
                self.check(page.pop_front().as_ref(), &mirrored)?;
                compared.events += 1;
            }
            compared.commits = commit.number;
            compared.chain_head = commit.hash;
        }
        let more = self.store.read(&self.stream, compared.events, 1).await?;
        match more.first() {
            None => Ok(compared),
            Some(_) => {
                let events = self.position().await?.events;
                Err(MirrorError::Beyond { stream: self.stream.clone(), events })
            }
        }
    }

    /// An append whose answer was lost is sent again, the same bytes at the same place: the store knows the ids.
    async fn append(&self, position: &mut Position, events: &mut Vec<Mirrored>) -> Result<(), MirrorError> {
        if events.is_empty() {
            return Ok(());
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match self.store.append(&self.stream, position.events, events).await {
                Ok(()) => break,
                Err(StoreError::Unavailable(_)) if tries < APPEND_TRIES_MAX => {}
                Err(StoreError::WrongRevision(reason)) => {
                    if self.landed(events).await? {
                        break;
                    }
                    return Err(MirrorError::Fenced { stream: self.stream.clone(), reason });
                }
                Err(error) => return Err(error.into()),
            }
        }
        position.events += events.len() as u64;
        events.clear();
        Ok(())
    }

    /// Whether the stream's last event is the last of these: then an earlier try did it.
    async fn landed(&self, events: &[Mirrored]) -> Result<bool, MirrorError> {
        let last = self.store.last(&self.stream).await?;
        Ok(match (last, events.last()) {
            (Some(stored), Some(ours)) => self.check(Some(&stored), ours).is_ok(),
            _ => false,
        })
    }

    /// The stream's event is this leaf, and nothing else.
    fn check(&self, stored: Option<&Stored>, ours: &Mirrored) -> Result<(), MirrorError> {
        let leaf = ours.metadata.leaf;
        let Some(stored) = stored else {
            let (stream, reason) = (self.stream.clone(), "the stream ends before it".to_owned());
            return Err(MirrorError::Foreign { stream, revision: leaf, reason });
        };
        if stored.revision != leaf || stored.id != ours.id {
            return Err(self.foreign(stored, "its id or number is not that of the leaf"));
        }
        match &stored.metadata {
            Some(metadata) if *metadata == ours.metadata => Ok(()),
            Some(metadata) if metadata.leaf_hash != ours.metadata.leaf_hash => Err(self.foreign(
                stored,
                &format!("leaf hash {} there, {} in the log", metadata.leaf_hash, ours.metadata.leaf_hash),
            )),
            Some(_) => Err(self.foreign(stored, "its commit is another one")),
            None => Err(self.foreign(stored, "it has not our metadata")),
        }
    }

    fn foreign(&self, stored: &Stored, reason: &str) -> MirrorError {
        let (stream, reason) = (self.stream.clone(), reason.to_owned());
        MirrorError::Foreign { stream, revision: stored.revision, reason }
    }
}

/// A commit's events as the store gets them.
fn mirrored(commit: &CommittedCommit) -> Vec<Mirrored> {
    let events = commit.events.iter().zip(&commit.commit.events);
    events.map(|(event, bytes)| Mirrored::new(event, bytes, commit.hash)).collect()
}
