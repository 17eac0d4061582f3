//! `GET /v1/models`, `/healthz`, `/readyz`.

use super::auth;
use super::error::ApiError;
use super::refusals::{self, money};
use crate::access::keys::Scope;
use crate::clock::now_us;
use crate::gateway::Shared;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use ledger::query;
use protocol::asset::Asset;
use protocol::rate::{ModelRate, RateCard, Unit};
use serde_json::{Value, json};
use std::sync::Arc;

/// The price list in force and the assets.
pub(crate) async fn in_force(shared: &Shared) -> Result<Option<(RateCard, Vec<Asset>)>, ApiError> {
    let now = now_us();
    let read = shared.client.read(move |state| {
        query::rate_card(state, now).map(|card| (card.card.clone(), query::assets(state).to_vec()))
    });
    read.await.map_err(|error| refusals::api_error(shared, error, None))
}

/// What can be asked of a language model beside its prompt; of an attested one, as far as its server does it.
const CONTROLS: &[&str] = &[
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "seed",
    "stop",
    "n",
    "logprobs",
    "tools",
    "response_format",
    "max_tokens",
];

/// The calls that a model of this unit is for.
fn calls(rate: &ModelRate) -> &'static [&'static str] {
    match rate.unit {
        Unit::Token => &["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/jobs"],
        Unit::Image => &["/v1/images/generations"],
        Unit::Second | Unit::Request => &[],
    }
}

fn describe(shared: &Shared, card: &RateCard, rate: &ModelRate, assets: &[Asset]) -> Option<Value> {
    let asset = assets.get(rate.asset.0 as usize)?;
    let served = shared.models.get(&rate.model);
    Some(json!({
        "id": rate.model,
        "object": "model",
        "created": card.effective_us / 1_000_000,
        "owned_by": "counterfoil",
        "counterfoil": {
            "price": money(rate.price, asset),
            "per_units": rate.per_units,
            "unit": rate.unit,
            "context_tokens": rate.context_tokens,
            "weights_sha256": rate.weights,
            "tokenizer": rate.tokenizer,
            "template": rate.template,
            "licence": rate.licence,
            "proof_class": rate.proof_class,
            "operator_share_ppm": rate.operator_share_ppm,
            "rate_card_version": card.version,
            "is_served_here": served.is_some(),
            "calls": calls(rate),
            "controls": CONTROLS,
            "has_tools_in_template": served.is_some_and(|model| model.template.tool_format().is_some()),
            "vocabulary_tokens": served.map(|model| model.tokenizer.vocabulary_size()),
        },
    }))
}

/// `GET /v1/models`
/// Prices are public, but a key that is given must be a key: clients check theirs here.
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    auth::caller_or_nobody(&shared, &headers, Scope::Inference)?;
    let data: Vec<Value> = match in_force(&shared).await? {
        Some((card, assets)) => {
            card.models.iter().filter_map(|rate| describe(&shared, &card, rate, &assets)).collect()
        }
        None => Vec::new(),
    };
    Ok(Json(json!({ "object": "list", "data": data })))
}

/// `GET /v1/models/{model}`
pub(crate) async fn one(
    State(shared): State<Arc<Shared>>,
    Path(model): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let found = in_force(&shared).await?;
    let described = found.and_then(|(card, assets)| {
        let rate = card.model(&model)?;
        describe(&shared, &card, rate, &assets)
    });
    described.map(Json).ok_or_else(|| ApiError::model_not_found(&model))
}

/// `GET /healthz`: this process answers.
pub(crate) async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// `GET /readyz`: a request could be served: the log answers, a tokenizer is loaded, a node is online.
pub(crate) async fn readyz(State(shared): State<Arc<Shared>>) -> (StatusCode, Json<Value>) {
    let log = shared.client.stopped().borrow().is_none()
        && shared.client.read(|state| query::network(state).is_some()).await.unwrap_or(false);
    let nodes = shared.table().online(now_us());
    let tokenizers = shared.models.len();
    let ready = log && nodes > 0 && tokenizers > 0 && !shared.is_stopping();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "ready": ready,
        "log_writable": log,
        "nodes_online": nodes,
        "tokenizers_loaded": tokenizers,
        "stopping": shared.is_stopping(),
    });
    (status, Json(body))
}
