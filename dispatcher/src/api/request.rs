//! The body of `POST /v1/chat/completions`, parsed: what we do is taken, what OpenAI knows and we do not do is refused by
//! name, what neither knows is ignored. Must not: prices, accounts.

use super::error::ApiError;
use serde_json::{Map, Value};

/// Most messages of one request.
pub const MESSAGES_MAX: usize = 4_096;
/// Most stop texts.
pub const STOPS_MAX: usize = 4;
/// Longest stop text, bytes.
pub const STOP_BYTES_MAX: usize = 256;
/// One, in millionths.
pub const ONE_MILLIONTHS: u32 = 1_000_000;

/// One message: role and plain text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// `system`, `user` or `assistant`; `developer` is read as `system`.
    pub role: String,
    /// Text parts joined.
    pub content: String,
}

/// A parsed request.
#[derive(Clone, PartialEq, Debug)]
pub struct ChatRequest {
    /// The model's name.
    pub model: String,
    /// At least one.
    pub messages: Vec<Message>,
    /// The same as the client sent them.
    pub messages_raw: Value,
    /// Server-sent events instead of one object.
    pub stream: bool,
    /// A last chunk with the token counts.
    pub include_usage: bool,
    /// Bound on output tokens, when the client fixed one.
    pub max_tokens: Option<u32>,
    /// Millionths.
    pub temperature_millionths: u32,
    /// Millionths.
    pub top_p_millionths: u32,
    /// The client's seed.
    pub seed: Option<u64>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
}

/// Parameters that OpenAI documents and we do not do, each with the value that asks for nothing, if there is one.
const UNSUPPORTED: &[(&str, Option<Neutral>)] = &[
    ("audio", None),
    ("frequency_penalty", Some(Neutral::Zero)),
    ("function_call", Some(Neutral::Text("none"))),
    ("functions", Some(Neutral::Empty)),
    ("logit_bias", Some(Neutral::Empty)),
    ("logprobs", Some(Neutral::False)),
    ("modalities", Some(Neutral::TextOnly)),
    ("moderation", None),
    ("parallel_tool_calls", Some(Neutral::Any)),
    ("prediction", None),
    ("presence_penalty", Some(Neutral::Zero)),
    ("reasoning_effort", Some(Neutral::Text("none"))),
    ("response_format", Some(Neutral::TextFormat)),
    ("service_tier", Some(Neutral::Texts(&["auto", "default"]))),
    ("store", Some(Neutral::False)),
    ("tool_choice", Some(Neutral::Texts(&["none", "auto"]))),
    ("tools", Some(Neutral::Empty)),
    ("top_logprobs", Some(Neutral::Zero)),
    ("verbosity", Some(Neutral::Text("medium"))),
    ("web_search_options", None),
];

/// A value of an unsupported parameter that changes nothing and so is let through.
#[derive(Clone, Copy)]
enum Neutral {
    Zero,
    False,
    Empty,
    Any,
    Text(&'static str),
    Texts(&'static [&'static str]),
    TextOnly,
    TextFormat,
}

impl Neutral {
    fn is(self, value: &Value) -> bool {
        match self {
            Neutral::Zero => value.as_f64() == Some(0.0),
            Neutral::False => value == &Value::Bool(false),
            Neutral::Empty => {
                value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty)
            }
            Neutral::Any => true,
            Neutral::Text(text) => value.as_str() == Some(text),
            Neutral::Texts(texts) => value.as_str().is_some_and(|v| texts.contains(&v)),
            Neutral::TextOnly => value.as_array().is_some_and(|a| a.len() == 1 && a[0] == "text"),
            Neutral::TextFormat => value.get("type").and_then(Value::as_str) == Some("text"),
        }
    }
}

