//! Accounts and their keys. Opening one takes no wallet, no signature and no personal datum.

use super::admin;
use super::auth;
use super::body;
use super::error::ApiError;
use super::refusals::{self, money};
use crate::access::keys::{ALL_SCOPES, KEYS_PER_ACCOUNT_MAX, NewKey, Scope};
use crate::access::random_16;
use crate::clock::now_us;
use crate::delivery::{command, submit_until_known};
use crate::gateway::Shared;
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use ledger::command::{Command, OpenAccount, SetSpendCap};
use ledger::query;
use protocol::amount::Amount;
use protocol::asset::Asset;
use protocol::event::Actor;
use protocol::id::{AccountId, EvmAddress, IdempotencyKey, SpenderId};
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

/// Opens the account that an address is by itself, unless it is open.
pub(crate) async fn open_own_account(shared: &Shared, wallet: EvmAddress) -> Result<AccountId, ApiError> {
    let account = AccountId::of_wallet(wallet);
    let known = shared.client.read(move |state| query::account_exists(state, account)).await;
    if known.map_err(|error| refusals::api_error(shared, error, None))? {
        return Ok(account);
    }
    let key = IdempotencyKey::internal("account of an address", &[&account.0]);
    match submit_until_known(shared, command(key, OpenAccount { account })).await {
        Ok(_) => Ok(account),
        // Somebody else was faster: the same account.
        Err(journal::SubmitError::Refused { refusal, .. }) if refusal.name() == "account_known" => {
            Ok(account)
        }
        Err(error) => Err(refusals::api_error(shared, error, None)),
    }
}

/// `POST /v1/accounts`
pub(crate) async fn open(State(shared): State<Arc<Shared>>) -> Result<(StatusCode, Json<Value>), ApiError> {
    let account = open_account(&shared).await?;
    let new = new_key(&shared, account, "first".to_owned(), ALL_SCOPES.to_vec(), None).await?;
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
    /// All that the key may ever spend; without it, as much as the account has.
    spend_cap: Option<SpendCap>,
}

/// A cap on what a key spends, charges and open holds together, for life.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpendCap {
    /// Decimal; `null` takes the cap away.
    amount: Option<String>,
    /// Symbol; the network's first asset when left out.
    asset: Option<String>,
}

/// `POST /v1/keys`
pub(crate) async fn create_key(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let account = auth::caller(&shared, request.headers(), Scope::Manage)?.account;
    let NewKeyBody { name, scopes, spend_cap } = body::json(request).await?;
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
    let spender = match spend_cap {
        Some(cap) => {
            let spender = SpenderId(random_16()?);
            // The cap first: a key never spends without the cap it was made with.
            set_cap(&shared, account, spender, cap).await?;
            Some(spender)
        }
        None => None,
    };
    let new = new_key(&shared, account, name, scopes, spender).await?;
    Ok((StatusCode::CREATED, Json(json!({ "api_key": new.secret, "key": new.record }))))
}

/// `PUT /v1/keys/{id}/spend_cap`
pub(crate) async fn cap_key(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let account = auth::caller(&shared, request.headers(), Scope::Manage)?.account;
    let cap: SpendCap = body::json(request).await?;
    let spender = shared.store.name_spender(account, &id, SpenderId(random_16()?)).await?;
    let spender = spender.ok_or_else(no_such_key)?;
    let cap = set_cap(&shared, account, spender, cap).await?;
    Ok(Json(json!({ "id": id, "spender": spender, "spend_cap": cap })))
}

async fn set_cap(
    shared: &Shared,
    account: AccountId,
    spender: SpenderId,
    cap: SpendCap,
) -> Result<Value, ApiError> {
    let asset = admin::asset(shared, cap.asset.as_deref()).await?;
    let amount = match &cap.amount {
        Some(text) => Some(
            Amount::parse_decimal(text, asset.ledger_scale)
                .map_err(|e| ApiError::invalid("spend_cap", "invalid_value", format!("{e}.")))?,
        ),
        None => None,
    };
    let key = IdempotencyKey::internal("spend cap", &[&random_16()?]);
    let body = SetSpendCap { account, spender, asset: asset.id, cap: amount };
    let command = Command::new(key, Actor::Account(account), body);
    let outcome = submit_until_known(shared, command).await;
    outcome.map_err(|error| refusals::api_error(shared, error, Some(&asset)))?;
    Ok(json!(amount.map(|amount| money(amount, &asset))))
}

/// A decimal amount above zero.
pub(crate) fn positive(text: &str, asset: &Asset) -> Result<Amount, ApiError> {
    let amount = Amount::parse_decimal(text, asset.ledger_scale)
        .map_err(|e| ApiError::invalid("amount", "invalid_value", format!("{e}.")))?;
    if amount.0 <= 0 {
        return Err(ApiError::invalid("amount", "invalid_value", "The amount must be above zero."));
    }
    Ok(amount)
}

fn no_such_key() -> ApiError {
    ApiError::not_found("key_not_found", "This account has no such key; GET /v1/keys lists them.")
}

async fn new_key(
    shared: &Shared,
    account: AccountId,
    name: String,
    scopes: Vec<Scope>,
    spender: Option<SpenderId>,
) -> Result<NewKey, ApiError> {
    shared.store.create_key(account, name, scopes, spender, now_us()).await?.ok_or_else(|| {
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
    Err(no_such_key())
}
