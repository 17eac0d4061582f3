//! `audit reconcile`: the log against the chain at one named block, vault by vault, item by item. What is on the chain and
//! not yet in the log is named as pending when it is young enough; any other difference is a finding.

use crate::chain::{Block, ChainEvent, ChainFact, ChainReader, ChainUnavailable};
use crate::checks::CheckKind;
use crate::copy::LogCopy;
use crate::error::AuditError;
use crate::replay::{self, ReplayOptions, World};
use crate::report::{Checks, Drift, Report};
use protocol::asset::VaultRef;
use protocol::id::{EvmAddress, Word32};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// What to reconcile.
pub struct ReconcileOptions<'a> {
    /// A fetched copy, or a data directory.
    pub directory: PathBuf,
    /// The policy file; a fetched copy keeps its own.
    pub policy: Option<PathBuf>,
    /// The chain, at its named block.
    pub chain: &'a dyn ChainReader,
    /// Blocks that the log waits before it mirrors: younger facts are pending, not missing.
    pub confirmations: u64,
}

/// Reconciles. Never prints; an error means there was no log.
pub fn reconcile(options: &ReconcileOptions<'_>) -> Result<Report, AuditError> {
    let copy = LogCopy::open(&options.directory)?;
    let replay_options =
        ReplayOptions { directory: options.directory.clone(), policy: options.policy.clone(), at: None };
    let replayed = replay::run(&copy, "reconcile", &replay_options)?;
    let (mut report, world) = (replayed.report, replayed.world);
    let mut checks = replayed.judge.into_checks();
    match options.chain.block().and_then(|block| options.chain.facts().map(|facts| (block, facts))) {
        Ok((block, facts)) => {
            let (number, hash, time) = (block.number, block.hash, block.timestamp_s);
            report.period = Some(format!("block {number} {hash}, chain time {time} s"));
            checks.of(CheckKind::Block).examine();
            for vault in world.vaults.keys() {
                let mut books =
                    VaultBooks { options, world: &world, vault: *vault, block, checks: &mut checks };
                match books.reconcile(&facts) {
                    Ok(drift) => report.drift.extend(drift),
                    Err(error) => checks.of(CheckKind::VaultBalance).inconclusive(error),
                }
            }
        }
        Err(error) => checks.of(CheckKind::Block).inconclusive(error),
    }
    Ok(report.end(checks))
}

/// One item that both sides should have: a transaction, whom it concerns, how much.
type Item = (Word32, EvmAddress, u64);

/// What the log says of one vault, as of the block.
struct Figures {
    /// By wallet: deposited less withdrawn, and charged.
    wallets: BTreeMap<EvmAddress, (i128, u64)>,
    charged: i128,
    claimed: i128,
    /// On the chain up to the block, not in the log, and young.
    pending_vault: i128,
    pending_pot: i128,
    pending_wallets: BTreeSet<EvmAddress>,
}

struct VaultBooks<'a, 'b> {
    options: &'a ReconcileOptions<'b>,
    world: &'a World,
    vault: VaultRef,
    block: Block,
    checks: &'a mut Checks,
}

impl VaultBooks<'_, '_> {
    fn reconcile(&mut self, facts: &[ChainEvent]) -> Result<Vec<Drift>, ChainUnavailable> {
        let facts: Vec<&ChainEvent> = facts.iter().filter(|fact| fact.vault == self.vault).collect();
        let mut figures = Figures {
            wallets: BTreeMap::new(),
            charged: 0,
            claimed: 0,
            pending_vault: 0,
            pending_pot: 0,
            pending_wallets: BTreeSet::new(),
        };
        self.deposits(&facts, &mut figures);
        self.withdrawals(&facts, &mut figures);
        self.settlements(&facts, &mut figures);
        self.claims(&facts, &mut figures);
        self.holdings(&figures)
    }

    fn is_young(&self, block: u64) -> bool {
        block.saturating_add(self.options.confirmations) > self.block.number
    }

