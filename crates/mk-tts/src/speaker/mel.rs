//! The log-mel spectrogram that the speaker encoder reads: `mel_spectrogram` of qwen_tts' `modeling_qwen3_tts.py`,
//! with the arguments of its `extract_speaker_embedding`.

use std::sync::Arc;

use realfft::{RealFftPlanner, RealToComplex};

/// Samples a second of what goes in.
pub const SAMPLE_RATE: u32 = 24_000;
/// Mel bands.
pub const BANDS: usize = 128;
/// Samples in a window, which is also the length of the Fourier transform.
const WINDOW: usize = 1024;
/// Samples from one frame to the next.
const HOP: usize = 256;
/// Samples mirrored at either end, so that there are as many frames as whole hops.
const MIRRORED: usize = (WINDOW - HOP) / 2;
/// Frequencies of the transform.
const BINS: usize = WINDOW / 2 + 1;

/// Computes spectrograms; holds what does not depend on the sound.
pub struct MelSpectrogram {
    fft: Arc<dyn RealToComplex<f64>>,
    /// Periodic Hann window.
    window: Vec<f64>,
    /// One filter a band: the first bin it takes, and its weights from there on.
    filters: Vec<(usize, Vec<f64>)>,
}

impl MelSpectrogram {
    /// Fewest samples that can be mirrored at the ends and give a frame.
    pub const MIN_SAMPLES: usize = MIRRORED + 1;

    /// Prepares window, filters and transform.
    pub fn new() -> Self {
        let hann = |n: usize| 0.5 - 0.5 * (std::f64::consts::TAU * n as f64 / WINDOW as f64).cos();
        Self {
            fft: RealFftPlanner::new().plan_fft_forward(WINDOW),
            window: (0..WINDOW).map(hann).collect(),
            filters: filters(),
        }
    }

    /// Number of frames that so many samples give.
    pub fn frames(samples: usize) -> usize {
        samples / HOP
    }

    /// Fewest samples that give so many frames.
    pub fn samples(frames: usize) -> usize {
        frames * HOP
    }

    /// The spectrogram [`BANDS`][`Self::frames`] of mono samples at [`SAMPLE_RATE`], band-major: natural logarithms
    /// of band magnitudes, no less than ln 1e-5. `None` below [`Self::MIN_SAMPLES`].
    ///
    /// Computed in f64, which is nearer to the reference than the reference's f32 is to it.
    pub fn compute(&self, samples: &[f32]) -> Option<Vec<f32>> {
        if samples.len() < Self::MIN_SAMPLES {
            return None;
        }
        let frames = Self::frames(samples.len());
        let mut mel = vec![0.0; BANDS * frames];
        let mut time = self.fft.make_input_vec();
        let mut spectrum = self.fft.make_output_vec();
        let mut scratch = self.fft.make_scratch_vec();
        for frame in 0..frames {
            for (n, (value, window)) in time.iter_mut().zip(&self.window).enumerate() {
                *value = f64::from(samples[mirror(frame * HOP + n, samples.len())]) * window;
            }
            // The lengths are those that the transform gave; it refuses nothing else.
            self.fft.process_with_scratch(&mut time, &mut spectrum, &mut scratch).ok()?;
            let magnitude: Vec<f64> =
                spectrum.iter().map(|bin| (bin.norm_sqr() + 1e-9).sqrt()).collect();
            for (band, (first, weights)) in self.filters.iter().enumerate() {
                let sum: f64 = weights.iter().zip(&magnitude[*first..]).map(|(w, m)| w * m).sum();
                mel[band * frames + frame] = sum.max(1e-5).ln() as f32;
            }
        }
        Some(mel)
    }
}

impl Default for MelSpectrogram {
    fn default() -> Self {
        Self::new()
    }
}

/// Index of the sample at `position` of the padded sound, the ends being mirrored without being repeated.
fn mirror(position: usize, length: usize) -> usize {
    match position.checked_sub(MIRRORED) {
        None => MIRRORED - position,
        Some(inside) if inside < length => inside,
        Some(beyond) => 2 * (length - 1) - beyond,
    }
}

/// Triangular filters whose centres are evenly spaced in mel from 0 to 12 kHz, each of area 1 in hertz:
/// `librosa.filters.mel` with its defaults (Slaney's scale and norm).
fn filters() -> Vec<(usize, Vec<f64>)> {
    let top = hertz_to_mel(f64::from(SAMPLE_RATE) / 2.0);
    let edges: Vec<f64> =
        (0..BANDS + 2).map(|i| mel_to_hertz(top * i as f64 / (BANDS + 1) as f64)).collect();
    let bin_width = f64::from(SAMPLE_RATE) / WINDOW as f64;
    (0..BANDS)
        .map(|band| {
            let (low, centre, high) = (edges[band], edges[band + 1], edges[band + 2]);
            let weight = |bin: usize| {
                let hertz = bin as f64 * bin_width;
                let slope = ((hertz - low) / (centre - low)).min((high - hertz) / (high - centre));
                slope.max(0.0) * 2.0 / (high - low)
            };
            let first = (0..BINS).find(|bin| weight(*bin) > 0.0).unwrap_or(0);
            (first, (first..BINS).map(weight).take_while(|w| *w > 0.0).collect())
        })
        .collect()
}

/// Hertz below which Slaney's scale is linear.
const LINEAR_HERTZ: f64 = 1000.0;
/// Mel per hertz there.
const MEL_PER_HERTZ: f64 = 3.0 / 200.0;

/// Above [`LINEAR_HERTZ`], 27 mel are a factor of 6.4.
fn log_step() -> f64 {
    6.4f64.ln() / 27.0
}

fn hertz_to_mel(hertz: f64) -> f64 {
    if hertz < LINEAR_HERTZ {
        return hertz * MEL_PER_HERTZ;
    }
    LINEAR_HERTZ * MEL_PER_HERTZ + (hertz / LINEAR_HERTZ).ln() / log_step()
}

fn mel_to_hertz(mel: f64) -> f64 {
    let linear = LINEAR_HERTZ * MEL_PER_HERTZ;
    if mel < linear {
        return mel / MEL_PER_HERTZ;
    }
    LINEAR_HERTZ * (log_step() * (mel - linear)).exp()
}
