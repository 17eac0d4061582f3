//! One request from its parsed body to its answer: each choice a job of its own, admitted, run and charged by itself; the
//! answer in the form that the client asked for. A stream ends whole or with an error frame, never quietly.

use super::answer::{self, Answer, Form, Head, Usage};
use super::auth::{self, Principal};
use super::body;
use super::error::ApiError;
use super::once::{self, Once};
use super::refusals;
use super::replay;
use super::request::ChatRequest;
use super::server::put;
use super::x402;
use crate::access::keys::Scope;
use crate::access::random_16;
use crate::admission::{self, Admission, Admitted, Quote};
use crate::clock::now_us;
use crate::delivery::Finished;
use crate::gateway::{RunningGuard, Shared};
use crate::job::{self, Delivery};
use crate::relay::attempt::ToClient;
use crate::relay::transcript::Spoken;
use crate::router::line::WAITING_MAX;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use kernels::ToolFormat;
use protocol::amount::Amount;
use protocol::id::{JobId, NodeId, OperatorId};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Events that may wait for the client's connection; text that does not fit waits with the relay, in one piece.
const EVENTS_WAITING_MAX: usize = 16;
/// How long a stream may be silent before a comment goes out.
pub const KEEP_ALIVE_MS: u64 = 10_000;

/// How a call's body is read.
pub(crate) type Parse = fn(&[u8]) -> Result<ChatRequest, ApiError>;

/// The call. A wallet without an account may pay for it (x402).
pub(crate) async fn create(
    shared: Arc<Shared>,
    request: Request,
    parse: Parse,
) -> Result<Response, ApiError> {
    if let Some(till) = x402::till(&shared, request.headers()) {
        return x402::create(shared, till, request, parse).await;
    }
    let caller = auth::caller(&shared, request.headers(), Scope::Inference)?;
    let (key, is_retry) = (once::key_of(request.headers())?, once::is_retry(request.headers()));
    let path = request.uri().path().to_owned();
    let bytes = body::read(request, body::CHAT_BYTES_MAX).await?;
    let order = parse(&bytes)?;
    let once = Once { key, request: once::request_hash(&path, &bytes), is_retry };
    serve(shared, caller, order, once).await
}

/// Serves a request of somebody who may spend.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    caller: Principal,
    order: ChatRequest,
    once: Once,
) -> Result<Response, ApiError> {
    let order = Arc::new(order);
    let started = match start(&shared, &caller, &order, once).await? {
        Start::Answered(done) => return replay::answer(&shared, caller.account, &done, &order).await,
        Start::Running(started) => started,
    };
    let model = shared.models.get(&order.model).ok_or_else(|| ApiError::model_not_found(&order.model))?;
    let Started { choices, projected, available } = started;
    let mut headers = headers(&shared, &choices, projected);
    let head = Head {
        job: choices[0].opened.job,
        model: order.model.clone(),
        created_s: now_us() / 1_000_000,
        include_usage: order.include_usage,
        choices: order.choices(),
        tokenizer: model.tokenizer.clone(),
        logprobs: order.controls.logprobs.is_some(),
    };
    let asset = choices[0].opened.quote.asset.clone();
    let mut gathering =
        match Gathering::begin(choices, Arc::clone(&order), model.template.tool_format()).await {
            Ok(gathering) => gathering,
            Err(error) => return Ok((headers, error).into_response()),
        };
    let form = answer::form(&order.shape, head);
    if order.stream {
        return Ok((headers, stream(form, gathering)).into_response());
    }
    let whole = match gathering.whole().await {
        Ok(whole) => whole,
        Err(error) => return Ok((headers, error).into_response()),
    };
    let decimal = |amount: Amount| amount.to_decimal_string(asset.ledger_scale);
    put(&mut headers, "x-counterfoil-cost", &decimal(whole.cost));
    put(&mut headers, "x-counterfoil-balance", &decimal(Amount(available.0 - whole.cost.0)));
    put(&mut headers, "x-counterfoil-receipt", &whole.receipts.join(","));
    Ok((headers, axum::Json(whole.written(form))).into_response())
}

