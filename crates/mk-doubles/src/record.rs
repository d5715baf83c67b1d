//! What the doubles have received and done, for a test to look at.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::fault::FaultKind;

/// Control messages and complaints kept of one connection.
const KEPT_EACH: usize = 1024;

/// Everything received since the start: a snapshot.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Record {
    /// Connections to `/v1/listen` and `/v2/listen`, those refused too, in the order of their requests.
    pub listens: VecDeque<ListenRecord>,
    /// Requests to `/v1/chat/completions`, those refused too, in their order.
    pub chats: VecDeque<ChatRecord>,
    /// How many `listens` there have been, forgotten ones too.
    pub listens_total: u64,
    /// How many `chats` there have been, forgotten ones too.
    pub chats_total: u64,
}

/// The listening protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ListenApi {
    /// `/v1/listen`, Nova-3.
    V1,
    /// `/v2/listen`, Flux.
    V2,
}

/// One connection that brings audio.
#[derive(Debug, Clone, Serialize)]
pub struct ListenRecord {
    /// Its number, from 0.
    pub number: u64,
    /// Its `dg-request-id`.
    pub request_id: String,
    /// Its protocol.
    pub api: ListenApi,
    /// The query, decoded, in its order.
    pub query: Vec<(String, String)>,
    /// The headers that [`crate::DoublesOptions::headers`] names.
    pub headers: BTreeMap<String, String>,
    /// When the request came, after the start of the doubles.
    pub opened: Duration,
    /// The status of a refused upgrade.
    pub refused: Option<u16>,
    /// How it ended, if it has.
    pub end: Option<ListenEnd>,
    /// The samples of one channel received.
    pub samples: u64,
    /// Their length in seconds.
    pub audio_seconds: f64,
    /// Binary messages received.
    pub audio_messages: u64,
    /// Text messages received, as JSON; a string where they are none. The first 1,024.
    pub controls: Vec<Value>,
    /// How many of them were `KeepAlive`.
    pub keep_alives: u64,
    /// Messages sent.
    pub sent: u64,
    /// The most seconds of audio that were there too soon, at 1.25 times real time and after the first seconds.
    pub over_rate_seconds: f64,
    /// What the client did that the protocol forbids. The first 1,024.
    pub violations: Vec<String>,
    /// The faults that hit it.
    pub faults: Vec<FaultKind>,
}

/// How a listening connection ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ListenEnd {
    /// The client asked for it by `CloseStream` or an empty message.
    CloseStream,
    /// The client sent a close frame with this code.
    ClientClosed(Option<u16>),
    /// The client's connection was gone.
    ClientGone,
    /// The double closed it with this code and reason.
    Closed(u16, String),
    /// The doubles were shut down.
    Shutdown,
}

/// One request for a completion.
#[derive(Debug, Clone, Serialize)]
pub struct ChatRecord {
    /// Its number, from 0.
    pub number: u64,
    /// Its `x-request-id`.
    pub request_id: String,
    /// The connection that it came on, by which a client can be seen to keep one.
    pub connection: u64,
    /// The headers that [`crate::DoublesOptions::headers`] names.
    pub headers: BTreeMap<String, String>,
    /// When it came, after the start of the doubles.
    pub at: Duration,
    /// The body; a string where it is no JSON.
    pub request: Value,
    /// The status of the answer.
    pub status: u16,
    /// The reply of the script that was taken.
    pub reply: Option<usize>,
    /// Deltas with text or parts of a tool call that were sent.
    pub deltas_sent: usize,
    /// Whether all of the answer was sent.
    pub finished: bool,
    /// Whether the client was gone before that.
    pub hung_up: bool,
    /// The faults that hit it.
    pub faults: Vec<FaultKind>,
}

/// The record in the making, shared by all connections.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    started: Instant,
    /// Connections and requests kept.
    kept: usize,
    record: Arc<Mutex<Record>>,
    changes: Arc<watch::Sender<u64>>,
}

impl Recorder {
    pub(crate) fn new(kept: usize) -> Self {
        let (changes, _) = watch::channel(0);
        Self { started: Instant::now(), kept, record: Arc::default(), changes: Arc::new(changes) }
    }

    pub(crate) fn snapshot(&self) -> Record {
        self.lock().clone()
    }

    /// The time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits until `condition` holds, and gives the record then.
    pub(crate) async fn until(
        &self,
        limit: Duration,
        mut condition: impl FnMut(&Record) -> bool,
    ) -> Result<Record> {
        let mut changes = self.changes.subscribe();
        let wait = async {
            loop {
                changes.borrow_and_update();
                let holds = {
                    let record = self.lock();
                    condition(&record).then(|| record.clone())
                };
                match holds {
                    Some(record) => return record,
                    // The sender lives as long as `self`.
                    None => drop(changes.changed().await),
                }
            }
        };
        tokio::time::timeout(limit, wait).await.map_err(|_| Error::Waited { limit })
    }

    /// Adds a connection; `make` is given its number.
    pub(crate) fn listen(&self, make: impl FnOnce(u64) -> ListenRecord) -> ListenEntry {
        let number = {
            let mut record = self.lock();
            let number = record.listens_total;
            record.listens_total += 1;
            record.listens.push_back(make(number));
            if record.listens.len() > self.kept {
                record.listens.pop_front();
            }
            number
        };
        self.changed();
        ListenEntry { recorder: self.clone(), number }
    }

    /// Adds a request; `make` is given its number.
    pub(crate) fn chat(&self, make: impl FnOnce(u64) -> ChatRecord) -> ChatEntry {
        let number = {
            let mut record = self.lock();
            let number = record.chats_total;
            record.chats_total += 1;
            record.chats.push_back(make(number));
            if record.chats.len() > self.kept {
                record.chats.pop_front();
            }
            number
        };
        self.changed();
        ChatEntry { recorder: self.clone(), number }
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// A connection's place in the record.
#[derive(Debug)]
pub(crate) struct ListenEntry {
    recorder: Recorder,
    number: u64,
}

impl ListenEntry {
    /// Changes the entry, if it is still kept.
    pub(crate) fn update(&self, change: impl FnOnce(&mut ListenRecord)) {
        {
            let mut record = self.recorder.lock();
            // Numbers rise by one, so that the place follows from the last one.
            let back = record.listens_total - self.number;
            let index = (record.listens.len() as u64).checked_sub(back);
            if let Some(entry) = index.and_then(|index| record.listens.get_mut(index as usize)) {
                change(entry);
            }
        }
        self.recorder.changed();
    }

    /// Notes a breach of the protocol.
    pub(crate) fn violation(&self, what: impl Into<String>) {
        self.update(|entry| {
            if entry.violations.len() < KEPT_EACH {
                entry.violations.push(what.into());
            }
        });
    }

    /// Notes a text message.
    pub(crate) fn control(&self, message: Value) {
        self.update(|entry| {
            entry.keep_alives += u64::from(message["type"] == "KeepAlive");
            if entry.controls.len() < KEPT_EACH {
                entry.controls.push(message);
            }
        });
    }
}

/// A request's place in the record.
#[derive(Debug)]
pub(crate) struct ChatEntry {
    recorder: Recorder,
    number: u64,
}

impl ChatEntry {
    /// Changes the entry, if it is still kept.
    pub(crate) fn update(&self, change: impl FnOnce(&mut ChatRecord)) {
        {
            let mut record = self.recorder.lock();
            let back = record.chats_total - self.number;
            let index = (record.chats.len() as u64).checked_sub(back);
            if let Some(entry) = index.and_then(|index| record.chats.get_mut(index as usize)) {
                change(entry);
            }
        }
        self.recorder.changed();
    }
}
