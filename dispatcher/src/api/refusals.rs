//! The ledger's refusals and the log's silences as answers of the API.

use super::error::{ApiError, Retry};
use crate::admission::Quote;
use crate::gateway::Shared;
use axum::http::StatusCode;
use journal::SubmitError;
use ledger::Refusal;
use protocol::amount::Amount;
use protocol::asset::Asset;
use serde_json::{Map, Value, json};

/// An amount as clients read it: exact decimal text and base units.
pub(crate) fn money(amount: Amount, asset: &Asset) -> Value {
    json!({ "amount": amount.to_decimal_string(asset.ledger_scale), "base_units": amount, "asset": asset.symbol })
}

/// 402 with what is missing and what can be done. An account that had an allotment meets a soft stop: the lane is not changed
/// for it, nothing is charged, and it is told when there is more.
pub(crate) fn insufficient(shared: &Shared, quote: &Quote, needed: Amount) -> ApiError {
    let mut error = too_little(&quote.asset, needed, quote.available);
    error.message.push_str(" Lowering \"max_tokens\" lowers what is held.");
    let missing = Amount(needed.0.saturating_sub(quote.available.0).max(0));
    error.details.insert("soft_stop".to_owned(), json!(true));
    error.details.insert("offers".to_owned(), json!(offers(shared, quote, missing)));
    if let Some(seconds) = quote.refresh_in_s() {
        error.message.push_str(&format!(" The next allotment comes in {seconds} s."));
        error.details.insert("refresh_in_s".to_owned(), json!(seconds));
        error.details.insert("refresh_at_us".to_owned(), json!(quote.refresh_us));
    }
    error
}

/// 402 with the figures.
fn too_little(asset: &Asset, needed: Amount, available: Amount) -> ApiError {
    let decimal = |amount: Amount| amount.to_decimal_string(asset.ledger_scale);
    let missing = Amount(needed.0.saturating_sub(available.0).max(0));
    let symbol = &asset.symbol;
    let text = format!(
        "This request can cost up to {} {symbol}; {} is available. Deposit {} {symbol} more.",
        decimal(needed),
        decimal(available),
        decimal(missing),
    );
    let details = Map::from_iter([
        ("needed".to_owned(), money(needed, asset)),
        ("available".to_owned(), money(available, asset)),
        ("missing".to_owned(), money(missing, asset)),
        ("asset".to_owned(), json!(asset.symbol)),
        ("limit_source".to_owned(), json!("balance")),
    ]);
    ApiError::insufficient_credits(text, details)
}

/// What the client can do now, the likeliest first; none of it happens by itself.
fn offers(shared: &Shared, quote: &Quote, missing: Amount) -> Vec<Value> {
    let mut offers = Vec::new();
    if let Some(chain) = &shared.chain {
        let missing = money(missing, &quote.asset);
        offers.push(json!({ "kind": "deposit", "missing": missing, "chain": chain.manifest() }));
    }
    if let Some(seconds) = quote.refresh_in_s() {
        offers.push(json!({ "kind": "wait_for_allotment", "refresh_in_s": seconds }));
    }
    let affordable = quote.units_for(quote.available).saturating_sub(quote.input_units);
    if affordable > 0 {
        let most = affordable.min(u64::from(quote.output_units_max));
        offers.push(json!({ "kind": "lower_max_tokens", "param": "max_tokens", "max_tokens": most }));
    }
    offers
}

/// What a refused admission means: of too little credit, the same as before it was asked.
pub(crate) fn admission_error(shared: &Shared, error: SubmitError, quote: &Quote) -> ApiError {
    match error {
        SubmitError::Refused { refusal: Refusal::InsufficientCredit { needed, available, .. }, .. } => {
            insufficient(shared, &Quote { available, ..quote.clone() }, needed)
        }
        error => api_error(shared, error, Some(&quote.asset)),
    }
}

/// What a failed command means to the caller.
pub(crate) fn api_error(_: &Shared, error: SubmitError, asset: Option<&Asset>) -> ApiError {
    match error {
        SubmitError::Refused { refusal, .. } => refused(refusal, asset),
        SubmitError::Overloaded => {
            ApiError::unavailable("overloaded", "Too many requests wait for the ledger; nothing happened.", 1)
        }
        SubmitError::Unknown => ApiError::unavailable(
            "ledger_unavailable",
            "The ledger did not answer in time; nothing is charged without an answer.",
            2,
        ),
        SubmitError::Stopped(reason) => {
            tracing::error!(target: "api", reason, "the ledger's writer has stopped");
            ApiError::unavailable(
                "ledger_unavailable",
                "The ledger cannot be written now; nothing is charged.",
                10,
            )
        }
        error @ (SubmitError::TooLarge(_)
        | SubmitError::NotUnderstood(_)
        | SubmitError::Unreadable { .. }) => {
            tracing::error!(target: "api", %error, "command not answered");
            ApiError::internal("The ledger could not answer; the operator of this network has been told.")
        }
    }
}

fn refused(refusal: Refusal, asset: Option<&Asset>) -> ApiError {
    use Refusal::*;
    let code = refusal.name();
    let text = format!("The ledger refused: {refusal}.");
    let status = match &refusal {
        InsufficientCredit { needed, available, .. } => match asset {
            Some(asset) => return too_little(asset, *needed, *available),
            None => StatusCode::PAYMENT_REQUIRED,
        },
        AccountFrozen { .. } | SpendCapReached { .. } => StatusCode::PAYMENT_REQUIRED,
        ModelUnknown { model, .. } => return ApiError::model_not_found(model),
        AccountUnknown { .. }
        | OperatorUnknown { .. }
        | NodeUnknown { .. }
        | JobUnknown { .. }
        | VoucherUnknown { .. } => StatusCode::NOT_FOUND,
        AccountKnown { .. }
        | OperatorKnown { .. }
        | PayoutAddressTaken { .. }
        | WalletLinkedElsewhere { .. }
        | NonceInUse { .. }
        | KeyReused { .. }
        | HoldsOpen { .. } => StatusCode::CONFLICT,
        AccountIsClosed { .. } | NodeOfAnother { .. } => StatusCode::FORBIDDEN,
        NoRateCard { .. }
        | NetworkNotOpened { .. }
        | TooLate { .. }
        | NodeIsRetired { .. }
        | ModelNotServed { .. } => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    };
    let kind = match status {
        StatusCode::SERVICE_UNAVAILABLE => "server_error",
        StatusCode::PAYMENT_REQUIRED => "insufficient_quota",
        StatusCode::FORBIDDEN => "permission_error",
        _ => "invalid_request_error",
    };
    let retry = match status {
        StatusCode::PAYMENT_REQUIRED | StatusCode::CONFLICT => Retry::Never,
        StatusCode::SERVICE_UNAVAILABLE => Retry::AfterSeconds(2),
        _ => Retry::Unsaid,
    };
    let details = match serde_json::to_value(&refusal) {
        Ok(figures) => Map::from_iter([("refusal".to_owned(), figures)]),
        Err(_) => Map::new(),
    };
    ApiError { status, kind, code, message: text, param: None, retry, details }
}