impl ChatRequest {
    /// Parses a body.
    ///
    /// # Errors
    /// 400 with the parameter's name.
    pub fn parse(body: &[u8]) -> Result<ChatRequest, ApiError> {
        let value: Value = serde_json::from_slice(body)
            .map_err(|e| ApiError::malformed(format!("The body is not JSON: {e}.")))?;
        let Value::Object(fields) = value else {
            return Err(ApiError::malformed("The body must be a JSON object."));
        };
        // Absent and null are the same to OpenAI's clients.
        let fields: Map<String, Value> = fields.into_iter().filter(|(_, v)| !v.is_null()).collect();
        refuse_unsupported(&fields)?;
        let model = fields.get("model").and_then(Value::as_str).filter(|m| !m.is_empty());
        let model = model.ok_or_else(|| missing("model", "the name of a model"))?.to_owned();
        let raw = fields.get("messages").ok_or_else(|| missing("messages", "a list of messages"))?;
        let messages = messages(raw)?;
        let stream = boolean(&fields, "stream")?.unwrap_or(false);
        Ok(ChatRequest {
            model,
            messages,
            messages_raw: raw.clone(),
            stream,
            include_usage: include_usage(&fields, stream)?,
            max_tokens: max_tokens(&fields)?,
            temperature_millionths: millionths(&fields, "temperature", 2 * ONE_MILLIONTHS)?
                .unwrap_or(ONE_MILLIONTHS),
            top_p_millionths: top_p(&fields)?,
            seed: seed(&fields)?,
            stop: stops(&fields)?,
        })
    }
}

fn missing(param: &str, expected: &str) -> ApiError {
    ApiError::invalid(param, "missing_required_parameter", format!("{param:?} is required: {expected}."))
}

fn wrong(param: &str, expected: &str) -> ApiError {
    ApiError::invalid(param, "invalid_value", format!("{param:?} must be {expected}."))
}

fn refuse_unsupported(fields: &Map<String, Value>) -> Result<(), ApiError> {
    for (name, neutral) in UNSUPPORTED {
        let Some(value) = fields.get(*name) else { continue };
        if !neutral.is_some_and(|n| n.is(value)) {
            let message = format!("{name:?} is not supported here; leave it out.");
            return Err(ApiError::invalid(name, "unsupported_parameter", message));
        }
    }
    match fields.get("n").map(Value::as_u64) {
        None | Some(Some(1)) => Ok(()),
        Some(_) => Err(ApiError::invalid(
            "n",
            "unsupported_parameter",
            "\"n\" must be 1; send the request again instead.",
        )),
    }
}

fn messages(raw: &Value) -> Result<Vec<Message>, ApiError> {
    let list = raw
        .as_array()
        .filter(|l| !l.is_empty())
        .ok_or_else(|| wrong("messages", "a list that is not empty"))?;
    if list.len() > MESSAGES_MAX {
        return Err(wrong("messages", &format!("a list of at most {MESSAGES_MAX}")));
    }
    list.iter().enumerate().map(|(at, message)| one_message(at, message)).collect()
}

fn one_message(at: usize, message: &Value) -> Result<Message, ApiError> {
    let param = |field: &str| format!("messages[{at}].{field}");
    let role = match message.get("role").and_then(Value::as_str) {
        Some("developer") => "system",
        Some(role @ ("system" | "user" | "assistant")) => role,
        Some("tool" | "function") => {
            let text = "tool messages are not supported here.";
            return Err(ApiError::invalid(&param("role"), "unsupported_parameter", text));
        }
        _ => return Err(wrong(&param("role"), "system, developer, user or assistant")),
    };
    for field in ["tool_calls", "function_call", "audio"] {
        if message.get(field).is_some_and(|v| !v.is_null() && !Neutral::Empty.is(v)) {
            let text = format!("{field:?} is not supported here.");
            return Err(ApiError::invalid(&param(field), "unsupported_parameter", text));
        }
    }
    let content = match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => text_parts(parts, &param("content"))?,
        _ => return Err(wrong(&param("content"), "text, or a list of text parts")),
    };
    Ok(Message { role: role.to_owned(), content })
}

