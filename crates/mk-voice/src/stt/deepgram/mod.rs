//! Deepgram, over its websockets: Flux, which finds turns itself, and Nova, which finds words.
//!
//! A conversation has one connection at a time, which is held by a task of its own ([`supervisor`]). What is heard is
//! kept for a while; when a connection is lost, the next one hears it again, no faster than Deepgram allows, from where
//! the turn that is open began (Flux) or from the last final word (Nova). [`flux`] and [`nova`] say what becomes of a
//! turn that was open. A turn that is still open after five seconds without a connection ends with what is known of it.
//!
//! Deepgram takes audio for money, and closes what is silent for ten seconds. While the input pauses (the microphone is
//! off), silence is sent as long as a turn is open, since without audio no turn ends. Between turns nothing is sent:
//! Nova's connection is kept with `KeepAlive`; Flux knows no such thing, so its connection is closed after five seconds
//! and made again when there is audio, which is kept meanwhile. That is heard late by the time a connection takes, and
//! catches up within seconds.

mod clock;
mod feed;
mod flux;
mod kept;
mod link;
mod messages;
mod nova;
mod options;
mod outbox;
mod pace;
mod supervisor;
#[cfg(test)]
mod tests;
mod trouble;
mod turns;
mod words;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Stt, SttStream};
use link::{Network, Target};
pub use options::{DeepgramOptions, DeepgramOptionsError};
use supervisor::Supervisor;

/// Inputs that may wait: two seconds of frames of 20 ms.
const INPUTS: usize = 100;

/// Events that may wait.
const EVENTS: usize = 64;

/// Which of Deepgram's recognisers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Flux,
    Nova,
}

/// Deepgram's recognisers of speech.
#[derive(Debug)]
pub struct Deepgram {
    name: String,
    target: Arc<Target>,
    kept: Duration,
    counters: Arc<Counters>,
}

/// What was used, by all conversations together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeepgramUsage {
    /// Audio sent, which is what is paid for: that which was sent again and the silence of pauses included.
    pub audio: Duration,
    /// Connections made.
    pub connections: u64,
    /// Those of them that replaced one that was lost.
    pub reconnects: u64,
}

#[derive(Debug, Default)]
struct Counters {
    samples: AtomicU64,
    connections: AtomicU64,
    reconnects: AtomicU64,
}

impl Deepgram {
    /// Flux (`/v2/listen`): it finds turns itself.
    pub fn flux(options: DeepgramOptions) -> Result<Self, DeepgramOptionsError> {
        Self::new(Kind::Flux, options)
    }

    /// Nova (`/v1/listen`): turns end where [`super::SttInput::SpeechStopped`] says, or where it finds silence.
    pub fn nova(options: DeepgramOptions) -> Result<Self, DeepgramOptionsError> {
        Self::new(Kind::Nova, options)
    }

    fn new(kind: Kind, options: DeepgramOptions) -> Result<Self, DeepgramOptionsError> {
        crate::tls::init();
        options.check(kind)?;
        let url = options.address(kind)?;
        let name = match kind {
            Kind::Flux => format!("Deepgram Flux ({})", options.model(kind)),
            Kind::Nova => format!("Deepgram Nova ({})", options.model(kind)),
        };
        let timeout = options.connect_timeout;
        let target = Arc::new(Target { kind, url, key: options.key, timeout });
        Ok(Self { name, target, kept: options.kept, counters: Arc::default() })
    }

    /// What has been used so far.
    pub fn usage(&self) -> DeepgramUsage {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DeepgramUsage {
            audio: clock::duration(read(&self.counters.samples)),
            connections: read(&self.counters.connections),
            reconnects: read(&self.counters.reconnects),
        }
    }

    fn listen_by<D: link::Dial>(&self, dial: D) -> SttStream {
        let (input, inputs) = mpsc::channel(INPUTS);
        let (event, events) = mpsc::channel(EVENTS);
        let supervisor = Supervisor::new(
            dial,
            Arc::clone(&self.target),
            self.name.clone(),
            clock::samples(self.kept),
            Arc::clone(&self.counters),
            (inputs, event),
        );
        tokio::spawn(supervisor.run());
        SttStream { input, events }
    }
}

impl Stt for Deepgram {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn listen(&self) -> SttStream {
        self.listen_by(Network)
    }
}
