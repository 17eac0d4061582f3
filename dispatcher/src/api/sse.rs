//! A chat's answer in OpenAI's form: one object, or chunks as server-sent events. Pure. The order of a stream: role, content,
//! `finish_reason`, usage when asked for, `[DONE]`; a failure is an error frame and never a clean end.

use super::answer::{Answer, DONE, Form, Head, Usage, event};
use super::error::ApiError;
use super::tools::call_id;
use crate::relay::transcript::Spoken;
use bytes::Bytes;
use kernels::ToolCall;
use protocol::id::JobId;
use protocol::job_message::TokenLogprobs;
use serde_json::{Value, json};

/// `chat.completion` and `chat.completion.chunk`.
pub struct ChatForm {
    head: Head,
}

impl Usage {
    /// As chats and completions have it.
    pub fn json(self) -> Value {
        json!({
            "prompt_tokens": self.input,
            "completion_tokens": self.output,
            "total_tokens": self.input + self.output,
        })
    }
}

impl ChatForm {
    /// For one answer.
    pub fn new(head: Head) -> ChatForm {
        ChatForm { head }
    }

    fn id(&self) -> String {
        format!("chatcmpl-{}", self.head.job)
    }

    fn logprobs(&self, told: &[TokenLogprobs]) -> Value {
        if !self.head.logprobs {
            return Value::Null;
        }
        json!({ "content": self.head.tokens(told), "refusal": null })
    }

    fn choice(&self, index: u32, delta: Value, logprobs: Value, reason: Option<&str>) -> Bytes {
        let choice = json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason });
        let mut chunk = self.chunk(json!([choice]));
        if self.head.include_usage {
            chunk["usage"] = Value::Null;
        }
        event(&chunk)
    }

    fn chunk(&self, choices: Value) -> Value {
        json!({
            "id": self.id(),
            "object": "chat.completion.chunk",
            "created": self.head.created_s,
            "model": self.head.model,
            "choices": choices,
        })
    }
}

impl Form for ChatForm {
    fn begin(&mut self) -> Bytes {
        let role = json!({ "role": "assistant", "content": "", "refusal": null });
        let frames: Vec<Bytes> =
            (0..self.head.choices).map(|index| self.choice(index, role.clone(), Value::Null, None)).collect();
        Bytes::from(frames.concat())
    }

    fn text(&mut self, choice: u32, spoken: &Spoken) -> Bytes {
        let logprobs = self.logprobs(&spoken.logprobs);
        self.choice(choice, json!({ "content": spoken.text }), logprobs, None)
    }

    fn end(&mut self, answer: &Answer) -> Bytes {
        let mut frames = Vec::new();
        for (at, call) in answer.calls.iter().enumerate() {
            let mut call = tool_call(&answer.job, at, call);
            call["index"] = Value::from(at);
            let delta = json!({ "tool_calls": [call] });
            frames.extend_from_slice(&self.choice(answer.index, delta, Value::Null, None));
        }
        frames.extend_from_slice(&self.choice(answer.index, json!({}), Value::Null, Some(answer.reason)));
        Bytes::from(frames)
    }

    fn close(&mut self, usage: Usage) -> Bytes {
        let mut frames = Vec::new();
        if self.head.include_usage {
            let mut chunk = self.chunk(json!([]));
            chunk["usage"] = usage.json();
            frames.extend_from_slice(&event(&chunk));
        }
        frames.extend_from_slice(DONE);
        Bytes::from(frames)
    }

    fn failed(&mut self, error: &ApiError) -> Bytes {
        event(&error.body())
    }

    fn whole(&mut self, answers: &[Answer], usage: Usage) -> Value {
        let choice = |answer: &Answer| {
            let calls: Vec<Value> =
                answer.calls.iter().enumerate().map(|(at, call)| tool_call(&answer.job, at, call)).collect();
            let text = if answer.text.is_empty() && !calls.is_empty() {
                Value::Null
            } else {
                Value::from(answer.text.as_str())
            };
            let mut message = json!({ "role": "assistant", "content": text, "refusal": null });
            if !calls.is_empty() {
                message["tool_calls"] = Value::from(calls);
            }
            json!({
                "index": answer.index,
                "message": message,
                "logprobs": self.logprobs(&answer.logprobs),
                "finish_reason": answer.reason,
            })
        };
        json!({
            "id": self.id(),
            "object": "chat.completion",
            "created": self.head.created_s,
            "model": self.head.model,
            "choices": answers.iter().map(choice).collect::<Vec<_>>(),
            "usage": usage.json(),
        })
    }
}

