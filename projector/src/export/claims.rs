//! A batch's claims: for each payee what the chain pays it for life, and the proof that the payouts contract wants. Only of a
//! batch that is paid by claims; the root must be the one that was submitted. Format of tree and leaf: specs/settlement.md.

use super::ExportError;
use super::batch::BatchFiles;
use protocol::event::batch::Rail;
use protocol::event::{Event, EventBody};
use protocol::id::{EvmAddress, Word32};
use serde_json::json;
use sha3::{Digest, Keccak256};

/// Address and cumulative vault units of a payee.
type Payee = (EvmAddress, u64);

/// The whole file, one object.
pub fn json(batch: &BatchFiles<'_>, events: &[Event]) -> Result<String, ExportError> {
    batch.check_rail(Rail::RootClaims)?;
    let closed = batch.closed();
    let submitted = events.iter().find_map(|event| match &event.body {
        EventBody::BatchSubmitted(submitted) if submitted.batch == closed.batch => {
            Some(submitted.payout_root)
        }
        _ => None,
    });
    let payees: Vec<Payee> = closed.payouts.iter().map(|p| (p.address, p.cumulative_units)).collect();
    let tree = Tree::of(&payees);
    if let Some(root) = submitted.filter(|root| *root != tree.root()) {
        return Err(ExportError::OtherRoot { batch: closed.batch, computed: tree.root(), submitted: root });
    }
    let claim = |payee: &Payee| {
        let proof: Vec<String> = tree.proof(payee).iter().map(Word32::to_string).collect();
        json!({"operator": payee.0.to_string(), "cumulative_units": payee.1.to_string(), "proof": proof})
    };
    let total: u128 = payees.iter().map(|payee| u128::from(payee.1)).sum();
    let value = json!({
        "provenance": batch.provenance().json("claims"),
        "batch": closed.batch, "epoch": closed.number, "vault": closed.vault,
        "root": tree.root().to_string(), "root_total_units": total.to_string(), "is_submitted": submitted.is_some(),
        "claims": payees.iter().map(claim).collect::<Vec<_>>(),
    });
    Ok(super::json_text(value))
}

/// OpenZeppelin's `StandardMerkleTree`: leaves sorted, laid out from the end of a complete binary tree, pairs sorted.
struct Tree {
    nodes: Vec<Word32>,
}

impl Tree {
    fn of(payees: &[Payee]) -> Tree {
        let mut leaves: Vec<Word32> = payees.iter().map(leaf).collect();
        leaves.sort_unstable();
        let count = leaves.len();
        if count == 0 {
            return Tree { nodes: vec![Word32([0; 32])] };
        }
        let mut nodes = vec![Word32([0; 32]); count - 1];
        nodes.extend(leaves.into_iter().rev());
        for at in (0..count - 1).rev() {
            nodes[at] = pair(nodes[2 * at + 1], nodes[2 * at + 2]);
        }
        Tree { nodes }
    }

    fn root(&self) -> Word32 {
        self.nodes[0]
    }

    /// Siblings from the leaf up.
    fn proof(&self, payee: &Payee) -> Vec<Word32> {
        let leaf = leaf(payee);
        let Some(mut at) = self.nodes.iter().rposition(|node| *node == leaf) else { return Vec::new() };
        let mut proof = Vec::new();
        while at > 0 {
            let sibling = if at % 2 == 0 { at - 1 } else { at + 1 };
            proof.push(self.nodes[sibling]);
            at = (at - 1) / 2;
        }
        proof
    }
}

fn keccak(bytes: &[u8]) -> Word32 {
    Word32(Keccak256::digest(bytes).into())
}

fn leaf((address, units): &Payee) -> Word32 {
    let mut words = [0; 64];
    words[12..32].copy_from_slice(&address.0);
    words[56..].copy_from_slice(&units.to_be_bytes());
    keccak(&keccak(&words).0)
}

fn pair(a: Word32, b: Word32) -> Word32 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    keccak(&[low.0, high.0].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_openzeppelin_s() {
        // Root computed with npm `@openzeppelin/merkle-tree`; specs/settlement.md has it.
        let payees: Vec<Payee> = (1..=5).map(|n| (EvmAddress([n; 20]), u64::from(n) * 1_000_000)).collect();
        let tree = Tree::of(&payees);
        let root = "0x8e4ce9d2782163f69c8a2e2ca7c2f5c9a744c30d04dda3b3a39b98914cc1f0be";
        assert_eq!(tree.root().to_string(), root);
        for payee in &payees {
            let folded = tree.proof(payee).into_iter().fold(leaf(payee), pair);
            assert_eq!(folded, tree.root());
        }
        assert_eq!(Tree::of(&payees[..1]).root(), leaf(&payees[0]));
    }
}
