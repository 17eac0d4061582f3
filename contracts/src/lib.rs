//! The chain: our contracts' artefacts, and everything that talks to them. The watcher hands on what happened, the
//! settler puts settlements there, vouchers and authorisations are signed and checked, a user can leave without us.
//!
//! Lives here: EVM types, RPC, signing for the chain, the dev chain. Only [`mirror`] and [`settlement`] know the ledger:
//! facts become commands, batches become transactions. Must not: decide what is owed, or do arithmetic on money beyond
//! vault units (1e-6 of a whole token; the ledger converts).
//!
//! Entry points: [`chain::Chain::connect`], [`deploy::deploy`], [`deployment::Deployment::open`], then
//! [`watcher::Watcher`], [`settler::Settler`], [`vouchers`], [`exit::Exit`], [`anvil::Anvil`].

pub mod anvil;
pub mod bindings;
pub mod chain;
pub mod deploy;
pub mod deployment;
pub mod dev;
mod durable;
pub mod economy;
pub mod error;
pub mod event;
pub mod exit;
pub mod fixed_bytes;
pub mod key;
pub mod manifest;
pub mod merkle;
pub mod mirror;
pub mod quorum;
pub mod reader;
pub mod reconcile;
pub mod requests;
pub mod safe;
pub mod settlement;
pub mod settler;
pub mod surplus;
pub mod vouchers;
pub mod watcher;
pub mod x402;

pub use anvil::{Anvil, AnvilOptions, Mining, find_anvil};
pub use chain::{Chain, ChainConfig, Head, Mined, http_client};
pub use deploy::{DeployOptions, deploy};
pub use deployment::{
    Claim, Deployment, OperatorClaims, PayoutRoot, PotState, PreviewedAccount, SettlePreview, VaultAccount,
};
pub use economy::{
    BoundsProposal, Economy, EconomyManifest, EconomyOptions, EligibleStakes, PackageTerms, Placed,
    ProposalState, Voice, WorkersPayment, deploy_economy,
};
pub use error::ChainError;
pub use event::{ChainEvent, ChainFact, EconomyFact, EventKey, Origin, Record};
pub use exit::{Exit, ExitStage, ExitStatus};
pub use fixed_bytes::{Address20, Hash32};
pub use key::EvmKey;
pub use manifest::{CodeHashes, Manifest};
pub use merkle::{MerkleTree, payout_leaf, payout_tree, verify_proof};
pub use quorum::QuorumReader;
pub use reader::ChainReader;
pub use reconcile::Holdings;
pub use requests::{RequestScope, ServedRequest, commitment};
pub use safe::SafeBatch;
pub use settler::{Charge, Payout, Replacement, Settlement, SettlementPlan, Settler, SettlerOptions};
pub use surplus::StrayPayment;
pub use vouchers::{SignedAuthorisation, SignedVoucher, SpendAuthorisation, VaultDomain, WithdrawalVoucher};
pub use watcher::{
    BlockMark, ConfirmationPolicy, ConfirmationStep, Halt, PendingDeposit, Poll, Watcher, WatcherState,
};
