//! Why a websocket is closed: a code that programs act on, and a reason that the page shows.

use std::fmt::Display;

use axum::extract::ws::{CloseFrame, Message, close_code};

/// The last thing a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Goodbye {
    pub code: u16,
    pub reason: String,
}

impl Goodbye {
    /// The conversation came to its end.
    pub fn ended(reason: impl Display) -> Self {
        Self::new(close_code::NORMAL, reason)
    }

    /// The server stops.
    pub fn stopping() -> Self {
        Self::new(close_code::AWAY, "the server is being stopped")
    }

    /// The client does not keep to the protocol of websockets.
    pub fn protocol(reason: impl Display) -> Self {
        Self::new(close_code::PROTOCOL, reason)
    }

    /// The client sent what is not a message.
    pub fn unsupported(reason: impl Display) -> Self {
        Self::new(close_code::UNSUPPORTED, reason)
    }

    /// The client did what it may not.
    pub fn policy(reason: impl Display) -> Self {
        Self::new(close_code::POLICY, reason)
    }

    /// A message is too large.
    pub fn too_large(bytes: usize, limit: usize) -> Self {
        Self::new(close_code::SIZE, format!("a message of {bytes} bytes; {limit} is the limit"))
    }

    /// Something failed here.
    pub fn failed(reason: impl Display) -> Self {
        Self::new(close_code::ERROR, reason)
    }

    /// There are as many conversations as there may be.
    pub fn full(limit: usize) -> Self {
        let reason = format!("all {limit} conversations of this server are taken; try again later");
        Self::new(close_code::AGAIN, reason)
    }

    fn new(code: u16, reason: impl Display) -> Self {
        // A close frame has room for 123 bytes.
        let mut reason = reason.to_string();
        reason.truncate(reason.floor_char_boundary(123));
        Self { code, reason }
    }

    /// The frame.
    pub fn frame(&self) -> Message {
        Message::Close(Some(CloseFrame { code: self.code, reason: self.reason.as_str().into() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_letters() {
        let goodbye = Goodbye::failed("ü".repeat(100));
        assert_eq!(goodbye.reason, "ü".repeat(61));
    }
}
