//! `POST /v1/chat/completions`. A stream ends whole (`finish_reason`, `[DONE]`) or with an error frame, never quietly.

use super::body;
use super::error::{ApiError, Retry};
use super::refusals;
use super::replay;
use super::request::ChatRequest;
use super::server::put;
use super::sse::{self, Head, Usage};
use super::x402;
use crate::access::idempotency::{Claim, Claimed};
use crate::access::keys::Scope;
use crate::access::random_16;
use crate::admission::{self, Admitted, Quote};
use crate::api::auth::{self, Principal};
use crate::clock::now_us;
use crate::delivery::Finished;
use crate::gateway::{RunningGuard, Shared};
use crate::job;
use crate::relay::attempt::ToClient;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use ledger::query::{self, JobStatus};
use protocol::amount::Amount;
use protocol::id::{AccountId, Hash32, JobId, NodeId};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Events that may wait for the client's connection; text that does not fit waits with the relay, in one piece.
const EVENTS_WAITING_MAX: usize = 16;
/// How long a stream may be silent before a comment goes out.
pub const KEEP_ALIVE_MS: u64 = 10_000;
/// Longest `Idempotency-Key`.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// The call. A wallet without an account may pay for it (x402).
pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, ApiError> {
    if let Some(till) = x402::till(&shared, request.headers()) {
        return x402::create(shared, till, request).await;
    }
    let caller = auth::caller(&shared, request.headers(), Scope::Inference)?;
    let idempotency = idempotency_key(request.headers())?;
    let bytes = body::read(request, body::CHAT_BYTES_MAX).await?;
    let chat = ChatRequest::parse(&bytes)?;
    let once = idempotency.map(|text| Once { text, request: request_hash(&bytes) });
    serve(shared, caller, chat, once).await
}

/// A key under which a request is answered and charged once.
pub(crate) struct Once {
    /// The key.
    pub text: String,
    /// Hash of the request's body: another body under the same key is a conflict.
    pub request: Hash32,
}

/// Hash of a request's body.
pub(crate) fn request_hash(bytes: &[u8]) -> Hash32 {
    Hash32(*blake3::hash(bytes).as_bytes())
}

/// Serves a request of somebody who may spend.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    caller: Principal,
    chat: ChatRequest,
    once: Option<Once>,
) -> Result<Response, ApiError> {
    let account = caller.account;
    let model = shared.models.get(&chat.model).ok_or_else(|| ApiError::model_not_found(&chat.model))?;
    let running = RunningGuard::new(&shared, JobId(random_16()?));
    if let Some(Once { text, request }) = once
        && let Some(done) = claim(&shared, account, &text, request, running.job()).await?
    {
        return replay::answer(&shared, account, done, &chat).await;
    }
    let prompt_ids = admission::tokenise(model, &chat)?;
    let (client, mut events) = mpsc::channel(EVENTS_WAITING_MAX);
    let (opened, opening) = oneshot::channel();
    // A task of its own: a client that leaves in this moment must not leave a hold and a slot behind.
    let opener = Opener { shared: Arc::clone(&shared), caller, running, chat: chat.clone(), prompt_ids };
    tokio::spawn(opener.run(opened, client));
    let Opened { job, node, quote, balance } = opening.await.map_err(|_| broken())??;
    let head = Head {
        job,
        model: chat.model.clone(),
        created_s: now_us() / 1_000_000,
        include_usage: chat.include_usage,
    };
    let mut headers = job_headers(&shared, job, &node, &quote);
    let decimal = |amount: Amount| amount.to_decimal_string(quote.asset.ledger_scale);
    put(&mut headers, "x-counterfoil-balance", &decimal(balance));
    match events.recv().await {
        Some(ToClient::Begun) => {}
        Some(ToClient::Failed(error)) => return Ok((headers, *error).into_response()),
        Some(ToClient::Text(_) | ToClient::Again | ToClient::Finished(_)) | None => {
            return Ok((headers, broken()).into_response());
        }
    }
    if chat.stream {
        return Ok((headers, stream(head, events)).into_response());
    }
    match collect(events).await {
        Err(error) => Ok((headers, error).into_response()),
        Ok((text, finished)) => {
            put(&mut headers, "x-counterfoil-cost", &decimal(finished.cost));
            put(&mut headers, "x-counterfoil-balance", &decimal(Amount(quote.available.0 - finished.cost.0)));
            if let Some(receipt) = finished.receipt {
                put(&mut headers, "x-counterfoil-receipt", &receipt.to_string());
            }
            let usage = Usage { input: finished.input_units, output: finished.output_units };
            Ok((headers, axum::Json(head.completion(&text, finished.reason, usage))).into_response())
        }
    }
}

/// What must go on even when the client has left.
struct Opener {
    shared: Arc<Shared>,
    caller: Principal,
    running: RunningGuard,
    chat: ChatRequest,
    prompt_ids: Vec<u32>,
}

/// An admitted job, as far as the answer's headers need it.
struct Opened {
    job: JobId,
    node: NodeId,
    quote: Quote,
    balance: Amount,
}

impl Opener {
    /// Admits, says what came of it, and runs the job to its end.
    async fn run(self, opened: oneshot::Sender<Result<Opened, ApiError>>, client: mpsc::Sender<ToClient>) {
        let Opener { shared, caller, running, chat, prompt_ids } = self;
        let admitted = admission::admit(&shared, &caller, running.job(), &chat, prompt_ids).await;
        let Admitted { job, quote, balance } = match admitted {
            Ok(admitted) => admitted,
            Err(error) => {
                let _ = opened.send(Err(error));
                return;
            }
        };
        let _ = opened.send(Ok(Opened { job: job.id, node: job.chosen.node, quote, balance }));
        job::run(shared, job, running, client).await;
    }
}

