//! `POST /v1/completions`: a text that the model goes on from, without a chat template; its parameters and its form.

use super::answer::{Answer, DONE, Form, Head, Usage, event, logarithm};
use super::error::ApiError;
use super::request::fields::{Fields, Neutral, missing, wrong};
use super::request::{CHOICES_MAX, ChatRequest, Prompt, Shape, controls, stream_and_usage};
use super::serving;
use super::tools::Tools;
use crate::gateway::Shared;
use crate::relay::transcript::Spoken;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use protocol::job_message::TokenLogprobs;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Output bound of a completion that fixes none, tokens; OpenAI's own.
const TOKENS_MAX_DEFAULT: u32 = 16;

/// What the answer repeats of its request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CompletionEcho {
    /// The prompts' texts, in order, where the answer is to begin with them.
    pub prompts: Vec<String>,
    /// Answers to each prompt.
    pub n: u32,
}

/// Parameters that we know and do not do.
const UNSUPPORTED: &[(&str, Option<Neutral>)] =
    &[("best_of", Some(Neutral::One)), ("suffix", Some(Neutral::Empty))];

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
    let raw = fields.get("prompt").ok_or_else(|| missing("prompt", "a text"))?;
    let prompts = prompts(raw)?;
    let n = fields.whole("n", 1, u64::from(CHOICES_MAX))?.unwrap_or(1) as u32;
    if prompts.len() as u64 * u64::from(n) > u64::from(CHOICES_MAX) {
        return Err(wrong("n", &format!("so that there are at most {CHOICES_MAX} answers to all prompts")));
    }
    let (stream, include_usage) = stream_and_usage(&fields)?;
    let mut controls = controls::controls(&fields)?;
    controls.logprobs = controls::completion_logprobs(&fields)?;
    let echo = match fields.boolean("echo")?.unwrap_or(false) {
        false => CompletionEcho::default(),
        true if controls.logprobs.is_some() => {
            return Err(wrong("echo", "left out with \"logprobs\": a prompt's tokens are not chosen"));
        }
        true => CompletionEcho { prompts: echoed(&prompts)?, n },
    };
    Ok(ChatRequest {
        model: fields.model()?,
        prompts,
        n,
        messages_raw: raw.clone(),
        stream,
        include_usage,
        max_tokens: Some(fields.tokens("max_tokens")?.unwrap_or(TOKENS_MAX_DEFAULT)),
        sampling: controls::sampling(&fields)?,
        controls,
        tools: Tools::default(),
        shape: Shape::Completion(echo),
    })
}

fn prompts(raw: &Value) -> Result<Vec<Prompt>, ApiError> {
    let expected = || {
        let text = format!(
            "a text, a list of token ids, or a list of at most {CHOICES_MAX} of one of them, none empty"
        );
        wrong("prompt", &text)
    };
    let ids = |list: &[Value]| -> Option<Prompt> {
        let ids: Option<Vec<u32>> = list.iter().map(|id| u32::try_from(id.as_u64()?).ok()).collect();
        ids.filter(|ids| !ids.is_empty()).map(Prompt::Ids)
    };
    let one = |value: &Value| match value {
        Value::String(text) if !text.is_empty() => Some(Prompt::Text(text.clone())),
        Value::Array(list) => ids(list),
        _ => None,
    };
    let prompts: Option<Vec<Prompt>> = match raw {
        Value::Array(list) if list.first().is_some_and(|first| !first.is_number()) => {
            list.iter().map(one).collect()
        }
        other => one(other).map(|prompt| vec![prompt]),
    };
    prompts.filter(|prompts| prompts.len() <= CHOICES_MAX as usize).ok_or_else(expected)
}

fn echoed(prompts: &[Prompt]) -> Result<Vec<String>, ApiError> {
    let text = |prompt: &Prompt| match prompt {
        Prompt::Text(text) => Ok(text.clone()),
        Prompt::Chat(_) | Prompt::Ids(_) => Err(wrong("echo", "left out when the prompt is token ids")),
    };
    prompts.iter().map(text).collect()
}

/// `text_completion`, whole and in pieces.
pub struct CompletionForm {
    head: Head,
    echo: CompletionEcho,
    /// Characters of each choice so far.
    written: Vec<usize>,
}

impl CompletionForm {
    /// For one answer.
    pub fn new(head: Head, echo: CompletionEcho) -> CompletionForm {
        let written = vec![0; head.choices as usize];
        CompletionForm { head, echo, written }
    }

    fn prompt(&self, choice: u32) -> &str {
        let at = choice.checked_div(self.echo.n).unwrap_or(0);
        self.echo.prompts.get(at as usize).map_or("", String::as_str)
    }

    fn object(&self, choices: Value) -> Value {
        json!({
            "id": format!("cmpl-{}", self.head.job),
            "object": "text_completion",
            "created": self.head.created_s,
            "model": self.head.model,
            "choices": choices,
        })
    }

    fn frame(&self, choices: Value) -> Bytes {
        let mut object = self.object(choices);
        if self.head.include_usage {
            object["usage"] = Value::Null;
        }
        event(&object)
    }

    fn logprobs(&self, told: &[TokenLogprobs], from: usize) -> Value {
        if !self.head.logprobs {
            return Value::Null;
        }
        let mut offset = from;
        let (mut tokens, mut logs, mut tops, mut offsets) = (vec![], vec![], vec![], vec![]);
        for one in told {
            let text = self.head.token_text(one.id);
            offsets.push(offset);
            offset += text.chars().count();
            tokens.push(text);
            logs.push(logarithm(one.millionths));
            let top =
                one.top.iter().map(|(id, log)| (self.head.token_text(*id), Value::from(logarithm(*log))));
            tops.push(Value::Object(Map::from_iter(top)));
        }
        json!({ "tokens": tokens, "token_logprobs": logs, "top_logprobs": tops, "text_offset": offsets })
    }
}

