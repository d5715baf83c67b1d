//! What ends a speech that the model does not end by itself.
//!
//! A published model fails to sample its end once in some hundred utterances, and then hums, falls silent or repeats
//! itself up to the limit of its context. A [`Guard`] watches the frames and the samples of one speech and says when
//! that has happened. It decides nothing else: what it is given is part of the speech, the caller stops after it.

use std::collections::VecDeque;
use std::time::Duration;

/// What a [`Guard`] stops at. Everything may be turned off by itself; [`GuardOptions::none`] turns off all.
#[derive(Debug, Clone, PartialEq)]
pub struct GuardOptions {
    /// Frames after which every speech ends.
    pub max_frames: Option<usize>,
    /// Frames by the length of the text.
    pub length: Option<LengthRule>,
    /// Silence.
    pub silence: Option<SilenceRule>,
    /// Repetition.
    pub repetition: Option<RepetitionRule>,
}

/// Ends a speech of more frames than `extra_frames + frames_per_token * tokens`.
///
/// Speech takes 3 to 5 text tokens a second, so 2.5 to 4.2 frames a token at 12.5 frames a second. A digit by itself or
/// a long word takes up to 15, but not every token is one. The default of 12.5, one second a token, leaves three
/// times what is usual for the slowest voice that an instruction may ask for; its 75 extra frames (6 s) leave room for
/// what a short text may hold: a number, a laugh, a pause.
#[derive(Debug, Clone, PartialEq)]
pub struct LengthRule {
    /// Frames for each token of the text.
    pub frames_per_token: f32,
    /// Frames for a text of any length.
    pub extra_frames: usize,
}

/// Ends a speech after silence without a break: every 20 ms of it below a level.
///
/// Pauses between sentences last up to a second, and those that a text or an instruction asks for two or three.
#[derive(Debug, Clone, PartialEq)]
pub struct SilenceRule {
    /// Root mean square below which 20 ms are silent, full scale being 1. Default: 0.002 (-54 dB).
    pub rms: f32,
    /// How long. Default: 4 s.
    pub duration: Duration,
}

/// Ends a speech whose frames come round and round: each equal to the one `p` frames before, for some `p` of at most
/// `max_period`, for as long as one of the limits below and for three rounds at least.
///
/// Codes are sampled, so that sixteen equal ones in a row of frames are no accident but the codec's digital silence or
/// a loop, and either is over within two seconds in real speech. Code 0, which carries the sounds of the language, is
/// coarser: a held vowel or a pause repeats it for a second or two, and so it takes longer to tell.
#[derive(Debug, Clone, PartialEq)]
pub struct RepetitionRule {
    /// Frames of the longest cycle. Default: 25 (2 s).
    pub max_period: usize,
    /// Frames that repeat in all their codes. Default: 40 (3.2 s).
    pub all_codes: usize,
    /// Frames that repeat in code 0. Default: 100 (8 s).
    pub first_code: usize,
}

/// Why a speech was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// It has as many frames as it may have at all, or as its text may take.
    Length,
    /// It has fallen silent.
    Silence,
    /// Its frames repeat.
    Repetition,
}

impl Default for GuardOptions {
    fn default() -> Self {
        Self {
            max_frames: None,
            length: Some(LengthRule::default()),
            silence: Some(SilenceRule::default()),
            repetition: Some(RepetitionRule::default()),
        }
    }
}

impl GuardOptions {
    /// No guard at all.
    pub fn none() -> Self {
        Self { max_frames: None, length: None, silence: None, repetition: None }
    }
}

impl Default for LengthRule {
    fn default() -> Self {
        Self { frames_per_token: 12.5, extra_frames: 75 }
    }
}

impl Default for SilenceRule {
    fn default() -> Self {
        Self { rms: 0.002, duration: Duration::from_secs(4) }
    }
}

impl Default for RepetitionRule {
    fn default() -> Self {
        Self { max_period: 25, all_codes: 40, first_code: 100 }
    }
}

/// Watches one speech.
#[derive(Debug, Clone)]
pub struct Guard {
    options: GuardOptions,
    frames: usize,
    tokens: usize,
    silence: Silence,
    repetition: Repetition,
}

impl Guard {
    /// `sample_rate` is that of what [`Guard::samples`] will be given.
    pub fn new(options: GuardOptions, sample_rate: u32) -> Self {
        let silence = Silence::new(sample_rate);
        let repetition = Repetition::new(options.repetition.as_ref());
        Self { options, frames: 0, tokens: 0, silence, repetition }
    }

    /// Says that the text has `count` tokens more. To be called before the frames that speak them.
    pub fn text(&mut self, count: usize) {
        self.tokens = self.tokens.saturating_add(count);
    }

