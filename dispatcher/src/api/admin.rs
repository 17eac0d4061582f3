//! `POST /v1/admin/grants`: credit given by the platform. It is unbacked: spendable, never paid on-chain.

use super::auth;
use super::body;
use super::error::ApiError;
use super::refusals::{self, money};
use crate::access::random_16;
use crate::clock::now_us;
use crate::delivery::submit_until_known;
use crate::gateway::Shared;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use ledger::command::{Command, IssueGrant};
use ledger::query;
use protocol::EventBody;
use protocol::amount::Amount;
use protocol::asset::Asset;
use protocol::event::Actor;
use protocol::event::grant::{Backing, GrantSource};
use protocol::id::{AccountId, IdempotencyKey};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Consumed before deposits, which stand at a higher number.
const PRIORITY_DEFAULT: u8 = 10;

/// Body of the call.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GrantBody {
    account: AccountId,
    /// Decimal.
    amount: String,
    /// Symbol; the network's first asset when left out.
    asset: Option<String>,
    priority: Option<u8>,
    #[serde(default)]
    models: Vec<String>,
    expires_in_s: Option<u64>,
}

/// The call. `Idempotency-Key` is honoured.
pub(crate) async fn grant(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    auth::admin(&shared, request.headers())?;
    let key = match request.headers().get("idempotency-key").and_then(|v| v.to_str().ok()) {
        Some(text) => IdempotencyKey::from_client(AccountId::SYSTEM, text),
        None => IdempotencyKey::internal("grant", &[&random_16()?]),
    };
    let asked: GrantBody = body::json(request).await?;
    let asset = asset(&shared, asked.asset.as_deref()).await?;
    let amount = Amount::parse_decimal(&asked.amount, asset.ledger_scale)
        .map_err(|e| ApiError::invalid("amount", "invalid_value", format!("{e}.")))?;
    let mut scope = asked.models;
    scope.sort_unstable();
    scope.dedup();
    let body = IssueGrant {
        account: asked.account,
        source: GrantSource::Promo,
        asset: asset.id,
        amount,
        priority: asked.priority.unwrap_or(PRIORITY_DEFAULT),
        scope,
        expires_us: asked.expires_in_s.map(|s| now_us().saturating_add(s.saturating_mul(1_000_000))),
        backing: Backing::Unbacked,
    };
    let command = Command::new(key, Actor::Admin, body);
    let outcome = submit_until_known(&shared, command).await;
    let outcome = outcome.map_err(|error| refusals::api_error(&shared, error, Some(&asset)))?;
    let grant = outcome.events.iter().find_map(|event| match &event.body {
        EventBody::GrantIssued(issued) => Some(issued.grant),
        _ => None,
    });
    let body = json!({ "grant": grant, "account": asked.account, "amount": money(amount, &asset), "commit": outcome.commit });
    Ok((StatusCode::CREATED, Json(body)))
}

/// An asset by its symbol; the network's first without one.
pub(crate) async fn asset(shared: &Shared, symbol: Option<&str>) -> Result<Asset, ApiError> {
    let read = shared.client.read(|state| query::assets(state).to_vec());
    let assets = read.await.map_err(|error| refusals::api_error(shared, error, None))?;
    let found = match symbol {
        Some(symbol) => assets.into_iter().find(|a| a.symbol == symbol),
        None => assets.into_iter().next(),
    };
    found.ok_or_else(|| ApiError::invalid("asset", "invalid_value", "This network has no such asset."))
}
