//! Rules of what the network is: its opening, terms of writers, price lists, accounts, operators, nodes.

use super::books::Legs;
use super::grants::Place;
use super::judge::Judge;
use super::world::World;
use crate::checks::CheckKind;
use protocol::asset::AssetId;
use protocol::event::GrantId;
use protocol::event::account::{AccountClosed, AccountOpened, LedgerAccountsOpened};
use protocol::event::node::{NodeRegistered, NodeRetired, OperatorRegistered};
use protocol::event::policy::{NetworkOpened, RateCardPublished, WriterChanged};
use protocol::id::{AccountId, EvmAddress, OperatorId};
use std::collections::{BTreeMap, BTreeSet};

const KIND: CheckKind = CheckKind::Numbering;

/// An account: whether it is closed, and what it owes per asset.
#[derive(Clone, Default, Debug)]
pub(crate) struct Account {
    pub(crate) closed: bool,
    pub(crate) debts: BTreeMap<AssetId, i128>,
    /// Its grants that may pay, in the order of consumption.
    pub(crate) spendable: BTreeSet<Place>,
    /// Its credit lines.
    pub(crate) lines: BTreeMap<AssetId, GrantId>,
}

/// Who earns, and where it is paid.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    pub(crate) account: AccountId,
    pub(crate) payout_address: EvmAddress,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) operator: OperatorId,
    pub(crate) models: Vec<String>,
    pub(crate) retired: bool,
}

pub(crate) fn network_opened(world: &mut World, judge: &mut Judge, event: &NetworkOpened) -> Option<Legs> {
    for (index, asset) in event.assets.iter().enumerate() {
        judge.equal(KIND, "assets are numbered without gaps", index as u32, asset.id.0);
        judge.require(KIND, "a ledger scale is at most 18", asset.ledger_scale, || asset.ledger_scale <= 18);
    }
    world.network.get_or_insert_with(|| event.clone());
    Some(Legs::default())
}

pub(crate) fn writer_changed(world: &mut World, judge: &mut Judge, event: &WriterChanged) -> Option<Legs> {
    judge.equal(
        CheckKind::Sequence,
        "a writer's term grows by one",
        world.epoch.saturating_add(1),
        event.epoch,
    );
    world.epoch = event.epoch;
    Some(Legs::default())
}

pub(crate) fn rate_card_published(
    world: &mut World,
    judge: &mut Judge,
    event: &RateCardPublished,
) -> Option<Legs> {
    let card = &event.card;
    judge.equal(KIND, "rate card versions grow by one", world.cards.len() as u32 + 1, card.version);
    judge.equal(CheckKind::Prices, "a card's hash is its own", card.hash(), event.hash);
    for pair in card.models.windows(2) {
        judge.require(KIND, "a card's models are sorted, none twice", &pair[1].model, || {
            pair[0].model < pair[1].model
        });
    }
    for rate in &card.models {
        let sum = u64::from(rate.operator_share_ppm) + u64::from(card.headroom_ppm);
        judge.require(CheckKind::Prices, "operator share and headroom fit into the price", sum, || {
            sum <= 1_000_000
        });
        judge.require(CheckKind::Prices, "a price is not negative", rate.price.0, || {
            rate.price.0 >= 0 && rate.per_units > 0
        });
    }
    world.cards.push((card.clone(), event.hash));
    super::conduct::check_cards(world, judge);
    Some(Legs::default())
}

pub(crate) fn account_opened(world: &mut World, judge: &mut Judge, event: &AccountOpened) -> Option<Legs> {
    let is_new = world.accounts.insert(event.account, Account::default()).is_none();
    let is_new = is_new && event.account != AccountId::SYSTEM;
    judge.require(KIND, "an account is opened once", event.account, || is_new);
    Some(Legs::default())
}

pub(crate) fn account_closed(world: &mut World, judge: &mut Judge, event: &AccountClosed) -> Option<Legs> {
    let row = judge.known(KIND, world.accounts.get_mut(&event.account), "account", event.account)?;
    let was_open = !std::mem::replace(&mut row.closed, true);
    judge.require(KIND, "an account is closed once", event.account, || was_open);
    let listed = row.spendable.iter().filter_map(|place| world.grants.get(place.2 as usize));
    let left = listed.into_iter().any(|grant| {
        let in_use = grant.held != 0 || grant.reserved != 0;
        in_use || (grant.is_deposit() && grant.remaining != 0)
    });
    judge.require(KIND, "a closed account has no hold, voucher or deposit left", event.account, || !left);
    Some(Legs::default())
}

/// Runs before the legs of its event are looked at: the event opens accounts, it has no legs itself.
pub(crate) fn ledger_accounts_opened(world: &mut World, judge: &mut Judge, event: &LedgerAccountsOpened) {
    for opened in &event.opened {
        let known = opened.owner == AccountId::SYSTEM || world.accounts.contains_key(&opened.owner);
        judge.require(KIND, "a ledger account's owner is a known account", opened.owner, || known);
        let assets = world.network.as_ref().map_or(&[][..], |network| &network.assets);
        let known = assets.iter().any(|asset| asset.id == opened.asset);
        judge.require(KIND, "a ledger account's asset is known", opened.asset.0, || known);
        world.books.open(judge, opened);
    }
}

pub(crate) fn operator_registered(
    world: &mut World,
    judge: &mut Judge,
    event: &OperatorRegistered,
) -> Option<Legs> {
    judge.known(KIND, world.accounts.get(&event.account), "account", event.account)?;
    let clash =
        |known: &Operator| (known.account == event.account) != (known.payout_address == event.payout_address);
    let clash = world.operators.values().any(clash)
        || world.vaults.values().any(|vault| vault.platform == event.payout_address);
    judge.require(
        KIND,
        "a payout address is one account's, and not the platform's",
        event.payout_address,
        || !clash,
    );
    let row = Operator { account: event.account, payout_address: event.payout_address };
    let is_new = world.operators.insert(event.operator, row).is_none();
    judge.require(KIND, "an operator registers once", event.operator, || is_new);
    Some(Legs::default())
}

pub(crate) fn node_registered(world: &mut World, judge: &mut Judge, event: &NodeRegistered) -> Option<Legs> {
    judge.known(KIND, world.operators.get(&event.operator), "operator", event.operator)?;
    let row = Node { operator: event.operator, models: event.models.clone(), retired: false };
    let before = world.nodes.insert(event.node, row);
    judge.require(KIND, "a node stays its operator's, and does not come back", event.node, || {
        before.is_none_or(|node| node.operator == event.operator && !node.retired)
    });
    Some(Legs::default())
}

pub(crate) fn node_retired(world: &mut World, judge: &mut Judge, event: &NodeRetired) -> Option<Legs> {
    let node = judge.known(KIND, world.nodes.get_mut(&event.node), "node", event.node)?;
    let was_there = !std::mem::replace(&mut node.retired, true);
    judge.require(KIND, "a node retires once", event.node, || was_there);
    Some(Legs::default())
}
