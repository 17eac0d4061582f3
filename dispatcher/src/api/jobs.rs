//! `POST /v1/jobs`, `GET /v1/jobs/{job}` and its answer for its owner, `GET /v1/receipts/{job}` for anybody: commitments only, no prompt, no answer.

use super::answer::Usage;
use super::auth;
use super::body;
use super::error::{ApiError, Retry};
use super::once::{self, Once};
use super::refusals::{self, money};
use super::{quote, replay, serving};
use crate::access::keys::{JOB_SCOPES, Scope};
use crate::gateway::Shared;
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use ledger::query::{self, JobStatus, JobView};
use protocol::asset::Asset;
use protocol::id::JobId;
use protocol::receipt::SignedReceipt;
use serde_json::{Value, json};
use std::sync::Arc;

fn job_id(text: &str) -> Result<JobId, ApiError> {
    text.parse().map_err(|error| ApiError::invalid("job", "invalid_value", format!("{error}.")))
}

async fn view(shared: &Shared, job: JobId) -> Result<Option<(JobView, Asset)>, ApiError> {
    let read = shared.client.read(move |state| {
        let view = query::job(state, job)?;
        let asset = query::assets(state).get(view.asset.0 as usize)?.clone();
        Some((view, asset))
    });
    read.await.map_err(|error| refusals::api_error(shared, error, None))
}

fn unknown() -> ApiError {
    ApiError::not_found("job_not_found", "There is no such job, or it is not this account's.")
}

/// `GET /v1/jobs/{job}`
pub(crate) async fn job(
    State(shared): State<Arc<Shared>>,
    Path(job): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let caller = auth::caller_with_any(&shared, &headers, &JOB_SCOPES)?;
    let (view, asset) = view(&shared, job_id(&job)?).await?.ok_or_else(unknown)?;
    if view.account != caller.account {
        return Err(unknown());
    }
    let charge = view.charge.as_ref().map(|charge| {
        json!({
            "attempt": charge.attempt,
            "input_tokens": charge.input_units,
            "output_tokens": charge.output_units,
            "cost": money(charge.cost, &asset),
            "operator_share": money(charge.operator_share, &asset),
            "platform_share": money(charge.platform_share, &asset),
            "receipt": charge.receipt,
            "leaf": charge.leaf,
            "reversed": charge.reversed,
        })
    });
    // While it runs, as far as is durably known: what a coordinator that is killed would charge by.
    let delivered = shared.store.progress(&view.job)?.map(|progress| progress.delivered);
    let attempts: Vec<Value> = view
        .attempts
        .iter()
        .enumerate()
        .map(|(number, attempt)| {
            json!({
                "attempt": number,
                "node": attempt.node,
                "operator": attempt.operator,
                "body_commitment": attempt.body,
                "dispatched_us": attempt.dispatched_us,
            })
        })
        .collect();
    Ok(Json(json!({
        "job": view.job,
        "hold": view.hold,
        "status": view.status,
        "model": view.model,
        "rate_card_version": view.rate_card_version,
        "held": money(view.amount, &asset),
        "input_tokens": view.input_units,
        "output_tokens_max": view.output_units_max,
        "deadline_us": view.deadline_us,
        "attempts": attempts,
        "delivered_output_tokens": delivered,
        "charge": charge,
    })))
}

/// `POST /v1/jobs`: the body of a chat, a completion or a response; its jobs run without their client.
pub(crate) async fn submit(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let caller = auth::caller(&shared, request.headers(), Scope::Inference)?;
    let (key, is_retry) = (once::key_of(request.headers())?, once::is_retry(request.headers()));
    let bytes = body::read(request, body::CHAT_BYTES_MAX).await?;
    let order = quote::parse(&bytes)?;
    let once = Once { key, request: once::request_hash("/v1/jobs", &bytes), is_retry };
    let submitted = serving::submit(Arc::clone(&shared), caller, order, once).await?;
    let jobs: Vec<Value> = submitted
        .jobs
        .iter()
        .map(|job| json!({ "job": job, "status_url": format!("/v1/jobs/{job}"), "answer_url": format!("/v1/jobs/{job}/answer") }))
        .collect();
    let body = json!({ "jobs": jobs, "projected_cost": submitted.projected });
    Ok((StatusCode::ACCEPTED, Json(body)))
}

/// `GET /v1/jobs/{job}/answer`: what a charged job of this account answered, opened from its sealed contents.
pub(crate) async fn answer(
    State(shared): State<Arc<Shared>>,
    Path(job): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let account = auth::caller(&shared, &headers, Scope::Inference)?.account;
    let (view, asset) = view(&shared, job_id(&job)?).await?.ok_or_else(unknown)?;
    if view.account != account {
        return Err(unknown());
    }
    let charge = match (view.status, view.charge) {
        (JobStatus::Captured, Some(charge)) => charge,
        (JobStatus::Running, _) => {
            let text = "The job still runs; GET /v1/events tells when it has ended.";
            return Err(ApiError {
                retry: Retry::AfterSeconds(1),
                ..ApiError::conflict("job_running", text)
            });
        }
        _ => {
            return Err(ApiError::not_found(
                "no_answer",
                "The job ended without an answer; nothing was charged.",
            ));
        }
    };
    let told = replay::told(&shared, account, &view.model, view.job, &charge)?;
    Ok(Json(json!({
        "job": view.job,
        "model": view.model,
        "text": told.spoken.text,
        "finish_reason": told.reason,
        "usage": Usage { input: charge.input_units, output: charge.output_units }.json(),
        "cost": money(charge.cost, &asset),
        "receipt": charge.receipt,
    })))
}

/// `GET /v1/receipts/{job}`
pub(crate) async fn receipt(
    State(shared): State<Arc<Shared>>,
    Path(job): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let job = job_id(&job)?;
    let missing = || ApiError::not_found("receipt_not_found", "There is no receipt of that job.");
    let bytes = shared.store.receipt(&job)?.ok_or_else(missing)?;
    let receipt = SignedReceipt::open(&bytes).map_err(|error| {
        tracing::error!(target: "api", %job, %error, "stored receipt does not open");
        ApiError::internal("The stored receipt does not open; the operator of this network has been told.")
    })?;
    let charge = view(&shared, job).await?.and_then(|(view, asset)| Some((view.charge?, asset)));
    let (leaf, billed) = match &charge {
        Some((charge, _)) => (Some(charge.leaf), Some(charge.output_units)),
        None => (None, None),
    };
    let proof = match (&shared.proofs, leaf) {
        (Some(proofs), Some(leaf)) => proofs.inclusion(leaf).await.ok().flatten(),
        _ => None,
    };
    Ok(Json(json!({
        "job": job,
        "receipt": receipt,
        "signed_receipt": data_encoding::BASE64.encode(&bytes),
        "hash": SignedReceipt::hash(&bytes),
        "captured_leaf": leaf,
        "billed_output_tokens": billed,
        "cost": charge.map(|(charge, asset)| money(charge.cost, &asset)),
        "inclusion": proof,
    })))
}
