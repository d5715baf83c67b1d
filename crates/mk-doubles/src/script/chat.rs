//! What the chat double answers.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Replies of `/v1/chat/completions`.
///
/// A reply with `contains` answers where the last message of the user or of a tool contains it, in any case; the first
/// such reply is taken. Else those without it answer in their order, and from the first again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatScript {
    /// All replies.
    pub replies: Vec<Reply>,
}

/// One answer, and how it is streamed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reply {
    /// A part of the message that this answers.
    pub contains: Option<String>,
    /// What is said; nothing where tools are called.
    pub text: String,
    /// Milliseconds before the first delta.
    pub first_token_ms: u64,
    /// Milliseconds between deltas.
    pub delta_ms: u64,
    /// How much goes into one delta.
    pub delta: DeltaSize,
    /// Tools that are called, after the text.
    pub tool_calls: Vec<ScriptedToolCall>,
    /// What is reported as used; counted by words if it is absent.
    pub usage: Option<Usage>,
    /// Why it ends: `tool_calls` or `stop` if it is absent.
    pub finish_reason: Option<String>,
}

/// The size of a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeltaSize {
    /// So many words with the space before them.
    Words(usize),
    /// So many characters.
    Chars(usize),
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptedToolCall {
    /// The tool.
    pub name: String,
    /// Its arguments, which the real service sends as a string of JSON too.
    pub arguments: String,
    /// Characters of the arguments in one delta. Default: 6.
    #[serde(default = "fragment_chars")]
    pub fragment_chars: usize,
}

/// Tokens that a request used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Of the messages.
    pub prompt_tokens: u32,
    /// Of the answer.
    pub completion_tokens: u32,
}

fn fragment_chars() -> usize {
    6
}

impl Default for DeltaSize {
    fn default() -> Self {
        Self::Words(1)
    }
}

impl Default for ChatScript {
    fn default() -> Self {
        Self::say([
            "Hello! I am a double of a language model, and I answer with sentences that were written before.",
            "I can stream these words to you, one by one, as a real model would. Interrupt me whenever you like.",
            "The sea covers most of the earth. It is salty, deep and never still, and nobody has seen all of it.",
            "You are welcome. Goodbye!",
        ])
    }
}

impl ChatScript {
    /// Replies that say these texts in turn, without delays.
    pub fn say<S: Into<String>>(texts: impl IntoIterator<Item = S>) -> Self {
        Self { replies: texts.into_iter().map(Reply::say).collect() }
    }

    /// Whether the script can be played.
    ///
    /// # Errors
    /// [`Error::Script`] that names what cannot.
    pub fn check(&self) -> Result<()> {
        let wrong = |reason: String| Err(Error::Script { what: "chat", reason });
        if self.replies.is_empty() {
            return wrong("no replies".into());
        }
        for (index, reply) in self.replies.iter().enumerate() {
            if matches!(reply.delta, DeltaSize::Words(0) | DeltaSize::Chars(0)) {
                return wrong(format!("reply {index} has deltas of size 0"));
            }
            if reply.tool_calls.iter().any(|call| call.fragment_chars == 0) {
                return wrong(format!("reply {index} has fragments of size 0"));
            }
        }
        Ok(())
    }
}

impl Reply {
    /// Says a text, a word a delta, without delays.
    pub fn say(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Calls a tool with arguments in JSON.
    pub fn call(name: impl Into<String>, arguments: impl Into<String>) -> Self {
        let call = ScriptedToolCall {
            name: name.into(),
            arguments: arguments.into(),
            fragment_chars: fragment_chars(),
        };
        Self { tool_calls: vec![call], ..Self::default() }
    }
}
