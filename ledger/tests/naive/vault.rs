//! Wallets, deposits, vouchers, exits and batches of the naive model: one vault, units of 1 000. Must not: call the ledger.

use crate::model::*;
use ledger::command::*;
use protocol::asset::AssetId;
use protocol::event::account::{AccountKind, SpendAuthorised};
use protocol::event::grant::{Backing, GrantSource};
use protocol::id::*;
use std::collections::BTreeMap;

const UNIT: i128 = 1_000;
const FOIL: AssetId = AssetId(0);
/// A day: how far the chain's clock may be from ours.
const SKEW_US: u64 = 86_400_000_000;

impl Model {
    /// What the chain lets us charge a wallet beyond what was captured.
    pub fn collectable(&self, wallet: &Wallet, now_us: u64) -> i128 {
        let Some((cap, until_s, _)) = wallet.signed else { return 0 };
        let stop_us = (until_s * 1_000_000).saturating_sub(self.rules.epoch_us * self.rules.margin_epochs);
        if wallet.leaving || now_us >= stop_us { 0 } else { (cap * UNIT - wallet.captured).max(0) }
    }

    pub fn run_vault(&mut self, body: &CommandBody, now_us: u64) -> Result<(), No> {
        match body {
            CommandBody::AuthoriseSpending(c) => self.authorise(c, now_us),
            CommandBody::ConfirmDeposit(c) => self.deposit(c),
            CommandBody::ReverseDeposit(c) => self.reverse_deposit(c),
            CommandBody::SeeExitRequest(c) => {
                let row = self.wallets.entry(c.wallet).or_default();
                sure(!row.leaving, "exit_pending")?;
                row.leaving = true;
                Ok(())
            }
            CommandBody::SeeExitCancelled(c) => {
                let row =
                    self.wallets.get_mut(&c.wallet).filter(|row| row.leaving).ok_or("no_exit_pending")?;
                row.leaving = false;
                Ok(())
            }
            CommandBody::SeeExitFinalised(c) => self.finalise(c),
            CommandBody::IssueVoucher(c) => self.voucher(c, now_us),
            CommandBody::RedeemVoucher(c) => self.redeem(c),
            CommandBody::LapseVoucher(c) => self.lapse(c.voucher),
            CommandBody::CloseBatch(c) => self.close(c.batch, now_us),
            CommandBody::SubmitBatch(c) => {
                let total: i128 = self.step(c.batch, &["closed"])?.payouts.iter().map(|p| p.2).sum();
                sure(i128::from(c.root_total_units) == total, "units_differ")?;
                self.batches.get_mut(&c.batch).unwrap().step = "submitted";
                Ok(())
            }
            CommandBody::ConfirmBatch(c) => self.confirm(c),
            CommandBody::FailBatch(c) => self.fail(c.batch),
            CommandBody::RecordClaim(c) => self.claim(c),
            other => panic!("the model has no rule for {other:?}"),
        }
    }

    fn authorise(&mut self, c: &SpendAuthorised, now_us: u64) -> Result<(), No> {
        self.open_account(c.account)?;
        sure(u64::from(c.valid_until_s) * 1_000_000 > now_us, "authorisation_expired")?;
        if let Some(row) = self.wallets.get(&c.wallet) {
            sure(row.account.is_none_or(|account| account == c.account), "wallet_linked_elsewhere")?;
            if let Some((cap, _, nonce)) = row.signed {
                sure(c.nonce >= nonce, "authorisation_nonce")?;
                let higher = i128::from(c.max_cumulative_units) > cap;
                sure(c.nonce > nonce || higher, "authorisation_not_higher")?;
            }
        }
        let row = self.wallets.entry(c.wallet).or_default();
        row.account = Some(c.account);
        row.signed = Some((i128::from(c.max_cumulative_units), u64::from(c.valid_until_s), c.nonce));
        let waiting = std::mem::take(&mut row.waiting);
        if waiting > 0 {
            self.fill(c.wallet, Backing::Vault(c.vault, c.wallet), waiting);
        }
        Ok(())
    }

    /// Funds of a linked wallet: debts first.
    fn fill(&mut self, wallet: EvmAddress, backing: Backing, amount: i128) {
        let account = self.wallets[&wallet].account.unwrap();
        let bucket = match self.wallets[&wallet].bucket {
            Some(bucket) => bucket,
            None => self.empty_bucket(account, GrantSource::Deposited, FOIL, 50, backing),
        };
        self.wallets.get_mut(&wallet).unwrap().bucket = Some(bucket);
        let debt = self.debts.entry((account, FOIL)).or_default();
        let repaid = (*debt).min(amount);
        *debt -= repaid;
        self.buckets[bucket].free += amount - repaid;
    }

