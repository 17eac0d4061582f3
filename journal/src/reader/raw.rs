//! The chain checked on bytes, without decoding events: number, predecessor, leaves, time. For copies, not for folding.
//! Must not: I/O.

use crate::pipeline::Position;
use crate::tail::CommitHead;
use protocol::commit::{COMMIT_EVENTS_MAX, Commit};

/// Checks the bytes of commits one after the other.
#[derive(Clone, Debug)]
pub struct RawCheck {
    shard: u32,
    /// `None`: the first commit that comes is the anchor.
    last: Option<Position>,
}

impl RawCheck {
    /// Begins after a known position ([`Position::default`] before commit 1).
    pub fn after(shard: u32, last: Position) -> Self {
        Self { shard, last: Some(last) }
    }

    /// Takes the first commit that comes as the anchor.
    pub fn anywhere(shard: u32) -> Self {
        Self { shard, last: None }
    }

    /// The number that must come next; 0 while anything may.
    pub fn next(&self) -> u64 {
        self.last.map_or(0, |last| last.commit + 1)
    }

    /// The position after the last commit, once there was one.
    pub fn last(&self) -> Option<Position> {
        self.last
    }

    /// The next commit's head and the position after it; an error changes nothing.
    pub fn check(&mut self, bytes: &[u8]) -> Result<(CommitHead, Position), String> {
        let head = CommitHead::peek(bytes).map_err(|e| format!("it is not a commit: {e}"))?;
        if head.shard != self.shard {
            return Err(format!("it is of shard {}, expected {}", head.shard, self.shard));
        }
        if head.leaves > COMMIT_EVENTS_MAX as u64 {
            return Err(format!("it says it has {} events", head.leaves));
        }
        if let Some(last) = self.last {
            if head.number != last.commit + 1 {
                return Err(format!("it says it is commit {}, expected {}", head.number, last.commit + 1));
            }
            if head.previous != last.hash {
                return Err(format!("it follows {}, the commit before is {}", head.previous, last.hash));
            }
            if head.first_leaf != last.leaf || head.time_us < last.time_us {
                return Err(format!("it begins at leaf {}, expected {}", head.first_leaf, last.leaf));
            }
        }
        let position = head.position(Commit::hash(bytes));
        self.last = Some(position);
        Ok((head, position))
    }
}
