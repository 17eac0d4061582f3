//! The story of a provider who is a consumer too: sign-up credit, prompts that it pays, earnings that the provider spends on a
//! prompt of its own, and what a lack of supply offers.

use super::allotment::submit;
use super::customer::Customer;
use super::events::EventLog;
use super::{Teller, ask, capture};
use crate::network::Network;
use crate::story::http::Http;
use anyhow::{Context, Result};
use ledger::command::{GrantSignUp, PublishBounty, TakeEarnings};
use ledger::economy::views;
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::grant::Backing;
use protocol::event::{Actor, EventBody};
use protocol::id::{AccountId, OperatorId};
use serde_json::json;

/// Prompts of the newcomer: their shares pay one of the provider's.
const PROMPTS: u32 = 3;
/// A queue that shows a lack of supply.
const QUEUE_MS: u64 = 2_000;
/// Nobody's wallet.
const NO_WALLET: u32 = u32::MAX;

/// Walks it.
pub(super) async fn walk(network: &Network, events: &EventLog, tell: &Teller<'_>) -> Result<()> {
    let newcomer = sign_up(network, events, tell).await?;
    let mut operator = None;
    for _ in 0..PROMPTS {
        let hold = ask(network, &newcomer, events, tell).await?;
        capture(network, &newcomer, &hold, events, tell).await?;
        let pick = |body: &EventBody| match body {
            EventBody::UsageCaptured(e) if e.job == hold.job => Some(e.operator),
            _ => None,
        };
        operator = Some(events.find("charge", pick).await?.1);
    }
    let operator = operator.context("somebody served the prompts")?;
    let provider = take_earnings(network, operator, events, tell).await?;
    let hold = ask(network, &provider, events, tell).await?;
    capture(network, &provider, &hold, events, tell).await?;
    bounty(network, operator, events, tell).await
}

async fn sign_up(network: &Network, events: &EventLog, tell: &Teller<'_>) -> Result<Customer> {
    let opened = Http::new(&network.gateway_url).post("/v1/accounts", json!({})).await?;
    let account: AccountId = opened["account"].as_str().context("no account in the answer")?.parse()?;
    let api_key = opened["api_key"].as_str().context("no key in the answer")?.to_owned();
    submit(network, "sign-up credit", Actor::Gateway, GrantSignUp { account }.into()).await?;
    let pick = |body: &EventBody| match body {
        EventBody::SignUpCredited(e) if e.account == account => Some(e.clone()),
        _ => None,
    };
    let (event, credited) = events.find("sign-up credit", pick).await?;
    let scale = network.asset_scale().await?;
    let (left, today) = (credited.left.to_decimal_string(scale), credited.day_left.to_decimal_string(scale));
    let text = format!(
        "A new account got its sign-up credit: it ends in a week, cannot be withdrawn, and comes out of a public budget of which {left} is \
         left ({today} today)."
    );
    tell.step("sign_up", &text, Some(&event), json!({"account": account, "left": left}));
    Ok(Customer { account, api_key, wallet_number: NO_WALLET })
}

/// The provider's earnings become spendable, but for the reserve that stays until late work could be verified.
async fn take_earnings(
    network: &Network,
    operator: OperatorId,
    events: &EventLog,
    tell: &Teller<'_>,
) -> Result<Customer> {
    let key = network.data.join("worker/account.key");
    let api_key = std::fs::read_to_string(&key).with_context(|| key.display().to_string())?.trim().to_owned();
    let answer = Http::new(&network.gateway_url).with_key(&api_key).get("/v1/balance").await?;
    let account: AccountId = answer["account"].as_str().context("no account in the balance")?.parse()?;
    let asset = AssetId(0);
    let (waiting, reserve) = network
        .client
        .read(move |state| {
            let earnings = ledger::query::earnings(state, operator);
            let own = earnings.iter().filter(|row| row.asset == asset).flat_map(|row| &row.takeable);
            let unbacked = own.filter(|row| row.backing == Backing::Unbacked);
            let waiting = unbacked.map(|row| row.amount.0).sum::<i128>();
            (waiting, views::earnings_reserve(state, account, asset, state.last_time_us()).0)
        })
        .await?;
    let amount = Amount(waiting - reserve);
    let command = TakeEarnings { account, asset, backing: Backing::Unbacked, amount };
    submit(network, "take earnings", Actor::Account(account), command.into()).await?;
    let pick = |body: &EventBody| match body {
        EventBody::EarningsTaken(e) if e.amount == amount => Some(()),
        _ => None,
    };
    let (event, ()) = events.find("earnings", pick).await?;
    let scale = network.asset_scale().await?;
    let text = format!(
        "The provider {operator} earned {} for these prompts and made {} of it spendable at once; the rest is its reserve. One balance: the \
         same account serves and asks.",
        Amount(waiting).to_decimal_string(scale),
        amount.to_decimal_string(scale)
    );
    tell.step("earnings", &text, Some(&event), json!({"amount": amount.to_decimal_string(scale)}));
    Ok(Customer { account, api_key, wallet_number: NO_WALLET })
}

async fn bounty(network: &Network, operator: OperatorId, events: &EventLog, tell: &Teller<'_>) -> Result<()> {
    let model = network.first_model().await?;
    let command = PublishBounty { model: model.clone(), queue_ms: QUEUE_MS, fallback_ppm: 0 };
    submit(network, "bounty", Actor::Gateway, command.into()).await?;
    let pick = |body: &EventBody| match body {
        EventBody::BountyPublished(e) if e.model == model => Some(e.clone()),
        _ => None,
    };
    let (event, bounty) = events.find("bounty", pick).await?;
    let standing = network
        .client
        .read(move |state| views::standing(state, &operator, state.last_time_us()))
        .await?
        .context("the operator has a standing")?;
    let text = format!(
        "{model} had a queue of {QUEUE_MS} ms: serving it earns {} times the share of backed credit, out of the platform's own. The \
         provider's trust (health {} %, ramp {} %) unlocks it after its first week.",
        Amount(bounty.multiplier_ppm.into()).to_decimal_string(6),
        Amount(standing.health_ppm.into()).to_decimal_string(4),
        Amount(standing.ramp_ppm.into()).to_decimal_string(4)
    );
    tell.step(
        "bounty",
        &text,
        Some(&event),
        json!({"multiplier_ppm": bounty.multiplier_ppm, "standing": standing}),
    );
    Ok(())
}
