//! Reading the log: commits in order, each checked against the chain before anybody sees it; from the stream (live or to
//! an end) or, with everything stopped, from the archive tail's files. Must not: write, skip, or repair.

mod ahead;
mod archive;
mod chain;
mod fetch;
mod follow;
mod raw;
mod sweep;

pub use ahead::ReadAhead;
pub use archive::{ArchiveCommits, ArchiveReader};
pub use chain::{ChainCheck, CommittedCommit};
pub use follow::ArchiveFollower;
pub use raw::RawCheck;

use crate::pipeline::Position;
use crate::tail::{CommitHead, TailError};
use async_nats::jetstream;
use bytes::Bytes;
use fetch::Fetched;
use futures::stream::{BoxStream, StreamExt};
use protocol::codec::CodecError;
use protocol::commit::Commit;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::watch;

/// Tries of a bounded read before it gives up; a live one never does.
const READ_TRIES_MAX: u32 = 20;
/// Pause between two tries.
const READ_PAUSE: Duration = Duration::from_millis(250);
/// How often a live reader of another process looks for more.
const FOLLOW_PERIOD: Duration = Duration::from_millis(100);

/// Why a reader stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The broker did not answer.
    #[error("reading commit {at}: no answer: {reason}; is nats-server up, and may this user read the log?")]
    Unavailable {
        /// Where.
        at: u64,
        /// The client's words.
        reason: String,
    },
    /// A commit is not there.
    #[error(
        "the log has a gap: expected commit {expected}, found {found}; `counterfoil restore` rebuilds it"
    )]
    Gap {
        /// The missing one.
        expected: u64,
        /// What came instead: the next one, or the log's end.
        found: u64,
    },
    /// A commit does not follow the one before.
    #[error(
        "the chain breaks at commit {at}: {reason}; this is not one unaltered log: `counterfoil restore` rebuilds it from the archive"
    )]
    Broken {
        /// Where.
        at: u64,
        /// What does not fit.
        reason: String,
    },
    /// A commit's bytes are not what they should be.
    #[error("commit {at}: {source}")]
    Codec {
        /// Where.
        at: u64,
        /// What is wrong.
        source: CodecError,
    },
    /// The archive's files.
    #[error(transparent)]
    Archive(#[from] TailError),
}

/// Where a read ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// After this commit; it must be there.
    Commit(u64),
    /// Never: it waits for new commits.
    Forever,
}

/// What a [`Reader`] needs.
#[derive(Clone)]
pub struct ReaderOptions {
    /// Any role that may read the log directly.
    pub client: async_nats::Client,
    /// The stream's name.
    pub stream: String,
    /// Shard of the log.
    pub shard: u32,
    /// The writer's committed position, inside its process: a live reader then never runs ahead of it.
    pub position: Option<watch::Receiver<Position>>,
}

/// Reads the log from the stream. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    options: ReaderOptions,
}

impl Reader {
    /// See [`ReaderOptions`].
    pub fn new(options: ReaderOptions) -> Self {
        Self { options }
    }

    /// Shard of the log.
    pub fn shard(&self) -> u32 {
        self.options.shard
    }

    /// Commits from number `first` (the first of a log is 1). Ends with the first error.
    pub fn from_commit(
        &self,
        first: u64,
        until: Until,
    ) -> BoxStream<'static, Result<CommittedCommit, ReadError>> {
        let first = first.max(1);
        // The commit before is read too: it anchors the chain.
        let next = if first > 1 { first - 1 } else { 1 };
        self.walk(ChainCheck::new(self.options.shard, next), first, until)
    }

    fn walk(
        &self,
        chain: ChainCheck,
        first: u64,
        until: Until,
    ) -> BoxStream<'static, Result<CommittedCommit, ReadError>> {
        let next = chain.next();
        let reader = self.clone();
        let walk = Walk { reader, chain, first, next, until, ready: VecDeque::new(), tries: 0, ended: false };
        futures::stream::unfold(walk, |mut walk| async move {
            let item = walk.advance().await?;
            walk.ended = item.is_err();
            Some((item, walk))
        })
        .boxed()
    }

    /// Commits after a known position. Ends with the first error.
    pub fn after(
        &self,
        position: Position,
        until: Until,
    ) -> BoxStream<'static, Result<CommittedCommit, ReadError>> {
        self.walk(ChainCheck::after(self.options.shard, position), position.commit + 1, until)
    }

    /// The stream's counters, as its leader says.
    pub async fn info(&self) -> Result<jetstream::stream::State, ReadError> {
        let info = self.stream().await?.get_info().await;
        info.map(|info| info.state).map_err(|e| unavailable(0, &e))
    }

    /// The stream's last sequence, as its leader says.
    pub async fn last_commit(&self) -> Result<u64, ReadError> {
        Ok(self.info().await?.last_sequence)
    }

    /// The bytes of one commit, from the stream's leader; `None` when it is not there. Unchecked.
    pub async fn read_one(&self, number: u64) -> Result<Option<Bytes>, ReadError> {
        use jetstream::stream::RawMessageErrorKind;
        match self.stream().await?.get_raw_message(number).await {
            Ok(message) => Ok(Some(message.payload)),
            Err(e) if e.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(e) => Err(unavailable(number, &e)),
        }
    }

    /// The log's position after a commit; `None` when it is not there.
    pub async fn position_at(&self, number: u64) -> Result<Option<Position>, ReadError> {
        let Some(bytes) = self.read_one(number).await? else { return Ok(None) };
        let head = CommitHead::peek(&bytes);
        let head = head.map_err(|e| ReadError::Broken { at: number, reason: e.to_string() })?;
        if head.number != number {
            let reason = format!("it says it is commit {}", head.number);
            return Err(ReadError::Broken { at: number, reason });
        }
        Ok(Some(head.position(Commit::hash(&bytes))))
    }

    /// The commit that holds a leaf; `None` when the log is not that long. A binary search by single reads.
    pub async fn commit_of_leaf(&self, leaf: u64) -> Result<Option<u64>, ReadError> {
        let (mut low, mut high) = (1, self.last_commit().await?);
        let last = self.position_at(high).await?;
        if last.is_none_or(|position| position.leaf <= leaf) {
            return Ok(None);
        }
        while low < high {
            let middle = low + (high - low) / 2;
            let position = self.position_at(middle).await?;
            let position = position.ok_or(ReadError::Gap { expected: middle, found: high })?;
            if position.leaf > leaf { high = middle } else { low = middle + 1 }
        }
        Ok(Some(low))
    }

    async fn stream(&self) -> Result<jetstream::stream::Stream<()>, ReadError> {
        let context = jetstream::new(self.options.client.clone());
        context.get_stream_no_info(&self.options.stream).await.map_err(|e| unavailable(0, &e))
    }
}

