//! The turns of Flux: from its messages to what a conversation is told. No I/O, no clock but that of the audio.
//!
//! **When a connection is lost in the middle of a turn**, the turn stays open. The next connection hears it from its
//! beginning, and what it makes of it replaces what was known, so nothing is said twice. Words that ended before the
//! audio which is still kept stay, as the beginning of the turn's text, so nothing is lost. Until the new connection has
//! heard as much as the lost one had, its partial texts, being shorter than what was already shown, are not passed on. If
//! it finds no turn there at all, the turn ends with the text it had.

use std::time::Duration;

use tracing::warn;

use super::clock::{Clock, duration, samples};
use super::messages::{TurnEvent, TurnInfo};
use super::patience::Patience;
use super::words::{self, Word, joined};
use crate::stt::SttEvent;

/// Audio before what is known to be the beginning, or the end, of what was heard, that is heard again to be safe.
const MARGIN: Duration = Duration::from_millis(500);

/// Audio within which Flux says that a turn began: what is behind it has been heard for sure.
const LAG: Duration = Duration::from_secs(1);

/// What is known of the conversation, over all connections. Positions are those of the input, in samples.
#[derive(Debug, Default)]
pub(super) struct Flux {
    turn: Option<Turn>,
    /// Up to where the present connection, or the last one, has listened.
    heard: u64,
    /// Where the last turn ended, or its words, if it was cut short; nothing before is heard again.
    ended: u64,
    /// `turn_index` of the last turn that ended on this connection.
    ended_index: Option<u64>,
    /// `sequence_id` of the last message on this connection.
    sequence: Option<u64>,
}

/// The turn that is open.
#[derive(Debug)]
struct Turn {
    /// Where its audio begins, to be safe.
    start: u64,
    /// What lost connections heard of it and the present one cannot hear.
    before: String,
    /// What was heard of the rest.
    heard: Heard,
    /// Set while this connection hears again what a lost one heard.
    again: Option<Again>,
    /// What has been passed on.
    shown: String,
    /// `LikelyEnd` has been said with `shown`, and neither `Resumed` nor `TurnEnded` since.
    likely: bool,
}

#[derive(Debug, Default)]
struct Heard {
    text: String,
    /// Empty where there are no times.
    words: Vec<Word>,
}

/// A turn that is heard again.
#[derive(Debug)]
struct Again {
    patience: Patience,
    /// What this connection has heard of it, once it has found it.
    heard: Option<Heard>,
}

impl Flux {
    pub(super) fn in_turn(&self) -> bool {
        self.turn.is_some()
    }

    /// From where the next connection should hear the input.
    pub(super) fn replay_from(&self) -> u64 {
        match &self.turn {
            Some(turn) => turn.start,
            None => self.ended.max(self.heard.saturating_sub(samples(LAG))),
        }
    }

    /// The connection is lost.
    pub(super) fn lost(&mut self, events: &mut Vec<SttEvent>) {
        if let Some(turn) = &mut self.turn {
            turn.resume(events);
        }
    }

    /// There is a connection, which will hear the input from `position` on.
    pub(super) fn connected(&mut self, position: u64) {
        (self.ended_index, self.sequence) = (None, None);
        let heard = std::mem::replace(&mut self.heard, position);
        let Some(turn) = &mut self.turn else { return };
        // Of a turn that is not heard from its beginning, what had ended stays; without times, all of it.
        if turn.start < position {
            let Heard { text, mut words } = std::mem::take(&mut turn.heard);
            let gone = if words.is_empty() {
                text
            } else {
                let gone = words.iter().take_while(|word| word.middle() < position).count();
                turn.heard.words = words.split_off(gone);
                turn.heard.text = words::text(&turn.heard.words);
                words::text(&words)
            };
            turn.before = joined(&turn.before, &gone);
            turn.start = position;
        }
        let last = turn.again.take().map(|again| again.patience);
        let patience = Patience::new(last, heard, position);
        turn.again = Some(Again { patience, heard: None });
    }

    /// The number of a message.
    pub(super) fn number(&mut self, sequence: Option<u64>) {
        if let (Some(last), Some(now)) = (self.sequence, sequence)
            && now != last.wrapping_add(1)
        {
            warn!(last, now, "messages of Flux are missing or out of order");
        }
        self.sequence = sequence.or(self.sequence);
    }

