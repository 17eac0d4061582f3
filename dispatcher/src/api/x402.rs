//! x402: a wallet without an account pays for one request. The 402 says what to sign; the signed transfer becomes a deposit
//! in the vault for its payer, the request runs under the account that the address is linked to, or is by itself, and the
//! change stays that account's. One payment stands for one request: it is the request's idempotency key.
//! Must not: move money before its terms are checked, nor serve a payment that was used for something else.

use super::accounts::open_own_account;
use super::auth::{self, Principal};
use super::body;
use super::error::ApiError;
use super::once::{Once, request_hash};
use super::refusals;
use super::request::ChatRequest;
use super::server::put;
use super::serving::{self, Parse};
use crate::access::idempotency::Claim;
use crate::access::random_16;
use crate::admission::{self, DEFAULT_OUTPUT_TOKENS_MAX};
use crate::clock::now_us;
use crate::delivery::submit_until_known;
use crate::doors::{DoorError, PaymentAsk, PaymentDoor, PaymentMade, PaymentSeen};
use crate::gateway::Shared;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use ledger::command::Command;
use ledger::query;
use protocol::amount::Amount;
use protocol::asset::{VAULT_SCALE, VaultRef};
use protocol::event::Actor;
use protocol::event::account::SpendAuthorised;
use protocol::event::chain::DepositKey;
use protocol::id::{AccountId, EvmAddress, Hash32, IdempotencyKey, JobId};
use serde_json::Map;
use std::sync::Arc;
use std::time::Duration;

/// What a request asks for at least, vault units: a deposit costs gas.
const PAYMENT_UNITS_MIN: u64 = 10_000;
/// How long a request waits until its payment is deep enough.
const CONFIRMED_WAIT: Duration = Duration::from_secs(60);
/// The header of a request that pays.
const PAYMENT_SIGNATURE: &str = "payment-signature";
/// The header of a 402.
const PAYMENT_REQUIRED: &str = "payment-required";
/// The header of an answer that was paid.
const PAYMENT_RESPONSE: &str = "payment-response";

/// Where to pay, for a request that does not say whose it is; `None` when it does or nothing is sold this way.
pub(crate) fn till(shared: &Shared, headers: &HeaderMap) -> Option<Arc<dyn PaymentDoor>> {
    if auth::says_who(headers) {
        return None;
    }
    shared.chain.as_ref()?.payments()
}

/// Serves a request that pays, or says what it costs.
pub(crate) async fn create(
    shared: Arc<Shared>,
    till: Arc<dyn PaymentDoor>,
    request: Request,
    parse: Parse,
) -> Result<Response, ApiError> {
    let path = request.uri().path().to_owned();
    let payment = match request.headers().get(PAYMENT_SIGNATURE) {
        None => None,
        Some(value) => Some(value.to_str().map(str::to_owned).map_err(|_| {
            ApiError::invalid("PAYMENT-SIGNATURE", "invalid_value", "The header must be base64 text.")
        })?),
    };
    let url = url_of(&request);
    let bytes = body::read(request, body::CHAT_BYTES_MAX).await?;
    let mut chat = parse(&bytes)?;
    let units = price(&shared, &mut chat, till.vault()).await?;
    let ask = PaymentAsk { units, url, error: None };
    let Some(payment) = payment else { return Ok(required(&*till, ask)) };
    let seen = match till.read(&payment, &ask).await {
        Ok(seen) => seen,
        Err(error) => return refused(&*till, ask, error),
    };
    let account = account_of(&shared, till.vault(), seen.payer).await?;
    let key = format!("x402:{}", seen.nonce);
    let request = request_hash(&path, &bytes);
    let once = Once { key: Some(key.clone()), request, is_retry: false };
    let caller = Principal::of(account);
    // A payment that was used before is good for the very request that it was used for, and its answer.
    if seen.is_used {
        if shared.store.claimed(account, &key)?.is_none() {
            let error = DoorError::Refused("invalid_exact_evm_nonce_already_used".to_owned());
            return refused(&*till, ask, error);
        }
        return serving::serve(shared, caller, chat, once).await;
    }
    let ours = Claim { job: JobId(random_16()?), more: Vec::new(), request, created_us: now_us() };
    shared.store.claim(account, &key, ours, None).await?;
    let made = match till.deposit(&payment, &ask).await {
        Ok(made) => made,
        Err(error) => return refused(&*till, ask, error),
    };
    let served = match credited(&shared, till.vault(), account, &seen, &made).await {
        Ok(()) => serving::serve(shared, caller, chat, once).await,
        Err(error) => Err(error),
    };
    // The money has moved, whatever came of the request.
    let mut response = served.into_response();
    put(response.headers_mut(), PAYMENT_RESPONSE, &made.response);
    Ok(response)
}

