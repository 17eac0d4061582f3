//! Rules of spend caps (`specs/postings.md`, 6): charges and open holds of one key of an account, counted from its first cap on.

use super::books::Legs;
use super::judge::Judge;
use super::world::World;
use crate::checks::CheckKind;
use protocol::asset::AssetId;
use protocol::event::account::SpendCapSet;
use protocol::id::{AccountId, SpenderId};

const KIND: CheckKind = CheckKind::SpendCaps;

/// Which meter: whose key, in which asset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct MeterKey {
    pub(crate) account: AccountId,
    pub(crate) spender: SpenderId,
    pub(crate) asset: AssetId,
}

/// What a key has spent and holds.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Meter {
    pub(crate) cap: Option<i128>,
    pub(crate) spent: i128,
}

pub(crate) fn cap_set(world: &mut World, judge: &mut Judge, event: &SpendCapSet) -> Option<Legs> {
    let row = judge.known(KIND, world.accounts.get(&event.account), "account", event.account)?;
    judge.require(KIND, "the account is open", event.account, || !row.closed);
    let assets = world.network.as_ref().map_or(&[][..], |network| &network.assets);
    let asset = assets.iter().find(|asset| asset.id == event.asset);
    judge.known(KIND, asset, "asset", event.asset.0)?;
    let cap = event.cap.map(|cap| cap.0);
    judge.require(KIND, "a cap is not negative", cap.unwrap_or(0), || cap.is_none_or(|cap| cap >= 0));
    let key = MeterKey { account: event.account, spender: event.spender, asset: event.asset };
    world.meters.entry(key).or_default().cap = cap;
    Some(Legs::default())
}

/// Counts an addition and looks at the cap.
pub(crate) fn spend(world: &mut World, judge: &mut Judge, key: Option<MeterKey>, amount: i128) {
    let Some((key, meter)) = key.and_then(|key| Some((key, world.meters.get_mut(&key)?))) else { return };
    meter.spent = meter.spent.saturating_add(amount);
    let spent = meter.spent;
    if amount != 0
        && let Some(cap) = meter.cap
    {
        let within = format_args!("at most {cap} spent and held by {}", key.spender);
        judge.require(KIND, within, spent, || spent <= cap);
    }
}

/// Gives back what was not consumed, or what was undone.
pub(crate) fn give_back(world: &mut World, key: Option<MeterKey>, amount: i128) {
    if let Some(meter) = key.and_then(|key| world.meters.get_mut(&key)) {
        meter.spent = meter.spent.saturating_sub(amount);
    }
}