/// What became of a request that was understood.
enum Start {
    /// These jobs have answered it before.
    Answered(Vec<JobId>),
    /// Its jobs run.
    Running(Started),
}

/// A request whose jobs run.
struct Started {
    choices: Vec<Choice>,
    /// Worst case of all of them, base units.
    projected: Amount,
    /// Spendable before, base units.
    available: Amount,
}

/// Finds out whether it was answered before; else counts, prices and admits every choice.
async fn start(
    shared: &Arc<Shared>,
    caller: &Principal,
    order: &Arc<ChatRequest>,
    once: Once,
) -> Result<Start, ApiError> {
    caller.may_use(&order.model)?;
    let model = shared.models.get(&order.model).ok_or_else(|| ApiError::model_not_found(&order.model))?;
    let mut running = Vec::new();
    for _ in 0..order.choices() {
        running.push(RunningGuard::new(shared, JobId(random_16()?)));
    }
    let jobs: Vec<JobId> = running.iter().map(RunningGuard::job).collect();
    if let Some(done) = once::turn(shared, caller.account, &once, &jobs).await? {
        return Ok(Start::Answered(done));
    }
    let prompts = admission::tokenise_all(model, order)?;
    let quotes = admission::quote_all(shared, caller.account, order, &prompts).await?;
    let available = quotes.first().map_or(Amount::ZERO, |quote| quote.available);
    let projected: Amount = quotes.iter().map(|quote| quote.projected).sum();
    if let Some(quote) = quotes.first().filter(|_| projected > available) {
        return Err(refusals::insufficient(shared, quote, projected));
    }
    let opening = Opening { shared: Arc::clone(shared), caller: caller.clone(), order: Arc::clone(order) };
    let choices = opening.open_all(running, quotes, prompts).await?;
    if choices.is_empty() {
        return Err(ApiError::internal("The request has no prompt."));
    }
    Ok(Start::Running(Started { choices, projected, available }))
}

/// Admits a request and lets it run without its client: the jobs, and what they may cost at most. What came of them is asked
/// for by their ids.
pub(crate) async fn submit(
    shared: Arc<Shared>,
    caller: Principal,
    mut order: ChatRequest,
    once: Once,
) -> Result<Submitted, ApiError> {
    // Nobody reads along: an answer is delivered when it lies there whole.
    order.stream = false;
    let order = Arc::new(order);
    let Started { choices, projected, .. } = match start(&shared, &caller, &order, once).await? {
        Start::Answered(jobs) => return Ok(Submitted { jobs, projected: None }),
        Start::Running(started) => started,
    };
    let jobs = choices.iter().map(|choice| choice.opened.job).collect();
    let asset = choices[0].opened.quote.asset.clone();
    for mut choice in choices {
        // The relay writes into the channel as to a client that takes everything.
        tokio::spawn(async move { while choice.events.recv().await.is_some() {} });
    }
    Ok(Submitted { jobs, projected: Some(refusals::money(projected, &asset)) })
}

/// Jobs that run without their client.
pub(crate) struct Submitted {
    pub jobs: Vec<JobId>,
    /// `None` when they were submitted before.
    pub projected: Option<Value>,
}

/// What opening a choice takes.
struct Opening {
    shared: Arc<Shared>,
    caller: Principal,
    order: Arc<ChatRequest>,
}

/// An admitted job, as far as the answer's headers need it.
struct Opened {
    job: JobId,
    node: NodeId,
    operator: OperatorId,
    quote: Quote,
    balance: Amount,
}

/// A choice whose job runs.
struct Choice {
    opened: Opened,
    events: mpsc::Receiver<ToClient>,
}

