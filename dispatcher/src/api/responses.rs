//! `POST /v1/responses`, without memory: the whole conversation is in the request. What would need a store is refused by name.
//! The events of a stream are in [`form`].

pub mod form;

use super::error::ApiError;
use super::request::fields::{Fields, Neutral, missing, text_parts, unsupported, wrong};
use super::request::{ChatRequest, MESSAGES_MAX, Message, Prompt, Shape, controls};
use super::serving;
use super::tools::Tools;
use crate::gateway::Shared;
use axum::extract::{Request, State};
use axum::response::Response;
use kernels::ToolCall;
use protocol::job_message::OutputFormat;
use serde_json::{Value, json};
use std::sync::Arc;

/// What the answer repeats of its request.
#[derive(Clone, PartialEq, Debug)]
pub struct ResponseEcho {
    /// Fields of the response object that say what was asked.
    pub asked: Value,
}

/// Parameters that we know and do not do.
const UNSUPPORTED: &[(&str, Option<Neutral>)] = &[
    ("background", Some(Neutral::False)),
    ("context_management", Some(Neutral::Empty)),
    ("conversation", None),
    ("max_tool_calls", None),
    ("previous_response_id", None),
    ("prompt", None),
    ("service_tier", Some(Neutral::Texts(&["auto", "default"]))),
    ("store", Some(Neutral::False)),
    ("truncation", Some(Neutral::Text("disabled"))),
];

/// The call.
pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, ApiError> {
    serving::create(shared, request, parse).await
}

/// Parses its body.
///
/// # Errors
/// 400 with the parameter's name.
pub fn parse(body: &[u8]) -> Result<ChatRequest, ApiError> {
    let fields = Fields::parse(body)?;
    fields.refuse(UNSUPPORTED)?;
    let reasoning = fields.get("reasoning").and_then(|reasoning| reasoning.get("effort"));
    if reasoning.is_some_and(|effort| !effort.is_null() && effort != "none") {
        return Err(unsupported("reasoning.effort"));
    }
    let messages = conversation(&fields)?;
    let tools = Tools::of_response(&fields)?;
    let mut controls = controls::controls(&fields)?;
    controls.logprobs = logprobs(&fields)?;
    controls.format = format(&fields)?;
    let max_tokens = fields.tokens("max_output_tokens")?;
    let asked = asked(&fields, &tools, max_tokens);
    let raw = messages.iter().map(chat_message).collect();
    let request = ChatRequest {
        model: fields.model()?,
        prompts: vec![Prompt::Chat(messages)],
        n: 1,
        messages_raw: raw,
        stream: fields.boolean("stream")?.unwrap_or(false),
        include_usage: true,
        max_tokens,
        sampling: controls::sampling(&fields)?,
        controls,
        tools,
        shape: Shape::Response(Box::new(ResponseEcho { asked })),
    };
    request.with_tools()
}

/// Instructions and input as one conversation.
fn conversation(fields: &Fields) -> Result<Vec<Message>, ApiError> {
    let mut messages = Vec::new();
    if let Some(instructions) = fields.text("instructions")? {
        messages.push(Message { role: "system".to_owned(), content: instructions, calls: vec![] });
    }
    let input = fields.get("input").ok_or_else(|| missing("input", "a text or a list of items"))?;
    match input {
        Value::String(text) => {
            messages.push(Message { role: "user".to_owned(), content: text.clone(), calls: vec![] });
        }
        Value::Array(items) if !items.is_empty() && items.len() <= MESSAGES_MAX => {
            for (at, item) in items.iter().enumerate() {
                take_item(&mut messages, at, item)?;
            }
        }
        _ => return Err(wrong("input", &format!("a text or a list of 1 to {MESSAGES_MAX} items"))),
    }
    Ok(messages)
}

