//! Text to speech, as a conversation needs it: from text that is being written to samples and to what is spoken when.

pub mod qwen;
pub mod tones;

pub use qwen::QwenTts;
pub use tones::{Tones, TonesOptions};
mod trim;

use tokio::sync::mpsc;

/// A voice that can speak in any number of conversations.
pub trait Tts: Send + Sync + 'static {
    /// Its name, for people: "Qwen3-TTS (ryan, english)".
    fn name(&self) -> String;

    /// Samples a second of what it speaks: mono, 16-bit.
    fn sample_rate(&self) -> u32;

    /// Begins to speak. Must be called within a tokio runtime. Dropping either end of the utterance ends it.
    fn speak(&self) -> Utterance;
}

/// Something that is being spoken, usually a sentence.
#[derive(Debug)]
pub struct Utterance {
    /// Takes the text, piece by piece. It is complete when the sender is dropped.
    pub text: mpsc::Sender<String>,
    /// Gives the sound.
    pub events: mpsc::Receiver<TtsEvent>,
}

/// A part of an utterance.
#[derive(Debug, Clone, PartialEq)]
pub enum TtsEvent {
    /// The next samples.
    Audio {
        /// Mono; not empty.
        samples: Vec<i16>,
        /// How far the text is spoken where they end, by what is known now.
        mark: Mark,
    },
    /// All of it is spoken.
    Ended {
        /// What is spoken when, by what is known in the end: in order, the last being the end of both. Replaces the
        /// marks before.
        marks: Vec<Mark>,
    },
    /// There will be no more.
    Failed(TtsError),
}

/// A place in the sound of an utterance and in its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// Samples from the beginning of the utterance.
    pub sample: u64,
    /// Bytes of its text that are spoken before.
    pub byte: usize,
}

/// Why an utterance ended too early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{voice}: {reason}")]
pub struct TtsError {
    /// [`Tts::name`].
    pub voice: String,
    /// What happened.
    pub reason: String,
}
