//! Tools that a model may call: read from a request, told to the model, held to where a call is demanded, read back out of
//! the answer. Nothing is called here.
//!
//! A model whose chat template knows no tools is told of them in its system message, in the words of [`INSTRUCTIONS`]. A call
//! that is demanded (`tool_choice` required, or a function's name) is held to the function's schema: the model can write
//! nothing else.

use super::error::ApiError;
use super::request::Message;
use super::request::controls::Sampling;
use super::request::fields::{Fields, unsupported, wrong};
use kernels::{ChatMessage, ChatTemplate, ToolAnswer, ToolCall, ToolFormat};
use protocol::id::JobId;
use protocol::job_message::{JobControls, OutputFormat};
use serde_json::{Value, json};

/// Most tools of one request.
const TOOLS_MAX: usize = 128;
/// Longest name of a function, bytes.
const NAME_BYTES_MAX: usize = 64;
/// Ends an answer after its first call, where only one is wanted.
const CALL_END: &str = "</tool_call>";
/// What a model without tools in its template is told; `{}` is the definitions, one JSON object a line.
const INSTRUCTIONS: &str = "You may call functions. These are available, with their parameters as JSON schemas:\n<tools>\n{}\n</tools>\nTo call one, write nothing but <tool_call>{\"name\": \"...\", \"arguments\": {...}}</tool_call>. Otherwise answer in plain text.";

/// Whether the model is to call.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum ToolChoice {
    /// As it likes.
    #[default]
    Auto,
    /// Not at all.
    Never,
    /// Some function.
    Required,
    /// This function.
    Function(String),
}

/// How many calls one answer may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CallCount {
    /// As many as the model writes.
    #[default]
    Any,
    /// At most one.
    One,
}

/// The tools of a request.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Tools {
    /// `{"type": "function", "function": {...}}` each.
    pub definitions: Vec<Value>,
    /// Whether to call.
    pub choice: ToolChoice,
    /// How often.
    pub count: CallCount,
}

impl Tools {
    /// `tools`, `tool_choice` and `parallel_tool_calls` of a chat.
    ///
    /// # Errors
    /// 400 with the parameter's name.
    pub fn of_chat(fields: &Fields) -> Result<Tools, ApiError> {
        let definitions = list(fields)?;
        for (at, tool) in definitions.iter().enumerate() {
            check_kind(tool, at)?;
            check_function(tool.get("function").unwrap_or(&Value::Null), &format!("tools[{at}].function"))?;
        }
        let choice = match fields.get("tool_choice") {
            Some(Value::Object(named)) if named.get("type").is_some_and(|kind| kind == "function") => {
                let name = named.get("function").and_then(|f| f.get("name")).and_then(Value::as_str);
                ToolChoice::Function(
                    name.ok_or_else(|| wrong("tool_choice.function.name", "a text"))?.to_owned(),
                )
            }
            other => plain_choice(other)?,
        };
        Tools { definitions, choice, count: count(fields)? }.checked()
    }

    /// The same of `POST /v1/responses`, where a function's fields lie beside its type.
    ///
    /// # Errors
    /// 400 with the parameter's name.
    pub fn of_response(fields: &Fields) -> Result<Tools, ApiError> {
        let mut definitions = Vec::new();
        for (at, tool) in list(fields)?.into_iter().enumerate() {
            check_kind(&tool, at)?;
            check_function(&tool, &format!("tools[{at}]"))?;
            let part = |name: &str| tool.get(name).cloned().unwrap_or(Value::Null);
            definitions.push(json!({ "type": "function", "function": {
                "name": part("name"), "description": part("description"), "parameters": part("parameters"),
            } }));
        }
        let choice = match fields.get("tool_choice") {
            Some(Value::Object(named)) if named.get("type").is_some_and(|kind| kind == "function") => {
                let name = named.get("name").and_then(Value::as_str);
                ToolChoice::Function(name.ok_or_else(|| wrong("tool_choice.name", "a text"))?.to_owned())
            }
            other => plain_choice(other)?,
        };
        Tools { definitions, choice, count: count(fields)? }.checked()
    }

