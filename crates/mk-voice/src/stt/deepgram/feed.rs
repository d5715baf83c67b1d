//! What is to be sent next over a connection, and when. No I/O.

use std::time::Duration;

use tokio::time::Instant;

use super::Kind;
use super::clock::{Clock, samples};
use super::pace::Pace;
use super::supervisor::Ears;

/// Samples of a frame: 80 ms, which is what Flux wants.
pub(super) const FRAME: u64 = 1280;
const FRAME_TIME: Duration = Duration::from_millis(80);

/// An input that gives no audio for so long pauses.
const PAUSE: Duration = Duration::from_millis(500);

/// Nova is told so often that the connection is still needed while it gets no audio.
const KEEP_ALIVE: Duration = Duration::from_secs(4);

/// A connection that is not needed, and cannot be told so, is closed.
const IDLE: Duration = Duration::from_secs(5);

/// The server is asked so often whether it is there, and must have said something, if only that, within [`DEAD`].
const PING: Duration = Duration::from_secs(5);
const DEAD: Duration = Duration::from_secs(15);

/// Within a turn the server must say something about so much audio.
const STALLED: Duration = Duration::from_secs(10);

/// An answer to `Finalize` takes 0.35 s at most, mostly, and may not come at all.
const FINALIZED: Duration = Duration::from_millis(500);

/// Something to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// So many samples of the input, at least one.
    Audio(u64),
    /// A frame of silence that is not in the input.
    Silence,
    Finalize,
    KeepAlive,
    Ping,
    /// Nothing more: the input has ended.
    Finish,
    /// Nothing for now: the connection is not needed.
    Idle,
}

/// Something that must not last any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The server has not answered `Finalize`.
    Finalize,
    /// The server has not finished.
    Finish,
    /// Nothing has been heard of the server.
    Dead,
    /// The server takes audio and says nothing about it.
    Stalled,
}

/// What has been sent over a connection, and what has come back.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) clock: Clock,
    kind: Kind,
    pace: Pace,
    started: Instant,
    /// When audio, silence or a message was sent last.
    sent_at: Instant,
    pinged_at: Instant,
    heard_at: Instant,
    /// Samples that had been sent when the server said something last.
    answered: u64,
    finalize_by: Option<Instant>,
    finish_by: Option<Instant>,
}

impl Feed {
    pub(super) fn new(kind: Kind, clock: Clock, now: Instant) -> Self {
        Self {
            clock,
            kind,
            pace: Pace::new(now),
            started: now,
            sent_at: now,
            pinged_at: now,
            heard_at: now,
            answered: 0,
            finalize_by: None,
            finish_by: None,
        }
    }

    /// What is to be sent next, and when.
    pub(super) fn next(&self, now: Instant, ears: &Ears, in_turn: bool) -> (Instant, Step) {
        let (due, step) = self.next_but_pings(now, ears, in_turn);
        let ping = self.pinged_at + PING;
        if ping < due { (ping, Step::Ping) } else { (due, step) }
    }

    fn next_but_pings(&self, now: Instant, ears: &Ears, in_turn: bool) -> (Instant, Step) {
        let cursor = self.clock.cursor();
        let mark = ears.marks.front().copied().filter(|&mark| mark <= ears.kept.end());
        if mark.is_some_and(|mark| mark <= cursor) {
            return (now, Step::Finalize);
        }
        let waiting = mark.unwrap_or(ears.kept.end()).saturating_sub(cursor);
        if waiting == 0 && !ears.open {
            return (now, Step::Finish);
        }
        let pauses = ears.audio_at + PAUSE;
        if waiting > 0 {
            // Less than a frame waits for more, unless nothing more belongs to it.
            let whole = waiting >= FRAME || mark.is_some() || !ears.open;
            let due = if whole { self.pace.ready() } else { self.pace.ready().max(pauses) };
            return (due, Step::Audio(waiting.min(FRAME)));
        }
        if in_turn {
            return (pauses.max(self.sent_at + FRAME_TIME), Step::Silence);
        }
        // `KeepAlive` keeps no connection that has not been fed.
        if self.kind == Kind::Nova && self.clock.total() > 0 {
            return (self.sent_at + KEEP_ALIVE, Step::KeepAlive);
        }
        (ears.audio_at.max(self.started).max(self.sent_at) + IDLE, Step::Idle)
    }

    /// `step` is sent `now`.
    pub(super) fn sent(&mut self, now: Instant, step: Step) {
        match step {
            Step::Audio(count) => {
                self.clock.sent(count);
                self.pace.sent(now, count);
            }
            Step::Silence => {
                self.clock.filled(FRAME);
                self.pace.sent(now, FRAME);
            }
            Step::Finalize => self.finalize_by = Some(now + FINALIZED),
            Step::Ping => {
                self.pinged_at = now;
                return;
            }
            Step::KeepAlive | Step::Finish | Step::Idle => {}
        }
        self.sent_at = now;
    }

    /// The server has to be finished within `limit`.
    pub(super) fn finish_within(&mut self, now: Instant, limit: Duration) {
        self.finish_by = Some(now + limit);
    }

    /// Something came from the server `now`; with `answers` it was about what it heard.
    pub(super) fn heard(&mut self, now: Instant, answers: bool) {
        self.heard_at = now;
        if answers {
            self.answered = self.clock.total();
        }
    }

    /// `Finalize` has been answered, or the answer is waited for no longer.
    pub(super) fn finalized(&mut self) {
        self.finalize_by = None;
    }

    /// What will have lasted too long first, and when.
    pub(super) fn deadline(&self, now: Instant, in_turn: bool) -> (Instant, Overdue) {
        if in_turn && self.clock.total() - self.answered >= samples(STALLED) {
            return (now, Overdue::Stalled);
        }
        let mut first = (self.heard_at + DEAD, Overdue::Dead);
        for (due, overdue) in
            [(self.finalize_by, Overdue::Finalize), (self.finish_by, Overdue::Finish)]
        {
            if let Some(due) = due.filter(|&due| due < first.0) {
                first = (due, overdue);
            }
        }
        first
    }
}
