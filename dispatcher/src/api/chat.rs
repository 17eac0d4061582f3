//! `POST /v1/chat/completions`.

use super::error::ApiError;
use super::request::ChatRequest;
use super::serving;
use crate::gateway::Shared;
use axum::extract::{Request, State};
use axum::response::Response;
use std::sync::Arc;

/// The call.
pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, ApiError> {
    serving::create(shared, request, ChatRequest::parse).await
}
