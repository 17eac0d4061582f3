//! Snapshots: the state as canonical bytes. An optimisation that a rebuild from the log reproduces byte for byte: rows are
//! in the order the log made them, and what follows from them (indexes, timers) is left out.

use crate::state::State;
use minicbor::encode::write::Writer;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decoder, Encoder};
use protocol::codec::CodecError;
use std::io;

const WHAT: &str = "ledger snapshot";

/// The layout of today's snapshots; another one is refused and rebuilt from the log. Version 2: keys in byte strings, jobs
/// without what follows from their holds, plain ones in byte strings. Version 3: the economies.
pub const SNAPSHOT_VERSION: u32 = 3;

/// The version, then canonical CBOR of the whole state.
pub fn write(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(state, &mut bytes).expect("encoding to memory cannot fail");
    bytes
}

fn encode<W: Write>(state: &State, to: W) -> Result<(), EncodeError<W::Error>> {
    Encoder::new(to).u32(SNAPSHOT_VERSION)?.encode(state)?.ok()
}

/// [`write`]'s bytes into a file or a hasher, without holding them. Errors are the target's.
pub fn write_to(state: &State, target: impl io::Write) -> io::Result<()> {
    let mut buffered = io::BufWriter::with_capacity(BUFFER_BYTES, target);
    let written = encode(state, Writer::new(&mut buffered));
    written.map_err(|e| e.into_write().unwrap_or_else(|| io::Error::other("a value without an encoding")))?;
    io::Write::flush(&mut buffered)
}

const BUFFER_BYTES: usize = 1 << 16;

/// Reads [`write`]'s bytes; anything that does not re-encode to the same bytes is refused.
pub fn read(bytes: &[u8]) -> Result<State, CodecError> {
    let malformed = |reason: String| CodecError::Malformed { what: WHAT, reason };
    let mut decoder = Decoder::new(bytes);
    match decoder.u32() {
        Ok(SNAPSHOT_VERSION) => {}
        Ok(version) => {
            let reason = format!("version {version}, expected {SNAPSHOT_VERSION}: rebuild it from the log");
            return Err(malformed(reason));
        }
        Err(_) => {
            let reason = format!("no version, expected {SNAPSHOT_VERSION}: rebuild it from the log");
            return Err(malformed(reason));
        }
    }
    let mut state: State = decoder.decode().map_err(|e| malformed(e.to_string()))?;
    state.rebuild().map_err(|reason| malformed(reason.to_owned()))?;
    let mut rest = bytes;
    match encode(&state, Expect(&mut rest)) {
        Ok(()) if rest.is_empty() => Ok(state),
        _ => Err(CodecError::NotCanonical { what: WHAT }),
    }
}

/// Takes only the bytes that are expected.
struct Expect<'a, 'b>(&'a mut &'b [u8]);

impl Write for Expect<'_, '_> {
    type Error = ();
    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), ()> {
        *self.0 = self.0.strip_prefix(bytes).ok_or(())?;
        Ok(())
    }
}
