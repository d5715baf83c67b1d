//! The turns of Nova: from its results to what a conversation is told. No I/O, no clock but that of the audio.
//!
//! A turn begins with its first word. Its text is that of all results that will not change any more, and of the one that
//! may. It ends with the answer to a `Finalize` (or when that does not come), with a result that says that speech ended,
//! or where no words came for long; what comes later of the same kind finds no turn open, and means nothing.
//!
//! **When a connection is lost in the middle of a turn**, the turn stays open, and what was final stays as it is. The next
//! connection hears the audio behind it. Until it has heard as much as the lost one had, its partial texts, being
//! shorter than what was already shown, are not passed on. If it finds no words there, the turn ends with the text it
//! had.

use std::time::Duration;

use super::clock::{Clock, duration, samples};
use super::messages::Results;
use super::words::{self, Word, joined};
use crate::stt::SttEvent;

/// Audio before the first word that may change that is heard again to be safe.
const MARGIN: Duration = Duration::from_millis(500);

/// Audio within which words appear: what is behind it has been heard for sure.
const LAG: Duration = Duration::from_secs(1);

/// Audio after which a turn that the next connection does not find is over.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is known of the conversation, over all connections. Positions are those of the input, in samples.
#[derive(Debug, Default)]
pub(super) struct Nova {
    turn: Option<Turn>,
    /// Up to where the present connection, or the last one, has listened.
    heard: u64,
    /// Words before it are final, or belong to turns that are over.
    done: u64,
    /// Where `Finalize` was sent, until it is answered.
    finalizing: Option<u64>,
}

/// The turn that is open.
#[derive(Debug, Default)]
struct Turn {
    /// What will not change any more.
    finals: String,
    /// What may.
    interim: String,
    /// Its words; empty where there are no times.
    words: Vec<Word>,
    /// Where the first word began, and the last word ended.
    span: Option<(u64, u64)>,
    /// What has been passed on.
    shown: String,
    /// Set while this connection hears again what a lost one heard.
    again: Option<Again>,
}

/// A turn that is heard again.
#[derive(Debug)]
struct Again {
    /// Where the lost connection was.
    until: u64,
    /// When so many samples were sent on this connection, words should have been found.
    patience: u64,
    /// Whether they were.
    found: bool,
    /// The text as it was.
    known: String,
}

impl Nova {
    pub(super) fn in_turn(&self) -> bool {
        self.turn.is_some()
    }

    /// From where the next connection should hear the input.
    pub(super) fn replay_from(&self) -> u64 {
        match &self.turn {
            Some(turn) => match turn.words.first() {
                Some(word) => self.done.max(word.start.saturating_sub(samples(MARGIN))),
                None => self.done,
            },
            None => self.done.max(self.heard.saturating_sub(samples(LAG))),
        }
    }

    /// There is a connection, which will hear the input from `position` on.
    pub(super) fn connected(&mut self, position: u64) {
        let heard = std::mem::replace(&mut self.heard, position);
        self.finalizing = None;
        let Some(turn) = &mut self.turn else { return };
        // Of what may change, what cannot be heard again stays; without times, all of it.
        let gone = if turn.words.is_empty() {
            if self.done < position { std::mem::take(&mut turn.interim) } else { String::new() }
        } else {
            let count = turn.words.iter().take_while(|word| word.middle() < position).count();
            let rest = turn.words.split_off(count);
            let gone = words::text(&std::mem::replace(&mut turn.words, rest));
            turn.interim = words::text(&turn.words);
            gone
        };
        turn.finals = joined(&turn.finals, &gone);
        self.done = self.done.max(position);
        let (until, known) = match turn.again.take() {
            Some(again) => (again.until.max(heard), again.known),
            None => (heard, turn.text()),
        };
        let until = until.max(position);
        let patience = until - position + samples(PATIENCE);
        turn.again = Some(Again { until, patience, found: false, known });
    }

    /// So many samples have been sent on this connection.
    pub(super) fn sent(&mut self, total: u64, events: &mut Vec<SttEvent>) {
        let again = self.turn.as_ref().and_then(|turn| turn.again.as_ref());
        if again.is_some_and(|again| !again.found && total >= again.patience) {
            self.cut_short(events);
        }
    }

    /// `Finalize` was sent when the input had been sent up to `position`.
    pub(super) fn finalize_sent(&mut self, position: u64) {
        self.finalizing = Some(position);
    }

    /// Where a `Finalize` was sent that has not been answered.
    pub(super) fn finalizing(&self) -> Option<u64> {
        self.finalizing
    }

    /// `Finalize` will not be answered any more.
    pub(super) fn finalize_unanswered(&mut self, events: &mut Vec<SttEvent>) {
        if self.finalizing.take().is_some() {
            self.cut_short(events);
        }
    }

