//! The backend of any OpenAI-compatible server (vLLM, llama.cpp, Ollama): jobs are its chats and completions, streamed; what
//! it says is counted anew with the tokenizer that the rate card pins, whatever usage it reports. Its receipts are `attested`
//! (see [`super`] for what their fields mean). Must not: log or report anything of a request or an answer.

use super::{Backend, BackendIdentity, BackendRefusal, Canceller, Running, STEPS_WAITING_MAX, Step};
use crate::error::WorkerError;
use kernels::Tokenizer;
use protocol::id::Hash32;
use protocol::job_message::{JobBody, NakReason, OutputFormat};
use protocol::rate::ProofClass;
use protocol::receipt::Finish;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Numerics of receipts that follow none of ours.
pub const ATTESTED: &str = "attested";
/// How long the server may take to accept a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// Longest silence of the server: prefill of a long prompt included.
const SILENCE: Duration = Duration::from_secs(120);
/// Longest line of its stream.
const LINE_BYTES_MAX: usize = 1 << 20;
/// One, in millionths.
const MILLION: f64 = 1e6;

/// Where a model runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenAiOptions {
    /// Base URL with `/v1`.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// Bearer key, if the server wants one.
    pub api_key: Option<ApiKey>,
    /// GGUF file with the tokenizer that the rate card pins.
    pub tokenizer: PathBuf,
    /// SHA-256 of the weights on the rate card; of that file when left out.
    pub weights: Option<Hash32>,
}

/// The server's bearer key. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(pub String);

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(not shown)")
    }
}

/// A model behind an OpenAI-compatible server.
#[derive(Clone)]
pub(crate) struct OpenAi {
    inner: Arc<Inner>,
}

struct Inner {
    client: reqwest::Client,
    url: String,
    model: String,
    tokenizer: Tokenizer,
    identity: BackendIdentity,
}

impl OpenAi {
    /// Reads the tokenizer; the server is asked first when a job comes.
    pub(crate) fn load(name: &str, options: &OpenAiOptions) -> Result<OpenAi, WorkerError> {
        let (tokenizer, _, file_hash) = Tokenizer::from_gguf(&options.tokenizer)
            .map_err(|source| WorkerError::Model { model: name.to_owned(), source })?;
        let client = client(options)
            .map_err(|reason| WorkerError::Options(format!("model {name}: no HTTP client: {reason}")))?;
        let identity = BackendIdentity {
            weights: options.weights.unwrap_or(Hash32(file_hash)),
            numerics: ATTESTED.to_owned(),
            proof_class: ProofClass::Attested,
            words: format!("counterfoil {} openai {}", env!("CARGO_PKG_VERSION"), options.model),
        };
        let url = options.url.trim_end_matches('/').to_owned();
        let inner = Inner { client, url, model: options.model.clone(), tokenizer, identity };
        Ok(OpenAi { inner: Arc::new(inner) })
    }

    pub(crate) fn identity(&self) -> &BackendIdentity {
        &self.inner.identity
    }

    pub(crate) fn begin(&self, body: &JobBody) -> Result<Running, BackendRefusal> {
        if body.controls.logprobs.is_some() {
            let detail = "log-probabilities of this backend are not passed on".to_owned();
            return Err(BackendRefusal { reason: NakReason::Unsupported, detail });
        }
        let (sender, steps) = mpsc::channel(STEPS_WAITING_MAX);
        let (cancel, cancelled) = watch::channel(false);
        let call = Call { inner: Arc::clone(&self.inner), body: body.clone(), steps: sender, cancelled };
        tokio::spawn(call.run());
        let canceller = Canceller::new(move || {
            cancel.send_replace(true);
        });
        Ok(Running { steps, canceller })
    }
}

/// A client with the server's key in every request.
fn client(options: &OpenAiOptions) -> Result<reqwest::Client, String> {
    // The TLS of the process: no other part of it may bring another one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(ApiKey(key)) = &options.api_key {
        let value = HeaderValue::from_str(&format!("Bearer {key}"));
        let mut value = value.map_err(|_| "the API key is not text for a header".to_owned())?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let builder = reqwest::Client::builder().default_headers(headers).connect_timeout(CONNECT_WAIT);
    let builder = builder.read_timeout(SILENCE).redirect(reqwest::redirect::Policy::none());
    builder.build().map_err(|error| error.to_string())
}

/// What the server says to a question without consequences: for the doctor.
pub(crate) async fn examine(options: &OpenAiOptions) -> Result<String, String> {
    let asked = client(options)?.get(format!("{}/models", options.url.trim_end_matches('/'))).send().await;
    let response = asked.map_err(|error| format!("{}: {}", options.url, error.without_url()))?;
    match response.status() {
        status if status.is_success() => Ok(format!("{} answers", options.url)),
        status => Err(format!("{} answers {status}", options.url)),
    }
}

