//! One prompt in the wallet: the `SpendAuthorisation` that it signs carries the hash of our nonce, and so is sign-in and
//! spending limit at once.

use super::accounts::open_own_account;
use super::auth;
use super::body;
use super::error::ApiError;
use super::refusals;
use crate::access::keys::Scope;
use crate::access::sessions::{NONCE_LIFE_US, SESSION_LIFE_US, session_hash};
use crate::clock::now_us;
use crate::delivery::submit_until_known;
use crate::doors::{AuthorisationTerms, ChainDoor, DoorError};
use crate::gateway::Shared;
use axum::Json;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use ledger::command::Command;
use ledger::query;
use protocol::amount::Amount;
use protocol::asset::{VAULT_SCALE, VaultRef};
use protocol::event::Actor;
use protocol::event::account::SpendAuthorised;
use protocol::id::{AccountId, EvmAddress, EvmSignature, IdempotencyKey};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Shortest and default life of an authorisation: nobody signs twice within 90 days.
const VALID_S_DEFAULT: u64 = 180 * 86_400;

/// What a door's answer means to the caller.
pub(crate) fn door_error(error: DoorError) -> ApiError {
    match error {
        DoorError::Refused(text) => ApiError::invalid("signature", "refused_by_chain", format!("{text}.")),
        DoorError::Unavailable(reason) => {
            tracing::warn!(target: "api", reason, "chain not reachable");
            ApiError::unavailable(
                "chain_unavailable",
                "The chain cannot be reached now; nothing happened.",
                5,
            )
        }
    }
}

/// The chain, where there is one.
pub(crate) fn chain(shared: &Shared) -> Result<&Arc<dyn ChainDoor>, ApiError> {
    shared
        .chain
        .as_ref()
        .ok_or_else(|| ApiError::not_found("no_chain", "This network has no vault on a chain."))
}

/// The vault a request names, or the network's only one.
pub(crate) fn vault(chain: &Arc<dyn ChainDoor>, named: Option<VaultBody>) -> Result<VaultRef, ApiError> {
    let named = named.map(|v| VaultRef { chain_id: v.chain_id, vault: v.vault });
    let missing =
        || ApiError::invalid("vault", "missing_required_parameter", "Name a vault: chain_id and vault.");
    named.or_else(|| chain.default_vault()).ok_or_else(missing)
}

/// A vault in a body.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VaultBody {
    chain_id: u64,
    vault: EvmAddress,
}

/// `GET /v1/chain`: what a client needs to deposit, and to leave without us.
pub(crate) async fn manifest(State(shared): State<Arc<Shared>>) -> Result<Json<Value>, ApiError> {
    Ok(Json(chain(&shared)?.manifest()))
}

/// `POST /v1/sessions/nonce`
pub(crate) async fn nonce(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let caller = auth::caller_or_nobody(&shared, &headers, Scope::Manage)?;
    let nonce = shared.store.create_nonce(caller.map(|c| c.account), now_us()).await?;
    let session = session_hash(&nonce);
    Ok(Json(json!({ "nonce": nonce, "session": session, "expires_in_s": NONCE_LIFE_US / 1_000_000 })))
}

/// Query of `GET /v1/authorisations/typed-data`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TypedDataQuery {
    nonce: String,
    wallet: EvmAddress,
    /// New limit in the asset's decimals, beyond what is charged and unsettled already.
    limit: String,
    valid_until_s: Option<u32>,
    chain_id: Option<u64>,
    vault: Option<EvmAddress>,
}

/// `GET /v1/authorisations/typed-data`: what the wallet shall sign.
pub(crate) async fn typed_data(
    State(shared): State<Arc<Shared>>,
    query: Result<Query<TypedDataQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(asked) = query.map_err(|e| ApiError::malformed(format!("{}.", e.body_text())))?;
    let chain = chain(&shared)?;
    let named = asked.chain_id.zip(asked.vault).map(|(chain_id, vault)| VaultBody { chain_id, vault });
    let vault = vault(chain, named)?;
    let limit = Amount::parse_decimal(&asked.limit, VAULT_SCALE)
        .map_err(|e| ApiError::invalid("limit", "invalid_value", format!("{e}.")))?;
    let limit = u64::try_from(limit.0).ok().filter(|l| *l > 0);
    let limit =
        limit.ok_or_else(|| ApiError::invalid("limit", "invalid_value", "The limit must be above zero."))?;
    let used = used_units(&shared, vault, asked.wallet).await?;
    let valid_until_s = asked
        .valid_until_s
        .unwrap_or_else(|| u32::try_from(now_us() / 1_000_000 + VALID_S_DEFAULT).unwrap_or(u32::MAX));
    let terms = AuthorisationTerms {
        vault,
        wallet: asked.wallet,
        max_cumulative_units: used.saturating_add(limit),
        valid_until_s,
        session: session_hash(&asked.nonce),
    };
    let data = chain.typed_data(terms.clone()).await.map_err(door_error)?;
    Ok(Json(json!({
        "typed_data": data.json,
        "chain_nonce": data.nonce,
        "max_cumulative_units": terms.max_cumulative_units,
        "already_used_units": used,
        "valid_until_s": terms.valid_until_s,
        "session": terms.session,
    })))
}

