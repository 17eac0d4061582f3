//! A refusal's bytes, for gateways in other processes: `[number, field, ...]`, deterministic CBOR, fields in their order.
//! Must not: anything about when one is refused.

use minicbor::encode::Write;
use minicbor::{Decoder, Encoder, decode, encode};
use protocol::amount::Amount;
use protocol::asset::{AssetId, VaultRef};
use protocol::event::chain::DepositKey;
use protocol::id::{
    AccountId, BatchId, EvmAddress, HoldId, IdempotencyKey, JobId, NodeId, OperatorId, VoucherId, Word32,
};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Different constant texts of refusals that one process may come to know; the ledger has a few dozen.
const TEXTS_MAX: usize = 1_024;

/// The constant texts that came so far, each kept once for the life of the process.
// Held for one look-up.
static TEXTS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// A type that a refusal may have as a field. A new one is added to the list below.
pub(super) trait Field: Sized {
    fn put<W: Write>(&self, e: &mut Encoder<W>) -> Result<(), encode::Error<W::Error>>;
    fn take(d: &mut Decoder<'_>) -> Result<Self, decode::Error>;
    /// Some value, for the golden bytes.
    #[cfg(test)]
    fn sample() -> Self;
}

macro_rules! fields {
    ($($type:ty = $sample:expr;)*) => {
        $(impl Field for $type {
            fn put<W: Write>(&self, e: &mut Encoder<W>) -> Result<(), encode::Error<W::Error>> {
                e.encode(self)?.ok()
            }
            fn take(d: &mut Decoder<'_>) -> Result<Self, decode::Error> {
                d.decode()
            }
            #[cfg(test)]
            fn sample() -> Self {
                $sample
            }
        })*
    };
}

fields! {
    u8 = 8;
    u16 = 1_600;
    u32 = 70_000;
    u64 = 5_000_000_000;
    i64 = -5;
    bool = true;
    String = "a text".into();
    Option<u64> = Some(7);
    Amount = Amount(-12_345_678_901_234_567_890_123);
    AssetId = AssetId(1);
    VaultRef = VaultRef { chain_id: 8453, vault: EvmAddress([2; 20]) };
    DepositKey = DepositKey { vault: VaultRef::sample(), tx: Word32([3; 32]), ordinal: 4 };
    AccountId = AccountId([5; 16]);
    BatchId = BatchId([6; 16]);
    EvmAddress = EvmAddress([7; 20]);
    HoldId = HoldId([8; 16]);
    IdempotencyKey = IdempotencyKey([9; 16]);
    JobId = JobId([10; 16]);
    NodeId = NodeId([11; 16]);
    OperatorId = OperatorId([12; 32]);
    VoucherId = VoucherId([13; 16]);
    Word32 = Word32([14; 32]);
}

impl Field for &'static str {
    fn put<W: Write>(&self, e: &mut Encoder<W>) -> Result<(), encode::Error<W::Error>> {
        e.str(self)?.ok()
    }

    fn take(d: &mut Decoder<'_>) -> Result<Self, decode::Error> {
        let at = d.position();
        let text = d.str()?;
        let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = texts.get(text) {
            return Ok(known);
        }
        if texts.len() >= TEXTS_MAX {
            return Err(decode::Error::message("more constant texts than any ledger has").at(at));
        }
        let kept: &'static str = Box::leak(text.into());
        texts.insert(kept);
        Ok(kept)
    }

    #[cfg(test)]
    fn sample() -> Self {
        "a constant text"
    }
}

#[cfg(test)]
mod tests {
    use super::super::Refusal;
    use protocol::codec::{decode, encode};

    /// `UPDATE_GOLDEN=1` writes the file when a refusal is added; the bytes of an old one never change.
    #[test]
    fn every_refusal_has_its_golden_bytes_and_comes_back() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/refusals_v1.hex");
        let mut lines = Vec::new();
        for refusal in Refusal::samples() {
            let bytes = encode(&refusal);
            assert_eq!(decode::<Refusal>("refusal", &bytes).unwrap(), refusal);
            let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            lines.push(format!("{} {hex}\n", refusal.name()));
        }
        assert_eq!(lines.len(), Refusal::ALL.len());
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, lines.concat()).unwrap();
        }
        let golden = std::fs::read_to_string(path).unwrap();
        for line in &lines {
            let written = golden.contains(line.as_str());
            assert!(
                written,
                "not in {path} (a new one: UPDATE_GOLDEN=1; an old one: it must not change): {line}"
            );
        }
    }

    #[test]
    fn what_no_refusal_is_does_not_decode() {
        let good = encode(&Refusal::samples()[0]);
        assert!(decode::<Refusal>("refusal", &good[..good.len() - 1]).is_err());
        for bad in [&[0x81, 0x01][..], &[0x80], &[0x82, 0x18, 0x66, 0x00]] {
            assert!(decode::<Refusal>("refusal", bad).is_err(), "{bad:02x?}");
        }
    }
}
