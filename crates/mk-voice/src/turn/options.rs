//! What a conversation is like.

use std::time::Duration;

use crate::text::{ChunkOptions, Language};

/// What a conversation is like, and how patient it is.
#[derive(Debug, Clone, PartialEq)]
pub struct TurnOptions {
    /// What the language model is told first; nothing if empty.
    pub system: String,
    /// What is said when a client comes; nothing if empty.
    pub greeting: String,
    /// What is said where an answer cannot be had; nothing if empty.
    pub apology: String,
    /// What is spoken.
    pub language: Language,
    /// How an answer is cut into pieces to be spoken.
    pub chunks: ChunkOptions,
    /// When the user may interrupt.
    pub barge_in: BargeIn,
    /// Answers begun on a likely end of turn, before it is certain, for each turn at most. 0 waits for certainty. Each
    /// saves some 150 ms where it stands, and costs a request where it does not.
    pub eager_answers: u32,
    /// Characters of the conversation that are sent to the language model; older turns are forgotten.
    pub context_chars: usize,
    /// Bytes of an answer, after which it is ended.
    pub reply_bytes: usize,
    /// Requests in one turn: one, and one for each time that the model calls tools.
    pub requests_per_turn: u32,
    /// Audio that may be made ahead of what was played before the next sentence is begun.
    pub speak_ahead: Duration,
    /// How long things may take before they count as lost.
    pub patience: Patience,
}

impl Default for TurnOptions {
    fn default() -> Self {
        Self {
            system: "You are a helpful assistant in a voice conversation. Answer briefly, in plain sentences that can be \
                     read out."
                .into(),
            greeting: String::new(),
            apology: "I'm sorry, I cannot answer right now.".into(),
            language: Language::English,
            chunks: ChunkOptions::default(),
            barge_in: BargeIn::default(),
            eager_answers: 0,
            context_chars: 24_000,
            reply_bytes: 16_000,
            requests_per_turn: 6,
            speak_ahead: Duration::from_secs(4),
            patience: Patience::default(),
        }
    }
}

/// When the user may interrupt an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct BargeIn {
    /// Whether at all. If not, what is heard while an answer is played counts for nothing (half-duplex).
    pub enabled: bool,
    /// Words that it takes. While they are waited for, the answer is held.
    pub min_words: usize,
    /// Words that are not counted, in lower case: sounds of listening.
    pub fillers: Vec<String>,
    /// How long the answer is held for words that do not come, before it goes on.
    pub hold: Duration,
    /// How long after the first sound of an answer a sound of the user does not hold it: an echo canceller needs to get
    /// used to the voice. Words interrupt all the same.
    pub settle: Duration,
}

impl Default for BargeIn {
    fn default() -> Self {
        let fillers = ["mhm", "mm", "hm", "hmm", "uh", "uhm", "um", "uh-huh", "mm-hmm", "ah", "oh"];
        Self {
            enabled: true,
            min_words: 1,
            fillers: fillers.map(Into::into).into(),
            hold: Duration::from_secs(2),
            settle: Duration::from_millis(200),
        }
    }
}

/// How long things may take before they count as lost. No state lasts longer than these allow.
#[derive(Debug, Clone, PartialEq)]
pub struct Patience {
    /// From the last sign of the user to the end of the turn.
    pub hearing: Duration,
    /// From the request, or the last token, to the next.
    pub thinking: Duration,
    /// From the text, or the last samples, to the next samples.
    pub speaking: Duration,
    /// From the end of the answer, as it should have been played, to the client's word that it was.
    pub playing: Duration,
    /// From the flush to the client's word of it.
    pub flushing: Duration,
    /// A tool.
    pub tool: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            hearing: Duration::from_secs(8),
            thinking: Duration::from_secs(20),
            speaking: Duration::from_secs(30),
            playing: Duration::from_secs(3),
            flushing: Duration::from_millis(500),
            tool: Duration::from_secs(40),
        }
    }
}
