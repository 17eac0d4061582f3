//! A retried request whose first run was charged: the same answer again, from the sealed contents, without a second charge.

use super::answer::{self, Head, Usage};
use super::error::ApiError;
use super::refusals;
use super::request::ChatRequest;
use super::server::put;
use super::serving::{Told, event_stream, read_answer};
use crate::gateway::Shared;
use crate::relay::transcript::{Spoken, Transcript};
use axum::body::Body;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use ledger::query::{self, ChargeView};
use protocol::amount::Amount;
use protocol::asset::Asset;
use protocol::id::{AccountId, Hash32, JobId};
use protocol::job_message::Frame;
use protocol::receipt::Finish;

/// The answer of captured jobs, one a choice.
pub(crate) async fn answer(
    shared: &Shared,
    account: AccountId,
    jobs: &[JobId],
    order: &ChatRequest,
) -> Result<Response, ApiError> {
    let model = shared.models.get(&order.model).ok_or_else(|| ApiError::model_not_found(&order.model))?;
    let (mut answers, mut usage, mut cost) = (Vec::new(), Usage::default(), Amount::ZERO);
    let (mut receipts, mut asset) = (Vec::new(), None);
    for (at, job) in jobs.iter().enumerate() {
        let (charge, priced_in) = charge(shared, *job).await?;
        usage.input += charge.input_units;
        usage.output += charge.output_units;
        cost = Amount(cost.0 + charge.cost.0);
        receipts.push(charge.receipt.to_string());
        asset = Some(priced_in);
        let told = told(shared, account, &order.model, *job, &charge)?;
        let format = model.template.tool_format();
        answers.push(read_answer(order, format, Told { index: at as u32, ..told }));
    }
    let Some(first) = jobs.first() else { return Err(gone()) };
    let mut headers = HeaderMap::new();
    let listed: Vec<String> = jobs.iter().map(JobId::to_string).collect();
    put(&mut headers, "x-counterfoil-job-id", &listed.join(","));
    put(&mut headers, "x-counterfoil-receipt", &receipts.join(","));
    put(&mut headers, "x-counterfoil-lane", &shared.lane);
    put(&mut headers, "x-counterfoil-replayed", "true");
    if let Some(asset) = asset {
        put(&mut headers, "x-counterfoil-asset", &asset.symbol);
        put(&mut headers, "x-counterfoil-cost", &cost.to_decimal_string(asset.ledger_scale));
    }
    let head = Head {
        job: *first,
        model: order.model.clone(),
        created_s: 0,
        include_usage: order.include_usage,
        choices: answers.len() as u32,
        tokenizer: model.tokenizer.clone(),
        // What a worker said about probabilities is not kept.
        logprobs: false,
    };
    let mut form = answer::form(&order.shape, head);
    if !order.stream {
        return Ok((headers, axum::Json(form.whole(&answers, usage))).into_response());
    }
    let mut frames = Vec::from(form.begin());
    for answer in &answers {
        let spoken = Spoken { text: answer.text.clone(), logprobs: Vec::new() };
        if !spoken.text.is_empty() {
            frames.extend_from_slice(&form.text(answer.index, &spoken));
        }
        frames.extend_from_slice(&form.end(answer));
    }
    frames.extend_from_slice(&form.close(usage));
    Ok((headers, event_stream(Body::from(frames))).into_response())
}

/// What a charged job said, from its sealed contents.
pub(crate) fn told(
    shared: &Shared,
    account: AccountId,
    model: &str,
    job: JobId,
    charge: &ChargeView,
) -> Result<Told, ApiError> {
    let contents = shared.store.contents_of(account, &job)?.ok_or_else(gone)?;
    let ids = contents.output_ids.ok_or_else(gone)?;
    let billed = ids.len().min(charge.output_units as usize);
    let (text, stopped) = text_of(shared, model, &ids[..billed], contents.body.stop);
    let reason = match contents.finish {
        _ if stopped => "stop",
        Some(Finish::Stop) if billed == ids.len() => "stop",
        _ => "length",
    };
    Ok(Told { index: 0, job, spoken: Spoken { text, logprobs: Vec::new() }, reason })
}

async fn charge(shared: &Shared, job: JobId) -> Result<(ChargeView, Asset), ApiError> {
    let read = shared.client.read(move |state| {
        let view = query::job(state, job)?;
        let asset = query::assets(state).get(view.asset.0 as usize)?.clone();
        Some((view.charge?, asset))
    });
    read.await.map_err(|error| refusals::api_error(shared, error, None))?.ok_or_else(gone)
}

/// The text of ids, cut at a stop text, and whether there was one.
fn text_of(shared: &Shared, model: &str, ids: &[u32], stops: Vec<String>) -> (String, bool) {
    let mut transcript = Transcript::new(shared.detokeniser(model), stops, ids.len() as u64);
    let mut text = String::new();
    for (seq, id) in ids.iter().enumerate() {
        let chain = Hash32([0; 32]);
        let frame = Frame { seq: seq as u64, ids: vec![*id], text: String::new(), chain, logprobs: vec![] };
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
        "This request was answered and charged, but its answer is no longer kept; send it with a new Idempotency-Key.",
    )
}