    fn checked(self) -> Result<Tools, ApiError> {
        let known = |name: &String| self.functions().any(|function| function["name"] == **name);
        match &self.choice {
            ToolChoice::Function(name) if !known(name) => {
                Err(wrong("tool_choice", "the name of one of \"tools\""))
            }
            ToolChoice::Required if self.definitions.is_empty() => {
                Err(wrong("tool_choice", "none or auto when there are no \"tools\""))
            }
            _ => Ok(self),
        }
    }

    fn functions(&self) -> impl Iterator<Item = &Value> {
        self.definitions.iter().map(|tool| &tool["function"])
    }

    /// Whether the model is told of any.
    pub fn are_offered(&self) -> bool {
        !self.definitions.is_empty() && self.choice != ToolChoice::Never
    }

    /// The functions of which one must be called; none where the model is free.
    fn demanded(&self) -> Vec<&Value> {
        match &self.choice {
            ToolChoice::Auto | ToolChoice::Never => Vec::new(),
            ToolChoice::Required => self.functions().collect(),
            ToolChoice::Function(name) => {
                self.functions().filter(|function| function["name"] == **name).take(1).collect()
            }
        }
    }

    /// Holds the answer to a call where one is demanded, ends it after the first where one is enough, and notes what backends
    /// that tokenise themselves are to be told.
    pub(crate) fn constrain(
        &self,
        controls: &mut JobControls,
        sampling: &mut Sampling,
    ) -> Result<(), ApiError> {
        if !self.are_offered() {
            return Ok(());
        }
        controls.tools = json!({
            "tools": self.definitions,
            "tool_choice": match &self.choice {
                ToolChoice::Auto => json!("auto"),
                ToolChoice::Never => json!("none"),
                ToolChoice::Required => json!("required"),
                ToolChoice::Function(name) => json!({ "type": "function", "function": { "name": name } }),
            },
            "parallel_tool_calls": self.count == CallCount::Any,
        });
        let demanded = self.demanded();
        if demanded.is_empty() {
            if self.count == CallCount::One {
                sampling.stop.push(CALL_END.to_owned());
            }
            return Ok(());
        }
        if controls.format != OutputFormat::Text {
            return Err(wrong("tool_choice", "none or auto when the answer's format is JSON"));
        }
        let schema = match demanded.as_slice() {
            [one] => parameters(one),
            several => json!({ "anyOf": several.iter().enumerate().map(call_schema).collect::<Vec<_>>() }),
        };
        controls.format = OutputFormat::JsonSchema { schema: schema.to_string() };
        Ok(())
    }

    /// The conversation as the template takes it, and the tools that the template is given.
    pub(crate) fn tell(
        &self,
        template: &ChatTemplate,
        messages: &[Message],
    ) -> (Vec<ChatMessage>, Vec<Value>) {
        let format = template.tool_format();
        let mut chat: Vec<ChatMessage> = messages.iter().map(|message| written(format, message)).collect();
        if !self.are_offered() {
            return (chat, Vec::new());
        }
        if format.is_some() {
            return (chat, self.definitions.clone());
        }
        let lines: Vec<String> = self.definitions.iter().map(Value::to_string).collect();
        let told = INSTRUCTIONS.replacen("{}", &lines.join("\n"), 1);
        match chat.first_mut() {
            Some(first) if first.role == "system" => first.content = format!("{}\n\n{told}", first.content),
            _ => chat.insert(0, ChatMessage { role: "system".to_owned(), content: told }),
        }
        (chat, Vec::new())
    }

    /// Takes the calls out of an answer.
    pub(crate) fn read(&self, format: Option<ToolFormat>, text: &str) -> ToolAnswer {
        if !self.are_offered() {
            return ToolAnswer { text: text.to_owned(), calls: Vec::new() };
        }
        let mut answer = match self.demanded().as_slice() {
            [] => format.unwrap_or(ToolFormat::Tagged).parse(text),
            [one] => match serde_json::from_str::<Value>(text) {
                Ok(arguments @ Value::Object(_)) => {
                    let name = one["name"].as_str().unwrap_or_default().to_owned();
                    ToolAnswer { text: String::new(), calls: vec![ToolCall { name, arguments }] }
                }
                _ => ToolAnswer { text: text.to_owned(), calls: Vec::new() },
            },
            _ => ToolFormat::Bare.parse(text),
        };
        // A call of what nobody offered is no call.
        if answer.calls.iter().any(|call| !self.functions().any(|function| function["name"] == call.name)) {
            return ToolAnswer { text: text.to_owned(), calls: Vec::new() };
        }
        if self.count == CallCount::One {
            answer.calls.truncate(1);
        }
        answer
    }
}

