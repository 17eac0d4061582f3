//! Who asks: an API key or a session's text as bearer, the administration's or an auditor's key.

use super::error::ApiError;
use crate::access::keys::{ALL_SCOPES, Scope};
use crate::clock::now_us;
use crate::gateway::{Shared, hash_key};
use axum::http::{HeaderMap, header};
use protocol::id::{AccountId, SpenderId};

/// An authenticated caller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Principal {
    /// Whose account.
    pub account: AccountId,
    /// The key as the log knows it, when its spending is capped.
    pub spender: Option<SpenderId>,
}

/// The caller, if it may do what `scope` names.
pub(crate) fn caller(shared: &Shared, headers: &HeaderMap, scope: Scope) -> Result<Principal, ApiError> {
    let text = bearer(headers)?;
    let (account, scopes, spender) = if text.starts_with("cfs_") {
        let session = shared.store.session(text, now_us())?;
        (session.map(|s| s.account), ALL_SCOPES.to_vec(), None)
    } else {
        let key = shared.store.key(text)?;
        key.map_or((None, Vec::new(), None), |k| (Some(k.account), k.scopes, k.spender))
    };
    let account = account.ok_or_else(|| {
        ApiError::unauthenticated(
            "This API key is not known here; it may have been revoked. POST /v1/accounts gives one.",
        )
    })?;
    if scopes.contains(&scope) {
        Ok(Principal { account, spender })
    } else {
        let needed = serde_json::json!(scope);
        Err(ApiError::forbidden(format!("This key may not do that; it takes scope {needed}."))
            .with("scope", needed))
    }
}

/// The caller if it says who it is, nobody if it says nothing.
pub(crate) fn caller_or_nobody(
    shared: &Shared,
    headers: &HeaderMap,
    scope: Scope,
) -> Result<Option<Principal>, ApiError> {
    if headers.contains_key(header::AUTHORIZATION) {
        caller(shared, headers, scope).map(Some)
    } else {
        Ok(None)
    }
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

fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let missing = || ApiError::unauthenticated("Send your API key as \"Authorization: Bearer cf_...\".");
    let value = headers.get(header::AUTHORIZATION).ok_or_else(missing)?.to_str().map_err(|_| missing())?;
    let (scheme, text) = value.split_once(' ').ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case("bearer") && !text.trim().is_empty() {
        Ok(text.trim())
    } else {
        Err(missing())
    }
}
