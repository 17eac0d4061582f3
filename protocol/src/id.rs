//! Identifiers as newtypes: 16 random bytes with a typed text form, hashes, addresses, operator keys.
//! Lives here: what an id is, its text, its bytes. Must not: draw randomness (callers bring the bytes).

use data_encoding::Specification;
use minicbor::{Decode, Decoder, Encode, Encoder};
use std::sync::LazyLock;

/// Crockford's base32, lower case, reading `o` as `0` and `i`, `l` as `1` like his specification says.
static CROCKFORD: LazyLock<data_encoding::Encoding> = LazyLock::new(|| {
    let mut spec = Specification::new();
    spec.symbols.push_str("0123456789abcdefghjkmnpqrstvwxyz");
    spec.translate.from.push_str("ABCDEFGHJKMNPQRSTVWXYZoOiIlL");
    spec.translate.to.push_str("abcdefghjkmnpqrstvwxyz001111");
    spec.encoding().expect("a constant alphabet of 32 symbols is valid")
});

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {expected}: {given:?}; expected {form}")]
pub struct IdError {
    /// The kind of id that was asked for.
    pub expected: &'static str,
    /// What came.
    pub given: String,
    /// What it should look like.
    pub form: &'static str,
}

/// Fixed bytes: CBOR byte string, text through `Display` and `FromStr`.
macro_rules! bytes_newtype {
    ($(#[$doc:meta])* $name:ident, $len:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }
        impl<C> Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }
        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                let at = d.position();
                let bytes = d.bytes()?;
                let array = bytes.try_into().map_err(|_| {
                    minicbor::decode::Error::message(concat!("expected ", stringify!($len), " bytes")).at(at)
                })?;
                Ok(Self(array))
            }
        }
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// A 16-byte random id with a text prefix.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        bytes_newtype!($(#[$doc])* $name, 16);
        impl $name {
            /// The text prefix, with its underscore.
            pub const PREFIX: &'static str = $prefix;
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}{}", $prefix, CROCKFORD.encode(&self.0))
            }
        }
        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let error = || IdError {
                    expected: stringify!($name),
                    given: text.chars().take(80).collect(),
                    form: concat!($prefix, " and 26 letters and digits (Crockford base32 of 16 bytes)"),
                };
                let body = text.strip_prefix($prefix).ok_or_else(error)?;
                let bytes = CROCKFORD.decode(body.as_bytes()).map_err(|_| error())?;
                Ok(Self(bytes.try_into().map_err(|_| error())?))
            }
        }
    };
}

id!(
    /// A customer, operator or platform account; `acct_...`. Never derived from a person.
    AccountId, "acct_");
id!(
    /// A hold; `hold_...`.
    HoldId, "hold_");
id!(
    /// A job; `job_...`.
    JobId, "job_");
id!(
    /// A node, one serving instance; `node_...`.
    NodeId, "node_");
id!(
    /// A settlement batch; `batch_...`.
    BatchId, "batch_");
id!(
    /// A withdrawal voucher; `vouch_...`.
    VoucherId, "vouch_");
id!(
    /// One key of an account that spends, as the log knows it: random, not derived from the key itself; `spend_...`.
    SpenderId, "spend_");
id!(
    /// An idempotency key inside the log; `key_...`. Client texts are hashed to one (see [`IdempotencyKey::from_client`]).
    IdempotencyKey, "key_");

impl AccountId {
    /// The network itself: owns the platform's ledger accounts.
    pub const SYSTEM: AccountId = AccountId([0; 16]);

    /// The account that an address is by itself, before anybody links it to another: always the same one.
    pub fn of_wallet(wallet: EvmAddress) -> AccountId {
        let mut id = [0; 16];
        let hash = blake3::derive_key("counterfoil account of an address, version 1", &wallet.0);
        id.copy_from_slice(&hash[..16]);
        AccountId(id)
    }
}

impl IdempotencyKey {
    /// The key for a client's own text, bound to who sent it: BLAKE3 of domain, account and text, first 16 bytes.
    pub fn from_client(account: AccountId, text: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("counterfoil idempotency key 1");
        hasher.update(&account.0);
        hasher.update(text.as_bytes());
        Self::from_hash(&hasher.finalize())
    }

    /// The key of an internal command: BLAKE3 of a purpose and the bytes that make it unique.
    pub fn internal(purpose: &str, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("counterfoil internal key 1");
        hasher.update(&(purpose.len() as u32).to_le_bytes());
        hasher.update(purpose.as_bytes());
        for part in parts {
            hasher.update(&(part.len() as u32).to_le_bytes());
            hasher.update(part);
        }
        Self::from_hash(&hasher.finalize())
    }

    fn from_hash(hash: &blake3::Hash) -> Self {
        let mut key = [0; 16];
        key.copy_from_slice(&hash.as_bytes()[..16]);
        Self(key)
    }
}