    /// The server has read the input up to `position`. It would have said if a turn had begun there long ago.
    pub(super) fn read_to(&mut self, position: u64) {
        if self.turn.is_none() {
            self.heard = self.heard.max(position.saturating_sub(samples(LAG)));
        }
    }

    /// Ends the turn that is open with what is known of it.
    pub(super) fn cut_short(&mut self, events: &mut Vec<SttEvent>) {
        let Some(mut turn) = self.turn.take() else { return };
        if let Some(again) = turn.again.take() {
            turn.finals = again.known;
            turn.interim.clear();
            self.done = self.done.max(again.until);
        }
        self.end(turn, events);
    }

    /// Words of a stretch of audio.
    pub(super) fn hear(&mut self, results: Results, clock: &Clock, events: &mut Vec<SttEvent>) {
        let end = clock.position(results.start + results.duration);
        self.heard = self.heard.max(end);
        let was_open = self.turn.is_some();
        let (text, words) = self.news(&results, end, clock);
        if !text.is_empty() && !was_open {
            events.push(SttEvent::TurnStarted);
            self.turn = Some(Turn::default());
        }
        if let Some(turn) = &mut self.turn {
            if let Some(again) = &mut turn.again {
                again.found |= !text.is_empty();
            }
            turn.take(text, words, results.is_final);
            turn.show(self.heard, events);
        }
        if results.is_final {
            self.done = self.done.max(end);
        }
        let finalized = results.from_finalize && (self.finalizing.is_some() || !was_open);
        if results.speech_final || finalized {
            self.finish(events);
        }
        if results.from_finalize {
            self.finalizing = None;
        }
    }

    /// No words came for long, since `last_word_end` in seconds of what was sent.
    pub(super) fn utterance_end(
        &mut self,
        last_word_end: Option<f64>,
        clock: &Clock,
        events: &mut Vec<SttEvent>,
    ) {
        let began = self.turn.as_ref().and_then(|turn| turn.span).map(|(start, _)| start);
        // Said of a turn that is over, while the next one has begun.
        let other =
            last_word_end.zip(began).is_some_and(|(end, began)| clock.position(end) <= began);
        if !other {
            self.finish(events);
        }
    }

    /// What of the results is not done yet.
    fn news(&self, results: &Results, end: u64, clock: &Clock) -> (String, Vec<Word>) {
        let Some(best) = results.channel.alternatives.first() else { return Default::default() };
        let transcript = best.transcript.trim();
        let mut words = words::timed(&best.words, transcript, clock);
        if words.is_empty() {
            let news = if end > self.done { transcript.to_owned() } else { String::new() };
            return (news, words);
        }
        let count = words.len();
        words.retain(|word| word.middle() >= self.done);
        let text = if words.len() == count { transcript.to_owned() } else { words::text(&words) };
        (text, words)
    }

    /// The turn is over, if there is one.
    fn finish(&mut self, events: &mut Vec<SttEvent>) {
        match self.turn.take() {
            // This connection has not found it: all that is known is from the lost one.
            Some(turn) if turn.again.as_ref().is_some_and(|again| !again.found) => {
                self.turn = Some(turn);
                self.cut_short(events);
            }
            Some(turn) => self.end(turn, events),
            None => {}
        }
    }

    fn end(&mut self, turn: Turn, events: &mut Vec<SttEvent>) {
        let last = turn.span.map(|(_, end)| end);
        if !turn.interim.is_empty() {
            // The final words of this stretch are still to come, and belong to this turn, which has them.
            self.done = self.done.max(turn.words.last().map_or(self.heard, |word| word.end));
        }
        self.finalizing = None;
        events.push(SttEvent::TurnEnded { text: turn.text(), speech_end: last.map(duration) });
    }
}

impl Turn {
    fn text(&self) -> String {
        joined(&self.finals, &self.interim)
    }

    fn take(&mut self, text: String, words: Vec<Word>, is_final: bool) {
        if let (Some(first), Some(last)) = (words.first(), words.last()) {
            let (start, end) = self.span.unwrap_or((first.start, last.end));
            self.span = Some((start, end.max(last.end)));
        }
        if is_final {
            self.finals = joined(&self.finals, &text);
            self.interim.clear();
            self.words.clear();
        } else {
            self.interim = text;
            self.words = words;
        }
    }

    /// Passes on the text, if it is another.
    fn show(&mut self, heard: u64, events: &mut Vec<SttEvent>) {
        if self.again.as_ref().is_some_and(|again| heard < again.until) {
            return;
        }
        if self.again.as_ref().is_some_and(|again| again.found) {
            self.again = None;
        }
        let text = self.text();
        if self.again.is_none() && self.shown != text {
            self.shown = text.clone();
            events.push(SttEvent::Partial { text });
        }
    }
}
