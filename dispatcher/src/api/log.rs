//! The log for auditors: the transparency log's static files (anybody may have them) and whole commits (auditors only),
//! both from the data directory that the coordinator's roles share.

use super::auth;
use super::error::ApiError;
use crate::gateway::Shared;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use journal::ArchiveReader;
use serde::Deserialize;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;

/// Commits in one page at most.
const COMMITS_PER_PAGE_MAX: usize = 256;

/// `GET /tlog/{path}`: `checkpoint`, `checkpoint.witnessed`, `tile/...`.
pub(crate) async fn tile(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<String>,
) -> Result<Response, ApiError> {
    let missing =
        || ApiError::not_found("not_found", "The log has no such file; see specs/log.md for its paths.");
    // Only the names that the format knows: no dots but in `x001` groups' `.p/`, nothing upwards.
    let fits = matches!(path.as_str(), "checkpoint" | "checkpoint.witnessed")
        || (path.starts_with("tile/")
            && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/.".contains(&b)));
    if !fits || path.contains("..") {
        return Err(missing());
    }
    let file = shared.data_dir.join("tlog").join(&path);
    let bytes = tokio::fs::read(file).await.map_err(|_| missing())?;
    let kind =
        if path.starts_with("checkpoint") { "text/plain; charset=utf-8" } else { "application/octet-stream" };
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], Body::from(bytes)).into_response())
}

/// Query of `GET /v1/audit/commits`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommitsQuery {
    from: Option<u64>,
    limit: Option<usize>,
}

/// `GET /v1/audit/commits?from=&limit=`: NDJSON of `{number, bytes}`; an empty page is the end.
pub(crate) async fn commits(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    query: Result<Query<CommitsQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    auth::auditor(&shared, &headers)?;
    let Query(asked) = query.map_err(|e| ApiError::malformed(format!("{}.", e.body_text())))?;
    let (from, limit) = (asked.from.unwrap_or(1), asked.limit.unwrap_or(COMMITS_PER_PAGE_MAX));
    let dir = shared.data_dir.clone();
    // Nothing beyond what is committed: the archive's open record may still be on its way.
    let last = shared.client.position().borrow().commit;
    let read = tokio::task::spawn_blocking(move || page(dir, from, limit.min(COMMITS_PER_PAGE_MAX), last));
    let lines = read.await.map_err(|e| e.to_string()).and_then(|page| page);
    let lines = lines.map_err(|reason| {
        tracing::error!(target: "api", reason, "the archive cannot be read");
        ApiError::unavailable("archive_unavailable", "The log's archive cannot be read now.", 5)
    })?;
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))];
    Ok((kind, Body::from(lines)).into_response())
}

fn page(dir: PathBuf, from: u64, limit: usize, last: u64) -> Result<String, String> {
    let mut lines = String::new();
    let archive = ArchiveReader::open(&dir).map_err(|e| e.to_string())?;
    for commit in archive.commits(from).take(limit) {
        let commit = commit.map_err(|e| e.to_string())?;
        if commit.number > last {
            break;
        }
        let bytes = data_encoding::BASE64.encode(&commit.bytes);
        lines.push_str(&json!({"number": commit.number, "bytes": bytes}).to_string());
        lines.push('\n');
    }
    Ok(lines)
}
