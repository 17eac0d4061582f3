//! Chat templates: messages to the text, and to the token ids, that a model was trained on. A message's content is data: it
//! can never become a control token, whatever it contains.

use crate::error::Error;
use crate::gguf::{Header, Value};
use crate::tokenizer::{Piece, Tokenizer};
use crate::tools::{self, ToolFormat};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, ErrorKind, context};
use serde::Serialize;
use serde_json::ser::PrettyFormatter;

/// Steps a template may take; a hostile file must not hold the gateway.
const TEMPLATE_FUEL: u64 = 1_000_000;
/// The character that brackets a placeholder. Private use: a template that contains it is refused.
pub(crate) const MARK: char = '\u{F8FE}';
/// Roles that [`prompt_ids`] accepts.
const ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];

/// One message of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// Plain text.
    pub content: String,
}

/// The Jinja template of a model file.
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Texts of the file's begin and end tokens, for templates that name them.
    bos: String,
    eos: String,
    hash: [u8; 32],
    /// None where the template knows no tools.
    tool_format: Option<ToolFormat>,
}

impl ChatTemplate {
    pub(crate) fn from_header(header: &Header) -> Result<ChatTemplate, Error> {
        match header.metadata.get("tokenizer.chat_template") {
            Some(Value::Text(source)) => {
                let mut template = ChatTemplate::new(source)?;
                template.bos = token_text(header, "tokenizer.ggml.bos_token_id")?;
                template.eos = token_text(header, "tokenizer.ggml.eos_token_id")?;
                Ok(template)
            }
            _ => Err(Error::unsupported("model file without tokenizer.chat_template")),
        }
    }

    fn new(source: &str) -> Result<ChatTemplate, Error> {
        if source.contains(MARK) {
            return Err(Error::unsupported(format!("chat template that contains {MARK:?}")));
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(failed)?;
        environment.set_syntax(syntax);
        environment.set_fuel(Some(TEMPLATE_FUEL));
        environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_filter("tojson", to_json);
        let hash = blake3::hash(source.as_bytes()).into();
        let tool_format = source.contains("tools").then(|| ToolFormat::of_template(source));
        environment.add_template_owned("chat".to_owned(), source.to_owned()).map_err(failed)?;
        Ok(ChatTemplate { environment, bos: String::new(), eos: String::new(), hash, tool_format })
    }

    /// The text for `messages`, ending where the assistant is to speak. For display; a prompt is made by [`prompt_ids`].
    ///
    /// # Errors
    /// [`Error::Template`] with the engine's words.
    pub fn render(&self, messages: &[ChatMessage]) -> Result<String, Error> {
        let contents: Vec<&str> = messages.iter().map(|m| m.content.as_str()).collect();
        self.render_contents(messages, &contents, &[])
    }

    /// How this model writes calls of tools; None where its template knows none.
    pub fn tool_format(&self) -> Option<ToolFormat> {
        self.tool_format
    }

    /// BLAKE3 of the template's bytes.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    fn render_contents(
        &self,
        messages: &[ChatMessage],
        contents: &[&str],
        tools: &[serde_json::Value],
    ) -> Result<String, Error> {
        let list: Vec<minijinja::Value> = messages
            .iter()
            .zip(contents)
            .map(|(m, content)| context! { role => m.role.as_str(), content => *content })
            .collect();
        let template = self.environment.get_template("chat").map_err(failed)?;
        let plain = context! {
            messages => list, add_generation_prompt => true, bos_token => self.bos.as_str(), eos_token => self.eos.as_str(),
        };
        // Without tools the variable does not exist, as in prompts made before there were any.
        let values = if tools.is_empty() {
            plain
        } else {
            context! { tools => minijinja::Value::from(Serde(tools)), ..plain }
        };
        template.render(values).map_err(failed)
    }
}