fn job_headers(shared: &Shared, job: JobId, node: &NodeId, quote: &Quote) -> HeaderMap {
    let mut headers = HeaderMap::new();
    put(&mut headers, "x-counterfoil-job-id", &job.to_string());
    put(&mut headers, "x-counterfoil-node", &node.to_string());
    put(&mut headers, "x-counterfoil-lane", &shared.lane);
    put(&mut headers, "x-counterfoil-asset", &quote.asset.symbol);
    let projected = quote.projected.to_decimal_string(quote.asset.ledger_scale);
    put(&mut headers, "x-counterfoil-projected-cost", &projected);
    if !quote.is_fixed {
        put(&mut headers, "x-counterfoil-max-tokens", &quote.output_units_max.to_string());
    }
    headers
}

/// Collects a whole answer.
async fn collect(mut events: mpsc::Receiver<ToClient>) -> Result<(String, Finished), ApiError> {
    let mut text = String::new();
    while let Some(event) = events.recv().await {
        match event {
            ToClient::Begun => {}
            ToClient::Text(piece) => text.push_str(&piece),
            ToClient::Again => text.clear(),
            ToClient::Finished(finished) => return Ok((text, *finished)),
            ToClient::Failed(error) => return Err(*error),
        }
    }
    Err(broken())
}

/// Where a stream stands.
enum Phase {
    Role,
    Text,
    Over,
}

/// The answer as server-sent events.
fn stream(head: Head, events: mpsc::Receiver<ToClient>) -> Response {
    let start = (head, events, Phase::Role);
    let frames = futures::stream::unfold(start, |(head, mut events, phase)| async move {
        let (frame, next) = match phase {
            Phase::Over => return None,
            Phase::Role => (head.role(), Phase::Text),
            Phase::Text => next_frame(&head, &mut events).await,
        };
        Some((Ok::<Bytes, Infallible>(frame), (head, events, next)))
    });
    event_stream(Body::from_stream(frames))
}

async fn next_frame(head: &Head, events: &mut mpsc::Receiver<ToClient>) -> (Bytes, Phase) {
    let event = tokio::time::timeout(Duration::from_millis(KEEP_ALIVE_MS), events.recv()).await;
    match event {
        Err(_) | Ok(Some(ToClient::Begun)) => (Bytes::from_static(sse::KEEP_ALIVE), Phase::Text),
        Ok(Some(ToClient::Text(text))) => (head.content(&text), Phase::Text),
        Ok(Some(ToClient::Finished(finished))) => (ending(head, &finished), Phase::Over),
        Ok(Some(ToClient::Failed(error))) => (sse::error(&error), Phase::Over),
        // Text that is out cannot be taken back; the relay does not ask for that of a stream.
        Ok(Some(ToClient::Again) | None) => (sse::error(&broken()), Phase::Over),
    }
}

/// The last frames of a whole answer.
pub(crate) fn ending(head: &Head, finished: &Finished) -> Bytes {
    let mut frames = Vec::from(head.finish(finished.reason));
    if head.include_usage {
        let usage = Usage { input: finished.input_units, output: finished.output_units };
        frames.extend_from_slice(&head.usage(usage));
    }
    frames.extend_from_slice(sse::DONE);
    Bytes::from(frames)
}

/// An event stream that no proxy keeps back.
pub(crate) fn event_stream(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn broken() -> ApiError {
    ApiError::internal("The answer broke off inside the gateway; nothing undelivered is charged.")
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().ok().filter(|t| !t.is_empty() && t.len() <= IDEMPOTENCY_KEY_BYTES_MAX);
    let expected = format!("Idempotency-Key must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible characters.");
    text.map(|t| Some(t.to_owned()))
        .ok_or_else(|| ApiError::invalid("Idempotency-Key", "invalid_value", expected))
}

/// Claims a client's key for this job; gives the job that has already answered it.
async fn claim(
    shared: &Shared,
    account: AccountId,
    text: &str,
    request: Hash32,
    job: JobId,
) -> Result<Option<JobId>, ApiError> {
    let ours = Claim { job, request, created_us: now_us() };
    let Claimed::Taken(standing) = shared.store.claim(account, text, ours.clone(), None).await? else {
        return Ok(None);
    };
    if standing.request != request {
        let text = "This Idempotency-Key was used for another request; use a new key.";
        return Err(ApiError::conflict("idempotency_key_reused", text));
    }
    let in_progress = || ApiError {
        retry: Retry::AfterSeconds(1),
        ..ApiError::conflict(
            "idempotency_in_progress",
            "The first request with this Idempotency-Key is still running.",
        )
    };
    if shared.running.contains(&standing.job) {
        return Err(in_progress());
    }
    let status = shared.client.read(move |state| query::job(state, standing.job).map(|view| view.status));
    match status.await.map_err(|error| refusals::api_error(shared, error, None))? {
        Some(JobStatus::Captured) => Ok(Some(standing.job)),
        Some(JobStatus::Running) => Err(in_progress()),
        // It ended without a charge: the key is free for another try.
        None | Some(JobStatus::Voided | JobStatus::Expired) => {
            match shared.store.claim(account, text, ours, Some(standing.job)).await? {
                Claimed::Fresh => Ok(None),
                Claimed::Taken(_) => Err(in_progress()),
            }
        }
    }
}
