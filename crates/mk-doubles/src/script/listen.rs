//! What the listening double hears.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What the double of `/v1/listen` and `/v2/listen` hears in the audio of a connection.
///
/// ```
/// use mk_doubles::ListenScript;
///
/// let script: ListenScript = serde_json::from_str(
///     r#"{"by": "time", "moments": [
///         {"at": 0.60, "event": "start", "transcript": "What"},
///         {"at": 1.84, "event": "eager", "transcript": "What is the capital?"},
///         {"at": 2.10, "event": "end"}]}"#,
/// )?;
/// script.check()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum ListenScript {
    /// Moments at fixed times of the audio received, whatever it holds.
    Time(TimeScript),
    /// Turns where the audio is loud; their words come from a list.
    Energy(EnergyScript),
}

/// Moments in audio time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeScript {
    /// In the order of their times.
    pub moments: Vec<Moment>,
    /// Seconds after which all of it happens again; never, if it is absent.
    #[serde(default)]
    pub repeat_every: Option<f64>,
}

/// What is recognised when so much audio was received.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// Seconds of audio since the connection was opened.
    pub at: f64,
    /// What happens.
    pub event: MomentKind,
    /// The whole transcript of the turn so far; as before, if it is absent.
    #[serde(default)]
    pub transcript: Option<String>,
}

/// What happens at a [`Moment`]. Each protocol makes its own messages of it, and none that its rules forbid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MomentKind {
    /// Speech begins.
    Start,
    /// More words are known.
    Update,
    /// The turn is likely over. Nothing to Nova-3.
    Eager,
    /// It was not. Nothing to Nova-3.
    Resume,
    /// The turn is over.
    End,
}

/// Turns found by the energy of the audio, 10 ms at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnergyScript {
    /// What is said: a turn takes the next one, the first follows the last.
    pub transcripts: Vec<String>,
    /// Root mean square at which speech begins, full scale being 1. Default: 0.012 (-38 dB).
    pub on_rms: f32,
    /// Root mean square below which it is silence. Default: 0.006 (-44 dB).
    pub off_rms: f32,
    /// Milliseconds of sound that are speech. Default: 60.
    pub onset_ms: u32,
    /// Milliseconds of silence after which a turn is likely over. Default: 120.
    pub eager_ms: u32,
    /// Milliseconds of silence after which a turn is over. For Nova-3 `endpointing` takes its place, but not below
    /// `eager_ms`. Default: 300.
    pub silence_ms: u32,
    /// Milliseconds of speech to a word while it goes on; those that are left are there when it pauses. Default: 280.
    pub word_ms: u32,
}

impl Default for EnergyScript {
    fn default() -> Self {
        let transcripts = [
            "Hello, who am I talking to?",
            "What can you do for me?",
            "Tell me something about the sea.",
            "That is enough, thank you.",
        ];
        Self {
            transcripts: transcripts.map(String::from).to_vec(),
            on_rms: 0.012,
            off_rms: 0.006,
            onset_ms: 60,
            eager_ms: 120,
            silence_ms: 300,
            word_ms: 280,
        }
    }
}

impl Default for ListenScript {
    fn default() -> Self {
        Self::Energy(EnergyScript::default())
    }
}

impl ListenScript {
    /// Turns by energy that say these transcripts.
    pub fn energy<S: Into<String>>(transcripts: impl IntoIterator<Item = S>) -> Self {
        let transcripts = transcripts.into_iter().map(Into::into).collect();
        Self::Energy(EnergyScript { transcripts, ..EnergyScript::default() })
    }

    /// Turns at fixed times: what is said, and the seconds of audio from which and to which.
    pub fn turns<S: AsRef<str>>(turns: impl IntoIterator<Item = (S, f64, f64)>) -> Self {
        let moments = turns
            .into_iter()
            .flat_map(|(text, from, to)| Moment::turn(text.as_ref(), from, to))
            .collect();
        Self::Time(TimeScript { moments, repeat_every: None })
    }

    /// Whether the script can be played.
    ///
    /// # Errors
    /// [`Error::Script`] that names what cannot.
    pub fn check(&self) -> Result<()> {
        let wrong = |reason: String| Err(Error::Script { what: "listen", reason });
        match self {
            Self::Time(script) => {
                let mut last = 0.0;
                for (index, moment) in script.moments.iter().enumerate() {
                    if !moment.at.is_finite() || moment.at < last {
                        return wrong(format!("moment {index} is at {}, after {last}", moment.at));
                    }
                    last = moment.at;
                }
                match script.repeat_every {
                    Some(every) if !(every.is_finite() && every > last && every >= 0.1) => {
                        wrong(format!("repeat_every is {every}, the last moment at {last}"))
                    }
                    _ => Ok(()),
                }
            }
            Self::Energy(script) => {
                if script.transcripts.iter().all(|text| text.trim().is_empty()) {
                    return wrong("no transcripts".into());
                }
                if !(script.off_rms > 0.0 && script.on_rms >= script.off_rms) {
                    let EnergyScript { on_rms, off_rms, .. } = script;
                    return wrong(format!("on_rms {on_rms} is not above off_rms {off_rms}"));
                }
                if script.word_ms == 0 || script.eager_ms > script.silence_ms {
                    return wrong("word_ms must be positive, eager_ms at most silence_ms".into());
                }
                Ok(())
            }
        }
    }
}

impl Moment {
    /// The moments of a turn that is spoken from `from` to `to` (seconds): each word when it has been said, a likely end
    /// 0.1 s and the end 0.25 s after the last.
    pub fn turn(transcript: &str, from: f64, to: f64) -> Vec<Self> {
        let words: Vec<&str> = transcript.split_whitespace().collect();
        let share = (to - from) / words.len().max(1) as f64;
        let mut moments: Vec<Self> = (1..=words.len())
            .map(|count| Self {
                at: from + share * count as f64,
                event: if count == 1 { MomentKind::Start } else { MomentKind::Update },
                transcript: Some(words[..count].join(" ")),
            })
            .collect();
        for (after, event) in [(0.1, MomentKind::Eager), (0.25, MomentKind::End)] {
            moments.push(Self { at: to + after, event, transcript: None });
        }
        moments
    }
}