fn unavailable(at: u64, error: &dyn std::error::Error) -> ReadError {
    ReadError::Unavailable { at, reason: error.to_string() }
}

/// One read on its way.
struct Walk {
    reader: Reader,
    chain: ChainCheck,
    first: u64,
    /// The next commit to fetch.
    next: u64,
    until: Until,
    ready: VecDeque<Bytes>,
    tries: u32,
    ended: bool,
}

impl Walk {
    async fn advance(&mut self) -> Option<Result<CommittedCommit, ReadError>> {
        loop {
            if self.ended || matches!(self.until, Until::Commit(last) if self.chain.next() > last) {
                return None;
            }
            if let Some(bytes) = self.ready.pop_front() {
                match self.chain.check(bytes) {
                    Ok(commit) if commit.number < self.first => continue,
                    other => return Some(other),
                }
            }
            if let Err(error) = self.fetch_more().await {
                return Some(Err(error));
            }
        }
    }

    /// Fetches at least one commit, or waits for one, or fails.
    async fn fetch_more(&mut self) -> Result<(), ReadError> {
        let limit = self.limit();
        if limit < self.next {
            return self.wait_for_more().await;
        }
        let options = &self.reader.options;
        match fetch::fetch(&options.client, &options.stream, self.next, limit).await {
            Ok(Fetched::Commits(commits)) => {
                for (sequence, bytes) in commits {
                    if sequence != self.next {
                        return Err(ReadError::Gap { expected: self.next, found: sequence });
                    }
                    self.next += 1;
                    self.ready.push_back(bytes);
                }
                self.tries = 0;
                Ok(())
            }
            Ok(Fetched::Nothing) => match self.until {
                Until::Forever if self.reader.options.position.is_none() => self.wait_for_more().await,
                // The commit was promised: a replica may lag, but not for ever.
                Until::Forever | Until::Commit(_) => {
                    let gap = ReadError::Gap { expected: self.next, found: self.next - 1 };
                    self.pause(gap).await
                }
            },
            Err(reason) => {
                let error = ReadError::Unavailable { at: self.next, reason };
                if self.until == Until::Forever {
                    self.tries = 0;
                }
                self.pause(error).await
            }
        }
    }

    /// The last commit that may be fetched now.
    fn limit(&self) -> u64 {
        let committed = self.reader.options.position.as_ref().map(|position| position.borrow().commit);
        match self.until {
            Until::Commit(last) => last,
            Until::Forever => committed.unwrap_or(u64::MAX),
        }
    }

    async fn pause(&mut self, error: ReadError) -> Result<(), ReadError> {
        self.tries += 1;
        if self.tries >= READ_TRIES_MAX {
            return Err(error);
        }
        tokio::time::sleep(READ_PAUSE).await;
        Ok(())
    }

    /// In the writer's process its position says when, and the read ends with the writer; elsewhere we look again.
    async fn wait_for_more(&mut self) -> Result<(), ReadError> {
        match &mut self.reader.options.position {
            Some(position) => {
                if position.changed().await.is_err() {
                    self.ended = true;
                }
            }
            None => tokio::time::sleep(FOLLOW_PERIOD).await,
        }
        Ok(())
    }
}
