//! The simulated archive tail: the real one's rules (`journal::tail`) on a vector. Each writer appends where it believes
//! the end to be; the lock's owner is whoever opened it last. Must not: chance, time.

use bytes::Bytes;
use journal::pipeline::{Position, TailRefusal};
use protocol::id::Hash32;

/// See the module.
#[derive(Default)]
pub struct Tail {
    /// By commit; `None` = a hole, or unreadable.
    records: Vec<Option<(Position, Bytes)>>,
    owner: Option<usize>,
    /// The high-water mark.
    pub mark: Position,
    /// While the disk is full nothing is written.
    pub full: bool,
    /// A writer's mistake: the lock is not asked for.
    pub unfenced: bool,
}

impl Tail {
    /// Takes the lock. The last whole commit, or the number of the first one that is not readable.
    pub fn open(&mut self, writer: usize) -> Result<Position, u64> {
        self.owner = Some(writer);
        if let Some(hole) = self.records.iter().position(Option::is_none) {
            return Err(hole as u64 + 1);
        }
        Ok(self.head())
    }

    /// Whether this writer holds the lock.
    pub fn is_owner(&self, writer: usize) -> bool {
        self.owner == Some(writer)
    }

    /// The last commit.
    pub fn head(&self) -> Position {
        self.records.last().and_then(Option::as_ref).map_or_else(Position::default, |(position, _)| *position)
    }

    /// Appends where this writer believes the end to be; a failed append cuts off what it may have written.
    pub fn append(
        &mut self,
        writer: usize,
        head: &mut u64,
        position: Position,
        bytes: &Bytes,
    ) -> Result<(), TailRefusal> {
        if !self.unfenced && !self.is_owner(writer) {
            return Err(TailRefusal::Broken("another writer took the archive's lock".into()));
        }
        let number = position.commit;
        if number <= *head {
            let same = self.hash(number) == Some(position.hash);
            return if same { Ok(()) } else { Err(TailRefusal::Broken(format!("differs at {number}"))) };
        }
        if number != *head + 1 {
            return Err(TailRefusal::Broken(format!("gap: {number} after {head}")));
        }
        if self.full {
            self.records.truncate(*head as usize);
            return Err(TailRefusal::Retry("disk full".into()));
        }
        let index = *head as usize;
        while self.records.len() <= index {
            self.records.push(None);
        }
        self.records[index] = Some((position, bytes.clone()));
        *head = number;
        Ok(())
    }

    /// A commit's hash.
    pub fn hash(&self, number: u64) -> Option<Hash32> {
        let record = self.records.get(usize::try_from(number).ok()?.checked_sub(1)?)?.as_ref();
        record.map(|(position, _)| position.hash)
    }

    /// Every commit's bytes in order, up to the first that is not readable.
    pub fn whole(&self) -> impl Iterator<Item = &Bytes> {
        self.records.iter().map_while(|record| record.as_ref().map(|(_, bytes)| bytes))
    }

    /// Power loss: what was not synced is gone; the mark was never ahead of what was.
    pub fn lose_end(&mut self, count: u64) {
        let left = (self.records.len() as u64).saturating_sub(count).max(self.mark.commit);
        self.records.truncate(left as usize);
    }

    /// Rot: one record does not match its hash any more.
    pub fn spoil(&mut self, number: u64) {
        if let Some(record) = self.records.get_mut((number as usize).saturating_sub(1)) {
            *record = None;
        }
    }
}
