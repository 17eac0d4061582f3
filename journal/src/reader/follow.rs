//! Following the log from the archive of a writer in this process: what is committed stands in these files already, so the
//! broker is not asked for it again. Must not: read what is not committed.

use super::{ArchiveCommits, ArchiveReader, CommittedCommit, ReadError, Reader};
use crate::pipeline::Position;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::path::PathBuf;
use tokio::sync::watch;

/// Follows a running journal's archive. Cheap to clone.
#[derive(Clone)]
pub struct ArchiveFollower {
    pub(crate) reader: Reader,
    pub(crate) data_dir: PathBuf,
    pub(crate) position: watch::Receiver<Position>,
}

impl ArchiveFollower {
    /// Commits from the one that holds `leaf` on, live; the first may begin before it. Ends with the writer, or with the
    /// first error.
    pub fn from_leaf(&self, leaf: u64) -> BoxStream<'static, Result<CommittedCommit, ReadError>> {
        let follower = self.clone();
        let open = async move {
            // Asked first: a commit that lands meanwhile is then behind the place where we begin.
            let last = follower.position.borrow().commit;
            let first = follower.reader.commit_of_leaf(leaf).await?.unwrap_or(last.max(1));
            Ok::<_, ReadError>(follower.from_commit(first))
        };
        futures::stream::once(open)
            .flat_map(|opened| match opened {
                Ok(commits) => commits,
                Err(error) => futures::stream::once(async { Err(error) }).boxed(),
            })
            .boxed()
    }

    /// Commits from number `first` on, live.
    pub fn from_commit(&self, first: u64) -> BoxStream<'static, Result<CommittedCommit, ReadError>> {
        let state = Following {
            data_dir: self.data_dir.clone(),
            position: self.position.clone(),
            next: first.max(1),
            open: None,
        };
        futures::stream::try_unfold(state, |mut state| async move {
            let commit = state.next_commit().await?;
            // Files never make anybody wait: the others on this thread get their turn here.
            tokio::task::consume_budget().await;
            Ok(commit.map(|commit| (commit, state)))
        })
        .boxed()
    }
}

struct Following {
    data_dir: PathBuf,
    position: watch::Receiver<Position>,
    next: u64,
    /// Only asked for what is committed, so that it never meets the end of a file that is being written.
    open: Option<ArchiveCommits>,
}

impl Following {
    async fn next_commit(&mut self) -> Result<Option<CommittedCommit>, ReadError> {
        let next = self.next;
        if self.position.wait_for(|position| position.commit >= next).await.is_err() {
            return Ok(None);
        }
        let mut opened = false;
        loop {
            let Some(commits) = &mut self.open else {
                if opened {
                    return Err(ReadError::Gap { expected: next, found: next - 1 });
                }
                self.open = Some(ArchiveReader::open(&self.data_dir)?.commits(next));
                opened = true;
                continue;
            };
            match commits.next().transpose()? {
                Some(commit) => {
                    self.next = commit.number + 1;
                    return Ok(Some(commit));
                }
                // The end of what there was when it was opened.
                None => self.open = None,
            }
        }
    }
}
