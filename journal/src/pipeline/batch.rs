//! Commits on their way: the draft that is being filled, the sealed one with its bytes, and who waits with them.
//! Must not: decide.

use super::input::{Effect, Outcome, Position, Reply, StopReason};
use bytes::Bytes;
use minicbor::bytes::ByteVec;
use protocol::commit::{COMMIT_BYTES_MAX, COMMIT_EVENTS_MAX};
use protocol::event::Event;

/// Room for a commit's own fields: nine CBOR integers at most, the previous hash, array heads.
const COMMIT_HEAD_BYTES_MAX: usize = 128;
/// CBOR head of a byte string of up to 64 KiB.
const EVENT_HEAD_BYTES_MAX: usize = 5;

/// An answer that waits for a commit.
pub(super) enum Waiting<T> {
    /// A command's own events stand in it.
    Done {
        /// Whose.
        ticket: T,
        /// Leaf of its first event.
        first_leaf: u64,
        /// Its events; none when the command had nothing to do.
        events: Vec<Event>,
    },
    /// Decided on the state behind it.
    Other {
        /// Whose.
        ticket: T,
        /// What leaves with it.
        reply: Reply,
    },
}

impl<T> Waiting<T> {
    /// The commit at `position` is safe.
    pub(super) fn leave(self, position: &Position) -> Effect<T> {
        match self {
            Waiting::Done { ticket, first_leaf, events } => Effect::Reply {
                ticket,
                reply: Reply::Done(Outcome {
                    commit: position.commit,
                    commit_hash: position.hash,
                    first_leaf,
                    time_us: position.time_us,
                    events,
                    repeated: false,
                }),
            },
            Waiting::Other { ticket, reply } => Effect::Reply { ticket, reply },
        }
    }

    /// Nobody knows whether the commit stands in the log.
    pub(super) fn leave_unknown(self, reason: &StopReason) -> Effect<T> {
        match self {
            Waiting::Done { ticket, .. } => Effect::Reply { ticket, reply: Reply::Unknown },
            Waiting::Other { ticket, .. } => Effect::Reply { ticket, reply: Reply::Stopped(reason.clone()) },
        }
    }

    pub(super) fn into_ticket(self) -> T {
        match self {
            Waiting::Done { ticket, .. } | Waiting::Other { ticket, .. } => ticket,
        }
    }
}

/// The commit that is being filled. A command's events never stand in two commits.
pub(super) struct Draft<T> {
    pub(super) first_leaf: u64,
    /// The latest of its events.
    pub(super) time_us: u64,
    pub(super) events: Vec<ByteVec>,
    bytes: usize,
    pub(super) waiting: Vec<Waiting<T>>,
    /// Something did not fit any more.
    pub(super) full: bool,
}

impl<T> Default for Draft<T> {
    fn default() -> Self {
        Self {
            first_leaf: 0,
            time_us: 0,
            events: Vec::new(),
            bytes: COMMIT_HEAD_BYTES_MAX,
            waiting: Vec::new(),
            full: false,
        }
    }
}

impl<T> Draft<T> {
    /// No events: nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(super) fn fits(&self, encoded: &[ByteVec]) -> bool {
        self.events.len() + encoded.len() <= COMMIT_EVENTS_MAX
            && self.bytes + bytes_of(encoded) <= COMMIT_BYTES_MAX
    }

    pub(super) fn push(&mut self, encoded: Vec<ByteVec>) {
        self.bytes += bytes_of(&encoded);
        self.events.extend(encoded);
        assert!(self.events.len() <= COMMIT_EVENTS_MAX, "callers ask `fits` first");
    }
}

fn bytes_of(encoded: &[ByteVec]) -> usize {
    encoded.iter().map(|event| event.len() + EVENT_HEAD_BYTES_MAX).sum()
}

/// A commit with its bytes, and who waits for it.
pub struct Sealed<T> {
    pub(super) position: Position,
    pub(super) first_leaf: u64,
    pub(super) bytes: Bytes,
    pub(super) waiting: Vec<Waiting<T>>,
}