    /// Matches the log's items with the chain's. Gives the items that stand in the log as of the block, and the young ones
    /// that only the chain has.
    fn compare(
        &mut self,
        kind: CheckKind,
        what: &str,
        log: &[(u64, Item)],
        chain: &[(u64, Item)],
    ) -> (Vec<Item>, Vec<Item>) {
        let mut left: Vec<(u64, Item)> = chain.to_vec();
        let mut stand = Vec::new();
        for (leaf, item) in log {
            self.checks.of(kind).examine();
            match left.iter().position(|(_, other)| other == item) {
                Some(at) => {
                    let (block, item) = left.swap_remove(at);
                    if block <= self.block.number {
                        stand.push(item);
                    }
                }
                None => {
                    stand.push(*item);
                    let (tx, who, units) = item;
                    let message = format!("leaf {leaf}: this {what} is not on the chain");
                    let check = self.checks.of(kind);
                    check.fail_because(format!("{what} of {units} for {who} in {tx}"), "nothing", message);
                }
            }
        }
        let mut pending = Vec::new();
        for (block, (tx, who, units)) in left.into_iter().filter(|(block, _)| *block <= self.block.number) {
            if self.is_young(block) {
                pending.push((tx, who, units));
                continue;
            }
            let found = format!("{what} of {units} for {who} in {tx}, block {block}");
            let message = format!("this {what} on the chain is not in the log");
            self.checks.of(kind).fail_because("the same in the log", found, message);
        }
        (stand, pending)
    }

    fn deposits(&mut self, facts: &[&ChainEvent], figures: &mut Figures) {
        let mine = self.world.deposits.iter().filter(|(key, d)| key.vault == self.vault && !d.reversed);
        let log: Vec<(u64, Item)> = mine.map(|(key, d)| (d.leaf, (key.tx, d.wallet, d.units))).collect();
        let chain: Vec<(u64, Item)> = facts
            .iter()
            .filter_map(|event| match event.fact {
                ChainFact::Deposited { wallet, units } => Some((event.block, (event.tx, wallet, units))),
                _ => None,
            })
            .collect();
        let (stand, pending) = self.compare(CheckKind::ChainDeposits, "deposit", &log, &chain);
        for (_, wallet, units) in stand {
            figures.wallets.entry(wallet).or_default().0 += i128::from(units);
        }
        for (_, wallet, units) in pending {
            figures.pending_vault += i128::from(units);
            figures.pending_wallets.insert(wallet);
        }
    }

    fn withdrawals(&mut self, facts: &[&ChainEvent], figures: &mut Figures) {
        let mine = self.world.withdrawals.iter().filter(|withdrawal| withdrawal.vault == self.vault);
        let log: Vec<(u64, Item)> = mine.map(|w| (w.leaf, (w.tx, w.wallet, w.units))).collect();
        let chain: Vec<(u64, Item)> = facts
            .iter()
            .filter_map(|event| match event.fact {
                ChainFact::Withdrawn { wallet, units, .. } | ChainFact::ExitFinalised { wallet, units } => {
                    Some((event.block, (event.tx, wallet, units)))
                }
                _ => None,
            })
            .collect();
        let (stand, pending) = self.compare(CheckKind::ChainWithdrawals, "withdrawal", &log, &chain);
        for (_, wallet, units) in stand {
            figures.wallets.entry(wallet).or_default().0 -= i128::from(units);
        }
        for (_, wallet, units) in pending {
            figures.pending_vault -= i128::from(units);
            figures.pending_wallets.insert(wallet);
        }
    }

