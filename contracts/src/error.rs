//! What can go wrong between us and the chain. Codes are stable; texts say what was expected, what came, what to do.

use crate::fixed_bytes::{Address20, Hash32};

/// Every failure of this room.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ChainError {
    /// The node could not be reached or answered with an error that is not a revert.
    #[error(
        "the chain node at {endpoint} failed {call}: {cause}; check that it runs and is reachable, then retry"
    )]
    Rpc {
        /// The node's address.
        endpoint: String,
        /// What was asked.
        call: &'static str,
        /// What came.
        cause: String,
    },
    /// Too few nodes gave the same answer.
    #[error(
        "{what}: {agreed} of {reader_count} nodes agree, {quorum} must; {trouble}; if it stays, look at the nodes one by one"
    )]
    NoQuorum {
        /// What was asked.
        what: &'static str,
        /// How many gave the most frequent answer.
        agreed: usize,
        /// How many must.
        quorum: usize,
        /// How many were asked.
        reader_count: usize,
        /// The last failure, if any.
        trouble: String,
    },
    /// A quorum that cannot be had, or that two answers could both have.
    #[error(
        "a quorum of {quorum} among {reader_count} nodes: choose more than half of them, 16 nodes at most"
    )]
    BadQuorum {
        /// How many must agree.
        quorum: usize,
        /// How many there are.
        reader_count: usize,
    },
    /// A confirmation policy whose steps do not rise.
    #[error(
        "a confirmation policy of {step_count} steps: at most 16, rising in both amount and confirmations"
    )]
    BadPolicy {
        /// How many steps.
        step_count: usize,
    },
    /// A payment by x402 that is not what was asked for.
    #[error("the payment is not accepted ({reason}): {cause}")]
    BadPayment {
        /// A stable word for the client.
        reason: &'static str,
        /// What was expected, what came.
        cause: String,
    },
    /// The node serves another chain than configured.
    #[error("expected chain id {expected}, the node at {endpoint} serves {got}; correct rpc_url or chain_id")]
    WrongChain {
        /// The node's address.
        endpoint: String,
        /// From the configuration or the manifest.
        expected: u64,
        /// From the node.
        got: u64,
    },
    /// The block of the manifest's deployment is not on this chain.
    #[error(
        "block {number} should have hash {expected}, the node says {got}; this is another chain (or a chain started afresh): use the manifest that belongs to it, or deploy again"
    )]
    WrongHistory {
        /// The block's number.
        number: u64,
        /// From the manifest.
        expected: Hash32,
        /// From the node; `none` when it has no such block.
        got: String,
    },
    /// There is no such contract, or another contract, at an address.
    #[error(
        "expected the {contract} of this release at {address}, found {found}; the manifest's addresses are wrong or swapped: use the manifest that deploy wrote"
    )]
    ForeignCode {
        /// The contract's name.
        contract: &'static str,
        /// Where it should be.
        address: Address20,
        /// What is there.
        found: String,
    },
    /// A contract is not wired as the manifest says.
    #[error(
        "the manifest says {what} is {expected}, the chain says {got}; use the manifest that deploy wrote"
    )]
    WrongWiring {
        /// The link or parameter.
        what: &'static str,
        /// From the manifest.
        expected: String,
        /// From the chain.
        got: String,
    },
    /// A call or transaction was refused by a contract.
    #[error("{call} was refused by the contract: {reason}")]
    Reverted {
        /// The call.
        call: &'static str,
        /// The contract's error with its values.
        reason: String,
    },
    /// A transaction was sent and did not appear in a block in time.
    #[error(
        "{call} (transaction {tx}) was not mined within {waited_ms} ms; it may still be: look it up before sending again"
    )]
    NotMined {
        /// The call.
        call: &'static str,
        /// The transaction.
        tx: Hash32,
        /// How long was waited.
        waited_ms: u64,
    },
    /// An event or call of ours has bytes that this release does not understand.
    #[error(
        "log {ordinal} of transaction {tx} cannot be read as an event of ours: {cause}; check the manifest"
    )]
    BadLog {
        /// The transaction.
        tx: Hash32,
        /// The log's place within the receipt.
        ordinal: u32,
        /// What is wrong with it.
        cause: String,
    },
    /// The node is behind what was confirmed before.
    #[error(
        "the node's head is block {head}, block {confirmed} was confirmed before; wait for the node to catch up"
    )]
    NodeBehind {
        /// The node's head.
        head: u64,
        /// The last confirmed block.
        confirmed: u64,
    },
    /// A key could not be read or made.
    #[error("bad private key: {cause}")]
    BadKey {
        /// What is wrong, without the key.
        cause: String,
    },
    /// A signature is not by the expected account.
    #[error("expected a signature by {expected}, got one by {got}; sign exactly the data that was offered")]
    WrongSigner {
        /// Who should have signed.
        expected: Address20,
        /// Who has, or what is wrong.
        got: String,
    },
    /// A settlement plan contradicts itself or the contract's limits.
    #[error("bad settlement plan for epoch {epoch}: {cause}")]
    BadPlan {
        /// The epoch.
        epoch: u64,
        /// What is wrong.
        cause: String,
    },
    /// A plan would collect less than it demands: accounts have changed since it was made.
    #[error(
        "settling epoch {epoch} would now collect {total} units, the plan needs {min_total}; preview again and make a new plan"
    )]
    PlanStale {
        /// The epoch.
        epoch: u64,
        /// What would be collected now.
        total: u64,
        /// What the plan needs.
        min_total: u64,
    },
    /// The chain has settled the epoch with other content than ours.
    #[error(
        "epoch {epoch} is settled on chain with commitment {got}, ours is {expected}; two settlers are at work: stop one"
    )]
    EpochTaken {
        /// The epoch.
        epoch: u64,
        /// Our commitment.
        expected: Hash32,
        /// The chain's.
        got: Hash32,
    },
    /// A file of ours could not be read or written.
    #[error("{path}: {cause}")]
    File {
        /// The file.
        path: String,
        /// What went wrong.
        cause: String,
    },
    /// The log did not take, or did not answer, what the chain asked of it.
    #[error("the ledger's log: {cause}; nothing is remembered, the next look tries again")]
    Log {
        /// What went wrong.
        cause: String,
    },
    /// The ledger said no.
    #[error("the ledger refused: {cause}")]
    Refused {
        /// The refusal's stable name.
        refusal: &'static str,
        /// Its sentence.
        cause: String,
    },
    /// The development chain could not be started.
    #[error("the development chain (anvil) {cause}")]
    Anvil {
        /// What went wrong and what to do.
        cause: String,
    },
}

