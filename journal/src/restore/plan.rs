//! Archive and stream laid side by side: what the log is, what the stream lacks, and whether it may be touched. Must not:
//! write.

use super::RestoreError;
use super::copies::Copies;
use crate::pipeline::Position;
use crate::reader::{ReadError, Reader};
use crate::stream::LEDGER_STREAM;
use bytes::Bytes;
use protocol::commit::Commit;
use protocol::id::Hash32;
use std::collections::BTreeMap;

/// Bytes that only the stream has and that wait in memory until the stream was made anew.
const SURVIVORS_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// What is to be done with the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It holds the whole log already.
    Nothing,
    /// It holds a beginning of the log, whole.
    Append {
        /// The first commit that it lacks.
        first: u64,
    },
    /// It is not there, or empty.
    Create,
    /// It is damaged and holds nothing else: its files are moved away and it is made anew.
    MoveAside {
        /// What is wrong with it.
        reason: String,
    },
    /// It holds what does not belong to this log: only with force.
    Refuse {
        /// How many messages.
        count: u64,
        /// The first of them.
        first: u64,
    },
}

/// The result of looking.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the restored log ends.
    pub head: Position,
    /// What is to be done.
    pub step: Step,
    /// Commits that the archive lacks and the stream still has.
    pub from_stream: BTreeMap<u64, Bytes>,
}

impl Plan {
    /// Errors for a step that must not be taken without force.
    pub fn refusal(&self) -> Option<RestoreError> {
        match self.step {
            Step::Refuse { count, first } => {
                Some(RestoreError::OtherLog { stream: LEDGER_STREAM.to_owned(), count, first })
            }
            Step::Nothing | Step::Append { .. } | Step::Create | Step::MoveAside { .. } => None,
        }
    }
}

/// The stream as it is.
struct Found {
    /// `None`: it is not there.
    state: Option<async_nats::jetstream::stream::State>,
    hashes: BTreeMap<u64, Hash32>,
}

pub(super) async fn plan(copies: &Copies, reader: &Reader, known: Position) -> Result<Plan, RestoreError> {
    let found = look(reader).await?;
    let mut from_stream = BTreeMap::new();
    let (head, mut other, trouble, archived) = loop {
        let mut walk = copies.walk(&from_stream);
        let mut other = Other::default();
        while let Some((position, _)) = walk.next_chained()? {
            other.compare(position, found.hashes.get(&position.commit));
        }
        let (last, trouble, archived) = (walk.last(), walk.trouble(), walk.highest());
        if !adopt(reader, &found, last, &mut from_stream).await? {
            break (last, other, trouble, archived);
        }
    };
    let highest = known.commit.max(archived);
    if head.commit < highest || known.leaf > head.leaf {
        let stream = match found.hashes.get(&(head.commit + 1)) {
            Some(_) => "its message does not follow the commit before",
            None => "it has no such message",
        };
        return Err(RestoreError::Missing {
            number: head.commit + 1,
            archive: trouble,
            stream: stream.to_owned(),
            known: highest.max(head.commit + 1),
        });
    }
    for number in found.hashes.range(head.commit + 1..).map(|(number, _)| *number) {
        other.note(number);
    }
    Ok(Plan { head, step: step(&found, head, other), from_stream })
}

/// Takes a run of commits behind `last` from the stream, when they chain; they fill a hole of the archive, or follow its end.
async fn adopt(
    reader: &Reader,
    found: &Found,
    last: Position,
    from_stream: &mut BTreeMap<u64, Bytes>,
) -> Result<bool, RestoreError> {
    let mut held: usize = from_stream.values().map(Bytes::len).sum();
    let mut check = crate::reader::RawCheck::after(reader.shard(), last);
    let before = from_stream.len();
    let mut next = last.commit + 1;
    while found.hashes.contains_key(&next) {
        let Some(bytes) = reader.read_one(next).await? else { break };
        if check.check(&bytes).is_err() {
            break;
        }
        held += bytes.len();
        if held > SURVIVORS_BYTES_MAX {
            let reason =
                format!("the archive lacks more than {SURVIVORS_BYTES_MAX} bytes that only the stream has");
            return Err(RestoreError::NeedsMove { stream: LEDGER_STREAM.to_owned(), reason });
        }
        from_stream.insert(next, bytes);
        next += 1;
    }
    Ok(from_stream.len() > before)
}

/// Messages that are not of this log.
#[derive(Default)]
struct Other {
    count: u64,
    first: u64,
}

impl Other {
    fn compare(&mut self, ours: Position, theirs: Option<&Hash32>) {
        if theirs.is_some_and(|theirs| *theirs != ours.hash) {
            self.note(ours.commit);
        }
    }

    fn note(&mut self, number: u64) {
        self.first = if self.count == 0 { number } else { self.first.min(number) };
        self.count += 1;
    }
}

fn step(found: &Found, head: Position, other: Other) -> Step {
    if other.count > 0 {
        return Step::Refuse { count: other.count, first: other.first };
    }
    let Some(state) = &found.state else { return Step::Create };
    let (messages, first, last) = (state.messages, state.first_sequence, state.last_sequence);
    if last == 0 {
        return Step::Create;
    }
    let readable = found.hashes.len() as u64;
    if messages != last || first != 1 || readable != last {
        let reason =
            format!("it reports {messages} messages from {first} to {last}, {readable} of them can be read");
        return Step::MoveAside { reason };
    }
    match last.cmp(&head.commit) {
        std::cmp::Ordering::Less => Step::Append { first: last + 1 },
        std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => Step::Nothing,
    }
}

async fn look(reader: &Reader) -> Result<Found, RestoreError> {
    let mut hashes = BTreeMap::new();
    let state = match reader.info().await {
        Ok(state) => state,
        Err(ReadError::Unavailable { reason, .. }) => {
            tracing::info!(target: "journal", %reason, "no stream to look at");
            return Ok(Found { state: None, hashes });
        }
        Err(other) => return Err(other.into()),
    };
    let first = state.first_sequence.max(1);
    let each = |number, bytes: Bytes| {
        hashes.insert(number, Commit::hash(&bytes));
    };
    reader.survivors(first, state.last_sequence, each).await;
    Ok(Found { state: Some(state), hashes })
}
