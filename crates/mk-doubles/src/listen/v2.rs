//! Flux: turns, and the rules that their messages keep whatever is heard.
//!
//! The states are Deepgram's: no turn, a turn, a turn that is likely over. `EagerEndOfTurn` has words, `TurnResumed` comes
//! after it only, `EndOfTurn` says what the eager one before it said, and `turn_index` rises after it.

use serde_json::{Value, json};

use crate::listen::query::FluxQuery;
use crate::listen::timeline::Heard;
use crate::listen::words::{Word, rounded, transcript};
use crate::script::MomentKind;

/// Seconds of audio after which an `Update` is sent if nothing else was.
const UPDATE_SECONDS: f64 = 0.25;

/// One session's state.
#[derive(Debug)]
pub(crate) struct Flux {
    request_id: String,
    settings: FluxQuery,
    sequence: u32,
    turn_index: u32,
    phase: Phase,
    /// Words of this turn.
    words: Vec<Word>,
    /// The speaker's turn that they are of, and how many of its words belong to turns that are over.
    heard_turn: u64,
    taken: usize,
    /// When the last turn ended, when the last message was sent, when something was last said; in seconds of audio.
    window_start: f64,
    last_sent: f64,
    last_speech: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Turn,
    Eager,
}

/// What a control message leads to.
#[derive(Debug, PartialEq)]
pub(crate) enum FluxReply {
    Messages(Vec<Value>),
    /// The last message, an error; the connection is closed.
    Fatal(Value),
}

impl Flux {
    pub(crate) fn new(request_id: String, settings: FluxQuery) -> Self {
        Self {
            request_id,
            settings,
            sequence: 0,
            turn_index: 0,
            phase: Phase::Idle,
            words: Vec::new(),
            heard_turn: 0,
            taken: 0,
            window_start: 0.0,
            last_sent: 0.0,
            last_speech: 0.0,
        }
    }

    /// The first message.
    pub(crate) fn connected(&mut self) -> Value {
        let sequence = self.next_sequence();
        json!({"type": "Connected", "request_id": self.request_id, "sequence_id": sequence})
    }

    /// The messages for a tick of audio that ends at `now`.
    pub(crate) fn tick(&mut self, now: f64, heard: &[Heard], is_loud: bool) -> Vec<Value> {
        let mut messages = Vec::new();
        if is_loud {
            self.last_speech = now;
        }
        for heard in heard {
            self.hear(now, heard, &mut messages);
        }
        let timeout = f64::from(self.settings.eot_timeout_ms) / 1000.0;
        if self.phase != Phase::Idle && now - self.last_speech >= timeout - 1e-9 {
            messages.push(self.end(now, "timeout"));
        }
        if messages.is_empty() && now - self.last_sent >= UPDATE_SECONDS - 1e-9 {
            messages.push(self.turn_info(now, "Update", self.rest_confidence()));
        }
        messages
    }

    /// The messages for a control message of the client.
    pub(crate) fn control(&mut self, now: f64, message: &Value) -> FluxReply {
        match message["type"].as_str() {
            Some("ForceEndTurn") => FluxReply::Messages(match self.phase {
                Phase::Idle => Vec::new(),
                Phase::Turn | Phase::Eager => vec![self.end(now, "manual")],
            }),
            Some("Configure") => FluxReply::Messages(vec![self.configure(message)]),
            _ => FluxReply::Fatal(self.error(
                "UNPARSABLE_CLIENT_MESSAGE",
                "the message is none of Configure, ForceEndTurn and CloseStream",
            )),
        }
    }

    /// The last message: the turn is not ended by it.
    pub(crate) fn close(&mut self, now: f64) -> Vec<Value> {
        vec![self.turn_info(now, "Update", self.rest_confidence())]
    }

    /// An error, after which the connection is closed.
    pub(crate) fn error(&mut self, code: &str, description: &str) -> Value {
        let sequence = self.next_sequence();
        json!({"type": "Error", "sequence_id": sequence, "code": code, "description": description})
    }

