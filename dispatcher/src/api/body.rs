//! Reading request bodies within limits of size and time, and parsing our own calls' JSON.

use super::error::ApiError;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Largest body of a chat call.
pub const CHAT_BYTES_MAX: usize = 1024 * 1024;
/// Largest body of our own calls.
pub const CALL_BYTES_MAX: usize = 64 * 1024;
/// How long a body may take.
pub const BODY_MS_MAX: u64 = 30_000;
/// How much of a body that is too large is read and thrown away, so that the client gets to read the refusal.
const DISCARD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The whole body, at most `bytes_max`.
pub(crate) async fn read(request: Request, bytes_max: usize) -> Result<Bytes, ApiError> {
    let limit = Duration::from_millis(BODY_MS_MAX);
    let reading = read_within(request.into_body(), bytes_max);
    match tokio::time::timeout(limit, reading).await {
        Ok(read) => read,
        Err(_) => {
            Err(ApiError::timeout(format!("The body did not arrive within {} s.", BODY_MS_MAX / 1_000)))
        }
    }
}

async fn read_within(mut body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    let mut kept = BytesMut::new();
    let mut came = 0usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiError::malformed("The body broke off."))?;
        let Ok(data) = frame.into_data() else { continue };
        came = came.saturating_add(data.len());
        if came > DISCARD_BYTES_MAX {
            break;
        }
        if came <= bytes_max {
            kept.extend_from_slice(&data);
        } else {
            kept = BytesMut::new();
        }
    }
    if came > bytes_max { Err(ApiError::too_large(bytes_max)) } else { Ok(kept.freeze()) }
}

/// The body of one of our own calls; an empty one counts as `{}`.
pub(crate) async fn json<T: DeserializeOwned>(request: Request) -> Result<T, ApiError> {
    let is_json = request.headers().get(header::CONTENT_TYPE).is_none_or(|value| {
        value.to_str().is_ok_and(|v| v.to_ascii_lowercase().starts_with("application/json"))
    });
    if !is_json {
        return Err(ApiError::malformed("Send JSON with content-type: application/json."));
    }
    let bytes = read(request, CALL_BYTES_MAX).await?;
    let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(bytes)
        .map_err(|e| ApiError::malformed(format!("The body is not what this call takes: {e}.")))
}
