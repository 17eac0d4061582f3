//! Canonical bytes: deterministic CBOR (RFC 8949 4.2) and a decoder that refuses any other form of the same value.

use crate::event::account::AccountKind;
use crate::event::grant::GrantSource;
use crate::event::{EVENT_BYTES_MAX, EVENT_VERSION, Event, EventBody};
use minicbor::{Decode, Encode};

/// Why bytes are not a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not CBOR of this shape.
    #[error("{what}: not decodable: {reason}")]
    Malformed {
        /// The kind of value that was expected.
        what: &'static str,
        /// The decoder's words.
        reason: String,
    },
    /// Decodable, but not the one canonical form.
    #[error("{what}: not in canonical form (re-encoding gives other bytes)")]
    NotCanonical {
        /// The kind of value that was expected.
        what: &'static str,
    },
    /// An event larger than a transparency log's entry bundle takes.
    #[error("event of {bytes} bytes; at most {EVENT_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// A layout this program does not know.
    #[error("event version {0}; this program knows up to {EVENT_VERSION}: use a newer one")]
    UnknownVersion(u32),
    /// Says it is of an older layout than what it contains.
    #[error("event says version {said}, but what it holds exists since version {since}")]
    VersionTooLow {
        /// What its first field says.
        said: u32,
        /// What it needs.
        since: u32,
    },
}

/// Encodes to canonical bytes.
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("encoding to memory cannot fail")
}

/// Decodes canonical bytes; trailing bytes and other encodings are refused.
pub fn decode<T>(what: &'static str, bytes: &[u8]) -> Result<T, CodecError>
where
    T: Encode<()> + for<'b> Decode<'b, ()>,
{
    let value: T =
        minicbor::decode(bytes).map_err(|e| CodecError::Malformed { what, reason: e.to_string() })?;
    let mut left = Same(bytes);
    let same = minicbor::encode(&value, &mut left).is_ok() && left.0.is_empty();
    if same { Ok(value) } else { Err(CodecError::NotCanonical { what }) }
}

/// Encodes an event, refusing one that no entry bundle could carry.
pub fn encode_event(event: &Event) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::new();
    encode_event_into(event, &mut bytes)?;
    Ok(bytes)
}

/// Appends an event's canonical bytes to a buffer that the caller keeps. An event that no entry bundle could carry is
/// refused and leaves the buffer as it was.
pub fn encode_event_into(event: &Event, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
    let before = bytes.len();
    minicbor::encode(event, &mut *bytes).expect("encoding to memory cannot fail");
    let size = bytes.len() - before;
    if size > EVENT_BYTES_MAX {
        bytes.truncate(before);
        return Err(CodecError::TooLarge { bytes: size });
    }
    Ok(())
}

/// Decodes an event of any version this program knows. Old ones are upcast to today's type: fields they did not have
/// are `None`. Their `version` stays what was written, so that re-encoding gives the leaf's own bytes.
pub fn decode_event(bytes: &[u8]) -> Result<Event, CodecError> {
    if bytes.len() > EVENT_BYTES_MAX {
        return Err(CodecError::TooLarge { bytes: bytes.len() });
    }
    let version = peek_version(bytes)?;
    if !(1..=EVENT_VERSION).contains(&version) {
        return Err(CodecError::UnknownVersion(version));
    }
    let event: Event = decode("event", bytes)?;
    let since = since_version(&event.body);
    if version < since {
        return Err(CodecError::VersionTooLow { said: version, since });
    }
    Ok(event)
}

/// The first layout that could hold this body.
fn since_version(body: &EventBody) -> u32 {
    let newer = match body {
        EventBody::SpendCapSet(_)
        | EventBody::CreditLineSet(_)
        | EventBody::CreditRepaid(_)
        | EventBody::CreditMoved(_)
        | EventBody::EarningsTaken(_)
        | EventBody::HoldExtended(_)
        | EventBody::BatchReplaced(_)
        | EventBody::SolvencyChecked(_)
        | EventBody::EconomyPublished(_)
        | EventBody::AllotmentDayOpened(_)
        | EventBody::StakeAllotted(_)
        | EventBody::SignUpCredited(_)
        | EventBody::BountyPublished(_)
        | EventBody::BountyPaid(_)
        | EventBody::BountyTakenBack(_)
        | EventBody::PayoutCutStarted(_)
        | EventBody::JobShareSet(_)
        | EventBody::FallbackMarked(_)
        | EventBody::UptimeNoted(_)
        | EventBody::OperatorStruck(_)
        | EventBody::ServiceMeasured(_)
        | EventBody::TreasuryEpochClosed(_)
        | EventBody::TreasuryEpochPaid(_) => true,
        EventBody::NetworkOpened(e) => e.settings.capture_tolerance_ppm.is_some(),
        EventBody::HoldPlaced(e) => e.spender.is_some(),
        EventBody::UsageCaptured(e) => e.part.is_some() || e.beyond_hold.is_some(),
        EventBody::BatchClosed(e) => e.short.is_some(),
        EventBody::GrantIssued(e) => e.source == GrantSource::CreditLine,
        EventBody::LedgerAccountsOpened(e) => {
            e.opened.iter().any(|o| matches!(o.kind, AccountKind::CustomerCredit | AccountKind::CreditLines))
        }
        _ => false,
    };
    if newer { 2 } else { 1 }
}

fn peek_version(bytes: &[u8]) -> Result<u32, CodecError> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let version = decoder.array().and_then(|_| decoder.u32());
    version.map_err(|e| CodecError::Malformed { what: "event", reason: e.to_string() })
}

/// Takes an encoding only while it is what is expected: nothing is allocated, and the first other byte ends it.
struct Same<'a>(&'a [u8]);

/// The encoding is another.
#[derive(Debug, thiserror::Error)]
#[error("another encoding")]
struct Differs;

impl minicbor::encode::Write for Same<'_> {
    type Error = Differs;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Differs> {
        self.0 = self.0.strip_prefix(bytes).ok_or(Differs)?;
        Ok(())
    }
}
