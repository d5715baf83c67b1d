//! How doubles are started.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::fault::Faults;
use crate::script::{ChatScript, ListenScript};

/// What doubles answer, to whom, and where.
#[derive(Debug, Clone)]
pub struct DoublesOptions {
    /// Where to listen. Default: a free port of the loopback.
    pub bind: SocketAddr,
    /// The only key that Deepgram's double accepts; any or none, if it is absent.
    pub deepgram_key: Option<String>,
    /// The only key that OpenAI's double accepts; any or none, if it is absent.
    pub openai_key: Option<String>,
    /// What is heard.
    pub listen: ListenScript,
    /// What is answered.
    pub chat: ChatScript,
    /// What goes wrong.
    pub faults: Faults,
    /// The models that `/v1/models` names. Requests may ask for any other.
    pub models: Vec<String>,
    /// Names of the headers that are recorded, in lower case.
    pub headers: Vec<String>,
    /// Connections and requests kept in the record, of each kind; of more, the oldest are forgotten, but the totals go
    /// on. Default: 4096.
    pub kept: usize,
    /// How long a listening connection may be without audio before it is closed. Default: 10 s.
    pub idle: Duration,
    /// How many times faster than the real ones the doubles' clocks run: `idle`, the permitted rate of audio, and the
    /// delays of the chat script. Audio time is not touched. Default: 1.
    pub time_scale: f64,
    /// The size in bytes of the sockets' receive buffers, which bounds what a slow reader lets the client send; the
    /// system's choice, if it is absent.
    pub receive_buffer: Option<u32>,
    /// The seed of request ids and other random strings. Default: 0.
    pub seed: u64,
}

impl Default for DoublesOptions {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            deepgram_key: None,
            openai_key: None,
            listen: ListenScript::default(),
            chat: ChatScript::default(),
            faults: Faults::default(),
            models: ["gpt-4o-mini", "gpt-4.1-mini"].map(String::from).to_vec(),
            headers: ["user-agent", "content-type", "accept", "origin"].map(String::from).to_vec(),
            kept: 4096,
            idle: Duration::from_secs(10),
            time_scale: 1.0,
            receive_buffer: None,
            seed: 0,
        }
    }
}

impl DoublesOptions {
    /// Whether doubles can be started so.
    ///
    /// # Errors
    /// [`Error::Script`] and [`Error::Option`] that name what is wrong.
    pub fn check(&self) -> Result<()> {
        if !(self.time_scale.is_finite() && (1e-3..=1e6).contains(&self.time_scale)) {
            return Err(Error::Option { name: "time_scale", value: self.time_scale.to_string() });
        }
        self.listen.check()?;
        self.chat.check()
    }

    /// A time of the real service as it is here.
    pub(crate) fn scaled(&self, real: Duration) -> Duration {
        real.div_f64(self.time_scale)
    }
}
