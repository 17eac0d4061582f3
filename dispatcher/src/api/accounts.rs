//! Accounts and their keys. Opening one takes no wallet, no signature and no personal datum.

use super::auth;
use super::body;
use super::error::ApiError;
use super::refusals;
use crate::access::keys::{ALL_SCOPES, KEYS_PER_ACCOUNT_MAX, NewKey, Scope};
use crate::access::random_16;
use crate::clock::now_us;
use crate::delivery::{command, submit_until_known};
use crate::gateway::Shared;
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use ledger::command::OpenAccount;
use protocol::id::{AccountId, IdempotencyKey};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Longest name of a key.
const NAME_BYTES_MAX: usize = 100;

/// Opens an account in the log.
pub(crate) async fn open_account(shared: &Shared) -> Result<AccountId, ApiError> {
    let account = AccountId(random_16()?);
    let key = IdempotencyKey::internal("open account", &[&account.0]);
    submit_until_known(shared, command(key, OpenAccount { account }))
        .await
        .map_err(|error| refusals::api_error(shared, error, None))?;
    Ok(account)
}

/// `POST /v1/accounts`
pub(crate) async fn open(State(shared): State<Arc<Shared>>) -> Result<(StatusCode, Json<Value>), ApiError> {
    let account = open_account(&shared).await?;
    let new = new_key(&shared, account, "first".to_owned(), ALL_SCOPES.to_vec()).await?;
    let body = json!({ "account": account, "api_key": new.secret, "key": new.record });
    Ok((StatusCode::CREATED, Json(body)))
}

/// Body of `POST /v1/keys`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewKeyBody {
    #[serde(default)]
    name: String,
    scopes: Option<Vec<Scope>>,
}

/// `POST /v1/keys`
pub(crate) async fn create_key(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let account = auth::caller(&shared, request.headers(), Scope::Manage)?.account;
    let NewKeyBody { name, scopes } = body::json(request).await?;
    let mut scopes = scopes.unwrap_or_else(|| vec![Scope::Inference, Scope::Read]);
    scopes.sort_unstable();
    scopes.dedup();
    if scopes.is_empty() || name.len() > NAME_BYTES_MAX {
        let text = format!("A key has at least one scope and a name of at most {NAME_BYTES_MAX} bytes.");
        return Err(ApiError::invalid(
            if scopes.is_empty() { "scopes" } else { "name" },
            "invalid_value",
            text,
        ));
    }
    let new = new_key(&shared, account, name, scopes).await?;
    Ok((StatusCode::CREATED, Json(json!({ "api_key": new.secret, "key": new.record }))))
}

async fn new_key(
    shared: &Shared,
    account: AccountId,
    name: String,
    scopes: Vec<Scope>,
) -> Result<NewKey, ApiError> {
    shared.store.create_key(account, name, scopes, now_us()).await?.ok_or_else(|| {
        let text = format!("An account has at most {KEYS_PER_ACCOUNT_MAX} keys; revoke one first.");
        ApiError::conflict("too_many_keys", text)
    })
}

/// `GET /v1/keys`
pub(crate) async fn list_keys(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let account = auth::caller(&shared, &headers, Scope::Manage)?.account;
    Ok(Json(json!({ "object": "list", "data": shared.store.keys_of(account)? })))
}

/// `DELETE /v1/keys/{id}`
pub(crate) async fn revoke_key(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let account = auth::caller(&shared, &headers, Scope::Manage)?.account;
    if shared.store.revoke_key(account, &id).await? {
        return Ok(Json(json!({ "id": id, "revoked": true })));
    }
    Err(ApiError::not_found("key_not_found", "This account has no such key; GET /v1/keys lists them."))
}
