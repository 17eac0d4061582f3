//! Events about settlement: batches, their confirmation, operators' claims.

use crate::amount::Amount;
use crate::asset::{AssetId, VaultRef};
use crate::id::{AccountId, BatchId, EvmAddress, Hash32, Word32};
use minicbor::{Decode, Encode};
use serde::Serialize;

/// How a batch is paid. One batch, one rail (rulings 3.4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum Rail {
    /// A payout root; operators claim.
    #[n(0)]
    RootClaims,
    /// A multisig pays.
    #[n(1)]
    Safe,
    /// A bank file.
    #[n(2)]
    FiatFile,
}

/// One wallet's cumulative charge.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct Charge {
    /// Whose vault balance is charged.
    #[n(0)]
    pub wallet: EvmAddress,
    /// For life, vault units: `floor(cumulative captures)`.
    #[n(1)]
    pub cumulative_units: u64,
    /// More than the batch before.
    #[n(2)]
    pub added_units: u64,
}

/// One payee's cumulative payout.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct Payout {
    /// The account that earns; [`AccountId::SYSTEM`] for the platform.
    #[n(0)]
    pub account: AccountId,
    /// Its leaf in the payout root.
    #[n(1)]
    pub address: EvmAddress,
    /// For life, vault units.
    #[n(2)]
    pub cumulative_units: u64,
    /// More than the batch before.
    #[n(3)]
    pub added_units: u64,
}

/// The cut-off, what will be charged, who will be paid.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct BatchClosed {
    /// The batch.
    #[n(0)]
    pub batch: BatchId,
    /// The vault's settlement number; grows by one.
    #[n(1)]
    pub number: u64,
    /// Whose funds.
    #[n(2)]
    pub vault: VaultRef,
    /// In which asset.
    #[n(3)]
    pub asset: AssetId,
    /// Captures before this leaf are in.
    #[n(4)]
    pub cutoff_leaf: u64,
    /// How it is paid.
    #[n(5)]
    pub rail: Rail,
    /// Sorted by wallet.
    #[n(6)]
    pub charges: Vec<Charge>,
    /// Sorted by address; added units sum to the charges' added units.
    #[n(7)]
    pub payouts: Vec<Payout>,
    /// Wallets that were due and wait, because the chain would have charged them short; sorted. `None` = nobody. Since
    /// version 2.
    #[n(8)]
    pub short: Option<Vec<EvmAddress>>,
}

/// Roots and commitment are fixed; the transaction may be sent, again and again, with these values only.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct BatchSubmitted {
    /// The batch.
    #[n(0)]
    pub batch: BatchId,
    /// Merkle root over every payee's cumulative payout (keccak, `specs/settlement.md`).
    #[n(1)]
    pub payout_root: Word32,
    /// Sum of all cumulative payouts, vault units.
    #[n(2)]
    pub root_total_units: u64,
    /// Merkle root over the served requests of the batch.
    #[n(3)]
    pub requests_root: Word32,
    /// Size of the transparency log that covers the close.
    #[n(4)]
    pub tlog_size: u64,
    /// Its root.
    #[n(5)]
    pub tlog_root: Hash32,
    /// `H(requests root, tlog size, tlog root)`.
    #[n(6)]
    pub commitment: Word32,
}

/// Confirmed by its event, deep enough.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct BatchConfirmed {
    /// The batch.
    #[n(0)]
    pub batch: BatchId,
    /// The transaction that did it.
    #[n(1)]
    pub tx: Word32,
    /// Block number.
    #[n(2)]
    pub block: u64,
    /// Block hash.
    #[n(3)]
    pub block_hash: Word32,
    /// What the vault really charged, vault units.
    #[n(4)]
    pub charged_units: u64,
    /// The same in base units.
    #[n(5)]
    pub amount: Amount,
}

/// A transaction of the batch was stuck and replaced by one with higher fees: same values, same place in its sender's
/// order, so that only one of them can be mined. Since version 2.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct BatchReplaced {
    /// The batch.
    #[n(0)]
    pub batch: BatchId,
    /// The stuck transaction.
    #[n(1)]
    pub replaced: Word32,
    /// The new one.
    #[n(2)]
    pub tx: Word32,
}

/// The batch will not be paid as it was closed.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct BatchFailed {
    /// The batch.
    #[n(0)]
    pub batch: BatchId,
    /// A sentence for people.
    #[n(1)]
    pub reason: String,
}

/// The pot paid a payee.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct PayoutClaimed {
    /// Which vault's pot.
    #[n(0)]
    pub vault: VaultRef,
    /// Who earned it.
    #[n(1)]
    pub account: AccountId,
    /// The leaf it was claimed by.
    #[n(2)]
    pub address: EvmAddress,
    /// Paid now, vault units.
    #[n(3)]
    pub units: u64,
    /// The same in base units.
    #[n(4)]
    pub amount: Amount,
    /// The transaction.
    #[n(5)]
    pub tx: Word32,
}