/// The id of a call: the same each time an answer is read.
pub(crate) fn call_id(job: &JobId, index: usize) -> String {
    format!("call_{}{index}", data_encoding::HEXLOWER.encode(&job.0))
}

fn list(fields: &Fields) -> Result<Vec<Value>, ApiError> {
    let Some(value) = fields.get("tools") else { return Ok(Vec::new()) };
    let tools = value.as_array().filter(|tools| tools.len() <= TOOLS_MAX);
    tools.cloned().ok_or_else(|| wrong("tools", &format!("a list of at most {TOOLS_MAX}")))
}

fn count(fields: &Fields) -> Result<CallCount, ApiError> {
    Ok(if fields.boolean("parallel_tool_calls")?.unwrap_or(true) { CallCount::Any } else { CallCount::One })
}

fn plain_choice(value: Option<&Value>) -> Result<ToolChoice, ApiError> {
    match value {
        None => Ok(ToolChoice::Auto),
        Some(Value::String(word)) if word == "auto" => Ok(ToolChoice::Auto),
        Some(Value::String(word)) if word == "none" => Ok(ToolChoice::Never),
        Some(Value::String(word)) if word == "required" => Ok(ToolChoice::Required),
        Some(Value::Object(_)) => Err(unsupported("tool_choice")),
        Some(_) => Err(wrong("tool_choice", "none, auto, required or a function")),
    }
}

/// A tool that runs at somebody's server is not ours to offer.
fn check_kind(tool: &Value, at: usize) -> Result<(), ApiError> {
    match tool.get("type").and_then(Value::as_str) {
        Some("function") => Ok(()),
        Some(_) => Err(unsupported(&format!("tools[{at}].type"))),
        None => Err(wrong(&format!("tools[{at}].type"), "\"function\"")),
    }
}

fn check_function(function: &Value, param: &str) -> Result<(), ApiError> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let name = function.get("name").and_then(Value::as_str);
    if !name.is_some_and(|n| !n.is_empty() && n.len() <= NAME_BYTES_MAX && n.chars().all(is_fine)) {
        let expected = format!("1 to {NAME_BYTES_MAX} letters, digits, _ and -");
        return Err(wrong(&format!("{param}.name"), &expected));
    }
    match function.get("parameters") {
        None | Some(Value::Null | Value::Object(_)) => Ok(()),
        Some(_) => Err(wrong(&format!("{param}.parameters"), "a JSON schema")),
    }
}

fn parameters(function: &Value) -> Value {
    match function.get("parameters") {
        Some(schema @ Value::Object(_)) => schema.clone(),
        _ => json!({ "type": "object", "properties": {}, "additionalProperties": false }),
    }
}

/// The schema of a call, as the `at`th of several.
fn call_schema((at, function): (usize, &&Value)) -> Value {
    let mut arguments = parameters(function);
    move_references(&mut arguments, &format!("#/anyOf/{at}/properties/arguments/"));
    json!({
        "type": "object",
        "properties": { "name": { "const": function["name"] }, "arguments": arguments },
        "required": ["name", "arguments"],
        "additionalProperties": false,
    })
}

