//! A retried request whose first run was charged: the same answer again, from the sealed contents, without a second charge.

use super::chat::{ending, event_stream};
use super::error::ApiError;
use super::refusals;
use super::request::ChatRequest;
use super::server::put;
use super::sse::{Head, Usage};
use crate::delivery::Finished;
use crate::gateway::Shared;
use crate::relay::transcript::Transcript;
use axum::body::Body;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use ledger::query;
use protocol::id::{AccountId, Hash32, JobId};
use protocol::job_message::Frame;
use protocol::receipt::Finish;

/// The answer of a captured job.
pub(crate) async fn answer(
    shared: &Shared,
    account: AccountId,
    job: JobId,
    chat: &ChatRequest,
) -> Result<Response, ApiError> {
    let charge = shared.client.read(move |state| query::job(state, job).and_then(|view| view.charge));
    let charge = charge.await.map_err(|error| refusals::api_error(shared, error, None))?;
    let contents = shared.store.contents_of(account, &job)?;
    let (Some(charge), Some(contents)) = (charge, contents) else { return Err(gone()) };
    let ids = contents.output_ids.ok_or_else(gone)?;
    let billed = ids.len().min(charge.output_units as usize);
    let (text, stopped) = text_of(shared, &chat.model, &ids[..billed], contents.body.stop);
    let reason = match contents.finish {
        _ if stopped => "stop",
        Some(Finish::Stop) if billed == ids.len() => "stop",
        _ => "length",
    };
    let head = Head { job, model: chat.model.clone(), created_s: 0, include_usage: chat.include_usage };
    let finished = Finished {
        reason,
        input_units: charge.input_units,
        output_units: charge.output_units,
        cost: charge.cost,
        receipt: Some(charge.receipt),
    };
    let mut headers = HeaderMap::new();
    put(&mut headers, "x-counterfoil-job-id", &job.to_string());
    put(&mut headers, "x-counterfoil-receipt", &charge.receipt.to_string());
    put(&mut headers, "x-counterfoil-lane", &shared.lane);
    put(&mut headers, "x-counterfoil-replayed", "true");
    if chat.stream {
        let frames = [head.role(), head.content(&text), ending(&head, &finished)].concat();
        return Ok((headers, event_stream(Body::from(frames))).into_response());
    }
    let usage = Usage { input: finished.input_units, output: finished.output_units };
    Ok((headers, axum::Json(head.completion(&text, reason, usage))).into_response())
}

/// The text of ids, cut at a stop text, and whether there was one.
fn text_of(shared: &Shared, model: &str, ids: &[u32], stops: Vec<String>) -> (String, bool) {
    let mut transcript = Transcript::new(shared.detokeniser(model), stops, ids.len() as u64);
    let mut text = String::new();
    for (seq, id) in ids.iter().enumerate() {
        let frame = Frame { seq: seq as u64, ids: vec![*id], text: String::new(), chain: Hash32([0; 32]) };
        if let Ok(piece) = transcript.push(&frame) {
            text.push_str(&piece.text);
        }
    }
    text.push_str(&transcript.finish().text);
    let stopped = transcript.is_stopped();
    (text, stopped)
}

fn gone() -> ApiError {
    ApiError::conflict(
        "idempotency_answer_gone",
        "This Idempotency-Key's request was answered and charged, but its answer is no longer kept; use a new key.",
    )
}
