//! Samples to WAV files.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// How samples are stored in a WAV file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleFormat {
    /// 16-bit integers: samples are limited to [-1, 1], times 32767, rounded.
    I16,
    /// 32-bit floats, as they are.
    F32,
}

impl SampleFormat {
    fn bytes(self) -> u64 {
        match self {
            Self::I16 => 2,
            Self::F32 => 4,
        }
    }
}

/// The most bytes of samples that one file may hold: its header counts them in 32 bits, with its own.
const MOST_BYTES: u64 = u32::MAX as u64 - 4096;

/// A mono WAV file that is being written.
pub struct WavWriter {
    path: PathBuf,
    format: SampleFormat,
    writer: hound::WavWriter<BufWriter<File>>,
    written: u64,
}

impl WavWriter {
    /// Makes the file, or empties the one that is there.
    ///
    /// # Errors
    /// What the system says of it.
    pub fn create(path: impl AsRef<Path>, sample_rate: u32, format: SampleFormat) -> Result<Self> {
        let path = path.as_ref();
        let (bits_per_sample, sample_format) = match format {
            SampleFormat::I16 => (16, hound::SampleFormat::Int),
            SampleFormat::F32 => (32, hound::SampleFormat::Float),
        };
        let spec = hound::WavSpec { channels: 1, sample_rate, bits_per_sample, sample_format };
        let writer = hound::WavWriter::create(path, spec).map_err(|e| hound_error(path, e))?;
        Ok(Self { path: path.into(), format, writer, written: 0 })
    }

    /// Appends samples.
    ///
    /// # Errors
    /// Samples that are no numbers, more than a WAV file can hold (in both cases nothing of `samples` is written),
    /// and what the system says.
    pub fn write(&mut self, samples: &[f32]) -> Result<()> {
        let name = || self.path.display().to_string();
        super::finite(&name(), samples)?;
        let bytes = (self.written + samples.len() as u64) * self.format.bytes();
        if bytes > MOST_BYTES {
            return Err(Error::WavFull { path: self.path.clone(), most: MOST_BYTES });
        }
        for sample in samples {
            match self.format {
                SampleFormat::I16 => self.writer.write_sample(to_i16(*sample)),
                SampleFormat::F32 => self.writer.write_sample(*sample),
            }
            .map_err(|e| hound_error(&self.path, e))?;
        }
        self.written += samples.len() as u64;
        Ok(())
    }

    /// Writes what is still held back and the header's lengths. Without it, dropping the writer tries the same and
    /// says nothing of a failure.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(self) -> Result<()> {
        let path = self.path;
        self.writer.finalize().map_err(|e| hound_error(&path, e))
    }
}

/// Writes a whole mono WAV file.
///
/// # Errors
/// Those of [`WavWriter::write`].
pub fn write_wav(
    path: impl AsRef<Path>,
    samples: &[f32],
    sample_rate: u32,
    format: SampleFormat,
) -> Result<()> {
    let mut writer = WavWriter::create(path, sample_rate, format)?;
    writer.write(samples)?;
    writer.finish()
}

fn to_i16(sample: f32) -> i16 {
    (sample.clamp(-1.0, 1.0) * 32767.0).round() as i16
}

fn hound_error(path: &Path, error: hound::Error) -> Error {
    let source = match error {
        hound::Error::IoError(source) => source,
        other => std::io::Error::other(other),
    };
    Error::Io { path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::read;

    #[test]
    fn what_is_written_in_pieces_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.wav");
        let samples: Vec<f32> = (0..5_000).map(|i| (i as f32 * 0.01).sin() * 0.9).collect();
        for format in [SampleFormat::I16, SampleFormat::F32] {
            let mut writer = WavWriter::create(&path, 24_000, format).unwrap();
            for piece in samples.chunks(777) {
                writer.write(piece).unwrap();
            }
            writer.finish().unwrap();
            let back = read(&path).unwrap();
            assert_eq!(back.sample_rate, 24_000);
            assert_eq!(back.samples.len(), samples.len());
            let most = samples.iter().zip(&back.samples).map(|(a, b)| (a - b).abs());
            let most = most.fold(0.0, f32::max);
            match format {
                // Half a step, and the 32767 against 32768 of reading.
                SampleFormat::I16 => assert!(most < 1.6 / 32768.0, "{most}"),
                SampleFormat::F32 => assert_eq!(most, 0.0),
            }
        }
    }

    #[test]
    fn loud_samples_are_limited_and_nan_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.wav");
        write_wav(&path, &[2.0, -2.0, 1.0, -1.0], 8_000, SampleFormat::I16).unwrap();
        let back = read(&path).unwrap().samples;
        let full = 32767.0 / 32768.0;
        assert_eq!(back, [full, -full, full, -full]);
        let error = write_wav(&path, &[0.0, f32::NAN], 8_000, SampleFormat::F32).unwrap_err();
        assert!(matches!(error, Error::AudioNotFinite { index: 1, .. }), "{error}");
    }

    #[test]
    fn a_file_cannot_grow_past_its_header_and_a_folder_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer =
            WavWriter::create(dir.path().join("a.wav"), 24_000, SampleFormat::F32).unwrap();
        writer.written = MOST_BYTES / 4;
        writer.write(&[]).unwrap();
        assert!(matches!(writer.write(&[0.0]), Err(Error::WavFull { .. })));
        let nowhere = dir.path().join("no/such/a.wav");
        let error = write_wav(&nowhere, &[0.0], 24_000, SampleFormat::I16).unwrap_err();
        assert!(matches!(error, Error::Io { path, .. } if path == nowhere));
    }
}
