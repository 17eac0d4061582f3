//! `POST /v1/quote`: what exactly this request (of a chat, a completion or a response) would cost at most, before it is sent.
//! Holds nothing.

use super::auth;
use super::body;
use super::error::ApiError;
use super::refusals::money;
use super::request::ChatRequest;
use super::request::fields::Fields;
use super::{completions, responses};
use crate::access::keys::Scope;
use crate::admission::{self, Quote};
use crate::gateway::Shared;
use axum::Json;
use axum::extract::{Request, State};
use protocol::amount::Amount;
use protocol::rate::price_ceil;
use serde_json::{Value, json};
use std::sync::Arc;

/// The call; its body is that of the request it is about.
pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let account = auth::caller(&shared, request.headers(), Scope::Inference)?.account;
    let bytes = body::read(request, body::CHAT_BYTES_MAX).await?;
    let order = parse(&bytes)?;
    let model = shared.models.get(&order.model).ok_or_else(|| ApiError::model_not_found(&order.model))?;
    let prompts = admission::tokenise_all(model, &order)?;
    let quotes = admission::quote_all(&shared, account, &order, &prompts).await?;
    let quote = quotes.first().ok_or_else(|| ApiError::internal("The request has no prompt."))?;
    let projected: Amount = quotes.iter().map(|quote| quote.projected).sum();
    let prompt_cost = |quote: &Quote| {
        price_ceil(quote.rate.price, quote.rate.per_units, quote.input_units).unwrap_or(Amount::ZERO)
    };
    Ok(Json(json!({
        "model": quote.rate.model,
        "lane": shared.lane,
        "rate_card_version": quote.card_version,
        "price": money(quote.rate.price, &quote.asset),
        "per_units": quote.rate.per_units,
        "choices": quotes.len(),
        "input_tokens": quotes.iter().map(|quote| quote.input_units).sum::<u64>(),
        "output_tokens_max": quote.output_units_max,
        "output_tokens_fixed": quote.is_fixed,
        "projected_cost": money(projected, &quote.asset),
        "prompt_cost": money(quotes.iter().map(prompt_cost).sum(), &quote.asset),
        "available": money(quote.available, &quote.asset),
        "is_covered": projected <= quote.available,
        "refresh_at_us": quote.refresh_us,
    })))
}

/// Which call's body it is, by the field that only that call has.
pub(crate) fn parse(bytes: &[u8]) -> Result<ChatRequest, ApiError> {
    let fields = Fields::parse(bytes)?;
    match (fields.get("input"), fields.get("prompt")) {
        (Some(_), None) => responses::parse(bytes),
        (None, Some(_)) => completions::parse(bytes),
        _ => ChatRequest::parse(bytes),
    }
}
