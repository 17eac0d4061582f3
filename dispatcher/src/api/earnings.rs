//! What an operator's account earned, and taking what no vault pays as credit that is spendable at once (rulings 3.1).

use super::auth;
use super::body;
use super::error::ApiError;
use super::refusals::{self, money};
use super::{accounts, admin};
use crate::access::keys::Scope;
use crate::access::random_16;
use crate::delivery::submit_until_known;
use crate::gateway::Shared;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use journal::SubmitError;
use ledger::command::{Command, TakeEarnings};
use ledger::query::{self, Earnings, Takeable};
use protocol::EventBody;
use protocol::amount::Amount;
use protocol::asset::Asset;
use protocol::event::Actor;
use protocol::id::{AccountId, IdempotencyKey, OperatorId};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /v1/earnings`: by asset, with what can be taken as credit and what goes to the payout address on-chain.
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let account = auth::caller(&shared, &headers, Scope::Read)?.account;
    let earned = earned(&shared, account).await?;
    let lines: Vec<Value> =
        earned.lines.iter().filter_map(|line| one(line, earned.asset(line.asset.0)?)).collect();
    let operators = earned.operators;
    Ok(Json(json!({ "account": account, "operators": operators, "at_size": earned.size, "earnings": lines })))
}

/// What the log says at one moment.
struct Earned {
    operators: Vec<OperatorId>,
    lines: Vec<Earnings>,
    assets: Vec<Asset>,
    size: u64,
}

impl Earned {
    fn asset(&self, number: u32) -> Option<&Asset> {
        self.assets.get(number as usize)
    }
}

async fn earned(shared: &Shared, account: AccountId) -> Result<Earned, ApiError> {
    let read = shared.client.read(move |state| {
        let own = query::operators(state).into_iter().filter(|operator| operator.account == account);
        let operators: Vec<OperatorId> = own.map(|operator| operator.operator).collect();
        // The account earns, whichever of its operators served.
        let lines = operators.first().map(|operator| query::earnings(state, *operator));
        let assets = query::assets(state).to_vec();
        Earned { operators, lines: lines.unwrap_or_default(), assets, size: state.next_leaf() }
    });
    read.await.map_err(|error| refusals::api_error(shared, error, None))
}

fn one(line: &Earnings, asset: &Asset) -> Option<Value> {
    let takeable: Vec<Value> = line
        .takeable
        .iter()
        .map(|part| json!({ "backing": part.backing, "amount": money(part.amount, asset) }))
        .collect();
    Some(json!({
        "asset": asset.symbol,
        "accrued": money(line.accrued, asset),
        "takeable": money(line.unbacked, asset),
        "takeable_by_backing": takeable,
        "settling": money(line.settling, asset),
        "payable": money(line.payable, asset),
        "claimed": money(line.claimed, asset),
    }))
}

/// Body of `POST /v1/earnings/take`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TakeBody {
    /// Decimal; everything that can be taken when left out.
    amount: Option<String>,
    /// Symbol; the network's first asset when left out.
    asset: Option<String>,
}

/// `POST /v1/earnings/take`: from what waits, backing by backing; each part is one event. What it answers was taken, also
/// when somebody else took the rest meanwhile.
pub(crate) async fn take(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let account = auth::caller(&shared, request.headers(), Scope::Manage)?.account;
    let asked: TakeBody = body::json(request).await?;
    let asset = admin::asset(&shared, asked.asset.as_deref()).await?;
    let wanted = match &asked.amount {
        Some(text) => accounts::positive(text, &asset)?,
        None => Amount(i128::MAX),
    };
    let earned = earned(&shared, account).await?;
    let line = earned.lines.iter().find(|line| line.asset == asset.id);
    let waiting = line.map_or(Amount::ZERO, |line| line.unbacked);
    if waiting.0 <= 0 || (asked.amount.is_some() && wanted > waiting) {
        return Err(too_much(waiting, line, &asset));
    }
    let mut taken: Vec<Value> = Vec::new();
    let mut rest = wanted;
    for Takeable { backing, amount } in line.into_iter().flat_map(|line| line.takeable.iter().copied()) {
        let amount = amount.min(rest);
        if amount.0 <= 0 {
            break;
        }
        let body = TakeEarnings { account, asset: asset.id, backing, amount };
        let key = IdempotencyKey::internal("take earnings", &[&random_16()?]);
        let outcome = submit_until_known(&shared, Command::new(key, Actor::Account(account), body)).await;
        let outcome = match outcome {
            // Another request was faster with this part.
            Err(SubmitError::Refused { .. }) if !taken.is_empty() => break,
            other => other.map_err(|error| refusals::api_error(&shared, error, Some(&asset)))?,
        };
        let grant = outcome.events.iter().find_map(|event| match &event.body {
            EventBody::EarningsTaken(taken) => Some(taken.grant),
            _ => None,
        });
        taken.push(json!({ "grant": grant, "backing": backing, "amount": money(amount, &asset), "commit": outcome.commit }));
        rest.0 -= amount.0;
    }
    let sum = Amount(if asked.amount.is_some() { wanted.0 - rest.0 } else { i128::MAX - rest.0 });
    Ok((
        StatusCode::CREATED,
        Json(json!({ "account": account, "taken": money(sum, &asset), "parts": taken })),
    ))
}

fn too_much(waiting: Amount, line: Option<&Earnings>, asset: &Asset) -> ApiError {
    let on_chain = line.map_or(Amount::ZERO, |line| Amount(line.accrued.0 - line.unbacked.0));
    let decimal = |amount: Amount| amount.to_decimal_string(asset.ledger_scale);
    let text = format!(
        "{} {} can be taken as credit. {} more was earned from credit that a vault backs: it is paid to the payout address \
         on-chain when its batch settles.",
        decimal(waiting),
        asset.symbol,
        decimal(on_chain)
    );
    ApiError::invalid("amount", "more_than_earned", text)
}
