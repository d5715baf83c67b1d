//! What a client and the loop say to each other. A client is what has ears and a mouth: the page, the machine's
//! microphone and speaker, a file.
//!
//! On a websocket every message is JSON in a text frame, but for audio, which is a binary frame: from the client samples
//! alone; to the client [`AudioFrame::HEADER`] bytes of header and samples. Samples are 16-bit, mono, little-endian.
//!
//! An *epoch* is one spoken answer. Epochs count up; audio of any but the latest is thrown away wherever it is met.

use serde::{Deserialize, Serialize};

use crate::llm::Usage;

/// What a client says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientMessage {
    /// The first message: the client is there.
    Hello {
        /// Samples a second of its audio, 8,000 to 96,000.
        sample_rate: u32,
    },
    /// What its microphone hears; a binary frame on a websocket.
    #[serde(skip)]
    Audio(Vec<i16>),
    /// What has been played of an epoch; said ten times a second while it plays.
    Played {
        /// Whose audio.
        epoch: u32,
        /// Samples of it that have been heard, from its beginning.
        samples: u64,
        /// How often, in this epoch, there was nothing to play where there should have been.
        #[serde(default)]
        underruns: u32,
    },
    /// Answer to [`ServerMessage::Flush`]: nothing of the epoch will be played any more.
    Flushed {
        /// Whose audio.
        epoch: u32,
        /// Samples of it that were heard.
        samples: u64,
    },
    /// The user typed something instead of saying it.
    Text {
        /// What.
        text: String,
    },
    /// The user wants the speaking to stop.
    Interrupt,
    /// The microphone was switched off or on; while it is off no audio comes.
    Mute {
        /// Whether it is off.
        muted: bool,
    },
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage {
    /// The first message.
    Ready {
        /// Identifies the conversation in logs and recordings.
        session: String,
        /// Samples a second of the audio that will come.
        sample_rate: u32,
        /// Who listens, thinks and speaks, for people.
        providers: Providers,
    },
    /// Something to be played; a binary frame on a websocket.
    #[serde(skip)]
    Audio(AudioFrame),
    /// The epoch's audio is complete.
    AudioEnd {
        /// Whose audio.
        epoch: u32,
        /// How many samples it has.
        samples: u64,
    },
    /// Stop playing, at once, and keep what is not played yet.
    Pause {
        /// Whose audio.
        epoch: u32,
    },
    /// Go on playing.
    Resume {
        /// Whose audio.
        epoch: u32,
    },
    /// Stop playing, at once, throw away what is not played yet, and answer with [`ClientMessage::Flushed`].
    Flush {
        /// Whose audio.
        epoch: u32,
    },
    /// What the loop is doing now.
    State {
        /// What.
        state: State,
    },
    /// What the user said.
    User {
        /// Number of the turn.
        turn: u32,
        /// All of it, as far as it is known.
        text: String,
        /// Whether it will not change any more.
        done: bool,
    },
    /// What is answered.
    Assistant {
        /// Number of the turn.
        turn: u32,
        /// All of it, as far as it is written; in the end what was spoken of it.
        text: String,
        /// Bytes of `text` (UTF-8) that have been heard.
        spoken: usize,
        /// Whether it will not change any more.
        done: bool,
        /// Whether the user interrupted it.
        interrupted: bool,
    },
    /// A tool is being run.
    Tool {
        /// Its name.
        name: String,
        /// Whether it is over.
        done: bool,
    },
    /// A turn is over.
    Turn(TurnReport),
    /// Something went wrong.
    Problem {
        /// Where: "listening", "thinking", "speaking", or "session".
        stage: String,
        /// What, for people; never a key.
        message: String,
        /// Whether it does not mend by itself.
        permanent: bool,
    },
}

/// What the loop is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waiting for the user to speak.
    Listening,
    /// The user speaks.
    Hearing,
    /// Waiting for the answer's first sound.
    Thinking,
    /// The answer is being played.
    Speaking,
    /// The answer is held, since the user may be interrupting.
    Holding,
}

/// Who listens, thinks and speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Providers {
    /// [`crate::stt::Stt::name`].
    pub stt: String,
    /// [`crate::llm::Llm::name`].
    pub llm: String,
    /// [`crate::tts::Tts::name`].
    pub tts: String,
    /// Said plainly where something is not what it will be: a double, a model of random weights. Empty otherwise.
    pub notice: String,
}

/// A stretch of audio to be played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioFrame {
    /// Whose audio.
    pub epoch: u32,
    /// Number of its first sample, from the beginning of the epoch.
    pub first_sample: u64,
    /// The samples.
    pub samples: Vec<i16>,
}

impl AudioFrame {
    /// Bytes before the samples: the epoch (4), the number of the first sample (8), little-endian.
    pub const HEADER: usize = 12;

    /// The binary frame.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::HEADER + 2 * self.samples.len());
        bytes.extend(self.epoch.to_le_bytes());
        bytes.extend(self.first_sample.to_le_bytes());
        bytes.extend(self.samples.iter().flat_map(|sample| sample.to_le_bytes()));
        bytes
    }
}

/// A turn: what was said, what was answered, and how long it took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TurnReport {
    /// Number of the turn; 0 is the greeting.
    pub turn: u32,
    /// What the user said.
    pub user: String,
    /// What was heard of the answer.
    pub assistant: String,
    /// Whether the user interrupted the answer.
    pub interrupted: bool,
    /// Whether the answer could not be completed.
    pub failed: bool,
    /// When things happened.
    pub stages: Stages,
    /// Times that the player had nothing to play where it should have had.
    pub underruns: u32,
    /// What the turn's requests to the language model cost, as far as the service says.
    #[serde(default)]
    pub usage: Usage,
}

/// When things happened in a turn: milliseconds since the end of the user's speech (since the text was typed; since the
/// greeting began). `None` for what did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Stages {
    /// The transcript was final.
    pub transcript: Option<f64>,
    /// The language model gave its first token.
    pub first_token: Option<f64>,
    /// The first clause went to the speech.
    pub first_clause: Option<f64>,
    /// The first samples were made.
    pub first_audio: Option<f64>,
    /// They were sent to the client.
    pub first_sent: Option<f64>,
    /// The client played them.
    pub first_played: Option<f64>,
}

impl Stages {
    /// The stages in order, by their names.
    pub fn named(&self) -> [(&'static str, Option<f64>); 6] {
        [
            ("transcript", self.transcript),
            ("first_token", self.first_token),
            ("first_clause", self.first_clause),
            ("first_audio", self.first_audio),
            ("first_sent", self.first_sent),
            ("first_played", self.first_played),
        ]
    }
}
