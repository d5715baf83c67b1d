//! When the things happened that a turn's report lists.

use std::time::Duration;

use crate::protocol::Stages;

/// Times since the beginning of the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Stamps {
    /// The user's speech ended; everything else counts from here.
    pub speech_end: Duration,
    pub transcript: Option<Duration>,
    pub first_token: Option<Duration>,
    pub first_clause: Option<Duration>,
    pub first_audio: Option<Duration>,
    pub first_sent: Option<Duration>,
    pub first_played: Option<Duration>,
}

impl Stamps {
    pub fn stages(&self) -> Stages {
        // What was begun before it was certain that the user had ended may be earlier than his end.
        let since =
            |at: Option<Duration>| Some(at?.saturating_sub(self.speech_end).as_secs_f64() * 1e3);
        Stages {
            transcript: since(self.transcript),
            first_token: since(self.first_token),
            first_clause: since(self.first_clause),
            first_audio: since(self.first_audio),
            first_sent: since(self.first_sent),
            first_played: since(self.first_played),
        }
    }
}
