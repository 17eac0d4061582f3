//! `POST /v1/withdrawals`: unspent credit back to the wallet, by a voucher that the vault pays. The amount is reserved in
//! the ledger before the voucher is signed.

use super::auth;
use super::body;
use super::error::ApiError;
use super::refusals;
use super::sessions::{VaultBody, chain, door_error, vault};
use crate::access::keys::Scope;
use crate::access::random_16;
use crate::delivery::submit_until_known;
use crate::doors::VoucherTerms;
use crate::gateway::Shared;
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use ledger::command::{Command, IssueVoucher};
use ledger::query::{self, VoucherState, VoucherView};
use protocol::amount::Amount;
use protocol::asset::VAULT_SCALE;
use protocol::event::Actor;
use protocol::id::{EvmAddress, IdempotencyKey, VoucherId};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Body of the call.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WithdrawBody {
    /// Decimal, at most six digits after the point.
    amount: String,
    wallet: Option<EvmAddress>,
    to: Option<EvmAddress>,
    vault: Option<VaultBody>,
}

/// `POST /v1/withdrawals`
pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let account = auth::caller(&shared, request.headers(), Scope::Manage)?.account;
    let asked: WithdrawBody = body::json(request).await?;
    let chain = chain(&shared)?;
    let vault = vault(chain, asked.vault)?;
    let units = Amount::parse_decimal(&asked.amount, VAULT_SCALE)
        .map_err(|e| ApiError::invalid("amount", "invalid_value", format!("{e}.")))?;
    let units = u64::try_from(units.0).ok().filter(|u| *u > 0);
    let units = units
        .ok_or_else(|| ApiError::invalid("amount", "invalid_value", "The amount must be above zero."))?;
    let read = shared.client.read(move |state| {
        let wallets = query::wallets_of(state, account);
        let life_us = query::settings(state).map_or(0, |s| s.voucher_us);
        (wallets.into_iter().filter(|w| w.vault == vault).map(|w| w.wallet).collect::<Vec<_>>(), life_us)
    });
    let (wallets, life_us) = read.await.map_err(|error| refusals::api_error(&shared, error, None))?;
    let wallet = match (asked.wallet, wallets.as_slice()) {
        (Some(wallet), linked) if linked.contains(&wallet) => wallet,
        (None, [wallet]) => *wallet,
        _ => {
            let text = "Name one of this account's linked wallets; GET /v1/balance lists them.";
            return Err(ApiError::invalid("wallet", "wallet_not_linked", text));
        }
    };
    let moment = chain.withdrawal_moment(vault, wallet).await.map_err(door_error)?;
    let voucher = VoucherId(random_16()?);
    let deadline_s = moment.chain_time_s.saturating_add(life_us / 1_000_000);
    let body = IssueVoucher { voucher, account, vault, wallet, units, nonce: moment.nonce, deadline_s };
    let key = IdempotencyKey::internal("voucher", &[&voucher.0]);
    let command = Command::new(key, Actor::Account(account), body);
    submit_until_known(&shared, command).await.map_err(|error| refusals::api_error(&shared, error, None))?;
    let terms = VoucherTerms {
        vault,
        wallet,
        to: asked.to.unwrap_or(wallet),
        units,
        nonce: moment.nonce,
        deadline_s,
    };
    Ok((StatusCode::CREATED, Json(signed(&shared, voucher, terms).await?)))
}

/// `GET /v1/withdrawals/{voucher}`: the same voucher again while it is open, so that a lost answer costs nothing.
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    Path(voucher): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let account = auth::caller(&shared, &headers, Scope::Manage)?.account;
    let id: VoucherId = voucher
        .parse()
        .map_err(|error| ApiError::invalid("voucher", "invalid_value", format!("{error}.")))?;
    let read = shared.client.read(move |state| query::voucher(state, id));
    let view = read.await.map_err(|error| refusals::api_error(&shared, error, None))?;
    let view = view.filter(|view| view.account == account);
    let view =
        view.ok_or_else(|| ApiError::not_found("voucher_unknown", "This account has no such voucher."))?;
    if view.state != VoucherState::Open {
        return Ok(Json(json!({ "voucher": id, "state": view.state, "units": view.units })));
    }
    signed(&shared, id, terms_of(&view)).await.map(Json)
}

fn terms_of(view: &VoucherView) -> VoucherTerms {
    VoucherTerms {
        vault: view.vault,
        wallet: view.wallet,
        to: view.wallet,
        units: view.units,
        nonce: view.nonce,
        deadline_s: view.deadline_s,
    }
}

async fn signed(shared: &Shared, voucher: VoucherId, terms: VoucherTerms) -> Result<Value, ApiError> {
    let signed = chain(shared)?.sign_voucher(terms.clone()).await.map_err(door_error)?;
    Ok(json!({
        "voucher": voucher,
        "state": "open",
        "wallet": terms.wallet,
        "to": terms.to,
        "units": terms.units,
        "amount": Amount(i128::from(terms.units)).to_decimal_string(VAULT_SCALE),
        "nonce": terms.nonce,
        "deadline_s": terms.deadline_s,
        "signature": signed.signature,
        "contract": signed.contract,
        "calldata": format!("0x{}", data_encoding::HEXLOWER.encode(&signed.calldata)),
    }))
}
