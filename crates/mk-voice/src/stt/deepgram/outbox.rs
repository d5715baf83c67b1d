//! Events that are on their way to the caller.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::stt::SttEvent;

/// Events that may wait here before the connection is read no further. One message makes a few at most, so there is
/// always room for what must be said.
const ROOM: usize = 32;

/// The caller has dropped the stream.
#[derive(Debug)]
pub(super) struct Gone;

/// Events in order, for a caller who may be slow: while he is, partial texts replace each other.
#[derive(Debug)]
pub(super) struct Outbox {
    waiting: VecDeque<SttEvent>,
    caller: mpsc::Sender<SttEvent>,
}

impl Outbox {
    pub(super) fn new(caller: mpsc::Sender<SttEvent>) -> Self {
        Self { waiting: VecDeque::new(), caller }
    }

    pub(super) fn push(&mut self, event: SttEvent) {
        if matches!(
            (self.waiting.back(), &event),
            (Some(SttEvent::Partial { .. }), SttEvent::Partial { .. })
        ) {
            self.waiting.pop_back();
        }
        self.waiting.push_back(event);
    }

    /// Whether there should be more events.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < ROOM
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Hands over one event; waits for ever where there is none, or until the caller has gone. May be dropped at any
    /// time: nothing is lost.
    pub(super) async fn deliver(&mut self) -> Result<(), Gone> {
        if self.waiting.is_empty() {
            self.caller.closed().await;
            return Err(Gone);
        }
        let room = self.caller.reserve().await.map_err(|_| Gone)?;
        if let Some(event) = self.waiting.pop_front() {
            room.send(event);
        }
        Ok(())
    }
}