/// What the request costs at most, in vault units, rounded up. Fixes the bound on its output, so that this stays so.
async fn price(shared: &Shared, chat: &mut ChatRequest, vault: VaultRef) -> Result<u64, ApiError> {
    let model = shared.models.get(&chat.model).ok_or_else(|| ApiError::model_not_found(&chat.model))?;
    let prompts = admission::tokenise_all(model, chat)?;
    // Nobody's account: what it has does not matter here.
    let quotes = admission::quote_all(shared, AccountId::SYSTEM, chat, &prompts).await?;
    let longest = quotes.iter().map(|quote| quote.input_units).max().unwrap_or(0);
    let Some(context) = quotes.first().map(|quote| u64::from(quote.rate.context_tokens)) else {
        return Err(ApiError::internal("The request has no prompt."));
    };
    let room = context.saturating_sub(longest);
    let wanted = u32::try_from(room.min(u64::from(DEFAULT_OUTPUT_TOKENS_MAX))).unwrap_or(u32::MAX);
    chat.max_tokens.get_or_insert(wanted);
    let quotes = admission::quote_all(shared, AccountId::SYSTEM, chat, &prompts).await?;
    let projected: Amount = quotes.iter().map(|quote| quote.projected).sum();
    let quote = &quotes[0];
    let read = shared.client.read(move |state| {
        query::vaults(state).into_iter().find(|known| known.vault == vault).map(|known| known.asset)
    });
    let asset = read.await.map_err(|error| refusals::api_error(shared, error, None))?;
    let unit = quote.asset.ledger_scale.checked_sub(VAULT_SCALE);
    let unit = unit.and_then(|digits| 10i128.checked_pow(u32::from(digits)));
    let (Some(unit), true) = (unit, asset == Some(quote.asset.id)) else {
        let text = "This model is not sold for the vault's token; open an account: POST /v1/accounts.";
        return Err(ApiError::unauthenticated(text));
    };
    let units = u64::try_from((projected.0 + unit - 1) / unit);
    units
        .map(|units| units.max(PAYMENT_UNITS_MIN))
        .map_err(|_| ApiError::internal("The price is out of range."))
}

fn url_of(request: &Request) -> String {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    format!("http://{host}{}", request.uri().path())
}

fn required(till: &dyn PaymentDoor, ask: PaymentAsk) -> Response {
    let text = match &ask.error {
        None => {
            "Send an API key, or pay for this request alone: PAYMENT-REQUIRED says how (x402, version 2)."
                .to_owned()
        }
        Some(error) => format!("The payment was not taken: {error}. Nothing moved."),
    };
    let error = ApiError { code: "payment_required", ..ApiError::insufficient_credits(text, Map::new()) };
    let mut response = error.into_response();
    put(response.headers_mut(), PAYMENT_REQUIRED, &till.required(&ask));
    response
}

fn refused(till: &dyn PaymentDoor, ask: PaymentAsk, error: DoorError) -> Result<Response, ApiError> {
    match error {
        DoorError::Refused(text) => Ok(required(till, PaymentAsk { error: Some(text), ..ask })),
        DoorError::Unavailable(_) => Err(super::sessions::door_error(error)),
    }
}

/// The account that the payer's wallet is linked to, else the one that its address is.
async fn account_of(shared: &Shared, vault: VaultRef, payer: EvmAddress) -> Result<AccountId, ApiError> {
    let linked = shared.client.read(move |state| query::wallet(state, vault, payer).and_then(|w| w.account));
    match linked.await.map_err(|error| refusals::api_error(shared, error, None))? {
        Some(account) => Ok(account),
        None => open_own_account(shared, payer).await,
    }
}

/// Links the wallet with the cap that its payment raised, and waits until the deposit is in the books.
async fn credited(
    shared: &Shared,
    vault: VaultRef,
    account: AccountId,
    seen: &PaymentSeen,
    made: &PaymentMade,
) -> Result<(), ApiError> {
    let body = SpendAuthorised {
        account,
        vault,
        wallet: seen.payer,
        max_cumulative_units: made.cap_units,
        valid_until_s: made.valid_until_s,
        nonce: made.authorisation_nonce,
        session: Hash32(seen.nonce.0),
        signature: None,
    };
    let key = IdempotencyKey::internal("x402 cap", &[&made.tx.0, &made.ordinal.to_be_bytes()]);
    match submit_until_known(shared, Command::new(key, Actor::Account(account), body)).await {
        Ok(_) => {}
        // The watcher was faster, or a later payment was.
        Err(journal::SubmitError::Refused { refusal, .. })
            if refusal.name() == "authorisation_not_higher" => {}
        Err(error) => return Err(refusals::api_error(shared, error, None)),
    }
    let deposit = DepositKey { vault, tx: made.tx, ordinal: made.ordinal };
    let mut position = shared.client.position();
    let mirrored = async {
        loop {
            position.borrow_and_update();
            let read = shared.client.read(move |state| query::deposit_is_mirrored(state, deposit));
            if read.await.map_err(|error| refusals::api_error(shared, error, None))? {
                return Ok(());
            }
            if position.changed().await.is_err() {
                return Err(ApiError::unavailable("stopping", "This coordinator is stopping.", 2));
            }
        }
    };
    let text = "The payment is on the chain and not deep enough yet; send the same request with the same payment again.";
    let waited = tokio::time::timeout(CONFIRMED_WAIT, mirrored).await;
    waited.unwrap_or_else(|_| Err(ApiError::unavailable("payment_unconfirmed", text, 10)))
}
