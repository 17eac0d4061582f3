//! Events about operators and their nodes.

use crate::id::{AccountId, EvmAddress, NodeId, OperatorId, SealingKey};
use minicbor::{Decode, Encode};
use serde::Serialize;

/// An operator registered: its NATS key, the account that earns, where claims are paid.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct OperatorRegistered {
    /// The Ed25519 key of its NATS user; it signs receipts.
    #[n(0)]
    pub operator: OperatorId,
    /// The account that earns.
    #[n(1)]
    pub account: AccountId,
    /// Its leaf in payout roots.
    #[n(2)]
    pub payout_address: EvmAddress,
}

/// A node registered; a repeated registration replaces models, slots and key.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct NodeRegistered {
    /// The node.
    #[n(0)]
    pub node: NodeId,
    /// Its owner.
    #[n(1)]
    pub operator: OperatorId,
    /// Models it serves, by the names of the rate card, sorted.
    #[n(2)]
    pub models: Vec<String>,
    /// Declared concurrent jobs.
    #[n(3)]
    pub slots: u32,
    /// Job bodies are sealed to it.
    #[n(4)]
    pub sealing_key: SealingKey,
}

/// A node left for good.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct NodeRetired {
    /// The node.
    #[n(0)]
    pub node: NodeId,
}
