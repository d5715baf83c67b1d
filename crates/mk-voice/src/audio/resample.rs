//! From one sample rate to another, as the sound comes.

use std::fmt;
use std::ops::RangeInclusive;

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{
    Async, FixedAsync, Indexing, Resampler as _, ResamplerConstructionError,
    SincInterpolationParameters, WindowFunction,
};

/// Rates that sound may have, in samples a second.
pub const RATES: RangeInclusive<u32> = 8_000..=96_000;

/// Taps of the low-pass at the lower of the two rates. Half of them are its delay: 4 ms at 16 kHz.
const TAPS: u32 = 128;

/// Two rates that cannot be joined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot bring sound from {from} to {to} samples a second: {reason}")]
pub struct RateError {
    /// The rate of the sound.
    pub from: u32,
    /// The rate wanted.
    pub to: u32,
    /// What is wrong.
    pub reason: String,
}

/// Brings a stream of sound to another rate. Time 0 stays where it was to a microsecond, and
/// the output never drifts: after
/// [`Resampler::finish`] there are `round(samples * to / from)` samples, however many came.
pub struct Resampler {
    from: u32,
    to: u32,
    /// None where both rates are the same.
    inner: Option<Inner>,
    /// Samples taken and given so far.
    taken: u64,
    given: u64,
}

struct Inner {
    filter: Async<f32>,
    /// Input that makes no whole block yet.
    rest: Vec<f32>,
    /// Samples of the filter's delay that are still to be dropped.
    delay: usize,
}

impl Resampler {
    /// A resampler at the beginning of a stream.
    ///
    /// # Errors
    /// [`RateError`] for a rate out of [`RATES`].
    pub fn new(from: u32, to: u32) -> Result<Self, RateError> {
        let error = |reason: String| RateError { from, to, reason };
        if !RATES.contains(&from) || !RATES.contains(&to) {
            let (least, most) = (RATES.start(), RATES.end());
            return Err(error(format!("rates of {least} to {most} are taken")));
        }
        let inner = if from == to {
            None
        } else {
            let filter = filter(from, to).map_err(|e| error(e.to_string()))?;

            // The first sample it gives belongs half a filter before the input, less one step of the output. Silence
            // before the sound makes that a whole number of steps, so that time 0 falls on a sample.
            let half = taps(from, to) / 2;
            let lead = (0..from).find(|lead| {
                (u64::from(half + lead) * u64::from(to)).is_multiple_of(u64::from(from))
            });
            let lead = lead.unwrap_or(0);
            let delay = (u64::from(half + lead) * u64::from(to) / u64::from(from)) as usize - 1;
            Some(Inner { filter, rest: vec![0.0; lead as usize], delay })
        };
        Ok(Self { from, to, inner, taken: 0, given: 0 })
    }

    /// Takes the next samples and returns what is known by them.
    pub fn push(&mut self, samples: &[i16]) -> Vec<i16> {
        self.taken += samples.len() as u64;
        let out = match &mut self.inner {
            Some(inner) => inner.push(samples.iter().map(|&sample| f32::from(sample))),
            None => samples.to_vec(),
        };
        self.given += out.len() as u64;
        out
    }

    /// Ends the stream, as if silence lay beyond it, and returns the rest.
    pub fn finish(mut self) -> Vec<i16> {
        let (from, to) = (u128::from(self.from), u128::from(self.to));
        let wanted = ((u128::from(self.taken) * to * 2 + from) / (from * 2)) as u64;
        let missing = wanted.saturating_sub(self.given) as usize;
        let mut out = Vec::new();
        if let Some(inner) = &mut self.inner {
            // What is missing is a few blocks at most; should the filter give nothing for them, silence follows.
            for _ in 0..missing.div_ceil(self.to as usize / 200) + 4 {
                let silence = inner.filter.input_frames_next();
                out.extend(inner.push(std::iter::repeat_n(0.0, silence)));
                if out.len() >= missing {
                    break;
                }
            }
        }
        out.resize(missing, 0);
        out
    }
}

/// Length of the filter, in samples of the input.
fn taps(from: u32, to: u32) -> u32 {
    (TAPS * from.max(to) / to).next_multiple_of(8)
}

fn filter(from: u32, to: u32) -> Result<Async<f32>, ResamplerConstructionError> {
    let parameters =
        SincInterpolationParameters::new(taps(from, to) as usize, WindowFunction::BlackmanHarris2);
    let ratio = f64::from(to) / f64::from(from);
    // Blocks of 10 ms.
    Async::new_sinc(ratio, 1.0, &parameters, from as usize / 100, 1, FixedAsync::Input)
}

impl Inner {
    fn push(&mut self, samples: impl Iterator<Item = f32>) -> Vec<i16> {
        self.rest.extend(samples);
        let mut out = Vec::new();
        let mut at = 0;
        loop {
            let block = self.filter.input_frames_next();
            let Some(samples) = self.rest.get(at..at + block) else { break };
            at += block;
            let room = self.filter.output_frames_next();
            let mut sound = vec![0.0f32; room];
            let given = {
                let input = InterleavedSlice::new(samples, 1, block);
                let output = InterleavedSlice::new_mut(&mut sound, 1, room);
                match (input, output) {
                    (Ok(input), Ok(mut output)) => {
                        let indexing: Option<&Indexing> = None;
                        self.filter.process_into_buffer(&input, &mut output, indexing)
                    }
                    _ => break,
                }
            };
            // Buffers of the sizes it asked for are the only thing it can complain of.
            let Ok((_, given)) = given else { break };
            let skipped = self.delay.min(given);
            self.delay -= skipped;
            out.extend(sound[skipped..given].iter().map(|sample| sample.round() as i16));
        }
        self.rest.drain(..at);
        out
    }
}

