//! Who asks: an API key or a session's text as bearer, a session in our own pages' cookie, the administration's or an
//! auditor's key.

use super::error::ApiError;
use crate::access::keys::{ALL_SCOPES, Scope};
use crate::clock::now_us;
use crate::gateway::{Shared, hash_key};
use axum::http::{HeaderMap, header};
use protocol::id::{AccountId, SpenderId};

/// The cookie that carries a person's session.
pub const SESSION_COOKIE: &str = "counterfoil_session";

/// An authenticated caller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Principal {
    /// Whose account.
    pub account: AccountId,
    /// The key as the log knows it, when its spending is capped.
    pub spender: Option<SpenderId>,
    /// Models it may ask; empty = every one.
    pub models: Vec<String>,
}

impl Principal {
    /// Somebody who may spend an account's whole credit on any model.
    pub fn of(account: AccountId) -> Principal {
        Principal { account, spender: None, models: Vec::new() }
    }

    /// Refuses a model that the key is not for.
    ///
    /// # Errors
    /// 403.
    pub fn may_use(&self, model: &str) -> Result<(), ApiError> {
        if self.models.is_empty() || self.models.iter().any(|allowed| allowed == model) {
            return Ok(());
        }
        let mut error = ApiError::forbidden(format!("This key is for {} only.", self.models.join(", ")));
        error.code = "model_not_allowed";
        error.param = Some("model".to_owned());
        Err(error)
    }
}

/// The caller, if it may do what `scope` names.
pub(crate) fn caller(shared: &Shared, headers: &HeaderMap, scope: Scope) -> Result<Principal, ApiError> {
    caller_with_any(shared, headers, &[scope])
}

/// The caller, if one of its scopes is among `scopes`.
pub(crate) fn caller_with_any(
    shared: &Shared,
    headers: &HeaderMap,
    scopes: &[Scope],
) -> Result<Principal, ApiError> {
    let text = bearer(headers)?;
    let unknown = || {
        ApiError::unauthenticated(
            "This API key is not known here; it may have been revoked. POST /v1/accounts gives one.",
        )
    };
    let (principal, held) = if text.starts_with("cfs_") {
        let session = shared.store.session(text, now_us())?.ok_or_else(unknown)?;
        (Principal::of(session.account), ALL_SCOPES.to_vec())
    } else {
        let key = shared.store.key(text)?.ok_or_else(unknown)?;
        if key.expires_us.is_some_and(|at| at <= now_us()) {
            return Err(ApiError::unauthenticated("This API key has expired; make another: POST /v1/keys."));
        }
        (Principal { account: key.account, spender: key.spender, models: key.models }, key.scopes)
    };
    if scopes.iter().any(|scope| held.contains(scope)) {
        return Ok(principal);
    }
    let names: Vec<String> = scopes.iter().map(|s| serde_json::json!(s).to_string()).collect();
    Err(ApiError::forbidden(format!("This key may not do that; it takes scope {}.", names.join(" or ")))
        .with("scope", serde_json::json!(scopes.first())))
}

/// The caller if it says who it is, nobody if it says nothing.
pub(crate) fn caller_or_nobody(
    shared: &Shared,
    headers: &HeaderMap,
    scope: Scope,
) -> Result<Option<Principal>, ApiError> {
    if says_who(headers) { caller(shared, headers, scope).map(Some) } else { Ok(None) }
}

/// The administration.
pub(crate) fn admin(shared: &Shared, headers: &HeaderMap) -> Result<(), ApiError> {
    if hash_key(bearer(headers)?) == shared.admin_key {
        return Ok(());
    }
    Err(ApiError::unauthenticated("This call takes the administration's key."))
}

/// An auditor, or the administration where no auditor's key is set.
pub(crate) fn auditor(shared: &Shared, headers: &HeaderMap) -> Result<(), ApiError> {
    let given = hash_key(bearer(headers)?);
    if given == shared.auditor_key.unwrap_or(shared.admin_key) {
        return Ok(());
    }
    Err(ApiError::unauthenticated("This call takes an auditor's key."))
}

/// Whether a request says whose it is, rightly or not.
pub(crate) fn says_who(headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION) || session_cookie(headers).is_some()
}

/// The session that the browser holds for our pages.
pub(crate) fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == SESSION_COOKIE).map(|(_, text)| text).filter(|t| t.starts_with("cfs_"))
}

/// Whether the browser says that one of our own pages asks. The cookie is `SameSite=Strict` besides: what says nothing is
/// no browser, or a page that was typed in.
pub(crate) fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let site = headers.get("sec-fetch-site").map(|value| value.to_str().unwrap_or("?"));
    let site_fits = site.is_none_or(|site| matches!(site, "same-origin" | "none"));
    let origin_fits = match (text(header::ORIGIN), text(header::HOST)) {
        (None, _) => true,
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, at)| at == host),
        (Some(_), None) => false,
    };
    site_fits && origin_fits
}

/// The secret of the request: `Authorization`, else the cookie of our own pages.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let missing = || ApiError::unauthenticated("Send your API key as \"Authorization: Bearer cf_...\".");
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        let session = session_cookie(headers).ok_or_else(missing)?;
        return if is_same_origin(headers) {
            Ok(session)
        } else {
            Err(ApiError::forbidden("A session's cookie is only good for this network's own pages."))
        };
    };
    let value = value.to_str().map_err(|_| missing())?;
    let (scheme, text) = value.split_once(' ').ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case("bearer") && !text.trim().is_empty() {
        Ok(text.trim())
    } else {
        Err(missing())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn check(pairs: &[(&'static str, &'static str)], expected: Result<&str, u16>) {
        let headers = headers(pairs);
        let found = bearer(&headers).map_err(|error| error.status.as_u16());
        assert_eq!(found, expected, "{pairs:?}");
    }

    #[test]
    fn a_cookie_counts_only_for_our_own_pages() {
        let cookie = ("cookie", "theme=dark; counterfoil_session=cfs_a");
        let host = ("host", "127.0.0.1:8080");
        check(&[cookie, host], Ok("cfs_a"));
        check(&[cookie, host, ("origin", "http://127.0.0.1:8080")], Ok("cfs_a"));
        check(&[cookie, host, ("origin", "http://127.0.0.1:8081")], Err(403));
        check(&[cookie, host, ("origin", "null")], Err(403));
        check(&[cookie, host, ("sec-fetch-site", "same-origin")], Ok("cfs_a"));
        check(&[cookie, host, ("sec-fetch-site", "cross-site")], Err(403));
        check(&[cookie, host, ("sec-fetch-site", "same-site")], Err(403));
        check(&[("cookie", "counterfoil_session=cf_key"), host], Err(401));
        check(&[cookie, ("authorization", "Bearer cf_b"), ("origin", "https://else.where")], Ok("cf_b"));
        check(&[("cookie", "other=cfs_a")], Err(401));
    }
}
