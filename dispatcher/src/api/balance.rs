//! `GET /v1/balance`: every bucket, what is held, what is reserved; decimal text and base units.

use super::auth;
use super::error::ApiError;
use super::refusals;
use crate::access::keys::MONEY_SCOPES;
use crate::clock::now_us;
use crate::gateway::Shared;
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use ledger::query::{self, AssetBalance, GrantView, WalletView};
use protocol::amount::Amount;
use protocol::asset::Asset;
use serde_json::{Value, json};
use std::sync::Arc;

/// The call.
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let account = auth::caller_with_any(&shared, &headers, &MONEY_SCOPES)?.account;
    let now = now_us();
    let read = shared.client.read(move |state| {
        let balances = query::balance(state, account, now);
        (balances, query::assets(state).to_vec(), query::wallets_of(state, account), state.next_leaf())
    });
    let (balances, assets, wallets, size) =
        read.await.map_err(|error| refusals::api_error(&shared, error, None))?;
    let balances: Vec<Value> = balances.iter().filter_map(|balance| one(balance, &assets)).collect();
    let wallets: Vec<Value> = wallets.iter().map(wallet).collect();
    Ok(Json(json!({ "account": account, "at_size": size, "balances": balances, "wallets": wallets })))
}

fn one(balance: &AssetBalance, assets: &[Asset]) -> Option<Value> {
    let asset = assets.get(balance.asset.0 as usize)?;
    let decimal = |amount: Amount| amount.to_decimal_string(asset.ledger_scale);
    let grants: Vec<Value> = balance.grants.iter().map(|grant| bucket(grant, asset)).collect();
    let reserved = balance.reserved_for_withdrawal;
    Some(json!({
        "asset": asset.symbol,
        "scale": asset.ledger_scale,
        "available": decimal(balance.available),
        "held": decimal(balance.held),
        "reserved_for_withdrawal": decimal(reserved),
        "total": decimal(balance.total),
        "owed": decimal(balance.owed),
        "base_units": {
            "available": balance.available,
            "held": balance.held,
            "reserved_for_withdrawal": reserved,
            "total": balance.total,
            "owed": balance.owed,
        },
        "buckets": grants,
    }))
}

fn bucket(grant: &GrantView, asset: &Asset) -> Value {
    let decimal = |amount: Amount| amount.to_decimal_string(asset.ledger_scale);
    json!({
        "grant": grant.id,
        "source": grant.source,
        "remaining": decimal(grant.remaining),
        "held": decimal(grant.held),
        "spendable": decimal(grant.spendable),
        "expires_us": grant.expires_us,
        "models": grant.scope,
        "backing": grant.backing,
    })
}

fn wallet(wallet: &WalletView) -> Value {
    json!({
        "wallet": wallet.wallet,
        "chain_id": wallet.vault.chain_id,
        "vault": wallet.vault.vault,
        "cap_units": wallet.cap_units,
        "charged_units": wallet.charged_units,
        "valid_until_s": wallet.valid_until_s,
        "deposited_units": wallet.deposited_units,
        "withdrawn_units": wallet.withdrawn_units,
        "exit_at_s": wallet.exit_at_s,
    })
}
