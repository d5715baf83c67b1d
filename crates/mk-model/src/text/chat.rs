//! Chat templates: from messages to the text that a model was trained on.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Value};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::{clock, json};
use crate::error::{Error, Result};

/// One turn of a conversation. Fields that are `None` are left out, and undefined in the template.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// The text. An assistant that only calls tools may have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// What the assistant thought, where it is not part of the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The assistant's calls: `{"function": {"name": ..., "arguments": {...}}}`, with `type` and `id` if wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<Json>>,
    /// The call that a message of role `tool` answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The name of the tool, or of the speaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whatever else a template may look at.
    #[serde(flatten)]
    pub other: Map<String, Json>,
}

impl Message {
    /// A message with nothing but a role and a text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: Some(content.into()), ..Self::default() }
    }
}

/// A compiled chat template. Cloning is cheap, and it may be used from several threads at once.
///
/// Templates are Jinja2 as Hugging Face runs it: blocks trimmed, `break` and `continue`, Python's methods on strings
/// and dicts, `raise_exception`, `strftime_now` (UTC) and a `tojson` that prints as Python's `json.dumps`.
#[derive(Clone)]
pub struct ChatTemplate {
    env: Arc<Environment<'static>>,
    /// `bos_token`, `eos_token` and so on, as templates may use them.
    tokens: Arc<[(String, String)]>,
}

const NAME: &str = "chat_template";
const TOKENS: [&str; 4] = ["bos_token", "eos_token", "pad_token", "unk_token"];

impl ChatTemplate {
    /// Reads `chat_template.jinja`, or else the `chat_template` of `tokenizer_config.json`: a text, or a list of
    /// named ones of which `default` is taken.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`]: no template, an unreadable file, or a template that does not parse.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let config = match read(&dir.join("tokenizer_config.json"))? {
            None => Json::Null,
            Some(text) => serde_json::from_str(&text)
                .map_err(|e| Error::ChatTemplate(format!("tokenizer_config.json: {e}")))?,
        };
        let source = match read(&dir.join("chat_template.jinja"))? {
            Some(source) => source,
            None => from_config(&config).ok_or_else(|| {
                Error::ChatTemplate(format!(
                    "{}: neither chat_template.jinja nor a chat_template in tokenizer_config.json",
                    dir.display()
                ))
            })?,
        };
        let mut template = Self::new(source)?;
        template.tokens = TOKENS
            .iter()
            .filter_map(|&name| {
                let token = config.get(name)?;
                // An added token in full is an object with its text as `content`.
                let text = token.as_str().or_else(|| token.get("content")?.as_str())?;
                Some((name.to_owned(), text.to_owned()))
            })
            .collect();
        Ok(template)
    }

    /// Compiles a template's text. Variables for special tokens are left undefined.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] where it does not parse.
    pub fn new(source: impl Into<String>) -> Result<Self> {
        let mut env = Environment::new();
        env.set_syntax(
            SyntaxConfig::builder()
                .trim_blocks(true)
                .lstrip_blocks(true)
                .build()
                .map_err(|e| failed(&e))?,
        );
        env.set_unknown_method_callback(unknown_method_callback);
        env.add_filter("tojson", json::tojson);
        env.add_function("raise_exception", |reason: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, reason))
        });
        env.add_function("strftime_now", |format: String| {
            clock::strftime_now(&format)
                .map_err(|reason| minijinja::Error::new(ErrorKind::InvalidOperation, reason))
        });
        env.add_template_owned(NAME, source.into()).map_err(|e| failed(&e))?;
        Ok(Self { env: Arc::new(env), tokens: Arc::new([]) })
    }

    /// The prompt for `messages`. `tools` are JSON schemas of functions; `add_generation_prompt` begins the
    /// assistant's next turn; `enable_thinking` is left undefined if it is `None`.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] where the template raises an exception or does something that cannot be done.
    pub fn render(
        &self,
        messages: &[Message],
        tools: Option<&[Json]>,
        add_generation_prompt: bool,
        enable_thinking: Option<bool>,
    ) -> Result<String> {
        let mut variables: Vec<(&str, Value)> = vec![
            ("messages", Value::from(Serde(messages))),
            ("tools", Value::from(Serde(tools))),
            ("documents", Value::from(())),
            ("add_generation_prompt", add_generation_prompt.into()),
        ];
        variables.extend(self.tokens.iter().map(|(name, text)| (name.as_str(), text.into())));
        variables.extend(enable_thinking.map(|yes| ("enable_thinking", yes.into())));
        let context = Value::from_pairs(variables);
        let template = self.env.get_template(NAME).map_err(|e| failed(&e))?;
        template.render(context).map_err(|e| failed(&e))
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

fn from_config(config: &Json) -> Option<String> {
    match config.get("chat_template")? {
        Json::String(source) => Some(source.clone()),
        Json::Array(named) => {
            let default = named.iter().find(|template| template["name"] == "default")?;
            default["template"].as_str().map(str::to_owned)
        }
        _ => None,
    }
}

/// `None` where there is no such file.
fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::ChatTemplate(format!("{}: {e}", path.display()))),
    }
}

/// The reason, and the line of the template that it is about.
fn failed(error: &minijinja::Error) -> Error {
    let reason = match (error.kind(), error.detail()) {
        (ErrorKind::InvalidOperation, Some(detail)) => detail.to_owned(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    };
    Error::ChatTemplate(match error.line() {
        Some(line) => format!("{reason} (line {line})"),
        None => reason,
    })
}
