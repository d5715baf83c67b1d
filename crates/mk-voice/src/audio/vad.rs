//! Whether somebody speaks.

use std::fmt;
use std::time::Duration;

use earshot::Detector;

/// Samples a second that a [`Vad`] takes.
pub const VAD_RATE: u32 = 16_000;

/// Samples that are judged at a time: 16 ms.
pub const FRAME: usize = 256;

/// When speech is taken to begin and to end.
#[derive(Debug, Clone, PartialEq)]
pub struct VadOptions {
    /// Score, of 0 to 1, at which speech may begin. Default: 0.6.
    pub on: f32,
    /// Score below which it may end; not above `on`. Default: 0.4.
    pub off: f32,
    /// How long it must last to count: shorter than this are clicks and coughs. Default: 64 ms.
    pub min_speech: Duration,
    /// How long it must be over to count: pauses between words are shorter. Default: 300 ms.
    pub min_silence: Duration,
}

impl Default for VadOptions {
    fn default() -> Self {
        Self {
            on: 0.6,
            off: 0.4,
            min_speech: Duration::from_millis(64),
            min_silence: Duration::from_millis(300),
        }
    }
}

/// What a [`Vad`] finds. Positions are samples from the beginning of the stream, in steps of [`FRAME`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VadEvent {
    /// Speech began, and has lasted long enough by now.
    Started {
        /// Where it really began.
        at_sample: u64,
    },
    /// Speech ended, and has been over long enough by now.
    Stopped {
        /// Where it really ended.
        at_sample: u64,
    },
}

/// Finds speech in a stream of sound at [`VAD_RATE`].
pub struct Vad {
    detector: Box<Detector>,
    gate: Gate,
    /// Samples that make no whole frame yet.
    rest: Vec<i16>,
}

impl Vad {
    /// A detector at the beginning of a stream.
    pub fn new(options: VadOptions) -> Self {
        Self { detector: Box::default(), gate: Gate::new(&options), rest: Vec::new() }
    }

    /// Takes the next samples and returns what has become known by them.
    pub fn push(&mut self, samples: &[i16]) -> Vec<VadEvent> {
        let mut events = Vec::new();
        let mut samples = samples;
        if !self.rest.is_empty() {
            let (head, tail) = samples.split_at(samples.len().min(FRAME - self.rest.len()));
            self.rest.extend_from_slice(head);
            samples = tail;
            if self.rest.len() == FRAME {
                let frame = std::mem::take(&mut self.rest);
                events.extend(self.gate.push(self.detector.predict_i16(&frame)));
            }
        }
        let (frames, rest) = samples.as_chunks::<FRAME>();
        for frame in frames {
            events.extend(self.gate.push(self.detector.predict_i16(frame)));
        }
        self.rest.extend_from_slice(rest);
        events
    }

    /// Whether somebody speaks, as far as the events say.
    pub fn is_speech(&self) -> bool {
        self.gate.speech
    }
}

impl fmt::Debug for Vad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vad")
            .field("gate", &self.gate)
            .field("rest", &self.rest.len())
            .finish_non_exhaustive()
    }
}

/// From the scores of frames to the beginnings and ends of speech.
#[derive(Debug, Clone)]
struct Gate {
    on: f32,
    off: f32,
    /// Frames that make a beginning and an end, one at least.
    min_speech: u64,
    min_silence: u64,
    /// Frames so far.
    frames: u64,
    speech: bool,
    /// The frame at which speech seems to have begun or to have ended, if it does.
    turn: Option<u64>,
}

impl Gate {
    fn new(options: &VadOptions) -> Self {
        let frames = |time: Duration| {
            let samples = time.as_micros() * u128::from(VAD_RATE) / 1_000_000;
            u64::try_from(samples).unwrap_or(u64::MAX).div_ceil(FRAME as u64).max(1)
        };
        Self {
            on: options.on,
            off: options.off.min(options.on),
            min_speech: frames(options.min_speech),
            min_silence: frames(options.min_silence),
            frames: 0,
            speech: false,
            turn: None,
        }
    }

