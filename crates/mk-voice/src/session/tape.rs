//! What a conversation sounded like: the recorder's side of it.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;

use crate::protocol::AudioFrame;
use crate::record::Recording;

/// Records what was heard on both sides. What was sent ahead is written when its time has come, so that what the client
/// threw away is not in the recording.
pub(super) struct Tape {
    recording: Option<Recording>,
    ahead: VecDeque<(Duration, AudioFrame)>,
    held: Option<Duration>,
}

impl Tape {
    pub fn new(recording: Option<Recording>) -> Self {
        Self { recording, ahead: VecDeque::new(), held: None }
    }

    /// The user's samples, at the recording's rate, the last of them at `now`.
    pub fn user(&mut self, samples: &[i16], sample_rate: u32, now: Duration) {
        let long = Duration::from_secs_f64(samples.len() as f64 / f64::from(sample_rate.max(1)));
        self.write(|recording| recording.user(now.saturating_sub(long), samples));
    }

    /// A frame that the client will play at `at`.
    pub fn assistant(&mut self, frame: AudioFrame, at: Duration) {
        if self.recording.is_some() {
            self.ahead.push_back((at, frame));
        }
    }

    pub fn pause(&mut self, now: Duration) {
        self.settle(now);
        self.held.get_or_insert(now);
    }

    pub fn resume(&mut self, now: Duration) {
        if let Some(since) = self.held.take() {
            self.ahead.iter_mut().for_each(|(at, _)| *at += now.saturating_sub(since));
        }
    }

    pub fn flush(&mut self, now: Duration) {
        self.settle(now);
        self.ahead.clear();
        self.held = None;
    }

    /// Writes what has been played by now.
    pub fn settle(&mut self, now: Duration) {
        let now = self.held.unwrap_or(now);
        while let Some((at, frame)) = self.ahead.pop_front_if(|(at, _)| *at <= now) {
            self.write(|recording| recording.assistant(at, &frame.samples));
        }
    }

    pub fn event(&mut self, now: Duration, event: &Value) {
        self.write(|recording| recording.event(now, event));
    }

    pub fn finish(mut self) {
        let last = self.ahead.back().map_or(Duration::ZERO, |&(at, _)| at);
        self.settle(last);
        if let Some(recording) = self.recording.take()
            && let Err(error) = recording.finish()
        {
            tracing::error!("the recording is not complete: {error}");
        }
    }

    /// A recording that fails ends; the conversation does not.
    fn write<E: std::fmt::Display>(&mut self, write: impl FnOnce(&mut Recording) -> Result<(), E>) {
        if let Some(recording) = &mut self.recording
            && let Err(error) = write(recording)
        {
            tracing::error!("the recording ends: {error}");
            self.recording = None;
        }
    }
}
