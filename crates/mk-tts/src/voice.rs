//! Voices: the model's own, cloned, and described ones.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::Speaker;
use crate::error::{Error, Result};

/// Who speaks. Made by [`crate::Tts`]; cloning shares it.
///
/// A cloned voice can be kept in a file ([`Voice::save`], [`crate::Tts::load_voice`]), so that its recording has to be
/// analysed once only.
#[derive(Clone, PartialEq)]
pub struct Voice {
    inner: Arc<Inner>,
}

#[derive(Debug, Clone, PartialEq)]
struct Inner {
    kind: Kind,
    instruction: String,
    id: blake3::Hash,
}

/// Where a voice comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    /// One of the model's own.
    Preset { name: String, speaker: Speaker },
    /// From a recording.
    Cloned(Cloned),
    /// By the instruction alone.
    Described,
}

/// What is known of a cloned voice.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cloned {
    /// Of the speaker encoder.
    pub(crate) vector: Vec<f32>,
    /// What the talker continues, unless the voice is the vector alone.
    pub(crate) recording: Option<Recording>,
}

/// A recording as the talker takes it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recording {
    pub(crate) text: String,
    /// One list for each frame.
    pub(crate) frames: Vec<Vec<u32>>,
}

/// The first field of a voice's file.
const FORMAT: &str = "mk-voice-1";
/// Longer files are no voices: a minute of speech takes some 60 kB.
const MAX_FILE: u64 = 16 << 20;

#[derive(Serialize, Deserialize)]
struct VoiceFile {
    format: String,
    instruction: String,
    /// Vector of the speaker encoder.
    speaker: Vec<f32>,
    recording: Option<RecordingFile>,
}

#[derive(Serialize, Deserialize)]
struct RecordingFile {
    text: String,
    /// One list for each frame.
    codes: Vec<Vec<u32>>,
}

impl Voice {
    pub(crate) fn new(kind: Kind, instruction: String) -> Self {
        let mut hash = blake3::Hasher::new();
        // A derived Debug prints every field, the numbers exactly.
        hash.update(format!("{kind:?} {instruction:?}").as_bytes());
        Self { inner: Arc::new(Inner { kind, instruction, id: hash.finalize() }) }
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.inner.kind
    }

    /// What distinguishes the voice from others.
    pub(crate) fn id(&self) -> blake3::Hash {
        self.inner.id
    }

    /// Whether the voice is one to a description.
    pub fn is_described(&self) -> bool {
        matches!(self.inner.kind, Kind::Described)
    }

    /// The name of one of the model's own voices.
    pub fn name(&self) -> Option<&str> {
        match &self.inner.kind {
            Kind::Preset { name, .. } => Some(name),
            _ => None,
        }
    }

    /// How the voice is told to speak, or what it is described as; empty for nothing.
    pub fn instruction(&self) -> &str {
        &self.inner.instruction
    }

    /// The same voice, told how to speak. Models that take no instructions refuse to speak with it.
    pub fn with_instruction(&self, instruction: &str) -> Self {
        Self::new(self.inner.kind.clone(), instruction.trim().into())
    }

    /// Writes a cloned voice to a file: JSON, with the speaker's vector and the recording's codes and text. It fits
    /// models of the same width and codec.
    ///
    /// # Errors
    /// [`Error::NotACloned`] for any other voice; a file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let Kind::Cloned(cloned) = &self.inner.kind else { return Err(Error::NotACloned) };
        let file = VoiceFile {
            format: FORMAT.into(),
            instruction: self.inner.instruction.clone(),
            speaker: cloned.vector.clone(),
            recording: cloned.recording.as_ref().map(|recording| RecordingFile {
                text: recording.text.clone(),
                codes: recording.frames.clone(),
            }),
        };
        let text = serde_json::to_string(&file).map_err(|e| broken(path, e.to_string()))?;
        std::fs::write(path, text).map_err(|source| Error::Io { path: path.into(), source })
    }

    /// Reads what [`Voice::save`] wrote, for a model `width` wide with a codec of `groups` codes below `codes`.
    pub(crate) fn load(path: &Path, width: usize, groups: usize, codes: usize) -> Result<Self> {
        let mut text = String::new();
        let io = |source| Error::Io { path: path.into(), source };
        File::open(path).map_err(io)?.take(MAX_FILE).read_to_string(&mut text).map_err(io)?;
        let file: VoiceFile =
            serde_json::from_str(&text).map_err(|e| broken(path, e.to_string()))?;
        if file.format != FORMAT {
            return Err(broken(path, format!("format {:?}, expected {FORMAT:?}", file.format)));
        }
        let found = file.speaker.len();
        if found != width {
            return Err(broken(
                path,
                format!("its speaker has {found} numbers, the model {width}"),
            ));
        }
        if let Some(at) = file.speaker.iter().position(|x| !x.is_finite()) {
            return Err(broken(path, format!("its speaker's number {at} is not finite")));
        }
        let recording = file.recording.map(|recording| {
            for (at, frame) in recording.codes.iter().enumerate() {
                if frame.len() != groups || frame.iter().any(|code| *code as usize >= codes) {
                    let reason =
                        format!("frame {at} is not {groups} codes below {codes}: {frame:?}");
                    return Err(broken(path, reason));
                }
            }
            if recording.codes.is_empty() || recording.text.trim().is_empty() {
                return Err(broken(path, "its recording has no frames, or no text".into()));
            }
            Ok(Recording { text: recording.text, frames: recording.codes })
        });
        let cloned = Cloned { vector: file.speaker, recording: recording.transpose()? };
        Ok(Self::new(Kind::Cloned(cloned), file.instruction))
    }
}

impl fmt::Debug for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The vector and the codes would drown whatever this is printed with.
        let kind = match &self.inner.kind {
            Kind::Preset { name, .. } => name,
            Kind::Cloned(Cloned { recording: Some(_), .. }) => "cloned from a recording",
            Kind::Cloned(_) => "cloned from a vector",
            Kind::Described => "described",
        };
        let instruction = &self.inner.instruction;
        f.debug_struct("Voice").field("is", &kind).field("instruction", instruction).finish()
    }
}

fn broken(path: &Path, reason: String) -> Error {
    Error::VoiceFile { path: path.into(), reason }
}
