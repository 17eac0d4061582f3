//! What a client asks a model for, whichever call it came by, and the body of `POST /v1/chat/completions`, parsed: what we do
//! is taken, what OpenAI knows and we do not do is refused by name, what neither knows is ignored. Must not: prices, accounts.

pub mod controls;
pub mod fields;

use super::completions::CompletionEcho;
use super::error::ApiError;
use super::responses::ResponseEcho;
use super::tools::Tools;
use crate::job::Delivery;
use controls::Sampling;
use fields::{Fields, Neutral};
use kernels::ToolCall;
use protocol::job_message::JobControls;
use serde_json::Value;

/// Most messages of one request.
pub const MESSAGES_MAX: usize = 4_096;
/// Most answers of one request: prompts times `n`.
pub const CHOICES_MAX: u32 = 16;
/// One, in millionths.
pub const ONE_MILLIONTHS: u32 = 1_000_000;

/// One message.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`; `developer` is read as `system`.
    pub role: String,
    /// Text parts joined.
    pub content: String,
    /// Calls that the assistant made in this turn.
    pub calls: Vec<ToolCall>,
}

/// What a model is to go on from.
#[derive(Clone, PartialEq, Debug)]
pub enum Prompt {
    /// A conversation, by the model's chat template.
    Chat(Vec<Message>),
    /// A text, as it is.
    Text(String),
    /// Its token ids.
    Ids(Vec<u32>),
}

/// The form in which the client wants its answer.
#[derive(Clone, PartialEq, Debug)]
pub enum Shape {
    /// `chat.completion` and its chunks.
    Chat,
    /// `text_completion`.
    Completion(CompletionEcho),
    /// `response` and its events.
    Response(Box<ResponseEcho>),
}

/// A parsed request.
#[derive(Clone, PartialEq, Debug)]
pub struct ChatRequest {
    /// The model's name.
    pub model: String,
    /// At least one; each is answered `n` times.
    pub prompts: Vec<Prompt>,
    /// Answers to each prompt.
    pub n: u32,
    /// What the client sent as messages or prompt, for backends that tokenise themselves.
    pub messages_raw: Value,
    /// Server-sent events instead of one object.
    pub stream: bool,
    /// A last chunk with the token counts.
    pub include_usage: bool,
    /// Bound on output tokens of each answer, when the client fixed one.
    pub max_tokens: Option<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What else steers the choice.
    pub controls: JobControls,
    /// What the model may call.
    pub tools: Tools,
    /// How the answer is written.
    pub shape: Shape,
}

/// Parameters that OpenAI documents and we do not do, each with the value that asks for nothing, if there is one.
const UNSUPPORTED: &[(&str, Option<Neutral>)] = &[
    ("audio", None),
    ("function_call", Some(Neutral::Text("none"))),
    ("functions", Some(Neutral::Empty)),
    ("modalities", Some(Neutral::TextOnly)),
    ("moderation", None),
    ("prediction", None),
    ("reasoning_effort", Some(Neutral::Text("none"))),
    ("service_tier", Some(Neutral::Texts(&["auto", "default"]))),
    ("store", Some(Neutral::False)),
    ("verbosity", Some(Neutral::Text("medium"))),
    ("web_search_options", None),
];

impl ChatRequest {
    /// Parses the body of a chat.
    ///
    /// # Errors
    /// 400 with the parameter's name.
    pub fn parse(body: &[u8]) -> Result<ChatRequest, ApiError> {
        let fields = Fields::parse(body)?;
        fields.refuse(UNSUPPORTED)?;
        let raw = fields.get("messages").ok_or_else(|| fields::missing("messages", "a list of messages"))?;
        let tools = Tools::of_chat(&fields)?;
        let mut controls = controls::controls(&fields)?;
        controls.logprobs = controls::chat_logprobs(&fields)?;
        controls.format = controls::response_format(&fields)?;
        let stream = fields.boolean("stream")?.unwrap_or(false);
        let request = ChatRequest {
            model: fields.model()?,
            prompts: vec![Prompt::Chat(messages(raw)?)],
            n: choices(&fields)?,
            messages_raw: raw.clone(),
            stream,
            include_usage: include_usage(&fields, stream)?,
            max_tokens: max_tokens(&fields)?,
            sampling: controls::sampling(&fields)?,
            controls,
            tools,
            shape: Shape::Chat,
        };
        request.with_tools()
    }

    /// Lets the tools have their part in format, stops and what backends are told.
    pub(crate) fn with_tools(mut self) -> Result<ChatRequest, ApiError> {
        self.tools.constrain(&mut self.controls, &mut self.sampling)?;
        controls::check_format(&self.controls.format)?;
        Ok(self)
    }

    /// How many answers there are to be.
    pub fn choices(&self) -> u32 {
        u32::try_from(self.prompts.len()).unwrap_or(u32::MAX).saturating_mul(self.n)
    }

