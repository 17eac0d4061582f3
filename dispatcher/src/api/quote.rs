//! `POST /v1/quote`: what exactly this chat request would cost at most, before it is sent. Holds nothing.

use super::auth;
use super::body;
use super::error::ApiError;
use super::refusals::money;
use super::request::ChatRequest;
use crate::access::keys::Scope;
use crate::admission;
use crate::gateway::Shared;
use axum::Json;
use axum::extract::{Request, State};
use protocol::amount::Amount;
use protocol::rate::price_ceil;
use serde_json::{Value, json};
use std::sync::Arc;

/// The call; its body is a chat request's.
pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let account = auth::caller(&shared, request.headers(), Scope::Inference)?.account;
    let bytes = body::read(request, body::CHAT_BYTES_MAX).await?;
    let chat = ChatRequest::parse(&bytes)?;
    let model = shared.models.get(&chat.model).ok_or_else(|| ApiError::model_not_found(&chat.model))?;
    let ids = admission::tokenise(model, &chat)?;
    let quote = admission::quote(&shared, account, &chat, ids.len() as u64).await?;
    let prompt_only =
        price_ceil(quote.rate.price, quote.rate.per_units, quote.input_units).unwrap_or(Amount::ZERO);
    Ok(Json(json!({
        "model": quote.rate.model,
        "lane": shared.lane,
        "rate_card_version": quote.card_version,
        "price": money(quote.rate.price, &quote.asset),
        "per_units": quote.rate.per_units,
        "input_tokens": quote.input_units,
        "output_tokens_max": quote.output_units_max,
        "output_tokens_fixed": quote.is_fixed,
        "projected_cost": money(quote.projected, &quote.asset),
        "prompt_cost": money(prompt_only, &quote.asset),
        "available": money(quote.available, &quote.asset),
        "is_covered": quote.projected <= quote.available,
    })))
}
