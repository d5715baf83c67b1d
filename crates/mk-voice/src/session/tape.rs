//! What a conversation sounded like: the recorder's side of it.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::audio::Resampler;
use crate::protocol::AudioFrame;
use crate::record::Recording;

/// Records what was heard on both sides. What was sent ahead is written when its time has come, so that what the client
/// threw away is not in the recording.
pub(super) struct Tape {
    recording: Option<Recording>,
    /// From the client's rate to the recording's.
    resampler: Option<Resampler>,
    rate: u32,
    ahead: VecDeque<(Duration, AudioFrame)>,
    held: Option<Duration>,
}

impl Tape {
    /// Records at `rate`, which is that of the assistant's samples; the user's are at `user_rate`.
    ///
    /// # Errors
    /// The file cannot be written, or the rates cannot be; for people.
    pub fn new(path: &Path, user_rate: u32, rate: u32) -> Result<Self, String> {
        let resampler = Resampler::new(user_rate, rate).map_err(|error| error.to_string())?;
        let recording = Recording::create(path, rate).map_err(|error| error.to_string())?;
        let (recording, resampler) = (Some(recording), Some(resampler));
        Ok(Self { recording, resampler, rate, ahead: VecDeque::new(), held: None })
    }

    /// Records nothing.
    pub fn off() -> Self {
        Self { recording: None, resampler: None, rate: 1, ahead: VecDeque::new(), held: None }
    }

    /// The user's samples, the last of them at `now`.
    pub fn user(&mut self, samples: &[i16], now: Duration) {
        let Some(resampler) = &mut self.resampler else { return };
        let samples = resampler.push(samples);
        let long = Duration::from_secs_f64(samples.len() as f64 / f64::from(self.rate));
        self.write(|recording| recording.user(now.saturating_sub(long), &samples));
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
            (self.recording, self.resampler) = (None, None);
        }
    }
}