fn tool_call(job: &JobId, at: usize, call: &ToolCall) -> Value {
    json!({
        "id": call_id(job, at),
        "type": "function",
        "function": { "name": call.name, "arguments": call.arguments.to_string() },
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::path::Path;
    use std::sync::LazyLock;

    static TOKENIZER: LazyLock<kernels::Tokenizer> = LazyLock::new(|| {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/models/SmolLM2-135M-Instruct.Q4_1.gguf");
        kernels::Tokenizer::from_gguf(&path).expect("run cargo xtask tools").0
    });

    pub(crate) fn head(include_usage: bool) -> Head {
        Head {
            job: JobId([0; 16]),
            model: "smol".to_owned(),
            created_s: 1_700_000_000,
            include_usage,
            choices: 1,
            tokenizer: TOKENIZER.clone(),
            logprobs: false,
        }
    }

    pub(crate) fn answer(text: &str) -> Answer {
        Answer {
            index: 0,
            job: JobId([0; 16]),
            text: text.into(),
            logprobs: vec![],
            calls: vec![],
            reason: "stop",
        }
    }

    pub(crate) fn spoken(text: &str) -> Spoken {
        Spoken { text: text.into(), logprobs: vec![] }
    }

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    const ID: &str = "chatcmpl-job_00000000000000000000000000";

    fn parsed(frame: &Bytes) -> Value {
        let body = text(frame).strip_prefix("data: ").and_then(|body| body.strip_suffix("\n\n"));
        serde_json::from_str(body.expect("one frame")).expect("JSON")
    }

    /// Golden but for the order of keys, which means nothing: a change here changes what clients read.
    #[test]
    fn chunks() {
        let choice = |delta: Value, reason: Value| {
            json!({
                "choices": [{ "delta": delta, "finish_reason": reason, "index": 0, "logprobs": null }],
                "created": 1_700_000_000, "id": ID, "model": "smol", "object": "chat.completion.chunk",
            })
        };
        let mut form = ChatForm::new(head(false));
        let role = json!({ "content": "", "refusal": null, "role": "assistant" });
        assert_eq!(parsed(&form.begin()), choice(role, Value::Null));
        let content = json!({ "content": "a\n\"b\"" });
        assert_eq!(parsed(&form.text(0, &spoken("a\n\"b\""))), choice(content, Value::Null));
        assert_eq!(parsed(&form.end(&answer("x"))), choice(json!({}), json!("stop")));
        assert_eq!(text(&form.close(Usage::default())), "data: [DONE]\n\n");
    }

    #[test]
    fn a_call_is_a_delta_of_its_own_and_content_is_null_beside_it() {
        let call = ToolCall { name: "now".into(), arguments: json!({ "zone": "UTC" }) };
        let called = Answer { calls: vec![call], reason: "tool_calls", ..answer("") };
        let mut form = ChatForm::new(head(false));
        let frames = form.end(&called);
        let first = text(&frames).split("\n\n").next().unwrap().strip_prefix("data: ").unwrap();
        let delta = serde_json::from_str::<Value>(first).unwrap()["choices"][0]["delta"].clone();
        let id = format!("call_{}0", "00".repeat(16));
        let function = json!({ "name": "now", "arguments": "{\"zone\":\"UTC\"}" });
        assert_eq!(
            delta,
            json!({ "tool_calls": [{ "index": 0, "id": id, "type": "function", "function": function }] })
        );
        let whole = form.whole(&[called], Usage::default());
        assert_eq!(whole["choices"][0]["message"]["content"], Value::Null);
        assert_eq!(whole["choices"][0]["message"]["tool_calls"][0]["function"], function);
    }

    #[test]
    fn probabilities_name_tokens_and_bytes() {
        let mut form = ChatForm::new(Head { logprobs: true, ..head(false) });
        let id = TOKENIZER.encode("hello")[0];
        let told = TokenLogprobs { id, millionths: -1_500_000, top: vec![(id, -1_500_000)] };
        let frame = parsed(&form.text(0, &Spoken { text: "hello".into(), logprobs: vec![told] }));
        let entry = &frame["choices"][0]["logprobs"]["content"][0];
        assert_eq!(entry["logprob"], -1.5);
        assert_eq!(entry["bytes"], json!(entry["token"].as_str().unwrap().as_bytes()));
        assert_eq!(entry["top_logprobs"][0]["token"], entry["token"]);
    }

    #[test]
    fn usage_is_null_until_the_last_chunk_and_only_when_asked_for() {
        assert!(!text(&ChatForm::new(head(false)).text(0, &spoken("x"))).contains("usage"));
        assert!(text(&ChatForm::new(head(true)).text(0, &spoken("x"))).contains("\"usage\":null"));
        let last = ChatForm::new(head(true)).close(Usage { input: 3, output: 4 });
        let first = text(&last).split("\n\n").next().unwrap();
        let json: Value = serde_json::from_str(first.trim_start_matches("data: ")).unwrap();
        assert_eq!(json["choices"], json!([]));
        assert_eq!(json["usage"], json!({ "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7 }));
    }

    #[test]
    fn a_newline_in_a_text_cannot_break_a_frame() {
        let frame = ChatForm::new(head(false)).text(0, &spoken("a\n\ndata: [DONE]\n\n"));
        assert_eq!(text(&frame).matches("\n\n").count(), 1);
    }

    #[test]
    fn an_error_frame_is_an_error_object() {
        let frame = ChatForm::new(head(false)).failed(&ApiError::node_failed("The node failed."));
        let json = parsed(&frame);
        assert_eq!(json["error"]["code"], "node_failed");
        assert!(json["error"]["param"].is_null());
    }
}
