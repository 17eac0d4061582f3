//! Tools that a model may call: how a template is told of them, and how calls are read back out of what the model wrote. The
//! format is the template's own. Nothing is called here.

use crate::error::Error;
use crate::template::MARK;
use crate::tokenizer::{Piece, Tokenizer};
use serde_json::Value;

/// Tools of one prompt.
const TOOLS_MAX: usize = 128;
/// Bytes of all definitions of a prompt, as JSON.
const TOOLS_BYTES_MAX: usize = 256 << 10;
/// Calls that are read out of one answer.
const CALLS_MAX: usize = 128;
const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// How a model writes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolFormat {
    /// `<tool_call>{"name": .., "arguments": {..}}</tool_call>`, one object or a list of them between the marks (Hermes, Qwen,
    /// SmolLM2).
    Tagged,
    /// The whole answer is `{"name": .., "parameters": {..}}` (Llama 3).
    Bare,
}

/// A call that a model wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// The function.
    pub name: String,
    /// Its arguments, a JSON object; not checked against the tool's schema.
    pub arguments: Value,
}

/// An answer with its calls taken out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToolAnswer {
    /// What is not a call. A call that is not well formed stays here, as the model wrote it.
    pub text: String,
    /// In the order in which they were written.
    pub calls: Vec<ToolCall>,
}

impl ToolFormat {
    /// The format of a template that uses the variable `tools`: tagged where it writes the tag.
    pub(crate) fn of_template(source: &str) -> ToolFormat {
        if source.contains(OPEN) { ToolFormat::Tagged } else { ToolFormat::Bare }
    }

    /// Takes the calls out of an answer. Never fails: what cannot be read is text.
    pub fn parse(self, answer: &str) -> ToolAnswer {
        match self {
            ToolFormat::Tagged => tagged(answer),
            ToolFormat::Bare => bare(answer),
        }
    }
}

fn tagged(answer: &str) -> ToolAnswer {
    let mut found = ToolAnswer::default();
    let mut rest = answer;
    while let Some((before, after)) = rest.split_once(OPEN) {
        found.text.push_str(before);
        // A model that was cut off, or that ends with eos instead of the mark, may still have written a whole object.
        let (inside, next) = after.split_once(CLOSE).unwrap_or((after, ""));
        match calls(inside) {
            Some(calls) if found.calls.len() + calls.len() <= CALLS_MAX => found.calls.extend(calls),
            _ => found.text.push_str(&rest[before.len()..rest.len() - next.len()]),
        }
        rest = next;
    }
    found.text.push_str(rest);
    if !found.calls.is_empty() {
        found.text = found.text.trim().to_owned();
    }
    found
}

fn bare(answer: &str) -> ToolAnswer {
    match calls(answer) {
        Some(calls) if calls.len() <= CALLS_MAX => ToolAnswer { text: String::new(), calls },
        _ => ToolAnswer { text: answer.to_owned(), calls: Vec::new() },
    }
}

/// The calls of a JSON text that is nothing but a call or a list of at least one.
fn calls(text: &str) -> Option<Vec<ToolCall>> {
    match serde_json::from_str(text.trim()).ok()? {
        Value::Array(list) if !list.is_empty() => list.into_iter().map(call).collect(),
        one => Some(vec![call(one)?]),
    }
}

fn call(value: Value) -> Option<ToolCall> {
    let Value::Object(mut fields) = value else { return None };
    let Value::String(name) = fields.remove("name")? else { return None };
    let arguments = fields.remove("arguments").or_else(|| fields.remove("parameters"));
    let arguments = match arguments {
        None | Some(Value::Null) => Value::Object(serde_json::Map::new()),
        // Some models write the object as a string.
        Some(Value::String(text)) => serde_json::from_str(&text).ok()?,
        Some(value) => value,
    };
    (!name.is_empty() && arguments.is_object()).then_some(ToolCall { name, arguments })
}

/// Refuses definitions that are too large, are no objects, or hold the text of a special token or a placeholder's mark: a template writes them as its
/// own text, in which special tokens are parsed.
pub(crate) fn check(tokenizer: &Tokenizer, tools: &[Value]) -> Result<(), Error> {
    let refuse = |what: String| Err(Error::InvalidMessage { what });
    let bytes: usize = tools.iter().map(|tool| tool.to_string().len()).sum();
    if tools.len() > TOOLS_MAX || bytes > TOOLS_BYTES_MAX {
        let what =
            format!("{} tools of {bytes} bytes; at most {TOOLS_MAX} of {TOOLS_BYTES_MAX}", tools.len());
        return refuse(what);
    }
    for (index, tool) in tools.iter().enumerate() {
        if !tool.is_object() {
            return refuse(format!("tool {index} is no JSON object"));
        }
        if let Some(text) = special_text(tokenizer, tool) {
            return refuse(format!(
                "tool {index} contains a special token or mark in {text:?}; leave it out"
            ));
        }
    }
    Ok(())
}

