//! Commits on their way: the draft that is being filled, the sealed one with its bytes, and who waits with them. A draft's
//! buffer is the commit's own CBOR from the first event on; the head is written into the room in front when it is sealed.
//! Must not: decide.

use super::input::{Each, Effect, Outcome, Placed, Position, Reply, StopReason};
use bytes::Bytes;
use ledger::command::Command;
use minicbor::encode::write::Cursor;
use protocol::codec::{CodecError, encode_event_into};
use protocol::commit::{COMMIT_BYTES_MAX, COMMIT_EVENTS_MAX, COMMIT_VERSION};
use protocol::event::{EVENT_BYTES_MAX, Event};
use protocol::id::Hash32;

/// Room for a commit's own fields: nine CBOR integers at most, the previous hash, array heads.
const COMMIT_HEAD_BYTES_MAX: usize = 128;
/// Room kept for an event's byte string head: the form for 24 to 255 bytes, which nearly all events have.
const EVENT_HEAD_BYTES: usize = 2;
/// First size of a draft's buffer.
const DRAFT_BYTES_MIN: usize = 1024;

/// An answer that waits for a commit.
pub(super) enum Waiting<T> {
    /// A command's own events stand in it, and its caller wants to see them.
    Done {
        /// Whose.
        ticket: T,
        /// Leaf of its first event.
        first_leaf: u64,
        /// Its events; none when the command had nothing to do.
        events: Vec<Event>,
    },
    /// A command's own events stand in it, and its caller wants to know where.
    Placed {
        /// Whose.
        ticket: T,
        /// Leaf of its first event.
        first_leaf: u64,
        /// How many.
        count: u32,
    },
    /// The last commands of a batch stand in it, or were decided on it.
    Batch(Box<OpenBatch<T>>),
    /// Decided on the state behind it.
    Other {
        /// Whose.
        ticket: T,
        /// What leaves with it.
        reply: Reply,
    },
}

impl<T> Waiting<T> {
    /// How many requests' answers it holds.
    pub(super) fn weight(&self) -> usize {
        match self {
            Waiting::Batch(batch) => batch.commands.len(),
            Waiting::Done { .. } | Waiting::Placed { .. } | Waiting::Other { .. } => 1,
        }
    }

    /// The commit at `position` is safe.
    pub(super) fn leave(self, position: &Position) -> Effect<T> {
        let (ticket, reply) = match self {
            Waiting::Done { ticket, first_leaf, events } => {
                let outcome = Outcome {
                    commit: position.commit,
                    commit_hash: position.hash,
                    first_leaf,
                    time_us: position.time_us,
                    events,
                    repeated: false,
                };
                (ticket, Reply::Done(outcome))
            }
            Waiting::Placed { ticket, first_leaf, count } => {
                (ticket, Reply::Placed(Placed::new(position, first_leaf, count)))
            }
            Waiting::Batch(mut batch) => {
                batch.place(position);
                let OpenBatch { ticket, commands, results, .. } = *batch;
                (ticket, Reply::Batch { results, spent: commands })
            }
            Waiting::Other { ticket, reply } => (ticket, reply),
        };
        Effect::Reply { ticket, reply }
    }

    /// Nobody knows whether the commit stands in the log.
    pub(super) fn leave_unknown(self, reason: &StopReason) -> Effect<T> {
        let stopped = || Reply::Stopped(reason.clone());
        let (ticket, reply) = match self {
            Waiting::Done { ticket, .. } | Waiting::Placed { ticket, .. } => (ticket, Reply::Unknown),
            Waiting::Batch(batch) if batch.wrote(batch.results.len()) => (batch.ticket, Reply::Unknown),
            Waiting::Batch(batch) => (batch.ticket, stopped()),
            Waiting::Other { ticket, .. } => (ticket, stopped()),
        };
        Effect::Reply { ticket, reply }
    }

