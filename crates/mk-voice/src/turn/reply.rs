//! One answer: what is written of it, what is spoken, and which of it was heard.

use std::collections::VecDeque;
use std::time::Duration;

use super::context::Part;
use super::event::{Action, MAX_PIECES};
use super::options::TurnOptions;
use super::stamps::Stamps;
use crate::llm::{ToolCall, Usage};
use crate::protocol::AudioFrame;
use crate::text::{Piece, Speaker, cut_at_word};
use crate::tts::Mark;

/// Bytes of text in one utterance, after which the next piece begins another even within a sentence.
const UTTERANCE_BYTES: usize = 600;

/// One answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub epoch: u32,
    pub turn: u32,
    /// What it answers.
    pub user: String,
    /// All that is written, as it was written.
    pub text: String,
    /// Tools called, and the bytes of `text` before.
    pub calls: Vec<Called>,
    /// The request that is being answered.
    pub generation: Option<u32>,
    /// Requests so far.
    pub requests: u32,
    /// When the model last gave a sign.
    pub thought: Duration,
    /// Begun before it was certain that the user had ended: nothing may be heard yet.
    pub speculative: bool,
    /// Until when it is held for words of the user.
    pub hold: Option<Duration>,
    pub stamps: Stamps,
    pub failed: bool,
    pub underruns: u32,
    pub usage: Usage,
    /// Samples that the client played.
    pub played: u64,
    /// When the client must have played all there is.
    pub play_deadline: Option<Duration>,
    /// Whether the client was told that there is no more.
    pub end_told: bool,
    speaker: Speaker,
    /// Bytes of `text` before what `speaker` was given.
    speaker_base: usize,
    text_done: bool,
    waiting: VecDeque<Placed>,
    utterances: Vec<Utterance>,
    /// Frames that may not be heard yet.
    gated: Vec<AudioFrame>,
    samples: u64,
}

/// A call of a tool, and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Called {
    pub call: ToolCall,
    /// Number of the answer's request that made it.
    pub request: u32,
    /// Bytes of the text before.
    pub at: usize,
    /// Whether it was handed out to be run.
    pub started: Option<Duration>,
    pub result: Option<String>,
}

/// A piece, and the bytes of the reply before the text that its places count from.
#[derive(Debug)]
struct Placed {
    piece: Piece,
    base: usize,
}

/// A sentence that is being spoken, or was.
#[derive(Debug)]
struct Utterance {
    first_sample: u64,
    samples: u64,
    marks: Vec<Mark>,
    pieces: Vec<Placed>,
    bytes: usize,
    text_complete: bool,
    ended: bool,
    /// When something last happened to it.
    active: Duration,
}

impl Reply {
    pub fn new(epoch: u32, turn: u32, user: &str, stamps: Stamps, options: &TurnOptions) -> Self {
        Self {
            epoch,
            turn,
            user: user.into(),
            text: String::new(),
            calls: Vec::new(),
            generation: None,
            requests: 0,
            thought: Duration::ZERO,
            speculative: false,
            hold: None,
            stamps,
            failed: false,
            underruns: 0,
            usage: Usage::default(),
            played: 0,
            play_deadline: None,
            end_told: false,
            speaker: Speaker::new(options.language, options.chunks.clone()),
            speaker_base: 0,
            text_done: false,
            waiting: VecDeque::new(),
            utterances: Vec::new(),
            gated: Vec::new(),
            samples: 0,
        }
    }

    /// More text was written.
    pub fn write(&mut self, text: &str, now: Duration, actions: &mut Vec<Action>) {
        self.text.push_str(text);
        let pieces = self.speaker.push(text);
        self.say(pieces, now, actions);
    }

    /// What was written so far is all of one request's text.
    pub fn end_passage(&mut self, options: &TurnOptions, now: Duration, actions: &mut Vec<Action>) {
        let fresh = Speaker::new(options.language, options.chunks.clone());
        let pieces = std::mem::replace(&mut self.speaker, fresh).finish();
        self.say(pieces, now, actions);
        if self.waiting.is_empty() {
            self.complete_text(actions);
        }
        self.speaker_base = self.text.len();
    }

