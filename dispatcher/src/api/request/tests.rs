//! Bodies as SDKs send them, and each wrong one with the parameter it is refused for.

use super::*;
use serde_json::json;

fn parse(extra: Value) -> Result<ChatRequest, ApiError> {
    let mut body = json!({ "model": "smol", "messages": [{ "role": "user", "content": "hi" }] });
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    ChatRequest::parse(body.to_string().as_bytes())
}

fn refused(extra: Value, param: &str, code: &str) {
    let error = parse(extra.clone()).expect_err(&extra.to_string());
    assert_eq!(
        (error.status.as_u16(), error.param.as_deref(), error.code),
        (400, Some(param), code),
        "{extra}"
    );
}

#[test]
fn the_smallest_request() {
    let request = parse(json!({})).unwrap();
    assert_eq!(request.model, "smol");
    assert_eq!(request.messages, [Message { role: "user".into(), content: "hi".into() }]);
    assert_eq!((request.stream, request.include_usage, request.max_tokens), (false, false, None));
    assert_eq!((request.temperature_millionths, request.top_p_millionths), (1_000_000, 1_000_000));
}

#[test]
fn what_openai_python_and_others_send_by_default_is_taken() {
    let request = parse(json!({
        "stream": true, "stream_options": { "include_usage": true, "include_obfuscation": false },
        "max_completion_tokens": 64, "temperature": 0.7, "top_p": 0.95, "seed": -1, "stop": ["\n\n", "END"],
        "n": 1, "user": "u", "metadata": { "a": "b" }, "presence_penalty": 0, "frequency_penalty": 0.0,
        "logprobs": false, "tools": [], "tool_choice": "auto", "response_format": { "type": "text" },
        "store": false, "service_tier": "auto", "parallel_tool_calls": true, "safety_identifier": "s",
        "prompt_cache_key": "k", "some_provider_extra": { "x": 1 }, "logit_bias": {}, "modalities": ["text"],
        "max_tokens": null, "functions": null,
    }))
    .unwrap();
    assert!(request.stream && request.include_usage);
    assert_eq!(request.max_tokens, Some(64));
    assert_eq!((request.temperature_millionths, request.top_p_millionths), (700_000, 950_000));
    assert_eq!(request.seed, Some(u64::MAX));
    assert_eq!(request.stop, ["\n\n", "END"]);
}

#[test]
fn known_but_unsupported_is_refused_by_name() {
    for (param, value) in [
        ("tools", json!([{ "type": "function" }])),
        ("tool_choice", json!("required")),
        ("functions", json!([{}])),
        ("response_format", json!({ "type": "json_object" })),
        ("logprobs", json!(true)),
        ("top_logprobs", json!(3)),
        ("logit_bias", json!({ "5": 1 })),
        ("presence_penalty", json!(0.1)),
        ("frequency_penalty", json!(-0.1)),
        ("n", json!(2)),
        ("n", json!("1")),
        ("audio", json!({})),
        ("modalities", json!(["text", "audio"])),
        ("prediction", json!({})),
        ("reasoning_effort", json!("high")),
        ("service_tier", json!("priority")),
        ("store", json!(true)),
        ("verbosity", json!("low")),
        ("web_search_options", json!({})),
    ] {
        refused(json!({ param: value }), param, "unsupported_parameter");
    }
}

#[test]
fn wrong_values_name_their_parameter() {
    for (param, value) in [
        ("stream", json!("yes")),
        ("stream_options", json!({ "include_usage": true })),
        ("max_tokens", json!(0)),
        ("max_tokens", json!(-1)),
        ("max_tokens", json!(1.5)),
        ("max_completion_tokens", json!("many")),
        ("temperature", json!(2.1)),
        ("temperature", json!(-0.1)),
        ("temperature", json!("hot")),
        ("top_p", json!(0)),
        ("top_p", json!(1.1)),
        ("seed", json!(0.5)),
        ("stop", json!(["a", "b", "c", "d", "e"])),
        ("stop", json!([""])),
        ("stop", json!(5)),
        ("messages", json!([])),
        ("messages", json!("hi")),
    ] {
        refused(json!({ param: value }), param, "invalid_value");
    }
    refused(json!({ "max_tokens": 5, "max_completion_tokens": 6 }), "max_tokens", "invalid_value");
    refused(json!({ "model": null }), "model", "missing_required_parameter");
    refused(json!({ "model": "" }), "model", "missing_required_parameter");
    refused(json!({ "messages": null }), "messages", "missing_required_parameter");
}

#[test]
fn messages_are_text_only() {
    let parts = json!([{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }]);
    let message = |content: Value| json!({ "messages": [{ "role": "developer", "content": content }] });
    let parsed = parse(message(parts)).unwrap();
    assert_eq!(parsed.messages, [Message { role: "system".into(), content: "ab".into() }]);
    let image = json!([{ "type": "image_url", "image_url": { "url": "x" } }]);
    refused(message(image), "messages[0].content", "unsupported_parameter");
    refused(message(json!(5)), "messages[0].content", "invalid_value");
    refused(message(Value::Null), "messages[0].content", "invalid_value");
    refused(
        json!({ "messages": [{ "role": "robot", "content": "x" }] }),
        "messages[0].role",
        "invalid_value",
    );
    let tool = json!({ "messages": [{ "role": "tool", "content": "x" }] });
    refused(tool, "messages[0].role", "unsupported_parameter");
    let calls = json!({ "messages": [{ "role": "assistant", "content": "x", "tool_calls": [{}] }] });
    refused(calls, "messages[0].tool_calls", "unsupported_parameter");
}

#[test]
fn malformed_bodies() {
    for body in [&b""[..], b"{", b"[]", b"5", b"{\"model\":", b"\xff\xfe"] {
        let error = ChatRequest::parse(body).unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (400, "malformed_request"));
    }
}

proptest::proptest! {
    #[test]
    fn no_body_makes_it_panic(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let _ = ChatRequest::parse(&body);
    }
}