impl Opening {
    /// Admits every choice, in order. When one is refused, those before it end undelivered and uncharged.
    async fn open_all(
        &self,
        running: Vec<RunningGuard>,
        quotes: Vec<Quote>,
        prompts: Vec<Vec<u32>>,
    ) -> Result<Vec<Choice>, ApiError> {
        let mut choices = Vec::with_capacity(running.len());
        for (at, (running, quote)) in running.into_iter().zip(quotes).enumerate() {
            let choice = at as u32;
            let prompt_ids = prompts[(choice / self.order.n) as usize].clone();
            let (client, events) = mpsc::channel(EVENTS_WAITING_MAX);
            let (opened, opening) = oneshot::channel();
            let opener = Opener {
                shared: Arc::clone(&self.shared),
                caller: self.caller.clone(),
                order: Arc::clone(&self.order),
                running,
                admission: Admission { choice, prompt_ids, quote },
            };
            // A task of its own: a client that leaves in this moment must not leave a hold and a slot behind.
            tokio::spawn(opener.run(opened, client));
            let opened = opening.await.map_err(|_| broken())??;
            choices.push(Choice { opened, events });
        }
        Ok(choices)
    }
}

/// What must go on even when the client has left.
struct Opener {
    shared: Arc<Shared>,
    caller: Principal,
    order: Arc<ChatRequest>,
    running: RunningGuard,
    admission: Admission,
}

impl Opener {
    /// Admits, says what came of it, and runs the job to its end.
    async fn run(self, opened: oneshot::Sender<Result<Opened, ApiError>>, client: mpsc::Sender<ToClient>) {
        let Opener { shared, caller, order, running, admission } = self;
        let admitted = admission::admit(&shared, &caller, running.job(), &order, admission).await;
        let Admitted { job, quote, balance } = match admitted {
            Ok(admitted) => admitted,
            Err(error) => {
                let _ = opened.send(Err(error));
                return;
            }
        };
        let (node, operator) = (job.chosen.node, job.chosen.operator);
        let _ = opened.send(Ok(Opened { job: job.id, node, operator, quote, balance }));
        job::run(shared, job, running, client).await;
    }
}

/// What is known before the answer; of several choices, jobs and nodes are listed.
fn headers(shared: &Shared, choices: &[Choice], projected: Amount) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let list = |part: fn(&Opened) -> String| -> String {
        choices.iter().map(|choice| part(&choice.opened)).collect::<Vec<_>>().join(",")
    };
    put(&mut headers, "x-counterfoil-job-id", &list(|opened| opened.job.to_string()));
    put(&mut headers, "x-counterfoil-node", &list(|opened| opened.node.to_string()));
    put(&mut headers, "x-counterfoil-served-by", &list(|opened| opened.operator.to_string()));
    put(&mut headers, "x-counterfoil-lane", &shared.lane);
    let Some(Opened { quote, balance, .. }) = choices.last().map(|choice| &choice.opened) else {
        return headers;
    };
    let decimal = |amount: Amount| amount.to_decimal_string(quote.asset.ledger_scale);
    put(&mut headers, "x-counterfoil-asset", &quote.asset.symbol);
    put(&mut headers, "x-counterfoil-projected-cost", &decimal(projected));
    put(&mut headers, "x-counterfoil-balance", &decimal(*balance));
    if !quote.is_fixed {
        put(&mut headers, "x-counterfoil-max-tokens", &quote.output_units_max.to_string());
    }
    let refresh_s = quote.refresh_in_s();
    if let Some(seconds) = refresh_s {
        put(&mut headers, "x-counterfoil-refresh-in", &seconds.to_string());
    }
    let (limit, remaining) = (quote.units_for(quote.available), quote.units_for(*balance));
    put(&mut headers, "x-ratelimit-limit-tokens", &limit.to_string());
    put(&mut headers, "x-ratelimit-remaining-tokens", &remaining.to_string());
    put(&mut headers, "x-ratelimit-reset-tokens", &format!("{}s", refresh_s.unwrap_or(0)));
    let waiting = shared.lines.waiting();
    let most: usize = WAITING_MAX.iter().sum();
    put(&mut headers, "x-ratelimit-limit-requests", &most.to_string());
    put(&mut headers, "x-ratelimit-remaining-requests", &most.saturating_sub(waiting).to_string());
    put(&mut headers, "x-ratelimit-reset-requests", if waiting == 0 { "0s" } else { "1s" });
    headers
}

/// What came of one choice so far.
#[derive(Default)]
struct Part {
    job: Option<JobId>,
    spoken: Spoken,
    finished: Option<Finished>,
    failed: Option<ApiError>,
}

