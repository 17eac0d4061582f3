//! Bad input at the gateway: every refusal has its status, its code, the field it is about, and moves no money.

use network_tests::network::chat_body;
use network_tests::{Network, NetworkOptions};
use serde_json::{Value, json};

fn expect_error(answer: &(u16, Value), status: u16, code: &str) {
    assert_eq!(answer.0, status, "{}", answer.1);
    let error = &answer.1["error"];
    for field in ["message", "type", "param", "code"] {
        assert!(error.get(field).is_some(), "no {field} in {}", answer.1);
    }
    assert_eq!(error["code"], code, "{}", answer.1);
}

#[test]
fn bad_input_is_refused_clearly_and_costs_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let network = Network::up(NetworkOptions { data: &dir.path().join("data"), story: false });
    let before = network.available();
    let chat = "/v1/chat/completions";

    let mut unknown = chat_body("hi", 8, false);
    unknown["model"] = json!("no-such-model");
    expect_error(&network.call("POST", chat, Some(unknown)), 404, "model_not_found");

    let (status, body) = network.send(&network.ready.api_key, "POST", chat, Some(b"{\"model\": "));
    let body: Value = serde_json::from_slice(&body).expect("errors are JSON");
    assert_eq!(status, 400, "{body}");
    assert_eq!(body["error"]["type"], "invalid_request_error");

    let huge = chat_body(&"x".repeat(20 * 1024 * 1024), 8, false).to_string();
    let (status, body) = network.send(&network.ready.api_key, "POST", chat, Some(huge.as_bytes()));
    assert_eq!(status, 413, "{}", String::from_utf8_lossy(&body));

    expect_error(
        &network.call_as("cf_wrong", "POST", chat, Some(chat_body("hi", 8, false))),
        401,
        "invalid_api_key",
    );

    let mut predicted = chat_body("hi", 8, false);
    predicted["prediction"] = json!({});
    let refused = network.call("POST", chat, Some(predicted));
    expect_error(&refused, 400, "unsupported_parameter");
    assert_eq!(refused.1["error"]["param"], "prediction");

    let (status, fresh) = network.call_as("", "POST", "/v1/accounts", Some(json!({})));
    assert!([200, 201].contains(&status), "{fresh}");
    let key = fresh["api_key"].as_str().expect("a key");
    let broke = network.call_as(key, "POST", chat, Some(chat_body("hi", 8, false)));
    expect_error(&broke, 402, "insufficient_credits");
    let text = broke.1.to_string();
    assert!(text.contains("needed") && text.contains("available"), "it says what is missing: {text}");

    assert_eq!(network.available(), before, "nothing was charged");
    assert_eq!(network.held(), 0, "nothing is held");
    let (status, ready) = network.call("GET", "/readyz", None);
    assert_eq!(status, 200, "{ready}");
}