fn take_item(messages: &mut Vec<Message>, at: usize, item: &Value) -> Result<(), ApiError> {
    let param = |field: &str| format!("input[{at}].{field}");
    let text =
        |field: &str| item.get(field).and_then(Value::as_str).ok_or_else(|| wrong(&param(field), "a text"));
    match item.get("type").and_then(Value::as_str).unwrap_or("message") {
        "message" => messages.push(message(item, &param)?),
        "function_call" => {
            let arguments = serde_json::from_str(text("arguments")?)
                .map_err(|_| wrong(&param("arguments"), "a JSON object as text"))?;
            let call = ToolCall { name: text("name")?.to_owned(), arguments };
            // Calls of one turn are one message of the assistant's.
            match messages.last_mut().filter(|last| last.role == "assistant") {
                Some(last) => last.calls.push(call),
                None => messages.push(Message {
                    role: "assistant".to_owned(),
                    content: String::new(),
                    calls: vec![call],
                }),
            }
        }
        "function_call_output" => {
            let content = content(item.get("output"), &param("output"))?;
            messages.push(Message { role: "tool".to_owned(), content, calls: vec![] });
        }
        // Nothing of ours makes these; another provider's are of no use to this model.
        "reasoning" => {}
        _ => return Err(unsupported(&param("type"))),
    }
    Ok(())
}

fn message(item: &Value, param: &dyn Fn(&str) -> String) -> Result<Message, ApiError> {
    let role = match item.get("role").and_then(Value::as_str) {
        Some("developer") => "system",
        Some(role @ ("system" | "user" | "assistant")) => role,
        _ => return Err(wrong(&param("role"), "system, developer, user or assistant")),
    };
    let content = content(item.get("content"), &param("content"))?;
    Ok(Message { role: role.to_owned(), content, calls: vec![] })
}

fn content(value: Option<&Value>, param: &str) -> Result<String, ApiError> {
    match value {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => text_parts(parts, &["input_text", "output_text", "text"], param),
        _ => Err(wrong(param, "text, or a list of text parts")),
    }
}

/// As a chat has it, for backends that tokenise themselves.
fn chat_message(message: &Message) -> Value {
    let mut value = json!({ "role": message.role, "content": message.content });
    if !message.calls.is_empty() {
        let calls = message.calls.iter().map(|call| {
            json!({ "type": "function",
                    "function": { "name": call.name, "arguments": call.arguments.to_string() } })
        });
        value["tool_calls"] = calls.collect();
    }
    value
}

fn logprobs(fields: &Fields) -> Result<Option<u8>, ApiError> {
    let top = fields.whole("top_logprobs", 0, 20)?;
    let included = match fields.get("include") {
        None => false,
        Some(Value::Array(names)) => {
            let known = ["message.output_text.logprobs", "reasoning.encrypted_content"];
            if let Some(other) = names.iter().find(|name| !known.iter().any(|known| name == known)) {
                let text = format!("{other} cannot be included here; leave it out.");
                return Err(ApiError::invalid("include", "unsupported_parameter", text));
            }
            names.iter().any(|name| name == known[0])
        }
        Some(_) => return Err(wrong("include", "a list of texts")),
    };
    Ok((included || top.is_some_and(|top| top > 0)).then(|| top.unwrap_or(0) as u8))
}

fn format(fields: &Fields) -> Result<OutputFormat, ApiError> {
    let Some(text) = fields.get("text") else { return Ok(OutputFormat::Text) };
    let verbosity = text.get("verbosity");
    if verbosity.is_some_and(|verbosity| !verbosity.is_null() && verbosity != "medium") {
        return Err(unsupported("text.verbosity"));
    }
    let Some(format) = text.get("format").filter(|format| !format.is_null()) else {
        return Ok(OutputFormat::Text);
    };
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(OutputFormat::Text),
        Some("json_object") => Ok(OutputFormat::JsonObject),
        Some("json_schema") => controls::schema_format(format.get("schema"), "text.format.schema"),
        _ => Err(wrong("text.format.type", "text, json_object or json_schema")),
    }
}