impl From<OpenAi> for Backend {
    fn from(openai: OpenAi) -> Backend {
        Backend::OpenAi(openai)
    }
}

/// The chain of an answer that follows no numerics of ours.
struct AttestedChain(Hash32);

impl AttestedChain {
    fn start(body: &JobBody, weights: &Hash32) -> AttestedChain {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"counterfoil attested chain 1\0").update(&body.job.0).update(&weights.0);
        AttestedChain(Hash32(*hasher.update(&body.commitment().0).finalize().as_bytes()))
    }

    fn push(&mut self, id: u32) -> Hash32 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0.0).update(&id.to_le_bytes());
        self.0 = Hash32(*hasher.finalize().as_bytes());
        self.0
    }
}

/// One job at the server.
struct Call {
    inner: Arc<Inner>,
    body: JobBody,
    steps: mpsc::Sender<Step>,
    cancelled: watch::Receiver<bool>,
}

/// How the server's answer ended.
enum Ended {
    Well(Finish),
    Badly(String),
}

/// What has come of an answer so far.
struct Answer {
    chain: AttestedChain,
    count: u32,
    calls: Vec<(String, String)>,
}

impl Call {
    async fn run(mut self) {
        let mut answer = Answer {
            chain: AttestedChain::start(&self.body, &self.inner.identity.weights),
            count: 0,
            calls: Vec::new(),
        };
        let mut cancelled = self.cancelled.clone();
        let ended = tokio::select! {
            biased;
            // Dropping the other branch closes the connection, which stops the server.
            _ = cancelled.wait_for(|cancelled| *cancelled) => Ended::Well(Finish::Cancelled),
            ended = self.answer(&mut answer) => ended,
        };
        let step = match ended {
            Ended::Well(finish) => Step::End { finish, text: String::new(), chain: answer.chain.0 },
            Ended::Badly(words) => Step::Failed(words),
        };
        // A driver that is gone needs no end.
        let _ = self.steps.send(step).await;
    }

    async fn answer(&mut self, answer: &mut Answer) -> Ended {
        let (path, request) = request(&self.inner.model, &self.body);
        let sent =
            self.inner.client.post(format!("{}{path}", self.inner.url)).body(request.to_string()).send();
        let mut response = match sent.await {
            Ok(response) if response.status().is_success() => response,
            Ok(response) => return Ended::Badly(format!("the server answered {}", response.status())),
            // The error's own text names the URL only.
            Err(error) => {
                return Ended::Badly(format!("the server cannot be asked: {}", error.without_url()));
            }
        };
        let mut line = Vec::new();
        let mut reason = None;
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => return Ended::Badly(format!("the answer broke off: {}", error.without_url())),
            };
            for byte in chunk {
                if byte != b'\n' {
                    line.push(byte);
                    if line.len() > LINE_BYTES_MAX {
                        return Ended::Badly("the server sent a line that is too long".to_owned());
                    }
                    continue;
                }
                match self.take_line(answer, &std::mem::take(&mut line)).await {
                    Ok(found) => reason = found.or(reason),
                    Err(ended) => return ended,
                }
            }
        }
        match reason {
            None => Ended::Badly("the answer ended without a finish_reason".to_owned()),
            Some(reason) => self.end(answer, &reason).await,
        }
    }

    /// One line of the stream; a finish reason when it has one.
    async fn take_line(&mut self, answer: &mut Answer, line: &[u8]) -> Result<Option<String>, Ended> {
        let Some(data) = line.strip_prefix(b"data:") else { return Ok(None) };
        let data = data.trim_ascii();
        if data == b"[DONE]" || data.is_empty() {
            return Ok(None);
        }
        let chunk: Value = serde_json::from_slice(data)
            .map_err(|_| Ended::Badly("the server sent what is not JSON".to_owned()))?;
        if chunk.get("error").is_some_and(|error| !error.is_null()) {
            return Err(Ended::Badly("the server reports an error in the middle of its answer".to_owned()));
        }
        let choice = &chunk["choices"][0];
        let delta = &choice["delta"];
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            take_call(&mut answer.calls, call);
        }
        let text = delta["content"].as_str().or(choice["text"].as_str()).unwrap_or_default();
        if !text.is_empty() {
            self.say(answer, text).await?;
        }
        Ok(choice["finish_reason"].as_str().map(str::to_owned))
    }

    /// Counts a text with our tokenizer and passes it on.
    async fn say(&mut self, answer: &mut Answer, text: &str) -> Result<(), Ended> {
        let ids = self.inner.tokenizer.encode(text);
        let last = ids.len().saturating_sub(1);
        for (at, id) in ids.into_iter().enumerate() {
            if answer.count >= self.body.max_tokens {
                return Err(Ended::Well(Finish::Length));
            }
            answer.count += 1;
            let text = if at == last { text.to_owned() } else { String::new() };
            let chain = answer.chain.push(id);
            let step = Step::Token { id, text, chain, logprobs: None };
            if self.steps.send(step).await.is_err() {
                return Err(Ended::Well(Finish::Cancelled));
            }
        }
        Ok(())
    }

    async fn end(&mut self, answer: &mut Answer, reason: &str) -> Ended {
        let calls = std::mem::take(&mut answer.calls);
        if !calls.is_empty()
            && let Err(ended) = self.say(answer, &written(&self.body, &calls)).await
        {
            return ended;
        }
        // By our count: a server that counts otherwise may say "length" before our bound.
        match reason {
            "length" if answer.count >= self.body.max_tokens => Ended::Well(Finish::Length),
            _ => Ended::Well(Finish::Stop),
        }
    }
}

