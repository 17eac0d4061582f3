//! Accounts and their keys. Opening one takes no wallet, no signature and no personal datum.

use super::admin;
use super::auth;
use super::body;
use super::error::ApiError;
use super::models;
use super::refusals::{self, money};
use crate::access::keys::{ALL_SCOPES, KEYS_PER_ACCOUNT_MAX, KeyTerms, NewKey, Scope};
use crate::access::random_16;
use crate::clock::now_us;
use crate::delivery::{command, submit_until_known};
use crate::gateway::Shared;
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use ledger::command::{CloseAccount, Command, OpenAccount, SetSpendCap};
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
/// Most models that a key names.
const KEY_MODELS_MAX: usize = 64;

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
    let new = new_key(&shared, account, first_key()).await?;
    let body = json!({ "account": account, "api_key": new.secret, "key": new.record });
    Ok((StatusCode::CREATED, Json(body)))
}

/// Body of `POST /v1/accounts/close`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CloseBody {
    /// The account's own id: nobody closes one by mistake.
    account: String,
}

/// `POST /v1/accounts/close`: closes it in the log, shreds its contents (their key is deleted), revokes every key.
pub(crate) async fn close(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let account = auth::caller(&shared, request.headers(), Scope::Manage)?.account;
    let CloseBody { account: named } = body::json(request).await?;
    if named != account.to_string() {
        let text = format!("To close this account send its id, {account}.");
        return Err(ApiError::invalid("account", "invalid_value", text));
    }
    let now = now_us();
    let read = shared.client.read(move |state| query::balance(state, account, now));
    let balances = read.await.map_err(|error| refusals::api_error(&shared, error, None))?;
    if balances.iter().any(|balance| balance.held.0 > 0 || balance.reserved_for_withdrawal.0 > 0) {
        let text = "Jobs or withdrawals of this account are still open; wait for them, then close it.";
        return Err(ApiError::conflict("account_busy", text));
    }
    let key = IdempotencyKey::internal("close account", &[&account.0]);
    let command = Command::new(key, Actor::Account(account), CloseAccount { account });
    match submit_until_known(&shared, command).await {
        Ok(_) => {}
        // It was closed before, and what follows was not done then.
        Err(journal::SubmitError::Refused { refusal, .. }) if refusal.name() == "account_is_closed" => {}
        Err(error) => return Err(refusals::api_error(&shared, error, None)),
    }
    let store = shared.store.clone();
    let shredded = tokio::task::spawn_blocking(move || store.shred_contents(account)).await;
    let shredded = shredded.map_err(|_| ApiError::internal("The contents' key could not be deleted."))??;
    let keys = shared.store.keys_of(account)?;
    for key in &keys {
        shared.store.revoke_key(account, &key.id).await?;
    }
    Ok(Json(json!({
        "account": account,
        "closed": true,
        "contents_shredded": shredded,
        "keys_revoked": keys.len(),
    })))
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
    /// Models it may ask; every one when left out.
    #[serde(default)]
    models: Vec<String>,
    /// When it stops working, microseconds UTC.
    expires_us: Option<u64>,
    /// The same, in seconds from now.
    expires_in_s: Option<u64>,
}

fn first_key() -> KeyTerms {
    let (name, scopes) = ("first".to_owned(), ALL_SCOPES.to_vec());
    KeyTerms { name, scopes, models: Vec::new(), expires_us: None, spender: None }
}

async fn check_models(shared: &Shared, models: &[String]) -> Result<(), ApiError> {
    if models.len() > KEY_MODELS_MAX {
        let text = format!("A key names at most {KEY_MODELS_MAX} models.");
        return Err(ApiError::invalid("models", "invalid_value", text));
    }
    let Some((card, _)) = models::in_force(shared).await? else { return Ok(()) };
    match models.iter().find(|model| card.model(model).is_none()) {
        Some(unknown) => Err(ApiError::model_not_found(unknown)),
        None => Ok(()),
    }
}

fn expiry(at_us: Option<u64>, in_s: Option<u64>) -> Result<Option<u64>, ApiError> {
    let at = match (at_us, in_s) {
        (Some(_), Some(_)) => {
            let text = "Give \"expires_us\" or \"expires_in_s\", not both.";
            return Err(ApiError::invalid("expires_in_s", "invalid_value", text));
        }
        (at, None) => at,
        (None, Some(seconds)) => Some(now_us().saturating_add(seconds.saturating_mul(1_000_000))),
    };
    match at.filter(|at| *at <= now_us()) {
        Some(_) => Err(ApiError::invalid("expires_us", "invalid_value", "A key must expire in the future.")),
        None => Ok(at),
    }
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
    let NewKeyBody { name, scopes, spend_cap, mut models, expires_us, expires_in_s } =
        body::json(request).await?;
    models.sort_unstable();
    models.dedup();
    check_models(&shared, &models).await?;
    let expires_us = expiry(expires_us, expires_in_s)?;
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
    let terms = KeyTerms { name, scopes, models, expires_us, spender };
    let new = new_key(&shared, account, terms).await?;
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

async fn new_key(shared: &Shared, account: AccountId, terms: KeyTerms) -> Result<NewKey, ApiError> {
    shared.store.create_key(account, terms, now_us()).await?.ok_or_else(|| {
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