    fn push(&mut self, score: f32) -> Option<VadEvent> {
        let frame = self.frames;
        self.frames += 1;
        let speech = score >= self.off;
        if speech == self.speech {
            self.turn = None;
            return None;
        }
        // It begins with a score that is high, and goes on with one that is not low.
        if self.turn.is_none() && !self.speech && score < self.on {
            return None;
        }
        let turn = *self.turn.get_or_insert(frame);
        let least = if speech { self.min_speech } else { self.min_silence };
        if self.frames - turn < least {
            return None;
        }
        self.speech = speech;
        self.turn = None;
        let at_sample = turn * FRAME as u64;
        Some(if speech { VadEvent::Started { at_sample } } else { VadEvent::Stopped { at_sample } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: u64 = FRAME as u64;

    /// Events of scores, each of so many frames.
    fn events(scores: &[(f32, usize)], options: &VadOptions) -> Vec<VadEvent> {
        let mut gate = Gate::new(options);
        let frames = scores.iter().flat_map(|&(score, frames)| vec![score; frames]);
        frames.filter_map(|score| gate.push(score)).collect()
    }

    #[test]
    fn speech_is_found_where_it_begins_and_ends() {
        let found = events(&[(0.1, 10), (0.9, 20), (0.1, 30)], &VadOptions::default());
        let expected = [
            VadEvent::Started { at_sample: 10 * STEP },
            VadEvent::Stopped { at_sample: 30 * STEP },
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn clicks_and_short_pauses_do_not_count() {
        let options = VadOptions::default();
        assert!(events(&[(0.1, 5), (0.9, 3), (0.1, 5), (0.9, 3), (0.1, 30)], &options).is_empty());
        let found = events(&[(0.9, 10), (0.1, 18), (0.9, 5), (0.1, 18), (0.9, 1)], &options);
        assert_eq!(found, [VadEvent::Started { at_sample: 0 }]);
    }

    #[test]
    fn scores_between_the_thresholds_change_nothing() {
        let options = VadOptions::default();
        assert!(events(&[(0.5, 100)], &options).is_empty());
        let found = events(&[(0.9, 1), (0.5, 100)], &options);
        assert_eq!(found, [VadEvent::Started { at_sample: 0 }]);
    }

    #[test]
    fn times_of_zero_are_one_frame() {
        let options = VadOptions {
            min_speech: Duration::ZERO,
            min_silence: Duration::ZERO,
            ..VadOptions::default()
        };
        let found = events(&[(0.1, 1), (0.9, 1), (0.1, 1)], &options);
        let expected =
            [VadEvent::Started { at_sample: STEP }, VadEvent::Stopped { at_sample: 2 * STEP }];
        assert_eq!(found, expected);
    }

    /// Something like a vowel: pulses of a voice of 120 Hz through three formants.
    fn voice(samples: usize) -> Vec<i16> {
        let mut out = vec![0.0f64; samples];
        for (hertz, gain) in [(600.0, 1.0), (1_200.0, 0.6), (2_500.0, 0.3)] {
            let r = (-std::f64::consts::PI * 90.0 / 16_000.0f64).exp();
            let a = 2.0 * r * (std::f64::consts::TAU * hertz / 16_000.0f64).cos();
            let (mut last, mut before) = (0.0, 0.0);
            let mut phase = 0.0f64;
            for (i, out) in out.iter_mut().enumerate() {
                let pitch = 120.0 + 15.0 * (i as f64 / 4_000.0).sin();
                phase += pitch / 16_000.0;
                let pulse = if phase >= 1.0 {
                    phase -= 1.0;
                    1.0
                } else {
                    0.0
                };
                let loud = 0.6 + 0.4 * (i as f64 * std::f64::consts::TAU * 4.0 / 16_000.0).sin();
                let next = pulse * loud + a * last - r * r * before;
                (before, last) = (last, next);
                *out += next * gain;
            }
        }
        let peak = out.iter().fold(0.0f64, |peak, s| peak.max(s.abs()));
        out.iter().map(|s| (s / peak * 12_000.0) as i16).collect()
    }

    #[test]
    fn a_voice_between_silences_is_found_whatever_the_blocks() {
        let mut sound = vec![0i16; 16_000];
        sound.extend(voice(16_000));
        sound.extend(vec![0i16; 16_000]);
        let mut found = Vec::new();
        for block in [1, 100, 256, 320, 1_000, 48_000] {
            let mut vad = Vad::new(VadOptions::default());
            let events: Vec<VadEvent> =
                sound.chunks(block).flat_map(|part| vad.push(part)).collect();
            assert!(!vad.is_speech());
            found.push(events);
        }
        assert!(found.iter().all(|events| events == &found[0]));
        let [VadEvent::Started { at_sample: start }, VadEvent::Stopped { at_sample: stop }] =
            found[0][..]
        else {
            panic!("one beginning and one end, not {:?}", found[0]);
        };
        assert!(
            start.abs_diff(16_000) <= 1_600 && stop.abs_diff(32_000) <= 2_400,
            "{start} to {stop}"
        );
    }
}