/// A piece of a call: name and arguments come in parts, by index.
fn take_call(calls: &mut Vec<(String, String)>, piece: &Value) {
    let at = piece["index"].as_u64().unwrap_or(calls.len() as u64) as usize;
    // A server's index is not believed further than one beyond what is there.
    let at = at.min(calls.len());
    if at == calls.len() {
        calls.push((String::new(), String::new()));
    }
    let (name, arguments) = &mut calls[at];
    name.push_str(piece["function"]["name"].as_str().unwrap_or_default());
    arguments.push_str(piece["function"]["arguments"].as_str().unwrap_or_default());
}

/// Calls as the gateway reads them out of a text: of one demanded function the arguments alone, else tagged or bare.
fn written(body: &JobBody, calls: &[(String, String)]) -> String {
    let choice = &body.controls.tools["tool_choice"];
    let is_single = body.controls.tools["tools"].as_array().is_some_and(|tools| tools.len() == 1);
    let object = |(name, arguments): &(String, String)| {
        let arguments: Value = serde_json::from_str(arguments).unwrap_or_else(|_| json!({}));
        json!({ "name": name, "arguments": arguments }).to_string()
    };
    match calls.first() {
        Some((_, arguments)) if choice.is_object() || (choice == "required" && is_single) => {
            arguments.clone()
        }
        Some(first) if choice == "required" => object(first),
        _ => {
            let tagged = calls.iter().map(|call| format!("<tool_call>\n{}\n</tool_call>", object(call)));
            tagged.collect::<Vec<_>>().join("\n")
        }
    }
}

/// Path and body of the request to the server.
fn request(model: &str, body: &JobBody) -> (&'static str, Value) {
    let controls = &body.controls;
    let mut fields = Map::from_iter([
        ("model".to_owned(), json!(model)),
        ("stream".to_owned(), json!(true)),
        ("max_tokens".to_owned(), json!(body.max_tokens)),
        ("temperature".to_owned(), json!(f64::from(body.temperature_millionths) / MILLION)),
        ("top_p".to_owned(), json!(f64::from(body.top_p_millionths) / MILLION)),
    ]);
    let mut put = |name: &str, is_asked: bool, value: Value| {
        if is_asked {
            fields.insert(name.to_owned(), value);
        }
    };
    put("top_k", body.top_k > 0, json!(body.top_k));
    put("seed", body.seed.is_some(), json!(body.seed));
    put("stop", !body.stop.is_empty(), json!(body.stop));
    let (frequency, presence) = (controls.frequency_penalty_millionths, controls.presence_penalty_millionths);
    put("frequency_penalty", frequency != 0, json!(f64::from(frequency) / MILLION));
    put("presence_penalty", presence != 0, json!(f64::from(presence) / MILLION));
    let min_p = controls.min_p_millionths;
    put("min_p", min_p > 0, json!(f64::from(min_p) / MILLION));
    let repetition = f64::from(controls.repetition_penalty_millionths) / MILLION;
    put("repetition_penalty", controls.repetition_penalty_millionths != 1_000_000, json!(repetition));
    let biases =
        controls.logit_bias.iter().map(|(id, bias)| (id.to_string(), json!(f64::from(*bias) / MILLION)));
    put("logit_bias", !controls.logit_bias.is_empty(), Value::Object(biases.collect()));
    let tools = controls.tools.as_object();
    for (name, value) in tools.into_iter().flatten() {
        put(name, true, value.clone());
    }
    // A demanded call is asked for as a call: its schema is not the format of a text.
    let is_demanded =
        controls.tools["tool_choice"] == "required" || controls.tools["tool_choice"].is_object();
    let format = match &controls.format {
        OutputFormat::Text => None,
        OutputFormat::JsonObject => Some(json!({ "type": "json_object" })),
        OutputFormat::JsonSchema { schema } => {
            let schema: Value = serde_json::from_str(schema).unwrap_or_else(|_| json!({}));
            Some(json!({ "type": "json_schema", "json_schema": { "name": "answer", "schema": schema } }))
        }
    };
    if let Some(format) = format.filter(|_| !is_demanded) {
        put("response_format", true, format);
    }
    let is_chat = body.messages.as_array().is_some_and(|list| list.first().is_some_and(Value::is_object));
    let (path, name) = if is_chat { ("/chat/completions", "messages") } else { ("/completions", "prompt") };
    put(name, true, body.messages.clone());
    (path, Value::Object(fields))
}

