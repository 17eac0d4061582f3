//! `POST /v1/embeddings` and `POST /v1/images/generations`: calls for which job protocol 1 has no job. They are understood, and
//! refused by what is wrong with them; a client learns that no node serves them, not that the address is unknown. Nothing is
//! held or charged.

use super::auth;
use super::body;
use super::error::ApiError;
use super::models;
use super::request::fields::{Fields, missing, wrong};
use crate::access::keys::Scope;
use crate::gateway::Shared;
use axum::extract::{Request, State};
use axum::response::Response;
use protocol::rate::Unit;
use serde_json::{Value, json};
use std::sync::Arc;

/// Texts of one call.
const INPUTS_MAX: usize = 2_048;

/// `POST /v1/embeddings`
pub(crate) async fn embeddings(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (model, fields) = read(&shared, request).await?;
    let input = fields.get("input").ok_or_else(|| missing("input", "a text or a list of texts"))?;
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    let is_ids = |list: &[Value]| !list.is_empty() && list.iter().all(Value::is_u64);
    let fits = match input {
        Value::Array(list) if list.len() <= INPUTS_MAX => {
            is_ids(list)
                || (!list.is_empty()
                    && list.iter().all(|one| is_text(one) || one.as_array().is_some_and(|ids| is_ids(ids))))
        }
        one => is_text(one),
    };
    if !fits {
        return Err(wrong(
            "input",
            &format!("a text, token ids, or a list of at most {INPUTS_MAX} of them, none empty"),
        ));
    }
    match fields.text("encoding_format")?.as_deref() {
        None | Some("float" | "base64") => {}
        Some(_) => return Err(wrong("encoding_format", "float or base64")),
    }
    Err(no_node(&model, "embeddings"))
}

/// `POST /v1/images/generations`
pub(crate) async fn images(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (model, fields) = read(&shared, request).await?;
    let prompt = fields.text("prompt")?.filter(|prompt| !prompt.is_empty());
    prompt.ok_or_else(|| missing("prompt", "a text"))?;
    fields.whole("n", 1, 10)?;
    let unit = models::in_force(&shared).await?.and_then(|(card, _)| Some(card.model(&model)?.unit));
    if unit != Some(Unit::Image) {
        let text = format!("{model:?} makes no images; GET /v1/models says what it is.");
        return Err(ApiError::invalid("model", "model_not_suitable", text));
    }
    Err(no_node(&model, "images"))
}

async fn read(shared: &Shared, request: Request) -> Result<(String, Fields), ApiError> {
    let caller = auth::caller(shared, request.headers(), Scope::Inference)?;
    let bytes = body::read(request, body::CHAT_BYTES_MAX).await?;
    let fields = Fields::parse(&bytes)?;
    let model = fields.model()?;
    caller.may_use(&model)?;
    let known = models::in_force(shared).await?.is_some_and(|(card, _)| card.model(&model).is_some());
    if known { Ok((model, fields)) } else { Err(ApiError::model_not_found(&model)) }
}

fn no_node(model: &str, what: &str) -> ApiError {
    let text = format!("No node of this network serves {what} with {model:?}; nothing is charged.");
    let mut error = ApiError::unavailable("no_node_available", text, 60).with("reason", json!("not_served"));
    // Waiting seconds does not bring one.
    error.retry = super::error::Retry::Never;
    error
}