/// Hex text with `0x` for what chains write so, without for our own hashes.
macro_rules! hex_text {
    ($name:ident, $prefix:literal, $form:literal) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}{}", $prefix, data_encoding::HEXLOWER.encode(&self.0))
            }
        }
        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let error = || IdError {
                    expected: stringify!($name),
                    given: text.chars().take(80).collect(),
                    form: $form,
                };
                let body = text.strip_prefix($prefix).ok_or_else(error)?;
                let bytes =
                    data_encoding::HEXLOWER_PERMISSIVE.decode(body.as_bytes()).map_err(|_| error())?;
                Ok(Self(bytes.try_into().map_err(|_| error())?))
            }
        }
    };
}

bytes_newtype!(
    /// A 32-byte hash of ours (BLAKE3 or SHA-256, the field says which); text is 64 hex digits.
    Hash32, 32);
hex_text!(Hash32, "", "64 hex digits");

bytes_newtype!(
    /// A 32-byte word of an EVM chain (transaction or block hash, keccak root); text is `0x` and 64 hex digits.
    Word32, 32);
hex_text!(Word32, "0x", "0x and 64 hex digits");

bytes_newtype!(
    /// An EVM address; text is `0x` and 40 lower-case hex digits (no checksum case, so that text is unique).
    EvmAddress, 20);
hex_text!(EvmAddress, "0x", "0x and 40 hex digits");

bytes_newtype!(
    /// An Ed25519 signature.
    Signature64, 64);
hex_text!(Signature64, "", "128 hex digits");

bytes_newtype!(
    /// An EVM signature `r || s || v`.
    EvmSignature, 65);
hex_text!(EvmSignature, "0x", "0x and 130 hex digits");

bytes_newtype!(
    /// An X25519 public key: job bodies and contents are sealed to it (libsodium sealed boxes).
    SealingKey, 32);
hex_text!(SealingKey, "", "64 hex digits");

bytes_newtype!(
    /// An operator: the Ed25519 public key of its NATS user. Text is the NKEY form (`U` and 55 letters and digits).
    OperatorId, 32);

/// NKEY prefix byte of a user key: `20 << 3`.
const NKEY_USER_PREFIX: u8 = 20 << 3;

/// CRC-16/XMODEM as the NKEY format uses it.
fn nkey_crc16(data: &[u8]) -> u16 {
    data.iter().fold(0u16, |mut crc, byte| {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
        }
        crc
    })
}

impl std::fmt::Display for OperatorId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut raw = Vec::with_capacity(35);
        raw.push(NKEY_USER_PREFIX);
        raw.extend_from_slice(&self.0);
        raw.extend_from_slice(&nkey_crc16(&raw).to_le_bytes());
        f.write_str(&data_encoding::BASE32_NOPAD.encode(&raw))
    }
}

impl std::str::FromStr for OperatorId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = || IdError {
            expected: "OperatorId",
            given: text.chars().take(80).collect(),
            form: "a public user NKEY (U and 55 letters and digits)",
        };
        let raw = data_encoding::BASE32_NOPAD.decode(text.as_bytes()).map_err(|_| error())?;
        let (body, crc) = raw.split_at_checked(33).ok_or_else(error)?;
        if crc != nkey_crc16(body).to_le_bytes() || body[0] != NKEY_USER_PREFIX {
            return Err(error());
        }
        Ok(Self(body[1..].try_into().map_err(|_| error())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_refuse_strangers() {
        let job = JobId([7; 16]);
        assert_eq!(job.to_string().parse::<JobId>(), Ok(job));
        assert_eq!(job.to_string().len(), 4 + 26);
        assert!(job.to_string().parse::<HoldId>().is_err(), "a job is not a hold");
        assert!("job_short".parse::<JobId>().is_err());
        assert!("0xzz".parse::<EvmAddress>().is_err());
    }

    #[test]
    fn operator_text_is_the_nkey_form() {
        // Key and text from the NKEY documentation's own encoder, checked again in the journal's tests.
        let operator = OperatorId([1; 32]);
        let text = operator.to_string();
        assert!(text.starts_with('U') && text.len() == 56, "{text}");
        assert_eq!(text.parse::<OperatorId>(), Ok(operator));
        let mut wrong = text.into_bytes();
        wrong[10] = if wrong[10] == b'A' { b'B' } else { b'A' };
        assert!(String::from_utf8(wrong).unwrap().parse::<OperatorId>().is_err(), "checksum must matter");
    }

    #[test]
    fn keys_of_two_accounts_differ() {
        let text = "order-1";
        let (a, b) = (AccountId([1; 16]), AccountId([2; 16]));
        assert_ne!(IdempotencyKey::from_client(a, text), IdempotencyKey::from_client(b, text));
        assert_ne!(
            IdempotencyKey::internal("x", &[b"ab", b"c"]),
            IdempotencyKey::internal("x", &[b"a", b"bc"])
        );
    }
}