    fn deposit(&mut self, c: &ConfirmDeposit) -> Result<(), No> {
        let key = (c.key.tx, c.key.ordinal);
        let known = self.deposits.get(&key).is_some_and(|(_, _, reversed)| !reversed);
        sure(!known, "deposit_known")?;
        sure(c.units > 0, "units_zero")?;
        let units = i128::from(c.units);
        self.deposits.insert(key, (c.wallet, units, false));
        let row = self.wallets.entry(c.wallet).or_default();
        row.deposited += units;
        if row.account.is_none() {
            row.waiting += units * UNIT;
        } else {
            self.fill(c.wallet, Backing::Vault(c.key.vault, c.wallet), units * UNIT);
        }
        Ok(())
    }

    fn reverse_deposit(&mut self, c: &ReverseDeposit) -> Result<(), No> {
        let deposit = self.deposits.get_mut(&(c.key.tx, c.key.ordinal)).filter(|(.., reversed)| !reversed);
        let deposit = deposit.ok_or("deposit_unknown")?;
        deposit.2 = true;
        let (wallet, units, _) = *deposit;
        let row = self.wallets.get_mut(&wallet).unwrap();
        row.deposited -= units;
        let source = match (row.account, row.bucket) {
            (None, _) => Some(&mut row.waiting),
            (Some(_), Some(k)) => Some(&mut self.buckets[k].free),
            (Some(_), None) => None,
        };
        let taken = source.map_or(0, |free| {
            let taken = (units * UNIT).min(*free);
            *free -= taken;
            taken
        });
        let account = row.account;
        self.owe(account, units * UNIT - taken);
        Ok(())
    }

    /// Nobody's debt is the network's own.
    fn owe(&mut self, account: Option<AccountId>, amount: i128) {
        match account {
            Some(account) => *self.debts.entry((account, FOIL)).or_default() += amount,
            None => self.count(AccountId::SYSTEM, AccountKind::Receivable, FOIL, -amount),
        }
    }

    fn finalise(&mut self, c: &SeeExitFinalised) -> Result<(), No> {
        let row = self.wallets.get(&c.wallet).filter(|row| row.leaving).ok_or("no_exit_pending")?;
        let mut open = self.batches.values().filter(|batch| ["closed", "submitted"].contains(&batch.step));
        let charged = open.any(|batch| batch.charges.iter().any(|charge| charge.0 == c.wallet));
        sure(!charged, "batch_open")?;
        sure(row.bucket.is_none_or(|k| self.held(k) == 0), "holds_open")?;
        let left = (row.deposited - row.withdrawn - row.charged).max(0);
        sure(i128::from(c.units) == left, "units_differ")?;
        let mut mirrored = row.waiting;
        if let Some(k) = row.bucket {
            mirrored += std::mem::take(&mut self.buckets[k].free);
            mirrored += std::mem::take(&mut self.buckets[k].promised);
        }
        for voucher in self.vouchers.values_mut().filter(|voucher| voucher.wallet == c.wallet) {
            voucher.end.get_or_insert("lapsed");
        }
        let row = self.wallets.get_mut(&c.wallet).unwrap();
        row.waiting = 0;
        row.signed = None;
        row.leaving = false;
        row.withdrawn += left;
        row.captured = row.charged * UNIT;
        let (account, stranded) = (row.account, std::mem::take(&mut row.queue));
        for entry in stranded {
            let owner = self.operators[&entry.operator].account;
            let settled = floor(entry.share, entry.covered, entry.cost);
            self.earnings.entry((owner, FOIL, Backing::Unbacked)).or_default().0 += entry.share - settled;
        }
        self.owe(account, left * UNIT - mirrored);
        Ok(())
    }

    fn voucher(&mut self, c: &IssueVoucher, now_us: u64) -> Result<(), No> {
        sure(!self.vouchers.contains_key(&c.voucher), "voucher_known")?;
        self.may_spend(c.account)?;
        let row = self.wallets.get(&c.wallet).filter(|row| row.account == Some(c.account));
        let row = row.ok_or("wallet_not_linked")?;
        sure(!row.leaving, "exit_pending")?;
        sure(c.units > 0, "units_zero")?;
        let deadline_us = c.deadline_s * 1_000_000;
        let in_time =
            deadline_us + SKEW_US > now_us && deadline_us <= now_us + self.rules.voucher_us + SKEW_US;
        sure(in_time, "deadline_out_of_range")?;
        let mut open = self.vouchers.values().filter(|voucher| voucher.end.is_none());
        sure(!open.any(|v| (v.wallet, v.nonce) == (c.wallet, c.nonce)), "nonce_in_use")?;
        let units = i128::from(c.units);
        let bucket =
            row.bucket.filter(|k| units * UNIT <= self.buckets[*k].free).ok_or("more_than_withdrawable")?;
        self.buckets[bucket].free -= units * UNIT;
        self.buckets[bucket].promised += units * UNIT;
        self.vouchers.insert(c.voucher, Voucher { wallet: c.wallet, units, nonce: c.nonce, end: None });
        Ok(())
    }

