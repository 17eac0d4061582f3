//! Before a writer begins: may it, given what the stream and our own files say? The stream must hold everything that our
//! files know, unaltered; a shorter tail is backfilled, a shorter or different stream refused. Pure, so that the simulation
//! starts its writers by the same rule. Must not: I/O.

use super::Position;
use protocol::id::Hash32;

/// What the server says of the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamExtent {
    /// Messages in it.
    pub messages: u64,
    /// First sequence.
    pub first: u64,
    /// Last sequence.
    pub last: u64,
}

/// What our own files know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// The archive tail's last whole commit.
    pub tail: Position,
    /// The high-water mark.
    pub mark: Position,
    /// Number of a last record that was not written whole; 0 = there is none.
    pub torn: u64,
}

/// Why a writer must not begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mismatch {
    /// The stream lost what it had acknowledged.
    Shorter {
        /// The stream's last sequence.
        stream_last: u64,
        /// What our files know.
        ours: u64,
    },
    /// The stream does not go from 1 to its end.
    Holes,
    /// The stream holds another commit than our files.
    Differs {
        /// Where.
        at: u64,
        /// The stream's hash there; `None` = nothing there.
        found: Option<Hash32>,
        /// Ours.
        ours: Hash32,
    },
}

impl Known {
    /// First question: is the stream whole, and as long as what we know?
    pub fn check_extent(&self, stream: StreamExtent) -> Result<(), Mismatch> {
        let StreamExtent { messages, first, last } = stream;
        let ours = self.tail.commit.max(self.mark.commit).max(self.torn);
        if last < ours {
            return Err(Mismatch::Shorter { stream_last: last, ours });
        }
        if last > 0 && (messages != last || first != 1) {
            return Err(Mismatch::Holes);
        }
        Ok(())
    }

    /// The positions that the stream must be asked about, for the second question.
    pub fn positions(&self) -> impl Iterator<Item = Position> + use<> {
        [self.tail, self.mark].into_iter().filter(|known| known.commit > 0)
    }
}

/// Second question, for each of [`Known::positions`]: does the stream hold this very commit?
pub fn check_position(known: Position, found: Option<Hash32>) -> Result<(), Mismatch> {
    if found == Some(known.hash) {
        return Ok(());
    }
    Err(Mismatch::Differs { at: known.commit, found, ours: known.hash })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(commit: u64) -> Position {
        Position { commit, hash: Hash32([commit as u8; 32]), ..Position::default() }
    }

    fn whole(last: u64) -> StreamExtent {
        StreamExtent { messages: last, first: u64::from(last > 0), last }
    }

    #[test]
    fn a_stream_that_lost_something_is_refused() {
        let known = Known { tail: at(7), mark: at(5), torn: 0 };
        assert_eq!(known.check_extent(whole(7)), Ok(()));
        assert_eq!(known.check_extent(whole(9)), Ok(()));
        assert_eq!(known.check_extent(whole(6)), Err(Mismatch::Shorter { stream_last: 6, ours: 7 }));
        let torn = Known { torn: 8, ..known };
        assert_eq!(torn.check_extent(whole(7)), Err(Mismatch::Shorter { stream_last: 7, ours: 8 }));
        let mark = Known { mark: at(9), ..known };
        assert_eq!(mark.check_extent(whole(8)), Err(Mismatch::Shorter { stream_last: 8, ours: 9 }));
        let hole = StreamExtent { messages: 8, ..whole(9) };
        assert_eq!(known.check_extent(hole), Err(Mismatch::Holes));
        let begun_later = StreamExtent { messages: 8, first: 2, last: 9 };
        assert_eq!(known.check_extent(begun_later), Err(Mismatch::Holes));
        let nothing = Known { tail: at(0), mark: at(0), torn: 0 };
        assert_eq!(nothing.check_extent(whole(0)), Ok(()));
    }

    #[test]
    fn what_both_know_must_be_the_same() {
        let known = Known { tail: at(7), mark: at(0), torn: 0 };
        assert_eq!(known.positions().collect::<Vec<_>>(), vec![at(7)]);
        assert_eq!(check_position(at(7), Some(at(7).hash)), Ok(()));
        let differs = |found| Err(Mismatch::Differs { at: 7, found, ours: at(7).hash });
        assert_eq!(check_position(at(7), Some(at(6).hash)), differs(Some(at(6).hash)));
        assert_eq!(check_position(at(7), None), differs(None));
    }
}
