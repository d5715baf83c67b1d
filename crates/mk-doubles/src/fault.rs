//! Faults on demand: what goes wrong, where, and how often.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde::{Deserialize, Serialize};

use crate::wire::Link;

/// Faults that wait for the connections and requests they hit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Faults {
    /// Each has a budget of its own. A connection or request takes all that fit it.
    pub faults: Vec<Fault>,
}

/// One fault and its budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What it hits.
    pub on: Service,
    /// What happens.
    pub kind: FaultKind,
    /// Connections (`listen`) or requests (`chat`) that it hits. Default: 1.
    #[serde(default = "once")]
    pub times: u32,
    /// Those that it lets pass before. Default: 0.
    #[serde(default)]
    pub skip: u32,
}

/// The service that a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// `/v1/listen` and `/v2/listen`.
    Listen,
    /// `/v1/chat/completions`.
    Chat,
}

/// What goes wrong. Bytes are those written to the socket, HTTP's head and the websocket's frames with them; events are
/// the messages of a websocket, or the data lines of a stream. Both are counted from when the fault hits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// The TCP connection is reset after so many bytes.
    Drop {
        /// Bytes that are still written.
        after_bytes: u64,
    },
    /// Nothing is read or written any more after so many bytes, but the socket stays open.
    HalfOpen {
        /// Bytes that are still written.
        after_bytes: u64,
    },
    /// Writes are cut at any byte.
    Fragment {
        /// Bytes of each piece, from the first again after the last.
        sizes: Vec<usize>,
        /// Milliseconds between pieces.
        #[serde(default)]
        pause_ms: u64,
    },
    /// What the client sends is read slowly.
    SlowRead {
        /// Bytes a second.
        bytes_per_second: u32,
    },
    /// The request or the upgrade is refused.
    Status {
        /// 4xx or 5xx.
        status: u16,
        /// Seconds for a `retry-after` header.
        #[serde(default)]
        retry_after: Option<u32>,
        /// The error's code, as the service writes it: `insufficient_quota`, `INVALID_AUTH`… What fits the status, if it
        /// is absent.
        #[serde(default)]
        code: Option<String>,
    },
    /// The answer to the request or the upgrade comes late.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// No more events come, but what the client sends is still read.
    Stall {
        /// Events that are still sent.
        after_events: u64,
        /// Milliseconds after which those held back are sent; never, if it is absent.
        #[serde(default)]
        for_ms: Option<u64>,
    },
    /// One event is JSON that is cut in the middle.
    Malformed {
        /// Events before it.
        after_events: u64,
    },
    /// The service reports an error in the middle of a stream, and ends it (not so Nova-3, which goes on).
    Error {
        /// Events before it.
        after_events: u64,
        /// Its code: by default `INTERNAL_SERVER_ERROR` of Flux, `server_error` of chat.
        #[serde(default)]
        code: Option<String>,
    },
    /// The websocket is closed with a code.
    Close {
        /// Events before it.
        after_events: u64,
        /// The code.
        code: u16,
        /// The reason.
        #[serde(default)]
        reason: String,
    },
    /// The websocket is closed as idle, with 1011 `NET-0001`, after less time without audio than usual; for chat, the
    /// connection is closed when it has been unused for so long.
    IdleClose {
        /// Milliseconds.
        after_ms: u64,
    },
    /// Flux does not say that it is connected.
    NoConnected,
}

fn once() -> u32 {
    1
}

impl Fault {
    /// A fault that hits the next connection or request.
    pub fn next(on: Service, kind: FaultKind) -> Self {
        Self { on, kind, times: 1, skip: 0 }
    }

    /// The same fault for so many connections or requests.
    pub fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// The same fault after so many have passed.
    pub fn skip(self, skip: u32) -> Self {
        Self { skip, ..self }
    }
}

impl FaultKind {
    /// The events before it, for those that wait for some.
    pub(crate) fn after_events(&self) -> Option<u64> {
        match self {
            Self::Stall { after_events, .. }
            | Self::Malformed { after_events }
            | Self::Error { after_events, .. }
            | Self::Close { after_events, .. } => Some(*after_events),
            _ => None,
        }
    }
}

impl From<Vec<Fault>> for Faults {
    fn from(faults: Vec<Fault>) -> Self {
        Self { faults }
    }
}

/// The faults of running doubles. They can be changed at any time.
#[derive(Debug, Clone, Default)]
pub struct FaultControl {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Vec<Fault>,
    live: Vec<Live>,
}

/// A connection or a request that is being answered.
#[derive(Debug)]
struct Live {
    on: Service,
    link: Weak<Link>,
}

impl FaultControl {
    /// Puts these in the place of all that wait.
    pub fn set(&self, faults: impl Into<Faults>) {
        self.lock().waiting = faults.into().faults;
    }

    /// Adds one to those that wait.
    pub fn add(&self, fault: Fault) {
        self.lock().waiting.push(fault);
    }

    /// Forgets all that wait. What has been hit stays so.
    pub fn clear(&self) {
        self.lock().waiting.clear();
    }

    /// What still waits, with what is left of the budgets.
    pub fn waiting(&self) -> Faults {
        Faults { faults: self.lock().waiting.clone() }
    }

    /// Hits the connections that are open and the requests that are being answered, and says how many there were.
    /// [`FaultKind::Status`], [`FaultKind::Delay`] and [`FaultKind::NoConnected`] come too late for them.
    pub fn strike(&self, on: Service, kind: &FaultKind) -> usize {
        let mut shared = self.lock();
        shared.live.retain(|live| live.link.strong_count() > 0);
        let hit = shared.live.iter().filter(|live| live.on == on).filter_map(|l| l.link.upgrade());
        hit.map(|link| link.arm(kind)).count()
    }

    /// Takes what hits the next connection or request of this service.
    pub(crate) fn claim(&self, on: Service) -> Vec<FaultKind> {
        let mut shared = self.lock();
        let mut kinds = Vec::new();
        for fault in shared.waiting.iter_mut().filter(|fault| fault.on == on) {
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if fault.times > 0 {
                fault.times -= 1;
                kinds.push(fault.kind.clone());
            }
        }
        shared.waiting.retain(|fault| fault.times > 0);
        kinds
    }

    /// Makes a connection known to [`Self::strike`], for as long as it lives.
    pub(crate) fn watch(&self, on: Service, link: &Arc<Link>) {
        let mut shared = self.lock();
        let same =
            |live: &Live| live.on == on && std::ptr::eq(live.link.as_ptr(), &raw const **link);
        shared.live.retain(|live| live.link.strong_count() > 0 && !same(live));
        shared.live.push(Live { on, link: Arc::downgrade(link) });
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
