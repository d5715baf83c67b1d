//! From one sample rate to another.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler, WindowFunction};

use super::Audio;
use crate::error::{Error, Result};

/// Taps of the low-pass at the lower of the two rates, at least. The more there are, the nearer its edge is to the
/// lower Nyquist frequency: at 1024 it keeps 99 % of the band.
const TAPS: u64 = 1024;

impl Audio {
    /// The same sound at `rate` samples a second: a windowed sinc applied in blocks in the frequency domain.
    ///
    /// Its delay is taken out, so that time 0 stays where it was, and the ends are as if silence lay beyond them.
    /// Length: `round(samples * rate / sample_rate)`.
    ///
    /// # Errors
    /// [`Error::SampleRate`] for a rate, old or new, of 0 or so odd that no filter of a reasonable size joins the two.
    pub fn resample(&self, rate: u32) -> Result<Self> {
        if rate == self.sample_rate {
            return Ok(self.clone());
        }
        let count = self.samples.len();
        let samples =
            if count == 0 { Vec::new() } else { resample(&self.samples, self.sample_rate, rate)? };
        Ok(Self { samples, sample_rate: rate })
    }
}

fn resample(samples: &[f32], from: u32, to: u32) -> Result<Vec<f32>> {
    /// Blocks beyond this have gone wrong: rates of 1 and a million, say.
    const MOST: u64 = 1 << 22;
    let bad = |reason: String| Error::SampleRate { from, to, reason };
    if from == 0 || to == 0 {
        return Err(bad("a rate of 0".into()));
    }
    // A block is `pieces` times the shortest stretch that has a whole number of samples at both rates; an even
    // number, so that its middle, which is the delay, falls on a sample at both.
    let shared = gcd(from, to);
    let (short_in, short_out) = (u64::from(from / shared), u64::from(to / shared));
    let pieces = TAPS.div_ceil(short_in.min(short_out)).next_multiple_of(2);
    let block = pieces * short_in;
    if block.max(pieces * short_out) > MOST {
        return Err(bad("no short filter joins them".into()));
    }
    let mut resampler = Fft::<f32>::new_custom(
        from as usize,
        to as usize,
        block as usize,
        1,
        1,
        WindowFunction::BlackmanHarris2,
        FixedSync::Input,
    )
    .map_err(|e| bad(e.to_string()))?;
    let input = InterleavedSlice::new(samples, 1, samples.len()).map_err(|e| bad(e.to_string()))?;
    let output =
        resampler.process_all(&input, samples.len(), None).map_err(|e| bad(e.to_string()))?;
    let mut output = output.take_data();
    let length =
        (samples.len() as u128 * u128::from(to) * 2 + u128::from(from)) / (u128::from(from) * 2);
    output.resize(length as usize, 0.0);
    Ok(output)
}

/// Greatest common divisor of two numbers that are not 0.
fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    fn sine(rate: u32, count: usize, hertz: f64) -> Audio {
        let at = |i: usize| (TAU * hertz * i as f64 / f64::from(rate) + 0.3).sin() as f32 * 0.5;
        Audio { samples: (0..count).map(at).collect(), sample_rate: rate }
    }

    /// Root mean square of the difference between two sounds, away from their ends.
    fn error(a: &Audio, b: &Audio, margin: usize) -> f64 {
        let middle = margin..a.samples.len().min(b.samples.len()) - margin;
        let squares = middle.clone().map(|i| f64::from(a.samples[i] - b.samples[i]).powi(2));
        (squares.sum::<f64>() / middle.len() as f64).sqrt()
    }

    #[test]
    fn a_sine_stays_the_same_sine_in_the_same_place() {
        for from in [8_000, 11_025, 16_000, 22_050, 32_000, 44_056, 44_100, 48_000, 96_000, 192_000]
        {
            for hertz in [50.0, 440.0, 3_700.0] {
                let count = from as usize + 17;
                let out = sine(from, count, hertz).resample(24_000).unwrap();
                let want = sine(24_000, out.samples.len(), hertz);
                let error = error(&out, &want, 1_500);
                assert!(error < 2e-6, "{from} Hz, a tone of {hertz} Hz: off by {error:e}");
            }
        }
    }

    #[test]
    fn what_is_above_the_new_band_goes_and_what_is_just_below_stays() {
        let kept = sine(48_000, 48_000, 11_700.0).resample(24_000).unwrap();
        let want = sine(24_000, 24_000, 11_700.0);
        assert!(error(&kept, &want, 1_500) < 1e-4);
        let gone = sine(48_000, 48_000, 12_200.0).resample(24_000).unwrap();
        let silence = Audio { samples: vec![0.0; 24_000], sample_rate: 24_000 };
        assert!(error(&gone, &silence, 1_500) < 1e-4);
    }

    #[test]
    fn lengths_are_rounded_and_ends_are_whole() {
        for (from, to, count, want) in [
            (48_000, 24_000, 1, 1),
            (48_000, 24_000, 3, 2),
            (44_100, 24_000, 44_100, 24_000),
            (44_100, 24_000, 100, 54),
            (8_000, 24_000, 7, 21),
            (22_050, 24_000, 22_051, 24_001),
            (24_000, 24_000, 5, 5),
        ] {
            let out = Audio { samples: vec![0.25; count], sample_rate: from }.resample(to).unwrap();
            assert_eq!(out.samples.len(), want, "{count} samples from {from} to {to}");
            assert_eq!(out.sample_rate, to);
        }
        // The end of the sound is there, not cut off with the filter's delay.
        let out = sine(48_000, 48_000, 440.0).resample(24_000).unwrap();
        let want = sine(24_000, 24_000, 440.0);
        let last: Vec<f32> =
            (23_980..23_990).map(|i| (out.samples[i] - want.samples[i]).abs()).collect();
        assert!(last.iter().all(|e| *e < 0.02), "{last:?}");
    }

    #[test]
    fn nothing_stays_nothing_and_bad_rates_are_errors() {
        let empty = Audio { samples: Vec::new(), sample_rate: 8_000 };
        assert!(empty.resample(24_000).unwrap().samples.is_empty());
        let audio = Audio { samples: vec![0.0; 10], sample_rate: 0 };
        assert!(matches!(audio.resample(24_000), Err(Error::SampleRate { from: 0, .. })));
        let audio = Audio { samples: vec![0.0; 10], sample_rate: 44_100 };
        assert!(matches!(audio.resample(0), Err(Error::SampleRate { to: 0, .. })));
        assert!(matches!(audio.resample(u32::MAX), Err(Error::SampleRate { .. })));
    }
}