    fn hear(&mut self, now: f64, heard: &Heard, messages: &mut Vec<Value>) {
        if heard.turn != self.heard_turn {
            self.heard_turn = heard.turn;
            self.taken = 0;
        }
        let words = heard.words.get(self.taken..).unwrap_or_default();
        let has_changed = words != self.words;
        if self.phase == Phase::Idle {
            if words.is_empty() && heard.kind != MomentKind::Start {
                return;
            }
            self.words = words.to_vec();
            self.phase = Phase::Turn;
            self.last_speech = now;
            messages.push(self.turn_info(now, "StartOfTurn", 0.02));
        } else if has_changed || heard.kind == MomentKind::Resume {
            self.words = words.to_vec();
            self.last_speech = now;
            if self.phase == Phase::Eager {
                self.phase = Phase::Turn;
                messages.push(self.turn_info(now, "TurnResumed", self.rest_confidence()));
            }
        }
        match heard.kind {
            MomentKind::Start | MomentKind::Update | MomentKind::Resume => {}
            MomentKind::Eager => self.likely_over(now, messages),
            // A threshold of 1 leaves the end to the client, or to the timeout.
            MomentKind::End if self.settings.eot_threshold >= 1.0 => {}
            MomentKind::End => {
                self.likely_over(now, messages);
                messages.push(self.end(now, "model"));
            }
        }
    }

    /// Says so, if the client wants to know and does not yet.
    fn likely_over(&mut self, now: f64, messages: &mut Vec<Value>) {
        let Some(threshold) = self.settings.eager_eot_threshold else { return };
        if self.phase == Phase::Turn && !self.words.is_empty() {
            self.phase = Phase::Eager;
            let confidence = (threshold + self.settings.eot_threshold) / 2.0;
            messages.push(self.turn_info(now, "EagerEndOfTurn", confidence));
        }
    }

    fn end(&mut self, now: f64, trigger: &str) -> Value {
        let confidence = match trigger {
            "model" => (1.0 + self.settings.eot_threshold) / 2.0,
            _ => self.rest_confidence(),
        };
        let mut message = self.turn_info(now, "EndOfTurn", confidence);
        message["trigger"] = trigger.into();
        self.phase = Phase::Idle;
        self.taken += self.words.len();
        self.words.clear();
        self.turn_index += 1;
        self.window_start = now;
        message
    }

    fn turn_info(&mut self, now: f64, event: &str, confidence: f64) -> Value {
        self.last_sent = now;
        let words: Vec<Value> = self.words.iter().map(word).collect();
        let sequence = self.next_sequence();
        let mut message = json!({
            "type": "TurnInfo",
            "request_id": self.request_id,
            "sequence_id": sequence,
            "event": event,
            "turn_index": self.turn_index,
            "audio_window_start": rounded(self.window_start),
            "audio_window_end": rounded(now),
            "transcript": transcript(&self.words),
            "words": words,
            "end_of_turn_confidence": rounded(confidence),
        });
        if self.settings.is_multilingual() {
            message["languages"] = if self.words.is_empty() { json!([]) } else { json!(["en"]) };
            message["languages_hinted"] = json!(self.settings.language_hints);
        }
        message
    }

    fn configure(&mut self, message: &Value) -> Value {
        let mut settings = self.settings.clone();
        let is_valid = settings.configure(message).is_ok();
        let sequence = self.next_sequence();
        if !is_valid {
            return json!({
                "type": "ConfigureFailure", "request_id": self.request_id, "sequence_id": sequence,
            });
        }
        self.settings = settings;
        let mut thresholds = json!({
            "eot_threshold": self.settings.eot_threshold,
            "eot_timeout_ms": self.settings.eot_timeout_ms,
        });
        if let Some(eager) = self.settings.eager_eot_threshold {
            thresholds["eager_eot_threshold"] = eager.into();
        }
        let mut success = json!({
            "type": "ConfigureSuccess",
            "request_id": self.request_id,
            "thresholds": thresholds,
            "keyterms": self.settings.keyterms,
            "sequence_id": sequence,
        });
        if self.settings.is_multilingual() {
            success["language_hints"] = json!(self.settings.language_hints);
        }
        success
    }

    /// The confidence that the turn is over while nothing says so.
    fn rest_confidence(&self) -> f64 {
        if self.words.is_empty() { 0.0 } else { 0.1 }
    }

    fn next_sequence(&mut self) -> u32 {
        let sequence = self.sequence;
        self.sequence += 1;
        sequence
    }
}

fn word(word: &Word) -> Value {
    json!({
        "word": word.text,
        "confidence": rounded(word.confidence()),
        "start": rounded(word.start),
        "end": rounded(word.end),
    })
}