    fn end_voucher(&mut self, id: VoucherId, end: No) -> (EvmAddress, usize, i128) {
        let voucher = self.vouchers.get_mut(&id).unwrap();
        voucher.end = Some(end);
        let (wallet, units) = (voucher.wallet, voucher.units);
        let bucket = self.wallets[&wallet].bucket.unwrap();
        self.buckets[bucket].promised -= units * UNIT;
        (wallet, bucket, units)
    }

    fn redeem(&mut self, c: &RedeemVoucher) -> Result<(), No> {
        let mut known = self.vouchers.iter().filter(|(_, v)| (v.wallet, v.nonce) == (c.wallet, c.nonce));
        let Some((id, voucher)) = known.clone().find(|(_, voucher)| voucher.end.is_none()) else {
            let redeemed = known.any(|(_, voucher)| voucher.end == Some("redeemed"));
            return Err(if redeemed { "voucher_closed" } else { "voucher_not_open" });
        };
        sure(voucher.units == i128::from(c.units), "units_differ")?;
        let (wallet, _, units) = self.end_voucher(*id, "redeemed");
        self.wallets.get_mut(&wallet).unwrap().withdrawn += units;
        Ok(())
    }

    fn lapse(&mut self, id: VoucherId) -> Result<(), No> {
        let voucher = self.vouchers.get(&id).ok_or("voucher_unknown")?;
        sure(voucher.end.is_none(), "voucher_closed")?;
        let (_, bucket, units) = self.end_voucher(id, "lapsed");
        self.buckets[bucket].free += units * UNIT;
        Ok(())
    }

    fn step(&self, id: BatchId, wanted: &[No]) -> Result<&Batch, No> {
        let batch = self.batches.get(&id).ok_or("batch_unknown")?;
        sure(wanted.contains(&batch.step), "batch_not_open")?;
        Ok(batch)
    }

    pub fn open_batch(&self) -> Option<BatchId> {
        let mut open = self.batches.iter().filter(|(_, batch)| ["closed", "submitted"].contains(&batch.step));
        open.next().map(|(id, _)| *id)
    }

    fn close(&mut self, id: BatchId, now_us: u64) -> Result<(), No> {
        sure(!self.batches.contains_key(&id), "batch_known")?;
        sure(self.open_batch().is_none(), "batch_open")?;
        let patience_us = 4 * self.rules.epoch_us;
        let mut charges = Vec::new();
        for (address, row) in &self.wallets {
            let cumulative = row.captured.div_euclid(UNIT);
            let added = cumulative - row.charged;
            let waited = row.queue.first().is_some_and(|first| first.time_us + patience_us <= now_us);
            // After its end the vault would charge nothing.
            let margin_us = self.rules.epoch_us * self.rules.margin_epochs;
            let ending = row.signed.is_some_and(|(_, until_s, _)| now_us + margin_us >= until_s * 1_000_000);
            if added > 0 && (added >= self.rules.settle_units_min || waited || row.leaving || ending) {
                charges.push((*address, cumulative, added));
            }
        }
        sure(!charges.is_empty(), "nothing_to_charge")?;
        let mut lines = Vec::new();
        for (address, cumulative, _) in &charges {
            let row = self.wallets.get_mut(address).unwrap();
            let open: i128 = row.queue.iter().map(|entry| entry.cost - entry.covered).sum();
            let mut left = cumulative * UNIT - (row.captured - open);
            for entry in &mut row.queue {
                let take = left.min(entry.cost - entry.covered);
                if take > 0 {
                    let part = floor(entry.share, entry.covered + take, entry.cost)
                        - floor(entry.share, entry.covered, entry.cost);
                    entry.covered += take;
                    left -= take;
                    lines.push((*address, entry.nth, self.operators[&entry.operator].account, take, part));
                }
            }
        }
        let payouts = self.payouts(&charges, &lines);
        for (account, _, cumulative, added) in &payouts {
            self.payees.entry(*account).or_default().closed = *cumulative;
            self.settle(*account, AccountKind::OperatorAccrued, AccountKind::OperatorSettling, *added);
        }
        self.batches.insert(id, Batch { step: "closed", charges, payouts, lines });
        Ok(())
    }