/// The fields of the response object that say what was asked; clients check that they are there.
fn asked(fields: &Fields, tools: &Tools, max_tokens: Option<u32>) -> Value {
    let given = |name: &str, otherwise: Value| fields.get(name).cloned().unwrap_or(otherwise);
    let format = fields.get("text").and_then(|text| text.get("format")).cloned();
    let count = tools.count == super::tools::CallCount::Any;
    json!({
        "instructions": given("instructions", Value::Null),
        "max_output_tokens": max_tokens,
        "metadata": given("metadata", json!({})),
        "parallel_tool_calls": count,
        "previous_response_id": null,
        "reasoning": { "effort": null, "summary": null },
        "store": false,
        "temperature": given("temperature", json!(1.0)),
        "text": { "format": format.unwrap_or_else(|| json!({ "type": "text" })) },
        "tool_choice": given("tool_choice", json!("auto")),
        "tools": given("tools", json!([])),
        "top_p": given("top_p", json!(1.0)),
        "truncation": "disabled",
        "background": false,
        "service_tier": "default",
        "user": given("user", Value::Null),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(extra: Value) -> Result<ChatRequest, ApiError> {
        let mut body = json!({ "model": "smol", "input": "hi" });
        for (key, value) in extra.as_object().unwrap() {
            body[key] = value.clone();
        }
        parse(body.to_string().as_bytes())
    }

    fn roles(request: &ChatRequest) -> Vec<(String, String, usize)> {
        let Prompt::Chat(messages) = &request.prompts[0] else { panic!("no chat") };
        messages.iter().map(|m| (m.role.clone(), m.content.clone(), m.calls.len())).collect()
    }

    #[test]
    fn items_become_a_conversation() {
        let request = parsed(json!({ "instructions": "Be brief.", "input": [
            { "role": "user", "content": [{ "type": "input_text", "text": "now?" }] },
            { "type": "reasoning", "summary": [] },
            { "type": "function_call", "call_id": "c1", "name": "now", "arguments": "{}" },
            { "type": "function_call", "call_id": "c2", "name": "now", "arguments": "{}" },
            { "type": "function_call_output", "call_id": "c1", "output": "noon" },
            { "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": "Noon." }] },
        ] }));
        let row = |role: &str, text: &str, calls| (role.to_owned(), text.to_owned(), calls);
        assert_eq!(
            roles(&request.unwrap()),
            [
                row("system", "Be brief.", 0),
                row("user", "now?", 0),
                row("assistant", "", 2),
                row("tool", "noon", 0),
                row("assistant", "Noon.", 0),
            ]
        );
    }

    #[test]
    fn what_needs_a_memory_is_refused_by_name() {
        for (param, value) in [
            ("previous_response_id", json!("resp_1")),
            ("conversation", json!("conv_1")),
            ("background", json!(true)),
            ("store", json!(true)),
            ("prompt", json!({ "id": "p" })),
            ("truncation", json!("auto")),
            ("service_tier", json!("flex")),
            ("max_tool_calls", json!(3)),
        ] {
            let error = parsed(json!({ param: value })).expect_err(param);
            assert_eq!((error.param.as_deref(), error.code), (Some(param), "unsupported_parameter"));
        }
        let check = |extra: Value, param: &str, code: &str| {
            let error = parsed(extra.clone()).expect_err(&extra.to_string());
            assert_eq!((error.param.as_deref(), error.code), (Some(param), code), "{extra}");
        };
        check(json!({ "reasoning": { "effort": "high" } }), "reasoning.effort", "unsupported_parameter");
        check(json!({ "include": ["file_search_call.results"] }), "include", "unsupported_parameter");
        check(
            json!({ "input": [{ "type": "item_reference", "id": "x" }] }),
            "input[0].type",
            "unsupported_parameter",
        );
        check(json!({ "input": [] }), "input", "invalid_value");
        check(json!({ "input": null }), "input", "missing_required_parameter");
        check(json!({ "tools": [{ "type": "web_search" }] }), "tools[0].type", "unsupported_parameter");
        check(json!({ "text": { "format": { "type": "xml" } } }), "text.format.type", "invalid_value");
    }

    #[test]
    fn schemas_tools_and_probabilities_arrive() {
        let schema = json!({ "type": "json_schema", "name": "n", "schema": { "type": "object" } });
        let request = parsed(json!({
            "text": { "format": schema }, "include": ["message.output_text.logprobs"], "top_logprobs": 2,
            "reasoning": null, "store": false, "max_output_tokens": 9,
        }));
        let request = request.unwrap();
        assert!(matches!(request.controls.format, OutputFormat::JsonSchema { .. }));
        assert_eq!((request.controls.logprobs, request.max_tokens), (Some(2), Some(9)));
        let tool = json!({ "type": "function", "name": "now", "parameters": { "type": "object" } });
        let request = parsed(json!({ "tools": [tool], "tool_choice": "required" })).unwrap();
        assert!(matches!(request.controls.format, OutputFormat::JsonSchema { .. }));
        assert_eq!(request.tools.definitions[0]["function"]["name"], "now");
    }
}