    /// The commit was never sent.
    pub(super) fn leave_unsent(self, reason: &StopReason) -> Effect<T> {
        let (ticket, reply) = match self {
            Waiting::Done { ticket, .. } | Waiting::Placed { ticket, .. } | Waiting::Other { ticket, .. } => {
                (ticket, Reply::Stopped(reason.clone()))
            }
            Waiting::Batch(batch) => return batch.leave_unfinished(reason),
        };
        Effect::Reply { ticket, reply }
    }
}

/// A batch that is being decided, in order; it may spread over several commits.
pub(super) struct OpenBatch<T> {
    pub(super) ticket: T,
    pub(super) commands: Vec<Command>,
    /// Of the commands that were decided.
    pub(super) results: Vec<Each>,
    /// Results that know their commit's hash and time.
    placed: usize,
}

impl<T> OpenBatch<T> {
    pub(super) fn new(ticket: T, commands: Vec<Command>) -> Box<Self> {
        let results = Vec::with_capacity(commands.len());
        Box::new(Self { ticket, commands, results, placed: 0 })
    }

    /// The next command to decide.
    pub(super) fn next(&self) -> Option<&Command> {
        self.commands.get(self.results.len())
    }

    /// The commands that are not decided yet.
    pub(super) fn rest(&self) -> &[Command] {
        &self.commands[self.results.len()..]
    }

    /// The commit that was being filled is sealed as `position`.
    pub(super) fn place(&mut self, position: &Position) {
        for result in &mut self.results[self.placed..] {
            if let Each::Placed(placed) = result {
                placed.commit_hash = position.hash;
                placed.time_us = position.time_us;
            }
        }
        self.placed = self.results.len();
    }

    /// The machine stops, and the end of the batch was never sent; its beginning may have been.
    pub(super) fn leave_unfinished(self, reason: &StopReason) -> Effect<T> {
        let unknown = self.wrote(self.placed);
        let reply = if unknown { Reply::Unknown } else { Reply::Stopped(reason.clone()) };
        Effect::Reply { ticket: self.ticket, reply }
    }

    /// Whether one of the first `count` commands left events.
    fn wrote(&self, count: usize) -> bool {
        self.results[..count].iter().any(|result| matches!(result, Each::Placed(_)))
    }
}

/// Why events did not go into a draft; it is as it was.
pub(super) enum Unfit {
    /// They go into the next commit.
    Full,
    /// No commit takes them.
    TooLarge(String),
}

/// The commit that is being filled. A command's events never stand in two commits.
pub(super) struct Draft<T> {
    pub(super) first_leaf: u64,
    /// The latest of its events.
    pub(super) time_us: u64,
    /// Room for the head, then the events as CBOR byte strings.
    buffer: Vec<u8>,
    count: usize,
    pub(super) waiting: Vec<Waiting<T>>,
    /// Something did not fit any more.
    pub(super) full: bool,
    /// What the next draft will probably need.
    bytes_expected: usize,
    waiting_expected: usize,
}

impl<T> Default for Draft<T> {
    fn default() -> Self {
        Self {
            first_leaf: 0,
            time_us: 0,
            buffer: Vec::new(),
            count: 0,
            waiting: Vec::new(),
            full: false,
            bytes_expected: DRAFT_BYTES_MIN,
            waiting_expected: 0,
        }
    }
}

/// What a commit says of itself before its events.
pub(super) struct CommitFields {
    pub(super) shard: u32,
    pub(super) writer_epoch: u64,
    pub(super) number: u64,
    pub(super) time_us: u64,
    pub(super) previous: Hash32,
}

