//! When each event happened, in which commit, of which kind: blocks of a fixed number of leaves, so that a leaf's block
//! is known without looking for it.

use super::varint::{Bytes, put};
use protocol::event::EventBody;

/// Leaves in a block.
pub(super) const LEAVES_PER_BLOCK: u64 = 256;

/// One event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Row {
    pub(super) time_us: u64,
    pub(super) commit: u64,
    /// Place in [`EventBody::KINDS`]; the schema's name has the list.
    pub(super) kind: u8,
}

impl Row {
    pub(super) fn kind_name(&self) -> &'static str {
        EventBody::KINDS.get(usize::from(self.kind)).copied().unwrap_or("unknown")
    }
}

/// The place of a kind.
pub(super) fn kind_number(kind: &str) -> u8 {
    let place = EventBody::KINDS.iter().position(|known| *known == kind);
    u8::try_from(place.expect("every body's kind is in the list")).expect("fewer than 256 kinds")
}

/// Appends a row behind the one before; a block begins behind a row of zeros.
pub(super) fn push(bytes: &mut Vec<u8>, before: Row, row: Row) {
    put(bytes, u128::from(row.time_us - before.time_us));
    put(bytes, u128::from(row.commit - before.commit));
    bytes.push(row.kind);
}

/// All rows of a block.
pub(super) fn rows(bytes: &[u8]) -> Vec<Row> {
    let mut bytes = Bytes(bytes);
    let mut rows = Vec::with_capacity(LEAVES_PER_BLOCK as usize);
    let mut row = Row::default();
    while !bytes.is_empty() {
        row = Row {
            time_us: row.time_us + bytes.take_u64(),
            commit: row.commit + bytes.take_u64(),
            kind: bytes.byte(),
        };
        rows.push(row);
    }
    rows
}

/// Time of a block's first event.
pub(super) fn first_time_us(bytes: &[u8]) -> u64 {
    Bytes(bytes).take_u64()
}
