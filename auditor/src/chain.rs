//! What an auditor asks of a chain, as a trait: the program injects its own node; tests a table. Amounts in vault units.

use protocol::asset::VaultRef;
use protocol::id::{EvmAddress, Hash32, Word32};

/// The chain does not answer: an audit that needs it is inconclusive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the chain was not read: {0}")]
pub struct ChainUnavailable(pub String);

/// The block that everything is read at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: Word32,
    /// Its time, seconds UTC.
    pub timestamp_s: u64,
}

/// What a vault and its pot hold at the block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holdings {
    /// The vault's tokens, whole vault units.
    pub vault_units: u64,
    /// The pot's tokens, whole vault units.
    pub pot_units: u64,
    /// Ever received by the pot.
    pub funded_units: u64,
    /// Ever paid out by the pot.
    pub claimed_units: u64,
    /// The last settlement's number.
    pub last_number: u64,
}

/// One wallet's record in a vault at the block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalletRecord {
    /// What belongs to it.
    pub balance_units: u64,
    /// Ever charged.
    pub charged_units: u64,
}

/// A fact and where it happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChainEvent {
    /// The vault whose contracts logged it.
    pub vault: VaultRef,
    /// Block number.
    pub block: u64,
    /// The transaction.
    pub tx: Word32,
    /// The log's place in its transaction's receipt, from 0.
    pub ordinal: u32,
    /// What.
    pub fact: ChainFact,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChainFact {
    /// A wallet's vault balance grew.
    Deposited {
        /// Whose.
        wallet: EvmAddress,
        /// By how much.
        units: u64,
    },
    /// A voucher was used.
    Withdrawn {
        /// Whose balance.
        wallet: EvmAddress,
        /// How much.
        units: u64,
        /// The voucher's nonce.
        nonce: u64,
    },
    /// A wallet left without us.
    ExitFinalised {
        /// Whose balance.
        wallet: EvmAddress,
        /// How much.
        units: u64,
    },
    /// A settlement.
    Settled {
        /// Its number.
        number: u64,
        /// Charged in all.
        total_units: u64,
        /// Payout root.
        root: Word32,
        /// Sum of the root's leaves.
        root_total_units: u64,
        /// What it stands for.
        commitment: Word32,
    },
    /// The pot paid.
    Claimed {
        /// The payout leaf's address.
        address: EvmAddress,
        /// How much now.
        units: u64,
    },
    /// A log's head was anchored.
    Anchored {
        /// keccak of the log's origin line.
        origin: Word32,
        /// Leaves.
        size: u64,
        /// Root.
        root: Hash32,
    },
}

/// Reads one chain, always at one named block.
pub trait ChainReader {
    /// The block that [`ChainReader::holdings`] and [`ChainReader::wallet`] are read at.
    fn block(&self) -> Result<Block, ChainUnavailable>;

    /// What vault and pot hold at the block.
    fn holdings(&self, vault: VaultRef) -> Result<Holdings, ChainUnavailable>;

    /// A wallet's record at the block.
    fn wallet(&self, vault: VaultRef, wallet: EvmAddress) -> Result<WalletRecord, ChainUnavailable>;

    /// All facts of the vaults' contracts from their deployment on, in the chain's order, also after the block.
    fn facts(&self) -> Result<Vec<ChainEvent>, ChainUnavailable>;
}
