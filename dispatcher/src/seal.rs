//! Sealed boxes (libsodium's `crypto_box_seal`): job bodies to a node, contents to an account and to the audit key.
//! Must not: keep a plaintext.

use crypto_box::aead::OsRng;
use crypto_box::{PublicKey, SecretKey};
use protocol::id::SealingKey;

/// A sealed box did not open: another key, or damaged bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sealed box does not open with this key")]
pub struct SealError;

/// Seals to a public key. Whoever seals cannot open it again.
pub fn seal(to: &SealingKey, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
    PublicKey::from(to.0).seal(&mut OsRng, plaintext).map_err(|_| SealError)
}

/// Opens with the secret key.
pub fn open(secret: &[u8; 32], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    SecretKey::from(*secret).unseal(sealed).map_err(|_| SealError)
}

/// The public key of a secret one.
pub fn public_key(secret: &[u8; 32]) -> SealingKey {
    SealingKey(SecretKey::from(*secret).public_key().to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_key_opens_and_damage_is_noticed() {
        let sealed = seal(&public_key(&[7; 32]), b"prompt").unwrap();
        assert_eq!(open(&[7; 32], &sealed).unwrap(), b"prompt");
        assert_eq!(open(&[8; 32], &sealed), Err(SealError));
        let mut damaged = sealed.clone();
        damaged[40] ^= 1;
        assert_eq!(open(&[7; 32], &damaged), Err(SealError));
    }
}
