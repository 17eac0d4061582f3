//! Bodies as SDKs send them, and each wrong one with the parameter it is refused for.

use super::*;
use protocol::job_message::OutputFormat;
use serde_json::json;

fn parse(extra: Value) -> Result<ChatRequest, ApiError> {
    let mut body = json!({ "model": "smol", "messages": [{ "role": "user", "content": "hi" }] });
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    ChatRequest::parse(body.to_string().as_bytes())
}

fn message(role: &str, content: &str) -> Message {
    Message { role: role.into(), content: content.into(), calls: vec![] }
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
    assert_eq!(request.prompts, [Prompt::Chat(vec![message("user", "hi")])]);
    assert_eq!((request.stream, request.include_usage, request.max_tokens), (false, false, None));
    let sampling = &request.sampling;
    assert_eq!((sampling.temperature_millionths, sampling.top_p_millionths), (1_000_000, 1_000_000));
    assert_eq!(
        (request.choices(), request.controls, request.shape),
        (1, JobControls::default(), Shape::Chat)
    );
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
    let sampling = &request.sampling;
    assert_eq!((sampling.temperature_millionths, sampling.top_p_millionths), (700_000, 950_000));
    assert_eq!(sampling.seed, Some(u64::MAX));
    assert_eq!(sampling.stop, ["\n\n", "END"]);
    assert!(request.controls.is_default(), "nothing was asked for");
}

#[test]
fn what_steers_the_choice_arrives_as_millionths() {
    let request = parse(json!({
        "presence_penalty": -0.5, "frequency_penalty": 1.25, "logit_bias": { "9": -100, "5": 0.5 }, "n": 3, "seed": 1,
        "logprobs": true, "top_logprobs": 4, "min_p": 0.1, "repetition_penalty": 1.5, "top_k": 40,
        "response_format": { "type": "json_object" },
    }));
    let request = request.unwrap();
    let expected = JobControls {
        min_p_millionths: 100_000,
        repetition_penalty_millionths: 1_500_000,
        frequency_penalty_millionths: 1_250_000,
        presence_penalty_millionths: -500_000,
        logit_bias: vec![(5, 500_000), (9, -100_000_000)],
        format: OutputFormat::JsonObject,
        logprobs: Some(4),
        ..JobControls::default()
    };
    assert_eq!(request.controls, expected);
    assert_eq!((request.sampling.top_k, request.choices()), (40, 3));
    assert_eq!((request.seed_of(0), request.seed_of(2)), (Some(1), Some(3)));
    let schema = json!({ "name": "x", "strict": true, "schema": { "type": "object", "properties": {} } });
    let request =
        parse(json!({ "response_format": { "type": "json_schema", "json_schema": schema } })).unwrap();
    let OutputFormat::JsonSchema { schema } = request.controls.format else { panic!("no schema") };
    assert_eq!(serde_json::from_str::<Value>(&schema).unwrap()["type"], "object");
}

#[test]
fn a_stream_with_tools_is_read_whole_before_it_goes_out() {
    let tool = json!([{ "type": "function", "function": { "name": "now" } }]);
    let delivery = |extra: Value| parse(extra).unwrap().delivery();
    assert_eq!(delivery(json!({ "stream": true })), Delivery::Stream);
    assert_eq!(delivery(json!({ "stream": true, "tools": tool })), Delivery::Whole);
    assert_eq!(delivery(json!({ "stream": true, "tools": tool, "tool_choice": "none" })), Delivery::Stream);
}

#[test]
fn known_but_unsupported_is_refused_by_name() {
    for (param, value) in [
        ("functions", json!([{}])),
        ("function_call", json!("auto")),
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
        ("n", json!(0)),
        ("n", json!(17)),
        ("n", json!("1")),
        ("logprobs", json!(3)),
        ("top_logprobs", json!(3)),
        ("logit_bias", json!({ "5": 101 })),
        ("logit_bias", json!({ "x": 1 })),
        ("logit_bias", json!({ "7": 1, "07": 2 })),
        ("logit_bias", json!([5])),
        ("presence_penalty", json!(2.1)),
        ("frequency_penalty", json!("much")),
        ("tools", json!("all")),
        ("tool_choice", json!("required")),
    ] {
        refused(json!({ param: value }), param, "invalid_value");
    }
    let schema = json!({ "type": "json_schema", "json_schema": { "schema": { "type": 5 } } });
    refused(json!({ "response_format": schema }), "response_format", "invalid_value");
    refused(json!({ "response_format": { "type": "xml" } }), "response_format.type", "invalid_value");
    refused(json!({ "logprobs": true, "top_logprobs": 21 }), "top_logprobs", "invalid_value");
    refused(json!({ "max_tokens": 5, "max_completion_tokens": 6 }), "max_tokens", "invalid_value");
    refused(json!({ "model": null }), "model", "missing_required_parameter");
    refused(json!({ "model": "" }), "model", "missing_required_parameter");
    refused(json!({ "messages": null }), "messages", "missing_required_parameter");
}

#[test]
fn messages_are_text_only() {
    let parts = json!([{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }]);
    let with = |content: Value| json!({ "messages": [{ "role": "developer", "content": content }] });
    let parsed = parse(with(parts)).unwrap();
    assert_eq!(parsed.prompts, [Prompt::Chat(vec![message("system", "ab")])]);
    let image = json!([{ "type": "image_url", "image_url": { "url": "x" } }]);
    refused(with(image), "messages[0].content", "unsupported_parameter");
    refused(with(json!(5)), "messages[0].content", "invalid_value");
    refused(with(Value::Null), "messages[0].content", "invalid_value");
    refused(
        json!({ "messages": [{ "role": "robot", "content": "x" }] }),
        "messages[0].role",
        "invalid_value",
    );
    let call =
        json!({ "id": "c", "type": "function", "function": { "name": "now", "arguments": "{\"a\":1}" } });
    let turns = json!({ "messages": [
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "c", "content": "noon" },
    ] });
    let called = ToolCall { name: "now".into(), arguments: json!({ "a": 1 }) };
    let assistant = Message { calls: vec![called], ..message("assistant", "") };
    assert_eq!(parse(turns).unwrap().prompts, [Prompt::Chat(vec![assistant, message("tool", "noon")])]);
    let calls = json!({ "messages": [{ "role": "assistant", "content": "x", "tool_calls": [{}] }] });
    refused(calls, "messages[0].tool_calls", "invalid_value");
    let calls = json!({ "messages": [{ "role": "user", "content": "x", "tool_calls": [] }] });
    refused(calls, "messages[0].tool_calls", "invalid_value");
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
