//! Short-time Fourier transform, a column of the picture at a time.

use realfft::RealFftPlanner;

/// Samples of a window: 43 ms at 24 kHz, in which the harmonics of a voice are told apart.
const WINDOW: usize = 1024;
/// Silence, in dB.
const FLOOR: f32 = -200.0;

/// How loud every frequency is, over time.
pub struct Spectrogram {
    /// dB, `[columns][bins]`: bins from 0 Hz to half the sample rate, both included.
    levels: Vec<f32>,
    loudest: f32,
}

impl Spectrogram {
    /// Of windows around `columns` points that are spread evenly over the samples.
    pub fn new(samples: &[f32], columns: usize) -> Self {
        let fft = RealFftPlanner::<f32>::new().plan_fft_forward(WINDOW);
        let (mut input, mut output) = (fft.make_input_vec(), fft.make_output_vec());
        let mut levels = Vec::with_capacity(columns * output.len());
        for column in 0..columns {
            let middle = (2 * column + 1) * samples.len() / (2 * columns);
            for (i, value) in input.iter_mut().enumerate() {
                let sample = (middle + i).checked_sub(WINDOW / 2).and_then(|at| samples.get(at));
                *value = sample.copied().unwrap_or_default() * hann(i);
            }
            // It fails for buffers of other sizes than it made itself, and for nothing else.
            if fft.process(&mut input, &mut output).is_err() {
                output.fill_with(Default::default);
            }
            levels.extend(output.iter().map(|bin| (10.0 * bin.norm_sqr().log10()).max(FLOOR)));
        }
        let loudest = levels.iter().copied().fold(FLOOR + 1.0, f32::max);
        Self { levels, loudest }
    }

    /// The levels in dB of each column.
    pub fn columns(&self) -> impl Iterator<Item = &[f32]> {
        self.levels.chunks(WINDOW / 2 + 1)
    }

    /// The highest level, in dB.
    pub fn loudest(&self) -> f32 {
        self.loudest
    }
}

/// The level at a place from 0 (0 Hz) to 1 (half the sample rate).
pub fn between(levels: &[f32], place: f32) -> f32 {
    let position = place * (levels.len() - 1) as f32;
    let below = (position as usize).min(levels.len() - 2);
    let part = position - below as f32;
    levels[below] * (1.0 - part) + levels[below + 1] * part
}

/// Periodic Hann window.
fn hann(i: usize) -> f32 {
    let phase = std::f32::consts::TAU * i as f32 / WINDOW as f32;
    0.5 - 0.5 * phase.cos()
}
