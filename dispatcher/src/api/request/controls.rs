//! What steers the choice of tokens, as a request's fields say it: sampling, penalties, biases, formats, log-probabilities.
//! Numbers become millionths, so that they are committed to and re-executed exactly.

use super::ONE_MILLIONTHS;
use super::fields::{Fields, wrong};
use crate::api::error::ApiError;
use protocol::job_message::{JobControls, OutputFormat};
use serde_json::Value;

/// Most stop texts.
pub const STOPS_MAX: usize = 4;
/// Longest stop text, bytes.
pub const STOP_BYTES_MAX: usize = 256;
/// Most tokens with a bias.
const BIASES_MAX: usize = 1_024;
/// Most likely tokens that are reported beside each.
const TOP_LOGPROBS_MAX: u64 = 20;
/// The same for `POST /v1/completions`.
const COMPLETION_LOGPROBS_MAX: u64 = 5;

/// How tokens are chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sampling {
    /// Millionths.
    pub temperature_millionths: u32,
    /// Millionths.
    pub top_p_millionths: u32,
    /// 0 = off.
    pub top_k: u32,
    /// The client's seed.
    pub seed: Option<u64>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
}

/// `temperature`, `top_p`, `top_k`, `seed`, `stop`.
///
/// # Errors
/// 400 with the parameter's name.
pub fn sampling(fields: &Fields) -> Result<Sampling, ApiError> {
    Ok(Sampling {
        temperature_millionths: millionths(fields, "temperature", 0.0, 2.0)?.unwrap_or(ONE_MILLIONTHS as i32)
            as u32,
        top_p_millionths: top_p(fields)?,
        top_k: fields.whole("top_k", 0, u64::from(u32::MAX))?.unwrap_or(0) as u32,
        seed: seed(fields)?,
        stop: stops(fields)?,
    })
}

/// Penalties, biases and cuts; `min_p` and `repetition_penalty` by the names that other servers gave them.
///
/// # Errors
/// 400 with the parameter's name.
pub fn controls(fields: &Fields) -> Result<JobControls, ApiError> {
    let standard = JobControls::default();
    Ok(JobControls {
        min_p_millionths: millionths(fields, "min_p", 0.0, 1.0)?.unwrap_or(0) as u32,
        repetition_penalty_millionths: millionths(fields, "repetition_penalty", 0.01, 100.0)?
            .map_or(standard.repetition_penalty_millionths, |value| value as u32),
        frequency_penalty_millionths: millionths(fields, "frequency_penalty", -2.0, 2.0)?.unwrap_or(0),
        presence_penalty_millionths: millionths(fields, "presence_penalty", -2.0, 2.0)?.unwrap_or(0),
        logit_bias: logit_bias(fields)?,
        ..standard
    })
}

/// `logprobs` and `top_logprobs` of a chat.
///
/// # Errors
/// 400 with the parameter's name.
pub fn chat_logprobs(fields: &Fields) -> Result<Option<u8>, ApiError> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    let top = fields.whole("top_logprobs", 0, TOP_LOGPROBS_MAX)?.unwrap_or(0);
    if !wanted && top > 0 {
        return Err(wrong("top_logprobs", "left out when \"logprobs\" is not true"));
    }
    Ok(wanted.then_some(top as u8))
}

/// `logprobs` of a completion: a number.
///
/// # Errors
/// 400 with the parameter's name.
pub fn completion_logprobs(fields: &Fields) -> Result<Option<u8>, ApiError> {
    Ok(fields.whole("logprobs", 0, COMPLETION_LOGPROBS_MAX)?.map(|count| count as u8))
}

/// `response_format` of a chat.
///
/// # Errors
/// 400 with the parameter's name.
pub fn response_format(fields: &Fields) -> Result<OutputFormat, ApiError> {
    let Some(value) = fields.get("response_format") else { return Ok(OutputFormat::Text) };
    match value.get("type").and_then(Value::as_str) {
        Some("text") => Ok(OutputFormat::Text),
        Some("json_object") => Ok(OutputFormat::JsonObject),
        Some("json_schema") => {
            let schema = value.get("json_schema").and_then(|s| s.get("schema"));
            schema_format(schema, "response_format.json_schema.schema")
        }
        _ => Err(wrong("response_format.type", "text, json_object or json_schema")),
    }
}

