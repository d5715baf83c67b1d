//! What Deepgram says, read leniently: only what is used, and no more of it required than there must be.

use serde::Deserialize;

/// A message of `/v2/listen`.
#[derive(Debug, Deserialize)]
#[serde(tag = "type")]
pub(super) enum FluxMessage {
    Connected {
        #[serde(default)]
        request_id: String,
    },
    TurnInfo(TurnInfo),
    Error(ErrorMessage),
    #[serde(other)]
    Other,
}

/// What Flux makes of what it has heard.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TurnInfo {
    pub(super) event: TurnEvent,
    /// Counts up after each `EndOfTurn`.
    pub(super) turn_index: Option<u64>,
    /// Until when it has listened, in seconds of what was sent.
    pub(super) audio_window_end: Option<f64>,
    /// All of the turn.
    #[serde(default)]
    pub(super) transcript: String,
    #[serde(default)]
    pub(super) words: Vec<WordMessage>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum TurnEvent {
    Update,
    StartOfTurn,
    EagerEndOfTurn,
    TurnResumed,
    EndOfTurn,
    #[default]
    #[serde(other)]
    Other,
}

/// A word, in seconds of what was sent.
#[derive(Debug, Default, Deserialize)]
pub(super) struct WordMessage {
    #[serde(default)]
    pub(super) word: String,
    pub(super) punctuated_word: Option<String>,
    pub(super) start: Option<f64>,
    pub(super) end: Option<f64>,
}

/// Why the connection is going to end: `code` with Flux, `variant` with Nova.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ErrorMessage {
    #[serde(alias = "variant", alias = "err_code")]
    pub(super) code: Option<String>,
    #[serde(alias = "err_msg")]
    pub(super) description: Option<String>,
    pub(super) message: Option<String>,
}

/// A message of `/v1/listen`.
#[derive(Debug, Deserialize)]
#[serde(tag = "type")]
pub(super) enum NovaMessage {
    Results(Results),
    UtteranceEnd {
        last_word_end: Option<f64>,
    },
    Error(ErrorMessage),
    /// `Metadata`, `SpeechStarted`, and what may come.
    #[serde(other)]
    Other,
}

/// Words of a stretch of audio.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Results {
    /// Where the stretch begins, in seconds of what was sent.
    #[serde(default)]
    pub(super) start: f64,
    #[serde(default)]
    pub(super) duration: f64,
    /// Whether the words of this stretch will not change any more.
    #[serde(default)]
    pub(super) is_final: bool,
    /// Whether there was silence long enough behind it. Not sent where silence does not end turns.
    #[serde(default)]
    pub(super) speech_final: bool,
    /// Whether it answers a `Finalize`.
    #[serde(default)]
    pub(super) from_finalize: bool,
    #[serde(default)]
    pub(super) channel: Channel,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Channel {
    #[serde(default)]
    pub(super) alternatives: Vec<Alternative>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Alternative {
    #[serde(default)]
    pub(super) transcript: String,
    #[serde(default)]
    pub(super) words: Vec<WordMessage>,
}

/// The number of a message of Flux, which goes up by one from message to message, of whatever type.
#[derive(Debug, Deserialize)]
pub(super) struct Numbered {
    pub(super) sequence_id: Option<u64>,
}

impl ErrorMessage {
    /// Whether trying again leads to the same: what was asked or sent is wrong.
    pub(super) fn permanent(&self) -> bool {
        let code = self.code.as_deref().unwrap_or_default();
        code.starts_with("UNPARSABLE") || code.starts_with("DATA-") || code.starts_with("BIG-")
    }

    /// All of it, in a line.
    pub(super) fn text(&self) -> String {
        let parts = [&self.code, &self.description, &self.message];
        let parts: Vec<&str> = parts
            .into_iter()
            .filter_map(Option::as_deref)
            .filter(|part| !part.is_empty())
            .collect();
        if parts.is_empty() { "an error without a description".into() } else { parts.join(": ") }
    }
}
