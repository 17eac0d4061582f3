//! What an account used and what became of its money, out of the log: `GET /v1/usage`, `/v1/statements`, `/v1/money`,
//! `/v1/deposits`. For keys that may read money. Must not: show another account's, or what is not committed.

use super::auth;
use super::error::ApiError;
use super::refusals::{self, money};
use crate::access::keys::MONEY_SCOPES;
use crate::books::{Books, BooksError, DAY_US, Page, Used};
use crate::clock::now_us;
use crate::gateway::Shared;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use ledger::query::{self, AssetBalance, WalletView};
use protocol::amount::Amount;
use protocol::asset::{Asset, AssetId};
use protocol::id::AccountId;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Lines of a statement's page, when the client does not say.
const LINES_DEFAULT: u16 = 100;
/// Most lines of a page.
const LINES_MAX: u16 = 1_000;
/// Days of usage, when the client does not say.
const DAYS_DEFAULT: u16 = 31;
/// Most days of usage.
const DAYS_MAX: u16 = 3_660;

type Asked<T> = Result<Query<T>, QueryRejection>;

fn asked<T>(query: Asked<T>) -> Result<T, ApiError> {
    let Query(asked) = query.map_err(|e| ApiError::malformed(format!("{}.", e.body_text())))?;
    Ok(asked)
}

fn within(param: &str, value: u16, max: u16) -> Result<u16, ApiError> {
    if (1..=max).contains(&value) {
        return Ok(value);
    }
    Err(ApiError::invalid(
        param,
        "invalid_value",
        format!("{param:?} must be a whole number from 1 to {max}."),
    ))
}

/// Asks the books on a thread that may block.
async fn ask<T: Send + 'static>(
    shared: &Arc<Shared>,
    question: impl FnOnce(&Books, u64) -> Result<T, BooksError> + Send + 'static,
) -> Result<T, ApiError> {
    // Nothing beyond what is committed: the archive's open record may still be on its way.
    let last = shared.client.position().borrow().commit;
    let inner = Arc::clone(shared);
    let answered = tokio::task::spawn_blocking(move || question(&inner.books, last)).await;
    match answered {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(BooksError::NotHere)) => {
            Err(ApiError::not_found("books_not_here", format!("{}.", BooksError::NotHere)))
        }
        Ok(Err(error)) => {
            tracing::error!(target: "api", %error, "the books cannot be read");
            Err(ApiError::unavailable("books_unavailable", "The books cannot be read now.", 5))
        }
        Err(error) => {
            tracing::error!(target: "api", %error, "the books' thread failed");
            Err(ApiError::internal(
                "The books could not be read; the operator of this network has been told.",
            ))
        }
    }
}

async fn assets(shared: &Shared) -> Result<Vec<Asset>, ApiError> {
    let read = shared.client.read(|state| query::assets(state).to_vec()).await;
    read.map_err(|error| refusals::api_error(shared, error, None))
}

fn priced(assets: &[Asset], asset: AssetId, amount: Amount) -> Value {
    assets.get(asset.0 as usize).map_or(Value::Null, |asset| money(amount, asset))
}

/// Query of `GET /v1/usage`.
#[derive(Deserialize)]
pub(crate) struct UsageQuery {
    days: Option<u16>,
}

/// `GET /v1/usage?days=`: charged jobs by day and model, and their sums.
pub(crate) async fn usage(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    query: Asked<UsageQuery>,
) -> Result<Json<Value>, ApiError> {
    let account = auth::caller_with_any(&shared, &headers, &MONEY_SCOPES)?.account;
    let days = within("days", asked(query)?.days.unwrap_or(DAYS_DEFAULT), DAYS_MAX)?;
    let from_day = (now_us() / DAY_US).saturating_sub(u64::from(days) - 1);
    let rows = ask(&shared, move |books, last| books.usage(last, account, from_day)).await?;
    let assets = assets(&shared).await?;
    let figures = |asset: AssetId, used: &Used| {
        json!({
            "jobs": used.jobs,
            "input_tokens": used.input_tokens,
            "output_tokens": used.output_tokens,
            "cost": priced(&assets, asset, used.cost),
        })
    };
    let mut sums: BTreeMap<AssetId, Used> = BTreeMap::new();
    let mut data = Vec::with_capacity(rows.len());
    for row in &rows {
        let sum = sums.entry(row.asset).or_default();
        sum.jobs += row.used.jobs;
        sum.input_tokens += row.used.input_tokens;
        sum.output_tokens += row.used.output_tokens;
        sum.cost.0 += row.used.cost.0;
        let mut line = figures(row.asset, &row.used);
        line["day"] = json!(projector::time::date(row.day * DAY_US));
        line["model"] = json!(row.model);
        data.push(line);
    }
    let totals: Vec<Value> = sums.iter().map(|(asset, used)| figures(*asset, used)).collect();
    Ok(Json(json!({ "object": "list", "account": account, "days": days, "data": data, "totals": totals })))
}

/// Query of `GET /v1/statements`.
#[derive(Deserialize)]
pub(crate) struct StatementQuery {
    limit: Option<u16>,
    before: Option<u64>,
}