impl ChainError {
    /// A stable code for logs, metrics and API answers.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Rpc { .. } => "chain_rpc",
            Self::NoQuorum { .. } => "chain_no_quorum",
            Self::BadQuorum { .. } => "chain_bad_quorum",
            Self::BadPolicy { .. } => "chain_bad_policy",
            Self::BadPayment { .. } => "chain_bad_payment",
            Self::WrongChain { .. } => "chain_wrong_chain",
            Self::WrongHistory { .. } => "chain_wrong_history",
            Self::ForeignCode { .. } => "chain_foreign_code",
            Self::WrongWiring { .. } => "chain_wrong_wiring",
            Self::Reverted { .. } => "chain_reverted",
            Self::NotMined { .. } => "chain_not_mined",
            Self::BadLog { .. } => "chain_bad_log",
            Self::NodeBehind { .. } => "chain_node_behind",
            Self::BadKey { .. } => "chain_bad_key",
            Self::WrongSigner { .. } => "chain_wrong_signer",
            Self::BadPlan { .. } => "chain_bad_plan",
            Self::PlanStale { .. } => "chain_plan_stale",
            Self::EpochTaken { .. } => "chain_epoch_taken",
            Self::File { .. } => "chain_file",
            Self::Log { .. } => "chain_log",
            Self::Refused { .. } => "chain_refused",
            Self::Anvil { .. } => "chain_anvil",
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Rpc { .. } | Self::NoQuorum { .. } | Self::NodeBehind { .. } | Self::NotMined { .. }
        )
    }

    pub(crate) fn file(path: &std::path::Path, cause: impl ToString) -> Self {
        Self::File { path: path.display().to_string(), cause: cause.to_string() }
    }
}
