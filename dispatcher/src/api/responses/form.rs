//! The response object, whole and as named events with a `sequence_number` that grows by one. Pure. The order: created, in
//! progress; for a text: item added, part added, deltas, text done, part done, item done; for a call: item added, arguments
//! delta and done, item done; then completed or incomplete. A failure is `error` and `response.failed`, never a clean end.

use super::ResponseEcho;
use crate::api::answer::{Answer, Form, Head, Usage};
use crate::api::error::ApiError;
use crate::api::tools::call_id;
use crate::relay::transcript::Spoken;
use bytes::Bytes;
use protocol::job_message::TokenLogprobs;
use serde_json::{Value, json};

/// `response` and its events.
pub struct ResponseForm {
    head: Head,
    echo: ResponseEcho,
    sequence: u64,
    text: String,
    logprobs: Vec<TokenLogprobs>,
    /// Whether the message's item has been added.
    has_begun_message: bool,
    /// Items that are done, in order.
    output: Vec<Value>,
    reason: &'static str,
}

impl ResponseForm {
    /// For one answer.
    pub fn new(head: Head, echo: ResponseEcho) -> ResponseForm {
        ResponseForm {
            head,
            echo,
            sequence: 0,
            text: String::new(),
            logprobs: Vec::new(),
            has_begun_message: false,
            output: Vec::new(),
            reason: "stop",
        }
    }

    fn event(&mut self, frames: &mut Vec<u8>, kind: &str, mut fields: Value) {
        fields["type"] = Value::from(kind);
        fields["sequence_number"] = Value::from(self.sequence);
        self.sequence += 1;
        frames.extend_from_slice(format!("event: {kind}\ndata: {fields}\n\n").as_bytes());
    }

    fn object(&self, status: &str, usage: Option<Usage>, error: Value) -> Value {
        let mut object = self.echo.asked.clone();
        let incomplete = match status {
            "incomplete" => json!({ "reason": "max_output_tokens" }),
            _ => Value::Null,
        };
        let ended = matches!(status, "completed" | "incomplete").then_some(self.head.created_s);
        for (name, value) in [
            ("id", Value::from(format!("resp_{}", self.head.job))),
            ("object", Value::from("response")),
            ("created_at", Value::from(self.head.created_s)),
            ("completed_at", Value::from(ended)),
            ("status", Value::from(status)),
            ("error", error),
            ("incomplete_details", incomplete),
            ("model", Value::from(self.head.model.as_str())),
            ("output", Value::from(self.output.clone())),
            ("usage", usage.map_or(Value::Null, tokens)),
        ] {
            object[name] = value;
        }
        object
    }

    fn message_id(&self) -> String {
        format!("msg_{}", self.head.job)
    }

    fn part(&self) -> Value {
        let logprobs = if self.head.logprobs { self.head.tokens(&self.logprobs) } else { json!([]) };
        json!({ "type": "output_text", "text": self.text, "annotations": [], "logprobs": logprobs })
    }

    fn message(&self, status: &str, content: Value) -> Value {
        json!({ "id": self.message_id(), "type": "message", "role": "assistant", "status": status,
                "content": content })
    }

    fn begin_message(&mut self, frames: &mut Vec<u8>) {
        if self.has_begun_message {
            return;
        }
        self.has_begun_message = true;
        let item = self.message("in_progress", json!([]));
        self.event(frames, "response.output_item.added", json!({ "output_index": 0, "item": item }));
        let place = self.place(json!({ "part": self.part() }));
        self.event(frames, "response.content_part.added", place);
    }

    fn end_message(&mut self, frames: &mut Vec<u8>, status: &str) {
        let part = self.part();
        let place = self.place(json!({ "text": self.text, "logprobs": part["logprobs"] }));
        self.event(frames, "response.output_text.done", place);
        let place = self.place(json!({ "part": part }));
        self.event(frames, "response.content_part.done", place);
        let item = self.message(status, json!([part]));
        self.event(frames, "response.output_item.done", json!({ "output_index": 0, "item": item }));
        self.output.push(item);
    }

    /// Fields of an event that is about the message's text.
    fn place(&self, mut fields: Value) -> Value {
        fields["item_id"] = Value::from(self.message_id());
        fields["output_index"] = Value::from(0);
        fields["content_index"] = Value::from(0);
        fields
    }

    fn call(&self, answer: &Answer, at: usize, status: &str) -> Value {
        let call = &answer.calls[at];
        let id = call_id(&answer.job, at);
        json!({ "id": format!("fc_{id}"), "type": "function_call", "call_id": id, "name": call.name,
                "arguments": call.arguments.to_string(), "status": status })
    }

    fn add_call(&mut self, frames: &mut Vec<u8>, answer: &Answer, at: usize) {
        let index = self.output.len();
        let mut item = self.call(answer, at, "in_progress");
        let (id, arguments) = (item["id"].clone(), item["arguments"].take());
        item["arguments"] = Value::from("");
        self.event(frames, "response.output_item.added", json!({ "output_index": index, "item": item }));
        let delta = json!({ "item_id": id, "output_index": index, "delta": arguments });
        self.event(frames, "response.function_call_arguments.delta", delta);
        let name = &answer.calls[at].name;
        let done = json!({ "item_id": id, "output_index": index, "arguments": arguments, "name": name });
        self.event(frames, "response.function_call_arguments.done", done);
        let item = self.call(answer, at, "completed");
        self.event(frames, "response.output_item.done", json!({ "output_index": index, "item": item }));
        self.output.push(item);
    }

    fn status(&self) -> &'static str {
        if self.reason == "length" { "incomplete" } else { "completed" }
    }
}