    /// Every settlement on the chain is a batch of the log that was closed with these very figures.
    fn settlements(&mut self, facts: &[&ChainEvent], figures: &mut Figures) {
        const KIND: CheckKind = CheckKind::ChainSettlements;
        let mut seen = BTreeSet::new();
        for event in facts {
            let ChainFact::Settled { number, total_units, root, root_total_units, commitment } = event.fact
            else {
                continue;
            };
            self.checks.of(KIND).examine();
            let known = self.world.batches.values().find(|batch| {
                (batch.vault, batch.number, batch.commitment) == (self.vault, number, Some(commitment))
            });
            let Some(batch) = known else {
                if event.block > self.block.number || self.is_young(event.block) {
                    continue;
                }
                let words = format!("settlement {number} in {} has no batch with its commitment", event.tx);
                self.checks.of(KIND).fail_because("a batch of the log", commitment, words);
                continue;
            };
            seen.insert((event.tx, number));
            let log = (batch.payout_root, batch.root_total_units, batch.charged_units());
            if log != (root, root_total_units, total_units) {
                let words = format!("settlement {number}: payout root, its total or the charge differ");
                let (log, chain) =
                    (format!("{log:?}"), format!("{:?}", (root, root_total_units, total_units)));
                self.checks.of(KIND).fail_because(log, chain, words);
            }
            if event.block > self.block.number {
                continue;
            }
            if batch.confirmed.is_none() {
                if !self.is_young(event.block) {
                    let words =
                        format!("settlement {number} happened in block {} and is not booked", event.block);
                    self.checks.of(KIND).fail_because("BatchConfirmed", "nothing", words);
                }
                figures.pending_vault -= i128::from(total_units);
                figures.pending_pot += i128::from(total_units);
                figures.pending_wallets.extend(batch.charges.iter().map(|charge| charge.wallet));
                continue;
            }
            figures.charged += i128::from(batch.charged_units());
            for charge in &batch.charges {
                let row = figures.wallets.entry(charge.wallet).or_default();
                row.1 = row.1.max(charge.cumulative_units);
            }
        }
        let mine = self.world.batches.values().filter(|batch| batch.vault == self.vault);
        for (batch, (tx, block)) in mine.filter_map(|batch| batch.confirmed.map(|at| (batch, at))) {
            if !seen.contains(&(tx, batch.number)) && block <= self.block.number {
                let words = format!("leaf {}: batch {} is booked as confirmed", batch.leaf, batch.number);
                self.checks.of(KIND).fail_because(format!("a settlement in {tx}"), "nothing", words);
            }
        }
    }

    fn claims(&mut self, facts: &[&ChainEvent], figures: &mut Figures) {
        let mine = self.world.claims.iter().filter(|claim| claim.vault == self.vault);
        let log: Vec<(u64, Item)> = mine.map(|c| (c.leaf, (c.tx, c.address, c.units))).collect();
        let chain: Vec<(u64, Item)> = facts
            .iter()
            .filter_map(|event| match event.fact {
                ChainFact::Claimed { address, units } => Some((event.block, (event.tx, address, units))),
                _ => None,
            })
            .collect();
        let (stand, pending) = self.compare(CheckKind::ChainClaims, "claim", &log, &chain);
        figures.claimed = stand.iter().map(|(_, _, units)| i128::from(*units)).sum();
        figures.pending_pot -= pending.iter().map(|(_, _, units)| i128::from(*units)).sum::<i128>();
    }

    /// The sums: what lies there must be what the log says lies there.
    fn holdings(&mut self, figures: &Figures) -> Result<Vec<Drift>, ChainUnavailable> {
        let chain = self.options.chain;
        let held = chain.holdings(self.vault)?;
        let net: i128 = figures.wallets.values().map(|(net, _)| *net).sum();
        let vault = net - figures.charged;
        let pot = figures.charged - figures.claimed;
        let mut drift = vec![
            self.line(
                CheckKind::VaultBalance,
                "vault",
                vault,
                i128::from(held.vault_units),
                figures.pending_vault,
            ),
            self.line(CheckKind::Pot, "pot", pot, i128::from(held.pot_units), figures.pending_pot),
        ];
        for (wallet, (net, charged)) in &figures.wallets {
            let record = chain.wallet(self.vault, *wallet)?;
            // A wallet with a pending item is judged by the total; when the item is booked, by itself again.
            if figures.pending_wallets.contains(wallet) {
                self.checks.of(CheckKind::WalletBalances).examine();
                continue;
            }
            let balance = net - i128::from(*charged);
            let name = format!("wallet {wallet}");
            let line =
                self.line(CheckKind::WalletBalances, &name, balance, i128::from(record.balance_units), 0);
            if line.drift != "0" {
                drift.push(line);
            }
            let (log, chain) = (i128::from(*charged), i128::from(record.charged_units));
            let line = self.line(CheckKind::WalletBalances, &format!("charged {wallet}"), log, chain, 0);
            if line.drift != "0" {
                drift.push(line);
            }
        }
        Ok(drift)
    }

    fn line(&mut self, kind: CheckKind, what: &str, log: i128, chain: i128, pending: i128) -> Drift {
        let drift = chain - log;
        let check = self.checks.of(kind);
        check.examine();
        if drift != pending {
            let message = format!("{what} of vault {} drifts (vault units)", self.vault.vault);
            check.fail_because(log + pending, chain, message);
        }
        Drift {
            what: what.to_owned(),
            log: log.to_string(),
            chain: chain.to_string(),
            drift: drift.to_string(),
            pending: pending.to_string(),
        }
    }
}
