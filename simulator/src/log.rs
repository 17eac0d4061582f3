//! The simulated stream: takes a message only behind the sequence that its publisher expects, answers reads, says its
//! extent, and can lose its end or a message in the middle, as a rotten disk made the real one do. Must not: chance, time.

use bytes::Bytes;
use journal::pipeline::opening::StreamExtent;
use journal::pipeline::{Published, ReadBack};
use protocol::commit::Commit;
use protocol::id::Hash32;

/// One stored message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Of its bytes.
    pub hash: Hash32,
    /// As published.
    pub bytes: Bytes,
}

/// See the module.
#[derive(Default)]
pub struct Log {
    /// By sequence; `None` = lost.
    messages: Vec<Option<Message>>,
    /// While the disk is full nothing is stored.
    pub full: bool,
    /// A writer's mistake: the expected sequence is not sent.
    pub unfenced: bool,
}

impl Log {
    /// Stores a message if the stream ends where its publisher expects. The broker's duplicate window never stores twice
    /// either, and its answer is as ambiguous as a refusal's.
    pub fn publish(&mut self, expected_last: u64, bytes: &Bytes) -> Published {
        let ambiguous = |reason: &str| Published::Ambiguous { reason: reason.to_owned() };
        if self.full {
            return ambiguous("insufficient resources");
        }
        if !self.unfenced && self.last() != expected_last {
            return ambiguous("wrong last sequence");
        }
        self.messages.push(Some(Message { hash: Commit::hash(bytes), bytes: bytes.clone() }));
        Published::Stored { sequence: self.last() }
    }

    /// Reads one sequence.
    pub fn read(&self, sequence: u64) -> ReadBack {
        match self.get(sequence) {
            Some(message) => ReadBack::Found(message.bytes.clone()),
            None => ReadBack::Absent { last_sequence: self.last() },
        }
    }

    /// A message that is there.
    pub fn get(&self, sequence: u64) -> Option<&Message> {
        self.messages.get(usize::try_from(sequence).ok()?.checked_sub(1)?)?.as_ref()
    }

    /// The last sequence; 0 = empty.
    pub fn last(&self) -> u64 {
        self.messages.len() as u64
    }

    /// What `STREAM.INFO` says.
    pub fn extent(&self) -> StreamExtent {
        let there = |message: &&Option<Message>| message.is_some();
        let first = self.messages.iter().position(|message| message.is_some());
        StreamExtent {
            messages: self.messages.iter().filter(there).count() as u64,
            first: first.map_or(0, |index| index as u64 + 1),
            last: self.last(),
        }
    }

    /// Every message in order, up to the first that is lost.
    pub fn whole(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter().map_while(Option::as_ref)
    }

    /// Rot: the stream ends earlier than it did.
    pub fn lose_end(&mut self, count: u64) {
        let left = self.last().saturating_sub(count);
        self.messages.truncate(left as usize);
    }

    /// Rot: a message in the middle is gone.
    pub fn lose_one(&mut self, sequence: u64) {
        if let Some(message) = self.messages.get_mut(sequence as usize - 1) {
            *message = None;
        }
    }
}