/// A string or key that contains a special token.
fn special_text(tokenizer: &Tokenizer, value: &Value) -> Option<String> {
    let has = |text: &str| {
        let special = || tokenizer.pieces(text).iter().any(|piece| matches!(piece, Piece::Special(_)));
        (text.contains(MARK) || special()).then(|| text.chars().take(64).collect::<String>())
    };
    match value {
        Value::String(text) => has(text),
        Value::Array(list) => list.iter().find_map(|value| special_text(tokenizer, value)),
        Value::Object(fields) => {
            fields.iter().find_map(|(key, value)| has(key).or_else(|| special_text(tokenizer, value)))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// JSON as templates are trained on it, which is Python's `json.dumps(value, ensure_ascii=False)`: a space after `,` and `:`.
pub(crate) fn python_json(value: &Value) -> String {
    match value {
        Value::Array(list) => {
            let inner: Vec<String> = list.iter().map(python_json).collect();
            format!("[{}]", inner.join(", "))
        }
        Value::Object(fields) => {
            let pair = |(key, value): (&String, &Value)| {
                format!("{}: {}", Value::from(key.as_str()), python_json(value))
            };
            format!("{{{}}}", fields.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn call(name: &str, arguments: Value) -> ToolCall {
        ToolCall { name: name.to_owned(), arguments }
    }

    #[test]
    fn calls_are_read_out_of_the_text_around_them() {
        let parse = |text: &str| ToolFormat::Tagged.parse(text);
        let answer = parse(
            "Let me look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\"}}\n</tool_call>\n\
             <tool_call>[{\"name\": \"a\", \"arguments\": {}}, {\"name\": \"b\"}]</tool_call>",
        );
        assert_eq!(answer.text, "Let me look.");
        let expected = [call("weather", json!({"city": "Köln"})), call("a", json!({})), call("b", json!({}))];
        assert_eq!(answer.calls, expected);
        // Ended by eos before the closing mark.
        assert_eq!(parse("<tool_call>{\"name\":\"a\",\"arguments\":{}}").calls, [call("a", json!({}))]);
        // Arguments as a string.
        let text = r#"<tool_call>{"name":"a","arguments":"{\"x\":1}"}</tool_call>"#;
        assert_eq!(parse(text).calls, [call("a", json!({"x": 1}))]);
    }

    #[test]
    fn what_is_no_call_stays_text_unchanged() {
        for text in [
            " plain ",
            "<tool_call>not json</tool_call> after",
            "<tool_call>{\"name\": 3}</tool_call>",
            "<tool_call>{\"name\":\"a\",\"arguments\":[1]}</tool_call>",
            "<tool_call>[]</tool_call>",
            "<tool_call>{\"name\":\"\",\"arguments\":{}}</tool_call>",
            "</tool_call><tool_call>",
            "",
        ] {
            let answer = ToolFormat::Tagged.parse(text);
            assert_eq!((answer.text.as_str(), answer.calls.len()), (text, 0));
            assert_eq!(ToolFormat::Bare.parse(text).text, text);
        }
        // A broken call keeps its place between whole ones.
        let answer = ToolFormat::Tagged.parse(
            "<tool_call>{\"name\":\"a\"}</tool_call>x<tool_call>{</tool_call>y<tool_call>{\"name\":\"b\"}",
        );
        assert_eq!((answer.text.as_str(), answer.calls.len()), ("x<tool_call>{</tool_call>y", 2));
    }

    #[test]
    fn a_bare_answer_is_a_call_or_nothing_of_it_is() {
        let parse = |text: &str| ToolFormat::Bare.parse(text);
        let text = r#" {"name": "sum", "parameters": {"a": 1}} "#;
        assert_eq!(
            parse(text),
            ToolAnswer { text: String::new(), calls: vec![call("sum", json!({"a": 1}))] }
        );
        let text = r#"I call {"name": "sum", "parameters": {}}"#;
        assert_eq!(parse(text), ToolAnswer { text: text.to_owned(), calls: vec![] });
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let value = json!({"b": [1, 2.5, "ä\"\n"], "a": {"x": null, "y": true}, "e": {}, "f": []});
        let text = python_json(&value);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        assert_eq!(python_json(&json!({"k": [1, "ä"]})), r#"{"k": [1, "ä"]}"#);
    }
}