/// The events of all choices as they come.
struct Gathering {
    order: Arc<ChatRequest>,
    format: Option<ToolFormat>,
    events: SelectAll<BoxStream<'static, (usize, Option<ToClient>)>>,
    parts: Vec<Part>,
    usage: Usage,
}

impl Gathering {
    /// Waits until a node has taken every choice.
    async fn begin(
        choices: Vec<Choice>,
        order: Arc<ChatRequest>,
        format: Option<ToolFormat>,
    ) -> Result<Gathering, ApiError> {
        let mut events = SelectAll::new();
        let mut parts = Vec::with_capacity(choices.len());
        for (at, Choice { opened, events: mut receiver }) in choices.into_iter().enumerate() {
            match receiver.recv().await {
                Some(ToClient::Begun) => {}
                Some(ToClient::Failed(error)) => return Err(*error),
                Some(ToClient::Text(_) | ToClient::Again | ToClient::Finished(_)) | None => {
                    return Err(broken());
                }
            }
            parts.push(Part { job: Some(opened.job), ..Part::default() });
            let one = futures::stream::unfold(Some(receiver), move |receiver| async move {
                let mut receiver = receiver?;
                match receiver.recv().await {
                    Some(event) => Some(((at, Some(event)), Some(receiver))),
                    None => Some(((at, None), None)),
                }
            });
            events.push(one.boxed());
        }
        Ok(Gathering { order, format, events, parts, usage: Usage::default() })
    }

    /// Whether every choice has ended.
    fn is_over(&self) -> bool {
        self.parts.iter().all(|part| part.finished.is_some() || part.failed.is_some())
    }

    /// A choice as its client reads it, once it has ended well.
    fn answer(&self, at: usize) -> Option<Answer> {
        let part = self.parts.get(at)?;
        let finished = part.finished.as_ref()?;
        Some(read_answer(
            &self.order,
            self.format,
            Told { index: at as u32, job: part.job?, spoken: part.spoken.clone(), reason: finished.reason },
        ))
    }

    /// Everything, at the end. What failed of several choices is left out; when all did, the first says why.
    async fn whole(&mut self) -> Result<Whole, ApiError> {
        while !self.is_over() {
            let Some((at, event)) = self.events.next().await else { return Err(broken()) };
            let part = &mut self.parts[at];
            match event {
                Some(ToClient::Begun) => {}
                Some(ToClient::Text(spoken)) => add(&mut part.spoken, spoken),
                Some(ToClient::Again) => part.spoken = Spoken::default(),
                Some(ToClient::Finished(finished)) => part.finished = Some(*finished),
                Some(ToClient::Failed(error)) => part.failed = Some(*error),
                None if part.finished.is_some() => {}
                None => {
                    part.failed.get_or_insert_with(broken);
                }
            }
        }
        let mut whole = Whole {
            answers: vec![],
            usage: Usage::default(),
            cost: Amount::ZERO,
            receipts: vec![],
            failed: vec![],
        };
        for (at, part) in self.parts.iter().enumerate() {
            whole.answers.extend(self.answer(at));
            if let Some(finished) = &part.finished {
                whole.usage.input += finished.input_units;
                whole.usage.output += finished.output_units;
                whole.cost = Amount(whole.cost.0 + finished.cost.0);
                whole.receipts.extend(finished.receipt.map(|receipt| receipt.to_string()));
            }
            if let Some(error) = &part.failed {
                whole.failed.push(json!({ "index": at, "error": error.body()["error"] }));
            }
        }
        let first = self.parts.iter().find_map(|part| part.failed.clone());
        match first.filter(|_| whole.answers.is_empty()) {
            Some(error) => Err(error),
            None => Ok(whole),
        }
    }
}

/// A whole answer with what it cost.
struct Whole {
    answers: Vec<Answer>,
    usage: Usage,
    cost: Amount,
    receipts: Vec<String>,
    /// Choices that failed, which cost nothing.
    failed: Vec<Value>,
}

impl Whole {
    fn written(&self, mut form: Box<dyn Form>) -> Value {
        let mut value = form.whole(&self.answers, self.usage);
        if !self.failed.is_empty() {
            value["counterfoil"] = json!({ "failed_choices": self.failed });
        }
        value
    }
}

