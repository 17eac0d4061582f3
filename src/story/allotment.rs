//! The story of stakers, sponsors and workers: stake and a package on the chain, the day's pool, a prompt paid by the allotment,
//! workers paid by the treasury, and what lapses at the end of the day.

use super::Teller;
use super::customer::Customer;
use super::events::EventLog;
use crate::network::Network;
use anyhow::{Context, Result};
use contracts::economy::{Economy, WorkersPayment};
use contracts::fixed_bytes::{Address20, Hash32};
use contracts::{PackageTerms, dev, payout_tree};
use ledger::command::{AllotStakes, CloseTreasuryEpoch, OpenAllotmentDay, SeenStake};
use ledger::economy::views;
use ledger::{Command, CommandBody};
use protocol::amount::Amount;
use protocol::asset::VAULT_SCALE;
use protocol::event::economy::{AllotmentDayOpened, TreasuryEpochClosed, TreasuryEpochPaid};
use protocol::event::grant::GrantSource;
use protocol::event::{Actor, EventBody, GrantId};
use protocol::id::{BatchId, EvmAddress, IdempotencyKey, Word32};
use serde_json::json;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Whole tokens that the customer stakes.
const STAKE: u64 = 150;
/// Base units of the token (18 digits) in one unit (6 digits).
const UNIT_BASE: u128 = 1_000_000_000_000;
/// The package on the price list.
const PACKAGE: u32 = 1;
/// The chain's clock goes on by so much, so that the second of the stake is over.
const STAKE_SECONDS: u64 = 2;
/// How often the clock is looked at.
const CLOCK_TICK: Duration = Duration::from_millis(100);

/// Walks it.
pub(super) async fn walk(network: &Network, events: &EventLog, tell: &Teller<'_>) -> Result<()> {
    let customer = Customer::arrive(network, events, tell).await?;
    let economy = network.deployment.economy().context("the network has no stake on its chain")?;
    stake(network, &economy, &customer, tell).await?;
    buy_package(network, &economy, &customer, events, tell).await?;
    wait_for_day(network, tell).await?;
    let day = open_day(network, &economy, events, tell).await?;
    let grant = allot(network, &economy, &customer, &day, events, tell).await?;
    let hold = super::ask(network, &customer, events, tell).await?;
    anyhow::ensure!(hold.slices[0].grant == grant, "the allotment pays first");
    super::capture(network, &customer, &hold, events, tell).await?;
    pay_workers(network, &economy, events, tell).await?;
    lapse(grant, events, tell).await
}

fn now_us() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as u64)
}

fn units(units: u64) -> String {
    Amount(i128::from(units)).to_decimal_string(VAULT_SCALE)
}

/// Drives the ledger itself: the gateway has no door for it.
pub(super) async fn submit(network: &Network, purpose: &str, actor: Actor, body: CommandBody) -> Result<()> {
    let nonce = crate::network::secrets::random_id()?;
    let key = IdempotencyKey::internal(purpose, &[&nonce]);
    network.client.submit(Command::new(key, actor, body)).await?;
    Ok(())
}

async fn stake(
    network: &Network,
    economy: &Economy<'_>,
    customer: &Customer,
    tell: &Teller<'_>,
) -> Result<()> {
    let wallet = customer.wallet();
    dev::mint(&network.deployment, &network.roles.deployer, wallet.address(), STAKE * 1_000_000).await?;
    let base = u128::from(STAKE) * 1_000_000 * UNIT_BASE;
    economy.approve_stake(&wallet, base).await?;
    let mined = economy.stake_tokens(&wallet, base).await?;
    let text = format!(
        "{STAKE} FOIL were staked on the chain (gas {}). Stake is never spent; from 100 on it gives a daily allotment.",
        mined.gas_used
    );
    tell.step("stake", &text, None, json!({"tokens": STAKE, "tx": Word32(mined.tx.0)}));
    Ok(())
}

