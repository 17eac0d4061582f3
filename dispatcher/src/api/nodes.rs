//! Operators and nodes: registration, and the one reason why a node is or is not routed.

use super::auth;
use super::body;
use super::error::ApiError;
use super::refusals;
use super::sessions::door_error;
use crate::access::keys::Scope;
use crate::access::random_16;
use crate::clock::now_us;
use crate::delivery::submit_until_known;
use crate::gateway::Shared;
use crate::roster;
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use journal::SubmitError;
use ledger::Refusal;
use ledger::command::{Command, CommandBody};
use ledger::query::{self, NodeView};
use protocol::amount::Amount;
use protocol::event::Actor;
use protocol::event::node::{NodeRegistered, OperatorRegistered};
use protocol::id::{EvmAddress, IdempotencyKey, NodeId, OperatorId, SealingKey};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Most nodes in one answer.
const NODES_LISTED_MAX: usize = 1_000;
/// Most concurrent jobs a node may declare.
const SLOTS_MAX: u32 = 4_096;

/// Body of `POST /v1/operators`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OperatorBody {
    operator: String,
    payout_address: EvmAddress,
}

fn operator_id(text: &str) -> Result<OperatorId, ApiError> {
    text.parse().map_err(|error| ApiError::invalid("operator", "invalid_value", format!("{error}.")))
}

async fn submit(
    shared: &Shared,
    operator: OperatorId,
    body: impl Into<CommandBody>,
) -> Result<(), SubmitError> {
    let key = IdempotencyKey::internal("registration", &[&random_16().unwrap_or_default()]);
    let command = Command::new(key, Actor::Operator(operator), body);
    submit_until_known(shared, command).await.map(drop)
}

/// `POST /v1/operators`: registers the account's operator key and hands out its credentials; again for one that is
/// registered already.
pub(crate) async fn register_operator(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let account = auth::caller(&shared, request.headers(), Scope::Manage)?.account;
    let asked: OperatorBody = body::json(request).await?;
    let operator = operator_id(&asked.operator)?;
    let issuer = shared.operators.as_ref().ok_or_else(|| {
        ApiError::not_found("no_operators", "This network registers no operators through its API.")
    })?;
    let body = OperatorRegistered { operator, account, payout_address: asked.payout_address };
    let status = match submit(&shared, operator, body).await {
        Ok(()) => StatusCode::CREATED,
        Err(SubmitError::Refused { refusal: Refusal::OperatorKnown { .. }, .. })
            if owns(&shared, operator, account).await? =>
        {
            StatusCode::OK
        }
        Err(error) => return Err(refusals::api_error(&shared, error, None)),
    };
    let credentials = issuer.issue(&operator).await.map_err(door_error)?;
    let body = json!({
        "operator": operator,
        "account": account,
        "payout_address": asked.payout_address,
        "nats_jwt": credentials.jwt,
        "nats_url": credentials.nats_url,
    });
    Ok((status, Json(body)))
}

async fn owns(
    shared: &Shared,
    operator: OperatorId,
    account: protocol::id::AccountId,
) -> Result<bool, ApiError> {
    let read = shared.client.read(move |state| query::operator(state, operator).map(|o| o.account));
    let owner = read.await.map_err(|error| refusals::api_error(shared, error, None))?;
    Ok(owner == Some(account))
}

/// Body of `POST /v1/nodes`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeBody {
    node: Option<NodeId>,
    operator: String,
    models: Vec<String>,
    slots: u32,
    sealing_key: SealingKey,
}

/// `POST /v1/nodes`: registers a node, or replaces what it declares.
pub(crate) async fn register_node(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let account = auth::caller(&shared, request.headers(), Scope::Manage)?.account;
    let asked: NodeBody = body::json(request).await?;
    let operator = operator_id(&asked.operator)?;
    if !owns(&shared, operator, account).await? {
        return Err(ApiError::forbidden("This operator is not registered by this account."));
    }
    if asked.slots == 0 || asked.slots > SLOTS_MAX {
        return Err(ApiError::invalid(
            "slots",
            "invalid_value",
            format!("\"slots\" must be 1 to {SLOTS_MAX}."),
        ));
    }
    let mut models = asked.models;
    models.sort_unstable();
    models.dedup();
    let node = match asked.node {
        Some(node) => node,
        None => NodeId(random_16()?),
    };
    let body = NodeRegistered { node, operator, models, slots: asked.slots, sealing_key: asked.sealing_key };
    let registered =
        json!({ "node": body.node, "operator": operator, "models": body.models, "slots": body.slots });
    submit(&shared, operator, body).await.map_err(|error| refusals::api_error(&shared, error, None))?;
    roster::refresh(&shared, node).await.map_err(|error| refusals::api_error(&shared, error, None))?;
    Ok((StatusCode::CREATED, Json(registered)))
}

/// `GET /v1/nodes`
pub(crate) async fn list(State(shared): State<Arc<Shared>>) -> Result<Json<Value>, ApiError> {
    let nodes = shared.client.read(query::nodes).await;
    let nodes = nodes.map_err(|error| refusals::api_error(&shared, error, None))?;
    let shown = nodes.iter().filter(|node| !node.retired).take(NODES_LISTED_MAX);
    let data: Vec<Value> = shown.map(|node| describe(&shared, node)).collect();
    Ok(Json(json!({ "object": "list", "data": data })))
}

/// `GET /v1/nodes/{node}`
pub(crate) async fn one(
    State(shared): State<Arc<Shared>>,
    Path(node): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let id: NodeId =
        node.parse().map_err(|error| ApiError::invalid("node", "invalid_value", format!("{error}.")))?;
    let read = shared.client.read(move |state| query::node(state, id));
    let view = read.await.map_err(|error| refusals::api_error(&shared, error, None))?;
    let view = view.ok_or_else(|| ApiError::not_found("node_unknown", "No such node is registered."))?;
    let mut told = describe(&shared, &view);
    told["earnings"] = earnings(&shared, view.operator).await?;
    Ok(Json(told))
}

/// What the node's operator earned with all its nodes, in whole units. The log that everybody may read says the same.
async fn earnings(shared: &Shared, operator: OperatorId) -> Result<Value, ApiError> {
    let read = shared.client.read(move |state| {
        let assets = query::assets(state).to_vec();
        (query::earnings(state, operator), assets)
    });
    let (lines, assets) = read.await.map_err(|error| refusals::api_error(shared, error, None))?;
    let line = |line: query::Earnings| {
        let asset = assets.get(line.asset.0 as usize)?;
        let text = |amount: Amount| amount.to_decimal_string(asset.ledger_scale);
        Some(json!({
            "asset": asset.symbol,
            "accrued": text(line.accrued),
            "settling": text(line.settling),
            "payable": text(line.payable),
            "claimed": text(line.claimed),
        }))
    };
    Ok(lines.into_iter().filter_map(line).collect())
}

fn describe(shared: &Shared, view: &NodeView) -> Value {
    let now = now_us();
    let table = shared.table();
    let why: Map<String, Value> =
        view.models.iter().map(|model| (model.clone(), json!(table.why(&view.node, model, now)))).collect();
    let standing = table.standing(&view.node, now);
    let breaker = table.parked_until_us(&view.node, now);
    json!({
        "standing": standing,
        "parked_until_us": breaker,
        "node": view.node,
        "operator": view.operator,
        "models": view.models,
        "slots": view.slots,
        "retired": view.retired,
        "online": table.is_alive(&view.node, now),
        "inflight": table.inflight(&view.node),
        "why": why,
    })
}