impl<T> Draft<T> {
    /// No events: nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many events it holds.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Appends one command's events, all or none.
    pub(super) fn append(&mut self, events: &[Event]) -> Result<(), Unfit> {
        if self.buffer.is_empty() {
            self.buffer.reserve_exact(self.bytes_expected);
            self.buffer.resize(COMMIT_HEAD_BYTES_MAX, 0);
        }
        let before = self.buffer.len();
        let mut written =
            if self.count + events.len() > COMMIT_EVENTS_MAX { Err(Unfit::Full) } else { Ok(()) };
        for event in events {
            if written.is_ok() {
                written = append_event(&mut self.buffer, event).map_err(|e| Unfit::TooLarge(e.to_string()));
            }
        }
        if written.is_ok() && self.buffer.len() > COMMIT_BYTES_MAX {
            written = Err(Unfit::Full);
        }
        match written {
            Ok(()) => {
                self.count += events.len();
                Ok(())
            }
            Err(unfit) => {
                let bytes = self.buffer.len() - before;
                self.buffer.truncate(before);
                match unfit {
                    Unfit::Full if self.count == 0 => Err(Unfit::TooLarge(too_large(events.len(), bytes))),
                    other => Err(other),
                }
            }
        }
    }

    /// The commit's bytes and who waits for them; the draft begins anew.
    pub(super) fn seal(&mut self, fields: &CommitFields) -> (Bytes, Vec<Waiting<T>>) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut head = [0; COMMIT_HEAD_BYTES_MAX];
        let length = write_head(fields, self.first_leaf, self.count as u64, &mut head);
        let begin = COMMIT_HEAD_BYTES_MAX - length;
        buffer[begin..COMMIT_HEAD_BYTES_MAX].copy_from_slice(&head[..length]);
        let waiting = std::mem::take(&mut self.waiting);
        *self = Self {
            bytes_expected: (buffer.len() + buffer.len() / 8).clamp(DRAFT_BYTES_MIN, COMMIT_BYTES_MAX),
            waiting_expected: waiting.len(),
            ..Self::default()
        };
        (Bytes::from(buffer).slice(begin..), waiting)
    }

    pub(super) fn wait(&mut self, waiting: Waiting<T>) {
        if self.waiting.is_empty() {
            self.waiting.reserve(self.waiting_expected);
        }
        self.waiting.push(waiting);
    }
}

fn too_large(events: usize, bytes: usize) -> String {
    format!(
        "the command makes {events} events of {bytes} bytes; one commit takes {COMMIT_EVENTS_MAX} events and \
         {COMMIT_BYTES_MAX} bytes: ask for less at once"
    )
}

/// One event as a CBOR byte string with the shortest head.
fn append_event(buffer: &mut Vec<u8>, event: &Event) -> Result<(), CodecError> {
    const { assert!(EVENT_BYTES_MAX <= u16::MAX as usize, "heads of at most three bytes") };
    let at = buffer.len();
    buffer.extend_from_slice(&[0x58, 0]);
    if let Err(error) = encode_event_into(event, buffer) {
        buffer.truncate(at);
        return Err(error);
    }
    let length = buffer.len() - at - EVENT_HEAD_BYTES;
    match length {
        0..24 => {
            buffer.remove(at);
            buffer[at] = 0x40 | length as u8;
        }
        24..256 => buffer[at + 1] = length as u8,
        _ => {
            buffer[at] = 0x59;
            buffer[at + 1] = (length >> 8) as u8;
            buffer.insert(at + 2, length as u8);
        }
    }
    Ok(())
}

/// `[version, shard, writer_epoch, number, first_leaf, time_us, previous, [* ...`; returns its length.
fn write_head(fields: &CommitFields, first_leaf: u64, count: u64, head: &mut [u8]) -> usize {
    let CommitFields { shard, writer_epoch, number, time_us, previous } = fields;
    let mut encoder = minicbor::Encoder::new(Cursor::new(head));
    let written = (|| {
        encoder.array(8)?.u32(COMMIT_VERSION)?.u32(*shard)?.u64(*writer_epoch)?.u64(*number)?;
        encoder.u64(first_leaf)?.u64(*time_us)?.encode(previous)?.array(count)?;
        Ok::<_, minicbor::encode::Error<_>>(())
    })();
    assert!(written.is_ok(), "the room in front takes any head");
    encoder.writer().position()
}

/// A commit with its bytes, and who waits for it.
pub struct Sealed<T> {
    pub(super) position: Position,
    pub(super) first_leaf: u64,
    pub(super) bytes: Bytes,
    pub(super) waiting: Vec<Waiting<T>>,
}
