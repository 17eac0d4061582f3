//! For auditors: signed receipts as lines of JSON, and job contents as they are stored, sealed to the audit key.

use super::auth;
use super::error::ApiError;
use crate::gateway::Shared;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
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
    /// Go on after this job; the order is that of job ids.
    after: Option<JobId>,
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
    let mut lines = String::new();
    for (job, bytes) in shared.store.receipts_after(asked.after, limit)? {
        let encoded = data_encoding::BASE64.encode(&bytes);
        let line = json!({ "job": job, "hash": SignedReceipt::hash(&bytes), "signed_receipt": encoded });
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
