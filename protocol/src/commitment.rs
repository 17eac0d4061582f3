//! Salted commitments: what stands in the log for a prompt or an output that must not stand there.

use crate::id::Hash32;

/// What a commitment is about; separates the domains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Committed {
    /// The body of a job: prompt token ids and sampling parameters, as [`crate::job_message::JobBody`] lays them out.
    Body,
    /// The output token ids, each as four little-endian bytes.
    Output,
}

/// `BLAKE3 keyed mode (key = salt)` over the domain and the bytes. The salt is random per job; without it
/// the commitment says nothing, and deleting it (with the contents' key) shreds the content.
pub fn commit(what: Committed, salt: &[u8; 32], bytes: &[u8]) -> Hash32 {
    let domain: &[u8] = match what {
        Committed::Body => b"counterfoil body 1\0",
        Committed::Output => b"counterfoil output 1\0",
    };
    let mut hasher = blake3::Hasher::new_keyed(salt);
    hasher.update(domain);
    hasher.update(bytes);
    Hash32(*hasher.finalize().as_bytes())
}

/// Token ids as the bytes that are committed to: four little-endian bytes each.
pub fn token_bytes(ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn salt_domain_and_content_all_matter() {
        let base = commit(Committed::Body, &[1; 32], b"x");
        assert_ne!(base, commit(Committed::Body, &[2; 32], b"x"));
        assert_ne!(base, commit(Committed::Output, &[1; 32], b"x"));
        assert_ne!(base, commit(Committed::Body, &[1; 32], b"y"));
    }
}