impl Form for CompletionForm {
    fn begin(&mut self) -> Bytes {
        let echoes = (0..self.head.choices).filter(|choice| !self.prompt(*choice).is_empty());
        let frames: Vec<Bytes> = echoes
            .map(|choice| {
                let text = self.prompt(choice);
                self.frame(
                    json!([{ "index": choice, "text": text, "logprobs": null, "finish_reason": null }]),
                )
            })
            .collect();
        Bytes::from(frames.concat())
    }

    fn text(&mut self, choice: u32, spoken: &Spoken) -> Bytes {
        let from = self.written.get(choice as usize).copied().unwrap_or(0);
        let logprobs = self.logprobs(&spoken.logprobs, from);
        if let Some(written) = self.written.get_mut(choice as usize) {
            *written += spoken.text.chars().count();
        }
        let text = &spoken.text;
        self.frame(json!([{ "index": choice, "text": text, "logprobs": logprobs, "finish_reason": null }]))
    }

    fn end(&mut self, answer: &Answer) -> Bytes {
        let (index, reason) = (answer.index, answer.reason);
        self.frame(json!([{ "index": index, "text": "", "logprobs": null, "finish_reason": reason }]))
    }

    fn close(&mut self, usage: Usage) -> Bytes {
        let mut frames = Vec::new();
        if self.head.include_usage {
            let mut object = self.object(json!([]));
            object["usage"] = usage.json();
            frames.extend_from_slice(&event(&object));
        }
        frames.extend_from_slice(DONE);
        Bytes::from(frames)
    }

    fn failed(&mut self, error: &ApiError) -> Bytes {
        event(&error.body())
    }

    fn whole(&mut self, answers: &[Answer], usage: Usage) -> Value {
        let choice = |answer: &Answer| {
            json!({
                "index": answer.index,
                "text": format!("{}{}", self.prompt(answer.index), answer.text),
                "logprobs": self.logprobs(&answer.logprobs, 0),
                "finish_reason": answer.reason,
            })
        };
        let mut object = self.object(answers.iter().map(choice).collect());
        object["usage"] = usage.json();
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sse::tests::{answer, head, spoken};

    fn parsed(extra: Value) -> Result<ChatRequest, ApiError> {
        let mut body = json!({ "model": "smol", "prompt": "Once" });
        for (key, value) in extra.as_object().unwrap() {
            body[key] = value.clone();
        }
        parse(body.to_string().as_bytes())
    }

    #[test]
    fn prompts_come_as_texts_and_ids_alone_and_in_lists() {
        let check = |prompt: Value, expected: &[Prompt]| {
            assert_eq!(parsed(json!({ "prompt": prompt })).unwrap().prompts, expected);
        };
        check(json!("a"), &[Prompt::Text("a".into())]);
        check(json!([1, 2]), &[Prompt::Ids(vec![1, 2])]);
        check(json!(["a", "b"]), &[Prompt::Text("a".into()), Prompt::Text("b".into())]);
        check(json!([[1], [2]]), &[Prompt::Ids(vec![1]), Prompt::Ids(vec![2])]);
        let request = parsed(json!({ "prompt": ["a", "b"], "n": 2, "seed": 5 })).unwrap();
        assert_eq!(request.choices(), 4);
        let seeds: Vec<Option<u64>> = (0..4).map(|choice| request.seed_of(choice)).collect();
        assert_eq!(seeds, [Some(5), Some(6), Some(5), Some(6)]);
        assert_eq!(request.prompt_of(2), &Prompt::Text("b".into()));
    }

    #[test]
    fn wrong_values_name_their_parameter() {
        let check = |extra: Value, param: &str, code: &str| {
            let error = parsed(extra.clone()).expect_err(&extra.to_string());
            assert_eq!((error.param.as_deref(), error.code), (Some(param), code), "{extra}");
        };
        check(json!({ "prompt": null }), "prompt", "missing_required_parameter");
        check(json!({ "prompt": "" }), "prompt", "invalid_value");
        check(json!({ "prompt": [] }), "prompt", "invalid_value");
        check(json!({ "prompt": [-1] }), "prompt", "invalid_value");
        check(json!({ "prompt": ["a", 5] }), "prompt", "invalid_value");
        check(json!({ "n": 17 }), "n", "invalid_value");
        check(json!({ "prompt": ["a", "b"], "n": 9 }), "n", "invalid_value");
        check(json!({ "best_of": 2 }), "best_of", "unsupported_parameter");
        check(json!({ "suffix": "x" }), "suffix", "unsupported_parameter");
        check(json!({ "logprobs": 6 }), "logprobs", "invalid_value");
        check(json!({ "echo": true, "logprobs": 0 }), "echo", "invalid_value");
    }

    #[test]
    fn an_echo_comes_first_and_once() {
        let echo = CompletionEcho { prompts: vec!["Once ".into()], n: 1 };
        let mut form = CompletionForm::new(head(false), echo);
        let text = |frame: Bytes| {
            let frame = String::from_utf8(frame.to_vec()).unwrap();
            let value: Value = serde_json::from_str(frame.trim().strip_prefix("data: ").unwrap()).unwrap();
            value["choices"][0]["text"].as_str().unwrap().to_owned()
        };
        assert_eq!(text(form.begin()), "Once ");
        assert_eq!(text(form.text(0, &spoken("upon"))), "upon");
        let whole = form.whole(&[answer("upon")], Usage { input: 1, output: 1 });
        assert_eq!(whole["choices"][0]["text"], "Once upon");
        assert_eq!(
            (&whole["object"], &whole["usage"]["total_tokens"]),
            (&json!("text_completion"), &json!(2))
        );
    }
}
