//! Errors as an OpenAI client expects them: always `message`, `type`, `param`, `code`. Statuses and codes are stable.
//! Must not: say anything about a prompt, a key or another account.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// Whether a client should try the same request again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// The client's own rules hold.
    Unsaid,
    /// Waiting does not help: SDKs obey `x-should-retry: false`.
    Never,
    /// After so many seconds.
    AfterSeconds(u32),
}

/// One refusal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// `error.type`.
    pub kind: &'static str,
    /// `error.code`.
    pub code: &'static str,
    /// `error.message`: what was expected, what came, what to do.
    pub message: String,
    /// `error.param`: the field it is about.
    pub param: Option<String>,
    /// Whether to come again.
    pub retry: Retry,
    /// More fields of `error`.
    pub details: Map<String, Value>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        ApiError {
            status,
            kind,
            code,
            message: message.into(),
            param: None,
            retry: Retry::Unsaid,
            details: Map::new(),
        }
    }

    /// 400: a field is wrong.
    pub fn invalid(param: &str, code: &'static str, message: impl Into<String>) -> Self {
        ApiError {
            param: Some(param.to_owned()),
            ..Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", code, message)
        }
    }

    /// 400: the body as a whole is wrong.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", "malformed_request", message)
    }

    /// 401.
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "authentication_error", "invalid_api_key", message)
    }

    /// 403.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_error", "insufficient_scope", message)
    }

    /// 402: what is missing stands in `details`.
    pub fn insufficient_credits(message: impl Into<String>, details: Map<String, Value>) -> Self {
        ApiError {
            retry: Retry::Never,
            details,
            ..Self::new(StatusCode::PAYMENT_REQUIRED, "insufficient_quota", "insufficient_credits", message)
        }
    }

    /// 404: no such model.
    pub fn model_not_found(model: &str) -> Self {
        let shown: String = model.chars().take(100).collect();
        ApiError {
            param: Some("model".to_owned()),
            ..Self::new(
                StatusCode::NOT_FOUND,
                "invalid_request_error",
                "model_not_found",
                format!("The model {shown:?} is not on the price list; GET /v1/models lists what is."),
            )
        }
    }

    /// 404: no such thing.
    pub fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", code, message)
    }

    /// 409; a client must not repeat it as it is.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        ApiError {
            retry: Retry::Never,
            ..Self::new(StatusCode::CONFLICT, "invalid_request_error", code, message)
        }
    }

    /// 413.
    pub fn too_large(bytes_max: usize) -> Self {
        let message = format!("The body is larger than {bytes_max} bytes; shorten the conversation.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", "body_too_large", message)
    }

    /// 408: the body came too slowly.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", "request_timeout", message)
    }

    /// 503: not now; waiting helps.
    pub fn unavailable(code: &'static str, message: impl Into<String>, retry_after_s: u32) -> Self {
        ApiError {
            retry: Retry::AfterSeconds(retry_after_s),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", code, message)
        }
    }

    /// 502: the node failed; nothing is charged.
    pub fn node_failed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "server_error", "node_failed", message)
    }

    /// 500: a bug of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "internal_error", message)
    }

    /// A field of `error` beside the four.
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.details.insert(key.to_owned(), value);
        self
    }

    /// `{"error": {...}}`.
    pub fn body(&self) -> Value {
        let mut error = self.details.clone();
        error.insert("message".to_owned(), json!(self.message));
        error.insert("type".to_owned(), json!(self.kind));
        error.insert("param".to_owned(), json!(self.param));
        error.insert("code".to_owned(), json!(self.code));
        json!({ "error": error })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let refresh_in_s = self.details.get("refresh_in_s").and_then(Value::as_u64);
        let mut response = (self.status, axum::Json(self.body())).into_response();
        let headers = response.headers_mut();
        match self.retry {
            Retry::Unsaid => {}
            Retry::Never => {
                headers.insert("x-should-retry", HeaderValue::from_static("false"));
            }
            Retry::AfterSeconds(seconds) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
                headers.insert("retry-after-ms", HeaderValue::from(u64::from(seconds) * 1_000));
            }
        }
        if let Some(seconds) = refresh_in_s {
            headers.insert("x-counterfoil-refresh-in", HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<crate::access::AccessError> for ApiError {
    fn from(error: crate::access::AccessError) -> Self {
        tracing::error!(target: "api", %error, "access store");
        ApiError::unavailable("store_unavailable", "The gateway's store cannot be read or written now.", 5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_four_keys_are_always_there() {
        let details = Map::from_iter([("needed".to_owned(), json!("1"))]);
        let all = [
            ApiError::invalid("n", "unsupported_parameter", "x"),
            ApiError::malformed("x"),
            ApiError::unauthenticated("x"),
            ApiError::forbidden("x"),
            ApiError::insufficient_credits("x", details),
            ApiError::model_not_found("gpt"),
            ApiError::not_found("job_not_found", "x"),
            ApiError::conflict("c", "x"),
            ApiError::too_large(1),
            ApiError::timeout("x"),
            ApiError::unavailable("c", "x", 2),
            ApiError::node_failed("x"),
            ApiError::internal("x"),
        ];
        for error in all {
            let body = error.body();
            let keys = body["error"].as_object().unwrap();
            for key in ["message", "type", "param", "code"] {
                assert!(keys.contains_key(key), "{key} of {error:?}");
            }
        }
    }

    #[test]
    fn a_402_says_what_is_missing_and_forbids_retries() {
        let details = Map::from_iter([("needed".to_owned(), json!("0.5"))]);
        let error = ApiError::insufficient_credits("Needs 0.5 CRD.", details);
        assert_eq!(
            error.body(),
            json!({ "error": { "message": "Needs 0.5 CRD.", "type": "insufficient_quota", "param": null,
                               "code": "insufficient_credits", "needed": "0.5" } })
        );
        let response = error.into_response();
        assert_eq!(response.status(), 402);
        assert_eq!(response.headers()["x-should-retry"], "false");
        assert_eq!(ApiError::conflict("c", "x").into_response().headers()["x-should-retry"], "false");
    }

    #[test]
    fn a_503_says_when_to_come_again() {
        let response = ApiError::unavailable("no_node", "x", 2).into_response();
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["retry-after-ms"], "2000");
    }
}
