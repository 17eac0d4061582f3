//! Events about the chain: vaults, deposits, exits, withdrawal vouchers, anchors.

use crate::amount::Amount;
use crate::asset::{AssetId, VaultRef};
use crate::id::{AccountId, EvmAddress, Hash32, VoucherId, Word32};
use minicbor::{Decode, Encode};
use serde::Serialize;

/// The contracts an asset's funds lie in.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct VaultRegistered {
    /// Chain and `CreditVault`.
    #[n(0)]
    pub vault: VaultRef,
    /// Its `OperatorPayouts`.
    #[n(1)]
    pub payouts: EvmAddress,
    /// The token.
    #[n(2)]
    pub token: EvmAddress,
    /// Which asset it is.
    #[n(3)]
    pub asset: AssetId,
    /// The block it was deployed in; scans begin here.
    #[n(4)]
    pub deployed_block: u64,
    /// The coordinator address that authorisations name.
    #[n(5)]
    pub coordinator: EvmAddress,
    /// Where the platform's part of a payout root goes.
    #[n(6)]
    pub platform: EvmAddress,
}

/// What makes a deposit one deposit (rulings 3.7): a log index moves when a reorganisation re-mines it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct DepositKey {
    /// Where.
    #[n(0)]
    pub vault: VaultRef,
    /// In which transaction.
    #[n(1)]
    pub tx: Word32,
    /// The how-manieth deposit event of that vault within the transaction's receipt.
    #[n(2)]
    pub ordinal: u32,
}

/// A deposit reached its confirmations and is mirrored.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct DepositConfirmed {
    /// Which deposit.
    #[n(0)]
    pub key: DepositKey,
    /// Whose vault balance grew.
    #[n(1)]
    pub wallet: EvmAddress,
    /// By how many vault units (1e-6).
    #[n(2)]
    pub units: u64,
    /// The same in the asset's base units.
    #[n(3)]
    pub amount: Amount,
    /// The account the wallet is linked to; `None` waits for it.
    #[n(4)]
    pub account: Option<AccountId>,
    /// Block number.
    #[n(5)]
    pub block: u64,
    /// Block hash.
    #[n(6)]
    pub block_hash: Word32,
}

/// Waiting deposits of a wallet went to the account that linked it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct DepositAttributed {
    /// Where.
    #[n(0)]
    pub vault: VaultRef,
    /// Whose.
    #[n(1)]
    pub wallet: EvmAddress,
    /// The account.
    #[n(2)]
    pub account: AccountId,
    /// All that waited.
    #[n(3)]
    pub amount: Amount,
}

/// A deposit vanished: unspent funds first, the rest is a receivable (rulings 3.7).
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct DepositReversed {
    /// Which deposit.
    #[n(0)]
    pub key: DepositKey,
    /// Taken from unspent funds.
    #[n(1)]
    pub taken: Amount,
    /// Owed from now on.
    #[n(2)]
    pub owed: Amount,
}

/// First sight of an exit request: nothing is spendable from this wallet any more.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct ExitRequested {
    /// Where.
    #[n(0)]
    pub vault: VaultRef,
    /// Who.
    #[n(1)]
    pub wallet: EvmAddress,
    /// When it can be carried out, seconds UTC on the chain's clock.
    #[n(2)]
    pub exit_at_s: u64,
    /// The transaction.
    #[n(3)]
    pub tx: Word32,
}

/// The request was taken back on the chain.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct ExitCancelled {
    /// Where.
    #[n(0)]
    pub vault: VaultRef,
    /// Who.
    #[n(1)]
    pub wallet: EvmAddress,
    /// The transaction.
    #[n(2)]
    pub tx: Word32,
}

/// The wallet took its vault balance out; the mirror follows, a shortfall is written off (rulings 3.6).
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct ExitFinalised {
    /// Where.
    #[n(0)]
    pub vault: VaultRef,
    /// Who.
    #[n(1)]
    pub wallet: EvmAddress,
    /// Paid out, vault units.
    #[n(2)]
    pub units: u64,
    /// Paid out, base units.
    #[n(3)]
    pub amount: Amount,
    /// What the books had left after it: below zero (in absolute terms) it is a receivable.
    #[n(4)]
    pub shortfall: Amount,
    /// The transaction.
    #[n(5)]
    pub tx: Word32,
}

/// A signed withdrawal: the amount is reserved until it is used or can no longer be.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct VoucherIssued {
    /// The voucher.
    #[n(0)]
    pub voucher: VoucherId,
    /// Whose credit.
    #[n(1)]
    pub account: AccountId,
    /// From which vault.
    #[n(2)]
    pub vault: VaultRef,
    /// The wallet that may use it.
    #[n(3)]
    pub wallet: EvmAddress,
    /// Vault units.
    #[n(4)]
    pub units: u64,
    /// Base units.
    #[n(5)]
    pub amount: Amount,
    /// The vault's withdrawal nonce of the wallet.
    #[n(6)]
    pub nonce: u64,
    /// Seconds UTC on the chain's clock.
    #[n(7)]
    pub deadline_s: u64,
}

/// The voucher was used: funds left the vault.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct VoucherRedeemed {
    /// The voucher.
    #[n(0)]
    pub voucher: VoucherId,
    /// The transaction.
    #[n(1)]
    pub tx: Word32,
}

/// A block deep enough is past the deadline and the nonce is unused: the reservation is released.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct VoucherLapsed {
    /// The voucher.
    #[n(0)]
    pub voucher: VoucherId,
    /// That block.
    #[n(1)]
    pub block: u64,
}

/// What a vault held at a block, against what the log says that it owes: deposits less withdrawals less charges of all
/// its wallets, when everything up to that block was mirrored. Since version 2.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct SolvencyChecked {
    /// Which vault.
    #[n(0)]
    pub vault: VaultRef,
    /// Block number.
    #[n(1)]
    pub block: u64,
    /// Block hash.
    #[n(2)]
    pub block_hash: Word32,
    /// The vault's tokens at that block, whole vault units.
    #[n(3)]
    pub held_units: u64,
    /// What it owes by the log, vault units. More than is held is an alarm.
    #[n(4)]
    pub owed_units: u64,
}

/// A checkpoint was written to the chain between settlements.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct CheckpointAnchored {
    /// Chain.
    #[n(0)]
    pub chain_id: u64,
    /// Size of the tree.
    #[n(1)]
    pub size: u64,
    /// Root of the tree (SHA-256).
    #[n(2)]
    pub root: Hash32,
    /// The transaction.
    #[n(3)]
    pub tx: Word32,
}
