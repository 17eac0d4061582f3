//! Stakers: one with all its stake in one wallet, one that splits the same stake over ten, one that splits below the minimum.

use super::world::World;
use crate::report::HolderFigures;
use ledger::Refusal;
use ledger::command::{AllotStakes, SeenStake};
use ledger::economy::views;
use protocol::amount::Amount;
use protocol::event::EventBody;
use protocol::id::{AccountId, EvmAddress};

/// Stake of each holder, 10^-6 of a token: 2 000 tokens.
const STAKE_UNITS: u64 = 2_000_000_000;
/// How many wallets each holder has, and its name.
const HOLDERS: [(usize, &str); 3] = [(1, "one wallet"), (10, "ten wallets"), (25, "below the minimum")];

struct Holder {
    name: &'static str,
    wallets: Vec<SeenStake>,
    allotted: i128,
}

/// All of them; none where the network has no allotment.
pub(super) struct Holders(Vec<Holder>);

impl Holders {
    pub(super) fn open(world: &mut World) -> Result<Holders, Refusal> {
        let has = views::rules(&world.state).is_some_and(|rules| rules.allotment.is_some());
        let mut holders = Vec::new();
        for (count, name) in HOLDERS.iter().filter(|_| has) {
            let mut wallets = Vec::new();
            for _ in 0..*count {
                let account = world.account()?;
                let mut wallet = [9; 20];
                wallet[..16].copy_from_slice(&account.0);
                let stake_units = STAKE_UNITS / *count as u64;
                wallets.push(SeenStake { account, wallet: EvmAddress(wallet), stake_units });
            }
            holders.push(Holder { name, wallets, allotted: 0 });
        }
        Ok(Holders(holders))
    }

    /// Opens the day and gives everybody its part.
    pub(super) fn begin_day(&mut self, world: &mut World) -> Result<(), Refusal> {
        let stakes = self.0.iter().flat_map(|holder| &holder.wallets);
        let total: u64 = stakes.map(|stake| stake.stake_units).sum();
        if total == 0 {
            return Ok(());
        }
        let day = world.open_allotment_day(total)?;
        for holder in &mut self.0 {
            let events = world.run(AllotStakes { day, stakes: holder.wallets.clone() })?;
            let parts = events.iter().filter_map(|event| match &event.body {
                EventBody::StakeAllotted(e) => Some(e.amount.0),
                _ => None,
            });
            holder.allotted += parts.sum::<i128>();
        }
        Ok(())
    }

    /// Accounts that have something to spend from allotments.
    pub(super) fn accounts(&self) -> Vec<AccountId> {
        self.0.iter().flat_map(|holder| &holder.wallets).map(|stake| stake.account).collect()
    }

    pub(super) fn figures(&self) -> Vec<HolderFigures> {
        let figures = |holder: &Holder| HolderFigures {
            name: holder.name.to_owned(),
            wallets: holder.wallets.len() as u32,
            allotted: Amount(holder.allotted),
        };
        self.0.iter().map(figures).collect()
    }
}
