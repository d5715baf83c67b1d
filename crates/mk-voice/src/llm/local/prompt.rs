//! Between the messages of a conversation and what a model of the Qwen3 family reads and writes.

use mk_model::text::{ChatTemplate, Message as Turn};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::llm::{LlmRequest, Message, ToolCall, ToolSpec};

/// The name of a call that nobody can read; no tool has it.
const UNREADABLE: &str = "unreadable_call";

/// The prompt for a conversation.
pub(super) fn render(template: &ChatTemplate, request: &LlmRequest) -> mk_model::Result<String> {
    let turns: Vec<Turn> = request.messages.iter().map(turn).collect();
    let tools: Vec<Value> = request.tools.iter().map(tool).collect();
    let tools = (!tools.is_empty()).then_some(&tools[..]);
    template.render(&turns, tools, true, Some(false))
}

/// What a model wrote as the call of a tool: `{"name": …, "arguments": {…}}`. What is not that is a call of a tool that
/// does not exist, so that the model is told.
pub(super) fn call(written: &str) -> ToolCall {
    #[derive(Deserialize)]
    struct Written {
        name: String,
        #[serde(default, alias = "parameters")]
        arguments: Value,
    }
    let id = format!("call_{:016x}", fastrand::u64(..));
    let Ok(Written { name, arguments }) = serde_json::from_str(written.trim()) else {
        return ToolCall { id, name: UNREADABLE.into(), arguments: written.trim().into() };
    };
    let arguments = match arguments {
        Value::String(text) => text,
        Value::Null => "{}".into(),
        other => other.to_string(),
    };
    ToolCall { id, name, arguments }
}

fn turn(message: &Message) -> Turn {
    match message {
        Message::System { content } => Turn::new("system", content),
        Message::User { content } => Turn::new("user", harmless(content)),
        Message::Assistant { content, tool_calls } => {
            let calls: Vec<Value> = tool_calls.iter().map(as_json).collect();
            let tool_calls = (!calls.is_empty()).then_some(calls);
            Turn { tool_calls, ..Turn::new("assistant", content) }
        }
        Message::Tool { call_id, content } => {
            Turn { tool_call_id: Some(call_id.clone()), ..Turn::new("tool", harmless(content)) }
        }
    }
}

/// A text from outside in which nothing is a special token: it must not end its turn and begin another.
fn harmless(text: &str) -> String {
    text.replace("<|", "< |")
}

fn as_json(call: &ToolCall) -> Value {
    let arguments = serde_json::from_str(&call.arguments).ok().filter(Value::is_object);
    let arguments = arguments.unwrap_or_else(|| call.arguments.as_str().into());
    json!({
        "type": "function",
        "id": call.id,
        "function": {"name": call.name, "arguments": arguments},
    })
}

fn tool(tool: &ToolSpec) -> Value {
    let ToolSpec { name, description, parameters } = tool;
    json!({
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_as_models_write_them() {
        let found = |written: &str| {
            let call = call(written);
            assert!(call.id.starts_with("call_") && call.id.len() == 21);
            (call.name, call.arguments)
        };
        let expect = |name: &str, arguments: &str| (name.to_owned(), arguments.to_owned());
        let weather = expect("weather", r#"{"city":"Rome"}"#);
        assert_eq!(
            found("\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}\n"),
            weather
        );
        assert_eq!(found(r#"{"name":"weather","parameters":{"city":"Rome"}}"#), weather);
        assert_eq!(found(r#"{"name":"weather","arguments":"{\"city\":\"Rome\"}"}"#), weather);
        assert_eq!(found(r#"{"name":"time"}"#), expect("time", "{}"));
        assert_eq!(found("weather(Rome)"), expect(UNREADABLE, "weather(Rome)"));
    }
}
