//! Answers in OpenAI's form: one object, or chunks as server-sent events. Pure. The order of a stream: role, content,
//! `finish_reason`, usage when asked for, `[DONE]`; a failure is an error frame and never a clean end.

use super::error::ApiError;
use bytes::Bytes;
use protocol::id::JobId;
use serde_json::{Value, json};

/// A comment line that keeps proxies from closing an idle stream.
pub const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";
/// The last frame of a whole answer.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// What every chunk of one answer repeats.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The job; the answer's id is made of it.
    pub job: JobId,
    /// The model's name.
    pub model: String,
    /// Seconds UTC.
    pub created_s: u64,
    /// Whether chunks carry `usage`.
    pub include_usage: bool,
}

/// Billed tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// Of the prompt.
    pub input: u64,
    /// Of the answer.
    pub output: u64,
}

impl Usage {
    fn json(self) -> Value {
        json!({
            "prompt_tokens": self.input,
            "completion_tokens": self.output,
            "total_tokens": self.input + self.output,
        })
    }
}

impl Head {
    /// `chatcmpl-` and the job's id.
    pub fn id(&self) -> String {
        format!("chatcmpl-{}", self.job)
    }

    /// The first chunk.
    pub fn role(&self) -> Bytes {
        self.choice(json!({ "role": "assistant", "content": "", "refusal": null }), None)
    }

    /// Some text.
    pub fn content(&self, text: &str) -> Bytes {
        self.choice(json!({ "content": text }), None)
    }

    /// The end of the text.
    pub fn finish(&self, reason: &str) -> Bytes {
        self.choice(json!({}), Some(reason))
    }

    /// The counts, after the end.
    pub fn usage(&self, usage: Usage) -> Bytes {
        let mut chunk = self.chunk(json!([]));
        chunk["usage"] = usage.json();
        event(&chunk)
    }

    /// The whole answer in one object.
    pub fn completion(&self, text: &str, reason: &str, usage: Usage) -> Value {
        json!({
            "id": self.id(),
            "object": "chat.completion",
            "created": self.created_s,
            "model": self.model,
            "choices": [{
                "index": 0,
                "message": { "role": "assistant", "content": text, "refusal": null },
                "logprobs": null,
                "finish_reason": reason,
            }],
            "usage": usage.json(),
        })
    }

    fn choice(&self, delta: Value, reason: Option<&str>) -> Bytes {
        let choice = json!({ "index": 0, "delta": delta, "logprobs": null, "finish_reason": reason });
        let mut chunk = self.chunk(json!([choice]));
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        event(&chunk)
    }

    fn chunk(&self, choices: Value) -> Value {
        json!({
            "id": self.id(),
            "object": "chat.completion.chunk",
            "created": self.created_s,
            "model": self.model,
            "choices": choices,
        })
    }
}

/// The frame that ends a broken stream.
pub fn error(error: &ApiError) -> Bytes {
    event(&error.body())
}

fn event(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(include_usage: bool) -> Head {
        Head { job: JobId([0; 16]), model: "smol".to_owned(), created_s: 1_700_000_000, include_usage }
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
        let head = head(false);
        let role = json!({ "content": "", "refusal": null, "role": "assistant" });
        assert_eq!(parsed(&head.role()), choice(role, Value::Null));
        assert_eq!(parsed(&head.content("a\n\"b\"")), choice(json!({ "content": "a\n\"b\"" }), Value::Null));
        assert_eq!(parsed(&head.finish("stop")), choice(json!({}), json!("stop")));
    }

    #[test]
    fn usage_is_null_until_the_last_chunk_and_only_when_asked_for() {
        assert!(!text(&head(false).content("x")).contains("usage"));
        assert!(text(&head(true).content("x")).contains("\"usage\":null"));
        let last = head(true).usage(Usage { input: 3, output: 4 });
        let json: Value = serde_json::from_str(text(&last).trim_start_matches("data: ").trim()).unwrap();
        assert_eq!(json["choices"], json!([]));
        assert_eq!(json["usage"], json!({ "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7 }));
    }

    #[test]
    fn a_newline_in_a_text_cannot_break_a_frame() {
        let frame = head(false).content("a\n\ndata: [DONE]\n\n");
        assert_eq!(text(&frame).matches("\n\n").count(), 1);
    }

    #[test]
    fn an_error_frame_is_an_error_object() {
        let frame = error(&ApiError::node_failed("The node failed."));
        let json: Value = serde_json::from_str(text(&frame).trim_start_matches("data: ").trim()).unwrap();
        assert_eq!(json["error"]["code"], "node_failed");
        assert!(json["error"]["param"].is_null());
    }
}