impl fmt::Debug for Resampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, taken, given, .. } = self;
        write!(f, "Resampler {{ from: {from}, to: {to}, taken: {taken}, given: {given} }}")
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    fn sine(rate: u32, hertz: f64, from: usize, count: usize) -> Vec<i16> {
        let at = |i: usize| (TAU * hertz * i as f64 / f64::from(rate) + 0.3).sin() * 10_000.0;
        (from..from + count).map(|i| at(i).round() as i16).collect()
    }

    fn resampled(from: u32, to: u32, sound: &[i16], block: usize) -> Vec<i16> {
        let mut resampler = Resampler::new(from, to).unwrap();
        let mut out: Vec<i16> = sound.chunks(block).flat_map(|part| resampler.push(part)).collect();
        out.extend(resampler.finish());
        out
    }

    /// Root mean square of the difference, away from the ends.
    fn error(a: &[i16], b: &[i16]) -> f64 {
        let middle = 400..a.len().min(b.len()) - 400;
        let squares = middle.clone().map(|i| (f64::from(a[i]) - f64::from(b[i])).powi(2));
        (squares.sum::<f64>() / middle.len() as f64).sqrt()
    }

    #[test]
    fn a_sine_stays_the_same_sine_in_the_same_place() {
        for from in
            [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_056, 44_100, 47_999, 48_000, 96_000]
        {
            for hertz in [100.0, 1_000.0, 3_300.0] {
                let count = from as usize / 2 + 7;
                let out = resampled(from, 16_000, &sine(from, hertz, 0, count), 333);
                let want = sine(16_000, hertz, 0, out.len());
                let error = error(&out, &want);
                // A microsecond's shift of a sine of 7071 (root mean square), and rounding.
                let most = 7_071.0 * TAU * hertz * 1e-6 + 4.0;
                assert!(error < most, "{from} Hz, a tone of {hertz} Hz: off by {error}");
            }
        }
    }

    #[test]
    fn what_is_above_the_new_band_goes() {
        for hertz in [9_000.0, 12_000.0, 20_000.0] {
            let out = resampled(48_000, 16_000, &sine(48_000, hertz, 0, 24_000), 480);
            assert!(error(&out, &vec![0; out.len()]) < 12.0, "{hertz} Hz");
        }
    }

    #[test]
    fn blocks_of_any_size_give_the_same_and_nothing_is_missing_at_the_end() {
        for (from, count) in
            [(48_000, 4_801), (44_100, 4_410), (8_000, 1), (11_025, 777), (16_000, 5)]
        {
            let sound = sine(from, 440.0, 0, count);
            let whole = resampled(from, 16_000, &sound, count);
            let length = (count as f64 * 16_000.0 / f64::from(from)).round() as usize;
            assert_eq!(whole.len(), length, "{count} samples at {from}");
            for block in [1, 7, 160, 1_000] {
                assert_eq!(resampled(from, 16_000, &sound, block), whole);
            }
        }
        assert!(resampled(48_000, 16_000, &[], 1).is_empty());
    }

    #[test]
    fn ten_minutes_do_not_drift() {
        // At 8 kHz to keep it short; the count of what comes out must follow that of what goes in all the time.
        let mut resampler = Resampler::new(11_025, 8_000).unwrap();
        let mut given = 0usize;
        for block in 0..6_000usize {
            given += resampler.push(&sine(11_025, 200.0, block * 1_102, 1_102)).len();
            let due = (block + 1) as f64 * 1_102.0 * 8_000.0 / 11_025.0;
            assert!(
                (due - 300.0..=due).contains(&(given as f64)),
                "{given} of {due} after {block}"
            );
        }
        let start = given;
        let tail = resampler.finish();
        assert_eq!(
            given + tail.len(),
            (6_000.0f64 * 1_102.0 * 8_000.0 / 11_025.0).round() as usize
        );
        let want = sine(8_000, 200.0, start, tail.len());
        for (at, (a, b)) in tail.iter().zip(want).enumerate().take(tail.len().saturating_sub(100)) {
            assert!((i32::from(*a) - i32::from(b)).abs() < 60, "sample {at} of the tail");
        }
    }

    #[test]
    fn loud_sound_is_clipped_and_odd_rates_are_errors() {
        let square: Vec<i16> =
            (0..4_800).map(|i| if i / 24 % 2 == 0 { i16::MAX } else { i16::MIN }).collect();
        let out = resampled(48_000, 16_000, &square, 480);
        assert!(out.contains(&i16::MAX) && out.contains(&i16::MIN));
        for (from, to) in [(0, 16_000), (16_000, 0), (7_999, 16_000), (96_001, 16_000)] {
            let error = Resampler::new(from, to).unwrap_err();
            assert_eq!((error.from, error.to), (from, to));
            assert!(error.to_string().contains("8000 to 96000"));
        }
    }
}
