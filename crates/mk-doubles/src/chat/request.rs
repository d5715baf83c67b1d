//! A request, read as strictly as OpenAI does.

use serde_json::Value;

use crate::chat::errors::ApiError;

/// What of a request matters to the double.
#[derive(Debug)]
pub(crate) struct ChatRequest {
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) include_obfuscation: bool,
    /// The text of the last message of the user or of a tool.
    pub(crate) last: String,
    /// Words of all messages, which are counted as tokens.
    pub(crate) prompt_words: u32,
}

/// The parameters that the service knows.
const KNOWN: &[&str] = &[
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "metadata",
    "modalities",
    "model",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
];

const ROLES: [&str; 6] = ["developer", "system", "user", "assistant", "tool", "function"];

impl ChatRequest {
    pub(crate) fn read(body: serde_json::Result<Value>) -> Result<Self, ApiError> {
        let status = axum::http::StatusCode::BAD_REQUEST;
        let Ok(Value::Object(body)) = body else {
            return Err(ApiError::new(status, "The body of the request is no JSON object.".into()));
        };
        if let Some(name) = body.keys().find(|name| !KNOWN.contains(&name.as_str())) {
            let message = format!("Unrecognized request argument: {name}");
            return Err(ApiError::new(status, message));
        }
        let body = Value::Object(body);
        let missing = |name: &str| {
            ApiError::parameter(name, format!("The parameter '{name}' is missing."))
                .code("missing_required_parameter")
        };
        let model = body["model"].as_str().ok_or_else(|| missing("model"))?.to_owned();
        let messages = body["messages"].as_array().ok_or_else(|| missing("messages"))?;
        if messages.is_empty() {
            return Err(ApiError::parameter("messages", "There are no messages.".into()));
        }
        let (mut last, mut prompt_words) = (String::new(), 0);
        for (index, message) in messages.iter().enumerate() {
            let role = message["role"].as_str().unwrap_or_default();
            if !ROLES.contains(&role) {
                let param = format!("messages[{index}].role");
                return Err(ApiError::parameter(&param, format!("The role '{role}' is unknown.")));
            }
            let text = text_of(&message["content"]);
            if text.is_none() && role != "assistant" {
                let param = format!("messages[{index}].content");
                let message = "The content must be a string or a list of parts.".to_owned();
                return Err(ApiError::parameter(&param, message));
            }
            let text = text.unwrap_or_default();
            prompt_words += text.split_whitespace().count() as u32;
            if role == "user" || role == "tool" {
                last = text;
            }
        }
        check_tool_messages(messages)?;
        let stream = body["stream"].as_bool().unwrap_or(false);
        let options = &body["stream_options"];
        if !options.is_null() && !stream {
            let message = "stream_options is for streams only.".to_owned();
            return Err(ApiError::parameter("stream_options", message));
        }
        Ok(Self {
            model,
            stream,
            include_usage: options["include_usage"].as_bool().unwrap_or(false),
            include_obfuscation: options["include_obfuscation"].as_bool().unwrap_or(true),
            last,
            prompt_words,
        })
    }
}

/// The service refuses results of calls that nobody made, and calls without results.
fn check_tool_messages(messages: &[Value]) -> Result<(), ApiError> {
    let mut open: Vec<&str> = Vec::new();
    let unanswered = |index: usize, open: &[&str]| {
        let message = format!("There is no message of a tool for the call '{}'.", open[0]);
        Err(ApiError::parameter(&format!("messages[{index}]"), message))
    };
    for (index, message) in messages.iter().enumerate() {
        if message["role"] == "tool" {
            let id = message["tool_call_id"].as_str().unwrap_or_default();
            let Some(place) = open.iter().position(|open| *open == id) else {
                let message = format!("The message of a tool answers no call: '{id}'.");
                return Err(ApiError::parameter(&format!("messages[{index}].role"), message));
            };
            open.remove(place);
        } else if !open.is_empty() {
            return unanswered(index, &open);
        }
        let calls = message["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
        open.extend(calls.iter().filter_map(|call| call["id"].as_str()));
    }
    if open.is_empty() { Ok(()) } else { unanswered(messages.len(), &open) }
}

/// The text of a content: a string, or parts of which those with text count.
fn text_of(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => Some(
            parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join(" "),
        ),
        _ => None,
    }
}
