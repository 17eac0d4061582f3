//! What a settlement stands for on the chain, recomputed: payout root, requests root and commitment, by keccak over ABI
//! words as `specs/settlement.md` has them. Written without any chain library.

use protocol::asset::VaultRef;
use protocol::id::{EvmAddress, Hash32, JobId, Word32};
use sha3::{Digest, Keccak256};

const REQUEST_DOMAIN: &[u8] = b"Counterfoil served request, version 1";
const COMMITMENT_DOMAIN: &[u8] = b"Counterfoil settlement commitment, version 1";

/// One word of an ABI encoding.
#[derive(Clone, Copy)]
struct AbiWord([u8; 32]);

impl From<u128> for AbiWord {
    fn from(number: u128) -> AbiWord {
        let mut word = [0; 32];
        word[16..].copy_from_slice(&number.to_be_bytes());
        AbiWord(word)
    }
}

impl From<EvmAddress> for AbiWord {
    fn from(address: EvmAddress) -> AbiWord {
        let mut word = [0; 32];
        word[12..].copy_from_slice(&address.0);
        AbiWord(word)
    }
}

impl From<JobId> for AbiWord {
    /// `bytes16`: left-aligned.
    fn from(job: JobId) -> AbiWord {
        let mut word = [0; 32];
        word[..16].copy_from_slice(&job.0);
        AbiWord(word)
    }
}

fn keccak(bytes: &[u8]) -> [u8; 32] {
    Keccak256::digest(bytes).into()
}

fn keccak_words(words: &[AbiWord]) -> AbiWord {
    let mut hasher = Keccak256::new();
    words.iter().for_each(|word| hasher.update(word.0));
    AbiWord(hasher.finalize().into())
}

fn twice(words: &[AbiWord]) -> [u8; 32] {
    keccak(&keccak_words(words).0)
}

/// `keccak(keccak(abi(address, cumulative units)))`.
pub fn payout_leaf(address: EvmAddress, cumulative_units: u64) -> Word32 {
    Word32(twice(&[address.into(), u128::from(cumulative_units).into()]))
}

/// The root over a settlement's cumulative payouts; zeros for none.
pub fn payout_root(payouts: impl IntoIterator<Item = (EvmAddress, u64)>) -> Word32 {
    root(payouts.into_iter().map(|(address, units)| payout_leaf(address, units)).collect())
}

/// One request that a batch pays for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServedRequest {
    /// The job.
    pub job: JobId,
    /// Whose payout leaf it is in.
    pub operator: EvmAddress,
    /// What the operator earned with it in this batch, ledger base units.
    pub amount_base_units: u128,
    /// Hash of the signed receipt.
    pub receipt: Hash32,
}

/// The root over the served requests of one settlement of one vault; zeros for none.
pub fn requests_root(vault: VaultRef, number: u64, requests: &[ServedRequest]) -> Word32 {
    let chain_id = u128::from(vault.chain_id).into();
    let domain = keccak_words(&[AbiWord(keccak(REQUEST_DOMAIN)), chain_id, vault.vault.into()]);
    let leaf = |request: &ServedRequest| {
        Word32(twice(&[
            domain,
            u128::from(number).into(),
            request.job.into(),
            request.operator.into(),
            request.amount_base_units.into(),
            AbiWord(request.receipt.0),
        ]))
    };
    root(requests.iter().map(leaf).collect())
}

/// `keccak(abi(domain, requests root, log size, log root))`.
pub fn commitment(requests_root: Word32, log_size: u64, log_root: Hash32) -> Word32 {
    let domain = AbiWord(keccak(COMMITMENT_DOMAIN));
    let size = u128::from(log_size).into();
    Word32(keccak_words(&[domain, AbiWord(requests_root.0), size, AbiWord(log_root.0)]).0)
}

/// keccak of a log's origin line: how anchors name it.
pub fn origin_hash(origin: &str) -> Word32 {
    Word32(keccak(origin.as_bytes()))
}

/// OpenZeppelin's `StandardMerkleTree`: leaves sorted, laid out from the end of a complete binary tree, pairs sorted.
fn root(mut leaves: Vec<Word32>) -> Word32 {
    leaves.sort_unstable();
    let count = leaves.len();
    if count == 0 {
        return Word32([0; 32]);
    }
    let mut nodes = vec![Word32([0; 32]); count - 1];
    nodes.extend(leaves.into_iter().rev());
    for index in (0..count - 1).rev() {
        let (left, right) = (nodes[2 * index + 1], nodes[2 * index + 2]);
        let (low, high) = if left < right { (left, right) } else { (right, left) };
        nodes[index] = Word32(keccak(&[low.0, high.0].concat()));
    }
    nodes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> Word32 {
        text.parse().expect("a word")
    }

    /// Roots computed with npm `@openzeppelin/merkle-tree`.
    #[test]
    fn payout_roots_are_those_of_openzeppelin() {
        for (count, root) in [
            (1u8, "0x79a22b0526ec0bb0e01c150a8cb2128e2a441330e6fdaa8d04fe23847ad69ee1"),
            (2, "0x52e448db4f6391c318fad83c6e5c3210877762faccbb36067d3096528618ca02"),
            (3, "0x4eeee9b1a689982b33f7e5edd67840ab2be4aff1b6e90e672187de14264e4ab6"),
            (8, "0x10337a0816f2ee2afa9c4407dc06ef47bef0ffcb9b57b749dce14e7b60b057f6"),
        ] {
            let payouts = (1..=count).map(|i| (EvmAddress([i; 20]), u64::from(i) * 1_000_000));
            assert_eq!(payout_root(payouts), word(root), "{count} leaves");
        }
        assert_eq!(payout_root([]), Word32([0; 32]));
    }

    /// Computed with npm `ethers` from the words of `specs/settlement.md`.
    #[test]
    fn request_leaf_and_commitment_are_those_of_the_specification() {
        let request = ServedRequest {
            job: JobId(std::array::from_fn(|index| index as u8)),
            operator: EvmAddress([1; 20]),
            amount_base_units: 123_456_789,
            receipt: Hash32([0xbb; 32]),
        };
        let vault = VaultRef { chain_id: 31337, vault: EvmAddress([0xaa; 20]) };
        let leaf = word("0x56803c7762b3e55bbe7cbc334fa62dea83e41727bfc42ec9b6874b592de8aceb");
        assert_eq!(requests_root(vault, 7, &[request]), leaf, "one leaf is the root");
        let bound = word("0x8f2a820fc6d689186ddb29cd8857984d8e970a5e1ae2b9f980b31da7a73f5bca");
        assert_eq!(commitment(Word32([0xcc; 32]), 42, Hash32([0xdd; 32])), bound);
    }
}