    /// The prompt of an answer.
    pub fn prompt_of(&self, choice: u32) -> &Prompt {
        &self.prompts[(choice / self.n) as usize]
    }

    /// The seed of an answer: each of several to one prompt has its own.
    pub fn seed_of(&self, choice: u32) -> Option<u64> {
        self.sampling.seed.map(|seed| seed.wrapping_add(u64::from(choice % self.n)))
    }

    /// When what the client gets is delivered. An answer that may turn out to be a call is read whole before any of it goes out.
    pub fn delivery(&self) -> Delivery {
        if self.stream && !self.tools.are_offered() { Delivery::Stream } else { Delivery::Whole }
    }
}

fn choices(fields: &Fields) -> Result<u32, ApiError> {
    let n = fields.whole("n", 1, u64::from(CHOICES_MAX))?.unwrap_or(1);
    Ok(u32::try_from(n).unwrap_or(1))
}

fn messages(raw: &Value) -> Result<Vec<Message>, ApiError> {
    let list = raw
        .as_array()
        .filter(|l| !l.is_empty())
        .ok_or_else(|| fields::wrong("messages", "a list that is not empty"))?;
    if list.len() > MESSAGES_MAX {
        return Err(fields::wrong("messages", &format!("a list of at most {MESSAGES_MAX}")));
    }
    list.iter().enumerate().map(|(at, message)| one_message(at, message)).collect()
}

fn one_message(at: usize, message: &Value) -> Result<Message, ApiError> {
    let param = |field: &str| format!("messages[{at}].{field}");
    let role = match message.get("role").and_then(Value::as_str) {
        Some("developer") => "system",
        Some(role @ ("system" | "user" | "assistant" | "tool")) => role,
        Some("function") => {
            let text = "function messages are not supported here; use tools.";
            return Err(ApiError::invalid(&param("role"), "unsupported_parameter", text));
        }
        _ => return Err(fields::wrong(&param("role"), "system, developer, user, assistant or tool")),
    };
    for field in ["function_call", "audio"] {
        if message.get(field).is_some_and(|v| !v.is_null() && !Neutral::Empty.is(v)) {
            let text = format!("{field:?} is not supported here.");
            return Err(ApiError::invalid(&param(field), "unsupported_parameter", text));
        }
    }
    let calls = match message.get("tool_calls") {
        None | Some(Value::Null) => Vec::new(),
        Some(raw) if role == "assistant" => calls(raw, &param("tool_calls"))?,
        Some(_) => return Err(fields::wrong(&param("tool_calls"), "part of an assistant's message")),
    };
    let content = match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => fields::text_parts(parts, &["text"], &param("content"))?,
        None | Some(Value::Null) if !calls.is_empty() => String::new(),
        _ => return Err(fields::wrong(&param("content"), "text, or a list of text parts")),
    };
    Ok(Message { role: role.to_owned(), content, calls })
}

fn calls(raw: &Value, param: &str) -> Result<Vec<ToolCall>, ApiError> {
    let expected = || fields::wrong(param, "a list of calls, each with function.name and function.arguments");
    let list = raw.as_array().ok_or_else(expected)?;
    let one = |call: &Value| {
        let function = call.get("function")?;
        let name = function.get("name")?.as_str()?.to_owned();
        let arguments = serde_json::from_str(function.get("arguments")?.as_str()?).ok()?;
        Some(ToolCall { name, arguments })
    };
    list.iter().map(|call| one(call).ok_or_else(expected)).collect()
}

fn include_usage(fields: &Fields, stream: bool) -> Result<bool, ApiError> {
    let Some(options) = fields.get("stream_options") else { return Ok(false) };
    let options = options.as_object().ok_or_else(|| fields::wrong("stream_options", "an object"))?;
    if !stream {
        return Err(fields::wrong("stream_options", "left out when \"stream\" is not true"));
    }
    match options.get("include_usage") {
        None | Some(Value::Null) => Ok(false),
        Some(value) => {
            value.as_bool().ok_or_else(|| fields::wrong("stream_options.include_usage", "true or false"))
        }
    }
}

/// The parts of a chat's body that `POST /v1/completions` shares.
pub(crate) fn stream_and_usage(fields: &Fields) -> Result<(bool, bool), ApiError> {
    let stream = fields.boolean("stream")?.unwrap_or(false);
    Ok((stream, include_usage(fields, stream)?))
}

fn max_tokens(fields: &Fields) -> Result<Option<u32>, ApiError> {
    match (fields.tokens("max_completion_tokens")?, fields.tokens("max_tokens")?) {
        (Some(a), Some(b)) if a != b => {
            Err(fields::wrong("max_tokens", "left out when \"max_completion_tokens\" is given"))
        }
        (a, b) => Ok(a.or(b)),
    }
}

#[cfg(test)]
mod tests;
