//! People without a wallet: an account and a recovery code by one call, sessions by the code. No name, no address, nothing
//! personal. Must not: sessions of wallets (`sessions` does).

use super::accounts::open_account;
use super::admin;
use super::auth;
use super::body;
use super::error::ApiError;
use super::refusals::money;
use crate::access::sessions::SESSION_LIFE_US;
use crate::clock::now_us;
use crate::delivery::submit_until_known;
use crate::gateway::Shared;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use ledger::command::{Command, IssueGrant};
use protocol::amount::Amount;
use protocol::event::Actor;
use protocol::event::grant::{Backing, GrantSource};
use protocol::id::{AccountId, IdempotencyKey};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Consumed before everything else: it ends soonest.
const WELCOME_PRIORITY: u8 = 5;

/// Credit for a new person, out of a budget. Unbacked: it is spent, never withdrawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// For one person, base units of the network's first asset.
    pub amount: Amount,
    /// For all people together, for the life of the gateway's store; base units.
    pub budget: Amount,
    /// How long it can be spent, seconds.
    pub life_s: u64,
}

/// What is left to give.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WelcomeLeft {
    /// The terms.
    pub welcome: Welcome,
    /// Of the budget, base units.
    pub left: Amount,
}

/// A person who has just come.
pub struct SignedUp {
    /// The account.
    pub account: AccountId,
    /// Shown once. Never logged.
    pub recovery_code: String,
    /// The session's text. Never logged.
    pub session: String,
    /// What was given, base units.
    pub welcome: Option<Amount>,
}

/// Opens an account with a code and a session, and gives the welcome while its budget lasts.
pub(crate) async fn sign_up(shared: &Shared) -> Result<SignedUp, ApiError> {
    let account = open_account(shared).await?;
    let recovery_code = shared.store.create_recovery_code(account, now_us()).await?;
    let session = shared.store.create_session(account, None, now_us()).await?;
    let welcome = match welcome(shared, account).await {
        Ok(given) => given,
        Err(error) => {
            // The account stands without it; somebody who can do something about it reads this.
            tracing::error!(target: "api", code = error.code, "a new person's welcome was not given");
            None
        }
    };
    Ok(SignedUp { account, recovery_code, session, welcome })
}

async fn welcome(shared: &Shared, account: AccountId) -> Result<Option<Amount>, ApiError> {
    let Some(terms) = shared.welcome else { return Ok(None) };
    if !shared.store.take_welcome(terms.amount.0, terms.budget.0).await? {
        return Ok(None);
    }
    let body = IssueGrant {
        account,
        source: GrantSource::Promo,
        asset: admin::asset(shared, None).await?.id,
        amount: terms.amount,
        priority: WELCOME_PRIORITY,
        scope: Vec::new(),
        expires_us: Some(now_us().saturating_add(terms.life_s.saturating_mul(1_000_000))),
        backing: Backing::Unbacked,
    };
    let key = IdempotencyKey::internal("welcome", &[&account.0]);
    let outcome = submit_until_known(shared, Command::new(key, Actor::Admin, body)).await;
    outcome.map_err(|error| super::refusals::api_error(shared, error, None))?;
    Ok(Some(terms.amount))
}

/// The welcome that the next person gets; `None` without one, or when the budget is used up.
pub(crate) fn welcome_left(shared: &Shared) -> Result<Option<WelcomeLeft>, ApiError> {
    let Some(welcome) = shared.welcome else { return Ok(None) };
    let left = Amount(welcome.budget.0.saturating_sub(shared.store.welcomes_given()?).max(0));
    Ok((left >= welcome.amount).then_some(WelcomeLeft { welcome, left }))
}

/// A session for whoever has the code.
pub(crate) async fn sign_in(shared: &Shared, code: &str) -> Result<(AccountId, String), ApiError> {
    let account = shared.store.account_of_code(code)?.ok_or_else(|| {
        ApiError::unauthenticated("No account has this recovery code; it is 24 letters and digits.")
    })?;
    Ok((account, shared.store.create_session(account, None, now_us()).await?))
}

/// `POST /v1/people`
pub(crate) async fn create(State(shared): State<Arc<Shared>>) -> Result<(StatusCode, Json<Value>), ApiError> {
    let signed_up = sign_up(&shared).await?;
    let asset = admin::asset(&shared, None).await?;
    let body = json!({
        "account": signed_up.account,
        "recovery_code": signed_up.recovery_code,
        "session_token": signed_up.session,
        "expires_in_s": SESSION_LIFE_US / 1_000_000,
        "welcome": signed_up.welcome.map(|amount| money(amount, &asset)),
    });
    Ok((StatusCode::CREATED, Json(body)))
}

/// Body of `POST /v1/people/sessions`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignInBody {
    recovery_code: String,
}

/// `POST /v1/people/sessions`
pub(crate) async fn open_session(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let SignInBody { recovery_code } = body::json(request).await?;
    let (account, session) = sign_in(&shared, &recovery_code).await?;
    let expires_in_s = SESSION_LIFE_US / 1_000_000;
    let body = json!({ "account": account, "session_token": session, "expires_in_s": expires_in_s });
    Ok((StatusCode::CREATED, Json(body)))
}

/// `DELETE /v1/people/sessions`: ends the session that asks.
pub(crate) async fn end_session(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let text = auth::bearer(&headers)?;
    let ended = shared.store.end_session(text).await?;
    Ok(Json(json!({ "ended": ended })))
}

/// The routes of this file.
pub(crate) fn routes() -> axum::Router<Arc<Shared>> {
    use axum::routing::post;
    axum::Router::new()
        .route("/v1/people", post(create))
        .route("/v1/people/sessions", post(open_session).delete(end_session))
}
