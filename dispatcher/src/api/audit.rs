//! For auditors: signed receipts as lines of JSON in the order of their charges, and job contents as they are stored, sealed to the audit key.

use super::auth;
use super::error::ApiError;
use super::refusals;
use crate::gateway::Shared;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use ledger::query::captures_after as query_captures;
use protocol::id::JobId;
use protocol::receipt::SignedReceipt;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

/// Most receipts in one answer.
pub const RECEIPTS_MAX: usize = 1_000;

/// Query of `GET /v1/audit/receipts`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReceiptsQuery {
    /// Go on after the charge at this leaf.
    after: Option<u64>,
    limit: Option<usize>,
}

/// `GET /v1/audit/receipts`
pub(crate) async fn receipts(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    query: Result<Query<ReceiptsQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    auth::auditor(&shared, &headers)?;
    let Query(asked) = query.map_err(|e| ApiError::malformed(format!("{}.", e.body_text())))?;
    let limit = asked.limit.unwrap_or(RECEIPTS_MAX).min(RECEIPTS_MAX);
    let read = shared.client.read(move |state| query_captures(state, asked.after, limit)).await;
    let mut lines = String::new();
    for (leaf, job) in read.map_err(|error| refusals::api_error(&shared, error, None))? {
        // A capture without a stored receipt cannot be: it is stored before. Left out, the auditor names it as missing.
        let Some(bytes) = shared.store.receipt(&job)? else { continue };
        let encoded = data_encoding::BASE64.encode(&bytes);
        let line =
            json!({ "leaf": leaf, "job": job, "hash": SignedReceipt::hash(&bytes), "receipt": encoded });
        lines.push_str(&line.to_string());
        lines.push('\n');
    }
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))];
    Ok((kind, Body::from(lines)).into_response())
}

/// `GET /v1/audit/contents/{job}`: a libsodium sealed box; only the audit key opens it.
pub(crate) async fn contents(
    State(shared): State<Arc<Shared>>,
    Path(job): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    auth::auditor(&shared, &headers)?;
    let job: JobId =
        job.parse().map_err(|error| ApiError::invalid("job", "invalid_value", format!("{error}.")))?;
    let missing = || ApiError::not_found("contents_not_found", "No contents of that job are kept.");
    let sealed = shared.store.contents_for_audit(&job)?.ok_or_else(missing)?;
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))];
    Ok((kind, Body::from(sealed)).into_response())
}