    /// There will be no more text.
    pub fn end_text(&mut self) {
        self.text_done = true;
        self.generation = None;
    }

    fn say(&mut self, pieces: Vec<Piece>, now: Duration, actions: &mut Vec<Action>) {
        if pieces.iter().any(|piece| !piece.spoken.trim().is_empty()) {
            self.stamps.first_clause.get_or_insert(now);
        }
        let base = self.speaker_base;
        self.waiting.extend(pieces.into_iter().map(|piece| Placed { piece, base }));
        self.fill(now, actions);
    }

    /// Gives the utterance that is open what waits for it.
    fn fill(&mut self, now: Duration, actions: &mut Vec<Action>) {
        while let Some(open) = self.utterances.last_mut().filter(|u| !u.text_complete) {
            let Some(placed) = self.waiting.pop_front() else { return };
            open.active = now;
            let last = placed.piece.sentence_end;
            open.bytes += placed.piece.spoken.len();
            if !placed.piece.spoken.is_empty() {
                actions.push(Action::SpeakText(placed.piece.spoken.clone()));
            }
            open.pieces.push(placed);
            if last || open.pieces.len() == MAX_PIECES || open.bytes >= UTTERANCE_BYTES {
                self.complete_text(actions);
            }
        }
    }

    fn complete_text(&mut self, actions: &mut Vec<Action>) {
        if let Some(open) = self.utterances.last_mut().filter(|u| !u.text_complete) {
            open.text_complete = true;
            actions.push(Action::SpeakEnd);
        }
    }

    /// Begins the next utterance where there is text for it, and not too much audio already.
    pub fn advance(&mut self, ahead: u64, now: Duration, actions: &mut Vec<Action>) {
        if self.utterances.last().is_some_and(|utterance| !utterance.ended) {
            return;
        }
        // Nothing to be heard, as an image or the end of a line: no utterance of its own.
        while self.waiting.front().is_some_and(|p| p.piece.spoken.trim().is_empty()) {
            self.waiting.pop_front();
        }
        if self.waiting.is_empty() || self.samples - self.played > ahead {
            return;
        }
        actions.push(Action::Speak { epoch: self.epoch, utterance: self.utterances.len() });
        self.utterances.push(Utterance {
            first_sample: self.samples,
            samples: 0,
            marks: Vec::new(),
            pieces: Vec::new(),
            bytes: 0,
            text_complete: false,
            ended: false,
            active: now,
        });
        self.fill(now, actions);
        if self.text_done && self.waiting.is_empty() {
            self.complete_text(actions);
        }
    }

    /// Samples of an utterance were made. Whether they are the first of the answer.
    pub fn audio(
        &mut self,
        utterance: usize,
        samples: Vec<i16>,
        mark: Mark,
        now: Duration,
        actions: &mut Vec<Action>,
    ) -> bool {
        let Some(current) = self.current(utterance) else { return false };
        current.active = now;
        current.samples += samples.len() as u64;
        current.marks.push(mark);
        self.stamps.first_audio.get_or_insert(now);
        let frame = AudioFrame { epoch: self.epoch, first_sample: self.samples, samples };
        let first = self.samples == 0;
        self.samples += frame.samples.len() as u64;
        if self.speculative {
            self.gated.push(frame);
        } else {
            actions.push(Action::Play(frame));
        }
        first
    }

    /// An utterance is spoken.
    pub fn utterance_ended(&mut self, utterance: usize, marks: Vec<Mark>) {
        let Some(current) = self.current(utterance) else { return };
        current.ended = true;
        current.text_complete = true;
        if !marks.is_empty() {
            current.marks = marks;
        }
        let (sample, byte) = (current.samples, current.bytes);
        current.marks.push(Mark { sample, byte });
    }

