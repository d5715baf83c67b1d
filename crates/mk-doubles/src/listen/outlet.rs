//! The messages of a session on their way out, and the faults that meet them there.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::SinkExt;
use futures_util::stream::SplitSink;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::fault::FaultKind;
use crate::record::{ListenEnd, ListenEntry};
use crate::wire::Link;

/// Messages that a stalled session holds back; more are lost.
const HELD: usize = 1024;

/// Sends a session's messages.
#[derive(Debug)]
pub(crate) struct Outlet {
    sink: SplitSink<WebSocket, Message>,
    link: Arc<Link>,
    sent: u64,
    /// Faults that wait, with how many messages had been sent when they came.
    faults: Vec<(u64, FaultKind)>,
    stalled: Option<Stalled>,
    /// How long a session may be without audio, where a fault says so.
    pub(crate) idle: Option<Duration>,
    shutdown: CancellationToken,
}

#[derive(Debug)]
struct Stalled {
    until: Option<Instant>,
    held: Vec<Value>,
}

/// Why a session cannot go on as it was.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It is over.
    End(ListenEnd),
    /// A fault closes the websocket.
    Close(u16, String),
    /// A fault reports an error of this code.
    Error(Option<String>),
}

impl Outlet {
    pub(crate) fn new(
        sink: SplitSink<WebSocket, Message>,
        link: Arc<Link>,
        shutdown: CancellationToken,
    ) -> Self {
        let (faults, stalled, idle) = (Vec::new(), None, None);
        Self { sink, link, sent: 0, faults, stalled, idle, shutdown }
    }

    /// Sends a message, and then looks at the faults that are due.
    pub(crate) async fn send(&mut self, message: Value, entry: &ListenEntry) -> Result<(), Stop> {
        if let Some(stalled) = &mut self.stalled {
            if stalled.until.is_some() && stalled.held.len() < HELD {
                stalled.held.push(message);
            }
            return Ok(());
        }
        let mut text = message.to_string();
        if self.take_due(|kind| matches!(kind, FaultKind::Malformed { .. })).is_some() {
            let mut half = text.len() / 2;
            while !text.is_char_boundary(half) {
                half -= 1;
            }
            text.truncate(half);
        }
        self.write(Message::Text(text.into())).await?;
        self.sent += 1;
        entry.update(|record| record.sent += 1);
        // A fault after so many messages does not wait for the next one.
        self.check()
    }

    /// Looks at the faults that are due now.
    pub(crate) fn check(&mut self) -> Result<(), Stop> {
        for fault in self.link.take_events() {
            match fault {
                FaultKind::IdleClose { after_ms } => {
                    self.idle = Some(Duration::from_millis(after_ms));
                }
                other => self.faults.push((self.sent, other)),
            }
        }
        let is_stall = |kind: &FaultKind| matches!(kind, FaultKind::Stall { .. });
        if let Some(FaultKind::Stall { for_ms, .. }) = self.take_due(is_stall) {
            let until = for_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
            self.stalled.get_or_insert(Stalled { until, held: Vec::new() });
        }
        match self
            .take_due(|kind| matches!(kind, FaultKind::Close { .. } | FaultKind::Error { .. }))
        {
            Some(FaultKind::Close { code, reason, .. }) => Err(Stop::Close(code, reason)),
            Some(FaultKind::Error { code, .. }) => Err(Stop::Error(code)),
            _ => Ok(()),
        }
    }

    /// When a stall ends, if it does.
    pub(crate) fn release_at(&self) -> Option<Instant> {
        self.stalled.as_ref()?.until
    }

    /// Ends a stall, and gives what it held back.
    pub(crate) fn release(&mut self) -> Vec<Value> {
        self.stalled.take().map(|stalled| stalled.held).unwrap_or_default()
    }

    /// Sends a close frame, without a code where there is none.
    pub(crate) async fn close(&mut self, code: Option<(u16, &str)>) -> Result<(), Stop> {
        let frame = code.map(|(code, reason)| CloseFrame { code, reason: reason.into() });
        self.write(Message::Close(frame)).await
    }

    async fn write(&mut self, message: Message) -> Result<(), Stop> {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Err(Stop::End(ListenEnd::Shutdown)),
            sent = self.sink.send(message) => sent.map_err(|_| Stop::End(ListenEnd::ClientGone)),
        }
    }

    /// Takes the first fault of a kind that is due.
    fn take_due(&mut self, is_kind: impl Fn(&FaultKind) -> bool) -> Option<FaultKind> {
        let due = |(since, kind): &(u64, FaultKind)| {
            is_kind(kind) && self.sent - since >= kind.after_events().unwrap_or(0)
        };
        let index = self.faults.iter().position(due)?;
        Some(self.faults.remove(index).1)
    }
}
