//! How long something has been open: reservations, what operators have coming, what accounts owe. What is left of an account
//! is made of its newest movements: older ones are taken to be settled first.

use super::query::Range;
use super::{At, Index, IndexError};
use crate::names::Names;
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::LedgerAccount;
use protocol::event::account::AccountKind;
use serde::Serialize;
use std::collections::BTreeMap;

/// Upper ends of the age classes, microseconds, and what they are called; the last has no end.
const CLASSES: &[(u64, &str)] = &[
    (3_600_000_000, "up to 1 hour"),
    (86_400_000_000, "up to 1 day"),
    (7 * 86_400_000_000, "up to 7 days"),
    (30 * 86_400_000_000, "up to 30 days"),
    (u64::MAX, "over 30 days"),
];
/// Lines that are read of an account at a time, from the newest on.
const LINES_AT_A_TIME: usize = 1_000;

/// What is aged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Open {
    /// Reservations of jobs.
    Holds,
    /// What operators have earned and not been paid: accrued, in a batch, or claimable.
    Payable,
    /// What accounts owe.
    Receivable,
}

/// An age class of an asset.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AgeLine {
    /// Asset symbol.
    pub asset: String,
    /// The class, in words.
    pub age: &'static str,
    /// Holds, or accounts with something this old.
    pub count: u64,
    /// Base units.
    pub amount: Amount,
}

impl Index {
    /// What is open at a point, by its age then. Classes without anything are left out.
    pub fn ageing(&self, what: Open, at: At) -> Result<Vec<AgeLine>, IndexError> {
        let size = self.size_at(at)?;
        let now_us = self.time_us_at(size)?;
        let mut sums: BTreeMap<(AssetId, usize), (u64, i128)> = BTreeMap::new();
        let mut add = |asset: AssetId, time_us: u64, count: u64, amount: i128| {
            let sum = sums.entry((asset, class(now_us.saturating_sub(time_us)))).or_default();
            *sum = (sum.0 + count, sum.1 + amount);
        };
        match what {
            Open::Holds => {
                for hold in self.holds(At::Size(size))? {
                    let time_us = self.time_us_at(hold.placed_leaf + 1)?;
                    add(hold.asset, time_us, 1, hold.amount.0);
                }
            }
            Open::Payable => self.aged(AccountKind::OperatorAccrued, is_payable, size, &mut add)?,
            Open::Receivable => {
                self.aged(AccountKind::Receivable, |kind| kind == AccountKind::Receivable, size, &mut add)?;
            }
        }
        let name = |asset: AssetId| Names::asset(self, asset).map_or_else(|| "?".to_owned(), |a| a.symbol);
        let line = |((asset, class), (count, amount)): ((AssetId, usize), (u64, i128))| AgeLine {
            asset: name(asset),
            age: CLASSES[class].1,
            count,
            amount: Amount(amount),
        };
        Ok(sums.into_iter().map(line).collect())
    }

    /// For each owner and asset: what stands on accounts of the counted kinds, laid on the newest movements of the account
    /// by which such amounts come in.
    fn aged(
        &self,
        comes_in: AccountKind,
        counted: fn(AccountKind) -> bool,
        size: u64,
        add: &mut impl FnMut(AssetId, u64, u64, i128),
    ) -> Result<(), IndexError> {
        let mut owners: BTreeMap<_, (i128, Option<LedgerAccount>)> = BTreeMap::new();
        for line in self.trial_balance(At::Size(size))?.lines.iter().filter(|line| counted(line.kind)) {
            let number = LedgerAccount(line.number);
            let Some(opened) = Names::ledger_account(self, number) else { continue };
            let entry = owners.entry((opened.owner, opened.asset)).or_default();
            entry.0 += if line.kind.is_debit_normal() { line.balance.0 } else { -line.balance.0 };
            if line.kind == comes_in {
                entry.1 = Some(number);
            }
        }
        let now_us = self.time_us_at(size)?;
        for ((_, asset), (mut left, account)) in owners {
            let Some(account) = account else { continue };
            let mut seen = [false; CLASSES.len()];
            let mut until = size;
            while left > 0 && until > 0 {
                let range = Range { lines_max: LINES_AT_A_TIME, ..Range::until(At::Size(until)) };
                let lines = self.statement(account, &range)?;
                // Going on before the first line's event: of an event with several such legs the later ones count.
                let Some(first) = lines.first().map(|line| line.leaf) else { break };
                for line in lines.iter().rev() {
                    let came = if comes_in.is_debit_normal() { line.amount.0 } else { -line.amount.0 };
                    let part = came.clamp(0, left);
                    if part > 0 {
                        let is_new =
                            !std::mem::replace(&mut seen[class(now_us.saturating_sub(line.time_us))], true);
                        add(asset, line.time_us, u64::from(is_new), part);
                        left -= part;
                    }
                }
                until = first;
            }
        }
        Ok(())
    }
}

fn is_payable(kind: AccountKind) -> bool {
    matches!(
        kind,
        AccountKind::OperatorAccrued | AccountKind::OperatorSettling | AccountKind::OperatorPayable
    )
}

fn class(age_us: u64) -> usize {
    CLASSES.iter().position(|(end, _)| age_us <= *end).unwrap_or(CLASSES.len() - 1)
}
