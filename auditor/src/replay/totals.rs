//! What a replay comes to: the trial balance and totals per asset.

use super::world::World;
use crate::report::{AssetTotals, TrialBalanceLine};
use protocol::asset::AssetId;
use protocol::event::account::AccountKind;
use std::collections::BTreeMap;

pub(crate) fn symbol(world: &World, asset: AssetId) -> (String, u8) {
    let assets = world.network.as_ref().map_or(&[][..], |network| &network.assets);
    let found = assets.iter().find(|known| known.id == asset);
    found.map_or((format!("asset {}", asset.0), 0), |known| (known.symbol.clone(), known.ledger_scale))
}

/// One line per asset and kind of account; debits and credits of an asset sum to the same.
pub(crate) fn trial_balance(world: &World) -> Vec<TrialBalanceLine> {
    let mut sums: BTreeMap<(AssetId, AccountKind), (u64, i128, i128, i128)> = BTreeMap::new();
    for row in &world.books.rows {
        let sum = sums.entry((row.key.asset, row.key.kind)).or_default();
        sum.0 = sum.0.saturating_add(1);
        sum.1 = sum.1.saturating_add(row.debits);
        sum.2 = sum.2.saturating_add(row.credits);
        sum.3 = sum.3.saturating_add(row.debits_pending.saturating_sub(row.credits_pending));
    }
    let line = |((asset, kind), (accounts, debits, credits, reserved)): ((AssetId, AccountKind), _)| {
        let (asset, scale) = symbol(world, asset);
        let [debits, credits, reserved]: [i128; 3] = [debits, credits, reserved];
        let (debits, credits, reserved) = (debits.to_string(), credits.to_string(), reserved.to_string());
        TrialBalanceLine { kind: kind.name(), asset, scale, accounts, debits, credits, reserved }
    };
    sums.into_iter().map(line).collect()
}

#[derive(Default)]
struct Sums {
    deposited: i128,
    withdrawn: i128,
    captured: i128,
    operators: i128,
    settled: i128,
    claimed: i128,
}

/// One line per asset.
pub(crate) fn totals(world: &World) -> Vec<AssetTotals> {
    let mut sums: BTreeMap<AssetId, Sums> = BTreeMap::new();
    let asset_of = |vault| world.vaults.get(&vault).map(|registered| registered.asset);
    let in_base = |asset, units: u64| i128::from(units).saturating_mul(world.vault_unit(asset).unwrap_or(1));
    for (key, deposit) in world.deposits.iter().filter(|(_, deposit)| !deposit.reversed) {
        let Some(asset) = asset_of(key.vault) else { continue };
        let sum = &mut sums.entry(asset).or_default().deposited;
        *sum = sum.saturating_add(deposit.amount);
    }
    for withdrawal in &world.withdrawals {
        let Some(asset) = asset_of(withdrawal.vault) else { continue };
        let sum = &mut sums.entry(asset).or_default().withdrawn;
        *sum = sum.saturating_add(in_base(asset, withdrawal.units));
    }
    for job in world.jobs.values() {
        for charge in job.charges.iter().filter(|_| job.is_charged()) {
            let sum = sums.entry(job.asset).or_default();
            sum.captured = sum.captured.saturating_add(charge.event.cost.0);
            sum.operators = sum.operators.saturating_add(charge.event.operator_share.0);
        }
    }
    for batch in world.batches.values().filter(|batch| batch.confirmed.is_some()) {
        sums.entry(batch.asset).or_default().settled += in_base(batch.asset, batch.charged_units());
    }
    for claim in &world.claims {
        let Some(asset) = asset_of(claim.vault) else { continue };
        let sum = &mut sums.entry(asset).or_default().claimed;
        *sum = sum.saturating_add(in_base(asset, claim.units));
    }
    let line = |(asset, sums): (AssetId, Sums)| {
        let (asset, scale) = symbol(world, asset);
        AssetTotals {
            asset,
            scale,
            deposited: sums.deposited.to_string(),
            withdrawn: sums.withdrawn.to_string(),
            captured: sums.captured.to_string(),
            operators: sums.operators.to_string(),
            platform: sums.captured.saturating_sub(sums.operators).to_string(),
            settled: sums.settled.to_string(),
            claimed: sums.claimed.to_string(),
        }
    };
    sums.into_iter().map(line).collect()
}