/// References into a schema that has become part of another.
fn move_references(schema: &mut Value, to: &str) {
    match schema {
        Value::Object(fields) => fields.iter_mut().for_each(|(key, value)| match value {
            Value::String(reference) if key == "$ref" => {
                if let Some(rest) = reference.strip_prefix("#/") {
                    *reference = format!("{to}{rest}");
                }
            }
            value => move_references(value, to),
        }),
        Value::Array(list) => list.iter_mut().for_each(|value| move_references(value, to)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A turn as the model itself would have written it.
fn written(format: Option<ToolFormat>, message: &Message) -> ChatMessage {
    let mut content = message.content.clone();
    for call in &message.calls {
        let (open, close) = match format {
            Some(ToolFormat::Bare) => ("", ""),
            Some(ToolFormat::Tagged) | None => ("<tool_call>\n", "\n</tool_call>"),
        };
        let call = json!({ "name": call.name, "arguments": call.arguments });
        let gap = if content.is_empty() { "" } else { "\n" };
        content.push_str(&format!("{gap}{open}{call}{close}"));
    }
    ChatMessage { role: message.role.clone(), content }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(extra: Value) -> Result<Tools, ApiError> {
        let mut body = json!({ "tools": [
            { "type": "function", "function": { "name": "weather", "parameters": {
                "type": "object", "properties": { "city": { "$ref": "#/$defs/city" } },
                "$defs": { "city": { "type": "string" } } } } },
            { "type": "function", "function": { "name": "now" } },
        ] });
        for (key, value) in extra.as_object().unwrap() {
            body[key] = value.clone();
        }
        Tools::of_chat(&Fields::parse(body.to_string().as_bytes())?)
    }

    fn constrained(tools: &Tools) -> (JobControls, Vec<String>) {
        let mut controls = JobControls::default();
        let mut sampling = Sampling {
            temperature_millionths: 0,
            top_p_millionths: 1_000_000,
            top_k: 0,
            seed: None,
            stop: vec![],
        };
        tools.constrain(&mut controls, &mut sampling).unwrap();
        (controls, sampling.stop)
    }

    #[test]
    fn a_demanded_call_is_held_to_its_schema_and_read_back() {
        let named = json!({ "type": "function", "function": { "name": "weather" } });
        let named = tools(json!({ "tool_choice": named })).unwrap();
        let OutputFormat::JsonSchema { schema } = constrained(&named).0.format else { panic!("no schema") };
        assert!(schema.contains("#/$defs/city"), "the schema is the function's own: {schema}");
        let answer = named.read(None, "{\"city\":\"Paris\"}");
        assert_eq!(
            answer.calls,
            [ToolCall { name: "weather".into(), arguments: json!({ "city": "Paris" }) }]
        );
        assert_eq!(named.read(None, "{\"city\":\"Par").calls, [], "what was cut is no call");

        let any = tools(json!({ "tool_choice": "required" })).unwrap();
        let OutputFormat::JsonSchema { schema } = constrained(&any).0.format else { panic!("no schema") };
        assert!(schema.contains("#/anyOf/0/properties/arguments/$defs/city"), "{schema}");
        kernels::check_format(&kernels::OutputFormat::JsonSchema(schema)).expect("it can be held to");
        let answer = any.read(None, "{\"name\":\"now\",\"arguments\":{}}");
        assert_eq!(answer.calls, [ToolCall { name: "now".into(), arguments: json!({}) }]);
    }

    #[test]
    fn a_free_answer_may_call_once_or_often_and_only_what_is_offered() {
        let two = "<tool_call>[{\"name\":\"now\"},{\"name\":\"weather\"}]</tool_call>";
        let free = tools(json!({})).unwrap();
        assert_eq!(free.read(None, two).calls.len(), 2);
        assert_eq!(constrained(&free).1, Vec::<String>::new());
        let single = tools(json!({ "parallel_tool_calls": false })).unwrap();
        assert_eq!(single.read(None, two).calls.len(), 1);
        assert_eq!(constrained(&single).1, ["</tool_call>"]);
        let unknown = "<tool_call>{\"name\":\"rm\"}</tool_call>";
        assert_eq!(free.read(None, unknown).text, unknown);
        let none = tools(json!({ "tool_choice": "none" })).unwrap();
        assert!(!none.are_offered());
        assert_eq!(none.read(None, two).text, two);
    }

    #[test]
    fn what_cannot_be_called_is_refused_by_name() {
        let check = |extra: Value, param: &str, code: &str| {
            let error = tools(extra.clone()).expect_err(&extra.to_string());
            assert_eq!((error.param.as_deref(), error.code), (Some(param), code), "{extra}");
        };
        check(json!({ "tool_choice": "maybe" }), "tool_choice", "invalid_value");
        check(json!({ "tool_choice": { "type": "allowed_tools" } }), "tool_choice", "unsupported_parameter");
        let unknown = json!({ "type": "function", "function": { "name": "rm" } });
        check(json!({ "tool_choice": unknown }), "tool_choice", "invalid_value");
        check(json!({ "tools": [{ "type": "web_search" }] }), "tools[0].type", "unsupported_parameter");
        check(json!({ "tools": [{ "type": "function" }] }), "tools[0].function.name", "invalid_value");
        check(json!({ "tools": [], "tool_choice": "required" }), "tool_choice", "invalid_value");
    }
}
