//! RFC 6962 Merkle tree (SHA-256): leaf and node hashes, roots, and checking inclusion and consistency proofs; the proof
//! file (c2sp.org/tlog-proof). The reader's side: making proofs from stored tiles is the journal's.

use crate::checkpoint::{Checkpoint, CheckpointError, Policy};
use crate::id::Hash32;
use data_encoding::BASE64;
use sha2::{Digest, Sha256};

/// First line of a proof file.
pub const PROOF_HEADER: &str = "c2sp.org/tlog-proof@v1";
/// Most hashes a proof of a 64-bit tree can have.
pub const PROOF_HASHES_MAX: usize = 64;

/// Why a proof does not prove.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// A leaf beyond the tree.
    #[error("leaf {index} is not in a tree of {size} leaves")]
    OutOfRange {
        /// Leaf index.
        index: u64,
        /// Leaves of the tree.
        size: u64,
    },
    /// More or fewer hashes than the sizes call for.
    #[error("the proof has {hashes} hashes, which does not fit a tree of {size} leaves")]
    Length {
        /// Hashes in the proof.
        hashes: usize,
        /// Leaves of the tree.
        size: u64,
    },
    /// The computed root is another.
    #[error("the proof leads to root {computed}, the checkpoint says {expected}")]
    Root {
        /// What follows from leaf and proof.
        computed: Hash32,
        /// What the checkpoint says.
        expected: Hash32,
    },
    /// An older tree larger than the newer one.
    #[error("the log went back from {old} leaves to {new}")]
    Shrunk {
        /// Leaves before.
        old: u64,
        /// Leaves now.
        new: u64,
    },
    /// Not a proof file.
    #[error("not a proof file: {0}; expected the text format of c2sp.org/tlog-proof")]
    Malformed(&'static str),
    /// The checkpoint in it.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// `SHA-256(0x00 || leaf)`.
pub fn leaf_hash(leaf: &[u8]) -> Hash32 {
    let mut hasher = Sha256::new();
    hasher.update([0x00]);
    hasher.update(leaf);
    Hash32(hasher.finalize().into())
}

/// `SHA-256(0x01 || left || right)`.
pub fn node_hash(left: &Hash32, right: &Hash32) -> Hash32 {
    let mut hasher = Sha256::new();
    hasher.update([0x01]);
    hasher.update(left.0);
    hasher.update(right.0);
    Hash32(hasher.finalize().into())
}

/// The root of the tree without leaves: SHA-256 of nothing.
pub fn empty_root() -> Hash32 {
    Hash32(Sha256::digest([]).into())
}

/// Computes roots leaf by leaf in memory that grows with the logarithm of the size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootBuilder {
    /// One perfect subtree per set bit of `size`, largest first.
    subtrees: Vec<Hash32>,
    size: u64,
}

impl RootBuilder {
    /// The empty tree.
    pub fn new() -> RootBuilder {
        RootBuilder::default()
    }