/// The filter `tojson`, with the texts of Python's `json.dumps(value, ensure_ascii=False, indent=..)`.
fn to_json(value: minijinja::Value, options: Kwargs) -> Result<String, minijinja::Error> {
    let failed = |e: serde_json::Error| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string());
    let indent: Option<usize> = options.get("indent")?;
    let value = serde_json::to_value(&value).map_err(failed)?;
    let Some(indent) = indent else { return Ok(tools::python_json(&value)) };
    let spaces = b" ".repeat(indent.min(16));
    let mut text = Vec::new();
    let mut writer = serde_json::Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(&spaces));
    value.serialize(&mut writer).map_err(failed)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Text of the token whose id stands under `key`; empty if there is none.
fn token_text(header: &Header, key: &str) -> Result<String, Error> {
    let Some(id) = header.integer_optional(key)? else { return Ok(String::new()) };
    match header.list("tokenizer.ggml.tokens")?.get(id as usize) {
        Some(Value::Text(text)) if !text.contains(MARK) => Ok(text.clone()),
        _ => Err(Error::malformed(0, format!("metadata key {key}: token {id} is outside the vocabulary"))),
    }
}

fn failed(error: minijinja::Error) -> Error {
    Error::Template { detail: format!("{error:#}") }
}

/// Token ids of a chat, ready for the assistant to continue. The template is rendered with placeholders; special tokens are
/// parsed in the template's own text only; contents are encoded as plain text, together with the plain text around them.
///
/// # Errors
/// [`Error::InvalidMessage`] for no messages, an unknown role or a content the template dropped; [`Error::Template`].
pub fn prompt_ids(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    messages: &[ChatMessage],
) -> Result<Vec<u32>, Error> {
    prompt_ids_with_tools(tokenizer, template, messages, &[])
}

/// As [`prompt_ids`], with tools the model may call, each a JSON object as the template expects it (`{"type": "function",
/// "function": {"name", "description", "parameters"}}`). Calls and results of earlier turns are messages: what the model wrote,
/// and one of role `tool`. Calls in the answer are read by [`ToolFormat::parse`].
///
/// # Errors
/// As [`prompt_ids`]; [`Error::InvalidMessage`] too for tools that the template knows nothing of, that are too large or that
/// contain the text of a special token.
pub fn prompt_ids_with_tools(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    messages: &[ChatMessage],
    tools: &[serde_json::Value],
) -> Result<Vec<u32>, Error> {
    if !tools.is_empty() {
        if template.tool_format.is_none() {
            let what = "this model's chat template knows no tools; send none".to_owned();
            return Err(Error::InvalidMessage { what });
        }
        tools::check(tokenizer, tools)?;
    }
    if messages.is_empty() {
        return Err(Error::InvalidMessage { what: "no messages; send at least one".to_owned() });
    }
    if let Some(message) = messages.iter().find(|m| !ROLES.contains(&m.role.as_str())) {
        let role: String = message.role.chars().take(32).collect();
        return Err(Error::InvalidMessage {
            what: format!("role {role:?}; expected one of {}", ROLES.join(", ")),
        });
    }
    let placeholders: Vec<String> = (0..messages.len()).map(|i| format!("{MARK}{i}{MARK}")).collect();
    let names: Vec<&str> = placeholders.iter().map(String::as_str).collect();
    let rendered = template.render_contents(messages, &names, tools)?;

    let mut ids = Vec::new();
    let mut plain = String::new();
    let mut seen = vec![false; messages.len()];
    // Odd parts of the split are the numbers between marks.
    for (at, part) in rendered.split(MARK).enumerate() {
        if at % 2 == 1 {
            let index = part.parse::<usize>().ok().filter(|i| *i < messages.len());
            let Some(index) = index else {
                return Err(Error::Template {
                    detail: "the template changed a message's content".to_owned(),
                });
            };
            seen[index] = true;
            plain.push_str(&messages[index].content);
            continue;
        }
        for piece in tokenizer.pieces(part) {
            match piece {
                Piece::Plain(text) => plain.push_str(&text),
                Piece::Special(id) => {
                    ids.extend(tokenizer.encode(&std::mem::take(&mut plain)));
                    ids.push(id);
                }
            }
        }
    }
    ids.extend(tokenizer.encode(&plain));
    match seen.iter().position(|s| !s) {
        Some(index) => {
            Err(Error::InvalidMessage { what: format!("the template leaves out message {index}") })
        }
        None => Ok(ids),
    }
}

#[cfg(test)]
mod tests;