    /// So many samples have been sent on this connection.
    pub(super) fn sent(&mut self, total: u64, events: &mut Vec<SttEvent>) {
        let Some(again) = self.turn.as_mut().and_then(|turn| turn.again.as_mut()) else { return };
        again.patience.sent(total);
        if again.heard.is_none() && again.patience.is_over() {
            let until = again.patience.until();
            self.cut_short(events);
            self.ended = self.ended.max(until);
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
        if let Some(turn) = self.turn.take() {
            self.end(turn, events);
        }
    }

    /// What Flux makes of what it heard.
    pub(super) fn hear(&mut self, info: TurnInfo, clock: &Clock, events: &mut Vec<SttEvent>) {
        if info.turn_index.is_some() && info.turn_index == self.ended_index {
            return;
        }
        let before = self.heard;
        let now = info.audio_window_end.map_or(before, |end| clock.position(end));
        self.heard = before.max(now);
        let text = info.transcript.trim();
        let there = match info.event {
            // The latter two say that a turn is there, whether or not its beginning was said.
            TurnEvent::StartOfTurn | TurnEvent::EagerEndOfTurn | TurnEvent::EndOfTurn => true,
            TurnEvent::Update | TurnEvent::TurnResumed => !text.is_empty() || self.found(),
            TurnEvent::Other => false,
        };
        if !there {
            return;
        }
        let words = words::timed(&info.words, text, clock);
        let mut turn = self.turn.take().unwrap_or_else(|| {
            events.push(SttEvent::TurnStarted);
            let start = match words.first() {
                Some(word) => word.start.saturating_sub(samples(MARGIN)),
                None => before.saturating_sub(samples(LAG)),
            };
            Turn::new(start.max(self.ended))
        });
        let heard = Heard { text: text.to_owned(), words };
        let ends = info.event == TurnEvent::EndOfTurn;
        match &mut turn.again {
            Some(again) if now < again.patience.until() && !ends => again.heard = Some(heard),
            _ => {
                turn.again = None;
                turn.heard = heard;
                turn.tell(info.event, events);
            }
        }
        if ends {
            self.ended_index = info.turn_index;
            self.end(turn, events);
            // A sound after the last word belongs to the turn as well: heard alone it would make another.
            self.ended = self.ended.max(now);
        } else {
            self.turn = Some(turn);
        }
    }

    /// Whether this connection has found the turn that is open.
    fn found(&self) -> bool {
        let again = self.turn.as_ref().map(|turn| &turn.again);
        again.is_some_and(|again| again.as_ref().is_none_or(|again| again.heard.is_some()))
    }

    fn end(&mut self, mut turn: Turn, events: &mut Vec<SttEvent>) {
        let text = turn.text();
        if turn.shown != text {
            turn.resume(events);
        }
        let last = turn.heard.words.last().map(|word| word.end);
        self.ended = self.ended.max(last.unwrap_or(self.heard));
        events.push(SttEvent::TurnEnded { text, speech_end: last.map(duration) });
    }
}

impl Turn {
    fn new(start: u64) -> Self {
        Self {
            start,
            before: String::new(),
            heard: Heard::default(),
            again: None,
            shown: String::new(),
            likely: false,
        }
    }

    fn text(&self) -> String {
        joined(&self.before, &self.heard.text)
    }

    /// Passes on what was heard, as far as it is news.
    fn tell(&mut self, event: TurnEvent, events: &mut Vec<SttEvent>) {
        let text = self.text();
        if event == TurnEvent::EndOfTurn
            || (self.likely && event != TurnEvent::TurnResumed && self.shown == text)
        {
            return;
        }
        self.resume(events);
        if event == TurnEvent::EagerEndOfTurn && !text.is_empty() {
            self.likely = true;
            events.push(SttEvent::LikelyEnd { text: text.clone() });
        } else if self.shown != text {
            events.push(SttEvent::Partial { text: text.clone() });
        }
        self.shown = text;
    }

    /// What was likely to be over is not.
    fn resume(&mut self, events: &mut Vec<SttEvent>) {
        if std::mem::take(&mut self.likely) {
            events.push(SttEvent::Resumed);
        }
    }
}