    /// Operators in the order of their addresses get the floor of all that was ever covered for them, as far as this
    /// batch's units reach; the platform gets the rest.
    fn payouts(
        &mut self,
        charges: &[(EvmAddress, i128, i128)],
        lines: &[(EvmAddress, u64, AccountId, i128, i128)],
    ) -> Vec<(AccountId, EvmAddress, i128, i128)> {
        for (_, _, owner, _, share) in lines {
            self.payees.entry(*owner).or_default().covered += share;
        }
        let addresses: BTreeMap<EvmAddress, AccountId> =
            self.operators.values().map(|operator| (operator.address, operator.account)).collect();
        let mut left: i128 = charges.iter().map(|charge| charge.2).sum();
        let mut payouts = Vec::new();
        for (address, account) in addresses {
            let Some(payee) = self.payees.get(&account) else { continue };
            let added = (payee.covered.div_euclid(UNIT) - payee.closed).min(left);
            left -= added;
            payouts.push((account, address, payee.closed + added, added));
        }
        let platform = self.payees.get(&AccountId::SYSTEM).map_or(0, |payee| payee.closed);
        payouts.push((AccountId::SYSTEM, EvmAddress([0xee; 20]), platform + left, left));
        payouts.sort_by_key(|payout| payout.1);
        payouts.retain(|payout| payout.2 > 0);
        payouts
    }

    fn settle(&mut self, account: AccountId, from: AccountKind, to: AccountKind, units: i128) {
        if account != AccountId::SYSTEM {
            self.count(account, from, FOIL, -units * UNIT);
            self.count(account, to, FOIL, units * UNIT);
        }
    }

    fn confirm(&mut self, c: &ConfirmBatch) -> Result<(), No> {
        let batch = self.step(c.batch, &["submitted"])?;
        let total: i128 = batch.charges.iter().map(|charge| charge.2).sum();
        sure(i128::from(c.charged_units) == total, "units_differ")?;
        let (charges, payouts) = (batch.charges.clone(), batch.payouts.clone());
        for (address, cumulative, _) in charges {
            let row = self.wallets.get_mut(&address).unwrap();
            row.charged = cumulative;
            let done = row.queue.iter().take_while(|entry| entry.covered == entry.cost).count();
            row.queue.drain(..done);
        }
        for (account, _, cumulative, added) in payouts {
            self.payees.entry(account).or_default().confirmed = cumulative;
            self.settle(account, AccountKind::OperatorSettling, AccountKind::OperatorPayable, added);
        }
        self.count(AccountId::SYSTEM, AccountKind::PotAsset, FOIL, -total * UNIT);
        self.batches.get_mut(&c.batch).unwrap().step = "confirmed";
        Ok(())
    }

    fn fail(&mut self, id: BatchId) -> Result<(), No> {
        let batch = self.step(id, &["closed", "submitted"])?;
        let (lines, payouts) = (batch.lines.clone(), batch.payouts.clone());
        for (address, nth, owner, cost, share) in lines {
            let queue = &mut self.wallets.get_mut(&address).unwrap().queue;
            queue.iter_mut().find(|entry| entry.nth == nth).unwrap().covered -= cost;
            self.payees.get_mut(&owner).unwrap().covered -= share;
        }
        for (account, _, _, added) in payouts {
            self.payees.entry(account).or_default().closed -= added;
            self.settle(account, AccountKind::OperatorSettling, AccountKind::OperatorAccrued, added);
        }
        self.batches.get_mut(&id).unwrap().step = "failed";
        Ok(())
    }

    fn claim(&mut self, c: &RecordClaim) -> Result<(), No> {
        sure(!self.claims.contains(&(c.address, c.tx)), "claim_known")?;
        let platform = c.address == EvmAddress([0xee; 20]);
        let owner = self.operators.values().find(|operator| operator.address == c.address);
        let owner = if platform { AccountId::SYSTEM } else { owner.ok_or("payee_unknown")?.account };
        let payee = self.payees.entry(owner).or_default();
        let units = i128::from(c.units);
        sure(units > 0 && units <= payee.confirmed - payee.claimed, "more_than_claimable")?;
        payee.claimed += units;
        self.claims.insert((c.address, c.tx));
        let kind = if platform { AccountKind::PlatformTreasury } else { AccountKind::OperatorPayable };
        self.count(owner, kind, FOIL, -units * UNIT);
        self.count(AccountId::SYSTEM, AccountKind::PotAsset, FOIL, units * UNIT);
        Ok(())
    }
}
