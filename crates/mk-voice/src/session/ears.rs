//! From the client's microphone to the recogniser and to the local detector of speech.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::audio::{RateError, Resampler, Vad, VadEvent, VadOptions};
use crate::stt::{SAMPLE_RATE, SttInput};
use crate::turn::Event;

/// Hears one client.
pub(super) struct Ears {
    resampler: Resampler,
    vad: Vad,
    stt: mpsc::Sender<SttInput>,
    /// Samples heard, at [`SAMPLE_RATE`].
    heard: u64,
    /// Samples that the recogniser had no room for.
    pub dropped: u64,
}

impl Ears {
    /// Hears audio at `sample_rate`.
    ///
    /// # Errors
    /// A rate that cannot be.
    pub fn new(
        sample_rate: u32,
        vad: &VadOptions,
        stt: mpsc::Sender<SttInput>,
    ) -> Result<Self, RateError> {
        let resampler = Resampler::new(sample_rate, SAMPLE_RATE)?;
        Ok(Self { resampler, vad: Vad::new(vad.clone()), stt, heard: 0, dropped: 0 })
    }

    /// Takes what the microphone heard until `now`; returns what there is to be said of it. While `deaf`, silence is
    /// heard in its place.
    pub fn hear(&mut self, samples: &[i16], deaf: bool, now: Duration) -> Vec<Event> {
        let mut samples = self.resampler.push(samples);
        if deaf {
            samples.fill(0);
        }
        self.heard += samples.len() as u64;
        let mut events = Vec::new();
        for event in self.vad.push(&samples) {
            match event {
                VadEvent::Started { .. } => {
                    self.tell(SttInput::SpeechStarted);
                    events.push(Event::SpeechStarted);
                }
                VadEvent::Stopped { at_sample } => {
                    let ago = self.heard.saturating_sub(at_sample) as f64 / f64::from(SAMPLE_RATE);
                    let at = now.saturating_sub(Duration::from_secs_f64(ago));
                    events.push(Event::SpeechStopped { at });
                }
            }
        }
        if !samples.is_empty() {
            let count = samples.len() as u64;
            if !self.tell(SttInput::Audio(samples)) {
                self.dropped += count;
            }
        }
        // After the audio, so that the recogniser has all of the speech when it is told that it ended.
        if events.iter().any(|event| matches!(event, Event::SpeechStopped { .. })) {
            self.tell(SttInput::SpeechStopped);
        }
        events
    }

    /// Whether there was room.
    fn tell(&self, input: SttInput) -> bool {
        self.stt.try_send(input).is_ok()
    }
}