    /// Nothing more can be spoken: what is made is all.
    pub fn end_speech(&mut self) {
        self.waiting.clear();
        if let Some(last) = self.utterances.last_mut() {
            last.ended = true;
            last.text_complete = true;
        }
        self.end_text();
    }

    fn current(&mut self, utterance: usize) -> Option<&mut Utterance> {
        let last = self.utterances.len().checked_sub(1)?;
        self.utterances.last_mut().filter(|u| utterance == last && !u.ended)
    }

    /// It is certain that the user had ended: what is made may be heard.
    pub fn confirm(&mut self, actions: &mut Vec<Action>) {
        self.speculative = false;
        actions.extend(self.gated.drain(..).map(Action::Play));
    }

    /// Samples made.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Whether anything of it went to the client.
    pub fn is_audible(&self) -> bool {
        !self.speculative && self.samples > 0
    }

    /// Whether utterances were begun.
    pub fn is_spoken(&self) -> bool {
        !self.utterances.is_empty()
    }

    /// Whether all of it is made.
    pub fn is_complete(&self) -> bool {
        self.text_done
            && self.waiting.is_empty()
            && self.utterances.last().is_none_or(|utterance| utterance.ended)
    }

    /// Since when the voice has not given what it could give.
    pub fn voice_waits(&self) -> Option<Duration> {
        self.utterances.last().filter(|u| u.text_complete && !u.ended).map(|u| u.active)
    }

    /// Tools that were handed out and have not returned, and since when.
    pub fn tools_running(&self) -> Option<Duration> {
        let running = self.calls.iter().filter(|called| called.result.is_none());
        running.filter_map(|called| called.started).min()
    }

    /// Bytes of the text that have been heard when the client has played so many samples.
    pub fn heard(&self, played: u64) -> usize {
        if self.is_complete() && played >= self.samples && !self.failed {
            return self.text.len();
        }
        let begun = self.utterances.iter().take_while(|u| u.first_sample < played);
        begun.map(|u| u.heard(played - u.first_sample)).max().unwrap_or(0)
    }

    /// What was heard, whole words of it, and the tools that were called on the way.
    pub fn parts(&self, heard: usize) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        let text =
            if heard >= self.text.len() { &self.text } else { cut_at_word(&self.text, heard) };
        let (mut from, mut request) = (0, 0);
        for called in self.calls.iter().filter(|called| called.started.is_some()) {
            let entry = (called.call.clone(), called.result.clone());
            match parts.last_mut() {
                Some(part) if called.request == request => part.calls.push(entry),
                _ => {
                    let text = text.get(from..called.at.min(text.len())).unwrap_or_default();
                    parts.push(Part { text: text.trim().into(), calls: vec![entry] });
                    (from, request) = (called.at, called.request);
                }
            }
        }
        let rest = text.get(from..).unwrap_or_default().trim();
        parts.push(Part { text: rest.into(), calls: Vec::new() });
        parts
    }
}

impl Utterance {
    /// Bytes of the reply that are heard with `at` samples of the utterance.
    fn heard(&self, at: u64) -> usize {
        let byte = self.byte(at);
        let mut start = 0;
        let mut heard = 0;
        for Placed { piece, base } in &self.pieces {
            let end = start + piece.spoken.len();
            if byte >= end {
                heard = base + piece.origin.end();
            } else if byte > start {
                heard = base + piece.origin.reply_at(byte - start);
            }
            start = end;
        }
        heard
    }

    /// Bytes of the spoken text after `at` samples: between two marks in proportion.
    fn byte(&self, at: u64) -> usize {
        let after = self.marks.partition_point(|mark| mark.sample <= at);
        let before = after.checked_sub(1).map_or(Mark::default(), |i| self.marks[i]);
        let Some(next) = self.marks.get(after) else { return before.byte };
        let (samples, bytes) = (next.sample - before.sample, next.byte.saturating_sub(before.byte));
        before.byte + ((at - before.sample) as f64 / samples as f64 * bytes as f64) as usize
    }
}