/// A schema of a client's as a format. Without one, any object.
///
/// # Errors
/// 400 for what is no schema.
pub fn schema_format(schema: Option<&Value>, param: &str) -> Result<OutputFormat, ApiError> {
    match schema {
        None | Some(Value::Null) => Ok(OutputFormat::JsonObject),
        Some(schema @ Value::Object(_)) => Ok(OutputFormat::JsonSchema { schema: schema.to_string() }),
        Some(_) => Err(wrong(param, "a JSON schema")),
    }
}

/// Whether answers can be held to the format at all.
///
/// # Errors
/// 400 in the grammar's words.
pub fn check_format(format: &OutputFormat) -> Result<(), ApiError> {
    let OutputFormat::JsonSchema { schema } = format else { return Ok(()) };
    kernels::check_format(&kernels::OutputFormat::JsonSchema(schema.clone())).map_err(|error| {
        let text = format!("Answers cannot be held to this schema: {error}.");
        ApiError::invalid("response_format", "invalid_value", text)
    })
}

/// Millionths of a number within bounds, nearest.
fn millionths(fields: &Fields, name: &str, min: f64, max: f64) -> Result<Option<i32>, ApiError> {
    let Some(value) = fields.get(name) else { return Ok(None) };
    let number = value.as_f64().filter(|number| (min..=max).contains(number));
    let number = number.ok_or_else(|| wrong(name, &format!("a number from {min} to {max}")))?;
    Ok(Some((number * f64::from(ONE_MILLIONTHS)).round() as i32))
}

fn top_p(fields: &Fields) -> Result<u32, ApiError> {
    match millionths(fields, "top_p", 0.0, 1.0)? {
        None => Ok(ONE_MILLIONTHS),
        Some(0) => Err(wrong("top_p", "above 0; for the likeliest token set \"temperature\" to 0")),
        Some(value) => Ok(value as u32),
    }
}

fn seed(fields: &Fields) -> Result<Option<u64>, ApiError> {
    let Some(value) = fields.get("seed") else { return Ok(None) };
    // Negative seeds are allowed to clients; as two's complement they are as good as others.
    let number = value.as_u64().or_else(|| value.as_i64().map(|n| n as u64));
    number.map(Some).ok_or_else(|| wrong("seed", "a whole number of 64 bits"))
}

fn stops(fields: &Fields) -> Result<Vec<String>, ApiError> {
    let expected = || {
        let text =
            format!("a text or at most {STOPS_MAX} of them, none empty or over {STOP_BYTES_MAX} bytes");
        wrong("stop", &text)
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

fn logit_bias(fields: &Fields) -> Result<Vec<(u32, i32)>, ApiError> {
    let Some(value) = fields.get("logit_bias") else { return Ok(Vec::new()) };
    let expected = || {
        let text =
            format!("an object of at most {BIASES_MAX} token ids, each with a number from -100 to 100");
        wrong("logit_bias", &text)
    };
    let pairs = value.as_object().filter(|pairs| pairs.len() <= BIASES_MAX).ok_or_else(expected)?;
    let one = |(id, bias): (&String, &Value)| {
        let bias = bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias))?;
        Some((id.parse().ok()?, (bias * f64::from(ONE_MILLIONTHS)).round() as i32))
    };
    let mut biases: Vec<(u32, i32)> =
        pairs.iter().map(|pair| one(pair).ok_or_else(expected)).collect::<Result<_, _>>()?;
    biases.sort_unstable();
    // "7" and "07" are one token.
    if biases.windows(2).any(|two| two[0].0 == two[1].0) { Err(expected()) } else { Ok(biases) }
}
