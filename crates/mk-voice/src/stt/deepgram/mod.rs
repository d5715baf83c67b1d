//! Deepgram, over its websockets: Flux, which finds turns itself, and Nova, which finds words.
//!
//! A conversation has one connection at a time, and one task that holds it, which ends with the conversation.
//!
//! **When a connection is lost** (said once, however often it is tried to make another), audio goes on being taken, and
//! is kept for a while. The next connection hears it, no faster than Deepgram allows. Where there is no turn, it begins
//! where the lost one stopped to listen. A turn that is open stays open. Flux hears it again from its beginning, and what
//! it makes of it replaces what was known; Nova hears it again from the last final word. So nothing is said twice; and
//! words whose audio is not kept any more stay, so that nothing is lost. A partial text is not passed on before all is
//! heard again that had been heard. The turn ends with the text it had where the next connection finds none, or where
//! there is no connection for five seconds.
//!
//! What cannot become better (a wrong key, audio that is none, a message that is not understood) ends the conversation;
//! all else is tried again after a while, longer each time, up to eight seconds or what the server asks for. Where the
//! first connection does not come about, `Lost` comes before `Connected`, and `Restored` after it.
//!
//! **Pauses.** Deepgram takes audio for money, and closes what is silent for ten seconds. While the input pauses (the
//! microphone is off), silence is sent as long as a turn is open, since without audio no turn ends. Between turns nothing
//! is sent: Nova's connection is kept with `KeepAlive`; Flux knows no such thing, so its connection is closed after five
//! seconds and made again when there is audio. That audio is kept, heard late by the time a connection takes, and caught
//! up with within seconds; none of it is lost, and nothing is said of it.

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
mod patience;
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
