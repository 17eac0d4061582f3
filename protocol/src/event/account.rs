//! Events about accounts: opening, ledger accounts, wallets that authorise spending.

use crate::amount::Amount;
use crate::asset::{AssetId, VaultRef};
use crate::event::{GrantId, LedgerAccount};
use crate::id::{AccountId, EvmAddress, EvmSignature, Hash32, SpenderId};
use minicbor::{Decode, Encode};
use serde::Serialize;

/// The chart of accounts. Numbers are stable. Debit-normal kinds are assets and expenses, the others credit-normal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum AccountKind {
    /// Liability: what a customer deposited and may spend or withdraw.
    #[n(10)]
    CustomerDeposited,
    /// Liability: units of bought packages.
    #[n(11)]
    CustomerPackage,
    /// Liability: credit earned by serving.
    #[n(12)]
    CustomerEarned,
    /// Liability: the day's allotment.
    #[n(13)]
    CustomerAllotment,
    /// Liability: credit given by the platform, not withdrawable.
    #[n(14)]
    CustomerPromo,
    /// Liability, memorandum: the unused part of a credit line; its other side is `CreditLines`.
    #[n(15)]
    CustomerCredit,
    /// Liability: an operator's share of captures, not yet in a batch.
    #[n(20)]
    OperatorAccrued,
    /// Liability: in a batch that is not final.
    #[n(21)]
    OperatorSettling,
    /// Liability: claimable from the payouts pot.
    #[n(22)]
    OperatorPayable,
    /// Asset: tokens in a vault.
    #[n(30)]
    VaultAsset,
    /// Asset: tokens in a payouts pot.
    #[n(31)]
    PotAsset,
    /// Liability: deposits whose wallet belongs to no account yet.
    #[n(32)]
    UnattributedDeposits,
    /// Asset: what an account owes after a reversed deposit or a shortfall.
    #[n(33)]
    Receivable,
    /// Income: the platform's share.
    #[n(40)]
    PlatformRevenue,
    /// Income: credit that lapsed.
    #[n(41)]
    Breakage,
    /// Expense: credit that the platform gave.
    #[n(42)]
    PromoExpense,
    /// Asset: what the platform took out of the pot.
    #[n(43)]
    PlatformTreasury,
    /// Asset, memorandum: the unused part of all credit lines.
    #[n(44)]
    CreditLines,
    /// Reservation only: the other side of every hold; never has booked legs.
    #[n(50)]
    HoldsPending,
}

impl AccountKind {
    /// Whether a balance is normally a debit (assets, expenses).
    pub fn is_debit_normal(self) -> bool {
        use AccountKind::*;
        match self {
            VaultAsset | PotAsset | Receivable | PromoExpense | PlatformTreasury | CreditLines => true,
            CustomerDeposited | CustomerPackage | CustomerEarned | CustomerAllotment | CustomerPromo
            | CustomerCredit | OperatorAccrued | OperatorSettling | OperatorPayable
            | UnattributedDeposits | PlatformRevenue | Breakage | HoldsPending => false,
        }
    }

    /// The stable snake-case name, as in JSON and exports.
    pub fn name(self) -> &'static str {
        use AccountKind::*;
        match self {
            CustomerDeposited => "customer_deposited",
            CustomerPackage => "customer_package",
            CustomerEarned => "customer_earned",
            CustomerAllotment => "customer_allotment",
            CustomerPromo => "customer_promo",
            CustomerCredit => "customer_credit",
            OperatorAccrued => "operator_accrued",
            OperatorSettling => "operator_settling",
            OperatorPayable => "operator_payable",
            VaultAsset => "vault_asset",
            PotAsset => "pot_asset",
            UnattributedDeposits => "unattributed_deposits",
            Receivable => "receivable",
            PlatformRevenue => "platform_revenue",
            Breakage => "breakage",
            PromoExpense => "promo_expense",
            PlatformTreasury => "platform_treasury",
            CreditLines => "credit_lines",
            HoldsPending => "holds_pending",
        }
    }
}

/// An account was opened: no wallet, no signature, no personal datum.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct AccountOpened {
    /// The new account.
    #[n(0)]
    pub account: AccountId,
}

/// Ledger accounts got their dense numbers, in order, without gaps.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct LedgerAccountsOpened {
    /// One entry a ledger account.
    #[n(0)]
    pub opened: Vec<OpenedLedgerAccount>,
}

/// One ledger account: one owner, one kind, one asset.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct OpenedLedgerAccount {
    /// Its number.
    #[n(0)]
    pub number: LedgerAccount,
    /// Whose it is; [`AccountId::SYSTEM`] for the platform's.
    #[n(1)]
    pub owner: AccountId,
    /// What it counts.
    #[n(2)]
    pub kind: AccountKind,
    /// In which asset.
    #[n(3)]
    pub asset: AssetId,
}

/// A wallet signed `SpendAuthorisation` (EIP-712): it is linked to the account and may be charged up to the cap.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct SpendAuthorised {
    /// The account that may spend.
    #[n(0)]
    pub account: AccountId,
    /// Where the funds lie.
    #[n(1)]
    pub vault: VaultRef,
    /// Whose funds.
    #[n(2)]
    pub wallet: EvmAddress,
    /// Cumulative for life, in vault units.
    #[n(3)]
    pub max_cumulative_units: u64,
    /// Seconds UTC.
    #[n(4)]
    pub valid_until_s: u32,
    /// The vault's nonce the signature is for.
    #[n(5)]
    pub nonce: u64,
    /// Hash of the sign-in nonce the signature answers.
    #[n(6)]
    pub session: Hash32,
    /// The signature; `None` when a contract wallet's authorisation was read from the chain instead.
    #[n(7)]
    pub signature: Option<EvmSignature>,
}

/// The owner closed the account; its contents' key is shredded.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct AccountClosed {
    /// The account.
    #[n(0)]
    pub account: AccountId,
}

/// What one key of an account may spend in an asset, for life: charges and open holds together. Since version 2.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct SpendCapSet {
    /// The account.
    #[n(0)]
    pub account: AccountId,
    /// Its key.
    #[n(1)]
    pub spender: SpenderId,
    /// In which asset.
    #[n(2)]
    pub asset: AssetId,
    /// The cap on all that the key ever spends; `None` = no cap any more. Spending is counted from the first cap on.
    #[n(3)]
    pub cap: Option<Amount>,
}

/// An account may owe up to a limit: its credit line is a bucket like others, consumed by its priority. What was drawn
/// is a receivable. Since version 2.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct CreditLineSet {
    /// The bucket; an earlier `GrantIssued` (source `CreditLine`, amount 0) opened it.
    #[n(0)]
    pub grant: GrantId,
    /// The limit on what is drawn and not repaid.
    #[n(1)]
    pub limit: Amount,
    /// By how much the unused part changed: the postings' amount.
    #[n(2)]
    pub change: Amount,
}

/// An account paid what it had drawn from its credit line, outside the ledger (an invoice). Since version 2.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct CreditRepaid {
    /// The credit line's bucket.
    #[n(0)]
    pub grant: GrantId,
    /// How much, at most what was drawn.
    #[n(1)]
    pub amount: Amount,
    /// Hash of the payment's document, for finance.
    #[n(2)]
    pub reference: Hash32,
}
