//! Server-sent events, and the faults that meet them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use futures_util::Stream;
use tokio_util::sync::CancellationToken;

use crate::chat::errors::ApiError;
use crate::chat::reply::{Answer, Chunk};
use crate::doubles::App;
use crate::fault::FaultKind;
use crate::record::ChatEntry;
use crate::wire::Link;

/// The body of a streamed answer. Where it is dropped before its end, the client has hung up.
pub(crate) fn body(
    answer: Answer,
    app: App,
    link: Arc<Link>,
    entry: ChatEntry,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let events = Events {
        chunks: answer.chunks().into(),
        app,
        link,
        entry,
        faults: Vec::new(),
        sent: 0,
        state: State::Chunks,
    };
    futures_util::stream::unfold(events, |mut events| async move {
        let bytes = events.next().await?;
        Some((Ok(bytes), events))
    })
}

struct Events {
    chunks: VecDeque<Chunk>,
    app: App,
    link: Arc<Link>,
    entry: ChatEntry,
    /// Faults that wait, with how many events had been sent when they came.
    faults: Vec<(u64, FaultKind)>,
    sent: u64,
    state: State,
}

#[derive(PartialEq)]
enum State {
    Chunks,
    /// All of the answer was sent, or as much as a fault leaves of it.
    Ended,
}

impl Events {
    /// The next event's bytes, when it is due.
    async fn next(&mut self) -> Option<Bytes> {
        if self.state == State::Ended {
            return None;
        }
        let delay = self.chunks.front().map_or(Duration::ZERO, |chunk| chunk.delay);
        tokio::time::sleep(self.app.options.scaled(delay)).await;
        let mut is_malformed = false;
        while let Some(fault) = self.due() {
            match fault {
                FaultKind::Stall { for_ms, .. } => {
                    stall(for_ms, &self.app.shutdown).await;
                }
                FaultKind::Malformed { .. } => is_malformed = true,
                FaultKind::Error { code, .. } => {
                    let code = code.or_else(|| Some("server_error".into()));
                    self.end();
                    return Some(event(&ApiError::in_stream(code).to_string()));
                }
                // What a websocket is closed with.
                _ => {}
            }
        }
        self.sent += 1;
        let Some(chunk) = self.chunks.pop_front() else {
            self.end();
            return Some(event("[DONE]"));
        };
        if chunk.is_delta {
            self.entry.update(|record| record.deltas_sent += 1);
        }
        let mut text = chunk.value.to_string();
        if is_malformed {
            let mut half = text.len() / 2;
            while !text.is_char_boundary(half) {
                half -= 1;
            }
            text.truncate(half);
        }
        Some(event(&text))
    }

    /// Takes the first fault that is due.
    fn due(&mut self) -> Option<FaultKind> {
        let sent = self.sent;
        self.faults.extend(self.link.take_events().into_iter().map(|fault| (sent, fault)));
        let due = |(since, kind): &(u64, FaultKind)| {
            kind.after_events().is_some_and(|after| sent - since >= after)
        };
        let index = self.faults.iter().position(due)?;
        Some(self.faults.remove(index).1)
    }

    fn end(&mut self) {
        self.state = State::Ended;
        self.entry.update(|record| record.finished = true);
        let idle = self.faults.iter().find_map(|(_, kind)| match kind {
            FaultKind::IdleClose { after_ms } => Some(Duration::from_millis(*after_ms)),
            _ => None,
        });
        if let Some(limit) = idle {
            self.link.close_when_idle(limit);
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if self.state != State::Ended {
            self.entry.update(|record| record.hung_up = true);
        }
    }
}

/// Closes a connection that a fault wants closed when it is idle.
pub(crate) fn close_when_idle(link: &Link) {
    for fault in link.take_events() {
        if let FaultKind::IdleClose { after_ms } = fault {
            link.close_when_idle(Duration::from_millis(after_ms));
        }
    }
}

async fn stall(for_ms: Option<u64>, shutdown: &CancellationToken) {
    match for_ms {
        Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        None => shutdown.cancelled().await,
    }
}

fn event(data: &str) -> Bytes {
    format!("data: {data}\n\n").into()
}
