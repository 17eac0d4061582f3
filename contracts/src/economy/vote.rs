//! Stakers' votes on the one parameter that they govern: the bounds of a day's pool. Proposing, voting, carrying out, in
//! that order, with the governor's own delays between.

use alloy::primitives::{Address, Bytes, U256, keccak256};
use alloy::sol_types::SolCall;
use serde::{Deserialize, Serialize};

use super::Economy;
use crate::bindings::bounds::AllotmentBounds;
use crate::bindings::governor::NetworkGovernor;
use crate::chain::Mined;
use crate::error::ChainError;
use crate::fixed_bytes::Hash32;
use crate::key::EvmKey;

/// A change of the bounds that stakers vote on. Its words are part of its identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundsProposal {
    /// The lower bound of a day's pool from then on, in units.
    pub floor_units: u64,
    /// The upper bound.
    pub ceiling_units: u64,
    /// Why.
    pub description: String,
}

/// A staker's voice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    /// No.
    Against = 0,
    /// Yes.
    For = 1,
    /// Counts for the quorum only.
    Abstain = 2,
}

/// How far a proposal is, as OpenZeppelin's governor numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProposalState {
    /// The snapshot is to come.
    Pending,
    /// Votes are taken.
    Active,
    /// Withdrawn by its proposer.
    Canceled,
    /// Against, or without quorum.
    Defeated,
    /// Can be carried out.
    Succeeded,
    /// In a timelock; this governor has none.
    Queued,
    /// Too late.
    Expired,
    /// Carried out.
    Executed,
}

impl Economy<'_> {
    /// The proposal's id: hash of what it would do and of its words.
    pub async fn proposal_id(&self, proposal: &BoundsProposal) -> Result<Hash32, ChainError> {
        let (targets, values, calldatas) = self.calls(proposal);
        let words = keccak256(proposal.description.as_bytes());
        let id = self.governor().hashProposal(targets, values, calldatas, words).call().await;
        let id = id.map_err(|error| self.chain().call_failed("hashProposal", error))?;
        Ok(Hash32(id.to_be_bytes()))
    }

    /// Proposes; the key needs as many votes as an eligible staker has.
    pub async fn propose(&self, key: &EvmKey, proposal: &BoundsProposal) -> Result<Mined, ChainError> {
        let (targets, values, calldatas) = self.calls(proposal);
        let description = proposal.description.clone();
        let call = NetworkGovernor::proposeCall { targets, values, calldatas, description };
        self.send(key, "propose", self.manifest.governor.address, call).await
    }

    /// Votes with the stake that the key had at the proposal's snapshot.
    pub async fn vote(&self, key: &EvmKey, proposal: Hash32, voice: Voice) -> Result<Mined, ChainError> {
        let call = NetworkGovernor::castVoteCall {
            proposalId: U256::from_be_bytes(proposal.0),
            support: voice as u8,
        };
        self.send(key, "castVote", self.manifest.governor.address, call).await
    }

    /// Carries out what was voted; anybody's key.
    pub async fn execute(&self, key: &EvmKey, proposal: &BoundsProposal) -> Result<Mined, ChainError> {
        let (targets, values, calldatas) = self.calls(proposal);
        let description_hash = keccak256(proposal.description.as_bytes());
        let call =
            NetworkGovernor::executeCall { targets, values, calldatas, descriptionHash: description_hash };
        self.send(key, "execute", self.manifest.governor.address, call).await
    }

    /// How far a proposal is, in the newest block.
    pub async fn proposal_state(&self, proposal: Hash32) -> Result<ProposalState, ChainError> {
        let state = self.governor().state(U256::from_be_bytes(proposal.0)).call().await;
        let state = state.map_err(|error| self.chain().call_failed("state", error))?;
        use ProposalState::*;
        let known = [Pending, Active, Canceled, Defeated, Succeeded, Queued, Expired, Executed];
        let unknown = || self.chain().failed("state", format!("state {state} of a proposal is unknown"));
        known.get(usize::from(state)).copied().ok_or_else(unknown)
    }

    fn governor(&self) -> NetworkGovernor::NetworkGovernorInstance<alloy::providers::DynProvider> {
        NetworkGovernor::new(self.manifest.governor.address.into(), self.chain().provider().clone())
    }

    fn calls(&self, proposal: &BoundsProposal) -> (Vec<Address>, Vec<U256>, Vec<Bytes>) {
        let call = AllotmentBounds::setBoundsCall {
            newFloor: proposal.floor_units,
            newCeiling: proposal.ceiling_units,
        };
        (vec![self.manifest.bounds.address.into()], vec![U256::ZERO], vec![call.abi_encode().into()])
    }
}
