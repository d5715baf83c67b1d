//! Audio files in and out: any container, rate and channel count to mono samples, and samples to WAV.
//!
//! [`read`] and [`decode`] give [`Audio`]; [`Audio::resample`] brings it to the rate a model wants;
//! [`check_reference`] says whether it will do as the reference of a cloned voice. [`WavWriter`] writes a file of any
//! length piece by piece, [`write_wav`] a whole one.

mod decode;
mod resample;
mod wav;

pub use decode::{MAX_SECONDS, decode, read};
pub use wav::{SampleFormat, WavWriter, write_wav};

use crate::error::{Error, Result};

/// Shortest reference that is taken, in seconds: less says too little of a voice.
pub const MIN_REFERENCE_SECONDS: f64 = 1.0;
/// Longest reference that is taken, in seconds: each one costs 12.5 positions of the talker's context.
pub const MAX_REFERENCE_SECONDS: f64 = 60.0;
/// Quietest reference that is taken, as root mean square in dB of full scale: below it there is only noise.
pub const MIN_REFERENCE_DB: f64 = -60.0;

/// Mono sound.
#[derive(Debug, Clone, PartialEq)]
pub struct Audio {
    /// Samples, full scale at -1 and 1; all finite when they come from [`read`] or [`decode`].
    pub samples: Vec<f32>,
    /// Samples a second.
    pub sample_rate: u32,
}

impl Audio {
    /// Length in seconds; 0 at a rate of 0.
    pub fn seconds(&self) -> f64 {
        match self.sample_rate {
            0 => 0.0,
            rate => self.samples.len() as f64 / f64::from(rate),
        }
    }

    /// Root mean square in dB of full scale; minus infinity for silence and for no samples at all.
    pub fn rms_db(&self) -> f64 {
        let energy: f64 = self.samples.iter().map(|s| f64::from(*s).powi(2)).sum();
        10.0 * (energy / self.samples.len().max(1) as f64).log10()
    }
}

/// Whether `audio` will do as the reference of a cloned voice.
///
/// # Errors
/// [`Error::ReferenceTooShort`], [`Error::ReferenceTooLong`], [`Error::ReferenceSilent`], or
/// [`Error::AudioNotFinite`] for samples that no file gave.
pub fn check_reference(audio: &Audio) -> Result<()> {
    let seconds = audio.seconds();
    if seconds < MIN_REFERENCE_SECONDS {
        return Err(Error::ReferenceTooShort { seconds, least: MIN_REFERENCE_SECONDS });
    }
    if seconds > MAX_REFERENCE_SECONDS {
        return Err(Error::ReferenceTooLong { seconds, most: MAX_REFERENCE_SECONDS });
    }
    finite("the reference", &audio.samples)?;
    let db = audio.rms_db();
    if db < MIN_REFERENCE_DB {
        return Err(Error::ReferenceSilent { db, least: MIN_REFERENCE_DB });
    }
    Ok(())
}

/// An error that names the first sample that is no number, if there is one.
pub(crate) fn finite(name: &str, samples: &[f32]) -> Result<()> {
    match samples.iter().position(|s| !s.is_finite()) {
        Some(index) => Err(Error::AudioNotFinite { name: name.into(), index }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(seconds: f64, amplitude: f32) -> Audio {
        let count = (seconds * 24_000.0) as usize;
        let samples = (0..count).map(|i| amplitude * (i as f32 * 0.1).sin()).collect();
        Audio { samples, sample_rate: 24_000 }
    }

    #[test]
    fn a_reference_is_neither_short_nor_long_nor_silent() {
        assert!(check_reference(&sine(3.0, 0.1)).is_ok());
        let short = check_reference(&sine(0.5, 0.1)).unwrap_err();
        assert!(matches!(short, Error::ReferenceTooShort { seconds, .. } if seconds == 0.5));
        let long = check_reference(&sine(61.0, 0.1)).unwrap_err();
        assert!(matches!(long, Error::ReferenceTooLong { .. }), "{long}");
        let silent = check_reference(&sine(3.0, 1e-4)).unwrap_err();
        assert!(
            matches!(silent, Error::ReferenceSilent { db, .. } if (db + 83.0).abs() < 0.1),
            "{silent}"
        );
        let zeros = check_reference(&sine(3.0, 0.0)).unwrap_err();
        assert!(matches!(zeros, Error::ReferenceSilent { db, .. } if db == f64::NEG_INFINITY));
    }

    #[test]
    fn a_reference_made_elsewhere_may_hold_no_nan_and_needs_a_rate() {
        let mut audio = sine(2.0, 0.1);
        audio.samples[70] = f32::NAN;
        let error = check_reference(&audio).unwrap_err();
        assert!(matches!(error, Error::AudioNotFinite { index: 70, .. }), "{error}");
        let rateless = Audio { samples: vec![0.5; 100_000], sample_rate: 0 };
        assert!(matches!(check_reference(&rateless), Err(Error::ReferenceTooShort { .. })));
    }
}
