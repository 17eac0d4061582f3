//! Tools in prompts. Templates without tools are tested with the whole model.

use super::*;
use crate::numerics::Backend;
use crate::synthetic::SyntheticModel;
use serde_json::json;

/// The way Qwen's template tells of tools, shortened.
const TAGGED: &str = "{% if tools %}<|im_start|>system:{% for tool in tools %}{{ tool | tojson }};{% endfor %}Use <tool_call>.<|im_end|>{% endif %}\
    {% for message in messages %}<|im_start|>{{ message.role }} {{ message.content }}<|im_end|>{% endfor %}<|im_start|>assistant";

fn message(content: &str) -> ChatMessage {
    ChatMessage { role: "user".to_owned(), content: content.to_owned() }
}

fn tokenizer() -> Tokenizer {
    let model = SyntheticModel::small(crate::gguf::TensorType::Q8_0).load(Backend::Scalar);
    model.tokenizer().clone()
}

#[test]
fn tools_stand_in_the_prompt_as_the_template_writes_them() {
    let (tokenizer, template) = (tokenizer(), ChatTemplate::new(TAGGED).unwrap());
    assert_eq!(template.tool_format(), Some(ToolFormat::Tagged));
    let tool = json!({ "type": "function", "function": { "name": "weather", "description": "l'<b> é", "parameters": {} } });
    let ids =
        prompt_ids_with_tools(&tokenizer, &template, &[message("hi")], std::slice::from_ref(&tool)).unwrap();
    let expected = concat!(
        "<|im_start|>system:",
        r#"{"function": {"description": "l'<b> é", "name": "weather", "parameters": {}}, "type": "function"}"#,
        ";Use <tool_call>.<|im_end|><|im_start|>user hi<|im_end|><|im_start|>assistant"
    );
    assert_eq!(ids, tokenizer.encode_with_special(expected));
    // Without tools nothing is said of them, and the ids are those of `prompt_ids`.
    let none = prompt_ids_with_tools(&tokenizer, &template, &[message("hi")], &[]).unwrap();
    assert_eq!(none, prompt_ids(&tokenizer, &template, &[message("hi")]).unwrap());
    assert_eq!(none, tokenizer.encode_with_special("<|im_start|>user hi<|im_end|><|im_start|>assistant"));
}

#[test]
fn indented_json_is_pythons() {
    let source = "{{ tools[0] | tojson(indent=4) }}{{ messages[0].content }}";
    let template = ChatTemplate::new(source).unwrap();
    assert_eq!(template.tool_format(), Some(ToolFormat::Bare));
    let text = template.render_contents(&[message("x")], &["x"], &[json!({ "a": [1, "ü"] })]).unwrap();
    assert_eq!(text, "{\n    \"a\": [\n        1,\n        \"ü\"\n    ]\n}x");
}

#[test]
fn tools_cannot_bring_control_tokens_or_go_unnoticed() {
    let (tokenizer, template) = (tokenizer(), ChatTemplate::new(TAGGED).unwrap());
    let refused = |template: &ChatTemplate, tools: &[serde_json::Value]| {
        prompt_ids_with_tools(&tokenizer, template, &[message("hi")], tools).unwrap_err().to_string()
    };
    for tool in [
        json!({ "name": "x<|im_end|>" }),
        json!({ "parameters": { "properties": { "a<|im_start|>": {} } } }),
        json!({ "list": ["fine", "<|im_end|>"] }),
        json!({ "name": format!("{MARK}0{MARK}") }),
    ] {
        assert!(refused(&template, std::slice::from_ref(&tool)).contains("special token"), "{tool}");
    }
    assert!(refused(&template, &[json!("weather")]).contains("no JSON object"));
    assert!(refused(&template, &vec![json!({}); 129]).contains("129 tools"));
    assert!(refused(&template, &[json!({ "d": "x".repeat(300_000) })]).contains("300008 bytes"));
    let ignorant = ChatTemplate::new("{{ messages[0].content }}").unwrap();
    assert!(refused(&ignorant, &[json!({})]).contains("knows no tools"));
}
