//! Nova-3: results that replace each other until one is final.

use serde_json::{Value, json};

use crate::listen::query::NovaQuery;
use crate::listen::timeline::Heard;
use crate::listen::words::{Word, rounded, transcript};
use crate::script::MomentKind;

/// Seconds of audio between interim results.
const INTERIM_SECONDS: f64 = 1.0;

/// Seconds of audio after which a result is final though speech goes on.
const SEGMENT_SECONDS: f64 = 4.0;

/// One session's state.
#[derive(Debug)]
pub(crate) struct Nova {
    request_id: String,
    model_uuid: String,
    settings: NovaQuery,
    /// Words that are not final yet.
    words: Vec<Word>,
    /// The speaker's turn that they are of, and how many of its words are final.
    heard_turn: u64,
    taken: usize,
    /// When the segment began that comes next, and when its last interim result was sent; in seconds of audio.
    segment_start: f64,
    last_interim: f64,
    /// The end of the last final word that no `UtteranceEnd` was sent for.
    utterance: Option<f64>,
}

impl Nova {
    pub(crate) fn new(request_id: String, model_uuid: String, settings: NovaQuery) -> Self {
        Self {
            request_id,
            model_uuid,
            settings,
            words: Vec::new(),
            heard_turn: 0,
            taken: 0,
            segment_start: 0.0,
            last_interim: 0.0,
            utterance: None,
        }
    }

    /// The messages for a tick of audio that ends at `now`.
    pub(crate) fn tick(&mut self, now: f64, heard: &[Heard]) -> Vec<Value> {
        let mut messages = Vec::new();
        for heard in heard {
            self.hear(now, heard, &mut messages);
        }
        if now - self.segment_start >= SEGMENT_SECONDS - 1e-9 {
            messages.push(self.results(now, Finality::Segment));
        } else if self.settings.interim_results && now - self.last_interim >= INTERIM_SECONDS - 1e-9
        {
            messages.push(self.results(now, Finality::Interim));
        }
        if let (Some(gap), Some(end)) = (self.settings.utterance_end_ms, self.utterance)
            && now - end >= f64::from(gap) / 1000.0 - 1e-9
            && self.words.is_empty()
        {
            self.utterance = None;
            let channel = [0, self.settings.channels];
            let end = rounded(end);
            messages
                .push(json!({"type": "UtteranceEnd", "channel": channel, "last_word_end": end}));
        }
        messages
    }

    /// The answer to `Finalize`; none where nothing was received since the last final result. `heard` is what the
    /// speaker's turn ends with.
    pub(crate) fn finalize(&mut self, now: f64, heard: Option<Heard>) -> Vec<Value> {
        if let Some(heard) = heard {
            self.take_words(&heard);
        }
        if now <= self.segment_start {
            return Vec::new();
        }
        vec![self.results(now, Finality::Finalize)]
    }

    /// The last messages: what is not final yet, and `Metadata`.
    pub(crate) fn close(&mut self, now: f64, heard: Option<Heard>, created: &str) -> Vec<Value> {
        if let Some(heard) = heard {
            self.take_words(&heard);
        }
        let mut messages = Vec::new();
        if now > self.segment_start {
            messages.push(self.results(now, Finality::Segment));
        }
        messages.push(json!({
            "type": "Metadata",
            "transaction_key": "deprecated",
            "request_id": self.request_id,
            "sha256": format!("{:064x}", (now * 1000.0) as u64),
            "created": created,
            "duration": rounded(now),
            "channels": self.settings.channels,
            "models": [self.model_uuid],
            "model_info": {self.model_uuid.as_str(): self.model_info()},
        }));
        messages
    }

    /// An error that does not end the session.
    pub(crate) fn error(variant: &str, description: &str) -> Value {
        json!({"type": "Error", "variant": variant, "description": description, "message": description})
    }

    fn hear(&mut self, now: f64, heard: &Heard, messages: &mut Vec<Value>) {
        let start = heard.words.first().map_or(now, |word| word.start);
        self.take_words(heard);
        if heard.kind == MomentKind::Start && self.settings.vad_events {
            let channel = [0, self.settings.channels];
            let timestamp = rounded(start);
            messages
                .push(json!({"type": "SpeechStarted", "channel": channel, "timestamp": timestamp}));
        }
        if heard.kind == MomentKind::End && !self.words.is_empty() {
            let finality = match self.settings.endpointing {
                Some(_) => Finality::Speech,
                None => Finality::Segment,
            };
            messages.push(self.results(now, finality));
        }
    }

    fn take_words(&mut self, heard: &Heard) {
        if heard.turn != self.heard_turn {
            self.heard_turn = heard.turn;
            self.taken = 0;
        }
        self.words = heard.words.get(self.taken..).unwrap_or_default().to_vec();
    }

    fn results(&mut self, now: f64, finality: Finality) -> Value {
        let words = &self.words;
        let line = transcript(words);
        let count = words.len().max(1) as f64;
        let confidence = words.iter().map(Word::confidence).sum::<f64>() / count;
        let message = json!({
            "type": "Results",
            "channel_index": [0, self.settings.channels],
            "duration": rounded(now - self.segment_start),
            "start": rounded(self.segment_start),
            "is_final": finality != Finality::Interim,
            "speech_final": finality == Finality::Speech
                || finality == Finality::Finalize && !words.is_empty(),
            "channel": {"alternatives": [{
                "transcript": if self.settings.is_written { line.clone() } else { bare(words) },
                "confidence": rounded(confidence),
                "words": words.iter().map(|word| self.word(word)).collect::<Vec<_>>(),
            }]},
            "metadata": {
                "request_id": self.request_id,
                "model_info": self.model_info(),
                "model_uuid": self.model_uuid,
            },
            "from_finalize": finality == Finality::Finalize,
        });
        self.last_interim = now;
        if finality != Finality::Interim {
            if let Some(word) = self.words.last() {
                self.utterance = Some(word.end);
            }
            self.taken += self.words.len();
            self.words.clear();
            self.segment_start = now;
        }
        message
    }

    fn word(&self, word: &Word) -> Value {
        let mut value = json!({
            "word": word.bare(),
            "start": rounded(word.start),
            "end": rounded(word.end),
            "confidence": rounded(word.confidence()),
        });
        if self.settings.is_written {
            value["punctuated_word"] = word.text.as_str().into();
        }
        value
    }

    fn model_info(&self) -> Value {
        json!({"name": "general-nova-3", "version": "2024-12-20.0", "arch": "nova-3"})
    }
}

/// Why results are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finality {
    /// They may change.
    Interim,
    /// They are final, speech may go on.
    Segment,
    /// The speaker has paused.
    Speech,
    /// The client asked for it.
    Finalize,
}

fn bare(words: &[Word]) -> String {
    words.iter().map(Word::bare).collect::<Vec<_>>().join(" ")
}
