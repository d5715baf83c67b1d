//! A conversation that is going on: the work behind [`crate::turn::Machine`]'s decisions.

mod conversation;
mod ears;
mod pacer;
mod tape;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tracing::Instrument;

use crate::audio::VadOptions;
use crate::llm::{Llm, Tools};
use crate::protocol::{ClientMessage, Providers, ServerMessage};
use crate::stt::Stt;
use crate::tts::Tts;
use crate::turn::TurnOptions;

/// Messages that may wait in either direction.
const WAITING: usize = 256;

/// A conversation that is going on. It ends when `input` is dropped, or by itself, which closes `output`.
#[derive(Debug)]
pub struct Session {
    /// What the client says; [`ClientMessage::Hello`] first.
    pub input: mpsc::Sender<ClientMessage>,
    /// What the client is told. Must be read: where it is full for seconds, the conversation ends.
    pub output: mpsc::Receiver<ServerMessage>,
}

/// What conversations are like, besides [`TurnOptions`].
#[derive(Debug, Clone, PartialEq)]
pub struct VoiceOptions {
    /// Who may speak when, what is said, what is waited for.
    pub turn: TurnOptions,
    /// The local detector of speech.
    pub vad: VadOptions,
    /// Audio that the client has and has not played.
    pub lead: Duration,
    /// How long a client that does not read is waited for.
    pub slow_client: Duration,
    /// Where conversations are recorded; not at all if `None`.
    pub recordings: Option<PathBuf>,
    /// Said to every client where something is not what it seems: see [`Providers::notice`].
    pub notice: String,
}

impl Default for VoiceOptions {
    fn default() -> Self {
        Self {
            turn: TurnOptions::default(),
            vad: VadOptions::default(),
            lead: Duration::from_millis(200),
            slow_client: Duration::from_secs(5),
            recordings: None,
            notice: String::new(),
        }
    }
}

/// Everything that a conversation is made of. Cloning shares it.
#[derive(Clone)]
pub struct Voice {
    parts: Arc<Parts>,
}

struct Parts {
    stt: Arc<dyn Stt>,
    llm: Arc<dyn Llm>,
    tts: Arc<dyn Tts>,
    tools: Tools,
    options: VoiceOptions,
    /// Conversations begun so far.
    sessions: AtomicU64,
}

impl Voice {
    /// Conversations in which `stt` listens, `llm` thinks and `tts` speaks.
    pub fn builder(stt: Arc<dyn Stt>, llm: Arc<dyn Llm>, tts: Arc<dyn Tts>) -> VoiceBuilder {
        VoiceBuilder { stt, llm, tts, tools: Tools::new(), options: VoiceOptions::default() }
    }

    /// Who listens, thinks and speaks.
    pub fn providers(&self) -> Providers {
        let Parts { stt, llm, tts, options, .. } = &*self.parts;
        let notice = options.notice.clone();
        Providers { stt: stt.name(), llm: llm.name(), tts: tts.name(), notice }
    }

    /// Begins a conversation; it is recorded where [`VoiceOptions::recordings`] says. Must be called within a tokio runtime;
    /// the client's first message must be [`ClientMessage::Hello`].
    pub fn start(&self) -> Session {
        let name = self.next_name();
        let folder = self.parts.options.recordings.as_ref();
        let recording = folder.map(|folder| folder.join(format!("{name}.wav")));
        self.spawn(name, recording)
    }

    /// As [`Voice::start`], recorded in a file of the caller's choice, and in a timeline beside it.
    pub fn start_recording(&self, path: PathBuf) -> Session {
        self.spawn(self.next_name(), Some(path))
    }

    /// A name that no other conversation has, by the time at which it begins.
    fn next_name(&self) -> String {
        let number = self.parts.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("{}-{number}", since.as_secs())
    }

    fn spawn(&self, name: String, recording: Option<PathBuf>) -> Session {
        let (input, from_client) = mpsc::channel(WAITING);
        let (to_client, output) = mpsc::channel(WAITING);
        let span = tracing::info_span!("session", name);
        let parts = Arc::clone(&self.parts);
        let run = conversation::run(parts, name, recording, from_client, to_client);
        tokio::spawn(run.instrument(span));
        Session { input, output }
    }
}

/// Makes a [`Voice`].
pub struct VoiceBuilder {
    stt: Arc<dyn Stt>,
    llm: Arc<dyn Llm>,
    tts: Arc<dyn Tts>,
    tools: Tools,
    options: VoiceOptions,
}

impl VoiceBuilder {
    /// What the language model may call.
    pub fn tools(self, tools: Tools) -> Self {
        Self { tools, ..self }
    }

    /// What conversations are like.
    pub fn options(self, options: VoiceOptions) -> Self {
        Self { options, ..self }
    }

    /// All of it.
    pub fn build(self) -> Voice {
        let Self { stt, llm, tts, tools, options } = self;
        let sessions = AtomicU64::new(0);
        Voice { parts: Arc::new(Parts { stt, llm, tts, tools, options, sessions }) }
    }
}

impl std::fmt::Debug for Voice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Voice").field("providers", &self.providers()).finish_non_exhaustive()
    }
}
