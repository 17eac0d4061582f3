//! One answer to a request, in whichever form its client wants it: what every form is told, and which there are. Pure.
//! The order of a stream: begin, texts, an end for each choice, close; a failure is an error frame and never a clean end.

use super::completions::CompletionForm;
use super::error::ApiError;
use super::request::Shape;
use super::responses::form::ResponseForm;
use super::sse::ChatForm;
use crate::relay::transcript::Spoken;
use bytes::Bytes;
use kernels::{Tokenizer, ToolCall};
use protocol::id::JobId;
use protocol::job_message::TokenLogprobs;
use serde_json::Value;

/// A comment line that keeps proxies from closing an idle stream.
pub const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";
/// The last frame of a whole answer of OpenAI's older calls.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// What every part of one answer repeats.
#[derive(Clone)]
pub struct Head {
    /// The first choice's job; the answer's id is made of it.
    pub job: JobId,
    /// The model's name.
    pub model: String,
    /// Seconds UTC.
    pub created_s: u64,
    /// Whether chunks carry `usage`.
    pub include_usage: bool,
    /// How many choices there are to be.
    pub choices: u32,
    /// For the texts of single tokens.
    pub tokenizer: Tokenizer,
    /// Whether log-probabilities were asked for.
    pub logprobs: bool,
}

/// Billed tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Of the prompts; a prompt that is answered `n` times is billed `n` times.
    pub input: u64,
    /// Of the answers.
    pub output: u64,
}

/// One choice, whole.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// Its place.
    pub index: u32,
    /// Its job.
    pub job: JobId,
    /// What is not a call.
    pub text: String,
    /// Of every token with text.
    pub logprobs: Vec<TokenLogprobs>,
    /// Calls of tools.
    pub calls: Vec<ToolCall>,
    /// OpenAI's word for how it ended.
    pub reason: &'static str,
}

/// A way to write an answer.
pub trait Form: Send {
    /// What comes before any text.
    fn begin(&mut self) -> Bytes;
    /// Some text of a choice.
    fn text(&mut self, choice: u32, spoken: &Spoken) -> Bytes;
    /// The end of a choice; its text has been out, its calls have not.
    fn end(&mut self, answer: &Answer) -> Bytes;
    /// The end of everything.
    fn close(&mut self, usage: Usage) -> Bytes;
    /// The end of a broken stream.
    fn failed(&mut self, error: &ApiError) -> Bytes;
    /// The whole answer in one object.
    fn whole(&mut self, answers: &[Answer], usage: Usage) -> Value;
}

/// The form of a request's shape.
pub fn form(shape: &Shape, head: Head) -> Box<dyn Form> {
    match shape {
        Shape::Chat => Box::new(ChatForm::new(head)),
        Shape::Completion(echo) => Box::new(CompletionForm::new(head, echo.clone())),
        Shape::Response(echo) => Box::new(ResponseForm::new(head, (**echo).clone())),
    }
}

/// A frame without a name.
pub fn event(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}

impl Head {
    /// A token's text, for people; what is part of a character only shows as a replacement mark.
    pub fn token_text(&self, id: u32) -> String {
        String::from_utf8_lossy(self.tokenizer.token_bytes(id)).into_owned()
    }

    /// `{"token", "logprob", "bytes"}`
    pub fn token(&self, id: u32, millionths: i32) -> Value {
        serde_json::json!({
            "token": self.token_text(id),
            "logprob": logarithm(millionths),
            "bytes": self.tokenizer.token_bytes(id),
        })
    }

    /// One entry a token, as chats and responses have it.
    pub fn tokens(&self, logprobs: &[TokenLogprobs]) -> Value {
        let entry = |told: &TokenLogprobs| {
            let mut entry = self.token(told.id, told.millionths);
            let top: Vec<Value> = told.top.iter().map(|(id, log)| self.token(*id, *log)).collect();
            entry["top_logprobs"] = Value::from(top);
            entry
        };
        logprobs.iter().map(entry).collect()
    }
}

/// Millionths of a natural logarithm as a number; nothing is likelier than certain.
pub fn logarithm(millionths: i32) -> f64 {
    f64::from(millionths.min(0)) / 1e6
}