/// Charged and unsettled for life, in vault units, rounded up: below it no limit would leave anything to spend.
async fn used_units(shared: &Shared, vault: VaultRef, wallet: EvmAddress) -> Result<u64, ApiError> {
    let read = shared.client.read(move |state| {
        let view = query::wallet(state, vault, wallet)?;
        let registered = query::vaults(state).into_iter().find(|v| v.vault == vault)?;
        let scale = query::assets(state).get(registered.asset.0 as usize)?.ledger_scale;
        let unit = 10i128.checked_pow(u32::from(scale.checked_sub(VAULT_SCALE)?))?;
        let captured = view.captured.0 / unit + i128::from(view.captured.0 % unit != 0);
        Some(u64::try_from(captured).unwrap_or(u64::MAX).max(view.charged_units))
    });
    Ok(read.await.map_err(|error| refusals::api_error(shared, error, None))?.unwrap_or(0))
}

/// Body of `POST /v1/authorisations`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuthoriseBody {
    nonce: String,
    wallet: EvmAddress,
    vault: Option<VaultBody>,
    max_cumulative_units: u64,
    valid_until_s: u32,
    chain_nonce: u64,
    signature: EvmSignature,
}

/// `POST /v1/authorisations`: verifies the signature, links the wallet, sets the cap, opens a session.
pub(crate) async fn authorise(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let caller = auth::caller_or_nobody(&shared, request.headers(), Scope::Manage)?;
    let asked: AuthoriseBody = body::json(request).await?;
    let chain = chain(&shared)?;
    let vault = vault(chain, asked.vault)?;
    let used = shared.store.use_nonce(&asked.nonce, now_us()).await?.ok_or_else(|| {
        ApiError::invalid(
            "nonce",
            "nonce_unknown",
            "This nonce was used or is too old; POST /v1/sessions/nonce gives one.",
        )
    })?;
    let terms = AuthorisationTerms {
        vault,
        wallet: asked.wallet,
        max_cumulative_units: asked.max_cumulative_units,
        valid_until_s: asked.valid_until_s,
        session: session_hash(&asked.nonce),
    };
    let accepted =
        chain.authorise(terms.clone(), asked.chain_nonce, asked.signature).await.map_err(door_error)?;
    let account = account_for(&shared, caller.map(|c| c.account).or(used.account), &terms).await?;
    let body = SpendAuthorised {
        account,
        vault,
        wallet: terms.wallet,
        max_cumulative_units: terms.max_cumulative_units,
        valid_until_s: terms.valid_until_s,
        nonce: accepted.nonce,
        session: terms.session,
        signature: accepted.signature,
    };
    let key = IdempotencyKey::internal("authorise", &[&account.0, &terms.session.0]);
    let command = Command::new(key, Actor::Account(account), body);
    submit_until_known(&shared, command).await.map_err(|error| refusals::api_error(&shared, error, None))?;
    let session = shared.store.create_session(account, Some(terms.wallet), now_us()).await?;
    let body = json!({
        "account": account,
        "session_token": session,
        "expires_in_s": SESSION_LIFE_US / 1_000_000,
        "wallet": terms.wallet,
        "max_cumulative_units": terms.max_cumulative_units,
        "valid_until_s": terms.valid_until_s,
    });
    Ok((StatusCode::CREATED, Json(body)))
}

/// The caller's account, else the one the wallet is linked to, else the one that its address is.
async fn account_for(
    shared: &Shared,
    caller: Option<AccountId>,
    terms: &AuthorisationTerms,
) -> Result<AccountId, ApiError> {
    if let Some(account) = caller {
        return Ok(account);
    }
    let (vault, wallet) = (terms.vault, terms.wallet);
    let linked = shared.client.read(move |state| query::wallet(state, vault, wallet).and_then(|w| w.account));
    match linked.await.map_err(|error| refusals::api_error(shared, error, None))? {
        Some(account) => Ok(account),
        None => open_own_account(shared, wallet).await,
    }
}
