//! What happens to a conversation, and what it does about it.

use std::time::Duration;

use crate::llm::{LlmEvent, LlmRequest, ToolCall};
use crate::protocol::{AudioFrame, ServerMessage, TurnReport};
use crate::stt::SttEvent;
use crate::tts::TtsEvent;

/// What happens. Times are since the beginning of the conversation.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The client is there.
    Start,
    /// The recogniser has something to say.
    Stt(SttEvent),
    /// The local detector heard speech begin.
    SpeechStarted,
    /// The local detector heard speech end, at a time that is a little past.
    SpeechStopped {
        /// When it ended.
        at: Duration,
    },
    /// A request to the language model has something to say.
    Llm {
        /// Which request.
        generation: u32,
        /// What.
        event: LlmEvent,
    },
    /// An utterance has something to say.
    Tts {
        /// Of which answer.
        epoch: u32,
        /// Which utterance of it, from 0.
        utterance: usize,
        /// What.
        event: TtsEvent,
    },
    /// A tool returned.
    Tool {
        /// [`ToolCall::id`].
        call_id: String,
        /// What.
        result: String,
    },
    /// Audio was handed to the client.
    Sent {
        /// Of which answer.
        epoch: u32,
        /// Samples of it so far.
        samples: u64,
    },
    /// The client played audio.
    Played {
        /// Of which answer.
        epoch: u32,
        /// Samples of it so far.
        samples: u64,
        /// Times that there was nothing to play.
        underruns: u32,
    },
    /// The client flushed an answer.
    Flushed {
        /// Which.
        epoch: u32,
        /// Samples of it that were played.
        samples: u64,
    },
    /// The user typed.
    Text(String),
    /// The user wants the answer to stop.
    Interrupt,
    /// Nothing but time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Ask the language model.
    Ask {
        /// Number of the request.
        generation: u32,
        /// What.
        request: LlmRequest,
    },
    /// Drop the request.
    StopAsking {
        /// Which.
        generation: u32,
    },
    /// Call a tool. It runs to its end, whatever happens.
    RunTool(ToolCall),
    /// Begin an utterance.
    Speak {
        /// Of which answer.
        epoch: u32,
        /// Number of the utterance in it, from 0.
        utterance: usize,
    },
    /// More text for the utterance begun last; at most [`MAX_PIECES`] times.
    SpeakText(String),
    /// The text of the utterance begun last is complete.
    SpeakEnd,
    /// Drop the utterances of an answer.
    StopSpeaking {
        /// Which.
        epoch: u32,
    },
    /// Give the client audio, in time.
    Play(AudioFrame),
    /// There will be no more of this answer.
    PlayEnd {
        /// Which.
        epoch: u32,
        /// Samples it has.
        samples: u64,
    },
    /// Hold the client's playing.
    Pause {
        /// Of which answer.
        epoch: u32,
    },
    /// Let it go on.
    Resume {
        /// Of which answer.
        epoch: u32,
    },
    /// Throw away what is not played.
    Flush {
        /// Of which answer.
        epoch: u32,
    },
    /// Tell the client.
    Tell(ServerMessage),
    /// Count a turn that is over.
    Report(TurnReport),
}

/// Pieces of text that an utterance consists of at most.
pub const MAX_PIECES: usize = 64;