/// What a choice said, before its calls are read out of it.
pub(crate) struct Told {
    pub index: u32,
    pub job: JobId,
    pub spoken: Spoken,
    pub reason: &'static str,
}

/// Reads calls out of what a choice said.
pub(crate) fn read_answer(order: &ChatRequest, format: Option<ToolFormat>, told: Told) -> Answer {
    let Told { index, job, spoken, reason } = told;
    let read = order.tools.read(format, &spoken.text);
    let reason = if read.calls.is_empty() { reason } else { "tool_calls" };
    // Probabilities of a call's tokens would not be those of the text beside it.
    let logprobs = if read.calls.is_empty() { spoken.logprobs } else { Vec::new() };
    Answer { index, job, text: read.text, logprobs, calls: read.calls, reason }
}

fn add(to: &mut Spoken, spoken: Spoken) {
    to.text.push_str(&spoken.text);
    to.logprobs.extend(spoken.logprobs);
}

/// Where a stream stands.
enum Phase {
    Begin,
    Texts,
    Over,
}

/// The answer as server-sent events.
fn stream(form: Box<dyn Form>, gathering: Gathering) -> Response {
    let start = (form, gathering, Phase::Begin);
    let frames = futures::stream::unfold(start, |(mut form, mut gathering, phase)| async move {
        let (frame, next) = match phase {
            Phase::Over => return None,
            Phase::Begin => (form.begin(), Phase::Texts),
            Phase::Texts => next_frame(&mut *form, &mut gathering).await,
        };
        Some((Ok::<Bytes, Infallible>(frame), (form, gathering, next)))
    });
    event_stream(Body::from_stream(frames))
}

async fn next_frame(form: &mut dyn Form, gathering: &mut Gathering) -> (Bytes, Phase) {
    let until = tokio::time::Instant::now() + Duration::from_millis(KEEP_ALIVE_MS);
    loop {
        let Ok(event) = tokio::time::timeout_at(until, gathering.events.next()).await else {
            return (Bytes::from_static(answer::KEEP_ALIVE), Phase::Texts);
        };
        let (at, event) = match event {
            Some((at, Some(event))) => (at, event),
            // A choice that has ended falls silent while others speak.
            Some((at, None)) if gathering.parts[at].finished.is_some() => continue,
            Some((_, None)) | None => return (form.failed(&broken()), Phase::Over),
        };
        let is_whole = gathering.order.delivery() == Delivery::Whole;
        match event {
            ToClient::Begun => {}
            // What may turn out to be a call waits for its end.
            ToClient::Text(spoken) if is_whole => add(&mut gathering.parts[at].spoken, spoken),
            ToClient::Text(spoken) => return (form.text(at as u32, &spoken), Phase::Texts),
            ToClient::Again if is_whole => gathering.parts[at].spoken = Spoken::default(),
            // Text that is out cannot be taken back; the relay does not ask for that of a stream.
            ToClient::Again => return (form.failed(&broken()), Phase::Over),
            ToClient::Failed(error) => return (form.failed(&error), Phase::Over),
            ToClient::Finished(finished) => return end(form, gathering, at, *finished),
        }
    }
}

/// The last frames of a choice, and of the answer when it was the last choice.
fn end(form: &mut dyn Form, gathering: &mut Gathering, at: usize, finished: Finished) -> (Bytes, Phase) {
    gathering.usage.input += finished.input_units;
    gathering.usage.output += finished.output_units;
    gathering.parts[at].finished = Some(finished);
    let Some(answer) = gathering.answer(at) else { return (form.failed(&broken()), Phase::Over) };
    let mut frames = Vec::new();
    if gathering.order.delivery() == Delivery::Whole && !answer.text.is_empty() {
        let spoken = Spoken { text: answer.text.clone(), logprobs: answer.logprobs.clone() };
        frames.extend_from_slice(&form.text(answer.index, &spoken));
    }
    frames.extend_from_slice(&form.end(&answer));
    if !gathering.is_over() {
        return (Bytes::from(frames), Phase::Texts);
    }
    frames.extend_from_slice(&form.close(gathering.usage));
    (Bytes::from(frames), Phase::Over)
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
