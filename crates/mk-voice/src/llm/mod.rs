//! A language model, as a conversation needs it: streamed, cancelled by dropping, with tools.

pub mod local;
mod markup;
pub mod openai;
pub mod tools;

pub use openai::{OpenAi, OpenAiOptions};
pub use tools::Tools;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// A language model that can answer any number of conversations.
pub trait Llm: Send + Sync + 'static {
    /// Its name, for people: "OpenAI (gpt-4o-mini)".
    fn name(&self) -> String;

    /// Makes a connection that the first answer will use; called when a conversation begins.
    fn warm_up(&self) {}

    /// Begins an answer. Must be called within a tokio runtime. Dropping the stream ends it, and what it costs.
    fn answer(&self, request: LlmRequest) -> LlmStream;
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LlmRequest {
    /// The conversation, oldest first.
    pub messages: Vec<Message>,
    /// What the model may call.
    pub tools: Arc<[ToolSpec]>,
}

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "lowercase")]
pub enum Message {
    /// How to behave.
    System {
        /// The text.
        content: String,
    },
    /// What the user said.
    User {
        /// The text.
        content: String,
    },
    /// What was answered: only what the user heard of it.
    Assistant {
        /// The text; may be empty if there are calls.
        content: String,
        /// Tools that the model called. Each must be answered by a `Tool` message that follows.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<ToolCall>,
    },
    /// What a tool returned.
    Tool {
        /// [`ToolCall::id`].
        call_id: String,
        /// The result, usually JSON.
        content: String,
    },
}

/// A call of a tool by the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Identifies the call within the conversation.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// Its arguments, as the model wrote them: usually JSON, not checked.
    pub arguments: String,
}

/// A tool that a model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    /// Its name: letters, digits, `_` and `-`.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// JSON schema of its arguments.
    pub parameters: serde_json::Value,
}

/// An answer in the making.
#[derive(Debug)]
pub struct LlmStream {
    /// What has been made. Ends with `Finished` or `Failed`.
    pub events: mpsc::Receiver<LlmEvent>,
    /// What makes it.
    pub task: AbortOnDropHandle<()>,
}

/// A part of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum LlmEvent {
    /// The request was repeated, before anything of the answer was there.
    Retried {
        /// Why.
        reason: String,
    },
    /// More text; not empty.
    Text(String),
    /// A call of a tool, whole.
    ToolCall(ToolCall),
    /// The answer is complete.
    Finished {
        /// Why it ended.
        reason: FinishReason,
        /// What it cost, if the service says so.
        usage: Option<Usage>,
    },
    /// There will be no more.
    Failed(LlmError),
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it; also what is not known.
    Stop,
    /// It became too long.
    Length,
    /// The model waits for its tools.
    ToolCalls,
    /// The service refuses to say more.
    ContentFilter,
}

/// Tokens of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Of the conversation that was sent.
    pub prompt_tokens: u64,
    /// Of the answer.
    pub completion_tokens: u64,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{model}: {reason}")]
pub struct LlmError {
    /// [`Llm::name`].
    pub model: String,
    /// What was said, with the request id where there is one; never a key.
    pub reason: String,
    /// Whether asking again is useless: a wrong key, no quota, a model that does not exist.
    pub permanent: bool,
}
