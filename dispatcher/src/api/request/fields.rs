//! The fields of a request's body: present or absent, of the right kind, within bounds; each refusal names its parameter.

use crate::api::error::ApiError;
use serde_json::{Map, Value};

/// A body's fields; those that are null are absent, as they are to OpenAI's clients.
pub struct Fields(Map<String, Value>);

/// A value of an unsupported parameter that changes nothing and so is let through.
#[derive(Clone, Copy)]
pub enum Neutral {
    /// `0`.
    Zero,
    /// `1`.
    One,
    /// `false`.
    False,
    /// An empty list, object or text.
    Empty,
    /// This text.
    Text(&'static str),
    /// One of these texts.
    Texts(&'static [&'static str]),
    /// `["text"]`.
    TextOnly,
}

impl Neutral {
    /// Whether a value asks for nothing.
    pub fn is(self, value: &Value) -> bool {
        match self {
            Neutral::Zero => value.as_f64() == Some(0.0),
            Neutral::One => value.as_f64() == Some(1.0),
            Neutral::False => value == &Value::Bool(false),
            Neutral::Empty => {
                value.as_array().is_some_and(Vec::is_empty)
                    || value.as_object().is_some_and(Map::is_empty)
                    || value.as_str().is_some_and(str::is_empty)
            }
            Neutral::Text(text) => value.as_str() == Some(text),
            Neutral::Texts(texts) => value.as_str().is_some_and(|v| texts.contains(&v)),
            Neutral::TextOnly => value.as_array().is_some_and(|a| a.len() == 1 && a[0] == "text"),
        }
    }
}

/// 400 for a field that must be there.
pub fn missing(param: &str, expected: &str) -> ApiError {
    ApiError::invalid(param, "missing_required_parameter", format!("{param:?} is required: {expected}."))
}

/// 400 for a field of the wrong kind or out of bounds.
pub fn wrong(param: &str, expected: &str) -> ApiError {
    ApiError::invalid(param, "invalid_value", format!("{param:?} must be {expected}."))
}

/// 400 for a field that we know and do not do.
pub fn unsupported(param: &str) -> ApiError {
    let message = format!("{param:?} is not supported here; leave it out.");
    ApiError::invalid(param, "unsupported_parameter", message)
}

impl Fields {
    /// The fields of a JSON object.
    ///
    /// # Errors
    /// 400 for what is none.
    pub fn parse(body: &[u8]) -> Result<Fields, ApiError> {
        let value: Value = serde_json::from_slice(body)
            .map_err(|e| ApiError::malformed(format!("The body is not JSON: {e}.")))?;
        let Value::Object(fields) = value else {
            return Err(ApiError::malformed("The body must be a JSON object."));
        };
        Ok(Fields(fields.into_iter().filter(|(_, v)| !v.is_null()).collect()))
    }

    /// A field.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Refuses what is in `unsupported` and does not ask for nothing.
    ///
    /// # Errors
    /// 400 `unsupported_parameter`.
    pub fn refuse(&self, unsupported: &[(&'static str, Option<Neutral>)]) -> Result<(), ApiError> {
        let asked = |(name, neutral): &&(&str, Option<Neutral>)| {
            self.get(name).is_some_and(|value| !neutral.is_some_and(|n| n.is(value)))
        };
        match unsupported.iter().find(asked) {
            Some((name, _)) => Err(self::unsupported(name)),
            None => Ok(()),
        }
    }

    /// The name of a model.
    ///
    /// # Errors
    /// 400 where there is none.
    pub fn model(&self) -> Result<String, ApiError> {
        let model = self.get("model").and_then(Value::as_str).filter(|m| !m.is_empty());
        model.map(str::to_owned).ok_or_else(|| missing("model", "the name of a model"))
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// 400 for another kind.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.get(name).map(|v| v.as_bool().ok_or_else(|| wrong(name, "true or false"))).transpose()
    }

    /// A whole number within bounds.
    ///
    /// # Errors
    /// 400 for another kind or outside them.
    pub fn whole(&self, name: &str, min: u64, max: u64) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.as_u64().filter(|n| (min..=max).contains(n));
        number.map(Some).ok_or_else(|| wrong(name, &format!("a whole number from {min} to {max}")))
    }

    /// A count of tokens.
    ///
    /// # Errors
    /// 400 for anything but a whole number from 1 on.
    pub fn tokens(&self, name: &str) -> Result<Option<u32>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n >= 1);
        number.map(Some).ok_or_else(|| wrong(name, "a whole number from 1 on"))
    }

    /// A text.
    ///
    /// # Errors
    /// 400 for another kind.
    pub fn text(&self, name: &str) -> Result<Option<String>, ApiError> {
        self.get(name).map(|v| v.as_str().map(str::to_owned).ok_or_else(|| wrong(name, "a text"))).transpose()
    }
}

/// The text of content parts of one of these types, joined.
///
/// # Errors
/// 400 for a part of another type, and for one without text.
pub fn text_parts(parts: &[Value], types: &[&str], param: &str) -> Result<String, ApiError> {
    let mut all = String::new();
    for part in parts {
        let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
        if !types.contains(&kind) {
            let text = format!("Only parts of type {} are supported here.", types.join(", "));
            return Err(ApiError::invalid(param, "unsupported_parameter", text));
        }
        let text = part.get("text").and_then(Value::as_str);
        all.push_str(text.ok_or_else(|| wrong(param, "text parts that have a \"text\""))?);
    }
    Ok(all)
}
