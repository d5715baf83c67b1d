//! What a service sends, read with patience: servers that call themselves compatible differ in what they leave out,
//! what they send as null, and what they add.

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::retry::Failure;
use crate::llm::FinishReason;

/// One `data:` of the stream; a whole answer, where a server does not stream, has nearly the same form. A field that is
/// not what it should be counts as missing.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Chunk {
    #[serde(default, deserialize_with = "lenient")]
    pub(super) choices: Option<Vec<Choice>>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) usage: Option<Usage>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Choice {
    #[serde(default, deserialize_with = "lenient")]
    pub(super) index: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) delta: Option<Delta>,
    /// In the place of `delta`, where the answer is whole.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) message: Option<Delta>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) finish_reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Delta {
    /// A text, or a list of parts.
    #[serde(default)]
    pub(super) content: Value,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) refusal: Option<String>,
    /// What is thought aloud: a sign of life, and no part of the answer.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) reasoning_content: Option<String>,
    /// The same, by another name.
    #[serde(default, deserialize_with = "lenient")]
    pub(super) reasoning: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) tool_calls: Option<Vec<Fragment>>,
}

/// Part of a tool call.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Fragment {
    #[serde(default, deserialize_with = "lenient")]
    pub(super) index: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) function: Option<Function>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Function {
    #[serde(default, deserialize_with = "lenient")]
    pub(super) name: Option<String>,
    /// A part of a text, or all of an object.
    #[serde(default)]
    pub(super) arguments: Value,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Usage {
    #[serde(default, deserialize_with = "lenient")]
    pub(super) prompt_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) completion_tokens: Option<u64>,
}

impl Delta {
    /// The text of `content`.
    pub(super) fn text(&self) -> String {
        match &self.content {
            Value::String(text) => text.clone(),
            Value::Array(parts) => {
                parts.iter().filter_map(|part| part.get("text")?.as_str()).collect()
            }
            _ => String::new(),
        }
    }

    /// Whether there is something of a thought.
    pub(super) fn is_thinking(&self) -> bool {
        [&self.reasoning_content, &self.reasoning]
            .iter()
            .any(|text| text.as_ref().is_some_and(|text| !text.is_empty()))
    }
}

impl Chunk {
    /// Reads one `data:`.
    ///
    /// # Errors
    /// What is not a JSON object; the error object that stands in the place of an answer.
    pub(super) fn parse(data: &str) -> Result<Self, Failure> {
        let json: Value = serde_json::from_str(data)
            .map_err(|error| Failure::passing(format!("not JSON: {error} in {}", excerpt(data))))?;
        if let Some(said) = ErrorObject::find(&json) {
            return Err(Failure::of_kinds(&said.kinds(), said.to_string()));
        }
        let nonsense = || Failure::passing(format!("not an answer: {}", excerpt(data)));
        if !json.is_object() {
            return Err(nonsense());
        }
        serde_json::from_value(json).map_err(|_| nonsense())
    }
}

/// The reason by its name; what is not known is taken for the usual.
pub(super) fn finish_reason(name: &str) -> FinishReason {
    match name {
        "length" => FinishReason::Length,
        "tool_calls" | "function_call" => FinishReason::ToolCalls,
        "content_filter" => FinishReason::ContentFilter,
        _ => FinishReason::Stop,
    }
}

/// What services say when something is wrong.
#[derive(Debug, Default)]
struct ErrorObject {
    message: String,
    kind: String,
    code: String,
}

impl ErrorObject {
    /// The error in an answer: OpenAI's object, a text in its place, or the object without anything around it.
    fn find(json: &Value) -> Option<Self> {
        let error = match json.get("error") {
            Some(Value::Null) | None if json["object"] == "error" => json,
            Some(Value::Null) | None => return None,
            Some(error) => error,
        };
        let field = |name: &str| match error.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        let message = error.as_str().map_or_else(|| field("message"), Into::into);
        Some(Self { message: excerpt(&message), kind: field("type"), code: field("code") })
    }

    fn kinds(&self) -> [&str; 2] {
        [&self.kind, &self.code]
    }
}

impl std::fmt::Display for ErrorObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = if self.code == self.kind { "" } else { &self.code };
        let parts: Vec<&str> =
            [self.kind.as_str(), code].into_iter().filter(|part| !part.is_empty()).collect();
        match (parts.is_empty(), self.message.is_empty()) {
            (true, _) => f.write_str(&self.message),
            (false, true) => f.write_str(&parts.join(" ")),
            (false, false) => write!(f, "{}: {}", parts.join(" "), self.message),
        }
    }
}

/// A response whose status is not success.
pub(super) fn refused(status: StatusCode, headers: &HeaderMap, body: &str) -> Failure {
    let said = serde_json::from_str(body).ok().and_then(|json: Value| ErrorObject::find(&json));
    let text = said.as_ref().map_or_else(|| excerpt(body), ToString::to_string);
    let colon = if text.is_empty() { "" } else { ": " };
    let reason = format!("HTTP {}{colon}{text}", status.as_u16());
    let kinds = said.as_ref().map(ErrorObject::kinds).unwrap_or_default();
    Failure::of_status(status, headers, &kinds, reason)
}

/// The beginning of what may be a page of HTML, in one line.
fn excerpt(text: &str) -> String {
    const MOST: usize = 300;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}
