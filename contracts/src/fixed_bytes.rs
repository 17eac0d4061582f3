//! Addresses and hashes as this room's neighbours see them: plain bytes, so that nobody else needs an EVM library.

use std::fmt;
use std::str::FromStr;

use alloy::primitives::{Address, B256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An EVM address. Its text form is `0x` and 40 hex digits with the EIP-55 checksum.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Address20(pub [u8; 20]);

/// A 32-byte hash: of a block, a transaction, a Merkle root. Its text form is `0x` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hash32(pub [u8; 32]);

/// Occurs when a text is not the hex form of an address or a hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, got {got:?}")]
pub struct HexError {
    /// The form that was expected.
    pub expected: &'static str,
    /// The text that came.
    pub got: String,
}

impl Address20 {
    /// No address: never a party, used by the chain for "unset".
    pub const ZERO: Self = Self([0; 20]);
}

impl Hash32 {
    /// The hash that stands for "none" (an empty tree, a settlement without a payout root).
    pub const ZERO: Self = Self([0; 32]);

    /// keccak256 of some bytes.
    pub fn keccak(bytes: &[u8]) -> Self {
        Self(alloy::primitives::keccak256(bytes).0)
    }
}

macro_rules! fixed_bytes {
    ($ours:ident, $theirs:ident, $expected:literal) => {
        impl From<$theirs> for $ours {
            fn from(value: $theirs) -> Self {
                Self(value.into())
            }
        }

        impl From<$ours> for $theirs {
            fn from(value: $ours) -> Self {
                Self::from(value.0)
            }
        }

        impl fmt::Display for $ours {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&FullHex($theirs::from(self.0)), out)
            }
        }

        impl fmt::Debug for $ours {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, out)
            }
        }

        impl FromStr for $ours {
            type Err = HexError;

            fn from_str(text: &str) -> Result<Self, HexError> {
                let wrong = || HexError { expected: $expected, got: text.to_string() };
                let digits = text.strip_prefix("0x").ok_or_else(wrong)?;
                digits.parse::<$theirs>().map(Self::from).map_err(|_| wrong())
            }
        }

        impl Serialize for $ours {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $ours {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Display of the library's hashes shortens them; ours never does.
struct FullHex<T>(T);

impl fmt::Display for FullHex<Address> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.to_checksum(None))
    }
}

impl fmt::Display for FullHex<B256> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:#x}", self.0)
    }
}

fixed_bytes!(Address20, Address, "0x and 40 hex digits");
fixed_bytes!(Hash32, B256, "0x and 64 hex digits");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_forms_round_trip() {
        let text = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
        let address: Address20 = text.parse().expect("an address");
        assert_eq!(address.to_string(), text);
        let json = serde_json::to_string(&address).expect("json");
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Address20>(&json).expect("back"), address);
        let hash = Hash32([7; 32]);
        assert_eq!(hash.to_string().parse::<Hash32>().expect("back"), hash);
        assert_eq!(hash.to_string().len(), 66);
    }

    #[test]
    fn other_texts_are_refused_with_what_came() {
        for text in ["", "0x", "f39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "0x12", "0xzz"] {
            let error = text.parse::<Address20>().expect_err("not an address");
            assert_eq!(error.got, text);
        }
    }
}