async fn buy_package(
    network: &Network,
    economy: &Economy<'_>,
    customer: &Customer,
    events: &EventLog,
    tell: &Teller<'_>,
) -> Result<()> {
    let package = network.preset.chain.as_ref().and_then(|chain| chain.package.as_ref());
    let package = package.context("the preset sells no package")?;
    let price = u128::try_from(Amount::parse_decimal(&package.price, VAULT_SCALE)?.0)?;
    let credits = u64::try_from(Amount::parse_decimal(&package.credits, VAULT_SCALE)?.0)?;
    let terms = PackageTerms { price_base_units: price, units: credits, validity_s: package.validity_s };
    let (wallet, publisher) = (customer.wallet(), &network.roles.guardian);
    economy.list_package(publisher, PACKAGE, terms).await?;
    economy.mint_dollars(&network.roles.deployer, wallet.address(), price).await?;
    economy.approve_packages(&wallet, price).await?;
    economy.buy_package(&wallet, PACKAGE, wallet.address(), price).await?;
    let pick = |body: &EventBody| match body {
        EventBody::GrantIssued(e) if e.source == GrantSource::Package && e.account == customer.account => {
            Some(e.grant)
        }
        _ => None,
    };
    let (event, grant) = events.find("package", pick).await?;
    let text = format!(
        "A package was bought on the chain: {} USDC for {} credits. It lifts the included lane's caps and pays after the allotment; its \
         price is in the treasury.",
        package.price, package.credits
    );
    tell.step("package", &text, Some(&event), json!({"price": package.price, "grant": grant.0}));
    Ok(())
}

/// So that the whole day is ahead.
async fn wait_for_day(network: &Network, tell: &Teller<'_>) -> Result<()> {
    let rules = network.client.read(|state| views::rules(state).map(|rules| rules.day_us)).await?;
    let day_us = rules.context("the network has no rules of an economy")?;
    let today = now_us()? / day_us;
    tell.note(&format!("the next day begins in {} s", (day_us - now_us()? % day_us) / 1_000_000));
    // It is the clock itself that is awaited.
    let mut tick = tokio::time::interval(CLOCK_TICK);
    while now_us()? / day_us == today {
        tick.tick().await;
    }
    Ok(())
}

async fn open_day(
    network: &Network,
    economy: &Economy<'_>,
    events: &EventLog,
    tell: &Teller<'_>,
) -> Result<AllotmentDayOpened> {
    let block = network.deployment.chain().head().await?;
    dev::increase_time(network.deployment.chain(), STAKE_SECONDS).await?;
    let total = economy.eligible_stakes(&[], block).await?.total_base_units;
    let reserve_units = economy.treasury_free().await?;
    let now_us = now_us()?;
    let day = network.client.read(move |state| views::day_of(state, now_us)).await?;
    let command = OpenAllotmentDay {
        day,
        block: block.number,
        block_hash: Word32(block.hash.0),
        stake_units_total: u64::try_from(total / UNIT_BASE)?,
        reserve_units,
    };
    submit(network, "open day", Actor::Watcher, command.into()).await?;
    let pick = |body: &EventBody| match body {
        EventBody::AllotmentDayOpened(e) if e.day == day => Some(e.clone()),
        _ => None,
    };
    let (event, opened) = events.find("day", pick).await?;
    let unit = 10i128.pow(u32::from(network.asset_scale().await? - VAULT_SCALE));
    let pool_units = u64::try_from(opened.pool.0 / unit)?;
    economy.open_day(&network.roles.settler, day, pool_units).await?;
    let text = format!(
        "Day {day} opened with a pool of {} USDC: the most the treasury can owe for it, reserved on the chain before anybody spends. It \
         holds {}; the inputs are in the event.",
        units(pool_units),
        units(reserve_units)
    );
    tell.step("day", &text, Some(&event), json!({"day": day, "pool": units(pool_units)}));
    Ok(opened)
}

