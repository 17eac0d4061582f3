//! What a simulation found: a row a day, a row a strategy, a row a holder; as a table for people, as JSON for machines.

use crate::simulation::Strategy;
use protocol::amount::Amount;
use serde::Serialize;
use std::fmt::Write;

/// One day.
#[derive(Clone, Default, Debug, Serialize)]
pub struct DayFigures {
    /// From 0.
    pub day: u32,
    /// Jobs asked for.
    pub asked: u64,
    /// Jobs served by operators; the rest had no capacity or no credit.
    pub served: u64,
    /// The day's allotment pool: what the treasury could owe at most.
    pub pool: Amount,
    /// What stakers were given of it.
    pub allotted: Amount,
    /// Credit that ended unused.
    pub lapsed: Amount,
    /// What the treasury paid workers.
    pub treasury_paid: Amount,
    /// Bounties so far.
    pub bounties_paid: Amount,
    /// What is left of the sign-up budget.
    pub sign_up_left: Amount,
    /// What each strategy has by now.
    pub profits: Vec<(Strategy, Amount)>,
}

/// One strategy; the honest ones' mean.
#[derive(Clone, Debug, Serialize)]
pub struct StrategyFigures {
    /// Which.
    pub strategy: Strategy,
    /// Registrations it used.
    pub identities: u32,
    /// Jobs it was paid for.
    pub jobs: u64,
    /// Shares of charges that something backs.
    pub earned: Amount,
    /// Shares of charges that nothing backs: spendable, never paid out; no part of the profit.
    pub unbacked: Amount,
    /// Bounties, out of the platform's income.
    pub bounties: Amount,
    /// Jobs whose share was cut.
    pub cut_jobs: u64,
    /// Shares of charges that were undone.
    pub reversed: Amount,
    /// Lost by strikes.
    pub forfeited: Amount,
    /// Strikes.
    pub strikes: u32,
    /// Computing and hosting.
    pub costs: Amount,
    /// Credit bought to pay itself.
    pub spent: Amount,
}

impl StrategyFigures {
    /// Before anything happened.
    pub fn of(strategy: Strategy) -> StrategyFigures {
        StrategyFigures {
            strategy,
            identities: 0,
            jobs: 0,
            earned: Amount::ZERO,
            unbacked: Amount::ZERO,
            bounties: Amount::ZERO,
            cut_jobs: 0,
            reversed: Amount::ZERO,
            forfeited: Amount::ZERO,
            strikes: 0,
            costs: Amount::ZERO,
            spent: Amount::ZERO,
        }
    }

    /// Earned and bounties, less what was lost, computing, hosting and credit bought to pay itself.
    pub fn profit(&self) -> Amount {
        let lost = self.reversed.0 + self.forfeited.0;
        Amount(self.earned.0 + self.bounties.0 - lost - self.costs.0 - self.spent.0)
    }

    pub(crate) fn add(&mut self, other: &StrategyFigures) {
        self.identities += other.identities;
        self.jobs += other.jobs;
        self.cut_jobs += other.cut_jobs;
        self.strikes += other.strikes;
        for (own, more) in [
            (&mut self.earned, other.earned),
            (&mut self.unbacked, other.unbacked),
            (&mut self.bounties, other.bounties),
            (&mut self.reversed, other.reversed),
            (&mut self.forfeited, other.forfeited),
            (&mut self.costs, other.costs),
            (&mut self.spent, other.spent),
        ] {
            own.0 += more.0;
        }
    }

    pub(crate) fn divide(&mut self, count: i128) {
        let count = count.max(1);
        self.jobs /= count as u64;
        self.cut_jobs /= count as u64;
        for own in [
            &mut self.earned,
            &mut self.unbacked,
            &mut self.bounties,
            &mut self.reversed,
            &mut self.forfeited,
            &mut self.costs,
            &mut self.spent,
        ] {
            own.0 /= count;
        }
    }
}

/// One holder of stake.
#[derive(Clone, Debug, Serialize)]
pub struct HolderFigures {
    /// How it holds.
    pub name: String,
    /// In so many wallets; all holders have the same stake.
    pub wallets: u32,
    /// What it was allotted in all.
    pub allotted: Amount,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Which preset.
    pub preset: String,
    /// Simulated days.
    pub days_count: u32,
    /// Digits of amounts, which are in base units.
    pub scale: u8,
    /// Events that the ledger made.
    pub events: u64,
    /// Day by day.
    pub days: Vec<DayFigures>,
    /// Strategy by strategy.
    pub strategies: Vec<StrategyFigures>,
    /// Holder by holder; empty without allotments.
    pub holders: Vec<HolderFigures>,
}

impl Report {
    pub(crate) fn begin(preset: &str, days: u32, scale: u8) -> Report {
        Report {
            preset: preset.to_owned(),
            days_count: days,
            scale,
            events: 0,
            days: Vec::new(),
            strategies: Vec::new(),
            holders: Vec::new(),
        }
    }

    /// The tables.
    pub fn text(&self) -> String {
        let figure = |amount: Amount| {
            // Four digits after the point are enough to compare by eye; JSON has all.
            let text = Amount(amount.0 / 10i128.pow(u32::from(self.scale.saturating_sub(4))));
            text.to_decimal_string(self.scale.min(4))
        };
        let mut text = format!(
            "{}: {} days on virtual time, {} events of the ledger.\n\n{:18} {:>3} {:>7} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}\n",
            self.preset,
            self.days_count,
            self.events,
            "strategy",
            "ids",
            "jobs",
            "earned",
            "bounties",
            "unbacked",
            "lost",
            "costs",
            "spent",
            "profit"
        );
        for row in &self.strategies {
            let lost = Amount(row.reversed.0 + row.forfeited.0);
            let _ = writeln!(
                text,
                "{:18} {:>3} {:>7} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
                row.strategy.name(),
                row.identities,
                row.jobs,
                figure(row.earned),
                figure(row.bounties),
                figure(row.unbacked),
                figure(lost),
                figure(row.costs),
                figure(row.spent),
                figure(row.profit())
            );
        }
        for holder in &self.holders {
            let (name, wallets) = (&holder.name, holder.wallets);
            let _ = write!(text, "\nstake in {name} ({wallets}): allotted {}", figure(holder.allotted));
        }
        if let (Some(first), Some(last)) = (self.days.first(), self.days.last()) {
            let _ = write!(
                text,
                "\nserved on the first day {} of {}, on the last {} of {}; pool {} -> {}; sign-up budget left {}\n",
                first.served,
                first.asked,
                last.served,
                last.asked,
                figure(first.pool),
                figure(last.pool),
                figure(last.sign_up_left)
            );
        }
        text
    }
}
