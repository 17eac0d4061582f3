//! Wallets in vaults: what lies on a chain for whom, by dense number and in the order of vault and address.
//! Must not: say what of it may be spent (that is `deposits.rs`).

use crate::apply::ApplyError;
use crate::deposits::{Authorisation, QueuedCapture};
use crate::slab::Slab;
use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::asset::VaultRef;
use protocol::event::GrantId;
use protocol::id::{AccountId, EvmAddress};
use std::collections::{BTreeMap, VecDeque};

/// A wallet's dense number, in the order of their first sight.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
#[cbor(transparent)]
pub(crate) struct WalletNo(#[n(0)] pub(crate) u32);

/// Where and who.
pub(crate) type WalletKey = (VaultRef, EvmAddress);

/// One wallet in one vault.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Wallet {
    /// The one account it is linked to.
    #[n(0)]
    pub(crate) account: Option<AccountId>,
    /// Its deposit bucket.
    #[n(1)]
    pub(crate) bucket: Option<GrantId>,
    /// Deposits that wait for an account, base units.
    #[n(2)]
    pub(crate) unattributed: Amount,
    #[n(3)]
    pub(crate) authorisation: Option<Authorisation>,
    /// First sight of an exit request, until it is cancelled or carried out.
    #[n(4)]
    pub(crate) exit_at_s: Option<u64>,
    /// Cumulative captures, base units: what the vault's `charged` will reach.
    #[n(5)]
    pub(crate) captured: Amount,
    /// Confirmed cumulative charge, vault units.
    #[n(6)]
    pub(crate) charged_units: u64,
    /// Captures that no confirmed batch covers wholly, first in first out.
    #[n(7)]
    pub(crate) queue: VecDeque<QueuedCapture>,
    /// For life, vault units.
    #[n(8)]
    pub(crate) deposited_units: u64,
    /// For life, vault units; vouchers and exits.
    #[n(9)]
    pub(crate) withdrawn_units: u64,
    /// Promised in open vouchers, base units: no part of the bucket's remaining.
    #[n(10)]
    pub(crate) reserved: Amount,
    #[n(11)]
    pub(crate) vault: VaultRef,
    #[n(12)]
    pub(crate) address: EvmAddress,
}

/// Every wallet that was ever seen.
#[derive(Clone, Default, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Wallets {
    #[n(0)]
    rows: Slab<Wallet>,
    #[cbor(skip)]
    index: BTreeMap<WalletKey, WalletNo>,
}

impl std::ops::Index<WalletNo> for Wallets {
    type Output = Wallet;
    fn index(&self, number: WalletNo) -> &Wallet {
        &self.rows[number.0]
    }
}

impl Wallets {
    pub(crate) fn find(&self, key: &WalletKey) -> Option<WalletNo> {
        self.index.get(key).copied()
    }

    pub(crate) fn get(&self, key: &WalletKey) -> Option<&Wallet> {
        self.find(key).map(|number| &self[number])
    }

    pub(crate) fn row_mut(&mut self, number: WalletNo) -> Result<&mut Wallet, ApplyError> {
        self.rows.get_mut(number.0).ok_or_else(|| ApplyError::unknown("wallet number", number.0))
    }

    pub(crate) fn get_mut(&mut self, key: &WalletKey) -> Option<&mut Wallet> {
        self.find(key).and_then(|number| self.rows.get_mut(number.0))
    }

    /// The wallet, new when nobody saw it before.
    pub(crate) fn sight(&mut self, key: WalletKey) -> &mut Wallet {
        let next = WalletNo(self.rows.len() as u32);
        let number = *self.index.entry(key).or_insert(next);
        if number == next {
            self.rows.push(Wallet {
                account: None,
                bucket: None,
                unattributed: Amount::ZERO,
                authorisation: None,
                exit_at_s: None,
                captured: Amount::ZERO,
                charged_units: 0,
                queue: VecDeque::new(),
                deposited_units: 0,
                withdrawn_units: 0,
                reserved: Amount::ZERO,
                vault: key.0,
                address: key.1,
            });
        }
        self.rows.get_mut(number.0).expect("it is there now")
    }

    /// All of one vault, by address.
    pub(crate) fn of(&self, vault: VaultRef) -> impl Iterator<Item = &Wallet> {
        let all = (vault, EvmAddress([0; 20]))..=(vault, EvmAddress([0xff; 20]));
        self.index.range(all).map(|(_, number)| &self[*number])
    }

    /// All, by vault and address.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Wallet> {
        self.index.values().map(|number| &self[*number])
    }

    pub(crate) fn rebuild(&mut self) -> Result<(), &'static str> {
        let rows = self.rows.iter().zip(0u32..);
        self.index = rows.map(|(row, number)| ((row.vault, row.address), WalletNo(number))).collect();
        if self.index.len() == self.rows.len() { Ok(()) } else { Err("a wallet is there twice") }
    }

    /// A copy that shares what it can.
    pub(crate) fn share(&mut self) -> Wallets {
        Wallets { rows: self.rows.share(), index: self.index.clone() }
    }
}