    /// Takes the codes of the next frame, code 0 first.
    pub fn frame(&mut self, codes: &[u32]) -> Option<Stop> {
        self.frames += 1;
        if self.frames >= self.limit() {
            return Some(Stop::Length);
        }
        let rule = self.options.repetition.as_ref()?;
        self.repetition.push(codes, rule).then_some(Stop::Repetition)
    }

    /// Takes the next samples, any number of them.
    pub fn samples(&mut self, samples: &[f32]) -> Option<Stop> {
        let rule = self.options.silence.as_ref()?;
        self.silence.push(samples, rule).then_some(Stop::Silence)
    }

    /// Frames of the longest speech that the text so far may have.
    pub fn limit(&self) -> usize {
        let by_text = self.options.length.as_ref().map_or(usize::MAX, |rule| {
            let by_token = f64::from(rule.frames_per_token) * self.tokens as f64;
            // A float out of range becomes the nearest integer, and NaN 0.
            rule.extra_frames.saturating_add(by_token.ceil() as usize)
        });
        self.options.max_frames.map_or(by_text, |frames| frames.min(by_text))
    }
}

/// How long it has been silent.
#[derive(Debug, Clone)]
struct Silence {
    /// Samples of a block.
    block: usize,
    sample_rate: u32,
    /// The sum of squares of the block that has begun, and its samples so far.
    energy: f64,
    filled: usize,
    /// Samples of the silent blocks before it.
    silent: u64,
}

impl Silence {
    fn new(sample_rate: u32) -> Self {
        let block = (sample_rate / 50).max(1) as usize;
        Self { block, sample_rate, energy: 0.0, filled: 0, silent: 0 }
    }

    /// Whether the silence is long enough at the end of any block.
    fn push(&mut self, samples: &[f32], rule: &SilenceRule) -> bool {
        let limit = rule.duration.as_secs_f64() * f64::from(self.sample_rate);
        let level = f64::from(rule.rms).powi(2) * self.block as f64;
        let mut stop = false;
        for &sample in samples {
            self.energy += f64::from(sample).powi(2);
            self.filled += 1;
            if self.filled == self.block {
                let quiet = self.energy < level;
                self.silent = if quiet { self.silent + self.block as u64 } else { 0 };
                (self.energy, self.filled) = (0.0, 0);
                stop |= quiet && self.silent as f64 >= limit;
            }
        }
        stop
    }
}

/// For how many frames the codes have been those of `p` frames before.
#[derive(Debug, Clone)]
struct Repetition {
    /// The frames before, newest first; as many as the longest cycle has.
    history: VecDeque<Vec<u32>>,
    /// By `p - 1`: frames in a row that repeat in all codes, and in code 0.
    runs: Vec<[usize; 2]>,
}

impl Repetition {
    fn new(rule: Option<&RepetitionRule>) -> Self {
        let periods = rule.map_or(0, |rule| rule.max_period);
        Self { history: VecDeque::new(), runs: vec![[0; 2]; periods] }
    }

    /// Whether a cycle has lasted for long enough.
    fn push(&mut self, codes: &[u32], rule: &RepetitionRule) -> bool {
        let mut stop = false;
        for (i, before) in self.history.iter().enumerate() {
            let rounds = 3 * (i + 1);
            let same = [before == codes, before.first() == codes.first()];
            let limits = [rule.all_codes, rule.first_code];
            for ((run, same), limit) in self.runs[i].iter_mut().zip(same).zip(limits) {
                *run = if same { *run + 1 } else { 0 };
                stop |= *run >= limit.max(rounds);
            }
        }
        if self.history.len() == self.runs.len() {
            self.history.pop_back();
        }
        if !self.runs.is_empty() {
            self.history.push_front(codes.to_vec());
        }
        stop
    }
}

#[cfg(test)]
mod tests {
    use mk_model::rng::philox;

    use super::*;

    const RATE: u32 = 24_000;

    fn only(change: impl FnOnce(&mut GuardOptions)) -> Guard {
        let mut options = GuardOptions::none();
        change(&mut options);
        Guard::new(options, RATE)
    }

    /// The number of frames taken until the guard stops, and why.
    fn stopped_after(
        guard: &mut Guard,
        frames: impl IntoIterator<Item = Vec<u32>>,
    ) -> Option<(usize, Stop)> {
        let mut frames = frames.into_iter().enumerate();
        frames.find_map(|(i, codes)| guard.frame(&codes).map(|stop| (i + 1, stop)))
    }

    /// Speech as far as a guard is concerned: code 0 as coarse as it is, the others as good as never the same.
    fn speech(frame: usize) -> Vec<u32> {
        let [a, b, c, _] = philox(7, frame as u128);
        [vec![a % 40], vec![b % 2048; 14], vec![c % 2048]].concat()
    }

