//! What a settlement stands for: the served requests of its epoch under one root, and the commitment that ties them
//! to the transparency log. The exact bytes are specified in specs/settlement.md. No I/O.

use alloy::primitives::{Address, B256, FixedBytes, U256, keccak256};
use alloy::sol_types::SolValue;

use crate::fixed_bytes::{Address20, Hash32};
use crate::merkle::{MerkleTree, twice_hashed};

const REQUEST_DOMAIN: &[u8] = b"Counterfoil served request, version 1";
const COMMITMENT_DOMAIN: &[u8] = b"Counterfoil settlement commitment, version 1";

/// One request that was served and is paid for in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ServedRequest {
    /// The job's 16 bytes.
    pub job: [u8; 16],
    /// The operator's payout address.
    pub operator: Address20,
    /// What the operator earned with it, in the ledger's base units (not vault units: requests are small).
    pub amount_base_units: u128,
    /// Hash of the signed receipt's bytes.
    pub receipt: Hash32,
}

/// The place that a root of served requests is for: no leaf of one counts in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestScope {
    /// The chain.
    pub chain_id: u64,
    /// The vault.
    pub vault: Address20,
    /// The settlement epoch.
    pub epoch: u64,
}

impl RequestScope {
    /// The leaf of one request.
    pub fn leaf(&self, request: &ServedRequest) -> Hash32 {
        let domain =
            (keccak256(REQUEST_DOMAIN), U256::from(self.chain_id), Address::from(self.vault)).abi_encode();
        let leaf = (
            keccak256(domain),
            U256::from(self.epoch),
            FixedBytes::<16>::from(request.job),
            Address::from(request.operator),
            U256::from(request.amount_base_units),
            B256::from(request.receipt),
        );
        twice_hashed(&leaf.abi_encode())
    }

    /// The tree of an epoch's requests.
    pub fn tree<'a>(&self, requests: impl IntoIterator<Item = &'a ServedRequest>) -> MerkleTree {
        MerkleTree::new(requests.into_iter().map(|request| self.leaf(request)))
    }
}

/// The `commitment` of `settle`: the epoch's requests, and the transparency log up to and with its `BatchClosed`.
pub fn commitment(requests_root: Hash32, log_size: u64, log_root: Hash32) -> Hash32 {
    let fields =
        (keccak256(COMMITMENT_DOMAIN), B256::from(requests_root), U256::from(log_size), B256::from(log_root));
    keccak256(fields.abi_encode()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> ServedRequest {
        ServedRequest {
            job: std::array::from_fn(|index| index as u8),
            operator: Address20([1; 20]),
            amount_base_units: 123_456_789,
            receipt: Hash32([0xbb; 32]),
        }
    }

    /// Computed with npm `ethers` from the words of specs/settlement.md.
    #[test]
    fn leaf_and_commitment_are_those_of_the_specification() {
        let scope = RequestScope { chain_id: 31337, vault: Address20([0xaa; 20]), epoch: 7 };
        let leaf = "0x56803c7762b3e55bbe7cbc334fa62dea83e41727bfc42ec9b6874b592de8aceb";
        assert_eq!(scope.leaf(&request()).to_string(), leaf);
        let bound = "0x8f2a820fc6d689186ddb29cd8857984d8e970a5e1ae2b9f980b31da7a73f5bca";
        assert_eq!(commitment(Hash32([0xcc; 32]), 42, Hash32([0xdd; 32])).to_string(), bound);
    }

    #[test]
    fn a_leaf_is_for_one_epoch_and_one_vault_only() {
        let scope = RequestScope { chain_id: 31337, vault: Address20([0xaa; 20]), epoch: 7 };
        let leaf = scope.leaf(&request());
        assert_ne!(leaf, RequestScope { epoch: 8, ..scope }.leaf(&request()));
        assert_ne!(leaf, RequestScope { chain_id: 1, ..scope }.leaf(&request()));
        assert_ne!(leaf, RequestScope { vault: Address20([0xab; 20]), ..scope }.leaf(&request()));
        assert_eq!(scope.tree([&request()]).root(), leaf);
    }
}
