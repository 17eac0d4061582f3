//! Making proofs from the stored tree. Every proof is checked by the reader's code before it leaves, so that a damaged
//! tile becomes an error here and not a finding there. Must not: know checkpoints' signatures.

use super::TransparencyError;
use super::tree::Tree;
use protocol::id::Hash32;
use protocol::proof::{verify_consistency, verify_inclusion};

/// The hashes that prove leaf `leaf` to be in the tree of the first `size` leaves, whose root is `root`.
pub(crate) fn inclusion(
    tree: &Tree,
    leaf: u64,
    size: u64,
    root: &Hash32,
) -> Result<Vec<Hash32>, TransparencyError> {
    covered(tree, size)?;
    if leaf >= size {
        return Err(TransparencyError::NotCovered { leaf, size });
    }
    let proof = tlog_tiles::prove_record(size, leaf, tree).map_err(|e| tree.damaged(&e))?;
    let proof: Vec<Hash32> = proof.into_iter().map(|h| Hash32(h.0)).collect();
    verify_inclusion(leaf, size, &tree.leaf_hash(leaf)?, &proof, root)
        .map_err(|e| TransparencyError::Inconsistent(e.to_string()))?;
    Ok(proof)
}

/// The hashes that prove the tree of `old` leaves to be a prefix of the tree of `new` leaves; empty for 0 and for equals.
pub(crate) fn consistency(tree: &Tree, old: u64, new: u64) -> Result<Vec<Hash32>, TransparencyError> {
    covered(tree, new)?;
    if old > new {
        return Err(TransparencyError::NotCovered { leaf: old, size: new });
    }
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    let proof = tlog_tiles::prove_tree(new, old, tree).map_err(|e| tree.damaged(&e))?;
    let proof: Vec<Hash32> = proof.into_iter().map(|h| Hash32(h.0)).collect();
    verify_consistency(old, &tree.root(old)?, new, &tree.root(new)?, &proof)
        .map_err(|e| TransparencyError::Inconsistent(e.to_string()))?;
    Ok(proof)
}

fn covered(tree: &Tree, size: u64) -> Result<(), TransparencyError> {
    if size > tree.size() {
        return Err(TransparencyError::NotCovered { leaf: size, size: tree.size() });
    }
    Ok(())
}
