//! Snapshots: the state as canonical bytes. An optimisation that a rebuild from the log reproduces byte for byte.

use crate::state::State;
use protocol::codec::{self, CodecError};

/// Canonical CBOR of the whole state.
pub fn write(state: &State) -> Vec<u8> {
    codec::encode(state)
}

/// Reads [`write`]'s bytes; anything that does not re-encode to the same bytes is refused.
pub fn read(bytes: &[u8]) -> Result<State, CodecError> {
    codec::decode("ledger snapshot", bytes)
}
