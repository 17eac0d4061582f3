//! Events about grants: buckets of spendable credit with source, priority, scope, expiry and backing.

use crate::amount::Amount;
use crate::asset::{AssetId, VaultRef};
use crate::event::GrantId;
use crate::id::{AccountId, EvmAddress};
use minicbor::{Decode, Encode};
use serde::Serialize;

/// Where credit comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum GrantSource {
    /// Funds in a vault.
    #[n(0)]
    Deposited,
    /// A bought package.
    #[n(1)]
    Package,
    /// Earned by serving.
    #[n(2)]
    Earned,
    /// The day's allotment.
    #[n(3)]
    Allotment,
    /// Given by the platform: sign-up, promotion, credit for a missed service level.
    #[n(4)]
    Promo,
    /// What an account may owe: the unused part of its credit line. Since version 2.
    #[n(5)]
    CreditLine,
}

/// What stands behind a grant (rulings 3.1). Unbacked credit is spendable and never paid on-chain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(flat)]
pub enum Backing {
    /// Nothing.
    #[n(0)]
    Unbacked,
    /// The wallet's balance in a vault.
    #[n(1)]
    Vault(#[n(0)] VaultRef, #[n(1)] EvmAddress),
    /// The treasury's reserve.
    #[n(2)]
    Treasury,
    /// A package, by its purchase number.
    #[n(3)]
    Package(#[n(0)] u64),
}

/// A bucket of credit was opened, most often filled.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct GrantIssued {
    /// The bucket; the next dense number.
    #[n(0)]
    pub grant: GrantId,
    /// Whose.
    #[n(1)]
    pub account: AccountId,
    /// From where.
    #[n(2)]
    pub source: GrantSource,
    /// In which asset.
    #[n(3)]
    pub asset: AssetId,
    /// How much; 0 for a deposit bucket, which deposits fill, a credit line and the bucket of what serving earned.
    #[n(4)]
    pub amount: Amount,
    /// Lower is consumed first; then earlier expiry, then lower number.
    #[n(5)]
    pub priority: u8,
    /// Models it may pay for; empty = all.
    #[n(6)]
    pub scope: Vec<String>,
    /// When it ends, microseconds UTC; `None` = never.
    #[n(7)]
    pub expires_us: Option<u64>,
    /// What stands behind it.
    #[n(8)]
    pub backing: Backing,
}

/// A grant ended; what was left and not held became breakage.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct GrantExpired {
    /// The bucket.
    #[n(0)]
    pub grant: GrantId,
    /// What lapsed.
    #[n(1)]
    pub lapsed: Amount,
}

/// Credit moved from one bucket to another of the same asset and backing. Since version 2.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct CreditMoved {
    /// Out of.
    #[n(0)]
    pub from: GrantId,
    /// Into.
    #[n(1)]
    pub to: GrantId,
    /// How much.
    #[n(2)]
    pub amount: Amount,
}

/// Shares of charges that no vault backs became spendable credit of the account that earned them: of the bucket's
/// account, in its asset, with its backing. Since version 2.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct EarningsTaken {
    /// The bucket that was filled.
    #[n(0)]
    pub grant: GrantId,
    /// How much.
    #[n(1)]
    pub amount: Amount,
}
