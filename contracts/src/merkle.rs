//! Merkle trees that the contracts verify: keccak, sorted pairs, leaves hashed twice, laid out as OpenZeppelin's
//! `StandardMerkleTree`, so that anybody's library gives the same root and proofs. See specs/settlement.md. No I/O.

use alloy::primitives::{Address, B256, U256, keccak256};
use alloy::sol_types::SolValue;

use crate::fixed_bytes::{Address20, Hash32};

/// A tree over a set of leaves. The order in which leaves are given does not matter.
#[derive(Debug, Clone)]
pub struct MerkleTree {
    /// The complete binary tree from its root: children of node i are 2i+1 and 2i+2, leaves stand last.
    nodes: Vec<B256>,
    leaf_count: usize,
}

impl MerkleTree {
    /// Builds the tree. No leaves give the root `Hash32::ZERO`.
    pub fn new(leaves: impl IntoIterator<Item = Hash32>) -> Self {
        let mut leaves: Vec<B256> = leaves.into_iter().map(B256::from).collect();
        leaves.sort_unstable();
        let leaf_count = leaves.len();
        if leaf_count == 0 {
            return Self { nodes: Vec::new(), leaf_count };
        }
        let inner_count = leaf_count - 1;
        let mut nodes = vec![B256::ZERO; inner_count];
        nodes.extend(leaves.into_iter().rev());
        for index in (0..inner_count).rev() {
            nodes[index] = hash_pair(nodes[2 * index + 1], nodes[2 * index + 2]);
        }
        Self { nodes, leaf_count }
    }

    /// The root.
    pub fn root(&self) -> Hash32 {
        self.nodes.first().copied().unwrap_or_default().into()
    }

    /// The siblings from a leaf up to the root; `None` when it is no leaf of this tree.
    pub fn proof(&self, leaf: Hash32) -> Option<Vec<Hash32>> {
        let first_leaf = self.nodes.len() - self.leaf_count;
        let leaves = &self.nodes[first_leaf..];
        // Leaves stand in descending order.
        let found = leaves.binary_search_by(|node| B256::from(leaf).cmp(node)).ok()?;
        let mut index = first_leaf + found;
        let mut siblings = Vec::new();
        while index > 0 {
            let sibling = if index % 2 == 1 { index + 1 } else { index - 1 };
            siblings.push(self.nodes[sibling].into());
            index = (index - 1) / 2;
        }
        Some(siblings)
    }
}

/// Whether a proof leads from a leaf to a root, as the contract checks it.
pub fn verify_proof(root: Hash32, leaf: Hash32, proof: &[Hash32]) -> bool {
    let reached = proof.iter().fold(B256::from(leaf), |node, sibling| hash_pair(node, (*sibling).into()));
    reached == B256::from(root)
}

/// The leaf of an operator's cumulative earnings in vault units: `OperatorPayouts.leafOf`.
pub fn payout_leaf(operator: Address20, cumulative_units: u64) -> Hash32 {
    twice_hashed(&(Address::from(operator), U256::from(cumulative_units)).abi_encode())
}

/// The tree of a settlement's payouts.
pub fn payout_tree(payouts: impl IntoIterator<Item = (Address20, u64)>) -> MerkleTree {
    MerkleTree::new(payouts.into_iter().map(|(operator, units)| payout_leaf(operator, units)))
}

pub(crate) fn twice_hashed(encoded: &[u8]) -> Hash32 {
    // Hashed twice, so that no inner node can be offered as a leaf.
    keccak256(keccak256(encoded)).into()
}

fn hash_pair(left: B256, right: B256) -> B256 {
    let (low, high) = if left < right { (left, right) } else { (right, left) };
    keccak256([low.0, high.0].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payouts(count: u8) -> Vec<(Address20, u64)> {
        (1..=count).map(|index| (Address20([index; 20]), u64::from(index) * 1_000_000)).collect()
    }

    fn hash(text: &str) -> Hash32 {
        text.parse().expect("a hash")
    }

    /// Roots and proof computed with npm `@openzeppelin/merkle-tree`.
    #[test]
    fn roots_are_those_of_openzeppelin() {
        for (count, root) in [
            (1, "0x79a22b0526ec0bb0e01c150a8cb2128e2a441330e6fdaa8d04fe23847ad69ee1"),
            (2, "0x52e448db4f6391c318fad83c6e5c3210877762faccbb36067d3096528618ca02"),
            (3, "0x4eeee9b1a689982b33f7e5edd67840ab2be4aff1b6e90e672187de14264e4ab6"),
            (5, "0x8e4ce9d2782163f69c8a2e2ca7c2f5c9a744c30d04dda3b3a39b98914cc1f0be"),
            (8, "0x10337a0816f2ee2afa9c4407dc06ef47bef0ffcb9b57b749dce14e7b60b057f6"),
        ] {
            assert_eq!(payout_tree(payouts(count)).root(), hash(root), "{count} leaves");
        }
        let proof = payout_tree(payouts(5)).proof(payout_leaf(Address20([3; 20]), 3_000_000));
        let expected = [
            "0xab1a712e3fab3d8dce623b71af98fc442fa060606f9e9255da7a99a6e85a552f",
            "0x74bef54ab4c104056507d2e08cf0ade402e660344f177c00186be4877e59886f",
        ];
        assert_eq!(proof.expect("a leaf of the tree"), expected.map(hash));
    }

    #[test]
    fn every_leaf_is_proven_in_trees_of_any_size() {
        for count in 0..40 {
            let tree = payout_tree(payouts(count));
            for (operator, units) in payouts(count) {
                let leaf = payout_leaf(operator, units);
                let proof = tree.proof(leaf).expect("a leaf of the tree");
                assert!(verify_proof(tree.root(), leaf, &proof), "{count} leaves");
                assert!(!verify_proof(tree.root(), payout_leaf(operator, units + 1), &proof));
            }
            assert_eq!(tree.proof(payout_leaf(Address20([99; 20]), 1)), None);
        }
        assert_eq!(payout_tree([]).root(), Hash32::ZERO);
    }

    #[test]
    fn the_order_of_leaves_does_not_matter() {
        let mut reversed = payouts(7);
        reversed.reverse();
        assert_eq!(payout_tree(reversed).root(), payout_tree(payouts(7)).root());
    }
}
