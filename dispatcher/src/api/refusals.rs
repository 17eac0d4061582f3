//! The ledger's refusals and the log's silences as answers of the API.

use super::error::{ApiError, Retry};
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

/// 402 with what is missing and what can be done.
pub(crate) fn insufficient(shared: &Shared, asset: &Asset, needed: Amount, available: Amount) -> ApiError {
    let decimal = |amount: Amount| amount.to_decimal_string(asset.ledger_scale);
    let missing = Amount(needed.0.saturating_sub(available.0).max(0));
    let text = format!(
        "This request can cost up to {} {}; {} is available. Deposit {} {} more, or lower \"max_tokens\".",
        decimal(needed),
        asset.symbol,
        decimal(available),
        decimal(missing),
        asset.symbol
    );
    let mut offers = vec![json!({ "kind": "lower_max_tokens", "param": "max_tokens" })];
    if let Some(chain) = &shared.chain {
        offers.insert(
            0,
            json!({ "kind": "deposit", "missing": money(missing, asset), "chain": chain.manifest() }),
        );
    }
    let details = Map::from_iter([
        ("needed".to_owned(), money(needed, asset)),
        ("available".to_owned(), money(available, asset)),
        ("missing".to_owned(), money(missing, asset)),
        ("asset".to_owned(), json!(asset.symbol)),
        ("limit_source".to_owned(), json!("balance")),
        ("offers".to_owned(), json!(offers)),
    ]);
    ApiError::insufficient_credits(text, details)
}

/// What a failed command means to the caller.
pub(crate) fn api_error(shared: &Shared, error: SubmitError, asset: Option<&Asset>) -> ApiError {
    match error {
        SubmitError::Refused { refusal, .. } => refused(shared, refusal, asset),
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

fn refused(shared: &Shared, refusal: Refusal, asset: Option<&Asset>) -> ApiError {
    use Refusal::*;
    let code = refusal.name();
    let text = format!("The ledger refused: {refusal}.");
    let status = match &refusal {
        InsufficientCredit { needed, available, .. } => match asset {
            Some(asset) => return insufficient(shared, asset, *needed, *available),
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