    /// Appends a leaf by its hash ([`leaf_hash`]).
    pub fn push(&mut self, leaf: Hash32) {
        let mut subtree = leaf;
        for _ in 0..self.size.trailing_ones() {
            let left = self.subtrees.pop().expect("one subtree per set bit of the size");
            subtree = node_hash(&left, &subtree);
        }
        self.subtrees.push(subtree);
        self.size += 1;
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Root of the leaves so far.
    pub fn root(&self) -> Hash32 {
        let folded = self.subtrees.iter().rev().copied().reduce(|right, left| node_hash(&left, &right));
        folded.unwrap_or_else(empty_root)
    }
}

/// Checks that the leaf with this hash is leaf `index` of the tree of `size` leaves with this root (RFC 9162 2.1.3.2).
pub fn verify_inclusion(
    index: u64,
    size: u64,
    leaf: &Hash32,
    proof: &[Hash32],
    root: &Hash32,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::OutOfRange { index, size });
    }
    let wrong_length = ProofError::Length { hashes: proof.len(), size };
    let (mut node, mut last) = (index, size - 1);
    let mut computed = *leaf;
    for sibling in proof {
        if last == 0 {
            return Err(wrong_length);
        }
        if node & 1 == 1 || node == last {
            computed = node_hash(sibling, &computed);
            // The right edge: levels without a sibling pass the hash up unchanged.
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            computed = node_hash(&computed, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(wrong_length);
    }
    if computed != *root {
        return Err(ProofError::Root { computed, expected: *root });
    }
    Ok(())
}

/// Checks that the tree of `old_size` leaves is a prefix of the tree of `new_size` leaves (RFC 9162 2.1.4.2). Everything
/// is consistent with the empty tree; equal sizes need equal roots and an empty proof.
pub fn verify_consistency(
    old_size: u64,
    old_root: &Hash32,
    new_size: u64,
    new_root: &Hash32,
    proof: &[Hash32],
) -> Result<(), ProofError> {
    let check = |computed: Hash32, expected: &Hash32| match computed == *expected {
        true => Ok(()),
        false => Err(ProofError::Root { computed, expected: *expected }),
    };
    let wrong_length = ProofError::Length { hashes: proof.len(), size: new_size };
    if old_size > new_size {
        return Err(ProofError::Shrunk { old: old_size, new: new_size });
    }
    if old_size == 0 || old_size == new_size {
        if !proof.is_empty() {
            return Err(wrong_length);
        }
        return check(if old_size == 0 { empty_root() } else { *new_root }, old_root);
    }
    // A perfect old tree is its own first node and stands in no proof.
    let mut hashes = proof.iter();
    let first = if old_size.is_power_of_two() { Some(old_root) } else { hashes.next() };
    let Some(first) = first else { return Err(wrong_length) };
    let trailing = (old_size - 1).trailing_ones();
    let (mut node, mut last) = ((old_size - 1) >> trailing, (new_size - 1) >> trailing);
    let (mut old, mut new) = (*first, *first);
    for hash in hashes {
        if last == 0 {
            return Err(wrong_length);
        }
        if node & 1 == 1 || node == last {
            old = node_hash(hash, &old);
            new = node_hash(hash, &new);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new = node_hash(&new, hash);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(wrong_length);
    }
    check(old, old_root)?;
    check(new, new_root)
}

/// A proof file: what a customer keeps to show, offline, that an event is in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProofFile {
    /// Leaf index.
    pub index: u64,
    /// From the leaf's sibling up to the root's child.
    pub hashes: Vec<Hash32>,
    /// The signed checkpoint, verbatim.
    pub checkpoint: String,
}

impl ProofFile {
    /// The file's text.
    pub fn text(&self) -> String {
        let mut text = format!("{PROOF_HEADER}\nindex {}\n", self.index);
        for hash in &self.hashes {
            text.push_str(&BASE64.encode(&hash.0));
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.checkpoint);
        text
    }

    /// Parses the text. An `extra` line is allowed and dropped: nothing vouches for it.
    pub fn parse(text: &str) -> Result<ProofFile, ProofError> {
        let malformed = ProofError::Malformed;
        let (head, checkpoint) = text.split_once("\n\n").ok_or(malformed("no blank line"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(PROOF_HEADER) {
            return Err(malformed("another first line"));
        }
        if let Some(extra) = lines.peek().and_then(|line| line.strip_prefix("extra ")) {
            BASE64.decode(extra.as_bytes()).map_err(|_| malformed("extra data is not base64"))?;
            lines.next();
        }
        let index = lines.next().and_then(|line| line.strip_prefix("index "));
        let index = index.ok_or(malformed("no index line"))?;
        let number: u64 = index.parse().map_err(|_| malformed("the index is not a number"))?;
        if number.to_string() != index {
            return Err(malformed("the index is not in canonical form"));
        }
        let mut hashes = Vec::new();
        for line in lines {
            let hash = BASE64.decode(line.as_bytes()).ok().and_then(|h| <[u8; 32]>::try_from(h).ok());
            hashes.push(Hash32(hash.ok_or(malformed("a hash is not base64 of 32 bytes"))?));
            if hashes.len() > PROOF_HASHES_MAX {
                return Err(malformed("more hashes than any tree has levels"));
            }
        }
        Ok(ProofFile { index: number, hashes, checkpoint: checkpoint.to_owned() })
    }

    /// Checks everything: the checkpoint's signature by a log of the policy, and that `leaf` is leaf `index` of that tree.
    pub fn check(&self, leaf: &[u8], policy: &Policy) -> Result<Checkpoint, ProofError> {
        let checkpoint = policy.open(&self.checkpoint)?;
        verify_inclusion(self.index, checkpoint.size, &leaf_hash(leaf), &self.hashes, &checkpoint.root)?;
        Ok(checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ct_merkle::mem_backed_tree::MemoryBackedTree;
    use sha2::Sha256 as OracleHash;

    /// Sizes around every edge that matters, small enough to try every leaf.
    const SIZES: std::ops::RangeInclusive<u64> = 1..=70;

    fn leaf(n: u64) -> Vec<u8> {
        format!("leaf {n}").into_bytes()
    }

    fn oracle(size: u64) -> MemoryBackedTree<OracleHash, Vec<u8>> {
        let mut tree = MemoryBackedTree::new();
        (0..size).for_each(|n| tree.push(leaf(n)));
        tree
    }

    fn root(size: u64) -> Hash32 {
        let mut builder = RootBuilder::new();
        (0..size).for_each(|n| builder.push(leaf_hash(&leaf(n))));
        assert_eq!(builder.size(), size);
        builder.root()
    }

    fn hashes(bytes: &[u8]) -> Vec<Hash32> {
        crate::tile::parse_hashes(bytes, bytes.len() as u64 / 32).unwrap()
    }

    #[test]
    fn roots_equal_the_oracle() {
        assert_eq!(root(0), empty_root());
        for size in SIZES {
            assert_eq!(root(size).0[..], oracle(size).root().as_bytes()[..], "{size}");
        }
        assert_eq!(empty_root().0, tlog_tiles::EMPTY_HASH.0);
    }

    #[test]
    fn inclusion_of_every_leaf_and_of_nothing_else() {
        for size in SIZES {
            let (tree, root) = (oracle(size), root(size));
            for index in 0..size {
                let proof = hashes(tree.prove_inclusion(index as usize).as_bytes());
                let hash = leaf_hash(&leaf(index));
                let verify = |i, s, h: &Hash32, p: &[Hash32]| verify_inclusion(i, s, h, p, &root);
                assert_eq!(verify(index, size, &hash, &proof), Ok(()));
                assert!(verify(index, size, &leaf_hash(b"other"), &proof).is_err());
                assert!(verify(size, size, &hash, &proof).is_err());
                for other in (0..size).filter(|other| *other != index) {
                    assert!(verify(other, size, &hash, &proof).is_err(), "{index} as {other} of {size}");
                }
                for cut in 0..proof.len() {
                    assert!(verify(index, size, &hash, &proof[..cut]).is_err());
                    let mut wrong = proof.clone();
                    wrong[cut].0[31] ^= 1;
                    assert!(verify(index, size, &hash, &wrong).is_err());
                }
                let longer = [&proof[..], &[Hash32([0; 32])]].concat();
                assert!(verify(index, size, &hash, &longer).is_err());
            }
        }
    }

    #[test]
    fn consistency_of_every_pair() {
        for new in SIZES {
            let (tree, new_root) = (oracle(new), root(new));
            for old in 1..new {
                let proof = hashes(tree.prove_consistency((new - old) as usize).as_bytes());
                let old_root = root(old);
                let verify =
                    |o, or: &Hash32, n, nr: &Hash32, p: &[Hash32]| verify_consistency(o, or, n, nr, p);
                assert_eq!(verify(old, &old_root, new, &new_root, &proof), Ok(()), "{old} to {new}");
                assert!(verify(old, &new_root, new, &new_root, &proof).is_err());
                assert!(verify(old, &old_root, new, &old_root, &proof).is_err());
                assert!(verify(new, &new_root, old, &old_root, &proof).is_err());
                for cut in 0..proof.len() {
                    assert!(verify(old, &old_root, new, &new_root, &proof[..cut]).is_err());
                    let mut wrong = proof.clone();
                    wrong[cut].0[0] ^= 1;
                    assert!(verify(old, &old_root, new, &new_root, &wrong).is_err());
                }
                let longer = [&proof[..], &[Hash32([0; 32])]].concat();
                assert!(verify(old, &old_root, new, &new_root, &longer).is_err());
            }
            assert_eq!(verify_consistency(0, &empty_root(), new, &new_root, &[]), Ok(()));
            assert_eq!(verify_consistency(new, &new_root, new, &new_root, &[]), Ok(()));
            assert!(verify_consistency(new, &empty_root(), new, &new_root, &[]).is_err());
            assert!(verify_consistency(0, &new_root, new, &new_root, &[]).is_err());
        }
    }

    #[test]
    fn proof_files_round_trip_and_are_strict() {
        let file = ProofFile {
            index: 5,
            hashes: vec![Hash32([1; 32]), Hash32([2; 32])],
            checkpoint: "c\n".to_owned(),
        };
        let text = file.text();
        assert_eq!(ProofFile::parse(&text), Ok(file.clone()));
        let with_extra = text.replacen("index", "extra YWJj\nindex", 1);
        assert_eq!(ProofFile::parse(&with_extra), Ok(file));
        for wrong in [
            text.replace("v1", "v2"),
            text.replace("index 5", "index 05"),
            text.replace("index 5", "index -5"),
            text.replace("\n\n", "\n"),
            text.replacen("AQEB", "AQE", 1),
            text.replace("index 5\n", ""),
            String::new(),
        ] {
            assert!(ProofFile::parse(&wrong).is_err(), "{wrong}");
        }
    }
}