async fn allot(
    network: &Network,
    economy: &Economy<'_>,
    customer: &Customer,
    day: &AllotmentDayOpened,
    events: &EventLog,
    tell: &Teller<'_>,
) -> Result<GrantId> {
    let address = customer.wallet().address();
    let block = network.deployment.chain().block(day.block).await?.context("the day's block is there")?;
    let stakes = economy.eligible_stakes(&[address], block).await?;
    let stake = stakes.base_units.first().context("one stake was asked for")? / UNIT_BASE;
    let stake_units = u64::try_from(stake)?;
    let seen = SeenStake { account: customer.account, wallet: EvmAddress(address.0), stake_units };
    let command = AllotStakes { day: day.day, stakes: vec![seen] };
    submit(network, "allot", Actor::Watcher, command.into()).await?;
    let pick = |body: &EventBody| match body {
        EventBody::StakeAllotted(e) if e.account == customer.account => Some(e.clone()),
        _ => None,
    };
    let (event, allotted) = events.find("allotment", pick).await?;
    let amount = allotted.amount.to_decimal_string(network.asset_scale().await?);
    let text = format!(
        "The stake of {} FOIL at block {} gives {amount} USDC of credit today: floor(stake x pool / all stake). What is left at the end of \
         the day lapses.",
        units(allotted.stake_units),
        day.block
    );
    tell.step("allotment", &text, Some(&event), json!({"amount": amount}));
    allotted.grant.context("the stake is above the minimum")
}

async fn pay_workers(
    network: &Network,
    economy: &Economy<'_>,
    events: &EventLog,
    tell: &Teller<'_>,
) -> Result<()> {
    let batch = BatchId(crate::network::secrets::random_id()?);
    submit(network, "close treasury epoch", Actor::Settler, CloseTreasuryEpoch { batch }.into()).await?;
    let pick = |body: &EventBody| match body {
        EventBody::TreasuryEpochClosed(e) if e.batch == batch => Some(e.clone()),
        _ => None,
    };
    let (event, closed) = events.find("treasury epoch", pick).await?;
    let payment = payment_of(&closed, event.header.command);
    let mined = economy.pay_workers(&network.roles.settler, payment).await?;
    let tx = Word32(mined.tx.0);
    let paid = TreasuryEpochPaid { batch, tx, block: mined.block, units: payment.units };
    submit(network, "treasury paid", Actor::Settler, paid.into()).await?;
    let pick = |body: &EventBody| match body {
        EventBody::TreasuryEpochPaid(e) if e.batch == batch => Some(e.clone()),
        _ => None,
    };
    let (event, paid) = events.find("treasury payment", pick).await?;
    let text = format!(
        "The epoch ended: the treasury paid {} USDC out of the day's reserve into the workers' pot (gas {}), with a root that each \
         worker claims against.",
        units(paid.units),
        mined.gas_used
    );
    tell.step("workers", &text, Some(&event), json!({"units": paid.units, "tx": tx}));
    Ok(())
}

fn payment_of(closed: &TreasuryEpochClosed, command: u64) -> WorkersPayment {
    let leaves = closed.payouts.iter().map(|payout| (Address20(payout.address.0), payout.cumulative_units));
    WorkersPayment {
        epoch: closed.epoch,
        day: closed.day,
        units: closed.payouts.iter().map(|payout| payout.added_units).sum(),
        root: payout_tree(leaves).root(),
        root_total_units: closed.payouts.iter().map(|payout| payout.cumulative_units).sum(),
        commitment: Hash32::keccak(&[&closed.batch.0[..], &command.to_be_bytes()].concat()),
    }
}

async fn lapse(grant: GrantId, events: &EventLog, tell: &Teller<'_>) -> Result<()> {
    tell.note("waiting for the end of the day");
    let pick = |body: &EventBody| match body {
        EventBody::GrantExpired(e) if e.grant == grant => Some(e.lapsed),
        _ => None,
    };
    let (event, lapsed) = events.find("lapse", pick).await?;
    let text =
        format!("The day is over: {} base units that were not used lapsed. Nothing rolls over.", lapsed.0);
    tell.step("lapse", &text, Some(&event), json!({"lapsed": lapsed}));
    Ok(())
}
