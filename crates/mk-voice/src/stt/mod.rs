//! Speech to text, as a conversation needs it: turns, not files.

pub mod deepgram;

use std::time::Duration;

use tokio::sync::mpsc;

/// Samples a second of what a recogniser hears: mono, 16-bit.
pub const SAMPLE_RATE: u32 = 16_000;

/// A recogniser of speech that can listen to any number of conversations.
pub trait Stt: Send + Sync + 'static {
    /// Its name, for people: "Deepgram Flux (flux-general-en)".
    fn name(&self) -> String;

    /// Begins to listen. Must be called within a tokio runtime; the tasks behind it end when the stream is dropped.
    fn listen(&self) -> SttStream;
}

/// One conversation that is listened to.
#[derive(Debug)]
pub struct SttStream {
    /// What is heard. Where it is full, the recogniser is behind: audio that does not fit may be dropped by the caller,
    /// who then counts it.
    pub input: mpsc::Sender<SttInput>,
    /// What was recognised.
    pub events: mpsc::Receiver<SttEvent>,
}

/// What a recogniser is given.
#[derive(Debug, Clone, PartialEq)]
pub enum SttInput {
    /// The next samples, mono at [`SAMPLE_RATE`]; silence too, without gaps, while the microphone is open.
    Audio(Vec<i16>),
    /// A local detector heard speech begin. Recognisers that find turns themselves take no notice.
    SpeechStarted,
    /// A local detector heard speech end: recognisers that do not find the ends of turns themselves end the turn now.
    SpeechStopped,
}

/// What a recogniser has to say. Within a turn, in order: `TurnStarted`, any number of `Partial`, `LikelyEnd` and
/// `Resumed`, then `TurnEnded`. Before each of them there may be `Lost` and `Restored`; after `Failed` comes nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum SttEvent {
    /// It listens.
    Connected,
    /// The user began to speak.
    TurnStarted,
    /// The words of the turn so far, replacing those before.
    Partial {
        /// All of the turn's text.
        text: String,
    },
    /// The turn is likely to be over. `TurnEnded` with the same text follows, or `Resumed`.
    LikelyEnd {
        /// All of the turn's text; not empty.
        text: String,
    },
    /// The turn that was likely to be over goes on.
    Resumed,
    /// The turn is over.
    TurnEnded {
        /// All of its text; empty if there were no words in what was taken for speech.
        text: String,
        /// Where its last word ends, from the beginning of the audio, if that is known.
        speech_end: Option<Duration>,
    },
    /// The connection is lost, and being made again. Audio is kept meanwhile.
    Lost {
        /// What happened, with the close code and the request id where there are any.
        reason: String,
    },
    /// It listens again.
    Restored {
        /// Audio that was kept and has been, or is being, heard late.
        replayed: Duration,
        /// Audio that was not kept long enough.
        lost: Duration,
    },
    /// It cannot listen any more: the key is wrong, say.
    Failed(SttError),
}

/// Why a recogniser ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{recogniser}: {reason}")]
pub struct SttError {
    /// [`Stt::name`].
    pub recogniser: String,
    /// What it said, with the request id where there is one.
    pub reason: String,
}