/// A file with a key.
pub(crate) fn read_key(path: &Path) -> Result<ApiKey, WorkerError> {
    let text = std::fs::read_to_string(path).map_err(|e| WorkerError::file(path, e))?;
    Ok(ApiKey(text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::id::JobId;
    use protocol::job_message::JobControls;

    fn body(messages: Value, controls: JobControls) -> JobBody {
        JobBody {
            job: JobId([5; 16]),
            prompt_ids: vec![1],
            messages,
            max_tokens: 7,
            temperature_millionths: 500_000,
            top_p_millionths: 1_000_000,
            top_k: 0,
            seed: Some(3),
            sampling_key: Hash32([9; 32]),
            stop: vec!["END".into()],
            controls,
            salt: Hash32([8; 32]),
        }
    }

    #[test]
    fn a_request_says_what_was_asked_and_nothing_that_was_not() {
        let chat = json!([{ "role": "user", "content": "hi" }]);
        let (path, request) = request("there", &body(chat.clone(), JobControls::default()));
        assert_eq!(path, "/chat/completions");
        let expected = json!({
            "model": "there", "stream": true, "max_tokens": 7, "temperature": 0.5, "top_p": 1.0, "seed": 3,
            "stop": ["END"], "messages": chat,
        });
        assert_eq!(request, expected);
        let controls = JobControls {
            frequency_penalty_millionths: -250_000,
            logit_bias: vec![(4, 1_000_000)],
            format: OutputFormat::JsonObject,
            ..JobControls::default()
        };
        let (path, request) = super::request("there", &body(json!("Once"), controls));
        assert_eq!((path, &request["prompt"]), ("/completions", &json!("Once")));
        assert_eq!(request["frequency_penalty"], -0.25);
        assert_eq!(request["logit_bias"], json!({ "4": 1.0 }));
        assert_eq!(request["response_format"], json!({ "type": "json_object" }));
    }

    #[test]
    fn a_demanded_call_is_asked_for_as_a_call_and_written_as_its_arguments() {
        let tool = json!({ "type": "function", "function": { "name": "now" } });
        let controls = JobControls {
            tools: json!({ "tools": [tool], "tool_choice": "required", "parallel_tool_calls": true }),
            format: OutputFormat::JsonSchema { schema: "{}".into() },
            ..JobControls::default()
        };
        let body = body(json!([{ "role": "user", "content": "hi" }]), controls);
        let (_, request) = request("there", &body);
        assert_eq!((&request["tool_choice"], request.get("response_format")), (&json!("required"), None));
        let mut calls = Vec::new();
        for piece in [
            json!({ "index": 0, "id": "c", "function": { "name": "now", "arguments": "" } }),
            json!({ "index": 0, "function": { "arguments": "{\"a\"" } }),
            json!({ "index": 0, "function": { "arguments": ":1}" } }),
        ] {
            take_call(&mut calls, &piece);
        }
        assert_eq!(written(&body, &calls), "{\"a\":1}");
        let mut free = body;
        free.controls.tools["tool_choice"] = json!("auto");
        assert_eq!(
            written(&free, &calls),
            "<tool_call>\n{\"name\":\"now\",\"arguments\":{\"a\":1}}\n</tool_call>"
        );
    }

    /// Golden: what `examples/worker.py` and every other attested worker computes.
    #[test]
    fn the_chain_is_the_one_that_is_written_down() {
        let body = body(Value::Null, JobControls::default());
        let mut chain = AttestedChain::start(&body, &Hash32([2; 32]));
        let mut expected = b"counterfoil attested chain 1\0".to_vec();
        expected.extend_from_slice(&[5; 16]);
        expected.extend_from_slice(&[2; 32]);
        expected.extend_from_slice(&body.commitment().0);
        let start = blake3::hash(&expected);
        assert_eq!(chain.0.0, *start.as_bytes());
        let next = blake3::hash(&[&start.as_bytes()[..], &7u32.to_le_bytes()].concat());
        assert_eq!(chain.push(7).0, *next.as_bytes());
    }
}
