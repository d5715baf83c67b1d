//! A first and a last sample without a click.

use std::f32::consts::PI;

/// Lets the sound come up at its beginning and go down at its end, both as half a cosine. The end is not known before it
/// comes, so as many samples as a fade has are held back.
pub(crate) struct Fades {
    length: usize,
    /// Samples taken.
    taken: usize,
    held: Vec<f32>,
}

impl Fades {
    /// Fades of `length` samples; with none, all samples pass as they are.
    pub(crate) fn new(length: usize) -> Self {
        Self { length, taken: 0, held: Vec::new() }
    }

    /// Takes the next samples and gives those that cannot be among the last.
    pub(crate) fn push(&mut self, mut samples: Vec<f32>) -> Vec<f32> {
        let rest = self.length.saturating_sub(self.taken);
        for (i, sample) in samples.iter_mut().take(rest).enumerate() {
            *sample *= self.gain(self.taken + i);
        }
        self.taken += samples.len();
        self.held.append(&mut samples);
        let out = self.held.len().saturating_sub(self.length);
        self.held.drain(..out).collect()
    }

    /// Ends the sound: gives the samples that were held back.
    pub(crate) fn finish(&mut self) -> Vec<f32> {
        let mut last = std::mem::take(&mut self.held);
        let length = last.len();
        for (i, sample) in last.iter_mut().enumerate() {
            // A sound shorter than its fade ends all the same at zero.
            *sample *= self.gain(length - 1 - i);
        }
        last
    }

    fn gain(&self, distance: usize) -> f32 {
        0.5 - 0.5 * (PI * distance as f32 / self.length as f32).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faded(length: usize, sizes: &[usize]) -> Vec<f32> {
        let mut fades = Fades::new(length);
        let mut out = Vec::new();
        for size in sizes {
            out.extend(fades.push(vec![1.0; *size]));
        }
        out.extend(fades.finish());
        out
    }

    #[test]
    fn both_ends_are_zero_and_the_middle_is_untouched() {
        let out = faded(4, &[20]);
        assert_eq!(out.len(), 20);
        assert_eq!((out[0], out[19]), (0.0, 0.0));
        assert_eq!(&out[4..16], [1.0; 12]);
        assert!(out.windows(2).all(|pair| (pair[0] - pair[1]).abs() < 0.4));
    }

    #[test]
    fn cuts_make_no_difference() {
        let expected = faded(6, &[40]);
        for sizes in [&[1; 40][..], &[3, 37], &[7, 0, 20, 13], &[39, 1]] {
            assert_eq!(faded(6, sizes), expected);
        }
    }

    #[test]
    fn short_sounds_and_no_fade() {
        assert_eq!(faded(0, &[3, 2]), [1.0; 5]);
        assert!(faded(8, &[]).is_empty());
        let out = faded(8, &[3]);
        assert_eq!((out.len(), out[0], out[2]), (3, 0.0, 0.0));
    }
}
