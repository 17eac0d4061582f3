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