impl Form for ResponseForm {
    fn begin(&mut self) -> Bytes {
        let mut frames = Vec::new();
        for kind in ["response.created", "response.in_progress"] {
            let object = self.object("in_progress", None, Value::Null);
            self.event(&mut frames, kind, json!({ "response": object }));
        }
        Bytes::from(frames)
    }

    fn text(&mut self, _: u32, spoken: &Spoken) -> Bytes {
        let mut frames = Vec::new();
        self.begin_message(&mut frames);
        self.text.push_str(&spoken.text);
        let logprobs = if self.head.logprobs { self.head.tokens(&spoken.logprobs) } else { json!([]) };
        self.logprobs.extend(spoken.logprobs.iter().cloned());
        let place = self.place(json!({ "delta": spoken.text, "logprobs": logprobs }));
        self.event(&mut frames, "response.output_text.delta", place);
        Bytes::from(frames)
    }

    fn end(&mut self, answer: &Answer) -> Bytes {
        let mut frames = Vec::new();
        self.reason = answer.reason;
        // An answer without anything is still a message.
        if answer.calls.is_empty() {
            self.begin_message(&mut frames);
        }
        if self.has_begun_message {
            self.end_message(&mut frames, self.status());
        }
        for at in 0..answer.calls.len() {
            self.add_call(&mut frames, answer, at);
        }
        Bytes::from(frames)
    }

    fn close(&mut self, usage: Usage) -> Bytes {
        let mut frames = Vec::new();
        let status = self.status();
        let object = self.object(status, Some(usage), Value::Null);
        self.event(&mut frames, &format!("response.{status}"), json!({ "response": object }));
        Bytes::from(frames)
    }

    fn failed(&mut self, error: &ApiError) -> Bytes {
        let mut frames = Vec::new();
        let said = json!({ "code": error.code, "message": error.message, "param": error.param });
        self.event(&mut frames, "error", said);
        let error = json!({ "code": "server_error", "message": error.message });
        let object = self.object("failed", None, error);
        self.event(&mut frames, "response.failed", json!({ "response": object }));
        Bytes::from(frames)
    }

    fn whole(&mut self, answers: &[Answer], usage: Usage) -> Value {
        for answer in answers {
            self.reason = answer.reason;
            if !answer.text.is_empty() || answer.calls.is_empty() {
                self.text.clone_from(&answer.text);
                self.logprobs.clone_from(&answer.logprobs);
                let message = self.message(self.status(), json!([self.part()]));
                self.output.push(message);
            }
            for at in 0..answer.calls.len() {
                let call = self.call(answer, at, "completed");
                self.output.push(call);
            }
        }
        self.object(self.status(), Some(usage), Value::Null)
    }
}

fn tokens(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.input,
        "input_tokens_details": { "cached_tokens": 0, "cache_write_tokens": 0 },
        "output_tokens": usage.output,
        "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": usage.input + usage.output,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sse::tests::{answer, head, spoken};
    use kernels::ToolCall;

    fn form() -> ResponseForm {
        ResponseForm::new(head(true), ResponseEcho { asked: json!({ "store": false }) })
    }

    /// Type and number of each event; every frame's name is its payload's type.
    fn events(frames: &[Bytes]) -> Vec<(String, u64)> {
        let all = String::from_utf8(frames.concat()).unwrap();
        all.split_terminator("\n\n")
            .map(|frame| {
                let (name, data) = frame.split_once('\n').unwrap();
                let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
                assert_eq!(name.strip_prefix("event: ").unwrap(), data["type"]);
                (data["type"].as_str().unwrap().to_owned(), data["sequence_number"].as_u64().unwrap())
            })
            .collect()
    }

    fn check(frames: &[Bytes], expected: &[&str]) {
        let found = events(frames);
        let kinds: Vec<&str> = found.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(kinds, expected);
        assert!(found.iter().enumerate().all(|(at, (_, number))| at as u64 == *number), "{found:?}");
    }

    #[test]
    fn a_text_is_one_item_with_one_part() {
        let mut form = form();
        let frames = [
            form.begin(),
            form.text(0, &spoken("Hel")),
            form.text(0, &spoken("lo")),
            form.end(&answer("Hello")),
            form.close(Usage { input: 2, output: 3 }),
        ];
        let expected = [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ];
        check(&frames, &expected);
        let last = String::from_utf8(frames[4].to_vec()).unwrap();
        let data: Value = serde_json::from_str(last.split_once("data: ").unwrap().1).unwrap();
        assert_eq!(data["response"]["output"][0]["content"][0]["text"], "Hello");
        assert_eq!(data["response"]["usage"]["total_tokens"], 5);
    }

    #[test]
    fn a_call_is_an_item_and_a_cut_answer_is_incomplete() {
        let call = ToolCall { name: "now".into(), arguments: json!({}) };
        let mut called = form();
        let answered = Answer { calls: vec![call], reason: "tool_calls", ..answer("") };
        let expected = [
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ];
        check(&[called.end(&answered), called.close(Usage::default())], &expected);
        let whole = form().whole(&[answered], Usage::default());
        assert_eq!(whole["output"][0]["type"], "function_call");
        assert_eq!(whole["output"].as_array().unwrap().len(), 1);
        let cut = form().whole(&[Answer { reason: "length", ..answer("x") }], Usage::default());
        assert_eq!(
            (&cut["status"], &cut["incomplete_details"]["reason"]),
            (&json!("incomplete"), &json!("max_output_tokens"))
        );
    }

    #[test]
    fn a_failure_never_ends_clean() {
        let mut form = form();
        let failed = form.failed(&ApiError::node_failed("The node failed."));
        check(&[failed], &["error", "response.failed"]);
    }
}
