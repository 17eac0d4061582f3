//! The books as a fold: ledger accounts with four counters, and which event moved them. It trusts the log's postings and
//! checks them: numbers dense, legs zero per asset.

use crate::names::Names;
use protocol::amount::Amount;
use protocol::asset::{Asset, AssetId};
use protocol::event::account::{AccountKind, OpenedLedgerAccount};
use protocol::event::{Event, EventBody, LedgerAccount, Posting};
use protocol::id::AccountId;
use std::collections::BTreeMap;

/// Why events do not add up to books. Each names the leaf.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// Leaves must come without gaps.
    #[error("leaf {got} came where {expected} was next: the log has a gap or was read from the middle")]
    Gap {
        /// Next in order.
        expected: u64,
        /// What came.
        got: u64,
    },
    /// A leg of an account nobody opened.
    #[error("leaf {leaf}: ledger account {account} was never opened")]
    UnknownAccount {
        /// Where.
        leaf: u64,
        /// Which.
        account: u32,
    },
    /// Legs that do not sum to zero.
    #[error("leaf {leaf}: legs of asset {asset} sum to {sum}, not to zero")]
    Unbalanced {
        /// Where.
        leaf: u64,
        /// Which asset.
        asset: u32,
        /// By how much.
        sum: i128,
    },
    /// Numbers that are not dense.
    #[error("leaf {leaf}: ledger account {got} was opened where {expected} was next")]
    NotDense {
        /// Where.
        leaf: u64,
        /// Next in order.
        expected: u32,
        /// What came.
        got: u32,
    },
}

/// Debits and credits, booked and pending, in base units. They only grow; a release is a leg the other way round.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Booked debits.
    pub debits_posted: Amount,
    /// Booked credits.
    pub credits_posted: Amount,
    /// Reserved debits.
    pub debits_pending: Amount,
    /// Reserved credits.
    pub credits_pending: Amount,
}

impl Counters {
    /// Booked debits less credits.
    pub fn balance(&self) -> Amount {
        Amount(self.debits_posted.0 - self.credits_posted.0)
    }

    /// Reserved debits less credits.
    pub fn pending(&self) -> Amount {
        Amount(self.debits_pending.0 - self.credits_pending.0)
    }
}

/// One ledger account and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BookAccount {
    /// What it is.
    pub opened: OpenedLedgerAccount,
    /// Where it stands.
    pub counters: Counters,
}

/// The fold.
#[derive(Clone, Debug, Default)]
pub struct Books {
    next_leaf: u64,
    time_us: u64,
    origin: String,
    assets: Vec<Asset>,
    accounts: Vec<BookAccount>,
}

impl Books {
    /// Before the first event.
    pub fn new() -> Books {
        Books::default()
    }

    /// How many leaves are in: "as of size N".
    pub fn size(&self) -> u64 {
        self.next_leaf
    }

    /// Log time of the last event, microseconds.
    pub fn time_us(&self) -> u64 {
        self.time_us
    }

    /// Origin of the log; empty before the first event.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Assets by number.
    pub fn assets(&self) -> &[Asset] {
        &self.assets
    }

    /// One asset.
    pub fn asset(&self, id: AssetId) -> Option<&Asset> {
        self.assets.get(id.0 as usize)
    }

    /// Ledger accounts by number.
    pub fn accounts(&self) -> &[BookAccount] {
        &self.accounts
    }

    /// One ledger account.
    pub fn account(&self, number: LedgerAccount) -> Option<&BookAccount> {
        self.accounts.get(number.0 as usize)
    }

    /// Ledger accounts of one owner.
    pub fn of_owner(&self, owner: AccountId) -> impl Iterator<Item = &BookAccount> {
        self.accounts.iter().filter(move |a| a.opened.owner == owner)
    }

    /// Takes the next event in.
    pub fn apply(&mut self, event: &Event) -> Result<(), FoldError> {
        let leaf = event.header.leaf;
        if leaf != self.next_leaf {
            return Err(FoldError::Gap { expected: self.next_leaf, got: leaf });
        }
        match &event.body {
            EventBody::NetworkOpened(network) => {
                self.assets = network.assets.clone();
                self.origin = network.origin.clone();
            }
            EventBody::LedgerAccountsOpened(opened) => self.open(leaf, &opened.opened)?,
            _ => {}
        }
        self.check_zero(leaf, &event.postings)?;
        self.check_zero(leaf, &event.pending)?;
        for Posting { account, amount } in &event.postings {
            let counters = &mut self.accounts[account.0 as usize].counters;
            add(&mut counters.debits_posted, &mut counters.credits_posted, *amount);
        }
        for Posting { account, amount } in &event.pending {
            let counters = &mut self.accounts[account.0 as usize].counters;
            add(&mut counters.debits_pending, &mut counters.credits_pending, *amount);
        }
        self.next_leaf = leaf + 1;
        self.time_us = event.header.time_us;
        Ok(())
    }

    fn open(&mut self, leaf: u64, opened: &[OpenedLedgerAccount]) -> Result<(), FoldError> {
        for account in opened {
            let expected = self.accounts.len() as u32;
            if account.number.0 != expected {
                return Err(FoldError::NotDense { leaf, expected, got: account.number.0 });
            }
            self.accounts.push(BookAccount { opened: account.clone(), counters: Counters::default() });
        }
        Ok(())
    }

    fn check_zero(&self, leaf: u64, postings: &[Posting]) -> Result<(), FoldError> {
        let mut sums: BTreeMap<AssetId, i128> = BTreeMap::new();
        for Posting { account, amount } in postings {
            let known = self.account(*account);
            let asset = known.ok_or(FoldError::UnknownAccount { leaf, account: account.0 })?.opened.asset;
            *sums.entry(asset).or_default() += amount.0;
        }
        match sums.into_iter().find(|(_, sum)| *sum != 0) {
            Some((asset, sum)) => Err(FoldError::Unbalanced { leaf, asset: asset.0, sum }),
            None => Ok(()),
        }
    }
}

fn add(debits: &mut Amount, credits: &mut Amount, amount: Amount) {
    if amount.0 >= 0 {
        debits.0 += amount.0;
    } else {
        credits.0 -= amount.0;
    }
}

impl Names for Books {
    fn asset(&self, id: AssetId) -> Option<Asset> {
        Books::asset(self, id).cloned()
    }

    fn ledger_account(&self, number: LedgerAccount) -> Option<OpenedLedgerAccount> {
        self.account(number).map(|account| account.opened.clone())
    }
}

/// Whether an account of this kind is only a note: its balance is no claim and no debt, and belongs in no balance sheet.
pub fn is_memorandum(kind: AccountKind) -> bool {
    matches!(kind, AccountKind::CustomerCredit | AccountKind::CreditLines)
}

/// Whether an account of this kind belongs to a customer.
pub fn is_customer(kind: AccountKind) -> bool {
    use AccountKind::*;
    match kind {
        CustomerDeposited | CustomerPackage | CustomerEarned | CustomerAllotment | CustomerPromo
        | CustomerCredit => true,
        OperatorAccrued | OperatorSettling | OperatorPayable | VaultAsset | PotAsset
        | UnattributedDeposits | Receivable | PlatformRevenue | Breakage | PromoExpense
        | PlatformTreasury | CreditLines | HoldsPending => false,
    }
}