    fn tone(seconds: f32, amplitude: f32) -> Vec<f32> {
        let samples = (seconds * RATE as f32) as usize;
        (0..samples).map(|i| amplitude * (i as f32 * 0.05).sin()).collect()
    }

    #[test]
    fn a_speech_of_usual_length_is_let_be() {
        // Three tokens a second, in one voice at a third of that speed, and a digit by itself.
        for (tokens, frames) in [(40, 167), (40, 500), (1, 40)] {
            let mut guard = Guard::new(GuardOptions::default(), RATE);
            guard.text(tokens);
            assert_eq!(stopped_after(&mut guard, (0..frames).map(speech)), None);
        }
    }

    #[test]
    fn the_length_follows_the_text() {
        let mut guard = Guard::new(GuardOptions::default(), RATE);
        guard.text(10);
        assert_eq!(stopped_after(&mut guard, (0..).map(speech)), Some((200, Stop::Length)));
        // A live text grows while it is spoken.
        guard.text(1);
        assert_eq!(guard.limit(), 213);
        assert_eq!(stopped_after(&mut guard, (0..).map(speech)), Some((13, Stop::Length)));

        let mut guard = only(|options| options.max_frames = Some(7));
        guard.text(1_000);
        assert_eq!(stopped_after(&mut guard, (0..).map(speech)), Some((7, Stop::Length)));
    }

    #[test]
    fn any_numbers_will_do_for_options() {
        for frames_per_token in [f32::NAN, f32::INFINITY, -1.0, f32::MAX] {
            let length = LengthRule { frames_per_token, extra_frames: usize::MAX };
            let silence = SilenceRule { rms: f32::NAN, duration: Duration::MAX };
            let repetition = RepetitionRule { max_period: 0, all_codes: 0, first_code: 0 };
            let options = GuardOptions {
                max_frames: None,
                length: Some(length),
                silence: Some(silence),
                repetition: Some(repetition),
            };
            let mut guard = Guard::new(options, 0);
            guard.text(usize::MAX);
            guard.text(usize::MAX);
            assert_eq!(guard.frame(&[]), None);
            assert_eq!(guard.samples(&[0.0, f32::NAN]), None);
        }
    }

    #[test]
    fn nothing_stops_what_is_not_guarded() {
        let mut guard = only(|_| ());
        assert_eq!(stopped_after(&mut guard, vec![vec![1; 16]; 1_000]), None);
        assert_eq!(guard.samples(&vec![0.0; 1_000_000]), None);
    }

    #[test]
    fn silence_is_told_from_a_pause() {
        for size in [1920, 7, 50_000] {
            let mut guard = only(|options| options.silence = Some(SilenceRule::default()));
            let mut push =
                |samples: &[f32]| samples.chunks(size).find_map(|chunk| guard.samples(chunk));
            assert_eq!(push(&tone(2.0, 0.1)), None);
            // A pause with its noise, then speech, however soft.
            assert_eq!(push(&tone(3.9, 0.001)), None);
            assert_eq!(push(&tone(0.1, 0.01)), None);
            assert_eq!(push(&tone(3.9, 0.001)), None);
            assert_eq!(push(&tone(0.2, 0.0)), Some(Stop::Silence));
        }
    }

    #[test]
    fn samples_that_are_no_numbers_are_not_silent() {
        let mut guard = only(|options| options.silence = Some(SilenceRule::default()));
        assert_eq!(guard.samples(&vec![f32::NAN; 200_000]), None);
    }

    #[test]
    fn frames_that_come_round_are_found() {
        for period in [1, 2, 7, 25] {
            let mut guard = only(|options| options.repetition = Some(RepetitionRule::default()));
            let looped = (0..50).chain((0..).map(|i| 50 + i % period)).map(speech);
            let (frames, stop) = stopped_after(&mut guard, looped).expect("it loops");
            assert_eq!(stop, Stop::Repetition);
            assert_eq!(frames, 50 + period + 40.max(3 * period), "{period}");
        }
        // A loop longer than that is one that the length has to find.
        let mut guard = only(|options| options.repetition = Some(RepetitionRule::default()));
        let looped = (0..2_000).map(|i| speech(i % 26));
        assert_eq!(stopped_after(&mut guard, looped), None);
    }

    #[test]
    fn a_hum_is_told_from_a_held_vowel() {
        let hum = |frames: std::ops::Range<usize>| frames.map(|i| [vec![5], speech(i)].concat());
        let mut guard = only(|options| options.repetition = Some(RepetitionRule::default()));
        let held = (0..20).map(speech).chain(hum(20..110)).chain((110..200).map(speech));
        assert_eq!(stopped_after(&mut guard, held), None);
        assert_eq!(stopped_after(&mut guard, hum(200..400)), Some((101, Stop::Repetition)));
    }
}
