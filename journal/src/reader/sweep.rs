//! The whole stream read as bytes and chained, without decoding events: is everything there that was acknowledged, unaltered?
//! Must not: repair.

use super::fetch::{self, Fetched};
use super::{RawCheck, ReadError, Reader};
use crate::pipeline::Position;

/// How often an answer of "nothing there" is asked again: a replica may lag.
const NOTHING_TRIES_MAX: u32 = 4;

impl Reader {
    /// Reads the messages behind `check`'s last one (or from `first`, which then anchors the chain) up to number `last`, and
    /// gives each to `each`. Fails at the first one that is missing, does not read, or does not chain.
    pub async fn sweep(
        &self,
        mut check: RawCheck,
        first: u64,
        last: u64,
        mut each: impl FnMut(Position, &bytes::Bytes),
    ) -> Result<Option<Position>, ReadError> {
        let mut next = first;
        while next <= last {
            for (sequence, bytes) in self.fetch_batch(next, last).await? {
                if sequence != next {
                    return Err(ReadError::Gap { expected: next, found: sequence });
                }
                let checked = check.check(&bytes);
                let (_, position) = checked.map_err(|reason| ReadError::Broken { at: next, reason })?;
                if position.commit != next {
                    let reason = format!("it says it is commit {}", position.commit);
                    return Err(ReadError::Broken { at: next, reason });
                }
                each(position, &bytes);
                next += 1;
            }
        }
        Ok(check.last())
    }

    /// At least one message from `next` on; a few tries, as a server that just started may not answer yet.
    pub(super) async fn fetch_batch(
        &self,
        next: u64,
        last: u64,
    ) -> Result<Vec<(u64, bytes::Bytes)>, ReadError> {
        let mut tried = 0;
        loop {
            let fetched = fetch::fetch(&self.options.client, &self.options.stream, next, last).await;
            tried += 1;
            match fetched {
                Ok(Fetched::Commits(commits)) => return Ok(commits),
                Ok(Fetched::Nothing) if tried >= NOTHING_TRIES_MAX => {
                    return Err(ReadError::Gap { expected: next, found: next - 1 });
                }
                Err(reason) if tried >= super::READ_TRIES_MAX => {
                    return Err(ReadError::Unavailable { at: next, reason });
                }
                Ok(Fetched::Nothing) | Err(_) => tokio::time::sleep(super::READ_PAUSE).await,
            }
        }
    }
}

/// A message that cannot be read is asked for this often, then passed over.
const SURVIVOR_TRIES: u32 = 3;
/// Messages in a row that may be passed over before a damaged stream counts as ended.
const SURVIVORS_PASSED_MAX: u32 = 64;

impl Reader {
    /// Whatever a damaged stream still gives, in order, unchecked; gaps and messages that do not read are passed over.
    pub async fn survivors(&self, first: u64, last: u64, mut each: impl FnMut(u64, bytes::Bytes)) {
        let (mut next, mut tried, mut passed) = (first, 0, 0);
        while next <= last && passed < SURVIVORS_PASSED_MAX {
            match fetch::fetch(&self.options.client, &self.options.stream, next, last).await {
                Ok(Fetched::Commits(commits)) => {
                    (tried, passed) = (0, 0);
                    for (sequence, bytes) in commits {
                        next = sequence + 1;
                        each(sequence, bytes);
                    }
                }
                Ok(Fetched::Nothing) => return,
                Err(_) if tried < SURVIVOR_TRIES => tried += 1,
                Err(reason) => {
                    tracing::warn!(target: "journal", commit = next, %reason, "not readable; passed over");
                    (next, tried, passed) = (next + 1, 0, passed + 1);
                }
            }
        }
    }
}
