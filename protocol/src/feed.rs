//! FEED: one message per event for anybody's NATS client, as CloudEvents 1.0 in binary mode with a JSON payload.

use crate::event::{Event, EventBody};
use crate::id::OperatorId;
use serde::Serialize;

/// Stream name.
pub const FEED_STREAM: &str = "FEED";

/// `feed.log.<kind>`: everything, for auditors and finance.
pub fn log_subject(event: &Event) -> String {
    format!("feed.log.{}", event.body.kind())
}

/// `feed.operator.<operator>.<kind>`: what concerns one operator.
pub fn operator_subject(operator: &OperatorId, event: &Event) -> String {
    format!("feed.operator.{operator}.{}", event.body.kind())
}

/// `Nats-Msg-Id` of the log copy, `<shard>.<leaf>`; the operator's copy adds `.<operator>`.
pub fn message_id(event: &Event, operator: Option<&OperatorId>) -> String {
    let Event { header, .. } = event;
    match operator {
        None => format!("{}.{}", header.shard, header.leaf),
        Some(operator) => format!("{}.{}.{operator}", header.shard, header.leaf),
    }
}

/// The operator an event concerns, if it concerns one.
pub fn concerned_operator(body: &EventBody) -> Option<OperatorId> {
    match body {
        EventBody::JobDispatched(e) => Some(e.operator),
        EventBody::UsageCaptured(e) => Some(e.operator),
        EventBody::OperatorRegistered(e) => Some(e.operator),
        EventBody::NodeRegistered(e) => Some(e.operator),
        _ => None,
    }
}

/// What an operator may see of a capture: its own pay and the figures it follows from, not who paid from which grants.
#[derive(Serialize)]
struct OperatorView<'a> {
    #[serde(flatten)]
    header: &'a crate::event::Header,
    #[serde(flatten)]
    body: serde_json::Value,
}

/// JSON of the log copy: the event as it is, ids and amounts as text.
pub fn log_json(event: &Event) -> Vec<u8> {
    serde_json::to_vec(event).expect("an event is always JSON")
}

/// JSON of the operator's copy: no postings, no slices, no idempotency key, no command's fingerprint.
pub fn operator_json(event: &Event) -> Vec<u8> {
    let mut body = serde_json::to_value(&event.body).expect("an event is always JSON");
    if let Some(data) = body.get_mut("data").and_then(|d| d.as_object_mut()) {
        for hidden in ["slices", "hold", "account"] {
            data.remove(hidden);
        }
    }
    let view = OperatorView { header: &event.header, body };
    let mut json = serde_json::to_value(view).expect("a view is always JSON");
    if let Some(map) = json.as_object_mut() {
        map.remove("key");
        map.remove("command");
        map.remove("actor");
    }
    serde_json::to_vec(&json).expect("a value is always JSON")
}

/// CloudEvents and our own headers, for the NATS message of an event.
pub fn headers(event: &Event, origin: &str) -> Vec<(&'static str, String)> {
    let header = &event.header;
    vec![
        ("ce-specversion", "1.0".to_owned()),
        ("ce-id", format!("{}.{}", header.shard, header.leaf)),
        ("ce-source", format!("//{origin}")),
        ("ce-type", format!("counterfoil.{}.v{}", event.body.kind(), event.version)),
        ("content-type", "application/json".to_owned()),
        ("x-counterfoil-shard", header.shard.to_string()),
        ("x-counterfoil-leaf", header.leaf.to_string()),
    ]
}