fn text_parts(parts: &[Value], param: &str) -> Result<String, ApiError> {
    let mut all = String::new();
    for part in parts {
        match (part.get("type").and_then(Value::as_str), part.get("text").and_then(Value::as_str)) {
            (Some("text"), Some(text)) => all.push_str(text),
            (Some("text"), None) => return Err(wrong(param, "text parts that have a \"text\"")),
            _ => {
                let text = "Only text parts are supported here.";
                return Err(ApiError::invalid(param, "unsupported_parameter", text));
            }
        }
    }
    Ok(all)
}

fn boolean(fields: &Map<String, Value>, name: &str) -> Result<Option<bool>, ApiError> {
    fields.get(name).map(|v| v.as_bool().ok_or_else(|| wrong(name, "true or false"))).transpose()
}

fn include_usage(fields: &Map<String, Value>, stream: bool) -> Result<bool, ApiError> {
    let Some(options) = fields.get("stream_options") else { return Ok(false) };
    let options = options.as_object().ok_or_else(|| wrong("stream_options", "an object"))?;
    if !stream {
        return Err(wrong("stream_options", "left out when \"stream\" is not true"));
    }
    match options.get("include_usage") {
        None | Some(Value::Null) => Ok(false),
        Some(value) => value.as_bool().ok_or_else(|| wrong("stream_options.include_usage", "true or false")),
    }
}

fn max_tokens(fields: &Map<String, Value>) -> Result<Option<u32>, ApiError> {
    let one = |name: &str| -> Result<Option<u32>, ApiError> {
        let Some(value) = fields.get(name) else { return Ok(None) };
        let number = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n >= 1);
        number.map(Some).ok_or_else(|| wrong(name, "a whole number from 1 on"))
    };
    match (one("max_completion_tokens")?, one("max_tokens")?) {
        (Some(a), Some(b)) if a != b => {
            Err(wrong("max_tokens", "left out when \"max_completion_tokens\" is given"))
        }
        (a, b) => Ok(a.or(b)),
    }
}

/// Millionths of a number between 0 and `max`, nearest.
fn millionths(fields: &Map<String, Value>, name: &str, max: u32) -> Result<Option<u32>, ApiError> {
    let Some(value) = fields.get(name) else { return Ok(None) };
    let expected = || wrong(name, &format!("a number from 0 to {}", max / ONE_MILLIONTHS));
    let scaled = value.as_f64().ok_or_else(expected)? * f64::from(ONE_MILLIONTHS);
    if !(0.0..=f64::from(max)).contains(&scaled) {
        return Err(expected());
    }
    Ok(Some(scaled.round() as u32))
}

fn top_p(fields: &Map<String, Value>) -> Result<u32, ApiError> {
    match millionths(fields, "top_p", ONE_MILLIONTHS)? {
        None => Ok(ONE_MILLIONTHS),
        Some(0) => Err(wrong("top_p", "above 0; for the likeliest token set \"temperature\" to 0")),
        Some(value) => Ok(value),
    }
}

fn seed(fields: &Map<String, Value>) -> Result<Option<u64>, ApiError> {
    let Some(value) = fields.get("seed") else { return Ok(None) };
    // Negative seeds are allowed to clients; as two's complement they are as good as others.
    let number = value.as_u64().or_else(|| value.as_i64().map(|n| n as u64));
    number.map(Some).ok_or_else(|| wrong("seed", "a whole number of 64 bits"))
}

fn stops(fields: &Map<String, Value>) -> Result<Vec<String>, ApiError> {
    let expected = || {
        wrong(
            "stop",
            &format!("a text or at most {STOPS_MAX} of them, none empty or over {STOP_BYTES_MAX} bytes"),
        )
    };
    let list: Vec<String> = match fields.get("stop") {
        None => Vec::new(),
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(texts)) => texts
            .iter()
            .map(|t| t.as_str().map(str::to_owned).ok_or_else(expected))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(expected()),
    };
    let fits = |text: &String| !text.is_empty() && text.len() <= STOP_BYTES_MAX;
    if list.len() > STOPS_MAX || !list.iter().all(fits) { Err(expected()) } else { Ok(list) }
}

#[cfg(test)]
mod tests;