/// `GET /v1/statements?limit=&before=`: movements with running balances, the newest page first, each page oldest first.
pub(crate) async fn statements(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    query: Asked<StatementQuery>,
) -> Result<Json<Value>, ApiError> {
    let account = auth::caller_with_any(&shared, &headers, &MONEY_SCOPES)?.account;
    let StatementQuery { limit, before } = asked(query)?;
    let limit = within("limit", limit.unwrap_or(LINES_DEFAULT), LINES_MAX)?;
    let page = Page { before_leaf: before, lines_max: usize::from(limit) };
    let lines = ask(&shared, move |books, last| books.statement(last, account, page)).await?;
    let assets = assets(&shared).await?;
    let next = lines.first().map(|line| line.leaf).filter(|leaf| *leaf > 0);
    let data: Vec<Value> = lines
        .iter()
        .map(|line| {
            json!({
                "leaf": line.leaf,
                "time_us": line.time_us,
                "time": projector::time::rfc3339(line.time_us),
                "kind": line.kind,
                "text": line.text,
                "ledger": line.ledger,
                "amount": priced(&assets, line.asset, line.amount),
                "balance": priced(&assets, line.asset, line.balance),
            })
        })
        .collect();
    let next = next.filter(|_| !data.is_empty());
    Ok(Json(json!({ "object": "list", "account": account, "data": data, "next_before": next })))
}

/// `GET /v1/deposits`: what reached the books, the newest first.
pub(crate) async fn deposits(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let account = auth::caller_with_any(&shared, &headers, &MONEY_SCOPES)?.account;
    let rows = ask(&shared, move |books, last| books.deposits(last, account)).await?;
    Ok(Json(json!({ "object": "list", "account": account, "data": rows })))
}

/// What the ledger's state says about an account, in one moment.
struct Now {
    size: u64,
    balances: Vec<AssetBalance>,
    wallets: Vec<WalletView>,
    jobs: Vec<(protocol::id::JobId, AssetId, Amount)>,
    assets: Vec<Asset>,
}

/// `GET /v1/money`: where every unit is: what came, what went, what is here now and in which place, and that it adds up.
pub(crate) async fn everywhere(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let account = auth::caller_with_any(&shared, &headers, &MONEY_SCOPES)?.account;
    // The books are asked up to the very commit that the state was read at: both sides of the sum are of one moment.
    let (now, last) = now(&shared, account).await?;
    let inner = Arc::clone(&shared);
    let flows = ask(&shared, move |_, _| inner.books.flows(last, account)).await?;
    let each: Vec<Value> = now
        .assets
        .iter()
        .filter_map(|asset| {
            let balance = now.balances.iter().find(|balance| balance.asset == asset.id);
            let flows: Vec<(&str, Amount)> = flows
                .iter()
                .filter(|((of, _), amount)| *of == asset.id && amount.0 != 0)
                .map(|((_, kind), amount)| (*kind, *amount))
                .collect();
            (balance.is_some() || !flows.is_empty()).then(|| one_asset(asset, balance, &flows, &now))
        })
        .collect();
    let wallets: Vec<Value> = now.wallets.iter().map(wallet).collect();
    Ok(Json(json!({ "account": account, "at_size": now.size, "assets": each, "wallets": wallets })))
}

async fn now(shared: &Shared, account: AccountId) -> Result<(Now, u64), ApiError> {
    let moment = now_us();
    let position = shared.client.position();
    loop {
        let before = position.borrow().commit;
        let read = shared.client.read(move |state| Now {
            size: state.next_leaf(),
            balances: query::balance(state, account, moment),
            wallets: query::wallets_of(state, account),
            jobs: query::open_jobs(state)
                .into_iter()
                .filter(|job| job.account == account)
                .map(|job| (job.job, job.asset, job.amount))
                .collect(),
            assets: query::assets(state).to_vec(),
        });
        let now = read.await.map_err(|error| refusals::api_error(shared, error, None))?;
        let after = *position.borrow();
        // The position is told after the state has moved; equal sizes mean the same moment.
        if after.leaf == now.size || after.commit == before {
            return Ok((now, after.commit));
        }
        tokio::task::yield_now().await;
    }
}

fn one_asset(asset: &Asset, balance: Option<&AssetBalance>, flows: &[(&str, Amount)], now: &Now) -> Value {
    let zero = Amount::ZERO;
    let (available, held, reserved, total, owed) = balance.map_or((zero, zero, zero, zero, zero), |b| {
        (b.available, b.held, b.reserved_for_withdrawal, b.total, b.owed)
    });
    let side = |is_in: bool| -> Vec<Value> {
        let of = flows.iter().filter(|(_, amount)| (amount.0 > 0) == is_in);
        of.map(|(kind, amount)| {
            json!({ "kind": kind, "text": projector::statements::phrase(kind), "amount": money(Amount(amount.0.abs()), asset) })
        })
        .collect()
    };
    let sum: Amount = flows.iter().map(|(_, amount)| *amount).sum();
    let jobs = now.jobs.iter().filter(|(_, of, _)| *of == asset.id);
    let jobs: Vec<Value> =
        jobs.map(|(job, _, amount)| json!({ "job": job, "held": money(*amount, asset) })).collect();
    // What cannot be spent now though nothing holds it: a wallet's cap, its authorisation's end, a debt.
    let locked = Amount(total.0 - available.0 - held.0 - reserved.0);
    json!({
        "asset": asset.symbol,
        "came": side(true),
        "went": side(false),
        "here": {
            "available": money(available, asset),
            "held": money(held, asset),
            "reserved_for_withdrawal": money(reserved, asset),
            "not_spendable_now": money(locked, asset),
            "total": money(total, asset),
        },
        "owed": money(owed, asset),
        "open_jobs": jobs,
        "came_less_went": money(sum, asset),
        "adds_up": sum == total,
    })
}

fn wallet(wallet: &WalletView) -> Value {
    json!({
        "wallet": wallet.wallet,
        "vault": wallet.vault,
        "deposited_units": wallet.deposited_units,
        "withdrawn_units": wallet.withdrawn_units,
        "charged_units": wallet.charged_units,
        "in_vault_units": wallet.deposited_units.saturating_sub(wallet.withdrawn_units).saturating_sub(wallet.charged_units),
        "exit_at_s": wallet.exit_at_s,
    })
}
