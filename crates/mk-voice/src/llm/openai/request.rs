//! What is sent: the body of a request for an answer.

use serde_json::{Map, Value, json};

use super::{MaxTokensName, OpenAiOptions};
use crate::llm::{LlmRequest, Message, ToolCall, ToolSpec};

/// The body. `official` is whether it goes to OpenAI itself, rather than to a server that is compatible with it, which
/// may refuse what it does not know.
pub(super) fn body(options: &OpenAiOptions, official: bool, request: &LlmRequest) -> Value {
    let mut body = Map::new();
    let mut set = |name: &str, value: Value| body.insert(name.into(), value);
    set("model", options.model.as_str().into());
    set("messages", request.messages.iter().map(message).collect());
    set("stream", true.into());
    let mut stream_options = Map::from_iter([("include_usage".into(), true.into())]);
    if official {
        // Padding against those who guess a text from the lengths of its packets; nobody guesses in here.
        stream_options.insert("include_obfuscation".into(), false.into());
    }
    set("stream_options", stream_options.into());
    if !request.tools.is_empty() {
        set("tools", request.tools.iter().map(tool).collect());
    }
    if let Some(temperature) = options.temperature {
        set("temperature", temperature.into());
    }
    if let Some(most) = options.max_tokens {
        let name = options.max_tokens_name.unwrap_or(match official {
            true => MaxTokensName::MaxCompletionTokens,
            false => MaxTokensName::MaxTokens,
        });
        set(name.as_str(), most.into());
    }
    if let Some(effort) = &options.reasoning_effort {
        set("reasoning_effort", effort.as_str().into());
    }
    for (name, value) in &options.extra {
        set(name, value.clone());
    }
    body.into()
}

fn message(message: &Message) -> Value {
    match message {
        Message::System { content } => json!({"role": "system", "content": content}),
        Message::User { content } => json!({"role": "user", "content": content}),
        Message::Assistant { content, tool_calls } if tool_calls.is_empty() => {
            json!({"role": "assistant", "content": content})
        }
        Message::Assistant { content, tool_calls } => {
            let content = if content.is_empty() { Value::Null } else { content.as_str().into() };
            let calls: Value = tool_calls.iter().map(call).collect();
            json!({"role": "assistant", "content": content, "tool_calls": calls})
        }
        Message::Tool { call_id, content } => {
            json!({"role": "tool", "tool_call_id": call_id, "content": content})
        }
    }
}

fn call(call: &ToolCall) -> Value {
    let function = json!({"name": call.name, "arguments": call.arguments});
    json!({"id": call.id, "type": "function", "function": function})
}

fn tool(tool: &ToolSpec) -> Value {
    let ToolSpec { name, description, parameters } = tool;
    let function = json!({"name": name, "description": description, "parameters": parameters});
    json!({"type": "function", "function": function})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> LlmRequest {
        let call = ToolCall {
            id: "call_1".into(),
            name: "clock".into(),
            arguments: r#"{"zone":"UTC"}"#.into(),
        };
        let spec = ToolSpec {
            name: "clock".into(),
            description: "Tells the time".into(),
            parameters: json!({"type": "object"}),
        };
        LlmRequest {
            messages: vec![
                Message::System { content: "Be brief.".into() },
                Message::User { content: "What time is it?".into() },
                Message::Assistant { content: String::new(), tool_calls: vec![call] },
                Message::Tool { call_id: "call_1".into(), content: "12:00".into() },
                Message::Assistant { content: "Noon.".into(), tool_calls: vec![] },
            ],
            tools: [spec].into(),
        }
    }

    #[test]
    fn a_conversation_with_tools_as_openai_takes_it() {
        let options = OpenAiOptions { model: "m".into(), ..OpenAiOptions::default() };
        let expected = json!({
            "model": "m",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "What time is it?"},
                {"role": "assistant", "content": null, "tool_calls": [{
                    "id": "call_1", "type": "function",
                    "function": {"name": "clock", "arguments": "{\"zone\":\"UTC\"}"},
                }]},
                {"role": "tool", "tool_call_id": "call_1", "content": "12:00"},
                {"role": "assistant", "content": "Noon."},
            ],
            "stream": true,
            "stream_options": {"include_usage": true},
            "tools": [{"type": "function", "function": {
                "name": "clock", "description": "Tells the time", "parameters": {"type": "object"},
            }}],
        });
        assert_eq!(body(&options, false, &request()), expected);
    }

    #[test]
    fn only_openai_is_told_what_others_may_not_know() {
        let mut options = OpenAiOptions {
            max_tokens: Some(5),
            temperature: Some(0.5),
            reasoning_effort: Some("low".into()),
            ..OpenAiOptions::default()
        };
        let ours = body(&options, true, &LlmRequest::default());
        assert_eq!(ours["stream_options"]["include_obfuscation"], false);
        assert_eq!(ours["max_completion_tokens"], 5);
        let theirs = body(&options, false, &LlmRequest::default());
        assert_eq!(theirs["stream_options"], json!({"include_usage": true}));
        assert_eq!(
            (&theirs["max_tokens"], &theirs["max_completion_tokens"]),
            (&json!(5), &Value::Null)
        );
        assert_eq!(
            (&theirs["temperature"], &theirs["reasoning_effort"]),
            (&json!(0.5), &json!("low"))
        );
        assert_eq!(theirs.get("tools"), None);
        options.max_tokens_name = Some(MaxTokensName::MaxCompletionTokens);
        options.extra =
            Map::from_iter([("seed".into(), 3.into()), ("stream_options".into(), Value::Null)]);
        let theirs = body(&options, false, &LlmRequest::default());
        assert_eq!((&theirs["max_completion_tokens"], &theirs["seed"]), (&json!(5), &json!(3)));
        assert_eq!(theirs["stream_options"], Value::Null);
    }
}
